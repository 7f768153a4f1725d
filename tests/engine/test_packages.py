"""What a model file must say of itself to be run: each key missing or wrong is refused by name, as is a graph that differs."""

import json
import subprocess

import enginekit
import numpy as np
import pytest
from enginekit import make_model
from onnx import helper

N = helper.make_node
W = {"w": np.full((1, 1, 3, 3), 0.1, np.float32)}
FACTS = {
    "format": "1", "task": "t2-to-t1", "version": "1.2.0-rc.1", "name": "t2-to-t1 tiny", "input_contrast": "T2", "output_contrast": "T1",
    "input_slices": "1", "scale": "1", "grid": "any:4", "spacing_mm": "0.3-1.25", "rows": "64-1024", "columns": "64-1024",
    "normalisation": "percentile 0.5 99.5", "output": "unit", "training_data": "a numerical phantom", "intended_use": "research",
    "limits": "sagittal lumbar", "licence": "CC0", "figures": "",
}


def open_package(tmp_path, facts=None, nodes=None, constants=None, shape=("n", 1, "h", "w"), inputs=("image",), outputs=("synthetic",)):
    nodes = nodes or [N("Conv", ["image", "w"], ["synthetic"], pads=[1, 1, 1, 1])]
    metadata = {f"spinenode.{k}": v for k, v in {**FACTS, **(facts or {})}.items() if v is not None}
    model = make_model(nodes, {i: shape for i in inputs}, list(outputs), {**W, **(constants or {})}, metadata=metadata)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    done = subprocess.run([enginekit.OPCHECK, "--package", path], capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    raise enginekit.Refused(done.stderr)


def test_a_good_model_opens(tmp_path):
    assert open_package(tmp_path) == {"task": "t2-to-t1", "parameters": 9}


@pytest.mark.parametrize("key", [k for k in FACTS if k != "figures"])
def test_every_key_is_required(key, tmp_path):
    with pytest.raises(enginekit.Refused, match=f"spinenode.{key} is missing"):
        open_package(tmp_path, {key: None})


@pytest.mark.parametrize("key, texts", [
    ("format", ["2", ""]), ("task", ["t3-to-t1", "T2-TO-T1"]), ("version", ["1", "1.2", "a.b.c", "1.2.3 "]), ("name", ["x" * 65, ""]),
    ("input_contrast", ["t2", "FLAIR"]), ("input_slices", ["0", "2", "33", "1.0", "-1"]), ("scale", ["0", "4", "9"]),
    ("grid", ["any", "any:0", "any:5000", "256", "256x", "x256", "256x256x1", "0x4"]), ("spacing_mm", ["1", "0-1", "2-1", "a-b", "1-2-3"]),
    ("rows", ["64", "0-64", "128-64", "1-70000"]), ("normalisation", ["minmax", "percentile 1", "percentile 99 1", "percentile 0 101", "percentile 1  99"]),
    ("output", ["raw"]), ("licence", [""]), ("limits", ["x" * 5000]),
])
def test_a_wrong_text_is_refused_by_its_key(key, texts, tmp_path):
    for text in texts:
        with pytest.raises(enginekit.Refused, match=f"spinenode.{key} is"):
            open_package(tmp_path, {key: text})


def test_super_resolution_must_enlarge_by_what_it_says(tmp_path):
    up = [N("Resize", ["image", "", "k"], ["big"], mode="nearest"), N("Conv", ["big", "w"], ["synthetic"], pads=[1, 1, 1, 1])]
    four = {"k": np.float32([1, 1, 4, 4])}
    facts = {"task": "super-resolution", "scale": "4", "output": "source"}
    assert open_package(tmp_path, facts, up, four)["task"] == "super-resolution"
    with pytest.raises(enginekit.Refused, match="its output is 1x1x128x128"):
        open_package(tmp_path, facts, up, {"k": np.float32([1, 1, 2, 2])})
    with pytest.raises(enginekit.Refused, match="2 or more for super-resolution"):
        open_package(tmp_path, {"task": "super-resolution"})


def test_the_graph_must_be_what_the_facts_say(tmp_path):
    for arguments, reason in (
        (dict(facts={"input_slices": "3"}), "must be N x 3"), (dict(facts={"grid": "32x32"}, shape=("n", 1, 64, 64)), "spinenode.grid says otherwise"),
        (dict(shape=("n", 1, 64, 64)), "spinenode.grid says otherwise"), (dict(nodes=[N("Conv", ["image", "w"], ["synthetic"])]), "its output is 1x1x62x62"),
        (dict(nodes=[N("Conv", ["image", "w"], ["y"], pads=[1, 1, 1, 1])], outputs=("y",)), "one output named 'synthetic'"),
        (dict(inputs=("image", "other")), "one input named 'image'"),
    ):
        with pytest.raises(enginekit.Refused, match=reason):
            open_package(tmp_path, **arguments)


def test_a_model_that_would_mix_patients_of_a_batch_is_refused(tmp_path):
    nodes = [N("ReduceMean", ["image"], ["m"], axes=[0, 2, 3], keepdims=1, name="mix"), N("Sub", ["image", "m"], ["d"]),
             N("Conv", ["d", "w"], ["synthetic"], pads=[1, 1, 1, 1])]
    with pytest.raises(enginekit.Refused, match="node 'mix' .*mix patients"):
        open_package(tmp_path, nodes=nodes)
    assert open_package(tmp_path, nodes=nodes, shape=(1, 1, "h", "w"))


MIXING = {
    "the first image in all": ([N("Slice", ["image", "zero", "one"], ["f"], name="mix"), N("Add", ["image", "f"], ["d"])], {"zero": np.array([0]), "one": np.array([1])}),
    "the first two, which are all of a batch of two": ([N("Slice", ["image", "zero", "two"], ["f"]), N("Pad", ["f", "none"], ["g"]), N("Add", ["image", "g"], ["d"])],
                                                       {"zero": np.array([0]), "two": np.array([2]), "none": np.zeros(8, np.int64)}),
    "images as channels": ([N("Transpose", ["image"], ["t"], perm=[1, 0, 2, 3], name="mix"), N("ReduceMean", ["t"], ["u"], axes=[1], keepdims=1),
                            N("Add", ["image", "u"], ["d"])], {}),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_in_which_an_image_reaches_another_is_refused(name, tmp_path):
    nodes, constants = MIXING[name]
    nodes = [*nodes, N("Conv", ["d", "w"], ["synthetic"], pads=[1, 1, 1, 1])]
    with pytest.raises(enginekit.Refused, match="node 'mix' .*mix patients" if any(n.name == "mix" for n in nodes) else "invalid"):
        open_package(tmp_path, nodes=nodes, constants=constants)


def test_a_model_of_norms_over_groups_and_of_weighted_channels_takes_a_batch(tmp_path):
    """Both change the rank of what they compute with, and no image sees another."""
    groups = [N("Conv", ["image", "many"], ["c"], pads=[1, 1, 1, 1]), N("Reshape", ["c", "grouped"], ["r"]), N("InstanceNormalization", ["r", "g", "g"], ["n"]),
              N("Shape", ["c"], ["shape"]), N("Reshape", ["n", "shape"], ["b"])]
    weights = [N("ReduceMean", ["b"], ["m"], axes=[2, 3], keepdims=0), N("Reshape", ["m", "back"], ["k"]), N("Sigmoid", ["k"], ["s"]), N("Mul", ["b", "s"], ["d"])]
    constants = {"many": np.full((4, 1, 3, 3), 0.1, np.float32), "few": np.full((1, 4, 3, 3), 0.1, np.float32), "grouped": np.array([0, 2, -1]),
                 "g": np.ones(2, np.float32), "back": np.array([0, 0, 1, 1])}
    assert open_package(tmp_path, nodes=[*groups, *weights, N("Conv", ["d", "few"], ["synthetic"], pads=[1, 1, 1, 1])], constants=constants)
