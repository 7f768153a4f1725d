"""opcheck --serve, which the tests of the GPU go through: it must say and do what a process of its own would."""

import subprocess
import sys

import enginekit
import numpy as np
import pytest
from onnx import helper

sys.path.insert(0, str(enginekit.ROOT / "scripts"))
import bench_engine_nets as nets  # noqa: E402

HALF = ("--precision", "f16", "--repeat", "2", "--against", "ref")


@pytest.fixture
def server(monkeypatch):
    """Serves the host twin; in a sanitizer build its findings come with the end."""
    server = enginekit.Server()
    monkeypatch.setattr(enginekit, "SERVER", server)
    monkeypatch.setattr(enginekit, "SERVED", {"cuda-host"})
    yield server
    assert server.stop() in (0, None)


def network(folder):
    path, shape = nets.write("encdec64", folder)
    return path, np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def unserved(monkeypatch):
    monkeypatch.setattr(enginekit, "SERVED", set())


def refusal(model, x, folder, **more):
    with pytest.raises(enginekit.Refused) as refused:
        enginekit.run(model, [x], folder, engine="cuda-host", **more)
    return str(refused.value)


def test_answer_is_that_of_a_process_of_its_own(server, monkeypatch, tmp_path):
    path, x = network(tmp_path)
    answers = [enginekit.run(path, [x], tmp_path, engine="cuda-host", arguments=HALF) for _ in range(2)]
    assert server.process.poll() is None
    unserved(monkeypatch)
    answers.append(enginekit.run(path, [x], tmp_path, engine="cuda-host", arguments=HALF))
    for answer in answers:
        assert np.array_equal(answer.outputs[0], answers[-1].outputs[0])
        lasting = [{k: v for k, v in a.facts.items() if not k.endswith(("_ms", "_mb"))} for a in (answer, answers[-1])]
        assert lasting[0] == lasting[1] and lasting[0]["same_bits"] is True and lasting[0]["rel_l2"] > 0
    # A request starts from nothing: no precision, no repeats of those before.
    monkeypatch.setattr(enginekit, "SERVED", {"cuda-host"})
    assert not np.array_equal(enginekit.run(path, [x], tmp_path, engine="cuda-host").outputs[0], answers[0].outputs[0])


def test_refusal_has_the_same_text_and_the_server_lives_on(server, monkeypatch, tmp_path):
    path, x = network(tmp_path)
    odd = enginekit.make_model([helper.make_node("NoSuchThing", ["x"], ["y"])], {"x": [1, 1, 2, 2]}, ["y"])
    said = refusal(odd, np.zeros((1, 1, 2, 2), np.float32), tmp_path)
    process = server.process
    enginekit.run(path, [x], tmp_path, engine="cuda-host")
    assert server.process is process
    with pytest.raises(AssertionError, match="wrong arguments"):
        enginekit.run(path, [x], tmp_path, engine="cuda-host", arguments=("--precision", "f8"))
    assert server.process is process
    unserved(monkeypatch)
    assert "NoSuchThing" in said
    assert refusal(odd, np.zeros((1, 1, 2, 2), np.float32), tmp_path) == said


def test_server_that_died_fails_one_test_only(server, tmp_path):
    path, x = network(tmp_path)
    enginekit.run(path, [x], tmp_path, engine="cuda-host")
    server.process.kill()
    with pytest.raises(AssertionError, match="ended with -9"):
        enginekit.run(path, [x], tmp_path, engine="cuda-host")
    enginekit.run(path, [x], tmp_path, engine="cuda-host")


def test_gpu_that_failed_is_started_anew(server, tmp_path):
    path, x = network(tmp_path)
    assert "the GPU cannot" in refusal(path, x, tmp_path, arguments=("--device", "memory=1000"))
    assert server.process is None
    enginekit.run(path, [x], tmp_path, engine="cuda-host")


def test_answer_that_is_late_is_not_that_of_the_next(server, tmp_path):
    path, x = network(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        enginekit.run(path, [x], tmp_path, engine="cuda-host", arguments=("--precision", "f16", "--repeat", "100"), timeout=0.3)
    assert "half" not in enginekit.run(path, [x], tmp_path, engine="cuda-host").facts["engine"]


def test_environment_is_given_to_a_process_of_its_own(server, tmp_path):
    path, x = network(tmp_path)
    enginekit.run(path, [x], tmp_path, engine="cuda-host", env={"A": "b"})
    assert server.process is None
