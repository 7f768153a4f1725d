"""Paint one sagittal plane of a subject: tissue fractions from geometry, back to front.

The order is that of depth in importance, not in space: body outline and organs, muscle, canal,
discs, bodies, posterior elements, findings.  Later shapes cover earlier ones.
"""

import copy
import math

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .anatomy import LEVELS, S1
from .canvas import Canvas, Texture, ellipse, round_box, smooth_noise, smooth_step

# What marrow becomes beside a disc with Modic changes of each type.  All keep some fat and marrow's water, between
# which the grain of the bone goes on: a lesion's texture must not tell what its brightness does not.
MODIC = {1: {"oedema": 0.70, "marrow_fat": 0.15, "marrow_water": 0.15}, 2: {"marrow_fat": 0.88, "marrow_water": 0.12},
         3: {"sclerosis": 0.84, "marrow_fat": 0.08, "marrow_water": 0.08}}


def grained(fat, water, grain):
    """Shares of fat and water when the grain moves some of one to the other, as far as there is any."""
    moved = np.clip(grain, -fat, water)
    return fat + moved, water - moved


class Plane:
    """A sagittal plane at x mm of a subject on the grid y (columns), z (rows)."""

    def __init__(self, subject, x, y, z, texture_seed):
        self.s = subject
        self.canvas = Canvas(y, z)
        self.texture = Texture([subject.seed, 77, int(texture_seed)])
        self.grain = {}  # of each body, by its name: share of fat beyond its mean, in the body's box
        self._lines()
        self.rough = 0.4 * self.noise(7.0) + 0.3 * self.noise(2.6)  # mm by which no outline is perfect
        self.start = self.texture.again()
        self._move(x)

    def _move(self, x):
        self.x = float(x)
        self.u = (self.x - self.s.x_of(np.clip(self.canvas.z, -60, 260))).astype(np.float32)  # lateral offset per row
        self.marked = np.zeros(self.canvas.shape, np.float32)  # share of each pixel that a finding in bone or canal covers

    def beside(self, x):
        """The plane at another x, not painted yet, with the same texture."""
        other = copy.copy(self)
        other.canvas = Canvas(self.canvas.y, self.canvas.z)
        other.texture = self.start.again()
        other._move(x)
        return other

    def noise(self, scale_z, scale_y=None, box=None):
        """Smooth noise on the plane, or a box of it, with a correlation length in mm."""
        c = self.canvas
        scale_y = scale_y or scale_z
        return self.texture.field(c.shape, (c.shape[0] * c.pixel / scale_z, c.shape[1] * c.pixel / scale_y), box)

    def _lines(self):
        """Curves along the spine as functions of z (per row): its front, back, canal, skin."""
        s, z = self.s, self.canvas.z
        zs, fronts, backs, tilts, tips = [], [], [], [], []
        for b in s.bodies:
            for q in (-0.45, 0.0, 0.45):
                yf, _ = b.frame.at(-0.5 * b.depth, q * b.height)
                yb, zb = b.frame.at(0.5 * b.depth, q * b.height)
                zs.append(zb)
                fronts.append(yf)
                backs.append(yb)
                tilts.append(b.frame.tilt)
        order = np.argsort(zs)
        zs, fronts, backs, tilts = (np.array(v)[order] for v in (zs, fronts, backs, tilts))
        smooth = 2.5 / self.canvas.pixel  # walls step from body to body; ligaments bridge the steps
        self.front = gaussian_filter1d(np.interp(z, zs, fronts), smooth)
        self.back = gaussian_filter1d(np.interp(z, zs, backs), smooth)
        self.slant = 1.0 / np.cos(np.clip(np.interp(z, zs, tilts), -1.0, 1.0))  # widths across a tilted canal
        sacral = smooth_step(z, s.bodies[S1 - 2].frame.z - 20, s.bodies[S1].frame.z + 10)
        self.canal_back = self.back + (0.6 + s.canal * (0.45 + 0.55 * sacral)) * self.slant
        for i, b in enumerate(s.bodies):
            reach = 0.5 * b.depth + s.canal + s.spinous_length * (1.0 if i > S1 else 0.45)
            tips.append(b.frame.at(reach, -4.0))
        tips = np.array(tips)
        fit = np.polynomial.Polynomial.fit(tips[3:, 1], tips[3:, 0], 3)
        fascia = fit(np.clip(z, tips[2, 1], tips[-1, 1]))
        self.fascia = np.maximum(fascia + 4.0, self.canal_back + 6.0)
        share = smooth_step(z, -60, 200)
        padding = s.subcutaneous[0] * (1 - share) + s.subcutaneous[1] * share
        # Lying on the table flattens the back: half of its curve is filled by fat and cushion.
        straight = np.polynomial.Polynomial.fit(z, self.fascia, 1)(z)
        self.skin = np.maximum(self.fascia + 0.6 * padding, 0.35 * self.fascia + 0.65 * straight + 3.0 + padding)
        self.fascia = self.fascia + 1.2 * smooth_noise(np.random.default_rng([s.seed, 79]), (len(z), 2), (9, 1))[:, 0]
        wave = smooth_noise(np.random.default_rng([s.seed, 78]), (len(z), 2), (2, 1))[:, 0]
        smooth_front = np.polynomial.Polynomial.fit(zs, fronts, 3)(np.clip(z, zs[0], zs[-1]))
        self.wall = smooth_front - s.belly[0] - 9.0 * wave - 20 * smooth_step(z, 120, -40)

    def paint(self):
        """Paint everything; returns the canvas."""
        self._outside()
        self._belly()
        self._back_muscle()
        self._canal()
        self._ligaments()  # where the spine bends sharply their lines would cross discs and bodies: these come later
        for i in range(len(LEVELS) - 1):
            self._disc(i)
        for i in range(len(LEVELS)):
            self._body(i)
        for i in range(S1 - 2, len(LEVELS)):
            self._posterior(i)
        for i in range(S1 - 1, len(LEVELS) - 1):
            self._findings(i)
        return self.canvas

    # -- around the spine -------------------------------------------------------------------

    def _outside(self):
        c = self.canvas
        ones = np.ones(c.shape[0], np.float32)
        box, a = c.strip(self.wall, self.skin)
        if box is None:
            return
        c.paint(box, a, {"skin": 1.0})
        box, a = c.strip(self.wall + 1.8 * ones, self.skin - 1.8 * ones)
        c.paint(box, a, {"fat": 1.0})
        septa = np.abs(self.noise(7.0, 16.0)) < 0.05
        low, high = self.fascia + 2.0, self.skin - 2.0
        box, _ = c.strip(low, high)
        if box is not None:
            y = c.y[None, box[1]]
            c.paint(box, np.float32(0.45) * (septa[box] & (y > low[:, None]) & (y < high[:, None])), {"ligament": 1.0})

    def _belly(self):
        s, c = self.s, self.canvas
        inner = self.wall + s.belly[1]
        box, a = c.strip(inner, inner + 11.0)
        if box is not None:
            c.paint(box, a, {"muscle": 0.92, "fat": 0.08})
        rear = self.front - s.prevertebral - 1.0
        lateral = np.abs(self.u) > 26
        rear = np.where(lateral, self.canal_back, rear)
        box, a = c.strip(inner + 11.0, rear)
        if box is not None:
            self._bowel(box, a)
        self._vessels()
        if np.any(lateral):  # psoas and the flank beside the spine
            edge = self.front + 2 + 5 * np.sin(c.z / 40.0)
            box, a = c.strip(np.where(lateral, edge - 14, 1e3), np.where(lateral, self.canal_back - 4, 1e3))
            if box is not None:
                c.paint(box, a, {"muscle": 0.93, "fat": 0.07})

    def _bowel(self, box, a):
        """Loops of gut in fat: cells of noise parted by ridges, each with a content of its own."""
        s, c = self.s, self.canvas
        field = self.noise(24.0, 17.0, box=box) + 0.35 * self.noise(7.0, 6.0, box=box)
        kind = self.noise(21.0, 19.0, box=box) + 0.25 * self.noise(5.0, 5.0, box=box)
        wall = np.abs(field)
        gut = smooth_step(wall, 0.55 * s.organ_fat, 0.55 * s.organ_fat + 0.12)
        lumen = smooth_step(wall, 0.55 * s.organ_fat + 0.25, 0.55 * s.organ_fat + 0.4)
        fluid = smooth_step(kind, 0.9, 1.2) * lumen
        gas = smooth_step(-kind, 1.15 - 0.5 * s.bowel_gas, 1.35 - 0.5 * s.bowel_gas) * lumen
        strands = 0.22 * smooth_step(-np.abs(self.noise(4.0, 9.0, box=box)), -0.35, 0.0)
        shade = 0.5 + 0.35 * np.clip(kind, -1, 1)
        c.paint(box, a, {"fat": 1.0 - strands, "vessel": strands})
        c.paint(box, a * gut, {"organ": shade, "muscle": 1.0 - shade})
        c.paint(box, a * 0.8 * fluid, {"fluid": 0.6, "organ": 0.4})
        c.paint(box, a * gas, {"air": 0.9, "organ": 0.1})

    def _vessels(self):
        s, c = self.s, self.canvas
        fork = s.bodies[S1 + 2].frame.z - 8
        for (x0, radius), name in ((s.aorta, "vessel"), (s.cava, "vessel")):
            spread = np.sign(x0) * smooth_step(-c.z, -fork, -fork + 70) * 26
            thin = 1.0 - 0.35 * smooth_step(-c.z, -fork - 5, -fork + 10)
            square = (radius * thin) ** 2 - (self.u - x0 - spread) ** 2
            half = np.sqrt(np.maximum(square, 0.0))
            middle = self.front - s.prevertebral * 0.6 - radius
            for grow, mixture in ((1.1, {"organ": 0.6, "ligament": 0.4}), (0.0, {name: 1.0})):
                h = np.where(half > 0, half + grow, -9.0)
                box, a = c.strip(middle - h, middle + h)
                if box is not None:
                    c.paint(box, a, mixture)

    def _back_muscle(self):
        s, c = self.s, self.canvas
        side = smooth_step(np.abs(self.u), 2.5, 7.0)[:, None]
        low = self.canal_back - np.where(np.abs(self.u) > 22, 16.0, 0.0)
        box, a = c.strip(low, self.fascia)
        if box is None:
            return
        streak = self.noise(24.0, 2.6, box=box) + 0.7 * self.noise(9.0, 4.0, box=box)
        cut = 1.55 - 2.2 * s.muscle_fat
        fat = smooth_step(streak, cut, cut + 0.9) * 0.85 + 0.05
        middle_streak = smooth_step(self.noise(4.5, 6.0, box=box) + 0.5 * self.noise(2.2, box=box), -0.6, 0.7)
        muscle = side * (1 - fat)
        midline = (1 - side)
        c.paint(box, a, {"muscle": muscle, "fat": side * fat + midline * middle_streak,
                         "ligament": midline * (1 - middle_streak)})
        box, a = c.strip(self.fascia - 0.9, self.fascia + 0.9)
        if box is not None:
            c.paint(box, 0.9 * a, {"ligament": 1.0})

    # -- the canal --------------------------------------------------------------------------

    def _canal(self):
        s, c = self.s, self.canvas
        u, width = self.u, s.canal_half_width
        depth = self.canal_back - self.back
        # Beside the canal: foraminal fat, later filled by pedicles, facets and nerve roots.
        beside = smooth_step(np.abs(u), width - 1.5, width + 1.5) * (np.abs(u) < 24)
        box, a = c.strip(self.back - 1.0, self.canal_back + 2.0)
        if box is None:
            return
        c.paint(box, a * beside[box[0], None], {"fat": 0.9, "vein": 0.1})
        inside = np.clip(1.0 - (u / width) ** 2, 0.0, 1.0)
        if not np.any(inside > 0):
            return
        half = 0.5 * depth * np.sqrt(inside)
        middle = self.back + 0.5 * depth
        open_ = np.where(inside > 0.02, 1.0, -9.0)
        # Ligamentum flavum and the posterior fat, then the sac.
        box, a = c.strip(middle - half * open_, middle + (half + 2.5) * open_)
        if box is not None:
            c.paint(box, a, {"ligament": 0.8, "fat": 0.2})
        box, a = c.strip(middle - half * open_, middle + (half + 0.3) * open_)
        if box is not None:
            c.paint(box, a, {"fat": 0.82, "vein": 0.18})
        taper = smooth_step(c.z, s.sac_end - 4, s.sac_end + 34)
        front_gap = s.anterior_epidural + 7.0 * (1 - smooth_step(c.z, s.bodies[S1].frame.z - 8, s.bodies[S1 + 1].frame.z))
        bulges = 0.5 + 0.5 * np.cos((c.z - s.bodies[S1 + 2].frame.z) / (34.0 * s.size) * 2 * np.pi)
        rear_gap = 1.0 + 2.6 * bulges * smooth_step(-c.z, -s.bodies[S1 + 6].frame.z, -s.bodies[S1 + 4].frame.z)
        low = middle - half + front_gap * self.slant * np.sqrt(inside)
        high = middle + half - rear_gap * self.slant * np.sqrt(inside)
        centre, radius = 0.5 * (low + high), 0.5 * (high - low)
        radius = np.where((taper > 0) & (inside > 0.05), np.maximum(radius, 1.0) * np.sqrt(taper), -9.0)
        box, a = c.strip(centre - radius - 0.5, centre + radius + 0.5)
        if box is not None:
            c.paint(box, 0.8 * a, {"ligament": 1.0})
        box, a = c.strip(centre - radius, centre + radius)
        if box is None:
            return
        c.paint(box, a, {"csf": 1.0})
        if s.pulsation:  # where fluid moves with the heartbeat its signal is lost
            moving = np.float32(s.pulsation) * smooth_step(self.noise(28.0, 5.0, box=box), 0.3, 1.3)
            c.paint(box, a * moving, {"vessel": 1.0})
        self._nerves(centre, radius, inside)

    def _nerves(self, centre, radius, inside):
        s, c = self.s, self.canvas
        z, u = c.z, self.u
        cone = smooth_step(z, s.conus_z - 22, s.conus_z + 14)
        lateral = np.clip(1.0 - (u / (0.62 * s.cord)) ** 2, 0.0, 1.0)
        half = 0.5 * s.cord * cone * np.sqrt(lateral)
        shift = radius * 0.22 * (1 - cone)
        half = np.where((half > 0.3) & (radius > 2), half, -9.0)
        # Cauda equina: threads along the canal, denser behind, thinning downwards.
        box, a = c.strip(centre - radius, centre + radius)
        y = c.y[None, box[1]]
        t = (y - (centre - radius)[box[0], None]) / np.maximum(2 * radius[box[0], None], 1.0)
        lines = self.texture.field((len(z), 160), (len(z) * c.pixel / 60.0, 40))[box[0]]
        index = np.clip(t * 159, 0, 159).astype(np.intp)
        threads = smooth_step(np.take_along_axis(lines, index, 1), 0.0, 0.9)
        below = smooth_step(-z, -s.conus_z - 25, -s.conus_z + 5) * smooth_step(z, s.sac_end, s.sac_end + 60)
        dense = smooth_step(t, 0.30, 0.72) * below[box[0], None] * (0.55 + 0.35 * cone[box[0], None])
        c.paint(box, a * threads * np.clip(dense, 0, 0.9), {"root": 1.0})
        box, a = c.strip(centre + shift - half, centre + shift + half)
        if box is not None:
            c.paint(box, a, {"cord": 1.0})

    # -- discs and bodies -------------------------------------------------------------------

    def _disc(self, i):
        c, d = self.canvas, self.s.discs[i]
        u = (self.x - d.x) / (0.5 * d.width)
        if abs(u) >= 1.0:
            return
        reach = math.sqrt(1.0 - abs(u) ** 2.6)
        front, back = -0.5 * d.depth * reach - 0.7 * d.bulge, 0.5 * d.depth * (0.6 + 0.4 * reach) + d.bulge
        room = 0.5 * d.height + 6.0 + 0.05 * d.depth
        box = c.box(d.frame, 0.75 * d.depth + 8, max(-front, back) + c.pixel, room + c.pixel)
        if box is None:
            return
        p, q = c.local(d.frame, box)
        a = c.cover(round_box(p, q, front, back, -room, room, min(5.0, room - 0.5)))
        dryness = {1: 0.0, 2: 0.15, 3: 0.55, 4: 0.9, 5: 1.0}[d.grade]
        c.paint(box, a, {"annulus": 1.0 - 0.5 * dryness, "dry_disc": 0.35 * dryness, "ligament": 0.15 * dryness})
        inner = math.sqrt(max(0.0, 1.0 - (abs(u) / 0.72) ** 2))
        if i < S1 and self.s.transitional != "lumbarised S1":
            return
        if inner > 0.1:
            long, soft = d.nucleus
            half_p = long * d.depth * inner
            middle = 0.04 * d.depth + 0.5 * (front + back)
            soft = soft + 0.1 * dryness
            texture = self.noise(4.0, 5.0, box=box)
            r = np.sqrt(((p - middle) / half_p) ** 2 + (q / (0.62 * d.height + 1.2)) ** 2) + 0.04 * texture
            wet = a * smooth_step(-r, -1.0 - soft, -1.0 + soft)
            share = {1: 1.0, 2: 0.92, 3: 0.5, 4: 0.16, 5: 0.03}[d.grade]
            c.paint(box, wet, {"nucleus": share, "dry_disc": 1.0 - share})
            if d.cleft > 0.25 and d.grade in (2, 3):
                line = np.exp(-((q - 0.3 * np.sin(p / 6.0)) / 0.9) ** 2) * smooth_step(-np.abs(p - middle), -half_p, -0.6 * half_p)
                c.paint(box, 0.6 * d.cleft * line * wet, {"annulus": 1.0})
            if d.grade == 5 and d.cleft > 0.55:
                gas = np.exp(-((q + 0.1 * p) / 0.8) ** 2) * smooth_step(-np.abs(p - middle), -1.2 * half_p, -0.7 * half_p)
                c.paint(box, 0.8 * gas * a, {"air": 0.9, "dry_disc": 0.1})

    def _limits(self, b, p, q, u):
        """Distance to the outline of a body in the plane at lateral share u of its half width."""
        reach = math.sqrt(max(1e-3, 1.0 - abs(u) ** 3))
        across = (2.0 * q / b.height) ** 2
        spur = b.spur(q)
        front = -0.5 * b.depth * reach + b.waist * np.maximum(0, 1 - across) - spur
        back = 0.5 * b.depth * (0.72 + 0.28 * reach) - 0.8 * b.waist * np.maximum(0, 1 - across) + 0.3 * spur
        shrink = 0.5 * abs(u) ** 3
        return round_box(p, q, front, back, -b.bottom(p) + shrink, b.top(p) - shrink, 1.8)

    def _around(self, b):
        """The box of a body with its spurs, roughness and softest edge."""
        half_p = 0.5 * b.depth + b.spur_top + b.spur_bottom + 2.5
        half_q = 0.5 * b.height + 0.5 * abs(b.back - b.front) * half_p / b.depth + 2.5
        return self.canvas.box(b.frame, 0.62 * math.hypot(b.depth, b.height) + 4, half_p, half_q)

    def _body(self, i):
        c, b = self.canvas, self.s.bodies[i]
        u = (self.x - b.x) / (0.5 * b.width)
        if abs(u) >= 1.0:
            return
        box = self._around(b)
        if box is None:
            return
        p, q = c.local(b.frame, box)
        distance = self._limits(b, p, q, u) + 0.5 * self.rough[box]
        shell = np.clip(0.55 + 0.2 * self.noise(5.0, box=box), 0.15, 0.9)
        c.paint(box, c.cover(distance), {"cortical": shell, "ligament": 0.8 * (1 - shell), "marrow_fat": 0.2 * (1 - shell)})
        inside = c.cover(distance + 0.7)
        grain, patch = self.noise(1.7, 1.7, box=box) + 0.6 * self.noise(3.4, 2.4, box=box), self.noise(10.0, 10.0, box=box)
        fine, patchy = self.s.grain
        self.grain[b.name] = fine * grain + patchy * patch
        if b.oedema or (b.fracture and b.acute):
            wet = self._wet(b, p, q)
            self._mark(box, wet * inside)
        else:
            wet = 0.0
        fat, water = grained(b.fat_share * (1 - wet), (1 - b.fat_share) * (1 - wet), self.grain[b.name])
        c.paint(box, inside, {"marrow_fat": fat, "marrow_water": 0.95 * water, "cortical": 0.05 * water, "oedema": wet})
        if abs(self.x - b.x) < 7 and i > S1 - 1:  # basivertebral vein, a wedge from behind
            depth, (long, half) = 0.5 * b.depth, b.vein
            wedge = smooth_step(p, depth - long, depth - 2) * smooth_step(-np.abs(q + 0.4), -half, -0.3 * half)
            c.paint(box, 0.75 * wedge * inside, {"vein": 0.6, "marrow_fat": 0.4})
        if b.fracture and i > S1:
            top = b.top(p)
            line = np.exp(-((q - (top - 3.5)) / 1.0) ** 2)
            c.paint(box, 0.65 * line * inside, {"sclerosis": 1.0})
        if b.haemangioma:
            hp, hq, hx, r = b.haemangioma
            r2 = r * r - (self.x - b.x - hx) ** 2
            if r2 > 1:
                ball = c.cover(np.hypot(p - hp, q - hq) - math.sqrt(r2)) * inside
                stripes = np.float32(0.12) * (np.sin(p * 2.6 + 0.4 * grain) > 0.4)
                self._mark(box, ball)
                fat, blood = grained(0.62, 0.38, self.grain[b.name])
                c.paint(box, 0.92 * ball, {"marrow_fat": fat * (1 - stripes), "angioma": blood * (1 - stripes), "cortical": stripes})

    def _wet(self, b, p, q):
        """Share of marrow replaced by oedema."""
        if b.oedema:
            op, oq, ox, r = b.oedema
            away = np.sqrt((p - op) ** 2 + (q - oq) ** 2 + (self.x - b.x - ox) ** 2)
            return 0.75 * smooth_step(-away, -r - 3, -r + 3)
        return 0.75 * smooth_step(q, -0.3 * b.height, 0.15 * b.height)

    def _ligaments(self):
        c = self.canvas
        near = (np.abs(self.u) < 13)
        for low, high in ((self.front - 1.9, self.front - 0.3), (self.back - 0.1, self.back + 1.0)):
            box, a = c.strip(np.where(near, low, 1e3), np.where(near, high, 1e3))
            if box is not None:
                c.paint(box, 0.75 * a, {"ligament": 1.0})

    # -- posterior elements -----------------------------------------------------------------

    def _bone(self, frame, half_p, half_q, radius, fat, weight=1.0, rim=0.9):
        c = self.canvas
        box = c.box(frame, math.hypot(half_p, half_q) + 2)
        if box is None or weight <= 0.02:
            return
        p, q = c.local(frame, box)
        thin = 1.0 - 0.22 * np.clip(p / half_p, -1, 1)  # a little wider in front than behind
        distance = round_box(p, q, -half_p, half_p, -half_q * thin, half_q * thin, min(radius, half_p - 0.2, half_q - 0.2))
        distance = distance + 1.6 * self.rough[box]
        c.paint(box, weight * c.cover(distance), {"cortical": 0.6, "ligament": 0.4})
        fat = np.clip(fat + 0.12 + 0.1 * self.rough[box], 0.1, 0.9)
        c.paint(box, weight * c.cover(distance + rim), {"marrow_fat": fat, "marrow_water": 1.0 - fat})

    def _posterior(self, i):
        s, c, b = self.s, self.canvas, self.s.bodies[i]
        x = self.x - b.x
        side = abs(x)
        size = s.size * (0.8 if i > S1 + 6 else 1.0) * (0.7 if i < S1 else 1.0)
        rear = 0.5 * b.depth + s.canal + 1.0
        fat = b.fat_share
        slant = s.spinous_slant + (0.45 if i > S1 + 6 else 0.0)
        if i >= S1:
            weight = 1.0 - smooth_step(side, 2.2, 4.6)
            length = 0.5 * s.spinous_length * (0.5 if i == S1 else 1.0)
            tall = (9.5 if i <= S1 + 6 else 6.0) * size * (0.75 if i in (S1, S1 + 1) else 1.0)
            f = b.frame.child(rear + length, -6.5 * size - length * slant, -slant - 0.12)
            self._bone(f, length, tall, 5.5, fat, weight)
        weight = smooth_step(side, 1.5, 3.5) * (1.0 - smooth_step(side, 11.0, 14.0))
        self._bone(b.frame.child(rear + 2.4, -6.0 * size, -0.3), 3.2, 8.8 * size, 2.8, fat, weight)
        if i < S1:
            return
        weight = smooth_step(side, 8.0, 10.0) * (1.0 - smooth_step(side, 16.0, 18.5))
        self._bone(b.frame.child(0.5 * b.depth + 5.0, 0.2 * b.height), 9.5, 6.8 * size, 3.5, fat, weight, 0.8)
        self._root(b, side)
        weight = smooth_step(side, 11.0, 13.0) * (1.0 - smooth_step(side, 19.0, 22.0))
        self._bone(b.frame.child(0.5 * b.depth + 15.0, -0.12 * b.height, -0.12), 4.4, 0.42 * b.height, 3.0, fat, weight)
        lower = b.frame.child(0.5 * b.depth + 17.5, -0.75 * b.height, -0.2)
        self._bone(lower, 4.0, 8.0 * size, 3.5, fat, weight)
        box = c.box(lower.child(-5.0, 0.0), 9)
        if box is not None and weight > 0.02:
            p, q = c.local(lower.child(-5.0, 0.0), box)
            c.paint(box, weight * 0.8 * c.cover(round_box(p, q, -0.8, 0.8, -6.5, 6.5, 0.7)), {"csf": 0.35, "annulus": 0.65})
        self._bone(b.frame.child(0.5 * b.depth + 11.5, 0.55 * b.height, -0.2), 3.6, 7.0 * size, 3.0, fat, weight)
        weight = smooth_step(side, 17.0, 20.0) * (1.0 - smooth_step(side, 34.0, 38.0))
        self._bone(b.frame.child(0.5 * b.depth + 8.0, 0.15 * b.height, 0.2), 3.0, 5.5 * size, 2.5, fat, weight)

    def _root(self, b, side):
        """Nerve root and vein under the pedicle, in the fat of the foramen."""
        c = self.canvas
        weight = smooth_step(side, 9.0, 11.0) * (1.0 - smooth_step(side, 21.0, 24.0))
        if weight <= 0.02:
            return
        f = b.frame.child(0.5 * b.depth + 5.5, -0.2 * b.height)
        box = c.box(f, 6)
        if box is None:
            return
        p, q = c.local(f, box)
        c.paint(box, weight * c.cover(ellipse(p, q, 2.6, 3.2)), {"root": 0.9, "ligament": 0.1})
        c.paint(box, weight * 0.7 * c.cover(ellipse(p - 3.8, q + 1.0, 1.2, 1.6)), {"vessel": 1.0})

    # -- findings at the discs --------------------------------------------------------------

    def _findings(self, i):
        s, c, d = self.s, self.canvas, self.s.discs[i]
        if d.modic:
            for body, reach, up in ((s.bodies[i + 1], d.modic_reach[0], -1), (s.bodies[i], d.modic_reach[1], 1)):
                if reach > 0:
                    self._modic(d, body, reach, up)
        for above, p0, r in d.schmorl:
            if abs(self.x - d.x - 3 * np.sin(p0)) < r + 1:
                self._schmorl(i, d, above, p0, r)
        if d.protrusion:
            reach, tall, offset = d.protrusion
            lateral = (self.x - d.x - offset) / (2.2 * reach + 2.0)
            if abs(lateral) < 1:
                f = d.frame.child(0.5 * d.depth + d.bulge - 1.0, 0.0)
                box = c.box(f, reach + tall + 6)
                if box is None:
                    return
                p, q = c.local(f, box)
                shape = math.sqrt(1 - lateral**2)
                sag = q + 0.12 * np.maximum(p, 0) * math.copysign(1.0, offset + 0.01)
                distance = ellipse(p, sag, (reach + 1.0) * shape, (tall + 0.5) * shape + 0.5)
                behind = smooth_step(p, -1.5, 0.5)
                c.paint(box, c.cover(distance) * behind, {"ligament": 1.0})
                self._mark(box, c.cover(distance) * behind)
                c.paint(box, c.cover(distance + 0.9) * behind, {"annulus": 0.6, "dry_disc": 0.3, "nucleus": 0.1})

    def _mark(self, box, share):
        self.marked[box] = np.maximum(self.marked[box], share)

    def _modic(self, d, b, reach, up):
        c = self.canvas
        u = (self.x - b.x) / (0.5 * b.width)
        box = self._around(b)
        if abs(u) >= 0.9 or box is None:
            return
        p, q = c.local(b.frame, box)
        inside = c.cover(self._limits(b, p, q, u) + 0.5 * self.rough[box] + 0.9)  # never into the endplate
        edge = b.top(p) - q if up > 0 else b.bottom(p) + q
        along = np.exp(-((p / b.depth - 0.45 * d.modic_side) / 0.55) ** 4)
        fuzz = self.noise(5.0, 5.0, box=box)
        soft = d.modic_soft
        a = inside * smooth_step(reach * along + 0.8 * fuzz - edge, -soft, soft) * smooth_step(-abs(u), -0.9, -0.6)
        fat, water = grained(MODIC[d.modic]["marrow_fat"], MODIC[d.modic]["marrow_water"], self.grain[b.name])
        c.paint(box, 0.95 * a, {**MODIC[d.modic], "marrow_fat": fat, "marrow_water": water})
        self._mark(box, a)

    def _schmorl(self, i, d, above, p0, r):
        b = self.s.bodies[i + 1] if above else self.s.bodies[i]
        c = self.canvas
        q0 = -float(b.bottom(np.float64(p0))) if above else float(b.top(np.float64(p0)))
        f = b.frame.child(p0, q0)
        box = c.box(f, r + 4)
        if box is None:
            return
        p, q = c.local(f, box)
        distance = ellipse(p, q, r * 1.3, r * 0.95)
        self._mark(box, c.cover(distance - 1.0))
        c.paint(box, c.cover(distance - 1.0), {"sclerosis": 0.6, "cortical": 0.4})
        wet = {1: 0.8, 2: 0.7, 3: 0.4}.get(d.grade, 0.1)
        c.paint(box, c.cover(distance), {"nucleus": wet, "dry_disc": 1 - wet})
