"""Small DICOM series of any kind, made with pydicom, for tests of what the node makes of them.

    images = mr_images()                                a sound sagittal T2 TSE of 5 slices
    images = mr_images(RepetitionTime=500, EchoTime=11)  any attribute, for all images; None removes it
    paths = save(tmp_path, images, syntax=ExplicitVRBigEndian)

Positions come from ORIENTATIONS and the spacing. Pixels are a smooth pattern with noise, different in each slice.
"""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

# Direction cosines of row and column; the slices follow their cross product.
ORIENTATIONS = {
    "sagittal": [0, 1, 0, 0, 0, -1],
    "coronal": [1, 0, 0, 0, 0, -1],
    "axial": [1, 0, 0, 0, 1, 0],
}


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def normal_of(orientation: list[float]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def pattern(rows: int, columns: int, index: int, top: int = 900) -> np.ndarray:
    """uint16 values up to about top; the corner tells the slices apart."""
    y, x = np.mgrid[0:rows, 0:columns]
    noise = np.random.default_rng(index).normal(0, 10, (rows, columns))
    image = top / 2 * (1 + np.sin(x / 7 + index) * np.cos(y / 9)) + noise
    image[:2, :2] = index
    return np.clip(image, 0, 4095).astype(np.uint16)


def set_pixels(image: Dataset, values: np.ndarray, stored: int = 12, signed: bool = False) -> Dataset:
    allocated = 8 if stored <= 8 else 16
    image.Rows, image.Columns = values.shape[:2]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit = allocated, stored, stored - 1
    image.PixelRepresentation = int(signed)
    kind = {(8, False): "u1", (8, True): "i1", (16, False): "<u2", (16, True): "<i2"}[allocated, signed]
    data = values.astype(kind).tobytes()
    image.PixelData = data + b"\0" * (len(data) % 2)
    image["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return image


def _common(sop_class: str, study: str, series: str, frame: str) -> Dataset:
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID, image.SOPInstanceUID = sop_class, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
    image.PatientName, image.PatientID = "Müller^Anna", "P1"
    image.PatientBirthDate, image.PatientSex, image.PatientAge = "19700101", "F", "056Y"
    image.StudyDate, image.StudyTime, image.StudyID = "20260101", "120000", "S1"
    image.AccessionNumber, image.ReferringPhysicianName = "A1", "Doe^Jane"
    image.SeriesDate, image.SeriesTime, image.SeriesNumber = "20260101", "120100", 3
    image.AcquisitionDate, image.AcquisitionTime = "20260101", "120130"
    image.ContentDate, image.ContentTime = "20260101", "120140"
    image.Manufacturer, image.ManufacturerModelName = "ACME", "Magnet 1"
    image.InstitutionName, image.SoftwareVersions, image.DeviceSerialNumber = "Hospital", "v1", "42"
    image.BodyPartExamined = "LSPINE"
    image.PositionReferenceIndicator = ""
    return image


def change(image: Dataset, attributes: dict) -> Dataset:
    """Sets attributes by keyword; None removes them."""
    for keyword, value in attributes.items():
        if value is None:
            if keyword in image:
                delattr(image, keyword)
        else:
            setattr(image, keyword, value)
    return image


def mr_images(
    slices: int = 5,
    rows: int = 72,
    columns: int = 64,
    plane: str | list[float] = "sagittal",
    step_mm: float = 4.4,
    spacing_mm: tuple[float, float] = (0.8, 0.7),
    origin_mm: tuple[float, float, float] = (-8.8, -100.0, 150.0),
    **attributes,
) -> list[Dataset]:
    """MR Image objects: a T2 TSE unless attributes say otherwise. In order of position."""
    orientation = ORIENTATIONS.get(plane, plane) if isinstance(plane, str) else plane
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    images = []
    for k in range(slices):
        image = _common(MRImageStorage, study, series, frame)
        image.Modality, image.PatientPosition = "MR", "HFS"
        image.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
        image.SeriesDescription, image.ProtocolName = "t2_tse_sag", "t2_tse_sag"
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "SK", ""
        image.MRAcquisitionType, image.SequenceName = "2D", "*tse2d1_15"
        image.RepetitionTime, image.EchoTime, image.EchoTrainLength = 3500, 100, 15
        image.FlipAngle, image.MagneticFieldStrength, image.ImagedNucleus = 150, 1.5, "1H"
        image.SliceThickness, image.SpacingBetweenSlices = 4, step_mm
        image.InstanceNumber = k + 1
        image.ImageOrientationPatient = [float(v) for v in orientation]
        position = np.array(origin_mm) + k * step_mm * normal_of(orientation)
        image.ImagePositionPatient = [float(f"{v:.6f}") for v in position]
        image.SliceLocation = k * step_mm
        image.PixelSpacing = list(spacing_mm)
        set_pixels(image, pattern(rows, columns, k))
        images.append(change(image, attributes))
    return images


def xray_image(digital: bool = False, rows: int = 96, columns: int = 72, **attributes) -> list[Dataset]:
    """One lateral lumbar CR (or DX For Presentation) image, MONOCHROME1."""
    sop_class = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    image = _common(sop_class, generate_uid(), generate_uid(), generate_uid())
    del image.FrameOfReferenceUID, image.PositionReferenceIndicator
    image.Modality, image.ImageType = "DX" if digital else "CR", ["ORIGINAL", "PRIMARY"]
    if digital:
        image.PresentationIntentType = "FOR PRESENTATION"
    image.SeriesDescription, image.ViewPosition, image.PatientOrientation = "L-Spine lat", "LL", ["A", "F"]
    image.InstanceNumber, image.ImagerPixelSpacing = 1, [0.15, 0.15]
    set_pixels(image, pattern(rows, columns, 0))
    image.PhotometricInterpretation = "MONOCHROME1"
    return [change(image, attributes)]


def coloured(images: list[Dataset]) -> list[Dataset]:
    for image in images:
        grey = (image.pixel_array >> 4).astype(np.uint8) if "_pixel_array" in image else pattern(image.Rows, image.Columns, 0) >> 4
        image.PixelData = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2).tobytes()
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        image["PixelData"].VR = "OB"
    return images


def synthesizer() -> Sequence:
    """A ContributingEquipmentSequence that says: a model made this."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([code("109100", "DCM", "Synthesizing Equipment")])
    item.Manufacturer = "anybody"
    return Sequence([item])


def save(folder: Path, images: list[Dataset], syntax: str = ExplicitVRLittleEndian, prefix: str = "i") -> list[Path]:
    """Part 10 files in an order that is not that of the positions."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    order = sorted(range(len(images)), key=lambda k: (k * 7 + 3) % len(images))
    for number, k in enumerate(order):
        image = images[k]
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = syntax
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        path = folder / f"{prefix}{number:04d}.dcm"
        if syntax.is_little_endian:
            image.save_as(path, enforce_file_format=True)
        else:
            save_big_endian(image, path)
        paths.append(path)
    return paths


def save_big_endian(image: Dataset, path: Path) -> None:
    """pydicom swaps no pixel data: do it, and put it back."""
    data, vr = image.PixelData, image["PixelData"].VR
    if vr == "OW":
        image.PixelData = np.frombuffer(data, "<u2").astype(">u2").tobytes()
        image["PixelData"].VR = vr
    image.save_as(path, enforce_file_format=True)
    image.PixelData = data
    image["PixelData"].VR = vr
