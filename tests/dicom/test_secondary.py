"""dicom/secondary: results as pydicom, dciodvfy and dcentvfy see them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from driverkit import Refused
from dicomkit import code, mr_images, save, xray_image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage, generate_uid

KINDS = {"sc": SecondaryCaptureImageStorage, "mr": MRImageStorage}
OBLIQUE = [-0.05, 0.99, 0.13, 0.02, 0.131, -0.9912]


def unit(orientation: list[float]) -> list[float]:
    row = np.array(orientation[:3]) / np.linalg.norm(orientation[:3])
    column = np.array(orientation[3:]) - row * (row @ orientation[3:])
    return [*row.round(10), *(column / np.linalg.norm(column)).round(10)]


def world(image: Dataset, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Patient coordinates of pixels (PS3.3 equation C.7.6.2.1-1)."""
    along_row = np.array(image.ImageOrientationPatient[:3], float)
    along_column = np.array(image.ImageOrientationPatient[3:], float)
    between_rows, between_columns = map(float, image.PixelSpacing)
    start = np.array(image.ImagePositionPatient, float)
    return start + np.multiply.outer(column * between_columns, along_row) + np.multiply.outer(row * between_rows, along_column)


class Result:
    def __init__(self, driver, folder: Path, images: list, **options) -> None:
        self.sources = images
        self.paths = driver.secondary(save(folder / "in", images), folder / "out", **options)
        self.images = [dcmread(path) for path in self.paths]

    def source_of(self, image: Dataset) -> Dataset:
        reference = image.SourceImageSequence[0]
        return next(s for s in self.sources if s.SOPInstanceUID == reference.ReferencedSOPInstanceUID)


@pytest.fixture
def make(driver, tmp_path):
    return lambda images, **options: Result(driver, tmp_path, images, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_result__keeps_every_pixel_where_it_was(make, kind):
    result = make(mr_images(plane=unit(OBLIQUE)), kind=kind)
    row, column = np.mgrid[0:72, 0:64]
    for image in result.images:
        source = result.source_of(image)
        assert np.abs(world(image, row, column) - world(source, row, column)).max() < 1e-6
        assert image.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert float(image.SliceThickness) == 4
        assert image.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
        assert [s.SpatialLocationsPreserved for s in image.SourceImageSequence[1:]] == ["NO"] * (len(image.SourceImageSequence) - 1)


@pytest.mark.parametrize("scale", [2, 4])
def test_super_resolution__centres_of_blocks_are_the_source_pixels(make, scale):
    result = make(mr_images(plane=unit(OBLIQUE)), task="super-resolution", scale=scale)
    row, column = np.mgrid[0:72, 0:64]
    for image in result.images:
        source = result.source_of(image)
        assert (image.Rows, image.Columns) == (72 * scale, 64 * scale)
        centre = world(image, row * scale + (scale - 1) / 2, column * scale + (scale - 1) / 2)
        assert np.abs(centre - world(source, row, column)).max() < 1e-6
        assert float(image.SliceThickness) == 4
        assert "SpatialLocationsPreserved" not in image.SourceImageSequence[0]
        assert [c.CodeValue for c in image.DerivationCodeSequence] == ["113085", "SYNTH_SR"]


def test_result__is_marked_as_synthetic(make):
    for image in make(mr_images()).images:
        assert image[0x0008001C].value == "YES" and image[0x0008001C].VR == "CS"
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OTHER", "SYNTH_T2_TO_T1"]
        assert image.SeriesDescription == "SYNTH AI T2>T1"
        assert image.ConversionType == "SYN"
        assert image.ContentQualification == "RESEARCH"
        assert image.BurnedInAnnotation == "NO"
        maker, scanner = image.ContributingEquipmentSequence
        assert maker.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
        assert (maker.Manufacturer, maker.SoftwareVersions) == ("Spinenode", "1.2.3")
        assert "0123456789abcdef" * 4 in maker.ContributionDescription
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert (scanner.Manufacturer, scanner.ManufacturerModelName, scanner.DeviceSerialNumber) == ("ACME", "Magnet 1", "42")
        assert "t2-to-t1" in image.DerivationDescription and "0123456789abcdef" * 4 in image.DerivationDescription
        assert image.DerivationCodeSequence[0].CodingSchemeDesignator == "99SPINENODE"


def test_result__carries_the_mark_in_its_pixels_and_nothing_else(make):
    for image in make(mr_images(rows=200, columns=256)).images:
        pixels = image.pixel_array
        strip = pixels[:11]
        low, high = strip.min(), strip.max()
        assert low == 0 and set(np.unique(strip)) == {low, high}
        assert high == np.ceil(float(image.WindowCenter) + float(image.WindowWidth) / 2)
        assert 0.1 < (strip == high).mean() < 0.4


def test_result__below_the_mark_is_what_the_model_said(make):
    result = make(mr_images(rows=200, columns=256))
    for image in result.images:
        assert np.array_equal(image.pixel_array[11:], dcmread_pixels(result.source_of(image))[11:])


def dcmread_pixels(image: Dataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns)


def test_result__pixel_module_is_twelve_bits(make):
    for image in make(mr_images()).images:
        assert (image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation) == (16, 12, 11, 0)
        assert (image.PhotometricInterpretation, image.SamplesPerPixel, image["PixelData"].VR) == ("MONOCHROME2", 1, "OW")
        assert image.pixel_array.max() <= 4095
        assert 0 < float(image.WindowWidth) <= 4095


SAME = """PatientName PatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime StudyID
AccessionNumber ReferringPhysicianName SpecificCharacterSet BodyPartExamined PatientPosition FrameOfReferenceUID
InstitutionName InstanceNumber SliceThickness""".split()


def test_result__stays_in_the_patients_study(make):
    result = make(mr_images())
    series = {image.SeriesInstanceUID for image in result.images}
    assert len(series) == 1 and series != {result.sources[0].SeriesInstanceUID}
    assert len({image.SOPInstanceUID for image in result.images}) == 5
    for image in result.images:
        source = result.source_of(image)
        for keyword in SAME:
            assert image[keyword].value == source[keyword].value, keyword
        assert image.SeriesNumber == 307
        assert image.Modality == "MR"
        assert (image.InstanceCreationDate, image.ContentTime) == ("20260102", "030405")
        assert list(image.PatientOrientation) == ["P", "F"]


UNWANTED = {
    "PixelPaddingValue": 0,
    "SmallestImagePixelValue": 0,
    "LargestImagePixelValue": 900,
    "PerformedProcedureStepID": "P1",
    "PerformedProcedureStepStartDate": "20260101",
    "ImageComments": "a comment",
    "OverlayRows": 5,
    "WindowCenterWidthExplanation": "WINDOW",
    "OperatorsName": "Op",
    "StationName": "MR1",
    "TriggerTime": 5,
    "dBdt": 3,
}


def laden(images: list) -> list:
    """With everything that must not be carried over."""
    for image in images:
        for keyword, value in UNWANTED.items():
            if keyword != "OverlayRows":
                setattr(image, keyword, value)
        image.add_new(0x60000010, "US", 8)
        image.add_new(0x60003000, "OW", b"\0" * 8)
        block = image.private_block(0x0029, "ACME HEADER", create=True)
        block.add_new(0x10, "OB", b"secret")
        item = Dataset()
        item.RequestedProcedureID = "REQUESTED"
        image.RequestAttributesSequence = Sequence([item])
        image.ReferencedPerformedProcedureStepSequence = Sequence([code("1", "2", "3")])
        region = code("122496007", "SCT", "Lumbar spine")
        region.private_block(0x0029, "ACME HEADER", create=True).add_new(0x11, "LO", "secret")
        image.AnatomicRegionSequence = Sequence([region])
        icon = Dataset()
        icon.Rows = 4
        image.IconImageSequence = Sequence([icon])
        lut = Dataset()
        lut.LUTDescriptor = [2, 0, 16]
        lut.LUTData = b"\0\0\1\0"
        lut["LUTData"].VR = "OW"
        image.VOILUTSequence = Sequence([lut])
    return images


@pytest.mark.parametrize("kind", KINDS)
def test_result__carries_nothing_that_is_not_named(make, kind):
    for image in make(laden(mr_images()), kind=kind).images:
        text = str(image)
        for keyword in [*UNWANTED, "RequestAttributesSequence", "IconImageSequence", "VOILUTSequence", "ReferencedPerformedProcedureStepSequence", "ProtocolName"]:
            assert keyword not in image, keyword
        assert not [e for e in image.iterall() if e.tag.is_private]
        assert not [e for e in image.iterall() if 0x6000 <= e.tag.group <= 0x60FF]
        assert "secret" not in text and "REQUESTED" not in text
        assert image.AnatomicRegionSequence[0].CodeValue == "122496007"


def test_mr_result__of_another_contrast_has_no_physics_of_its_source(make):
    for image in make(mr_images(ScanOptions="PFP"), kind="mr").images:
        assert image.SOPClassUID == MRImageStorage
        assert (image.ScanningSequence, image.SequenceVariant) == ("RM", "NONE")
        assert image.ScanOptions in (None, "")
        for keyword in ("RepetitionTime", "EchoTime", "EchoTrainLength"):
            assert image[keyword].value in (None, "")
        assert "FlipAngle" not in image and "InversionTime" not in image and "SequenceName" not in image


def test_mr_result__of_super_resolution_keeps_the_physics(make):
    for image in make(mr_images(ScanOptions="PFP"), kind="mr", task="super-resolution", scale=2).images:
        assert (image.RepetitionTime, image.EchoTime, image.FlipAngle, image.ScanningSequence) == (3500, 100, 150, "SE")
        assert image.ScanOptions == "PFP"


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_result__lossy_history_is_carried(driver, tmp_path, syntax):
    images = mr_images(LossyImageCompression="01", LossyImageCompressionRatio=10, LossyImageCompressionMethod="ISO_10918_1")
    for path in driver.secondary(save(tmp_path / "in", images, **({"syntax": syntax} if syntax else {})), tmp_path / "out"):
        image = dcmread(path)
        assert (image.LossyImageCompression, image.LossyImageCompressionRatio, image.LossyImageCompressionMethod) == ("01", 10, "ISO_10918_1")


@pytest.mark.parametrize("charset, name, model", [
    ("ISO_IR 100", "Müller^Änne", "driver   model with a na?ve name"),
    ("ISO_IR 192", "王^小東", "driver   model with a naïve name"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "driver   model with a na?ve name"),
])
def test_result__text_is_in_the_sources_character_set(make, charset, name, model):
    images = mr_images(slices=2)
    for image in images:
        image.SpecificCharacterSet, image.PatientName = charset, name
    for image in make(images).images:
        assert str(image.PatientName) == name
        assert image.ContributingEquipmentSequence[0].ManufacturerModelName == model


def test_result__is_the_same_bytes_each_time_and_follows_the_key(driver, tmp_path):
    paths = save(tmp_path / "in", mr_images())
    once, again = driver.secondary(paths, tmp_path / "1"), driver.secondary(list(reversed(paths)), tmp_path / "2")
    other = driver.secondary(paths, tmp_path / "3", key="another")
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]
    for a, b in zip(map(dcmread, once), map(dcmread, other), strict=True):
        assert a.SOPInstanceUID != b.SOPInstanceUID and a.SeriesInstanceUID != b.SeriesInstanceUID


def test_result__series_numbers_stay_integers(make):
    assert {i.SeriesNumber for i in make(mr_images(SeriesNumber=2_000_000_000)).images} == {7}


def test_result__numbers_images_by_position_where_the_source_does_not(make):
    assert [i.InstanceNumber for i in make(mr_images(InstanceNumber=1)).images] == [1, 2, 3, 4, 5]


def test_xray_result__has_no_place_in_the_patient(make):
    image = make(xray_image(True), task="xray-to-t2").images[0]
    assert image.Modality == "OT"
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        assert keyword not in image, keyword
    assert list(image.PatientOrientation) == ["A", "F"]
    assert image.SourceImageSequence[0].SpatialLocationsPreserved == "NO"


def test_xray_result__has_a_size_only_where_it_was_calibrated(make):
    images = xray_image(True, PixelSpacing=[0.14, 0.14], PixelSpacingCalibrationType="GEOMETRY", PixelSpacingCalibrationDescription="patient plane")
    image = make(images, task="xray-to-t2").images[0]
    assert list(image.PixelSpacing) == [0.14, 0.14] and image.PixelSpacingCalibrationType == "GEOMETRY"


def test_xray_result__on_a_coarser_grid_covers_the_same_field(make):
    images = xray_image(True, 192, 144, PixelSpacing=[0.14, 0.12], PixelSpacingCalibrationType="GEOMETRY", PixelSpacingCalibrationDescription="patient plane")
    image = make(images, task="xray-to-t2", scale=-2).images[0]
    assert (image.Rows, image.Columns) == (96, 72)
    assert [float(v) for v in image.PixelSpacing] == pytest.approx([0.28, 0.24])
    assert [c.CodeValue for c in image.DerivationCodeSequence] == ["113085", "SYNTH_XRAY_TO_T2"]


@pytest.mark.parametrize("images, options, reason", [
    (lambda: mr_images(), dict(scale=-2), "does not fit a source"),
    (lambda: xray_image(), dict(task="xray-to-t2", kind="mr"), "cannot be an MR Image"),
    (lambda: xray_image(), dict(task="t2-to-t1"), "does not take x-ray"),
    (lambda: mr_images(), dict(task="xray-to-t2"), "does not take MR"),
    (lambda: mr_images(), dict(task="t2-to-t1", scale=2), "does not fit a source"),
    (lambda: mr_images(), dict(task="denoise"), "is no task"),
    (lambda: mr_images(slices=1), dict(), "only one slice"),
    (lambda: mr_images(rows=40), dict(), "too small for the visible mark"),
])
def test_result__refused(make, images, options, reason):
    with pytest.raises(Refused) as refused:
        make(images(), **options)
    assert reason in refused.value.text


def test_result__never_overwrites(driver, tmp_path):
    paths = save(tmp_path / "in", mr_images())
    driver.secondary(paths, tmp_path / "out")
    before = (tmp_path / "out" / "0001.dcm").read_bytes()
    with pytest.raises(Refused) as refused:
        driver.run("secondary", "t2-to-t1", "sc", 1, tmp_path / "out", *paths, env={"DRIVER_KEY": "other"})
    assert refused.value.word == "exists"
    assert (tmp_path / "out" / "0001.dcm").read_bytes() == before


# ---- what others say ----

CASES = {
    "t1": (mr_images, dict()),
    "mr": (mr_images, dict(kind="mr")),
    "sr": (mr_images, dict(task="super-resolution", scale=4)),
    "sr_mr": (mr_images, dict(task="super-resolution", scale=4, kind="mr")),
    "laden": (lambda: laden(mr_images()), dict()),
    "lossy": (lambda: mr_images(LossyImageCompression="01", LossyImageCompressionRatio=10, LossyImageCompressionMethod="ISO_10918_1"), dict()),
    "cr": (xray_image, dict(task="xray-to-t2")),
    "dx": (lambda: xray_image(True), dict(task="xray-to-t2")),
    "dx_coarser": (lambda: xray_image(True, 192, 144, PixelSpacing=[0.14, 0.14], PixelSpacingCalibrationType="FIDUCIAL"), dict(task="xray-to-t2", scale=-2)),
    "bare": (lambda: mr_images(PatientName=None, PatientID=None, StudyID=None, AccessionNumber=None, StudyTime=None, PositionReferenceIndicator=None, SliceThickness=None, Manufacturer=None, SeriesNumber=None), dict()),
}


@pytest.mark.parametrize("case", CASES)
def test_dciodvfy__finds_no_error_but_the_tag_that_it_does_not_know(make, case):
    images, options = CASES[case]
    result = make(images(), **options)
    for path in result.paths:
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace").stderr
        errors = [line for line in said.splitlines() if line.startswith("Error") and "(0x0008,0x001c)" not in line.lower()]
        assert not errors, said
        assert "0x0008,0x001c" in said.lower()


@pytest.mark.parametrize("case", ["t1", "mr", "sr", "laden"])
def test_dcentvfy__finds_results_consistent_with_the_source(make, case):
    images, options = CASES[case]
    result = make(images(), **options)
    sources = sorted(result.paths[0].parent.parent.joinpath("in").iterdir())
    said = subprocess.run(["dcentvfy", *sources, *result.paths], capture_output=True, text=True, errors="replace")
    assert said.returncode == 0 and "Error" not in said.stderr, said.stderr


def test_synthetic_data__survives_implicit_and_explicit_vr(driver, make, tmp_path):
    result = make(mr_images())
    implicit, explicit = tmp_path / "implicit.dcm", tmp_path / "explicit.dcm"
    subprocess.run(["dcmconv", "+ti", result.paths[0], implicit], check=True)
    subprocess.run(["dcmconv", "+te", implicit, explicit], check=True)
    for path in (implicit, explicit):
        assert driver.run("text", path, "SyntheticData").strip() == "SyntheticData=YES (1)"
        assert driver.series([path])["refusal"].startswith("synthetic image")


def test_loop_guard__refuses_every_own_result(driver, make):
    result = make(mr_images())
    said = driver.series(result.paths)
    assert said["problem"] == ""
    assert said["refusal"].startswith("synthetic image")


def test_loop_guard__holds_when_a_pacs_drops_what_it_does_not_know(driver, make, tmp_path):
    result = make(mr_images(), kind="mr")
    for image in result.images:
        del image[0x0008001C], image.ContributingEquipmentSequence
        image.SeriesInstanceUID = generate_uid()
    assert driver.series(save(tmp_path / "stripped", result.images[:1]))["refusal"].startswith("synthetic image (ImageType")
