"""A C-STORE sender that is faster than what it measures: PDUs made beforehand, one send per image, no library.

PS3.8 section 9.3 for the PDUs, PS3.7 section 9.3.1 for C-STORE. storescu and pynetdicom are too slow to measure a fast
receiver with.
"""

import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from .net import LOOPBACK

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION = b"2.25.302043790172249692526321623266752743501"
CONTEXT_ID = 1


@dataclass
class Item:
    sop_class: bytes
    instance: bytes
    data: bytes  # the data set as encoded in its transfer syntax


def load(paths: list[Path]) -> tuple[bytes, list[Item]]:
    """The transfer syntax that all have, and the items. One SOP class for all."""
    items, syntaxes = [], set()
    for path in paths:
        meta = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).file_meta
        whole = Path(path).read_bytes()
        # 128 preamble, DICM, then group 0002 whose first element holds the length of the rest of it.
        begin = 132 + 12 + meta.FileMetaInformationGroupLength
        items.append(Item(meta.MediaStorageSOPClassUID.encode(), meta.MediaStorageSOPInstanceUID.encode(), whole[begin:]))
        syntaxes.add(meta.TransferSyntaxUID.encode())
    if len(syntaxes) != 1 or len({i.sop_class for i in items}) != 1:
        raise ValueError("one transfer syntax and one SOP class at a time")
    return syntaxes.pop(), items


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _associate(called: str, calling: str, sop_class: bytes, syntax: bytes) -> bytes:
    context = _item(0x20, struct.pack(">BBBB", CONTEXT_ID, 0, 0, 0) + _item(0x30, sop_class) + _item(0x40, syntax))
    user = _item(0x50, _item(0x51, struct.pack(">I", 0)) + _item(0x52, IMPLEMENTATION))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + _item(0x10, APPLICATION_CONTEXT) + context + user
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _element(tag: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, tag, len(value)) + value


def _command(item: Item, message: int) -> bytes:
    rest = (_element(0x0002, item.sop_class) + _element(0x0100, struct.pack("<H", 1)) + _element(0x0110, struct.pack("<H", message))
            + _element(0x0700, struct.pack("<H", 0)) + _element(0x0800, struct.pack("<H", 1)) + _element(0x1000, item.instance))
    return _element(0x0000, struct.pack("<I", len(rest))) + rest


def _pdata(header: int, body: bytes) -> bytes:
    return struct.pack(">BBIIBB", 4, 0, len(body) + 6, len(body) + 2, CONTEXT_ID, header) + body


def message(item: Item, number: int, max_pdu: int) -> bytes:
    """The whole C-STORE request as it goes on the wire."""
    step = (max_pdu or 1 << 20) - 6
    parts = [_pdata(0x03, _command(item, number))]
    for at in range(0, len(item.data), step):
        last = at + step >= len(item.data)
        parts.append(_pdata(0x02 if last else 0x00, item.data[at : at + step]))
    return b"".join(parts)


class Association:
    """One association for one SOP class in one transfer syntax."""

    def __init__(self, port: int, called: str, sop_class: bytes, syntax: bytes, calling: str = "TESTER", host: str = LOOPBACK):
        self.socket = socket.create_connection((host, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_associate(called, calling, sop_class, syntax))
        kind, body = self._read()
        if kind != 2:
            self.socket.close()
            raise ConnectionError(f"association refused (PDU type {kind})")
        self.max_pdu = 0
        at = 68
        while at + 4 <= len(body):
            kind, _, length = struct.unpack_from(">BBH", body, at)
            if kind == 0x21 and body[at + 6] != 0:
                raise ConnectionError(f"presentation context refused ({body[at + 6]})")
            if kind == 0x50:
                at, length = at, 0  # its items follow
            if kind == 0x51:
                self.max_pdu = struct.unpack_from(">I", body, at + 4)[0]
            at += 4 + length

    def _read(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        return head[0], self._exactly(struct.unpack(">I", head[2:])[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the peer closed the connection")
            data += part
        return data

    def store(self, wire: bytes) -> int:
        """Sends one prepared message; the status of the answer."""
        self.socket.sendall(wire)
        kind, body = self._read()
        if kind != 4:
            raise ConnectionError(f"PDU type {kind} instead of an answer")
        at = 6
        while at + 8 <= len(body):
            group, element, length = struct.unpack_from("<HHI", body, at)
            if (group, element) == (0x0000, 0x0900):
                return struct.unpack_from("<H", body, at + 8)[0]
            at += 8 + length
        raise ConnectionError("an answer without a status")

    def release(self) -> None:
        self.socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        try:
            self._read()
        except ConnectionError:
            pass
        self.socket.close()


@dataclass
class Rate:
    seconds: float  # from the first byte to the last response
    instances: int
    bytes: int
    last_response: float  # time.monotonic()

    @property
    def per_second(self) -> float:
        return self.instances / self.seconds


def send(port: int, called: str, syntax: bytes, items: list[Item], associations: int = 1, calling: str = "TESTER") -> Rate:
    """Sends all items, split over so many associations at once. ConnectionError at the first status that is not 0."""
    links = [Association(port, called, items[0].sop_class, syntax, calling) for _ in range(associations)]
    wires = [[message(item, n % 65535 + 1, link.max_pdu) for n, item in enumerate(items[k::associations])]
             for k, link in enumerate(links)]
    failures: list[str] = []

    def work(link: Association, mine: list[bytes]) -> None:
        try:
            for wire in mine:
                status = link.store(wire)
                if status != 0:
                    raise ConnectionError(f"status {status:04X}")
        except OSError as e:
            failures.append(str(e))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(links, wires, strict=True)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic()
    if failures:
        raise ConnectionError(failures[0])
    for link in links:
        link.release()
    return Rate(end - began, len(items), sum(len(i.data) for i in items), end)
