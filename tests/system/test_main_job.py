"""The main job with two PACSes, and the results under two validators that know nothing of us."""

import re
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from harness.net import free_port, wait_for
from harness.node import Node
from harness.orthanc import Orthanc
from harness.qrscp import DcmQrScp
from harness.results import by_task, check_series, is_synthetic, models_in, sources_of, task_of
from harness.send import store
from pydicom import dcmread
from pydicom.filewriter import dcmwrite
from systemkit import QUICK, Study

# dicom3tools of 2022 does not know Synthetic Data (0008,001C), which is younger. Nothing else is let pass.
UNKNOWN_TO_DCIODVFY = re.compile(r"^Error - </?\(0008,001c\)> - Attribute with an even group number is not a recognized", re.IGNORECASE)


def expected(study: Study, node: Node) -> list[tuple]:
    models = by_task(models_in(Path(node.settings["models"]["folder"])))
    return [(s, models[t]) for s in study.all for t in s.tasks() if t in models]


def check_all(results: list, study: Study, node: Node) -> None:
    """Every expected series once, each in order, nothing else."""
    wanted = expected(study, node)
    by_image = {i.SOPInstanceUID: s.uid for s in study.all for i in s.images}
    found: dict[tuple, list] = {}
    for result in results:
        found.setdefault((by_image[sources_of(result)[0]], task_of(result)), []).append(result)
    assert sorted(found) == sorted((s.uid, m.task) for s, m in wanted)
    problems = [p for s, m in wanted for p in check_series(found[s.uid, m.task], s, m).problems]
    assert not problems, "\n".join(problems[:20])


@pytest.fixture(scope="module")
def through_orthanc(tmp_path_factory, spinenode, study):
    """The study stored in Orthanc, routed by it, the results read back from it: (results, node)."""
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder / "pacs", node_port=free_port()) as pacs:
        node = Node(folder / "node", pacs=[pacs], changes=QUICK, program=spinenode, port=pacs.node_port)
        with node:
            assert store(study.images, pacs.port, called=pacs.ae_title, calling="SCANNER").ok
            total = len(study.images) + sum(len(s.images) for s, _ in expected(study, node))
            wait_for(lambda: pacs.get("/statistics")["CountInstances"] >= total, 180, f"{total} images in Orthanc", pause=0.2)
            images = [dcmread(BytesIO(pacs.file(i))) for s in pacs.series() for i in s["Instances"]]
            yield [i for i in images if is_synthetic(i)], node
        assert not node.sanitizer_report(), node.sanitizer_report()


@pytest.fixture(scope="module")
def result_files(through_orthanc, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("results")
    paths = []
    for k, result in enumerate(through_orthanc[0]):
        paths.append(folder / f"{k:03}.dcm")
        dcmwrite(paths[-1], result, enforce_file_format=True)
    return paths


def test_orthanc__gets_every_expected_series_once_and_in_order(through_orthanc, study):
    check_all(through_orthanc[0], study, through_orthanc[1])


def test_dciodvfy__finds_no_error_in_any_result(result_files):
    assert result_files
    for path in result_files:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
        errors = [x for x in (done.stdout + done.stderr).splitlines() if x.startswith("Error") and not UNKNOWN_TO_DCIODVFY.search(x)]
        assert not errors, f"{path}: {errors}"


def test_dcentvfy__finds_results_and_source_consistent(result_files, study, tmp_path):
    paths = [str(p) for p in result_files]
    for k, image in enumerate(study.images):
        paths.append(str(tmp_path / f"{k:03}.dcm"))
        dcmwrite(paths[-1], image, enforce_file_format=True)
    done = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def test_dcmqrscp__gets_every_expected_series_once_and_in_order(tmp_path, start_node, study):
    port = free_port()
    with DcmQrScp(tmp_path / "qrscp", node_port=port) as pacs:
        node = start_node(pacs=[pacs], changes=QUICK, port=port)
        assert store(study.images, node.port, called=node.ae_title).ok
        total = sum(len(s.images) for s, _ in expected(study, node))
        wait_for(lambda: len(pacs.files()) >= total, 180, f"{total} images in dcmqrscp", pause=0.2)
        check_all([dcmread(p) for p in pacs.files()], study, node)


def test_node__makes_the_same_objects_when_it_forgot_everything(tmp_path, start_node, start_pacs, study):
    """Same input, model and parameters: same UIDs and same pixels, from another node with an empty database."""
    made = []
    for _ in range(2):
        pacs = start_pacs()
        node = start_node(pacs=[pacs], changes=QUICK)
        assert store(study.fast.images, node.port, called=node.ae_title).ok
        wait_for(lambda p=pacs: len(p.stored) >= len(study.fast.images), 120, "the results", pause=0.2)
        node.stop()
        made.append({r.sop_instance: bytes(r.dataset().PixelData) for r in pacs.stored})
    assert made[0] == made[1]
