"""spinenode models: what model files say of themselves and what they cost."""

import hashlib
import json

import onnx
import pytest
from cli.clikit import facts, make_model


def test_facts__are_those_of_the_file(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx", "super-resolution", scale=2, version="1.2.3")
    told, = json.loads(cli("models", model, "--json").stdout)
    assert told["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert told["bytes"] == model.stat().st_size
    expected = {"task": "super-resolution", "version": "1.2.3", "name": "tiny super-resolution", "input_contrast": "T2",
                "output_contrast": "T2", "input_slices": 1, "scale": 2, "grid": "any:4", "rows": [64, 1024],
                "columns": [48, 1024], "spacing_mm": [0.3, 3.0], "percentiles": [0.5, 99.5], "output": "source"}
    assert {k: told[k] for k in expected} == expected
    weights = {t.name: list(t.dims) for t in onnx.load(model).graph.initializer}
    assert told["parameters"] == 6 * 9 + 6 + 4 * 6 * 9 and weights["w2"] == [4, 6, 3, 3]
    # One slice of 512 x 512: every output value of a convolution costs channels x 9.
    assert told["cost"]["macs"] == 512 * 512 * (6 * 9 + 4 * 6 * 9)
    assert told["cost"]["plan_bytes"] > 0 and told["cost"]["workspace_bytes"] >= 512 * 512 * 4
    assert "training_data" not in told


def test_pixel_size__that_sources_are_brought_to_is_told(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx", "xray-to-t2", pixel_mm="1.5")
    assert json.loads(cli("models", model, "--json").stdout)[0]["pixel_mm"] == 1.5
    assert "(after resampling to 1.5 mm)" in cli("models", model).stdout


def test_text__shows_the_same(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    printed = cli("models", model).stdout
    for part in ("t2-to-t1: T2 to T1", hashlib.sha256(model.read_bytes()).hexdigest(), "64 to 1024 rows", "tiny t2-to-t1"):
        assert part in printed
    assert "none: fixed weights" not in printed


def test_explain__adds_what_the_model_is_for(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    told, = json.loads(cli("models", tmp_path, "--json", "--explain").stdout)
    assert told["training_data"] == "none: fixed weights for tests" and told["intended_use"] == "tests of the program"
    assert "none: fixed weights for tests" in cli("models", tmp_path, "--explain").stdout


def test_explain__shows_what_each_rewrite_makes_of_the_network(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    told, = json.loads(cli("models", tmp_path, "--json", "--explain").stdout)
    passes = told["passes"]
    assert [p["pass"] for p in passes][:1] == ["specialise"] and len(passes) > 4
    assert passes[0]["macs"] == passes[-1]["macs"] == told["cost"]["macs"]
    fused = next(i for i, p in enumerate(passes) if p["pass"] == "fuse activation")
    assert passes[fused]["changes"] >= 1 and passes[fused]["nodes"] < passes[fused - 1]["nodes"]
    assert passes[fused]["activation_bytes"] < passes[fused - 1]["activation_bytes"]
    line = next(line for line in cli("models", tmp_path, "--explain").stdout.splitlines() if "fuse activation" in line)
    assert f"{passes[fused - 1]['nodes']} to" in line
    assert "passes" not in json.loads(cli("models", tmp_path, "--json").stdout)[0]


def test_folder__lists_good_and_bad_files_and_fails(cli, tmp_path):
    make_model(tmp_path / "b.onnx")
    (tmp_path / "a.onnx").write_bytes(make_model(tmp_path / "c.onnx").read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("no model")
    done = cli("models", tmp_path, "--json", status=1)
    a, b, c = json.loads(done.stdout)
    assert "problem" in a and a["path"].endswith("a.onnx")
    assert b["task"] == c["task"] == "t2-to-t1"
    assert "cannot be used: " in cli("models", tmp_path, status=1).stdout


@pytest.mark.parametrize("key, value", [
    ("task", "t1-to-ct"), ("format", "2"), ("input_slices", "2"), ("scale", "0"), ("grid", "any:0"), ("rows", "9-1"),
    ("normalisation", "percentile 99 1"), ("licence", None), ("version", "new"), ("spacing_mm", "nan-1"), ("pixel_mm", "0"), ("pixel_mm", "1 mm"),
])
def test_metadata__that_is_wrong_is_named(cli, tmp_path, key, value):
    model = onnx.load(make_model(tmp_path / "m.onnx"))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**facts("t2-to-t1"), f"spinenode.{key}": value or ""})
    onnx.save(model, tmp_path / "m.onnx")
    told, = json.loads(cli("models", tmp_path, "--json", status=1).stdout)
    assert f"spinenode.{key}" in told["problem"]


def test_path__without_models_is_said(cli, tmp_path):
    assert "no *.onnx" in cli("models", tmp_path, status=1).stderr
    assert "nowhere" in cli("models", "nowhere", status=1).stderr
