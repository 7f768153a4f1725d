"""dicom/series: order, geometry, and every way in which files are no stack that a model may see."""

import numpy as np
import pytest
from driverkit import Refused
from dicomkit import ORIENTATIONS, change, coloured, mr_images, normal_of, pattern, save, set_pixels, xray_image
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, generate_uid


def drop(keyword: str):
    return lambda images: [change(images[0], {keyword: None})] and images


def move(index: int, millimetres: float):
    """Moves one slice along the normal."""

    def edit(images: list) -> list:
        step = millimetres * normal_of(images[0].ImageOrientationPatient)
        images[index].ImagePositionPatient = [float(v) for v in np.array(images[index].ImagePositionPatient) + step]
        return images

    return edit


def first(**attributes):
    return lambda images: [change(images[0], attributes)] and images


def without(*indices: int):
    return lambda images: [image for k, image in enumerate(images) if k not in indices]


def smaller_first(images: list) -> list:
    set_pixels(images[0], pattern(40, 40, 0))
    return images


def twice(images: list) -> list:
    images[1].SOPInstanceUID = images[0].SOPInstanceUID
    return images


def many_frames(images: list) -> list:
    for image in images:
        image.NumberOfFrames = 2
        image.PixelData = image.PixelData * 2
    return images


def sheared(images: list) -> list:
    for k, image in enumerate(images):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, float(y) + 5.0 * k, z]
    return images


REFUSED = {
    "missing_orientation": (drop("ImageOrientationPatient"), "missing geometry: ImageOrientationPatient"),
    "missing_position": (drop("ImagePositionPatient"), "missing geometry: ImagePositionPatient"),
    "missing_spacing": (drop("PixelSpacing"), "missing geometry: PixelSpacing"),
    "missing_frame_of_reference": (lambda images: [change(image, {"FrameOfReferenceUID": None}) for image in images], "missing geometry: FrameOfReferenceUID"),
    "half_an_orientation": (first(ImageOrientationPatient=[0, 1, 0]), "missing geometry: ImageOrientationPatient"),
    "skewed_orientation": (first(ImageOrientationPatient=[0, 1, 0, 0, 0.7, -0.714]), "perpendicular"),
    "zero_spacing": (first(PixelSpacing=[0, 0.7]), "PixelSpacing is not a size"),
    "same_position": (move(2, -4.4), "duplicate slice positions: 1 images"),
    "one_slice": (without(1, 2, 3, 4), "only one slice"),
    "gap": (without(2), "missing slices: 1 between image 2 and 3 of 4"),
    "large_gap": (without(1, 2), "missing slices: 2 between image 1 and 2 of 3"),
    "every_other_slice_missing": (without(1, 3), "SpacingBetweenSlices says 4.40"),
    "uneven": (move(4, 2.0), "uneven slice spacing: image 4 and 5"),
    "sheared": (sheared, "shifted against each other"),
    "colour": (coloured, "colour images"),
    "frames": (many_frames, "multi-frame"),
    "two_sizes": (smaller_first, "several sizes"),
    "two_orientations": (first(ImageOrientationPatient=ORIENTATIONS["axial"]), "several orientations"),
    "two_echoes": (first(EchoTime=20), "several protocols under one SeriesInstanceUID: EchoTime"),
    # The second image lies in the first file: what it alone is must not be said of the series.
    "two_sequences": (lambda images: [change(images[1], {"ScanningSequence": "GR"})] and images, "several protocols under one SeriesInstanceUID: ScanningSequence"),
    "two_repetition_times": (first(RepetitionTime=500), "RepetitionTime"),
    "two_image_types": (first(ImageType=["ORIGINAL", "PRIMARY", "P"]), "ImageType"),
    "two_classes": (first(SOPClassUID=EnhancedMRImageStorage), "several SOP classes"),
    "two_frames_of_reference": (first(FrameOfReferenceUID=generate_uid()), "several frames of reference"),
    "two_series": (first(SeriesInstanceUID=generate_uid()), "several series"),
    "same_instance_twice": (twice, "same SOPInstanceUID twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_series__refuses_what_is_no_stack_and_says_why(look, case):
    edit, reason = REFUSED[case]
    said = look(edit(mr_images()))
    assert said["problem_word"] in ("refused", "unsupported")
    assert reason in said["problem"]
    assert said["refusal"] == said["problem"], "recognition must not let it through, nor say something else of it"
    assert "\n" not in said["problem"]


@pytest.mark.parametrize("plane", ["sagittal", [-0.049979, 0.998750, 0, 0, 0, -1], [0, 0.9962, -0.0872, 0, -0.0872, -0.9962]])
def test_series__sorts_by_position_whatever_the_instance_numbers_say(look, plane):
    images = mr_images(slices=9, plane=plane)
    for image, number in zip(images, [3, 9, 1, 7, 5, 2, 8, 4, 6], strict=True):
        image.InstanceNumber = number
    said = look(images)
    assert said["problem"] == ""
    names = {str(image.SOPInstanceUID): k for k, image in enumerate(images)}
    assert [names[dcmread(path).SOPInstanceUID] for path in said["paths"]] == list(range(9))
    assert said["slice_spacing"] == pytest.approx(4.4, abs=1e-4)
    assert said["normal"] == pytest.approx(list(normal_of(images[0].ImageOrientationPatient)), abs=1e-3)
    assert said["spacing"] == [0.8, 0.7]


def test_series__tolerates_rounding_of_positions(look):
    images = mr_images(slices=15, step_mm=4.4444, plane=[-0.049979, 0.998750, 0, 0, 0, -1])
    for image in images:
        image.ImagePositionPatient = [round(float(v), 2) for v in image.ImagePositionPatient]
    steps = np.diff([np.dot(i.ImagePositionPatient, normal_of(i.ImageOrientationPatient)) for i in images])
    assert steps.max() - steps.min() > 0.005, "the rounding shows nowhere"
    assert look(images)["problem"] == ""


def test_series__reads_one_file_alone_of_a_series_beyond_the_limit(driver, tmp_path):
    paths = save(tmp_path, mr_images(slices=2))
    said = driver.series([paths[0]] + [tmp_path / "not-there"] * 10_000)
    assert said["problem_word"] == "limit"
    assert "10001 images, more than the limit of 512" in said["problem"]
    assert said["refusal_word"] == "limit"


def test_series__of_an_xray_is_one_image(look):
    assert look(xray_image())["problem"] == ""
    two = xray_image() + xray_image()
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID"):
        setattr(two[1], keyword, getattr(two[0], keyword))
    assert "x-ray series of 2 images" in look(two)["problem"]


@pytest.mark.parametrize("attributes, spacing", [
    (dict(PixelSpacing=None), [0.15, 0.15]),
    (dict(PixelSpacing=[0.12, 0.12]), [0.15, 0.15]),  # calibrated in the patient; pixels are those of the detector
    (dict(ImagerPixelSpacing=None, PixelSpacing=[0.12, 0.11]), [0.12, 0.11]),
    (dict(ImagerPixelSpacing=None), [0, 0]),
    (dict(ImagerPixelSpacing=[0, 0]), [0, 0]),
])
def test_series__of_an_xray_has_the_detectors_pixels(look, attributes, spacing):
    said = look(xray_image(**attributes))
    assert said["spacing"] == spacing and said["problem"] == ""
    assert "normal" not in said


def test_series__unreadable_file_is_an_error_with_its_path(driver, tmp_path):
    paths = save(tmp_path, mr_images(slices=3))
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    with pytest.raises(Refused) as refused:
        driver.series(paths)
    assert refused.value.word == "invalid"
    assert paths[1].name in refused.value.text


def test_series__of_many_files_tells_the_first_that_is_unreadable(driver, tmp_path):
    paths = save(tmp_path, mr_images(slices=16))
    said = driver.series(paths)
    assert "problem" not in said or not said["problem"]
    for k in (5, 9, 15):
        paths[k].write_bytes(paths[k].read_bytes()[:2000])
    for _ in range(5):  # several threads read them
        with pytest.raises(Refused) as refused:
            driver.series(paths)
        assert paths[5].name in refused.value.text


def test_group__of_many_files_is_that_of_few(driver, tmp_path):
    folders = [save(tmp_path / str(k), mr_images(slices=10)) for k in range(3)]
    mixed = [folder[i] for i in range(10) for folder in folders]
    assert driver.run("group", *mixed).split() == ["0", "1", "2"] * 10


def test_group__sorts_files_into_series_and_leaves_out_what_is_no_image(driver, tmp_path):
    one, two = save(tmp_path / "a", mr_images(slices=2)), save(tmp_path / "b", mr_images(slices=2))
    (tmp_path / "notes.txt").write_text("no DICOM")
    said = driver.run("group", one[0], tmp_path / "notes.txt", two[0], one[1], two[1])
    assert said.split() == ["0", "-1", "1", "0", "1"]
