"""The radiograph as DICOM: valid in every kind of room, one picture whatever the room, known by the node's conditions."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from lab import room, xray

PHANTOM = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "phantom")
PLAIN = room.Room(digital=True, pixel_mm=0.8, bits=12, inverted=False, faces_right=False, letter=False, calibrated=False)
ROOMS = {
    "dx": PLAIN,
    "dx_inverted_calibrated": dataclasses.replace(PLAIN, inverted=True, calibrated=True, bits=14),
    "cr": dataclasses.replace(PLAIN, digital=False, letter=True),
    "cr_inverted_mirrored": dataclasses.replace(PLAIN, digital=False, inverted=True, faces_right=True, bits=13, calibrated=True),
}


@pytest.fixture
def make(tmp_path):
    def write(which, seed=5):
        summary = room.write(seed, str(tmp_path / which), room=ROOMS[which])
        return summary, os.path.join(summary["folder"], "001.dcm")
    return write


@pytest.mark.parametrize("which", ROOMS)
def test_radiograph__is_valid_dicom(make, which):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    _, path = make(which)
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace").stderr
    assert "Error" not in said and "Warning" not in said, said
    assert ("CRImage" in said) == which.startswith("cr")


def shown(path):
    """Grey in [0, 1] as a viewer shows it, the patient facing left."""
    ds = pydicom.dcmread(path)
    grey = ds.pixel_array / (2**ds.BitsStored - 1)
    grey = 1 - grey if ds.PhotometricInterpretation == "MONOCHROME1" else grey
    return grey[:, ::-1] if ds.PatientOrientation[0] == "A" else grey


def test_radiograph__shows_the_same_whatever_the_room(make):
    expected = shown(make("dx")[1])
    for which in ("dx_inverted_calibrated", "cr_inverted_mirrored"):
        assert np.abs(shown(make(which)[1]) - expected).max() < 1e-3, which
    marked = shown(make("cr")[1])
    corner = np.s_[:60, :60]
    assert np.count_nonzero(marked[corner] > 0.94) > 20 + np.count_nonzero(expected[corner] > 0.94)
    marked[corner] = expected[corner]
    assert np.array_equal(marked, expected)


@pytest.mark.parametrize("which", ROOMS)
def test_radiograph__says_how_it_was_taken(make, which):
    summary, path = make(which)
    ds, how = pydicom.dcmread(path), ROOMS[which]
    assert (ds.Modality, ds.BodyPartExamined, ds.BitsAllocated) == ("DX" if how.digital else "CR", "LSPINE", 16)
    assert (ds.BitsStored, ds.HighBit, ds.pixel_array.max() < 2**how.bits) == (how.bits, how.bits - 1, True)
    assert ds.ViewPosition in ("LL", "RL") and list(ds.PatientOrientation) == ["A" if how.faces_right else "P", "F"]
    assert [float(v) for v in ds.ImagerPixelSpacing] == [0.8, 0.8]
    exposure = xray.radiograph(5, 0.8)
    assert ("PixelSpacing" in ds) == how.calibrated
    if how.calibrated:
        assert float(ds.PixelSpacing[0]) == pytest.approx(0.8 / exposure.view.magnification, rel=1e-4)
    assert (summary["rows"], summary["columns"]) == exposure.image.shape
    if how.digital:
        assert ds.PresentationLUTShape == ("INVERSE" if how.inverted else "IDENTITY")
        assert ds.ViewCodeSequence[0].CodeValue == {"LL": "399173006", "RL": "399198007"}[ds.ViewPosition]


def test_rooms__of_many_subjects_are_of_every_kind():
    rooms = [room.Room.sample(np.random.default_rng([seed, 99])) for seed in range(60)]
    for kind in ("digital", "inverted", "faces_right", "letter", "calibrated"):
        assert {getattr(r, kind) for r in rooms} == {True, False}, kind
    assert {r.bits for r in rooms} == {12, 13, 14}


def test_command__writes_the_radiograph_beside_the_mr_study(tmp_path, monkeypatch):
    out = subprocess.run([sys.executable, PHANTOM, "--output", tmp_path, "--seed", "3", "--slices", "2", "--size", "128",
                          "--series", "t2,xray", "--json"], check=True, capture_output=True, text=True)
    mr, film = json.loads(out.stdout)["series"]
    mr, film = (pydicom.dcmread(os.path.join(s["folder"], "001.dcm")) for s in (mr, film))
    assert (mr.PatientID, mr.PatientName, mr.PatientBirthDate) == (film.PatientID, film.PatientName, film.PatientBirthDate)
    assert mr.StudyInstanceUID != film.StudyInstanceUID
    assert film.StudyDate < mr.StudyDate
