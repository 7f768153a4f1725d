"""Just enough of NIfTI-1 to read a volume and put it in patient order."""

import gzip
import struct

import numpy as np

TYPES = {2: np.uint8, 4: np.int16, 8: np.int32, 16: np.float32, 64: np.float64, 256: np.int8, 512: np.uint16}


def read(path):
    """(volume indexed [left, back, head] float32, voxel size in mm in that order)."""
    return read_placed(path)[:2]


def read_placed(path):
    """As read(), and where the first voxel lies: mm to the left, back and head of the file's origin."""
    with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
        data = file.read(1 << 29)
    if len(data) < 352 or struct.unpack_from("<i", data)[0] != 348:
        raise ValueError(f"{path}: not a little-endian NIfTI-1 file")
    shape = struct.unpack_from("<8h", data, 40)[1:4]
    kind = struct.unpack_from("<h", data, 70)[0]
    start = int(struct.unpack_from("<f", data, 108)[0])
    slope, offset = struct.unpack_from("<2f", data, 112)
    if kind not in TYPES or min(shape) < 1:
        raise ValueError(f"{path}: data type {kind} or size {shape} is not supported")
    volume = np.frombuffer(data, TYPES[kind], int(np.prod(shape)), start).reshape(shape, order="F").astype(np.float32)
    if slope not in (0.0, 1.0) and np.isfinite(slope):
        volume = volume * slope + offset
    rows = np.array(struct.unpack_from("<12f", data, 280)).reshape(3, 4)
    affine, origin = rows[:, :3], rows[:, 3].copy()
    size = np.linalg.norm(affine, axis=0)
    order = [int(np.argmax(np.abs(affine[k] / size))) for k in range(3)]
    volume = np.transpose(volume, order)
    for k in range(3):  # RAS of the file to left, back, head: x and y run the other way
        if (affine[k, order[k]] > 0) == (k < 2):
            volume = np.flip(volume, k)
            origin = origin + affine[:, order[k]] * (volume.shape[k] - 1)
    return np.ascontiguousarray(volume), size[order], origin * (-1, -1, 1)
