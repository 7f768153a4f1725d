"""Which vertebra is the marked one?  Named from a T2 image in a radiograph's frame, as the paper's readers named them.

Nothing is known but the image and the mark.  Discs are looked for as patches of the image in a frame
of their own (place and tilt), and named together, as a chain that rises from the sacrum: what each
looks like, and how far and at what angle the next one lies above it, differ from level to level
(pictorial structures: Felzenszwalb and Huttenlocher, Int J Comput Vis 61, 2005).  The chain may begin
and end anywhere, since a collimator may hide the sacrum.  The marked vertebra is the body that lies
nearest between two discs of the best chain.

Looks are learned from native images of validation subjects, steps from the spines of others as they
stand; the same for native and synthetic images.  Transitional vertebrae have the names that the
phantom gives them; a reader who counts from the sacrum may miss them by one.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

from . import radiographs, xray
from .anatomy import LEVELS, S1
from .canvas import Frame
from .projection import View

PARTS = tuple(range(S1 - 2, S1 + 9))    # discs of the chain, from S3-S2 upwards
MARKS = tuple(range(S1 + 1, S1 + 8))    # bodies that are asked for, L5 to T11
NOBODY = -1
CLASSES = (NOBODY, *range(len(LEVELS)))
# A patch, mm on the detector: from the front of a disc to the canal, and half of the bodies beside it.
STEP = 3.0
P, Q = np.arange(-27, 46, STEP), np.arange(24, -25, -STEP)
TILTS = np.deg2rad(np.arange(-40, 81, 7.5))
SMOOTH = 1.2  # mm: patches are sampled coarsely
CANDIDATES = 150
RIDGE = 3.0
STEPS_WEIGHT = 1.0
REACH = 25.0  # mm from a mark to the body that is meant


class Film:
    """An image of a radiograph's frame with its geometry: mm on the detector, right and up from the middle."""

    def __init__(self, image, pixel_mm):
        self.image = ndimage.gaussian_filter(np.asarray(image, np.float32), SMOOTH / pixel_mm)
        self.middle = (np.array(self.image.shape) - 1) / 2.0
        self.pixel = pixel_mm

    def at(self, right, up, order=1):
        """Values there; what lies outside is black."""
        return ndimage.map_coordinates(self.image, [self.middle[0] - up / self.pixel, self.middle[1] + right / self.pixel], order=order)

    def patch(self, frame):
        """Values of a patch, of zero mean and unit spread, flat."""
        values = self.at(*frame.at(P[None, :], Q[:, None])).ravel()
        values -= values.mean()
        return values / max(float(values.std()), 0.02)


def shown(frame, view):
    """A frame of the patient's midsagittal plane as it lies on the detector."""
    m = view.magnification
    return Frame(m * (frame.y - view.centre[0]), m * (frame.z - view.centre[1]), frame.tilt)


def inside(frame, open_, pixel_mm, margin=10.0):
    """Does the collimator leave open what lies round a place?"""
    rows, columns = open_.shape
    i, j = (rows - 1) / 2 - frame.z / pixel_mm, (columns - 1) / 2 + frame.y / pixel_mm
    k = margin / pixel_mm
    if not (k <= i <= rows - 1 - k and k <= j <= columns - 1 - k):
        return False
    return bool(open_[int(i - k):int(i + k) + 1, int(j - k):int(j + k) + 1].min() > 0.5)


def step(lower, upper):
    """How one disc lies above another: (mm along the lower one, mm over it, radians of turn)."""
    y, z = upper.y - lower.y, upper.z - lower.z
    return y * lower.c + z * lower.s, z * lower.c - y * lower.s, upper.tilt - lower.tilt


@dataclass
class Looks:
    """Patches of one native image: {part: patch} where discs are, and patches where none is."""

    discs: dict
    others: list


def looks(seed):
    """Looks of the T2 image under a subject's radiograph."""
    rng = np.random.default_rng([int(seed), 75])
    _, image, _, exposure = radiographs.draw_pair(seed)
    film = Film(image, exposure.pixel_mm)
    discs = {i: shown(exposure.subject.discs[i].frame, exposure.view) for i in PARTS}
    discs = {i: f for i, f in discs.items() if inside(f, exposure.open, exposure.pixel_mm)}
    others = []
    while len(others) < 40:
        if len(others) % 2 and discs:  # near a disc, but not on it
            at = discs[int(rng.choice(list(discs)))].child(rng.normal(0, 12), rng.uniform(8, 34) * rng.choice([-1, 1]), rng.normal(0, 0.25))
        else:
            half = film.middle * film.pixel
            at = Frame(rng.uniform(-half[1], half[1]), rng.uniform(-half[0], half[0]), rng.choice(TILTS))
        if all(np.hypot(f.y - at.y, f.z - at.z) > 7 for f in discs.values()):
            others.append(film.patch(at))
    return Looks({i: film.patch(f) for i, f in discs.items()}, others)


def steps(seeds):
    """{part: (mean, inverse covariance, log determinant) of the step to the next part} of subjects as they stand."""
    found = {i: [] for i in PARTS[:-1]}
    for seed in seeds:
        subject = xray.standing(seed)
        view = View.sample(np.random.default_rng([int(seed), 95]), subject)
        for i in found:
            found[i].append(step(*(shown(subject.discs[k].frame, view) for k in (i, i + 1))))
    out = {}
    for i, rows in found.items():
        cover = np.cov(np.array(rows).T) + np.diag([4.0, 4.0, np.deg2rad(4.0) ** 2])  # places are found to a few mm only
        out[i] = (np.mean(rows, 0), np.linalg.inv(cover), float(np.linalg.slogdet(cover)[1]))
    return out


class Numbering:
    """Names vertebrae; made of the Looks of validation subjects, and of the steps between their discs."""

    def __init__(self, many, steps_):
        self.steps = steps_
        bare = np.concatenate([one.others for one in many])
        mine = {i: np.array([one.discs[i] for one in many if i in one.discs]) for i in PARTS}
        mine = {i: v for i, v in mine.items() if len(v) >= 3}
        means = {i: v.mean(0) for i, v in mine.items()}
        rest = np.concatenate([v - means[i] for i, v in mine.items()])
        cover = rest.T @ rest / len(rest)
        cover += RIDGE * np.trace(cover) / len(cover) * np.eye(len(cover))
        centre = bare.mean(0)
        every = np.mean(list(means.values()), 0)
        self.any = np.linalg.solve(cover, every - centre)
        self.any -= self.any.mean()
        self.parts = {}
        for i, mean in means.items():
            weights = np.linalg.solve(cover, mean - centre)
            self.parts[i] = (weights, float(-0.5 * weights @ (mean + centre)))

    def candidates(self, film):
        """Frames that may be discs."""
        half = film.middle * film.pixel
        reach = float(np.hypot(*half)) + STEP
        line = np.arange(-reach, reach + STEP, STEP)
        kernel = self.any.reshape(len(Q), len(P))
        right, up = np.arange(-half[1], half[1], STEP), np.arange(half[0], -half[0], -STEP)
        scores = []
        for tilt in TILTS:
            frame = Frame(0.0, 0.0, tilt)
            turned = film.at(*frame.at(line[None, :], -line[:, None]))
            mean, square = (ndimage.uniform_filter(v, (len(Q), len(P)), mode="constant") for v in (turned, turned * turned))
            score = signal.fftconvolve(turned, kernel[::-1, ::-1], mode="same") / np.sqrt(np.maximum(square - mean * mean, 0.02**2))
            # Where a patch is centred on the turned grid: P does not begin as far in front as it ends behind.
            shift = 0.5 * (P[0] + P[-1])
            p, q = right[None, :] * frame.c + up[:, None] * frame.s + shift, up[:, None] * frame.c - right[None, :] * frame.s
            scores.append(ndimage.map_coordinates(score, [(reach - q) / STEP, (p + reach) / STEP], order=1, cval=-1e9))
        scores = np.stack(scores)
        peak = scores == ndimage.maximum_filter(scores, (3, 3, 3))
        best = np.argsort(np.where(peak, scores, -np.inf), axis=None)[::-1][:CANDIDATES]
        return [Frame(right[x], up[y], TILTS[t]) for t, y, x in zip(*np.unravel_index(best, scores.shape)) if peak[t, y, x]]

    def chain(self, film):
        """{part: Frame} of the best chain."""
        frames = self.candidates(film)
        patches = np.array([film.patch(f) for f in frames])
        places = np.array([(f.y, f.z, f.tilt, f.c, f.s) for f in frames])
        dy, dz = (places[None, :, k] - places[:, None, k] for k in (0, 1))
        c, s = places[:, None, 3], places[:, None, 4]
        between = np.stack([dy * c + dz * s, dz * c - dy * s, places[None, :, 2] - places[:, None, 2]], -1)
        best, back = {}, {}
        for i in PARTS:
            if i not in self.parts:
                continue
            weights, constant = self.parts[i]
            own = patches @ weights + constant
            best[i], back[i] = own, np.full(len(frames), NOBODY)
            if i - 1 in best:
                mean, inverse, size = self.steps[i - 1]
                d = between - mean
                total = best[i - 1][:, None] - STEPS_WEIGHT * 0.5 * (np.einsum("abi,ij,abj->ab", d, inverse, d) + size)
                before = total.argmax(0)
                gain = total[before, np.arange(len(frames))]
                best[i] = own + np.maximum(gain, 0)
                back[i] = np.where(gain > 0, before, NOBODY)
        part = max(best, key=lambda i: best[i].max())
        at, out = int(best[part].argmax()), {}
        while at != NOBODY:
            out[part] = frames[at]
            at, part = int(back[part][at]), part - 1
        return out

    def named(self, image, exposure):
        """[(index of a marked body into LEVELS, the name it is given)] of every body of MARKS that an Exposure shows."""
        marks = {i: shown(exposure.subject.bodies[i].frame, exposure.view) for i in MARKS}
        marks = {i: f for i, f in marks.items() if inside(f, exposure.open, exposure.pixel_mm)}
        return list(zip(marks, self.name(Film(image, exposure.pixel_mm), marks.values())))

    def name(self, film, marks):
        """Index into LEVELS of the body nearest to each mark (a Frame), or NOBODY where the chain has none there."""
        discs = self.chain(film)
        places = {i: np.array([f.y, f.z]) for i, f in discs.items()}
        low, high = min(places), max(places)
        if low < high:  # beyond the ends of the chain bodies are counted on as they come
            below, above = places[low] - places[low + 1], places[high] - places[high - 1]
            places |= {low - k: places[low] + k * below for k in (1, 2)} | {high + k: places[high] + k * above for k in (1, 2, 3)}
        bodies = {i: 0.5 * (places[i - 1] + places[i]) for i in places if i - 1 in places}
        return [self._nearest(bodies, mark) for mark in marks]

    @staticmethod
    def _nearest(bodies, mark):
        away = {i: float(np.hypot(*(place - (mark.y, mark.z)))) for i, place in bodies.items()}
        nearest = min(away, key=away.get, default=NOBODY)
        return nearest if away and away[nearest] < REACH and nearest < len(LEVELS) else NOBODY
