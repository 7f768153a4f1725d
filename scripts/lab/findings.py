"""What the reader finds in native and in synthetic images, and whether the model could have known.

An observer is given what the reader measures on the native source, and nothing else.  He knows how
these measurements are spread among validation places that the reader reads alike on the native
target (Student's densities, since a Gaussian's tails make him surer than he may be), and how often
each reading comes among ordinary subjects.  He says how probable each reading of the target is.

A lesion counts as carried by the source where this observer is right at least 9 times in 10: where
his probability of its being darker or brighter on the target passes a threshold, never below even
odds, beyond which his share of right answers is at least SURE by the lower end of its 95 % interval,
among lesions of validation subjects that he was not made of.  Where there is no such threshold the
source carries nothing.
A lesion counts as visible on the source where the reader, with its rule for the source's contrast,
reads the source as ill there: visible, but what it looks like on the target may still be open
(oedema and fat are both bright on T2).

What the observer's readings reach in kappa is what these measurements hold of a finding, not what the
whole image holds.
"""

import functools
import itertools

import numpy as np

from . import agreement
from .anatomy import Subject
from .reader import CLASSES, S1

SURE = 0.9
FREEDOM = 5          # of Student's densities
LEAN = 10            # places for which the spread common to all readings counts
LEAST_EXAMPLES = 8   # of a reading, to know how its measurements are spread
LEAST_SUBJECTS = 30  # with lesions beyond a threshold, to believe in it
FOLDS = 20
TRIED = tuple(k / 100 for k in range(50, 100))  # thresholds, the least first
LEVELS = {"disc L5-S1": S1, "disc L4-L5": S1 + 1}


def by_place(readings, finding):
    """{(seed, slice, place): Reading} of one finding."""
    return {(seed, k) + r.place: r for seed, k, r in readings if r.finding == finding}


def measurements(readings, finding):
    """{(seed, slice, place): what the reader measured on a source that may tell of a finding there}; nan where it could not.

    The place itself, the same place on all slices of the subject, and for an endplate the other one of its disc and
    the marrow beside the disc : canal.
    """
    own, discs, out = by_place(readings, finding), by_place(readings, "disc"), {}
    over = {}
    for key, r in own.items():
        over.setdefault((key[0], *key[2:]), []).append(r.features)
    for key, r in own.items():
        parts = [r.features, np.mean(over[(key[0], *key[2:])], 0)]
        if finding == "modic":
            other, disc = own.get((*key[:3], -key[3])), discs.get(key[:3])
            parts += [other.features[:1] if other else [np.nan], [disc.features[1] - disc.features[0]] if disc else [np.nan]]
        out[key] = np.concatenate(parts)
    return out


class Observer:
    """Probability of each reading of the target, from measurements of the source."""

    def __init__(self, source, readings, classes, prior=None):
        """prior: of each class, where the places given do not come as often as they do."""
        x, y = np.asarray(source, float), np.asarray(readings)
        known = np.isfinite(x).all(1)
        x, y, self.classes = x[known], y[known], classes
        self.prior = np.array([np.mean(y == c) for c in classes] if prior is None else prior)
        spreads = {c: np.atleast_2d(np.cov(x[y == c].T)) + 1e-4 * np.eye(x.shape[1]) for c in classes if np.sum(y == c) > LEAST_EXAMPLES}
        common = np.mean(list(spreads.values()), 0)
        self.parts = []
        for c in classes:
            if c not in spreads:
                self.parts.append(None)
                continue
            n = int(np.sum(y == c))
            spread = (spreads[c] * n + LEAN * common) / (n + LEAN)  # few lesions: lean on the common spread
            self.parts.append((x[y == c].mean(0), np.linalg.inv(spread), np.linalg.slogdet(spread)[1]))

    def __call__(self, source):
        """(places, classes) probabilities; those of ordinary subjects where something was not measured."""
        x = np.atleast_2d(np.asarray(source, float))
        known = np.isfinite(x).all(1)
        score = np.full((len(x), len(self.classes)), -1e9)
        for j, part in enumerate(self.parts):
            if part and self.prior[j] > 0:
                middle, inverse, size = part
                d = np.where(known[:, None], x, middle) - middle
                far = np.einsum("ij,jk,ik->i", d, inverse, d)
                score[:, j] = np.log(self.prior[j]) - 0.5 * size - 0.5 * (FREEDOM + x.shape[1]) * np.log1p(far / (FREEDOM - 2))
        score = np.exp(score - score.max(1, keepdims=True))
        return np.where(known[:, None], score / score.sum(1, keepdims=True), self.prior)


def held_out(source, readings, groups, classes, prior=None):
    """As an Observer's probabilities, each subject by an observer who was made of others (one of FOLDS parts of them left out)."""
    source, readings = np.asarray(source, float), np.asarray(readings)
    fold = np.unique(groups, return_inverse=True)[1] % FOLDS
    out = np.zeros((len(source), len(classes)))
    for k in np.unique(fold):
        out[fold == k] = Observer(source[fold != k], readings[fold != k], classes, prior)(source[fold == k])
    return out


class Threshold:
    """From which probability on an observer may be believed, by lesions of subjects that he was not made of."""

    def __init__(self, sure, right, groups):
        """sure: his probability of the likelier ill reading, right: was it that, groups: subjects."""
        sure, right, groups = np.asarray(sure, float), np.asarray(right, bool), np.asarray(groups)
        self.least, self.right, self.claimed, self.subjects = np.inf, agreement.share([], []), float("nan"), 0
        for least in TRIED:
            beyond = sure >= least
            subjects = len(np.unique(groups[beyond]))
            if subjects < LEAST_SUBJECTS:
                break
            share = agreement.share(right[beyond], groups[beyond])
            if share[1] >= SURE:
                self.least, self.right, self.claimed, self.subjects = least, share, float(sure[beyond].mean()), subjects
                break


def best_offsets(probabilities, readings, classes, weights):
    """What to add to the logarithms of probabilities so that the likeliest class agrees best with the readings, by weighted kappa."""
    scores, best, out = np.log(np.maximum(probabilities, 1e-9)), -2.0, np.zeros(len(classes))
    seen = np.searchsorted(classes, readings)
    for offsets in itertools.product([0.0], *[np.linspace(-3, 3, 13)] * (len(classes) - 1)):
        guess = (scores + offsets).argmax(1)
        t = np.bincount(guess * len(classes) + seen, weights, len(classes) ** 2).reshape(len(classes), -1) / weights.sum()
        chance = float(t.sum(0) @ t.sum(1))
        if chance < 1 and (np.trace(t) - chance) / (1 - chance) > best:
            best, out = (np.trace(t) - chance) / (1 - chance), np.array(offsets)
    return out


class Expert:
    """An Observer for a finding with what was found of him on validation subjects: his threshold, and how he reads."""

    def __init__(self, finding, source, readings, truth, groups, weights):
        """weights: of each place, so that together they come as often as among ordinary subjects."""
        self.classes = CLASSES[finding]
        readings, groups, weights = np.asarray(readings), np.asarray(groups), np.asarray(weights, float)
        prior = [weights[readings == c].sum() / weights.sum() for c in self.classes]
        probable = held_out(source, readings, groups, self.classes, prior)
        self.observer = Observer(source, readings, self.classes, prior)
        self.offsets = best_offsets(probable, readings, self.classes, weights)
        sure, way = self.way(probable)
        lesion = (np.asarray(truth) != 0) & (readings != 0)
        self.threshold = Threshold(sure[lesion], (way == readings)[lesion], groups[lesion])

    def way(self, probable):
        """(probability, class) of the likelier ill reading."""
        ill = [j for j, c in enumerate(self.classes) if c]
        return probable[:, ill].max(1), np.array(self.classes)[ill][probable[:, ill].argmax(1)]

    def read(self, source):
        """The readings of the target that agree best with the reader's."""
        scores = np.log(np.maximum(self.observer(source), 1e-9)) + self.offsets
        return np.array(self.classes)[scores.argmax(1)]


class Reader:
    """The rules for each contrast, fitted on native images of validation subjects, and the observers."""

    def __init__(self, validation, enriched, lesions=None):
        """{contrast: [(seed, slice, Reading)]}: of ordinary subjects, of subjects with many findings, and of others with lesions.

        Discs and protrusions are fitted on ordinary subjects, so that grades come as often as they do; lesions, which
        are rare, on both.  Observers know ordinary subjects, and more of those among whom there are Modic changes by chance.
        """
        self.lesions = lesions or {c: [] for c in validation}
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

    @functools.cache
    def expert(self, source, target, finding="modic"):
        """The Expert who sees the source and names what the reader reads on the target."""
        a, b = ([*self.validation[c], *self.lesions[c]] for c in (source, target))
        weights = weights_of({seed for seed, _, _ in self.validation[source]}, {seed for seed, _, _ in self.lesions[source]})
        a, b = measurements(a, finding), by_place(b, finding)
        keys = [k for k in a if k in b]
        b = {k: b[k] for k in keys}
        return Expert(finding, [a[k] for k in keys], self.read(target, b), [r.truth for r in b.values()], [k[0] for k in keys], [weights[k[0]] for k in keys])


def weights_of(ordinary, chosen):
    """{seed: weight}: subjects with Modic changes count as they would if only ordinary ones were there, with the chosen among them."""
    ill = {seed for seed in ordinary if Subject(seed).modics} | set(chosen)
    share = len(ill - set(chosen)) / len(ordinary)
    return {seed: share / len(ill) if seed in ill else 1.0 / len(ordinary) for seed in set(ordinary) | ill}


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


def bounds(reader, task, source, native, which=("disc", "modic")):
    """{finding: kappa, as of compare()} of what an observer of the source's measurements alone reads, with the native target."""
    out = {}
    for finding in which:
        expert = reader.expert(task.source, task.target, finding)
        s, a, groups = common(measurements(source, finding), by_place(native, finding))
        if not a:
            continue
        guess, seen, groups = expert.read(list(s.values())), reader.read(task.target, a), np.array(groups)
        out[finding] = agreement.kappa(seen, guess, groups, expert.classes)
        levels = np.array([k[2] for k in a])
        for name, level in LEVELS.items() if finding == "disc" else ():
            at = levels == level
            out[name] = agreement.kappa(seen[at], guess[at], groups[at], expert.classes)
    return out


def lesions(reader, task, source, native, synthetic):
    """What becomes of endplate lesions: {"carried", "visible", "all", "invented", …}, shares with intervals.

    A lesion is one that the phantom has and that the reader sees on the native target; it is found where the
    synthetic image is read the same way (darker or brighter).
    """
    expert = reader.expert(task.source, task.target)
    s, m, a, b, groups = common(by_place(source, "modic"), measurements(source, "modic"), *(by_place(r, "modic") for r in (native, synthetic)))
    groups = np.array(groups)
    on_source, seen, shown = reader.read(task.source, s), reader.read(task.target, a), reader.read(task.target, b)
    truth, healthy = np.array([r.truth for r in a.values()]), np.array([r.healthy for r in a.values()])
    guess = expert.observer(list(m.values()))
    sure, way = expert.way(guess)
    lesion = (truth != 0) & (seen != 0)
    carried, visible = lesion & (sure >= expert.threshold.least), lesion & (on_source != 0)
    best = np.array(expert.classes)[guess.argmax(1)]

    def found(which, readings):
        return agreement.share((readings == seen)[which], groups[which])

    return {"carried": found(carried, shown), "carried_observer": found(carried, way), "visible": found(visible, shown),
            "visible_observer": found(visible, best), "all": found(lesion, shown), "all_observer": found(lesion, best),
            "invented": agreement.share((shown != 0)[healthy], groups[healthy]),
            "invented_native": agreement.share((seen != 0)[healthy], groups[healthy]),
            "threshold": expert.threshold, "claimed": float(sure[carried].mean()) if carried.any() else float("nan"),
            "subjects": len(np.unique(groups[carried])), "others": int(np.sum(~lesion & (sure >= expert.threshold.least)))}


def hidden(reader, task, source, native, synthetic, absent=None):
    """The set whose lesions the source does not show: how often each image is read as ill at lesions, and at healthy endplates.

    absent: (native, synthetic) readings of the same subjects without the lesions; how often they are read as ill at the same places.
    """
    sides = [by_place(r, "modic") for r in (source, native, synthetic, *(absent or ()))]
    s, a, b, *without, groups = common(*sides)
    groups = np.array(groups)
    ill = [reader.read(c, r) != 0 for c, r in ((task.source, s), (task.target, a), (task.target, b))]
    lesion = np.array([not r.healthy and r.truth != 0 for r in a.values()])
    healthy = np.array([r.healthy for r in a.values()])
    names = ("source", "native", "synthetic")
    control = {n: agreement.share((reader.read(task.target, r) != 0)[lesion], groups[lesion]) for n, r in zip(("absent_native", "absent"), without)}
    return {**{n: agreement.share(v[lesion], groups[lesion]) for n, v in zip(names, ill)}, **control,
            "invented": agreement.share(ill[2][healthy], groups[healthy])}
