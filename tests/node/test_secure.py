"""TLS and IPv6 of the running node, against pynetdicom: both directions, what is refused, and certificates that change."""

import os
import re
import shutil
import signal
import socket
import ssl
import time

import pytest
from harness.certificates import Authority
from harness.net import LOOPBACK, free_port, wait_for
from harness.scp import Pacs
from harness.send import echo, store
from nodekit import check_once, jobs_settled, make_series, send, settings, stage_pids
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

UID = "1.2.3.4.5.81"
# Nothing of TLS may take longer on loopback; the node's own limit for a negotiation is 10 s.
AT_ONCE_S = 5


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("elsewhere"), "elsewhere")


@pytest.fixture(scope="module")
def ours(hospital):
    return hospital.sign("node")


@pytest.fixture(scope="module")
def modality(hospital):
    return hospital.sign("modality")


def shown(port, modality):
    """The certificate that the node shows, as DER."""
    with socket.create_connection((LOOPBACK, port), timeout=AT_ONCE_S) as plain:
        with modality.client().wrap_socket(plain, server_hostname=LOOPBACK) as secured:
            return secured.getpeercert(binary_form=True)


def der(identity):
    return ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())


def metric_lines(node):
    return [line for line in node.http("/metrics")[1].decode().splitlines() if line.startswith("spinenode_certificate")]


def test_tls__images_come_and_results_and_commitment_go_by_tls(start_node, start_pacs, models, hospital, ours, modality):
    theirs = hospital.sign("pacs")
    pacs = start_pacs(tls=theirs.server(), tls_client=theirs.client())
    node = start_node(pacs=[pacs], start=False, changes=settings(models, node={"tls": ours.settings()}))
    node.settings["destinations"][0].update(commitment=True, tls=ours.settings())
    node.write_config()
    node.start()
    sent = store(make_series(UID, 3), node.port, tls=modality.client())
    assert sent.statuses == [0, 0, 0]
    wait_for(lambda: jobs_settled(node, 1) and " commitment_report " in node.log(), 60, "the result and its commitment")
    check_once(pacs, [UID], 3)


def test_tls__the_pacs_is_asked_by_tls(start_node, models, hospital, ours, modality):
    theirs, questions, port = hospital.sign("counter"), [], free_port()

    def find(event):
        questions.append(event.identifier)
        answer = Dataset()
        answer.QueryRetrieveLevel, answer.SeriesInstanceUID = "SERIES", UID
        answer.NumberOfSeriesRelatedInstances = 3
        yield 0xFF00, answer

    ae = AE(ae_title="COUNTER")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = ae.start_server((LOOPBACK, port), block=False, evt_handlers=[(evt.EVT_C_FIND, find)], ssl_context=theirs.server())
    try:
        changes = settings(models, node={"tls": ours.settings()},
                           completeness={"ask_pacs": "pacs", "quiet_ms": 600_000, "ask_ms": 100})
        node = start_node(pacs=[Pacs("COUNTER")], start=False, changes=changes)
        node.settings["destinations"][0].update(port=port, tls=ours.settings())
        node.write_config()
        node.start()
        assert store(make_series(UID, 3), node.port, tls=modality.client()).statuses == [0, 0, 0]
        wait_for(lambda: node.jobs()["jobs"], 30, "the count to complete the series")
        assert questions
    finally:
        server.shutdown()


@pytest.mark.parametrize("who", ["nobody", "stranger", "plain", "silent"])
def test_tls__callers_without_a_right_certificate_are_refused_at_once(who, toy_node, hospital, elsewhere, ours, modality):
    node = toy_node(node={"tls": ours.settings()}, limits={"negotiation_ms": 1000})
    began = time.monotonic()
    if who == "silent":
        with socket.create_connection((LOOPBACK, node.port), timeout=AT_ONCE_S) as s:
            assert s.recv(1) == b""
    else:
        stranger = elsewhere.sign("stranger", authorities=hospital.certificate)
        context = {"nobody": modality.client(shows=False), "stranger": stranger.client(), "plain": None}[who]
        assert store(make_series(UID, 1), node.port, tls=context, timeout=AT_ONCE_S).statuses == []
    assert time.monotonic() - began < AT_ONCE_S
    why = {"nobody": "peer did not return a certificate", "stranger": "unable to get local issuer certificate",
           "plain": "TLS failed: ", "silent": "took too long"}[who]
    wait_for(lambda: why in node.log(), AT_ONCE_S, f"{why} in the log")
    assert node.jobs() == {"series": [], "jobs": []}
    assert echo(node.port, tls=modality.client())


def test_tls__clients_optional_takes_callers_without_a_certificate_but_not_with_a_wrong_one(toy_node, hospital, elsewhere, ours, modality):
    node = toy_node(node={"tls": ours.settings(clients="optional")})
    assert echo(node.port, tls=modality.client(shows=False))
    assert echo(node.port, tls=modality.client())
    assert not echo(node.port, tls=elsewhere.sign("stranger", authorities=hospital.certificate).client())


def test_tls__clients_none_asks_nobody_for_a_certificate(toy_node, ours, modality):
    node = toy_node(node={"tls": {"certificate": str(ours.certificate), "key": str(ours.key), "clients": "none"}})
    assert echo(node.port, tls=modality.client(shows=False))
    assert not echo(node.port)


def test_tls__the_title_and_address_of_a_caller_count_with_a_certificate_too(toy_node, ours, modality):
    node = toy_node(node={"tls": ours.settings()})
    assert not echo(node.port, calling="STRANGER", tls=modality.client())
    assert "not among callers" in node.log()


@pytest.mark.parametrize("wrong", ["authority", "name", "expired", "plain"])
def test_tls__results_wait_while_the_destination_is_not_who_it_should_be(wrong, start_node, start_pacs, models, hospital, elsewhere, ours):
    impostor = {"authority": lambda: elsewhere.sign("pacs", authorities=hospital.certificate),
                "name": lambda: hospital.sign("otherhost", made_out_to="DNS:pacs.example"),
                "expired": lambda: hospital.sign("expired", days=-1),
                "plain": lambda: None}[wrong]()
    pacs = start_pacs(tls=impostor.server(wants_client=False) if impostor else None)
    changes = settings(models)
    node = start_node(pacs=[pacs], start=False, changes=changes)
    node.settings["destinations"][0].update(retry={"first_ms": 100, "longest_ms": 200}, tls={"authorities": str(hospital.certificate)})
    node.write_config()
    node.start()
    assert send(node.port, make_series(UID, 2)) == [0, 0]
    why = {"authority": "unable to get local issuer certificate", "name": "IP address mismatch",
           "expired": "certificate has expired", "plain": "TLS failed: "}[wrong]
    wait_for(lambda: node.log().count("delivery_put_off") > 1, 30, "the delivery to be put off")
    assert why in node.log()
    assert pacs.attempts == [] and node.jobs()["jobs"][0]["deliveries"][0]["state"] in ("pending", "sending")
    if wrong == "name":  # what the certificate says can be expected in so many words
        node.settings["destinations"][0]["tls"]["peer_name"] = "pacs.example"
        node.write_config()
        os.kill(node.process.pid, signal.SIGHUP)
        wait_for(lambda: jobs_settled(node, 1), 30, "the delivery")
        check_once(pacs, [UID], 2)


def test_tls__reload_takes_new_certificates_and_a_failing_one_keeps_the_old(toy_node, hospital, elsewhere, modality, tmp_path):
    files = {name: tmp_path / f"node.{name}" for name in ("certificate", "key", "authorities")}

    def install(identity):
        for name, path in files.items():
            shutil.copy(getattr(identity, name), path)

    def reload(event):
        count = node.log().count(f" {event} ")
        os.kill(node.process.pid, signal.SIGHUP)
        wait_for(lambda: node.log().count(f" {event} ") > count and node.http("/readyz")[0] == 200, 20, event)

    first, second = hospital.sign("first", days=80), hospital.sign("second", days=85)
    install(first)
    node = toy_node(node={"tls": {name: str(path) for name, path in files.items()}})
    before = metric_lines(node)
    assert shown(node.port, modality) == der(first)

    files["key"].write_text("half of a renewal")
    reload("reload_failed")
    assert f"node.tls.key: cannot use {files['key']}" in node.log()
    assert shown(node.port, modality) == der(first)
    # Not even a stage that is started again reads the files before a reload says so.
    os.kill(stage_pids(node)["receive"][0], signal.SIGKILL)
    wait_for(lambda: " stage_ended " in node.log() and node.http("/readyz")[0] == 200, 20, "the stage to come back")
    assert shown(node.port, modality) == der(first)

    install(second)
    reload("reloaded")
    assert shown(node.port, modality) == der(second)
    assert metric_lines(node) != before and len(metric_lines(node)) == len(before) == 1
    assert echo(node.port, tls=modality.client())


def test_tls__says_how_long_certificates_are_valid_and_warns_before_they_end(toy_node, hospital, ours):
    soon = hospital.sign("soon", days=10)
    node = toy_node(node={"tls": soon.settings()})
    days = [(float(line.split()[-1]) - time.time()) / 86400 for line in metric_lines(node)]
    assert len(days) == 1 and 9.9 < days[0] <= 10
    assert 'side="listener"' in metric_lines(node)[0]
    assert re.search(r"certificate_expires key=node\.tls\.certificate days=(9|10) ", node.log())
    node.settings["node"]["tls"] = ours.settings()
    node.settings["destinations"][0]["tls"] = soon.settings()
    node.write_config()
    os.kill(node.process.pid, signal.SIGHUP)
    wait_for(lambda: "key=destinations.pacs.tls.certificate days=" in node.log(), 20, "the warning about the destination")
    assert node.log().count("certificate_expires") == 2
    wait_for(lambda: node.http("/readyz")[0] == 200, 20, "the reload")
    assert [line.partition("{")[2].partition("}")[0] for line in metric_lines(node)] == ['side="listener"', 'side="destination",name="pacs"']


def test_tls__a_node_with_an_expired_certificate_does_not_start(start_node, models, hospital):
    node = start_node(start=False, changes=settings(models, node={"tls": hospital.sign("gone", days=-1).settings()}))
    done = node.command("run", "-c", str(node.config_path), timeout=20)
    line = 1 + node.config_path.read_text().splitlines().index(f"    certificate: {hospital.folder}/gone.pem")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"{node.config_path}:{line}: node.tls.certificate: {hospital.folder}/gone.pem: the certificate expired on " in done.stderr


def test_tls__commands_beside_the_node_need_none_of_its_keys(start_node, models, ours, tmp_path):
    hidden = ours.settings(key=str(tmp_path / "not-there.key"))
    node = start_node(start=False, changes=settings(models, node={"tls": hidden}))
    (tmp_path / "images").mkdir()
    make_series(UID, 1)[0].save_as(tmp_path / "images" / "a.dcm", enforce_file_format=True)
    done = node.command("route", "-c", str(node.config_path), str(tmp_path / "images"))
    assert done.returncode == 0, done.stderr
    assert "not-there.key" in node.command("check-config", "-c", str(node.config_path)).stderr


def test_network__ipv6_in_both_directions(start_node, start_pacs, models):
    try:
        pacs = start_pacs(host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    node = start_node(pacs=[pacs], start=False, changes=settings(models))
    node.settings["node"]["bind"] = "::"
    node.settings["callers"] = [{"ae_title": "TESTER", "addresses": ["::/127", "2001:db8::1"]}]
    node.settings["destinations"][0]["host"] = "::1"
    node.write_config()
    node.start()
    assert not echo(node.port), "by IPv4, from an address that is not listed"
    assert store(make_series(UID, 2), node.port, host="::1").statuses == [0, 0]
    wait_for(lambda: jobs_settled(node, 1), 60, "the result")
    check_once(pacs, [UID], 2)
    assert "address=::1" in node.log() and "address=127.0.0.1" in node.log()
