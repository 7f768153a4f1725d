"""What the tests of the command line share: a tiny network that is a model, and small series, both made by other
people's libraries (onnx, pydicom), so that they judge the program from outside."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

MR, CR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.1"
CONTRASTS = {"t1-to-t2": ("T1", "T2"), "t2-to-t1": ("T2", "T1"), "t2-to-stir": ("T2", "STIR"),
             "xray-to-t2": ("XR", "T2"), "super-resolution": ("T2", "T2")}
PHYSICS = {"T1": (550.0, 11.0), "T2": (3500.0, 98.0)}


def facts(task: str, scale: int = 1, grid: str = "any:4", slices: int = 1, **changes: str) -> dict[str, str]:
    source, target = CONTRASTS.get(task, ("T2", "T1"))
    values = {
        "format": "1", "task": task, "version": "0.0.1", "name": f"tiny {task}", "input_contrast": source,
        "output_contrast": target, "input_slices": str(slices), "scale": str(scale), "grid": grid,
        "spacing_mm": "0.3-3.0", "rows": "64-1024", "columns": "48-1024", "normalisation": "percentile 0.5 99.5",
        "output": "source" if scale > 1 else "unit", "training_data": "none: fixed weights for tests",
        "intended_use": "tests of the program", "limits": "shows nothing", "licence": "as the program",
    }
    values.update(changes)
    return {f"spinenode.{k}": v for k, v in values.items() if v is not None}


def make_model(path: Path, task: str = "t2-to-t1", scale: int = 1, grid: str = "any:4", slices: int = 1,
               gain: float = 1.0, broken: bool = False, **changes: str) -> Path:
    """Two 3x3 convolutions with a leaky ReLU between them and a hyperbolic tangent behind; for super-resolution a pixel
    shuffle. gain: of the weights. broken: divides zero by zero."""
    rng = np.random.default_rng(len(task) + scale)
    hidden, out = 6, scale * scale
    first = rng.normal(0, 0.3, (hidden, slices, 3, 3)).astype(np.float32) * np.float32(gain)
    second = rng.normal(0, 0.3, (out, hidden, 3, 3)).astype(np.float32) * np.float32(gain)
    height, width = ("H", "W") if grid.startswith("any") else map(int, grid.split("x"))
    size = [f"{scale}H", f"{scale}W"] if height == "H" else [scale * height, scale * width]
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["c1"], ["a1"], alpha=0.2),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
    ]
    last = "c2"
    if broken:
        nodes += [helper.make_node("Sub", ["c2", "c2"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["c3"])]
        last = "c3"
    if scale > 1:
        nodes.append(helper.make_node("DepthToSpace", [last], ["d"], blocksize=scale, mode="CRD"))
        last = "d"
    nodes.append(helper.make_node("Tanh", [last], ["synthetic"]))
    weights = {"w1": first, "b1": rng.normal(0, 0.1, hidden).astype(np.float32), "w2": second}
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", slices, height, width])],
        [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, ["N", 1, *size])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, facts(task, scale, grid, slices, **changes))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return Path(path)


def picture(rows: int, columns: int, index: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes and a little noise, 12 bits."""
    y, x = np.mgrid[0:rows, 0:columns]
    rng = np.random.default_rng(seed * 1000 + index)
    value = 900 + 700 * np.sin(x / 9 + index) * np.cos(y / 7) + 300 * (np.hypot(x - columns / 2, y - rows / 2) < 20)
    return np.clip(value + rng.normal(0, 15, value.shape), 0, 4095).astype(np.uint16)


def make_series(folder: Path, contrast: str = "T2", slices: int = 5, rows: int = 90, columns: int = 70,
                spacing: float = 0.8, series: str = "2.25.1001", **changes) -> Path:
    """A sagittal lumbar series as a scanner writes it; changes: attributes set over it (None: removed)."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(slices):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = MR
        ds.file_meta.MediaStorageSOPInstanceUID = f"{series}.{i + 1}"
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = MR, f"{series}.{i + 1}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "2.25.1000", series, "2.25.1009"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Secret^Person", "ID-4711", "19700101", "O"
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260101"
        ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
        ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "A1", "1", ""
        ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "MR", "Test", "Test"
        ds.SeriesNumber, ds.InstanceNumber, ds.ImageType = 3, i + 1, ["ORIGINAL", "PRIMARY", "M", "NORM"]
        ds.SeriesDescription, ds.ProtocolName = f"{contrast.lower()} tse sag", "LWS sag"
        ds.BodyPartExamined = "LSPINE"
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", ["SK", "SP"], ""
        ds.MRAcquisitionType, ds.PatientPosition = "2D", "HFS"
        ds.RepetitionTime, ds.EchoTime = PHYSICS[contrast]
        ds.FlipAngle, ds.MagneticFieldStrength, ds.EchoTrainLength = 150, 1.5, 15
        ds.SliceThickness, ds.SpacingBetweenSlices, ds.PixelSpacing = 4, 4.4, [spacing, spacing]
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        # The normal points to the right: slices in the order of their positions along it.
        ds.ImagePositionPatient = [(slices // 2 - i) * 4.4, -rows * spacing / 2, columns * spacing / 2]
        ds.PositionReferenceIndicator = ""
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
            rows, columns, 16, 12, 11, 0)
        ds.PixelData = picture(rows, columns, i).tobytes()
        for key, value in changes.items():
            if value is None:
                delattr(ds, key)
            else:
                setattr(ds, key, value)
        if "ImageOrientationPatient" in changes:  # turned slices follow each other along their own normal
            a = [float(v) for v in ds.ImageOrientationPatient]
            normal = (a[1] * a[5] - a[2] * a[4], a[2] * a[3] - a[0] * a[5], a[0] * a[4] - a[1] * a[3])
            ds.ImagePositionPatient = [4.4 * i * v for v in normal]
        # Names that say nothing about the order.
        name = hashlib.sha256(ds.SOPInstanceUID.encode()).hexdigest()[:8]
        ds.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return folder


def make_radiograph(folder: Path, rows: int = 300, columns: int = 220, spacing: float | None = 0.4, **changes) -> Path:
    """A standing lateral lumbar CR as a room writes it: MONOCHROME1, so that what is stored low is shown bright."""
    folder = make_series(folder, slices=1, rows=rows, columns=columns, series="2.25.2001")
    path, = folder.iterdir()
    ds = dcmread(path)
    for key in ("FrameOfReferenceUID", "PositionReferenceIndicator", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness",
                "SpacingBetweenSlices", "PixelSpacing", "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType",
                "RepetitionTime", "EchoTime", "FlipAngle", "MagneticFieldStrength", "EchoTrainLength", "PatientPosition"):
        delattr(ds, key)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CR
    ds.Modality, ds.ImageType, ds.PhotometricInterpretation = "CR", ["DERIVED", "PRIMARY"], "MONOCHROME1"
    ds.SeriesDescription, ds.ViewPosition, ds.PatientOrientation = "LWS seitlich", "LL", ["P", "F"]
    if spacing is not None:
        ds.ImagerPixelSpacing = [spacing, spacing]
    for key, value in changes.items():
        setattr(ds, key, value)
    ds.save_as(path, enforce_file_format=True)
    return folder


def normalised(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip((volume - low) / (high - low), 0, 1) * 2 - 1).astype(np.float32)
