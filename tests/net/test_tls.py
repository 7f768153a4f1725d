"""TLS on both sides, against DCMTK's tools and OpenSSL's own client."""

import datetime
import hashlib
import socket
import ssl
import subprocess

import pytest
from harness.net import free_port, listens, wait_for
from pydicom.uid import ExplicitVRLittleEndian

from .raw import Peer, encode, image
from .test_scp import save


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority and what it signed: server, client; and a client that another authority signed."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    def authority(name):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                "-subj", f"/CN={name}", "-days", "2")

    def signed(name, by, alternative="IP:127.0.0.1,DNS:localhost"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
                "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-CAcreateserial",
                "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")

    authority("authority")
    authority("elsewhere")
    signed("server", "authority")
    signed("client", "authority")
    signed("stranger", "elsewhere")
    signed("otherhost", "authority", "DNS:pacs.example")
    return folder


@pytest.fixture
def secured(start_scp, certificates):
    def start(name="server", **options):
        return start_scp(certificate=certificates / f"{name}.pem", key=certificates / f"{name}.key",
                         authorities=certificates / "authority.pem", **options)

    return start


def own(certificates, name="client", authorities="authority"):
    return {"certificate": certificates / f"{name}.pem", "key": certificates / f"{name}.key",
            "authorities": certificates / f"{authorities}.pem"}


def wrap(certificates, name="client", **versions):
    context = ssl.create_default_context(cafile=certificates / "authority.pem")
    if name:
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    for key, value in versions.items():
        if key == "ciphers":
            context.set_ciphers(value)
        else:
            setattr(context, key, value)
    return lambda s: context.wrap_socket(s, server_hostname="127.0.0.1")


def test_tls__scu_and_scp_transfer_and_know_each_other_by_certificate(secured, scu, certificates, tmp_path):
    scp = secured(digest=1)
    ds = image(pixels=512)
    path = save(ds, tmp_path / "a.dcm")
    results = scu(scp.port, "store", path, path, called="PROBE", **own(certificates))
    assert [r["error"] for r in results] == ["ok", "ok"]
    der = ssl.PEM_cert_to_DER_cert((certificates / "client.pem").read_text())
    assert scp.wait("association")["fingerprint"] == hashlib.sha256(der).hexdigest()
    from .raw import data_set_of

    stored = open(scp.wait("stored")["path"], "rb").read()
    assert data_set_of(stored) == encode(ds, ExplicitVRLittleEndian)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_tls__speaks_1_2_and_1_3(secured, certificates, version):
    scp = secured()
    peer = Peer(scp.port, wrap=wrap(certificates, minimum_version=version, maximum_version=version))
    assert peer.socket.version().replace(".", "_") == version.name
    assert "GCM" in peer.socket.cipher()[0]
    ds = image()
    assert peer.store(encode(ds), ds.SOPInstanceUID).status == 0
    peer.release()


def test_tls__refuses_old_versions_weak_ciphers_and_plain_text(secured, certificates):
    scp = secured()
    old = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1,
           "ciphers": "ALL:@SECLEVEL=0"}
    static_rsa = {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "AES128-GCM-SHA256"}
    cbc = {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-RSA-AES128-SHA256"}
    for wishes in (old, static_rsa, cbc):
        with pytest.raises(OSError):
            Peer(scp.port, wrap=wrap(certificates, **wishes))
        assert "TLS" in scp.wait("refused")["why"]
    with pytest.raises(OSError):
        Peer(scp.port)
    scp.wait("refused")


def test_tls__server_wants_a_certificate_of_its_authority(secured, scu, certificates):
    scp = secured()
    for name in (None, "stranger"):
        with pytest.raises(OSError):
            Peer(scp.port, wrap=wrap(certificates, name))
        scp.wait("refused")
    result = scu(scp.port, "echo", called="PROBE", **own(certificates, "stranger"))[0]
    assert (result["error"], result["transient"]) == ("network", "yes")


def test_tls__client_wants_the_right_authority_and_host(secured, scu, certificates):
    scp = secured()
    result = scu(scp.port, "echo", called="PROBE", **own(certificates, "client", "elsewhere"))[0]
    assert result["error"] == "network" and "TLS" in result["why"]
    other = secured("otherhost")
    result = scu(other.port, "echo", called="PROBE", **own(certificates))[0]
    assert result["error"] == "network" and "TLS" in result["why"]
    assert scu(scp.port, "echo", called="PROBE", host="localhost", **own(certificates))[0]["error"] == "ok"


def test_tls__a_silent_handshake_blocks_nobody_and_is_ended(secured, scu, certificates):
    scp = secured(negotiation_ms=1500)
    silent = [socket.create_connection(("127.0.0.1", scp.port)) for _ in range(5)]
    assert scu(scp.port, "echo", called="PROBE", **own(certificates))[0]["error"] == "ok"
    for s in silent:
        s.settimeout(20)
        assert s.recv(1) == b""


def test_tls__works_with_dcmtks_tools(secured, scu, certificates, tmp_path):
    scp = secured()
    path = save(image(), tmp_path / "a.dcm")
    ours = ["+tls", str(certificates / "client.key"), str(certificates / "client.pem"), "+cf",
            str(certificates / "authority.pem")]
    subprocess.run(["storescu", "-aec", "PROBE", *ours, "127.0.0.1", str(scp.port), str(path)], check=True)
    assert scp.wait("end", calling="STORESCU")["stored"] == "1"
    port = free_port()
    folder = tmp_path / "out"
    folder.mkdir()
    theirs = ["+tls", str(certificates / "server.key"), str(certificates / "server.pem"), "+cf",
              str(certificates / "authority.pem")]
    server = subprocess.Popen(["storescp", str(port), *theirs, "-od", str(folder)])
    try:
        wait_for(lambda: listens(port), 10, "storescp")
        assert scu(port, "store", path, **own(certificates))[0]["error"] == "ok"
        assert len(list(folder.iterdir())) == 1
    finally:
        server.terminate()
        server.wait()


def test_tls__says_which_file_is_wrong(scu, certificates, tmp_path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text(f"written {datetime.date.today()}")
    for wrong in ("certificate", "key", "authorities"):
        files = own(certificates)
        files[wrong] = nonsense
        result = scu(1, "echo", **files)[0]
        assert result["error"] == "config"
        assert str(nonsense) in result["why"]
