"""From what the reader measured to readings, and from readings to how far they agree.

Rules are fitted on native images of validation subjects.  Intervals resample whole subjects, since
slices and endplates of one person are not independent.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from . import metrics
from .reader import CLASSES

HEALTHY_SHARE = 0.01  # of healthy endplates on native validation images may be read as ill: half on either side
DRAWS = 2000


@dataclass
class Rule:
    """One question for each class but the healthy one: a weighted sum of features, and a cut.

    disc: grade 3 or worse? 4 or worse?  modic: darker? brighter?  fracture: wedge? biconcave?
    """

    finding: str
    weights: np.ndarray  # (features + 1, questions); the last row is the constant
    cuts: tuple

    def score(self, features):
        features = np.atleast_2d(np.asarray(features, float))
        return np.concatenate([features, np.ones((len(features), 1))], 1) @ self.weights

    def read(self, features):
        return decide(self.finding, self.score(features) - np.array(self.cuts))


def decide(finding, above):
    """Readings from (places, questions) scores less their cuts."""
    if finding in ("disc", "protrusion"):  # the worst grade that is passed
        passed = above > 0
        return np.where(passed.any(1), passed.shape[1] - np.argmax(passed[:, ::-1], 1), 0)
    others = np.array([c for c in CLASSES[finding] if c])
    return np.where(above.max(1) > 0, others[above.argmax(1)], 0)


def _regress(features, targets):
    """Ridge regression in which both answers weigh the same."""
    x = np.concatenate([features, np.ones((len(features), 1))], 1)
    weight = np.zeros(len(x))
    for value in np.unique(targets):
        weight[targets == value] = 1.0 / np.sum(targets == value)
    a = x * weight[:, None]
    ridge = 1e-3 * np.diag([1.0] * features.shape[1] + [0.0])
    return np.linalg.solve(x.T @ a + ridge, a.T @ targets)


def fit(finding, readings):
    """The Rule for a finding, from the native readings of validation subjects."""
    features = np.array([r.features for r in readings], float)
    truth = np.array([r.truth for r in readings])
    classes = CLASSES[finding]
    ordered = finding in ("disc", "protrusion")
    answers = [truth >= c if ordered else truth == c for c in classes if c]
    rule = Rule(finding, np.stack([_regress(features, t.astype(float)) for t in answers], 1), ())
    score = rule.score(features)
    if finding in ("modic", "fracture"):  # lesions are rare: a cut that keeps false alarms rare
        healthy = score[[r.healthy for r in readings]]
        rule.cuts = tuple(float(c) for c in np.quantile(healthy, 1 - HEALTHY_SHARE / 2, axis=0))
        return rule
    grids = [np.quantile(column, np.linspace(0.02, 0.995, 40 if len(answers) > 1 else 80)) for column in score.T]
    best = -2.0
    for cuts in itertools.product(*grids):
        agreed = metrics.kappa(decide(finding, score - np.array(cuts)), truth, classes)[0]
        if np.isfinite(agreed) and agreed > best:
            best, rule.cuts = agreed, tuple(float(c) for c in cuts)
    return rule


def kappa(first, second, groups, classes):
    """(kappa, low, high, n): the interval by resampling subjects; nan where there is nothing to agree on."""
    first, second, groups = np.asarray(first), np.asarray(second), np.asarray(groups)
    value, _, _, n = metrics.kappa(first, second, classes)
    if not n or not np.isfinite(value):
        return float("nan"), float("nan"), float("nan"), n
    names, index = np.unique(groups, return_inverse=True)
    k = len(classes)
    place = {c: i for i, c in enumerate(classes)}
    cell = np.array([place[a] * k + place[b] for a, b in zip(first, second)])
    tables = np.zeros((len(names), k * k))
    np.add.at(tables, (index, cell), 1)
    picks = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    counts = np.stack([np.bincount(p, minlength=len(names)) for p in picks]) @ tables
    t = (counts / counts.sum(1, keepdims=True)).reshape(-1, k, k)
    agreed, chance = np.trace(t, axis1=1, axis2=2), (t.sum(2) * t.sum(1)).sum(1)
    values = (agreed - chance)[chance < 1] / (1 - chance)[chance < 1]
    return value, float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5)), n


def share(hits, groups):
    """(share, low, high, n) of true entries: by resampling subjects, or Wilson's where all are alike."""
    hits = np.asarray(hits, float)
    n = len(hits)
    if n == 0:
        return float("nan"), float("nan"), float("nan"), 0
    value, low, high = metrics.bootstrap(hits, groups, DRAWS)
    if low == high:
        z = 1.96
        centre, half = (value + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(value * (1 - value) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        low, high = max(0.0, centre - half), min(1.0, centre + half)
    return value, low, high, n
