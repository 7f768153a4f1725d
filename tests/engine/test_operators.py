"""Every attribute and every form of the operators that networks use, on every engine, against onnxruntime.

What the ONNX project's own cases leave out: older opsets, where attributes and inputs differ, groups with dilation,
odd sizes, batches, asymmetric pads. An engine that refuses a case that the reference engine runs fails.
"""

import zlib

import enginekit
import numpy as np
import pytest
from enginekit import make_model
from onnx import TensorProto, helper

RNG = np.random.default_rng(7)


def array(*shape) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def node(kind, inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def conv(x, m, k, opset=17, bias=True, kind="Conv", **a):
    group = a.get("group", 1)
    kh, kw = k if isinstance(k, tuple) else (k, k)
    w = array(m, x[1] // group, kh, kw) if kind == "Conv" else array(x[1], m // group, kh, kw)
    constants = {"w": w, **({"b": array(m)} if bias else {})}
    return make_model([node(kind, ["x", *constants], **a)], {"x": x}, ["y"], constants, opset), [array(*x)]


def one(kind, shape, opset=17, constants=None, more_inputs=(), outputs=("y",), **a):
    constants = constants or {}
    names = ["x", *[f"x{i}" for i in range(len(more_inputs))], *constants]
    inputs = {"x": shape, **{f"x{i}": s for i, s in enumerate(more_inputs)}}
    model = make_model([node(kind, [n if n in inputs or np.size(constants[n]) or n == "roi" else "" for n in names], outputs, **a)],
                       inputs, list(outputs), {k: v for k, v in constants.items() if np.size(v) or k == "roi"}, opset)
    return model, [array(*s) for s in inputs.values()]


CASES = {}
for i, (x, m, k, a) in enumerate([
    ((1, 3, 16, 16), 8, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])), ((2, 5, 17, 13), 7, 3, dict(pads=[1, 1, 1, 1])),
    ((1, 1, 9, 9), 1, 1, {}), ((1, 8, 12, 10), 8, 3, dict(group=8, pads=[1, 1, 1, 1])), ((3, 6, 11, 11), 4, 3, dict(group=2)),
    ((1, 4, 20, 20), 6, 3, dict(dilations=[2, 3], pads=[2, 3, 2, 3])), ((1, 3, 32, 32), 16, 7, dict(pads=[3, 3, 3, 3])),
    ((1, 4, 8, 8), 4, 4, dict(pads=[1, 1, 2, 2])), ((1, 4, 9, 7), 5, (3, 5), dict(strides=[1, 2], pads=[0, 2, 1, 1])),
    ((2, 4, 2, 2), 6, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])), ((1, 2, 4, 4), 3, 4, {}),
    ((1, 3, 10, 11), 4, 3, dict(auto_pad="SAME_UPPER", strides=[2, 2])), ((1, 3, 10, 11), 4, 4, dict(auto_pad="SAME_LOWER")),
    ((1, 3, 10, 11), 4, 3, dict(auto_pad="VALID")), ((1, 16, 33, 65), 24, 3, dict(pads=[1, 1, 1, 1], strides=[2, 2])),
    ((1, 64, 16, 16), 64, 3, dict(pads=[1, 1, 1, 1])), ((2, 32, 8, 8), 64, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    ((1, 256, 1, 1), 20, 1, {}), ((1, 3, 5, 200), 4, (1, 9), dict(pads=[0, 4, 0, 4])), ((4, 3, 6, 6), 3, 5, dict(pads=[2, 2, 2, 2])),
]):
    CASES[f"conv-{i}"] = lambda x=x, m=m, k=k, a=a, i=i: conv(x, m, k, 7 if i % 3 == 0 else 17, bias=i % 2 == 0, **a)
for i, (x, m, k, a) in enumerate([
    ((1, 8, 8, 8), 6, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])), ((2, 5, 7, 6), 3, 3, {}), ((1, 4, 5, 5), 4, 2, dict(strides=[2, 2])),
    ((1, 4, 5, 6), 6, 3, dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])), ((1, 6, 5, 5), 4, 3, dict(group=2)),
    ((1, 6, 5, 5), 6, 4, dict(group=6, strides=[2, 2], pads=[1, 1, 1, 1])), ((1, 3, 6, 6), 2, 3, dict(dilations=[2, 2], pads=[2, 1, 1, 2])),
    ((1, 3, 4, 4), 2, 5, dict(strides=[3, 3])), ((1, 64, 1, 1), 32, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    ((3, 4, 4, 4), 2, 4, dict(strides=[2, 2], auto_pad="SAME_UPPER")), ((1, 4, 4, 4), 2, 3, dict(strides=[2, 2], auto_pad="SAME_LOWER")),
    ((1, 2, 3, 3), 2, 3, dict(strides=[2, 2], output_shape=[8, 8])), ((1, 2, 3, 3), 2, 2, dict(strides=[3, 3], output_padding=[1, 0])),
    ((1, 16, 16, 16), 8, 4, dict(strides=[2, 2], pads=[1, 1, 1, 1])), ((1, 3, 4, 5), 2, (3, 2), dict(strides=[1, 2], pads=[1, 0, 0, 1])),
    ((1, 2, 6, 6), 2, 2, dict(strides=[4, 4])),
]):
    CASES[f"conv-transpose-{i}"] = lambda x=x, m=m, k=k, a=a, i=i: conv(x, m, k, 11, bias=i % 2 == 0, kind="ConvTranspose", **a)

COORDS = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
CHANNELS = [np.abs(array(6)) + 0.5, array(6), array(6), np.abs(array(6)) + 0.1]
for opset in (7, 9, 14, 15):
    CASES[f"batch-norm-{opset}"] = lambda o=opset: one("BatchNormalization", (2, 6, 5, 4), o, dict(zip("sbmv", CHANNELS)), epsilon=1e-3)
for shape in ((1, 6, 9, 8), (2, 6, 2, 2), (1, 6, 33, 31)):
    CASES[f"instance-norm-{shape[2]}"] = lambda s=shape: one("InstanceNormalization", s, 17, dict(zip("sb", CHANNELS)), epsilon=2e-5)
for rest in ((7,), (3, 4, 5)):  # a norm of groups is one of rank 3
    CASES[f"instance-norm-of-rank-{len(rest) + 2}"] = lambda r=rest: one("InstanceNormalization", (2, 6, *r), 17, dict(zip("sb", CHANNELS)), epsilon=1e-5)
    CASES[f"batch-norm-of-rank-{len(rest) + 2}"] = lambda r=rest: one("BatchNormalization", (2, 6, *r), 15, dict(zip("sbmv", CHANNELS)), epsilon=1e-3)
for kind, a in (("Relu", {}), ("LeakyRelu", dict(alpha=0.3)), ("LeakyRelu", {}), ("Tanh", {}), ("Sigmoid", {}), ("Abs", {}), ("Neg", {}), ("Exp", {})):
    CASES[f"{kind}-{len(a)}"] = lambda k=kind, a=a: one(k, (2, 3, 5, 7), 17, **a)
CASES["clip-6"] = lambda: one("Clip", (1, 2, 4, 4), 7, min=-0.25, max=0.5)
CASES["clip-11"] = lambda: one("Clip", (1, 2, 4, 4), 11, {"lo": np.float32(-0.2), "hi": np.float32(0.3)})
CASES["clip-no-low"] = lambda: one("Clip", (1, 2, 4, 4), 13, {"lo": np.zeros(0, np.float32), "hi": np.float32(0.3)})
for opset, slope in ((7, (3, 1, 1)), (9, (1, 3, 1, 1)), (16, (1,)), (16, (3, 1, 1))):
    CASES[f"prelu-{opset}-{len(slope)}"] = lambda o=opset, s=slope: one("PRelu", (2, 3, 5, 4), o, {"s": array(*s)})
for kind in ("Add", "Sub", "Mul", "Div"):
    for other in ((2, 3, 5, 4), (3, 1, 1), (1,), (2, 1, 5, 1), (4,)):
        CASES[f"{kind}-{'x'.join(map(str, other))}"] = lambda k=kind, o=other: one(k, (2, 3, 5, 4), 14, more_inputs=[o])
        CASES[f"{kind}-constant-{'x'.join(map(str, other))}"] = lambda k=kind, o=other: one(k, (2, 3, 5, 4), 7, {"c": array(*o) + 2})
CASES["sum-3"] = lambda: one("Sum", (2, 3, 4, 4), 13, more_inputs=[(2, 3, 4, 4), (1, 3, 1, 1)])
CASES["max-3"] = lambda: one("Max", (2, 3, 4, 4), 13, more_inputs=[(2, 3, 4, 4), (1, 3, 1, 1)])
CASES["min-constant"] = lambda: one("Min", (2, 3, 4, 4), 13, {"c": np.float32([0.1])})
CASES["pow-integer"] = lambda: one("Pow", (2, 3, 4, 4), 13, {"c": np.int64(2)})
for axis, others in ((1, [(2, 5, 4, 4), (2, 1, 4, 4)]), (-1, [(2, 3, 4, 2)]), (0, [(1, 3, 4, 4)]), (2, [(2, 3, 1, 4)])):
    CASES[f"concat-{axis}"] = lambda a=axis, o=others: one("Concat", (2, 3, 4, 4), 13, more_inputs=o, axis=a)
CASES["split-7"] = lambda: one("Split", (2, 6, 4, 4), 7, outputs=("y", "z"), axis=1, split=[2, 4])
CASES["split-13"] = lambda: one("Split", (2, 6, 4, 4), 13, {"s": np.int64([1, 2, 3])}, outputs=("y", "z", "w"), axis=-3)
CASES["split-18"] = lambda: one("Split", (2, 5, 4, 4), 18, outputs=("y", "z"), axis=1, num_outputs=2)
CASES["split-equal"] = lambda: one("Split", (2, 6, 4, 4), 11, outputs=("y", "z", "w"), axis=2 - 1)
CASES["slice-7"] = lambda: one("Slice", (2, 6, 7, 8), 7, axes=[1, 3], starts=[1, -5], ends=[4, 100])
CASES["slice-13"] = lambda: one("Slice", (2, 6, 7, 8), 13, {"s": np.int64([5, -1]), "e": np.int64([-100, 0]), "a": np.int64([2, 3]), "t": np.int64([-2, -3])})
for mode in ("constant", "reflect", "edge"):
    CASES[f"pad-{mode}-7"] = lambda m=mode: one("Pad", (1, 2, 5, 6), 7, mode=m, pads=[0, 0, 1, 2, 0, 0, 3, 1])
    CASES[f"pad-{mode}-13"] = lambda m=mode: one("Pad", (1, 2, 5, 6), 13, {"p": np.int64([0, 0, 4, 2, 0, 0, 3, 5])}, mode=m)
    CASES[f"pad-{mode}-18"] = lambda m=mode: one("Pad", (1, 2, 5, 6), 18, {"p": np.int64([1, 2, 3, 0]), "v": np.zeros(0, np.float32), "a": np.int64([-1, 2])}, mode=m)
CASES["pad-value-crop"] = lambda: one("Pad", (1, 2, 5, 6), 11, {"p": np.int64([0, 1, -1, 2, 0, 0, 3, -2]), "v": np.float32(0.7)})
CASES["upsample-7"] = lambda: one("Upsample", (1, 2, 3, 4), 7, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])
CASES["upsample-9"] = lambda: one("Upsample", (1, 2, 3, 4), 9, {"s": np.float32([1, 1, 2, 2])}, mode="linear")
# ONNX's own case of this opset, in its package until the next: 1 and 3, so nearest rounds up where it shrinks.
CASES["resize-10-smaller"] = lambda: one("Resize", (1, 1, 2, 4), 10, {"s": np.float32([1, 1, 0.6, 0.6])}, mode="nearest")
CASES["resize-10"] = lambda: one("Resize", (1, 2, 5, 4), 10, {"s": np.float32([1, 1, 1.7, 0.5])}, mode="nearest")
for mode, coords in (("nearest", (*COORDS, "tf_half_pixel_for_nn")), ("linear", COORDS), ("cubic", COORDS)):
    for coord in coords:
        for sizes in ((10, 8), (3, 9), (5, 4), (1, 1)):
            CASES[f"resize-{mode}-{coord}-{sizes[0]}"] = lambda m=mode, c=coord, s=sizes: one(
                "Resize", (1, 2, 5, 4), 13,
                {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.int64([1, 2, *s])},
                mode=m, coordinate_transformation_mode=c, **({"nearest_mode": "floor"} if m == "nearest" else {}))
# A whole factor along one axis: the other must stay as it is.
CASES["resize-tf-rows"] = lambda: one("Resize", (1, 2, 5, 4), 12, {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2, 1])},
                                      mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="ceil")
CASES["resize-channels"] = lambda: one("Resize", (2, 3, 5, 4), 13, {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 2, 1, 1])},
                                       mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
    CASES[f"resize-{nearest}"] = lambda n=nearest: one(
        "Resize", (1, 2, 6, 4), 11, {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 1.5, 0.5])}, mode="nearest", nearest_mode=n)
CASES["resize-cubic-outside"] = lambda: one(
    "Resize", (1, 2, 6, 5), 13, {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 1.5, 2])}, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
for mode in ("DCR", "CRD"):
    CASES[f"depth-to-space-{mode}"] = lambda m=mode: one("DepthToSpace", (2, 12, 3, 5), 13, blocksize=2, mode=m)
CASES["depth-to-space-7"] = lambda: one("DepthToSpace", (1, 18, 3, 2), 7, blocksize=3)
CASES["reshape"] = lambda: one("Reshape", (2, 3, 4, 5), 13, {"s": np.int64([0, -1, 5])})
for perm in ((0, 2, 3, 1), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3)):
    CASES[f"transpose-{perm[0]}{perm[1]}{perm[2]}"] = lambda p=perm: one("Transpose", (2, 3, 4, 5), 13, perm=p)
CASES["flatten"] = lambda: one("Flatten", (2, 3, 4, 5), 13, axis=-2)
CASES["squeeze-11"] = lambda: one("Squeeze", (2, 1, 4, 1), 11, axes=[1, -1])
CASES["squeeze-13"] = lambda: one("Squeeze", (2, 1, 4, 1), 13)
CASES["unsqueeze-11"] = lambda: one("Unsqueeze", (2, 4), 11, axes=[0, -1])
CASES["unsqueeze-13"] = lambda: one("Unsqueeze", (2, 4), 13, {"a": np.int64([1, -2])})
CASES["gather"] = lambda: one("Gather", (2, 6, 4, 4), 13, {"i": np.int64([[3, -1], [0, 3]])}, axis=1)
for opset, shape, repeats in ((7, (2, 3, 4, 5), (1, 2, 1, 3)), (13, (1, 3, 4, 5), (2, 1, 3, 1)), (13, (3, 4), (2, 2)), (13, (2, 1, 3, 1, 2), (1, 3, 2, 2, 1)),
                              (13, (2, 3, 4), (1, 1, 1))):
    CASES[f"tile-{opset}-{'x'.join(map(str, repeats))}"] = lambda o=opset, s=shape, r=repeats: one("Tile", s, o, {"r": np.int64(r)})
# As PyTorch writes the statistics of an InstanceNorm2d that has learnt them.
CASES["tile-of-a-constant"] = lambda: (make_model(
    [node("Tile", ["m", "r"], ["mm"]), node("Tile", ["v", "r"], ["vv"]), node("BatchNormalization", ["x", "s", "b", "mm", "vv"])],
    {"x": (2, 6, 4, 4)}, ["y"], {"m": CHANNELS[2][:3], "v": CHANNELS[3][:3], "s": CHANNELS[0], "b": CHANNELS[1], "r": np.int64([2])}, 17), [array(2, 6, 4, 4)])
for kind in ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceProd"):
    for keep in (0, 1):
        CASES[f"{kind}-7-{keep}"] = lambda k=kind, d=keep: one(k, (2, 3, 4, 5), 11, axes=[-1, 2], keepdims=d)
    CASES[f"{kind}-18"] = lambda k=kind: one(k, (2, 3, 4, 5), 18, {"a": np.int64([1, 3])}, keepdims=0)
    CASES[f"{kind}-all"] = lambda k=kind: one(k, (2, 3, 2, 2), 13, keepdims=1)
for kind in ("AveragePool", "MaxPool"):
    for i, a in enumerate((dict(kernel_shape=[2, 2], strides=[2, 2]), dict(kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]),
                           dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), dict(kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]))):
        CASES[f"{kind}-{i}"] = lambda k=kind, a=a: one(k, (2, 3, 7, 8), 12, **a)
CASES["AveragePool-include"] = lambda: one("AveragePool", (2, 3, 7, 8), 12, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], count_include_pad=1)
CASES["AveragePool-dilated"] = lambda: one("AveragePool", (2, 3, 7, 8), 19, kernel_shape=[3, 2], dilations=[2, 3])
CASES["global-average"] = lambda: one("GlobalAveragePool", (2, 3, 7, 8), 7)
CASES["dropout-7"] = lambda: one("Dropout", (2, 3, 4, 4), 7, ratio=0.5)
CASES["dropout-13"] = lambda: one("Dropout", (2, 3, 4, 4), 13, {"r": np.float32(0.5)})
CASES["identity"] = lambda: one("Identity", (2, 3), 13)
CASES["cast"] = lambda: (make_model([node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), node("Cast", ["d"], to=TensorProto.FLOAT)],
                                    {"x": (2, 3)}, ["y"]), [array(2, 3)])


def case(name):
    """Its numbers are its own, whatever ran before: a sum that all but vanishes has no relative error to speak of."""
    global RNG
    RNG = np.random.default_rng(zlib.crc32(name.encode()))
    return CASES[name]()


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_onnxruntime(name, engine, tmp_path):
    model, inputs = case(name)
    result = enginekit.run(model, inputs, tmp_path, engine, len(model.graph.output))
    for got, want in zip(result.outputs, enginekit.oracle(model, inputs)):
        assert enginekit.difference(got, want) <= 3e-6


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference_engine(name, fast_engine, tmp_path):
    model, inputs = case(name)
    result = enginekit.run(model, inputs, tmp_path, fast_engine, len(model.graph.output), arguments=("--against", "ref"))
    assert result.facts["rel_l2"] <= 2e-6


def test_instance_norm_of_one_pixel_is_its_bias(engine, tmp_path):
    """What pix2pix with batch size 1 does at its bottleneck; runtimes that subtract late give noise times 1/sqrt(epsilon)."""
    model, inputs = one("InstanceNormalization", (3, 6, 1, 1), 17, dict(zip("sb", CHANNELS)), epsilon=1e-5)
    got = enginekit.run(model, inputs, tmp_path, engine).outputs[0]
    assert np.array_equal(got, np.broadcast_to(CHANNELS[1].reshape(1, 6, 1, 1), (3, 6, 1, 1)))


@pytest.mark.parametrize("opset", [13, 15])
def test_batch_statistics_never_mix_samples(opset, engine, tmp_path):
    """BatchNormalization in training mode: each sample by its own statistics, whatever stands beside it."""
    kind = dict(training_mode=1) if opset >= 14 else {}
    outputs = ["y", "m1", "v1"] if opset >= 14 else ["y", "m1", "v1", "m2", "v2"]
    model = make_model([node("BatchNormalization", ["x", *"sbmv"], outputs, **kind)], {"x": ["n", 6, 5, 4]}, ["y"], dict(zip("sbmv", CHANNELS)), opset)
    x = array(3, 6, 5, 4)
    batch = enginekit.run(model, [x], tmp_path, engine).outputs[0]
    for i in range(3):
        alone = enginekit.run(model, [x[i:i + 1]], tmp_path, engine).outputs[0]
        assert np.array_equal(alone[0], batch[i])
    want = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
    want = want * CHANNELS[0].reshape(6, 1, 1) + CHANNELS[1].reshape(6, 1, 1)
    assert enginekit.difference(batch, want) <= 3e-6


SCALES = [0.25, 0.3, 0.55, 0.6, 2 / 3, 0.7, 0.9, 1.1, 1.3, 4 / 3, 1.7, 2.3, 3, 64 / 26]
SIZES = [1, 6, 13, 17, 23, 26, 48, 56, 64, 87, 126]


def picks(opset, size):
    """Nearest Resizes of every kind of one row, all in a row."""
    coords, nearests = [*COORDS, "tf_half_pixel_for_nn", "half_pixel_symmetric"], ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
    kinds = [dict(coordinate_transformation_mode=c, nearest_mode=n) for c in coords for n in nearests] if opset > 10 else [{}]
    # onnxruntime copies what keeps its shape, whatever the scale
    scales = [np.float32(s) for s in SCALES if int(np.float32(s) * np.float32(size)) not in (0, size)]
    sizes = [s for s in SIZES if opset > 10 and s != size]
    constants = {f"s{i}": np.float32([1, 1, 1, s]) for i, s in enumerate(scales)} | {f"z{s}": np.int64([1, 1, 1, s]) for s in sizes}
    nodes, parts = [], []
    for kind in kinds:
        for name in constants:
            inputs = ["x", name] if opset == 10 else ["x", "", name] if name[0] == "s" else ["x", "", "", name]
            parts.append(f"r{len(parts)}")
            nodes.append(node("Resize", inputs, parts[-1:], mode="nearest", **kind))
    model = make_model([*nodes, node("Concat", parts, axis=3)], {"x": (1, 1, 1, size)}, ["y"], constants, opset)
    return model, np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)


@pytest.mark.parametrize("size", [18, 35, 58])
@pytest.mark.parametrize("opset", [10, 19])
def test_nearest_picks_the_elements_that_onnxruntime_picks(opset, size, engine, tmp_path):
    """At scales that floats only come near to: where double precision, or no tolerance about the middle, picks the neighbour."""
    model, x = picks(opset, size)
    got = enginekit.run(model, [x], tmp_path, engine).outputs[0]
    assert np.array_equal(got, enginekit.oracle(model, [x])[0])


@pytest.mark.parametrize("repeats, refusal", [(np.int64([1, 2]), "2 repeats for 4 axes"), (np.int64([1, 1, 1, -1]), "repeats -1 times"),
                                              (np.int64([1, 1, 1, 0]), "shape 1x2x3x0"), (np.int64([1, 1, 1, 1 << 62]), "too large"),
                                              (np.float32([1, 1, 1, 2]), "not integers")])
def test_tile_by_what_is_no_number_of_times(repeats, refusal, tmp_path):
    model, inputs = one("Tile", (1, 2, 3, 4), 13, {"r": repeats})
    with pytest.raises(enginekit.Refused, match=refusal):
        enginekit.run(model, inputs, tmp_path)
