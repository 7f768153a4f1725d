"""The test PACSes themselves: a test of the node proves nothing if its peer does not do what it says."""

import numpy as np
import pytest
from harness import rawsend
from harness.net import wait_for
from harness.send import echo, store
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage


@pytest.fixture
def image(new_uid):
    def make(series: str | None = None) -> Dataset:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = new_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID = new_uid(), series or new_uid()
        ds.PatientID, ds.PatientName, ds.Modality = "TEST", "Test^Peer", "OT"
        ds.Rows = ds.Columns = 4
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = np.arange(16, dtype="<u2").tobytes()
        return ds

    return make


def test_pacs__records_what_it_accepts_and_answers_as_told(pacs, image):
    first, second = image(), image()
    assert store([first], pacs.port).statuses == [0x0000]
    pacs.status = lambda _uid, attempt: 0xA700 if attempt == 1 else 0x0000
    assert store([second], pacs.port).statuses == [0xA700]
    assert store([second], pacs.port).statuses == [0x0000]
    assert [r.sop_instance for r in pacs.stored] == [first.SOPInstanceUID, second.SOPInstanceUID]
    assert [r.status for r in pacs.attempts] == [0x0000, 0xA700, 0x0000]
    assert pacs.stored[0].dataset().pixel_array.tolist() == first.pixel_array.tolist()


def test_pacs__refuses_callers_when_told(start_pacs, image):
    pacs = start_pacs()
    assert echo(pacs.port, called=pacs.ae_title)
    pacs.stop()
    pacs.refuse_callers = True
    pacs.start()
    assert not store([image()], pacs.port).established


def test_orthanc__routes_a_stable_series_to_the_node(orthanc, start_pacs, image):
    node = start_pacs(ae_title=orthanc.node_ae)
    orthanc.stop()
    orthanc.node_port = node.port
    orthanc.start()
    ds = image()
    assert store([ds], orthanc.port, called=orthanc.ae_title).ok
    wait_for(lambda: node.stored, 20, "the series to be routed")
    assert node.stored[0].sop_instance == ds.SOPInstanceUID
    assert node.stored[0].calling_ae == orthanc.ae_title


def test_orthanc__does_not_route_back_what_the_node_stored(orthanc, start_pacs, image):
    node = start_pacs(ae_title=orthanc.node_ae)
    orthanc.stop()
    orthanc.node_port = node.port
    orthanc.start()
    own, other = image(), image()
    assert store([own], orthanc.port, called=orthanc.ae_title, calling=orthanc.node_ae).ok
    assert store([other], orthanc.port, called=orthanc.ae_title).ok
    wait_for(lambda: node.stored, 20, "the other series to be routed")
    wait_for(lambda: all(s["IsStable"] for s in orthanc.series()) and orthanc.quiet(), 20, "both series to be stable")
    assert [r.sop_instance for r in node.stored] == [other.SOPInstanceUID]


def test_dcmqrscp__keeps_what_it_is_sent(dcmqrscp, image):
    assert echo(dcmqrscp.port, called=dcmqrscp.ae_title)
    assert store([image()], dcmqrscp.port, called=dcmqrscp.ae_title).ok
    assert len(dcmqrscp.files()) == 1


def test_raw_sender__sends_what_pynetdicom_receives(pacs, image, tmp_path):
    series = "2.25.4711"
    paths = []
    for k in range(3):
        paths.append(tmp_path / f"{k}.dcm")
        dcmwrite(paths[-1], image(series), enforce_file_format=True)
    syntax, items = rawsend.load(paths)
    rate = rawsend.send(pacs.port, pacs.ae_title, syntax, items, associations=2)
    assert rate.instances == 3
    assert {r.sop_instance.encode() for r in pacs.stored} == {i.instance for i in items}
    assert all(r.dataset().pixel_array.tolist() == np.arange(16).reshape(4, 4).tolist() for r in pacs.stored)
