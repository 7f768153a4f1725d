"""The fuzzers are built by clang, and nothing else is: what gcc alone compiles would break them unseen."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_fuzzers__are_made_of_what_clang_compiles():
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "CPPFLAGS", "CFLAGS")}
    done = subprocess.run(["make", "-j2", "fuzz-build"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
