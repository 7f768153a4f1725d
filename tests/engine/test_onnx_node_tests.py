"""The ONNX project's own tests of its operators (PyPI package onnx), on every engine.

The package's cases use the newest opset; they are declared as opset 21 here, where these operators mean the same.
Integer inputs become constants. An input that is always zero is added to the result, so that cases that fold to a
constant are run too, and integers that come out are cast. Cases that no engine has to run are listed below, each with
the text by which it is refused.
"""

import warnings

import enginekit
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

OPERATORS = """Conv ConvTranspose BatchNormalization InstanceNormalization LeakyRelu Relu PRelu Tanh Sigmoid Clip Abs Neg
Exp Reciprocal Add Sub Mul Div Sqrt Pow Max Min Sum Concat Split Slice Pad Resize DepthToSpace Reshape Transpose
Flatten Squeeze Unsqueeze Identity Cast Constant ConstantOfShape Shape Size Gather Expand Range Where Equal Greater Less
Not Floor Ceil Tile ReduceMean ReduceSum ReduceSumSquare ReduceProd Dropout AveragePool MaxPool GlobalAveragePool""".split()

# Beginning of a case's name → part of the refusal. Everything else must run.
REFUSED = {
    "test_averagepool_1d": "two spatial", "test_averagepool_3d": "two spatial",
    "test_maxpool_1d": "two spatial", "test_maxpool_3d": "two spatial",
    "test_maxpool_with_argmax": "output 2",
    "test_convtranspose_1d": "N x C x H x W", "test_convtranspose_3d": "N x C x H x W",
    "test_resize_tf_crop_and_resize": "tf_crop_and_resize",
    "test_wrap_pad": "wrap",
    "test_pow_types_int64_float32": "holds integers", "test_pow_types_int32_float32": "holds integers",
    "test_cast_FLOAT": "hold NaN or infinity", "test_cast_DOUBLE": "hold NaN or infinity",
    # Results without elements.
    "test_split_zero_size_splits": "of 0 elements", "test_slice_start_out_of_bounds": "shape 20x0x5",
    "test_shape_start_greater_than_end": "the shape 0", "test_reshape_allowzero_reordered": "shape 3x4x0",
    "test_reduce_sum_empty_set_non_reduced_axis_zero": "shape 2x0x1", "test_constantofshape_int_shape_zero": "the shape 0",
}
# Cases whose answer we do not give, on purpose.
OTHERWISE = {
    "test_training_dropout": "dropout is the identity, so that the same input gives the same result",
    "test_batchnorm_example_training_mode": "statistics are per sample: patients of one batch never mix",
    "test_batchnorm_epsilon_training_mode": "the same",
    "test_resize_downsample_scales_linear_align_corners": "corners are those of the result, as in PyTorch and onnxruntime",
    "test_resize_downsample_scales_cubic_align_corners": "the same",
}
TOLERANCE = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}  # its answer has four digits

def collect():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases
        return [case for case in collect_testcases(None)
                if case.data_sets and not case.name.endswith("_expanded") and len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS]


CASES = collect()
# Operators of which any operand may be data; of the others the first is, and the rest are weights or numbers.
BROADCAST = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Concat")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
NUMBERS = (*FLOATS, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8)


def element_type(info) -> int:
    return info.type.tensor_type.elem_type


def usable(case) -> bool:
    """Only the types that a network of ours can have."""
    graph = case.model.graph
    if not all(i.type.HasField("tensor_type") for i in [*graph.input, *graph.output]):
        return False
    if graph.node[0].op_type == "Cast" and {a.i for a in graph.node[0].attribute if a.name == "to"} - set(NUMBERS):
        return False
    return all(element_type(i) in NUMBERS for i in [*graph.input, *graph.output])


def prepare(case):
    """The model with integers as constants and zero added to its outputs; the inputs; what must come out."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = case.data_sets[0]
    kept, arrays = [], []
    foldable = model.graph.node[0].op_type in ("Floor", "Ceil", "Where", "Equal", "Greater", "Less", "Not", "Expand", "Range")
    for i, (info, array) in enumerate(zip(model.graph.input, inputs)):
        array = numpy_helper.to_array(array) if isinstance(array, TensorProto) else np.asarray(array)
        if element_type(info) in FLOATS:
            array = array.astype(np.float64 if element_type(info) == TensorProto.DOUBLE else np.float32)
        data = i == 0 or model.graph.node[0].op_type in BROADCAST
        if data and array.ndim > 0 and not foldable and element_type(info) in FLOATS and array.size > 0 and np.isfinite(array).all():
            kept.append(info)
            arrays.append(array.astype(np.float32))
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.input.append(helper.make_tensor_value_info("always_zero", TensorProto.FLOAT, [1]))
    arrays.append(np.zeros(1, np.float32))
    names = [o.name for o in model.graph.output]
    wanted = [numpy_helper.to_array(o) if isinstance(o, TensorProto) else np.asarray(o) for o in outputs]
    if model.graph.node[0].op_type in ("Dropout", "BatchNormalization"):
        names, wanted = names[:1], wanted[:1]
    for name in names:
        model.graph.node.append(helper.make_node("Cast", [name], [name + "_float"], to=TensorProto.FLOAT))
        model.graph.node.append(helper.make_node("Add", [name + "_float", "always_zero"], [name + "_out"]))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n + "_out", TensorProto.FLOAT, None) for n in names)
    model.opset_import[0].version = min(max(7, model.opset_import[0].version), 21)
    model.ir_version = min(model.ir_version, 10)
    return model, arrays, wanted


def refusal_of(name: str) -> str | None:
    return next((text for start, text in REFUSED.items() if name.startswith(start)), None)


@pytest.mark.parametrize("case", [c for c in CASES if usable(c) and not c.name.startswith(tuple(OTHERWISE))], ids=lambda c: c.name)
def test_operator_does_what_the_standard_says(case, engine, tmp_path):
    model, inputs, wanted = prepare(case)
    refusal = refusal_of(case.name)
    try:
        result = enginekit.run(model, inputs, tmp_path, engine, len(wanted))
    except enginekit.Refused as e:
        assert refusal is not None and refusal in str(e), str(e)
        return
    for got, want in zip(result.outputs, wanted):
        half = TensorProto.FLOAT16 in {element_type(i) for i in [*case.model.graph.input, *case.model.graph.output]}
        tolerance = TOLERANCE.get(case.name, 2e-3 if half else 2e-6)
        assert enginekit.difference(got, want.astype(np.float64)) <= tolerance


def test_most_of_the_cases_can_be_used():
    """Guards the filters above: a package that is laid out differently must not pass by running nothing."""
    assert sum(usable(c) for c in CASES) > 300
