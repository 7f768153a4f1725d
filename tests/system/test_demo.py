"""`make demo` itself, so that it cannot rot."""

import json
import os
import subprocess
import sys

from harness.node import ROOT
from harness.results import by_task, models_in
from PIL import Image

TASKS = ["super-resolution", "t1-to-t2", "t2-to-t1", "t2-to-stir", "t2-to-tirm", "xray-to-t2"]


def test_demo__holds_every_check(tmp_path, spinenode):
    env = {k: v for k, v in os.environ.items() if k != "KEEP"}
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "demo"), "--spinenode", str(spinenode), "--output", str(tmp_path)],
                          capture_output=True, text=True, timeout=900, env=env)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["problems"] == []
    done_tasks = [r["task"] for r in report["results"]]
    assert {"t1-to-t2", "t2-to-t1", "super-resolution"} <= set(done_tasks)
    assert sorted(done_tasks + report["missing"]) == sorted(TASKS)
    assert all(f"no model for {task}" in done.stdout for task in report["missing"])
    # A task of which the shipped folder holds a model must have run.
    assert set(done_tasks) == set(by_task(models_in(ROOT / "model" / "zoo")))
    assert all(r["instances"] == (1 if r["task"] == "xray-to-t2" else 15) for r in report["results"])
    assert Image.open(tmp_path / "contact-sheet.png").width > 1000


def test_demo__fails_when_the_node_does_nothing(tmp_path):
    """A program that is no node: the demo must say so, not shine."""
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "demo"), "--spinenode", "/bin/false", "--output", str(tmp_path)],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "demo: FAILED" in done.stdout
