"""Nothing acknowledged is lost and nothing is doubled, whatever is killed, at whatever moment."""

import os
import random
import signal
import threading
import time

import pytest
from harness import proc
from harness.net import wait_for
from nodekit import check_once, jobs_settled, make_series, send, send_until_taken, stage_pids, write_toy_model
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

SLICES = 4
# Crashes are counted; a test that kills a worker over and over must not have its jobs set aside for it.
# The quiet time is longer than a sender waits before it tries again, as it is where nobody hurries.
PATIENT = {"completeness": {"quiet_ms": 4000}, "work": {"workers": 2, "crashes_max": 100, "lease_ms": 5000}}


def study(count: int) -> dict[str, list]:
    root = f"1.2.826.0.1.3680043.8.498.{os.getpid()}.{random.randrange(10**9)}"
    return {f"{root}.{i}": make_series(f"{root}.{i}", SLICES) for i in range(1, count + 1)}


class Sender(threading.Thread):
    """Sends every series like a PACS: what was not acknowledged is sent again."""

    def __init__(self, node, series):
        super().__init__(daemon=True)
        self.node, self.series, self.problem = node, series, None

    def run(self):
        try:
            for images in self.series.values():
                send_until_taken(self.node, images)
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.problem = e

    def finish(self):
        self.join(120)
        assert not self.is_alive(), "the sender hangs"
        if self.problem:
            raise self.problem


def wait_until_delivered(node, pacs, series):
    wait_for(lambda: len({r.sop_instance for r in pacs.stored}) >= len(series) * SLICES, 90,
             f"every result in the PACS; jobs: {node.jobs()}", pause=0.2)
    wait_for(lambda: jobs_settled(node, len(series)), 30, "every job to be settled", pause=0.2)
    check_once(pacs, list(series), SLICES)


@pytest.mark.parametrize("stage", ["receive", "plan", "work", "deliver", "observe"])
def test_node__loses_and_doubles_nothing_when_a_stage_is_killed_again_and_again(toy_node, pacs, stage):
    node = toy_node(**PATIENT)
    series = study(5)
    sender = Sender(node, series)
    sender.start()
    killed = 0
    dice = random.Random(stage)
    end = time.monotonic() + 4
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.02, 0.5))
        for pid in stage_pids(node).get(stage, []):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed >= 3
    sender.finish()
    wait_until_delivered(node, pacs, series)
    assert node.log().count("stage_ended") >= 3


def test_node__loses_and_doubles_nothing_when_everything_is_killed_again_and_again(toy_node, pacs):
    node = toy_node(**PATIENT)
    series = study(6)
    sender = Sender(node, series)
    sender.start()
    dice = random.Random(7)
    for _ in range(8):
        time.sleep(dice.uniform(0.1, 0.9))
        node.kill()
        node.start()
    sender.finish()
    wait_until_delivered(node, pacs, series)


@pytest.mark.parametrize("again", [False, True])
def test_node__series_is_complete_though_the_receiver_died_before_the_association_ended(toy_node, pacs, again):
    node = toy_node()
    [(uid, images)] = study(1).items()
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(images[0].SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", node.port, ae_title="SPINENODE")
    assert [association.send_c_store(i).Status for i in images] == [0] * SLICES
    os.kill(stage_pids(node)["receive"][0], signal.SIGKILL)
    if again:
        send_until_taken(node, images)
    wait_until_delivered(node, pacs, [uid])


def test_node__what_was_acknowledged_before_a_kill_is_there_after_it(toy_node):
    node = toy_node(completeness={"quiet_ms": 60000})
    series = study(3)
    for images in series.values():
        assert send(node.port, images) == [0] * SLICES
    node.kill()
    node.start()
    found = {s["series_uid"]: s["instances"] for s in node.jobs()["series"]}
    assert found == {uid: SLICES for uid in series}


def test_node__stages_end_when_their_supervisor_is_killed(toy_node):
    node = toy_node()
    pids = [pid for pids in stage_pids(node).values() for pid in pids]
    assert len(pids) == 5
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    node.process = None

    def gone() -> bool:
        return not any(proc.is_alive(pid) for pid in pids)

    wait_for(gone, 5, "the stages to end")


def test_node__sets_a_job_aside_that_ends_its_worker_three_times(toy_node, models):
    write_toy_model(models / "toy.onnx", layers=10)  # slow enough to be caught at work
    node = toy_node(work={"crashes_max": 3})
    [(uid, images)] = study(1).items()
    images = make_series(uid, 12, side=192)
    assert send(node.port, images) == [0] * 12

    for nth in range(1, 4):
        def held(nth=nth):
            found = node.jobs()["jobs"]
            return found and found[0]["state"] == "leased" and found[0]["attempts"] == nth

        wait_for(held, 30, f"attempt {nth}", pause=0.02)
        os.kill(stage_pids(node)["work"][0], signal.SIGKILL)
    wait_for(lambda: node.jobs()["jobs"][0]["state"] == "quarantined", 10, "the job to be set aside")
    [job] = node.jobs()["jobs"]
    assert job["crashes"] == 3 and "signal 9" in job["reason"]

    wait_for(lambda: node.http("/readyz")[0] == 200, 15, "the next worker, which was made to wait a little")
    assert node.command("jobs", "-c", str(node.config_path), "retry", str(job["id"])).returncode == 0
    wait_for(lambda: node.jobs()["jobs"][0]["state"] == "done", 60, "the job to be done after all")


def test_node__removes_what_a_killed_receiver_left_in_the_spool(toy_node):
    node = toy_node(completeness={"quiet_ms": 60000})
    [(_, images)] = study(1).items()
    assert send(node.port, images) == [0] * SLICES
    node.kill()
    incoming = node.folder / "spool" / "in"
    kept = sorted(p.name for p in incoming.iterdir())
    (incoming / "0123456789abcdef01234567-00000000deadbeef.dcm").write_bytes(b"half of it")
    (node.folder / "spool" / "work" / "ab-1").mkdir()
    (node.folder / "spool" / "work" / "ab-1" / "0001.dcm").write_bytes(b"half of it")
    (node.folder / "spool" / "out" / "cd").mkdir()
    node.start()
    assert sorted(p.name for p in incoming.iterdir()) == kept
    assert list((node.folder / "spool" / "work").iterdir()) == []
    assert list((node.folder / "spool" / "out").iterdir()) == []


def test_node__takes_an_instance_again_whose_file_was_lost(toy_node):
    node = toy_node(completeness={"quiet_ms": 60000})
    [(_, images)] = study(1).items()
    assert send(node.port, images) == [0] * SLICES
    node.kill()
    files = sorted((node.folder / "spool" / "in").iterdir())
    files[0].unlink()
    size = files[1].stat().st_size
    files[1].write_bytes(bytes(size))  # as long as it was, but zeros: what a loss of power can leave
    node.start()
    assert node.jobs()["series"][0]["instances"] == SLICES - 2
    assert send(node.port, images) == [0] * SLICES
    assert node.jobs()["series"][0]["instances"] == SLICES
