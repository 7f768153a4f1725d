"""limits.queue and limits.slices: what a sender hears when too much waits, and what becomes of far too many slices."""

import os
import signal
import time

import pytest
from harness import rawsend
from harness.net import LOOPBACK, wait_for
from nodekit import check_once, jobs_settled, make_series, send, send_until_taken, stage_pids
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

UID = "1.2.3.4.5.12"
# The node looks at its queue this often (QUEUE_CHECK_MS in node/receive.c).
CHECK_S = 0.5


def incoming(node) -> int:
    return len(list((node.folder / "spool" / "in").iterdir()))


@pytest.fixture
def full_node(toy_node):
    """full_node() -> (a node of queue 1 with two jobs waiting, what lets its worker go on)."""
    stopped = []

    def start():
        node = toy_node(limits={"queue": 1})
        [worker] = stage_pids(node)["work"]
        os.kill(worker, signal.SIGSTOP)
        stopped.append(worker)
        return node, lambda: os.kill(worker, signal.SIGCONT)

    yield start
    for worker in stopped:
        try:
            os.kill(worker, signal.SIGCONT)
        except ProcessLookupError:
            pass


def fill(node) -> list[str]:
    """Two series whose jobs wait: one more than the queue takes."""
    series = [f"{UID}.{k}" for k in (1, 2)]
    for uid in series:
        assert send(node.port, make_series(uid, 3)) == [0] * 3
    wait_for(lambda: [j["state"] for j in node.jobs()["jobs"]] == ["waiting"] * 2, 20, "two jobs that wait", pause=0.1)
    time.sleep(CHECK_S + 0.1)
    return series


def test_queue__when_full_answers_out_of_resources_and_takes_it_later(full_node, pacs):
    node, go_on = full_node()
    series = fill(node)
    late = make_series(f"{UID}.3", 3)
    assert send(node.port, late) == [0xA700] * 3
    assert "limits.queue" in node.log()
    assert [s["series_uid"] for s in node.jobs()["series"]].count(f"{UID}.3") == 0
    assert incoming(node) == 6, "what was refused lies in the spool"
    status, body = node.http("/readyz")
    assert status == 503 and b"more than 1 series wait" in body
    assert b'spinenode_instances_refused_total{status="full"} 3\n' in node.http("/metrics")[1]
    assert send(node.port, make_series(f"{UID}.1", 3)) == [0xA700] * 3, "also what it has: it cannot tell before it came"

    go_on()
    send_until_taken(node, late, 30)
    wait_for(lambda: jobs_settled(node, 3), 60, "all three jobs", pause=0.1)
    check_once(pacs, [*series, f"{UID}.3"], 3)
    wait_for(lambda: node.http("/readyz")[0] == 200, 10, "the node to be ready again")


def test_queue__a_series_that_is_coming_in_is_not_cut_in_two_when_it_fills(full_node, pacs):
    node, go_on = full_node()
    images = make_series(f"{UID}.3", 4)
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(images[0].SOPClassUID, ExplicitVRLittleEndian)
    association = ae.associate(LOOPBACK, node.port, ae_title="SPINENODE")
    assert [association.send_c_store(i).Status for i in images[:2]] == [0, 0]
    series = fill(node)
    assert [association.send_c_store(i).Status for i in images[2:]] == [0, 0]
    other = make_series(f"{UID}.4", 1)
    assert association.send_c_store(other[0]).Status == 0xA700, "another series on the same association is a new one"
    association.release()
    assert incoming(node) == 10

    go_on()
    wait_for(lambda: jobs_settled(node, 3), 60, "all three jobs", pause=0.1)
    found = {j["inputs"][0]["series_uid"]: j["outputs"] for j in node.jobs()["jobs"]}
    assert found == {**{uid: 3 for uid in series}, f"{UID}.3": 4}
    assert all(s["revision"] == 1 for s in node.jobs()["series"])


def small_images(count: int) -> list[rawsend.Item]:
    """One series of so many slices, all made from one by what differs: pydicom would take longer than the node."""
    [image] = make_series(UID, 1, side=16, SOPInstanceUID=f"{UID}.000000", ImagePositionPatient=["00000.0", -80, 80])
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, image)
    data, uid = out.getvalue(), image.SOPInstanceUID.encode()
    assert data.count(uid) == 1 and data.count(b"00000.0") == 1
    items = []
    for k in range(count):
        own = uid[:-6] + b"%06d" % (100_000 + k)
        items.append(rawsend.Item(image.SOPClassUID.encode(), own, data.replace(uid, own).replace(b"00000.0", b"%07.1f" % (k / 2))))
    return items


def test_node__refuses_a_series_of_10000_slices_and_goes_on(toy_node, pacs):
    """All of them are taken, over several associations: only when the series is complete can its size be known."""
    count = 10_000
    node = toy_node(completeness={"quiet_ms": 1000})
    rate = rawsend.send(node.port, node.ae_title, ExplicitVRLittleEndian.encode(), small_images(count), associations=8)
    assert rate.instances == count
    series = wait_for(lambda: [s for s in node.jobs()["series"] if s["state"] == "refused"], 15, "the refusal", pause=0.1)[0]
    assert (series["series_uid"], series["instances"], series["revision"]) == (UID, count, 1)
    assert series["reason"] == "series has 10000 instances, at most 1000 are processed (limits.slices)"
    assert node.jobs()["jobs"] == [] and incoming(node) == count
    assert series["reason"] in node.log()
    assert send(node.port, make_series(f"{UID}.9", 3)) == [0] * 3
    wait_for(lambda: jobs_settled(node, 1), 30, "the next series")
    check_once(pacs, [f"{UID}.9"], 3)
