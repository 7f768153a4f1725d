"""Destinations that are down, that refuse, that answer every failure status: each on its own, nothing lost, nothing twice.

One series, one inference, one job with many destinations; each has its own state and reason.
"""

import itertools
import json
import re

import pytest
from harness.net import wait_for
from harness.node import Node
from harness.scp import Pacs
from harness.send import store
from systemkit import QUICK, ended



def full_once(at: int):
    """A destination that is out of space for one request, in the middle of a series."""
    requests = itertools.count(1)
    return lambda _uid, _attempt: 0xA700 if next(requests) == at else 0


RETRY = {"first_ms": 200, "longest_ms": 400, "attempts": 3}
# Name -> (attributes of the Pacs, state at the end, word in the reason). After three attempts a transient one gives up.
PEERS = {
    "good": ({}, ("sent", "committed"), ""),
    "warns": ({"status": 0xB000}, ("sent", "committed"), ""),
    "recovers": ({"status": full_once(at=3)}, ("sent", "committed"), ""),
    "down": ({"down": True}, ("failed",), "connect"),
    "refuses": ({"refuse_callers": True}, ("failed",), "reject|refus|recogni"),
    "takes-no-images": ({"accept_storage": False}, ("failed",), "accept|context|SOP class"),
    "full": ({"status": 0xA700}, ("failed",), "(?i)a700"),
    "contradicts": ({"status": 0xA900}, ("failed",), "(?i)a900"),
    "cannot-understand": ({"status": 0xC000}, ("failed",), "(?i)c000"),
    "sop-class-not-supported": ({"status": 0x0122}, ("failed",), "0122"),
    "not-authorised": ({"status": 0x0124}, ("failed",), "0124"),
    "processing-failure": ({"status": 0x0110}, ("failed",), "0110"),
}
PERMANENT = ("contradicts", "cannot-understand", "sop-class-not-supported", "not-authorised", "takes-no-images")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, spinenode, study):
    peers: dict[str, Pacs] = {}
    for name, (attributes, _, _) in PEERS.items():
        peer = peers[name] = Pacs(ae_title=name.upper().replace("-", "_")[:16])
        for key, value in attributes.items():
            if key != "down":
                setattr(peer, key, value)
        if not attributes.get("down"):
            peer.start()
    node = Node(tmp_path_factory.mktemp("destinations") / "node", pacs=[peers["good"]], changes=QUICK, program=spinenode)
    node.settings["destinations"] = [
        {"name": name, "ae_title": p.ae_title, "host": "127.0.0.1", "port": p.port, "timeout_ms": 3000, "retry": RETRY}
        for name, p in peers.items()]
    for rule in node.settings["rules"]:
        rule["destinations"] = list(peers)
    node.write_config()
    try:
        with node:
            assert store(study.t2.images, node.port, called=node.ae_title).ok

            def settled():
                jobs = ended(node, study.t2.uid)
                done = all(d["state"] in ("sent", "committed", "failed") for j in jobs for d in j["deliveries"])
                return jobs if jobs and done else None

            jobs = wait_for(settled, 180, "every delivery to come to its end", pause=0.3)
            yield node, peers, jobs
        assert not node.sanitizer_report(), node.sanitizer_report()
    finally:
        for peer in peers.values():
            peer.stop()


def delivery(jobs: list[dict], name: str) -> dict:
    [job] = [j for j in jobs if j["task"] == "t2-to-t1"]
    [found] = [d for d in job["deliveries"] if d["destination"] == name]
    return found


@pytest.mark.parametrize("name", PEERS)
def test_delivery__ends_as_the_destination_deserves(outcome, name):
    _, peers, jobs = outcome
    _, states, word = PEERS[name]
    found = delivery(jobs, name)
    assert found["state"] in states, found
    if word:
        assert re.search(word, found["reason"]), found
    tried = {r.sop_instance for r in peers[name].attempts}
    if "sent" in states:
        stored = [r.sop_instance for r in peers[name].stored]
        assert len(stored) == len(set(stored)) and set(stored) == tried, "an image was sent again after it was taken"
    if name in PERMANENT:
        assert len(peers[name].attempts) <= len(tried), "a permanent failure was tried again"


def test_job__is_done_whatever_became_of_its_deliveries(outcome):
    node, _, jobs = outcome
    assert [j["state"] for j in jobs] == ["done"] * len(jobs)
    assert "down" in node.log()
    assert node.http("/healthz")[0] == 200


def test_retry__delivers_to_a_destination_that_came_back_without_inferring_again(outcome, study):
    node, peers, jobs = outcome
    [job] = [j for j in jobs if j["task"] == "t2-to-t1"]
    good = {r.sop_instance: r.dataset().PixelData for r in peers["good"].stored}
    peers["down"].start()
    done = node.command("jobs", "-c", str(node.config_path), "retry", str(job["id"]))
    assert done.returncode == 0, done.stderr
    wanted = len(study.t2.images)
    wait_for(lambda: len(peers["down"].stored) >= wanted, 60, "the results at the destination that was down", pause=0.2)
    late = {r.sop_instance: r.dataset().PixelData for r in peers["down"].stored}
    assert all(good[uid] == pixels for uid, pixels in late.items())
    assert len(peers["good"].stored) == len(good), "the good destination got them again"


def test_jobs__show_is_json_that_names_every_delivery(outcome):
    node, _, jobs = outcome
    done = node.command("jobs", "-c", str(node.config_path), "show", str(jobs[0]["id"]), "--json")
    assert done.returncode == 0, done.stderr
    assert {d["destination"] for d in json.loads(done.stdout)["deliveries"]} == set(PEERS)
