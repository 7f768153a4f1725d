"""A lateral radiograph through the whole node: from the x-ray room to a marked projection in the PACS."""

import copy
import shutil
import subprocess

import pytest
from cli.clikit import make_model
from harness.net import wait_for
from harness.node import merge
from harness.results import by_task, check_series, group_series, is_synthetic, models_in
from harness.send import store
from pydicom.filewriter import dcmwrite
from systemkit import QUICK, decided, draw_study

FRONTAL = {"ViewPosition": "AP", "PatientOrientation": ["L", "F"], "ViewCodeSequence": None}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A CR facing right and a DX in MONOCHROME1, by the rooms of two subjects."""
    found = [draw_study(tmp_path_factory.mktemp("film"), "--seed", seed, "--series", "xray")[0] for seed in ("8", "9")]
    assert [f.images[0].Modality for f in found] == ["CR", "DX"]
    assert found[0].images[0].PatientOrientation[0] == "A" and found[1].images[0].PhotometricInterpretation == "MONOCHROME1"
    return found


@pytest.fixture
def start(tmp_path, start_node, pacs):
    """start(model?) -> a node whose models folder holds an x-ray model, or nothing."""

    def run(model: bool = True):
        folder = tmp_path / "models"
        folder.mkdir()
        if model:
            make_model(folder / "xray-to-t2.onnx", "xray-to-t2", pixel_mm="1", spacing_mm="0.05-1")
        return start_node(pacs=[pacs], changes=merge(QUICK, {"models": {"folder": str(folder)}}))

    return run


def reason(node, uid: str) -> str:
    series = wait_for(lambda: decided(node, uid), 60, "the node to decide", pause=0.2)
    assert series["state"] == "refused"
    return series["reason"]


def test_radiographs__come_back_as_marked_projections(start, pacs, films, tmp_path):
    node = start()
    images = [i for f in films for i in f.images]
    assert store(images, node.port, called=node.ae_title).ok
    wait_for(lambda: len(pacs.stored) >= 2, 120, "two results", pause=0.2)
    model = by_task(models_in(tmp_path / "models"))["xray-to-t2"]
    results = group_series([r.dataset() for r in pacs.stored])
    for film in films:
        made = [r for r in results if r.images[0].StudyInstanceUID == film.images[0].StudyInstanceUID]
        assert len(made) == 1
        assert not check_series(made[0].images, film, model).problems
    for k, result in enumerate(r.images[0] for r in results):
        if shutil.which("dciodvfy"):
            path = tmp_path / f"{k}.dcm"
            dcmwrite(path, result, enforce_file_format=True)
            said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, errors="replace").stderr
            assert not [x for x in said.splitlines() if x.startswith("Error") and "0008,001c" not in x], said


def test_radiographs__that_came_back_are_not_taken_again(start, pacs, films):
    node = start()
    assert store(films[1].images, node.port, called=node.ae_title).ok
    wait_for(lambda: pacs.stored, 120, "the result", pause=0.2)
    result = pacs.stored[0].dataset()
    assert is_synthetic(result)
    assert store([result], node.port, called=node.ae_title).ok
    assert "synthetic" in reason(node, result.SeriesInstanceUID)


def test_radiograph__without_a_model_is_refused_with_the_reason(start, films):
    node = start(model=False)
    assert store(films[0].images, node.port, called=node.ae_title).ok
    assert "no model for xray-to-t2" in reason(node, films[0].uid)


def test_frontal_radiograph__is_refused(start, films, new_uid):
    node = start()
    image = copy.deepcopy(films[1].images[0])
    image.SeriesInstanceUID = new_uid()
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = new_uid()
    for keyword, value in FRONTAL.items():
        if value is None:
            delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    assert store([image], node.port, called=node.ae_title).ok
    assert "frontal x-ray: only lateral ones" in reason(node, image.SeriesInstanceUID)
