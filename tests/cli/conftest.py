"""Fixtures of the command line's tests: the program as a function, and a configuration with models of its own."""

import subprocess
from pathlib import Path

import pytest
import yaml
from cli.clikit import make_model
from harness.node import SHIPPED


@pytest.fixture
def cli(spinenode, tmp_path):
    """cli("verb", …, status=0) -> what it printed; fails when the exit status is another."""

    def run(*arguments, status: int = 0, **more) -> subprocess.CompletedProcess:
        done = subprocess.run([str(spinenode), *map(str, arguments)], cwd=tmp_path, text=True,
                              stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, timeout=120, **more)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        # An error is one line, and success is silent about itself.
        assert done.stderr.count("\n") == (0 if status == 0 else 1) or status == 1, done.stderr
        return done

    return run


@pytest.fixture
def site(tmp_path) -> Path:
    """The shipped configuration with a models folder that holds a tiny t2-to-t1 and a tiny super-resolution."""
    folder = tmp_path / "models"
    folder.mkdir()
    make_model(folder / "t2-to-t1.onnx", "t2-to-t1", rows="64-1024")
    make_model(folder / "sr.onnx", "super-resolution", scale=2)
    settings = yaml.safe_load(SHIPPED.read_text())
    settings["models"]["folder"] = "models"
    settings["node"].update(spool="spool", database="spinenode.db")
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path
