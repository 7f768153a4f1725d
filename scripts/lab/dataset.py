"""Slices to learn from: drawn from the phantom in parallel, kept in a cache folder, read back fast.

A sample file holds one slice of one subject in several contrasts, twice: as the scanner would give
it, and without noise and ghosts (a better thing to aim at: noise cannot be predicted).  Values are
normalised as the node normalises a series, so that [0, 1] spans its percentiles.

Subjects of the three splits never meet: their seeds come from ranges that do not overlap, and the
phantom's command line default and the demo draw from a fourth.
"""

import json
import os
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np

from . import scanner, tissue
from .anatomy import Subject

SPLITS = {"train": 100_000_000, "validation": 200_000_000, "test": 300_000_000}
PERCENTILES = (1.0, 99.5)
CONTRASTS = ("t1", "t2", "stir", "tirm")
VERSION = 4  # raise it when the phantom changes in a way that makes cached slices stale


def split_of(seed):
    """Name of the split that a seed belongs to, or "free"."""
    for name, first in SPLITS.items():
        if first <= seed < first + 100_000_000:
            return name
    return "free"


def normalise(stack, low_high=None):
    """Map a stack to [0, 1] by its percentiles, clipped; low_high overrides the limits."""
    low, high = low_high or np.percentile(stack, PERCENTILES)
    return np.clip((stack - low) / max(float(high) - float(low), 1e-6), 0.0, 1.0), (float(low), float(high))


def draw_subject(seed, slices=3, contrasts=CONTRASTS, size=None, wide=True):
    """Normalised slices of a subject: list of (noisy, clean, facts), arrays (contrasts, n, n) float16.

    wide: tissue values, noise and matrix vary more than in practice, as training should.
    """
    rng = np.random.default_rng([seed, 50])
    subject = Subject(seed)
    if wide:
        subject.values = tissue.sample_values(np.random.default_rng([seed, 51]), 0.14)
    n = size or int(rng.choice([512, 512, 512, 448, 384, 320, 256]))
    field = float(rng.uniform(260, 350)) if n > 320 else float(rng.uniform(240, 350))
    scene = scanner.Scene.sample(rng, float(rng.choice([0.5, 1.0, 1.6])) if wide else 1.0)
    protocols = [tissue.sample_protocol(c, np.random.default_rng([seed, 52, i]), n) for i, c in enumerate(contrasts)]
    middle = float(np.mean([b.x for b in subject.bodies[5:9]]))
    spread = rng.permutation(np.linspace(-19, 19, max(slices, 1)))[:slices] if slices > 1 else np.array([0.0])
    noisy, clean = [], []
    for k, offset in enumerate(spread + rng.uniform(-3, 3, slices)):
        images, pure, _ = scanner.render_plane(subject, middle + offset, scene, protocols, n, field, subject.centre,
                                               np.random.default_rng([seed, 53, k]), thickness=float(rng.uniform(3.0, 5.0)),
                                               texture=1000 + k, both=True)
        noisy.append([images[c] for c in contrasts])
        clean.append([pure[c] for c in contrasts])
    noisy, clean = np.array(noisy), np.array(clean)
    for i in range(len(contrasts)):
        noisy[:, i], limits = normalise(noisy[:, i])
        clean[:, i], _ = normalise(clean[:, i], limits)
    facts = {"seed": seed, "spacing_mm": field / n, "contrasts": list(contrasts)}
    return [(a.astype(np.float16), b.astype(np.float16), facts) for a, b in zip(noisy, clean)]


def _make(folder, seed, slices, contrasts):
    path = os.path.join(folder, f"{seed}.npz")
    if os.path.exists(path):
        return path
    samples = draw_subject(seed, slices, contrasts)
    data = np.stack([np.stack([a, b]) for a, b, _ in samples])
    temporary = path + f".{os.getpid()}.tmp.npy"
    np.save(temporary, data)
    os.replace(temporary, path[:-4] + ".npy")
    with open(path[:-4] + ".json", "w", encoding="utf-8") as file:
        json.dump(samples[0][2], file)
    return path


def build(folder, split, subjects, slices=3, contrasts=CONTRASTS, workers=2, progress=None):
    """Make sure that the cache holds the first so many subjects of a split; returns their paths."""
    folder = os.path.join(folder, f"v{VERSION}-{split}-{'-'.join(contrasts)}")
    os.makedirs(folder, exist_ok=True)
    seeds = [SPLITS[split] + i for i in range(subjects)]
    missing = [s for s in seeds if not os.path.exists(os.path.join(folder, f"{s}.json"))]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            jobs = [pool.submit(_make, folder, s, slices, contrasts) for s in missing]
            for done, job in enumerate(as_completed(jobs), 1):
                job.result()
                if progress:
                    progress(done, len(missing))
    return [os.path.join(folder, f"{s}.npy") for s in seeds]


class Pool:
    """Random crops from cached subjects, held in memory as far as a task needs them.

    picks: list of (variant, contrast); variant 0 is as scanned, 1 without noise.
    """

    def __init__(self, paths, picks, contrasts=CONTRASTS):
        index = [(variant, list(contrasts).index(c)) for variant, c in picks]
        self.slices = []
        for path in paths:
            data = np.load(path, mmap_mode="r")
            self.slices += [np.stack([one[v, c] for v, c in index]) for one in data]
        self.wide = {}

    def crop(self, rng, size):
        """The picked images, (len(picks), size, size) float32, from a random place of a random slice."""
        if size not in self.wide:
            self.wide[size] = [s for s in self.slices if s.shape[-1] >= size]
        if not self.wide[size]:
            raise ValueError(f"no slice in the pool is as large as the crop of {size}")
        one = self.wide[size][rng.integers(len(self.wide[size]))]
        n = one.shape[-1]
        # The spine is right of the middle more often than not; leave most of the belly out.
        top, left = int(rng.integers(0, n - size + 1)), int(round((n - size) * rng.beta(2.2, 1.6)))
        return one[:, top:top + size, left:left + size].astype(np.float32)


def fingerprint(paths):
    """A short digest of the names that a data set consists of."""
    return f"{zlib.crc32(' '.join(os.path.basename(p) for p in paths).encode()):08x}"
