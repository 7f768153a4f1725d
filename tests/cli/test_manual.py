"""spinenode(1): well-formed, and complete against what the verbs say of themselves."""

import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "node" / "spinenode.1"
VERBS = ["run", "check-config", "route", "infer", "jobs", "models", "quality", "version"]


@pytest.fixture(scope="module")
def text() -> str:
    done = subprocess.run(["man", "-l", str(PAGE)], capture_output=True, text=True, check=True,
                          env={"PATH": "/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""})
    return re.sub(r"\s+", " ", re.sub(".\b", "", done.stdout).replace("‐ ", "").replace("‐", "-"))


def test_manual__formats_without_a_warning():
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(PAGE)], capture_output=True)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize("verb", VERBS)
def test_manual__names_every_option_of_every_verb(cli, text, verb):
    assert f"spinenode {verb}" in text
    for option in set(re.findall(r"--[a-z-]+", cli(verb, "--help").stdout)) - {"--config"}:
        assert option in text, option
