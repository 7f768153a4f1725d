"""One model from several that were trained from the same beginning: the mean of their weights.

What fine-tuning with different aims, data and lengths gives lies in one valley of the loss, and the middle of it is
often better than any of them, at the cost of one (Wortsman et al., Model soups, ICML 2022).
"""

import hashlib
import os

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from . import dataset
from .engine import GREY_LEVEL
from .tasks import TASKS

MERGED = ("spinenode.training_data", "spinenode.figures")


def _weights(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def _frame(model):
    """What must be the same of all: the network without the values of its weights."""
    nodes = [n.SerializeToString() for n in model.graph.node]
    return nodes, {name: (w.shape, w.dtype) for name, w in _weights(model).items()}


def _with(model, weights):
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for t in out.graph.initializer:
        t.CopyFrom(numpy_helper.from_array(weights[t.name], t.name))
    return out


def _answer(model, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": i[None].astype(np.float32) * 2 - 1})[0] for i in images])


def average(paths, output, version):
    """Write the mean of the models at the paths; returns the largest difference that storing it as they are stored makes,
    of answers in -1 to 1.

    Their networks, tasks and inputs must be the same, and weights that are not floating point numbers equal; else
    ValueError.  Limits of the quality gate are left out, for they are of the models that they were measured on.
    RuntimeError where half precision changes the answer by more than one grey level of 4095.
    """
    models = [onnx.load(p) for p in paths]
    facts = [{p.key: p.value for p in m.metadata_props} for m in models]
    for path, model, said in zip(paths[1:], models[1:], facts[1:]):
        if _frame(model) != _frame(models[0]):
            raise ValueError(f"{path} is another network than {paths[0]}")
        for key in ("task", "input_slices", "normalisation", "scale"):
            if said.get("spinenode." + key) != facts[0].get("spinenode." + key):
                raise ValueError(f"{path} differs from {paths[0]} in spinenode.{key}")
    all_weights = [_weights(m) for m in models]
    exact, stored = {}, {}
    for name, first in all_weights[0].items():
        if first.dtype in (np.float16, np.float32):
            exact[name] = np.mean([w[name].astype(np.float64) for w in all_weights], 0).astype(np.float32)
            stored[name] = exact[name].astype(first.dtype)
        elif all(np.array_equal(w[name], first) for w in all_weights):
            exact[name] = stored[name] = first
        else:
            raise ValueError(f"{name} is no floating point number and not the same in all")
    made = _with(models[0], stored)
    images = TASKS[facts[0]["spinenode.task"]].examples(dataset.SPLITS["validation"] + 5000, int(facts[0]["spinenode.input_slices"]))
    difference = float(np.abs(_answer(made, images) - _answer(_with(models[0], exact), images)).max())
    if difference > GREY_LEVEL:
        raise RuntimeError(f"the mean of {', '.join(paths)} in half precision differs by {difference:.2e}")
    kept = {k: v for k, v in facts[0].items() if k != "spinenode.gate"}
    for key in MERGED:
        kept[key] = " / ".join(dict.fromkeys(f[key] for f in facts if key in f))
    words = []
    for path, said in zip(paths, facts):
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()[:12]
        words.append(f"{said.get('spinenode.version', path)} ({digest}: {said.get('spinenode.training', 'not said')})")
    helper.set_model_props(made, kept | {"spinenode.version": version, "spinenode.training": "mean of the weights of " + "; ".join(words)})
    onnx.checker.check_model(made)
    temporary = f"{output}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(made.SerializeToString())
    os.replace(temporary, output)
    return difference
