"""Delivery: what can pass is tried again, what cannot stops with its reason, and nothing is sent twice without need."""

import os
import signal
import socket
import time

import pytest
from harness.net import wait_for
from nodekit import check_once, jobs_settled, make_series, send, settings, stage_pids

SLICES = 4
QUICK_RETRY = {"first_ms": 100, "longest_ms": 500, "attempts": 0}


def destination(pacs, **changes) -> list[dict]:
    return [{"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port, "timeout_ms": 3000,
             "retry": dict(QUICK_RETRY), **changes}]


def started(start_node, models, pacs, peers=None, **changes):
    """A node with the destination `pacs`, whose port may be nobody's."""
    node = start_node(pacs=peers if peers is not None else [pacs], start=False,
                      changes=settings(models, destinations=destination(pacs, **changes)))
    node.settings["callers"] = [{"ae_title": title, "addresses": ["any"]} for title in ("TESTER", pacs.ae_title)]
    node.write_config()
    return node.start()


def run_one(node, uid: str = "1.2.3.4.5.6") -> dict:
    assert send(node.port, make_series(uid, SLICES)) == [0] * SLICES
    wait_for(lambda: jobs_settled(node, 1), 60, f"the job to be settled: {node.jobs()}", pause=0.1)
    return node.jobs()["jobs"][0]["deliveries"][0]


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_deliver__tries_again_after_a_status_that_can_pass(start_node, models, pacs, status):
    pacs.status = lambda uid, nth: status if nth == 1 else 0
    node = started(start_node, models, pacs)
    delivery = run_one(node)
    assert delivery["state"] == "sent" and delivery["attempts"] >= 2
    check_once(pacs, ["1.2.3.4.5.6"], SLICES)
    sent = [a.sop_instance for a in pacs.attempts if a.status == 0]
    assert len(sent) == len(set(sent)), "acknowledged instances were sent again"


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122, 0x0124, 0x0117])
def test_deliver__stops_at_once_at_a_status_that_cannot_pass(start_node, models, pacs, status):
    pacs.status = status
    node = started(start_node, models, pacs)
    delivery = run_one(node)
    assert delivery["state"] == "failed" and f"{status:04X}" in delivery["reason"].upper()
    time.sleep(1)
    assert len(pacs.attempts) == 1


def test_deliver__takes_a_warning_for_success(start_node, models, pacs):
    pacs.status = 0xB007
    node = started(start_node, models, pacs)
    assert run_one(node)["state"] == "sent"
    assert "status=B007" in node.log()


def test_deliver__resumes_where_the_connection_broke(start_node, models, pacs):
    slices = 12
    node = started(start_node, models, pacs)
    pacs.delay_s = 0.3
    send(node.port, make_series("1.2.3.4.5.6", slices))
    wait_for(lambda: len(pacs.stored) == 2, 60, "two results")
    pacs.stop()
    time.sleep(1)
    before = len(pacs.stored)
    assert before < slices, "nothing was broken off"
    pacs.delay_s = 0
    pacs.start()
    [job] = wait_for(lambda: jobs_settled(node, 1), 60, "the delivery to resume", pause=0.1)
    assert job["deliveries"][0]["state"] == "sent"
    check_once(pacs, ["1.2.3.4.5.6"], slices)
    assert len(pacs.stored) <= slices + 1, "what was acknowledged was sent again"


def test_deliver__waits_for_a_destination_that_is_down_even_over_a_restart(start_node, models, start_pacs):
    pacs = start_pacs()
    pacs.stop()
    node = started(start_node, models, pacs)
    send(node.port, make_series("1.2.3.4.5.6", SLICES))

    def tried() -> bool:
        jobs = node.jobs()["jobs"]
        return bool(jobs and jobs[0]["deliveries"] and jobs[0]["deliveries"][0]["attempts"] >= 3)

    wait_for(tried, 60, "three attempts", pause=0.1)
    delivery = node.jobs()["jobs"][0]["deliveries"][0]
    assert delivery["state"] in ("pending", "sending") and delivery["reason"] and delivery["due_at"]
    node.stop()
    pacs.start()
    node.start()
    wait_for(lambda: jobs_settled(node, 1), 60, "the delivery", pause=0.1)
    check_once(pacs, ["1.2.3.4.5.6"], SLICES)


def test_deliver__gives_up_after_the_configured_attempts_and_can_be_told_to_try_again(start_node, models, start_pacs):
    pacs = start_pacs()
    pacs.stop()
    node = started(start_node, models, pacs, retry={"first_ms": 50, "longest_ms": 50, "attempts": 3})
    delivery = run_one(node)
    assert delivery["state"] == "failed" and "3 attempts" in delivery["reason"]
    pacs.start()
    assert node.command("jobs", "-c", str(node.config_path), "retry", "1").returncode == 0
    wait_for(lambda: len(pacs.stored) == SLICES, 30, "the results")


def test_deliver__a_dead_destination_does_not_hold_up_the_others(start_node, models, pacs):
    """It takes the connection and says nothing, which holds up whoever waits for it until its time is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = {"name": "dead", "ae_title": "DEAD", "host": "127.0.0.1", "port": silent.getsockname()[1],
                "timeout_ms": 120_000, "retry": dict(QUICK_RETRY)}
        changes = settings(models, destinations=[dead, *destination(pacs)])
        changes["rules"][0]["destinations"] = ["dead", "pacs"]
        node = start_node(pacs=[], start=False, changes=changes)
        node.settings["callers"] = [{"ae_title": "TESTER", "addresses": ["any"]}]
        node.write_config()
        node.start()
        send(node.port, make_series("1.2.3.4.5.6", SLICES))
        wait_for(lambda: len(pacs.stored) == SLICES, 30, "the results at the living destination")
        states = {d["destination"]: d["state"] for d in node.jobs()["jobs"][0]["deliveries"]}
        assert states["dead"] == "sending"


def test_deliver__commitment_closes_the_delivery(start_node, models, pacs):
    node = started(start_node, models, pacs, commitment=True)
    pacs.node_port = node.port
    send(node.port, make_series("1.2.3.4.5.6", SLICES))

    def committed() -> bool:
        jobs = node.jobs()["jobs"]
        return bool(jobs and jobs[0]["deliveries"] and jobs[0]["deliveries"][0]["state"] == "committed")

    wait_for(committed, 30, lambda: f"storage commitment: {node.jobs()}\n{node.log()[-2000:]}", pause=0.1)
    assert len(pacs.commitments) == 1
    assert node.jobs()["jobs"][0]["deliveries"][0]["committed"] == SLICES


def test_deliver__sends_again_what_the_destination_did_not_keep(start_node, models, pacs):
    lost: list[str] = []

    def keep_all_but_one_the_first_time(items):
        if lost:
            return []
        lost.append(items[0][1])
        return lost

    pacs.commitment = keep_all_but_one_the_first_time
    node = started(start_node, models, pacs, commitment=True)
    pacs.node_port = node.port
    send(node.port, make_series("1.2.3.4.5.6", SLICES))

    def committed() -> bool:
        jobs = node.jobs()["jobs"]
        return bool(jobs and jobs[0]["deliveries"] and jobs[0]["deliveries"][0]["state"] == "committed")

    wait_for(committed, 30, "storage commitment in the end", pause=0.1)
    assert [r.sop_instance for r in pacs.stored].count(lost[0]) == 2
    assert len(pacs.stored) == SLICES + 1


def test_deliver__cancelled_job_is_not_sent(start_node, models, start_pacs):
    pacs = start_pacs()
    pacs.stop()
    node = started(start_node, models, pacs, retry={"first_ms": 300, "longest_ms": 300, "attempts": 0})
    send(node.port, make_series("1.2.3.4.5.6", SLICES))

    def cancelled() -> bool:
        return node.command("jobs", "-c", str(node.config_path), "cancel", "1").returncode == 0

    wait_for(lambda: any(j["state"] == "done" for j in node.jobs()["jobs"]), 30, "the job to be done")
    wait_for(cancelled, 10, "the cancellation to be taken")
    pacs.start()
    wait_for(lambda: jobs_settled(node, 1), 10, "the delivery to end")
    time.sleep(1)
    assert pacs.stored == []
    assert node.jobs()["jobs"][0]["deliveries"][0]["reason"] == "cancelled"


def test_deliver__kill_between_two_instances_sends_only_the_rest(start_node, models, pacs):
    pacs.delay_s = 0.2
    node = started(start_node, models, pacs)
    send(node.port, make_series("1.2.3.4.5.6", 20))
    wait_for(lambda: len(pacs.stored) >= 12, 60, "half of the results")
    os.kill(stage_pids(node)["deliver"][0], signal.SIGKILL)
    wait_for(lambda: jobs_settled(node, 1), 60, "the rest", pause=0.1)
    check_once(pacs, ["1.2.3.4.5.6"], 20)
    assert len(pacs.stored) < 20 + 12, "it began anew"
