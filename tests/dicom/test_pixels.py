"""dicom/pixel: decoded values against pydicom's, over syntaxes, depths, signs, LUTs and photometric interpretations."""

import numpy as np
import pydicom.data
import pytest
from driverkit import Refused
from dicomkit import mr_images, pattern, save, set_pixels
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big_endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}


def signed_values(rows: int, columns: int) -> np.ndarray:
    return pattern(rows, columns, 1).astype(np.int16) - 500


def made(stored: int, signed: bool) -> Dataset:
    image = mr_images(slices=1, rows=33, columns=21)[0]
    values = signed_values(33, 21) if signed else pattern(33, 21, 1)
    if stored <= 8:
        values = values >> 4
    elif stored == 16:
        values = values * 16
    return set_pixels(image, values, stored, signed)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("stored, signed", [(8, False), (8, True), (12, False), (12, True), (16, False), (16, True), (10, False)])
def test_pixels__equal_pydicom(driver, tmp_path, syntax, stored, signed):
    image = made(stored, signed)
    path = save(tmp_path, [image], SYNTAXES[syntax])[0]
    expected = dcmread(path).pixel_array.astype(np.float32)
    assert expected.max() > 20 and (not signed or expected.min() < 0)
    assert np.array_equal(driver.pixels(path, tmp_path / "out", expected.shape), expected)


@pytest.mark.parametrize("signed, slope, intercept", [(True, 2.5, -1024), (False, 2.5, 0), (False, 1, -7)])
def test_pixels__rescale_is_applied(driver, tmp_path, signed, slope, intercept):
    image = made(12, signed)
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = slope, intercept, "US"
    path = save(tmp_path, [image])[0]
    expected = image.pixel_array * float(slope) + intercept
    assert np.allclose(driver.pixels(path, tmp_path / "out", expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize("signed", [False, True])
def test_pixels__modality_lut_equals_pydicom(driver, tmp_path, signed):
    image = made(12, signed)
    lut = Dataset()
    lut.add_new(0x00283002, "SS" if signed else "US", [600, -200 if signed else 100, 16])
    lut.ModalityLUTType = "US"
    lut.LUTData = (np.arange(600, dtype="<u2") ** 2 % 50_000).astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    image.ModalityLUTSequence = Sequence([lut])
    path = save(tmp_path, [image])[0]
    expected = apply_modality_lut(image.pixel_array, image)
    assert np.array_equal(driver.pixels(path, tmp_path / "out", expected.shape), expected)


@pytest.mark.parametrize("signed, slope", [(False, 1), (True, 1), (False, 2), (True, -1)])
def test_pixels__monochrome1_is_mirrored_about_its_range(driver, tmp_path, signed, slope):
    image = made(12, signed)
    image.PhotometricInterpretation, image.RescaleSlope, image.RescaleIntercept = "MONOCHROME1", slope, 10
    path = save(tmp_path, [image])[0]
    low, high = (-2048, 2047) if signed else (0, 4095)
    expected = (low + high) * slope + 2 * 10 - (image.pixel_array * float(slope) + 10)
    assert np.array_equal(driver.pixels(path, tmp_path / "out", expected.shape), expected)


def test_pixels__bits_above_those_stored_are_ignored(driver, tmp_path):
    """Old scanners leave overlay bits there."""
    image = made(12, False)
    values = pattern(33, 21, 1)
    image.PixelData = (values | 0xF000).astype("<u2").tobytes()
    path = save(tmp_path, [image])[0]
    assert np.array_equal(driver.pixels(path, tmp_path / "out", values.shape), values)


# Real files in compressed syntaxes, from the pydicom package.
COMPRESSED = ["MR_small_RLE.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm", "emri_small_RLE.dcm", "emri_small_jpeg_ls_lossless.dcm", "JPEG-lossy.dcm"]


@pytest.mark.parametrize("name", [n for n in COMPRESSED if pydicom.data.get_testdata_file(n, download=False)])
def test_pixels__compressed_equal_another_decoder(driver, tmp_path, name):
    """dcmdjpeg, dcmdjpls and dcmdrle decode the file; pydicom reads what they wrote."""
    import shutil
    import subprocess

    path = pydicom.data.get_testdata_file(name, download=False)
    plain = tmp_path / "plain.dcm"
    for tool in ("dcmdjpeg", "dcmdjpls", "dcmdrle"):
        if shutil.which(tool) and subprocess.run([tool, path, plain], capture_output=True).returncode == 0:
            if not dcmread(plain, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_compressed:
                break
    frames = dcmread(plain)
    expected = frames.pixel_array
    last = int(frames.get("NumberOfFrames", 1) or 1) - 1
    expected = expected[last] if expected.ndim == 3 else expected
    expected = apply_modality_lut(expected, frames)
    assert np.array_equal(driver.pixels(path, tmp_path / "out", expected.shape, last), expected.astype(np.float32))


def broken(**attributes):
    def edit(image: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(image, keyword, value)

    return edit


def shorter(image: Dataset) -> None:
    image.PixelData = image.PixelData[:-100]


def no_pixels(image: Dataset) -> None:
    del image.PixelData


@pytest.mark.parametrize(
    "edit, word, reason",
    [
        (shorter, "invalid", "too short"),
        (no_pixels, "invalid", "no pixel data"),
        (broken(Rows=0), "invalid", "Rows"),
        (broken(Rows=60_000), "limit", "Rows"),
        (broken(Rows=34), "invalid", "too short"),
        (broken(NumberOfFrames=5000), "limit", "NumberOfFrames"),
        (broken(NumberOfFrames=2), "invalid", "too short"),
        (broken(BitsStored=17), "limit", "BitsStored"),
        (broken(HighBit=5), "invalid", "HighBit"),
        (broken(BitsAllocated=32), "unsupported", "32 bits allocated"),
        (broken(BitsAllocated=12), "unsupported", "12 bits allocated"),
        (broken(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "refused", "colour"),
        (broken(PhotometricInterpretation="PALETTE COLOR"), "refused", "colour"),
        (broken(RescaleSlope=0, RescaleIntercept=0), "invalid", "RescaleSlope"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pixels__refuses_what_contradicts_itself(driver, tmp_path, edit, word, reason):
    image = made(12, False)
    edit(image)
    path = save(tmp_path, [image])[0]
    with pytest.raises(Refused) as refused:
        driver.pixels(path, tmp_path / "out", (33, 21))
    assert refused.value.word == word
    assert reason in refused.value.text


def test_pixels__jpeg_2000_is_named_as_unsupported(driver, tmp_path):
    path = pydicom.data.get_testdata_file("JPEG2000.dcm", download=False)
    with pytest.raises(Refused) as refused:
        driver.pixels(path, tmp_path / "out", (1024, 256))
    assert refused.value.word == "unsupported" and "JPEG 2000" in refused.value.text
