"""Networks that spell an operator out with simpler ones: recognised (seen in --explain) and right, against onnxruntime."""

import subprocess

import enginekit
import numpy as np
import pytest
from enginekit import make_model
from onnx import helper

RNG = np.random.default_rng(3)
N = helper.make_node
F = np.float32


def array(*shape) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(F)


def mean(x, y, keep=1):
    return N("ReduceMean", [x], [y], axes=[2, 3], keepdims=keep)


GAMMA, BETA, EPSILON = array(1, 4, 1, 1) + 2, array(4, 1, 1), np.array(1e-4, F)

# name: (nodes, constants, the operator that must come out of it)
PATTERNS = {
    "leaky-abs": ([N("Mul", ["x", "a"], ["p"]), N("Abs", ["x"], ["q"]), N("Mul", ["b", "q"], ["r"]), N("Add", ["p", "r"], ["y"])],
                  {"a": F(0.6), "b": F(0.4)}, "Activation"),
    "leaky-max": ([N("Mul", ["a", "x"], ["p"]), N("Max", ["x", "p"], ["y"])], {"a": F(0.2)}, "Activation"),
    "leaky-relu-difference": ([N("Relu", ["x"], ["p"]), N("Neg", ["x"], ["n"]), N("Relu", ["n"], ["q"]), N("Mul", ["q", "a"], ["r"]),
                               N("Sub", ["p", "r"], ["y"])], {"a": F(0.3)}, "Activation"),
    "relu-max": ([N("Max", ["x", "a"], ["y"])], {"a": F(0)}, "Activation"),
    "prelu-one-slope": ([N("PRelu", ["x", "a"], ["y"])], {"a": np.full((4, 1, 1), 0.25, F)}, "Activation"),
    "shuffle-crd": ([N("Reshape", ["x", "a"], ["p"]), N("Transpose", ["p"], ["q"], perm=[0, 1, 4, 2, 5, 3]), N("Reshape", ["q", "b"], ["y"])],
                    {"a": np.int64([0, 1, 2, 2, 6, 5]), "b": np.int64([0, 1, 12, 10])}, "DepthToSpace"),
    "shuffle-dcr": ([N("Reshape", ["x", "a"], ["p"]), N("Transpose", ["p"], ["q"], perm=[0, 3, 4, 1, 5, 2]), N("Reshape", ["q", "b"], ["y"])],
                    {"a": np.int64([0, 2, 2, 1, 6, 5]), "b": np.int64([0, 1, 12, 10])}, "DepthToSpace"),
    "norm-div": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("Pow", ["d", "two"], ["q"]), mean("q", "v"), N("Add", ["v", "e"], ["w"]),
                  N("Sqrt", ["w"], ["r"]), N("Div", ["d", "r"], ["n"]), N("Mul", ["n", "g"], ["s"]), N("Add", ["s", "b"], ["y"])],
                 {"two": F(2), "e": EPSILON, "g": GAMMA, "b": BETA}, "InstanceNormalization"),
    "norm-reciprocal": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("Mul", ["d", "d"], ["q"]), mean("q", "v"), N("Add", ["e", "v"], ["w"]),
                         N("Sqrt", ["w"], ["r"]), N("Reciprocal", ["r"], ["i"]), N("Mul", ["i", "g"], ["k"]), N("Mul", ["k", "d"], ["s"]),
                         N("Add", ["s", "b"], ["y"])], {"e": EPSILON, "g": GAMMA, "b": BETA}, "InstanceNormalization"),
    "norm-tensorflow": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("Mul", ["d", "d"], ["q"]), mean("q", "v"), N("Add", ["v", "e"], ["w"]),
                         N("Sqrt", ["w"], ["r"]), N("Reciprocal", ["r"], ["i"]), N("Mul", ["i", "g"], ["k"]), N("Mul", ["x", "k"], ["s"]),
                         N("Mul", ["m", "k"], ["t"]), N("Sub", ["b", "t"], ["u"]), N("Add", ["s", "u"], ["y"])],
                        {"e": EPSILON, "g": GAMMA, "b": BETA}, "InstanceNormalization"),
    "norm-power": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("Mul", ["d", "d"], ["q"]), mean("q", "v"), N("Add", ["v", "e"], ["w"]),
                    N("Pow", ["w", "h"], ["i"]), N("Mul", ["d", "i"], ["y"])], {"e": EPSILON, "h": F(-0.5)}, "InstanceNormalization"),
    "norm-second-moment": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("Mul", ["x", "x"], ["q"]), mean("q", "s"), N("Mul", ["m", "m"], ["t"]),
                            N("Sub", ["s", "t"], ["v"]), N("Add", ["v", "e"], ["w"]), N("Sqrt", ["w"], ["r"]), N("Div", ["d", "r"], ["y"])],
                           {"e": EPSILON}, "InstanceNormalization"),
    "norm-sum-square": ([mean("x", "m"), N("Sub", ["x", "m"], ["d"]), N("ReduceSumSquare", ["d"], ["s"], axes=[2, 3]), N("Div", ["s", "n"], ["v"]),
                         N("Add", ["v", "e"], ["w"]), N("Sqrt", ["w"], ["r"]), N("Div", ["d", "r"], ["y"])],
                        {"e": EPSILON, "n": F(29)}, "InstanceNormalization"),
}


# A batch norm by the statistics of what it reads, as PyTorch's two exporters write one that learns none.
def own_statistics(of, axes):
    return [N("ReduceMean", [of], ["m"], axes=axes, keepdims=0), N("ReduceMean", [of], ["c"], axes=axes, keepdims=1), N("Sub", [of, "c"], ["d"]),
            N("Mul", ["d", "d"], ["q"]), N("ReduceMean", ["q"], ["v"], axes=axes, keepdims=0), N("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])]


CHANNELS = {"g": GAMMA.ravel(), "b": BETA.ravel()}
BATCH_NORMS = {
    "tensorflow": ([N("ReduceMean", list(n.input), list(n.output), axes=[0, 2, 3]) if n.op_type == "ReduceMean" else n for n in PATTERNS["norm-tensorflow"][0]],
                   PATTERNS["norm-tensorflow"][1]),
    "dynamo": (own_statistics("x", [0, 2, 3]), CHANNELS),
    "torchscript": ([N("Reshape", ["x", "s"], ["f"]), N("Transpose", ["f"], ["t"], perm=[0, 2, 1]), *own_statistics("t", [0, 1])],
                    {**CHANNELS, "s": np.int64([0, 4, -1])}),
}


def explain(folder, shape) -> list[str]:
    done = subprocess.run([enginekit.OPCHECK, folder / "model.onnx", "--explain", "--shape", shape], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_is_recognised_and_right(name, engine, tmp_path):
    nodes, constants, operator = PATTERNS[name]
    model = make_model(nodes, {"x": ["n", 4, 6, 5]}, ["y"], constants, 13)
    x = array(2, 4, 6, 5)
    result = enginekit.run(model, [x], tmp_path, engine)
    assert enginekit.difference(result.outputs[0], enginekit.oracle(model, [x])[0]) <= 3e-6
    assert explain(tmp_path, "2x4x6x5") == [operator]


@pytest.mark.parametrize("name, change", [
    ("leaky-abs", {"b": F(0.3)}), ("leaky-max", {"a": F(1.5)}), ("prelu-one-slope", {"a": np.linspace(0, 1, 4, dtype=F).reshape(4, 1, 1)}),
    ("norm-div", {"two": F(3)}), ("norm-power", {"h": F(-0.25)}),
])
def test_what_only_looks_like_a_pattern_is_left_alone(name, change, engine, tmp_path):
    nodes, constants, operator = PATTERNS[name]
    model = make_model(nodes, {"x": ["n", 4, 6, 5]}, ["y"], {**constants, **change}, 13)
    x = np.abs(array(2, 4, 6, 5)) if name == "norm-div" else array(2, 4, 6, 5)
    try:
        got = enginekit.run(model, [x], tmp_path, engine).outputs[0]
    except enginekit.Refused as e:
        assert "NaN" in str(e)  # the root of a negative third moment
    else:
        assert enginekit.difference(got, enginekit.oracle(model, [x])[0]) <= 3e-6
    assert operator not in explain(tmp_path, "2x4x6x5")


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_statistics_written_out_become_those_of_each_sample(name, engine, tmp_path):
    nodes, constants = BATCH_NORMS[name]
    model = make_model(nodes, {"x": ["n", 4, 6, 5]}, ["y"], constants, 13)
    x = array(3, 4, 6, 5)
    batch = enginekit.run(model, [x], tmp_path, engine).outputs[0]
    for i in range(3):
        assert enginekit.difference(batch[i:i + 1], enginekit.oracle(model, [x[i:i + 1]])[0]) <= 3e-6
    assert explain(tmp_path, "3x4x6x5") == ["InstanceNormalization"]


def test_batch_norm_by_the_statistics_of_something_else_is_refused(tmp_path):
    nodes, constants = BATCH_NORMS["dynamo"]
    nodes = [N("Abs", ["x"], ["a"]), *nodes]
    for at in range(1, 6):  # which node reads |x| in place of x
        read = [N(n.op_type, ["a" if i == "x" else i for i in n.input], list(n.output), **{a.name: helper.get_attribute_value(a) for a in n.attribute})
                if k == at else n for k, n in enumerate(nodes)]
        if "a" not in read[at].input:
            continue
        model = make_model(read, {"x": ["n", 4, 6, 5]}, ["y"], constants, 13)
        with pytest.raises(enginekit.Refused, match="mean is not constant"):
            enginekit.run(model, [array(1, 4, 6, 5)], tmp_path)


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
# name: (nodes, constants, the operators that remain)
FUSIONS = {
    "conv-bn-relu": ([N("Conv", ["x", "w", "c"], ["p"], pads=[1, 1, 1, 1]), N("BatchNormalization", ["p", *"sbmv"], ["q"]), N("Relu", ["q"], ["y"])], ["Conv"]),
    "conv-scale-shift-leaky": ([N("Conv", ["x", "w"], ["p"]), N("Mul", ["p", "s4"], ["q"]), N("Add", ["b4", "q"], ["r"]), N("Div", ["r", "k"], ["t"]),
                                N("LeakyRelu", ["t"], ["y"], alpha=0.2)], ["Conv"]),
    "grouped-deconv-bn": ([N("ConvTranspose", ["x", "wg"], ["p"], group=2, strides=[2, 2]), N("BatchNormalization", ["p", *"sbmv"], ["y"])], ["ConvTranspose"]),
    "deconv-bn-tanh": ([N("ConvTranspose", ["x", "w"], ["p"], strides=[2, 2]), N("BatchNormalization", ["p", *"sbmv"], ["q"]), N("Tanh", ["q"], ["y"])], ["ConvTranspose"]),
    "norm-scale": ([N("InstanceNormalization", ["x", "s", "b"], ["p"]), N("Sub", ["k", "p"], ["q"]), N("Relu", ["q"], ["y"])], ["InstanceNormalization"]),
    "pad-conv": ([N("Pad", ["x", "pads"], ["p"]), N("Conv", ["p", "w"], ["y"], pads=[1, 0, 0, 1])], ["Conv"]),
    "relu-of-leaky": ([N("LeakyRelu", ["x"], ["p"], alpha=0.2), N("Relu", ["p"], ["y"])], ["Activation"]),
    "transposes-cancel": ([N("Transpose", ["x"], ["p"], perm=[0, 2, 3, 1]), N("Transpose", ["p"], ["q"], perm=[0, 3, 1, 2]), N("Relu", ["q"], ["y"])], ["Activation"]),
    "conv-read-twice": ([N("Conv", ["x", "w"], ["p"]), N("Mul", ["p", "k"], ["q"]), N("Add", ["p", "q"], ["y"])], ["Conv", "Affine", "Add"]),
    "channels-last": ([N("Conv", ["x", "w"], ["p"]), N("Transpose", ["p"], ["q"], perm=[0, 2, 3, 1]), N("Add", ["q", "b"], ["r"]), N("Relu", ["r"], ["t"]),
                       N("Transpose", ["t"], ["u"], perm=[0, 3, 1, 2]), N("Conv", ["u", "w1"], ["y"])], ["Conv", "Conv"]),
    "channels-last-axes": ([N("Conv", ["x", "w"], ["p"]), N("Transpose", ["p"], ["q"], perm=[0, 2, 3, 1]), N("Split", ["q", "parts"], ["r", "t"], axis=3),
                            N("Concat", ["t", "r"], ["u"], axis=-1), N("Slice", ["u", "one", "three", "one"], ["o"]), N("ReduceMean", ["o"], ["z"], axes=[1, 3]),
                            N("Mul", ["o", "z"], ["e"]), N("Resize", ["e", "", "larger"], ["f"], mode="linear"),
                            N("Pad", ["f", "pads"], ["g"]), N("Transpose", ["g"], ["h"], perm=[0, 3, 1, 2]), N("Abs", ["h"], ["y"])],
                           ["Conv", "Split", "Concat", "Slice", "ReduceMean", "Mul", "Resize", "Pad", "Abs"]),
    "channels-last-kept-for-a-constant-of-two-axes": (
        [N("Conv", ["x", "w"], ["p"]), N("Transpose", ["p"], ["q"], perm=[0, 2, 3, 1]), N("Mul", ["q", "plane"], ["r"]),
         N("Transpose", ["r"], ["t"], perm=[0, 3, 1, 2]), N("Abs", ["t"], ["y"])], ["Conv", "Transpose", "Mul", "Transpose", "Abs"]),
    "crop": ([N("ConvTranspose", ["x", "w"], ["p"], strides=[2, 2]), N("Slice", ["p", "corner", "end", "image"], ["q"]), N("Relu", ["q"], ["y"])], ["ConvTranspose"]),
    "crop-of-one-read-twice": ([N("ConvTranspose", ["x", "w"], ["p"], strides=[2, 2]), N("Slice", ["p", "corner", "end", "image"], ["q"]),
                                N("ReduceMean", ["p"], ["a"], axes=[2, 3]), N("Mul", ["q", "a"], ["y"])], ["ConvTranspose", "Slice", "ReduceMean", "Mul"]),
    "crop-of-every-second": ([N("ConvTranspose", ["x", "w"], ["p"], strides=[2, 2]), N("Slice", ["p", "corner", "end", "image", "steps"], ["y"])],
                             ["ConvTranspose", "Slice"]),
    "skip": ([N("Conv", ["x", "w"], ["p"], pads=[1, 1, 1, 1]), N("LeakyRelu", ["p"], ["l"], alpha=0.2), N("Conv", ["l", "w"], ["q"], pads=[1, 1, 1, 1]),
              N("Concat", ["l", "q"], ["d"], axis=1), N("Relu", ["d"], ["y"])], ["Conv", "Activation", "Conv", "Concat"]),
}
KERAS = [N("Unsqueeze", ["x", "three"], ["k1"]), N("Tile", ["k1", "twice"], ["k2"]), N("Transpose", ["k2"], ["k3"], perm=[0, 2, 3, 4, 1]),
         N("Reshape", ["k3", "tall"], ["k4"]), N("Unsqueeze", ["k4", "three"], ["k5"]), N("Tile", ["k5", "thrice"], ["k6"]), N("Reshape", ["k6", "large"], ["k7"])]
FUSIONS |= {
    "keras-upsampling": ([*KERAS, N("Transpose", ["k7"], ["o"], perm=[0, 3, 1, 2]), N("Abs", ["o"], ["y"])], ["Resize", "Abs"]),
    "keras-upsampling-last": ([*KERAS, N("Abs", ["k7"], ["y"])], ["Resize", "Transpose", "Abs"]),
    "columns-upsampled-read-twice": ([*KERAS, N("Transpose", ["k2"], ["h"], perm=[0, 1, 2, 4, 3]), N("ReduceMean", ["h"], ["a"]), N("Mul", ["k7", "a"], ["y"])],
                                     ["Reshape", "Gather", "Transpose", "Reshape", "Resize", "Transpose", "ReduceMean", "Mul"]),
    "channels-repeated": ([N("Unsqueeze", ["x", "two"], ["p"]), N("Tile", ["p", "double"], ["q"]), N("Reshape", ["q", "deep"], ["y"])], ["Resize"]),
    "rows-tiled": ([N("Unsqueeze", ["x", "two"], ["p"]), N("Tile", ["p", "double"], ["q"]), N("Reshape", ["q", "high"], ["y"])], ["Reshape", "Gather", "Reshape"]),
    "rows-there-once": ([N("Reshape", ["x", "lines"], ["l"]), N("Unsqueeze", ["l", "two"], ["p"]), N("Gather", ["p", "first"], ["q"], axis=2),
                          N("Reshape", ["q", "lines"], ["r"]), N("Abs", ["r"], ["y"])],
                        ["Reshape", "Gather", "Reshape", "Abs"]),
    "resizes-of-rows-and-columns": ([N("Resize", ["x", "", "rows"], ["p"], **NEAREST), N("Resize", ["p", "", "columns"], ["y"], **NEAREST)], ["Resize"]),
    "resizes-of-rows": ([N("Resize", ["x", "", "rows"], ["p"], **NEAREST), N("Resize", ["p", "", "rows"], ["y"], **NEAREST)], ["Resize", "Resize"]),
    "resizes-that-round-differently": ([N("Resize", ["x", "", "rows"], ["p"], **NEAREST), N("Resize", ["p", "", "columns"], ["y"], **NEAREST | {"nearest_mode": "ceil"})],
                                       ["Resize", "Resize"]),
}
CONSTANTS = {
    "two": np.int64([2]), "twice": np.int64([1, 1, 1, 2, 1]), "thrice": np.int64([1, 1, 1, 3, 1]), "tall": np.int64([2, 12, 5, 4]),
    "large": np.int64([2, 12, 15, 4]), "double": np.int64([1, 1, 2, 1, 1]), "deep": np.int64([2, 8, 6, 5]), "high": np.int64([2, 4, 12, 5]),
    "first": np.int64([0]), "lines": np.int64([8, 6, 5]), "rows": F([1, 1, 1.7, 1]), "columns": F([1, 1, 1, 0.7]),
    "w": array(4, 4, 3, 3), "wg": array(4, 2, 3, 3), "c": array(4), "s": array(4) + 2, "b": array(4), "m": array(4), "v": np.abs(array(4)) + 0.5,
    "w1": array(3, 4, 1, 1), "parts": np.int64([1, 3]), "one": np.int64([1]), "three": np.int64([3]), "larger": F([1, 2, 2, 1]), "plane": array(3, 4),
    "corner": np.int64([1, 2]), "end": np.int64([-1, 9]), "image": np.int64([2, 3]), "steps": np.int64([1, 2]),
    "s4": array(1, 4, 1, 1), "b4": array(4, 1, 1), "k": F(1.7), "pads": np.int64([0, 0, 1, 2, 0, 0, 2, 0]),
}


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_leaves_the_function_alone(name, engine, tmp_path):
    nodes, operators = FUSIONS[name]
    used = {i for n in nodes for i in n.input}
    model = make_model(nodes, {"x": ["n", 4, 6, 5]}, ["y"], {k: v for k, v in CONSTANTS.items() if k in used}, 13)
    x = array(2, 4, 6, 5)
    result = enginekit.run(model, [x], tmp_path, engine)
    assert enginekit.difference(result.outputs[0], enginekit.oracle(model, [x])[0]) <= 3e-6
    assert sorted(explain(tmp_path, "2x4x6x5")) == sorted(operators)
