"""The receiver against peers that behave: pynetdicom, DCMTK's tools, Orthanc, and raw PDUs byte for byte."""

import hashlib
import struct
import subprocess

import pytest
from harness.net import wait_for
from harness.send import store
from pydicom import dcmread
from pynetdicom import AE, build_role
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, StorageCommitmentPushModel, Verification

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .raw import MR, SYNTAXES, VERIFICATION, Peer, command, data_set_of, encode, image, uid


def save(ds, path, syntax=ExplicitVRLittleEndian):
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)
    return path


def test_scp__answers_echo_of_pynetdicom_and_dcmtk(scp):
    ae = AE(ae_title="ECHOER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", scp.port, ae_title="PROBE")
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()
    assert scp.wait("end", calling="ECHOER")["end"] == "released"
    subprocess.run(["echoscu", "-aec", "PROBE", "127.0.0.1", str(scp.port)], check=True)
    assert scp.wait("end", calling="ECHOSCU")["end"] == "released"


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_scp__stores_the_data_set_bit_for_bit_in_each_transfer_syntax(scp, syntax):
    ds = image(pixels=256)
    data = encode(ds, syntax)
    peer = Peer(scp.port, contexts=[(MR, [syntax])])
    assert peer.accepted == {1: syntax}
    assert peer.store(data, ds.SOPInstanceUID).status == 0x0000
    peer.release()
    stored = scp.wait("stored")
    part10 = open(stored["path"], "rb").read()
    assert data_set_of(part10) == data
    assert stored["sha256"] == hashlib.sha256(data).hexdigest()
    assert int(stored["bytes"]) == len(part10)
    assert (stored["class"], stored["instance"]) == (MR, ds.SOPInstanceUID)
    assert (stored["study"], stored["series"]) == (ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert (stored["syntax"], stored["calling"], stored["address"]) == (syntax, "RAW", "127.0.0.1")
    read = dcmread(stored["path"])
    assert read.file_meta.TransferSyntaxUID == syntax
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.SourceApplicationEntityTitle == "RAW"
    assert read.pixel_array.shape == (256, 256)


def test_scp__takes_what_pynetdicom_and_dcmtk_send(scp, tmp_path):
    images = [image() for _ in range(5)]
    paths = [save(ds, tmp_path / f"{i}.dcm", ImplicitVRLittleEndian if i % 2 else ExplicitVRLittleEndian)
             for i, ds in enumerate(images)]
    assert store(paths, scp.port, called="PROBE").ok
    for tool in (["storescu", "-aec", "PROBE"], ["dcmsend", "-aec", "PROBE"]):
        subprocess.run([*tool, "127.0.0.1", str(scp.port), *map(str, paths)], check=True)
        end = scp.wait("end", calling=tool[0].upper())
        assert (end["stored"], end["failed"]) == ("5", "0")
    assert {p.stem for p in scp.files()} == {ds.SOPInstanceUID for ds in images}


def test_scp__prefers_explicit_little_endian(scp):
    peer = Peer(scp.port, contexts=[(MR, SYNTAXES), (VERIFICATION, SYNTAXES)])
    assert peer.accepted[1] == ExplicitVRLittleEndian
    assert peer.echo(3).status == 0x0000
    peer.release()


def test_scp__refuses_other_sop_classes_and_compressed_syntaxes_by_context(scp):
    peer = Peer(scp.port, contexts=[(CTImageStorage, [ExplicitVRLittleEndian]), (MR, ["1.2.840.10008.1.2.4.70"]),
                                    (MR, [ExplicitVRLittleEndian])])
    assert peer.results == {1: 3, 3: 4, 5: 0}
    peer.release()
    ae = AE(ae_title="CTONLY")
    ae.add_requested_context(CTImageStorage)
    association = ae.associate("127.0.0.1", scp.port, ae_title="PROBE")
    assert not association.accepted_contexts
    association.abort()


def test_scp__rejects_a_wrong_called_and_an_unknown_calling_title(start_scp):
    scp = start_scp(caller="FRIEND")
    assert Peer(scp.port, called="OTHER", calling="FRIEND").rejected == (1, 1, 7)
    assert scp.wait("refused")["why"] == "called AE title not recognised"
    assert Peer(scp.port, calling="STRANGER").rejected == (1, 1, 3)
    refused = scp.wait("refused")
    assert (refused["calling"], refused["address"]) == ("STRANGER", "127.0.0.1")
    peer = Peer(scp.port, calling="FRIEND")
    assert peer.rejected is None
    peer.release()


def test_scp__passes_the_handlers_status_and_comment_on(start_scp):
    for options, status, comment in (({"done_status": 0xA700}, 0xA700, "as told"),
                                     ({"open_status": 0x0124}, 0x0124, "as told"),
                                     ({"done_status": 0xB000}, 0xB000, "as told")):
        scp = start_scp(**options)
        peer = Peer(scp.port)
        for _ in range(2):
            ds = image()
            reply = peer.store(encode(ds), ds.SOPInstanceUID)
            assert (reply.status, reply.comment) == (status, comment)
            assert reply[0x1000].strip(b"\0").decode() == ds.SOPInstanceUID
        peer.release()
        end = scp.wait("end")
        assert (end["stored"], end["failed"]) == (("2", "0") if status == 0xB000 else ("0", "2"))


def test_scp__answers_only_after_the_handler_is_done(start_scp):
    scp = start_scp(done_ms=700)
    peer = Peer(scp.port)
    ds = image()
    peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    peer.send(1, False, encode(ds))
    peer.socket.settimeout(0.4)
    with pytest.raises(TimeoutError):
        peer.socket.recv(1)
    peer.socket.settimeout(10)
    assert peer.reply().status == 0
    peer.release()


def test_scp__takes_command_and_data_in_one_pdu_and_several_messages_at_once(scp):
    peer = Peer(scp.port)
    images = [image(pixels=16) for _ in range(3)]
    pdvs = []
    for i, ds in enumerate(images):
        pdvs.append(peer.pdv(1, True, True, command(1, i + 1, True, MR, ds.SOPInstanceUID)))
        pdvs.append(peer.pdv(1, False, True, encode(ds)))
    peer.send_pdu(*pdvs)
    assert [peer.reply().status for _ in images] == [0, 0, 0]
    peer.release()
    assert scp.wait("end")["stored"] == "3"


def test_scp__answers_operations_that_it_has_not_as_unrecognised(scp):
    peer = Peer(scp.port)
    for field in (0x20, 0x21, 0x10, 0x130, 0x140):
        peer.send(1, True, command(field, 9, True, MR))
        peer.send(1, False, encode(image(pixels=16)))
        reply = peer.reply()
        assert (reply.field, reply.status) == (field | 0x8000, 0x0211)
    peer.release()


def test_scp__takes_a_commitment_report_with_reversed_roles(scp):
    report = Dataset()
    report.TransactionUID = "2.25.4711"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MR, "1.2.3"
    lost = Dataset()
    lost.ReferencedSOPClassUID, lost.ReferencedSOPInstanceUID, lost.FailureReason = MR, "1.2.4", 0x0112
    report.ReferencedSOPSequence = [item]
    report.FailedSOPSequence = [lost]
    ae = AE(ae_title="REPORTER")
    ae.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    association = ae.associate("127.0.0.1", scp.port, ae_title="PROBE", ext_neg=[role])
    assert association.is_established
    assert association.accepted_contexts[0].as_scp
    status, _ = association.send_n_event_report(report, 2, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
    assert status.Status == 0x0000
    association.release()
    got = scp.wait("commitment")
    assert (got["transaction"], got["committed"], got["failed"]) == ("2.25.4711", "1", "1")


def test_scp__and_scu_commit_with_orthanc(start_scp, scu, tmp_path, orthanc):
    scp = start_scp(ae=orthanc.node_ae)
    orthanc.stop()
    orthanc.routing, orthanc.node_port = False, scp.port
    orthanc.start()
    ds = image()
    path = save(ds, tmp_path / "a.dcm")
    assert scu(orthanc.port, "store", path)[0]["status"] == "0000"
    found = [orthanc.lookup(ds.SOPInstanceUID)]
    assert len(found[0]) == 1
    assert data_set_of(orthanc.file(found[0][0]["ID"])) == data_set_of(path.read_bytes())
    result = scu(orthanc.port, "commit", MR, ds.SOPInstanceUID, MR, uid(), calling=orthanc.node_ae,
                 transaction="2.25.815")
    assert result[0]["error"] == "ok"
    got = scp.wait("commitment")
    assert (got["transaction"], got["committed"], got["failed"]) == ("2.25.815", "1", "1")


def test_scp__takes_a_series_that_orthanc_routes(start_scp, orthanc, scu, tmp_path):
    scp = start_scp(ae=orthanc.node_ae)
    orthanc.stop()
    orthanc.node_port = scp.port
    orthanc.start()
    series = uid()
    paths = []
    for i in range(4):
        ds = image()
        ds.SeriesInstanceUID, ds.StudyInstanceUID = series, "2.25.77"
        paths.append(save(ds, tmp_path / f"{i}.dcm"))
    assert all(r["status"] == "0000" for r in scu(orthanc.port, "store", *paths))
    wait_for(lambda: len(scp.files()) == 4, 30, "the series to come")
    for _ in range(4):
        assert scp.wait("stored")["series"] == series


def test_scp__splits_its_answers_for_a_peer_with_small_pdus(scp):
    peer = Peer(scp.port, max_pdu=64)
    ds = image(pixels=16)
    peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    peer.send(1, False, encode(ds), step=50)
    data = b""
    while True:
        kind, body = peer.pdu()
        assert kind == 4 and len(body) <= 64
        data += body[6:]
        if body[5] & 2:
            break
    assert struct.pack("<HHIH", 0, 0x0900, 2, 0) in data
    peer.release()


def test_scp__listens_on_ipv6(start_scp):
    try:
        scp = start_scp(address="::1")
    except RuntimeError:
        pytest.skip("this machine has no IPv6")
    peer = Peer(scp.port, host="::1")
    assert scp.wait("association")["address"] == "::1"
    peer.release()


def test_scp__supports_mr_in_pynetdicoms_eyes(scp):
    ae = AE()
    ae.add_requested_context(MRImageStorage)
    association = ae.associate("127.0.0.1", scp.port, ae_title="PROBE")
    assert association.is_established and association.send_c_store(image_with_meta()).Status == 0x0000
    association.release()


def image_with_meta():
    ds = image()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds
