"""What the tests of the running node share: a toy model, small series, a sender, and what a PACS must end up with."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from harness import proc
from harness.net import wait_for
from harness.node import Node
from harness.send import store
from onnx import TensorProto, helper
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

SIDE = 64


def write_toy_model(path: Path, task: str = "t2-to-t1", version: str = "1.0.0", layers: int = 1) -> str:
    """A small convolutional network that inverts and blurs: what the node does with it is the test. Returns its digest."""
    nodes, weights, name = [], [], "image"
    for i in range(layers):
        last = i == layers - 1
        inputs = 1 if i == 0 else 8
        outputs = 1 if last else 8
        kernel = np.full((outputs, inputs, 3, 3), (-1 if last else 1) / (9 * inputs), np.float32)
        weights.append(helper.make_tensor(f"w{i}", TensorProto.FLOAT, kernel.shape, kernel.tobytes(), raw=True))
        following = "synthetic" if last else f"t{i}"
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [following], pads=[1, 1, 1, 1], kernel_shape=[3, 3]))
        name = following
    graph = helper.make_graph(
        nodes, "toy", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("synthetic", TensorProto.FLOAT, ["n", 1, "h", "w"])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    source, result = {"t2-to-t1": ("T2", "T1"), "t1-to-t2": ("T1", "T2"), "t2-to-stir": ("T2", "STIR")}[task]
    helper.set_model_props(model, {
        "spinenode.format": "1", "spinenode.task": task, "spinenode.version": version, "spinenode.name": "toy for tests",
        "spinenode.input_contrast": source, "spinenode.output_contrast": result, "spinenode.input_slices": "1",
        "spinenode.scale": "1", "spinenode.grid": "any:4", "spinenode.spacing_mm": "0.1-5",
        "spinenode.rows": "16-1024", "spinenode.columns": "16-1024", "spinenode.normalisation": "percentile 0.5 99.5",
        "spinenode.output": "unit", "spinenode.training_data": "none", "spinenode.intended_use": "tests of the node",
        "spinenode.limits": "not for images of people", "spinenode.licence": "MIT"})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def settings(models: Path, **changes) -> dict:
    """A node that has one rule, for the toy model, and is quick about everything."""
    base = {
        "node": {"log_level": "debug"},
        "models": {"folder": str(models)},
        "rules": [{"name": "toy", "match": {"contrast": ["T2"]}, "task": "t2-to-t1", "destinations": ["pacs"]}],
        "completeness": {"quiet_ms": 200},
        "engine": {"name": "ref", "threads": 1},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values} if isinstance(values, dict) else values
    return base


def make_series(uid: str, slices: int = 4, study: str | None = None, side: int = SIDE, **attributes) -> list[Dataset]:
    """A sagittal lumbar T2 TSE series; attributes replace its own."""
    images = []
    random = np.random.default_rng(abs(hash(uid)) % 2**32)
    for i in range(slices):
        ds = Dataset()
        ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = f"{uid}.{i + 1}"
        ds.StudyInstanceUID = study or f"{uid}.0"
        ds.SeriesInstanceUID = uid
        ds.FrameOfReferenceUID = f"{uid}.0.1"
        ds.PatientName, ds.PatientID = "Secret^Patient", "SECRET-ID"
        ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
        ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260101", "120000", "1", "A1"
        ds.ReferringPhysicianName = ""
        ds.Modality, ds.BodyPartExamined, ds.PatientPosition = "MR", "LSPINE", "HFS"
        ds.Manufacturer = "Test"
        ds.SeriesNumber, ds.InstanceNumber = 3, i + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        ds.SeriesDescription = "t2_tse_sag"
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "SK", "", "2D"
        ds.RepetitionTime, ds.EchoTime, ds.FlipAngle, ds.MagneticFieldStrength = 3500, 95, 150, 1.5
        ds.EchoTrainLength = 15
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [-10 + 4 * i, -80, 80]
        ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [1, 1], 4, 4
        ds.SliceLocation = -10 + 4 * i
        ds.Rows = ds.Columns = side
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = random.integers(0, 4000, (side, side), dtype=np.uint16).tobytes()
        for keyword, value in attributes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        images.append(ds)
    return images


def send(port: int, images: list[Dataset], calling: str = "TESTER", called: str = "SPINENODE", timeout: float = 20) -> list[int | None]:
    """C-STORE of each; the statuses, None where no answer came. An association that is not accepted gives all None."""
    try:
        statuses = store(images, port, called=called, calling=calling, timeout=timeout).statuses
    except (OSError, RuntimeError):
        statuses = []
    return statuses + [None] * (len(images) - len(statuses))


# A sender that had no answer for so long asks again.
RESEND_S = 2.5


def send_until_taken(node: Node, images: list[Dataset], seconds: float = 60) -> None:
    """Like a PACS: sends again what was not acknowledged, until all of it was."""
    missing = list(images)

    def taken() -> bool:
        nonlocal missing
        statuses = send(node.port, missing, timeout=RESEND_S)
        missing = [d for d, s in zip(missing, statuses, strict=True) if s != 0]
        return not missing

    wait_for(taken, seconds, "the node to take every instance", pause=0.2)


def jobs_settled(node: Node, jobs: int) -> list[dict] | None:
    """All jobs, once there are so many and each of them and of their deliveries has come to an end."""
    found = node.jobs()["jobs"]
    over = len(found) >= jobs and all(
        j["state"] not in ("waiting", "leased") and all(d["state"] not in ("pending", "sending") for d in j["deliveries"])
        for j in found)
    return found if over else None


def stage_pids(node: Node) -> dict[str, list[int]]:
    """name of the stage -> its processes."""
    stages: dict[str, list[int]] = {}
    for pid in node.processes():
        try:
            name = proc.read(pid, "comm").strip()
        except FileNotFoundError:
            continue
        if name.startswith("spn-"):
            stages.setdefault(name.removeprefix("spn-"), []).append(pid)
    return stages


def check_once(pacs, series: list[str], slices: int) -> None:
    """The PACS holds one synthetic series for each source series, each instance with one content."""
    contents: dict[str, set[str]] = {}
    by_source: dict[str, set[str]] = {}
    for received in pacs.stored:
        ds = received.dataset()
        contents.setdefault(ds.SOPInstanceUID, set()).add(hashlib.sha256(received.part10).hexdigest())
        source = ds.SourceImageSequence[0].ReferencedSOPInstanceUID.rpartition(".")[0]
        by_source.setdefault(source, set()).add(ds.SOPInstanceUID)
    assert all(len(c) == 1 for c in contents.values()), "one UID with several contents"
    assert sorted(by_source) == sorted(series)
    assert {uid: len(instances) for uid, instances in by_source.items()} == {uid: slices for uid in series}
