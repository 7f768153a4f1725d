"""The programs behind `make gpu-check` and `make gpu-bench`, as far as they run without a GPU: on the host twin."""

import json
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import enginekit
import numpy as np
import pytest
import sharding

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402

WORKER = enginekit.BUILD / "bench_gpu_worker"


def script(name):
    """A program of scripts/ as a module."""
    loader = SourceFileLoader(name, str(enginekit.ROOT / "scripts" / name))
    module = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def built():
    if not WORKER.exists():
        pytest.fail(f"{WORKER} is not built: make unit-programs")


def test_worker_measures_the_network_that_it_was_given(tmp_path):
    path, shape = nets.write("encdec64", tmp_path)
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    np.save(tmp_path / "in.npy", x)
    facts = []
    for _ in range(2):
        done = subprocess.run([WORKER, "--host-twin", "run", path, tmp_path / "in.npy", tmp_path / "out.npy", "3", tmp_path / "plans"],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        facts.append(json.loads(done.stdout))
    want = enginekit.oracle(path, [x])[0]
    assert np.abs(np.load(tmp_path / "out.npy") - want).max() <= 5e-3
    assert facts[0]["tuned"] > 0 and facts[0]["kept"] == 0
    assert facts[1]["tuned"] == 0 and facts[1]["kept"] == facts[0]["tuned"]
    for name in ("load_first_ms", "host_ms", "device_ms", "stream_per_s"):
        assert facts[1][name] > 0
    # Its arithmetic is that of the convolutions as ONNX defines them: counted here from the shapes.
    assert sum(flop for flop, _ in facts[1]["needs"]) == pytest.approx(2 * macs(path), rel=1e-9)


def macs(path) -> int:
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            w = weights[node.input[1]]
            places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += int(np.prod(places)) * int(np.prod(w[1:]))
    return total


def test_bench_makes_its_table_and_says_that_there_are_no_peers(tmp_path):
    done = subprocess.run([sys.executable, enginekit.ROOT / "scripts" / "bench_gpu", "--host-twin", "--build", enginekit.BUILD, "--repeat", "2",
                           "--batch", "1", "--json", tmp_path / "gpu.json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "no peers" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["peak"]["tflops"] > 0 and found["peak"]["gb_per_s"] > 0
    [row] = found["rows"]
    assert row["roofline_share"] == pytest.approx(row["roofline_ms"] / row["device_ms"])
    assert row["load_first_cold_ms"] > 0 and row["peers"] == {}


@pytest.mark.skipif("cuda" in enginekit.engines(), reason="there is a GPU")
@pytest.mark.parametrize("command", [["scripts/bench_gpu", "--build"], ["scripts/gpu_check", "--build"]])
def test_without_a_gpu_they_say_so_and_fail(command):
    done = subprocess.run([sys.executable, *command, enginekit.BUILD], cwd=enginekit.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "GPU" in done.stderr or "without CUDA" in done.stderr


def check(*more):
    command = [sys.executable, enginekit.ROOT / "scripts" / "gpu_check", "--build", enginekit.BUILD, "--engine", "cuda-host", "--processes", "2"]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=300)


def test_check_deals_every_test_to_one_process_and_reports_failures(tmp_path):
    patterns = ("--tests", enginekit.ROOT / "tests" / "engine" / "test_patterns.py")
    done = check(*patterns, "-k", "what_only_looks_like_a_pattern", "--json", tmp_path / "check.json")
    assert done.returncode == 0, done.stdout
    assert "gpu_check: 5 passed in" in done.stdout
    found = json.loads((tmp_path / "check.json").read_text())
    assert found.pop("seconds") > 0
    assert found == {"counts": {"passed": 5}, "failed": [], "not_reached": []}
    done = check(*patterns, "-k", "no_test_of_this_name")
    assert done.returncode == 1 and "nothing" in done.stdout


UNFINISHED = """
import signal, time
import pytest

@pytest.mark.parametrize("engine", ["cuda-host"])
class TestThese:
    def test_passes(self, engine):
        pass
    def test_fails(self, engine):
        assert 1 == 2, "as it must"
    def test_lasts(self, engine):
        if STUBBORN:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(100)
    def test_is_not_reached(self, engine):
        pass
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_check_that_is_cut_short_tells_what_it_found(stubborn, monkeypatch, capsys, tmp_path):
    (tmp_path / "test_these.py").write_text(f"STUBBORN = {stubborn}\n{UNFINISHED}")
    gpu_check = script("gpu_check")
    gpu_check.GRACE_S = 1 if stubborn else 30
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--build", str(enginekit.BUILD), "--engine", "cuda-host", "--processes", "1", "--seconds", "4",
                                      "--tests", str(tmp_path / "test_these.py"), "--json", str(tmp_path / "check.json"), "--verbose"])
    began = time.monotonic()
    assert gpu_check.main() == 1
    assert time.monotonic() - began < 15
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["counts"] == {"passed": 1, "failed": 1}
    assert [name.split("::")[-1] for name in found["failed"]] == ["test_fails[cuda-host]"]
    assert [name.split("::")[-1] for name in found["not_reached"]] == ["test_lasts[cuda-host]", "test_is_not_reached[cuda-host]"]
    said = capsys.readouterr().out
    assert "as it must" in said and "FAILED" in said and "not reached: 2" in said
    assert ("KeyboardInterrupt" in said) == (not stubborn)


def test_check_says_why_a_process_could_not_begin(tmp_path):
    (tmp_path / "test_broken.py").write_text("import there_is_no_such_module  # cuda-host")
    done = check("--tests", tmp_path / "test_broken.py")
    assert done.returncode == 1 and "there_is_no_such_module" in done.stdout


def test_long_tests_are_dealt_first_and_sanitizers_one_to_a_process():
    names = [f"test_small_{i}" for i in range(300)] + [f"test_hundred_times_{i}" for i in range(20)] + [f"test_sanitizer_{i}" for i in range(6)]
    dealt = sharding.deal(names, 8)
    assert sorted(i for shard in dealt for i in shard) == list(range(len(names)))
    assert [sum("sanitizer" in names[i] for i in shard) for shard in dealt] == [1] * 6 + [0] * 2
    loads = [sum(sharding.cost(names[i]) for i in shard) for shard in dealt]
    assert max(loads) - min(loads) <= 1
    for shard in dealt:
        costs = [sharding.cost(names[i]) for i in shard]
        assert costs == sorted(costs, reverse=True)


def test_check_serves_the_engine_that_it_checks(tmp_path):
    (tmp_path / "test_served.py").write_text(
        "import enginekit, pytest\n@pytest.mark.parametrize('engine', ['cuda-host'])\ndef test_it(engine): assert engine in enginekit.SERVED\n")
    done = check("--tests", tmp_path / "test_served.py")
    assert done.returncode == 0, done.stdout
