"""The mean of several models: of their weights, only where they are the same network, and said in the file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lab import average

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "average"


def write(path, kernel, dtype=np.float16, task="t2-to-stir", pads=1, whole=7, **facts):
    """A network of one convolution of 3 x 3, its weights stored in halves, and a whole number that it does not use."""
    w = np.zeros((1, 1, 3, 3), dtype)
    w[0, 0, 1, 1] = kernel
    nodes = [helper.make_node("Cast", ["w_half"], ["w"], to=TensorProto.FLOAT), helper.make_node("Conv", ["image", "w"], ["synthetic"], pads=[pads] * 4)]
    graph = helper.make_graph(nodes, "one", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
                              [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, ["N", 1, "H", "W"])],
                              [numpy_helper.from_array(w, "w_half"), numpy_helper.from_array(np.array([whole]), "whole")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"spinenode.task": task, "spinenode.input_slices": "1", "spinenode.scale": "1", "spinenode.version": "0.1.0",
                                   "spinenode.normalisation": "percentile 1 99.5", "spinenode.gate": "limit x 1 2",
                                   **{f"spinenode.{k}": v for k, v in facts.items()}})
    onnx.save(model, path)
    return str(path)


def test_mean__is_that_of_the_weights_and_says_so(tmp_path):
    paths = [write(tmp_path / f"{k}.onnx", kernel, training=f"run {k}", training_data="phantom", figures=f"PSNR {k}") for k, kernel in enumerate((1.0, 0.25, 0.25))]
    done = subprocess.run([sys.executable, SCRIPT, *paths, "--output", tmp_path / "mean.onnx", "--version", "0.2.0"], capture_output=True, text=True, check=True)
    assert "largest difference" in done.stdout
    made = onnx.load(tmp_path / "mean.onnx")
    weights = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert weights["w_half"].dtype == np.float16 and weights["w_half"][0, 0, 1, 1] == 0.5 and weights["whole"][0] == 7
    facts = {p.key: p.value for p in made.metadata_props}
    assert facts["spinenode.version"] == "0.2.0" and facts["spinenode.training_data"] == "phantom" and facts["spinenode.figures"] == "PSNR 0 / PSNR 1 / PSNR 2"
    assert all(f"run {k}" in facts["spinenode.training"] for k in range(3)) and "spinenode.gate" not in facts


@pytest.mark.parametrize("other, why", [({"pads": 0}, "another network"), ({"dtype": np.float32}, "another network"), ({"task": "t2-to-tirm"}, "spinenode.task"),
                                        ({"whole": 8}, "whole is no floating point number")])
def test_mean__of_what_differs_in_more_than_weights_is_refused(tmp_path, other, why):
    paths = [write(tmp_path / "a.onnx", 1.0), write(tmp_path / "b.onnx", 0.5, **other)]
    with pytest.raises(ValueError, match=why):
        average.average(paths, str(tmp_path / "mean.onnx"), "0.2.0")
    assert not (tmp_path / "mean.onnx").exists()


def test_mean__that_half_precision_changes_is_refused(tmp_path):
    """Two numbers that halves hold, beside a mean that they do not."""
    paths = [write(tmp_path / "a.onnx", 2.0), write(tmp_path / "b.onnx", 4100.0)]
    with pytest.raises(RuntimeError, match="half precision"):
        average.average(paths, str(tmp_path / "mean.onnx"), "0.2.0")


def test_command__wants_two_models(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, write(tmp_path / "a.onnx", 1.0), "--output", tmp_path / "m.onnx", "--version", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "two or more" in done.stderr
    missing = subprocess.run([sys.executable, SCRIPT, tmp_path / "a.onnx", tmp_path / "none.onnx", "--output", tmp_path / "m.onnx", "--version", "1"], capture_output=True, text=True)
    assert missing.returncode == 1 and "none.onnx" in missing.stderr and "Traceback" not in missing.stderr
