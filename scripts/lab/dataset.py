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
from dataclasses import replace

import numpy as np

from . import crew, nifti, scanner, tissue
from .anatomy import Subject

SPLITS = {"train": 100_000_000, "validation": 200_000_000, "test": 300_000_000}
PERCENTILES = (1.0, 99.5)
CONTRASTS = ("t1", "t2", "stir", "tirm")
DISC = [tissue.INDEX[name] for name in ("nucleus", "annulus", "dry_disc")]
DISC_MARK = 0.4  # of what a finding weighs: how degenerate a disc is, is to be read from its signal
FAT = [tissue.INDEX["fat"], tissue.INDEX["marrow_fat"]]
WIDE_HZ = (400, 20_000)  # bandwidths per pixel at which fat is displaced by half a pixel, and not to be seen
SLICES = 5  # of a subject, beside each other
VERSION = 13  # raise it when the phantom changes in a way that makes cached slices stale


def split_of(seed):
    """Name of the split that a seed belongs to, or "free"."""
    for name, first in SPLITS.items():
        if first <= seed < first + 100_000_000:
            return name
    return "free"


def limits(stack):
    """The PERCENTILES of a stack as np.percentile gives them, by two selections where it makes six."""
    values, found = stack.flatten(), []
    for share in PERCENTILES:
        place = share / 100.0 * (values.size - 1)
        k = min(int(place), values.size - 2)
        values.partition(k)
        low, high, part = values[k], values[k + 1:].min(), np.float64(place - k)
        found.append(high - (high - low) * (1.0 - part) if part >= 0.5 else low + (high - low) * part)
    return found


def normalise(stack, low_high=None):
    """Map a stack to [0, 1] by its percentiles, clipped; low_high overrides the limits."""
    low, high = low_high or limits(stack)
    return np.clip((stack - low) / max(float(high) - float(low), 1e-6), 0.0, 1.0), (float(low), float(high))


def widen(rng, values, protocols):
    """Vary what differs between people and scanners more than one phantom's table says: bowel, oedema, field, bandwidth.

    values: tissue table of a subject, changed in place; returns the protocols.
    """
    for name in ("organ", "fluid"):  # nobody's bowel is another's
        values[tissue.INDEX[name], :2] *= np.exp(rng.normal(0.0, (0.3, 0.4)))
    if rng.random() < 0.3:  # oedema that a T2-weighted image hardly shows, or not at all
        values[tissue.INDEX["oedema"], 1] *= rng.uniform(0.4, 1.0)
    if rng.random() < 0.3:  # a stronger field: water recovers more slowly
        values[[i for i in range(tissue.COUNT) if i not in FAT], 0] *= rng.uniform(1.0, 1.3)
    return [replace(p, bandwidth_hz=round(rng.uniform(250, 600))) if rng.random() < 0.3 else p for p in protocols]


def roughen(rng, subject):
    """Make everything grainier than the phantom has it in every third subject: real images are.

    Not by more of the marrow's exchange of fat and water, which a lesion cannot hold so much of: who learned from that
    read ordinary marrow's noise as lesions.
    """
    if rng.random() < 0.33:
        subject.uneven = tuple(v * rng.uniform(1.0, 2.5) for v in subject.uneven)


def elsewhere(rng, values, protocol):
    """(tissue table, protocol) by which a T2-weighted series looks as another site's sequence would make it.

    How bright fluid and fat are on it depends on motion, refocusing pulses and the length of the train, which the
    signal equation knows nothing of; and a wide bandwidth leaves fat where it is, so that no line is drawn between it
    and water.  Only what a network is given looks so, never what it is to make.
    """
    values = values.copy()
    if rng.random() < 0.4:
        values[tissue.INDEX["csf"], 1] *= rng.uniform(0.06, 0.5)
        values[tissue.INDEX["csf"], 2] *= rng.uniform(0.5, 1.0)
    if rng.random() < 0.4:
        values[FAT, 1] *= rng.uniform(0.75, 1.6)
    te = round(rng.uniform(60, 150)) if rng.random() < 0.3 else protocol.te
    bandwidth = round(np.exp(rng.uniform(*np.log(WIDE_HZ)))) if rng.random() < 0.35 else protocol.bandwidth_hz
    return values, replace(protocol, contrast="t2-elsewhere", te=te, bandwidth_hz=bandwidth)


def draw_subject(seed, slices=3, contrasts=CONTRASTS, size=None, wide=True):
    """Normalised slices of a subject, neighbours in their order: list of (noisy, mean, marks, facts).

    noisy, mean: as scanned, and the mean over all noise, (contrasts, n, n) float16; marks: share of each
    pixel that a finding covers, or DISC_MARK of what a disc covers, (n, n) float16.
    wide: findings are more frequent, tissue values, noise and matrix vary more than in practice, as training should;
    and T2 as scanned is that of elsewhere(), while its mean stays the ordinary one.
    """
    rng = np.random.default_rng([seed, 50])
    subject = Subject(seed, odds=2.5 if wide and rng.random() < 0.6 else 1.0)
    n = size or int(rng.choice([512, 512, 512, 448, 384, 320, 256]))
    field = float(rng.uniform(260, 350)) if n > 320 else float(rng.uniform(240, 350))
    scene = scanner.Scene.sample(rng, float(rng.choice([0.5, 1.0, 1.6, 2.5])) if wide else 1.0)
    protocols = [tissue.sample_protocol(c, np.random.default_rng([seed, 52, i]), n) for i, c in enumerate(contrasts)]
    if wide:
        subject.values = tissue.sample_values(np.random.default_rng([seed, 51]), 0.16)
        protocols = widen(np.random.default_rng([seed, 54]), subject.values, protocols)
        roughen(np.random.default_rng([seed, 56]), subject)
    tables = {}
    if wide and "t2" in contrasts:
        tables["t2-elsewhere"], other = elsewhere(np.random.default_rng([seed, 55]), subject.values, protocols[contrasts.index("t2")])
        protocols.append(other)
    scanned = ["t2-elsewhere" if c == "t2" and tables else c for c in contrasts]
    middle = float(np.mean([b.x for b in subject.bodies[5:9]])) + rng.uniform(-12, 12)
    thickness = float(rng.uniform(3.0, 5.0))
    places = middle + (np.arange(slices) - (slices - 1) / 2) * thickness * rng.uniform(1.0, 1.3)
    noisy, usual, mean, marks = [], [], [], []
    for k, place in enumerate(places):
        images, pure, plane = scanner.render_plane(subject, place, scene, protocols, n, field, subject.centre,
                                                   np.random.default_rng([seed, 53, k]), thickness=thickness,
                                                   texture=1000 + k, both=True, tables=tables)
        noisy.append([images[c] for c in scanned])
        usual.append([images[c] for c in contrasts])
        mean.append([pure[c] for c in contrasts])
        marks.append(np.maximum(plane.marked, DISC_MARK * plane.canvas.fractions[DISC].sum(0)).astype(np.float16))
    noisy, usual, mean = np.array(noisy), np.array(usual), np.array(mean)
    for i in range(len(contrasts)):  # a mean is normalised as the series that it is the mean of: without noise air has another level
        mean[:, i], _ = normalise(mean[:, i], limits(usual[:, i]))
        noisy[:, i], _ = normalise(noisy[:, i])
    facts = {"seed": seed, "spacing_mm": field / n, "contrasts": list(contrasts)}
    return [(a.astype(np.float16), b.astype(np.float16), m, facts) for a, b, m in zip(noisy, mean, marks)]


def _make(folder, seed, slices, contrasts):
    """One subject's file: (slices, 2 * contrasts + 1, n, n) float16: as scanned, means, marks."""
    path = os.path.join(folder, str(seed))
    samples = draw_subject(seed, slices, contrasts)
    data = np.stack([np.concatenate([a, b, m[None]]) for a, b, m, _ in samples])
    temporary = path + f".{os.getpid()}.tmp.npy"
    np.save(temporary, data)
    os.replace(temporary, path + ".npy")
    with open(path + ".json", "w", encoding="utf-8") as file:
        json.dump(samples[0][3], file)


def build(folder, split, subjects, slices=SLICES, contrasts=CONTRASTS, workers=2, progress=None, skip=0):
    """Make sure that the cache holds the first so many subjects of a split, after those skipped; returns their paths."""
    folder = os.path.join(folder, f"v{VERSION}-{split}-{'-'.join(contrasts)}")
    os.makedirs(folder, exist_ok=True)
    seeds = [SPLITS[split] + skip + i for i in range(subjects)]
    missing = [s for s in seeds if not os.path.exists(os.path.join(folder, f"{s}.json"))]
    if missing:
        crew.spread(_make, [(folder, s, slices, contrasts) for s in missing], workers, progress)
    return [os.path.join(folder, f"{s}.npy") for s in seeds]


def enlarged(planes, size):
    """Whole slices on the grid that pix2pix cuts from: 286/256 of the size wanted, (planes, wide, wide) float16."""
    from PIL import Image
    wide = size * 286 // 256
    return np.stack([np.asarray(Image.fromarray(np.asarray(p, np.float32)).resize((wide, wide), Image.BILINEAR), np.float16) for p in planes])


def whole(planes, rng, size):
    """Enlarged slices cut back, (planes, size, size) float32, from a random place, mirrored or not: pix2pix's augmentation."""
    top, left = rng.integers(0, planes.shape[-1] - size + 1, 2)
    out = planes[:, top:top + size, left:left + size].astype(np.float32)
    return out[:, :, ::-1] if rng.random() < 0.5 else out


class Pool:
    """Random crops from cached subjects, read from the page cache as they are needed.

    picks: list of (variant, contrast), or of (variant, contrast, how many slices further); variant 0 is as scanned, 1 the
    mean over all noise.  ("marks", None) is the map of findings; where it is picked, a share of the crops is drawn
    around findings.  Beyond the last slice of a subject comes that slice again, as the node does it.
    """

    NEAR = 0.4  # share of the crops that hold a finding, where the slice has one

    def __init__(self, paths, picks, contrasts=CONTRASTS, extra=(), share=0.0, whole=False):
        """extra: (len(picks), n, n) arrays from elsewhere, from which a share of the crops is taken.

        whole: crops are whole slices, resampled, as the paper's networks see them.
        """
        self.whole = whole
        self.extra, self.share = list(extra), share if len(extra) else 0.0
        count = len(contrasts)
        self.planes = [(2 * count if v == "marks" else v * count + list(contrasts).index(c), away[0] if away else 0)
                       for v, c, *away in picks]
        self.aims = any(v == "marks" for v, *_ in picks)
        self.slices = []  # (all of the subject's, which of them)
        for path in paths:
            stack = np.load(path, mmap_mode="r")
            self.slices += [(stack, k) for k in range(len(stack))]
        self.wide, self.marked, self.kept = {}, {}, {}

    def picked(self, number, where=(slice(None), slice(None))):
        """The picked images of a slice, or a part of them, (len(picks), rows, columns) float32."""
        stack, k = self.slices[number]
        return np.stack([stack[(min(max(k + away, 0), len(stack) - 1), p, *where)] for p, away in self.planes]).astype(np.float32)

    def crop(self, rng, size):
        """The picked images, (len(picks), size, size) float32, from a random place of a random slice."""
        if self.whole:
            number = int(rng.integers(len(self.slices)))
            if number not in self.kept:
                self.kept[number] = enlarged(self.picked(number), size)
            return whole(self.kept[number], rng, size)
        if size not in self.wide:
            self.wide[size] = [k for k, (s, _) in enumerate(self.slices) if s.shape[-1] >= size]
        if not self.wide[size]:
            raise ValueError(f"no slice in the pool is as large as the crop of {size}")
        if self.share and rng.random() < self.share:
            one = self.extra[rng.integers(len(self.extra))]
            top, left = (int(rng.integers(0, n - size + 1)) for n in one.shape[1:])
            return one[:, top:top + size, left:left + size].astype(np.float32)
        number = self.wide[size][rng.integers(len(self.wide[size]))]
        stack, k = self.slices[number]
        n = stack.shape[-1]
        # The spine is right of the middle more often than not; leave most of the belly out.
        top, left = int(rng.integers(0, n - size + 1)), int(round((n - size) * rng.beta(2.2, 1.6)))
        if self.aims and rng.random() < self.NEAR:
            if number not in self.marked:
                self.marked[number] = np.argwhere(stack[k, -1, ::4, ::4] > 0.5).astype(np.int16) * 4
            places = self.marked[number]
            if len(places):
                row, column = places[rng.integers(len(places))] - rng.integers(size // 8, size - size // 8, 2)
                top, left = int(np.clip(row, 0, n - size)), int(np.clip(column, 0, n - size))
        return self.picked(number, (slice(top, top + size), slice(left, left + size)))


REAL_TEST_SLICES = 8  # sagittal slices through the middle of the real volume that are for measuring only
REAL_GAP = 4          # slices on either side of them that nobody uses


def real_volume(folder):
    """(slices through the real lumbar T2 volume from side to side, each rows x columns in [0, 1], voxel mm), or None."""
    path = os.path.join(folder or "", "sct_t2_lumbar.nii.gz")
    if not os.path.exists(path):
        return None
    volume, voxel = nifti.read(path)
    volume, _ = normalise(volume)
    return [np.ascontiguousarray(one.T[::-1]).astype(np.float32) for one in volume], voxel


def real_for_training(folder, least):
    """The lateral slices of the real volume, (1, n, n) each, mirrored at the borders to at least the given size."""
    found = real_volume(folder)
    if not found:
        return []
    slices, _ = found
    first = len(slices) // 2 - REAL_TEST_SLICES // 2
    kept = slices[:first - REAL_GAP] + slices[first + REAL_TEST_SLICES + REAL_GAP:]
    return [np.pad(s, [(0, max(0, least - n)) for n in s.shape], mode="reflect")[None] for s in kept]


def fingerprint(paths):
    """A short digest of the names that a data set consists of."""
    return f"{zlib.crc32(' '.join(os.path.basename(p) for p in paths).encode()):08x}"
