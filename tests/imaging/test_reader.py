"""The automatic reader sees, in native images, what the phantom put there."""

import numpy as np
import pytest

from lab import dataset, reader, testset
from lab.anatomy import S1


def case(offset, findings=None):
    return testset.draw(dataset.SPLITS["validation"] + offset, ("t1", "t2", "stir"), slices=1, size=256, findings=findings)


@pytest.fixture(scope="module")
def cases():
    return [case(3000 + k) for k in range(10)]


def collect(cases, contrast, name):
    entries = [e for c in cases for e in reader.scores(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)[name]]
    return np.array([s for _, s, _ in entries]), np.array([t for _, _, t in entries])


@pytest.mark.parametrize("contrast", ["t2", "stir"])
def test_disc__scores_fall_with_degeneration(cases, contrast):
    values, truth = collect(cases, contrast, "disc")
    assert np.median(values[truth == 0]) > np.median(values[truth == 2]) + 0.3
    _, _, agreement = reader.fit(values, truth, 3)
    assert agreement > 0.5


def test_protrusion__darkens_the_canal_behind_its_disc():
    found = []
    for k in range(30):
        c = case(4000 + k, {"protrusion"})
        for (i,), value, truth in reader.scores(c.images["t2"][0], c.subject, c.positions[0], c.field_mm)["protrusion"]:
            found.append((value, truth))
        if sum(t for _, t in found) >= 4:
            break
    values, truth = np.array(found).T
    assert np.median(values[truth == 1]) < np.median(values[truth == 0]) - 0.3


@pytest.mark.parametrize("kind,contrast,sign", [("modic1", "stir", 1), ("modic1", "t1", -1), ("modic2", "t1", 1), ("modic3", "t2", -1)])
def test_modic__moves_the_endplate_score_as_radiology_says(kind, contrast, sign):
    ill, healthy = [], []
    for k in range(30):
        c = case(5000 + k, {kind})
        for key, value, truth in reader.scores(c.images[contrast][0], c.subject, c.positions[0], c.field_mm)["modic"]:
            (ill if truth else healthy).append(value)
        if len(ill) >= 8:
            break
    assert sign * (np.median(ill) - np.median(healthy)) > 0.08


def test_rule__reads_by_its_cuts():
    rule = reader.Rule((-0.5, 0.5))
    assert list(rule.read([-1, 0, 1])) == [0, 1, 2]
    assert S1 in reader.DISCS
