"""What a sender must not get away with, on the running node: each is answered with the right status, logged, and over."""

import copy
import re

import pytest
from harness.net import wait_for
from harness.send import echo, store
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, RTPlanStorage
from pynetdicom import _config
from systemkit import QUICK, told


@pytest.fixture
def quick_node(start_node, pacs):
    return start_node(pacs=[pacs], changes=QUICK)


@pytest.fixture
def raw_sending(monkeypatch):
    """Files go out byte for byte, whatever is in them."""
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


def write(image, path):
    dcmwrite(path, image, enforce_file_format=True)
    return path


def log_line(node, pattern: str) -> str:
    return wait_for(lambda: next((x for x in node.log().splitlines() if re.search(pattern, x)), ""), 10,
                    f"/{pattern}/ in the node's log", pause=0.1)


def test_node__rejects_an_unknown_caller(quick_node, study):
    sent = store(study.t2.images[:1], quick_node.port, called=quick_node.ae_title, calling="STRANGER")
    assert not sent.established
    log_line(quick_node, r"STRANGER")
    assert echo(quick_node.port, called=quick_node.ae_title)


def test_node__rejects_another_called_title(quick_node, study):
    assert not store(study.t2.images[:1], quick_node.port, called="SOMEBODY").established
    assert echo(quick_node.port, called=quick_node.ae_title)


def test_node__does_not_accept_an_unknown_sop_class(quick_node, study):
    images = copy.deepcopy(study.t2.images[:2])
    for image, sop_class in zip(images, (CTImageStorage, RTPlanStorage), strict=True):
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    sent = store(images, quick_node.port, called=quick_node.ae_title)
    assert not sent.ok and 0 not in sent.statuses
    assert echo(quick_node.port, called=quick_node.ae_title)


def test_node__takes_good_images_of_an_association_that_also_offers_others(quick_node, study):
    images = copy.deepcopy(study.t2.images[:2])
    images[0].SOPClassUID = images[0].file_meta.MediaStorageSOPClassUID = CTImageStorage
    sent = store(images, quick_node.port, called=quick_node.ae_title)
    assert sent.statuses == [None, 0]


def test_node__refuses_a_truncated_data_set(quick_node, study, tmp_path, raw_sending):
    path = write(study.t2.images[0], tmp_path / "whole.dcm")
    short = tmp_path / "short.dcm"
    short.write_bytes(path.read_bytes()[:-50_001])
    sent = store([short], quick_node.port, called=quick_node.ae_title)
    assert sent.statuses and sent.statuses[0] is not None and sent.statuses[0] >> 12 in (0xA, 0xC), sent.statuses
    assert told(quick_node, study.t2.uid) is None
    log_line(quick_node, r"(?i)refus|truncat|short|cut|beyond")
    assert store([path], quick_node.port, called=quick_node.ae_title).ok, "the whole one must still be welcome"


def test_node__refuses_a_data_set_that_contradicts_the_command(quick_node, study, tmp_path, raw_sending, new_uid):
    image = copy.deepcopy(study.t2.images[0])
    path = write(image, tmp_path / "good.dcm")
    # The command's UID comes from the file meta header: same length, another value, patched in the bytes.
    uid = image.SOPInstanceUID.encode()
    other = uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2")
    whole = path.read_bytes()
    head = whole.index(uid)
    liar = tmp_path / "liar.dcm"
    liar.write_bytes(whole[:head] + other + whole[head + len(uid):])
    sent = store([liar], quick_node.port, called=quick_node.ae_title)
    assert sent.statuses == [0xA900]
    assert told(quick_node, study.t2.uid) is None


def test_node__answers_the_same_instance_again_and_changes_nothing(quick_node, study):
    assert store(study.t1.images, quick_node.port, called=quick_node.ae_title).ok
    before = told(quick_node, study.t1.uid)
    assert store(study.t1.images, quick_node.port, called=quick_node.ae_title).ok
    after = told(quick_node, study.t1.uid)
    assert (before["instances"], before["revision"]) == (after["instances"], after["revision"]) == (5, 1)
