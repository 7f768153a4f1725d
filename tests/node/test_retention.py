"""What is over is removed after its time, nothing else is, and what comes again afterwards gives the same results."""

import hashlib
import os
import random
import signal
import sqlite3
import time

from harness.net import wait_for
from nodekit import jobs_settled, make_series, send, send_until_taken, stage_pids, write_toy_model

SLICES = 4
ROOT = f"1.2.826.0.1.3680043.8.498.9.{os.getpid()}"


def files(node) -> list[str]:
    spool = node.folder / "spool"
    return sorted(str(p.relative_to(spool)) for kind in ("in", "out", "work") for p in (spool / kind).rglob("*"))


def rows(node, table: str) -> int:
    with sqlite3.connect(f"file:{node.folder / 'spinenode.db'}?mode=ro", uri=True) as db:
        return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def empty(node) -> bool:
    return not files(node) and all(rows(node, t) == 0 for t in ("series", "instances", "jobs", "outputs", "trash"))


def metric(node, name: str) -> float:
    for line in node.http("/metrics")[1].decode().splitlines():
        if line.startswith(f"spinenode_{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def reload(node, **changes) -> None:
    for section, values in changes.items():
        node.settings.setdefault(section, {}).update(values)
    node.write_config()
    node.process.send_signal(signal.SIGHUP)


def contents(pacs) -> dict[str, set[str]]:
    """SOP Instance UID -> digests of what was received under it."""
    found: dict[str, set[str]] = {}
    for received in pacs.stored:
        found.setdefault(received.sop_instance, set()).add(hashlib.sha256(received.part10).hexdigest())
    return found


def test_retention__removes_what_is_delivered_and_a_resend_gives_the_same_bytes(toy_node, pacs):
    node = toy_node(retention={"done_ms": 1500})
    images = make_series(f"{ROOT}.1", SLICES)
    assert send(node.port, images) == [0] * SLICES
    wait_for(lambda: len(pacs.stored) == SLICES, 30, "the results")
    wait_for(lambda: empty(node), 20, f"the node to be empty: {files(node)}", pause=0.1)
    assert node.jobs() == {"jobs": [], "series": []}
    assert metric(node, "series_purged_total") == 1
    assert metric(node, "instances_purged_total") == 2 * SLICES
    assert metric(node, "bytes_purged_total") > SLICES * 64 * 64 * 2
    assert f"series_purged series={ROOT}.1 " in node.log() and "why=done_ms" in node.log()

    time.sleep(1.1)  # results carry the time to the second
    assert send(node.port, images) == [0] * SLICES
    wait_for(lambda: len(pacs.stored) == 2 * SLICES, 30, "the results again")
    assert len(contents(pacs)) == SLICES
    assert all(len(digests) == 1 for digests in contents(pacs).values())
    wait_for(lambda: empty(node), 20, "the node to be empty again", pause=0.1)


def test_retention__other_images_under_the_same_uids_are_refused_after_it(toy_node, pacs):
    node = toy_node(retention={"done_ms": 1000})
    images = make_series(f"{ROOT}.2", SLICES)
    send(node.port, images)
    wait_for(lambda: len(pacs.stored) == SLICES, 30, "the results")
    wait_for(lambda: empty(node), 20, "the node to be empty", pause=0.1)
    for ds in images:
        ds.PixelData = ds.PixelData[::-1]
    assert send(node.port, images) == [0] * SLICES
    job = wait_for(lambda: jobs_settled(node, 1), 30, "the job to end")[0]
    assert job["state"] == "refused" and "same UIDs" in job["reason"]
    time.sleep(1.5)
    assert len(pacs.stored) == SLICES
    assert len(node.jobs()["jobs"]) == 1
    assert not list((node.folder / "spool" / "out").iterdir())


def test_retention__keeps_what_waits_for_its_destination(toy_node, pacs):
    port = pacs.port
    node = toy_node(retention={"done_ms": 300, "failed_ms": 300})
    node.settings["destinations"][0]["port"] = 1  # nobody is there
    reload(node)
    wait_for(lambda: "reloaded" in node.log(), 20, "the reload")
    wait_for(lambda: node.http("/readyz")[0] == 200, 20, "the node to be ready")
    send_until_taken(node, make_series(f"{ROOT}.3", SLICES))
    wait_for(lambda: [j for j in node.jobs()["jobs"] if j["state"] == "done"], 30, "the job")
    kept = files(node)
    time.sleep(1.5)
    assert files(node) == kept and len(node.jobs()["jobs"]) == 1
    node.settings["destinations"][0].update(port=port, retry={"first_ms": 100, "longest_ms": 100})
    reload(node)
    wait_for(lambda: len(pacs.stored) == SLICES, 40, "the results")
    wait_for(lambda: empty(node), 20, "the node to be empty", pause=0.1)


def test_retention__a_full_disk_takes_what_is_delivered_before_its_time_and_nothing_else(toy_node, pacs):
    node = toy_node(limits={"idle_ms": 300})
    send_until_taken(node, make_series(f"{ROOT}.4", SLICES))
    refused = make_series(f"{ROOT}.5", 1, BodyPartExamined="KNEE")
    send_until_taken(node, refused)
    wait_for(lambda: jobs_settled(node, 1), 30, "the job")
    wait_for(lambda: [s for s in node.jobs()["series"] if s["state"] == "refused"], 30, "the refusal")
    reload(node, limits={"disk_free_bytes": 10**15})
    wait_for(lambda: rows(node, "jobs") == 0 and rows(node, "trash") == 0, 30, "the delivered series to go", pause=0.1)
    time.sleep(0.5)
    assert len(files(node)) == 1 and rows(node, "series") == 1
    assert "disk_full" in node.log()
    assert "why=disk_full" in node.log()


def test_retention__killed_at_any_moment_it_leaves_the_node_consistent(toy_node, pacs, models):
    write_toy_model(models / "toy.onnx")
    count = 8
    node = toy_node(retention={"done_ms": 400}, work={"workers": 1, "crashes_max": 100, "lease_ms": 5000})
    series = {f"{ROOT}.6.{i}": make_series(f"{ROOT}.6.{i}", SLICES) for i in range(1, count + 1)}
    dice = random.Random(11)
    for number, images in enumerate(series.values()):
        send_until_taken(node, images)
        for _ in range(2):
            time.sleep(dice.uniform(0.05, 0.8))
            if number % 2:
                for pid in stage_pids(node).get("plan", []):
                    os.kill(pid, signal.SIGKILL)
            else:
                node.kill()
                node.start()
    wait_for(lambda: len(contents(pacs)) == count * SLICES, 60, "every result", pause=0.2)
    wait_for(lambda: empty(node), 60, f"the node to be empty: {node.jobs()}", pause=0.2)
    # A kill between results and their acknowledgement may send some twice, never with other contents.
    assert all(len(digests) == 1 for digests in contents(pacs).values())
    assert node.log().count("series_purged") >= 4
