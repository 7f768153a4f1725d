"""What a model has to beat: doing nothing, simple arithmetic, and the paper's own network."""

import glob
import os

import numpy as np
from PIL import Image

from . import radiographs
from .tasks import TASKS

LINEAR, CUBIC, LANCZOS = Image.BILINEAR, Image.BICUBIC, Image.LANCZOS
KNOWN_PAIRS = 120  # training subjects whose radiographs are looked through for the nearest one
THUMBNAIL, AVERAGE = (40, 24), (384, 240)


def resample(image, shape, method=LINEAR):
    """An image on another grid, by an image library's filter (antialiased when it shrinks)."""
    return np.asarray(Image.fromarray(np.asarray(image, np.float32)).resize((shape[1], shape[0]), method))


def enlarge(image, factor, method):
    """Upsample by the library's linear, cubic or Lanczos filter."""
    return np.clip(resample(image, (image.shape[0] * factor, image.shape[1] * factor), method), 0, 1)


def paper_models(folder):
    """{task: path} of the paper's encoder-decoders, trained on this phantom; {} when there are none.

    One file may serve several tasks, a channel each (t2-to-all).
    """
    from .engine import facts_of
    return {task: p for p in sorted(glob.glob(os.path.join(folder, "*.onnx"))) for task in TASKS[facts_of(p)["spinenode.task"]].parts}


class KnownPairs:
    """The mean T2 image of training subjects, and the T2 image of the one whose radiograph is most alike."""

    def __init__(self, cache, count=KNOWN_PAIRS, workers=2, progress=None):
        self.thumbnails, self.targets = [], []
        for path in radiographs.build(cache, "train", count, workers, progress):
            source, target, _ = np.load(path).astype(np.float32)
            self.thumbnails.append(self._features(source))
            self.targets.append(target)
        self.thumbnails = np.array(self.thumbnails)
        self.average = np.mean([resample(t, AVERAGE) for t in self.targets], 0)

    @staticmethod
    def _features(source):
        small = resample(source, THUMBNAIL).ravel()
        return (small - small.mean()) / (small.std() + 1e-6)

    def mean_image(self, source):
        return np.clip(resample(self.average, source.shape), 0, 1)

    def nearest(self, source):
        """T2 of the training subject whose radiograph correlates best, each taken to the same coarse grid."""
        best = int(np.argmax(self.thumbnails @ self._features(source)))
        return np.clip(resample(self.targets[best], source.shape), 0, 1)


