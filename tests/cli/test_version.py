"""spinenode version: what was built in."""

import json
import re
import sqlite3
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_version__is_that_of_the_makefile(cli):
    version = re.search(r"^VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert cli("version").stdout.startswith(f"spinenode {version}\n")
    assert cli("--version").stdout == cli("version").stdout
    assert json.loads(cli("version", "--json").stdout)["version"] == version


def test_version__names_engines_and_instruction_set(cli):
    facts = json.loads(cli("version", "--json").stdout)
    assert "ref" in facts["engines"]
    assert facts["cuda"] == ("cuda" in facts["engines"])
    flags = set(re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M).group(1).split())
    expected = ("avx512" if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= flags
                else "avx2" if {"avx2", "fma"} <= flags else "base")
    assert facts["isa"] == expected
    assert facts["sqlite"].split(".")[0] == sqlite3.sqlite_version.split(".")[0]
