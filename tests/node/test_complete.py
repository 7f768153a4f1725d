"""When a series is complete: what the PACS counts (completeness.ask_pacs) against what came, and what silence is worth."""

import time
from dataclasses import dataclass, field

import pytest
from harness.net import LOOPBACK, free_port, wait_for
from harness.send import store
from nodekit import check_once, jobs_settled, make_series, send, settings
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

UID = "1.2.3.4.5.11"
LONG_MS = 600_000


@dataclass
class Asked:
    calling: str
    identifier: Dataset


@dataclass
class Counter:
    """A PACS that only counts. count: the answer, or a list of answers, whose last one stays.

    Where knows_number is false, it answers on the level of series without a number, and names each image when it is
    asked for images, as dcmqrscp does. status: what every question ends with.
    """

    count: int | list[int] = 0
    knows_number: bool = True
    status: int = 0
    asked: list[Asked] = field(default_factory=list)
    ae_title: str = "COUNTER"
    port: int = field(default_factory=free_port)

    def __enter__(self) -> "Counter":
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self._server = ae.start_server((LOOPBACK, self.port), block=False, evt_handlers=[(evt.EVT_C_FIND, self._find)])
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _find(self, event):
        question = event.identifier
        self.asked.append(Asked(event.assoc.requestor.ae_title.strip(), question))
        if self.status:
            yield self.status, None
            return
        count = self.count if isinstance(self.count, int) else self.count.pop(0) if len(self.count) > 1 else self.count[0]
        answer = Dataset()
        answer.QueryRetrieveLevel = question.QueryRetrieveLevel
        answer.StudyInstanceUID, answer.SeriesInstanceUID = question.StudyInstanceUID, question.SeriesInstanceUID
        if question.QueryRetrieveLevel == "IMAGE":
            for k in range(count):
                answer.SOPInstanceUID = f"{UID}.{k + 1}"
                yield 0xFF00, answer
        elif count > 0:
            if self.knows_number:
                answer.NumberOfSeriesRelatedInstances = count
            yield 0xFF00, answer

    def destination(self) -> dict:
        return {"name": "counter", "ae_title": self.ae_title, "host": LOOPBACK, "port": self.port, "timeout_ms": 2000}


@pytest.fixture
def asking_node(start_node, pacs, models):
    """asking_node(counter, **completeness) -> a ready node that delivers to `pacs` and asks the counter."""

    def start(counter, **completeness):
        destinations = [{"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port}, counter.destination()]
        wanted = {"ask_pacs": "counter", "ask_ms": 100, "quiet_ms": LONG_MS, "max_wait_ms": 2 * LONG_MS, **completeness}
        return start_node(pacs=[pacs], changes=settings(models, destinations=destinations, completeness=wanted))

    return start


def states(node) -> list[str]:
    return [s["state"] for s in node.jobs()["series"]]


@pytest.mark.parametrize("knows_number", [True, False])
def test_ask_pacs__a_series_is_complete_as_soon_as_the_pacs_counts_no_more(asking_node, pacs, knows_number):
    with Counter(count=4, knows_number=knows_number) as counter:
        node = asking_node(counter)
        assert send(node.port, make_series(UID, 4)) == [0] * 4
        wait_for(lambda: jobs_settled(node, 1), 20, "the job, long before the quiet time ends")
        check_once(pacs, [UID], 4)
    assert "why=counted" in node.log()
    assert {a.calling for a in counter.asked} == {"SPINENODE"}
    assert {(a.identifier.StudyInstanceUID, a.identifier.SeriesInstanceUID) for a in counter.asked} == {(f"{UID}.0", UID)}
    levels = [a.identifier.QueryRetrieveLevel for a in counter.asked]
    assert levels == (["SERIES"] * 2 if knows_number else ["SERIES", "IMAGE"] * 2), "it was to be asked twice"


def test_ask_pacs__silence_ends_nothing_while_the_pacs_counts_more(asking_node, pacs):
    images = make_series(UID, 5)
    with Counter(count=5) as counter:
        node = asking_node(counter, quiet_ms=300)
        assert send(node.port, images[:4]) == [0] * 4
        time.sleep(1.5)
        assert states(node) == ["receiving"] and node.jobs()["jobs"] == []
        assert send(node.port, images[4:]) == [0]
        [job] = wait_for(lambda: jobs_settled(node, 1), 20, "the job")
        assert job["outputs"] == 5
        check_once(pacs, [UID], 5)
    assert node.jobs()["series"][0]["revision"] == 1


def test_ask_pacs__one_count_alone_is_not_believed(asking_node):
    """The PACS itself was still receiving when it was asked first."""
    images = make_series(UID, 5)
    with Counter(count=[4, 5]) as counter:
        node = asking_node(counter)
        assert send(node.port, images[:4]) == [0] * 4
        wait_for(lambda: len(counter.asked) >= 4, 20, "four questions")
        assert states(node) == ["receiving"]
        assert send(node.port, images[4:]) == [0]
        [job] = wait_for(lambda: jobs_settled(node, 1), 20, "the job")
        assert job["outputs"] == 5
    assert node.jobs()["series"][0]["revision"] == 1


def test_ask_pacs__nothing_is_asked_while_the_association_is_open(asking_node):
    images = make_series(UID, 4)
    with Counter(count=4) as counter:
        node = asking_node(counter, quiet_ms=300)
        ae = AE(ae_title="TESTER")
        ae.add_requested_context(images[0].SOPClassUID)
        association = ae.associate(LOOPBACK, node.port, ae_title="SPINENODE")
        assert [association.send_c_store(i).Status for i in images] == [0] * 4
        time.sleep(1)
        assert counter.asked == [] and states(node) == ["receiving"]
        association.release()
        wait_for(lambda: jobs_settled(node, 1), 20, "the job")


def test_ask_pacs__goes_on_with_what_came_when_the_rest_never_comes(asking_node, pacs):
    with Counter(count=9) as counter:
        node = asking_node(counter, quiet_ms=200, max_wait_ms=2000)
        assert send(node.port, make_series(UID, 4)) == [0] * 4
        wait_for(lambda: jobs_settled(node, 1), 20, "the job")
        check_once(pacs, [UID], 4)
    assert "why=max_wait" in node.log()
    assert len(counter.asked) >= 5


@pytest.mark.parametrize("how", ["down", "fails"])
def test_ask_pacs__a_pacs_that_does_not_answer_costs_only_the_quiet_time(asking_node, pacs, how):
    counter = Counter(status=0xA700)
    if how == "fails":
        counter.__enter__()
    try:
        node = asking_node(counter, quiet_ms=500)
        for k in (1, 2, 3):
            assert send(node.port, make_series(f"{UID}.{k}", 4)) == [0] * 4
            wait_for(lambda k=k: jobs_settled(node, k), 20, "the job")
        check_once(pacs, [f"{UID}.{k}" for k in (1, 2, 3)], 4)
    finally:
        if how == "fails":
            counter.__exit__()
    assert node.log().count("why=quiet") == 3
    assert node.log().count("pacs_not_asked") == 1, "one that fails is to be left in peace for a while"
    assert len(counter.asked) == (1 if how == "fails" else 0)


def test_ask_pacs__agrees_with_orthanc(start_node, pacs, models, orthanc):
    """What is stored in Orthanc and only partly sent to the node is waited for."""
    port = free_port()
    orthanc.stop()
    orthanc.routing, orthanc.node_port = False, port
    orthanc.start()
    destinations = [{"name": "pacs", "ae_title": pacs.ae_title, "host": LOOPBACK, "port": pacs.port},
                    {"name": "orthanc", "ae_title": orthanc.ae_title, "host": LOOPBACK, "port": orthanc.port}]
    node = start_node(pacs=[pacs], port=port, changes=settings(models, destinations=destinations, completeness={
        "ask_pacs": "orthanc", "ask_ms": 100, "quiet_ms": 300, "max_wait_ms": LONG_MS}))
    images = make_series(UID, 4)
    assert store(images, orthanc.port, called=orthanc.ae_title).ok
    assert send(node.port, images[:3]) == [0] * 3
    time.sleep(1.5)
    assert states(node) == ["receiving"]
    assert send(node.port, images[3:]) == [0]
    [job] = wait_for(lambda: jobs_settled(node, 1), 20, "the job")
    assert job["outputs"] == 4
    assert "why=counted" in node.log()
    check_once(pacs, [UID], 4)
