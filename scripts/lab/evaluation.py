"""Run shipped models on test subjects and measure them beside their baselines."""

import os

import numpy as np
import onnx
import onnxruntime
from PIL import Image

from . import dataset, degrade, metrics, reader
from .tasks import TASKS

MEASURES = ("mse", "psnr", "ssim", "vifp", "cpbd")


class Model:
    """An ONNX file run by onnxruntime, an engine that is not ours; images in [0, 1]."""

    def __init__(self, path, threads=2):
        proto = onnx.load(path, load_external_data=False)
        self.path = path
        self.facts = {p.key: p.value for p in proto.metadata_props}
        self.task = TASKS[self.facts["spinenode.task"]]
        self.multiple = int(self.facts["spinenode.grid"].split(":")[1])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, image):
        rows, columns = image.shape
        pad = [(0, -rows % self.multiple), (0, -columns % self.multiple)]
        x = np.pad(image, pad, mode="edge").astype(np.float32)[None, None] * 2 - 1
        y = self.session.run(None, {"image": x})[0][0, 0]
        s = self.task.scale
        return np.clip((y[:rows * s, :columns * s] + 1) / 2, 0, 1)


def enlarge(image, factor, method):
    """Upsample by an image library's linear, cubic or Lanczos filter."""
    size = (image.shape[1] * factor, image.shape[0] * factor)
    return np.clip(np.asarray(Image.fromarray(image.astype(np.float32)).resize(size, method)), 0, 1)


def figures(truth, image):
    """All measures of one image; MSE, PSNR and SSIM on a range of 1, VIFp and CPBD on 0 to 255."""
    return {"mse": metrics.mse(truth, image), "psnr": metrics.psnr(truth, image, 1.0), "ssim": metrics.ssim(truth, image, 1.0),
            "vifp": metrics.vifp(truth * 255, image * 255), "cpbd": metrics.cpbd(image * 255)}


def super_resolution(model, slices):
    """Rows of (method, way, group, figures) for (group, image) slices, and examples for the sheet."""
    rows, examples = [], []
    for number, (group, high) in enumerate(slices):
        high = high[:high.shape[0] // 4 * 4, :high.shape[1] // 4 * 4].astype(np.float32)
        rng = np.random.default_rng([int(group), number])
        for way in ("linear", "k-space"):
            low = degrade.linear(high, 4) if way == "linear" else degrade.kspace(high, 4, rng, 1.0, 0.004)
            low = np.clip(low, 0, 1)
            results = {"model": model(low), "linear": enlarge(low, 4, Image.BILINEAR),
                       "cubic": enlarge(low, 4, Image.BICUBIC), "lanczos": enlarge(low, 4, Image.LANCZOS)}
            for method, image in results.items():
                rows.append({"method": method, "way": way, "group": group, **figures(high, image)})
            rows.append({"method": "truth", "way": way, "group": group, "cpbd": metrics.cpbd(high * 255)})
            if way == "k-space" and number % 3 == 0:
                examples.append((results["cubic"], results["model"], high))
    return rows, examples


def translation(model, cases, others):
    """Rows as above for a change of contrast; others are cases whose histogram a baseline matches."""
    task = model.task
    reference = np.concatenate([c.images[task.target][:, ::4, ::4].ravel() for c in others])
    rows, examples, outputs = [], [], []
    for case in cases:
        made = []
        for k, source in enumerate(case.images[task.source]):
            truth = case.images[task.target][k]
            image = model(source)
            made.append(image)
            results = {"model": image, "identity": source, "histogram-matched source": metrics.match_histogram(source, reference)}
            for method, result in results.items():
                rows.append({"method": method, "way": "", "group": case.seed, **figures(truth, result)})
            rows.append({"method": "truth", "way": "", "group": case.seed, "cpbd": metrics.cpbd(truth * 255)})
        outputs.append(np.stack(made))
        examples.append((case.images[task.source][len(made) // 2], made[len(made) // 2], case.images[task.target][len(made) // 2]))
    return rows, examples, outputs


def readings(cases, images):
    """Every score of the automatic reader: {"disc": (scores, truths, keys), …}."""
    out = {"disc": [], "protrusion": [], "modic": []}
    for case, stack in zip(cases, images):
        for k, image in enumerate(stack):
            for name, entries in reader.scores(image, case.subject, case.positions[k], case.field_mm).items():
                out[name] += [(score, truth, (case.seed, k) + key) for key, score, truth in entries]
    return {name: tuple(np.array(v) for v in zip(*[(s, t) for s, t, _ in entries])) for name, entries in out.items()}


def read_findings(task, validation, cases, outputs):
    """Agreement of readings of native and synthetic images, and of both with the truth."""
    calibration = readings(validation, [c.images[task.target] for c in validation])
    native = readings(cases, [c.images[task.target] for c in cases])
    synthetic = readings(cases, outputs)
    table = []
    for name, classes in (("disc", 3), ("protrusion", 2)):
        rule, order, _ = reader.fit(*calibration[name], classes)
        a, b = order[rule.read(native[name][0])], order[rule.read(synthetic[name][0])]
        table.append(_agreement(name, a, b, native[name][1], range(classes)))
    rule = reader.modic_rule(*calibration["modic"])
    a, b = rule.read(native["modic"][0]), rule.read(synthetic["modic"][0])
    row = _agreement("modic", a, b, native["modic"][1], range(3))
    truth = native["modic"][1]
    native_seen, synthetic_seen = (a != 1), (b != 1)
    lesions, healthy = truth > 0, truth == 0
    row["sensitivity"] = float(np.mean(synthetic_seen[lesions & native_seen])) if np.any(lesions & native_seen) else float("nan")
    row["native_sensitivity"] = float(np.mean(native_seen[lesions])) if np.any(lesions) else float("nan")
    row["false_positive"] = float(np.mean(synthetic_seen[healthy]))
    row["native_false_positive"] = float(np.mean(native_seen[healthy]))
    table.append(row)
    return table


def _agreement(name, native, synthetic, truth, labels):
    value, low, high, n = metrics.kappa(native, synthetic, labels)
    row = {"finding": name, "kappa": value, "low": low, "high": high, "n": n}
    if name != "modic":
        row["native_truth"] = metrics.kappa(native, truth, labels)[0]
        row["synthetic_truth"] = metrics.kappa(synthetic, truth, labels)[0]
        worst = max(labels)
        ill = native == worst
        row["sensitivity"] = float(np.mean(synthetic[ill] == worst)) if np.any(ill) else float("nan")
        row["false_positive"] = float(np.mean(synthetic[~ill] == worst)) if np.any(~ill) else float("nan")
    return row


def real_slices(folder, count=dataset.REAL_TEST_SLICES):
    """Sagittal slices of the real lumbar T2 volume, through the spine, normalised; [] when absent."""
    found = dataset.real_volume(folder)
    if not found:
        return [], None
    slices, voxel = found
    first = len(slices) // 2 - count // 2
    return slices[first:first + count], voxel


def sheet(rows, path, cell=256):
    """A contact sheet: one row per example, images side by side, values in [0, 1]."""
    lines = [np.concatenate([np.asarray(Image.fromarray((np.clip(i, 0, 1) * 255).astype(np.uint8)).resize((cell, cell), Image.LANCZOS))
                             for i in row], 1) for row in rows]
    Image.fromarray(np.concatenate(lines, 0)).save(path)
