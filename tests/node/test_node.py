"""The running node: who may send, what the same and other content under one UID gives, reload, stop, disk, HTTP."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import proc
from harness.net import free_port, http, wait_for
from nodekit import check_once, jobs_settled, make_series, send, settings, stage_pids, write_toy_model
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import Verification

UID = "1.2.3.4.5.7"


def echo(port: int, calling: str = "TESTER", called: str = "SPINENODE") -> bool:
    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return False
    status = association.send_c_echo().Status
    association.release()
    return status == 0


def metric(node, name: str) -> float:
    text = node.http("/metrics")[1].decode()
    return float(re.search(rf"^spinenode_{re.escape(name)} (\S+)$", text, re.M).group(1))


def series_of(node, uid: str = UID) -> dict:
    return next((s for s in node.jobs()["series"] if s["series_uid"] == uid), {})


def test_node__knows_its_callers_and_its_own_name(toy_node):
    node = toy_node()
    assert echo(node.port)
    assert not echo(node.port, calling="STRANGER")
    assert not echo(node.port, called="SOMEBODY")
    assert send(node.port, make_series(UID, 1), calling="STRANGER") == [None]
    assert "not among callers" in node.log()
    assert node.jobs() == {"series": [], "jobs": []}


def test_node__rejects_a_caller_from_another_address(start_node, pacs, models):
    changes = settings(models)
    node = start_node(pacs=[pacs], start=False, changes=changes)
    node.settings["callers"] = [{"ae_title": "TESTER", "addresses": ["192.0.2.1", "127.0.0.2", "::1", "10.0.0.0/8"]}]
    node.write_config()
    node.start()
    assert not echo(node.port)
    assert "may not call from this address" in node.log()


def test_node__same_instance_again_changes_nothing(toy_node, pacs):
    node = toy_node()
    images = make_series(UID, 3)
    assert send(node.port, images) == [0, 0, 0]
    wait_for(lambda: jobs_settled(node, 1), 60, "the job")
    assert send(node.port, images) == [0, 0, 0]
    time.sleep(1)
    assert series_of(node)["revision"] == 1 and series_of(node)["instances"] == 3
    assert len(node.jobs()["jobs"]) == 1
    check_once(pacs, [UID], 3)
    assert metric(node, "instances_known_total") == 3
    assert len(list((node.folder / "spool" / "in").iterdir())) == 3


def test_node__same_instance_in_another_transfer_syntax_is_the_same(toy_node):
    node = toy_node(completeness={"quiet_ms": 60000})
    images = make_series(UID, 1)
    assert send(node.port, images) == [0]
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(images[0].SOPClassUID, ImplicitVRLittleEndian)
    images[0].file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    association = ae.associate("127.0.0.1", node.port, ae_title="SPINENODE")
    assert association.send_c_store(images[0]).Status == 0
    association.release()
    assert series_of(node)["instances"] == 1


def test_node__keeps_the_first_of_two_contents_under_one_uid_and_says_so(toy_node):
    node = toy_node(completeness={"quiet_ms": 60000})
    first, second = make_series(UID, 1), make_series(UID, 1, EchoTime=100)
    assert send(node.port, first) == [0]
    assert send(node.port, second) == [0xA900]
    assert series_of(node)["instances"] == 1
    assert "another instance came under this SOP Instance UID" in node.log()


def test_node__late_instance_makes_a_revision_with_a_result_of_its_own(toy_node, pacs):
    node = toy_node()
    images = make_series(UID, 5)
    send(node.port, images[:4])
    wait_for(lambda: jobs_settled(node, 1), 60, "the first result")
    send(node.port, images[4:])
    jobs = wait_for(lambda: jobs_settled(node, 2), 60, "the second result")
    assert series_of(node)["revision"] == 2
    assert sorted(j["outputs"] for j in jobs) == [4, 5]
    assert len({r.dataset().SeriesInstanceUID for r in pacs.stored}) == 2


def test_node__waits_while_the_series_still_comes_in_pieces(toy_node):
    node = toy_node(completeness={"quiet_ms": 1500})
    images = make_series(UID, 4)
    for image in images:  # an association each, as some modalities do
        send(node.port, [image])
        time.sleep(0.3)
    jobs = wait_for(lambda: jobs_settled(node, 1), 60, "the job")
    assert [j["outputs"] for j in jobs] == [4]


def test_node__refuses_with_the_reason_and_goes_on(toy_node, pacs):
    node = toy_node()
    send(node.port, make_series(UID, 3, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    wait_for(lambda: series_of(node).get("state") == "refused", 30, "the refusal")
    assert series_of(node)["reason"]
    assert node.jobs()["jobs"] == []
    send(node.port, make_series(UID + ".8", 3))
    wait_for(lambda: jobs_settled(node, 1), 60, "the next series")
    check_once(pacs, [UID + ".8"], 3)


def test_node__plans_a_refused_series_again_when_told(start_node, pacs, models):
    changes = settings(models)
    changes["rules"][0]["match"] = {"contrast": ["T2"], "plane": ["coronal"]}
    node = start_node(pacs=[pacs], changes=changes)
    send(node.port, make_series(UID, 3))
    wait_for(lambda: series_of(node).get("state") == "refused", 30, "the refusal")
    node.settings["rules"][0]["match"] = {"contrast": ["T2"]}
    node.write_config()
    os.kill(node.process.pid, signal.SIGHUP)
    wait_for(lambda: " reloaded " in node.log() and node.http("/readyz")[0] == 200, 20, "the reload")
    assert node.command("jobs", "-c", str(node.config_path), "retry", series_of(node)["id"]).returncode == 0
    wait_for(lambda: jobs_settled(node, 1), 60, "the job")
    check_once(pacs, [UID], 3)


@pytest.mark.parametrize("what", ["changed", "gone", "cut"])
def test_node__job_says_so_when_its_model_is_no_longer_what_it_was_planned_with(toy_node, models, pacs, what):
    node = toy_node()
    [worker] = stage_pids(node)["work"]
    os.kill(worker, signal.SIGSTOP)
    send(node.port, make_series(UID, 3))
    wait_for(lambda: node.jobs()["jobs"], 30, "the job to be made")
    if what == "changed":
        write_toy_model(models / "toy.onnx", version="1.0.1", layers=2)
    elif what == "gone":
        (models / "toy.onnx").unlink()
    else:
        (models / "toy.onnx").write_bytes((models / "toy.onnx").read_bytes()[:200])
    os.kill(worker, signal.SIGCONT)
    [job] = wait_for(lambda: jobs_settled(node, 1), 60, "the job to end")
    assert job["state"] in ("failed", "refused") and "toy.onnx" in job["reason"]
    assert pacs.stored == []


def test_node__new_model_makes_a_new_result_of_a_series_that_is_planned_again(toy_node, models):
    node = toy_node()
    send(node.port, make_series(UID, 3))
    wait_for(lambda: jobs_settled(node, 1), 60, "the job with the old file")
    again = ["jobs", "-c", str(node.config_path), "retry", series_of(node)["id"]]
    assert node.command(*again).returncode == 0
    wait_for(lambda: series_of(node)["state"] == "planned", 30, "the same plan")
    assert len(node.jobs()["jobs"]) == 1
    write_toy_model(models / "toy.onnx", version="1.0.1", layers=2)
    assert node.command(*again).returncode == 0
    jobs = wait_for(lambda: jobs_settled(node, 2), 60, "the job with the new file")
    assert len({j["model_digest"] for j in jobs}) == 2


def test_node__reload_keeps_the_old_configuration_when_the_new_is_bad(toy_node):
    node = toy_node()
    before = stage_pids(node)
    node.config_path.write_text("node: {ae_title: 7, nonsense: yes}\n")
    os.kill(node.process.pid, signal.SIGHUP)
    wait_for(lambda: "reload_failed" in node.log(), 10, "the reload to fail")
    assert stage_pids(node) == before
    assert echo(node.port)


def test_node__reload_takes_the_new_configuration_without_closing_the_port(toy_node):
    node = toy_node()
    refused, stop = [], threading.Event()

    def knock():
        import socket
        while not stop.is_set():
            try:
                socket.create_connection(("127.0.0.1", node.port), 1).close()
            except OSError as e:
                refused.append(e)
            time.sleep(0.01)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        node.settings["callers"].append({"ae_title": "NEWCOMER", "addresses": ["127.0.0.0/8"]})
        node.write_config()
        assert not echo(node.port, calling="NEWCOMER")
        os.kill(node.process.pid, signal.SIGHUP)
        wait_for(lambda: " reloaded " in node.log() and node.log().count(" ready ") == 2, 20, "the reload")
    finally:
        stop.set()
        thread.join()
    assert echo(node.port, calling="NEWCOMER")
    assert refused == []


def test_node__reload_to_a_port_that_is_taken_changes_nothing(toy_node, pacs):
    node = toy_node()
    node.settings["node"]["port"] = pacs.port
    node.write_config()
    os.kill(node.process.pid, signal.SIGHUP)
    wait_for(lambda: "reload_failed" in node.log(), 10, "the reload to fail")
    assert echo(node.port)


def test_node__stop_lets_what_is_under_way_finish_and_loses_nothing(toy_node, pacs):
    node = toy_node()
    series = {f"{UID}.{i}": make_series(f"{UID}.{i}", 4) for i in range(1, 4)}
    for images in series.values():
        assert send(node.port, images) == [0] * 4
    assert node.stop() == 0
    assert "stage_killed" not in node.log()
    node.start()
    wait_for(lambda: jobs_settled(node, 3), 60, "the jobs")
    check_once(pacs, list(series), 4)
    assert all(j["crashes"] == 0 for j in node.jobs()["jobs"])


def test_node__second_node_on_the_same_spool_does_not_start(toy_node):
    node = toy_node()
    other = node.folder / "other.yaml"
    text = node.config_path.read_text().replace(str(node.port), str(free_port())).replace(str(node.http_port), str(free_port()))
    other.write_text(text)
    done = subprocess.run([str(node.program), "run", "-c", str(other)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "another node works on spool" in done.stderr


def test_node__waits_for_its_ports_when_one_that_was_killed_still_ends(toy_node):
    node = toy_node()
    assert node.stop() == 0
    held = [socket.create_server(("127.0.0.1", port)) for port in (node.port, node.http_port)]
    node.start(ready=False)
    for listener in held:
        time.sleep(0.3)
        assert node.process.poll() is None
        listener.close()
    wait_for(lambda: node.http("/readyz")[0] == 200, 10, "the node to be ready")
    assert echo(node.port)


def test_node__says_why_it_cannot_start(toy_node, pacs):
    node = toy_node()
    node.stop()
    node.settings["node"]["port"] = pacs.port
    node.write_config()
    done = node.command("run", "-c", str(node.config_path))
    assert done.returncode == 1 and str(pacs.port) in done.stderr


def test_node__answers_out_of_resources_when_the_disk_is_too_full_and_loses_nothing(start_node, pacs, models):
    node = start_node(pacs=[pacs], start=False, changes=settings(models, limits={"disk_free_bytes": 10**15}))
    node.start(ready=False)
    wait_for(lambda: " ready " in node.log(), 20, "the node to work")
    # Whoever waits for such a node is told why, and sees the log as it is when the time is over.
    with pytest.raises(TimeoutError, match=r"(?s)/readyz: 503 disk of the spool is full.* ready ae="):
        node.wait_until_ready(0.1)
    assert send(node.port, make_series(UID, 2)) == [0xA700, 0xA700]
    assert node.jobs()["series"] == []
    assert list((node.folder / "spool" / "in").iterdir()) == []
    status, body = node.http("/readyz")
    assert status == 503 and b"disk of the spool is full" in body
    assert metric(node, 'instances_refused_total{status="full"}') == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_node__acknowledges_nothing_that_does_not_fit_on_the_disk(toy_node, tmp_path):
    spool = tmp_path / "small"
    spool.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(spool)], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        node = toy_node(node={"spool": str(spool / "spool"), "log_level": "debug"},
                        limits={"disk_free_bytes": 0, "disk_free_percent": 0}, completeness={"quiet_ms": 60000})
        images = make_series(UID, 12, side=512)
        statuses = send(node.port, images)
        taken = statuses.count(0)
        assert 0 < taken < len(images)
        assert set(statuses) <= {0, 0xA700}
        assert series_of(node)["instances"] == taken
        sizes = [p.stat().st_size for p in (spool / "spool" / "in").iterdir()]
        assert len(sizes) == taken and min(sizes) > 512 * 512 * 2
        node.stop()
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=False)


def test_node__http_is_read_only_and_bounded(toy_node):
    node = toy_node()
    assert node.http("/healthz") == (200, b"ok\n")
    assert node.http("/readyz")[0] == 200
    assert node.http("/nothing")[0] == 404
    assert http("POST", f"http://127.0.0.1:{node.http_port}/", b"x" * 100000)[0] == 405
    assert http("DELETE", f"http://127.0.0.1:{node.http_port}/metrics")[0] == 405


def test_node__metrics_are_prometheus_text_and_count(toy_node, pacs):
    node = toy_node()
    send(node.port, make_series(UID, 3))
    wait_for(lambda: jobs_settled(node, 1), 60, "the job")
    text = node.http("/metrics")[1].decode()
    names = set()
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) spinenode_\w+ .+", line), line
        else:
            match = re.fullmatch(r'(spinenode_\w+)(\{\w+="[^"]*"\})? [0-9.e+-]+', line)
            assert match, line
            names.add(match.group(1))
    assert len(names) > 20
    assert metric(node, "instances_received_total") == 3
    assert metric(node, "instances_sent_total") == 3
    assert metric(node, 'jobs{state="done"}') == 1
    assert metric(node, "inference_seconds_count") == 1


def test_node__nothing_about_the_patient_in_log_metrics_page_or_jobs(toy_node):
    node = toy_node()
    send(node.port, make_series(UID, 3))
    send(node.port, make_series(UID + ".9", 2, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    wait_for(lambda: jobs_settled(node, 1) and series_of(node, UID + ".9").get("state") == "refused", 60, "both")
    said = node.log() + str(node.jobs()) + node.http("/")[1].decode() + node.http("/metrics")[1].decode()
    assert "SECRET" not in said.upper()


def test_node__is_idle_when_there_is_nothing_to_do(toy_node):
    node = toy_node()
    time.sleep(1)

    def ticks() -> int:
        total = 0
        for pid in node.processes():
            fields = proc.read(pid, "stat").rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total

    before = ticks()
    time.sleep(4)
    assert (ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.2
