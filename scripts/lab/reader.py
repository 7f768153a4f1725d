"""A transparent automatic reader: rules on signal ratios at the known discs and endplates.

It looks at one slice of known anatomy and gives scores; thresholds turn them into readings.  The
rules and thresholds are the same for a native and a synthetic image, so that their agreement
(Cohen's kappa) measures what the synthesis kept, not how good the reader is.  Thresholds are set on
native images of validation subjects against the phantom's truth, never on test subjects.
"""

from dataclasses import dataclass

import numpy as np

from .anatomy import S1
from .metrics import kappa

DISCS = range(S1, S1 + 5)


class Slice:
    """An image with the geometry that is needed to find things on it; values in [0, 1]."""

    def __init__(self, image, subject, x, field_mm):
        self.image, self.s, self.x = image, subject, x
        n = image.shape[0]
        self.pixel = field_mm / n
        self.y0 = subject.centre[0] - (n - 1) / 2.0 * self.pixel
        self.z0 = subject.centre[1] + (n - 1) / 2.0 * self.pixel

    def values(self, frame, p, q):
        """Pixels within low < p < high and low < q < high of a local frame (mm)."""
        reach = max(abs(v) for v in (*p, *q)) * 1.5 + 2
        j = [int(np.floor((frame.y - reach - self.y0) / self.pixel)), int(np.ceil((frame.y + reach - self.y0) / self.pixel))]
        i = [int(np.floor((self.z0 - frame.z - reach) / self.pixel)), int(np.ceil((self.z0 - frame.z + reach) / self.pixel))]
        n = self.image.shape[0]
        j, i = np.clip(j, 0, n), np.clip(i, 0, n)
        dy = (self.y0 + np.arange(*j) * self.pixel - frame.y)[None, :]
        dz = (self.z0 - np.arange(*i) * self.pixel - frame.z)[:, None]
        a, b = dy * frame.c + dz * frame.s, dz * frame.c - dy * frame.s
        mask = (a > p[0]) & (a < p[1]) & (b > q[0]) & (b < q[1])
        return self.image[i[0]:i[1], j[0]:j[1]][mask]

    def middle(self, frame, p, q):
        """Median of a region, or nan where it lies outside the image."""
        v = self.values(frame, p, q)
        return float(np.median(v)) if len(v) >= 4 else float("nan")


def scores(image, subject, x, field_mm):
    """Scores of one slice: {"disc": [...], "protrusion": [...], "modic": [...]} with a key and a truth each.

    disc: nucleus against marrow and canal; protrusion: canal behind the disc against canal behind the
    bodies; modic: marrow at the endplate against the middle of the same body (log ratios).
    """
    view = Slice(image, subject, x, field_mm)
    eps = 0.02
    out = {"disc": [], "protrusion": [], "modic": []}
    for i in DISCS:
        disc, lower, upper = subject.discs[i], subject.bodies[i], subject.bodies[i + 1]
        half_p, half_q = 0.20 * disc.depth, max(0.22 * disc.height, 0.8)
        nucleus = view.middle(disc.frame, (-half_p + 1, half_p + 1), (-half_q, half_q))
        canal = []
        for body in (lower, upper):
            low = 0.5 * body.depth + 0.35 * subject.canal
            v = view.values(body.frame, (low, low + 0.35 * subject.canal), (-5, 5))
            canal.append(np.median(v) if len(v) > 4 else np.nan)
        canal = np.nanmean(canal) if np.any(np.isfinite(canal)) else np.nan
        marrow = np.nanmean([view.middle(b.frame, (-0.25 * b.depth, 0.1 * b.depth), (-3, 3)) for b in (lower, upper)])
        if np.isfinite(nucleus) and np.isfinite(canal) and np.isfinite(marrow):
            value = np.log((nucleus + eps) / (0.5 * (canal + marrow) + eps))
            out["disc"].append(((i,), float(value), 0 if disc.grade <= 2 else 1 if disc.grade == 3 else 2))
            behind = 0.5 * disc.depth + disc.bulge
            v = view.values(disc.frame, (behind + 1.2, behind + 4.5), (-2.2, 2.2))
            if len(v) > 4:
                truth = 0
                if disc.protrusion:
                    reach, _, offset = disc.protrusion
                    lateral = abs(x - disc.x - offset) / (2.2 * reach + 2.0)
                    truth = int(lateral < 0.8 and reach * np.sqrt(max(0.0, 1 - lateral**2)) > 2.5)
                out["protrusion"].append(((i,), float(np.log((np.median(v) + eps) / (canal + eps))), truth))
        for body, sign, reach in ((upper, -1, disc.modic_reach[0]), (lower, 1, disc.modic_reach[1])):
            edge = float(body.top(np.float64(0)) if sign > 0 else body.bottom(np.float64(0)))
            q = sorted((sign * (edge - 1.4), sign * (edge - 4.4)))
            band = view.middle(body.frame, (-0.28 * body.depth, 0.28 * body.depth), q)
            core = view.middle(body.frame, (-0.28 * body.depth, 0.1 * body.depth), (-2.5, 2.5))
            if np.isfinite(band) and np.isfinite(core):
                out["modic"].append(((i, sign), float(np.log((band + eps) / (core + eps))), disc.modic if reach > 3 else 0))
    return out


@dataclass
class Rule:
    """Cuts that turn a score into a reading: number of cuts below it (order as the truth asks)."""

    cuts: tuple

    def read(self, values):
        return np.searchsorted(np.array(self.cuts), np.asarray(values))


def fit(values, truth, classes):
    """Cuts at which readings agree best with the truth (kappa), searched on quantiles of the scores."""
    values, truth = np.asarray(values), np.asarray(truth)
    order = np.argsort([np.median(values[truth == k]) if np.any(truth == k) else np.inf for k in range(classes)])
    grid = np.unique(np.quantile(values, np.linspace(0.02, 0.98, 49)))
    best, cuts = -2.0, (float(grid[0]),) * (classes - 1)
    options = [(c,) for c in grid] if classes == 2 else [(a, b) for a in grid for b in grid if a < b]
    for option in options:
        agreed = kappa(order[np.searchsorted(np.array(option), values)], truth, range(classes))[0]
        if np.isfinite(agreed) and agreed > best:
            best, cuts = agreed, tuple(float(c) for c in option)
    return Rule(cuts), order, best


def modic_rule(values, truth):
    """Two cuts around healthy endplates: at most 2 % of them lie outside."""
    healthy = np.asarray(values)[np.asarray(truth) == 0]
    return Rule((float(np.quantile(healthy, 0.01)), float(np.quantile(healthy, 0.99))))
