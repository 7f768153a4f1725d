"""The quality gate of the shipped models: strange images are refused, ordinary ones are not.

SPINENODE_GATE_SUBJECTS=67 asks about 200 ordinary slices instead of a few.  A model that carries no limits yet is
calibrated here, into a copy that is kept in build/gate.
"""

import functools
import glob
import hashlib
import os

import numpy as np
import pytest
import strange

from lab import dataset, degrade, gate, nifti

onnx = pytest.importorskip("onnx")
skimage_data = pytest.importorskip("skimage.data")

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
CACHE = os.path.join(ROOT, "build", "gate")
REAL = os.path.join(ROOT, "..", "shared", "data")
MODELS = sorted(glob.glob(os.path.join(ROOT, "model", "zoo", "**", "*.onnx"), recursive=True))
SUBJECTS = int(os.environ.get("SPINENODE_GATE_SUBJECTS", "8"))
STRANGERS = 6
WORKERS = os.cpu_count() or 1


def calibrated(path, program):
    """The model, or a copy with limits."""
    if "spinenode.gate" in gate.facts_of(path):
        return path
    digest = hashlib.sha256()
    for name in (path, gate.__file__, program):
        with open(name, "rb") as file:
            digest.update(file.read())
    copy = os.path.join(CACHE, "models", digest.hexdigest()[:16], os.path.basename(path))
    if not os.path.exists(copy):
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        gate.calibrate(path, program, cache=CACHE, workers=WORKERS, output=copy)
    return copy


class Gated:
    """A model with limits, the ordinary series that it takes, and what the program says of others."""

    def __init__(self, path, program):
        self.program, self.path = str(program), calibrated(path, str(program))
        self.facts = gate.facts_of(path)
        self.radiograph = self.facts["spinenode.input_contrast"] == "XR"
        self.contrast = self.facts["spinenode.input_contrast"].lower()
        self.scale = int(self.facts["spinenode.scale"])

    def ordinary(self, count, first=0):
        drawn = gate.subjects("test", first + count, CACHE, self.radiograph, WORKERS)[first:]
        return [gate.source_of(self.facts, stacks, field, i) for i, (stacks, field) in enumerate(drawn)]

    def says(self, volumes, input_only=True, model=None):
        return gate.measure(self.program, model or self.path, volumes, input_only, WORKERS)

    @functools.cached_property
    def few(self):
        """Four ordinary series."""
        return [volume for volume, _ in self.ordinary(4)]

    @functools.cached_property
    def says_of_few(self):
        """What is said of these and of their results: the model is run once for all who ask."""
        return self.says(self.few, input_only=False)

    def fits(self, volume):
        """Is its size one that the model takes?"""
        return all(np.clip(side, *map(int, self.facts[f"spinenode.{name}"].split("-"))) == side
                   for name, side in zip(("rows", "columns"), volume.shape[1:], strict=True))

    def small(self, volume):
        """What a model of small images would get of a large one."""
        if self.scale == 1:
            return volume
        return np.stack([degrade.antialiased(s, 1 + max(volume.shape[1:]) // 160) for s in volume])


def one_of_each_kind(paths):
    """Of models that take the same images and have the same limits for them, one stands for all."""
    kinds = {}
    for path in paths:
        facts = gate.facts_of(path)
        limits = [line for line in facts.get("spinenode.gate", "").splitlines() if not line.startswith("limit") or "unlike" in line]
        kinds.setdefault((facts["spinenode.input_contrast"], facts["spinenode.scale"], *limits), path)
    return list(kinds.values())


@pytest.fixture(scope="module", params=MODELS, ids=os.path.basename)
def gated(request, spinenode):
    return Gated(request.param, spinenode)


@pytest.fixture(scope="module", params=one_of_each_kind(MODELS), ids=os.path.basename)
def taker(request, spinenode):
    """A model, for what its input alone decides."""
    return Gated(request.param, spinenode)


def assert_refused(found, kind):
    passed = [f for f in found if f["outcome"] != "refuse"]
    assert not passed, f"{len(passed)} of {len(found)} not refused ({kind}): {passed[0]['outcome']}, {passed[0]['figures']}, {passed[0]['classes']}"


def test_ordinary__slices_are_refused_at_most_one_in_fifty(taker):
    slices = [volume[k:k + 1] for volume, _ in taker.ordinary(SUBJECTS) for k in range(len(volume))]
    found = taker.says(slices)
    refused = [f["reason"] for f in found if f["outcome"] == "refuse"]
    assert len(refused) <= max(1, len(slices) // 50), f"{len(refused)} of {len(slices)}: {refused[:5]}"


def test_ordinary__series_and_their_results_pass(gated):
    found = gated.says_of_few
    assert [f["reason"] for f in found if f["outcome"] == "refuse"] == []
    assert all(f["figures"]["disagreement"] > 0 for f in found)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_turned__images_are_refused(taker, quarter):
    assert_refused(taker.says([strange.turned(v, quarter) for v, _ in taker.ordinary(STRANGERS)]), f"{90 * quarter} degrees")


def test_mirrored__images_are_refused_unless_either_way_is_usual(taker):
    found = taker.says([np.ascontiguousarray(v[:, :, ::-1]) for v, _ in taker.ordinary(STRANGERS)])
    if taker.radiograph:
        assert all(f["outcome"] != "refuse" for f in found)
    else:
        assert all(f["outcome"] != "pass" for f in found)
        assert sum(f["outcome"] == "refuse" for f in found) >= STRANGERS - 1


def test_inverted__images_are_refused(taker):
    assert_refused(taker.says([strange.inverted(v) for v, _ in taker.ordinary(STRANGERS)]), "inverted")


def test_noise__is_refused(taker):
    rng = np.random.default_rng(1)
    volumes = [v for v, _ in taker.ordinary(STRANGERS)]
    assert_refused(taker.says([strange.drowned(v, rng) for v in volumes]), "drowned in noise")
    assert_refused(taker.says([strange.noise(v.shape, rng) for v in volumes[:2]]), "noise alone")


def test_metal__is_refused(taker):
    if taker.radiograph:
        pytest.skip("metal does not disturb a radiograph")
    rng = np.random.default_rng(2)
    assert_refused(taker.says([strange.implants(v, mm, rng) for v, mm in taker.ordinary(STRANGERS)]), "metal")


def test_axial__images_are_refused(taker):
    contrast = "t2" if taker.radiograph else taker.contrast
    made = [taker.small(strange.axial(contrast, np.random.default_rng(k))) for k in range(3)]
    assert_refused(taker.says(made), "axial")


def test_head__is_refused(taker):
    contrast = "t2" if taker.radiograph else taker.contrast
    made = [taker.small(strange.head(contrast, np.random.default_rng(k))) for k in range(3)]
    shepp = skimage_data.shepp_logan_phantom().astype(np.float32)
    made.append(taker.small(np.stack([shepp + 0.02 * np.random.default_rng(k).random(shepp.shape, dtype=np.float32) for k in range(3)])))
    assert_refused(taker.says(made), "head")


def test_other_modality__is_refused(taker):
    if taker.radiograph:
        made = [stacks["t2"] for stacks, _ in gate.subjects("test", STRANGERS, CACHE, False, WORKERS)]
    else:
        drawn = [taker.small(stacks["xray"]) for stacks, _ in gate.subjects("test", 8, CACHE, True, WORKERS)]
        made = [volume for volume in drawn if taker.fits(volume)][:3]
        assert len(made) == 3
    assert_refused(taker.says(made), "other modality")


# ---- the limits themselves ----

def test_limits__are_made_from_validation_subjects_that_nobody_else_uses():
    assert all(dataset.split_of(gate.FIRST["validation"] + k) == "validation" for k in (0, 9999))
    assert all(dataset.split_of(gate.FIRST["test"] + k) == "test" for k in (0, 9999))
    assert gate.FIRST["validation"] - dataset.SPLITS["validation"] > 1_000_000 + 9999  # testset.draw_many and training start below


def test_limits__go_into_the_file_and_leave_the_network_alone(tmp_path):
    before = onnx.load(MODELS[0])
    gate.store(MODELS[0], "gate 1\n", str(tmp_path / "m.onnx"))
    gate.store(str(tmp_path / "m.onnx"), "gate 2\n")
    after = onnx.load(tmp_path / "m.onnx")
    assert after.graph == before.graph and after.opset_import == before.opset_import
    facts = {p.key: p.value for p in after.metadata_props}
    assert facts.pop("spinenode.gate") == "gate 2\n" and len(after.metadata_props) == len(facts) + 1
    assert facts == {p.key: p.value for p in before.metadata_props if p.key != "spinenode.gate"}


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.001])
def test_tail__holds_for_a_normal_law_and_is_never_below_what_was_seen(rate):
    values = np.random.default_rng(3).normal(10, 2, 60)
    limits = [gate.tail(np.random.default_rng(k).normal(10, 2, 60), rate) for k in range(200)]
    fresh = np.random.default_rng(4).normal(10, 2, 200_000)
    assert rate / 10 <= np.median([np.mean(fresh > limit) for limit in limits]) <= 2 * rate
    assert gate.tail(np.append(values, 40.0), rate) >= 40


def test_fit__refuses_what_is_strange_by_its_name_and_nothing_that_is_ordinary(spinenode, tmp_path):
    taker = Gated(next(p for p in MODELS if "t1-to-t2" in p), spinenode)
    ordinary = [volume for volume, _ in taker.ordinary(8)]
    turned = [strange.turned(volume, 1) for volume in ordinary]
    features = [np.array([f["features"] for f in taker.says(volumes)]) for volumes in (ordinary, turned)]
    text = gate.fit(features[0], {"turned-left": features[1]}, {}, 0.05, (100, 600), "PF")
    gate.store(taker.path, text, str(tmp_path / "fitted.onnx"))
    found = taker.says([*ordinary, *turned], model=str(tmp_path / "fitted.onnx"))
    assert [f["outcome"] for f in found[:8]].count("refuse") == 0
    assert all(f["reason"].startswith("the images look turned left") for f in found[8:])


# ---- results ----

def doctored(path, target, kind):
    """The same model, whose result lies five pixels aside, or is brighter than its source."""
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["result" if o == "synthetic" else o for o in node.output]
    make = onnx.helper.make_node
    number = onnx.numpy_helper.from_array
    if kind == "moved":
        model.graph.initializer.extend([number(np.array(v, np.int64), k) for k, v in
                                        (("from", [0]), ("to", [-5]), ("axes", [3]), ("pads", [0, 0, 0, 5, 0, 0, 0, 0]))])
        model.graph.node.extend([make("Slice", ["result", "from", "to", "axes"], ["cut"]), make("Pad", ["cut", "pads"], ["synthetic"], mode="edge")])
    else:
        model.graph.initializer.append(number(np.array([0.3], np.float32), "more"))
        model.graph.node.append(make("Add", ["result", "more"], ["synthetic"]))
    onnx.save(model, target)
    return str(target)


def test_result__that_is_not_its_source_is_refused(gated, tmp_path):
    kind = "brighter" if gated.scale > 1 else "moved"
    model = doctored(gated.path, tmp_path / "doctored.onnx", kind)
    found = gated.says(gated.few[:3], input_only=False, model=model)
    assert_refused(found, kind)
    # Edges of a radiograph are mostly not those of T2, so that its blocks look moved anyway.
    figure = "downsampled" if gated.scale > 1 else "disagreement" if gated.radiograph else "moved"
    assert all(a["figures"][figure] > b["figures"][figure] for a, b in zip(found, gated.says_of_few[:3], strict=True))


# ---- real images, where they are ----

def real(name):
    path = os.path.join(REAL, name)
    if not os.path.exists(path):
        pytest.skip(f"{name} is not here")
    return nifti.read(path)[0]


def test_real_lumbar_t2__is_not_refused(gated):
    if gated.contrast != "t2":
        pytest.skip("the volume is a T2")
    volume = real("sct_t2_lumbar.nii.gz")
    middle = volume.shape[0] // 2
    series = [np.stack([np.ascontiguousarray(volume[k].T[::-1]) for k in (m - 4, m, m + 4)]) for m in (middle - 3, middle, middle + 3)]
    if gated.scale > 1:
        series = [np.stack([degrade.antialiased(s, 2) for s in v]) for v in series]
    found = gated.says(series, input_only=False)
    assert [f["reason"] for f in found if f["outcome"] == "refuse"] == []


def test_real_axial_t2__is_refused(taker):
    volume = real("sct_t2_ms.nii.gz")
    middle = volume.shape[2] // 2
    series = np.stack([np.ascontiguousarray(volume[:, :, k].T) for k in (middle - 1, middle, middle + 1)])
    assert_refused(taker.says([taker.small(series)]), "axial")
