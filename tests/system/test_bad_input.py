"""Series that no model may see, end to end: sent by C-STORE, accepted, refused with a reason that an admin understands.

One node gets them all. The reason stands in `spinenode jobs --json` and in the log, no job is made, nothing is sent,
and a good series afterwards is processed as if nothing had been.
"""

import copy
import re
from collections.abc import Callable

import numpy as np
import pytest
from harness.net import wait_for
from harness.node import Node
from harness.results import sources_of
from harness.scp import Pacs
from harness.send import store
from pydicom.uid import EnhancedMRImageStorage, generate_uid
from systemkit import QUICK, decided, ended, jobs_of, told


def each(**attributes) -> Callable:
    """Sets attributes of every image; None removes one."""

    def edit(images: list) -> list:
        for image in images:
            for keyword, value in attributes.items():
                if value is not None:
                    setattr(image, keyword, value)
                elif keyword in image:
                    delattr(image, keyword)
        return images

    return edit


def turned(orientation: list[float], along: int) -> Callable:
    """The same stack with another plane: slices follow one another along an axis of the patient."""

    def edit(images: list) -> list:
        for k, image in enumerate(images):
            image.ImageOrientationPatient = orientation
            position = [0.0, 0.0, 0.0]
            position[along] = 4.4 * k
            image.ImagePositionPatient = position
        return images

    return edit


def with_first(edit: Callable) -> Callable:
    def apply(images: list) -> list:
        edit(images[0], images)
        return images

    return apply


def coloured(images: list) -> list:
    for image in images:
        grey = (image.pixel_array >> 4).astype(np.uint8)
        image.PixelData = np.repeat(grey[..., None], 3, axis=2).tobytes()
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image["PixelData"].VR = "OB"
    return images


def same_position(first, images: list) -> None:
    images[1].ImagePositionPatient = first.ImagePositionPatient


def other_contrast(first, images: list) -> None:
    for image in images[:2]:
        image.RepetitionTime, image.EchoTime = 500, 11


def other_study(first, _images: list) -> None:
    first.StudyInstanceUID = generate_uid()


def other_matrix(first, _images: list) -> None:
    first.PixelData = np.ascontiguousarray(first.pixel_array[:128, :128]).tobytes()
    first.Rows = first.Columns = 128


def enhanced(images: list) -> list:
    for image in images:
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        image.NumberOfFrames = 1
    return images


def repeated(count: int) -> Callable:
    """As many slices, small ones, equally spaced."""

    def edit(images: list) -> list:
        base = images[0]
        base.PixelData = np.ascontiguousarray(base.pixel_array[96:160, 96:160]).tobytes()
        base.Rows = base.Columns = 64
        many = []
        for k in range(count):
            image = copy.deepcopy(base)
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            x, y, z = base.ImagePositionPatient
            image.ImagePositionPatient = [float(x) + 0.5 * k, y, z]
            image.InstanceNumber = k + 1
            many.append(image)
        return many

    return edit


KNEE = dict(BodyPartExamined="KNEE", AnatomicRegionSequence=None, SeriesDescription="t2_tse_sag", ProtocolName="t2_tse_sag",
            StudyDescription="MR KNEE")

# What is wrong -> how to make it so, and what the reason must name.
CASES: dict[str, tuple[Callable, str]] = {
    "missing geometry": (each(ImagePositionPatient=None), r"^missing geometry: ImagePositionPatient"),
    "missing orientation": (each(ImageOrientationPatient=None), r"^missing geometry: ImageOrientationPatient"),
    "axial": (turned([1, 0, 0, 0, 1, 0], 2), r"^axial series"),
    "coronal": (turned([1, 0, 0, 0, 0, -1], 1), r"^coronal series"),
    "localizer": (each(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), r"^localizer \(ImageType\)"),
    "gradient echo": (each(ScanningSequence="GR", RepetitionTime=450, EchoTime=12, FlipAngle=25), r"^gradient echo"),
    "FLAIR": (each(ScanningSequence=["SE", "IR"], InversionTime=2200, RepetitionTime=9000), r"^FLAIR \(TI 2200 ms\)"),
    "proton density": (each(RepetitionTime=3000, EchoTime=15), r"^proton density \(TR 3000 ms, TE 15 ms\)"),
    "fat-saturated": (each(ScanOptions=["FS"]), r"^fat-saturated \(ScanOptions\)"),
    "contrast-enhanced": (each(ContrastBolusAgent="Gadobutrol"), r"^contrast-enhanced \(ContrastBolusAgent"),
    "non-spine body part": (each(**KNEE), r"^body part is not the spine"),
    "colour": (coloured, r"^colour images"),
    "duplicate slice positions": (with_first(same_position), r"^duplicate slice positions: 1 images"),
    "missing slices": (lambda images: images[:2] + images[3:], r"^missing slices: 1 between image 2 and 3 of 4"),
    "one slice": (lambda images: images[2:3], r"^only one slice"),
    "two contrasts under one series": (with_first(other_contrast), r"^several protocols under one SeriesInstanceUID: RepetitionTime"),
    "two studies under one series": (with_first(other_study), r"^instances of different studies under one Series Instance UID"),
    "two matrices under one series": (with_first(other_matrix), r"^images of several sizes under one SeriesInstanceUID \("),
    "synthetic by another node": (each(SyntheticData="YES"), r"^synthetic image \(SyntheticData is YES\)"),
    "derived": (each(ImageType=["DERIVED", "SECONDARY", "MPR"]), r"^derived image"),
    "Enhanced MR": (enhanced, r"^Enhanced \(multi-frame\) MR is not supported"),
    "more slices than the limit": (repeated(41), r"^series has 41 instances, at most 40"),
}


class Ward:
    """The node, and what it was sent: case -> Series Instance UID."""

    def __init__(self, node: Node, pacs: Pacs):
        self.node, self.pacs = node, pacs
        self.uids: dict[str, str] = {}
        self.images: dict[str, list] = {}


@pytest.fixture(scope="module")
def ward(tmp_path_factory, spinenode, study):
    folder = tmp_path_factory.mktemp("bad-input")
    with Pacs() as pacs:
        node = Node(folder / "node", pacs=[pacs], changes={**QUICK, "limits": {"slices": 40}}, program=spinenode)
        with node:
            ward = Ward(node, pacs)
            for case, (edit, _) in CASES.items():
                images = copy.deepcopy(study.t2.images)
                uid = generate_uid()
                for image in images:
                    image.SeriesInstanceUID = uid
                    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
                ward.images[case] = edit(images)
                ward.uids[case] = uid
                sent = store(ward.images[case], node.port, called=node.ae_title)
                assert sent.ok, f"{case}: {sent.statuses} {sent.comments}"
            wait_for(lambda: all(decided(node, uid) for uid in ward.uids.values()), 60,
                     "the node to decide on every series", pause=0.2)
            yield ward
        assert not node.sanitizer_report(), node.sanitizer_report()


@pytest.mark.parametrize("case", CASES)
def test_node__refuses_with_the_reason(ward, case):
    series = told(ward.node, ward.uids[case])
    assert series["state"] == "refused", series
    reason = series["reason"]
    assert re.search(CASES[case][1], reason), reason
    assert "\n" not in reason and len(reason) < 400
    assert jobs_of(ward.node, ward.uids[case]) == []
    logged = [line for line in ward.node.log().splitlines() if ward.uids[case] in line and reason[:40] in line]
    assert logged, f"not in the log: {reason}"


def test_node__names_no_patient_in_reason_or_log(ward):
    text = ward.node.log() + str(ward.node.jobs())
    first = ward.images["localizer"][0]
    assert str(first.PatientID) not in text
    assert str(first.PatientName) not in text and str(first.PatientName).split("^")[0] not in text


def test_node__goes_on_after_all_of_them(ward, study):
    sent = store(study.t2.images, ward.node.port, called=ward.node.ae_title)
    assert sent.ok
    sources = {i.SOPInstanceUID for i in study.t2.images}
    wait_for(lambda: len(ward.pacs.stored) >= len(sources) * (len(ended(ward.node, study.t2.uid)) or 100), 120,
             "the results of the good series", pause=0.2)
    referenced = {uid for r in ward.pacs.stored for uid in sources_of(r.dataset())}
    assert referenced == sources, "something else than the good series was processed"


def test_node__refuses_its_own_result(ward):
    """Runs after the good series: what the PACS got is what it would route back."""
    results = [r.dataset() for r in ward.pacs.stored]
    assert results, "no result to route back"
    uid = results[0].SeriesInstanceUID
    images = [r for r in results if r.SeriesInstanceUID == uid]
    before = len(ward.pacs.attempts)
    assert store(images, ward.node.port, called=ward.node.ae_title, calling=ward.pacs.ae_title).ok
    series = wait_for(lambda: decided(ward.node, uid), 30, "the node to decide on its own result")
    assert series["state"] == "refused" and "synthetic" in series["reason"]
    assert len(ward.pacs.attempts) == before
