"""What gpu_check and bench_gpu can do where a Python package that they need is not there: with the models of model/zoo alone.

Needs nothing but Python.
"""

import array
import importlib
import json
import random
import struct
import subprocess
from pathlib import Path

ZOO = Path(__file__).resolve().parent.parent / "model" / "zoo"
# name: file, input channels, side of a square input
MODELS = {"T1 to T2, 384": ("t1-to-t2", 3, 384), "x-ray to T2, 512": ("xray-to-t2", 1, 512), "super-resolution x4, 128": ("super-resolution", 1, 128)}
CHECKED_SIDE = 192  # every model takes it
# Largest difference from the CPU engine, as tests/engine has it.
BOUNDS = {"f32": 1e-5, "f16": 5e-3}


def missing(*packages: str) -> dict[str, str]:
    """Of these packages those that cannot be imported, and why: one that is there may fail in any way."""
    found = {}
    for name in packages:
        try:
            importlib.import_module(name)
        except Exception as e:  # noqa: BLE001
            found[name] = f"{type(e).__name__}: {e}"
    return found


def zoo_file(name: str) -> Path:
    return ZOO / f"{MODELS[name][0]}.onnx"


def write_images(path: Path, batch: int, channels: int, side: int) -> None:
    """Numbers of either sign in a NumPy file: an image of noise, shifted by a row for each of a batch."""
    rng = random.Random(0)
    plane = array.array("f", (rng.uniform(-1, 1) for _ in range(side * side)))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({batch}, {channels}, {side}, {side}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for i in range(batch * channels):
            first = i % side * side
            f.write((plane[first:] + plane[:first]).tobytes())


def check(opcheck: Path, engine: str, times: int, side: int = CHECKED_SIDE) -> tuple[int, list[str]]:
    """Every model of the zoo against the CPU engine and so often against itself. How many were sound; of the others what was wrong."""
    sound, wrong = 0, []
    for path in sorted(ZOO.glob("*.onnx")):
        channels = next((c for file, c, _ in MODELS.values() if file == path.stem), 3)
        for precision, bound in BOUNDS.items():
            command = [opcheck, path, "--engine", engine, "--against", "cpu", "--shape", f"2x{channels}x{side}x{side}", "--precision", precision, "--repeat", times]
            try:
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
                facts = json.loads(done.stdout) if done.returncode == 0 else {}
                why = "" if facts else done.stderr.strip()[-500:] or f"opcheck ended with {done.returncode}"
            except (subprocess.TimeoutExpired, ValueError) as e:
                facts, why = {}, str(e)
            if facts and not facts["max_abs"] <= bound * max(1, facts["max_value"]):
                why = f"differs from the CPU engine by {facts['max_abs']:.2g}, at most {bound:g} is sound"
            if facts and not why and not facts["same_bits"]:
                why = f"other bits in {times} runs"
            if why:
                wrong.append(f"{path.stem} in {precision}: {why}")
            sound += not why
    return sound, wrong
