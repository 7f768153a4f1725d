"""Is anything that is measured on also learned from?  Seeds, anatomies, slices, real slices.

A result that looks too good is a leak until shown otherwise, so the checks do not trust the ranges of
seeds alone: they compare the anatomies that the seeds give and the images themselves.
"""

import hashlib
import re

import numpy as np

from . import dataset
from .anatomy import Subject


def stated_range(facts):
    """(first, last) training subject that a model's file states, or None."""
    found = re.search(r"[Ss]ubjects (\d+) to (\d+)", facts.get("spinenode.training_data", ""))
    return (int(found[1]), int(found[2])) if found else None


def anatomy_digest(seed):
    """Digest of the shape of a subject's spine."""
    bodies = Subject(seed).bodies
    return hashlib.sha256(np.round([[b.frame.y, b.frame.z, b.frame.tilt, b.front, b.back, b.depth] for b in bodies], 6).tobytes()).hexdigest()


def slice_digests(case):
    """Digests of every image of a case."""
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for stack in case.images.values() for image in stack]


def check(facts, used, digests, real=None):
    """[(what was checked, passed, measured)].

    facts: {task: metadata of its model}; used: {"validation": seeds, "test": seeds}; digests: {seed: slice_digests}; real: folder of the real volumes.
    """
    rows = []
    ranges = {task: stated_range(of_model) for task, of_model in facts.items()}
    unknown = [name for name, r in ranges.items() if not r]
    spans = sorted({r for r in ranges.values() if r})
    every = [s for seeds in used.values() for s in seeds]
    inside = [s for s in every if any(a <= s <= b for a, b in spans)]
    rows.append(("every model's file states the subjects it was trained on", not unknown, ", ".join(unknown) or
                 "; ".join(f"{a} to {b}" for a, b in spans)))
    rows.append(("no seed measured on is among them", not inside and not unknown, f"{len(every)} seeds, {len(inside)} shared"))
    both = set(used["validation"]) & set(used["test"])
    rows.append(("the reader's validation subjects are not test subjects", not both, f"{len(both)} shared"))
    trained = {s for a, b in spans for s in range(a, min(b, a + 4999) + 1)}
    known = {anatomy_digest(s) for s in sorted(trained)}
    mine = [anatomy_digest(s) for s in sorted(set(every))]
    twins = sum(d in known for d in mine) + len(mine) - len(set(mine))
    rows.append(("no anatomy is shared with a training subject or between test and validation", not twins,
                 f"{len(mine)} anatomies against {len(known)}, {twins} shared"))
    images = [d for one in digests.values() for d in one]
    rows.append(("no two slices measured on are the same image", len(images) == len(set(images)),
                 f"{len(images)} images, {len(images) - len(set(images))} repeated"))
    found = dataset.real_volume(real) if real else None
    if found:
        slices, voxel = found
        first = len(slices) // 2 - dataset.REAL_TEST_SLICES // 2
        test = {s.tobytes() for s in slices[first:first + dataset.REAL_TEST_SLICES]}
        learned = {s[0].tobytes() for s in dataset.real_for_training(real, 0)}
        rows.append(("no real slice measured on may be learned from", not test & learned,
                     f"{len(test)} for measuring, {len(learned)} for training, {dataset.REAL_GAP * voxel[0]:.0f} mm between them unused"))
    return rows
