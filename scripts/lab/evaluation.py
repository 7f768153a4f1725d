"""Measure shipped models on test subjects, beside their baselines: one subject at a time.

Everything that is said about a subject is measured in one go (measure_case, measure_radiograph), so
that images need not be kept; what comes back are figures and the reader's measurements.
"""

import numpy as np
from scipy import ndimage

from . import dataset, degrade, metrics, nifti, radiographs, reader
from .baselines import CUBIC, LANCZOS, LINEAR, enlarge
from .projection import Film

MEASURES = ("mse", "psnr", "ssim", "vifp", "cpbd")
WAYS = ("linear", "k-space")


def figures(truth, image, memo=None):
    """All measures of one image; MSE, PSNR and SSIM on a range of 1, VIFp and CPBD on 0 to 255.

    memo: a dictionary for each truth, where several images are held against it.
    """
    return {"mse": metrics.mse(truth, image), "psnr": metrics.psnr(truth, image, 1.0), "ssim": metrics.ssim(truth, image, 1.0, memo),
            "vifp": metrics.vifp(truth * 255, image * 255, memo), "cpbd": metrics.cpbd(image * 255)}


def lowered(high, way, rng):
    """A low-resolution slice of a full one, 4 times coarser: the paper's linear way, or by a small k-space with noise."""
    return np.clip(degrade.linear(high, 4) if way == "linear" else degrade.kspace(high, 4, rng, 1.0, 0.004), 0, 1)


def upscale(model, stack):
    """As the node does: normalised by its own percentiles, and put back into the source's units."""
    normal, (low, high) = dataset.normalise(stack)
    return np.clip(model.stack(normal) * (high - low) + low, 0, 1)


def enlarge_slices(stack, group, models):
    """Super-resolution of a (slices, rows, columns) stack: (rows of figures, {way: {method: stack}})."""
    stack = stack[:, :stack.shape[1] // 4 * 4, :stack.shape[2] // 4 * 4].astype(np.float32)
    rows, made, memos = [], {}, [{} for _ in stack]
    for way in WAYS:
        low = np.stack([lowered(s, way, np.random.default_rng([int(group), k])) for k, s in enumerate(stack)])
        results = {name: upscale(model, low) for name, model in models.items()}
        for name, method in (("linear", LINEAR), ("cubic", CUBIC), ("lanczos", LANCZOS)):
            results[name] = np.stack([enlarge(s, 4, method) for s in low])
        made[way] = {"source": low, **results}
        for k, truth in enumerate(stack):
            rows += [{"method": name, "way": way, "group": group, "slice": k, **figures(truth, result[k], memos[k])} for name, result in results.items()]
            rows.append({"method": "truth", "way": way, "group": group, "slice": k, "cpbd": metrics.cpbd(truth * 255)})
    return rows, made


def translate_slices(source, truth, group, models, reference):
    """A change of contrast: (rows of figures, {method: stack}).  reference: grey values whose histogram a baseline takes on."""
    results = {name: model.stack(source) for name, model in models.items()}
    results["identity"] = source
    results["histogram-matched source"] = np.stack([metrics.match_histogram(s, reference) for s in source])
    rows = []
    for k, target in enumerate(truth):
        memo = {}
        rows += [{"method": name, "way": "", "group": group, "slice": k, **figures(target, result[k], memo)} for name, result in results.items()]
        rows.append({"method": "truth", "way": "", "group": group, "slice": k, "cpbd": metrics.cpbd(target * 255)})
    return rows, results


def read_stack(images, case, contrast):
    """[(seed, slice, Reading)] of a stack of a case."""
    return [(case.seed, k, r) for k, image in enumerate(images)
            for r in reader.read(reader.Slice.of_field(image, case.subject, case.positions[k], case.field_mm), contrast)]


def native_readings(case):
    """{contrast: readings} of the images as scanned."""
    return {c: read_stack(stack, case, c) for c, stack in case.images.items()}


def measure_case(case, models, papers, references, pictures=True, keep=False):
    """Everything about one subject: {"rows": {task: …}, "native": …, "synthetic": {task: …}, "paper": …, "examples": …}.

    models, papers: {task: Model}.  pictures: also the image measures, which cost more than the reading.
    keep: also return images of the middle slice for the sheets.
    """
    out = {"seed": case.seed, "rows": {}, "native": native_readings(case), "synthetic": {}, "paper": {}, "examples": {}}
    middle = len(case.positions) // 2
    for name, model in models.items():
        task = model.task
        if task.source not in case.images:
            continue
        both = {"model": model} | ({"paper's network": papers[name]} if name in papers else {})
        if task.scale > 1:
            if not pictures:
                continue
            rows, made = enlarge_slices(case.images[task.source], case.seed, both)
            results = made["linear"]
            sheet = [results["cubic"], results["model"], case.images[task.target]]
        else:
            if pictures:
                rows, results = translate_slices(case.images[task.source], case.images[task.target], case.seed, both, references[task.target])
            else:
                results = {key: one.stack(case.images[task.source]) for key, one in both.items()}
            sheet = [case.images[task.source], case.images[task.target], results["model"]]
        if pictures:
            out["rows"][name] = rows
        out["synthetic"][name] = read_stack(results["model"], case, task.target)
        if "paper's network" in results:
            out["paper"][name] = read_stack(results["paper's network"], case, task.target)
        if keep:
            images = [s[middle] for s in sheet]
            out["examples"][name] = images + [2 * np.abs(images[-1] - images[1])]
    return out


def film_view(image, exposure, seed):
    """The reader's view of an image in the radiograph's frame."""
    middle = float(np.mean([b.x for b in exposure.subject.bodies[5:9]]))
    y, z = Film(exposure.view, *exposure.image.shape, exposure.pixel_mm, seed).grid(middle)
    return reader.Slice(image, exposure.subject, middle, float(y[0]), float(z[0]), float(y[1] - y[0]))


def measure_radiograph(seed, models, papers, known, keep=False, names=None):
    """As measure_case, for x-ray to T2; what the reader measures on the native T2 is under native["t2"].

    names: a Numbering; what it calls the vertebrae is under named: {method: [(seed, vertebra, its name)]}.
    """
    source, truth, _, exposure = radiographs.draw_pair(seed)
    model = models["xray-to-t2"]
    results = {"model": model(source)}
    if "xray-to-t2" in papers:
        results["paper's network"] = papers["xray-to-t2"](source)
    if known:
        results |= {"mean image": known.mean_image(source), "nearest neighbour": known.nearest(source)}
    memo = {}
    rows = [{"method": name, "way": "", "group": seed, "slice": 0, **figures(truth, image, memo)} for name, image in results.items()]
    rows.append({"method": "truth", "way": "", "group": seed, "slice": 0, "cpbd": metrics.cpbd(truth * 255)})

    def readings(image):
        return [(seed, 0, r) for r in reader.read(film_view(image, exposure, seed), "t2")]

    out = {"seed": seed, "rows": {"xray-to-t2": rows}, "native": {"t2": readings(truth)}, "synthetic": {"xray-to-t2": readings(results["model"])},
           "paper": {}, "examples": {}, "named": {}}
    if names:
        read = {"native": truth, **{m: results[m] for m in ("model", "paper's network") if m in results}}
        out["named"] = {m: [(seed, *pair) for pair in names.named(image, exposure)] for m, image in read.items()}
    if "paper's network" in results:
        out["paper"]["xray-to-t2"] = readings(results["paper's network"])
    if keep:
        out["examples"]["xray-to-t2"] = [source, truth, results["model"], 2 * np.abs(results["model"] - truth)]
    return out


# -- real volumes -------------------------------------------------------------------------------


def real_slices(folder, count=dataset.REAL_TEST_SLICES):
    """(sagittal slices of the real lumbar T2 volume that are for measuring only, voxel mm); ([], None) when absent."""
    found = dataset.real_volume(folder)
    if not found:
        return [], None
    slices, voxel = found
    first = len(slices) // 2 - count // 2
    return slices[first:first + count], voxel


BESIDE_MM = 4  # as far apart as slices of a 2D series are


def real_beside(folder, count=dataset.REAL_TEST_SLICES):
    """The slices of real_slices(), each between those about BESIDE_MM to either side of it: (3, rows, columns) arrays.

    Those beside the outermost lie in the gap that nobody learns from; where that is narrower, they are nearer.
    """
    slices, voxel = dataset.real_volume(folder)
    first, step = len(slices) // 2 - count // 2, min(max(1, round(BESIDE_MM / float(voxel[0]))), dataset.REAL_GAP)
    return [np.stack([slices[k - step], slices[k], slices[k + step]]) for k in range(first, first + count)]


LIKENESS = ("share that is dark", "texture of what is not", "share of fine detail")


def likeness(image):
    """What can be measured without knowing what is where, to hold the phantom against real images (values in [0, 1]).

    In the order of LIKENESS: share of pixels below 0.1; median over the others of the spread within 5 x 5 pixels
    over its mean; share of the spectrum's power (the mean left out) that lies beyond half of the highest frequency.
    """
    image = np.asarray(image, np.float64)
    mean = ndimage.uniform_filter(image, 5)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(image * image, 5) - mean * mean, 0))
    body = mean > 0.1
    power = np.abs(np.fft.fft2(image - image.mean()))**2
    fine = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij")) > 0.25
    return float((image < 0.1).mean()), float(np.median(spread[body] / mean[body])) if body.any() else 0.0, float(power[fine].sum() / max(power.sum(), 1e-12))


def real_pair(t1_path, t2_path):
    """A (T1, T2) pair of volumes in one frame: two (slices, rows, columns) stacks in [0, 1] of what both show, and voxel mm.

    They must have one voxel size and lie on one grid; nothing is interpolated and nothing registered.
    """
    placed = [nifti.read_placed(p) for p in (t1_path, t2_path)]
    voxel = placed[0][1]
    if not np.allclose(voxel, placed[1][1], atol=0.01):
        raise ValueError(f"{t1_path} and {t2_path} have voxels of different sizes")
    starts = np.array([np.rint(origin / voxel).astype(int) for _, _, origin in placed])
    low, high = starts.max(0), np.min([s + v.shape for s, (v, _, _) in zip(starts, placed)], 0)
    if np.any(high - low < 32):
        raise ValueError(f"{t1_path} and {t2_path} overlap by {high - low} voxels only")
    out = []
    for start, (volume, _, _) in zip(starts, placed):
        part = volume[tuple(slice(a, b) for a, b in zip(low - start, high - start))]
        out.append(np.stack([np.ascontiguousarray(one.T[::-1]) for one in dataset.normalise(part)[0]]).astype(np.float32))
    return out[0], out[1], voxel
