"""Test subjects: slices as a scanner gives them, with the geometry that a reader needs.

Seeds come from the test and validation ranges only; the training range is refused, so that a
mistaken call cannot leak a subject that a model has learned from.
"""

from dataclasses import dataclass

import numpy as np

from . import dataset, scanner, tissue
from .anatomy import Subject


@dataclass
class Case:
    """One subject's slices: images[contrast] is (slices, n, n) in [0, 1] by the series' percentiles."""

    seed: int
    subject: Subject
    positions: list
    field_mm: float
    images: dict
    limits: dict


def draw(seed, contrasts=dataset.CONTRASTS, slices=3, size=512, findings=None):
    """The midsagittal slice and its neighbours, ordinary protocols and noise."""
    if dataset.split_of(seed) not in ("test", "validation"):
        raise ValueError(f"seed {seed} is not a test or validation subject")
    rng = np.random.default_rng([seed, 70])
    subject = Subject(seed, findings)
    scene = scanner.Scene.sample(rng)
    field = float(rng.uniform(280, 350))
    protocols = [tissue.sample_protocol(c, np.random.default_rng([seed, 71, i]), size) for i, c in enumerate(contrasts)]
    middle = float(np.mean([b.x for b in subject.bodies[5:9]])) + rng.normal(0, 1)
    positions = [middle + 4.4 * (k - (slices - 1) / 2) for k in range(slices)]
    stacks = {c: [] for c in contrasts}
    for k, x in enumerate(positions):
        images, _ = scanner.render_plane(subject, x, scene, protocols, size, field, subject.centre,
                                         np.random.default_rng([seed, 72, k]), texture=k)
        for c in contrasts:
            stacks[c].append(images[c])
    normal, limits = {}, {}
    for c in contrasts:
        normal[c], limits[c] = dataset.normalise(np.stack(stacks[c]))
    return Case(seed, subject, positions, field, normal, limits)


def _one(args):
    return draw(*args[:1], **args[1])


def draw_many(split, count, workers=2, progress=None, first=0, **options):
    """The first so many subjects of a split."""
    from concurrent.futures import ProcessPoolExecutor
    seeds = [dataset.SPLITS[split] + 1_000_000 + first + i for i in range(count)]
    cases = []
    with ProcessPoolExecutor(workers) as pool:
        for case in pool.map(_one, [(s, options) for s in seeds]):
            cases.append(case)
            if progress:
                progress(len(cases), count)
    return cases
