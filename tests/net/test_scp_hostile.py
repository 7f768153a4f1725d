"""The receiver against peers that lie, stall, break off or ask for too much."""

import os
import socket
import struct
import threading
import time

import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .raw import MR, SYNTAXES, VERIFICATION, Peer, command, element, encode, image, uid


def still_serves(scp) -> None:
    peer = Peer(scp.port, contexts=[(VERIFICATION, [ImplicitVRLittleEndian])])
    assert peer.echo().status == 0x0000
    peer.release()


def test_scp__survives_300000_nested_sequences_in_a_command_set(scp):
    nested = (struct.pack("<HHI", 0x0000, 0x0902, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 300000
    peer = Peer(scp.port)
    with pytest.raises(OSError):
        peer.send(1, True, command(1, 1, True, MR, uid()) + nested)
        peer.reply()
    assert scp.wait("end")["end"] == "protocol error"
    # within the bound of a command set
    peer = Peer(scp.port)
    with pytest.raises(OSError):
        peer.send(1, True, command(1, 1, True, MR, uid()) + nested[:15000])
        peer.reply()
    still_serves(scp)


def test_scp__refuses_nested_data_sets_before_any_parser(scp):
    head = encode(image(pixels=16))[:-512]
    for syntax, sequence in (
        (ExplicitVRLittleEndian, struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)),
        (ImplicitVRLittleEndian, struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF)),
    ):
        ds = image(pixels=16)
        head = encode(ds, syntax)
        nested = (sequence + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 10000
        peer = Peer(scp.port, contexts=[(MR, [syntax])])
        reply = peer.store(head + nested, ds.SOPInstanceUID)
        assert reply.status == 0xC002
        assert "nested" in reply.comment
        assert peer.store(head, ds.SOPInstanceUID).status == 0x0000
        peer.release()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda s: s.name)
def test_scp__answers_c0xx_to_a_truncated_data_set_and_keeps_nothing(scp, syntax):
    peer = Peer(scp.port, contexts=[(MR, [syntax])])
    ds = image()
    data = encode(ds, syntax)
    for cut in (2, 100, len(data) // 2, len(data) - 2):
        reply = peer.store(data[:cut], ds.SOPInstanceUID)
        assert reply.status == 0xC001, f"cut at {cut}"
        assert scp.wait("not_stored")["status"] == "C001"
    assert peer.store(b"", ds.SOPInstanceUID).status in (0xA900, 0xC001)
    assert scp.files() == []
    assert peer.store(data, ds.SOPInstanceUID).status == 0x0000
    peer.release()


def test_scp__answers_a900_when_data_set_and_command_contradict(scp):
    peer = Peer(scp.port, contexts=[(MR, [ExplicitVRLittleEndian]), ("1.2.840.10008.5.1.4.1.1.7", [ExplicitVRLittleEndian])])
    ds = image()
    assert peer.store(encode(ds), uid()).status == 0xA900
    assert peer.store(encode(ds), ds.SOPInstanceUID, sop_class="1.2.840.10008.5.1.4.1.1.7", context=3).status == 0xA900
    for missing in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        lacking = image()
        instance = lacking.SOPInstanceUID
        delattr(lacking, missing)
        reply = peer.store(encode(lacking), instance)
        assert reply.status == 0xA900 and missing in reply.comment
    assert scp.files() == []
    peer.release()


def test_scp__answers_0122_to_a_class_that_is_not_the_contexts(scp):
    peer = Peer(scp.port)
    ds = image()
    assert peer.store(encode(ds), ds.SOPInstanceUID, sop_class="1.2.840.10008.5.1.4.1.1.7").status == 0x0122
    assert peer.store(encode(ds), ds.SOPInstanceUID).status == 0x0000
    peer.release()


def test_scp__refuses_a_data_set_in_another_syntax_than_negotiated(scp):
    peer = Peer(scp.port)
    ds = image()
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        assert peer.store(encode(ds, syntax), ds.SOPInstanceUID).status >> 12 == 0xC
    peer.release()


@pytest.mark.parametrize("bad", ["data first", "unknown context", "response", "other context", "no data flag",
                                 "empty fragments", "garbage command", "unknown pdu", "huge pdu", "pdv length"])
def test_scp__ends_the_association_when_the_protocol_is_broken(scp, bad):
    peer = Peer(scp.port, contexts=[(MR, [ExplicitVRLittleEndian]), (VERIFICATION, [ImplicitVRLittleEndian])])
    ds = image()
    try:
        if bad == "data first":
            peer.send(1, False, encode(ds))
        elif bad == "unknown context":
            peer.send(7, True, command(0x30, sop_class=VERIFICATION))
        elif bad == "response":
            peer.send(1, True, command(0x8001) + element(0x00000900, b"\0\0"))
        elif bad == "other context":
            peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
            peer.send(3, False, encode(ds))
        elif bad == "no data flag":
            peer.send(1, True, command(1, 1, False, MR, ds.SOPInstanceUID))
        elif bad == "empty fragments":
            peer.send_pdu(peer.pdv(1, True, False, b""))
        elif bad == "garbage command":
            peer.send(1, True, os.urandom(300))
        elif bad == "unknown pdu":
            peer.socket.sendall(b"\x42\0\0\0\0\4abcd")
        elif bad == "huge pdu":
            peer.socket.sendall(struct.pack(">BBI", 4, 0, 0xFFFFFFF0))
        elif bad == "pdv length":
            peer.socket.sendall(struct.pack(">BBII", 4, 0, 4, 0xFFFFFFFF))
    except OSError:
        pass
    assert peer.closed()
    assert scp.wait("end")["end"] == "protocol error"
    assert scp.files() == []
    still_serves(scp)


def test_scp__is_not_troubled_by_noise_instead_of_an_association_request(scp):
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(2000), b"\x01\0\0\0\xff\xff" + os.urandom(65535), b"",
                  struct.pack(">BBI", 1, 0, 0xFFFFFFFF)):
        with socket.create_connection(("127.0.0.1", scp.port), timeout=20) as s:
            s.sendall(noise)
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except OSError:
                pass
        scp.wait("refused")
    good = Peer(scp.port, associate=False).request()
    for cut in range(0, len(good), 7):
        with socket.create_connection(("127.0.0.1", scp.port), timeout=20) as s:
            s.sendall(good[:cut])
    still_serves(scp)


def test_scp__a_silent_connection_blocks_nobody_and_is_ended(start_scp):
    scp = start_scp(negotiation_ms=1500)
    silent = [socket.create_connection(("127.0.0.1", scp.port)) for _ in range(10)]
    start = time.monotonic()
    still_serves(scp)
    assert time.monotonic() - start < 1.0
    for s in silent:
        s.settimeout(20)
        assert s.recv(1) == b""
    assert time.monotonic() - start >= 1.4
    half = Peer(scp.port, associate=False)
    half.socket.sendall(half.request()[:40])
    assert half.closed()


def test_scp__makes_room_for_a_new_connection_when_silent_ones_fill_it(start_scp):
    scp = start_scp(negotiation_ms=60000, associations=4)
    silent = [socket.create_connection(("127.0.0.1", scp.port)) for _ in range(150)]
    still_serves(scp)
    for s in silent:
        s.close()


def test_scp__ends_idle_and_trickling_associations(start_scp):
    scp = start_scp(idle_ms=500)
    peer = Peer(scp.port)
    assert peer.closed()
    assert scp.wait("end")["end"] == "idle too long"
    peer = Peer(scp.port)
    ds = image()
    peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    peer.send(1, False, encode(ds)[:1000], last=False)
    assert peer.closed()
    assert scp.wait("end")["end"] == "idle too long"
    assert scp.files() == []

    slow = start_scp(message_ms=1500)
    peer = Peer(slow.port)
    peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    stop = time.monotonic() + 15
    try:
        while time.monotonic() < stop:
            peer.send_pdu(peer.pdv(1, False, False, b"\0\0"))
            time.sleep(0.1)
    except OSError:
        pass
    assert time.monotonic() < stop
    assert slow.wait("end")["end"] == "message too slow"


def test_scp__answers_a700_when_the_disk_is_full_and_goes_on(start_scp):
    scp = start_scp(sink="/dev/full")
    peer = Peer(scp.port)
    for _ in range(2):
        ds = image(pixels=256)
        reply = peer.store(encode(ds), ds.SOPInstanceUID)
        assert (reply.status, reply.comment) == (0xA700, "disk full")
        assert scp.wait("not_stored")["status"] == "A700"
    peer.release()
    still_serves(scp)


def test_scp__answers_c003_to_what_is_larger_than_the_limit(start_scp):
    scp = start_scp(instance_bytes=20000)
    peer = Peer(scp.port)
    ds = image(pixels=128)
    assert peer.store(encode(ds), ds.SOPInstanceUID).status == 0xC003
    assert scp.files() == []
    small = image(pixels=32)
    assert peer.store(encode(small), small.SOPInstanceUID).status == 0x0000
    with pytest.raises(OSError):
        peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
        for _ in range(1000):
            peer.send(1, False, b"\0" * 10000, last=False)
        peer.reply()
    still_serves(scp)


def test_scp__rejects_associations_beyond_the_limit_for_now(start_scp):
    scp = start_scp(associations=2)
    first, second = Peer(scp.port), Peer(scp.port)
    assert Peer(scp.port).rejected == (2, 3, 2)
    assert "limit" in scp.wait("refused")["why"]
    ds = image()
    assert first.store(encode(ds), ds.SOPInstanceUID).status == 0x0000
    first.release()
    scp.wait("end")
    deadline = time.monotonic() + 10
    while True:
        third = Peer(scp.port)
        if third.rejected is None or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert third.rejected is None
    second.release()
    third.release()


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_scp__keeps_nothing_of_a_transfer_that_breaks_off(scp, how):
    peer = Peer(scp.port)
    ds = image(pixels=256)
    peer.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    peer.send(1, False, encode(ds)[:60000], last=False)
    if how == "abort":
        peer.abort()
    elif how == "close":
        peer.socket.close()
    else:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
    gone = scp.wait("not_stored")
    assert (gone["instance"], gone["status"]) == (ds.SOPInstanceUID, "0000")
    assert scp.wait("end")["end"] == ("aborted by peer" if how == "abort" else "connection lost")
    assert scp.files() == []
    still_serves(scp)


def test_scp__stops_at_once_when_idle(start_scp):
    scp = start_scp(grace_ms=20000)
    idle, negotiating = Peer(scp.port), Peer(scp.port, associate=False)
    scp.wait("association")
    start = time.monotonic()
    scp.begin_stop()
    assert idle.closed()
    assert negotiating.closed()
    assert scp.stop() == 0
    assert time.monotonic() - start < 3
    with pytest.raises(OSError):
        Peer(scp.port)


def test_scp__lets_a_transfer_finish_when_stopped_and_ends_one_that_does_not(start_scp):
    scp = start_scp(grace_ms=2500)
    good, stuck = Peer(scp.port), Peer(scp.port)
    ds, other = image(pixels=256), image()
    data = encode(ds)
    good.send(1, True, command(1, 1, True, MR, ds.SOPInstanceUID))
    good.send(1, False, data[:16000], last=False)
    stuck.send(1, True, command(1, 1, True, MR, other.SOPInstanceUID))
    stuck.send(1, False, encode(other)[:500], last=False)
    time.sleep(0.3)
    start = time.monotonic()
    scp.begin_stop()
    time.sleep(0.3)
    good.send(1, False, data[16000:])
    assert good.reply().status == 0x0000
    assert scp.stop() == 0
    assert 2.0 < time.monotonic() - start < 8
    assert [p.stem for p in scp.files()] == [ds.SOPInstanceUID]


def test_scp__serves_many_at_once_and_leaks_no_descriptor(scp):
    still_serves(scp)
    before = scp.descriptors()
    failures = []

    def sender() -> None:
        try:
            for _ in range(5):
                peer = Peer(scp.port)
                for _ in range(4):
                    ds = image(pixels=32)
                    assert peer.store(encode(ds), ds.SOPInstanceUID).status == 0x0000
                peer.release()
        except Exception as e:  # noqa: BLE001 - reported below, with its text
            failures.append(repr(e))

    threads = [threading.Thread(target=sender) for _ in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert len(scp.files()) == 12 * 5 * 4
    for _ in range(40):
        Peer(scp.port, called="OTHER").socket.close()
        Peer(scp.port, associate=False).socket.close()
        Peer(scp.port).abort()
    deadline = time.monotonic() + 10
    while scp.descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert scp.descriptors() <= before
