"""What the reader finds in native and in synthetic images, and whether the model could have known.

A lesion counts as carried by the source where an observer who is given the reader's measurements of
the native source alone names what the reader sees in the native target with a probability of at
least SURE.  The observer knows the Gaussian spread of those measurements among validation endplates
that look darker, as healthy, or brighter on the target; nothing better can be made of these
measurements.  A lesion counts as visible on the source where the reader, with its rule for the
source's contrast, reads the source as ill there: visible, but what it looks like on the target may
still be open (oedema and fat are both bright on T2).
"""

import numpy as np

from . import agreement
from .reader import CLASSES, S1

SURE = 0.9
LEVELS = {"disc L5-S1": S1, "disc L4-L5": S1 + 1}


def by_place(readings, finding):
    """{(seed, slice, place): Reading} of one finding."""
    return {(seed, k) + r.place: r for seed, k, r in readings if r.finding == finding}


class Observer:
    """Probability of each reading of the target, from the measurements of the source at the same endplate."""

    def __init__(self, source, target_readings):
        x, y = np.asarray(source, float), np.asarray(target_readings)
        self.classes = CLASSES["modic"]
        common = np.mean([np.cov(x[y == c].T) * np.sum(y == c) for c in self.classes if np.sum(y == c) > 3], 0) * 3 / len(y)
        self.parts = []
        for c in self.classes:
            n = int(np.sum(y == c))
            if n <= 3:
                self.parts.append(None)
                continue
            spread = (np.cov(x[y == c].T) * n + 10 * common) / (n + 10)  # few lesions: lean on the common spread
            self.parts.append((np.log(n / len(y)), x[y == c].mean(0), np.linalg.inv(spread), np.log(np.linalg.det(spread))))

    def __call__(self, source):
        """(places, classes) probabilities."""
        x = np.atleast_2d(np.asarray(source, float))
        score = np.full((len(x), len(self.classes)), -1e9)
        for j, part in enumerate(self.parts):
            if part:
                prior, middle, inverse, size = part
                d = x - middle
                score[:, j] = prior - 0.5 * np.einsum("ij,jk,ik->i", d, inverse, d) - 0.5 * size
        score = np.exp(score - score.max(1, keepdims=True))
        return score / score.sum(1, keepdims=True)


class Reader:
    """The rules for each contrast, fitted on native images of validation subjects, and the observers."""

    def __init__(self, validation, enriched):
        """{contrast: [(seed, slice, Reading)]}: of ordinary subjects, and of subjects with many findings.

        Discs and protrusions are fitted on ordinary subjects, so that grades come as often as they do; lesions, which
        are rare, on both.
        """
        self.rules, self.validation = {}, validation
        for contrast, readings in validation.items():
            self.rules[contrast] = {}
            for finding in CLASSES:
                known = list(readings) + (list(enriched[contrast]) if finding in ("modic", "fracture") else [])
                self.rules[contrast][finding] = agreement.fit(finding, [r for _, _, r in known if r.finding == finding])

    def read(self, contrast, places):
        """Readings at {key: Reading}, in the order of its keys."""
        if not places:
            return np.zeros(0, int)
        finding = next(iter(places.values())).finding
        return self.rules[contrast][finding].read([r.features for r in places.values()])

    def observer(self, source, target):
        a, b = by_place(self.validation[source], "modic"), by_place(self.validation[target], "modic")
        keys = [k for k in a if k in b]
        return Observer([a[k].features for k in keys], self.read(target, {k: b[k] for k in keys}))


def common(*sides):
    """The same places of several {key: Reading}."""
    keys = [k for k in sides[0] if all(k in s for s in sides)]
    return [{k: s[k] for k in keys} for s in sides] + [[k[0] for k in keys]]


def compare(reader, contrast, native, synthetic):
    """Rows of agreement for every finding: native against synthetic, and either against the truth."""
    rows = []
    for finding, classes in CLASSES.items():
        a, b, groups = common(by_place(native, finding), by_place(synthetic, finding))
        if not a:
            continue
        first, second, groups = reader.read(contrast, a), reader.read(contrast, b), np.array(groups)
        truth = np.array([r.truth for r in a.values()])
        levels = np.array([k[2] for k in a])
        rows.append(_row(finding, first, second, truth, groups, classes))
        if finding == "disc":
            for name, level in LEVELS.items():
                at = levels == level
                rows.append(_row(name, first[at], second[at], truth[at], groups[at], classes))
    return rows


def _row(name, native, synthetic, truth, groups, classes):
    """Sensitivity and specificity: of the synthetic image for what the native one shows; ill discs are those of the worst class."""
    ill = (lambda v: v == max(classes)) if name.startswith("disc") else (lambda v: v != 0)
    there = ill(native)
    return {"finding": name, "kappa": agreement.kappa(native, synthetic, groups, classes),
            "sensitivity": agreement.share(ill(synthetic)[there], groups[there]),
            "specificity": agreement.share(~ill(synthetic)[~there], groups[~there]),
            "native_truth": agreement.kappa(native, truth, groups, classes), "synthetic_truth": agreement.kappa(synthetic, truth, groups, classes)}


def lesions(reader, observer, task, source, native, synthetic):
    """What becomes of endplate lesions: {"carried", "visible", "all", "invented", …}, shares with intervals.

    A lesion is one that the phantom has and that the reader sees on the native target; it is found where the
    synthetic image is read the same way (darker or brighter).
    """
    s, a, b, groups = common(*(by_place(r, "modic") for r in (source, native, synthetic)))
    groups = np.array(groups)
    on_source, seen, shown = reader.read(task.source, s), reader.read(task.target, a), reader.read(task.target, b)
    truth, healthy = np.array([r.truth for r in a.values()]), np.array([r.healthy for r in a.values()])
    guess = observer([r.features for r in s.values()])
    lesion = (truth != 0) & (seen != 0)
    carried, visible = lesion & (guess[:, [0, 2]].max(1) >= SURE), lesion & (on_source != 0)
    best = np.array(observer.classes)[guess.argmax(1)]

    def found(which, readings):
        return agreement.share((readings == seen)[which], groups[which])

    return {"carried": found(carried, shown), "carried_observer": found(carried, best), "visible": found(visible, shown),
            "visible_observer": found(visible, best), "all": found(lesion, shown), "all_observer": found(lesion, best),
            "invented": agreement.share((shown != 0)[healthy], groups[healthy]),
            "invented_native": agreement.share((seen != 0)[healthy], groups[healthy])}


def hidden(reader, task, source, native, synthetic):
    """The set whose lesions the source does not show: how often each image is read as ill at lesions, and at healthy endplates."""
    s, a, b, groups = common(*(by_place(r, "modic") for r in (source, native, synthetic)))
    groups = np.array(groups)
    ill = [reader.read(c, r) != 0 for c, r in ((task.source, s), (task.target, a), (task.target, b))]
    lesion = np.array([not r.healthy and r.truth != 0 for r in a.values()])
    healthy = np.array([r.healthy for r in a.values()])
    names = ("source", "native", "synthetic")
    return {**{n: agreement.share(v[lesion], groups[lesion]) for n, v in zip(names, ill)},
            "invented": agreement.share(ill[2][healthy], groups[healthy])}
