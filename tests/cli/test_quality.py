"""The quality gate on the command line: what a model's limits do to a series, and the map of its disagreement.

The limits here are made up, so that what they do is seen; whether shipped limits tell strange images from ordinary
ones is asked in tests/imaging/test_gate.py.
"""

import json

import numpy as np
import onnxruntime
import pytest
from cli.clikit import make_model, make_series, picture
from gatekit import CALM, FEATURES, gate
from pydicom import dcmread

@pytest.fixture
def infer(cli, tmp_path):
    """infer(limits, *arguments, status=0) -> what `infer --json` says, or the line of the refusal."""
    make_series(tmp_path / "in")

    def run(text, *arguments, status=0, **model):
        path = make_model(tmp_path / "m.onnx", gate=text, **model)
        done = cli("infer", path, "--series", "in", "--output", "out", "--json", *arguments, status=status)
        return done.stderr if status else json.loads(done.stdout)

    return run


def results(tmp_path, folder="out"):
    return [dcmread(f) for f in sorted((tmp_path / folder).iterdir())]


def test_limits__that_a_series_keeps_let_it_pass_unmarked(infer, tmp_path):
    told = infer(gate())
    assert told["quality"]["outcome"] == "pass" and told["quality"]["calibrated"]
    for figure in ("unlike", "structure", "structure-block", "moved", "disagreement", "disagreement-block"):
        assert told["quality"][figure] >= 0
    assert "downsampled" not in told["quality"]
    for r in results(tmp_path):
        assert "UNSURE" not in r.SeriesDescription and "Quality" not in r.DerivationDescription


def test_no_limits__are_said_and_refuse_nothing(infer, cli, tmp_path):
    assert infer(None)["quality"] == {"outcome": "pass", "calibrated": False, "reason": ""}
    told = cli("infer", "m.onnx", "--series", "in", "--output", "again").stdout
    assert "not calibrated" in told
    assert "gate         none" in cli("models", "m.onnx").stdout


@pytest.mark.parametrize("figure", ["unlike", "structure", "structure_block", "disagreement", "disagreement_block"])
def test_first_limit__marks_the_result_where_it_is_seen(infer, tmp_path, figure):
    told = infer(gate(**{figure: (-1, CALM)}))
    assert told["quality"]["outcome"] == "mark" and "limit -1" in told["quality"]["reason"]
    for r in results(tmp_path):
        assert r.SeriesDescription == "SYNTH AI UNSURE T2>T1"
        assert told["quality"]["reason"] in r.DerivationDescription and "not an acquisition" in r.DerivationDescription


def test_mark__changes_the_strip_in_the_pixels_only(infer, tmp_path):
    infer(gate())
    plain = [r.pixel_array for r in results(tmp_path)]
    (tmp_path / "out").rename(tmp_path / "plain")
    infer(gate(unlike=(-1, CALM)))
    for a, b in zip(plain, (r.pixel_array for r in results(tmp_path)), strict=True):
        strip = 11
        assert (a[:strip] != b[:strip]).any() and (a[strip:] == b[strip:]).all()


@pytest.mark.parametrize("figure", ["unlike", "structure", "disagreement_block"])
def test_second_limit__refuses_and_nothing_is_written(infer, tmp_path, figure):
    said = infer(gate(**{figure: (-2, -1)}), status=1)
    assert "quality: " in said and "limit -1" in said and said.count("\n") == 1
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("word, outcome", [("mark", "mark"), ("pass", "pass")])
def test_policy__says_how_far_the_gate_may_go(infer, word, outcome):
    assert infer(gate(unlike=(-2, -1)), "--quality", word)["quality"]["outcome"] == outcome


@pytest.mark.parametrize("section, status, outcome", [
    ("{input: mark}", 0, "mark"), ("{input: pass}", 0, "pass"), ("{result: pass}", 1, None), ("{input: refuse}", 1, None)])
def test_policy__of_the_configuration_holds(infer, site, section, status, outcome):
    site.write_text(site.read_text().split("quality:\n  input")[0] + "\nquality: " + section + "\n"
                    if "quality:\n  input" in site.read_text() else site.read_text() + "\nquality: " + section + "\n")
    told = infer(gate(unlike=(-2, -1)), "-c", site, status=status)
    assert ("quality: " in told) if status else told["quality"]["outcome"] == outcome


@pytest.mark.parametrize("uncalibrated, status", [("mark", 0), ("refuse", 1)])
def test_policy__may_doubt_models_without_limits(infer, site, tmp_path, uncalibrated, status):
    site.write_text(site.read_text().split("quality:\n  input")[0] + "\nquality: {uncalibrated: " + uncalibrated + "}\n")
    told = infer(None, "-c", site, status=status)
    if status:
        assert "carries no limits" in told
    else:
        assert told["quality"]["outcome"] == "mark" and "UNSURE" in results(tmp_path)[0].SeriesDescription


@pytest.mark.parametrize("series, reason", [
    ({"ImageOrientationPatient": [0, 0, -1, 0, 1, 0]}, "turned or mirrored"),
    ({"ImageOrientationPatient": [0, -1, 0, 0, 0, -1]}, "turned or mirrored"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "turned or mirrored"),
])
def test_orientation__other_than_the_models_is_refused(infer, tmp_path, series, reason):
    for file in (tmp_path / "in").iterdir():
        file.unlink()
    make_series(tmp_path / "in", **series)
    assert reason in infer(gate(), status=1)


def test_field_of_view__other_than_the_models_is_refused(infer):
    assert "72 x 56 mm" in infer(gate(field="100 400"), status=1)


def test_super_resolution__is_compared_with_its_source(infer):
    told = infer(gate(), task="super-resolution", scale=2)
    assert told["quality"]["downsampled"] > 0 and "structure" not in told["quality"]
    assert told["quality"]["downsampled-block"] >= told["quality"]["downsampled"]


@pytest.mark.parametrize("text, reason", [
    ("gate 1", "lacks"), ("gate 2", "no other format"), (gate(version=99), "scripts/calibrate"), (gate(towards="XY"), "L R A P H F"),
    (gate() + "\nlimit unlike 1 2", "given once"), (gate() + "\nclass bad 1 2 3", "as many numbers"), ("gate " * 9000, "longer than")])
def test_limits__that_cannot_be_read_stop_the_model(cli, tmp_path, text, reason):
    make_model(tmp_path / "m.onnx", gate=text)
    make_series(tmp_path / "in")
    assert reason in cli("infer", "m.onnx", "--series", "in", "--output", "out", status=1).stderr


def test_models__tells_what_the_limits_were_made_from(cli, tmp_path):
    make_model(tmp_path / "m.onnx", gate=gate())
    assert "60 ordinary series, at most 1 %" in cli("models", "m.onnx").stdout
    assert json.loads(cli("models", "m.onnx", "--json").stdout)[0]["gate"] == {"false_refusal": 0.01, "series": 60}


# ---- the map ----

def moved(x, way, back=False, scale=1):
    """Mirrored left to right, or moved by a pixel down and to the right with the edge repeated; and back."""
    if way == "flip":
        return x[..., ::-1]
    step = scale
    pad = [(0, 0)] * (x.ndim - 2) + ([(0, step)] * 2 if back else [(step, 0)] * 2)
    x = np.pad(x, pad, mode="edge")
    return x[..., step:, step:] if back else x[..., :-step, :-step]


def disagreement(model, x, scale=1):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def run(tensor):
        return session.run(None, {"image": np.ascontiguousarray(tensor)})[0]

    y = run(x)
    return np.max([abs(moved(run(moved(x, way)), way, True, scale) - y) for way in ("flip", "shift")], axis=0)


@pytest.mark.parametrize("settings", [{}, {"task": "super-resolution", "scale": 2}, {"slices": 3}])
def test_tensor__map_is_what_onnxruntime_disagrees_with_itself(cli, tmp_path, settings):
    model = make_model(tmp_path / "m.onnx", **settings)
    x = np.random.default_rng(1).normal(0, 0.5, (2, settings.get("slices", 1), 32, 48)).astype(np.float32)
    np.save(tmp_path / "in.npy", x)
    cli("infer", model, "--tensor", "in.npy", "--output", "out.npy", "--uncertainty", "map.npy")
    got = np.load(tmp_path / "map.npy")
    assert got.shape == np.load(tmp_path / "out.npy").shape
    np.testing.assert_allclose(got, disagreement(model, x, settings.get("scale", 1)), atol=4e-6, rtol=0)


def test_series__map_is_a_series_of_its_own_and_no_image(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    told = json.loads(cli("infer", model, "--series", "in", "--output", "out", "--uncertainty", "maps", "--json").stdout)
    images, maps = results(tmp_path), results(tmp_path, "maps")
    assert len(maps) == len(images) == 5
    assert {m.SeriesInstanceUID for m in maps} == {told["map_series"]} != {told["series"]}
    assert not {m.SOPInstanceUID for m in maps} & {i.SOPInstanceUID for i in images}
    volume = np.stack([picture(90, 70, i) for i in range(5)]).astype(np.float32)
    low, high = np.percentile(volume, [0.5, 99.5])
    unit = np.pad((np.clip((volume - low) / (high - low), 0, 1) * 2 - 1), ((0, 0), (0, 0), (0, 0)), mode="edge").astype(np.float32)
    for k, (m, i) in enumerate(zip(maps, images, strict=True)):
        assert m.SeriesDescription == "SYNTH AI DISAGREEMENT MAP T2>T1" and "Not an image" in m.DerivationDescription
        assert m.SeriesNumber != i.SeriesNumber and m.StudyInstanceUID == i.StudyInstanceUID
        assert m.ImageType[3] == "SYNTH_MAP" and m[0x0008001C].value == "YES"
        assert m.ImagePositionPatient == i.ImagePositionPatient and m.FrameOfReferenceUID == i.FrameOfReferenceUID
        assert float(m.RescaleSlope) * 4095 == pytest.approx(100)
        padded = np.pad(unit[k], ((0, 2), (0, 2)), mode="edge")
        expected = np.zeros((90, 70))
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        first = session.run(None, {"image": padded[None, None]})[0][0, 0, :90, :70]
        for way in ("flip", "shift"):
            changed = np.pad(moved(unit[k], way), ((0, 2), (0, 2)), mode="edge")
            answer = session.run(None, {"image": np.ascontiguousarray(changed[None, None])})[0][0, 0, :90, :70]
            expected = np.maximum(expected, abs(moved(answer, way, True) - first) / 2 * 4095)
        got = m.pixel_array.astype(float)[11:]
        assert np.abs(got - expected[11:]).max() <= 2 and expected.max() > 50


def test_map__is_never_fed_to_a_model(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    cli("infer", "m.onnx", "--series", "in", "--output", "out", "--uncertainty", "maps")
    assert "synthetic" in cli("infer", "m.onnx", "--series", "maps", "--output", "again", "--contrast", "T2", status=1).stderr


@pytest.mark.parametrize("arguments, complaint", [
    (["--quality", "perhaps"], "refuse, mark or pass"), (["--uncertainty", "out"], "must differ")])
def test_usage__is_checked(cli, tmp_path, arguments, complaint):
    assert complaint in cli("infer", "m", "--series", "in", "--output", "out", *arguments, status=2).stderr


# ---- spinenode quality ----

def test_quality__measures_a_volume(cli, tmp_path):
    make_model(tmp_path / "m.onnx", gate=gate(structure=(-1, CALM)))
    volume = np.stack([picture(90, 70, i) for i in range(5)]).astype(np.float32)
    np.save(tmp_path / "v.npy", volume)
    told = json.loads(cli("quality", "m.onnx", "v.npy", "--spacing-mm", "1").stdout)
    assert told["outcome"] == "mark" and np.shape(told["features"]) == (3, FEATURES) and len(told["names"]) == FEATURES
    assert told["features"][0] != told["features"][1]
    unit = np.clip((volume - np.percentile(volume, 0.5)) / (np.percentile(volume, 99.5) - np.percentile(volume, 0.5)), 0, 1)
    mean = told["names"].index("mean")
    assert told["features"][1][mean] == pytest.approx(unit[2].mean(), abs=2e-3)
    noise = told["names"].index("noise")
    for features, u in zip(told["features"], unit[1:4], strict=True):
        rows = u[:, :-2] - 2 * u[:, 1:-1] + u[:, 2:]
        answers = np.abs(rows[:-2] - 2 * rows[1:-1] + rows[2:])
        assert features[noise] == pytest.approx(np.log(np.median(answers) / 0.6745 / 6 + 1e-3), abs=1e-3)
    only = json.loads(cli("quality", "m.onnx", "v.npy", "--input-only").stdout)
    assert only["features"] == told["features"] and only["figures"]["structure"] is None and only["outcome"] == "pass"


def test_quality__of_what_is_no_volume_is_an_error(cli, tmp_path):
    make_model(tmp_path / "m.onnx", gate=gate())
    np.save(tmp_path / "flat.npy", np.zeros((3, 90, 70), np.float32))
    np.save(tmp_path / "plane.npy", np.zeros((90, 70), np.float32))
    np.save(tmp_path / "bad.npy", np.full((3, 90, 70), np.nan, np.float32))
    for name, reason in (("flat", "flat"), ("plane", "slices x rows x columns"), ("bad", "finite"), ("none", "none.npy")):
        assert reason in cli("quality", "m.onnx", f"{name}.npy", status=1).stderr
