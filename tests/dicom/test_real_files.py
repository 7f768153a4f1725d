"""Real DICOM files, the hundred odd that come with pydicom: each is read or refused cleanly, whatever is in it."""

from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from driverkit import Refused
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut

FILES = sorted(p for p in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*") if p.is_file() and p.suffix != ".py")
WORDS = {"ok", "invalid", "unsupported", "refused", "limit", "numeric"}


def test_real_files__are_opened_or_refused_with_a_reason(driver):
    assert len(FILES) > 90
    said = driver.open(FILES)
    assert len(said) == len(FILES)
    for path, (word, text) in said.items():
        assert word in WORDS, (path, word, text)
        assert word == "ok" or text, path
    assert sum(word == "ok" for word, _ in said.values()) > 20


def grey_and_uncompressed(path: Path):
    try:
        image = dcmread(path)
        syntax = image.file_meta.TransferSyntaxUID
        wanted = not syntax.is_compressed or syntax.name.startswith("Deflated")
        if not wanted or image.SamplesPerPixel != 1 or not image.PhotometricInterpretation.startswith("MONOCHROME2") or image.BitsAllocated not in (8, 16):
            return None
        return image, image.pixel_array
    except Exception:
        return None


def test_real_files__grey_ones_decode_as_pydicom_decodes_them(driver, tmp_path):
    compared = 0
    for path in FILES:
        oracle = grey_and_uncompressed(path)
        if oracle is None:
            continue
        image, pixels = oracle
        pixels = pixels[0] if pixels.ndim == 3 else pixels
        try:
            ours = driver.pixels(path, tmp_path / "out", pixels.shape)
        except Refused as refused:
            # pydicom pads or guesses where the file contradicts itself; a file that we refuse must say why.
            assert refused.text, path
            continue
        assert np.allclose(ours, apply_modality_lut(pixels, image), atol=1e-3), path
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize("part", range(4))
def test_real_files__truncated_anywhere_are_refused_or_read(driver, tmp_path, part):
    """Each file cut at pseudo-random places: never a crash, never a hang."""
    rng = np.random.default_rng(part)
    cut = []
    for path in FILES:
        data = path.read_bytes()
        if 200 < len(data) < 2_000_000:
            cut.append(tmp_path / path.name)
            cut[-1].write_bytes(data[: rng.integers(132, len(data))])
    for word, _ in driver.open(cut).values():
        assert word in WORDS


@pytest.mark.parametrize("part", range(4))
def test_real_files__with_wrong_bytes_are_refused_or_read(driver, tmp_path, part):
    rng = np.random.default_rng(100 + part)
    spoilt = []
    for path in FILES:
        data = bytearray(path.read_bytes())
        if not 200 < len(data) < 2_000_000:
            continue
        for at in rng.integers(132, min(len(data), 4000), 6):
            data[at] = rng.integers(0, 256)
        spoilt.append(tmp_path / path.name)
        spoilt[-1].write_bytes(data)
    for word, _ in driver.open(spoilt).values():
        assert word in WORDS
