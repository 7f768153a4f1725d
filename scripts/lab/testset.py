"""Test subjects: slices as a scanner gives them, with the geometry that a reader needs.

Seeds come from the test and validation ranges only; the training range is refused, so that a
mistaken call cannot leak a subject that a model has learned from.
"""

import functools
import hashlib
import inspect
import itertools
import os
from dataclasses import dataclass, replace

import numpy as np

from . import dataset, scanner, tissue
from .anatomy import Subject
from .spine import MODIC

FIRST = 1_000_000  # of each split; those before it are what training watches itself with
DRAWN_BY = ("anatomy", "canvas", "scanner", "spine", "testset", "tissue")


@dataclass
class Case:
    """One subject's slices: images[contrast] is (slices, n, n) in [0, 1] by the series' percentiles."""

    seed: int
    subject: Subject
    positions: list
    field_mm: float
    images: dict
    limits: dict


def seeds(split, count):
    """The first so many subjects of a split that may be measured on."""
    return [dataset.SPLITS[split] + FIRST + i for i in range(count)]


def with_modic(split, count, after):
    """So many subjects of a split who have Modic changes by chance, from those that may be measured on, the first `after` left out."""
    candidates = itertools.count(dataset.SPLITS[split] + FIRST + after)
    return list(itertools.islice((s for s in candidates if Subject(s).modics), count))


def enriched(seed):
    """Findings of a subject who has many: what is rare is needed to learn how to read it."""
    return {"degeneration", "wedge", "biconcave", f"modic{1 + seed % 3}", f"modic{1 + (seed + 1) % 3}"}


def prepare(seed, contrasts, size, findings=None, alter=None):
    """(subject, scene, field mm, protocols by contrast, random numbers) of a test or validation subject.

    alter: name of a change in ALTERATIONS, made to the subject before anything is drawn.
    """
    if dataset.split_of(seed) not in ("test", "validation"):
        raise ValueError(f"seed {seed} is not a test or validation subject")
    rng = np.random.default_rng([seed, 70])
    subject = Subject(seed, findings)
    scene = scanner.Scene.sample(rng)
    field = float(rng.uniform(280, 350))
    protocols = {c: tissue.sample_protocol(c, np.random.default_rng([seed, 71, i]), size) for i, c in enumerate(contrasts)}
    if alter:
        ALTERATIONS[alter](subject, protocols)
    return subject, scene, field, protocols, rng


def draw(seed, contrasts=dataset.CONTRASTS, slices=3, size=512, findings=None, alter=None, again=False):
    """The midsagittal slice and its neighbours, ordinary protocols and noise.

    again: the same slices scanned a second time, by the same protocols: only noise and ghosts differ.
    """
    subject, scene, field, protocols, rng = prepare(seed, contrasts, size, findings, alter)
    middle = float(np.mean([b.x for b in subject.bodies[5:9]])) + rng.normal(0, 1)
    positions = [middle + 4.4 * (k - (slices - 1) / 2) for k in range(slices)]
    stacks = {c: [] for c in contrasts}
    for k, x in enumerate(positions):
        images, _ = scanner.render_plane(subject, x, scene, list(protocols.values()), size, field, subject.centre,
                                         np.random.default_rng([seed, 72, k] + [1] * again), texture=k)
        for c in contrasts:
            stacks[c].append(images[c])
    normal, limits = {}, {}
    for c in contrasts:
        normal[c], limits[c] = dataset.normalise(np.stack(stacks[c]))
    return Case(seed, subject, positions, field, normal, limits)


# -- lesions that one contrast does not show ------------------------------------------------


def _mean_signal(protocol, subject, shares):
    """Signal of a mixture of tissues, without noise and shading."""
    water, fat = tissue.signals(protocol, subject.values, subject.flow)
    return sum(share * float((water + fat)[tissue.INDEX[name]]) for name, share in shares.items())


def _hide(subject, protocol, column, low, high):
    """Change T1 or T2 (column) of the oedema of Modic I so that a protocol gives it the brightness of the marrow around.

    The lesion's mixture is the phantom's; what is solved for is one relaxation time, by bisection.  The two
    bodies beside it get the same marrow, so that one value serves both.
    """
    (level, _), = subject.modics.items()
    disc, pair = subject.discs[level], (subject.bodies[level], subject.bodies[level + 1])
    share = 0.5 * (pair[0].fat_share + pair[1].fat_share)
    for body in pair:
        body.fat_share = share
    disc.modic_reach, disc.modic_side = (9.0, 9.0), 0.0
    around = _mean_signal(protocol, subject, {"marrow_fat": share, "marrow_water": 0.95 * (1 - share), "cortical": 0.05 * (1 - share)})
    rises = column == 1  # signal rises with T2 and falls with T1
    for _ in range(40):
        middle = 0.5 * (low + high)
        subject.values[tissue.INDEX["oedema"], column] = middle
        if (_mean_signal(protocol, subject, MODIC[1]) < around) == rises:
            low = middle
        else:
            high = middle


def _hide_borders(protocols, contrast):
    """Take the chemical shift from a protocol: it draws a line around a lesion that holds less fat than the marrow."""
    protocols[contrast] = replace(protocols[contrast], bandwidth_hz=NO_SHIFT_HZ)


def _hidden(contrast, column, low, high, kind):
    def alter(subject, protocols):
        _hide(subject, protocols[contrast], column, low, high)
        if kind != OUTLINED:
            _hide_borders(protocols, contrast)
        if kind == ABSENT:
            for level in subject.modics:
                subject.discs[level].modic = 0
    return alter


NO_SHIFT_HZ = 100_000
OUTLINED, ABSENT = ", but outlined", ", or rather absent"  # ABSENT: the same people without the lesion
KINDS = ("", OUTLINED, ABSENT)
ALTERATIONS = {f"hidden on {c}{kind}": _hidden(c, *how, kind) for kind in KINDS
               for c, how in {"t1": (0, 150.0, 3000.0), "t2": (1, 15.0, 400.0)}.items()}


@functools.cache
def recipe():
    """Digest of the code that draws: cached images of another phantom are not used."""
    here = os.path.dirname(os.path.realpath(__file__))
    digest = hashlib.sha256(inspect.getsource(dataset.normalise).encode())
    for name in DRAWN_BY:
        with open(os.path.join(here, name + ".py"), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]


def cached(folder, seed, contrasts=dataset.CONTRASTS, slices=3, size=512, findings=None, alter=None, again=False):
    """As draw(), from a file in the folder if there is one; images in 4095 steps, as a scanner stores them."""
    options = {"contrasts": tuple(contrasts), "slices": slices, "size": size, "findings": findings and tuple(sorted(findings)), "alter": alter} | ({"again": True} if again else {})
    key = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:8]
    path = os.path.join(folder, recipe(), f"{seed}-{key}.npz")
    if not os.path.exists(path):
        case = draw(seed, contrasts, slices, size, findings, alter, again)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}.tmp.npz"
        np.savez(temporary, positions=case.positions, field_mm=case.field_mm, limits=np.array(list(case.limits.values())),
                 images=np.rint(np.stack(list(case.images.values())) * 4095).astype(np.uint16))
        os.replace(temporary, path)
    with np.load(path) as data:
        images = data["images"].astype(np.float32) / np.float32(4095)
        subject = prepare(seed, contrasts, size, findings, alter)[0]
        return Case(seed, subject, [float(x) for x in data["positions"]], float(data["field_mm"]),
                    dict(zip(contrasts, images)), dict(zip(contrasts, map(tuple, data["limits"]))))
