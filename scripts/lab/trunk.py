"""Soft tissue, lung and gas of the trunk on a lateral radiograph: thickness along the ray.

The trunk is cut across as a rounded box between belly and back, wider at the hips.  Lung and gas
are taken away from it, calcified vessels added.
"""

import numpy as np

from .anatomy import S1
from .canvas import smooth_step
from .projection import ATTENUATION, SOFT
from .spine import Plane

LUNG = 0.16  # what inflated lung lets through more than soft tissue, 1/cm


class Trunk:
    def __init__(self, subject, film):
        self.s, self.film, self.view = subject, film, film.view
        y, z = film.grid()
        self.middle = float(np.mean([b.x for b in subject.bodies[S1:S1 + 6]]))
        self.plane = Plane(subject, self.middle, y, z, 500)
        self.y, self.z = y[None, :], z[:, None]
        lines = self.plane.wall, self.plane.skin, self.plane.front
        self.front, self.back, self.spine = (line.astype(np.float32)[:, None] for line in lines)

    def draw(self):
        s, film = self.s, self.film
        rng = film.rng(300)
        share = np.clip((self.y - self.front) / np.maximum(self.back - self.front, 1.0), 0.0, 1.0) * 2.0 - 1.0
        half = (118.0 + 0.32 * s.belly[0] * 0.25 + 0.5 * s.belly[1]) * s.size * rng.uniform(0.94, 1.08)
        half = half + 24.0 * s.size * smooth_step(-self.z, -45, 35) + 6.0 * smooth_step(self.z, 90, 170)
        self.half = half * np.clip(1.0 - np.abs(share) ** 2.8, 0.0, 1.0) ** (1 / 2.8)
        muscular = np.clip(0.75 - 0.25 * np.abs(share) - 0.006 * (s.belly[1] - 20), 0.25, 0.9)
        soft = ATTENUATION["fat"] + (ATTENUATION["muscle"] - ATTENUATION["fat"]) * muscular
        texture = 1.0 + 0.012 * film.noise(301, 40.0) + 0.006 * film.noise(302, 12.0)
        film.depth += 2 * self.half / 10.0 * soft * texture
        self._psoas(rng)
        self._lungs(rng)
        self._gas(rng)
        self._calcified(rng)

    def _psoas(self, rng):
        """Fat before the spine and the muscle's faint front edge."""
        edge = self.spine - self.s.prevertebral
        film = self.film
        film.depth -= rng.uniform(0, 0.10) * np.exp(-((self.y - edge + 2.0) / 3.5) ** 2) * smooth_step(film.noise(305, 25.0), -1, 1)

    def _lungs(self, rng):
        """Two domes: highest over the belly, lowest in the recess behind, where lung overlies the spine."""
        s, film = self.s, self.film
        base = s.bodies[S1 + 6].frame.z + rng.normal(0, 16)
        spine = self.spine
        for side in (-1, 1):
            low = base + side * rng.uniform(2, 11)
            forward = np.maximum(spine - self.y, 0.0)
            behind = np.maximum(self.y - spine, 0.0)
            dome = low + 30.0 * (1 - np.exp(-(forward / 55.0) ** 1.3)) - 0.42 * behind - 6.0 * (behind > 0)
            dome = dome - 0.0025 * np.maximum(forward - 95.0, 0) ** 2
            inside = np.minimum(self.z - dome, 0.45 * np.minimum(self.y - self.front - 14, self.back - 16 - self.y))
            deep = 1 - np.exp(-np.maximum(inside, 0) / 22.0)
            vessels = 1 + 0.05 * film.noise(306 + side, 9.0)
            film.depth -= LUNG * 0.1 * 0.72 * self.half * deep * vessels * np.clip(inside / 3.0 + 0.5, 0, 1)

    def _gas(self, rng):
        """Gut in front of the spine: loops with gas, folded blobs in chains, and mottled contents."""
        s, film = self.s, self.film
        low, high = float(self.plane.wall.mean()) + 20, float(np.mean([b.frame.y for b in s.bodies[S1:S1 + 5]]))
        taken = np.zeros(film.shape, np.float32)
        for _ in range(int(rng.poisson(2 + 5 * s.bowel_gas))):
            y, z = low + (high - low) * rng.beta(1.3, 1.6), rng.uniform(-70, s.bodies[S1 + 6].frame.z - 15)
            course, wide = rng.uniform(0, 2 * np.pi), rng.uniform(5, 15)
            for _ in range(int(rng.integers(1, 6))):
                self._blob(taken, y, z, wide * rng.uniform(0.6, 1.2), wide * rng.uniform(0.5, 1.0), course, rng)
                course += rng.normal(0, 0.6)
                y, z = y + 1.1 * wide * np.cos(course), z + 1.1 * wide * np.sin(course)
        film.depth -= SOFT * 0.1 * np.minimum(taken, self.half) * np.clip(1 + 0.25 * film.noise(303, 6.0), 0, 2)
        belly = smooth_step(self.spine - self.y, -5, 25) * smooth_step(-self.z, -s.bodies[S1 + 5].frame.z, 0)
        mottled = smooth_step(film.noise(307, 26.0), 0.2, 1.4) * np.abs(film.noise(308, 4.5)) * belly
        film.depth -= 0.14 * s.bowel_gas * mottled * (self.half > 30)

    def _blob(self, taken, y, z, a, b, turn, rng):
        """One bubble: thickness in mm, the largest of overlapping ones counts."""
        box = self.film.box(y, z, 1.5 * max(a, b) + 4)
        if box is None:
            return
        dy, dz = self.y[:, box[1]] - y, self.z[box[0]] - z
        p, q = dy * np.cos(turn) + dz * np.sin(turn), dz * np.cos(turn) - dy * np.sin(turn)
        dent = 1 + 0.18 * np.sin(3 * np.arctan2(q, p) + rng.uniform(0, 6)) + 0.06 * np.sin(7 * np.arctan2(q, p))
        r2 = ((p / a) ** 2 + (q / b) ** 2) / dent**2
        taken[box] = np.maximum(taken[box], 2.0 * b * rng.uniform(0.6, 1.3) * np.sqrt(np.clip(1 - r2, 0, 1)))

    def _calcified(self, rng):
        """Plaques in the aorta's walls in the elderly: short bright lines before L2 to L4."""
        s, film = self.s, self.film
        if rng.random() > np.clip((s.age - 45) / 50, 0, 0.8):
            return
        z0, z1 = s.bodies[S1 + 2].frame.z, s.bodies[S1 + 5].frame.z
        line = self.spine - s.prevertebral
        broken = smooth_step(film.noise(304, 9.0), 0.1, 0.9)
        within = smooth_step(self.z, z0, z0 + 8) * smooth_step(-self.z, -z1, -z1 + 8)
        for away in (2.0, 2.0 + 2 * s.aorta[1]):
            film.depth += rng.uniform(0.1, 0.5) * np.exp(-((self.y - line + away) / 0.9) ** 2) * broken * within
