"""Every verb: help, exit statuses, arguments that are refused."""

import re
import subprocess

import pytest

VERBS = ["check-config", "route", "infer", "models", "quality", "version", "run", "jobs"]
BARE = [v for v in VERBS if v != "version"]


def test_help__lists_every_verb(cli):
    printed = cli("help").stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb}\s+\w", printed, re.M), verb
    assert cli("--help").stdout == printed


@pytest.mark.parametrize("verb", VERBS)
def test_help__of_a_verb_says_how_it_is_used(cli, verb):
    printed = cli(verb, "--help").stdout
    assert printed.startswith(f"usage: spinenode {verb}")
    assert "--help" in printed
    assert cli("help", verb).stdout == printed
    assert all(len(line) <= 100 for line in printed.splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_usage__refuses_what_it_does_not_know(cli, verb):
    assert "unknown option '--frobnicate'" in cli(verb, "--frobnicate", status=2).stderr
    assert "unknown option '-Z'" in cli(verb, "-Z", status=2).stderr


@pytest.mark.parametrize("verb", BARE)
def test_usage__without_arguments_is_an_error(cli, verb):
    done = cli(verb, status=2)
    assert done.stdout == ""
    assert f"spinenode {verb} --help" in done.stderr


def test_usage__refuses_an_unknown_verb(cli):
    assert "unknown verb 'rnu'" in cli("rnu", status=2).stderr
    assert "unknown verb 'rnu'" in cli("help", "rnu", status=2).stderr
    done = cli("help", "run", "jobs", status=2)
    assert "one verb" in done.stderr


def test_usage__without_a_verb_is_an_error(spinenode):
    done = subprocess.run([str(spinenode)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith("usage: spinenode VERB")


@pytest.mark.parametrize("arguments, complaint", [
    (["check-config", "-c"], "--config needs a value"),
    (["check-config", "-c", ""], "--config needs a value"),
    (["check-config", "-c", "a", "--config=b"], "--config is given twice"),
    (["check-config", "-c", "a", "b"], "unexpected argument 'b'"),
    (["check-config", "--conf", "a"], "unknown option '--conf'"),
    (["check-config", "-q=1", "-c", "a"], "unknown option '-q=1'"),
    (["check-config", "--quiet=1", "-c", "a"], "--quiet takes no value"),
    (["route", "x"], "-c FILE is missing"),
    (["route", "-c", "x"], "expected the path"),
    (["models"], "expected the path"),
    (["quality", "x"], "expected a model and a volume"),
    (["quality", "x", "y", "--spacing-mm", "wide"], "millimetres"),
    (["models", "x", "--engine", "gpu"], "engine gpu is not in this build"),
    (["version", "now"], "unexpected argument 'now'"),
    (["infer", "m"], "either --series or --tensor"),
    (["infer", "m", "--series", "a", "--tensor", "b", "--output", "c"], "either --series or --tensor"),
    (["infer", "m", "--tensor", "a"], "--output is missing"),
    (["infer", "m", "n", "--tensor", "a", "--output", "b"], "unexpected argument 'n'"),
    (["infer", "m", "--tensor", "a", "--output", "b", "--engine", "gpu"], "expected ref, cpu or cuda, not 'gpu'"),
    (["infer", "m", "--tensor", "a", "--output", "b", "--threads", "-1"], "from 0 to 1024, not '-1'"),
    (["infer", "m", "--tensor", "a", "--output", "b", "--repeat", "0"], "from 1 to"),
    (["infer", "m", "--tensor", "a", "--output", "b", "--repeat", "2x"], "not '2x'"),
    (["infer", "m", "--tensor", "a", "--output", "b", "-c", "x"], "go with --series"),
    (["infer", "m", "--series", "a", "--output", "b", "--repeat", "2"], "--repeat goes with --tensor"),
    (["infer", "m", "--series", "a", "--output", "b", "--contrast", "T3"], "expected T1, T2, STIR, TIRM or XR"),
    (["infer", "m", "--series", "a", "--output", "b", "--created", "yesterday"], "YYYYMMDDhhmmss"),
])
def test_usage__names_the_mistake(cli, arguments, complaint):
    done = cli(*arguments, status=2)
    assert complaint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["help"], ["version"], ["version", "--json"], ["route", "--help"]])
def test_output__that_cannot_be_written_is_a_failure(cli, arguments):
    with open("/dev/full", "w") as full:
        done = cli(*arguments, status=1, stdout=full)
    assert "standard output: No space left on device" in done.stderr
