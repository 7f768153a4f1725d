"""A standing lateral radiograph written as DICOM, as a radiographer's room would send it.

Rooms differ: imaging plates (CR) or a flat detector (DX For Presentation), 12 to 14 bits, white or black bone
(MONOCHROME2 or 1), either side at the detector, facing left or right, a lead letter or none.  What a subject's
room is like follows from the seed.  Every attribute that the CR (PS3.3 A.2) or DX (A.26) IOD asks for is there.
"""

import datetime
import os
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from . import xray
from .study import derived_uid

# Strokes of the lead letters, in a box of 1 x 1 from the top left.
LETTERS = {"L": ([0, 0, 1, 0], [1, 0, 1, 0.7]), "R": ([0, 0, 1, 0], [0, 0, 0, 0.7], [0, 0.7, 0.5, 0.7], [0.5, 0.7, 0.5, 0], [0.5, 0.2, 1, 0.7])}
LETTER_MM = 14.0


@dataclass(frozen=True)
class Room:
    """How a site makes its radiographs."""

    digital: bool       # DX; else CR
    pixel_mm: float
    bits: int
    inverted: bool      # MONOCHROME1
    faces_right: bool   # the patient, on the picture
    letter: bool
    calibrated: bool    # Pixel Spacing given too, reckoned back to the patient's middle

    @staticmethod
    def sample(rng):
        digital = bool(rng.random() < 0.6)
        return Room(digital, float(rng.choice([0.148, 0.175, 0.194] if digital else [0.175, 0.2])), int(rng.choice([12, 12, 13, 14])),
                    bool(rng.random() < 0.35), bool(rng.random() < 0.3), bool(rng.random() < 0.7), bool(rng.random() < 0.3))


def code(value, meaning, scheme="SCT"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def mark(image, letter, pixel, rng):
    """Put a lead letter into an upper corner in front of the patient; in place."""
    size, half = LETTER_MM / pixel, 1.3 / pixel
    top, left = (rng.uniform(10, 30) / pixel for _ in range(2))
    rows, columns = np.mgrid[:int(top + size + 2 * half) + 1, :int(left + size + 2 * half) + 1]
    for r0, c0, r1, c1 in LETTERS[letter]:
        a, b = np.array([top + size * r0, left + size * c0]), np.array([top + size * r1, left + size * c1])
        along = b - a
        share = np.clip(((rows - a[0]) * along[0] + (columns - a[1]) * along[1]) / (along @ along), 0, 1)
        away = np.hypot(rows - a[0] - share * along[0], columns - a[1] - share * along[1])
        part = image[:rows.shape[0], :rows.shape[1]]
        np.maximum(part, np.clip(half - away + 0.5, 0, 1)[:part.shape[0], :part.shape[1]] * 0.98, out=part)


def _identify(ds, subject, seed, room, day):
    """Patient, study and equipment modules; the patient is that of the MR study, the study is not."""
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"Phantom^Lumbar {seed:04d}"
    ds.PatientID = f"PHANTOM-{seed:06d}"
    ds.PatientBirthDate = f"{day.year - int(subject.age)}0101"
    ds.PatientSex = subject.sex
    ds.PatientAge = f"{int(subject.age):03d}Y"
    ds.StudyInstanceUID = derived_uid("radiographs", seed)
    ds.SeriesInstanceUID = derived_uid("radiograph series", seed, room.pixel_mm)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day.strftime("%Y%m%d")
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime, ds.ContentTime = "091000", "091200", "091300", "091305"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = f"X{seed}", f"X{seed:07d}", ""
    ds.StudyDescription = "XR LUMBAR SPINE"
    ds.SeriesDescription = ds.ProtocolName = "L-Spine lateral standing"
    ds.Manufacturer, ds.ManufacturerModelName = "Numerical Phantom", "Bucky 2" if room.digital else "Plates 1"
    ds.InstitutionName, ds.StationName = "Phantom Laboratory", "XRAY1"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "000002", "1"
    ds.BodyPartExamined = "LSPINE"
    ds.AnatomicRegionSequence = Sequence([code("122496007", "Lumbar spine")])
    ds.SeriesNumber = ds.InstanceNumber = ds.AcquisitionNumber = 1


def _exposure(ds, exposure, room):
    """How the rays went: what of it the CR and DX modules have in common."""
    view = exposure.view
    left = view.side > 0
    ds.KVP = exposure.kvp
    ds.Exposure = round(exposure.mas)
    ds.ExposureTime, ds.XRayTubeCurrent = round(exposure.mas * 2.5), 400
    ds.DistanceSourceToDetector = f"{view.distance:g}"
    ds.DistanceSourceToPatient = f"{view.distance - view.gap:g}"
    ds.ImagerPixelSpacing = [f"{room.pixel_mm:g}"] * 2
    if room.calibrated:
        ds.PixelSpacing = [f"{room.pixel_mm / view.magnification:.6g}"] * 2
        ds.PixelSpacingCalibrationType = "GEOMETRY"
        ds.PixelSpacingCalibrationDescription = "reckoned back to the middle of the patient"
    ds.ViewPosition = "LL" if left else "RL"
    ds.PatientOrientation = ["A" if room.faces_right else "P", "F"]
    if not room.digital:
        ds.PlateType, ds.CassetteSize, ds.FilterType = "STANDARD", "35CMX43CM", "NONE"
        return
    ds.EstimatedRadiographicMagnificationFactor = f"{view.magnification:.4f}"
    ds.PositionerType, ds.ImageLaterality = "COLUMN", "U"
    ds.PresentationIntentType = "FOR PRESENTATION"
    lateral = code("399173006", "left lateral") if left else code("399198007", "right lateral")
    lateral.ViewModifierCodeSequence = Sequence([])
    ds.ViewCodeSequence = Sequence([lateral])
    ds.PatientOrientationCodeSequence = Sequence([code("10904000", "erect")])
    ds.AcquisitionContextSequence = Sequence([])
    ds.DetectorType, ds.DetectorID = "SCINTILLATOR", "000003"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if not room.inverted else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape = "INVERSE" if room.inverted else "IDENTITY"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"


def stored(image, room):
    """Stored values of an image in [0, 1], bone bright."""
    top = 2**room.bits - 1
    values = np.rint(np.clip(image, 0, 1) * (0.97 * top)).astype(np.uint16)
    return top - values if room.inverted else values


def write(seed, folder, findings=None, number=1, room=None):
    """Write the radiograph of a subject under folder/<number>_xray/; returns a summary as that of an MR series."""
    rng = np.random.default_rng([int(seed), 99])
    room = room or Room.sample(rng)
    exposure = xray.radiograph(seed, room.pixel_mm, xray.standing(seed, findings))
    image = exposure.image.copy()
    if room.letter:
        mark(image, "L" if exposure.view.side > 0 else "R", room.pixel_mm, rng)
    pixels = stored(image[:, ::-1] if room.faces_right else image, room)
    day = datetime.date(2024, 1, 7) + datetime.timedelta(days=seed % 300)  # the day before the MR
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation if room.digital else ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = derived_uid("radiograph", seed, room.pixel_mm)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = os.path.join(folder, f"{number:02d}_xray")
    os.makedirs(path, exist_ok=True)
    name = os.path.join(path, "001.dcm")
    ds = FileDataset(name, {}, file_meta=meta, preamble=b"\0" * 128)
    _identify(ds, exposure.subject, seed, room, day)
    _exposure(ds, exposure, room)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality = "DX" if room.digital else "CR"
    ds.ImageType = ["DERIVED", "PRIMARY", ""] if room.digital else ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME1" if room.inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, room.bits, room.bits - 1, 0
    ds.WindowCenter, ds.WindowWidth = 2 ** (room.bits - 1), 2**room.bits
    ds.PixelData = np.ascontiguousarray(pixels).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(name, enforce_file_format=True)
    return {"folder": path, "contrast": "xray", "series_uid": ds.SeriesInstanceUID, "instances": 1, "rows": ds.Rows, "columns": ds.Columns,
            "spacing_mm": room.pixel_mm, "modality": ds.Modality, "kvp": exposure.kvp, "mas": exposure.mas,
            "description": ds.SeriesDescription}
