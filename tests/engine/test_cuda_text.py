"""The kernels' text as nvcc compiles it, run on the host: loads and stores of 16 bytes, each of which a sanitizer looks at.

On a GPU an address that is not aligned ends the process. The host twin is told to compute by that text (device_text.cu) and must
give the bits that it gives otherwise: nothing but the width of an access and who converts halfs is different.
"""

import re

import enginekit
import numpy as np
import onnx
import pytest
from test_cuda import RESIDUAL, image, nets, residual_network
from test_cuda_program import CASES, Net, steps

DEVICE_TEXT = enginekit.BUILD / "tests" / "opcheck-device-text"
PRECISIONS = ["f32", "f16"]
FUSED = ["bare", "all"]


@pytest.fixture(autouse=True)
def built():
    if not DEVICE_TEXT.exists():
        pytest.fail(f"{DEVICE_TEXT} is not built: make unit-programs")


def both(model, x, tmp_path, fused, precision, outputs=1):
    """What the host twin computes by the device's text, and by its own."""
    arguments = ("--device", fused, "--precision", precision)
    return [enginekit.run(model, [x], tmp_path, engine="cuda-host", outputs=outputs, arguments=arguments, program=program).outputs
            for program in (DEVICE_TEXT, None)]


def same(got, want):
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32)), f"apart by {np.abs(a - b).max()}"


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["unet64", "resnet2", "edsr_small", "resize_unet_small"])
def test_network_has_the_same_bits_by_the_text_of_the_device(name, precision, fused, tmp_path):
    path, shape = nets.write(name, tmp_path)
    same(*both(path, image(shape), tmp_path, fused, precision))


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_path_has_the_same_bits_by_the_text_of_the_device(name, precision, fused, tmp_path):
    model = CASES[name][0]()
    x = image([d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim])
    same(*both(model, x, tmp_path, fused, precision))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("case", RESIDUAL)
def test_norm_has_the_same_bits_by_the_text_of_the_device(case, channels, precision, tmp_path):
    nodes, outputs, constants = residual_network(case, channels)
    model = enginekit.make_model(nodes, {"x": [2, channels, 7, 9]}, outputs, constants)
    same(*both(model, image((2, channels, 7, 9)) * 3 + 1, tmp_path, "all", precision, len(outputs)))


def rest():
    """What the others leave out; and a table of twenty bytes, behind which a bias must be aligned all the same."""
    net = Net(2, 16, 8, 8)
    y = net.add("Add", net.add("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                net.add("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2]))
    y = net.add("DepthToSpace", y, blocksize=2, mode="CRD")
    y = net.add("Abs", net.conv(y, 2, 8, 3, group=2, pads=[1, 1, 1, 1]))
    y = net.add("Gather", y, net.constant(np.array([3, 1, 1, 6, 0])), axis=2)
    y = net.add("Pad", y, net.constant(np.array([0, 1, 0, 0, 0, 2, 0, 1])), mode="constant")
    y = net.add("Mul", y, net.add("ReduceMean", y, axes=[2, 3]))
    y = net.conv(y, 11, 8, 1)
    return net.model(net.add("Transpose", y, perm=[0, 1, 3, 2]))


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rest_has_the_same_bits_by_the_text_of_the_device(precision, fused, tmp_path):
    same(*both(rest(), image((2, 16, 8, 8)), tmp_path, fused, precision))


def test_no_kernel_is_left_out(tmp_path):
    text = (enginekit.ROOT / "cuda" / "kernels.h").read_text()
    kernels = set(re.findall(r"X\((\w+)\)", text[text.index("define KERNEL_LIST(X)"):text.index("enum kernel {")]))
    taken = set()
    for name in ("fold that leaves the last row", "interleave", "skip"):
        model = CASES[name][0]()
        taken |= set(steps(model, [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim], tmp_path))
    nodes, outputs, constants = residual_network("chain", 16)
    taken |= set(steps(enginekit.make_model(nodes, {"x": [1, 16, 7, 9]}, outputs, constants), (1, 16, 7, 9), tmp_path))
    path, shape = nets.write("resize_unet_small", tmp_path)
    taken |= set(steps(onnx.load(path), shape, tmp_path)) | set(steps(rest(), (2, 16, 8, 8), tmp_path))
    assert len(kernels) > 20 and taken - {"clear", "convolution"} == kernels
