"""A sagittal plane as tissue fractions, and the shapes that are painted on it.

Millimetres throughout: y runs to the patient's back (columns), z to the head (rows run down).
A shape is a signed distance, negative inside; its edge covers a pixel partly, so that fractions
of neighbouring tissues always sum to one and partial volume comes out by itself.
"""

import copy
from bisect import bisect_left

import numpy as np

from . import tissue

_bases = {}


def spline_basis(size, knots, part):
    """Uniform cubic B-splines: weights (points, knots used) of a part of size points, and which knots those are."""
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
        _bases[key] = basis, i
    basis, i = _bases[key]
    used = slice(int(i[part.start]), int(i[part.stop - 1]) + 4)
    return basis[part, used], used


def blocks(size, knots, part, step=96):
    """A part of size points in blocks, each with (its place in the part, weights, knots used): far knots weigh nothing."""
    for first in range(part.start, part.stop, step):
        end = min(first + step, part.stop)
        yield slice(first - part.start, end - part.start), *spline_basis(size, knots, slice(first, end))


def spread(grid, shape, box=None):
    """Noise of about unit deviation from normal numbers (knots + 3) of a grid: two matrix products.

    shape: rows and columns of the plane that the grid spans; box: the part of it that is wanted.
    """
    rows, columns = box or (slice(0, shape[0]), slice(0, shape[1]))
    half = np.empty((rows.stop - rows.start, grid.shape[1]), np.float32)
    for part, basis, used in blocks(shape[0], grid.shape[0] - 3, rows):
        np.matmul(basis, grid[used], out=half[part])
    noise = np.empty((len(half), columns.stop - columns.start), np.float32)
    for part, basis, used in blocks(shape[1], grid.shape[1] - 3, columns):
        np.matmul(half[:, used], basis.T, out=noise[:, part])
    noise *= np.float32(1.9)
    return noise


def smooth_noise(rng, shape, knots):
    """Zero-mean noise of about unit deviation, shape (rows, columns), smooth over 1/knots of it."""
    kz, ky = max(1, int(knots[0])), max(1, int(knots[1]))
    return spread(rng.standard_normal((kz + 3, ky + 3), dtype=np.float32), shape)


class Texture:
    """The smooth noise of a plane, one field after the other from a seed.

    Planes beside each other begin at the same place and mostly ask for the same: what was drawn from a place of the
    stream is kept, with the place where it ended.
    """

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.kept = {}

    def again(self):
        """Another reader, from where this one is now."""
        other = copy.copy(self)
        other.rng = np.random.default_rng(0)
        other.rng.bit_generator.state = self.rng.bit_generator.state
        return other

    def field(self, shape, knots, box=None):
        """The next field, as smooth_noise(), or a box of it."""
        kz, ky = max(1, int(knots[0])), max(1, int(knots[1]))
        place = self.rng.bit_generator.state
        part = box and (box[0].start, box[0].stop, box[1].start, box[1].stop)
        key = (place["state"]["state"], place["has_uint32"], kz, ky, shape, part)
        if key not in self.kept:
            noise = spread(self.rng.standard_normal((kz + 3, ky + 3), dtype=np.float32), shape, box)
            noise.flags.writeable = False
            self.kept[key] = noise, self.rng.bit_generator.state
        noise, self.rng.bit_generator.state = self.kept[key]
        return noise


def unit(x):
    """An array limited to 0 to 1, in place."""
    np.maximum(x, 0.0, out=x)
    return np.minimum(x, 1.0, out=x)


def smooth_step(x, low, high):
    """0 below low, 1 above high, a cubic between."""
    if np.ndim(x) == 0:
        t = min(max((float(x) - low) / (high - low), 0.0), 1.0)
        return t * t * (3.0 - 2.0 * t)
    t = unit((x - low) * (1.0 / (high - low)))
    rest = 3.0 - 2.0 * t
    t *= t
    rest *= t
    return rest


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
        self.y, self.z, self.tilt = float(y), float(z), float(tilt)
        self.c, self.s = float(np.cos(tilt)), float(np.sin(tilt))

    def at(self, p, q):
        """World (y, z) of a local point."""
        return self.y + p * self.c - q * self.s, self.z + p * self.s + q * self.c

    def child(self, p, q, turn=0.0):
        """A frame at a local point, turned further by an angle."""
        y, z = self.at(p, q)
        return Frame(y, z, self.tilt + turn)


class Canvas:
    """One plane as layers of tissue, each covering those before it; starts as air."""

    def __init__(self, y, z):
        self.y = np.asarray(y, np.float32)
        self.z = np.asarray(z, np.float32)
        self.across, self.up = self.y.tolist(), self.z[::-1].tolist()
        self.pixel = float(abs(self.y[1] - self.y[0]))
        self.shape = (len(z), len(y))
        self.layers = []
        self._fractions = None

    @property
    def fractions(self):
        """Share of each tissue in each pixel, (COUNT, rows, columns); they sum to one."""
        if self._fractions is None:
            self._fractions = self.compose(np.zeros((tissue.COUNT, *self.shape), np.float32))
        return self._fractions

    def compose(self, out):
        """Add the fractions to out, which is returned.

        From the last layer to the first, with what each leaves visible of those below: a layer then costs what it
        holds, not a pass over every tissue that could be there.
        """
        clear = np.ones(self.shape, np.float32)
        for box, alpha, mixture in reversed(self.layers):
            below = clear[box]
            visible = below * alpha
            below -= visible
            for name, share in mixture.items():
                part = out[tissue.INDEX[name]][box]
                part += visible * share if isinstance(share, np.ndarray) or share != 1.0 else visible
        out[0] += clear
        return out

    def box(self, frame, radius, half_p=np.inf, half_q=np.inf):
        """Row and column slices that hold a disc of the radius about the frame, or None.

        half_p, half_q: a rectangle in the frame outside of which nothing will be painted; the box is then as small
        as holds that, too, but never empty.
        """
        c, s = abs(frame.c), abs(frame.s)
        for wide, high in ((min(radius, half_p * c + half_q * s), min(radius, half_p * s + half_q * c)), (radius, radius)):
            left, right = bisect_left(self.across, frame.y - wide), bisect_left(self.across, frame.y + wide)
            top, bottom = (len(self.up) - bisect_left(self.up, frame.z + d) for d in (high, -high))
            if left < right and top < bottom:
                return slice(top, bottom), slice(left, right)
        return None

    def local(self, frame, box):
        """Local coordinates (p, q) of the pixels of a box."""
        dy = self.y[None, box[1]] - frame.y
        dz = self.z[box[0], None] - frame.z
        return dy * frame.c + dz * frame.s, dz * frame.c - dy * frame.s

    def cover(self, distance):
        """Share of each pixel that is inside a shape."""
        share = distance * (-1.0 / self.pixel)
        share += 0.5
        return unit(share)

    def paint(self, box, alpha, mixture):
        """Cover what is there, to a share alpha of each pixel of a box, by a mixture {tissue: share}.

        The arrays are kept, not copied.
        """
        self.layers.append((box, alpha, mixture))
        self._fractions = None

    def strip(self, low, high):
        """Box and coverage of the region low(z) < y < high(z); low and high per row in mm."""
        low, high = low.astype(np.float32), high.astype(np.float32)
        wide = high > low
        if not np.any(wide):
            return None, None
        left, right = bisect_left(self.across, np.min(low[wide]) - 1.0), bisect_left(self.across, np.max(high[wide]) + 1.0)
        if left >= right:
            return None, None
        y = self.y[None, left:right]
        share = np.minimum(y - low[:, None], high[:, None] - y)
        share *= 1.0 / self.pixel
        share += 0.5
        unit(share)
        share *= wide[:, None]
        return (slice(0, self.shape[0]), slice(left, right)), share
