"""A transparent automatic reader: rules on signal ratios and shapes at the known discs and endplates.

It looks at one slice of known anatomy (which vertebra is where: what a reader who counts levels
knows), measures a few features of each disc, endplate and body in the image, and combines them by
weights and cuts into readings.  Features, weights and cuts are the same for a native and a
synthetic image, so that their agreement (Cohen's kappa) measures what the synthesis kept, not how
good the reader is.  Weights and cuts are set on native images of validation subjects against the
phantom's truth, never on test subjects and never on synthetic images.

| finding    | read at            | features                                                          | readings                   |
|---|---|---|---|
| disc       | L5-S1 to L1-L2     | nucleus : marrow, nucleus : canal, nucleus : front annulus, height | grade 1-2, 3, 4-5          |
| protrusion | behind those       | canal behind the disc : canal behind the bodies, depth of the dent | no, yes                    |
| modic      | their endplates    | marrow at the endplate : middle of the body, : other bodies        | darker, as healthy, brighter |
| fracture   | L5 to T11          | front, middle and back height against the neighbours' and each other | no, wedge, biconcave     |

Heights are distances between endplates that are found as edges in the image: a path of steepest
descent from marrow to endplate, across the body.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import BODY, LEVELS, S1

DISCS = range(S1, S1 + 5)
BODIES = range(S1 + 1, S1 + 8)
CLASSES = {"disc": (0, 1, 2), "protrusion": (0, 1), "modic": (-1, 0, 1), "fracture": (0, 1, 2)}
# What a lesion of Modic type I, II, III does to the marrow's brightness in each contrast.
MODIC_SIGN = {"t1": (0, -1, 1, -1), "t2": (0, 1, 1, -1), "stir": (0, 1, -1, -1), "tirm": (0, 1, -1, -1)}
EPS = 0.02


@dataclass
class Reading:
    """One place of one slice: what was measured there, and what the phantom put there."""

    finding: str
    place: tuple
    features: tuple
    truth: int
    healthy: bool


class Slice:
    """An image with the geometry that is needed to find things on it; values in [0, 1]."""

    def __init__(self, image, subject, x, y0, z0, pixel):
        """y0, z0: place of the first pixel; columns run to the back, rows to the feet, pixel mm apart."""
        self.image, self.s, self.x = np.asarray(image, np.float32), subject, x
        self.y0, self.z0, self.pixel = y0, z0, pixel

    @staticmethod
    def of_field(image, subject, x, field_mm):
        """A square image about the subject's centre."""
        n = image.shape[0]
        half = (n - 1) / 2.0 * field_mm / n
        return Slice(image, subject, x, subject.centre[0] - half, subject.centre[1] + half, field_mm / n)

    def values(self, frame, p, q):
        """Pixels within low < p < high and low < q < high of a local frame (mm)."""
        reach = max(abs(v) for v in (*p, *q)) * 1.5 + 2
        j = [int(np.floor((frame.y - reach - self.y0) / self.pixel)), int(np.ceil((frame.y + reach - self.y0) / self.pixel))]
        i = [int(np.floor((self.z0 - frame.z - reach) / self.pixel)), int(np.ceil((self.z0 - frame.z + reach) / self.pixel))]
        j, i = np.clip(j, 0, self.image.shape[1]), np.clip(i, 0, self.image.shape[0])
        dy = (self.y0 + np.arange(*j) * self.pixel - frame.y)[None, :]
        dz = (self.z0 - np.arange(*i) * self.pixel - frame.z)[:, None]
        a, b = dy * frame.c + dz * frame.s, dz * frame.c - dy * frame.s
        mask = (a > p[0]) & (a < p[1]) & (b > q[0]) & (b < q[1])
        return self.image[i[0]:i[1], j[0]:j[1]][mask]

    def middle(self, frame, p, q):
        """Median of a region, or nan where it lies outside the image."""
        v = self.values(frame, p, q)
        return float(np.median(v)) if len(v) >= 4 else float("nan")

    def patch(self, frame, p, q):
        """The image resampled on a grid of local coordinates, (len(q), len(p)); nan outside."""
        y, z = frame.at(np.asarray(p)[None, :], np.asarray(q)[:, None])
        return ndimage.map_coordinates(self.image, [(self.z0 - z) / self.pixel, (y - self.y0) / self.pixel], order=1, cval=np.nan)


STEP_P, STEP_Q = 1.0, 0.5


def endplate(view, body, sign, contrast):
    """Distance (mm) from the body's centre to an endplate, at depths p; sign 1 is the upper one.

    The path across the body along which marrow gives way most clearly to endplate and disc: on T1 and T2
    it falls off steeply; where fat is nulled, marrow is dark, and what counts is the thin darker line and
    the rise beyond it.  The path may move by one step (0.5 mm) for each step (1 mm) across.  Returns
    (p, distance) or None outside the image.  The search runs from a tenth to six tenths of the body's
    depth, whatever its height.
    """
    p = np.arange(-0.42 * body.depth, 0.42 * body.depth + 0.1, STEP_P)
    far = np.arange(0.10 * body.depth, 0.60 * body.depth, STEP_Q)
    inner, outer = 5, 7
    q = np.arange(far[0] - inner * STEP_Q, far[-1] + outer * STEP_Q + 0.1, STEP_Q)
    image = view.patch(body.frame, p, sign * q)
    if not np.isfinite(image).all():
        return None
    image = ndimage.uniform_filter1d(image, 3, axis=1)
    total = np.concatenate([np.zeros((1, len(p))), np.cumsum(image, 0)])
    k = np.arange(len(far)) + inner

    def mean(a, b):
        return (total[k + b] - total[k + a]) / (b - a)

    level = np.median(image[:4]) + 0.05
    if contrast in ("t1", "t2"):
        gain = mean(-3, 0) - mean(0, 2)
    else:
        before, line, beyond = mean(-5, 0), mean(0, 2), mean(2, 6)
        gain = 0.7 * (np.minimum(before, beyond) - line) + 0.7 * np.clip(beyond - before, 0, level)
    # Bodies may have collapsed, but none is taller than its level allows; the next body's endplate is not ours.
    off = (far[:, None] / (0.36 * body.depth) - 1.0) ** 2
    gain = gain / level - np.where(far[:, None] > 0.36 * body.depth, 3.0, 0.5) * off
    best, back = gain[:, 0], []
    for j in range(1, len(p)):
        padded = np.pad(best, 1, constant_values=-1e9)
        options = np.stack([padded[:-2] - 0.02, padded[1:-1], padded[2:] - 0.02])
        choice = np.argmax(options, 0)
        back.append(choice - 1)
        best = options[choice, np.arange(len(best))] + gain[:, j]
    at = int(np.argmax(best))
    path = [at]
    for step in reversed(back):
        at = int(np.clip(at + step[at], 0, len(far) - 1))
        path.append(at)
    return p, far[np.array(path[::-1])]


def heights(view, body, contrast):
    """(front, middle, back) height in mm between the endplates in the image, and the contours; None outside."""
    above, below = endplate(view, body, 1, contrast), endplate(view, body, -1, contrast)
    if above is None or below is None:
        return None
    share = above[0] / body.depth
    total = above[1] + below[1]
    return [float(np.mean(total[(share > a) & (share < b)])) for a, b in ((-0.42, -0.26), (-0.08, 0.14), (0.26, 0.42))], above, below


def _gap(lower, upper, low_contour, high_contour):
    """Height of the disc between two bodies' contours: mean distance along the lower body's axis, mid disc."""
    p, top = low_contour
    keep = np.abs(p) < 0.22 * lower.depth
    y, z = lower.frame.at(p[keep], top[keep])
    p2, bottom = high_contour
    y2, z2 = upper.frame.at(p2, -bottom)
    along = (y2 - lower.frame.y) * lower.frame.c + (z2 - lower.frame.z) * lower.frame.s
    up = (z2 - lower.frame.z) * lower.frame.c - (y2 - lower.frame.y) * lower.frame.s
    return float(np.mean(np.interp(p[keep], along, up) - top[keep]))


def read(view, contrast):
    """Every Reading of one Slice."""
    subject, out = view.s, []
    measured = {i: heights(view, subject.bodies[i], contrast) for i in range(S1, S1 + 9) if i < len(subject.bodies)}
    cores = {}
    for i in measured:
        b = subject.bodies[i]
        cores[i] = view.middle(b.frame, (-0.28 * b.depth, 0.1 * b.depth), (-2.5, 2.5))
    for i in DISCS:
        out += _disc(view, i, measured, cores)
        out += _endplates(view, i, cores, contrast)
    for i in BODIES:
        out += _fracture(i, subject, measured)
    return out


def _canal(view, body):
    """Median of the canal behind a body."""
    low = 0.5 * body.depth + 0.35 * view.s.canal
    return view.middle(body.frame, (low, low + 0.35 * view.s.canal), (-5, 5))


def _disc(view, i, measured, cores):
    s = view.s
    disc, lower, upper = s.discs[i], s.bodies[i], s.bodies[i + 1]
    half_p, half_q = 0.20 * disc.depth, 1.0
    nucleus = view.middle(disc.frame, (-half_p + 1, half_p + 1), (-half_q, half_q))
    rim = view.middle(disc.frame, (-0.46 * disc.depth, -0.36 * disc.depth), (-half_q, half_q))
    canal = np.array([_canal(view, lower), _canal(view, upper)])
    marrow = np.array([cores[i], cores[i + 1]])
    if not np.isfinite(nucleus + rim) or np.isnan(canal).all() or np.isnan(marrow).all() or not measured[i] or not measured[i + 1]:
        return []
    canal, marrow = float(np.nanmean(canal)), float(np.nanmean(marrow))
    gap = _gap(lower, upper, measured[i][1], measured[i + 1][2])
    size = 0.5 * (lower.depth + upper.depth)
    nominal = 0.29 * (1.0 - 0.10 * max(0, i - S1 - 1))  # discs are flatter higher up
    features = (np.log((nucleus + EPS) / (marrow + EPS)), np.log((nucleus + EPS) / (canal + EPS)),
                np.log((nucleus + EPS) / (rim + EPS)), np.log(max(gap, 1.0) / (nominal * size)))
    out = [Reading("disc", (i,), tuple(map(float, features)), 0 if disc.grade <= 2 else 1 if disc.grade == 3 else 2, disc.grade <= 2)]
    behind = 0.5 * disc.depth + 0.8
    near = view.middle(disc.frame, (behind + 1.2, behind + 4.5), (-2.2, 2.2))
    beyond = view.middle(disc.frame, (behind + 4.5, behind + 7.5), (-2.2, 2.2))
    if np.isfinite(near + beyond):
        truth = 0
        if disc.protrusion:
            reach, _, offset = disc.protrusion
            lateral = abs(view.x - disc.x - offset) / (2.2 * reach + 2.0)
            truth = int(lateral < 0.8 and reach * np.sqrt(max(0.0, 1 - lateral**2)) > 2.5)
        features = (np.log((near + EPS) / (canal + EPS)), np.log((beyond + EPS) / (canal + EPS)), np.log((near + EPS) / (nucleus + EPS)))
        out.append(Reading("protrusion", (i,), tuple(map(float, features)), truth, not disc.protrusion))
    return out


def _endplates(view, i, cores, contrast):
    s = view.s
    disc, out = s.discs[i], []
    others = np.array([v for k, v in cores.items() if k not in (i, i + 1)])
    typical = float(np.nanmedian(others)) if np.isfinite(others).any() else float("nan")
    for k, sign, reach in ((i + 1, -1, disc.modic_reach[0]), (i, 1, disc.modic_reach[1])):
        body = s.bodies[k]
        edge = float(body.top(np.float64(0)) if sign > 0 else body.bottom(np.float64(0)))
        q = sorted((sign * (edge - 1.6), sign * (edge - 4.6)))
        band = view.middle(body.frame, (-0.30 * body.depth, 0.30 * body.depth), q)
        if not np.isfinite(band + cores[k] + typical):
            continue
        features = (np.log((band + EPS) / (cores[k] + EPS)), np.log((band + EPS) / (typical + EPS)))
        truth = MODIC_SIGN[contrast][disc.modic] if reach > 3 else 0
        nodes = any((above and k == j + 1) or (not above and k == j) for j, above, _, _ in s.schmorls)
        healthy = not (disc.modic and reach > 0) and not nodes and not (body.fracture or body.oedema or body.haemangioma)
        out.append(Reading("modic", (i, sign), tuple(map(float, features)), truth, healthy))
    return out


def _fracture(i, subject, measured):
    if not all(measured.get(k) for k in (i - 1, i, i + 1)):
        return []
    # Against the neighbours, and against what is usual at this level (lumbar bodies are taller in front, thoracic behind).
    usual = []
    for at, place in enumerate(("front", "middle", "back")):
        expected = [measured[k][0][at] * _norm(i, place) / _norm(k, place) for k in (i - 1, i + 1)]
        usual.append(max(expected))
    front, middle, back = (float(np.log(h / u)) for h, u in zip(measured[i][0], usual))
    kind = {"": 0, "wedge": 1, "biconcave": 2}[subject.bodies[i].fracture]
    near = any(subject.bodies[k].fracture for k in (i - 1, i + 1))
    return [Reading("fracture", (i,), (front - back, front, middle - max(front, back), middle), kind, kind == 0 and not near)]


def _norm(i, place):
    """Height of a body in a textbook's spine, mm."""
    front, back = BODY[LEVELS[i]][:2]
    return {"front": front, "middle": 0.5 * (front + back), "back": back}[place]
