"""What training does to its inputs: low resolution for super-resolution, and what differs between sites.

Low resolution is made from full-resolution slices in three ways, because a site's low-resolution series may come from any: a scan with a small k-space
(what a fast protocol does), averaging with an antialiasing filter, and the paper's plain linear
interpolation.  All keep the geometry: low pixel j covers high pixels 4j … 4j+3.
"""

import numpy as np
from scipy import fft, ndimage


def kspace(image, factor, rng=None, share=1.0, noise=0.0):
    """Keep the central 1/factor of k-space (share of it along one axis); Rician noise if asked."""
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    spectrum = fft.fftshift(fft.fft2(image.astype(np.float32), workers=1))
    r0, c0 = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    part = spectrum[r0:r0 + rows, c0:c0 + columns]
    kr, kc = np.arange(rows) - rows // 2, np.arange(columns) - columns // 2
    half = (factor - 1) / 2.0  # the centre of a low pixel lies between high pixels
    ramp = np.exp(2j * np.pi * half * kr / image.shape[0])[:, None] * np.exp(2j * np.pi * half * kc / image.shape[1])[None, :]
    taper = (1 - 0.35 * (np.abs(kr) * 2.0 / rows)[:, None] ** 4) * (1 - 0.35 * (np.abs(kc) * 2.0 / columns)[None, :] ** 4)
    part = part * ramp * taper
    if share < 1.0:
        axis = rng.integers(2) if rng is not None else 0
        if axis:
            part = part * (np.abs(kc) <= share * columns / 2)[None, :]
        else:
            part = part * (np.abs(kr) <= share * rows / 2)[:, None]
    low = fft.ifft2(fft.ifftshift(part), workers=1) / factor**2
    if noise > 0:
        low = low + noise * (rng.standard_normal(low.shape) + 1j * rng.standard_normal(low.shape))
        return np.abs(low).astype(np.float32)
    return np.maximum(low.real, 0.0).astype(np.float32)


def antialiased(image, factor):
    """Triangle filter of the width of a low pixel, as image libraries do for "bilinear" reduction."""
    def reduce(a):
        n = a.shape[0] // factor
        taps = np.arange(-factor, factor) + 0.5
        weights = (1 - np.abs(taps) / factor)
        weights /= weights.sum()
        padded = np.pad(a, ((factor, factor), (0, 0)), mode="edge")
        start = factor // 2  # first tap of low pixel 0 lies factor/2 before it
        out = 0
        for k, w in enumerate(weights):
            out = out + w * padded[start + k:start + k + factor * (n - 1) + 1:factor]
        return out
    return reduce(reduce(image.astype(np.float32)).T).T


def linear(image, factor):
    """Plain linear interpolation at the low pixels' centres, without a filter: the paper's way."""
    a = image.astype(np.float32)
    low, high = factor // 2 - 1, factor // 2
    return 0.25 * (a[low::factor, low::factor] + a[high::factor, low::factor]
                   + a[low::factor, high::factor] + a[high::factor, high::factor])


def random(image, factor, rng):
    """One of the ways at random, with noise."""
    way = rng.random()
    noise = float(np.exp(rng.uniform(np.log(0.001), np.log(0.02))))
    if way < 0.5:
        return kspace(image, factor, rng, float(rng.uniform(0.8, 1.0)), noise)
    low = antialiased(image, factor) if way < 0.78 else linear(image, factor)
    return np.abs(low + 0.5 * noise * rng.standard_normal(low.shape)).astype(np.float32)


def as_elsewhere(image, rng):
    """Images of one series, (…, rows, columns) in [0, 1], as another scanner's chain might have made them; the scene stays what it is.

    Display curve and limits of the normalisation, shading that no filter took out, a smoothing or sharpening
    reconstruction filter, noise: each at random, so that a network leans on none of them.
    """
    if rng.random() < 0.6:
        image = np.clip(image * rng.uniform(0.85, 1.12) + rng.uniform(-0.02, 0.02), 0, 1) ** np.exp(rng.uniform(-0.35, 0.3))
    if rng.random() < 0.35:
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape[-2:])
        a, b, c, d = rng.uniform(-0.25, 0.25, 4)
        image = image * np.exp(a * y[:, None] + b * x + c * y[:, None] * x + d * (x * x - 0.3)).astype(np.float32)
    way = rng.random()
    if way < 0.35:
        smooth = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.4 if way < 0.08 else 0.9), truncate=3.0, axes=(-2, -1))
        image = smooth if way < 0.15 else image + rng.uniform(0.3, 1.0) * (image - smooth)
    if rng.random() < 0.5:
        image = np.abs(image + rng.uniform(0, 0.07) * rng.standard_normal(image.shape, dtype=np.float32))
    return np.clip(image, 0, 1).astype(np.float32)
