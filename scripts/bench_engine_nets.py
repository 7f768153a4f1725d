"""Generators of the pix2pix family as ONNX files with random weights, for benches and tests.

The nodes are those that PyTorch's exporter writes in evaluation mode; weights are scaled so that
activations stay near one and a tanh output is not saturated.

    python scripts/bench_engine_nets.py FOLDER [NAME ...]
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.tensors, self.count = [], [], 0

    def constant(self, array):
        self.count += 1
        name = f"w{self.count}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def floats(self, shape, scale, mean=0.0):
        return self.constant((self.rng.standard_normal(shape) * scale + mean).astype(np.float32))

    def node(self, op, *inputs, **attributes):
        self.count += 1
        name = f"{op.lower()}{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x, cin, cout, k, stride=1, pad=0, bias=True, gain=1.0):
        weights = self.floats((cout, cin, k, k), gain / (cin * k * k) ** 0.5)
        inputs = [x, weights] + ([self.floats((cout,), 0.1)] if bias else [])
        return self.node("Conv", *inputs, kernel_shape=[k, k], strides=[stride] * 2,
                         pads=[pad] * 4, dilations=[1, 1], group=1)

    def deconv(self, x, cin, cout, k, stride, pad, bias=True, output_padding=0, gain=1.0):
        taps = max(k * k / stride**2, 1)
        weights = self.floats((cin, cout, k, k), gain / (cin * taps) ** 0.5)
        inputs = [x, weights] + ([self.floats((cout,), 0.1)] if bias else [])
        more = {"output_padding": [output_padding] * 2} if output_padding else {}
        return self.node("ConvTranspose", *inputs, kernel_shape=[k, k], strides=[stride] * 2,
                         pads=[pad] * 4, dilations=[1, 1], group=1, **more)

    def batch_norm(self, x, c):
        return self.node("BatchNormalization", x, self.floats((c,), 0.1, 1.0),
                         self.floats((c,), 0.1), self.floats((c,), 0.1),
                         self.constant(self.rng.uniform(0.5, 1.5, c).astype(np.float32)),
                         epsilon=1e-5)

    def batch_statistics(self, x, c):
        """Batch norm as pix2pix runs it at test time: the batch's own statistics (batch size 1)."""
        outputs = [self.node("BatchNormalization", x, self.floats((c,), 0.1, 1.0), self.floats((c,), 0.1),
                             self.constant(np.zeros(c, np.float32)), self.constant(np.ones(c, np.float32)),
                             epsilon=1e-5, training_mode=1)]
        self.nodes[-1].output.extend([outputs[0] + "_mean", outputs[0] + "_var"])
        return outputs[0]

    def instance_norm(self, x, c):
        return self.node("InstanceNormalization", x, self.constant(np.ones(c, np.float32)),
                         self.constant(np.zeros(c, np.float32)), epsilon=1e-5)

    def pad(self, x, p, mode="reflect"):
        return self.node("Pad", x, self.constant(np.array([0, 0, p, p, 0, 0, p, p], np.int64)), mode=mode)

    def enlarge(self, x, mode="nearest"):
        """By 2."""
        more = ({"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"} if mode == "nearest" else
                {"coordinate_transformation_mode": "half_pixel"})
        return self.node("Resize", x, "", self.constant(np.array([1, 1, 2, 2], np.float32)), mode=mode, **more)

    def shuffle(self, x):
        """PyTorch's PixelShuffle(2)."""
        return self.node("DepthToSpace", x, blocksize=2, mode="CRD")

    def prelu(self, x, c):
        return self.node("PRelu", x, self.floats((c, 1, 1), 0.05, 0.25))

    def leaky(self, x):
        return self.node("LeakyRelu", x, alpha=0.2)

    def model(self, x_shape, y_shape, y):
        graph = helper.make_graph(
            self.nodes + [helper.make_node("Identity", [y], ["synthetic"], name="end")], "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, x_shape)],
            [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, y_shape)], self.tensors)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def unet(levels, ngf=64, cin=3, cout=3, norm="batch", skips=True, make=Builder):
    """pix2pix: k4 s2 down and up; skips=False is the paper's encoder-decoder."""
    b = make()

    def normed(x, c):
        return {"batch": b.batch_norm, "instance": b.instance_norm, "statistics": b.batch_statistics}[norm](x, c)

    width = [min(ngf * 2**i, ngf * 8) for i in range(levels)]
    x = b.conv("image", cin, width[0], 4, 2, 1)
    downs = []
    for i in range(1, levels):
        # PyTorch's LeakyReLU is in place there: the skips carry what it made.
        downs.append(b.leaky(x))
        last = i == levels - 1
        x = b.conv(downs[-1], width[i - 1], width[i], 4, 2, 1, bias=last)
        if not last:
            x = normed(x, width[i])
    x = b.node("Relu", x)
    for i in range(levels - 1, 0, -1):
        c = width[i] * (1 if i == levels - 1 or not skips else 2)
        x = normed(b.deconv(x, c, width[i - 1], 4, 2, 1, bias=False), width[i - 1])
        if skips:
            x = b.node("Concat", downs[i - 1], x, axis=1)
        x = b.node("Relu", x)
    c = width[0] * (2 if skips else 1)
    y = b.node("Tanh", b.deconv(x, c, cout, 4, 2, 1, gain=0.5))
    return b, y, cin, cout, 1


def resnet(blocks=9, ngf=64, cin=3, cout=3, make=Builder):
    """CycleGAN: reflected borders, instance norm, residual blocks, k3 s2 transposed up."""
    b = make()

    reflect = b.pad
    x = b.conv(reflect("image", 3), cin, ngf, 7)
    x = b.node("Relu", b.instance_norm(x, ngf))
    for i in range(2):
        x = b.conv(x, ngf << i, ngf << (i + 1), 3, 2, 1)
        x = b.node("Relu", b.instance_norm(x, ngf << (i + 1)))
    c = ngf * 4
    for _ in range(blocks):
        y = b.conv(reflect(x, 1), c, c, 3)
        y = b.node("Relu", b.instance_norm(y, c))
        y = b.instance_norm(b.conv(reflect(y, 1), c, c, 3), c)
        x = b.node("Add", x, y)
    for i in (1, 0):
        x = b.deconv(x, ngf << (i + 1), ngf << i, 3, 2, 1, output_padding=1)
        x = b.node("Relu", b.instance_norm(x, ngf << i))
    y = b.node("Tanh", b.conv(reflect(x, 3), ngf, cout, 7, gain=0.5))
    return b, y, cin, cout, 1


def shuffle(b, x, c):
    return b.shuffle(b.conv(x, c, 4 * c, 3, 1, 1))


def edsr(blocks=16, c=64, cin=3, cout=3, make=Builder):
    b = make()
    head = x = b.conv("image", cin, c, 3, 1, 1)
    for _ in range(blocks):
        y = b.node("Relu", b.conv(x, c, c, 3, 1, 1))
        x = b.node("Add", b.conv(y, c, c, 3, 1, 1, gain=0.3), x)
    x = b.node("Add", b.conv(x, c, c, 3, 1, 1), head)
    y = b.conv(shuffle(b, shuffle(b, x, c), c), c, cout, 3, 1, 1, gain=0.5)
    return b, y, cin, cout, 4


def rrdb(blocks=23, c=64, growth=32, cin=3, cout=3, make=Builder):
    """ESRGAN: residual in residual dense blocks, nearest upsampling."""
    b = make()
    fifth = b.constant(np.array(0.2, np.float32))
    head = x = b.conv("image", cin, c, 3, 1, 1)
    for _ in range(blocks):
        block = x
        for _ in range(3):
            parts = [x]
            for i in range(4):
                y = x if i == 0 else b.node("Concat", *parts, axis=1)
                parts.append(b.leaky(b.conv(y, c + i * growth, growth, 3, 1, 1)))
            y = b.conv(b.node("Concat", *parts, axis=1), c + 4 * growth, c, 3, 1, 1)
            x = b.node("Add", b.node("Mul", y, fifth), x)
        x = b.node("Add", b.node("Mul", x, fifth), block)
    x = b.node("Add", b.conv(x, c, c, 3, 1, 1), head)
    for _ in range(2):
        x = b.leaky(b.conv(b.enlarge(x), c, c, 3, 1, 1))
    y = b.conv(b.leaky(b.conv(x, c, c, 3, 1, 1)), c, cout, 3, 1, 1, gain=0.5)
    return b, y, cin, cout, 4


def srgan(blocks=16, c=64, cin=3, cout=3, make=Builder):
    """SRResNet: PReLU, batch norm, pixel shuffle."""
    b = make()

    prelu = b.prelu
    head = x = prelu(b.conv("image", cin, c, 9, 1, 4), c)
    for _ in range(blocks):
        y = prelu(b.batch_norm(b.conv(x, c, c, 3, 1, 1), c), c)
        x = b.node("Add", x, b.batch_norm(b.conv(y, c, c, 3, 1, 1, gain=0.3), c))
    x = b.node("Add", b.batch_norm(b.conv(x, c, c, 3, 1, 1), c), head)
    for _ in range(2):
        x = prelu(shuffle(b, x, c), c)
    y = b.node("Tanh", b.conv(x, c, cout, 9, 1, 4, gain=0.5))
    return b, y, cin, cout, 4


def resize_unet(levels=5, ngf=32, cin=1, cout=1, make=Builder):
    """A U-Net that goes up by nearest or bilinear enlargement and 3×3 convolutions."""
    b = make()
    width = [min(ngf * 2**i, ngf * 8) for i in range(levels)]
    x = b.node("Relu", b.conv("image", cin, width[0], 3, 1, 1))
    downs = [x]
    for i in range(1, levels):
        x = b.node("Relu", b.instance_norm(b.conv(x, width[i - 1], width[i], 3, 2, 1), width[i]))
        downs.append(x)
    for i in range(levels - 1, 0, -1):
        x = b.node("Concat", b.enlarge(x, "nearest" if i % 2 else "linear"), downs[i - 1], axis=1)
        x = b.conv(x, width[i] + width[i - 1], width[i - 1], 3, 1, 1)
        x = b.node("Relu", b.instance_norm(x, width[i - 1]))
    y = b.node("Tanh", b.conv(x, width[0], cout, 1, gain=0.5))
    return b, y, cin, cout, 1


def pix2pixhd(ngf=32, cin=3, cout=3, make=Builder):
    """A global generator at half size, whose features are added to those of the local enhancer."""
    b = make()

    def normed(x, c):
        return b.instance_norm(x, c)

    small = b.node("AveragePool", "image", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    coarse = b.node("Relu", normed(b.conv(b.pad(small, 3), cin, 2 * ngf, 7), 2 * ngf))
    fine = b.node("Relu", normed(b.conv(b.pad("image", 3), cin, ngf, 7), ngf))
    fine = normed(b.conv(fine, ngf, 2 * ngf, 3, 2, 1), 2 * ngf)
    x = b.deconv(b.node("Add", fine, coarse), 2 * ngf, ngf, 3, 2, 1, output_padding=1)
    x = b.node("Relu", normed(x, ngf))
    y = b.node("Tanh", b.conv(b.pad(x, 3), ngf, cout, 7, gain=0.5))
    return b, y, cin, cout, 1


# name: (maker, height and width that it is measured at)
NETS = {
    "unet256": (lambda **k: unet(8, **k), 256),
    "encdec256": (lambda **k: unet(8, skips=False, **k), 256),
    "unet512": (lambda **k: unet(9, **k), 512),
    "encdec512": (lambda **k: unet(9, skips=False, **k), 512),
    "resnet9": (resnet, 256),
    "edsr4": (edsr, 128),
    "rrdb23": (rrdb, 128),
    "srgan": (srgan, 128),
    "resize_unet": (resize_unet, 256),
    # small ones, for tests
    "unet64": (lambda **k: unet(6, 16, 1, 1, **k), 64),
    "unet64_instance": (lambda **k: unet(6, 16, 2, 1, norm="instance", **k), 64),
    "encdec64": (lambda **k: unet(6, 24, skips=False, **k), 64),
    "resnet2": (lambda **k: resnet(2, 16, **k), 48),
    "edsr_small": (lambda **k: edsr(3, 24, 1, 1, **k), 21),
    "rrdb_small": (lambda **k: rrdb(2, 24, 8, 1, 1, **k), 18),
    "srgan_small": (lambda **k: srgan(2, 20, 1, 1, **k), 19),
    "unet64_statistics": (lambda **k: unet(6, 16, 1, 1, norm="statistics", **k), 64),
    "pix2pixhd_small": (lambda **k: pix2pixhd(8, 3, 1, **k), 40),
    "resize_unet_small": (lambda **k: resize_unet(4, 12, **k), 40),
}


def write(name, folder, batch=1, make=Builder):
    """Writes FOLDER/NAME.onnx with fixed sizes and returns its path and input shape."""
    maker, size = NETS[name]
    b, y, cin, cout, scale = maker(make=make)
    shape = [batch, cin, size, size]
    model = b.model(shape, [batch, cout, size * scale, size * scale], y)
    path = pathlib.Path(folder) / f"{name}{'' if batch == 1 else f'_n{batch}'}.onnx"
    onnx.save(model, path)
    return path, shape


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or NETS:
        print(*write(name, folder))
