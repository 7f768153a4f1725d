"""What must hold for every synthetic series, checked with pydicom against the series that it was made from.

Written from DICOM PS3.3 (C.7.6.1 General Image, C.7.6.2 Image Plane, C.12.1 SOP Common, C.7.6.20 contributing
equipment), not from the node's sources: it shares no code and no constant with them.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from PIL import Image
from pydicom.dataset import Dataset

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SYNTHETIC_DATA = (0x0008, 0x001C)
SYNTHESIZING_EQUIPMENT = "109100"
SOURCE_IMAGE = "121322"
# A gap that no rounding of a decimal string explains.
GEOMETRY_MM = 1e-3
SHIFT_PIXELS = 4


@dataclass
class Model:
    path: Path
    task: str
    name: str
    version: str
    digest: str
    scale: int
    pixel_mm: float | None  # the pixels that sources are brought to, where not their own


def models_in(folder: Path) -> list[Model]:
    """The models in a folder by their own metadata, read with the onnx package."""
    models = []
    for path in sorted(Path(folder).glob("*.onnx")):
        facts = {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}
        models.append(Model(path, facts["spinenode.task"], facts.get("spinenode.name", path.stem),
                            facts["spinenode.version"], hashlib.sha256(path.read_bytes()).hexdigest(),
                            int(facts.get("spinenode.scale", "1")),
                            float(facts["spinenode.pixel_mm"]) if "spinenode.pixel_mm" in facts else None))
    return models


def by_task(models: list[Model]) -> dict[str, Model]:
    """The newest model of each task."""
    newest: dict[str, Model] = {}
    for model in models:
        rival = newest.get(model.task)
        if rival is None or _version(model.version) > _version(rival.version):
            newest[model.task] = model
    return newest


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-")[0].split("."))


@dataclass
class SourceSeries:
    """An acquired series as sent, in the order of its slices."""

    images: list[Dataset] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return self.images[0].SeriesInstanceUID

    @property
    def title(self) -> str:
        first = self.images[0]
        return f"{first.get('SeriesDescription', '?')} {len(self.images)}x{first.Rows}x{first.Columns}"

    @property
    def contrast(self) -> str:
        """By spin-echo physics, enough for a study whose sequences we know."""
        first = self.images[0]
        if first.Modality in ("CR", "DX"):
            return "XR"
        if first.get("InversionTime"):
            return "STIR"
        return "T1" if float(first.RepetitionTime) <= 1000 else "T2"

    def tasks(self) -> list[str]:
        """What the shipped rules do with it, were every model there."""
        if self.contrast == "T1":
            return ["t1-to-t2"]
        if self.contrast == "T2":
            return ["super-resolution"] if self.images[0].Rows <= 160 else ["t2-to-t1", "t2-to-stir", "t2-to-tirm"]
        if self.contrast == "XR":
            return ["xray-to-t2"]
        return []


def group_series(images: list[Dataset]) -> list[SourceSeries]:
    """Data sets by series (in the order of their study and SeriesNumber), each sorted along its slice normal."""
    series: dict[str, SourceSeries] = {}
    for image in images:
        series.setdefault(image.SeriesInstanceUID, SourceSeries()).images.append(image)
    for one in series.values():
        one.images.sort(key=position)
    studies = list(dict.fromkeys(i.StudyInstanceUID for i in images))
    return sorted(series.values(), key=lambda s: (studies.index(s.images[0].StudyInstanceUID), int(s.images[0].get("SeriesNumber", 0))))


def position(image: Dataset) -> float:
    if "ImageOrientationPatient" not in image:  # a projection
        return 0.0
    row, column = np.array(image.ImageOrientationPatient[:3], float), np.array(image.ImageOrientationPatient[3:], float)
    return float(np.dot(np.cross(row, column), np.array(image.ImagePositionPatient, float)))


def is_synthetic(image: Dataset) -> bool:
    return SYNTHETIC_DATA in image and str(image[SYNTHETIC_DATA].value).strip() == "YES"


def sources_of(image: Dataset) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in image.get("SourceImageSequence", [])]


def task_of(image: Dataset) -> str:
    """From Image Type value 4, SYNTH_<TASK>; a code string has 16 characters, so super-resolution is SR there."""
    values = list(image.get("ImageType", []))
    if len(values) < 4 or not values[3].startswith("SYNTH_"):
        return "?"
    task = values[3][len("SYNTH_"):].lower().replace("_", "-")
    return "super-resolution" if task == "sr" else task


class Checklist:
    """Collects what does not hold, with the name of the thing that it does not hold for."""

    def __init__(self, name: str):
        self.name = name
        self.problems: list[str] = []
        self.checked = 0

    def that(self, holds: object, what: str) -> None:
        self.checked += 1
        if not holds:
            self.problems.append(f"{self.name}: {what}")

    def same(self, got: object, wanted: object, what: str) -> None:
        self.that(got == wanted, f"{what} is {got!r}, not {wanted!r}")


def check_series(results: list[Dataset], source: SourceSeries, model: Model) -> Checklist:
    """All checks on one synthetic series."""
    check = Checklist(f"{model.task} of {source.title}")
    check.same(len(results), len(source.images), "the number of instances")
    check.same(len({r.SOPInstanceUID for r in results}), len(results), "the number of different SOP Instance UIDs")
    check.same(len({r.SeriesInstanceUID for r in results}), 1, "the number of series")
    check.that(all(r.SeriesInstanceUID != source.uid for r in results), "it has the source's Series Instance UID")
    by_uid = {s.SOPInstanceUID: s for s in source.images}
    referenced = [uid for r in results for uid in sources_of(r)]
    check.same(sorted(referenced), sorted(by_uid), "the list of source images")
    windows = {(float(r.WindowCenter), float(r.WindowWidth)) for r in results if "WindowCenter" in r}
    check.same(len(windows), 1, "the number of different windows")
    for result in results:
        origin = by_uid.get((sources_of(result) or [""])[0])
        if origin is not None:
            check_image(result, origin, model, check)
    return check


def check_image(result: Dataset, origin: Dataset, model: Model, check: Checklist) -> None:
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        check.same(result.get(keyword), origin.get(keyword), keyword)
    # What comes of a projection is no MR image: nothing was acquired in a scanner.
    check.same(result.get("Modality"), "OT" if model.task == "xray-to-t2" else origin.Modality, "Modality")
    check.same(result.SeriesNumber // 100 if "SeriesNumber" in result else None, origin.SeriesNumber, "SeriesNumber / 100")

    check.same(result.SOPClassUID, SECONDARY_CAPTURE, "SOPClassUID")
    check.that(is_synthetic(result), "SyntheticData (0008,001C) is not YES")
    check.same(list(result.get("ImageType", []))[:2], ["DERIVED", "SECONDARY"], "the begin of ImageType")
    check.same(task_of(result), model.task, "the task in ImageType")
    check.same(result.get("ConversionType"), "SYN", "ConversionType")
    check.that(str(result.get("SeriesDescription", "")).startswith("SYNTH AI "), "SeriesDescription does not say SYNTH AI")
    check.same(result.get("BurnedInAnnotation"), "NO", "BurnedInAnnotation")
    check.same(result.get("ContentQualification"), "RESEARCH", "ContentQualification")
    check.that(result.get("DerivationDescription"), "DerivationDescription is empty")
    check.that(len(result.get("DerivationCodeSequence", [])) >= 1, "no DerivationCodeSequence")
    purposes = [c.CodeValue for s in result.get("SourceImageSequence", []) for c in s.get("PurposeOfReferenceCodeSequence", [])]
    check.same(purposes, [SOURCE_IMAGE], "the purpose of the reference to the source")
    equipment = [e for e in result.get("ContributingEquipmentSequence", [])
                 if e.PurposeOfReferenceCodeSequence[0].CodeValue == SYNTHESIZING_EQUIPMENT]
    check.same(len(equipment), 1, "the number of synthesizing equipment items")
    told = "".join(str(e) for e in equipment) + str(result.get("DerivationDescription", ""))
    check.that(model.digest[:16] in told, "the model's digest is nowhere in it")
    check.that(model.version in told, "the model's version is nowhere in it")
    check.that(not any(e.tag.is_private for e in result), "it has private attributes")
    for keyword in ("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle"):
        check.that(model.task == "super-resolution" or keyword not in result, f"{keyword} of the source is still there")
    if model.task == "xray-to-t2":
        check_projection(result, origin, model, check)
    else:
        check_geometry(result, origin, model.scale, check)
    check_pixels(result, check)


def check_geometry(result: Dataset, origin: Dataset, scale: int, check: Checklist) -> None:
    check.same((result.Rows, result.Columns), (origin.Rows * scale, origin.Columns * scale), "the matrix")
    row_mm, column_mm = (float(v) for v in origin.PixelSpacing)
    along_row, along_column = np.array(origin.ImageOrientationPatient[:3], float), np.array(origin.ImageOrientationPatient[3:], float)
    wanted = (np.array(origin.ImagePositionPatient, float)
              + along_row * (column_mm / scale - column_mm) / 2 + along_column * (row_mm / scale - row_mm) / 2)
    for keyword, want in (("PixelSpacing", [row_mm / scale, column_mm / scale]), ("ImagePositionPatient", wanted),
                          ("ImageOrientationPatient", origin.ImageOrientationPatient), ("SliceThickness", origin.SliceThickness)):
        got = np.atleast_1d(np.array(result.get(keyword), float)) if keyword in result else np.array([np.nan])
        want = np.atleast_1d(np.array(want, float))
        check.that(got.shape == want.shape and np.all(np.abs(got - want) <= GEOMETRY_MM),
                   f"{keyword} is {got.tolist()}, not {want.tolist()}")


def check_projection(result: Dataset, origin: Dataset, model: Model, check: Checklist) -> None:
    """A projection has a field, not a place: no frame of reference, a size only where the source was calibrated."""
    field_mm = [float(v) * n for v, n in zip(origin.get("ImagerPixelSpacing") or origin.PixelSpacing, (origin.Rows, origin.Columns), strict=True)]
    wanted = [round(mm / model.pixel_mm) for mm in field_mm] if model.pixel_mm else [origin.Rows, origin.Columns]
    check.same([result.Rows, result.Columns], wanted, "the matrix")
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"):
        check.that(keyword not in result, f"{keyword} of a projection is given")
    check.same(result.get("PatientOrientation"), origin.get("PatientOrientation"), "PatientOrientation")
    calibrated = "PixelSpacingCalibrationType" in origin
    check.same("PixelSpacing" in result, calibrated, "whether PixelSpacing is given")
    if calibrated:
        want = np.array(origin.PixelSpacing, float) * [origin.Rows / result.Rows, origin.Columns / result.Columns]
        check.that(np.allclose(np.array(result.PixelSpacing, float), want, rtol=1e-6), f"PixelSpacing is {result.PixelSpacing}, not {want.tolist()}")
    preserved = [s.get("SpatialLocationsPreserved") for s in result.get("SourceImageSequence", [])]
    check.same(preserved, ["NO"], "SpatialLocationsPreserved")


def check_pixels(result: Dataset, check: Checklist) -> None:
    check.same((result.BitsAllocated, result.BitsStored, result.HighBit, result.PixelRepresentation), (16, 12, 11, 0),
               "the pixel format")
    check.same(result.PhotometricInterpretation, "MONOCHROME2", "PhotometricInterpretation")
    pixels = result.pixel_array
    check.that(pixels.max() <= 4095, f"a stored value is {pixels.max()}")
    body = pixels[pixels.shape[0] // 8 :]
    check.that(body.std() > 20, "the picture is flat")
    check.that("WindowCenter" in result and float(result.WindowWidth) >= 1, "it has no window")


def grey(image: Dataset) -> np.ndarray:
    """Pixels, the brighter the larger."""
    pixels = image.pixel_array.astype(np.float32)
    return 2**image.BitsStored - 1 - pixels if image.PhotometricInterpretation == "MONOCHROME1" else pixels


def likeness(one: Dataset | np.ndarray, other: Dataset | np.ndarray) -> float:
    """Correlation of two images of the same extent, the marked strip at the top left out: 1 is the same picture.

    The smaller is brought to the size of the larger by linear interpolation, edges aligned. The best of small shifts
    counts: two acquisitions of one spine differ by the shift of fat along the frequency axis, which is no one's fault.
    """
    pictures = [Image.fromarray(np.asarray(i if isinstance(i, np.ndarray) else grey(i), np.float32)) for i in (one, other)]
    size = max(p.size for p in pictures)
    a, b = (np.asarray(p.resize(size, Image.Resampling.BILINEAR), np.float32) for p in pictures)
    top, edge = a.shape[0] // 8, SHIFT_PIXELS
    fixed = b[top:-edge:2, edge:-edge:2].ravel()
    best = -1.0
    for down in range(-edge, edge + 1):
        for right in range(-edge, edge + 1):
            moved = a[top + down : a.shape[0] - edge + down : 2, edge + right : a.shape[1] - edge + right : 2]
            best = max(best, float(np.corrcoef(moved.ravel(), fixed)[0, 1]))
    return best
