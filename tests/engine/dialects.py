"""The networks of scripts/bench_engine_nets.py as different exporters write them, made with the `onnx` package alone.

Builder itself writes what PyTorch's TorchScript exporter does at opset 17. Here:

    Symbolic   the same exporter with dynamic axes: sizes come from Shape, Gather, Mul and Concat, pads through Cast, constants are nodes
    Dynamo     PyTorch's newer exporter: opset 20, IR 10, every attribute written out, constants as initializers
    TensorFlow tf2onnx: activations NHWC with a Transpose on either side of what knows channels, bias and leaky ReLU spelled out,
               transposed convolutions cropped by Slice, instance norm by its means
"""

import sys

import enginekit
import numpy as np
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402


def values(builder, x_shape, y_shape, y, opset, ir):
    graph = helper.make_graph(
        builder.nodes + [helper.make_node("Identity", [y], ["synthetic"], name="end")], "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, x_shape)], [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, y_shape)],
        builder.tensors)
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


class Symbolic(nets.Builder):
    def constant(self, array):
        if array.dtype == np.float32 and array.size > 8:
            return super().constant(array)
        return self.node("Constant", value=numpy_helper.from_array(array))

    def pad(self, x, p, mode="reflect"):
        # what nn.ReflectionPad2d's list becomes: padded with zeros to the rank, turned about, cast
        paddings = self.node("Concat", self.constant(np.array([p, p, p, p], np.int64)),
                             self.node("ConstantOfShape", self.constant(np.array([4], np.int64)), value=helper.make_tensor("value", TensorProto.INT64, [1], [0])),
                             axis=0)
        rows = self.node("Reshape", paddings, self.constant(np.array([-1, 2], np.int64)))
        turned = self.node("Slice", rows, self.constant(np.array([-1], np.int64)), self.constant(np.array([-(1 << 62)], np.int64)),
                           self.constant(np.array([0], np.int64)), self.constant(np.array([-1], np.int64)))
        flat = self.node("Reshape", self.node("Transpose", turned, perm=[1, 0]), self.constant(np.array([-1], np.int64)))
        return self.node("Pad", x, self.node("Cast", flat, to=TensorProto.INT64), mode=mode)

    def enlarge(self, x, mode="nearest"):
        shape = self.node("Shape", x)
        zero, two = (self.constant(np.array([i], np.int64)) for i in (0, 2))
        head = self.node("Slice", shape, zero, two, zero)
        sizes = [self.node("Unsqueeze", self.node("Cast", self.node("Floor", self.node("Mul", self.node("Cast", self.node(
            "Gather", shape, self.constant(np.array(axis, np.int64)), axis=0), to=TensorProto.FLOAT), self.constant(np.array(2, np.float32)))),
            to=TensorProto.INT64), zero) for axis in (2, 3)]
        more = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"} if mode == "nearest" else {"coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", x, "", "", self.node("Concat", head, *sizes, axis=0), mode=mode, **more)

    def shuffle(self, x):
        # as view, permute, view
        shape = self.node("Shape", x)
        n, c, h, w = (self.node("Gather", shape, self.constant(np.array(axis, np.int64)), axis=0) for axis in range(4))
        zero, two, four = (self.constant(np.array(i, np.int64)) for i in (0, 2, 4))
        listed = [self.node("Unsqueeze", v, self.constant(np.array([0], np.int64)))
                  for v in (n, self.node("Div", c, four), two, two, h, w, self.node("Mul", h, two), self.node("Mul", w, two), zero)]
        six = self.node("Reshape", x, self.node("Concat", *listed[:6], axis=0))
        turned = self.node("Transpose", six, perm=[0, 1, 4, 2, 5, 3])
        return self.node("Reshape", turned, self.node("Concat", listed[0], listed[1], listed[6], listed[7], axis=0))

    def model(self, x_shape, y_shape, y):
        return values(self, ["n", x_shape[1], "h", "w"], ["n", y_shape[1], "oh", "ow"], y, 17, 8)


class Dynamo(nets.Builder):
    DEFAULTS = {"Conv": {"auto_pad": "NOTSET"}, "ConvTranspose": {"auto_pad": "NOTSET"}, "AveragePool": {"auto_pad": "NOTSET", "ceil_mode": 0},
                "Resize": {"keep_aspect_ratio_policy": "stretch", "antialias": 0, "extrapolation_value": 0.0, "exclude_outside": 0, "cubic_coeff_a": -0.75},
                "LeakyRelu": {}, "BatchNormalization": {"momentum": 0.9}}

    def node(self, op, *inputs, **attributes):
        return super().node(op, *inputs, **{**self.DEFAULTS.get(op, {}), **attributes})

    def batch_statistics(self, x, c):
        # in training mode for the batch norm alone (track_running_stats=False): the statistics are nodes
        axes = self.constant(np.array([0, 2, 3], np.int64))
        mean, kept = (self.node("ReduceMean", x, axes, keepdims=keep, noop_with_empty_axes=0) for keep in (0, 1))
        away = self.node("Sub", x, kept)
        variance = self.node("ReduceMean", self.node("Mul", away, away), axes, keepdims=0, noop_with_empty_axes=0)
        return self.node("BatchNormalization", x, self.floats((c,), 0.1, 1.0), self.floats((c,), 0.1), mean, variance, epsilon=1e-5)

    def model(self, x_shape, y_shape, y):
        return values(self, x_shape, y_shape, y, 20, 10)


class TensorFlow(nets.Builder):
    """Every tensor is NHWC, but inside `planes`."""

    def planes(self, x, make):
        return self.node("Transpose", make(self.node("Transpose", x, perm=[0, 3, 1, 2])), perm=[0, 2, 3, 1])

    def node(self, op, *inputs, **attributes):
        if op == "Concat" and attributes["axis"] == 1:
            attributes["axis"] = 3
        if op == "AveragePool":
            return self.planes(inputs[0], lambda p: nets.Builder.node(self, op, p, **attributes))
        return super().node(op, *inputs, **attributes)

    def bias(self, x, c, wanted):
        return self.node("Add", x, self.floats((c,), 0.1)) if wanted else x

    def conv(self, x, cin, cout, k, stride=1, pad=0, bias=True, gain=1.0):
        weights = self.floats((cout, cin, k, k), gain / (cin * k * k) ** 0.5)
        how = {"auto_pad": "SAME_UPPER"} if pad else {"auto_pad": "VALID"}
        y = self.planes(x, lambda p: nets.Builder.node(self, "Conv", p, weights, kernel_shape=[k, k], strides=[stride] * 2, dilations=[1, 1], group=1, **how))
        return self.bias(y, cout, bias)

    def deconv(self, x, cin, cout, k, stride, pad, bias=True, output_padding=0, gain=1.0):
        weights = self.floats((cin, cout, k, k), gain / (cin * max(k * k / stride**2, 1)) ** 0.5)
        begin, end = (self.constant(np.array([v, v], np.int64)) for v in (pad, -pad + output_padding or 1 << 40))
        axes = self.constant(np.array([2, 3], np.int64))
        y = self.planes(x, lambda p: nets.Builder.node(self, "Slice", nets.Builder.node(
            self, "ConvTranspose", p, weights, kernel_shape=[k, k], strides=[stride] * 2, dilations=[1, 1], group=1), begin, end, axes))
        return self.bias(y, cout, bias)

    def batch_norm(self, x, c):
        # folded to a product and a sum, as a frozen graph has it
        return self.node("Add", self.node("Mul", x, self.floats((c,), 0.1, 1.0)), self.floats((c,), 0.1))

    def instance_norm(self, x, c):
        mean = self.node("ReduceMean", x, axes=[1, 2], keepdims=1)
        away = self.node("Sub", x, mean)
        variance = self.node("ReduceMean", self.node("Mul", away, away), axes=[1, 2], keepdims=1)
        root = self.node("Sqrt", self.node("Add", variance, self.constant(np.array(1e-5, np.float32))))
        inverse = self.node("Mul", self.node("Reciprocal", root), self.constant(np.ones(c, np.float32)))
        return self.node("Add", self.node("Mul", x, inverse), self.node("Sub", self.constant(np.zeros(c, np.float32)), self.node("Mul", mean, inverse)))

    def leaky(self, x):
        half = [self.constant(np.array(v, np.float32)) for v in (0.6, 0.4)]
        return self.node("Add", self.node("Mul", x, half[0]), self.node("Mul", half[1], self.node("Abs", x)))

    def prelu(self, x, c):
        below = self.node("Neg", self.node("Relu", self.node("Neg", x)))
        return self.node("Add", self.node("Relu", x), self.node("Mul", below, self.floats((c,), 0.05, 0.25)))

    def pad(self, x, p, mode="reflect"):
        return self.node("Pad", x, self.constant(np.array([0, p, p, 0, 0, p, p, 0], np.int64)), mode=mode)

    def repeat(self, x, axis):
        # Keras's UpSampling2D: each row twice, each column twice
        ends = [self.constant(np.array([i], np.int64)) for i in (0, axis, axis + 1, 4)]
        times = np.ones(5, np.int64)
        times[axis + 1] = 2
        tiled = self.node("Tile", self.node("Unsqueeze", x, ends[2]), self.constant(times))
        shape = self.node("Cast", self.node("Shape", x), to=TensorProto.INT32)
        head, size, tail = (self.node("Slice", shape, ends[i], ends[i + 1], ends[0]) for i in range(3))
        larger = self.node("Concat", head, self.node("Mul", size, self.constant(np.array([2], np.int32))), tail, axis=0)
        return self.node("Reshape", tiled, self.node("Cast", larger, to=TensorProto.INT64))

    def enlarge(self, x, mode="nearest"):
        if mode == "nearest":
            return self.repeat(self.repeat(x, 1), 2)
        return self.planes(x, lambda p: nets.Builder.enlarge(self, p, mode))

    def shuffle(self, x):
        return self.planes(x, lambda p: nets.Builder.node(self, "DepthToSpace", p, blocksize=2, mode="DCR"))

    def model(self, x_shape, y_shape, y):
        def nhwc(s):
            return ["n", s[2], s[3], s[1]]
        return values(self, nhwc(x_shape), nhwc(y_shape), y, 15, 8)


DIALECTS = {"torchscript": nets.Builder, "symbolic": Symbolic, "dynamo": Dynamo, "tensorflow": TensorFlow}
