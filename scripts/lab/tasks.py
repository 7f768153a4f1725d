"""The tasks a model can be trained for, and how a training pair is made for each."""

from dataclasses import dataclass

import numpy as np

from . import dataset, degrade, radiographs


ALONE = 0.1  # share of the training pairs whose neighbours are copies of the slice itself


@dataclass(frozen=True)
class Task:
    """What goes in and what comes out; contrasts as the phantom names them."""

    name: str
    source: str
    target: str
    input_contrast: str
    output_contrast: str
    scale: int = 1

    @property
    def targets(self):
        """Contrasts that come out, one channel each (several where one network learns them together)."""
        return self.target.split("+")

    @property
    def parts(self):
        """Names of the tasks that are learned together in this one, in the order of its channels; [its own] of any other."""
        if len(self.targets) == 1:
            return [self.name]
        return [t.name for target in self.targets for t in TASKS.values()
                if (t.source, t.target, t.scale) == (self.source, target, self.scale)]

    @property
    def accepts(self):
        """Size of pixels and images that the model is made for, as its file says it."""
        if self.scale > 1:
            return {"spacing_mm": "1.8-3.2", "rows": "64-192", "columns": "64-192"}
        return {"spacing_mm": "0.4-1.5", "rows": "192-1024", "columns": "192-1024"}

    def examples(self, seed, context=1):
        """Two inputs of a subject, (context, rows, columns) in [0, 1]."""
        samples = dataset.draw_subject(seed, 1 + context, size=256)
        images = [noisy[facts["contrasts"].index(self.source), ::self.scale, ::self.scale] for noisy, *_, facts in samples]
        return [np.stack(images[k:k + context]) for k in range(2)]

    def build(self, cache, split, subjects, workers=2, skip=0):
        """Make sure that the cache folder holds so many subjects of a split, after those skipped; returns their paths."""
        return dataset.build(cache, split, subjects, workers=workers, skip=skip)

    def pool(self, paths, real=None, share=0.0, crop=0, whole=False, context=1):
        """The cached slices that this task learns from: source as scanned, target as the mean over its noise.

        real: folder of the real volumes, whose lateral slices make a share of super-resolution's crops.
        whole: whole slices, resampled to the crop's size, in place of crops.
        context: slices of the source, the one in question in their middle.
        """
        if self.scale == 1:
            picks = [(0, self.source, k - context // 2) for k in range(context)] + [(1, target) for target in self.targets] + [("marks", None)]
            return dataset.Pool(paths, picks, whole=whole)
        picks = [(1, self.source)]
        extra = dataset.real_for_training(real, crop + 128) if share else []
        return dataset.Pool(paths, picks, extra=extra, share=share, whole=whole)

    def pair(self, pool, rng, size):
        """A training pair, float32: input of one channel per slice of context in [-1, 1]; target of one channel per contrast
        in [-1, 1], and last the map of findings in 0 to 1."""
        if self.scale > 1 and pool.whole:  # the paper's way: plain linear interpolation, no noise
            high = pool.crop(rng, size)
            low = np.clip(degrade.linear(high[0], self.scale), 0, 1)
            return low[None] * 2 - 1, np.concatenate([high * 2 - 1, np.zeros_like(high)])
        if self.scale > 1:
            return self._low_and_high(pool.crop(rng, size + 128)[0], rng, size)
        planes = pool.crop(rng, size)
        context = len(planes) - len(self.targets) - 1
        source, target, marks = planes[:context], planes[context:-1], planes[-1:]
        if context > 1:  # patients are read from either side, and some series have one slice only
            source = source[::-1] if rng.random() < 0.5 else source
            source = source[[context // 2] * context] if rng.random() < ALONE else source
        return degrade.as_elsewhere(source, rng) * 2 - 1, np.concatenate([target * 2 - 1, marks])

    def _low_and_high(self, high, rng, size):
        """Degrade a wide crop, then cut both so that the filters' borders are left out."""
        s = self.scale
        low = degrade.random(high, s, rng)
        border = (high.shape[0] - size) // 2 // s
        count = size // s
        low = low[border:border + count, border:border + count]
        high = high[border * s:border * s + size, border * s:border * s + size]
        return np.clip(low, 0, 1)[None] * 2 - 1, np.stack([high * 2 - 1, np.zeros_like(high)])


class Radiograph(Task):
    """A radiograph in, the T2-weighted image in its frame out; learned at one pixel size, which the node resamples to."""

    @property
    def accepts(self):
        return {"spacing_mm": "0.05-1.02", "pixel_mm": f"{radiographs.PIXEL_MM:g}", "rows": "128-640", "columns": "128-640"}

    def examples(self, seed, context=1):
        return [radiographs.draw_pair(s)[0][None, :256, :160] for s in (seed, seed + 1)]

    def build(self, cache, split, subjects, workers=2, skip=0):
        return radiographs.build(cache, split, subjects, workers, skip=skip)

    def pool(self, paths, real=None, share=0.0, crop=0, whole=False, context=1):
        return radiographs.Pool(paths, whole)

    def pair(self, pool, rng, size):
        return radiographs.pair(pool, rng, size)


TASKS = {t.name: t for t in (
    Task("super-resolution", "t2", "t2", "T2", "T2", 4),
    Task("t1-to-t2", "t1", "t2", "T1", "T2"),
    Task("t2-to-t1", "t2", "t1", "T2", "T1"),
    Task("t2-to-stir", "t2", "stir", "T2", "STIR"),
    Task("t2-to-tirm", "t2", "tirm", "T2", "TIRM"),
    Radiograph("xray-to-t2", "xray", "t2", "XR", "T2"),
    Task("t2-to-all", "t2", "t1+stir+tirm", "T2", "T1+STIR+TIRM"),
)}

