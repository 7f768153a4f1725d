"""The sender against pynetdicom answering as told, Orthanc, dcmqrscp, storescp and peers that misbehave."""

import socket
import struct
import threading
import time

import pytest
from harness.net import LOOPBACK, free_port, listens, wait_for
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from .raw import MR, SYNTAXES, data_set_of, encode, image, uid
from .test_scp import save


@pytest.fixture
def file(tmp_path):
    def make(ds=None, syntax=ExplicitVRLittleEndian):
        ds = ds or image()
        return save(ds, tmp_path / f"{ds.SOPInstanceUID}.dcm", syntax)

    return make


def test_scu__echoes_pynetdicom_and_orthanc(pacs, orthanc, scu):
    for peer in (pacs, orthanc):
        assert scu(peer.port, "echo", called=peer.ae_title, repeat=2)[1]["error"] == "ok"


@pytest.mark.parametrize(("status", "error", "transient", "warning"), [
    (0x0000, "ok", "no", "no"),
    (0xB000, "ok", "no", "yes"), (0xB006, "ok", "no", "yes"), (0xB007, "ok", "no", "yes"), (0x0111, "ok", "no", "yes"),
    (0xA700, "peer_busy", "yes", "no"), (0xA7FF, "peer_busy", "yes", "no"), (0x0110, "peer_busy", "yes", "no"),
    (0x0213, "peer_busy", "yes", "no"),
    (0xA900, "peer_refused", "no", "no"), (0xA9FE, "peer_refused", "no", "no"),
    (0xC000, "peer_refused", "no", "no"), (0xCABC, "peer_refused", "no", "no"),
    (0x0122, "peer_refused", "no", "no"), (0x0124, "peer_refused", "no", "no"), (0x0117, "peer_refused", "no", "no"),
])
def test_scu__tells_what_each_status_means(pacs, scu, file, status, error, transient, warning):
    pacs.status = status
    first, second = file(), file()
    results = scu(pacs.port, "store", first, second)
    assert len(results) == 2 and len(pacs.attempts) == 2
    for result in results:
        assert (result["error"], result["transient"]) == (error, transient)
        assert (result["status"], result["warning"]) == (f"{status:04X}", warning)
        assert error == "ok" or f"{status:04X}" in result["why"]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_scu__sends_each_transfer_syntax_bit_for_bit(start_scp, scu, tmp_path, syntax):
    scp = start_scp()
    ds = image(pixels=512)
    path = tmp_path / "sent.dcm"
    save(ds, path)
    data = encode(ds, syntax)
    meta = path.read_bytes()
    meta = meta[:len(meta) - len(data_set_of(meta))]
    field = b"\x02\x00\x10\x00UI"
    at = meta.index(field) + len(field)
    length = struct.unpack("<H", meta[at:at + 2])[0]
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = meta[:at] + struct.pack("<H", len(value)) + value + meta[at + 2 + length:]
    meta = meta[:140] + struct.pack("<I", len(meta) - 144) + meta[144:]
    path.write_bytes(meta + data)
    assert scu(scp.port, "store", path, called="PROBE")[0]["error"] == "ok"
    stored = scp.wait("stored")
    assert stored["syntax"] == syntax
    assert data_set_of(open(stored["path"], "rb").read()) == data


def test_scu__stores_in_orthanc_dcmqrscp_and_storescp(orthanc, dcmqrscp, scu, file):
    paths = [file(image(pixels=512)) for _ in range(3)]
    for peer in (orthanc, dcmqrscp):
        assert all(r["error"] == "ok" for r in scu(peer.port, "store", *paths, called=peer.ae_title))
    assert len(dcmqrscp.files()) == 3
    assert len(orthanc.get("/instances")) == 3


def test_scu__counts_a_series_where_the_peer_knows_the_number_and_where_not(orthanc, dcmqrscp, scu, file):
    study, series = uid(), uid()
    paths = []
    for _ in range(7):
        ds = image(pixels=16)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        paths.append(file(ds))
    ds = image(pixels=16)
    ds.StudyInstanceUID = study
    paths.append(file(ds))
    for peer in (orthanc, dcmqrscp):
        assert all(r["error"] == "ok" for r in scu(peer.port, "store", *paths, called=peer.ae_title))
        result = scu(peer.port, "count", study, series, called=peer.ae_title, calling=peer.node_ae)[0]
        assert (result["error"], result["what"]) == ("ok", "7"), result["why"]
        nothing = scu(peer.port, "count", study, uid(), called=peer.ae_title, calling=peer.node_ae)[0]
        assert (nothing["error"], nothing["what"]) == ("ok", "0")


def test_scu__is_not_deceived_by_a_peer_that_ignores_the_key(scu):
    ae = AE(ae_title="PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    series = uid()

    def find(event):
        for wanted, number in ((uid(), 5), (series, 3), (uid(), 9)):
            answer = event.identifier
            answer.SeriesInstanceUID, answer.NumberOfSeriesRelatedInstances = wanted, number
            yield 0xFF00, answer

    server = ae.start_server((LOOPBACK, free_port()), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        port = server.server_address[1]
        assert scu(port, "count", uid(), series)[0]["what"] == "3"
        failing = [(evt.EVT_C_FIND, lambda _event: iter([(0xA700, None)]))]
        server.shutdown()
        server = ae.start_server((LOOPBACK, free_port()), block=False, evt_handlers=failing)
        result = scu(server.server_address[1], "count", uid(), series)[0]
        assert (result["error"], result["transient"]) == ("peer_busy", "yes")
    finally:
        server.shutdown()


def test_scu__says_why_an_association_was_rejected(start_pacs, start_scp, scu):
    pacs = start_pacs()
    pacs.stop()
    pacs.refuse_callers = True
    pacs.start()
    result = scu(pacs.port, "echo")[0]
    assert (result["error"], result["transient"]) == ("peer_refused", "no")
    assert "calling" in result["why"]
    scp = start_scp(associations=1)
    result = scu(scp.port, "echo", called="NOT_IT")[0]
    assert result["error"] == "peer_refused" and "AE title" in result["why"]
    holder = socket.create_connection((LOOPBACK, scp.port))
    holder.close()
    from .raw import Peer

    peer = Peer(scp.port)
    result = scu(scp.port, "echo", called="PROBE")[0]
    assert (result["error"], result["transient"]) == ("peer_busy", "yes")
    assert "limit" in result["why"]
    peer.release()


def test_scu__ends_at_once_when_no_context_is_accepted(start_pacs, scu, file):
    pacs = start_pacs()
    pacs.stop()
    pacs.accept_storage = False
    pacs.start()
    result = scu(pacs.port, "store", file(), file())
    assert [r["what"] for r in result] == ["open"], "nothing was to be tried on an association that accepts nothing"
    assert (result[0]["error"], result[0]["transient"]) == ("peer_refused", "no")


def test_scu__converts_to_implicit_vr_for_a_peer_that_takes_nothing_else(start_pacs, scu, file):
    pacs = start_pacs(syntaxes=[ImplicitVRLittleEndian])
    ds = image(pixels=512)
    ds.AnatomicRegionSequence = [Dataset()]
    ds.AnatomicRegionSequence[0].CodeMeaning = "lumbar spine"
    ds.RequestAttributesSequence = []
    ds.add_new(0x00091010, "UN", b"\x01\x02\x03\x04")
    explicit, implicit = file(ds), file(syntax=ImplicitVRLittleEndian)
    assert [r["error"] for r in scu(pacs.port, "store", explicit, implicit)] == ["ok", "ok"]
    got = pacs.stored[0]
    assert got.transfer_syntax == ImplicitVRLittleEndian
    received = got.dataset()
    received[0x00091010].VR = "UN"
    assert received == dcmread(explicit)


def test_scu__refuses_what_the_peer_did_not_accept_and_goes_on(start_pacs, scu, file):
    pacs = start_pacs(syntaxes=[ExplicitVRLittleEndian])
    implicit, explicit = file(syntax=ImplicitVRLittleEndian), file()
    results = scu(pacs.port, "store", implicit, explicit)
    assert (results[0]["error"], results[0]["transient"]) == ("peer_refused", "no")
    assert "presentation context" in results[0]["why"]
    assert results[1]["error"] == "ok"


def test_scu__never_begins_to_send_a_broken_file(pacs, scu, file, tmp_path):
    whole = file().read_bytes()
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(whole[:-100])
    other = tmp_path / "other.txt"
    other.write_text("no DICOM")
    good = file()
    results = scu(pacs.port, "store", broken, other, tmp_path / "absent.dcm", tmp_path, good)
    assert [r["error"] for r in results] == ["invalid", "invalid", "not_found", "io", "ok"]
    assert str(broken) in results[0]["why"]
    assert len(pacs.attempts) == 1


def test_scu__calls_a_peer_that_is_not_there_transient(scu):
    result = scu(free_port(), "echo")[0]
    assert (result["error"], result["transient"]) == ("network", "yes")
    assert "refused" in result["why"]
    result = scu(104, "echo", host="no-such-host.invalid")[0]
    assert (result["error"], result["transient"]) == ("network", "yes")


def test_scu__does_not_wait_for_ever_to_be_connected(scu):
    """A host behind a wall that drops packets: here, a listener whose queue is full."""
    with socket.socket() as full:
        full.bind((LOOPBACK, 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for s in waiting:
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        start = time.monotonic()
        result = scu(full.getsockname()[1], "echo", connect_ms=700)[0]
        assert 0.6 < time.monotonic() - start < 5
        assert (result["error"], result["transient"]) == ("timeout", "yes")
        for s in waiting:
            s.close()


class Misbehaving:
    """A server that runs act(socket, connection number) in a thread for each connection."""

    def __init__(self, act):
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = self.listener.getsockname()[1]
        self.act = act
        self.count = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection) -> None:
        with connection:
            try:
                self.act(connection)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def accept(connection) -> None:
    """Reads an A-ASSOCIATE-RQ and accepts all its contexts, each with its first syntax."""
    head = connection.recv(6, socket.MSG_WAITALL)
    body = connection.recv(struct.unpack(">I", head[2:])[0], socket.MSG_WAITALL)
    at = 68
    answer = body[:68] + struct.pack(">BBH", 0x10, 0, 21) + b"1.2.840.10008.3.1.1.1"
    while at < len(body):
        kind, length = body[at], struct.unpack(">H", body[at + 2:at + 4])[0]
        inner = body[at + 4:at + 4 + length]
        if kind == 0x20:
            n = struct.unpack(">H", inner[6:8])[0]
            skip = 8 + n
            m = struct.unpack(">H", inner[skip + 2:skip + 4])[0]
            syntax = inner[skip:skip + 4 + m]
            answer += struct.pack(">BBHBBBB", 0x21, 0, 4 + len(syntax), inner[0], 0, 0, 0) + syntax
        at += 4 + length
    user = struct.pack(">BBHI", 0x51, 0, 4, 16384) + struct.pack(">BBH", 0x52, 0, 7) + b"1.2.3.4"
    answer += struct.pack(">BBH", 0x50, 0, len(user)) + user
    connection.sendall(struct.pack(">BBI", 2, 0, len(answer)) + answer)


def test_scu__does_not_wait_for_ever_at_any_stage(scu, file):
    path = file(image(pixels=1024))

    def silent(connection):
        time.sleep(20)

    def accepts_and_sleeps(connection):
        accept(connection)
        time.sleep(20)

    def accepts_and_reads(connection):
        accept(connection)
        while connection.recv(65536):
            pass

    def accepts_and_trickles(connection):
        """Never silent for long, and never done with its answer."""
        accept(connection)
        connection.settimeout(0.2)
        connection.sendall(struct.pack(">BBI", 4, 0, 4000))
        while True:
            try:
                connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"\0")

    for act in (silent, accepts_and_sleeps, accepts_and_reads, accepts_and_trickles):
        with Misbehaving(act) as peer:
            start = time.monotonic()
            result = scu(peer.port, "store", path, connect_ms=1000, response_ms=1000)[0]
            assert time.monotonic() - start < 8
            assert (result["error"], result["transient"]) == ("timeout", "yes"), act.__name__


def test_scu__calls_it_a_network_error_when_the_peer_breaks_off(scu, file):
    path = file(image(pixels=1024))

    def closes(connection):
        pass

    def accepts_and_closes(connection):
        accept(connection)

    def aborts_amid(connection):
        accept(connection)
        connection.recv(200000)
        connection.sendall(struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 2, 0))
        time.sleep(0.2)

    def talks_nonsense(connection):
        accept(connection)
        connection.recv(100)
        connection.sendall(b"\x04\0\0\0\0\x10" + b"\xff" * 16)
        time.sleep(0.5)

    def not_dicom(connection):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    for act in (closes, accepts_and_closes, aborts_amid, talks_nonsense, not_dicom):
        with Misbehaving(act) as peer:
            results = scu(peer.port, "store", path, path, connect_ms=3000, response_ms=3000)
            assert all((r["error"], r["transient"]) == ("network", "yes") for r in results), (act.__name__, results)


def test_scu__does_not_take_another_answer_for_its_own(scu, file):
    def lies(connection):
        accept(connection)
        connection.recv(100000)
        body = struct.pack("<HHIH", 0, 0x0100, 2, 0x8001) + struct.pack("<HHIH", 0, 0x0120, 2, 999)
        body += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHIH", 0, 0x0900, 2, 0)
        body = struct.pack("<HHII", 0, 0, 4, len(body)) + body
        pdv = struct.pack(">IBB", len(body) + 2, 1, 3) + body
        connection.sendall(struct.pack(">BBI", 4, 0, len(pdv)) + pdv)
        time.sleep(1)

    with Misbehaving(lies) as peer:
        result = scu(peer.port, "store", file(), connect_ms=3000, response_ms=3000)[0]
        assert result["error"] == "network"


def test_scu__takes_a_commitment_report_on_the_association_that_asked(scu):
    def act(connection):
        accept(connection)
        data = b""
        while b"2.25.31" not in data:
            data += connection.recv(65536)
        response = struct.pack("<HHI", 0, 0x0002, 20) + b"1.2.840.10008.1.20.1"
        response += struct.pack("<HHIH", 0, 0x0100, 2, 0x8130) + struct.pack("<HHIH", 0, 0x0120, 2, 1)
        response += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHIH", 0, 0x0900, 2, 0)
        report = struct.pack("<HHI", 0, 0x0002, 20) + b"1.2.840.10008.1.20.1"
        report += struct.pack("<HHIH", 0, 0x0100, 2, 0x0100) + struct.pack("<HHIH", 0, 0x0110, 2, 5)
        report += struct.pack("<HHIH", 0, 0x0800, 2, 1)
        report += struct.pack("<HHI", 0, 0x1000, 22) + b"1.2.840.10008.1.20.1.1"
        report += struct.pack("<HHIH", 0, 0x1002, 2, 1)
        item = struct.pack("<HHI", 8, 0x1150, 4) + b"1.9\0" + struct.pack("<HHI", 8, 0x1155, 6) + b"1.2.3\0"
        sequence = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
        body = struct.pack("<HHI", 8, 0x1195, 8) + b"2.25.31\0" + struct.pack("<HHI", 8, 0x1199, len(sequence)) + sequence
        for kind, payload in ((3, response), (3, report), (2, body)):
            if kind == 3:
                payload = struct.pack("<HHII", 0, 0, 4, len(payload)) + payload
            pdv = struct.pack(">IBB", len(payload) + 2, 1, kind) + payload
            connection.sendall(struct.pack(">BBI", 4, 0, len(pdv)) + pdv)
        acknowledged = b""
        release = struct.pack(">BBII", 5, 0, 4, 0)
        while not acknowledged.endswith(release):
            acknowledged += connection.recv(65536)
        assert struct.pack("<HHIH", 0, 0x0100, 2, 0x8100) in acknowledged
        connection.sendall(struct.pack(">BBII", 6, 0, 4, 0))

    with Misbehaving(act) as peer:
        results = scu(peer.port, "commit", "1.9", "1.2.3", transaction="2.25.31", wait_ms=5000)
    assert [r.get("error") for r in results] == ["ok", "ok", None]
    assert (results[2]["transaction"], results[2]["committed"]) == ("2.25.31", "1")


def test_scu__reaches_a_peer_with_the_smallest_pdu(scu, tmp_path, file):
    import subprocess

    port = free_port()
    folder = tmp_path / "out"
    folder.mkdir()
    server = subprocess.Popen(["storescp", str(port), "-pdu", "4096", "-od", str(folder)])
    try:
        wait_for(lambda: listens(port), 10, "storescp")
        path = file(image(pixels=512))
        assert scu(port, "store", path)[0]["error"] == "ok"
        stored = next(p for p in folder.iterdir())
        assert dcmread(stored).PixelData == dcmread(path).PixelData
    finally:
        server.terminate()
        server.wait()


def test_scu__sees_mr_as_mr(pacs, scu, file):
    scu(pacs.port, "store", file())
    assert pacs.stored[0].calling_ae == "PROBE"
    assert pacs.stored[0].dataset().SOPClassUID == MR
