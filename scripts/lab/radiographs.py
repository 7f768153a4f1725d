"""Pairs to learn x-ray to T2 from: a standing radiograph and the T2 image that would lie under it.

What is the truth for a radiograph?  Nobody is scanned by MR while he stands there, and the node has
no MR image to register with.  So the frame is the radiograph's own: the target is the midsagittal
T2-weighted image of the same subject in the same standing posture, magnified as the radiograph's
midsagittal plane is, on the radiograph's pixels.  This is the paper's registration on the corners
of L5, carried to its end: here every vertebra of the pair coincides, not L5 alone.

What the radiograph cannot tell, the target still has: discs' water, nerves, cord, fluid, oedema,
gut.  There a model can only guess what is usual.  The protocol and the coil of the target are
fixed, since a radiograph knows nothing of them.  Where the collimator was closed the target is
black.
"""

import json
import os

import numpy as np

from . import crew, dataset, tissue, xray
from .canvas import smooth_step
from .projection import Film
from .spine import Plane

PIXEL_MM = 1.0
VERSION = 2  # raise it when the radiograph or the phantom changes
T2 = tissue.Protocol("t2", 4000, 105, None, 18, 180.0, 200, 384, 320, 2, "t2_tse_sag")
COIL_DEPTH = 130.0


def t2_under(exposure, seed):
    """(T2 signal on the radiograph's pixels, how much each pixel belongs to the spine), both (rows, columns)."""
    s, (rows, columns) = exposure.subject, exposure.image.shape
    film = Film(exposure.view, rows, columns, exposure.pixel_mm, seed)
    middle = float(np.mean([b.x for b in s.bodies[5:9]]))
    plane = Plane(s, middle, *film.grid(), 1)
    fractions = plane.paint().fractions
    water, fat = tissue.signals(T2, s.values, s.flow)
    image = np.tensordot((water + fat).astype(np.float32), fractions, 1)
    y = plane.canvas.y[None, :]
    image *= 1.0 / (1.0 + (np.maximum(plane.skin[:, None] - y, 0.0) / COIL_DEPTH) ** 2) ** 0.4
    spine = smooth_step(y, (plane.front - 9)[:, None], (plane.front - 4)[:, None]) \
        * smooth_step(-y, -(plane.canal_back + 9)[:, None], -(plane.canal_back + 4)[:, None])
    return image, spine.astype(np.float32)


def draw_pair(seed, pixel_mm=PIXEL_MM):
    """(radiograph, T2, spine) in [0, 1], (rows, columns) float32 each, normalised as the node does, and the Exposure."""
    exposure = xray.radiograph(seed, pixel_mm)
    target, spine = t2_under(exposure, seed)
    target, _ = dataset.normalise(target)
    source, _ = dataset.normalise(exposure.image)
    return source, target * exposure.open, spine * exposure.open, exposure


def t2_as_on(seed, mirrored=False):
    """The T2 image under the radiograph that room.write() makes of a subject, at the pixels of a model's result."""
    _, target, _, _ = draw_pair(seed)
    return np.ascontiguousarray(target[:, ::-1] if mirrored else target)


def _make(path, seed):
    *planes, exposure = draw_pair(seed)
    temporary = f"{path}.{os.getpid()}.tmp.npy"
    np.save(temporary, np.stack(planes).astype(np.float16))
    os.replace(temporary, path)
    with open(path[:-4] + ".json", "w", encoding="utf-8") as file:
        json.dump({"seed": seed, "spacing_mm": exposure.pixel_mm, "magnification": exposure.view.magnification}, file)


def build(folder, split, subjects, workers=2, progress=None, skip=0):
    """Make sure that the cache holds the first so many subjects of a split, after those skipped; returns their paths."""
    folder = os.path.join(folder, f"xray{VERSION}-{split}")
    os.makedirs(folder, exist_ok=True)
    paths = [os.path.join(folder, f"{dataset.SPLITS[split] + skip + i}.npy") for i in range(subjects)]
    missing = [p for p in paths if not os.path.exists(p[:-4] + ".json")]
    if missing:
        crew.spread(_make, [(p, int(os.path.basename(p)[:-4])) for p in missing], workers, progress)
    return paths


class Pool:
    """Random crops of cached pairs, read from the page cache as they are needed."""

    extra = ()

    def __init__(self, paths, whole=False):
        self.pairs, self.whole, self.kept = [np.load(p, mmap_mode="r") for p in paths], whole, {}

    def crop(self, rng, size):
        """(radiograph, T2, spine) as (3, size, size) float32 in [0, 1]; black beyond the picture; half of them face right."""
        number = int(rng.integers(len(self.pairs)))
        one = self.pairs[number]
        if self.whole:
            if number not in self.kept:
                self.kept[number] = dataset.enlarged(one, size)
            return dataset.whole(self.kept[number], rng, size)
        out = np.zeros((3, size, size), np.float32)
        places = []
        for n in one.shape[1:]:
            start = int(rng.integers(min(0, n - size), max(0, n - size) + 1))
            places.append((slice(max(start, 0), min(start + size, n)), max(-start, 0)))
        (rows, top), (columns, left) = places
        part = one[:, rows, columns]
        out[:, top:top + part.shape[1], left:left + part.shape[2]] = part
        return out[:, :, ::-1] if rng.random() < 0.5 else out


def pair(pool, rng, size):
    """A training pair: source (1, n, n) in [-1, 1]; target (2, n, n), the T2 in [-1, 1] and the spine in [0, 1]."""
    source, target, spine = pool.crop(rng, size)
    if rng.random() < 0.7:  # every vendor has a curve of its own
        source = np.clip(source * rng.uniform(0.8, 1.15) + rng.uniform(-0.03, 0.05) * (source > 0), 0, 1) ** rng.uniform(0.7, 1.45)
    if rng.random() < 0.4:
        source = np.clip(source + rng.uniform(0, 0.03) * rng.standard_normal(source.shape, dtype=np.float32), 0, 1)
    return (source[None] * 2 - 1).astype(np.float32), np.stack([target * 2 - 1, spine]).astype(np.float32)
