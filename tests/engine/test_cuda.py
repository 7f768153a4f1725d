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
                           "--precision", "f16", "--untuned", "--shape", "x".join(map(str, shape))], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]


def residual_network(case, c):
    """Norms with what follows them in residual networks, and what must not be taken for it. Its nodes, outputs and constants."""
    from onnx import helper

    rng = np.random.default_rng(7)
    nodes, constants = [], {}

    def node(op, *inputs, **attributes):
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], name=f"{op.lower()}{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def constant(array):
        constants[f"w{len(constants)}"] = np.asarray(array)
        return f"w{len(constants) - 1}"

    def norm(x):
        return node("InstanceNormalization", x, constant(rng.uniform(0.5, 1.5, c).astype(np.float32)),
                    constant(rng.standard_normal(c).astype(np.float32)), epsilon=0.0 if case == "no epsilon" else 1e-5)

    def conv(x):
        return node("Conv", x, constant((rng.standard_normal((c, c, 3, 3)) / (9 * c) ** 0.5).astype(np.float32)), kernel_shape=[3, 3])

    def pad(x, mode="reflect", pads=(1, 1, 1, 1), value=None):
        more = [constant(np.float32(value))] if value is not None else []
        return node("Pad", x, constant(np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)), *more, mode=mode)

    if case in ("reflect", "edge", "constant"):
        y = [conv(pad(node("Relu", norm("x")), case, (3, 1, 2, 5), 0.75 if case == "constant" else None))]
    elif case == "crop":
        y = [pad(norm("x"), "constant", (-1, 2, -2, -1))]
    elif case == "pad channels":
        y = [node("Pad", norm("x"), constant(np.array([0, 1, 1, 1, 0, 2, 0, 3], np.int64)))]
    elif case == "no epsilon":
        y = [conv(norm("x"))]
    elif case == "add":
        y = [node("Add", "x", norm(conv(pad("x")))), node("Add", node("LeakyRelu", norm("x"), alpha=0.1), "x")]
    elif case == "add of two norms":
        y = [node("Add", norm("x"), norm(conv(pad("x"))))]
    elif case == "add of a norm to itself":
        n = norm("x")
        y = [node("Add", n, n)]
    elif case == "add of what is cropped":
        n = node("Relu", norm("x"))
        y = [node("Add", n, norm(conv(pad("x")))), pad(n, "constant", (-1, 2, 1, 1))]
    elif case == "add, broadcast":
        y = [node("Add", norm("x"), constant(rng.standard_normal((1, c, 1, 9)).astype(np.float32)))]
    elif case == "norm is an output":
        n = norm("x")
        y = [n, node("Add", "x", n), pad(n)]
    else:
        x = node("Relu", norm("x"))
        y = []
        for i in range(3):
            z = node("Relu", norm(conv(pad(x, pads=(1, 1, 2, 1)))))
            z = norm(conv(pad(z, "edge", (1, 1, 0, 1))))
            if case == "chain, read by more" and i == 1:
                y.append(node("Neg", x))
            if case == "chain, padded twice" and i == 1:
                y.append(pad(x))
            x = node("Add", *((x, z) if i else (z, x)))
            if case == "chain, a sum is an output" and i == 1:
                y.append(x)
        y.append(pad(x) if case == "chain, padded at the end" else x)
    return nodes, y, constants


RESIDUAL = ["reflect", "edge", "constant", "crop", "pad channels", "no epsilon", "add", "add of two norms", "add of a norm to itself",
            "add of what is cropped", "add, broadcast", "norm is an output", "chain", "chain, read by more", "chain, padded twice", "chain, a sum is an output", "chain, padded at the end"]


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("case", RESIDUAL)
def test_norm_is_applied_where_it_is_read(case, channels, cuda, tmp_path):
    nodes, outputs, constants = residual_network(case, channels)
    model = enginekit.make_model(nodes, {"x": [2, channels, 7, 9]}, outputs, constants)
    x = image((2, channels, 7, 9)) * 3 + 1
    want = enginekit.oracle(model, [x])
    for precision, bound in (("f32", 1e-5), ("f16", 1e-2)):
        arguments = () if precision == "f32" else ("--precision", precision)
        run = enginekit.run(model, [x], tmp_path, engine=cuda, outputs=len(outputs), arguments=arguments)
        for got, expected in zip(run.outputs, want):
            assert enginekit.difference(got, expected) <= bound


def kernels(model, x, tmp_path):
    """Nodes and what runs for them, in turn."""
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "in.npy", x)
    done = subprocess.run([enginekit.BUILD / "bench_gpu_worker", "--host-twin", "steps", tmp_path / "model.onnx", tmp_path / "in.npy"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [(node, what.split()[0].rstrip(",")) for node, what, *_ in json.loads(done.stdout) if node]


def test_residual_blocks_pass_over_their_tensors_once_for_a_norm_and_once_to_apply_it(tmp_path):
    nodes, outputs, constants = residual_network("chain", 16)
    model = enginekit.make_model(nodes, {"x": [1, 16, 7, 9]}, outputs, constants)
    seen = [step for step in kernels(model, image((1, 16, 7, 9)), tmp_path) if step[1] != "convolution"]
    norms = [n.name for n in nodes if n.op_type == "InstanceNormalization"]
    want = []
    for i, name in enumerate(norms):
        last = i > 0 and i % 2 == 0  # of a block: an Add applies it
        adds = [n.name for n in nodes if n.op_type == "Add"]
        want += [(name, "moments"), (name, "moments_sum"), (adds[i // 2 - 1] if last else name, "frame")]
    assert seen == want


def test_overflow_of_half_in_what_is_fused_names_the_node_that_stores_it(tmp_path):
    from onnx import helper

    def model(*nodes):
        constants = {"big": np.full(8, 5e4, np.float32), "zero": np.zeros(8, np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
        return enginekit.make_model([helper.make_node("InstanceNormalization", ["x", "big", "zero"], ["n"], name="grow"), *nodes,
                                     helper.make_node("Neg", ["y"], ["z"], name="turn")], {"x": [1, 8, 4, 4]}, ["z"], constants)

    x = [np.zeros((1, 8, 4, 4), np.float32)]
    x[0][..., 3, 3] = 1  # this pixel alone grows beyond half
    padded = model(helper.make_node("Pad", ["n", "pads"], ["y"], name="frame", mode="reflect"))
    added = model(helper.make_node("Add", ["x", "n"], ["y"], name="sum"))
    for network, name in ((padded, "grow"), (added, "sum")):
        assert np.isfinite(enginekit.run(network, x, tmp_path, engine="cuda-host").outputs[0]).all()
        with pytest.raises(enginekit.Refused, match=f"in the result of node {name} "):
            enginekit.run(network, x, tmp_path, engine="cuda-host", arguments=("--precision", "f16"))


@pytest.mark.parametrize("cuda", CUDA_ENGINES)
@pytest.mark.parametrize("path", sorted((enginekit.ROOT / "model" / "zoo").glob("*.onnx")), ids=lambda path: path.stem)
def test_model_of_the_zoo_in_half_is_near_what_a_cpu_makes_of_it(path, cuda, tmp_path):
    channels = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = image((1, channels, 64, 64))
    got = enginekit.run(path, [x], tmp_path, engine=cuda, arguments=("--precision", "f16")).outputs[0]
    want = enginekit.run(path, [x], tmp_path, engine="cpu").outputs[0]
    assert np.abs(got - want).max() <= 5e-3
    assert not np.array_equal(got, want)


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
@pytest.mark.parametrize("gpu", ["h100", "h200"])  # by the data sheet; as the driver of one described it
@pytest.mark.parametrize("name", FULL)
def test_cudnn_plans_every_convolution_without_a_gpu(name, gpu, precision, tmp_path):
    path, shape = nets.write(name, tmp_path)
    done = subprocess.run([PLANCHECK, HERE / f"{gpu}.json", path, "x".join(map(str, shape)), precision],
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
