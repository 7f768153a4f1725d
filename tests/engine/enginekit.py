"""What the engine tests share: opcheck (the program), ONNX models made by hand, and onnxruntime as the oracle.

Every test that takes `engine` runs once for each engine that the build has, so that a new engine is held to the same.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("SPINENODE_BUILD", ROOT / "build"))
OPCHECK = BUILD / "opcheck"

IR_OF_OPSET = {**{n: 3 for n in range(7, 9)}, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10}


def engines() -> list[str]:
    if not OPCHECK.exists():
        return ["ref"]
    return subprocess.run([OPCHECK, "--list"], capture_output=True, text=True, check=True).stdout.split()


class Refused(Exception):
    """opcheck ended with an error; the text is what it said."""


@dataclass
class Run:
    outputs: list[np.ndarray]
    facts: dict


def run(model: onnx.ModelProto | Path, inputs: list[np.ndarray], folder: Path, engine: str = "ref", outputs: int = 1,
        arguments: tuple = (), timeout: float = 300, env: dict | None = None) -> Run:
    """Runs a model on an engine. Inputs in the graph's order, float32."""
    path = model
    if not isinstance(model, Path):
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
    command = [OPCHECK, path, "--engine", engine, *arguments]
    for i, x in enumerate(inputs):
        np.save(folder / f"in{i}.npy", np.ascontiguousarray(x, np.float32))
    if inputs:
        command += ["--in", *[folder / f"in{i}.npy" for i in range(len(inputs))]]
    command += ["--out", *[folder / f"out{i}.npy" for i in range(outputs)]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        # A crash or a sanitizer's finding is never a refusal.
        assert done.returncode == 1, f"opcheck ended with {done.returncode}: {done.stderr[-3000:]}"
        raise Refused(done.stderr.rsplit("peak_mb", 1)[0].strip())
    return Run([np.load(folder / f"out{i}.npy") for i in range(outputs)], json.loads(done.stdout.splitlines()[-1]))


def oracle(model: onnx.ModelProto | Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime makes of it, without its own rewrites."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs)})


def make_model(nodes: list, inputs: dict, outputs: list[str], constants: dict | None = None, opset: int = 17,
               ir: int | None = None, metadata: dict | None = None) -> onnx.ModelProto:
    """inputs: name → shape (numbers, names or None). constants: name → array. Types: float."""
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="spinenode tests")
    model.ir_version = ir or IR_OF_OPSET[opset]
    if model.ir_version < 4:  # constants must be listed as inputs too
        for t in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    for key, text in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    return model


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference, relative to the largest value where that is above 1."""
    want = np.asarray(want, np.float64)
    assert got.size == want.size, f"{got.shape} is not {want.shape}"
    return float(np.max(np.abs(got.reshape(want.shape) - want), initial=0)) / max(1.0, float(np.max(np.abs(want), initial=0)))
