"""What models learn from: splits that never meet, samples that follow the seed, low-resolution geometry."""

import numpy as np
import pytest
from scipy import ndimage

from lab import dataset, degrade, evaluation, nifti, scanner, testset, tissue
from lab.anatomy import Subject
from lab.scanner import rician_mean
from lab.spine import Plane


def test_splits__do_not_overlap_and_hold_the_test_subjects():
    first = sorted(dataset.SPLITS.values())
    assert all(b - a >= 100_000_000 for a, b in zip(first, first[1:]))
    assert dataset.split_of(1) == "free"
    for name, seed in dataset.SPLITS.items():
        assert dataset.split_of(seed) == dataset.split_of(seed + 99_999_999) == name
    with pytest.raises(ValueError, match="not a test"):
        testset.draw(dataset.SPLITS["train"] + 1)


def test_samples__follow_the_seed_and_are_normalised():
    one = dataset.draw_subject(dataset.SPLITS["validation"] + 7, 2, ("t1", "t2"), 256)
    same = dataset.draw_subject(dataset.SPLITS["validation"] + 7, 2, ("t1", "t2"), 256)
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(one, same))
    stack = np.stack([a for a, *_ in one]).astype(float)
    assert stack.min() == 0.0 and stack.max() == 1.0
    assert 0.2 < np.mean(stack > 0.02) < 0.99


def test_means__have_the_level_of_the_air_that_noise_gives():
    for _, mean, _, facts in dataset.draw_subject(dataset.SPLITS["train"] + 7, 2, size=128):
        assert np.all(mean > 0) and np.all(np.percentile(mean, 5, (1, 2)) < 0.05), facts


def test_elsewhere__changes_what_is_given_and_not_what_is_to_be_made():
    differ = []
    for seed in range(6):
        (noisy, mean, _, facts), = dataset.draw_subject(dataset.SPLITS["train"] + seed, 1, size=128)
        at = facts["contrasts"].index("t2")
        gap = [np.abs(ndimage.gaussian_filter(noisy[k].astype(np.float32) - mean[k].astype(np.float32), 2)).max() for k in range(4)]
        differ.append(gap[at])
        assert max(g for k, g in enumerate(gap) if k != at) < 0.15
    assert max(differ) > 0.2


def test_elsewhere__displaces_fat_by_anything_from_the_usual_to_nothing():
    protocol = tissue.Protocol("t2", 4000, 105, None, 18, 180.0, 200, 384, 320, 2, "t2_tse_sag")
    values = tissue.sample_values(np.random.default_rng(0), 0.0)
    found = np.array([dataset.elsewhere(np.random.default_rng(k), values, protocol)[1].bandwidth_hz for k in range(600)])
    wide = found != protocol.bandwidth_hz
    assert 0.25 < wide.mean() < 0.45 and found[wide].min() < 600 and found.max() > 10_000
    assert 0.2 < np.mean(scanner.FAT_SHIFT_HZ / found[wide] < 0.1) < 0.8


def test_build__skips_the_subjects_that_others_learned_from(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(dataset.crew, "spread", lambda call, tasks, *_: made.extend(t[1] for t in tasks))
    paths = dataset.build(str(tmp_path), "train", 3, skip=600)
    assert made == [dataset.SPLITS["train"] + 600 + k for k in range(3)] and [int(p.rsplit("/", 1)[1][:-4]) for p in paths] == made


def test_marks__are_where_the_findings_are():
    subject = next(s for s in (Subject(k) for k in range(1, 200)) if 1 in s.modics.values())
    plain = Subject(subject.seed, findings=set())
    disc = next(d for d in subject.discs[:-1] if d.modic == 1)
    y = subject.centre[0] + (np.arange(256) - 127.5) * 1.2
    z = subject.centre[1] - (np.arange(256) - 127.5) * 1.2
    plane = Plane(subject, disc.x, y, z, 0)
    plane.paint()
    marks = plane.marked
    assert marks.max() > 0.8 and 0.0005 < marks.mean() < 0.08
    row, column = np.argmin(abs(z - disc.frame.z)), np.argmin(abs(y - disc.frame.y))
    assert marks[max(0, row - 12):row + 12, max(0, column - 10):column + 10].max() > 0.5
    healthy = Plane(plain, disc.x, y, z, 0)
    healthy.paint()
    assert healthy.marked.max() == 0


def test_marks__weigh_discs_less_than_findings():
    (_, mean, marks, facts), = dataset.draw_subject(dataset.SPLITS["train"] + 3, 1, size=128)
    discs = np.isclose(marks, dataset.DISC_MARK, atol=1e-3)
    t2 = mean[facts["contrasts"].index("t2")].astype(np.float32)
    assert 0 < dataset.DISC_MARK < 0.5 and 0.005 < discs.mean() < 0.05  # less than what the pool aims at
    assert t2[discs].mean() < t2[ndimage.binary_dilation(discs, iterations=8) & ~discs].mean() and marks.max() > 0.9


def test_pool__aims_at_findings(tmp_path):
    data = np.zeros((1, 9, 256, 256), np.float16)
    data[0, 8, 200:208, 30:40] = 1.0
    np.save(tmp_path / "1.npy", data)
    pool = dataset.Pool([tmp_path / "1.npy"], [(0, "t1"), ("marks", None)])
    rng = np.random.default_rng(0)
    hits = np.mean([pool.crop(rng, 64)[1].max() > 0 for _ in range(300)])
    aimless = dataset.Pool([tmp_path / "1.npy"], [(0, "t1")])
    assert pool.aims and not aimless.aims
    assert hits > pool.NEAR


def test_pool__gives_neighbours_in_their_order_and_ends_as_the_node_does(tmp_path):
    data = np.zeros((3, 9, 64, 64), np.float16)
    data[:, 0] = (np.arange(3) / 4).reshape(3, 1, 1)
    data[:, 8] = np.eye(3)[1].reshape(3, 1, 1)
    np.save(tmp_path / "1.npy", data)
    np.save(tmp_path / "2.npy", np.full_like(data, 9))
    pool = dataset.Pool([tmp_path / "1.npy", tmp_path / "2.npy"], [(0, "t1", -1), (0, "t1", 0), (0, "t1", 1), ("marks", None)])
    got = [tuple(float(v) for v in pool.picked(k)[:, 0, 0]) for k in range(3)]
    assert got == [(0, 0, 0.25, 0), (0, 0.25, 0.5, 1), (0.25, 0.5, 0.5, 0)]
    seen = {tuple(float(v) for v in pool.crop(np.random.default_rng(k), 32)[:3, 0, 0]) for k in range(60)}
    assert seen == {g[:3] for g in got} | {(9, 9, 9)}


def test_slices_of_a_subject__lie_beside_each_other():
    alike = []
    for seed in range(3):
        images = [n[1].astype(np.float32) for n, *_ in dataset.draw_subject(dataset.SPLITS["train"] + seed, 4, size=128)]
        alike.append([np.corrcoef(images[0].ravel(), m.ravel())[0, 1] for m in images[1:]])
    assert np.mean(alike, 0)[0] > np.mean(alike, 0)[1] > np.mean(alike, 0)[2] > 0.3


def test_roughen__makes_some_subjects_grainier_and_none_smoother():
    ratio = []
    for seed in range(40):
        subject, plain = Subject(seed), Subject(seed)
        dataset.roughen(np.random.default_rng(seed), subject)
        ratio.append([a / b for a, b in zip(subject.uneven, plain.uneven)])
        assert subject.grain == plain.grain
    assert np.min(ratio) == 1.0 and np.max(ratio) > 2.0 and 0.4 < np.mean(np.array(ratio) == 1.0) < 0.9


def test_rice__mean_is_that_of_many_draws():
    rng = np.random.default_rng(3)
    amplitude = np.array([0.0, 0.5, 1.0, 3.0, 30.0])
    draws = np.abs(amplitude + 0.7 * (rng.standard_normal((200_000, 5)) + 1j * rng.standard_normal((200_000, 5))))
    assert rician_mean(amplitude, 0.7) == pytest.approx(draws.mean(0), rel=0.005)


def test_real_slices__for_training_and_for_measuring_never_meet(monkeypatch):
    numbered = [np.full((10, 12), k, np.float32) for k in range(38)]
    monkeypatch.setattr(dataset, "real_volume", lambda folder: (numbered, (1, 1, 1)))
    trained = {int(s.max()) for s in dataset.real_for_training("x", 16)}
    measured = {int(s.max()) for s in evaluation.real_slices("x")[0]}
    assert len(measured) == dataset.REAL_TEST_SLICES and trained
    assert min(abs(a - b) for a in trained for b in measured) > dataset.REAL_GAP
    beside = [[int(s.max()) for s in stack] for stack in evaluation.real_beside("x")]
    assert {middle for _, middle, _ in beside} == measured and not trained & {k for stack in beside for k in stack}
    assert all((low, high) == (middle - 4, middle + 4) for low, middle, high in beside)


@pytest.mark.parametrize("apart, steps", [(0.5, dataset.REAL_GAP), (2.0, 2), (9.0, 1)])
def test_real_slices__are_shown_between_neighbours_that_nobody_learned_from(apart, steps, monkeypatch):
    monkeypatch.setattr(dataset, "real_volume", lambda folder: ([np.full((10, 12), k, np.float32) for k in range(38)], (apart, 1, 1)))
    assert all(stack[2].max() - stack[1].max() == steps == stack[1].max() - stack[0].max() for stack in evaluation.real_beside("x"))


def test_normalise__maps_percentiles_as_numpy_does():
    values = np.random.default_rng(0).gamma(2.0, 100.0, (3, 40, 40))
    out, (low, high) = dataset.normalise(values)
    assert (low, high) == tuple(np.percentile(values, (1.0, 99.5)))
    inside = (values > low) & (values < high)
    assert out[inside] == pytest.approx(((values - low) / (high - low))[inside])
    assert out.min() == 0 and out.max() == 1


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("count", [2, 7, 201, 30_011])
def test_limits__are_to_the_bit_what_numpy_says(kind, count):
    values = np.random.default_rng(count).gamma(2.0, 100.0, count).astype(kind)
    before = values.copy()
    assert dataset.limits(values) == list(np.percentile(values, (1.0, 99.5)))
    assert np.array_equal(values, before)


@pytest.mark.parametrize("way", [degrade.antialiased, degrade.linear, degrade.kspace])
def test_degrade__keeps_the_place_and_the_level(way):
    yy, xx = np.mgrid[:64, :64]
    blob = np.exp(-((yy - 30.0) ** 2 + (xx - 37.0) ** 2) / (2 * 8.0**2)).astype(np.float32)
    low = way(blob, 4)
    assert low.shape == (16, 16)
    at = (np.arange(16) + 0.5) * 4 - 0.5
    assert (low * at[:, None]).sum() / low.sum() == pytest.approx(30.0, abs=0.05)
    assert (low * at[None, :]).sum() / low.sum() == pytest.approx(37.0, abs=0.05)
    assert low.sum() * 16 == pytest.approx(blob.sum(), rel=0.01)


def test_nifti__refuses_what_it_cannot_read(tmp_path):
    path = tmp_path / "x.nii"
    path.write_bytes(b"\0" * 400)
    with pytest.raises(ValueError, match="not a little-endian NIfTI-1"):
        nifti.read(path)


def test_as_elsewhere__changes_the_look_and_not_the_scene():
    y, x = np.mgrid[:96, :96]
    image = (0.1 + 0.8 * ((y // 16 + x // 24) % 2)).astype(np.float32)
    made = [degrade.as_elsewhere(image, np.random.default_rng(k)) for k in range(60)]
    assert all(m.shape == image.shape and m.dtype == np.float32 and 0 <= m.min() and m.max() <= 1 for m in made)
    assert min(np.corrcoef(m.ravel(), image.ravel())[0, 1] for m in made) > 0.8
    levels = [m[image > 0.5].mean() - m[image < 0.5].mean() for m in made]
    assert np.ptp(levels) > 0.2 and np.std([m[:48].mean() - m[48:].mean() for m in made]) > 0.02
    assert any(np.array_equal(m, image) for m in made)  # and some as they were
    for k in range(20):  # the slices of a series come from one scanner
        stack, other = (degrade.as_elsewhere(np.stack([image, beside, image]), np.random.default_rng(k)) for beside in (image, 1 - image))
        assert np.abs(ndimage.gaussian_filter(stack - stack[:1], (0, 6, 6))).max() < 0.02
        assert np.array_equal(stack[0], other[0]) and np.array_equal(stack[2], other[2])  # and do not run into each other
