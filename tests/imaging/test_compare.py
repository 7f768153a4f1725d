"""scripts/compare: models of one task held against each other on validation subjects."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
from onnx import helper
from PIL import Image

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
COMPARE = os.path.join(ROOT, "scripts", "compare")
ZOO = os.path.join(ROOT, "model", "zoo")
FACTS = {"spinenode.task": "t2-to-t1", "spinenode.scale": "1", "spinenode.input_slices": "1", "spinenode.grid": "any:1"}


def constant(path, value, **facts):
    """A model whose result has one grey value everywhere."""
    shape = helper.make_tensor_value_info("image", 1, [1, 1, "H", "W"]), helper.make_tensor_value_info("synthetic", 1, [1, 1, "H", "W"])
    nodes = [helper.make_node("Mul", ["image", "zero"], ["none"]), helper.make_node("Add", ["none", "value"], ["synthetic"])]
    held = [helper.make_tensor("zero", 1, [], [0.0]), helper.make_tensor("value", 1, [], [2.0 * value - 1.0])]
    model = helper.make_model(helper.make_graph(nodes, "constant", shape[:1], shape[1:], held), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {**FACTS, **facts})
    onnx.save(model, path)
    return str(path)


def run(*args):
    return subprocess.run([sys.executable, COMPARE, *map(str, args)], capture_output=True, text=True, check=False)


def test_compare__says_by_how_much_the_second_is_better_on_validation_subjects(tmp_path):
    cache = tmp_path / "cache"
    dull, shipped = constant(tmp_path / "dull.onnx", 0.2), os.path.join(ZOO, "t2-to-t1.onnx")
    done = run(dull, shipped, "--subjects", 2, "--slices", 1, "--cache", cache, "--workers", 1, "--json", tmp_path / "f.json", "--sheet", tmp_path / "s.png")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["gains"][dull]["psnr"] == [0.0, 0.0, 0.0]
    for measure, least in (("psnr", 5.0), ("ssim", 0.3), ("mse", 0.01)):
        value, low, high = figures["gains"][shipped][measure]
        assert low <= value <= high and value > least
    difference = np.subtract(figures["means"][shipped]["psnr"], figures["means"][dull]["psnr"])[0]
    assert abs(difference - figures["gains"][shipped]["psnr"][0]) < 1e-9
    assert "gain over the first" in done.stdout and done.stdout.count("t2-to-t1.onnx") == 2
    assert Image.open(tmp_path / "s.png").width == 4 * 320
    drawn = [int(f.name.split("-")[0]) for f in cache.rglob("*.npz")]
    assert len(drawn) == 2 and all(200_000_000 <= seed < 300_000_000 for seed in drawn)


def test_compare__refuses_what_cannot_be_compared(tmp_path):
    one = constant(tmp_path / "one.onnx", 0.1)
    for arguments, words in (((one, one), "named twice"), ((one, tmp_path / "none.onnx"), "no such file"),
                             ((one, constant(tmp_path / "other.onnx", 0.1, **{"spinenode.task": "t1-to-t2"})), "only models of one task"),
                             ((os.path.join(ZOO, "xray-to-t2.onnx"),), "scripts/evaluate only")):
        done = run(*arguments)
        assert done.returncode == 1 and words in done.stderr, done.stderr
