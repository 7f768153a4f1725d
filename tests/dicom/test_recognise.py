"""dicom/recognise: contrast from physics, plane, body part; and what no model may see."""

import pytest
from dicomkit import code, mr_images, save, synthesizer, xray_image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForProcessing, EnhancedMRImageStorage, SecondaryCaptureImageStorage

T1 = dict(RepetitionTime=500, EchoTime=11, SeriesDescription="sag", ProtocolName="sag")
INVERSION = dict(ScanningSequence=["SE", "IR"], SeriesDescription="sag", ProtocolName="sag")
STIR = INVERSION | dict(InversionTime=150, RepetitionTime=4000, EchoTime=60)
AGENT = Sequence([code("C-17800", "SRT", "Gadolinium")])

CONTRASTS = {
    "t2": ({}, "T2"),
    "t1": (T1, "T1"),
    "t1_gradient_spin_echo_names_do_not_matter": (T1 | dict(SequenceName="*x"), "T1"),
    "stir": (STIR, "STIR"),
    "stir_by_ti_alone": (STIR | dict(ScanningSequence="SE"), "STIR"),
    "stir_at_3_tesla": (STIR | dict(InversionTime=290, MagneticFieldStrength=3), "STIR"),
    "tirm_by_protocol": (STIR | dict(ProtocolName="t2_tirm_sag"), "TIRM"),
    "tirm_by_sequence": (STIR | dict(SequenceName="*tir2d1_16"), "TIRM"),
}


@pytest.mark.parametrize("case", CONTRASTS)
def test_recognise__contrast_from_physics(look, case):
    attributes, contrast = CONTRASTS[case]
    said = look(mr_images(**attributes))
    assert (said["contrast"], said["refusal"]) == (contrast, "")
    assert (said["kind"], said["plane"], said["body_part"]) == ("mr", "sagittal", "LSPINE")
    assert any(contrast in reason for reason in said["reasons"])


REFUSED = {
    "gradient_echo": (dict(ScanningSequence="GR"), "gradient echo"),
    "epi": (dict(ScanningSequence=["SE", "EP"]), "echo planar"),
    "flair": (INVERSION | dict(InversionTime=2200, RepetitionTime=9000), "FLAIR (TI 2200 ms)"),
    "t1_flair": (INVERSION | dict(InversionTime=860, RepetitionTime=2000, EchoTime=20), "T1-FLAIR"),
    "inversion_without_time": (INVERSION, "without InversionTime"),
    "inversion_between": (STIR | dict(InversionTime=400), "cannot be told"),
    "stir_ti_too_long_at_1_5_tesla": (STIR | dict(InversionTime=290), "cannot be told"),
    "proton_density": (dict(EchoTime=30), "proton density"),
    "between_t1_and_t2": (dict(RepetitionTime=1300, EchoTime=50), "neither T1, T2 nor PD"),
    "no_repetition_time": (dict(RepetitionTime=None), "RepetitionTime or EchoTime is missing"),
    "no_sequence": (dict(ScanningSequence=None), "ScanningSequence is missing"),
    "research_sequence": (dict(ScanningSequence="RM"), "neither SE nor IR"),
    "fat_saturated": (dict(ScanOptions=["PFP", "FS"]), "fat-saturated (ScanOptions)"),
    "fat_saturated_by_name": (dict(SeriesDescription="T2 FS SAG"), "fat-saturated"),
    "dixon": (dict(ImageType=["ORIGINAL", "PRIMARY", "DIXON", "WATER"]), "Dixon"),
    "dixon_by_name": (dict(ProtocolName="t2_tse_dixon_sag"), "Dixon"),
    "contrast_agent": (dict(ContrastBolusAgent="Gadovist"), "contrast-enhanced (ContrastBolusAgent"),
    "contrast_agent_sequence": (dict(ContrastBolusAgentSequence=AGENT), "contrast-enhanced (ContrastBolusAgentSequence"),
    "contrast_agent_by_name": (T1 | dict(SeriesDescription="t1_sag_+_KM"), "contrast-enhanced (by its name"),
    "localizer": (dict(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "localizer_by_name": (dict(SeriesDescription="Survey"), "localizer"),
    "derived": (dict(ImageType=["DERIVED", "PRIMARY", "MPR"]), "derived"),
    "projection": (dict(ImageType=["ORIGINAL", "PRIMARY", "PROJECTION IMAGE"]), "derived"),
    "phase": (dict(ImageType=["ORIGINAL", "PRIMARY", "P"]), "phase image"),
    "volume": (dict(MRAcquisitionType="3D"), "3D"),
    "axial": (dict(plane="axial"), "axial series"),
    "coronal": (dict(plane="coronal"), "coronal series"),
    "oblique": (dict(plane=[0.7071, 0.7071, 0, 0, 0, -1]), "oblique series"),
    "knee": (dict(BodyPartExamined="KNEE"), "not the spine"),
    "brain_by_code": (dict(BodyPartExamined=None, AnatomicRegionSequence=Sequence([code("12738006", "SCT", "Brain")])), "not the spine"),
    "no_body_part": (dict(BodyPartExamined=None), "body part is not given"),
    "synthetic": (dict(SyntheticDatum="YES"), "synthetic image (SyntheticData"),
    "synthetic_by_type": (dict(ImageType=["DERIVED", "SECONDARY", "OTHER", "SYNTH_T2_TO_T1"]), "synthetic image (ImageType"),
    "synthetic_by_equipment": (dict(ContributingEquipmentSequence=synthesizer()), "synthetic image (contributing equipment"),
    "secondary_capture": (dict(SOPClassUID=SecondaryCaptureImageStorage), "secondary capture"),
    "enhanced": (dict(SOPClassUID=EnhancedMRImageStorage), "Enhanced (multi-frame) MR is not supported"),
    "ct": (dict(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "SOP class 1.2.840.10008.5.1.4.1.1.2"),
    "says_stir_but_has_no_inversion": (dict(ProtocolName="t2_stir_sag"), "contradictory"),
    "says_t1_but_is_t2": (dict(SeriesDescription="T1 sag", ProtocolName="x"), "contradictory"),
    "says_t2_but_is_t1": (T1 | dict(SeriesDescription="T2 sag"), "contradictory"),
}


def make(attributes: dict) -> list[Dataset]:
    attributes = dict(attributes)
    synthetic = attributes.pop("SyntheticDatum", None)
    images = mr_images(**attributes)
    for image in images:
        if synthetic:
            image.add_new(0x0008001C, "CS", synthetic)
    return images


@pytest.mark.parametrize("case", REFUSED)
def test_recognise__refuses_and_says_why(look, case):
    attributes, reason = REFUSED[case]
    said = look(make(attributes))
    assert reason in said["refusal"]
    assert said["refusal_word"] in ("refused", "unsupported")
    assert "Müller" not in str(said) and "P1" not in said["refusal"]


def test_recognise__localizer_of_three_planes_is_called_a_localizer(look):
    images = mr_images(slices=1) + mr_images(slices=1, plane="coronal") + mr_images(slices=1, plane="axial")
    for image in images:
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(image, keyword, getattr(images[0], keyword))
    assert look(images)["refusal"].startswith("localizer")


@pytest.mark.parametrize(
    "attributes, body_part",
    [
        (dict(BodyPartExamined="CSPINE"), "CSPINE"),
        (dict(BodyPartExamined="Spine"), "SPINE"),
        (dict(BodyPartExamined=None, AnatomicRegionSequence=Sequence([code("122496007", "SCT", "Lumbar spine")])), "LSPINE"),
        (dict(BodyPartExamined="KNEE", AnatomicRegionSequence=Sequence([code("122495006", "SCT", "Thoracic spine")])), "TSPINE"),
    ],
)
def test_recognise__body_part_by_code_above_word(look, attributes, body_part):
    said = look(mr_images(**attributes))
    assert (said["body_part"], said["refusal"]) == (body_part, "")


def test_recognise__body_part_by_name_only_when_allowed(look):
    images = mr_images(BodyPartExamined=None, ProtocolName="LWS t2_tse")
    assert look(images)["refusal"]
    said = look(images, "--by-name")
    assert (said["body_part"], said["refusal"]) == ("LSPINE", "")
    assert look(mr_images(BodyPartExamined="KNEE", ProtocolName="LWS"), "--by-name")["refusal"]
    assert look(mr_images(BodyPartExamined=None, ProtocolName="flows"), "--by-name")["refusal"]


@pytest.mark.parametrize("no_agent", ["NONE", "no", ""])
def test_recognise__no_contrast_agent_in_words_is_none(look, no_agent):
    assert look(mr_images(ContrastBolusAgent=no_agent))["refusal"] == ""


LATERAL = [
    dict(),
    dict(ViewPosition="RL", PatientOrientation=None),
    dict(ImageType=["DERIVED", "PRIMARY"]),  # derived from the one For Processing: what rooms send
    dict(ImageType=["ORIGINAL", "PRIMARY", "", "P"]),
    dict(ViewPosition=None),
    dict(ViewPosition=None, PatientOrientation=["P", "F"]),
    dict(ViewPosition=None, PatientOrientation=None, ViewCodeSequence=Sequence([code("399198007", "SCT", "right lateral")])),
]


@pytest.mark.parametrize("attributes", LATERAL, ids=range(len(LATERAL)))
@pytest.mark.parametrize("digital", [False, True], ids=["cr", "dx"])
def test_recognise__lateral_xray(look, attributes, digital):
    said = look(xray_image(digital, **attributes))
    assert (said["kind"], said["contrast"], said["plane"], said["refusal"]) == ("xray", "XR", "lateral", "")


@pytest.mark.parametrize(
    "attributes, reason",
    [
        (dict(ViewPosition="AP", PatientOrientation=["L", "F"]), "frontal x-ray"),
        (dict(ViewPosition=None, PatientOrientation=["L", "F"]), "frontal x-ray"),
        (dict(ViewPosition=None, PatientOrientation=None), "unknown view"),
        (dict(ViewPosition="LL", PatientOrientation=["L", "F"]), "contradictory"),
        (dict(SOPClassUID=DigitalXRayImageStorageForProcessing), "DX For Processing"),
        (dict(BodyPartExamined="CHEST"), "not the spine"),
        (dict(ImageType=["DERIVED", "SECONDARY"]), "secondary image"),
    ],
)
def test_recognise__refuses_other_xrays(look, attributes, reason):
    assert reason in look(xray_image(True, **attributes))["refusal"]


def test_recognise__every_image_of_a_synthetic_series_is_enough(look):
    """One marked image among unmarked ones: never processed."""
    images = mr_images()
    images[2].add_new(0x0008001C, "CS", "YES")
    assert look(images)["refusal"]


def test_recognise__synthetic_data_stored_as_unknown_vr(driver, tmp_path):
    """As a PACS stores what its dictionary does not have. pydicom knows the tag and writes CS, so the bytes are changed."""
    images = mr_images()
    for image in images:
        image.add_new(0x0008001C, "CS", "YES")
    paths = save(tmp_path, images)
    for path in paths:
        data, known = path.read_bytes(), b"\x08\x00\x1c\x00CS\x04\x00YES "
        assert data.count(known) == 1
        path.write_bytes(data.replace(known, b"\x08\x00\x1c\x00UN\x00\x00\x04\x00\x00\x00YES "))
    assert "synthetic image" in driver.series(paths)["refusal"]
