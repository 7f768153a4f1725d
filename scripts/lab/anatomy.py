"""A subject: the geometry, tissue composition and findings of one lumbar spine, from a seed.

Coordinates are the patient's, in mm: x to the left, y to the back, z to the head, with the
origin in the middle of the first sacral segment.  The truth about every finding is in
Subject.truth(), which is what an evaluation compares a reader with.
"""

from dataclasses import dataclass, field

import numpy as np

from . import tissue
from .canvas import Frame

LEVELS = ("S5", "S4", "S3", "S2", "S1", "L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8")
S1 = LEVELS.index("S1")
# Height in front and behind, depth, width of each body, and height of the disc above it, mm.
BODY = {
    "S5": (13, 13, 12, 34, 1.0), "S4": (15, 15, 14, 40, 1.2), "S3": (18, 18, 17, 48, 1.4),
    "S2": (23, 22, 22, 56, 1.8), "S1": (30, 26, 32, 54, 10.0), "L5": (28.5, 24.5, 35, 50, 10.8),
    "L4": (28, 26.5, 35, 48, 10.2), "L3": (27.8, 27.5, 34.5, 46, 9.4), "L2": (27, 28, 33.5, 44, 8.4),
    "L1": (25.8, 27.4, 32.5, 43, 7.0), "T12": (24.5, 26.3, 31.5, 42, 5.6), "T11": (22.5, 24, 30.5, 39, 5.0),
    "T10": (21.8, 23, 29.5, 36, 4.5), "T9": (21, 22, 29, 34, 4.2), "T8": (20.5, 21.5, 28, 32, 4.0),
}
FINDINGS = ("degeneration", "protrusion", "modic1", "modic2", "modic3", "wedge", "biconcave",
            "oedema", "haemangioma", "schmorl", "transitional")


def plain(value):
    """Python's floats for numpy's, which would make doubles of every array of single precision that they meet."""
    if isinstance(value, tuple):
        return tuple(plain(v) for v in value)
    return float(value) if isinstance(value, np.floating) else value


@dataclass
class Body:
    """A vertebral body; lengths in mm, angles in radians, concavities as depths in mm."""

    name: str
    frame: Frame
    x: float
    front: float
    back: float
    depth: float
    width: float
    concave_top: float
    concave_bottom: float
    waist: float
    fat_share: float
    spur_top: float = 0.0
    spur_bottom: float = 0.0
    fracture: str = ""
    acute: bool = False
    haemangioma: tuple | None = None
    oedema: tuple | None = None
    vein: tuple = (11.0, 2.6)  # length and half height of the basivertebral vein where it leaves the body

    @property
    def height(self):
        return 0.5 * (self.front + self.back)

    def top(self, p):
        """Height of the upper endplate over the body's centre at depth p."""
        half = 0.5 * (self.height + (self.back - self.front) * p / self.depth)
        return half - self.concave_top * np.maximum(0.0, 1.0 - (2.2 * (p - 1.0) / self.depth) ** 2)

    def bottom(self, p):
        """The same for the lower endplate, downwards."""
        half = 0.5 * (self.height + (self.back - self.front) * p / self.depth)
        return half - self.concave_bottom * np.maximum(0.0, 1.0 - (2.2 * (p - 2.0) / self.depth) ** 2)

    def spur(self, q):
        """How far the spurs at the endplates reach beyond the wall at height q."""
        reach = 0.0
        for size, edge in ((self.spur_top, 0.5 * self.height), (self.spur_bottom, -0.5 * self.height)):
            if size:
                reach = reach + size * np.exp(-((q - edge) / 3.0) ** 2)
        return reach


@dataclass
class Disc:
    """The disc above LEVELS[index]; grade 1 to 5 as Pfirrmann."""

    name: str
    frame: Frame
    x: float
    height: float
    depth: float
    width: float
    grade: int
    bulge: float
    cleft: float
    nucleus: tuple = (0.36, 0.16)  # its half length in depths of the disc, and the softness of its border
    protrusion: tuple | None = None  # (reach into the canal, half height, lateral offset) mm
    modic: int = 0
    modic_reach: tuple = (0.0, 0.0)
    modic_side: float = 0.0
    modic_soft: float = 1.2  # half the width of its border
    schmorl: list = field(default_factory=list)  # (above?, offset p, radius)


class Subject:
    """Everything about one person that the pictures are made from."""

    def __init__(self, seed, findings=None, posture=0.0, odds=1.0):
        """findings: None draws them by age; else a set of names from FINDINGS to be present.

        odds: factor on the chance of every finding; training sees more of what is rare.
        posture: degrees by which sacral slope and lordosis exceed those of lying (standing: about 6).
        """
        self.seed = int(seed)
        self.posture, self.odds = float(posture), float(odds)
        rng = np.random.default_rng([self.seed, 1])
        self.age = float(rng.uniform(22, 82))
        self.sex = "M" if rng.random() < 0.5 else "F"
        self.size = float(rng.normal(1.03 if self.sex == "M" else 0.95, 0.045))
        self.values = tissue.sample_values(np.random.default_rng([self.seed, 2]))
        self._draw_findings(np.random.default_rng([self.seed, 3]), findings)
        self._build(np.random.default_rng([self.seed, 4]))
        self._surround(np.random.default_rng([self.seed, 5]))
        self._texture(np.random.default_rng([self.seed, 6]))
        for part in (self, *self.bodies, *self.discs[:-1]):
            vars(part).update({name: plain(value) for name, value in vars(part).items()})

    # -- findings ---------------------------------------------------------------------------

    def _draw_findings(self, rng, wanted):
        age = (self.age - 22.0) / 60.0
        lumbar = [S1 + k for k in range(0, 6)]  # discs L5-S1 … T12-L1
        self.grades = {}
        weight = {0: 1.0, 1: 1.0, 2: 0.7, 3: 0.5, 4: 0.4, 5: 0.3}
        for k, i in enumerate(lumbar):
            mean = 1.2 + 2.6 * age * weight[k] + (0.9 if k < 2 else 0.2)
            self.grades[i] = int(np.clip(round(rng.normal(mean, 0.9)), 1, 5))
        for i in range(S1 + 6, len(LEVELS)):
            self.grades[i] = int(np.clip(round(rng.normal(1.6 + 1.4 * age, 0.6)), 1, 4))
        chance = {"protrusion": 0.5, "modic1": 0.14, "modic2": 0.22, "modic3": 0.07,
                  "wedge": 0.05 + 0.12 * age, "biconcave": 0.04 + 0.08 * age, "oedema": 0.08,
                  "haemangioma": 0.15, "schmorl": 0.25, "transitional": 0.08}
        drawn = {name for name, p in chance.items() if rng.random() < min(0.9, self.odds * p)}
        if wanted is not None:
            drawn = set(wanted) - {"degeneration"}
            if "degeneration" not in wanted:
                self.grades = {i: min(g, 2) for i, g in self.grades.items()}
            else:
                for i in (S1, S1 + 1):
                    self.grades[i] = max(self.grades[i], 4)
        self.transitional = rng.choice(["sacralised L5", "lumbarised S1"]) if "transitional" in drawn else ""
        self.protrusions = {}
        if "protrusion" in drawn:
            for i in rng.choice([S1, S1 + 1, S1 + 2, S1 + 3], size=int(rng.integers(1, 3)), replace=False,
                                p=[0.4, 0.38, 0.14, 0.08]):
                self.protrusions[int(i)] = (float(rng.uniform(2.8, 8.0)), float(rng.uniform(3.0, 6.5)),
                                            float(rng.normal(0.0, 4.5)))
                self.grades[int(i)] = max(self.grades[int(i)], 3)
        self.modics = {}
        for kind in (1, 2, 3):
            if f"modic{kind}" in drawn:
                free = [i for i in lumbar[:5] if i not in self.modics]
                i = int(rng.choice(free, p=np.array([5, 4, 2, 1, 1][:len(free)], float) / sum([5, 4, 2, 1, 1][:len(free)])))
                self.modics[i] = kind
                self.grades[i] = max(self.grades[i], int(rng.integers(3, 6)))
        bodies = list(range(S1 + 1, S1 + 8))
        rng.shuffle(bodies)
        self.fractures = {}
        for kind in ("wedge", "biconcave"):
            if kind in drawn:
                i = bodies.pop()
                self.fractures[i] = (kind, float(rng.uniform(0.25, 0.5)), bool(rng.random() < 0.5))
        self.oedemas = {bodies.pop(): float(rng.uniform(7, 14))} if "oedema" in drawn else {}
        self.haemangiomas = {bodies.pop(): float(rng.uniform(4.5, 9))} if "haemangioma" in drawn else {}
        self.schmorls = []
        if "schmorl" in drawn:
            for _ in range(int(rng.integers(1, 4))):
                self.schmorls.append((int(rng.choice(lumbar[1:] + [S1 + 6])), bool(rng.random() < 0.5),
                                      float(rng.normal(1.0, 4.0)), float(rng.uniform(2.5, 5.0))))

    # -- bones and discs --------------------------------------------------------------------

    def _build(self, rng):
        size, age = self.size, (self.age - 22.0) / 60.0
        slope = float(np.clip(rng.normal(38, 8), 18, 58))
        lordosis = float(np.clip(rng.normal(12 + 0.98 * slope, 8), 22, 80))
        slope, lordosis = slope + self.posture, lordosis + 1.2 * self.posture
        self.slope, self.lordosis = slope, lordosis
        share = np.array([0.33, 0.25, 0.18, 0.14, 0.10]) + rng.normal(0, 0.02, 5)
        steps = -lordosis * share / share.sum()
        tilt = np.zeros(len(LEVELS))
        tilt[S1] = slope
        for k, step in enumerate(steps):
            tilt[S1 + 1 + k] = tilt[S1 + k] + step
        kyphosis = rng.uniform(2.0, 5.5)
        for i in range(S1 + 6, len(LEVELS)):
            tilt[i] = tilt[i - 1] + kyphosis * (0.4 if i == S1 + 6 else 1.0)
        curve = rng.uniform(0.7, 1.3)
        for i, d in zip(range(S1 - 1, -1, -1), (1, 13, 20, 22)):
            tilt[i] = tilt[i + 1] - d * curve
        if self.transitional == "lumbarised S1":
            tilt[S1 - 1] = tilt[S1] + 8
        tilt += rng.normal(0, 1.0, len(LEVELS))
        tilt = np.deg2rad(tilt)

        amplitude, phase = abs(rng.normal(0, 2.6)), rng.uniform(0, 2 * np.pi)
        length, lean = rng.uniform(180, 320), rng.normal(0, 0.018)
        self.bend = (amplitude, length, phase, lean)
        young = np.clip(rng.normal(0.30, 0.04), 0.22, 0.38)
        fat_share = float(np.clip(young + 0.33 * age + rng.normal(0, 0.07), 0.15, 0.8))
        self.fat_share = fat_share
        concave = rng.uniform(0.8, 2.4)
        heights = {}
        disc_factor = rng.uniform(0.85, 1.15)
        for i in range(S1, len(LEVELS)):
            loss = {1: 1.0, 2: 0.97, 3: 0.85, 4: 0.68, 5: 0.42}[self.grades[i]]
            heights[i] = BODY[LEVELS[i]][4] * size * disc_factor * loss * rng.uniform(0.9, 1.1)
        for i in range(S1):
            heights[i] = BODY[LEVELS[i]][4] * size * rng.uniform(0.6, 1.5)
        if self.transitional == "sacralised L5":
            heights[S1] = size * rng.uniform(2.5, 5.0)
        if self.transitional == "lumbarised S1":
            heights[S1 - 1] = size * rng.uniform(4.0, 7.5)
        individual = rng.normal(1.0, 0.03, 3)

        self.bodies, self.discs = [None] * len(LEVELS), [None] * len(LEVELS)
        for i, name in enumerate(LEVELS):
            front, back, depth, width, _ = BODY[name]
            front, back = front * size * individual[0], back * size * individual[0]
            kind, loss, acute = self.fractures.get(i, ("", 0.0, False))
            hollow = concave * rng.uniform(0.6, 1.3) * (0.5 if i <= S1 else 1.0) * (0.3 if i < S1 else 1.0)
            top, bottom = hollow, hollow * rng.uniform(0.9, 1.4)
            if kind == "wedge":
                front, back = front * (1.0 - loss), back * (1.0 - 0.12 * loss)
            elif kind == "biconcave":
                top, bottom = top + loss * 9.0, bottom + loss * 9.0
            self.bodies[i] = Body(name, None, 0.0, front * rng.uniform(0.97, 1.03), back * rng.uniform(0.98, 1.02),
                                  depth * size * individual[1], width * size * individual[2], top, bottom,
                                  rng.uniform(0.8, 2.6) * (0.2 if i < S1 else 1.0),
                                  float(np.clip(fat_share + (0.06 if i <= S1 else 0.0) + rng.normal(0, 0.035), 0.1, 0.9)),
                                  fracture=kind, acute=acute)
        # Stack the bodies from S1 upwards and downwards along the mean direction of the endplates.
        self.bodies[S1].frame = Frame(0.0, 0.0, tilt[S1] - np.deg2rad(6.0))
        for step in (1, -1):
            i = S1
            while 0 <= i + step < len(LEVELS):
                a, b = self.bodies[i], self.bodies[i + step]
                gap = heights[i] if step == 1 else heights[i + step]
                middle = 0.5 * (a.frame.tilt + tilt[i + step])
                y, z = a.frame.at(0.0, step * 0.5 * a.height)
                y, z = y - np.sin(middle) * step * gap, z + np.cos(middle) * step * gap
                y, z = (y - np.sin(tilt[i + step]) * step * 0.5 * b.height,
                        z + np.cos(tilt[i + step]) * step * 0.5 * b.height)
                b.frame = Frame(y, z, tilt[i + step])
                i += step
        for i, b in enumerate(self.bodies):
            b.x = float(self.x_of(b.frame.z))
            if i in self.haemangiomas:
                b.haemangioma = (rng.uniform(-0.2, 0.2) * b.depth, rng.uniform(-0.15, 0.15) * b.height,
                                 rng.normal(0, 6.0), self.haemangiomas[i])
            if i in self.oedemas:
                b.oedema = (rng.uniform(-0.25, 0.25) * b.depth, rng.choice([-0.4, 0.4]) * b.height,
                            rng.normal(0, 6.0), self.oedemas[i])
        for i in range(len(LEVELS) - 1):
            a, b = self.bodies[i], self.bodies[i + 1]
            ya, za = a.frame.at(0.0, 0.5 * a.height)
            yb, zb = b.frame.at(0.0, -0.5 * b.height)
            grade = self.grades.get(i, 4)
            disc = Disc(f"{b.name}-{a.name}", Frame(0.5 * (ya + yb), 0.5 * (za + zb), 0.5 * (a.frame.tilt + b.frame.tilt)),
                        0.5 * (a.x + b.x), heights[i], 0.5 * (a.depth + b.depth), 0.5 * (a.width + b.width), grade,
                        float({1: 0.3, 2: 0.6, 3: 1.2, 4: 1.8, 5: 2.2}[grade] * rng.uniform(0.4, 1.4)),
                        float(rng.uniform(0.0, 1.0)) if grade >= 2 else 0.0)
            if i >= S1:
                disc.protrusion = self.protrusions.get(i)
            if i in self.modics:
                disc.modic = self.modics[i]
                reach = rng.uniform(4.0, 11.0, 2) * (rng.random(2) < 0.9)
                disc.modic_reach = tuple(np.maximum(reach, 4.0 * (reach.sum() == 0)))
                disc.modic_side = float(rng.uniform(-1.0, 1.0))
            disc.schmorl = [(above, p, r) for j, above, p, r in self.schmorls if j == i]
            if grade >= 4:
                a.spur_top, b.spur_bottom = rng.uniform(0.5, 3.5, 2)
            self.discs[i] = disc
        self.body_rng_seed = int(rng.integers(2**31))

    def x_of(self, z):
        """Lateral place of the spine's middle at height z: a scoliotic curve and a lean."""
        amplitude, length, phase, lean = self.bend
        return amplitude * (np.sin(z / length * 2 * np.pi + phase) - np.sin(phase)) + lean * z

    # -- everything around ------------------------------------------------------------------

    def _surround(self, rng):
        u = rng.uniform
        self.canal = float(np.clip(rng.normal(16.5, 1.3), 13.0, 20.0)) * self.size
        self.canal_half_width = u(10.5, 13.0)
        self.conus_z = self.bodies[LEVELS.index("L1")].frame.z + rng.normal(0, 14)
        self.cord = u(7.2, 9.2)
        self.sac_end = self.bodies[LEVELS.index("S2")].frame.z + rng.normal(0, 8)
        self.anterior_epidural = u(0.5, 1.8)
        self.subcutaneous = (u(5, 35), u(4, 14))  # behind: lower and upper end
        self.belly = (u(90, 170), u(12, 45))      # from spine to wall; fat of the wall
        self.muscle_fat = float(np.clip(rng.normal(0.08 + 0.25 * (self.age - 22) / 60, 0.08), 0.02, 0.6))
        self.spinous_length = u(24, 33) * self.size
        self.spinous_slant = u(0.05, 0.35)
        self.prevertebral = u(2.0, 9.0)
        self.aorta = (u(4, 14), u(7.5, 11.0))
        self.cava = (u(-22, -12), u(7.0, 12.0))
        self.bowel_gas = u(0.0, 1.0)
        self.organ_fat = u(0.2, 0.75)
        self.flow = float(u(0.03, 0.30))
        lumbar = [self.bodies[S1 + 1 + k] for k in range(5)]
        self.centre = (float(np.mean([b.frame.y for b in lumbar])) + u(-15, 25),
                       float(self.bodies[LEVELS.index("L3")].frame.z) + u(-22, 12))

    def _texture(self, rng):
        """How grainy marrow and everything is, and how soft the borders of lesions are."""
        self.grain = (float(rng.uniform(0.03, 0.075)), float(rng.uniform(0.03, 0.075)))  # of marrow's share of fat: fine, patchy
        self.uneven = tuple(float(np.exp(rng.uniform(np.log(a), np.log(b)))) for a, b in ((0.015, 0.09), (0.02, 0.08)))
        self.pulsation = float(rng.uniform(0.1, 0.6)) if rng.random() < 0.3 else 0.0  # share of the fluid that moves, at most
        for body in self.bodies:
            body.vein = (float(rng.uniform(6.0, 14.0)), float(rng.uniform(1.2, 3.2)))
        for disc in self.discs[:-1]:
            disc.nucleus = (float(rng.uniform(0.31, 0.40)), float(rng.uniform(0.12, 0.28)))
        for disc in self.discs[:-1]:  # oedema ends less sharply than fat and sclerosis do
            disc.modic_soft = float(rng.uniform(1.2, 3.2) if disc.modic == 1 else rng.uniform(1.0, 2.0))

    def truth(self):
        """Labels of every finding, as plain numbers and strings, for a table or JSON."""
        discs = {}
        for i in range(S1, S1 + 8):
            d = self.discs[i]
            discs[d.name] = {"grade": d.grade, "height_mm": round(d.height, 1), "modic": d.modic,
                             "protrusion_mm": round(d.protrusion[0], 1) if d.protrusion else 0.0,
                             "schmorl": len(d.schmorl)}
        bodies = {}
        for i in range(S1, S1 + 9):
            b = self.bodies[i]
            bodies[b.name] = {"fracture": b.fracture, "acute": bool(b.acute and b.fracture),
                              "haemangioma": b.haemangioma is not None, "oedema": b.oedema is not None,
                              "fat_share": round(b.fat_share, 2)}
        return {"seed": self.seed, "age": round(self.age), "sex": self.sex, "sacral_slope_deg": round(self.slope, 1),
                "lordosis_deg": round(self.lordosis, 1), "transitional": str(self.transitional),
                "discs": discs, "bodies": bodies}
