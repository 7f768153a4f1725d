"""What the node does with GPUs, and with GPUs that fail, by a build in which GPUs are files (stand_in.c) and the kernels run on the host."""

import os
import re
import time
from pathlib import Path

import pytest
from harness import node as harness_node
from harness.net import wait_for
from nodekit import check_once, jobs_settled, make_series, send, stage_pids

BUILD = harness_node.binary().parent
STAND_IN = BUILD / "tests" / "spinenode-stand-in"
FAKE_NVML = BUILD / "tests" / "fake-nvml"
SLICES = 6
UID = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture
def spinenode() -> Path:
    if not STAND_IN.exists():
        pytest.fail(f"{STAND_IN} is not built: make unit-programs")
    return STAND_IN


@pytest.fixture
def gpus(tmp_path, monkeypatch) -> Path:
    """A folder with one GPU."""
    folder = tmp_path / "gpus"
    folder.mkdir()
    (folder / "0").write_text("GPU-aaaa\n")
    monkeypatch.setenv("SPINENODE_STAND_IN", str(folder))
    return folder


def engine(tmp_path, **changes) -> dict:
    return {"engine": {"name": "auto", "threads": 1, "batch": 2, "cache": str(tmp_path / "plans"), **changes}}


def do_series(node, pacs, number: int = 1) -> None:
    """Sends a series and waits until its results are in the PACS."""
    before = len(pacs.stored)
    assert send(node.port, make_series(f"{UID}.{number}", SLICES)) == [0] * SLICES
    wait_for(lambda: len(pacs.stored) >= before + SLICES, 60, lambda: f"the results; log:\n{node.log()[-3000:]}", pause=0.05)


def done_lines(node) -> list[dict]:
    """What the log says of each job that was done."""
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in node.log().splitlines() if "job_done" in line]


def metric(node, name: str) -> float:
    found = re.search(rf"^spinenode_{re.escape(name)} (\S+)$", node.http("/metrics")[1].decode(), re.M)
    return float(found.group(1)) if found else -1


def test_gpu__takes_the_jobs_in_batches_and_is_counted(toy_node, pacs, gpus, tmp_path):
    node = toy_node(**engine(tmp_path))
    do_series(node, pacs)
    check_once(pacs, [f"{UID}.1"], SLICES)
    [done] = done_lines(node)
    assert (done["engine"], done["batch"], done["outputs"]) == ("cuda", "2", str(SLICES))
    assert metric(node, 'images_total{engine="cuda"}') == SLICES
    assert metric(node, 'images_total{engine="cpu"}') == 0
    assert metric(node, 'engine_busy_seconds_total{engine="cuda"}') > 0
    assert metric(node, 'images_per_second{engine="cuda"}') == pytest.approx(
        SLICES / metric(node, 'engine_busy_seconds_total{engine="cuda"}'), rel=0.01)
    assert metric(node, "engine_fallbacks_total") == 0
    assert "cuda half" in str(pacs.stored[0].dataset())


def test_gpu__cpu_jobs_are_counted_as_such(toy_node, pacs, gpus, tmp_path):
    node = toy_node(**engine(tmp_path, name="cpu"))
    do_series(node, pacs)
    assert done_lines(node)[0]["engine"] == "cpu"
    assert metric(node, 'images_total{engine="cpu"}') == SLICES
    assert metric(node, 'images_per_second{engine="cpu"}') > 0


def test_gpu__tuned_plans_are_kept_for_the_next_start(toy_node, pacs, gpus, tmp_path):
    node = toy_node(**engine(tmp_path))
    do_series(node, pacs, 1)
    made = metric(node, 'tuned_plans_total{from="tuning"}')
    assert made > 0 and metric(node, 'tuned_plans_total{from="cache"}') == 0
    assert [p.suffix for p in (tmp_path / "plans").iterdir()] == [".plans"]
    node.stop()
    node.start()
    do_series(node, pacs, 2)
    assert metric(node, 'tuned_plans_total{from="cache"}') == made
    assert metric(node, 'tuned_plans_total{from="tuning"}') == 0


def test_gpu__that_fails_ends_its_worker_and_a_new_one_does_the_job(toy_node, pacs, gpus, tmp_path):
    (gpus / "0.fail").write_text("2")  # the third batch fails, and everything after it in that process
    node = toy_node(**engine(tmp_path))
    [worker] = stage_pids(node)["work"]
    do_series(node, pacs)
    check_once(pacs, [f"{UID}.1"], SLICES)
    assert stage_pids(node)["work"] != [worker]
    log = node.log()
    assert "device_failed" in log and 'cause="exit 3"' in log
    assert "leases_back" not in log  # it was given back by the worker itself, not taken from the dead
    assert [d["engine"] for d in done_lines(node)] == ["cuda"]
    [job] = jobs_settled(node, 1)
    assert job["state"] == "done" and job.get("crashes", 0) == 0
    assert metric(node, 'job_failures_total{class="device"}') == 1


@pytest.mark.parametrize("settings", [{"name": "auto"}, {"name": "cuda", "fallback": "cpu"}])
def test_gpu__that_vanishes_leaves_its_jobs_to_the_cpu_if_that_is_allowed(settings, toy_node, pacs, gpus, tmp_path):
    node = toy_node(**engine(tmp_path, **settings))
    do_series(node, pacs, 1)
    (gpus / "0").unlink()
    do_series(node, pacs, 2)
    check_once(pacs, [f"{UID}.1", f"{UID}.2"], SLICES)
    assert [d["engine"] for d in done_lines(node)] == ["cuda", "cpu"]
    if settings["name"] == "cuda":  # auto is whatever there is
        assert "engine_fallback" in node.log() and "there is no GPU" in node.log()
        assert metric(node, "engine_fallbacks_total") == 1


def test_gpu__that_vanishes_keeps_its_jobs_waiting_if_the_cpu_must_not(toy_node, pacs, gpus, tmp_path):
    node = toy_node(**engine(tmp_path, name="cuda"))
    do_series(node, pacs, 1)
    (gpus / "0").unlink()
    assert send(node.port, make_series(f"{UID}.2", SLICES)) == [0] * SLICES
    wait_for(lambda: "job_put_off" in node.log(), 30, "the job to be put off")
    time.sleep(1)
    assert len(pacs.stored) == SLICES
    assert [j["state"] for j in node.jobs()["jobs"]].count("waiting") == 1
    (gpus / "0").write_text("GPU-aaaa\n")
    wait_for(lambda: len(pacs.stored) == 2 * SLICES, 60, "the results", pause=0.1)
    assert [d["engine"] for d in done_lines(node)] == ["cuda", "cuda"]


def test_gpu__that_always_fails_leaves_the_job_to_the_cpu_at_the_third_attempt(toy_node, pacs, gpus, tmp_path):
    (gpus / "0.fails").write_text("1")
    node = toy_node(**engine(tmp_path, name="cuda", fallback="cpu"))
    do_series(node, pacs)
    assert [d["engine"] for d in done_lines(node)] == ["cpu"]
    assert node.log().count("device_failed") == 2


def test_gpu__with_little_memory_takes_fewer_images_at_once(toy_node, pacs, gpus, tmp_path):
    # One image of 64 x 64 takes some 200 kB; both slots of a batch of 16 do not fit, one of 4 does.
    (gpus / "0").write_text("GPU-aaaa memory=1500000\n")
    node = toy_node(**engine(tmp_path, batch=16))
    do_series(node, pacs)
    [done] = done_lines(node)
    assert done["engine"] == "cuda" and 1 <= int(done["batch"]) < 16


@pytest.mark.parametrize("fallback", ["cpu", "none"])
def test_gpu__with_memory_for_no_image_says_so_or_leaves_it_to_the_cpu(fallback, toy_node, pacs, gpus, tmp_path):
    (gpus / "0").write_text("GPU-aaaa memory=10000\n")
    node = toy_node(**engine(tmp_path, fallback=fallback))
    if fallback == "cpu":
        do_series(node, pacs)
        assert done_lines(node)[0]["engine"] == "cpu"
    else:
        assert send(node.port, make_series(UID, SLICES)) == [0] * SLICES
        wait_for(lambda: "job_put_off" in node.log(), 30, "the job to be put off")
    assert "a single image does not fit into the memory of engine cuda" in node.log()


@pytest.mark.parametrize("fallback", ["cpu", "none"])
def test_gpu__that_computes_something_else_than_the_cpu_is_not_believed(fallback, toy_node, pacs, gpus, tmp_path):
    (gpus / "0").write_text("GPU-aaaa wrong\n")
    node = toy_node(**engine(tmp_path, fallback=fallback))
    if fallback == "cpu":
        do_series(node, pacs, 1)
        do_series(node, pacs, 2)
        check_once(pacs, [f"{UID}.1", f"{UID}.2"], SLICES)
        assert [d["engine"] for d in done_lines(node)] == ["cpu", "cpu"]
        assert metric(node, "engine_fallbacks_total") == 2
    else:
        assert send(node.port, make_series(UID, SLICES)) == [0] * SLICES
        wait_for(lambda: "job_put_off" in node.log(), 30, "the job to be put off")
        assert not pacs.stored
    assert re.search(r"the GPU's result of image 4 is \d+ % of the grey range from the CPU's", node.log())


def test_gpu__is_believed_where_nobody_checks(toy_node, pacs, gpus, tmp_path):
    (gpus / "0").write_text("GPU-aaaa wrong\n")
    node = toy_node(**engine(tmp_path, crosscheck="no"))
    do_series(node, pacs)
    assert [d["engine"] for d in done_lines(node)] == ["cuda"]


def test_gpu__several_are_several_workers(toy_node, pacs, gpus, tmp_path):
    (gpus / "1").write_text("GPU-bbbb\n")
    (gpus / "2").write_text("GPU-cccc\n")
    node = toy_node(**engine(tmp_path, devices=["GPU-cccc", 1]))
    assert len(stage_pids(node)["work"]) == 2
    number = 0
    end = time.monotonic() + 60
    while not ((gpus / "1.used").exists() and (gpus / "2.used").exists()):
        assert time.monotonic() < end, "one of two workers took every job"
        for _ in range(4):
            number += 1
            assert send(node.port, make_series(f"{UID}.{number}", SLICES)) == [0] * SLICES
        wait_for(lambda: len(pacs.stored) >= number * SLICES, 60, "the results", pause=0.05)
    assert not (gpus / "0.used").exists()
    assert {d["engine"] for d in done_lines(node)} == {"cuda"}


def test_gpu__figures_come_from_the_driver_where_there_is_one(toy_node, gpus, tmp_path, monkeypatch):
    node = toy_node(**engine(tmp_path))
    assert "spinenode_gpu" not in node.http("/metrics")[1].decode()
    node.stop()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{FAKE_NVML}:{os.environ.get('LD_LIBRARY_PATH', '')}")
    node.start()
    assert metric(node, "gpus") == 2
    assert metric(node, 'gpu_utilisation{gpu="GPU-00000"}') == 0.75
    assert metric(node, 'gpu_utilisation{gpu="GPU-00001"}') == 0
    assert metric(node, 'gpu_memory_used_bytes{gpu="GPU-00000"}') == 1e9
    assert metric(node, 'gpu_memory_total_bytes{gpu="GPU-00001"}') == 150e9
    assert metric(node, 'gpu_temperature_celsius{gpu="GPU-00000"}') == 61
    assert metric(node, 'gpu_temperature_celsius{gpu="GPU-00001"}') == -1  # not told, and so not there
    node.stop()
    monkeypatch.setenv("FAKE_NVML_FAIL", "1")
    node.start()
    assert node.http("/readyz")[0] == 200
    assert metric(node, "gpus") == -1
