"""The standing lateral radiograph of a subject as a digital system shows it.

Beer-Lambert attenuation (projection.py, trunk.py), scatter behind the grid, blur of focus and
detector, quantum noise, logarithm, the vendor's display processing, collimation.  The posture is
not that of the MR examination: people stand with more lordosis than they lie with.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import Subject
from .projection import ATTENUATION, Bones, Film, View  # noqa: F401  (the table is part of this module's face)
from .trunk import Trunk


FINEST_MM = 0.3  # what is drawn is not sharper than this: focus and detector blur it anyway


@dataclass(frozen=True)
class Exposure:
    """One radiograph: what was set and what came of it."""

    image: np.ndarray   # (rows, columns) float32 in [0, 1], bone bright
    subject: Subject    # as he stood
    view: View
    open: np.ndarray    # (rows, columns) 1 where the collimator was open
    pixel_mm: float     # on the detector
    kvp: int
    mas: float


def standing(seed, findings=None):
    """The subject of a seed as he stands before the detector."""
    return Subject(seed, findings, posture=float(np.random.default_rng([int(seed), 93]).normal(6.0, 3.0)))


def field(seed):
    """(rows, columns) in mm that the collimator leaves open on the detector."""
    rng = np.random.default_rng([int(seed), 94])
    return float(rng.uniform(300, 430)), float(rng.uniform(170, 320))


def attenuation(subject, view, rows, columns, pixel, seed):
    """Optical depth (rows, columns) of the subject along the rays."""
    film = Film(view, rows, columns, pixel, seed)
    Trunk(subject, film).draw()
    Bones(subject, film, film.rng(200)).draw()
    return np.maximum(film.depth, 0.0)


def smear(image, sigma):
    """A wide blur, on a grid coarse enough for it."""
    step = max(1, int(sigma / 5))
    rows, columns = image.shape
    small = np.pad(image, ((0, -rows % step), (0, -columns % step)), mode="edge")
    small = small.reshape(small.shape[0] // step, step, small.shape[1] // step, step).mean((1, 3))
    small = ndimage.gaussian_filter(small, sigma / step, truncate=2.5)
    places = [np.clip((np.arange(n) + 0.5) / step - 0.5, 0, m - 1) for n, m in zip((rows, columns), small.shape)]
    for axis, place in enumerate(places):
        low = np.minimum(place.astype(int), small.shape[axis] - 1)
        share = (place - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        small = np.take(small, low, axis) * (1 - share) + np.take(small, np.minimum(low + 1, small.shape[axis] - 1), axis) * share
    return small


def twice(image):
    """Two by two pixels for each, linear between the centres."""
    for axis in (0, 1):
        last = image.shape[axis] - 1
        before = np.take(image, np.maximum(np.arange(last + 1) - 1, 0), axis)
        behind = np.take(image, np.minimum(np.arange(last + 1) + 1, last), axis)
        pair = np.stack([0.75 * image + 0.25 * before, 0.75 * image + 0.25 * behind], axis + 1)
        image = pair.reshape([2 * n if k == axis else n for k, n in enumerate(image.shape)])
    return image


def detect(depth, pixel, rng):
    """Log signal of the detector: -ln of what arrives, with scatter, blur and noise."""
    typical = float(np.percentile(depth, 70))
    primary = np.exp(typical - depth)
    # Air beside the patient scatters nothing.
    scatter = smear(np.minimum(primary, 12.0) * (depth > 0.3), 30.0 / pixel) * rng.uniform(0.25, 0.8)
    signal = ndimage.gaussian_filter(primary, rng.uniform(0.12, 0.3) / pixel) + scatter
    quanta = float(np.exp(rng.uniform(np.log(2e3), np.log(2e4)))) * pixel * pixel
    noisy = signal + np.sqrt(signal / quanta) * rng.standard_normal(signal.shape, dtype=np.float32)
    return -np.log(np.maximum(noisy, 1e-3))


def display(log, depth, pixel, rng):
    """What a digital system does for viewing: less of the large scale, more of the small, a curve."""
    inside = depth > 0.5
    limit = np.percentile(log[inside], 2) - 0.5
    log = np.maximum(log, limit)
    coarse = smear(log, rng.uniform(16, 30) / pixel)
    middle = ndimage.gaussian_filter(log, 3.0 / pixel)
    image = rng.uniform(0.3, 0.65) * coarse + (middle - coarse) + rng.uniform(1.0, 1.6) * (log - middle)
    low, high = np.percentile(image[inside], [rng.uniform(0.5, 3), rng.uniform(99.3, 99.9)])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return image ** rng.uniform(0.8, 1.3)


def radiograph(seed, pixel_mm=1.0, subject=None, rows=None, columns=None):
    """The Exposure of a subject at a pixel size; the same seed gives the same scene at any pixel size."""
    # A generator for each step: how many numbers the noise takes depends on the pixels.
    posed, noise, shown, closed = (np.random.default_rng([int(seed), key]) for key in (95, 96, 97, 98))
    subject = subject or standing(seed)
    view = View.sample(posed, subject)
    tall, wide = field(seed)
    rows, columns = rows or int(round(tall / pixel_mm)), columns or int(round(wide / pixel_mm))
    if pixel_mm < FINEST_MM:
        rows, columns = rows // 2 * 2, columns // 2 * 2
        depth = twice(attenuation(subject, view, rows // 2, columns // 2, 2 * pixel_mm, int(seed)))
    else:
        depth = attenuation(subject, view, rows, columns, pixel_mm, int(seed))
    image = display(detect(depth, pixel_mm, noise), depth, pixel_mm, shown)
    open_ = leaves(rows, columns, pixel_mm, closed)
    return Exposure((image * open_).astype(np.float32), subject, view, open_, pixel_mm, int(posed.integers(80, 96)),
                    round(float(posed.uniform(25, 90)), 1))


def leaves(rows, columns, pixel, rng):
    """1 where the collimator is open: straight edges, not quite parallel to the picture's."""
    turn = rng.normal(0, 0.012)
    margin = rng.uniform(0, 1, 4) ** 2 * 14 * (rng.random(4) < 0.8)
    down = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None] * pixel
    right = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2)[None, :] * pixel
    u, v = right + turn * down, down - turn * right
    inside = np.minimum(np.minimum(v + rows * pixel / 2 - margin[0], rows * pixel / 2 - margin[1] - v),
                        np.minimum(u + columns * pixel / 2 - margin[2], columns * pixel / 2 - margin[3] - u))
    return np.clip(inside / 1.5 + 0.5, 0, 1)
