"""A model file that is missing, truncated or of another task: said in one line, and the node goes on."""

import re
import shutil
from pathlib import Path

import pytest
from harness.net import wait_for
from harness.node import merge
from harness.results import by_task, models_in
from harness.send import store
from systemkit import QUICK, decided, ended, told


@pytest.fixture
def zoo(tmp_path, start_node) -> Path:
    """A folder with a copy of the shipped models."""
    probe = start_node(start=False)
    folder = tmp_path / "models"
    folder.mkdir()
    for model in by_task(models_in(Path(probe.settings["models"]["folder"]))).values():
        shutil.copy(model.path, folder)
    return folder


def model_of(zoo: Path, task: str) -> Path:
    return by_task(models_in(zoo))[task].path


def run_with(start_node, pacs, zoo, **model_by_task):
    """A node with that folder, its rules naming the given files; beside them only T1 to T2 is run."""
    node = start_node(pacs=[pacs], changes=merge(QUICK, {"models": {"folder": str(zoo)}}), start=False)
    node.settings["rules"] = [r for r in node.settings["rules"] if r["task"] in ("t1-to-t2", *model_by_task)]
    for rule in node.settings["rules"]:
        if rule["task"] in model_by_task:
            rule["model"] = model_by_task[rule["task"]]
    node.write_config()
    return node


def reason_for(node, uid: str) -> str:
    """Where the reason stands: at the series when no job was made, at the job when it was."""

    def said():
        jobs = ended(node, uid)
        if jobs:
            return " ".join(j["reason"] for j in jobs if j["state"] in ("failed", "refused"))
        series = decided(node, uid)
        return series["reason"] if series else None

    return wait_for(said, 60, "the node to say what became of the series", pause=0.2)


def still_works(node, pacs, study) -> None:
    assert store(study.t1.images, node.port, called=node.ae_title).ok
    wait_for(lambda: len(pacs.stored) >= len(study.t1.images), 120, "the results of another model", pause=0.2)


def test_node__says_that_a_model_vanished_and_goes_on(start_node, pacs, zoo, study):
    name = model_of(zoo, "t2-to-t1").name
    node = run_with(start_node, pacs, zoo, **{"t2-to-t1": name}).start()
    (zoo / name).unlink()
    assert store(study.t2.images, node.port, called=node.ae_title).ok
    assert re.search(re.escape(name) + r"|no model", reason_for(node, study.t2.uid))
    still_works(node, pacs, study)


def test_node__says_that_a_model_was_truncated_and_goes_on(start_node, pacs, zoo, study):
    path = model_of(zoo, "t2-to-t1")
    node = run_with(start_node, pacs, zoo, **{"t2-to-t1": path.name}).start()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert store(study.t2.images, node.port, called=node.ae_title).ok
    assert path.name in reason_for(node, study.t2.uid) or "truncat" in reason_for(node, study.t2.uid)
    still_works(node, pacs, study)


def test_node__says_that_a_model_is_of_another_task(start_node, pacs, zoo, study):
    """Refused before anything starts, or when the series comes; never run."""
    other = model_of(zoo, "t1-to-t2").name
    node = run_with(start_node, pacs, zoo, **{"t2-to-t1": other})
    checked = node.command("check-config", "-c", str(node.config_path))
    if checked.returncode != 0:
        assert other in checked.stderr and "task" in checked.stderr
        return
    node.start()
    assert store(study.t2.images, node.port, called=node.ae_title).ok
    assert "is a model for t1-to-t2, and the rule wants t2-to-t1" in reason_for(node, study.t2.uid)
    assert not pacs.stored
    assert told(node, study.t2.uid)


def test_shipped_configuration__names_a_models_folder_that_holds_the_tasks(start_node):
    node = start_node(start=False)
    assert {"t1-to-t2", "t2-to-t1", "super-resolution", "xray-to-t2"} <= set(by_task(models_in(Path(node.settings["models"]["folder"]))))
