"""The signal equations, against hand-worked values and the known order of brightness."""

import math

import numpy as np
import pytest

from lab import tissue
from lab.tissue import INDEX, Protocol


def protocol(contrast, tr, te, ti=None, train=15):
    return Protocol(contrast, tr, te, ti, train, 180.0, 200, 320, 256, 1, contrast)


T1 = protocol("t1", 600, 11, train=3)
T2 = protocol("t2", 4000, 100)
STIR = protocol("stir", 4500, 40, 160, 10)
TIRM = protocol("tirm", 5000, 60, 158, 12)


def brightness(p, marrow_fat=0.45):
    """Magnitude of every tissue, and of marrow as the mixture that it is."""
    water, fat = tissue.signals(p, tissue.standard_values())
    total = water + fat
    out = {name: abs(total[i]) for name, i in INDEX.items()}
    out["marrow"] = abs(marrow_fat * total[INDEX["marrow_fat"]] + (1 - marrow_fat) * total[INDEX["marrow_water"]])
    return out


def test_spin_echo__equals_the_equation_worked_by_hand():
    assert tissue.signal(T1, 856.0, 32.0, 80.0) == pytest.approx(
        0.8 * (1 - math.exp(-600 / 856)) * math.exp(-11 / 32), rel=1e-12)
    # TR = T1 ln 2 recovers one half; TE = T2 ln 4 leaves one quarter.
    p = protocol("t1", 1000 * math.log(2), 80 * math.log(4))
    assert tissue.signal(p, 1000.0, 80.0, 100.0) == pytest.approx(0.125, rel=1e-12)


def test_inversion_recovery__is_null_where_theory_says():
    t1, tr = 235.0, 5000.0
    null = t1 * (math.log(2) - math.log1p(math.exp(-tr / t1)))
    assert tissue.signal(protocol("stir", tr, 40, null), t1, 60.0, 100.0) == pytest.approx(0, abs=1e-12)
    before = tissue.signal(protocol("stir", tr, 40, 0.5 * null), t1, 60.0, 100.0)
    after = tissue.signal(protocol("stir", tr, 40, 2 * null), t1, 60.0, 100.0)
    assert before < 0 < after


def test_fat__is_shifted_apart_from_water_and_outlasts_a_long_train():
    water, fat = tissue.signals(T2, tissue.standard_values())
    for name, i in INDEX.items():
        assert (fat[i] == 0) or (water[i] == 0), name
    single = tissue.signals(protocol("t2", 4000, 100, train=1), tissue.standard_values())[1]
    assert fat[INDEX["fat"]] > 1.5 * single[INDEX["fat"]] > 0


@pytest.mark.parametrize("p,order", [
    (T1, ["fat", "marrow", "annulus", "csf", "cortical"]),
    (T1, ["fat", "muscle", "csf", "vessel"]),
    (T1, ["fat", "cord", "csf"]),
    (T1, ["marrow", "oedema", "csf"]),          # Modic I is dark on T1
    (T1, ["fat", "marrow", "sclerosis"]),       # Modic II is bright, III dark
    (T2, ["csf", "nucleus", "annulus", "ligament", "cortical"]),
    (T2, ["csf", "fat", "marrow", "muscle", "ligament"]),
    (T2, ["csf", "cord", "muscle"]),
    (T2, ["nucleus", "dry_disc"]),
    (T2, ["oedema", "marrow", "sclerosis"]),    # Modic I is bright on T2, III dark
    (T2, ["marrow_fat", "marrow"]),             # Modic II is bright on T2
    (STIR, ["csf", "oedema", "marrow", "fat"]),
    (STIR, ["nucleus", "dry_disc", "fat"]),
    (STIR, ["oedema", "marrow", "marrow_fat"]),  # Modic I bright, II dark
    (STIR, ["oedema", "sclerosis"]),
    (TIRM, ["csf", "oedema", "marrow", "fat"]),
    (TIRM, ["nucleus", "muscle", "fat"]),
])
def test_brightness__follows_the_order_radiologists_know(p, order):
    b = brightness(p)
    for brighter, darker in zip(order, order[1:]):
        assert b[brighter] > 1.03 * b[darker], (p.contrast, brighter, darker, b[brighter], b[darker])


def test_protocols__stay_in_the_ranges_in_clinical_use():
    limits = {"t1": (500, 700, 9, 14, None), "t2": (3000, 5200, 90, 120, None), "t2-fast": (3000, 5200, 90, 120, None),
              "stir": (3500, 5500, 30, 48, (140, 165)), "tirm": (3500, 6000, 55, 72, (140, 165))}
    for contrast, (tr0, tr1, te0, te1, ti) in limits.items():
        for seed in range(40):
            p = tissue.sample_protocol(contrast, np.random.default_rng(seed))
            assert tr0 <= p.tr <= tr1 and te0 <= p.te <= te1, p
            assert (p.ti is None) == (ti is None)
            assert ti is None or ti[0] <= p.ti <= ti[1]
    with pytest.raises(ValueError, match="unknown contrast"):
        tissue.sample_protocol("flair", np.random.default_rng(0))


def test_values__differ_between_subjects_but_not_between_calls():
    one = tissue.sample_values(np.random.default_rng([5, 2]))
    same = tissue.sample_values(np.random.default_rng([5, 2]))
    other = tissue.sample_values(np.random.default_rng([6, 2]))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert np.all(one[:, :2] > 0)
