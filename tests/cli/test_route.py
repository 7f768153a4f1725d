"""spinenode route: what each series is taken for, and what each rule makes of it."""

import copy
import json

import pytest
import yaml
from cli.clikit import make_model, make_radiograph, make_series
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian


@pytest.fixture
def route(cli, site):
    def run(*paths, status=0):
        return json.loads(cli("route", "-c", site, *paths, "--json", status=status).stdout)
    return run


def decisions(series):
    return {d["rule"]: d for d in series["rules"]}


def change(site, edit):
    settings = yaml.safe_load(site.read_text())
    edit(settings)
    site.write_text(yaml.safe_dump(settings, sort_keys=False))


def test_series__is_recognised_and_the_rule_for_it_matches(route, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)
    found, = route("in")["series"]
    assert (found["kind"], found["contrast"], found["plane"], found["body_part"]) == ("mr", "T2", "sagittal", "LSPINE")
    assert found["images"] == 5 and found["spacing_mm"] == [0.8, 0.8] and found["slice_spacing_mm"] == 4.4
    assert any("TR 3500" in r and "TE 98" in r for r in found["reasons"])
    rules = decisions(found)
    assert rules["t2-to-t1"]["outcome"] == "matched"
    assert rules["t2-to-t1"]["model"] == "t2-to-t1.onnx" and rules["t2-to-t1"]["destinations"] == ["pacs"]
    assert rules["t1-to-t2"] == {"rule": "t1-to-t2", "outcome": "no_match",
                                 "reason": "the contrast is T2, and the rule wants T1"}
    assert rules["super-resolution"]["reason"] == "it has 200 rows, and the rule wants 0 to 160"
    # Optional, and no such model.
    assert rules["t2-to-stir"]["outcome"] == "no_match" and "no model for t2-to-stir" in rules["t2-to-stir"]["reason"]
    assert found["matched"] == 1


def test_text__tells_the_same_story(cli, site, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)
    printed = cli("route", "-c", site, "in").stdout
    assert "contrast T2, plane sagittal, body part LSPINE" in printed
    assert "matches: t2-to-t1.onnx (tiny t2-to-t1 0.0.1) to pacs" in printed
    assert "the contrast is T2, and the rule wants T1" in printed


def test_radiograph__is_recognised_and_goes_to_its_model_when_there_is_one(cli, route, site, tmp_path):
    make_radiograph(tmp_path / "in")
    found, = route("in")["series"]
    assert (found["kind"], found["contrast"], found["plane"], found["body_part"]) == ("xray", "XR", "lateral", "LSPINE")
    assert found["spacing_mm"] == [0.4, 0.4] and found["images"] == 1 and "slice_spacing_mm" not in found
    assert "no model for xray-to-t2" in decisions(found)["xray-to-t2"]["reason"] and found["matched"] == 0
    folder = yaml.safe_load(site.read_text())["models"]["folder"]
    make_model(site.parent / folder / "xray-to-t2.onnx", "xray-to-t2", pixel_mm="1", spacing_mm="0.05-1")
    found, = route("in")["series"]
    assert decisions(found)["xray-to-t2"]["outcome"] == "matched" and found["matched"] == 1
    assert "0.4 x 0.4 mm on the detector" in cli("route", "-c", site, "in").stdout


def test_rule__without_its_model_asks_the_admin(route, tmp_path):
    make_series(tmp_path / "in", "T1", rows=200, columns=192)
    found, = route("in")["series"]
    assert decisions(found)["t1-to-t2"]["outcome"] == "no_model"
    assert "no model for t1-to-t2" in decisions(found)["t1-to-t2"]["reason"]


def test_rule__whose_model_does_not_take_the_series_says_so(route, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192, spacing=3.5)
    found, = route("in")["series"]
    assert decisions(found)["t2-to-t1"]["outcome"] == "refused"
    assert "made for pixels of 0.3 to 3 mm" in decisions(found)["t2-to-t1"]["reason"]


def test_folders__are_searched_and_series_told_apart(route, tmp_path):
    make_series(tmp_path / "in" / "deep" / "er", rows=200, columns=192)
    make_series(tmp_path / "in", "T1", rows=200, columns=192, series="2.25.1002")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    told = route("in")
    assert {s["series"]: s["contrast"] for s in told["series"]} == {"2.25.1001": "T2", "2.25.1002": "T1"}
    assert told["ignored_files"] == 1


@pytest.mark.parametrize("changes, reason", [
    ({"ScanningSequence": "GR"}, "gradient echo"),
    ({"ContrastBolusAgent": "Gadolinium"}, "contrast-enhanced"),
    ({"ScanOptions": "FS"}, "fat-saturated"),
    ({"BodyPartExamined": "HEAD"}, "not the spine"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "axial"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "coronal"),
    ({"EchoTime": 20.0}, "proton density"),
])
def test_series__that_no_model_may_see_matches_nothing_and_says_why(route, tmp_path, changes, reason):
    make_series(tmp_path / "in", rows=200, columns=192, **changes)
    found, = route("in")["series"]
    assert reason in found["refusal"]
    assert found["matched"] == 0
    assert all(d["outcome"] == "no_match" for d in found["rules"])


def test_result__of_our_own_is_refused(cli, site, route, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)
    cli("infer", "models/t2-to-t1.onnx", "--series", "in", "--output", "out")
    found, = route("out")["series"]
    assert "synthetic" in found["refusal"] and found["matched"] == 0


def test_tags__decide_with_wildcards(route, site, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)

    def match(*tags):
        def edit(settings):
            for rule in settings["rules"]:
                rule["match"]["tags"] = copy.deepcopy(list(tags))
        change(site, edit)
        return decisions(route("in")["series"][0])["t2-to-t1"]

    assert match({"tag": "ProtocolName", "is": ["lws*"]})["outcome"] == "matched"
    assert match({"tag": "(0018,1030)", "is": ["HWS*", "?WS sag"]})["outcome"] == "matched"
    assert match({"tag": "ImageType", "is": ["norm"], "is_not": ["derived"]})["outcome"] == "matched"
    assert match({"tag": "ContrastBolusAgent", "is": [""]})["outcome"] == "matched"
    refused = match({"tag": "ProtocolName", "is_not": ["*SAG"]})
    assert refused["outcome"] == "no_match" and "ProtocolName" in refused["reason"]
    assert match({"tag": "Modality", "is": ["CT"]})["reason"] == "Modality is not CT"


@pytest.mark.parametrize("implicit", [False, True])
def test_tags__of_vendors_are_read_though_the_file_does_not_say_what_they_are(cli, route, site, tmp_path, implicit):
    """What Philips and GE call the pulse sequence; in Implicit VR only a dictionary tells that it is text."""
    folder = make_series(tmp_path / "in", rows=200, columns=192)
    for path in folder.iterdir():
        ds = dcmread(path)
        ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x1C, "CS", ["INV", "FAT"])
        ds.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x9C, "LO", "FSE-XL")
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        ds.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=True)

    def match(*tags):
        def edit(settings):
            for rule in settings["rules"]:
                rule["match"]["tags"] = copy.deepcopy(list(tags))
        change(site, edit)
        return decisions(route("in")["series"][0])["t2-to-t1"]["outcome"]

    assert match({"tag": "(2001,101c)", "is": ["fat"]}, {"tag": "0019109C", "is": ["FSE*"], "is_not": ["*spgr"]}) == "matched"
    assert match({"tag": "(0019,109c)", "is_not": ["fse*"]}) == "no_match"
    # The block that its creator has is another in each file: a keyword cannot name it.
    settings = yaml.safe_load(site.read_text())
    settings["rules"][0]["match"]["tags"] = [{"tag": "PrepulseType", "is": ["INV"]}]
    site.write_text(yaml.safe_dump(settings, sort_keys=False))
    assert "PrepulseType" in cli("check-config", "-c", site, status=1).stderr


def test_word__of_the_admin_stands_above_physics(route, site, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192, RepetitionTime=None, EchoTime=None)
    assert "contrast" in route("in")["series"][0]["refusal"]

    def edit(settings):
        rule = next(r for r in settings["rules"] if r["name"] == "t2-to-t1")
        rule["assume_contrast"] = "T2"
        rule["match"]["tags"] = [{"tag": "SeriesDescription", "is": ["t2*"]}]
    change(site, edit)
    assert decisions(route("in")["series"][0])["t2-to-t1"]["outcome"] == "matched"


def test_model__of_the_highest_version_is_taken(route, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)
    make_model(tmp_path / "models" / "a.onnx", version="0.10.0")
    make_model(tmp_path / "models" / "z.onnx", version="0.9.0")
    assert decisions(route("in")["series"][0])["t2-to-t1"]["model"] == "a.onnx"


def test_output__holds_no_name_and_no_number_of_the_patient(cli, site, tmp_path):
    make_series(tmp_path / "in", rows=200, columns=192)
    for arguments in ([], ["--json"]):
        done = cli("route", "-c", site, "in", *arguments)
        assert "Secret" not in done.stdout + done.stderr and "4711" not in done.stdout + done.stderr


def test_path__without_dicom_is_an_error(cli, site, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("hello")
    assert "no DICOM images among 1 files" in cli("route", "-c", site, "text", status=1).stderr
    assert "nowhere" in cli("route", "-c", site, "nowhere", status=1).stderr
