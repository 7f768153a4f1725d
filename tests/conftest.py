"""Fixtures that every test folder shares: PACSes, and the running node.

The peers themselves are in scripts/harness (the demo and the benchmark use them too). Each fixture cleans up what it
started. `node` fails the test if a sanitizer spoke up in the node's log.
"""

import uuid
from pathlib import Path

import pytest
from harness import node as harness_node
from harness.orthanc import Orthanc
from harness.qrscp import DcmQrScp
from harness.scp import Pacs


@pytest.fixture(scope="session")
def spinenode() -> Path:
    """The program under test."""
    program = harness_node.binary()
    if not program.exists():
        pytest.fail(f"{program} is not built: make")
    return program


@pytest.fixture
def pacs(tmp_path):
    """A listening PACS in this process: pacs.stored, pacs.attempts; pacs.status and the rest program its answers."""
    with Pacs() as peer:
        yield peer


@pytest.fixture
def start_pacs():
    """start_pacs(**arguments of Pacs) -> Pacs, for tests that need several or special ones."""
    peers = []

    def start(**arguments) -> Pacs:
        peers.append(Pacs(**arguments).start())
        return peers[-1]

    yield start
    for peer in peers:
        peer.stop()


@pytest.fixture
def start_node(tmp_path, spinenode):
    """start_node(pacs=[…], changes={…}, start=True) -> Node: as many as the test wants, each in a folder of its own.

    pacs: peers with ae_title and port; they take the place of the shipped destinations and may call. A Pacs learns
    the node's port (for its commitment reports). changes: merged over the shipped configuration.
    """
    nodes = []

    def begin(pacs: list | None = None, changes: dict | None = None, start: bool = True, **more) -> harness_node.Node:
        node = harness_node.Node(tmp_path / f"node{len(nodes)}", pacs=pacs, changes=changes, program=spinenode, **more)
        nodes.append(node)
        for peer in pacs or []:
            if getattr(peer, "node_port", 0) is None:
                peer.node_port = node.port
        return node.start() if start else node

    yield begin
    for node in nodes:
        node.stop()
    for node in nodes:
        report = node.sanitizer_report()
        assert not report, report


@pytest.fixture
def node(start_node, pacs):
    """A ready node whose only PACS is the `pacs` fixture."""
    return start_node(pacs=[pacs])


@pytest.fixture
def orthanc(tmp_path):
    """Orthanc with auto-routing to orthanc.node_port: start the node there, port=orthanc.node_port, pacs=[orthanc]."""
    with Orthanc(tmp_path / "orthanc") as peer:
        yield peer


@pytest.fixture
def dcmqrscp(tmp_path):
    """dcmqrscp as a PACS: dcmqrscp.files() is what it holds."""
    with DcmQrScp(tmp_path / "qrscp") as peer:
        yield peer


@pytest.fixture
def new_uid():
    """new_uid() -> a fresh UID in the 2.25 form."""
    return lambda: f"2.25.{uuid.uuid4().int}"
