"""spinenode infer --tensor: the network alone, against onnxruntime."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from cli.clikit import make_model
from onnx import TensorProto, helper


@pytest.fixture
def engines(cli):
    return [e for e in json.loads(cli("version", "--json").stdout)["engines"] if e != "cuda"]


def expected(model, tensor):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})[0]


@pytest.mark.parametrize("shape, settings", [
    ((1, 1, 32, 48), {}),
    ((3, 1, 20, 12), {}),
    ((2, 3, 16, 16), {"slices": 3}),
    ((2, 1, 16, 24), {"task": "super-resolution", "scale": 2}),
    ((1, 1, 64, 48), {"grid": "64x48"}),
])
def test_tensor__gives_what_onnxruntime_gives(cli, engines, tmp_path, shape, settings):
    model = make_model(tmp_path / "m.onnx", **settings)
    tensor = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    np.save(tmp_path / "in.npy", tensor)
    for engine in engines:
        cli("infer", model, "--tensor", "in.npy", "--output", "out.npy", "--engine", engine)
        got = np.load(tmp_path / "out.npy")
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected(model, tensor), atol=2e-6, rtol=0)


def test_tensor__takes_networks_without_any_metadata(cli, tmp_path):
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "abs",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.save(tmp_path / "in.npy", np.array([[-1, 2], [3, -4]], np.float32))
    cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "out.npy")
    assert np.load(tmp_path / "out.npy").tolist() == [[1, 2], [3, 4]]


def test_json__has_the_figures_of_a_measurement(cli, engines, tmp_path):
    make_model(tmp_path / "m.onnx")
    np.save(tmp_path / "in.npy", np.zeros((2, 1, 64, 64), np.float32))
    for engine in engines:
        done = cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "out.npy", "--engine", engine, "--threads", "2",
                   "--repeat", "5", "--json")
        figures = json.loads(done.stdout)
        assert figures["engine"] == engine
        assert figures["threads"] == 2
        assert figures["batch"] == 2
        assert 0 < figures["min_ms"] <= figures["median_ms"]
        assert figures["total_ms"] >= 2 * figures["min_ms"] + 3 * figures["median_ms"] - 1e-3
        assert 0 < figures["cpu_ms"] <= 1.1 * 2 * (figures["load_ms"] + figures["total_ms"]) + 50
        assert figures["load_ms"] > 0
        assert 1 < figures["peak_mb"] < 1000


def test_threads__change_nothing_in_the_result(cli, engines, tmp_path):
    make_model(tmp_path / "m.onnx")
    np.save(tmp_path / "in.npy", np.random.default_rng(2).normal(0, 1, (2, 1, 96, 80)).astype(np.float32))
    for engine in engines:
        results = set()
        for threads in (1, 2, 3):
            cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "out.npy", "--engine", engine, "--threads", threads)
            results.add((tmp_path / "out.npy").read_bytes())
        assert len(results) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tensor__that_is_not_finite_is_refused_and_nothing_is_written(cli, tmp_path, bad):
    make_model(tmp_path / "m.onnx")
    tensor = np.zeros((1, 1, 16, 16), np.float32)
    tensor[0, 0, 3, 4] = bad
    np.save(tmp_path / "in.npy", tensor)
    done = cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "out.npy", status=1)
    assert "image" in done.stderr
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize("array, complaint", [
    (np.zeros((1, 1, 16, 16), np.float64), "float32"),
    (np.zeros((1, 2, 16, 16), np.float32), ""),
    (np.zeros((16, 16), np.float32), ""),
    (np.asfortranarray(np.zeros((1, 1, 16, 32), np.float32)), "Fortran"),
])
def test_tensor__of_another_kind_is_refused(cli, tmp_path, array, complaint):
    make_model(tmp_path / "m.onnx")
    np.save(tmp_path / "in.npy", array)
    done = cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "out.npy", status=1)
    assert complaint.lower() in done.stderr.lower() and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.npy").exists()


def test_files__that_are_missing_or_broken_are_named(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    np.save(tmp_path / "in.npy", np.zeros((1, 1, 16, 16), np.float32))
    assert "none.npy" in cli("infer", "m.onnx", "--tensor", "none.npy", "--output", "o.npy", status=1).stderr
    assert "none.onnx" in cli("infer", "none.onnx", "--tensor", "in.npy", "--output", "o.npy", status=1).stderr
    assert "nowhere" in cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "nowhere/o.npy", status=1).stderr
    model.write_bytes(model.read_bytes()[:300])
    assert "m.onnx" in cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "o.npy", status=1).stderr
    (tmp_path / "in.npy").write_bytes(b"\x93NUMPY\x01\x00")
    make_model(tmp_path / "m.onnx")
    assert "in.npy" in cli("infer", "m.onnx", "--tensor", "in.npy", "--output", "o.npy", status=1).stderr
    assert not (tmp_path / "o.npy").exists()
