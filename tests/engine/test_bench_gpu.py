"""The programs behind `make gpu-check` and `make gpu-bench`, as far as they run without a GPU: on the host twin."""

import argparse
import json
import os
import signal
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
import bench_gpu_peer as peers  # noqa: E402
import gpu_plain  # noqa: E402

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
    assert sum(flop for flop, _ in facts[1]["needs"]) == pytest.approx(2 * sum(enginekit.macs_by_node(path).values()), rel=1e-9)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """bench(argument, ...) -> the exit status of bench_gpu on the host twin, its JSON in gpu.json; bench.module is the script."""
    module = script("bench_gpu")

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["bench_gpu", "--host-twin", "--build", str(enginekit.BUILD), "--repeat", "2",
                                          "--json", str(tmp_path / "gpu.json"), *more])
        return module.main()

    run.module = module
    return run


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


def test_bench_shows_where_the_time_goes(bench, capsys, tmp_path):
    path, _ = nets.write("encdec64", tmp_path)
    assert bench("--batch", "1", "--steps") == 0
    [row] = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    # Where nothing is padded to eight channels, and nothing transposed, a step computes what ONNX defines.
    want = {name: n for name, n in enginekit.macs_by_node(path).items() if name.startswith("conv") and "transpose" not in name and name != "conv3"}
    got = {node: gflop for node, what, _, gflop in row["steps"] if node in want and what.startswith("convolution")}
    assert len(want) == 5 and got == {name: pytest.approx(2e-9 * n, rel=1e-4) for name, n in want.items()}
    [line] = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  convolution")]
    assert int(line[1]) == sum(what.startswith("convolution") for _, what, _, _ in row["steps"]) > 0
    assert line[-1] == "TFLOP/s"


def test_bench_adds_up_steps_by_kind(bench):
    steps = [["a", "convolution 3x3/1 1x8x8x4 to 4 +bias", 20.0, 1.0], ["b", "affine, 12", 30.0, 0], ["c", "convolution 1x1/1 1x8x8x4 to 4", 40.0, 5.0],
             ["d", "affine, 99", 10.0, 0]]
    convolution, affine = bench.module.kinds(steps)
    assert convolution == {"kind": "convolution", "count": 2, "us": 60, "gflop": 6, "share": 0.6, "tflops": pytest.approx(6e9 / 60e-6 / 1e12)}
    assert (affine["kind"], affine["count"], affine["us"], affine["share"]) == ("affine", 2, 40, 0.4)


def test_bench_that_is_killed_leaves_the_rows_that_it_had(bench, capsys, monkeypatch, tmp_path):
    measure = bench.module.measure

    def killed(options, peer, name, batch, folder):
        if batch == 2:
            raise KeyboardInterrupt
        return measure(options, peer, name, batch, folder)

    monkeypatch.setattr(bench.module, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        bench("--batch", "1", "2")
    [row] = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert row["batch"] == 1 and row["roofline_share"] > 0
    assert "encoder-decoder 64 at 1: ours" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.new"))


def test_bench_holds_a_row_to_its_fastest_peer_and_to_the_roofline(bench):
    row = {"device_ms": 2.0, "host_ms": 3.0, "needs": [[4e9, 1e5], [1e6, 4e6]],
           "peers": {"eager": {"device_ms": 5.0, "host_ms": 6.0}, "graph": {"device_ms": 2.5, "host_ms": 9.0}}}
    peak = {"tflops": 4.0, "tflops_best": 8.0, "gb_per_s": 2.0}
    got = bench.module.judged(row, peak)
    assert (got["fastest_device_ms"], got["ratio_device_ms"]) == ("graph", 1.25)
    assert (got["fastest_host_ms"], got["ratio_host_ms"]) == ("eager", 2)
    assert got["roofline_ms"] == pytest.approx(1 + 2) and got["roofline_share"] == pytest.approx(1.5)
    assert (got["higher_roof_tflops"], got["higher_roof_share"]) == (8, pytest.approx(1.25))
    assert "needs" in row and "needs" not in got  # it is judged again when a peer comes late
    got = bench.module.judged({**row, "steps": [["a", "convolution", 100.0, 1.0], ["b", "affine", 1.0, 0]]}, peak)
    assert (got["higher_roof_tflops"], got["higher_roof_share"]) == (10, pytest.approx(1.2)), "no roof below what a convolution reached"


def test_bench_tells_how_fast_it_was_before_on_such_a_gpu(bench, capsys):
    kept = enginekit.ROOT / "tests" / "engine" / "h200_bench.json"
    [then] = [r["device_ms"] for r in json.loads(kept.read_text())["rows"] if (r["network"], r["batch"]) == ("U-Net 512", 64)]
    row = {"network": "U-Net 512", "batch": 64, "device_ms": then / 1.5, "engine": "cuda half, NVIDIA H200 (GPU-1), cuDNN 9.20.0"}
    bench.module.show_change([row, {**row, "batch": 3}], kept)
    assert capsys.readouterr().out.rstrip().endswith("U-Net 512 at 64 1.50x")
    bench.module.show_change([{**row, "engine": "cuda half, NVIDIA L4 (GPU-1), cuDNN 9.20.0"}], kept)
    assert capsys.readouterr().out == ""


def test_bench_goes_on_without_a_peer_that_fails(bench, monkeypatch, capsys, tmp_path):
    class Peer:
        def export(self, name, size, path):
            nets.write("encdec64", path.parent)

        def largest_difference(self, name, x, result):
            return float(np.abs(result - enginekit.oracle(tmp_path / "encdec64.onnx", [x])[0]).max())

        def times(self, name, x, how, repeat):
            if how == "graph":
                raise RuntimeError("out of memory")
            return {"device_ms": 1.0, "host_ms": 2.0}

    options = argparse.Namespace(plans=None, networks=bench.module.SMALL, build=enginekit.BUILD, host_twin=True, repeat=2, steps=False, peer=peers.EAGER)
    row = {"network": "encoder-decoder 64", "batch": 1, "peers": {}}
    row.update(bench.module.measure(options, Peer(), row["network"], 1, tmp_path))
    bench.module.add_peers(options, Peer(), row, tmp_path)
    assert list(row["peers"]) == ["eager", "channels_last"] and row["device_ms"] > 0
    assert 0 < row["largest_difference"] < 5e-3
    assert "graph: out of memory" in capsys.readouterr().out


class WildPeer:
    """Fails in every way, each time another."""

    def __init__(self, kept):
        self.kept, self.seen = kept, []

    def peaks(self):
        raise KeyError("peaks")

    def export(self, name, size, path):
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    def largest_difference(self, name, x, result):
        raise AssertionError("this is another network")

    def times(self, name, x, how, repeat):
        self.seen.append(len(json.loads(self.kept.read_text())["rows"]))
        if how == "eager":
            return {"device_ms": 1.0, "host_ms": 2.0}
        raise {"graph": OSError, "channels_last": ZeroDivisionError}[how](how)


def test_bench_keeps_every_figure_whatever_a_peer_throws(bench, monkeypatch, capsys, tmp_path):
    peer = WildPeer(tmp_path / "gpu.json")
    monkeypatch.setattr(bench.module, "peer_or_why", lambda *_: (peer, "a wild peer"))
    assert bench("--batch", "1", "2", "--no-compile") == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["peak"]["tflops"] > 0
    assert [(row["batch"], row["device_ms"] > 0, list(row["peers"])) for row in found["rows"]] == [(1, True, ["eager"]), (2, True, ["eager"])]
    assert peer.seen == [1, 1, 1, 2, 2, 2], "ours is on disk before a peer is asked"
    said = capsys.readouterr().out
    for word in ("KeyError", "TypeError", "OSError: graph", "ZeroDivisionError", "the same layers with other weights"):
        assert word in said
    assert "AssertionError" not in said


def test_bench_asks_the_peers_where_ours_fails(bench, monkeypatch, capsys, tmp_path):
    def fails(options, *arguments):
        raise ValueError("no JSON")

    peer = WildPeer(tmp_path / "gpu.json")
    monkeypatch.setattr(bench.module, "peer_or_why", lambda *_: (peer, "a wild peer"))
    monkeypatch.setattr(bench.module, "worker", fails)
    assert bench("--batch", "1", "--no-compile") == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["peak"] is None
    [row] = found["rows"]
    assert row["failed"] == "ValueError: no JSON" and row["peers"]["eager"]["device_ms"] == 1
    assert "ours failed: ValueError: no JSON" in capsys.readouterr().out


@pytest.mark.parametrize("error", ["ImportError", "OSError", "ValueError"])
def test_bench_goes_on_without_pytorch_that_does_not_start(error, bench, monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text(f"raise {error}('libcudart.so.12: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    peer, why = bench.module.peer_or_why(argparse.Namespace(host_twin=False), {})
    assert peer is None and "libcudart.so.12" in why and "ours alone" in why


@pytest.mark.parametrize("words", [(), ("dynamo",)])
def test_peer_exports_by_the_words_that_its_pytorch_knows(words, tmp_path):
    asked = {}

    def export(model, args, f, *, opset_version, input_names, output_names, dynamic_axes):
        asked.update(f=f)

    def newer(model, args, f, *, opset_version, input_names, output_names, dynamic_axes, dynamo=True):
        asked.update(f=f, dynamo=dynamo)

    peer = peers.Peer.__new__(peers.Peer)
    peer.model = lambda name: None
    peer.torch = argparse.Namespace(zeros=lambda *shape: shape, onnx=argparse.Namespace(export=newer if words else export))
    peer.export("net", 8, tmp_path / "net.onnx")
    assert asked == {"f": str(tmp_path / "net.onnx"), **({"dynamo": False} if words else {})}


BARE = [sys.executable, "-S"]  # a Python that has no packages


def test_bench_without_numpy_measures_the_models_of_the_zoo(tmp_path):
    scripts = enginekit.ROOT / "scripts"
    small = f"""import runpy, sys; sys.path.insert(0, {str(scripts)!r}); import gpu_plain; gpu_plain.MODELS = {{"small": ("super-resolution", 1, 16)}}
sys.argv = ["bench_gpu", *sys.argv[1:]]; runpy.run_path({str(scripts / 'bench_gpu')!r}, run_name="__main__")"""
    done = subprocess.run([*BARE, "-c", small, "--host-twin", "--build", enginekit.BUILD, "--repeat", "1", "--batch", "2", "--json", tmp_path / "gpu.json"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "numpy is needed and not here" in done.stdout and "pip install numpy onnx" in done.stdout and "Traceback" not in done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert set(found["missing"]) == {"numpy", "onnx"} and found["peak"]["tflops"] > 0
    [row] = found["rows"]
    assert row["device_ms"] > 0 and (row["network"], row["batch"]) == ("small", 2)


def test_images_written_without_numpy_are_what_numpy_reads(tmp_path):
    gpu_plain.write_images(tmp_path / "x.npy", 3, 2, 5)
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (3, 2, 5, 5) and x.dtype == np.float32 and np.abs(x).max() <= 1 and len(np.unique(x[:2])) > 20
    assert np.array_equal(np.roll(x[0, 0], -1, axis=0), x[0, 1])


def test_bench_compiles_what_matters_most_first(bench, monkeypatch):
    module = bench.module
    rows = [{"network": name, "batch": batch, "peers": {}} for name in module.NETWORKS for batch in (1, 64)]
    options = argparse.Namespace(network=list(module.NETWORKS), repeat=7)
    asked, seen = [], []

    def answers(command, deadline, take):
        asked.extend(command[2:])
        take("a warning\n")
        take(json.dumps({"network": "U-Net 256", "batch": 1, "failed": "no such kernel"}) + "\n")
        take(json.dumps({"network": "ResNet-9 256", "batch": 64, "device_ms": 4.0, "host_ms": 5.0}) + "\n")

    monkeypatch.setattr(module, "lines_until", answers)
    module.add_compiled(options, rows, time.monotonic() + 100, seen.append)
    names = ["U-Net 256", "ResNet-9 256", "EDSR x4 128", "U-Net 512", "encoder-decoder 256"]
    assert asked == ["7", *[f"{name}:{module.NETWORKS[name][1]}:{batch}" for name in names for batch in (1, 64)]]
    [row] = [row for row in rows if row["peers"]]
    assert seen == [row] and row["network"] == "ResNet-9 256" and row["batch"] == 64
    assert row["peers"] == {"compiled": {"device_ms": 4.0, "host_ms": 5.0}}


def test_bench_ends_the_compiler_and_all_that_it_started_when_the_time_is_up(bench):
    got, began = [], time.monotonic()
    program = "import subprocess; print('one', flush=True); subprocess.run(['sleep', '60'])"
    assert bench.module.lines_until([sys.executable, "-c", program], began + 1, got.append) is None
    assert got == ["one\n"] and time.monotonic() - began < 30
    said = bench.module.lines_until([sys.executable, "-c", "raise ValueError('no such GPU')"], time.monotonic() + 20, got.append)
    assert "no such GPU" in said


def test_times_are_medians_after_a_warm_up():
    began, cold = time.monotonic(), [9.0] * 10
    assert peers.steady(lambda: cold.pop() if cold else 9.0 if time.monotonic() < began + 0.1 else 1.0, 5, 0.15) == 1.0
    few = iter([0.0] * peers.FEW + [5.0, 1.0, 3.0])
    assert peers.steady(lambda: next(few), 3, 0) == 3.0


def test_a_large_batch_begins_with_the_images_of_a_small_one():
    few, many = peers.images(2, 8), peers.images(5, 8)
    assert np.array_equal(few, many[:2]) and not np.array_equal(many[0], many[1])
    assert many.dtype == np.float32 and -1 <= many.min() < -0.5 and 0.5 < many.max() <= 1


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


@pytest.fixture
def background():
    """Starts what is started as a shell starts a job in the background: deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stubborn", [False, True])
def test_check_that_is_cut_short_tells_what_it_found(stubborn, background, monkeypatch, capsys, tmp_path):
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


def test_check_without_packages_holds_the_zoo_against_the_cpu(tmp_path):
    done = subprocess.run([*BARE, enginekit.ROOT / "scripts" / "gpu_check", "--build", enginekit.BUILD, "--engine", "cuda-host", "--json", tmp_path / "check.json"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pytest is not here" in done.stdout and "not run: the tests of tests/engine and compute-sanitizer" in done.stdout and not done.stderr
    found = json.loads((tmp_path / "check.json").read_text())
    assert set(found["missing"]) == {"pytest", "numpy", "onnx", "onnxruntime"}
    assert found["counts"] == {"passed": 2 * len(list(gpu_plain.ZOO.glob("*.onnx"))), "failed": 0}


def test_zoo_check_finds_what_is_wrong(monkeypatch, tmp_path):
    """By a program that answers as opcheck does."""
    facts = {"max_abs": 1e-6, "max_value": 1, "same_bits": True}
    for change, want in (({}, ""), ({"max_abs": 1e-2}, "differs from the CPU engine"), ({"max_abs": float("nan")}, "differs"), ({"same_bits": False}, "other bits")):
        fake = tmp_path / "opcheck"
        fake.write_text(f"#!/bin/sh\necho '{json.dumps({**facts, **change})}'\n")
        fake.chmod(0o755)
        sound, wrong = gpu_plain.check(fake, "cuda", 3)
        assert (sound == 0) == bool(want) and all(want in text for text in wrong) and sound + len(wrong) == 12
    fake.write_text("#!/bin/sh\necho no memory >&2; exit 1\n")
    sound, wrong = gpu_plain.check(fake, "cuda", 3)
    assert sound == 0 and wrong[0].endswith("no memory")


@pytest.mark.parametrize("fails", ["gpu_check", "bench_gpu", "neither"])
def test_make_runs_the_bench_after_the_check_and_tells_the_failure_of_either(fails, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
name=$(basename $1); echo "$name begins" >>{tmp_path}/log; sleep 0.5; echo "$name ends" >>{tmp_path}/log; [ $name != {fails} ]
""")
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", "-j4", "-o", "engine", "-o", "build/bench_gpu_worker", "gpu-check", "gpu-bench", f"PYTHON={python}"],
                          cwd=enginekit.ROOT, capture_output=True, text=True, timeout=60, env=environment)
    assert (tmp_path / "log").read_text().split() == "gpu_check begins gpu_check ends bench_gpu begins bench_gpu ends".split()
    assert (done.returncode == 0) == (fails == "neither"), done.stdout + done.stderr
    assert ("gpu-check failed" in done.stdout) == (fails == "gpu_check")


def test_check_says_why_pytest_does_not_start(monkeypatch, capsys, tmp_path):
    (tmp_path / "_pytest").mkdir()
    (tmp_path / "_pytest" / "__init__.py").write_text("raise OSError('broken')")
    gpu_check = script("gpu_check")
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--build", str(enginekit.BUILD), "--engine", "cuda-host", "--processes", "1", "-k", "no_such"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu_check.main() == 1
    assert "OSError: broken" in capsys.readouterr().out


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
