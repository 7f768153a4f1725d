"""Quality figures against scikit-image, worked values and what each must show."""

import numpy as np
import pytest
from scipy import ndimage

from lab import metrics

skimage = pytest.importorskip("skimage.metrics")


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    truth = ndimage.gaussian_filter(rng.standard_normal((130, 141)), 3) * 400 + 128
    return np.clip(truth, 0, 255), np.clip(truth + 12 * rng.standard_normal(truth.shape), 0, 255)


def test_psnr_and_mse__equal_scikit_image(pair):
    assert metrics.mse(*pair) == pytest.approx(skimage.mean_squared_error(*pair), rel=1e-12)
    assert metrics.psnr(*pair, 255) == pytest.approx(skimage.peak_signal_noise_ratio(*pair, data_range=255), rel=1e-12)


def test_ssim__equals_scikit_image(pair):
    assert metrics.ssim(*pair, 255) == pytest.approx(skimage.structural_similarity(*pair, data_range=255), abs=1e-12)


def test_vifp__is_one_for_itself_and_falls_with_blur_and_noise(pair):
    truth, noisy = pair
    assert metrics.vifp(truth, truth) == pytest.approx(1.0, abs=1e-6)
    blurred = [metrics.vifp(truth, ndimage.gaussian_filter(truth, s)) for s in (0.7, 1.5, 3.0)]
    assert 1 > blurred[0] > blurred[1] > blurred[2] > 0
    assert 0 < metrics.vifp(truth, noisy) < 0.9


def test_vifp__exceeds_one_when_contrast_is_enhanced(pair):
    truth, _ = pair
    assert metrics.vifp(truth, truth.mean() + 1.2 * (truth - truth.mean())) > 1.0


# Values that other implementations give for 256 x 256 pixels of scikit-image's camera: VIFp by sewar 0.4.10
# (`vifp`, 'valid' borders), CPBD by cpbd 1.0.7 (Canny edges choose its blocks, ours are Sobel's).
CAMERA_VIFP = {0.5: 0.7779864405264622, 1.0: 0.49975365298174945, 2.0: 0.30901670438321616}
CAMERA_CPBD = {0.0: 0.5981, 0.6: 0.3458, 0.8: 0.2113, 1.0: 0.1205, 1.5: 0.0439, 2.0: 0.0063}


@pytest.fixture
def camera():
    return pytest.importorskip("skimage.data").camera()[100:356, 120:376].astype(float)


def test_vifp__equals_another_implementation(camera):
    for deviation, value in CAMERA_VIFP.items():
        assert metrics.vifp(camera, ndimage.gaussian_filter(camera, deviation)) == pytest.approx(value, abs=1e-9)
    wave = camera + 15 * np.sin(np.arange(camera.size).reshape(camera.shape) * 2.3)
    assert metrics.vifp(camera, wave) == pytest.approx(0.44625733933083894, abs=1e-9)
    assert metrics.vifp(camera, camera.mean() + 1.2 * (camera - camera.mean())) == pytest.approx(1.0782059695964372, abs=1e-9)


def test_cpbd__follows_another_implementation(camera):
    ours = [metrics.cpbd(ndimage.gaussian_filter(camera, s) if s else camera) for s in CAMERA_CPBD]
    theirs = list(CAMERA_CPBD.values())
    assert all(a > b for a, b in zip(ours, ours[1:]))
    assert np.abs(np.subtract(ours, theirs)).max() < 0.12 and np.corrcoef(ours, theirs)[0, 1] > 0.99


def test_memo__of_a_truth_changes_no_figure(pair):
    truth, noisy = pair
    memo = {}
    for image in (noisy, ndimage.gaussian_filter(truth, 1.0), truth, np.full_like(truth, 7.0)):
        assert metrics.vifp(truth, image, memo) == metrics.vifp(truth, image)
        assert metrics.ssim(truth, image, 255, memo) == metrics.ssim(truth, image, 255)


def test_edge_widths__measure_a_ramp():
    image = np.zeros((64, 64))
    image[:, 20:] = 200
    for width in (1, 3, 5):
        ramp = np.clip((np.arange(64) - 20) / width, 0, 1) * 200
        image = np.tile(ramp, (64, 1))
        rows, columns, sign = metrics.vertical_edges(image)
        assert len(rows) and np.all(sign > 0)
        assert np.all(metrics.edge_widths(image, rows, columns, sign) == width)


def test_cpbd__is_one_for_steps_and_falls_with_blur():
    image = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((32, 32))) * 200.0
    values = [metrics.cpbd(ndimage.gaussian_filter(image, s)) for s in (0.0, 1.0, 1.6, 3.0)]
    assert values[0] == 1.0
    assert values[0] >= values[1] >= values[2] >= values[3]
    assert values[3] < 0.1
    assert metrics.cpbd(np.zeros((128, 128))) == 0.0


def test_kappa__equals_the_textbook_example():
    # Two readers, 50 cases: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: kappa 0.4.
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    value, low, high, n = metrics.kappa(first, second)
    assert value == pytest.approx(0.4) and n == 50
    assert low < 0.4 < high and (high - low) / 2 == pytest.approx(1.96 * 0.1269, abs=0.012)
    assert metrics.kappa([1, 0, 1], [1, 0, 1])[0] == 1.0
    assert np.isnan(metrics.kappa([1, 1], [1, 1])[0])


def test_bootstrap__interval_holds_the_mean_and_widens_with_fewer_subjects():
    rng = np.random.default_rng(0)
    many = rng.normal(1.0, 1.0, 300)
    mean, low, high = metrics.bootstrap(many, np.arange(300) // 3)
    assert low < mean < high and 0.7 < low and high < 1.3
    _, low2, high2 = metrics.bootstrap(many[:30], np.arange(30) // 3)
    assert high2 - low2 > high - low


def test_match_histogram__gives_the_reference_distribution():
    rng = np.random.default_rng(1)
    source, reference = rng.random((64, 64)), rng.random((64, 64)) ** 2 * 5
    matched = metrics.match_histogram(source, reference)
    assert np.percentile(matched, [10, 50, 90]) == pytest.approx(np.percentile(reference, [10, 50, 90]), abs=0.05)
    assert np.array_equal(np.argsort(matched.ravel()), np.argsort(source.ravel()))
