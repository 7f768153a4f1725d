"""What a CUDA program makes of a graph: which kernels stand where cuDNN alone would be slow, and that they compute the same.

On the host twin, which executes the kernels' own text. `steps` names the kernels, so that a case which no longer takes
its path fails."""

import json
import subprocess

import enginekit
import numpy as np
import pytest
from onnx import helper

WORKER = enginekit.BUILD / "bench_gpu_worker"
RNG = np.random.default_rng(11)


def array(*shape, scale=1.0) -> np.ndarray:
    return (RNG.uniform(-1, 1, shape) * scale).astype(np.float32)


class Net:
    """A chain of nodes; each method gives the name of its result."""

    def __init__(self, *shape):
        self.shape, self.nodes, self.constants = shape, [], {}

    def add(self, kind, *inputs, **attributes) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def conv(self, x, c, m, k, kind="Conv", **attributes) -> str:
        kh, kw = k if isinstance(k, tuple) else (k, k)
        w = array(*((m, c) if kind == "Conv" else (c, m)), kh, kw, scale=(c * kh * kw) ** -0.5)
        return self.add(kind, x, self.constant(w), self.constant(array(m)), **attributes)

    def deconv(self, x, c, m, k, **attributes) -> str:
        return self.conv(x, c, m, k, "ConvTranspose", **attributes)

    def pad(self, x, amount, mode, value=0.0) -> str:
        return self.add("Pad", x, self.constant(np.array([0, 0, *amount[:2], 0, 0, *amount[2:]])), self.constant(np.float32(value)), mode=mode)

    def model(self, *outputs):
        return enginekit.make_model(self.nodes, {"x": list(self.shape)}, list(outputs), self.constants)


def steps(model, shape, folder) -> list[str]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    np.save(folder / "in.npy", array(*shape))
    done = subprocess.run([WORKER, "--host-twin", "steps", path, folder / "in.npy"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [what.split(",")[0].split(" ")[0] for _, what, *_ in json.loads(done.stdout)]


def first_of(c, k, shape, **attributes):
    net = Net(*shape)
    return net.model(net.conv(net.conv("x", c, 16, k, **attributes), 16, 8, 1))


def padded(amount, mode, k, value=0.0, **attributes):
    net = Net(2, 3, 12, 11)
    return net.model(net.conv(net.conv(net.pad("x", amount, mode, value), 3, 8, k, **attributes), 8, 8, 1))


def last_of(m, k, shape, tanh=True, **attributes):
    net = Net(*shape)
    y = net.conv("x", shape[1], m, k, **attributes)
    return net.model(net.add("Tanh", y) if tanh else y)


def shuffled(mode, last, act=False, channels=6, block=2):
    net = Net(2, 8, 5, 6)
    y = net.conv("x", 8, channels * block**2, 3, pads=[1, 1, 1, 1])
    y = net.add("DepthToSpace", net.add("Relu", y) if act else y, blocksize=block, mode=mode)
    return net.model(y if last else net.conv(y, channels, 8, 1))


def clipped(kind):
    """An activation at the end that no pass gives to what is before it."""
    net = Net(2, 8, 6, 7)
    if kind == "deconv":
        y = net.deconv("x", 8, 3, 4, strides=[2, 2], pads=[1, 1, 1, 1])
    else:
        y = net.conv("x", 8, 4 if kind == "shuffle" else 3, 3, pads=[1, 1, 1, 1])
    y = net.add("DepthToSpace", y, blocksize=2, mode="CRD") if kind == "shuffle" else y
    return net.model(net.add("Clip", y, net.constant(np.float32(-0.1)), net.constant(np.float32(0.2))))


def summed(kind, other=False):
    net = Net(2, 16, 6, 7)
    y = net.add("Add", net.conv("x", 16, 16, 1), "x")
    a = net.add(kind, y)
    return net.model(*([net.conv(a, 16, 8, 1), net.conv(y, 16, 8, 1)] if other else [net.conv(a, 16, 8, 1)]))


def deconvolved(k, last, m=12, **attributes):
    net = Net(2, 16, 5, 4)
    y = net.deconv("x", 16, m, k, **attributes)
    return net.model(y if last else net.conv(y, m, 8, 1))


def skip(leaky=True, wide=8):
    """As a U-Net: on with the leaky value, joined with the rectified one."""
    net = Net(1, 8, 20, 20)
    a = net.conv("x", 8, wide, 3, pads=[1, 1, 1, 1])
    a = net.add("LeakyRelu", a, alpha=0.2) if leaky else net.add("Tanh", a)
    b = net.conv(a, wide, 8, 3, pads=[1, 1, 1, 1])
    return net.model(net.conv(net.add("Concat", net.add("Relu", a), b, axis=1), wide + 8, 8, 1))


def raw_skip(relus=1, also=False):
    """As PyTorch writes a U-Net: one raw value, read by the leaky and by the rectified branch."""
    net = Net(1, 8, 20, 20)
    a = net.conv("x", 8, 16, 3, pads=[1, 1, 1, 1])
    b = net.conv(net.add("LeakyRelu", a, alpha=0.2), 16, 8, 3, pads=[1, 1, 1, 1])
    parts = [net.add("Relu", a) for _ in range(relus)] + [b] + ([net.add("Tanh", a)] if also else [])
    return net.model(net.conv(net.add("Concat", *parts, axis=1), 16 * relus + 8 + 16 * also, 8, 1))


def joined_twice():
    """The rectified value has two readers of its own, each a Relu."""
    net = Net(1, 8, 9, 10)
    a = net.add("LeakyRelu", net.conv("x", 8, 16, 3, pads=[1, 1, 1, 1]), alpha=0.2)
    b = net.conv(net.add("Concat", net.add("Relu", a), a, axis=1), 32, 8, 1)
    return net.model(net.conv(net.add("Concat", net.add("Relu", a), b, axis=1), 24, 8, 1))


def slopes():
    """Two convolutions that differ in nothing else."""
    net, y = Net(1, 8, 9, 10), "x"
    for alpha in (0.1, 0.6):
        y = net.add("LeakyRelu", net.conv(y, 8, 8, 3, pads=[1, 1, 1, 1]), alpha=alpha)
    return net.model(net.conv(y, 8, 8, 1))


def residual(twice=False):
    net = Net(2, 8, 9, 7)
    a = net.conv("x", 8, 16, 3, pads=[1, 1, 1, 1])
    b = net.conv(net.add("Relu", net.conv(a, 16, 16, 3, pads=[1, 1, 1, 1])), 16, 16, 3, pads=[1, 1, 1, 1])
    y = net.add("Add", b, a) if not twice else net.add("Add", b, b)
    return net.model(net.conv(y, 16, 8, 1))


def joined():
    """Parts of a concatenation are written where they belong, the rectified one behind the plain one."""
    net = Net(2, 8, 6, 5)
    a, b = net.conv("x", 8, 16, 1), net.conv("x", 8, 24, 3, pads=[1, 1, 1, 1])
    return net.model(net.conv(net.add("Concat", a, net.add("LeakyRelu", b, alpha=0.3), net.add("Relu", b), axis=1), 64, 8, 1))


def joined_input(order):
    """The graph's own input is written straight into a concatenation, whose pixels are wider than it is."""
    net = Net(2, 16, 6, 5)
    parts = {"x": "x", "a": net.add("Abs", net.conv("x", 16, 8, 3, pads=[1, 1, 1, 1]))}
    return net.model(net.conv(net.add("Concat", *[parts[part] for part in order], axis=1), 8 * sum(1 + (part == "x") for part in order), 8, 1))


def grouped():
    """A norm over groups of channels, as PyTorch writes it, whose sum with what it normalised is rectified."""
    net = Net(2, 8, 6, 5)
    y = net.add("Reshape", net.conv("x", 8, 12, 1), net.constant(np.array([0, 3, -1])))
    y = net.add("Relu", net.add("Add", net.add("InstanceNormalization", y, net.constant(array(3) + 1), net.constant(array(3))), y))
    return net.model(net.conv(net.add("Reshape", y, net.constant(np.array([0, 12, 6, 5]))), 12, 8, 1))


# model, what must be among its steps, what must not
CASES = {
    "fold whole kernel": (lambda: first_of(3, 4, (2, 3, 16, 18), strides=[2, 2], pads=[1, 1, 1, 1]), ["fold"], ["import", "finite"]),
    "fold rows": (lambda: first_of(3, 7, (2, 3, 15, 14), pads=[3, 3, 3, 3]), ["fold"], ["import", "finite"]),
    "fold uneven pads": (lambda: first_of(2, (3, 4), (1, 2, 9, 13), pads=[2, 0, 1, 3]), ["fold"], ["import"]),
    "fold with a stride beyond the kernel": (lambda: first_of(1, 2, (1, 1, 13, 13), strides=[3, 3]), ["fold", "finite"], ["import"]),
    "fold that leaves the last row": (lambda: first_of(1, 2, (1, 1, 13, 12), strides=[2, 2]), ["fold", "finite"], ["import"]),
    "eight channels are not folded": (lambda: first_of(8, 3, (1, 8, 9, 9)), ["import"], ["fold"]),
    "fold of a reflected pad": (lambda: padded((3, 2, 3, 4), "reflect", 5), ["fold"], ["import", "frame", "pad"]),
    "fold of an edge": (lambda: padded((1, 1, 2, 2), "edge", 3, strides=[2, 1]), ["fold"], ["import", "frame"]),
    "fold of zeros and the convolution's own": (lambda: padded((1, 0, 2, 1), "constant", 3, pads=[1, 1, 1, 1]), ["fold"], ["import", "frame"]),
    "a pad of ones is not folded": (lambda: padded((1, 1, 1, 1), "constant", 3, value=1.0), ["import", "frame"], ["fold"]),
    "a reflected pad under zeros is not folded": (lambda: padded((1, 1, 1, 1), "reflect", 3, pads=[1, 1, 1, 1]), ["import", "frame"], ["fold"]),
    "row taps as channels": (lambda: last_of(3, 7, (2, 16, 12, 13), pads=[3, 3, 3, 3]), ["export"], ["affine", "finite"]),
    "row taps without padding": (lambda: last_of(1, 3, (1, 16, 9, 10)), ["export"], ["affine"]),
    "row taps, uneven pads": (lambda: last_of(2, (3, 5), (1, 16, 9, 10), pads=[0, 3, 1, 1]), ["export"], ["affine"]),
    "row taps and nothing behind": (lambda: last_of(3, 5, (1, 8, 9, 8), tanh=False, pads=[2, 2, 2, 2]), ["export"], ["affine"]),
    "rows in steps": (lambda: last_of(3, 3, (1, 16, 9, 10), strides=[2, 1], pads=[1, 1, 1, 1]), ["export"], ["affine"]),
    "many channels out": (lambda: last_of(20, 3, (2, 8, 7, 6), pads=[1, 1, 1, 1]), ["export"], ["affine"]),
    "depth to space is an interleave": (lambda: shuffled("CRD", False), ["interleave"], ["spread"]),
    "depth to space, the other order": (lambda: shuffled("DCR", False, act=True), ["interleave"], ["spread"]),
    "depth to space at the end": (lambda: shuffled("CRD", True), ["export"], ["interleave", "spread"]),
    "phases at the end": (lambda: deconvolved(4, True, m=3, strides=[2, 2], pads=[1, 1, 1, 1]), ["export"], ["interleave"]),
    "phases of many channels at the end": (lambda: deconvolved(3, True, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]), ["export"], ["interleave"]),
    "interleave": (lambda: deconvolved(4, False, strides=[2, 2], pads=[1, 1, 1, 1]), ["interleave"], []),
    "interleave of six phases": (lambda: deconvolved((3, 4), False, strides=[3, 2], pads=[0, 1, 1, 0]), ["interleave"], []),
    "skip": (lambda: skip(), ["fork"], ["unary"]),
    "clipped at the end": (lambda: clipped("conv"), ["export"], ["affine", "unary"]),
    "clipped phases": (lambda: clipped("deconv"), ["export"], ["affine", "unary", "interleave"]),
    "clipped depth to space": (lambda: clipped("shuffle"), ["export"], ["unary", "interleave"]),
    "activated sum": (lambda: summed("LeakyRelu"), ["binary_octet"], ["unary"]),
    "activated sum that others read": (lambda: summed("Tanh", other=True), ["binary_octet"], []),
    "two slopes": (lambda: slopes(), ["affine"], []),
    "residual": (lambda: residual(), ["binary_octet"], []),
    "a convolution twice in a sum": (lambda: residual(twice=True), ["binary_octet"], []),
    "joined": (lambda: joined(), [], ["copy"]),
    "joined with an input": (lambda: joined_input("xa"), ["import"], ["copy"]),
    "joined with an input behind it": (lambda: joined_input("axa"), ["import"], []),
    "norm over groups": (lambda: grouped(), ["moments", "frame"], []),
    "depth to space in whole octets": (lambda: shuffled("CRD", False, channels=16), ["interleave"], ["spread"]),
    "depth to space of three, rectified": (lambda: shuffled("DCR", False, act=True, channels=8, block=3), ["interleave"], ["spread"]),
    "skip of odd width": (lambda: skip(wide=12), ["fork"], ["unary"]),
    "skip of a raw value": (lambda: raw_skip(), ["fork"], ["unary"]),
    "skip of a raw value that is rectified twice": (lambda: raw_skip(relus=2), ["fork"], []),
    "skip of a raw value that others read": (lambda: raw_skip(also=True), ["fork"], []),
    "skip that is joined twice": (lambda: joined_twice(), ["fork"], ["unary"]),
    "skip behind another activation": (lambda: skip(leaky=False), ["fork"], []),
}


def test_leaky_and_rectified_branch_of_a_raw_value_are_one_pass(tmp_path):
    assert steps(raw_skip(), (1, 8, 20, 20), tmp_path) == [
        "clear", "import", "convolution", "fork", "convolution", "affine", "convolution", "export"]


def test_sum_and_its_activation_are_one_pass(tmp_path):
    assert steps(summed("LeakyRelu"), (2, 16, 6, 7), tmp_path) == [
        "clear", "import", "convolution", "affine", "binary_octet", "convolution", "export"]


def large(kind):
    """Tensors so large that plans are compiled for what ready engines do not fuse."""
    net = Net(4, 64, 128, 128)
    a = net.conv("x", 64, 64, 3, pads=[1, 1, 1, 1])
    if kind == "skip":
        a = net.add("LeakyRelu", a, alpha=0.2)
        b = net.conv(a, 64, 64, 1)
        return net.model(net.conv(net.add("Concat", net.add("Relu", a), b, axis=1), 128, 8, 1))
    if kind == "leaky":
        return net.model(net.conv(net.add("LeakyRelu", a, alpha=0.3), 64, 8, 1))
    if kind == "residual":
        b = net.conv(net.add("Relu", a), 64, 64, 3, pads=[1, 1, 1, 1])
        return net.model(net.conv(net.add("Add", "x", b), 64, 8, 1))
    if kind == "joined":
        b = net.add("Relu", net.conv("x", 64, 32, 3, pads=[1, 1, 1, 1]))
        return net.model(net.conv(net.add("Concat", a, b, axis=1), 96, 8, 1))
    b = net.add("DepthToSpace", net.conv(a, 64, 128, 3, pads=[1, 1, 1, 1]), blocksize=2, mode=kind)
    return net.model(net.conv(b, 32, 8, 1))


@pytest.mark.skipif("cuda" not in enginekit.engines(), reason="no GPU that CUDA and cuDNN can use")
@pytest.mark.parametrize("kind", ["skip", "leaky", "residual", "joined", "CRD", "DCR"])
def test_compiled_plan_computes_what_onnxruntime_does(kind, tmp_path):
    model = large(kind)
    x = array(4, 64, 128, 128)
    run = enginekit.run(model, [x], tmp_path, engine="cuda", arguments=("--precision", "f16", "--repeat", "20"), tuned=True)
    want = enginekit.oracle(model, [x])[0]
    assert run.facts["same_bits"] is True
    assert np.abs(run.outputs[0] - want).max() <= 5e-3 * max(1, np.abs(want).max())


@pytest.fixture(autouse=True)
def built():
    if not WORKER.exists():
        pytest.fail(f"{WORKER} is not built: make unit-programs")


GPU = ["cuda"] if "cuda" in enginekit.engines() else []


@pytest.mark.parametrize("where", ["cuda-host-bare", "cuda-host-bias", "cuda-host-all", *GPU])
@pytest.mark.parametrize("name", CASES)
def test_path_computes_what_onnxruntime_does(name, where, tmp_path):
    make, among, absent = CASES[name]
    model = make()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = array(*shape)
    want = enginekit.oracle(model, [x])[0]
    engine, fused = ("cuda", None) if where == "cuda" else ("cuda-host", where.split("-")[-1])
    device = ("--device", fused) if fused else ()
    got = enginekit.run(model, [x], tmp_path, engine=engine, arguments=device).outputs[0]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 2e-6 * max(1, np.abs(want).max())
    half = enginekit.run(model, [x], tmp_path, engine=engine, arguments=(*device, "--precision", "f16")).outputs[0]
    assert np.abs(half - want).max() <= 5e-3 * max(1, np.abs(want).max())
    if fused == "all":
        taken = steps(model, shape, tmp_path)
        assert set(among) <= set(taken) and not set(absent) & set(taken), taken


def test_rectified_copy_takes_no_pass_of_its_own(tmp_path):
    taken = steps(skip(), [1, 8, 20, 20], tmp_path)
    assert taken == ["clear", "import", "convolution", "fork", "convolution", "affine", "convolution", "export"]


@pytest.mark.parametrize("cuda", ["cuda-host", *GPU])
@pytest.mark.parametrize("k, attributes", [(4, {"strides": [2, 2], "pads": [1, 1, 1, 1]}), (7, {"pads": [3, 3, 3, 3]}), (1, {})])
def test_infinity_that_an_activation_hides_is_found_in_its_image(k, attributes, cuda, tmp_path):
    """By the kernel that reads the input: what comes out is 1 or -1."""
    net = Net("n", 3, 12, 12)
    model = net.model(net.add("Tanh", net.conv("x", 3, 8, k, **attributes)))
    x = array(5, 3, 12, 12)
    x[3, 1, 5, 7] = np.inf
    with pytest.raises(enginekit.Refused, match="image 4 of 5: input 'x' holds NaN or infinity"):
        enginekit.run(model, [x], tmp_path, engine=cuda, arguments=("--stack", "2"))


@pytest.mark.parametrize("cuda", ["cuda-host", *GPU])
@pytest.mark.parametrize("name", ["fold whole kernel", "fold rows", "fold that leaves the last row", "eight channels are not folded"])
def test_nan_in_a_corner_of_the_input_is_found(name, cuda, tmp_path):
    model = CASES[name][0]()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = array(*shape)
    x[-1, -1, -1, -1] = np.nan
    with pytest.raises(enginekit.Refused, match="input 'x' holds NaN or infinity"):
        enginekit.run(model, [x], tmp_path, engine=cuda)


@pytest.mark.parametrize("cuda", ["cuda-host", *GPU])
@pytest.mark.parametrize("name", ["row taps and nothing behind", "phases at the end", "depth to space at the end"])
def test_overflow_in_the_last_layer_names_it(name, cuda, tmp_path):
    model = CASES[name][0]()
    model.graph.node[0].name = "the_loud_one"
    for i, t in enumerate(model.graph.initializer):
        if len(t.dims) == 4:
            loud = np.full(t.dims, 3e4, np.float32)
            model.graph.initializer[i].CopyFrom(enginekit.numpy_helper.from_array(loud, t.name))
    x = np.ones([d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim], np.float32)
    with pytest.raises(enginekit.Refused, match="the_loud_one"):
        enginekit.run(model, [x], tmp_path, engine=cuda, arguments=("--precision", "f16"))
