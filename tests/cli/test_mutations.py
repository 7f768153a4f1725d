"""scripts/mutate, and the list of breaks that it applies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "mutate"


def mutate(*arguments, status: int = 0) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def tree(tmp_path):
    """tree(mutation, …) -> a working tree with a module and two tests, one of which notices nothing."""
    root = tmp_path / "tree"
    (root / "tests" / "mutations").mkdir(parents=True)
    (root / "tests" / "pytest.ini").write_text("[pytest]\npythonpath = ..\naddopts = -p no:cacheprovider\n")
    (root / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (root / "tests" / "test_sums.py").write_text(
        "import sums\ndef test_sum():\n    assert sums.add(2, 3) == 5\ndef test_type():\n    assert sums.add(2, 3) is not None\n")
    subprocess.run(["git", "init", "-q", root], check=True)

    def write(*mutations) -> list:
        (root / "tests" / "mutations" / "all.yaml").write_text(yaml.safe_dump(list(mutations)))
        return ["--root", root, "--scratch", tmp_path / "scratch"]

    return write


def breaks(**changes) -> dict:
    return {"name": "minus", "file": "sums.py", "find": "a + b", "replace": "a - b", "tests": ["tests/test_sums.py::test_sum"], **changes}


def test_list_fits_the_tree():
    mutate("--lint")


def test_lint_says_which_break_no_longer_fits(tree):
    broken = [breaks(name="gone", find="a * b"), breaks(name="moved", file="other/sums.py"), breaks(name="same", replace="a + b"),
              breaks(name="test gone", tests=["tests/test_sums.py::test_other"]), breaks(name="twice", find="a"), breaks(name="right")]
    found = json.loads(mutate("--lint", "--json", *tree(*broken), status=1))
    assert found["mutations"] == len(broken)
    for problem, name in zip(found["problems"], ["gone", "moved", "same", "test gone", "twice"], strict=True):
        assert problem.startswith(f"all.yaml: {name}: ")


def test_text_that_moved_to_the_file_beside_is_broken_there(tree, tmp_path):
    found = json.loads(mutate("--json", *tree(breaks(file="other.py"))))
    assert found["mutations"][0]["failed"] == ["tests/test_sums.py::test_sum"]
    (tmp_path / "tree" / "third.py").write_text("a + b")
    mutate("--lint", *tree(breaks(file="other.py")), status=1)


def test_break_that_a_test_notices_is_told_from_one_that_survives(tree):
    arguments = tree(breaks(), breaks(name="unnoticed", replace="a + b + 0"), breaks(name="type", tests=["tests/test_sums.py::test_type"]))
    found = json.loads(mutate("--json", *arguments, status=1))
    status = {m["name"]: (m["status"], m["failed"]) for m in found["mutations"]}
    assert status == {"minus": ("killed", ["tests/test_sums.py::test_sum"]), "unnoticed": ("survived", []), "type": ("survived", [])}
    unseen = json.loads(mutate("--coverage", "--json", *arguments, status=1))
    assert unseen["unseen"] == ["tests/test_sums.py::test_type"]
    assert unseen["seen"] == 1


def test_break_must_be_noticed_by_each_case_that_it_names(tree, tmp_path):
    cases = [f"tests/test_sums.py::test_sums[{b}]" for b in (0, 3)]
    arguments = tree(breaks(tests=cases))
    with open(tmp_path / "tree" / "tests" / "test_sums.py", "a") as f:
        f.write("import pytest\n@pytest.mark.parametrize('b', [0, 3])\ndef test_sums(b):\n    assert sums.add(2, b) == 2 + b\n")
    found = json.loads(mutate("--json", *arguments, status=1))["mutations"][0]
    assert (found["status"], found["failed"], found["missed"]) == ("survived", cases[1:], cases[:1])
    assert json.loads(mutate("--json", "--new", *arguments, status=1))["survived"] == 1
    assert json.loads(mutate("--coverage", "--json", *arguments, status=1))["seen"] == 1


def test_break_whose_tests_cannot_run_here_does_not_survive(tree, tmp_path):
    arguments = tree(breaks())
    with open(tmp_path / "tree" / "tests" / "test_sums.py", "a") as f:
        f.write("import pytest\npytest.importorskip('no_such_module')\n")
    found = json.loads(mutate("--json", *arguments))
    assert (found["skipped"], found["survived"]) == (1, 0)


def test_test_that_fails_anyway_proves_nothing(tree, tmp_path):
    arguments = tree(breaks())
    (tmp_path / "tree" / "sums.py").write_text("def add(a, b):\n    return a + b + 1\n")
    found = json.loads(mutate("--json", *arguments, status=1))
    assert found["unsound"] == ["tests/test_sums.py::test_sum"]
    assert json.loads(mutate("--coverage", "--json", *arguments, status=1))["seen"] == 0


def test_text_of_c_is_found_wherever_its_lines_are_broken(tree, tmp_path):
    (tmp_path / "tree" / "sums.c").write_text("int add(int a,\n        int b) { return a + b; }\n")
    mutate("--lint", *tree(breaks(file="sums.c", find="add(int a, int b)", replace="add(int b, int a)")))
    mutate("--lint", *tree(breaks(find="return a  + b")), status=1)


def test_break_that_hangs_tests_is_noticed_by_each(tree):
    arguments = tree(breaks(find="return a + b", replace="\n    while True:\n        pass", tests=["tests/test_sums.py"]))
    found = json.loads(mutate("--json", "--limit", "1", *arguments))
    assert found["mutations"][0]["failed"] == ["tests/test_sums.py::test_sum", "tests/test_sums.py::test_type"]
