"""The radiograph: attenuation, projection, posture, what must be seen on it, and the pairs made of it."""

import dataclasses
import json
import os

import numpy as np
import pytest

from lab import dataset, radiographs, xray
from lab.anatomy import S1, Subject
from lab.projection import ATTENUATION, Bones, Film, View
from lab.tissue import NAMES

SEED = dataset.SPLITS["test"] + 777


@pytest.fixture(scope="module")
def pair():
    return radiographs.draw_pair(SEED)


def place(exposure, y, z):
    """Row and column where a point of the midsagittal plane is on the picture."""
    m, (rows, columns) = exposure.view.magnification, exposure.image.shape
    return (int(round((exposure.view.centre[1] - z) * m / exposure.pixel_mm + (rows - 1) / 2)),
            int(round((y - exposure.view.centre[0]) * m / exposure.pixel_mm + (columns - 1) / 2)))


def around(image, at, reach=2):
    i, j = at
    return image[i - reach:i + reach + 1, j - reach:j + reach + 1].mean()


def lumbar(exposure, things):
    """Of L1 to L5 or their discs, those well inside the picture."""
    rows, columns = exposure.image.shape
    at = [place(exposure, t.frame.y, t.frame.z) for t in things]
    return [a for a in at if 20 < a[0] < rows - 20 and 20 < a[1] < columns - 20]


def test_attenuation__covers_every_tissue_in_the_known_order():
    a = ATTENUATION
    assert set(a) == set(NAMES)
    assert a["air"] == 0 < a["fat"] < a["fluid"] < a["muscle"] < a["marrow_water"] < a["cortical"]
    assert 1.15 * 0.21 <= a["marrow_fat"] < a["marrow_water"] <= 1.3 * 0.21 + 1e-9


def test_standing__adds_slope_and_lordosis_and_changes_nothing_else():
    lying, standing = Subject(8), Subject(8, posture=6.0)
    assert standing.slope == pytest.approx(lying.slope + 6)
    assert standing.lordosis > lying.lordosis
    assert standing.grades == lying.grades and standing.bodies[S1 + 1].depth == lying.bodies[S1 + 1].depth


def test_view__magnifies_what_is_nearer_to_the_tube():
    view = View((0.0, 0.0), 1150.0, 230.0, 0.0, 0.0, 1)
    assert view.magnification == pytest.approx(1.25)
    assert view.scale(-50.0) > view.magnification > view.scale(50.0)  # the patient's left is at the detector
    assert dataclasses.replace(view, side=-1).scale(-50.0) < view.magnification


def test_projection__puts_a_vertebra_where_the_rays_say():
    subject = Subject(SEED, findings=set())
    subject.bend = (0.0, 200.0, 0.0, 0.0)
    body = subject.bodies[S1 + 3]
    view = View((body.frame.y - 12.0, body.frame.z + 9.0), 1150.0, 230.0, 0.0, 0.0, 1)
    film = Film(view, 128, 128, 1.0, SEED)
    bones = Bones(subject, film, film.rng(200))
    film.even[:], film.sponge[:], film.rough[:] = 1.0, 1.0, 0.0
    bones._body(S1 + 3)
    rows, columns = np.nonzero(film.depth > 0.2 * film.depth.max())
    assert columns.mean() - 63.5 == pytest.approx(12.0 * 1.25, abs=2.0)
    assert rows.mean() - 63.5 == pytest.approx(9.0 * 1.25, abs=2.0)
    assert columns.max() - columns.min() == pytest.approx(1.25 * body.depth, rel=0.15)
    assert film.depth.max() > 2 * film.depth[int(rows.mean()), int(columns.mean())]  # endplates are seen edge-on


def test_radiograph__shows_bodies_brighter_than_discs_and_follows_the_seed(pair):
    source, _, _, exposure = pair
    assert np.array_equal(source, radiographs.draw_pair(SEED)[0])
    assert exposure.image.min() >= 0 and exposure.image.max() <= 1
    bodies, discs = (lumbar(exposure, t) for t in (exposure.subject.bodies[S1 + 1:S1 + 5], exposure.subject.discs[S1 + 1:S1 + 5]))
    assert len(bodies) >= 3 and len(discs) >= 3
    assert np.mean([around(source, a) for a in bodies]) > np.mean([around(source, a) for a in discs]) + 0.02


def test_radiograph__is_the_same_scene_at_another_pixel_size(pair):
    fine = xray.radiograph(SEED, 0.5).image
    rows, columns = pair[3].image.shape
    halved = fine[:2 * (fine.shape[0] // 2), :2 * (fine.shape[1] // 2)]
    halved = halved.reshape(halved.shape[0] // 2, 2, halved.shape[1] // 2, 2).mean((1, 3))
    n, m = min(rows, halved.shape[0]), min(columns, halved.shape[1])
    assert np.corrcoef(halved[:n, :m].ravel(), pair[3].image[:n, :m].ravel())[0, 1] > 0.97


def test_pair__shows_the_same_vertebrae_at_the_same_place(pair):
    _, target, spine, exposure = pair
    canal = [a for a in lumbar(exposure, exposure.subject.bodies[S1 + 1:S1 + 5])]
    for body in exposure.subject.bodies[S1 + 1:S1 + 5]:
        at = place(exposure, *body.frame.at(0.5 * body.depth + 0.5 * exposure.subject.canal, 0.0))
        if at[0] < target.shape[0] - 10 and at[0] > 10 and at[1] < target.shape[1] - 10:
            inside = place(exposure, *body.frame.at(-0.1 * body.depth, 0.0))
            assert around(target, at, 1) > around(target, inside, 1) + 0.1, "fluid in the canal is brighter than marrow"
            assert spine[at] == 1 and spine[inside] == 1
    assert canal


def test_pair__is_black_where_the_collimator_was_closed(pair):
    source, target, spine, exposure = pair
    closed = exposure.open == 0
    assert not target[closed].any() and not spine[closed].any() and not exposure.image[closed].any()
    for image in (source, target, spine):
        assert image.min() == 0 and image.max() == 1 and image.shape == exposure.image.shape


def test_pool__cuts_source_and_truth_at_the_same_place(tmp_path):
    rows, columns = np.mgrid[:90, :40]
    one = np.stack([rows / 90, columns / 40, np.ones_like(rows)]).astype(np.float16)
    path = str(tmp_path / "1.npy")
    np.save(path, one)
    pool, turned = radiographs.Pool([path]), set()
    for k in range(12):
        crop = pool.crop(np.random.default_rng(k), 64)
        assert crop.shape == (3, 64, 64) and crop.dtype == np.float32
        inside = crop[2] > 0
        assert inside.sum() == 64 * 40 and not crop[:, ~inside].any()  # narrower than the crop: black beside it
        steps = np.diff(crop[1], axis=1)[inside[:, 1:] & inside[:, :-1]]
        assert (steps > 0).all() or (steps < 0).all()
        turned.add(bool(steps[0] > 0))
    assert turned == {True, False}


def test_build__keeps_each_subject_in_its_split(tmp_path):
    paths = radiographs.build(str(tmp_path), "validation", 1, workers=1)
    assert [dataset.split_of(int(os.path.basename(p)[:-4])) for p in paths] == ["validation"]
    with open(paths[0][:-4] + ".json", encoding="utf-8") as file:
        assert json.load(file)["spacing_mm"] == radiographs.PIXEL_MM
    assert radiographs.build(str(tmp_path), "validation", 1, workers=1) == paths
    kept = np.load(paths[0])
    drawn = np.stack(radiographs.draw_pair(dataset.SPLITS["validation"])[:3])
    assert kept.shape == drawn.shape and np.abs(kept - drawn).max() < 1e-3


def test_build__of_radiographs_skips_those_that_others_learned_from(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(radiographs.crew, "spread", lambda call, tasks, *_: made.extend(seed for _, seed in tasks))
    radiographs.build(str(tmp_path), "train", 3, skip=400)
    assert made == [dataset.SPLITS["train"] + 400 + k for k in range(3)]
