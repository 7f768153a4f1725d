"""The evaluation: models are fed as the node feeds them, goals are counted as they are, leaks are found."""

import os
import struct
import types

import numpy as np
import pytest

from lab import baselines, dataset, evaluation, leaks, nifti, report, testset

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from lab import engine  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402


def model_file(path, slices=1, grid="any:8", weights=None, task="t1-to-t2"):
    """A model that returns a weighted sum of its slices."""
    weights = np.array(weights or [1.0 / slices] * slices, np.float32).reshape(1, slices, 1, 1)
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w"], ["synthetic"])], "g",
                              [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", slices, "H", "W"])],
                              [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, ["N", 1, "H", "W"])],
                              [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel())])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"task": task, "scale": "1", "input_slices": str(slices), "grid": grid,
             "training_data": "Subjects 100000000 to 100000009."}
    helper.set_model_props(model, {"spinenode." + k: v for k, v in facts.items()})
    onnx.save(model, path)
    return str(path)


def test_model__gets_each_slice_with_its_neighbours(tmp_path):
    stack = np.random.default_rng(0).random((4, 21, 30)).astype(np.float32)
    last = engine.Model(model_file(tmp_path / "m.onnx", 3, weights=[0, 0, 1])).stack(stack)
    assert last == pytest.approx(stack[[1, 2, 3, 3]], abs=1e-5)
    assert engine.Model(model_file(tmp_path / "n.onnx")).stack(stack) == pytest.approx(stack, abs=1e-5)


def test_model__is_fed_on_the_grid_that_it_was_made_for(tmp_path):
    smooth = np.outer(np.hanning(240)[:120], np.hanning(180)[:90]).astype(np.float32)  # not the same from the other side
    result = engine.Model(model_file(tmp_path / "m.onnx", grid="64x64"))(smooth)
    assert result.shape == smooth.shape and np.abs(result - smooth).mean() < 0.01


def test_papers_network__is_looked_for_by_its_task(tmp_path):
    assert baselines.paper_models(str(tmp_path / "none")) == {}
    path = model_file(tmp_path / "any-name.onnx")
    assert baselines.paper_models(str(tmp_path)) == {"t1-to-t2": path}


def rows(model, other, subjects=8):
    rng = np.random.default_rng(1)
    out = []
    for group in range(subjects):
        base = rng.random()
        for method, value in (("model", model), ("identity", other), ("histogram-matched source", other), ("paper's network", other)):
            v = value + 0.1 * base + 0.01 * rng.standard_normal()
            out.append({"method": method, "way": "", "group": group, "slice": 0, "mse": 1 - v, "psnr": v, "ssim": v, "vifp": v, "cpbd": v})
    return out


def test_goals__need_every_rival_beaten_beyond_doubt():
    rivals = ("identity", "histogram-matched source", "paper's network")
    for model, other, met in ((0.6, 0.5, 4), (0.5, 0.5, 0), (0.4, 0.5, 0)):
        goals = report.Goals()
        report.translation_goals(goals, "t1-to-t2", rows(model, other), rivals)
        assert (goals.met, len(goals.rows)) == (met, 4)
    goals = report.Goals()  # a rival that was not measured has not been beaten
    report.translation_goals(goals, "t1-to-t2", [r for r in rows(0.6, 0.5) if r["method"] != "paper's network"], rivals)
    assert goals.met == 0 and "paper's network not at hand" in goals.rows[0][3]


def test_resolution__must_win_on_all_four_at_once():
    def enlarged(worse):
        out = [dict(r, way="linear", method={"identity": "cubic"}.get(r["method"], r["method"])) for r in rows(0.6, 0.5)]
        for r in out:
            if r["method"] == "model" and worse:
                r[worse] = 0.0
        return out
    for worse, met in ((None, 1), ("cpbd", 0), ("ssim", 0)):
        goals = report.Goals()
        report.resolution_goal(goals, "phantom", "linear", enlarged(worse))
        assert goals.met == met


def test_misses__are_joined_with_what_was_tried(tmp_path):
    path = tmp_path / "attempts.toml"
    path.write_text('["a/*"]\nreason = "because"\ntried = ["one", "two", "three"]\n["b/x"]\nreason = "so"\ntried = ["one"]\n'
                    '["c/met"]\nreason = "old"\ntried = ["one", "two", "three"]\n')
    goals = report.Goals()
    for key, ok in (("a/x", False), ("a/y", False), ("b/x", False), ("d/new", False), ("c/met", True)):
        goals.add(key, f"goal {key}", ok, "0")
    lines, unexplained, stale = report.explain(goals, report.load_attempts(path))
    text = "\n".join(lines)
    assert text.count("because") == 1 and "goal a/x" in text and "goal a/y" in text
    assert "old" not in text and stale == ["c/met"]
    assert unexplained == ["b/x", "d/new"] and "not explained yet: add `d/new`" in text
    path.write_text('["a"]\nreason = 3\n')
    with pytest.raises(ValueError, match="needs a reason"):
        report.load_attempts(path)


def test_attempts__as_shipped_can_be_read():
    here = os.path.dirname(report.__file__)
    assert isinstance(report.load_attempts(os.path.join(here, "attempts.toml")), dict)


def found_by(least):
    """What findings.lesions gives of an observer who may be believed from a probability on."""
    few, none = (0.95, 0.9, 1.0, 40), (float("nan"),) * 3 + (0,)
    threshold = types.SimpleNamespace(least=least, right=few, claimed=0.93, subjects=21)
    keys = ("carried", "carried_observer", "visible", "visible_observer", "all", "all_observer", "invented", "invented_native")
    return {**{k: none if least == np.inf and k.startswith("carried") else few for k in keys},
            "threshold": threshold, "claimed": 0.91, "subjects": 12, "others": 5}


def test_observer__is_reported_with_what_he_claims_and_how_often_he_is_right():
    unseen = {k: (0.0, 0.0, 0.1, 48) for k in ("source", "native", "synthetic", "outlined", "absent", "absent_native", "invented")}
    text = "\n".join(report.lesion_table(found_by(0.87), unseen))
    assert "at least 0.87" in text and "93.0 % | 95.0 % (90.0 to 100.0; n = 40) | 21" in text and "91.0 % | 95.0 %" in text
    text = "\n".join(report.lesion_table(found_by(np.inf), unseen))
    assert "the source carries nothing" in text and "nan" not in text
    for least, met in ((0.87, 1), (np.inf, 0)):
        goals = report.Goals()
        report.lesion_goals(goals, "t2-to-stir", found_by(least), unseen)
        assert sum(ok for key, _, ok, _ in goals.rows if key.endswith("lesion-sensitivity")) == met
    assert goals.rows[0][3] == "the source carries none"


def test_names__are_held_against_truth_and_native():
    truth = [(seed, i, i) for seed in range(10) for i in range(5, 10)]
    shifted = [(seed, i, i + (seed < 4)) for seed, i, _ in truth]
    lines = report.naming_table({"native": shifted, "model": truth, "paper's network": [(s, i, 7) for s, i, _ in truth]})
    native, model, paper = ([c.strip() for c in line.split("|")][1:-1] for line in lines[2:])
    assert native[1].startswith("60.0 %") and native[3:] == ["", ""]
    assert model[2].startswith("1.000") and 0.4 < float(model[3].split()[0]) < 0.6 and model[4] == "0.065"
    assert paper[1].startswith("20.0 %") and float(paper[2].split()[0]) == 0


def test_second_scan__differs_from_the_first_by_noise_only(tmp_path):
    seed = dataset.SPLITS["validation"] + 1_500_000
    first, again = (testset.cached(str(tmp_path), seed, ("t1", "stir"), 2, 128, again=a) for a in (False, True))
    for contrast in first.images:
        a, b = first.images[contrast], again.images[contrast]
        assert not np.array_equal(a, b) and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97
        assert abs((a - b).mean()) < 0.01
    assert first.positions == again.positions and first.field_mm == again.field_mm
    assert np.array_equal(again.images["t1"], testset.cached(str(tmp_path), seed, ("t1", "stir"), 2, 128, again=True).images["t1"])


def test_kappa__stands_beside_what_the_source_can_tell():
    value = (0.4, 0.3, 0.5, 90)
    comparison = [{"finding": f, "kappa": value, "sensitivity": value, "specificity": value, "native_truth": value, "synthetic_truth": value}
                  for f in ("disc", "modic", "fracture")]
    bounds = {"disc": (0.61, 0.55, 0.66, 90), "modic": (0.52, 0.45, 0.6, 90)}
    goals = report.Goals()
    twice = {f: (0.93, 0.9, 0.95, 90) for f in ("disc", "modic", "fracture")}
    report.kappa_goals(goals, "t1-to-t2", comparison, bounds, twice)
    assert goals.met == 0 and "measurements alone 0.610 (0.550 to 0.660)" in goals.rows[0][3]
    assert "second scan of the target itself 0.930 (0.900 to 0.950)" in goals.rows[1][3]
    head, _, disc, _, fracture = [[c.strip() for c in line.split("|")] for line in report.finding_table("t1-to-t2", comparison, None, bounds, twice)]
    assert fracture[head.index("a second scan of the target")] == "0.930 (0.900 to 0.950)"
    at = head.index("an observer of the source's measurements alone")
    assert disc[at] == "0.610 (0.550 to 0.660)" and fracture[at] == "" and disc[head.index("readings")] == "90"
    assert len(report.finding_table("t1-to-t2", comparison)[0].split("|")) == len(head) - 2


def checks(facts=None, test=(), digests=None):
    facts = facts or {"t1-to-t2": {"spinenode.training_data": "Subjects 100000000 to 100000003."}}
    used = {"validation": [dataset.SPLITS["validation"] + 1], "test": list(test) or [dataset.SPLITS["test"] + 1]}
    return [ok for _, ok, _ in leaks.check(facts, used, digests or {1: ["a", "b"], 2: ["c"]})]


def test_leaks__are_found_wherever_they_are():
    assert all(checks())
    assert not all(checks(test=[100000002]))                                # a training subject is measured on
    assert not all(checks(test=[dataset.SPLITS["validation"] + 1]))         # the reader was set on a test subject
    assert not all(checks(digests={1: ["a"], 2: ["a"]}))                    # one image twice
    assert not all(checks(facts={"t1-to-t2": {"spinenode.training_data": "many"}}))
    assert leaks.anatomy_digest(5) == leaks.anatomy_digest(5) != leaks.anatomy_digest(6)


def test_measured_seeds__lie_beyond_those_that_training_watches_itself_with():
    for split in ("validation", "test"):
        seeds = testset.seeds(split, 1000)
        assert min(seeds) >= dataset.SPLITS[split] + 1_000_000 and {dataset.split_of(s) for s in seeds} == {split}
    with pytest.raises(ValueError, match="not a test or validation subject"):
        testset.prepare(dataset.SPLITS["train"] + 3, ("t1",), 64)


def test_cache__gives_back_what_was_drawn(tmp_path):
    seed = testset.seeds("test", 1)[0]
    first = testset.cached(str(tmp_path), seed, ("t1", "t2"), 1, 128)
    again = testset.cached(str(tmp_path), seed, ("t1", "t2"), 1, 128)
    plain = testset.draw(seed, ("t1", "t2"), 1, 128)
    for contrast in ("t1", "t2"):
        assert np.array_equal(first.images[contrast], again.images[contrast])
        assert np.abs(first.images[contrast] - plain.images[contrast]).max() <= 0.51 / 4095
    assert again.positions == plain.positions and again.subject.grades == plain.subject.grades


def test_radiograph__is_held_against_the_mean_and_the_nearest_of_training_subjects(tmp_path):
    known = baselines.KnownPairs(str(tmp_path), 3, 1)
    model = engine.Model(model_file(tmp_path / "x.onnx", task="xray-to-t2"))
    result = evaluation.measure_radiograph(testset.seeds("test", 1)[0], {"xray-to-t2": model}, {}, known, keep=True)
    by = {r["method"]: r for r in result["rows"]["xray-to-t2"]}
    assert set(by) == {"model", "mean image", "nearest neighbour", "truth"}
    assert by["mean image"]["mse"] < by["model"]["mse"]  # a radiograph is a poor T2 image
    source, truth, made, _ = result["examples"]["xray-to-t2"]
    assert made == pytest.approx(source, abs=1e-5) and truth.shape == source.shape
    # A training subject's own radiograph finds his own T2 image.
    stored = np.load(next(tmp_path.glob("xray*-train/*1.npy"))).astype(np.float32)
    assert np.corrcoef(known.nearest(stored[0]).ravel(), stored[1].ravel())[0, 1] > 0.99
    graded = {r.finding for _, _, r in result["native"]["t2"]}
    assert {"disc", "fracture"} <= graded
    bright = [r.features[0] for _, _, r in result["native"]["t2"] if r.finding == "disc"]
    assert np.isfinite(bright).all() and len(result["native"]["t2"]) == len(result["synthetic"]["xray-to-t2"])


def write_nifti(path, volume, affine):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *volume.shape, 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, 16)
    struct.pack_into("<f", header, 108, 352.0)
    struct.pack_into("<2f", header, 112, 1.0, 0.0)
    struct.pack_into("<12f", header, 280, *np.asarray(affine, np.float32)[:3].ravel())
    path.write_bytes(bytes(header) + volume.astype(np.float32).tobytes(order="F"))


def test_real_pair__is_cut_to_what_both_volumes_show(tmp_path):
    rng = np.random.default_rng(5)
    whole = rng.random((50, 60, 70)).astype(np.float32)  # right to left, back to front, foot to head, as RAS
    first, second = whole[:45, 3:55, :60], whole[5:, :50, 8:]
    affine = np.eye(4)
    affine[:3, 3] = (-20.0, 3.0 - 10.0, 0.0)
    write_nifti(tmp_path / "a.nii", first, affine)
    turned = np.flip(np.transpose(second, (1, 2, 0)), 0)  # stored front to back, head axis second, right-left last
    affine = np.array([[0, 0, 1, -15.0], [-1, 0, 0, 49.0 - 10.0], [0, 1, 0, 8.0], [0, 0, 0, 1]])
    write_nifti(tmp_path / "b.nii", np.ascontiguousarray(turned), affine)
    a, b, voxel = evaluation.real_pair(tmp_path / "a.nii", tmp_path / "b.nii")
    assert a.shape == b.shape == (40, 52, 47) and voxel == pytest.approx((1, 1, 1))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999
    volume, _, origin = nifti.read_placed(tmp_path / "a.nii")
    assert volume.shape == first.shape and origin == pytest.approx((20.0 - 44, -(-7.0 + 51), 0.0))


def test_plain_words__say_what_is_worse():
    assert "SSIM worse than identity" in report.compare_plainly([dict(r, ssim=-r["ssim"]) for r in rows(0.6, 0.5)])
    assert "PSNR dB better than" in report.compare_plainly(rows(0.6, 0.5))


def test_likeness__sees_darkness_texture_and_detail():
    rng = np.random.default_rng(0)
    flat = np.full((128, 128), 0.5)
    half = flat * (np.arange(128) < 64)
    assert evaluation.likeness(half)[0] == pytest.approx(0.5) and evaluation.likeness(flat)[0] == 0
    rough = flat + 0.05 * rng.standard_normal(flat.shape)
    assert evaluation.likeness(rough)[1] == pytest.approx(0.1, rel=0.15)
    waves = [0.5 + 0.3 * np.sin(2 * np.pi * np.arange(128) * n / 128)[None] * np.ones((128, 1)) for n in (8, 50)]
    assert evaluation.likeness(waves[0])[2] < 0.01 and evaluation.likeness(waves[1])[2] > 0.99


def test_report__is_written_again_without_measuring_but_not_for_other_models(tmp_path):
    told = report.Told()
    told.goals.add("a/b", "a: b at least 1", np.bool_(False), "0.5")
    told.intro.append("of something")
    told.sections.append(("A section", ["| x |", "|---|"]))
    models = [{"sha256": "11"}, {"sha256": "22"}]
    report.save(tmp_path / "kept.json", models, told)
    again = report.load(tmp_path / "kept.json", models)
    assert again.goals.rows == told.goals.rows and again.intro == told.intro
    texts = []
    for one in (told, again):
        report.write(tmp_path / "r.md", one.intro, one.sections, one.goals, report.explain(one.goals, {})[0])
        texts.append((tmp_path / "r.md").read_text())
    assert texts[0] == texts[1] and "A section" in texts[0]
    with pytest.raises(ValueError, match="other models"):
        report.load(tmp_path / "kept.json", models[:1] + [{"sha256": "33"}])
