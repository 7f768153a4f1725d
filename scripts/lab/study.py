"""A phantom examination written as DICOM, as a scanner would send it.

Every attribute that the MR Image IOD (PS3.3 A.4) asks for is there; UIDs are made from the seed,
so the same seed gives the same objects.
"""

import datetime
import hashlib
import os

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from . import scanner, tissue
from .anatomy import Subject

CONTRASTS = ("t1", "t2", "t2-fast", "stir", "tirm")
THICKNESS, SPACING = 4.0, 4.4


def derived_uid(*parts):
    """A UID under 2.25 from 128 bits of a digest of the parts."""
    digest = hashlib.sha256("|".join(str(p) for p in ("numerical spine",) + parts).encode()).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))


class Examination:
    """One subject on one table: the scene, the protocols, the geometry; draws any series."""

    def __init__(self, seed, slices=15, size=512, findings=None, contrasts=CONTRASTS):
        self.subject = Subject(seed, findings)
        rng = np.random.default_rng([int(seed), 20])
        self.seed, self.slices, self.size = int(seed), slices, size
        self.field_mm = round(float(rng.uniform(280, 350)))
        self.scene = scanner.Scene.sample(rng)
        self.protocols = {c: tissue.sample_protocol(c, np.random.default_rng([int(seed), 21, i]), size)
                          for i, c in enumerate(CONTRASTS) if c in contrasts}
        middle = np.mean([b.x for b in self.subject.bodies[5:9]]) + rng.normal(0, 1.0)
        self.positions = np.round(middle + SPACING * ((slices - 1) / 2.0 - np.arange(slices)), 3)

    def draw(self, progress=None, sub_slices=2):
        """All series: {contrast: (slices, size, size) float32}."""
        stacks = {c: [] for c in self.protocols}
        for k, x in enumerate(self.positions):
            rng = np.random.default_rng([self.seed, 30, k])
            images, _ = scanner.render_plane(self.subject, x, self.scene, list(self.protocols.values()), self.size,
                                             self.field_mm, self.subject.centre, rng, sub_slices, THICKNESS, texture=k)
            for c, image in images.items():
                stacks[c].append(image)
            if progress:
                progress(k + 1, len(self.positions))
        return {c: np.stack(v) for c, v in stacks.items()}


def _identify(exam, ds, day):
    """Patient, study and equipment modules."""
    s = exam.subject
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"Phantom^Lumbar {exam.seed:04d}"
    ds.PatientID = f"PHANTOM-{exam.seed:06d}"
    ds.PatientBirthDate = f"{day.year - int(s.age)}0101"
    ds.PatientSex = s.sex
    ds.PatientAge = f"{int(s.age):03d}Y"
    ds.PatientSize = f"{1.68 * s.size:.2f}"
    ds.PatientWeight = f"{22.0 + 0.32 * s.belly[0] + 30 * s.size:.0f}"
    ds.StudyInstanceUID = derived_uid("study", exam.seed)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day.strftime("%Y%m%d")
    ds.StudyTime = "101500"
    ds.StudyID = str(exam.seed)
    ds.AccessionNumber = f"P{exam.seed:07d}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "MR LUMBAR SPINE"
    ds.Manufacturer = "Numerical Phantom"
    ds.ManufacturerModelName = "Lumbar 1.5T"
    ds.InstitutionName = "Phantom Laboratory"
    ds.StationName = "PHANTOM1"
    ds.DeviceSerialNumber = "000001"
    ds.SoftwareVersions = "1"
    ds.FrameOfReferenceUID = derived_uid("frame", exam.seed)
    ds.PositionReferenceIndicator = ""


def _sequence(ds, protocol, scene, exam, size):
    """MR Image module: what the sequence was."""
    ds.ScanningSequence = ["SE", "IR"] if protocol.inversion else "SE"
    ds.SequenceVariant = ["SK", "SP", "OSP"] if scene.saturated else ["SK", "SP"]
    ds.ScanOptions = "SP" if scene.saturated else ""
    ds.MRAcquisitionType = "2D"
    ds.SequenceName = ("*tir2d1_" if protocol.inversion else "*tse2d1_") + str(protocol.train)
    ds.RepetitionTime = protocol.tr
    ds.EchoTime = protocol.te
    if protocol.inversion:
        ds.InversionTime = protocol.ti
    ds.EchoTrainLength = protocol.train
    ds.EchoNumbers = 1
    ds.NumberOfAverages = protocol.averages
    ds.ImagingFrequency = "63.68"
    ds.ImagedNucleus = "1H"
    ds.MagneticFieldStrength = "1.5"
    ds.FlipAngle = f"{protocol.flip:g}"
    ds.PixelBandwidth = f"{protocol.bandwidth_hz:g}"
    ds.SAR = "1.2"
    samples, lines = min(protocol.acquired_rows, size), min(protocol.acquired_columns, size)
    ds.AcquisitionMatrix = [0, samples, lines, 0] if scene.phase_rows else [samples, 0, 0, lines]
    ds.InPlanePhaseEncodingDirection = "COL" if scene.phase_rows else "ROW"
    ds.PercentSampling = f"{100.0 * lines / samples:.4g}"
    ds.PercentPhaseFieldOfView = "100"
    ds.NumberOfPhaseEncodingSteps = lines
    ds.VariableFlipAngleFlag = "N"
    ds.ReceiveCoilName = "SPINE"
    ds.TransmitCoilName = "BODY"


def write(exam, stacks, folder, progress=None):
    """Write every series as DICOM files under folder/<number>_<contrast>/; returns a summary."""
    day = datetime.date(2024, 1, 8) + datetime.timedelta(days=exam.seed % 300)
    summary = []
    total, done = sum(len(s) for s in stacks.values()), 0
    for number, (contrast, stack) in enumerate(stacks.items(), 1):
        protocol = exam.protocols[contrast]
        pixels = scanner.to_stored(stack, np.random.default_rng([exam.seed, 40, number]))
        size = pixels.shape[1]
        spacing = exam.field_mm / size
        low, high = np.percentile(pixels, [1, 99.5])
        path = os.path.join(folder, f"{number:02d}_{contrast}")
        os.makedirs(path, exist_ok=True)
        series = derived_uid("series", exam.seed, contrast, size, len(pixels))
        for k, image in enumerate(pixels):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = MRImageStorage
            meta.MediaStorageSOPInstanceUID = derived_uid("instance", series, k)
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            name = os.path.join(path, f"{k + 1:03d}.dcm")
            ds = FileDataset(name, {}, file_meta=meta, preamble=b"\0" * 128)
            _identify(exam, ds, day)
            ds.SOPClassUID = MRImageStorage
            ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
            ds.Modality = "MR"
            ds.SeriesInstanceUID = series
            ds.SeriesNumber = number
            ds.SeriesDescription = protocol.description
            ds.ProtocolName = protocol.description
            ds.SeriesTime = f"10{20 + 4 * number:02d}00"
            ds.AcquisitionTime = ds.ContentTime = f"10{20 + 4 * number:02d}{k % 60:02d}"
            ds.BodyPartExamined = "LSPINE"
            ds.PatientPosition = "HFS"
            region = Dataset()
            region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "122496007", "SCT", "Lumbar spine"
            ds.AnatomicRegionSequence = Sequence([region])
            ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]
            ds.AcquisitionNumber = 1
            ds.InstanceNumber = k + 1
            _sequence(ds, protocol, exam.scene, exam, size)
            ds.SliceThickness = f"{THICKNESS:g}"
            ds.SpacingBetweenSlices = f"{SPACING:g}"
            ds.PixelSpacing = [f"{spacing:.8g}"] * 2
            centre_y, centre_z = exam.subject.centre
            half = (size - 1) / 2.0 * spacing
            ds.ImagePositionPatient = [f"{v:.8g}" for v in (exam.positions[k], centre_y - half, centre_z + half)]
            ds.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]
            ds.SliceLocation = f"{exam.positions[k]:.8g}"
            ds.SamplesPerPixel = 1
            ds.PhotometricInterpretation = "MONOCHROME2"
            ds.Rows, ds.Columns = image.shape
            ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
            ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(image.min()), int(image.max())
            ds.WindowCenter, ds.WindowWidth = f"{0.5 * (low + high):.6g}", f"{max(1.0, high - low):.6g}"
            ds.PixelData = image.astype("<u2").tobytes()
            ds["PixelData"].VR = "OW"
            ds.save_as(name, enforce_file_format=True)
            done += 1
            if progress:
                progress(done, total)
        summary.append({"folder": path, "contrast": contrast, "series_uid": series, "instances": len(pixels),
                        "rows": size, "columns": size, "spacing_mm": round(spacing, 4), "tr": protocol.tr,
                        "te": protocol.te, "ti": protocol.ti, "description": protocol.description})
    return summary
