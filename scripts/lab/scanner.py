"""From tissue fractions to the image a 1.5 T scanner would reconstruct.

One plane's water and fat signals go through the steps of an acquisition: coil sensitivity,
saturation in front, chemical shift along the frequency axis, a finite k-space (Gibbs ringing,
resolution), ghosts from lines that disagree, complex noise, magnitude.  Units: 1.0 is the fully
relaxed signal of water.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, special

from . import tissue
from .canvas import smooth_noise, smooth_step
from .spine import Plane

RICE_RATIO = np.linspace(0.0, 12.0, 481)  # amplitude over deviation, and the mean of the magnitude over deviation
_x = np.square(RICE_RATIO) / 4.0
RICE_MEAN = np.sqrt(np.pi / 2.0) * ((1.0 + 2.0 * _x) * special.i0e(_x) + 2.0 * _x * special.i1e(_x))
RICE_BASE, RICE_STEP = RICE_MEAN[:-1].astype(np.float32), np.diff(RICE_MEAN).astype(np.float32)
FAT_SHIFT_HZ = 220.0  # 3.45 ppm at 1.5 T


@dataclass(frozen=True)
class Scene:
    """How one examination is set up; shared by its series."""

    coil_depth: float
    coil_share: float
    shading: float
    saturated: float
    phase_rows: bool
    noise: float
    ghost: float
    ghost_period: float

    @staticmethod
    def sample(rng, noise_scale=1.0):
        u = rng.uniform
        return Scene(coil_depth=u(70, 160), coil_share=u(0.25, 0.9), shading=u(0.03, 0.16),
                     saturated=u(0.6, 0.95) if rng.random() < 0.65 else 0.0, phase_rows=bool(rng.random() < 0.5),
                     noise=float(np.exp(u(np.log(0.0025), np.log(0.012)))) * noise_scale,
                     ghost=u(0.0, 0.02), ghost_period=u(9, 40))


def sensitivity(plane, scene, seed):
    """Receive sensitivity of a spine array lying under the back, after the vendor's correction."""
    c = plane.canvas
    depth = np.maximum(plane.skin.astype(np.float32)[:, None] - c.y[None, :], 0.0)
    fall = 1.0 / (1.0 + (depth / scene.coil_depth) ** 2)
    rng = np.random.default_rng([seed, 5])
    uneven = np.exp(scene.shading * smooth_noise(rng, c.shape, (3, 2)))
    if scene.saturated:
        front = plane.front.astype(np.float32)[:, None] - 14.0
        uneven *= 1.0 - scene.saturated * smooth_step(front - c.y[None, :], 0.0, 16.0)
    return fall**scene.coil_share * uneven


def shift_along(image, pixels, axis):
    """Shift an image by a fraction of a pixel along an axis (linear between pixels, cyclic)."""
    whole = int(np.floor(pixels))
    share = np.float32(pixels - whole)
    first, second = np.roll(image, whole, axis), np.roll(image, whole + 1, axis)
    first *= 1 - share
    second *= share
    first += second
    return first


def rician_mean(amplitude, sigma):
    """Mean of the magnitude of amplitude + complex noise of deviation sigma per channel (Rice's distribution)."""
    sigma = max(float(sigma), 1e-9)
    ratio = (amplitude / sigma).astype(np.float32)
    place = np.minimum(ratio * np.float32(len(RICE_BASE) / RICE_RATIO[-1]), np.float32(len(RICE_BASE) - 0.01))
    step = place.astype(np.int32)
    place -= step.astype(np.float32)
    near = RICE_BASE.take(step, mode="clip") + place * RICE_STEP.take(step, mode="clip")
    return np.where(ratio < RICE_RATIO[-1], near, ratio + 0.5 / np.maximum(ratio, 1.0)) * np.float32(sigma)


def acquire(water, fat, protocol, scene, rng, field_mm, size):
    """Reconstructed magnitudes (size, size) from signed water and fat: with noise, and their mean over all noise.

    field_mm: side of the field of view, that of the input grid and of the result.
    """
    n = water.shape[0]
    rows, columns = protocol.acquired_rows, protocol.acquired_columns
    if scene.phase_rows:  # the phase axis runs head to feet: fewer lines there
        rows, columns = columns, rows
    rows, columns = min(rows, n, size) // 2 * 2, min(columns, n, size) // 2 * 2
    frequency_axis, samples = (1, columns) if scene.phase_rows else (0, rows)
    shift = FAT_SHIFT_HZ / protocol.bandwidth_hz * n / samples
    image = shift_along(fat, shift, frequency_axis)
    image += water
    half = columns // 2 + 1  # what lies beyond is not measured, so only these columns are transformed
    spectrum = fft.fft(fft.rfft(image, axis=1, workers=1)[:, :half], axis=0, workers=1)
    kept = np.zeros((rows, half), np.complex64)
    kept[:rows // 2] = spectrum[:rows // 2]
    kept[rows // 2:] = spectrum[n - rows // 2:]
    kept *= np.float32((size / n) ** 2)
    if size != n:  # pixel centres of the coarser grid lie between those of the finer one
        delay = np.exp(1j * np.pi * (n / size - 1.0) * fft.fftfreq(rows, 1.0 / rows) / n)
        kept *= delay[:, None] * np.exp(1j * np.pi * (n / size - 1.0) * np.arange(half) / n)[None, :]
    if scene.ghost > 0:  # periodic disagreement of the lines along the phase axis
        k = np.arange(rows if scene.phase_rows else half)
        wave = 1 + scene.ghost * np.sin(2 * np.pi * k / scene.ghost_period * 3.0 + rng.uniform(0, 6.28)) \
            + 0.3 * scene.ghost * rng.standard_normal(len(k))
        wave[0] = 1.0
        kept *= (wave[:, None] if scene.phase_rows else wave[None, :]).astype(np.float32)
    # A gentle taper, as most reconstructions have; it leaves some ringing.
    taper = (1 - 0.35 * (np.abs(fft.fftfreq(rows)) * 2)[:, None] ** 4) * (1 - 0.35 * np.linspace(0, 1, half)[None, :] ** 4)
    kept *= taper.astype(np.float32)
    sigma = scene.noise / np.sqrt(protocol.averages) * np.sqrt(rows * columns / (320.0 * 256.0)) * (512.0 / 320.0)
    scale = sigma * size * size / np.sqrt(2.0 * rows * columns)

    def full(block):
        out = np.zeros((size, size // 2 + 1), np.complex64)
        measured = out[:, :half]
        measured[:rows // 2] = block[:rows // 2]
        measured[size - rows // 2:] = block[rows // 2:]
        measured[:] = fft.ifft(measured, axis=0, workers=1)
        return fft.irfft(out, axis=1, workers=1)

    def noise():
        block = np.empty((rows, half), np.complex64)
        block.real, block.imag = rng.standard_normal((2, rows, half), dtype=np.float32)
        block *= np.float32(scale)
        return block

    pure, quadrature = full(kept), full(noise())
    noisy = np.sqrt(np.square(pure + full(noise())) + np.square(quadrature))
    return noisy, rician_mean(np.abs(pure), float(quadrature.std()))


def render_plane(subject, x, scene, protocols, size, field_mm, centre, rng, sub_slices=2, thickness=4.0,
                 render=None, texture=0, both=False, tables=None):
    """All contrasts of one slice: {contrast: (size, size) float32}, and the plane they came from.

    both: also the same images as a mean over all noise, as a second dictionary before the plane.

    The tissue maps are painted once per sub-slice and serve every protocol.  centre is (y, z).
    tables: {contrast: tissue values} where a protocol does not go by the subject's own.
    """
    n = render or size
    pixel = field_mm / n
    y = centre[0] + (np.arange(n) - (n - 1) / 2.0) * pixel
    z = centre[1] - (np.arange(n) - (n - 1) / 2.0) * pixel
    tables, shine = tables or {}, []
    for protocol in protocols:
        shine += tissue.signals(protocol, tables.get(protocol.contrast, subject.values), subject.flow)
    shine = np.array(shine, np.float32)
    fractions, plane = np.zeros((tissue.COUNT, n, n), np.float32), None
    for k in range(sub_slices):
        place = x + ((k + 0.5) / sub_slices - 0.5) * thickness
        plane = plane.beside(place) if plane else Plane(subject, place, y, z, texture)
        plane.paint().compose(fractions)
    fine, coarse = subject.uneven  # a grain that all contrasts share: protons are not spread evenly in any tissue
    factor = 1.0 + fine * plane.noise(1.3) + coarse * plane.noise(5.0)
    factor *= sensitivity(plane, scene, subject.seed) / sub_slices
    total = np.empty((len(shine), n, n), np.float32)
    for i in range(0, n, 8):  # so few rows that they stay in the cache
        total[:, i:i + 8] = (shine @ fractions[:, i:i + 8].reshape(tissue.COUNT, -1)).reshape(len(shine), -1, n) * factor[i:i + 8]
    images, pure = {}, {}
    for i, protocol in enumerate(protocols):
        out = min(128 if protocol.contrast == "t2-fast" else size, size)
        images[protocol.contrast], pure[protocol.contrast] = acquire(total[2 * i], total[2 * i + 1], protocol, scene, rng,
                                                                     field_mm, out)
    return (images, pure, plane) if both else (images, plane)


def to_stored(stack, rng, bits=12):
    """Scale a series to stored integers as a scanner does: bright tissue lands in mid-range."""
    bright = float(np.percentile(stack, 99.5))
    top = float(rng.uniform(900, 2600)) if bits == 12 else 2**bits * 0.6
    return np.clip(np.rint(stack * (top / max(bright, 1e-6))), 0, 2**bits - 1).astype(np.uint16)
