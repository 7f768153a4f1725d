"""The limits of a model's quality gate, from ordinary validation subjects and from what is made of them.

The node measures (spinenode quality); here is only what the measurements are compared with: how far
ordinary series are from their own mean, and which way turned, mirrored, inverted, noisy or
metal-ridden ones differ from them.  The result is the text of spinenode.gate (model/quality.h).
"""

import hashlib
import json
import os
import subprocess
import tempfile
from statistics import NormalDist

import numpy as np
import onnx

from . import crew, dataset, degrade, scanner, tissue, xray
from .anatomy import Subject

FIRST = {"validation": dataset.SPLITS["validation"] + 3_000_000, "test": dataset.SPLITS["test"] + 3_000_000}
CONTRASTS = ("t1", "t2", "t2-fast")
SHAPE = 32       # QUALITY_SHAPE: features of the distance; the rest serves the classes only
FOLDS = 5
# Where ordinary series give nothing at all, limits would be nothing at all, too.
LEAST = {"moved": (0.05, 0.15)}
MOST = {"structure": 1.0, "structure-block": 1.0, "moved": 1.0}  # figures that are shares
GROSS = ("turned-left", "turned-right", "inverted", "noisy")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


# ---- ordinary series ----

def draw_mr(seed, contrasts=CONTRASTS, wide=None):
    """({contrast: (3, n, n) float32}, field of view in mm): three slices beside each other through the canal, ordinary protocols.

    wide: tissue values and protocols vary as much as in training; by default in every second subject.
    """
    rng = np.random.default_rng([seed, 60])
    n = int(rng.choice([512, 384, 320, 256, 256]))
    field = float(rng.uniform(270 if n > 320 else 240, 350))
    subject, scene = Subject(seed), scanner.Scene.sample(rng)
    protocols = [tissue.sample_protocol(c, np.random.default_rng([seed, 61, i]), n) for i, c in enumerate(contrasts)]
    if seed % 2 if wide is None else wide:
        subject.values = tissue.sample_values(np.random.default_rng([seed, 62]), 0.14)
        protocols = dataset.widen(np.random.default_rng([seed, 63]), subject.values, protocols)
        dataset.roughen(np.random.default_rng([seed, 67]), subject)
    middle = float(np.mean([b.x for b in subject.bodies[5:9]])) + rng.normal(0, 2)
    slices = [scanner.render_plane(subject, middle + 4.4 * (k - 1), scene, protocols, n, field, subject.centre,
                                   np.random.default_rng([seed, 64, k]), texture=k)[0] for k in range(3)]
    return {c: np.stack([s[c] for s in slices]).astype(np.float32) for c in contrasts}, field


def draw_xray(seed):
    """A radiograph, (1, rows, columns) float32, facing either way, in the pixels that the model takes."""
    image = xray.radiograph(seed, 1.0).image.astype(np.float32)
    return np.ascontiguousarray(image[None, :, ::-1] if seed % 2 else image[None])


def _draw(path, seed, radiograph):
    if radiograph:
        stacks, field = {"xray": draw_xray(seed)}, 0.0
    else:
        stacks, field = draw_mr(seed)
    with open(f"{path}.{os.getpid()}.tmp", "wb") as file:
        np.savez(file, field=field, **{c: (v / v.max()).astype(np.float16) for c, v in stacks.items()})
    os.replace(file.name, path)


def _fingerprint(radiograph):
    """Of the code that draws: other code, other subjects."""
    here, digest = os.path.dirname(os.path.realpath(__file__)), hashlib.sha256()
    for name in ("anatomy", "canvas", "spine", "tissue", *(("projection", "trunk", "xray") if radiograph else ("scanner", "dataset", "gate"))):
        with open(os.path.join(here, name + ".py"), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:12]


def subjects(split, count, cache, radiograph=False, workers=2, progress=None):
    """The first so many subjects of a split: list of (stacks, field in mm); kept in the cache folder."""
    folder = os.path.join(cache, f"{'xray' if radiograph else 'mr'}-{_fingerprint(radiograph)}")
    os.makedirs(folder, exist_ok=True)
    seeds = [FIRST[split] + i for i in range(count)]
    paths = [os.path.join(folder, f"{s}.npz") for s in seeds]
    missing = [(p, s) for p, s in zip(paths, seeds) if not os.path.exists(p)]
    if missing:
        crew.spread(_draw, [(p, s, radiograph) for p, s in missing], workers, progress)
    out = []
    for path in paths:
        with np.load(path) as file:
            out.append(({k: file[k].astype(np.float32) * 4000 for k in file.files if k != "field"}, float(file["field"])))
    return out


def source_of(facts, stacks, field, seed):
    """(volume, pixel in mm) that a model takes of a subject; the pixel is 0 where there is none."""
    if facts["spinenode.input_contrast"] == "XR":
        return stacks["xray"], 0.0
    contrast = facts["spinenode.input_contrast"].lower()
    if facts["spinenode.task"] != "super-resolution":
        return stacks[contrast], field / stacks[contrast].shape[2]
    volume, scale = stacks["t2-fast"], int(facts["spinenode.scale"])
    if seed % 2 and stacks["t2"].shape[2] >= 96 * scale:
        rng = np.random.default_rng([seed, 65])
        volume = np.stack([degrade.random(slice_, scale, rng) for slice_ in stacks["t2"]])
    return volume.astype(np.float32), field / volume.shape[2]


# ---- what is not ordinary ----

def metal(volume, rng):
    """Voids with bright rims near the posterior elements, as screws and rods leave them."""
    rows, columns = volume.shape[1:]
    side, top, out = max(rows, columns), float(np.percentile(volume, 99.5)), volume.copy()
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    for _ in range(int(rng.integers(2, 5))):
        a, b = np.exp(rng.uniform(np.log(0.035), np.log(0.12))) * side * rng.uniform(0.8, 1.25, 2)
        down, right = (y - rows * rng.uniform(0.3, 0.75)) / a, (x - columns * rng.uniform(0.42, 0.68)) / b
        away = np.hypot(down, right)
        rim = np.exp(-((away - 1.1) / rng.uniform(0.08, 0.16)) ** 2) * np.maximum(0, np.cos(2 * np.arctan2(down, right)))
        out = out * (1 - 1 / (1 + np.exp(np.clip((away - 1) / 0.06, -50, 50)))) + rim * top * rng.uniform(0.2, 1.6)
    return out


def noisy(volume, rng):
    """Noise as strong as the image."""
    return np.abs(volume + rng.normal(0, 1, volume.shape) * volume.std() * rng.uniform(0.8, 1.6))


def inverted(volume, _):
    top = float(np.percentile(volume, 99.8))
    return top - np.minimum(volume, top)


HOSTILE = {
    "turned-left": lambda v, rng: np.rot90(v, 1, (1, 2)),
    "turned-right": lambda v, rng: np.rot90(v, 3, (1, 2)),
    "upside-down": lambda v, rng: v[:, ::-1, ::-1],
    "mirrored": lambda v, rng: v[:, :, ::-1],
    "inverted": inverted,
    "noisy": noisy,
    "distorted-by-metal": metal,
}


def classes_of(facts):
    """Names of the kinds of strange input that a model's gate learns to tell."""
    if facts["spinenode.input_contrast"] == "XR":  # facing either way is ordinary there
        return [n for n in HOSTILE if n not in ("mirrored", "distorted-by-metal")]
    return [*HOSTILE, "like-t1" if facts["spinenode.input_contrast"] == "T2" else "like-t2"]


def make_hostile(name, facts, stacks, volume, rng):
    """One strange input made of a subject, contiguous float32."""
    if not name.startswith("like-"):
        made = HOSTILE[name](volume, rng)
    else:
        made = stacks[name[5:]]
        factor = made.shape[2] // volume.shape[2]
        if factor > 1:  # a model of small images
            made = made.reshape(made.shape[0], made.shape[1] // factor, factor, made.shape[2] // factor, factor).mean((2, 4))
    return np.ascontiguousarray(made, np.float32)


# ---- measuring ----

def measure(program, model, volumes, input_only=False, threads=0):
    """What `spinenode quality` says of each volume: a list of dicts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{i}.npy") for i in range(len(volumes))]
        for path, volume in zip(paths, volumes):
            np.save(path, np.ascontiguousarray(volume, np.float32))
        # One size after the other: each is compiled once.
        order = sorted(range(len(paths)), key=lambda i: volumes[i].shape)
        command = [program, "quality", model, *[paths[i] for i in order], "--threads", str(threads)]
        done = subprocess.run(command + (["--input-only"] if input_only else []), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{model}: {done.stderr.strip().splitlines()[0] if done.stderr else 'spinenode quality failed'}")
        found = {entry["path"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    return [found[path] for path in paths]


# ---- limits ----

def tail(values, rate):
    """The value that a share `rate` of such values exceeds: the normal law beyond the 95th percentile, and never
    below what was seen."""
    middle, high = np.percentile(values, [50, 95])
    far = NormalDist().inv_cdf(1 - rate) / NormalDist().inv_cdf(0.95)
    return float(max(middle + (high - middle) * far, np.max(values) + 0.02 * (high - middle)))


def _space(features):
    """Mean and scale of features (series, slices, F), and the whitening of the first SHAPE."""
    flat = features.reshape(-1, features.shape[-1])
    mean, scale = flat.mean(0), np.sqrt(flat.var(0) + 0.02**2)
    z = ((flat - mean) / scale)[:, :SHAPE]
    cover = 0.85 * np.cov(z.T) + 0.15 * np.eye(SHAPE)
    return mean, scale, np.linalg.inv(np.linalg.cholesky(cover))


def _distance(space, features):
    mean, scale, whiten = space
    z = ((features - mean) / scale)[..., :SHAPE]
    return np.sqrt(np.mean((z @ whiten.T) ** 2, -1)).mean(-1)


def _weights(space, ordinary, strange):
    """Linear discriminant with a strong ridge: little is believed of a few dozen subjects.  One standard deviation of
    ordinary series is 1."""
    mean, scale, _ = space
    a = (ordinary.reshape(-1, ordinary.shape[-1]) - mean) / scale
    b = np.clip((strange.reshape(-1, strange.shape[-1]) - mean) / scale, -8, 8)
    cover = (np.cov(a.T) + np.cov(b.T)) / 2
    cover = 0.3 * cover + 0.7 * np.diag(np.diag(cover)) + np.eye(len(cover))
    weights = np.linalg.solve(cover, b.mean(0) - a.mean(0))
    return weights / max(float(((ordinary - mean) / scale @ weights).mean(1).std()), 1e-9)


def _score(space, weights, features):
    mean, scale, _ = space
    return (((features - mean) / scale) @ weights).mean(-1)


def _between(ordinary, strange, rate):
    """Limits to mark and to refuse: half way to what is strange where that is far off, else where the rate is."""
    limit = tail(ordinary, rate)
    refuse = max(limit, (limit + float(np.percentile(strange, 5))) / 2)
    return (limit + refuse) / 2 if refuse > limit else min(tail(ordinary, 5 * rate), limit), refuse


def _limits(figures, rate):
    """{name: (limit to mark, limit to refuse)} of figures of which a share `rate` may be refused each."""
    out = {}
    for name, values in figures.items():
        limit, least = tail(values, rate), LEAST.get(name, (0, 0))
        # A few dozen subjects say little of so far a tail: as far again to refuse, a third of that to mark.
        beyond = limit - float(np.median(values))
        out[name] = max(limit + beyond / 3, least[0]), max(limit + beyond, least[1])
    return out


def telling(figures, checks, rate):
    """The figures whose limit can be passed: where ordinary results reach so high that it cannot, they tell nothing.

    checks: how many others there are, among which the rate is divided, too.  Under a radiograph lies a T2 whose edges
    are mostly elsewhere, so that blocks agree by chance alone, moved or not; disagreement tells a moved result there.
    """
    limits = _limits(figures, rate / (checks + len(figures)))
    return {name: values for name, values in figures.items() if limits[name][1] < MOST.get(name, np.inf)}


def fit(ordinary, strange, figures, rate, field_mm, towards=None):
    """The text of a gate.

    ordinary: features (series, slices, F); strange: {class: the same}; figures: {name: values of ordinary series};
    rate: the share of ordinary series that all the checks together may refuse; towards: where rows and columns of
    the images lead, as letters of Patient Orientation.
    """
    figures = telling(figures, 1 + len(strange), rate)
    each = rate / (1 + len(strange) + len(figures))
    folds = np.arange(len(ordinary)) % FOLDS
    unlike, scores = np.zeros(len(ordinary)), {name: np.zeros(len(ordinary)) for name in strange}
    for k in range(FOLDS):  # limits from subjects that the space was not made of
        space, held = _space(ordinary[folds != k]), ordinary[folds == k]
        unlike[folds == k] = _distance(space, held)
        for name, features in strange.items():
            scores[name][folds == k] = _score(space, _weights(space, ordinary[folds != k], features), held)
    space = _space(ordinary)
    gross = np.concatenate([_distance(space, strange[name]) for name in GROSS if name in strange])

    def row(values):
        return " ".join(f"{v:.4g}" for v in values)

    count = ordinary.shape[-1]
    lines = ["gate 1", f"features 1 {count}", f"refusal {rate:g} {len(ordinary)}", "field_mm {:.0f} {:.0f}".format(*field_mm),
             *([f"towards {towards}"] if towards else []),
             f"mean {count} {row(space[0])}", f"scale {count} {row(space[1])}",
             "whiten " + row(space[2][np.tril_indices(SHAPE)]),
             "limit unlike {:.4g} {:.4g}".format(*_between(unlike, gross, each))]
    for name, features in strange.items():
        weights = _weights(space, ordinary, features)
        mark, refuse = _between(scores[name], _score(space, weights, features), each)
        lines.append(f"class {name} {mark:.4g} {refuse:.4g} {count} {row(weights)}")
    lines += [f"limit {name} {mark:.4g} {refuse:.4g}" for name, (mark, refuse) in _limits(figures, each).items()]
    return "\n".join(lines) + "\n"


# ---- a model file ----

def facts_of(path):
    return {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}


def store(path, text, output=None):
    """Write the gate into a model file's metadata; the graph stays, byte for byte."""
    model = onnx.load(path, load_external_data=False)
    before = model.graph.SerializeToString(deterministic=True)
    kept = [(p.key, p.value) for p in model.metadata_props if p.key != "spinenode.gate"]
    del model.metadata_props[:]
    for key, value in [*kept, ("spinenode.gate", text)]:
        model.metadata_props.add(key=key, value=value)
    data = model.SerializeToString()
    if onnx.load_from_string(data).graph.SerializeToString(deterministic=True) != before:
        raise RuntimeError(f"{path}: the graph would not stay as it is")
    target = output or path
    with open(target + ".tmp", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(target + ".tmp", target)


def default_program():
    return os.environ.get("SPINENODE") or os.path.join(ROOT, "build", "spinenode")


def calibrate(path, program=None, count=60, rate=0.01, cache=os.path.join("build", "gate"), workers=2, output=None, progress=None):
    """Give a model file its gate; returns the text."""
    program = program or default_program()
    if not os.path.exists(program):
        raise RuntimeError(f"{program} is not there, and it measures what a gate is made of: run make first")
    facts = facts_of(path)
    radiograph = facts["spinenode.input_contrast"] == "XR"
    drawn = subjects("validation", count, cache, radiograph, workers, progress)
    sources = [source_of(facts, stacks, field, i) for i, (stacks, field) in enumerate(drawn)]
    volumes = [volume for volume, _ in sources]
    # The program must not judge by an older gate, whose features may be others.
    with tempfile.TemporaryDirectory() as folder:
        bare = os.path.join(folder, "model.onnx")
        store(path, "", bare)
        without = onnx.load(bare)
        del without.metadata_props[-1]
        onnx.save(without, bare)
        found = measure(program, bare, volumes, threads=workers)
        ordinary = np.array([f["features"] for f in found])
        strange = {}
        for name in classes_of(facts):
            made = [make_hostile(name, facts, stacks, volume, np.random.default_rng([i, 66, k]))
                    for k in range(2 if name == "distorted-by-metal" else 1) for i, ((stacks, _), volume) in enumerate(zip(drawn[:40], volumes))]
            strange[name] = np.array([f["features"] for f in measure(program, bare, made, input_only=True, threads=workers)])
    figures = {}
    for name in found[0]["figures"]:
        values = [f["figures"][name] for f in found if f["figures"][name] is not None]
        if len(values) >= len(found) // 2:
            figures[name] = np.array(values)
    fields = [field for _, field in drawn]
    text = fit(ordinary, strange, figures, rate, (0.7 * min(fields), 1.4 * max(fields) or 1e6),
               None if radiograph else "PF")
    store(path, text, output)
    return text
