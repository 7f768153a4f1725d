"""Image quality figures, each by its published definition; float64 throughout.

Where ports of a measure differ, the variant is named beside the function.
"""

import numpy as np
from scipy import ndimage


def mse(truth, image):
    """Mean squared error."""
    return float(np.mean((np.asarray(truth, np.float64) - np.asarray(image, np.float64)) ** 2))


def psnr(truth, image, data_range):
    """Peak signal-to-noise ratio in dB: 10 log10(R² / MSE)."""
    return float(10.0 * np.log10(data_range**2 / max(mse(truth, image), 1e-20)))


def ssim(truth, image, data_range, memo=None):
    """Structural similarity (Wang 2004) with scikit-image's defaults.

    7x7 uniform window, K = 0.01 and 0.03, sample covariance, mean over the image less 3 pixels all round.
    memo: a dictionary that keeps what depends on the truth alone, where several images are held against it.
    """
    a, b = np.asarray(truth, np.float64), np.asarray(image, np.float64)
    memo = {} if memo is None else memo

    def mean(x):
        return ndimage.uniform_filter(x, 7)

    norm = 49.0 / 48.0
    if "ssim" not in memo:
        ma = mean(a)
        memo["ssim"] = ma, norm * (mean(a * a) - ma * ma)
    (ma, va), mb = memo["ssim"], mean(b)
    vb, vab = norm * (mean(b * b) - mb * mb), norm * (mean(a * b) - ma * mb)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = ((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return float(value[3:-3, 3:-3].mean())


def vifp(truth, image, memo=None):
    """Visual information fidelity in the pixel domain (Sheikh & Bovik 2006), intensities 0 to 255.

    Variant: Gaussian windows of 17, 9, 5, 3 (deviation N/5), 'valid' borders, noise variance 2.
    memo: as for ssim().
    """
    memo = {} if memo is None else memo
    a, b = np.asarray(truth, np.float64), np.asarray(image, np.float64)
    noise, eps = 2.0, 1e-10
    top = bottom = 0.0
    for scale in range(1, 5):
        n = 2 ** (5 - scale) + 1
        taps = np.exp(-0.5 * ((np.arange(n) - n // 2) / (n / 5.0)) ** 2)
        taps /= taps.sum()

        def blur(x):
            rows = ndimage.correlate1d(x, taps, 0)[n // 2:x.shape[0] - n // 2]
            return ndimage.correlate1d(rows, taps, 1)[:, n // 2:x.shape[1] - n // 2]

        if scale > 1:
            b = blur(b)[::2, ::2]
        if scale not in memo:
            if scale > 1:
                a = blur(a)[::2, ::2]
            ma = blur(a)
            memo[scale] = a, ma, np.maximum(blur(a * a) - ma * ma, 0)
        a, ma, va = memo[scale]
        mb = blur(b)
        vb = np.maximum(blur(b * b) - mb * mb, 0)
        vab = blur(a * b) - ma * mb
        gain = vab / (va + eps)
        rest = vb - gain * vab
        flat = va < eps
        va = np.where(flat, 0.0, va)
        gain[flat], rest[flat] = 0.0, vb[flat]
        empty = vb < eps
        gain[empty], rest[empty] = 0.0, 0.0
        negative = gain < 0
        rest[negative], gain[negative] = vb[negative], 0.0
        rest = np.maximum(rest, eps)
        top += np.sum(np.log10(1.0 + gain * gain * va / (rest + noise)))
        bottom += np.sum(np.log10(1.0 + va / noise))
    return float(top / bottom) if bottom > 0 else 1.0


def vertical_edges(image):
    """Sobel's vertical edges: threshold four times the mean square, thinned along the row.

    Returns (row, column) arrays and the sign of the gradient there; only edges whose direction is
    within 22.5 degrees of the row count, since widths are measured along it.
    """
    gx = ndimage.sobel(image, 1) / 8.0
    gy = ndimage.sobel(image, 0) / 8.0
    strength = gx * gx
    left, right = np.roll(strength, 1, 1), np.roll(strength, -1, 1)
    edge = (strength > 4.0 * strength.mean()) & (strength >= left) & (strength > right)
    edge &= np.abs(gy) <= np.tan(np.deg2rad(22.5)) * np.abs(gx)
    edge[:, [0, -1]] = False
    edge[[0, -1]] = False
    rows, columns = np.nonzero(edge)
    return rows, columns, np.sign(gx[rows, columns])


def edge_widths(image, rows, columns, sign):
    """Marziliano's width of each edge: pixels between the local extrema to its left and right."""
    step = np.diff(image, axis=1)
    width = np.zeros(len(rows), int)
    for direction in (1, -1):
        at, active = columns.copy(), np.ones(len(rows), bool)
        while active.any():
            index = at if direction == 1 else at - 1
            valid = active & (index >= 0) & (index < step.shape[1])
            active = np.zeros_like(active)
            active[valid] = sign[valid] * step[rows[valid], index[valid]] > 0
            width[active] += 1
            at[active] += direction
    return width


def cpbd(image):
    """Cumulative probability of blur detection (Narvekar & Karam 2011), intensities 0 to 255.

    Variant: Sobel edges both for choosing blocks and for widths.  Blocks of 64x64 with more than 0.2 %
    edge pixels; just noticeable width 5 where the block's contrast is at most 50, else 3; beta 3.6; the
    share of edges whose probability of blur, in whole percent as the authors count it, is at most 63 %,
    which is that of an edge of just noticeable width.  1 is sharp; 0 without edges.
    """
    image = np.asarray(image, np.float64)
    rows, columns, sign = vertical_edges(image)
    widths = edge_widths(image, rows, columns, sign)
    total = sharp = 0
    for top in range(0, image.shape[0] - 63, 64):
        for left in range(0, image.shape[1] - 63, 64):
            inside = (rows >= top) & (rows < top + 64) & (columns >= left) & (columns < left + 64)
            if inside.sum() <= 0.002 * 64 * 64:
                continue
            block = image[top:top + 64, left:left + 64]
            noticeable = 5.0 if block.max() - block.min() <= 50 else 3.0
            w = widths[inside]
            w = w[w > 0]
            blur = 1.0 - np.exp(-((w / noticeable) ** 3.6))
            total += len(w)
            sharp += int((np.rint(100 * blur) <= 63).sum())
    return sharp / total if total else 0.0


def kappa(first, second, labels=None):
    """Cohen's kappa of two readings and its 95 % interval (large-sample standard error).

    Returns (kappa, low, high, n); kappa is nan where both readings are one single, same label.
    """
    first, second = np.asarray(first), np.asarray(second)
    labels = np.unique(np.concatenate([first, second])) if labels is None else np.asarray(labels)
    n = len(first)
    if n == 0:
        return float("nan"), float("nan"), float("nan"), 0
    table = np.array([[np.mean((first == a) & (second == b)) for b in labels] for a in labels])
    agreed = np.trace(table)
    rows, columns = table.sum(1), table.sum(0)
    chance = float(rows @ columns)
    if chance >= 1.0:
        return float("nan"), float("nan"), float("nan"), n
    value = (agreed - chance) / (1.0 - chance)
    # Fleiss, Cohen & Everitt 1969.
    a = sum(table[i, i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in range(len(labels)))
    b = (1 - value) ** 2 * sum(table[i, j] * (columns[i] + rows[j]) ** 2
                               for i in range(len(labels)) for j in range(len(labels)) if i != j)
    c = (value - chance * (1 - value)) ** 2
    error = np.sqrt(max(a + b - c, 0.0) / n) / (1.0 - chance)
    return float(value), float(value - 1.96 * error), float(min(1.0, value + 1.96 * error)), n


def bootstrap(differences, groups, draws=2000, seed=0):
    """95 % interval of the mean of paired differences, resampling whole groups (subjects)."""
    differences, groups = np.asarray(differences, float), np.asarray(groups)
    names = np.unique(groups)
    sums = np.array([differences[groups == g].sum() for g in names])
    counts = np.array([(groups == g).sum() for g in names])
    picks = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    return float(differences.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


def match_histogram(source, reference):
    """The source with its grey values remapped to the reference's distribution."""
    values, inverse, counts = np.unique(source.ravel(), return_inverse=True, return_counts=True)
    known, known_counts = np.unique(reference.ravel(), return_counts=True)
    quantiles = np.cumsum(counts) / source.size
    return np.interp(quantiles, np.cumsum(known_counts) / reference.size, known)[inverse].reshape(source.shape)
