"""Whole generators of the family as four exporters write them, on every engine against onnxruntime: at most 1e-5 apart.

Narrow forms (every layer and connection, fewer channels), made without torch; test_networks_torch.py has the real exporters.
"""

import subprocess

import dialects
import enginekit
import numpy as np
import pytest
from dialects import nets

NETWORKS = ["unet64", "unet64_instance", "unet64_statistics", "encdec64", "resnet2", "pix2pixhd_small", "edsr_small", "rrdb_small", "srgan_small",
            "resize_unet_small"]
CASES = [(name, dialect) for name in NETWORKS for dialect in dialects.DIALECTS
         if not (name == "unet64_statistics" and dialect == "tensorflow")]  # its instance norm says the same


def network(name, dialect, folder, batch=1):
    path, shape = nets.write(name, folder, batch, dialects.DIALECTS[dialect])
    x = np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)
    return path, np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if dialect == "tensorflow" else x


@pytest.mark.parametrize("name, dialect", CASES, ids=lambda v: v)
def test_network_agrees_with_onnxruntime(name, dialect, engine, tmp_path):
    path, x = network(name, dialect, tmp_path)
    want = enginekit.oracle(path, [x])[0]
    got = enginekit.run(path, [x], tmp_path, engine).outputs[0]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())
    assert np.std(want) > 0.01  # a network that has gone flat would agree with anything


@pytest.mark.parametrize("name, dialect", [c for c in CASES if c[1] in ("symbolic", "tensorflow")], ids=lambda v: v)
def test_what_an_exporter_spells_out_is_gone_after_the_passes(name, dialect, tmp_path):
    """The operators that run are those of the network, with the layout turned at its ends at most (pix2pixHD reads its input twice)."""
    path, x = network(name, dialect, tmp_path)
    done = subprocess.run([enginekit.OPCHECK, path, "--explain", "--shape", "x".join(map(str, x.shape))], capture_output=True, text=True, check=True)
    left = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert left.count("Transpose") <= 3, left
    assert not set(left) & {"Abs", "Sqrt", "ReduceMean", "Slice", "Reshape", "Gather", "Shape", "Cast"}, left
