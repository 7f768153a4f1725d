"""The data dictionary: out of the table in the program, what DCMTK finds is what it would have read as text."""

import os
import subprocess
from pathlib import Path

import pytest

from driverkit import Refused

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "scripts" / "dictionary_table"
SYNTHETIC = 'ENTRY(0x0008, 0x0008, Unspecified, 0x001C, 0x001C, Unspecified, CS, 1, 1, "SyntheticData", "DICOM", "")'
# What DCMTK knows before it has read anything.
SKELETON = 4

# Every form that DCMTK's parser takes, by its comments and its code.
ODD_LINES = [
    "# a comment", "  \t # one behind blanks", "", "   ",
    "(0011,0001)\tLO\tPlain\t1\tDICOM",
    " ( 001a , 00fb ) \t L O \t Bl anks \t 1 - 3 \t DIC OM \t ",
    "(1,2)\tUS\tFewDigits\t1\tDICOM\r",
    "(0011,0003)\tSH\tNoVersion\t2",
    "(0011,0004)\tSH\tNoMultiplicity",
    "(0011,0005)\tox\tPixelsOrSo\t1-n\tDICOM/retired",
    "(0011,0006)\txs\tTwice\t2-2n\tDICOM",
    "(0011,0007)\tna\tN\tn\tDICOM",
    "(0011,0008)\tup\tTwoN\t2N\tDICOM",
    "(0011,0009)\tlt\tSix\t6-N\tDICOM",
    "(0011,000a)\tUN\tRange\t1-99\tDICOM",
    "(5000-50FF,0005)\tUS\tEvenGroups\t1\tDICOM",
    "(5001-e-51FF,0005)\tUS\tEvenGroupsToo\t1\tDICOM",
    "(0009-o-ffff,0010-u-00FF)\tLO\tOddGroups\t1\tPRIVATE",
    "(0000-U-FFFF,0001-O-0003)\tUL\tAnyGroup\t1\tGENERIC",
    '(0029,"SIEMENS CSA HEADER",08)\tCS\tTheirs\t1\tPrivateTag',
    '(0029-o-00FF, "A, B (C)" ,1010-u-10ff)\tCS\tTheirsToo\t1\tPrivateTag',
    '(0029,"",08)\tCS\tNobodys\t1\tPrivateTag',
]


@pytest.fixture
def entries(driver, monkeypatch):
    """entries("init") -> the entries that the driver prints, DCMDICTPATH set to `path` if given."""
    monkeypatch.delenv("DCMDICTPATH", raising=False)

    def run(verb: str, path: Path | str | None = None) -> list[str]:
        return driver.run("dictionary", verb, env={} if path is None else {"DCMDICTPATH": str(path)}).splitlines()

    return run


def generate(path: Path) -> subprocess.CompletedProcess:
    return subprocess.run([GENERATOR, path], capture_output=True, text=True, timeout=60)


def make(*arguments) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "CPPFLAGS", "DICOM_DICTIONARY")}
    return subprocess.run(["make", *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_table__is_the_standards_dictionary_as_dcmtk_reads_it(entries):
    found, wanted = entries("init"), entries("default")
    assert found.count(SYNTHETIC) == 1
    found.remove(SYNTHETIC)
    assert found == [entry for entry in wanted if entry.endswith(', "")')]
    assert len(found) > 4000 and any("Odd" in entry for entry in found)


def test_vendors__are_added_as_dcmtk_reads_them(entries):
    found, wanted = entries("vendors"), entries("default")
    found.remove(SYNTHETIC)
    assert found == wanted
    assert any(not entry.endswith(', "")') for entry in found)


def test_dcmdictpath__is_all_that_is_read(entries, tmp_path):
    own = tmp_path / "own.dic"
    own.write_text("(0010,0020)\tSH\tIdentity\t1\tOURS\n")
    for verb in ("init", "vendors"):
        found = entries(verb, path=own)
        found.remove(SYNTHETIC)
        assert found == entries("default", own) and len(found) == SKELETON + 1


def test_dcmdictpath__empty_is_as_if_it_were_not_set(entries):
    assert entries("init", path="") == entries("init")


def test_dcmdictpath__that_cannot_be_read_is_an_error(entries, tmp_path):
    for verb in ("init", "vendors"):
        with pytest.raises(Refused) as refused:
            entries(verb, path=tmp_path / "none.dic")
        assert refused.value.word == "config" and refused.value.text.startswith("DCMTK's data dictionary is not loaded")
        assert "DCMDICTPATH" in refused.value.text


def test_generator__takes_lines_as_dcmtk_does(entries, tmp_path):
    odd, empty = tmp_path / "odd.dic", tmp_path / "empty.dic"
    odd.write_text("\n".join(ODD_LINES), newline="")
    empty.write_text("")
    skeleton = entries("default", empty)
    done = generate(odd)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(skeleton) == SKELETON and len(lines) == len(ODD_LINES) - 4
    assert sorted(skeleton + lines) == sorted(entries("default", odd))


@pytest.mark.parametrize("line, complaint", [
    ("(0010,0020)\tLO", "fields"),
    ("(0010,0020)", "fields"),
    ("(0010,0020) LO PatientID 1 DICOM", "fields"),
    ("(0010,0020)\tLO\tPatientID\t1\tDICOM\tmore", "fields"),
    ("0010,0020\tLO\tPatientID\t1\tDICOM", "tag"),
    ("(00100020)\tLO\tPatientID\t1\tDICOM", "tag"),
    ('(0011,"ACME,10)\tLO\tTheirs\t1\tDICOM', "tag"),
    ('(0011,"ACME"10)\tLO\tTheirs\t1\tDICOM', "tag"),
    ("(0010,)\tLO\tPatientID\t1\tDICOM", "FROM"),
    ("(0010,00200)\tLO\tPatientID\t1\tDICOM", "hexadecimal"),
    ("(0010,0x20)\tLO\tPatientID\t1\tDICOM", "hexadecimal"),
    ("(0010,0020,0030)\tLO\tPatientID\t1\tDICOM", "hexadecimal"),
    ("(5000-50FF-51FF,0005)\tLO\tPatientID\t1\tDICOM", "FROM"),
    ("(5000-x-50FF,0005)\tLO\tPatientID\t1\tDICOM", "FROM"),
    ("(5000-o-50FF-6,0005)\tLO\tPatientID\t1\tDICOM", "FROM"),
    ("(50FF-5000,0005)\tLO\tPatientID\t1\tDICOM", "before"),
    ("(0010,0020)\tXX\tPatientID\t1\tDICOM", "VR"),
    ("(0010,0020)\t\tPatientID\t1\tDICOM", "VR"),
    ("(0010,0020)\tLO\t\t1\tDICOM", "keyword"),
    ('(0010,0020)\tLO\tPatient"ID\t1\tDICOM', "keyword"),
    ("(0010,0020)\tLO\tPatient\\ID\t1\tDICOM", "keyword"),
    ("(0010,0020)\tLO\tPatiënt\t1\tDICOM", "keyword"),
    ("(0010,0020)\tLO\t" + 251 * "P" + "\t1\tDICOM", "keyword"),
    ("(0010,0020)\tLO\tPatientID\t1\tDIC\"OM", "version"),
    ('(0011,"' + 64 * "A" + '",10)\tLO\tTheirs\t1\tDICOM', "creator"),
    ("(0010,0020)\tLO\tPatientID\t\tDICOM", "VM"),
    ("(0010,0020)\tLO\tPatientID\t-1\tDICOM", "VM"),
    ("(0010,0020)\tLO\tPatientID\tmany\tDICOM", "VM"),
    ("(0010,0020)\tLO\tPatientID\t1-2-3\tDICOM", "VM"),
    ("(0010,0020)\tLO\tPatientID\t99999\tDICOM", "VM"),
    (3000 * "#", "line"),
])
def test_generator__names_the_line_that_it_does_not_take(tmp_path, line, complaint):
    path = tmp_path / "odd.dic"
    path.write_bytes(f"# odd\n{line}\n(0010,0010)\tPN\tPatientName\t1\tDICOM\n".encode())
    done = generate(path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path}:2: ") and complaint in done.stderr and done.stderr.count("\n") == 1


def test_generator__refuses_a_file_with_nothing_in_it(tmp_path):
    path = tmp_path / "empty.dic"
    path.write_text("# nothing\n")
    done = generate(path)
    assert done.returncode == 1 and str(path) in done.stderr


def test_make__says_what_to_install_where_there_is_no_dictionary(tmp_path):
    table = tmp_path / "dictionary.inc"
    done = make(f"TABLE={table}", f"DICOM_DICTIONARY={tmp_path}/none.dic", table)
    assert done.returncode != 0 and f"no data dictionary {tmp_path}/none.dic: install the package libdcmtk17" in done.stderr
    assert not table.exists()


def test_make__stops_at_a_dictionary_with_a_mistake(tmp_path):
    table, own = tmp_path / "dictionary.inc", tmp_path / "own.dic"
    own.write_text("(0010,0020)\tLO\tPatientID\t1\tDICOM\n(0010,0010)\tXX\tPatientName\t1\tDICOM\n")
    done = make(f"TABLE={table}", f"DICOM_DICTIONARY={own}", table)
    assert done.returncode != 0 and f"{own}:2: " in done.stderr and not table.exists()


def test_make__makes_the_table_of_dcmtks_own_dictionary_and_again_when_that_changes(entries, tmp_path):
    table = tmp_path / "dictionary.inc"
    assert make(f"TABLE={table}", table).returncode == 0
    assert len(table.read_text().splitlines()) == len(entries("init")) - 1
    first, second = table.with_suffix(".d").read_text().splitlines()
    dictionary = second.removesuffix(":")
    assert first == f"{table}: {dictionary}" and Path(dictionary).is_file()
    for changed, again in (("README.md", False), (dictionary, True), ("scripts/dictionary_table", True)):
        assert ("scripts/dictionary_table" in make("-n", "-W", changed, "build/dictionary.inc").stdout) == again, changed
