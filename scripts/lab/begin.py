"""Begin a training with the weights of models that were exported before, in place of random numbers."""

import hashlib

import numpy as np
import onnx
import torch
from onnx import numpy_helper


def weights(path):
    """{parameter: float32 tensor} of a file that lab.export wrote, and what its metadata call it."""
    model = onnx.load(path)
    found = {t.name.removesuffix("_half").removeprefix("network."): torch.from_numpy(numpy_helper.to_array(t).astype(np.float32))
             for t in model.graph.initializer}
    facts = {p.key: p.value for p in model.metadata_props}
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return found, f"{facts.get('spinenode.name', path)} {facts.get('spinenode.version', '')} ({digest[:12]})".replace("  ", " ")


def begin_with(network, paths):
    """Load the weights of one file, or of several that were learned together, one for each output in the network's order.

    Files of one training share all but the last layer, whose rows are put one below the other.  A parameter that the
    first file does not hold, or in another shape, is an error that names it; but a first layer for one slice serves a network
    that is given neighbours, which then count nothing to begin with.  Returns what was begun with, in words.
    """
    files = [weights(p) for p in paths]
    state, given = network.state_dict(), dict(files[0][0])
    for name, wanted in state.items():
        if name.startswith("tail.") and len(files) > 1 and all(name in f for f, _ in files):
            given[name] = torch.cat([f[name] for f, _ in files])
        first = given.get(name)
        if first is not None and first.dim() == 4 and first.shape[1] == 1 < wanted.shape[1] and first.shape[0] == wanted.shape[0]:
            given[name] = torch.zeros_like(wanted)  # slices of context that it was not given count nothing to begin with
            given[name][:, wanted.shape[1] // 2] = first[:, 0]
        if name not in given:
            raise ValueError(f"{paths[0]} has no {name}: it is not of this kind of network")
        if given[name].shape != wanted.shape:
            raise ValueError(f"{paths[0]}: {name} is {tuple(given[name].shape)}, this network's is {tuple(wanted.shape)}")
    network.load_state_dict({name: given[name] for name in state})
    return ", ".join(words for _, words in files)
