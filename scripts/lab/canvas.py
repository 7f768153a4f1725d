"""A sagittal plane as tissue fractions, and the shapes that are painted on it.

Millimetres throughout: y runs to the patient's back (columns), z to the head (rows run down).
A shape is a signed distance, negative inside; its edge covers a pixel partly, so that fractions
of neighbouring tissues always sum to one and partial volume comes out by itself.
"""

import numpy as np

from . import tissue

_bases = {}


def spline_basis(size, knots):
    """Matrix (size, knots+3) of uniform cubic B-splines: smooth noise is one matrix product."""
    key = (size, knots)
    if key not in _bases:
        t = np.linspace(0.0, knots - 1e-4, size)
        i = t.astype(int)
        f = t - i
        weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4,
                            -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3]) / 6.0
        basis = np.zeros((size, knots + 3), np.float32)
        for k in range(4):
            basis[np.arange(size), i + k] = weights[k]
        _bases[key] = basis
    return _bases[key]


def smooth_noise(rng, shape, knots):
    """Zero-mean noise of about unit deviation, shape (rows, columns), smooth over 1/knots of it."""
    kz, ky = max(1, int(knots[0])), max(1, int(knots[1]))
    grid = rng.standard_normal((kz + 3, ky + 3), dtype=np.float32)
    return (spline_basis(shape[0], kz) @ grid @ spline_basis(shape[1], ky).T) * np.float32(1.9)


def smooth_step(x, low, high):
    """0 below low, 1 above high, a cubic between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def round_box(p, q, low_p, high_p, low_q, high_q, radius):
    """Signed distance to a box with rounded corners; the limits may be arrays."""
    dx = np.maximum(low_p - p, p - high_p) + radius
    dy = np.maximum(low_q - q, q - high_q) + radius
    outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
    return np.minimum(np.maximum(dx, dy), 0.0) + outside - radius


def ellipse(p, q, half_p, half_q):
    """Signed distance, good near the edge, to an axis-aligned ellipse."""
    r = np.sqrt((p / half_p) ** 2 + (q / half_q) ** 2) + 1e-6
    return (r - 1.0) * min(half_p, half_q)


class Frame:
    """A local frame: origin (y, z), tilt in radians; p runs to the back, q to the head."""

    def __init__(self, y, z, tilt):
        self.y, self.z, self.tilt = y, z, tilt
        self.c, self.s = np.cos(tilt), np.sin(tilt)

    def at(self, p, q):
        """World (y, z) of a local point."""
        return self.y + p * self.c - q * self.s, self.z + p * self.s + q * self.c

    def child(self, p, q, turn=0.0):
        """A frame at a local point, turned further by an angle."""
        y, z = self.at(p, q)
        return Frame(y, z, self.tilt + turn)


class Canvas:
    """Tissue fractions (COUNT, rows, columns) of one plane; starts as air."""

    def __init__(self, y, z):
        self.y = np.asarray(y, np.float32)
        self.z = np.asarray(z, np.float32)
        self.pixel = float(abs(self.y[1] - self.y[0]))
        self.fractions = np.zeros((tissue.COUNT, len(z), len(y)), np.float32)
        self.fractions[0] = 1.0
        self.shape = self.fractions.shape[1:]

    def box(self, frame, radius):
        """Row and column slices that hold a disc of the radius about the frame, or None."""
        j = np.searchsorted(self.y, [frame.y - radius, frame.y + radius])
        i = len(self.z) - np.searchsorted(self.z[::-1], [frame.z + radius, frame.z - radius])
        if j[0] >= j[1] or i[0] >= i[1]:
            return None
        return slice(i[0], i[1]), slice(j[0], j[1])

    def local(self, frame, box):
        """Local coordinates (p, q) of the pixels of a box."""
        dy = self.y[None, box[1]] - frame.y
        dz = self.z[box[0], None] - frame.z
        return dy * frame.c + dz * frame.s, dz * frame.c - dy * frame.s

    def cover(self, distance):
        """Share of each pixel that is inside a shape."""
        return np.clip(0.5 - distance / self.pixel, 0.0, 1.0)

    def paint(self, box, alpha, mixture, live=tissue.COUNT):
        """Replace a share alpha of what is there by a mixture {tissue: share}.

        live: how many leading tissues can be present so far (saves time on the background).
        """
        part = self.fractions[:live, box[0], box[1]]
        part *= 1.0 - alpha
        for name, share in mixture.items():
            part[tissue.INDEX[name]] += alpha * share

    def strip(self, low, high, rows=None):
        """Box and coverage of the region low(z) < y < high(z); low and high per row in mm."""
        rows = rows or slice(0, self.shape[0])
        low, high = low[rows], high[rows]
        wide = high > low
        if not np.any(wide):
            return None, None
        j = np.searchsorted(self.y, [np.min(low[wide]) - 1.0, np.max(high[wide]) + 1.0])
        if j[0] >= j[1]:
            return None, None
        y = self.y[None, j[0]:j[1]]
        inside = np.minimum(y - low[:, None], high[:, None] - y)
        return (rows, slice(j[0], j[1])), np.clip(0.5 + inside / self.pixel, 0.0, 1.0) * wide[:, None]
