"""Images that no model of the lumbar spine was made for, drawn without the code that calibrates the gate.

Each function gives a volume (slices, rows, columns) of positive float32; `contrast` is "t1" or "t2".
"""

import numpy as np
from scipy import ndimage

LEVELS = {  # relative signal of a spin echo at 1.5 T
    "t1": {"fat": 0.95, "muscle": 0.42, "marrow": 0.6, "fluid": 0.12, "disc": 0.38, "grey": 0.42, "white": 0.55, "organ": 0.5},
    "t2": {"fat": 0.7, "muscle": 0.18, "marrow": 0.42, "fluid": 1.0, "disc": 0.35, "grey": 0.5, "white": 0.36, "organ": 0.4},
}


def _grid(n, field_mm=320.0):
    at = (np.arange(n) - (n - 1) / 2) * field_mm / n
    return at[:, None], at[None, :]


def _ellipse(y, x, cy, cx, ry, rx):
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1


def _finish(slices, rng):
    out = []
    for image in slices:
        texture = 1 + 0.06 * ndimage.gaussian_filter(rng.standard_normal(image.shape), 3) * 8
        image = ndimage.gaussian_filter(image * texture, 0.7)
        out.append(np.hypot(image + 0.012 * rng.standard_normal(image.shape), 0.012 * rng.standard_normal(image.shape)))
    return np.stack(out).astype(np.float32) * 1000


def axial(contrast, rng, n=384):
    """Across the lumbar spine: trunk, fat, vertebra or disc, canal, psoas and back muscles, kidneys, vessels."""
    level, slices = LEVELS[contrast], []
    wide, deep, rim = rng.uniform(140, 165), rng.uniform(95, 118), rng.uniform(12, 24)
    for k in range(3):
        y, x = _grid(n, 360)
        image = np.zeros((n, n))
        image[_ellipse(y, x, 0, 0, deep, wide)] = level["fat"]
        image[_ellipse(y, x, 0, 0, deep - rim, wide - rim)] = level["organ"] * 0.8
        for side in (-1, 1):
            image[_ellipse(y, x, 58, 38 * side, 26, 30)] = level["muscle"]
            image[_ellipse(y, x, 12, 46 * side, 22, 18)] = level["muscle"]
            image[_ellipse(y, x, -2, 84 * side, 26, 22)] = level["organ"]
        image[_ellipse(y, x, 10, 0, 17, 24)] = level["disc" if k == 1 else "marrow"]
        image[_ellipse(y, x, 34, 0, 8, 10)] = level["fluid"]
        image[(abs(x) < 3.5) & (y > 44) & (y < 72)] = level["marrow"]
        image[_ellipse(y, x, -18, -12, 9, 9)] = image[_ellipse(y, x, -16, 14, 11, 9)] = 0.03
        slices.append(image)
    return _finish(slices, rng)


def head(contrast, rng, n=320):
    """A head from the side: scalp, skull, folded brain, ventricle, cerebellum, face."""
    level, slices = LEVELS[contrast], []
    folds = ndimage.gaussian_filter(rng.standard_normal((n, n)), n / 90)
    folds = folds / folds.std()
    for k in range(3):
        y, x = _grid(n, 256)
        image = np.zeros((n, n))
        image[_ellipse(y, x, 62, -52, 58, 34)] = level["muscle"]
        image[(abs(x - 18) < 34) & (y > 40)] = level["muscle"]
        image[_ellipse(y, x, -12, 0, 98, 106)] = level["fat"]
        image[_ellipse(y, x, -12, 0, 92, 100)] = 0.04
        brain = _ellipse(y, x, -14, 0, 84, 92) & (y < 40)
        image[brain] = level["fluid"]
        image[brain & (folds > -0.9)] = level["grey"]
        image[brain & _ellipse(y, x, -12, 0, 66, 74) & (folds > -0.5)] = level["white"]
        image[_ellipse(y, x, -8, 2 + k, 9, 34)] = level["fluid"]
        image[_ellipse(y, x, 34, 44, 24, 32) & (folds > -0.3)] = level["grey"]
        image[_ellipse(y, x, 46, 14, 34, 11)] = level["white"]
        slices.append(image)
    return _finish(slices, rng)


def implants(volume, spacing_mm, rng):
    """Screws by physics: the dipole field of steel spheres moves signal along the readout, piles it up, and dephases
    it inside of voxels."""
    out = []
    rows, columns = volume.shape[1:]
    y, x = np.mgrid[:rows, :columns].astype(float)
    screws = [(rows * rng.uniform(0.3, 0.72), columns * rng.uniform(0.5, 0.66)) for _ in range(int(rng.integers(3, 5)))]
    for k, image in enumerate(volume.astype(float)):
        moved = np.zeros_like(image)
        for cy, cx in screws:
            down, right, across = (y - cy) * spacing_mm, (x - cx) * spacing_mm, 8.8 * (k - len(volume) // 2) * 0.5
            r2 = down**2 + right**2 + across**2 + 1e-6
            radius = 6.5
            moved += 60.0 * np.minimum(radius**3 / r2**1.5, 1.0) * (3 * down**2 / r2 - 1) / spacing_mm
        steep = np.hypot(*np.gradient(moved))
        kept = image * np.exp(-(steep / 0.8) ** 2)
        to = np.rint(x + moved).astype(int)
        inside = (to >= 0) & (to < columns)
        made = np.zeros_like(image)
        np.add.at(made, (y.astype(int)[inside], to[inside]), kept[inside])
        out.append(ndimage.gaussian_filter(made, 0.6))
    return np.stack(out).astype(np.float32)


def turned(volume, quarter):
    return np.ascontiguousarray(np.rot90(volume, quarter, (1, 2)))


def inverted(volume):
    return volume.max() - volume


def noise(shape, rng):
    return np.hypot(rng.standard_normal(shape), rng.standard_normal(shape)).astype(np.float32) * 100


def drowned(volume, rng):
    """Noise a little stronger than the signal."""
    return np.hypot(volume + 1.2 * volume.std() * rng.standard_normal(volume.shape), 1.2 * volume.std() * rng.standard_normal(volume.shape))
