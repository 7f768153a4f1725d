"""A PACS in this process (pynetdicom): records what arrives and answers as told, failures included."""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from .net import LOOPBACK, free_port

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"


@dataclass(frozen=True)
class Received:
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    calling_ae: str
    when: float  # time.monotonic()
    status: int  # what was answered
    part10: bytes  # the file as a PACS would keep it

    def dataset(self) -> Dataset:
        return dcmread(BytesIO(self.part10))


class Pacs:
    """stored: accepted instances, in order. attempts: all of them, failures too.

    status: an int for every instance, or a callable (sop_instance, attempt number from 1) -> int. delay_s: waited
    before each answer. commitment: answer N-ACTION with a report on an association of its own, towards node_port;
    a callable (list of (class, instance)) -> list of the instance UIDs to report as failed. tls: it listens by TLS;
    tls_client: it calls the node by TLS.
    """

    def __init__(self, ae_title: str = "PACS", syntaxes: list[str] | None = None, node_ae: str = "SPINENODE",
                 node_port: int | None = None, host: str = LOOPBACK, tls: ssl.SSLContext | None = None,
                 tls_client: ssl.SSLContext | None = None):
        self.ae_title = ae_title
        self.port = free_port()
        self.syntaxes = syntaxes or [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        self.node_ae = node_ae
        self.node_port = node_port
        self.host, self.tls, self.tls_client = host, tls, tls_client
        self.status: int | Callable[[str, int], int] = 0
        self.delay_s = 0.0
        self.refuse_callers = False
        self.accept_storage = True
        self.commitment: bool | Callable = True
        self.attempts: list[Received] = []
        self.commitments: list[Dataset] = []
        self.associations = 0
        self._lock = threading.Lock()
        self._server = None

    @property
    def stored(self) -> list[Received]:
        with self._lock:
            return [r for r in self.attempts if r.status == 0 or r.status >> 12 == 0xB]

    def start(self) -> "Pacs":
        ae = AE(ae_title=self.ae_title)
        ae.maximum_associations = 20
        ae.maximum_pdu_size = 131072
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel)
        if self.accept_storage:
            for context in AllStoragePresentationContexts:
                ae.add_supported_context(context.abstract_syntax, self.syntaxes)
        if self.refuse_callers:
            ae.require_calling_aet = ["NOBODY"]
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action), (evt.EVT_ACCEPTED, self._accepted)]
        self._server = ae.start_server((self.host, self.port), block=False, evt_handlers=handlers, ssl_context=self.tls)
        return self

    def stop(self) -> None:
        """Ends at once, also the associations that are open: those of a server alone live on."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    def __enter__(self) -> "Pacs":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def series(self) -> dict[str, list[Dataset]]:
        """The stored data sets by SeriesInstanceUID."""
        by_series: dict[str, list[Dataset]] = {}
        for received in self.stored:
            ds = received.dataset()
            by_series.setdefault(ds.SeriesInstanceUID, []).append(ds)
        return by_series

    def _accepted(self, _event) -> None:
        with self._lock:
            self.associations += 1

    def _store(self, event) -> int:
        request = event.request
        instance = str(request.AffectedSOPInstanceUID)
        if self.delay_s:
            time.sleep(self.delay_s)
        with self._lock:
            nth = 1 + sum(1 for r in self.attempts if r.sop_instance == instance)
            status = self.status(instance, nth) if callable(self.status) else self.status
            self.attempts.append(Received(
                str(request.AffectedSOPClassUID), instance, str(event.context.transfer_syntax),
                event.assoc.requestor.ae_title.strip(), time.monotonic(), status, event.encoded_dataset()))
        return status

    def _action(self, event):
        asked = event.action_information
        with self._lock:
            self.commitments.append(asked)
        if self.commitment and self.node_port:
            threading.Thread(target=self._report, args=(asked,), daemon=True).start()
        return 0x0000, None

    def _report(self, asked: Dataset) -> None:
        items = list(asked.ReferencedSOPSequence)
        failed = set()
        if callable(self.commitment):
            failed = set(self.commitment([(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in items]))
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        good = [i for i in items if i.ReferencedSOPInstanceUID not in failed]
        bad = [i for i in items if i.ReferencedSOPInstanceUID in failed]
        for item in bad:
            item.FailureReason = 0x0112
        if good:
            report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(self.host, self.node_port, ae_title=self.node_ae, ext_neg=[role],
                                   tls_args=(self.tls_client, self.host) if self.tls_client else None)
        if association.is_established:
            association.send_n_event_report(report, 2 if bad else 1, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
            association.release()
