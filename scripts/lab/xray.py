"""Standing lateral radiograph of a subject: Beer-Lambert projection through painted planes.

The spine is projected through sagittal planes; the soft tissue to both sides of them is added as an
elliptic trunk.  Then scatter, focal blur, quantum noise, logarithm, collimation.  The posture is not
that of the MR examination: people stand with more lordosis than they lie with.
"""

import numpy as np
from scipy import ndimage

from . import tissue
from .anatomy import Subject
from .canvas import smooth_noise, smooth_step
from .spine import Plane

# Linear attenuation at an effective 55 keV, 1/cm.
ATTENUATION = {"air": 0.0, "fat": 0.195, "muscle": 0.228, "organ": 0.222, "fluid": 0.212, "vessel": 0.225, "skin": 0.225,
               "ligament": 0.235, "csf": 0.212, "cord": 0.22, "root": 0.22, "vein": 0.225, "nucleus": 0.225, "annulus": 0.235,
               "dry_disc": 0.235, "cortical": 0.72, "marrow_water": 0.27, "marrow_fat": 0.245, "oedema": 0.27, "sclerosis": 0.40,
               "angioma": 0.235}
SPINE_HALF_WIDTH = 36.0


def thickness(y, z, subject, plane):
    """Half width of the trunk in mm at every pixel: an ellipse between belly and back."""
    front, back = plane.wall[:, None], plane.skin[:, None]
    share = np.clip((y[None, :] - front) / np.maximum(back - front, 1.0), 0.0, 1.0) * 2.0 - 1.0
    half = (142.0 + 26.0 * (subject.size - 0.9) * 5 + 0.35 * subject.belly[1]) * (1 + 0.08 * smooth_step(-z, 0, 80))[:, None]
    return half * np.sqrt(np.clip(1.0 - np.abs(share) ** 3.2, 0.0, 1.0))


def project(subject, y, z, planes=17):
    """Optical depth (rows, columns): the integral of attenuation along the lateral path."""
    step = 2 * SPINE_HALF_WIDTH / planes
    mu = np.array([ATTENUATION[n] for n in tissue.NAMES], np.float32)
    depth = 0.0
    middle = np.mean([b.x for b in subject.bodies[5:9]])
    for k in range(planes):
        x = middle - SPINE_HALF_WIDTH + (k + 0.5) * step
        plane = Plane(subject, x, y, z, 500 + k)
        fractions = plane.paint().fractions
        # Density of bone differs from person to person; fat marrow goes with thin trabeculae.
        here = mu.copy()
        here[tissue.INDEX["marrow_water"]] += 0.05 * (0.7 - subject.fat_share)
        depth = depth + np.tensordot(here, fractions, 1) * (step / 10.0)
    outside = np.maximum(thickness(y, z, subject, plane) - SPINE_HALF_WIDTH, 0.0)
    soft = 0.6 * ATTENUATION["muscle"] + 0.4 * ATTENUATION["fat"]
    texture = 1.0 + 0.03 * smooth_noise(np.random.default_rng([subject.seed, 90]), plane.canvas.shape, (5, 5))
    gas = smooth_noise(np.random.default_rng([subject.seed, 91]), plane.canvas.shape, (11, 9))
    bowel = smooth_step(plane.front[:, None] - 8 - y[None, :], 0, 15)
    gas = 35.0 * smooth_step(gas, 1.1, 2.2) * subject.bowel_gas * bowel
    ribs = _ribs(subject, y, z, plane)
    return depth + (2 * outside - np.minimum(gas, outside)) / 10.0 * soft * texture + ribs


def _ribs(subject, y, z, plane):
    """Shadows of the lower ribs: slanted bands over the upper part of the picture."""
    out = np.zeros(plane.canvas.shape, np.float32)
    top = subject.bodies[10].frame
    rng = np.random.default_rng([subject.seed, 92])
    for k in range(4):
        z0 = top.z + 28 * (k - 0.5) + rng.normal(0, 4)
        for side in (-1, 1):
            line = z0 + side * rng.uniform(1, 6) - 0.55 * (top.y + 30 - y[None, :]) + 0.002 * (top.y - y[None, :]) ** 2
            away = np.abs(z[:, None] - line)
            body = (y[None, :] > plane.wall[:, None] + 10) & (y[None, :] < plane.skin[:, None] - 8)
            out += (0.16 * smooth_step(-away, -5.0, -3.2) + 0.12 * smooth_step(-np.abs(away - 4.2), -1.0, -0.2)) * body
    return out


def radiograph(seed, size=256, field_mm=300.0):
    """A digital radiograph in [0, 1], bone bright, of the standing subject; and the subject that stood."""
    rng = np.random.default_rng([seed, 93])
    subject = Subject(seed, posture=float(rng.normal(6.0, 3.0)))
    pixel = field_mm / size
    y = (subject.centre[0] + (np.arange(size) - (size - 1) / 2) * pixel).astype(np.float32)
    z = (subject.centre[1] - (np.arange(size) - (size - 1) / 2) * pixel).astype(np.float32)
    depth = project(subject, y, z)
    primary = np.exp(-(depth - np.percentile(depth, 2)))
    scatter = ndimage.gaussian_filter(primary, 28.0 / pixel) * rng.uniform(0.25, 0.7)
    image = ndimage.gaussian_filter(primary, rng.uniform(0.25, 0.6) / pixel) + scatter
    # The exposure is set for the spine: so many quanta per pixel where the trunk is thick.
    quanta = float(np.exp(rng.uniform(np.log(1e3), np.log(1e4)))) / max(float(np.percentile(image, 12)), 1e-9)
    image = -np.log((rng.poisson(np.clip(image * quanta, 0, 1e9)) + 0.5) / quanta)
    # What every digital system does before display: compress the large scale, keep the small.
    coarse = ndimage.gaussian_filter(image, rng.uniform(14, 24) / pixel)
    image = (image - coarse) + rng.uniform(0.12, 0.3) * coarse
    inside = depth > 1.0
    low, high = np.percentile(image[inside], [1, 99.5])
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    edge = rng.uniform(0, 0.10, 4) * size
    rows, columns = np.mgrid[:size, :size]
    open_ = (rows > edge[0]) & (rows < size - edge[1]) & (columns > edge[2]) & (columns < size - edge[3])
    return np.where(open_, image, 0.0).astype(np.float32), subject
