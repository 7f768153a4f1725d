"""spinenode check-config about TLS: every file that cannot work is one line with file, line, key and what to do."""

import os
import subprocess

import pytest
import yaml
from harness.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def ours(authority):
    return authority.sign("ours")


def write(tmp_path, listener=None, destination=None):
    path = tmp_path / "node.yaml"
    there = {"name": "p", "ae_title": "P", "host": "127.0.0.1", "port": 1, "tls": destination or {}}
    path.write_text(yaml.safe_dump({"models": {"folder": "/tmp"}, "node": {"tls": listener or {}}, "destinations": [there]}))
    return path


def mistake(cli, path, key):
    """What check-config says, which must be about the line of the key."""
    done = cli("check-config", "-c", path, status=1)
    name = key.rpartition(".")[2]
    line = [i for i, text in enumerate(path.read_text().splitlines(), 1) if text.strip().startswith(f"{name}:")][0]
    prefix = f"spinenode check-config: {path}:{line}: {key}: "
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith(prefix), done.stderr
    return done.stderr.removeprefix(prefix)


def test_tls__right_files_are_right_and_are_shown_as_absolute_paths(cli, tmp_path, authority, ours):
    (tmp_path / "links").symlink_to(authority.folder)
    relative = {"certificate": "links/ours.pem", "key": "links/ours.key", "authorities": "links/authority.pem"}
    path = write(tmp_path, {**relative, "clients": "optional"}, {**relative, "peer_name": "pacs"})
    first = cli("check-config", "-c", path).stdout
    effective = yaml.safe_load(first)
    assert effective["node"]["tls"] == ours.settings(clients="optional")
    assert effective["destinations"][0]["tls"] == ours.settings(peer_name="pacs")
    copy = tmp_path / "copy.yaml"
    copy.write_text(first)
    assert cli("check-config", "-c", copy).stdout == first


@pytest.mark.parametrize("key", ["certificate", "key", "authorities"])
@pytest.mark.parametrize("fault", ["missing", "folder", "pipe", "nonsense", "empty"])
def test_tls__names_the_file_that_cannot_be_used(cli, tmp_path, ours, key, fault):
    wrong = tmp_path / "wrong.pem"
    if fault == "folder":
        wrong.mkdir()
    elif fault == "pipe":
        os.mkfifo(wrong)
    elif fault != "missing":
        wrong.write_text("" if fault == "empty" else "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        wrong.chmod(0o600)
    expected = {"missing": "No such file", "folder": "no file", "pipe": "no file"}.get(fault, "PEM format")
    said = mistake(cli, write(tmp_path, ours.settings(**{key: str(wrong)})), f"node.tls.{key}")
    assert str(wrong) in said and expected in said
    said = mistake(cli, write(tmp_path, None, ours.settings(**{key: str(wrong)})), f"destinations[0].tls.{key}")
    assert str(wrong) in said and expected in said


def test_tls__the_key_must_be_the_certificates(cli, tmp_path, authority, ours):
    other = authority.sign("other")
    said = mistake(cli, write(tmp_path, ours.settings(key=str(other.key))), "node.tls.key")
    assert f"{other.key} is not the key of the certificate in {ours.certificate}" in said


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o777])
def test_tls__a_key_that_is_open_to_everybody_is_refused(cli, tmp_path, ours, mode):
    key = tmp_path / "open.key"
    key.write_bytes(ours.key.read_bytes())
    key.chmod(mode)
    said = mistake(cli, write(tmp_path, ours.settings(key=str(key))), "node.tls.key")
    assert "open to everybody" in said and f"mode {mode:04o}" in said and "chmod o=" in said
    key.chmod(0o640)
    cli("check-config", "-q", "-c", write(tmp_path, ours.settings(key=str(key))))


def test_tls__an_encrypted_key_is_refused_without_asking_anybody(cli, tmp_path, ours):
    key = tmp_path / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", ours.key, "-aes256", "-passout", "pass:secret", "-out", key], check=True)
    said = mistake(cli, write(tmp_path, ours.settings(key=str(key))), "node.tls.key")
    assert "the key is encrypted" in said


def test_tls__certificates_that_are_not_valid_now_are_refused(cli, tmp_path, authority, ours):
    gone = authority.sign("gone", days=-1)
    said = mistake(cli, write(tmp_path, gone.settings()), "node.tls.certificate")
    assert "gone.pem: the certificate expired on 20" in said
    said = mistake(cli, write(tmp_path, None, gone.settings()), "destinations[0].tls.certificate")
    assert "expired on" in said
    # In the chain that is sent along, too.
    chain = tmp_path / "chain.pem"
    chain.write_bytes(ours.certificate.read_bytes() + gone.certificate.read_bytes())
    said = mistake(cli, write(tmp_path, ours.settings(certificate=str(chain))), "node.tls.certificate")
    assert "chain.pem: the certificate expired on" in said


def test_tls__authorities_may_hold_old_ones_but_not_only_those(cli, tmp_path, ours):
    old = Authority(tmp_path / "old", "old", days=-1)
    said = mistake(cli, write(tmp_path, ours.settings(authorities=str(old.certificate))), "node.tls.authorities")
    assert "old.pem: the certificate expired on" in said
    both = tmp_path / "both.pem"
    both.write_bytes(old.certificate.read_bytes() + ours.authorities.read_bytes())
    cli("check-config", "-q", "-c", write(tmp_path, ours.settings(authorities=str(both))))


def test_tls__a_certificate_is_made_for_its_side_of_a_connection(cli, tmp_path, authority):
    server, client = authority.sign("server", usage="serverAuth"), authority.sign("client", usage="clientAuth")
    cli("check-config", "-q", "-c", write(tmp_path, server.settings(), client.settings()))
    assert "not made for a TLS server" in mistake(cli, write(tmp_path, client.settings()), "node.tls.certificate")
    said = mistake(cli, write(tmp_path, None, server.settings()), "destinations[0].tls.certificate")
    assert "not made for a TLS client" in said


def test_tls__a_weak_certificate_is_refused(cli, tmp_path, authority):
    weak = tmp_path / "weak.pem"
    key = tmp_path / "weak.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", key, "-out", weak, "-subj", "/CN=weak"],
                   check=True, capture_output=True)
    files = {"certificate": str(weak), "key": str(key), "authorities": str(authority.certificate)}
    assert "key too small" in mistake(cli, write(tmp_path, files), "node.tls.certificate")
