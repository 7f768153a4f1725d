"""The phantom: anatomy that adds up, pictures that follow the seed, DICOM that a checker accepts."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest

from lab import scanner, tissue
from lab.anatomy import LEVELS, S1, Subject
from lab.canvas import Texture, round_box, smooth_noise
from lab.spine import Plane
from lab.study import Examination

PHANTOM = os.path.join(os.path.dirname(__file__), "..", "..", "scripts", "phantom")


def grid(subject, size=256, field=300.0):
    step = field / size
    y = subject.centre[0] + (np.arange(size) - (size - 1) / 2) * step
    z = subject.centre[1] - (np.arange(size) - (size - 1) / 2) * step
    return y, z


def plane(seed, x=None, findings=None):
    s = Subject(seed, findings)
    y, z = grid(s)
    return s, Plane(s, s.bodies[S1 + 3].x if x is None else x, y, z, 0).paint()


def fraction_at(canvas, y, z):
    j, i = np.argmin(abs(canvas.y - y)), np.argmin(abs(canvas.z - z))
    return {name: float(canvas.fractions[k, i, j]) for name, k in tissue.INDEX.items()}


@pytest.mark.parametrize("seed", [1, 2, 3, 17])
@pytest.mark.parametrize("offset", [0.0, 14.0, 26.0])
def test_fractions__sum_to_one_and_are_never_negative(seed, offset):
    s = Subject(seed)
    y, z = grid(s)
    f = Plane(s, s.bodies[S1 + 3].x + offset, y, z, 0).paint().fractions
    assert f.min() > -1e-5
    assert np.abs(f.sum(0) - 1).max() < 1e-4


@pytest.mark.parametrize("seed", [4, 9, 23])
def test_anatomy__puts_each_tissue_where_it_belongs(seed):
    s, c = plane(seed, findings=set())
    for k in range(1, 6):
        b = s.bodies[S1 + k]
        inside = fraction_at(c, *b.frame.at(-0.1 * b.depth, 0.0))
        assert inside["marrow_fat"] + inside["marrow_water"] > 0.9, (b.name, inside)
        behind = fraction_at(c, *b.frame.at(0.5 * b.depth + 0.5 * s.canal, 0.0))
        assert behind["csf"] + behind["root"] + behind["cord"] > 0.8, (b.name, behind)
    for k in range(1, 5):
        d = s.discs[S1 + k]
        middle = fraction_at(c, d.frame.y, d.frame.z)
        assert middle["nucleus"] + middle["dry_disc"] + middle["annulus"] > 0.9, (d.name, middle)
    assert fraction_at(c, c.y[-1], s.centre[1])["air"] == 1.0


def test_anatomy__has_lumbar_sizes():
    for seed in range(30):
        s = Subject(seed, set())
        for k in range(1, 6):
            b = s.bodies[S1 + k]
            assert 20 < b.height < 33 and 27 < b.depth < 43, (seed, b.name, b.height, b.depth)
            below = s.bodies[S1 + k - 1]
            step = np.hypot(b.frame.y - below.frame.y, b.frame.z - below.frame.z)
            assert 27 < step < 48, (seed, b.name, step)
            assert b.frame.z > below.frame.z


@pytest.mark.parametrize("kind,name", [("modic1", "oedema"), ("modic2", "marrow_fat"), ("modic3", "sclerosis")])
def test_modic__changes_the_marrow_beside_its_disc_and_is_in_the_truth(kind, name):
    for seed in range(40):
        s = Subject(seed, {kind})
        marked = [d for d in s.discs[S1:S1 + 6] if d.modic]
        assert [d.modic for d in marked] == [int(kind[-1])]
        assert s.truth()["discs"][marked[0].name]["modic"] == int(kind[-1])
        i = s.discs.index(marked[0])
        if min(marked[0].modic_reach) > 6 and abs(marked[0].modic_side) < 0.5 and s.fat_share < 0.6:
            break
    y, z = grid(s)
    c = Plane(s, s.bodies[i].x, y, z, 0).paint()
    b = s.bodies[i + 1]
    near = fraction_at(c, *b.frame.at(0.0, -float(b.bottom(np.float64(0))) + 3.0))
    far = fraction_at(c, *b.frame.at(0.0, float(b.top(np.float64(0))) - 4.0))
    assert near[name] > far[name] + 0.2, (near, far)


def test_ligaments__do_not_cross_bodies_and_discs_where_the_spine_bends():
    most = []
    for seed in range(200, 206):
        s, c = plane(seed, findings=set())
        for i in (S1, S1 + 1):
            b, d = s.bodies[i], s.discs[i]
            most += [fraction_at(c, *b.frame.at(p * b.depth, q * b.height))["ligament"] for p in np.linspace(-0.3, 0.3, 9) for q in (-0.2, 0.0, 0.2)]
            most += [fraction_at(c, *d.frame.at(p * d.depth, 0.0))["ligament"] for p in np.linspace(-0.2, 0.2, 9)]
    assert max(most) < 0.1


def test_pulsation__takes_signal_from_fluid_in_the_canal_only():
    s = next(s for s in map(lambda k: Subject(k, set()), range(300, 340)) if s.pulsation > 0.4)
    y, z = grid(s)
    moving = Plane(s, s.bodies[S1 + 3].x, y, z, 0).paint().fractions
    s.pulsation = 1e-9  # the same random numbers
    still = Plane(s, s.bodies[S1 + 3].x, y, z, 0).paint().fractions
    fluid, vessel = tissue.INDEX["csf"], tissue.INDEX["vessel"]
    lost = still[fluid] - moving[fluid]
    assert lost.max() > 0.2 and lost.min() > -1e-5
    inside = still[fluid] > 0.99
    assert np.abs((moving - still)[vessel] - lost)[inside].max() < 0.02
    assert np.abs(lost[still[fluid] < 1e-3]).max() < 1e-3


def test_protrusion__narrows_the_sac_at_its_level():
    for seed in range(60):
        s = Subject(seed, {"protrusion"})
        i, (reach, _, offset) = next(iter(s.protrusions.items()))
        if reach > 5 and i > S1:
            break
    y, z = grid(s)
    x = s.discs[i].x + offset
    with_it = Plane(s, x, y, z, 0).paint().fractions[tissue.INDEX["csf"]].sum()
    s.discs[i].protrusion = None
    without = Plane(s, x, y, z, 0).paint().fractions[tissue.INDEX["csf"]].sum()
    assert with_it < without - 5


def test_wedge__lowers_the_front_of_the_named_body():
    s = Subject(3, {"wedge"})
    broken = [b for b in s.bodies if b.fracture == "wedge"]
    assert len(broken) == 1
    assert broken[0].front < 0.85 * broken[0].back
    assert s.truth()["bodies"][broken[0].name]["fracture"] == "wedge"


def test_findings__absent_when_none_are_asked_for():
    for seed in range(20):
        truth = Subject(seed, set()).truth()
        assert all(d["grade"] <= 2 and d["modic"] == 0 and d["protrusion_mm"] == 0 for d in truth["discs"].values())
        assert not any(b["fracture"] or b["haemangioma"] or b["oedema"] for b in truth["bodies"].values())


@pytest.mark.parametrize("away", [2.0, 13.0, 24.0])
def test_plane__beside_another_is_what_it_would_be_alone(away):
    s = Subject(8)
    y, z = grid(s)
    first = Plane(s, s.bodies[S1 + 3].x, y, z, 5)
    first.paint()
    second, alone = first.beside(first.x + away), Plane(s, first.x + away, y, z, 5)
    assert np.array_equal(second.paint().fractions, alone.paint().fractions)
    assert np.array_equal(second.noise(3.0), alone.noise(3.0))
    assert not np.array_equal(first.canvas.fractions, alone.canvas.fractions)


def test_texture__of_a_box_is_that_of_the_whole():
    whole = smooth_noise(np.random.default_rng(3), (200, 160), (31, 9))
    texture = Texture(3)
    for _ in range(2):  # drawn, and remembered
        box = slice(40, 97), slice(0, 33)
        assert texture.again().field((200, 160), (31, 9), box) == pytest.approx(whole[box], abs=1e-5)
    assert 0.8 < whole.std() < 1.2


def test_round_box__is_a_signed_distance():
    p = np.array([0.0, 3.0, 7.0])
    assert round_box(p, 0 * p, -5, 5, -4, 4, 1.0) == pytest.approx([-4.0, -2.0, 2.0])


def test_noise__is_rician_with_the_asked_level():
    p = tissue.sample_protocol("t2", np.random.default_rng(0))
    scene = scanner.Scene.sample(np.random.default_rng(1))
    scene = scanner.Scene(**{**scene.__dict__, "ghost": 0.0, "noise": 0.01})
    empty = np.zeros((256, 256), np.float32)
    air, _ = scanner.acquire(empty, empty, p, scene, np.random.default_rng(2), 300.0, 256)
    # Rayleigh in air: mean / deviation = sqrt(pi/2) / sqrt(2 - pi/2) = 1.913.
    assert air.mean() / air.std() == pytest.approx(1.913, rel=0.03)
    bright = np.full((256, 256), 1.0, np.float32)
    level, pure = scanner.acquire(bright, empty, p, scene, np.random.default_rng(2), 300.0, 256)
    assert level.mean() == pytest.approx(1.0, rel=0.01)
    assert pure == pytest.approx(np.ones((256, 256)), abs=1e-4)
    assert level.std() == pytest.approx(air.mean() / np.sqrt(np.pi / 2), rel=0.06)


def test_chemical_shift__moves_fat_by_the_bandwidth_and_leaves_water():
    p = tissue.Protocol("t2", 4000, 100, None, 15, 180.0, 110, 256, 256, 1, "t2")
    scene = scanner.Scene(100, 0.5, 0.0, 0.0, True, 1e-6, 0.0, 20)
    spot = np.zeros((256, 256), np.float32)
    spot[100:140, 100:140] = 1
    none = 0 * spot
    rng = np.random.default_rng(0)

    def centre(image):
        return (image * np.arange(256)[None, :]).sum() / image.sum()

    water = centre(scanner.acquire(spot, none, p, scene, rng, 256.0, 256)[0])
    fat = centre(scanner.acquire(none, spot, p, scene, rng, 256.0, 256)[0])
    assert fat - water == pytest.approx(2.0, abs=0.05)


def test_examination__follows_the_seed_and_nothing_else():
    def digest(seed):
        exam = Examination(seed, slices=1, size=128, contrasts=("t1", "t2"))
        return hashlib.sha256(b"".join(v.tobytes() for v in exam.draw().values())).hexdigest()

    assert digest(11) == digest(11)
    assert digest(11) != digest(12)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    out = subprocess.run([sys.executable, PHANTOM, "--output", str(folder), "--seed", "7", "--slices", "3", "--size", "256",
                          "--series", "t1,t2,t2-fast,stir,tirm", "--json"], check=True, capture_output=True, text=True)
    return folder, json.loads(out.stdout)


def test_dicom__series_share_study_and_frame_and_differ_where_they_must(written):
    _, report = written
    assert [s["contrast"] for s in report["series"]] == ["t1", "t2", "t2-fast", "stir", "tirm"]
    studies, frames, series, instances = set(), set(), set(), set()
    for s in report["series"]:
        files = sorted(os.listdir(s["folder"]))
        assert len(files) == 3
        for name in files:
            ds = pydicom.dcmread(os.path.join(s["folder"], name))
            studies.add(ds.StudyInstanceUID)
            frames.add(ds.FrameOfReferenceUID)
            series.add(ds.SeriesInstanceUID)
            instances.add(ds.SOPInstanceUID)
            assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
            size = 128 if s["contrast"] == "t2-fast" else 256
            assert ds.pixel_array.shape == (size, size) == (ds.Rows, ds.Columns)
            assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
            assert 500 < ds.pixel_array.max() <= 4095
            assert ("InversionTime" in ds) == (s["contrast"] in ("stir", "tirm"))
            assert ds.BodyPartExamined == "LSPINE" and ds.PatientPosition == "HFS"
            assert float(ds.RepetitionTime) == s["tr"] and float(ds.EchoTime) == s["te"]
    assert (len(studies), len(frames), len(series), len(instances)) == (1, 1, 5, 15)


def test_dicom__geometry_is_sagittal_and_slices_step_by_their_spacing(written):
    _, report = written
    for s in report["series"]:
        sets = [pydicom.dcmread(os.path.join(s["folder"], n)) for n in sorted(os.listdir(s["folder"]))]
        row, column = np.array(sets[0].ImageOrientationPatient, float).reshape(2, 3)
        normal = np.cross(row, column)
        assert abs(normal[0]) == 1.0
        at = [np.dot(normal, np.array(d.ImagePositionPatient, float)) for d in sets]
        assert np.diff(at) == pytest.approx([float(sets[0].SpacingBetweenSlices)] * 2, abs=1e-3)


def test_dicom__fast_series_covers_the_same_field_as_the_full_one(written):
    _, report = written
    corner, side = {}, {}
    for s in report["series"]:
        ds = pydicom.dcmread(os.path.join(s["folder"], "001.dcm"))
        spacing = float(ds.PixelSpacing[0])
        corner[s["contrast"]] = np.array(ds.ImagePositionPatient, float)[1:] + np.array([-0.5, 0.5]) * spacing
        side[s["contrast"]] = ds.Rows * spacing
    assert side["t2"] == pytest.approx(side["t2-fast"], rel=1e-5)
    assert corner["t2"] == pytest.approx(corner["t2-fast"], abs=1e-3)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dicom__passes_dciodvfy_without_errors(written):
    _, report = written
    for s in report["series"]:
        out = subprocess.run(["dciodvfy", os.path.join(s["folder"], "002.dcm")], capture_output=True, text=True)
        text = out.stdout + out.stderr
        assert "MRImage" in text
        assert "Error" not in text, text


def test_command__refuses_what_it_does_not_know(tmp_path):
    for bad in (["--series", "flair"], ["--size", "100"], ["--slices", "0"], ["--findings", "cheese"], ["--seed", "-1"]):
        out = subprocess.run([sys.executable, PHANTOM, "--output", tmp_path / "unused", *bad], capture_output=True, text=True)
        assert out.returncode == 2, bad
    assert not (tmp_path / "unused").exists()


def test_bench__counts_no_more_time_than_there_was():
    def used():
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    start, cpu = time.monotonic(), used()
    out = subprocess.run([sys.executable, PHANTOM, "--bench", "--size", "128", "--processes", "1", "--json"],
                         check=True, capture_output=True, text=True)
    seconds, cpu = time.monotonic() - start, used() - cpu
    report = json.loads(out.stdout)
    assert (report["processes"], report["size"]) == (1, 128)
    both = report["slices"], report["pairs"]
    assert [one["images"] for one in both] == [12, 8]
    assert 0.02 < sum(one["images"] * one["cpu_s"] for one in both) < cpu
    assert sum(one["images"] / one["per_s"] for one in both) < seconds


def test_levels__name_the_discs_as_radiologists_do():
    s = Subject(1)
    assert [s.discs[i].name for i in range(S1, S1 + 3)] == ["L5-S1", "L4-L5", "L3-L4"]
    assert LEVELS[S1] == "S1"
