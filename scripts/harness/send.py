"""C-STORE and C-ECHO towards the node or a PACS, with pynetdicom: a peer that shares no code with the node."""

import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.sop_class import Verification

from .net import LOOPBACK

_config.USE_SHORT_DIMSE_AET = True


@dataclass
class Sent:
    """What the peer answered: one status per instance, None where the association ended before it answered."""

    statuses: list[int | None] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    established: bool = False
    last_response: float = 0.0  # time.monotonic() of the last response

    @property
    def ok(self) -> bool:
        return self.established and bool(self.statuses) and all(s == 0 for s in self.statuses)


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files (by their preamble) under a folder, in a stable order."""
    found = []
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        with open(path, "rb") as f:
            f.seek(128)
            if f.read(4) == b"DICM":
                found.append(path)
    return found


class _Held:
    """Keeps pynetdicom's reactor thread still for a whole run of requests.

    pynetdicom lets it go after each one, and on a busy machine it then takes the next answer away from the caller
    ("Received unexpected C-STORE service message").
    """

    class _Deaf(threading.Event):
        def set(self) -> None:
            pass

        def clear(self) -> None:
            pass

    def __init__(self, association):
        self.association, self.real = association, association._reactor_checkpoint

    def __enter__(self) -> None:
        self.real.clear()
        while not self.association._is_paused and self.association.is_established:
            time.sleep(0.001)
        time.sleep(0.02)
        self.association._reactor_checkpoint = self._Deaf()

    def __exit__(self, *_) -> None:
        self.association._reactor_checkpoint = self.real
        self.real.set()


def _syntax(item: Path | Dataset) -> tuple[str, str]:
    if isinstance(item, Path):
        head = dcmread(item, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        return head.SOPClassUID, head.file_meta.TransferSyntaxUID
    meta = getattr(item, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:
        return item.SOPClassUID, ExplicitVRLittleEndian
    return item.SOPClassUID, meta.TransferSyntaxUID


def store(items: Iterable[Path | Dataset], port: int, called: str = "SPINENODE", calling: str = "TESTER",
          host: str = LOOPBACK, timeout: float = 60, tls: ssl.SSLContext | None = None) -> Sent:
    """Sends files or data sets over one association, each in the transfer syntax that it has."""
    items = list(items)
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout
    for sop_class, syntax in sorted({_syntax(i) for i in items}):
        ae.add_requested_context(sop_class, syntax)
    sent = Sent()
    association = ae.associate(host, port, ae_title=called, tls_args=(tls, host) if tls else None)
    if not association.is_established:
        return sent
    sent.established = True
    try:
        with _Held(association):
            for item in items:
                try:
                    answer = association.send_c_store(item)
                except (ValueError, RuntimeError, AttributeError) as e:
                    sent.statuses.append(None)
                    sent.comments.append(str(e))
                    continue
                sent.statuses.append(answer.Status if "Status" in answer else None)
                sent.comments.append(answer.get("ErrorComment", "") or "")
                sent.last_response = time.monotonic()
    finally:
        if association.is_established:
            association.release()
    return sent


def echo(port: int, called: str = "SPINENODE", calling: str = "TESTER", host: str = LOOPBACK,
         tls: ssl.SSLContext | None = None) -> bool:
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(Verification)
    association = ae.associate(host, port, ae_title=called, tls_args=(tls, host) if tls else None)
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return "Status" in answer and answer.Status == 0
