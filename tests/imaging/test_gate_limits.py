"""The limits of a quality gate, from figures alone: what cannot pass its limit is not asked."""

import numpy as np
import pytest

from lab import gate


def limits_of(text):
    """{figure: (limit to mark, limit to refuse)} of the text of a gate."""
    return {w[1]: (float(w[2]), float(w[3])) for w in map(str.split, text.splitlines()) if w[0] == "limit"}


def fitted(**figures):
    rng = np.random.default_rng(0)
    ordinary, strange = rng.normal(0, 1, (60, 3, 100)), rng.normal(3, 1, (60, 3, 100))
    return limits_of(gate.fit(ordinary, {"noisy": strange}, {k.replace("_", "-"): v for k, v in figures.items()}, 0.01, (100, 600)))


def test_figure__whose_limit_cannot_be_passed_is_left_out():
    """As under radiographs: blocks that look moved are three in four, and none but all of them would be too many."""
    rng = np.random.default_rng(1)
    high, low = np.clip(rng.normal(0.7, 0.1, 60), 0, 0.9), np.clip(rng.normal(0.1, 0.03, 60), 0, 1)
    assert set(fitted(moved=high, structure=low)) == {"unlike", "structure"}
    limits = fitted(moved=low, structure=low)
    assert set(limits) == {"unlike", "structure", "moved"} and limits["moved"][1] < 1
    assert fitted(downsampled=10 * high)["downsampled"][1] > 1  # no share: it may be as large as it likes


def test_rate__is_divided_among_the_figures_that_are_asked():
    rng = np.random.default_rng(2)
    high, low = np.clip(rng.normal(0.7, 0.1, 60), 0, 0.9), np.clip(rng.normal(0.1, 0.03, 60), 0, 1)
    assert fitted(moved=high, structure=low)["structure"] == fitted(structure=low)["structure"]
    more = fitted(moved=low, structure=low)["structure"]
    assert more[0] > fitted(structure=low)["structure"][0] and more[1] == pytest.approx(more[0], rel=0.5)
