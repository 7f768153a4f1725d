"""What models learn from: splits that never meet, samples that follow the seed, low-resolution geometry."""

import numpy as np
import pytest

from lab import dataset, degrade, nifti, testset


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
    stack = np.stack([a for a, _, _ in one]).astype(float)
    assert stack.min() == 0.0 and stack.max() == 1.0
    assert 0.2 < np.mean(stack > 0.02) < 0.99


def test_normalise__maps_percentiles_as_numpy_does():
    values = np.random.default_rng(0).gamma(2.0, 100.0, (3, 40, 40))
    out, (low, high) = dataset.normalise(values)
    assert (low, high) == tuple(np.percentile(values, (1.0, 99.5)))
    inside = (values > low) & (values < high)
    assert out[inside] == pytest.approx(((values - low) / (high - low))[inside])
    assert out.min() == 0 and out.max() == 1


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
