"""Nothing is answered, and no job is done, before what it stands on is on the disk: the order of fsync and answer.

A kill cannot show this, as the kernel keeps what was written; only a loss of power would. So a library that is loaded
into the node (durable.c) writes down what it syncs and when it sends.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from harness.net import wait_for
from nodekit import jobs_settled, make_series, send, stage_pids

UID = "1.2.3.4.5.13"


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("durable") / "durable.so"
    source = Path(__file__).with_name("durable.c")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-std=gnu17", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", path, source, "-ldl"], check=True)
    return path


class Watched:
    """A node that is watched: what it did since the last clear()."""

    def __init__(self, node, log: Path, fail: Path):
        self.node, self.log, self.fail = node, log, fail

    def clear(self) -> None:
        self.log.write_text("")

    def did(self, stage: str) -> list[tuple[str, str]]:
        """("sync", path within the node's folder) and ("send", …) of a stage, in order."""
        [pid] = stage_pids(self.node)[stage]
        lines = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        return [(what, path.removeprefix(f"{self.node.folder}/")) for process, what, path in lines if int(process) == pid]


@pytest.fixture
def watched(toy_node, library, tmp_path, monkeypatch):
    """watched(**changes) -> Watched, whose node is ready."""

    def start(**changes):
        log, fail = tmp_path / "order.log", tmp_path / "fail"
        monkeypatch.setenv("DURABLE_LOG", str(log))
        monkeypatch.setenv("DURABLE_FAIL", str(fail))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        # The library comes before a sanitizer's, which minds unless it is told not to.
        monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        node = toy_node(**changes)
        monkeypatch.delenv("LD_PRELOAD")
        return Watched(node, log, fail)

    yield start


def test_receive__answers_when_file_folder_and_row_are_on_the_disk(watched):
    it = watched(completeness={"quiet_ms": 60000})
    images = make_series(UID, 2)
    # The first commit after a start syncs more than later ones need.
    assert send(it.node.port, images[:1]) == [0]
    [first] = (it.node.folder / "spool" / "in").iterdir()
    it.clear()
    assert send(it.node.port, images[1:]) == [0]
    [stored] = set((it.node.folder / "spool" / "in").iterdir()) - {first}
    did = it.did("receive")
    sends = [k for k, (what, _) in enumerate(did) if what == "send"]
    # The first bytes sent accept the association; what follows is the answer.
    before = {path for what, path in did[sends[0]:sends[1]] if what == "sync"}
    assert {f"spool/in/{stored.name}", "spool/in", "spinenode.db-wal"} <= before, did


def test_receive__answers_the_same_instance_again_when_the_first_is_on_the_disk(watched):
    """The first may have come on another association a moment ago."""
    it = watched(completeness={"quiet_ms": 60000})
    images = make_series(UID, 1)
    assert send(it.node.port, images) == [0]
    [stored] = (it.node.folder / "spool" / "in").iterdir()
    it.clear()
    assert send(it.node.port, images) == [0]
    did = it.did("receive")
    sends = [k for k, (what, _) in enumerate(did) if what == "send"]
    assert {f"spool/in/{stored.name}", "spool/in"} <= {path for what, path in did[sends[0]:sends[1]] if what == "sync"}, did


@pytest.mark.parametrize("what", [".dcm", "spool/in", "spinenode.db-wal"])
def test_receive__does_not_acknowledge_what_cannot_be_synced(watched, what):
    it = watched(completeness={"quiet_ms": 60000})
    images = make_series(UID, 2)
    it.fail.write_text(what)
    statuses = send(it.node.port, images)
    assert all(status in (0xA700, 0x0110) for status in statuses), statuses
    assert it.node.jobs()["series"] == []
    assert list((it.node.folder / "spool" / "in").iterdir()) == []
    it.fail.unlink()
    assert send(it.node.port, images) == [0, 0]
    assert it.node.jobs()["series"][0]["instances"] == 2


def test_work__enters_a_job_as_done_when_its_results_are_on_the_disk(watched):
    it = watched()
    it.clear()
    assert send(it.node.port, make_series(UID, 3)) == [0] * 3
    [job] = wait_for(lambda: jobs_settled(it.node, 1), 60, "the job")
    assert job["state"] == "done"
    [folder] = (it.node.folder / "spool" / "out").iterdir()
    synced = [path for what, path in it.did("work") if what == "sync"]
    made = "/".join(("spool", "work", f"{folder.name}-1"))
    entered = len(synced) - 1 - synced[::-1].index("spinenode.db-wal")
    published = synced.index("spool/out")
    assert published < entered, synced
    assert {f"{made}/{k:04}.dcm" for k in (1, 2, 3)} | {made} <= set(synced[:published]), synced
