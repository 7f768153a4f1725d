"""What the engine tests share: opcheck (the program), ONNX models made by hand, and onnxruntime as the oracle.

Every test that takes `engine` runs once for each engine that the build has, so that a new engine is held to the same.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import time
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


class Server:
    """One `opcheck --serve` for many runs: CUDA and cuDNN take seconds to start. Starts when it is asked and is not there."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def stop(self, kill: bool = False) -> int | None:
        """Its exit status; None if it was not there."""
        process, self.process = self.process, None
        if process is None:
            return None
        if kill:
            process.kill()
        process.stdin.close()
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()

    def ask(self, arguments: list, timeout: float) -> tuple[int, str]:
        """The exit status that opcheck would have ended with, and all that it printed."""
        words = [str(a) for a in arguments]
        assert not any(c in word for word in words for c in "\t\n"), words
        if self.process is None:
            self.process = subprocess.Popen([OPCHECK, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended: what did it say?
                self.process.stdin.write(("\t".join(words) + "\n").encode())
            text, ended = self._read(time.monotonic() + timeout, timeout)
        except BaseException:  # what it still says must not answer the next
            self.stop(kill=True)
            raise
        if not ended:
            raise AssertionError(f"opcheck ended with {self.stop()}: {text[-3000:]}")
        text, status = text.removesuffix("\n").rsplit("=== ", 1)
        return int(status), text

    def _read(self, deadline: float, timeout: float) -> tuple[str, bool]:
        """What it says, and whether that is a whole answer."""
        said = b""
        while True:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise subprocess.TimeoutExpired("opcheck --serve", timeout, output=said)
            more = self.process.stdout.read(1 << 16)
            said += more
            last = said[said.rfind(b"\n", 0, -1) + 1:]
            whole = last.startswith(b"=== ") and last.endswith(b"\n")
            if whole or not more:
                return said.decode(errors="replace"), whole


SERVER = Server()
atexit.register(SERVER.stop)
SERVED = {"cuda", *os.environ.get("SPINENODE_SERVE", "").split()}  # engines
# After these a GPU may refuse all that the same process asks of it.
GPU_FAILS = ("the GPU cannot", "cuDNN cannot run")


def _run_opcheck(program: Path, arguments: list, timeout: float, env: dict | None, served: bool) -> tuple[int, str, str]:
    """Status, what a success says and what an error says."""
    if served:
        status, text = SERVER.ask(arguments, timeout)
        if status != 0 and any(words in text for words in GPU_FAILS):
            SERVER.stop()
        return status, text, text
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


def run(model: onnx.ModelProto | Path, inputs: list[np.ndarray], folder: Path, engine: str = "ref", outputs: int = 1,
        arguments: tuple = (), timeout: float = 300, env: dict | None = None, tuned: bool = False, program: Path | None = None) -> Run:
    """Runs a model on an engine. Inputs in the graph's order, float32. A process of its own with `env` or another `program` than
    opcheck, and for most engines.

    With SPINENODE_UNTUNED a GPU takes plans as they are offered, unless `tuned`: timing them all is most of a small test."""
    path = model
    if not isinstance(model, Path):
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
    command = [path.absolute(), "--engine", engine, *arguments]
    if engine == "cuda" and "SPINENODE_UNTUNED" in os.environ and not tuned:
        command.append("--untuned")
    for i, x in enumerate(inputs):
        np.save(folder / f"in{i}.npy", np.ascontiguousarray(x, np.float32))
    if inputs:
        command += ["--in", *[folder / f"in{i}.npy" for i in range(len(inputs))]]
    command += ["--out", *[folder / f"out{i}.npy" for i in range(outputs)]]
    status, said, error = _run_opcheck(program or OPCHECK, command, timeout, env, engine in SERVED and env is None and program is None)
    if status != 0:
        # A crash or a sanitizer's finding is never a refusal.
        assert status == 1, f"opcheck ended with {status}: {error[-3000:]}"
        raise Refused(error.rsplit("peak_mb", 1)[0].strip())
    return Run([np.load(folder / f"out{i}.npy") for i in range(outputs)], json.loads(said.splitlines()[-1]))


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


def macs_by_node(path) -> dict[str, int]:
    """Multiply-accumulates of each convolution, as ONNX defines it: counted from the shapes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            w = weights[node.input[1]]
            places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            found[node.name] = int(np.prod(places)) * int(np.prod(w[1:]))
    return found


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """Largest difference, relative to the largest value where that is above 1."""
    want = np.asarray(want, np.float64)
    assert got.size == want.size, f"{got.shape} is not {want.shape}"
    return float(np.max(np.abs(got.reshape(want.shape) - want), initial=0)) / max(1.0, float(np.max(np.abs(want), initial=0)))
