"""The radiograph: attenuation, posture and what must be seen on it."""

import numpy as np
import pytest

from lab import xray
from lab.anatomy import S1, Subject
from lab.tissue import NAMES


def test_attenuation__covers_every_tissue_in_the_known_order():
    assert set(xray.ATTENUATION) == set(NAMES)
    a = xray.ATTENUATION
    assert a["air"] == 0 < a["fat"] < a["fluid"] < a["muscle"] < a["marrow_water"] < a["cortical"]
    assert 1.15 * 0.21 <= a["marrow_fat"] < a["marrow_water"] <= 1.3 * 0.21 + 1e-9


def test_standing__adds_slope_and_lordosis_and_changes_nothing_else():
    lying, standing = Subject(8), Subject(8, posture=6.0)
    assert standing.slope == pytest.approx(lying.slope + 6)
    assert standing.lordosis > lying.lordosis
    assert standing.grades == lying.grades and standing.bodies[S1 + 1].depth == lying.bodies[S1 + 1].depth


def test_radiograph__shows_bodies_brighter_than_discs_and_follows_the_seed():
    image, subject = xray.radiograph(300_000_777, 128, 300.0)
    again, _ = xray.radiograph(300_000_777, 128, 300.0)
    assert np.array_equal(image, again)
    assert image.min() >= 0 and image.max() <= 1
    pixel = 300.0 / 128

    def at(y, z):
        j = int(round((y - subject.centre[0]) / pixel + 63.5))
        i = int(round((subject.centre[1] - z) / pixel + 63.5))
        return image[i - 1:i + 2, j - 1:j + 2].mean()

    gains = [at(b.frame.y, b.frame.z) - at(d.frame.y, d.frame.z)
             for b, d in zip(subject.bodies[S1 + 1:S1 + 5], subject.discs[S1 + 1:S1 + 5])]
    assert np.median(gains) > 0.03
