"""`make bench-engine`: its worker, its table and its ratios, with onnxruntime as the only peer."""

import json
import subprocess
import sys

import enginekit
import numpy as np
import pytest

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402

WORKER = enginekit.BUILD / "bench_engine_worker"
BENCH = enginekit.ROOT / "scripts" / "bench_engine"


@pytest.fixture
def network(tmp_path):
    """encdec64 and an input: (model, input file, input)."""
    path, shape = nets.write("encdec64", tmp_path)
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    np.save(tmp_path / "in.npy", x)
    return path, tmp_path / "in.npy", x


def bench(*arguments):
    return subprocess.run([sys.executable, BENCH, "--build", enginekit.BUILD, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("option", [[], ["isa=base"], ["low-memory"]])
def test_worker_measures_the_network_that_it_was_given(network, tmp_path, option):
    path, source, x = network
    out = tmp_path / "out.npy"
    done = subprocess.run([WORKER, path, source, out, "2", *option], input="\n\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts, *times = done.stdout.splitlines()
    facts = json.loads(facts)
    assert facts["load_first_ms"] > 0 and facts["peak_mb"] > 0 and facts["text"].endswith("2 threads")
    assert "isa=base" not in option or facts["text"].startswith("cpu base")
    assert len(times) == 2 and all(float(word) > 0 for line in times for word in line.split())
    assert np.abs(np.load(out) - enginekit.oracle(path, [x])[0]).max() <= 1e-5


@pytest.mark.parametrize("threads", ["1", "3"])
def test_worker_tells_where_the_time_goes(network, threads):
    path, source, _ = network
    done = subprocess.run([WORKER, path, source, "steps", threads], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)
    assert all(us >= 0 for _, _, us, _, _ in steps) and sum(us for _, _, us, _, _ in steps) > 0
    got = {node: gflop for node, _, _, gflop, _ in steps if gflop > 0}
    assert got == {name: pytest.approx(2e-9 * n, rel=1e-4) for name, n in enginekit.macs_by_node(path).items()}
    assert all((mb > 0) == (gflop > 0) for _, _, _, gflop, mb in steps)


def test_bench_compares_with_the_faster_and_the_smaller_peer(tmp_path):
    done = bench("encdec64", "--threads", "1", "--rounds", "3", "--loads", "1", "--peers", "onnxruntime", "--steps", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "b.json").read_text())
    ours, low, peer = (row["engines"][name] for name in ("spinenode", "spinenode low-memory", "onnxruntime"))
    assert row["ratios"] == {"median": peer["median_ms"] / ours["median_ms"], "min": peer["min_ms"] / ours["min_ms"], "cpu": peer["cpu_ms"] / ours["cpu_ms"],
                             "load": ours["load_first_ms"] / peer["load_first_ms"], "load_cpu": ours["load_first_cpu_ms"] / peer["load_first_cpu_ms"],
                             "memory": ours["peak_mb"] / peer["peak_mb"], "low_memory": low["peak_mb"] / peer["peak_mb"]}
    assert peer["max_difference"] <= 1e-5 and low["max_difference"] <= 1e-5
    [together] = [line.split() for line in done.stdout.splitlines() if line.startswith("  together")]
    assert float(together[1]) == pytest.approx(sum(us for _, _, us, _, _ in row["steps"]) / 1e3, abs=1e-3)


def test_bench_takes_the_median_of_the_rounds(tmp_path):
    done = bench("encdec64", "--threads", "1", "--rounds", "5", "--loads", "1", "--peers", "--no-low-memory", "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "b.json").read_text())
    assert list(row["engines"]) == ["spinenode"] and row["ratios"] == {}
    assert 0 < row["engines"]["spinenode"]["min_ms"] <= row["engines"]["spinenode"]["median_ms"]


@pytest.mark.parametrize(("arguments", "reason"), [
    (["nosuchnet"], "no network nosuchnet: there are unet256"),
    (["encdec64", "--rounds", "0"], "are at least 1"),
    (["encdec64", "--isa", "sse9"], "invalid choice"),
    (["encdec64", "--build", "/nowhere"], "run make bench-engine"),
])
def test_bench_says_what_is_wrong_with_its_arguments(arguments, reason):
    done = bench(*arguments)
    assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
