"""A model file run by onnxruntime, an engine that is not ours, fed as the node feeds it.

Context slices, padding or resampling to the model's grid follow the file's own facts, so that what
is measured is what a site would get.
"""

import numpy as np
import onnx
import onnxruntime

from .baselines import resample
from .tasks import TASKS

GREY_LEVEL = 2.0 / 4095.0  # of 12 bits, in a model's answer of -1 to 1


def facts_of(path):
    """The metadata of a model file, {key: text}."""
    return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}


class Model:
    """Images in [0, 1] in, images in [0, 1] out.

    task: which one, where a file holds several that were learned together, a channel each.
    """

    def __init__(self, path, threads=1, task=None):
        self.path, self.facts = path, facts_of(path)
        parts = TASKS[self.facts["spinenode.task"]].parts
        if (task or parts[0]) not in parts:
            raise ValueError(f"{path} is for {' and '.join(parts)}, not for {task}")
        self.task = TASKS[task or parts[0]]
        self.channel = parts.index(self.task.name)
        self.scale = int(self.facts["spinenode.scale"])
        self.context = int(self.facts["spinenode.input_slices"])
        self.grid = self.facts["spinenode.grid"]
        self.threads = threads
        self._open()

    def _open(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "session"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open()

    def __call__(self, image):
        """One slice; its neighbours, if the model wants them, are taken to be like it."""
        return self.stack(image[None])[0]

    def stack(self, images):
        """A series (slices, rows, columns) in the order of the patient."""
        images = np.asarray(images, np.float32)
        half = self.context // 2
        padded = np.concatenate([images[:1]] * half + [images] + [images[-1:]] * half)
        return np.stack([self._run(padded[k:k + self.context]) for k in range(len(images))])

    def _run(self, channels):
        rows, columns = channels.shape[1:]
        if self.grid.startswith("any:"):
            k = int(self.grid[4:])
            channels = np.pad(channels, ((0, 0), (0, -rows % k), (0, -columns % k)), mode="edge")
            made = self._infer(channels)[:rows * self.scale, :columns * self.scale]
        else:
            fixed = tuple(int(n) for n in self.grid.split("x"))
            made = resample(self._infer(np.stack([resample(c, fixed) for c in channels])), (rows * self.scale, columns * self.scale))
        return np.clip(made, 0, 1)

    def _infer(self, channels):
        return (self.session.run(None, {"image": channels[None] * np.float32(2) - np.float32(1)})[0][0, self.channel] + 1) / 2
