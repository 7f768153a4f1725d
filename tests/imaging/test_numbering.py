"""Vertebrae are named from an image alone: discs are found, and named as a chain from the sacrum."""

import copy
import dataclasses

import numpy as np
import pytest

from lab import dataset, numbering, projection, radiographs
from lab.canvas import Frame

VALIDATION = dataset.SPLITS["validation"] + 8000


@pytest.fixture(scope="module")
def names():
    return numbering.Numbering([numbering.looks(VALIDATION + k) for k in range(16)], numbering.steps(range(VALIDATION, VALIDATION + 60)))


@pytest.fixture(scope="module")
def exposed():
    """(T2 under the radiograph, Exposure) of subjects of whom nothing was learned."""
    drawn = [radiographs.draw_pair(VALIDATION + 1000 + k) for k in range(6)]
    return [(image, exposure) for _, image, _, exposure in drawn]


def test_vertebrae__are_named_by_the_image(names, exposed):
    pairs = [pair for image, exposure in exposed for pair in names.named(image, exposure)]
    assert len(pairs) > 30 and np.mean([a == b for a, b in pairs]) > 0.8


def test_names__come_with_the_image_and_not_with_the_subject(names, exposed):
    """The same image under marks that lie one body lower: all names are one lower."""
    image, exposure = exposed[0]
    other = copy.copy(exposure.subject)
    other.bodies = [exposure.subject.bodies[0], *exposure.subject.bodies[:-1]]
    lower = dict(names.named(image, dataclasses.replace(exposure, subject=other)))
    own = dict(names.named(image, exposure))
    both = [i for i in lower if i - 1 in own]
    assert len(both) >= 4 and all(lower[i] == own[i - 1] for i in both)


def test_chain__rises_disc_by_disc(names, exposed):
    for image, exposure in exposed:
        chain = names.chain(numbering.Film(image, exposure.pixel_mm))
        parts = sorted(chain)
        assert len(parts) >= 6 and parts == list(range(parts[0], parts[-1] + 1))
        assert np.all(np.diff([chain[i].z for i in parts]) > 10)


def test_image__that_shows_nothing_names_nobody(names, exposed):
    image, exposure = exposed[0]
    assert {name for _, name in names.named(np.zeros_like(image), exposure)} == {numbering.NOBODY}


def test_marks__lie_where_the_film_shows_them_and_inside_the_collimator(exposed):
    _, exposure = exposed[1]
    frame = exposure.subject.bodies[numbering.MARKS[0]].frame
    mark = numbering.shown(frame, exposure.view)
    rows, columns = exposure.image.shape
    y, z = projection.Film(exposure.view, rows, columns, exposure.pixel_mm, 0).grid()
    assert np.interp(mark.y, (np.arange(columns) - (columns - 1) / 2) * exposure.pixel_mm, y) == pytest.approx(frame.y, abs=1e-3)
    assert np.interp(-mark.z, (np.arange(rows) - (rows - 1) / 2) * exposure.pixel_mm, z) == pytest.approx(frame.z, abs=1e-3)
    open_ = np.ones((100, 100))
    assert numbering.inside(Frame(0, 0, 0), open_, 1.0) and not numbering.inside(Frame(45, 0, 0), open_, 1.0)
    open_[:, 45:] = 0
    assert not numbering.inside(Frame(0, 0, 0), open_, 1.0) and numbering.inside(Frame(-20, 0, 0), open_, 1.0)


def test_step__is_seen_from_the_lower_disc():
    lower = Frame(10, 20, 0.3)
    assert numbering.step(lower, lower.child(3.0, 35.0, -0.2)) == pytest.approx((3.0, 35.0, -0.2))
