"""spinenode check-config: the shipped files, the effective configuration, mistakes with file, line and key."""

import re
from pathlib import Path

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[2] / "config"
SHIPPED = CONFIG / "spinenode.yaml"


def keys_of(value, above=""):
    """Every path of keys, list indices left out."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{above}.{key}".strip(".")
            yield from keys_of(below, f"{above}.{key}")
    elif isinstance(value, list):
        for entry in value:
            yield from keys_of(entry, above)


@pytest.mark.parametrize("file", sorted(CONFIG.rglob("*.yaml")), ids=lambda p: p.name)
def test_shipped__configurations_are_right(cli, file):
    cli("check-config", "-c", file)


def test_shipped__configuration_shows_every_key_there_is(cli):
    effective = yaml.safe_load(cli("check-config", "-c", SHIPPED).stdout)
    assert set(keys_of(effective)) == set(keys_of(yaml.safe_load(SHIPPED.read_text())))


def test_shipped__configuration_tells_the_true_defaults(cli, tmp_path):
    """What the comments call the default ("# [5000] …") is what a file without the key comes to."""
    told = {}
    for line in SHIPPED.read_text().splitlines():
        found = re.match(r"\s*(?:- )?(\w+): .*# \[([^\]]*)\]", line)
        if found and found.group(1) not in told:
            told[found.group(1)] = found.group(2)
    bare = tmp_path / "bare.yaml"
    bare.write_text("models: {folder: /tmp}\ncallers: [{ae_title: A, addresses: [any]}]\n"
                    "destinations: [{name: p, ae_title: B, host: h, port: 1}]\n"
                    "rules: [{name: r, task: t1-to-t2, destinations: [p]}]\n")
    effective = yaml.safe_load(cli("check-config", "-c", bare).stdout)
    values = {}

    def collect(value):
        for key, below in value.items() if isinstance(value, dict) else []:
            values.setdefault(key, []).append(below)
            collect(below)
        for entry in value if isinstance(value, list) else []:
            collect(entry)

    for section in ("node", "callers", "destinations", "rules", "completeness", "recognition", "engine", "work",
                    "quality", "limits", "retention", "http"):
        collect({section: effective[section]})
    assert len(told) > 50
    words = {True: "yes", False: "no", "": '""'}
    for key, default in told.items():
        if default in ("this", "any", "0, 0", "anything", "nothing", "by the task") or key in ("folder", "tag"):
            continue
        got = [words[v] if isinstance(v, (bool, str)) and v in words else str(v) for v in values[key]]
        assert default in got, key


@pytest.mark.parametrize("file", sorted(CONFIG.rglob("*.yaml")), ids=lambda p: p.name)
def test_effective__configuration_parses_back_to_itself(cli, file, tmp_path):
    first = cli("check-config", "-c", file).stdout
    copy = tmp_path / "elsewhere" / "effective.yaml"
    copy.parent.mkdir()
    copy.write_text(first)
    assert cli("check-config", "-c", copy).stdout == first


def test_effective__configuration_means_the_same_to_another_reader_of_yaml(cli, tmp_path):
    hard = {"ae_title": "YES", "site_salt": "# not: a 'comment' \"\\ \t ü ☃", "log_level": "debug"}
    path = tmp_path / "hard.yaml"
    path.write_text(yaml.safe_dump({"node": {**hard, "site_salt": hard["site_salt"].replace("\t", " ")},
                                    "models": {"folder": "."}}))
    node = yaml.safe_load(cli("check-config", "-c", path).stdout)["node"]
    assert node["ae_title"] == "YES"
    assert node["site_salt"] == hard["site_salt"].replace("\t", " ")
    assert yaml.safe_load(cli("check-config", "-c", path).stdout)["models"]["folder"] == str(tmp_path.resolve())


@pytest.mark.parametrize("text, line, key, expected", [
    ("node:\n  ae_titel: X\n", 2, "node.ae_titel", "expected one of ae_title, bind"),
    ("node:\n  port: http\n", 2, "node.port", "whole number from 1 to 65535, found 'http'"),
    ("limits:\n  slices: 1e3\n", 2, "limits.slices", "found '1e3'"),
    ("rules:\n  - name: r\n    task: t1-to-t2\n    destinations: [nowhere]\n", 4, "rules[0].destinations[0]",
     "one of the destinations, found 'nowhere'"),
    ("models:\n  folder: /does/not/exist\n", 2, "models.folder", "expected a folder of models"),
])
def test_mistake__is_one_line_with_file_line_key_and_what_was_expected(cli, tmp_path, text, line, key, expected):
    path = tmp_path / "wrong.yaml"
    path.write_text(text if "models" in text else text + "models: {folder: .}\n")
    done = cli("check-config", "-c", path, status=1)
    assert done.stdout == ""
    assert done.stderr.startswith(f"spinenode check-config: {path}:{line}: {key}: ")
    assert expected in done.stderr and done.stderr.count("\n") == 1


def test_mistake__in_the_syntax_has_its_line(cli, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("node:\n  ae_title: X\n bind: Y\n")
    assert f"{path}:3: not well-formed YAML: " in cli("check-config", "-c", path, status=1).stderr


def test_file__that_is_not_there_or_no_file_is_said(cli, tmp_path):
    assert "No such file" in cli("check-config", "-c", tmp_path / "none.yaml", status=1).stderr
    assert "Is a directory" in cli("check-config", "-c", tmp_path, status=1).stderr


def test_file__larger_than_the_limit_is_refused(cli, tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("# " + "x" * (1 << 20) + "\n")
    said = cli("check-config", "-c", path, status=1).stderr
    assert "large.yaml" in said and "larger than" in said


def test_quiet__prints_nothing_when_the_file_is_right(cli):
    assert cli("check-config", "-q", "-c", SHIPPED).stdout == ""


def test_unit__file_names_verbs_that_exist(cli):
    for verb in re.findall(r"/usr/local/bin/spinenode (\S+)", (CONFIG / "spinenode.service").read_text()):
        cli(verb, "--help")
