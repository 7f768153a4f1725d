"""spinenode infer --series: DICOM in, DICOM out, judged by numpy, onnxruntime, pydicom and dciodvfy."""

import json
import math
import subprocess

import numpy as np
import onnxruntime
import pytest
from cli.clikit import make_model, make_radiograph, make_series, normalised, picture
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian


def read(folder):
    """Instances in the order of their file names."""
    return [dcmread(f) for f in sorted(folder.iterdir())]


def volume(slices=5, rows=90, columns=70):
    return np.stack([picture(rows, columns, i) for i in range(slices)]).astype(np.float32)


def oracle(model, x, multiple=4, context=1):
    """The network's answers for every slice, in [-1, 1], cropped to the (scaled) source."""
    low, high = np.percentile(x, [0.5, 99.5])
    n, rows, columns = x.shape
    unit = normalised(x, low, high)
    unit = np.pad(unit, ((0, 0), (0, -rows % multiple), (0, -columns % multiple)), mode="edge")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    answers = []
    for i in range(n):
        channels = [min(max(i + c - context // 2, 0), n - 1) for c in range(context)]
        answers.append(session.run(None, {"image": unit[None, channels]})[0][0, 0])
    y = np.stack(answers)
    scale = y.shape[1] // unit.shape[1]
    return y[:, :rows * scale, :columns * scale], low, high


def below_mark(pixels):
    """What the mark leaves of an image: it takes a tenth of the rows, or the 11 that its letters need."""
    return pixels[max(math.ceil(pixels.shape[0] / 10), 11):]


def assert_pixels(instances, expected):
    assert len(instances) == len(expected)
    for instance, values in zip(instances, expected, strict=True):
        got = below_mark(instance.pixel_array.astype(int))
        assert np.abs(got - below_mark(np.rint(values).astype(int))).max() <= 1


def assert_valid(folder):
    """dciodvfy finds no error but its not knowing (0008,001C)."""
    for file in sorted(folder.iterdir()):
        done = subprocess.run(["dciodvfy", file], capture_output=True, text=True)
        errors = [line for line in (done.stdout + done.stderr).splitlines()
                  if line.startswith("Error") and "0008,001c" not in line.lower().replace("0x", "")]
        assert not errors, (file.name, errors)


def test_series__is_what_onnxruntime_makes_of_the_pixels(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    cli("infer", model, "--series", "in", "--output", "out")
    y, _, _ = oracle(model, volume())
    assert_pixels(read(tmp_path / "out"), np.clip((y + 1) / 2 * 4095, 0, 4095))
    assert_valid(tmp_path / "out")


def test_series__with_context_takes_the_neighbours(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx", slices=3)
    make_series(tmp_path / "in")
    cli("infer", model, "--series", "in", "--output", "out")
    y, _, _ = oracle(model, volume(), context=3)
    assert_pixels(read(tmp_path / "out"), np.clip((y + 1) / 2 * 4095, 0, 4095))


def test_super_resolution__keeps_the_units_and_halves_the_spacing(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx", "super-resolution", scale=2)
    make_series(tmp_path / "in")
    cli("infer", model, "--series", "in", "--output", "out")
    y, low, high = oracle(model, volume())
    results = read(tmp_path / "out")
    assert_pixels(results, np.clip((y + 1) / 2 * (high - low) + low, 0, 4095))
    assert_valid(tmp_path / "out")
    source = dcmread(next((tmp_path / "in").iterdir()))
    for r in results:
        assert (r.Rows, r.Columns) == (180, 140)
        assert r.PixelSpacing == [0.4, 0.4]
    assert results[0].FrameOfReferenceUID == source.FrameOfReferenceUID


def test_fixed_grid__is_resampled_there_and_back(cli, tmp_path):
    """Against Pillow, whose bilinear reduction is antialiased in the same way."""
    model = make_model(tmp_path / "m.onnx", grid="64x48")
    make_series(tmp_path / "in")
    cli("infer", model, "--series", "in", "--output", "out")
    x = volume()
    low, high = np.percentile(x, [0.5, 99.5])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = []
    for plane in normalised(x, low, high):
        small = np.asarray(Image.fromarray(plane).resize((48, 64), Image.Resampling.BILINEAR))
        y = session.run(None, {"image": small[None, None]})[0][0, 0]
        expected.append((np.asarray(Image.fromarray(y).resize((70, 90), Image.Resampling.BILINEAR)) + 1) / 2 * 4095)
    assert_pixels(read(tmp_path / "out"), np.clip(expected, 0, 4095))


def test_radiograph__is_brought_to_the_models_pixels_and_stays_there(cli, tmp_path):
    """Inverted first (MONOCHROME1), resampled as Pillow does, then normalised; the result keeps the model's grid."""
    model = make_model(tmp_path / "m.onnx", "xray-to-t2", pixel_mm="1", spacing_mm="0.05-1")
    make_radiograph(tmp_path / "in", rows=301, columns=220, spacing=0.4, PixelSpacing=[0.32, 0.32], PixelSpacingCalibrationType="GEOMETRY",
                    PixelSpacingCalibrationDescription="at the spine")
    cli("infer", model, "--series", "in", "--output", "out")
    shown = 4095 - picture(301, 220, 0).astype(np.float32)
    small = np.asarray(Image.fromarray(shown).resize((88, 120), Image.Resampling.BILINEAR))
    y, _, _ = oracle(model, small[None])
    results = read(tmp_path / "out")
    assert_pixels(results, np.clip((y + 1) / 2 * 4095, 0, 4095))
    assert_valid(tmp_path / "out")
    result, = results
    assert (result.Rows, result.Columns, result.Modality) == (120, 88, "OT")
    assert [float(v) for v in result.PixelSpacing] == pytest.approx([0.32 * 301 / 120, 0.32 * 220 / 88])
    assert "FrameOfReferenceUID" not in result and list(result.PatientOrientation) == ["P", "F"]


@pytest.mark.parametrize("radiograph, reason", [
    (dict(spacing=None), "size of a pixel"),
    (dict(spacing=1.4), "pixels of 0.05 to 1 mm"),
    (dict(spacing=0.1), "30 x 22 at 1 mm"),
])
def test_radiograph__of_which_the_model_cannot_know_the_size_is_refused(cli, tmp_path, radiograph, reason):
    model = make_model(tmp_path / "m.onnx", "xray-to-t2", pixel_mm="1", spacing_mm="0.05-1")
    make_radiograph(tmp_path / "in", **radiograph)
    assert reason in cli("infer", model, "--series", "in", "--output", "out", status=1).stderr


def test_result__is_in_the_patients_study_and_marked_as_synthetic(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    cli("infer", model, "--series", "in", "--output", "out")
    sources = {s.SOPInstanceUID: s for s in read(tmp_path / "in")}
    results = read(tmp_path / "out")
    assert len({r.SOPInstanceUID for r in results}) == 5
    assert len({r.SeriesInstanceUID for r in results} - {"2.25.1001"}) == 1
    for r in results:
        source = sources[r.SourceImageSequence[0].ReferencedSOPInstanceUID]
        for key in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "ImagePositionPatient",
                    "ImageOrientationPatient", "PixelSpacing"):
            assert r[key].value == source[key].value
        assert r[0x0008001C].value == "YES"
        assert r.ImageType[0] == "DERIVED" and r.ImageType[3].startswith("SYNTH")
        assert r.SeriesDescription.startswith("SYNTH AI")
        assert r.ContentQualification == "RESEARCH"


def test_repeat__gives_the_same_bytes_whatever_the_number_of_threads(cli, tmp_path):
    model = make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    seen = []
    for threads in (1, 2, 2):
        folder = tmp_path / f"out{len(seen)}"
        cli("infer", model, "--series", "in", "--output", folder, "--threads", threads)
        seen.append([(f.name, f.read_bytes()) for f in sorted(folder.iterdir())])
    assert seen[0] == seen[1] == seen[2]


def test_vendors_attributes__change_nothing_though_their_vr_is_not_in_the_file(cli, tmp_path):
    """Implicit VR: what a private attribute is stands in a dictionary only, and there are sequences among them."""
    model = make_model(tmp_path / "m.onnx")
    seen = []
    for name in ("plain", "private"):
        folder = make_series(tmp_path / name)
        for path in sorted(folder.iterdir()) if name == "private" else []:
            ds = dcmread(path)
            ds.private_block(0x0051, "SIEMENS MR HEADER", create=True).add_new(0x0A, "LO", "TA 03:12")
            item = Dataset()
            item.PatientID = "other"
            ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x5F, "SQ", [item])
            ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            ds.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
        cli("infer", model, "--series", name, "--output", f"out-{name}", "--created", "20300101000000")
        seen.append([(f.name, f.read_bytes()) for f in sorted((tmp_path / f"out-{name}").iterdir())])
    assert len(seen[0]) == 5
    assert seen[0] == seen[1]


def test_salt_model_and_time__change_the_uids(cli, site, tmp_path):
    make_series(tmp_path / "in")
    model, other = make_model(tmp_path / "m.onnx"), make_model(tmp_path / "n.onnx", gain=1.1)
    site.write_text(site.read_text().replace("site_salt: ''", "site_salt: ours"))
    runs = {"plain": [model], "other": [other], "salted": [model, "-c", site],
            "later": [model, "--created", "20300101000000"]}
    uids = {name: json.loads(cli("infer", *arguments, "--series", "in", "--output", f"out-{name}", "--json").stdout)["series"]
            for name, arguments in runs.items()}
    assert len(set(uids.values())) == 4


def test_json__tells_where_the_time_went(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    told = json.loads(cli("infer", "m.onnx", "--series", "in", "--output", "out", "--json").stdout)
    assert told["images"] == 5 and told["source_series"] == "2.25.1001"
    assert told["series"] == read(tmp_path / "out")[0].SeriesInstanceUID
    for key in ("load_ms", "compile_ms", "read_ms", "run_ms", "write_ms", "peak_mb"):
        assert told[key] > 0


@pytest.mark.parametrize("model, series, reason", [
    ({"task": "t1-to-t2"}, {}, "made for T1, and the series is T2"),
    ({"rows": "128-512"}, {}, "made for 128 to 512 rows"),
    ({"spacing_mm": "0.9-1.2"}, {}, "made for pixels of 0.9 to 1.2 mm, and the series has 0.8 x 0.8 mm"),
    ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ({}, {"ScanningSequence": "GR"}, "gradient echo"),
    ({}, {"BodyPartExamined": "KNEE"}, "not the spine"),
    ({}, {"ImagePositionPatient": [0, 0, 0]}, "position"),
    ({}, {"ImagePositionPatient": None}, "ImagePositionPatient"),
    ({}, {"slices": 1}, ""),
    ({}, {"PixelData": bytes(90 * 70 * 2)}, "flat"),
    ({"broken": True}, {}, "image 1 of 5"),
])
def test_series__that_must_not_be_processed_is_refused_and_nothing_is_written(cli, tmp_path, model, series, reason):
    make_model(tmp_path / "m.onnx", **model)
    make_series(tmp_path / "in", **series)
    done = cli("infer", "m.onnx", "--series", "in", "--output", "out", status=1)
    assert reason in done.stderr and done.stderr.count("\n") == 1
    assert "Secret" not in done.stderr and "4711" not in done.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_folder__with_a_file_in_the_way_keeps_it_and_gets_no_other(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0003.dcm").write_text("mine")
    done = cli("infer", "m.onnx", "--series", "in", "--output", "out", status=1)
    assert "0003.dcm: File exists" in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["0003.dcm"]
    assert (tmp_path / "out" / "0003.dcm").read_text() == "mine"


def test_loop__a_result_is_never_processed_again(cli, tmp_path):
    make_model(tmp_path / "m.onnx", output_contrast="T2")
    make_series(tmp_path / "in")
    cli("infer", "m.onnx", "--series", "in", "--output", "out")
    for arguments in ([], ["--contrast", "T2"]):
        done = cli("infer", "m.onnx", "--series", "out", "--output", "again", *arguments, status=1)
        assert "synthetic" in done.stderr


def test_contrast__may_be_said_where_attributes_cannot_tell(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in", RepetitionTime=None, EchoTime=None)
    assert "contrast" in cli("infer", "m.onnx", "--series", "in", "--output", "out", status=1).stderr
    cli("infer", "m.onnx", "--series", "in", "--output", "out", "--contrast", "T2")
    assert len(read(tmp_path / "out")) == 5


def test_folder__with_two_series_or_none_is_refused(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in" / "a")
    make_series(tmp_path / "in" / "b", series="2.25.1002")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no DICOM")
    assert "2 DICOM series" in cli("infer", "m.onnx", "--series", "in", "--output", "o", status=1).stderr
    assert "0 DICOM series" in cli("infer", "m.onnx", "--series", "empty", "--output", "o", status=1).stderr
    assert "nowhere" in cli("infer", "m.onnx", "--series", "nowhere", "--output", "o", status=1).stderr
    assert not (tmp_path / "o").exists()


def test_folder__may_hold_what_is_no_image(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    (tmp_path / "in" / "0000-notes.txt").write_text("no DICOM")
    cli("infer", "m.onnx", "--series", "in", "--output", "out")
    assert len(read(tmp_path / "out")) == 5


def test_output__that_is_there_is_never_overwritten(cli, tmp_path):
    make_model(tmp_path / "m.onnx")
    make_series(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    (out / "0003.dcm").write_text("mine")
    assert "0003.dcm" in cli("infer", "m.onnx", "--series", "in", "--output", "out", status=1).stderr
    assert [f.name for f in out.iterdir()] == ["0003.dcm"]
    assert (out / "0003.dcm").read_text() == "mine"
