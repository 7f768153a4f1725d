"""A DICOM peer that can lie: PDUs by hand (PS3.8), and data sets in any transfer syntax."""

import socket
import struct
import uuid
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


def uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def image(pixels: int = 64) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MR, uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid(), uid()
    ds.Modality, ds.PatientName, ds.PatientID = "MR", "Test^Net", "TEST"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MR, uid()
    ds.ReferencedImageSequence = Sequence([item])
    ds.Rows = ds.Columns = pixels
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = bytes(range(256)) * (pixels * pixels * 2 // 256)
    ds["PixelData"].VR = "OW"
    return ds


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as it goes over the wire."""
    import zlib

    out = DicomBytesIO()
    out.is_implicit_VR = syntax == ImplicitVRLittleEndian
    out.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(out, ds)
    data = out.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = packer.compress(data) + packer.flush()
    return data + b"\0" * (len(data) % 2)


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def text(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def command(field: int, message: int = 1, data: bool = False, sop_class: str = "", instance: str = "",
            extra: bytes = b"") -> bytes:
    body = b""
    if sop_class:
        body += element(0x00000002, text(sop_class))
    body += element(0x00000100, struct.pack("<H", field)) + element(0x00000110, struct.pack("<H", message))
    if field == 1:
        body += element(0x00000700, b"\0\0")
    body += element(0x00000800, struct.pack("<H", 1 if data else 0x0101))
    if instance:
        body += element(0x00001000, text(instance))
    body += extra
    return element(0x00000000, struct.pack("<I", len(body))) + body


class Reply(dict):
    """A response's command set by tag."""

    @property
    def status(self) -> int:
        return struct.unpack("<H", self[0x0900])[0]

    @property
    def field(self) -> int:
        return struct.unpack("<H", self[0x0100])[0]

    @property
    def comment(self) -> str:
        return self.get(0x0902, b"").decode().strip("\0 ")


class Peer:
    """One connection. contexts: [(SOP class, [syntaxes])], numbered 1, 3, 5 …"""

    def __init__(self, port: int, called: str = "PROBE", calling: str = "RAW", contexts=None, associate: bool = True,
                 host: str = "127.0.0.1", max_pdu: int = 16384, wrap=None):
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if wrap:
            self.socket = wrap(self.socket)
        self.called, self.calling, self.max_pdu = called, calling, max_pdu
        self.contexts = contexts or [(MR, [ExplicitVRLittleEndian])]
        self.accepted: dict[int, str] = {}
        self.results: dict[int, int] = {}
        self.rejected: tuple[int, int, int] | None = None
        if associate:
            self.associate()

    def request(self) -> bytes:
        def item(kind: int, body: bytes) -> bytes:
            return struct.pack(">BBH", kind, 0, len(body)) + body

        body = struct.pack(">HH", 1, 0) + self.called.ljust(16).encode() + self.calling.ljust(16).encode() + b"\0" * 32
        body += item(0x10, b"1.2.840.10008.3.1.1.1")
        for i, (sop_class, syntaxes) in enumerate(self.contexts):
            inner = struct.pack(">BBBB", 2 * i + 1, 0, 0, 0) + item(0x30, sop_class.encode())
            for syntax in syntaxes:
                inner += item(0x40, str(syntax).encode())
            body += item(0x20, inner)
        body += item(0x50, item(0x51, struct.pack(">I", self.max_pdu)) + item(0x52, b"1.2.3.4") + item(0x55, b"RAW"))
        return struct.pack(">BBI", 1, 0, len(body)) + body

    def associate(self) -> None:
        self.socket.sendall(self.request())
        kind, body = self.pdu()
        if kind == 3:
            self.rejected = (body[1], body[2], body[3])
            return
        assert kind == 2, f"PDU type {kind} instead of an answer to the association request"
        at = 68
        while at < len(body):
            item, length = body[at], struct.unpack(">H", body[at + 2:at + 4])[0]
            inner = body[at + 4:at + 4 + length]
            if item == 0x21:
                self.results[inner[0]] = inner[2]
                if inner[2] == 0:
                    n = struct.unpack(">H", inner[6:8])[0]
                    self.accepted[inner[0]] = inner[8:8 + n].decode().strip("\0")
            at += 4 + length

    def _exactly(self, n: int) -> bytes:
        out = b""
        while len(out) < n:
            part = self.socket.recv(n - len(out))
            if not part:
                raise ConnectionError("closed")
            out += part
        return out

    def pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", self._exactly(6))
        return kind, self._exactly(length)

    @staticmethod
    def pdv(context: int, is_command: bool, last: bool, data: bytes) -> bytes:
        return struct.pack(">IBB", len(data) + 2, context, is_command | last << 1) + data

    def send_pdu(self, *pdvs: bytes) -> None:
        body = b"".join(pdvs)
        self.socket.sendall(struct.pack(">BBI", 4, 0, len(body)) + body)

    def send(self, context: int, is_command: bool, data: bytes, step: int = 16000, last: bool = True) -> None:
        pieces = [data[i:i + step] for i in range(0, len(data), step)] or [b""]
        for i, piece in enumerate(pieces):
            self.send_pdu(self.pdv(context, is_command, last and i == len(pieces) - 1, piece))

    def reply(self) -> Reply:
        data = b""
        while True:
            kind, body = self.pdu()
            if kind == 7:
                raise ConnectionAbortedError(f"aborted: source {body[2]} reason {body[3]}")
            assert kind == 4, f"PDU type {kind} instead of data"
            data += body[6:]
            if body[5] & 2:
                break
        reply = Reply()
        at = 0
        while at < len(data):
            _, number, length = struct.unpack("<HHI", data[at:at + 8])
            reply[number] = data[at + 8:at + 8 + length]
            at += 8 + length
        return reply

    def echo(self, context: int = 1) -> Reply:
        self.send(context, True, command(0x30, sop_class=VERIFICATION))
        return self.reply()

    def store(self, data: bytes, instance: str, sop_class: str = MR, context: int = 1, message: int = 1) -> Reply:
        self.send(context, True, command(1, message, True, sop_class, instance))
        self.send(context, False, data)
        return self.reply()

    def release(self) -> None:
        self.socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        kind, _ = self.pdu()
        assert kind == 6
        self.socket.close()

    def abort(self) -> None:
        self.socket.sendall(struct.pack(">BBII", 7, 0, 4, 0))
        self.socket.close()

    def closed(self, seconds: float = 20) -> bool:
        """Waits until the other side has closed (an A-ABORT before that is fine)."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


def data_set_of(part10: bytes) -> bytes:
    """What stands behind the file meta information."""
    stream = BytesIO(part10)
    assert part10[128:132] == b"DICM"
    stream.seek(140)
    return part10[144 + struct.unpack("<I", stream.read(4))[0]:]
