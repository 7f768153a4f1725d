"""The CUDA engine, as far as it can be held to anything without a GPU.

Its programs run on the host twin, which executes the same kernel bodies over the same memory plan; cuDNN's plans are
made for a GPU that is only described. With a GPU the engine itself is in `engine` of the other tests, too.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import enginekit
import numpy as np
import onnx
import pytest

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402

SMALL = ["unet64", "unet64_instance", "encdec64", "resnet2", "edsr_small", "rrdb_small", "srgan_small", "resize_unet_small"]
FULL = ["unet64", "unet64_instance", "encdec64", "resnet2", "edsr_small"]
HERE = Path(__file__).resolve().parent
PLANCHECK = enginekit.BUILD / "plancheck"
GPU = "cuda" in enginekit.engines()
CUDA_ENGINES = ["cuda-host", "cuda"] if GPU else ["cuda-host"]
needs_gpu = pytest.mark.skipif(not GPU, reason="no GPU that CUDA and cuDNN can use")


# Under the sanitizers: cuDNN loads libraries that leak and unloads them, so that no suppression can name them.
PLANCHECK_ENV = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


def image(shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("fused", ["bare", "bias", "all"])
@pytest.mark.parametrize("name", SMALL)
def test_network_in_float_agrees_with_onnxruntime(name, fused, tmp_path):
    path, shape = nets.write(name, tmp_path, batch=2)
    x = image(shape)
    got = enginekit.run(path, [x], tmp_path, engine="cuda-host", arguments=("--device", fused)).outputs[0]
    want = enginekit.oracle(path, [x])[0]
    assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
@pytest.mark.parametrize("name", SMALL)
def test_network_in_half_stays_within_its_tolerance(name, cuda, tmp_path):
    path, shape = nets.write(name, tmp_path)
    x = image(shape)
    device = ("--device", "all") if cuda == "cuda-host" else ()
    got = enginekit.run(path, [x], tmp_path, engine=cuda, arguments=(*device, "--precision", "f16")).outputs[0]
    want = enginekit.oracle(path, [x])[0]
    assert np.abs(got - want).max() <= 5e-3 * max(1, np.abs(want).max())
    assert not np.array_equal(got, want)  # it did compute in half


@pytest.mark.parametrize("name", ["unet64_instance", "resnet2"])
def test_image_gives_the_same_bits_wherever_it_stands_in_a_batch(name, tmp_path):
    path, shape = nets.write(name, tmp_path, batch=3)
    single, _ = nets.write(name, tmp_path)
    x = image(shape)
    together = enginekit.run(path, [x], tmp_path, engine="cuda-host").outputs[0]
    turned = enginekit.run(path, [np.roll(x, 1, axis=0)], tmp_path, engine="cuda-host").outputs[0]
    assert np.array_equal(turned, np.roll(together, 1, axis=0))
    for i in range(3):  # another batch may choose other kernels: the same to rounding
        alone = enginekit.run(single, [x[i : i + 1]], tmp_path, engine="cuda-host").outputs[0]
        assert np.abs(together[i : i + 1] - alone).max() <= 1e-6


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
@pytest.mark.parametrize("images, batch", [(7, 3), (2, 4)])
def test_stack_streams_through_batches_of_any_size(images, batch, cuda, tmp_path):
    path, shape = nets.write("encdec64", tmp_path, batch=images)
    model = onnx.load(path)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, path)
    x = image(shape)
    run = enginekit.run(path, [x], tmp_path, engine=cuda, arguments=("--stack", str(batch), "--repeat", "3"))
    want = enginekit.oracle(path, [x])[0]
    assert run.facts["batch"] == batch and run.facts["same_bits"] is True
    assert np.abs(run.outputs[0] - want).max() <= 1e-5 * max(1, np.abs(want).max())


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("name", SMALL)
def test_gpu_gives_the_same_bits_a_hundred_times(name, precision, cuda, tmp_path):
    """The host twin three times: there it is the test that is tested."""
    path, shape = nets.write(name, tmp_path)
    x = image(shape)
    run = enginekit.run(path, [x], tmp_path, engine=cuda,
                        arguments=("--repeat", "100" if cuda == "cuda" else "3", "--precision", precision))
    assert run.facts["same_bits"] is True
    want = enginekit.oracle(path, [x])[0]
    assert np.abs(run.outputs[0] - want).max() <= (5e-3 if precision == "f16" else 1e-5) * max(1, np.abs(want).max())


@needs_gpu
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
@pytest.mark.parametrize("name", ["unet64_instance", "edsr_small"])
def test_compute_sanitizer_finds_nothing(name, tool, tmp_path):
    path, shape = nets.write(name, tmp_path)
    done = subprocess.run(["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", enginekit.OPCHECK, path, "--engine", "cuda",
                           "--precision", "f16", "--shape", "x".join(map(str, shape))], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]


def test_overflow_of_half_is_an_error_that_names_the_layer(tmp_path):
    from onnx import helper

    model = enginekit.make_model(
        [helper.make_node("Mul", ["x", "big"], ["y"], name="grow"), helper.make_node("Mul", ["y", "small"], ["z"], name="shrink")],
        {"x": [1, 8, 4, 4]}, ["z"], {"big": np.full((1, 8, 4, 4), 6e4, np.float32), "small": np.full((1, 8, 4, 4), 1e-3, np.float32)})
    x = [np.full((1, 8, 4, 4), 3, np.float32)]
    run = enginekit.run(model, x, tmp_path, engine="cuda-host")
    assert np.allclose(run.outputs[0], 180, rtol=1e-5)
    with pytest.raises(enginekit.Refused, match="grow"):
        enginekit.run(model, x, tmp_path, engine="cuda-host", arguments=("--precision", "f16"))


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
def test_nan_in_an_input_is_refused_though_the_network_never_reads_it(cuda, tmp_path):
    from onnx import helper

    model = enginekit.make_model([helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"], name="crop")], {"x": [2, 1, 4, 4]}, ["y"],
                                 {"starts": np.array([1, 1]), "ends": np.array([4, 4]), "axes": np.array([2, 3])})
    x = np.ones((2, 1, 4, 4), np.float32)
    assert np.array_equal(enginekit.run(model, [x], tmp_path, engine=cuda).outputs[0], x[:, :, 1:, 1:])
    x[1, 0, 0, 2] = np.nan
    with pytest.raises(enginekit.Refused, match="input 'x' holds NaN or infinity at element 18"):
        enginekit.run(model, [x], tmp_path, engine=cuda)


@pytest.mark.skipif(not PLANCHECK.exists(), reason="built without CUDA and cuDNN")
@pytest.mark.parametrize("precision", ["f16", "f32"])
@pytest.mark.parametrize("name", FULL)
def test_cudnn_plans_every_convolution_without_a_gpu(name, precision, tmp_path):
    path, shape = nets.write(name, tmp_path)
    done = subprocess.run([PLANCHECK, HERE / "h100.json", path, "x".join(map(str, shape)), precision],
                          capture_output=True, text=True, timeout=300, env=PLANCHECK_ENV)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["plans"] == facts["convolutions"] == facts["reloaded"] > 0
    if precision == "f16":
        assert facts["fused"] > 0
        assert facts["workspace_bytes"] <= 256 << 20


@pytest.mark.skipif(not PLANCHECK.exists(), reason="built without CUDA and cuDNN")
def test_a_gpu_that_is_not_described_is_refused(tmp_path):
    path, shape = nets.write("encdec64", tmp_path)
    broken = tmp_path / "gpu.json"
    broken.write_text('{"deviceVer": 900}')
    done = subprocess.run([PLANCHECK, broken, path, "x".join(map(str, shape))], capture_output=True, text=True, timeout=60,
                          env=PLANCHECK_ENV)
    assert done.returncode == 1
    assert "cuDNN" in done.stderr or "no plan" in done.stderr
