"""seeds_onnx.py FOLDER: small valid models for fuzz_onnx to start from, one per operator and form."""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(folder: Path, name: str, nodes: list, constants: dict, opset: int = 17) -> None:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, k) for k, a in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    node = helper.make_node
    w = np.ones((2, 2, 3, 3), np.float32)
    write(folder, "conv", [node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["y"])], {"w": w})
    write(folder, "unet", [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]), node("LeakyRelu", ["a"], ["b"], alpha=0.2),
        node("ConvTranspose", ["b", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        node("Concat", ["c", "x"], ["d"], axis=1), node("Tanh", ["d"], ["y"])], {"w": w})
    write(folder, "shape", [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "i"], ["h"], axis=0), node("Mul", ["h", "two"], ["h2"]),
        node("Concat", ["h2", "m"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"])],
        {"i": np.array([0]), "two": np.array([1]), "m": np.array([-1])})
    write(folder, "norm", [
        node("ReduceMean", ["x"], ["m"], axes=[2, 3]), node("Sub", ["x", "m"], ["d"]), node("Mul", ["d", "d"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=[2, 3]), node("Add", ["v", "e"], ["w"]), node("Sqrt", ["w"], ["r"]),
        node("Div", ["d", "r"], ["y"])], {"e": np.array(1e-5, np.float32)})
    to_first, to_last = dict(perm=[0, 3, 1, 2]), dict(perm=[0, 2, 3, 1])
    write(folder, "channels-last", [
        node("Transpose", ["x"], ["a"], **to_first), node("Conv", ["a", "v"], ["b"], pads=[1, 1, 1, 1]), node("Transpose", ["b"], ["c"], **to_last),
        node("Add", ["c", "k"], ["d"]), node("Pad", ["d", "p"], ["e"], mode="reflect"), node("Transpose", ["e"], ["f"], **to_first),
        node("ConvTranspose", ["f", "w"], ["g"], strides=[2, 2]), node("Slice", ["g", "one", "minus", "axes"], ["h"]),
        node("Transpose", ["h"], ["i"], **to_last), node("Concat", ["i", "i"], ["y"], axis=3)],
        {"w": w, "v": np.ones((2, 4, 3, 3), np.float32), "k": np.ones(2, np.float32), "p": np.array([0, 1, 1, 0, 0, 1, 1, 0]),
         "one": np.array([1, 1]), "minus": np.array([-1, -1]), "axes": np.array([2, 3])})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases
        for case in collect_testcases(None):
            model = onnx.ModelProto()
            model.CopyFrom(case.model)
            model.opset_import[0].version = min(max(7, model.opset_import[0].version), 21)
            model.ir_version = min(model.ir_version, 10)
            if len(model.graph.node) != 1 or not case.data_sets:
                continue
            for info, array in list(zip(model.graph.input, case.data_sets[0][0]))[1:]:
                if isinstance(array, np.ndarray) and array.size < 300 and array.dtype in (np.float32, np.int64):
                    model.graph.input.remove(info)
                    model.graph.initializer.append(numpy_helper.from_array(array, info.name))
            if model.ByteSize() < 3000:
                (folder / f"{case.name}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
