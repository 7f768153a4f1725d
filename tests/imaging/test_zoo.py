"""The shipped models: facts complete, size within limits, and better than doing nothing on a subject never seen."""

import glob
import os

import numpy as np
import pytest

from lab import dataset, degrade, metrics, radiographs, testset

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
ZOO = os.path.join(os.path.dirname(__file__), "..", "..", "model", "zoo")
MODELS = sorted(glob.glob(os.path.join(ZOO, "*.onnx")))
KEYS = ("format", "task", "version", "name", "input_contrast", "output_contrast", "input_slices", "scale", "grid", "spacing_mm",
        "rows", "columns", "normalisation", "output", "training_data", "intended_use", "limits", "licence", "figures")


@pytest.fixture(scope="module")
def case():
    return testset.draw(dataset.SPLITS["test"] + 9_000_000, slices=1, size=384)


def test_zoo__holds_a_model_for_every_task():
    tasks = {"super-resolution", "t1-to-t2", "t2-to-t1", "t2-to-stir", "t2-to-tirm", "xray-to-t2"}
    assert {os.path.basename(p)[:-5] for p in MODELS} == tasks


@pytest.mark.parametrize("path", MODELS, ids=os.path.basename)
def test_model__carries_its_facts(path):
    model = onnx.load(path)
    facts = {p.key: p.value for p in model.metadata_props}
    for key in (*KEYS, "gate"):
        assert facts.get("spinenode." + key), key
    assert os.path.basename(path) == facts["spinenode.task"] + ".onnx"
    assert "phantom" in facts["spinenode.training_data"]
    assert os.path.getsize(path) <= 8 << 20
    assert [i.name for i in model.graph.input] == ["image"] and [o.name for o in model.graph.output] == ["synthetic"]
    assert {o.domain: o.version for o in model.opset_import}[""] == 17


@pytest.mark.parametrize("path", MODELS, ids=os.path.basename)
def test_model__beats_its_simplest_rival_on_a_new_subject(path, case):
    from lab import baselines, engine
    model = engine.Model(path, 1)
    if model.task.source == "xray":
        source, truth, spine, _ = radiographs.draw_pair(dataset.SPLITS["test"] + 9_000_000)
        result = model(source)
        assert result.shape == truth.shape
        inside = spine > 0.5  # what lies around the spine cannot be known from a radiograph
        assert np.corrcoef(truth[inside], result[inside])[0, 1] > 0.6
        assert np.corrcoef(truth[inside], source[inside])[0, 1] < 0.3
        return
    source, truth = case.images[model.task.source][0], case.images[model.task.target][0]
    if model.task.scale > 1:
        source = degrade.linear(truth, 4)
        rival = baselines.enlarge(source, 4, baselines.CUBIC)
    else:
        rival = source
    result = model(source)
    assert result.shape == truth.shape
    margin = 0.5 if model.task.scale > 1 else 1.0  # cubic is the stronger rival
    assert metrics.psnr(truth, result, 1.0) > metrics.psnr(truth, rival, 1.0) + margin
    if model.task.scale > 1:
        assert metrics.ssim(truth, result, 1.0) > metrics.ssim(truth, rival, 1.0)


@pytest.mark.parametrize("path", MODELS, ids=os.path.basename)
def test_model__is_the_same_on_odd_sizes_after_padding(path, case):
    from lab import engine
    model = engine.Model(path, 1)
    if model.task.source == "xray":
        image = radiographs.draw_pair(dataset.SPLITS["test"] + 9_000_000)[0][100:221, 80:195]
    else:
        image = case.images[model.task.source][0][100:221, 150:265]
    result = model(image)
    assert result.shape == (121 * model.task.scale, 115 * model.task.scale)
    assert np.isfinite(result).all() and result.std() > 0.02
