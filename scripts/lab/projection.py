"""Optical depth of a standing subject along the rays of a lateral radiograph.

The tube stands at one side of the patient, the detector at the other, so what lies nearer to the
tube is drawn larger: every structure is cut into slabs across the patient and each slab is
projected with a magnification of its own.  Bone adds its excess over the soft tissue that it
displaces, as a shell of cortex round a spongy inside; lung and gas take away.

Image coordinates are millimetres on the detector, from the central ray: right is the patient's
back, down is his feet.
"""

from dataclasses import dataclass

import numpy as np

from .anatomy import LEVELS, S1
from .canvas import round_box, smooth_noise, smooth_step, unit

# Linear attenuation at an effective 55 keV, 1/cm.
ATTENUATION = {"air": 0.0, "fat": 0.195, "muscle": 0.228, "organ": 0.222, "fluid": 0.212, "vessel": 0.225, "skin": 0.225,
               "ligament": 0.235, "csf": 0.212, "cord": 0.22, "root": 0.22, "vein": 0.225, "nucleus": 0.225, "annulus": 0.235,
               "dry_disc": 0.235, "cortical": 0.72, "marrow_water": 0.27, "marrow_fat": 0.245, "oedema": 0.27, "sclerosis": 0.40,
               "angioma": 0.235}
SOFT = 0.22


@dataclass(frozen=True)
class View:
    """How the patient stands between tube and detector; lengths in mm, angles in radians.

    centre: (y, z) of the central ray in the patient; distance: tube to detector; gap: middle of the
    patient to detector; turn, tilt: what is missing to an exact profile, about the long axis and
    about the line from back to front; side: +1 when the patient's left is at the detector.
    """

    centre: tuple
    distance: float
    gap: float
    turn: float
    tilt: float
    side: int

    @property
    def magnification(self):
        """Of the midsagittal plane."""
        return self.distance / (self.distance - self.gap)

    def scale(self, x):
        """Magnification of what lies x mm to the left of the middle."""
        return self.distance / (self.distance - self.gap + self.side * x)

    @staticmethod
    def sample(rng, subject):
        y, z = subject.centre
        return View((y + rng.normal(-6, 12), z + rng.normal(-4, 12)), float(rng.choice([1150.0, 1500.0, 1800.0])),
                    float(rng.uniform(190, 270)), float(rng.normal(0, 0.035)), float(rng.normal(0, 0.03)),
                    1 if rng.random() < 0.8 else -1)


class Film:
    """The picture being made: optical depth on a grid of the detector."""

    def __init__(self, view, rows, columns, pixel, seed):
        self.view, self.pixel, self.seed = view, pixel, seed
        self.right = ((np.arange(columns) - (columns - 1) / 2) * pixel).astype(np.float32)
        self.down = ((np.arange(rows) - (rows - 1) / 2) * pixel).astype(np.float32)
        self.depth = np.zeros((rows, columns), np.float32)
        self.shape = self.depth.shape

    def rng(self, key):
        return np.random.default_rng([self.seed, key])

    def noise(self, key, scale):
        """Smooth noise with a correlation length in mm."""
        return smooth_noise(self.rng(key), self.shape, (self.shape[0] * self.pixel / scale, self.shape[1] * self.pixel / scale))

    def grid(self, x=0.0):
        """(y, z) of the patient's plane at x mm that every column and row shows."""
        m = self.view.scale(x)
        return self.view.centre[0] + self.right / m, self.view.centre[1] - self.down / m

    def box(self, y, z, radius, x=0.0):
        """Slices of rows and columns round a point of the patient, or None outside the picture."""
        m = self.view.scale(x)
        j = np.searchsorted(self.right, [(y - radius - self.view.centre[0]) * m, (y + radius - self.view.centre[0]) * m])
        i = np.searchsorted(self.down, [(self.view.centre[1] - z - radius) * m, (self.view.centre[1] - z + radius) * m])
        return None if j[0] >= j[1] or i[0] >= i[1] else (slice(i[0], i[1]), slice(j[0], j[1]))

    def cover(self, distance, x=0.0):
        share = distance * -(self.view.scale(x) / self.pixel)
        share += 0.5
        return unit(share)

    def local(self, frame, box, x, dy=0.0, dz=0.0):
        """Coordinates (p, q) in a frame that lies x mm to the left, moved by (dy, dz)."""
        m = self.view.scale(x)
        y = (self.right[None, box[1]] / m + (self.view.centre[0] - frame.y - dy)).astype(np.float32)
        z = (-self.down[box[0], None] / m + (self.view.centre[1] - frame.z - dz)).astype(np.float32)
        return y * frame.c + z * frame.s, z * frame.c - y * frame.s


class Bones:
    """What a subject's skeleton adds to a film."""

    def __init__(self, subject, film, rng):
        self.s, self.film, self.view = subject, film, film.view
        self.middle = float(np.mean([b.x for b in subject.bodies[S1:S1 + 6]]))
        age = (subject.age - 22.0) / 60.0
        dense = float(np.clip(rng.normal(1.05 - 0.35 * age, 0.15), 0.45, 1.4))
        self.cortex = 0.30 * (0.6 + 0.4 * dense)          # 1/cm above soft tissue, what is porous taken off
        self.sponge = 0.105 * dense * (1.25 - 0.5 * subject.fat_share)
        self.wall, self.endplate = rng.uniform(0.35, 0.7), rng.uniform(0.6, 1.1)
        film.sponge = 1.0 + 0.13 * film.noise(201, 1.8) + 0.12 * film.noise(202, 5.0)
        # No cortex is equally thick, or quite parallel to the ray, everywhere.
        film.rough = 0.3 * film.noise(204, 6.0) + 0.25 * film.noise(205, 2.5)
        film.even = np.clip(0.85 + 0.35 * film.noise(203, 6.0), 0.25, 1.6)

    def draw(self):
        for i in range(min(S1 + 10, len(LEVELS))):
            self._body(i)
            self._posterior(i)
        self._sacral_wings()
        self._pelvis()
        self._ribs()

    def pose(self, b):
        """(dy, dz) per mm to the left: how a vertebra is turned and tilted in this view."""
        low, high = self.s.x_of(b.frame.z - 10), self.s.x_of(b.frame.z + 10)
        tilt = (high - low) / 20.0
        return self.view.turn + 0.6 * tilt, self.view.tilt - tilt

    def solid(self, box, distance, x, length, cortex=None, wall=None, sponge=1.0):
        """Add a slab of bone of the given length along the ray, by the distance to its outline."""
        film = self.film
        outer = film.cover(distance, x)
        inner = film.cover(distance + (wall or self.wall), x)
        film.depth[box] += (length / 10.0) * ((cortex or self.cortex) * film.even[box] * (outer - inner)
                                              + self.sponge * sponge * inner * film.sponge[box])

    def _body(self, i):
        film, b = self.film, self.s.bodies[i]
        box = film.box(b.frame.y, b.frame.z, 0.62 * np.hypot(b.depth, b.height) + 6)
        if box is None:
            return
        turn, tilt = self.pose(b)
        slabs = 8 if i > S1 else 12
        step = b.width / slabs
        rough = film.rough[box]
        for k in range(slabs):
            u = (k + 0.5) / slabs * 2 - 1
            x = b.x - self.middle + 0.5 * b.width * u
            p, q = film.local(b.frame, box, x, turn * 0.5 * b.width * u, tilt * 0.5 * b.width * u)
            reach = np.sqrt(1.0 - 0.92 * abs(u) ** 3)
            rise = 0.5 * (b.height + (b.back - b.front) * p / b.depth)
            hollow = 1.0 - 0.75 * u * u
            top = rise - b.concave_top * hollow * np.maximum(0.0, 1.0 - (2.2 * (p - 1.0) / b.depth) ** 2)
            bottom = rise - b.concave_bottom * hollow * np.maximum(0.0, 1.0 - (2.2 * (p - 2.0) / b.depth) ** 2)
            across = np.maximum(0, 1 - (2.0 * q / b.height) ** 2)
            spur = b.spur(q)
            front = -0.5 * b.depth * reach + b.waist * across - spur
            back = 0.5 * b.depth * (0.72 + 0.28 * reach) - 0.8 * b.waist * across + 0.3 * spur
            distance = round_box(p, q, front, back, -bottom, top, 1.6) + rough
            self.solid(box, distance, x, step)
            # Endplates are thicker than the walls.
            plate = np.maximum(q - top, -bottom - q) + rough
            inside = film.cover(distance, x)
            film.depth[box] += (step / 10.0) * self.cortex * 0.8 * film.even[box] * inside * (film.cover(plate, x) - film.cover(plate + self.endplate, x))
            self._findings(i, b, box, p, q, top, bottom, inside, u, step)

    def _findings(self, i, b, box, p, q, top, bottom, inside, u, step):
        """What of a finding a radiograph can show: compression, sclerosis, a haemangioma's stripes."""
        film, added = self.film, 0.0
        if b.fracture and i > S1:
            added = added + 0.16 * np.exp(-((q - (top - 3.5)) / 1.3) ** 2)
        for d, edge, reach in ((self.s.discs[i] if i < len(LEVELS) - 1 else None, top - q, 1),
                               (self.s.discs[i - 1] if i else None, bottom + q, 0)):
            if d is not None and d.modic == 3 and d.modic_reach[reach] > 0:
                along = np.exp(-((p / b.depth - 0.45 * d.modic_side) / 0.55) ** 4)
                added = added + 0.16 * smooth_step(d.modic_reach[reach] * along - edge, -1.5, 1.5)
            elif d is not None and d.grade >= 4:
                added = added + 0.05 * smooth_step(2.5 - edge, -1.5, 1.5)
        if b.haemangioma:
            hp, hq, hx, r = b.haemangioma
            r2 = r * r - (0.5 * b.width * u - hx) ** 2
            if r2 > 1:
                added = added + film.cover(np.hypot(p - hp, q - hq) - np.sqrt(r2)) * (0.08 * (np.sin(p * 2.6) > 0.2) - 0.04)
        if np.ndim(added):
            film.depth[box] += (step / 10.0) * inside * added

    def _bar(self, b, frame, half_p, half_q, radius, x_low, x_high, slabs=2, sponge=1.0, wall=0.5):
        """A block of bone with rounded corners from x_low to x_high on both sides of the middle."""
        film = self.film
        turn, tilt = self.pose(b)
        box = film.box(frame.y, frame.z, np.hypot(half_p, half_q) + 7)
        if box is None:
            return
        rough = (2.5 if x_low > 0 else -2.5) * film.rough[box]
        sides = (-1, 1) if x_low > 0 else (0,)
        for side in sides:
            for k in range(slabs):
                x = side * (x_low + (x_high - x_low) * (k + 0.5) / slabs)
                p, q = film.local(frame, box, b.x - self.middle + x, turn * x, tilt * x)
                edge = 1.0 - 0.18 * abs(2 * (k + 0.5) / slabs - 1)
                distance = round_box(p, q, -half_p * edge, half_p * edge, -half_q * edge, half_q * edge,
                                     min(radius, half_p * edge - 0.2, half_q * edge - 0.2)) + rough
                self.solid(box, distance, x, (x_high - x_low) * (1 if sides != (0,) else 2) / slabs, wall=wall, sponge=sponge)

    def _posterior(self, i):
        """Pedicles, joints, laminae, spinous and transverse processes, where the MR's painter has them."""
        s, b = self.s, self.s.bodies[i]
        size = s.size * (0.8 if i > S1 + 6 else 1.0) * (0.7 if i < S1 else 1.0)
        rear = 0.5 * b.depth + s.canal + 1.0
        slant = s.spinous_slant + (0.45 if i > S1 + 6 else 0.0)
        if i >= S1:
            length = 0.5 * s.spinous_length * (0.5 if i == S1 else 1.0)
            tall = (9.5 if i <= S1 + 6 else 6.0) * size * (0.75 if i in (S1, S1 + 1) else 1.0)
            self._bar(b, b.frame.child(rear + length, -6.5 * size - length * slant, -slant - 0.12), length, tall, 5.0, 0.0, 3.2, 2, 1.8, 0.3)
        self._bar(b, b.frame.child(rear + 2.4, -6.0 * size, -0.3), 3.2, 8.8 * size, 2.8, 2.0, 12.5, 3, 1.5, 0.4)
        if i < S1:
            return
        self._bar(b, b.frame.child(0.5 * b.depth + 5.0, 0.2 * b.height), 9.5, 6.8 * size, 3.5, 9.0, 17.5, 3, 1.7, 0.5)
        self._bar(b, b.frame.child(0.5 * b.depth + 15.0, -0.12 * b.height, -0.12), 4.4, 0.42 * b.height, 3.0, 12.0, 20.5, 3, 1.7, 0.4)
        self._bar(b, b.frame.child(0.5 * b.depth + 17.5, -0.75 * b.height, -0.2), 4.0, 8.0 * size, 3.5, 12.0, 20.5, 3, 1.7, 0.4)
        self._bar(b, b.frame.child(0.5 * b.depth + 11.5, 0.55 * b.height, -0.2), 3.6, 7.0 * size, 3.0, 12.0, 20.5, 3, 1.7, 0.4)
        self._bar(b, b.frame.child(0.5 * b.depth + 8.0, 0.15 * b.height, 0.2), 3.0, 5.5 * size, 2.5, 18.5, 36.0, 2, 0.6, 0.4)

    def _sacral_wings(self):
        """The sacrum beside its bodies: a wedge that thins out downwards."""
        s = self.s
        for i, wide in ((S1, 24.0), (S1 - 1, 18.0), (S1 - 2, 10.0)):
            b = s.bodies[i]
            self._bar(b, b.frame.child(0.16 * b.depth, -0.05 * b.height), 0.46 * b.depth, 0.5 * b.height, 7.0,
                      0.5 * b.width, 0.5 * b.width + wide, 2, 0.9, 0.5)

    def _pelvis(self):
        """The iliac wings: two plates over L5 and the sacrum, each with its crest."""
        film, s = self.film, self.s
        rng, size = film.rng(240), s.size
        s1, l4 = s.bodies[S1].frame, s.bodies[S1 + 2].frame
        peak_z = s.bodies[S1 + 2].frame.z - 0.5 * s.bodies[S1 + 2].height + rng.normal(-4, 9)
        peak_y = 0.5 * (s1.y + l4.y) + rng.normal(-8, 8)
        front, rear = rng.uniform(78, 100) * size, rng.uniform(60, 74) * size
        fossa = film.noise(241, 30.0)
        for side in (-1, 1):
            x = side * rng.uniform(105, 130) * size
            y, z = (a + d * x for a, d in zip(film.grid(x), (-self.view.turn, -self.view.tilt)))
            away = (y - peak_y) / np.where(y < peak_y, front, rear)
            crest = peak_z - np.where(y < peak_y, 62.0, 78.0) * size * np.abs(away) ** 2.3
            slope = np.hypot(1.0, np.gradient(crest, y))
            distance = np.maximum((z[:, None] - crest[None, :]) / slope[None, :], (np.abs(away) - 1.12)[None, :] * 60)
            body = film.cover(distance, x)
            thin = smooth_step(-distance, 4.0, 26.0)
            lower = smooth_step(z[:, None] - s1.z, -95.0, -45.0)
            plate = (0.20 - 0.07 * thin) * (1 + 0.14 * fossa) * lower
            lip = np.exp(-((distance + 2.2) / 1.5) ** 2) + 0.6 * np.exp(-((distance + 9.0) / 2.0) ** 2)
            film.depth += self.cortex * 2.2 * body * (plate + 0.16 * lip * lower)

    def _ribs(self):
        """The lower ribs on both sides: bands that come from the spine and run forward and down."""
        s, film = self.s, self.film
        for k, i in enumerate(range(S1 + 6, min(S1 + 10, len(LEVELS)))):  # T12, T11, T10, T9
            b = s.bodies[i]
            rng = film.rng(260 + i)
            long = (75, 140, 185, 200)[k] * rng.uniform(0.85, 1.15)
            droop = rng.uniform(0.45, 0.75)
            for side in (-1, 1):
                t = np.linspace(0, 1, 13)
                hull = b.frame.y + 16 + 42 * np.sin(np.pi * np.clip(t * 2.2, 0, 1) * 0.62)
                y = hull - long * np.clip(t - 0.22, 0, 1) ** 1.1 + side * rng.normal(0, 4)
                z = b.frame.z + 4 - droop * (long * t * 0.85) + side * rng.normal(0, 4)
                x = side * (25 + 110 * np.sin(np.pi * 0.5 * np.clip(1.6 * t, 0, 1)))
                self._tube(y, z, x, 0.5 * rng.uniform(9, 13) * s.size)

    def _tube(self, y, z, x, half):
        """A band along a line in space: denser at its borders, as a tube of cortex is."""
        film = self.film
        m = np.array([film.view.scale(v) for v in x])
        u, v = (y - film.view.centre[0]) * m, (film.view.centre[1] - z) * m
        reach = half * m.max() + 2
        j = np.searchsorted(film.right, [u.min() - reach, u.max() + reach])
        i = np.searchsorted(film.down, [v.min() - reach, v.max() + reach])
        if j[0] >= j[1] or i[0] >= i[1]:
            return
        box = (slice(i[0], i[1]), slice(j[0], j[1]))
        right, down = film.right[None, box[1]], film.down[box[0], None]
        away = np.full(film.depth[box].shape, 1e6, np.float32)  # squared distance
        u, v = u.tolist(), v.tolist()  # not numpy's doubles, which would make every array double
        for k in range(len(u) - 1):
            du, dv = u[k + 1] - u[k], v[k + 1] - v[k]
            across, along = right - u[k], down - v[k]
            length = du * du + dv * dv + 1e-6
            share = unit(across * (du / length) + along * (dv / length))
            away = np.minimum(away, np.square(across - share * du) + np.square(along - share * dv))
        away = np.sqrt(away)
        half = half * float(m.mean())
        along = (down - v[0]) / (v[-1] - v[0])  # ribs thin out towards their ends, and lie more obliquely there
        body = np.clip(0.5 + (half - away) / max(film.pixel, 1.0), 0, 1) * (1 - 0.75 * smooth_step(along, 0.35, 1.0))
        across = np.sqrt(np.clip(1 - (away / half) ** 2, 0, 1))
        shell = 0.22 * np.minimum(1.0 / np.maximum(across, 0.22), 3.2)
        film.depth[box] += body * self.cortex * (0.16 + 0.85 * shell)
