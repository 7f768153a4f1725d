"""The contact sheet: source beside result, in the windows that the DICOM objects ask for."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

TILE = 384
GAP = 12
LABEL = 40


def windowed(image: Dataset) -> np.ndarray:
    """Eight bits by WindowCenter and WindowWidth (PS3.3 C.11.2.1.2.1), after the rescale if there is one."""
    values = image.pixel_array.astype(np.float64) * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))
    centre, width = (float(np.atleast_1d(image[k].value)[0]) for k in ("WindowCenter", "WindowWidth"))
    scaled = ((values - (centre - 0.5)) / max(width - 1, 1) + 0.5) * 255
    grey = np.clip(scaled, 0, 255).astype(np.uint8)
    return 255 - grey if image.PhotometricInterpretation == "MONOCHROME1" else grey


def tile(image: Dataset | None) -> Image.Image:
    canvas = Image.new("L", (TILE, TILE), 24)
    if image is not None:
        picture = Image.fromarray(windowed(image))
        scale = TILE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        # A smaller source is shown with its own pixels, a larger one averaged down.
        how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        canvas.paste(picture.resize(size, how), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return canvas


def write(rows: list[list[tuple[str, Dataset | None]]], path: Path) -> None:
    """rows of (label, image); every row as wide as the longest."""
    columns = max(len(row) for row in rows)
    sheet = Image.new("L", (GAP + columns * (TILE + GAP), GAP + len(rows) * (TILE + LABEL + GAP)), 0)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for r, row in enumerate(rows):
        for c, (label, image) in enumerate(row):
            x, y = GAP + c * (TILE + GAP), GAP + r * (TILE + LABEL + GAP)
            draw.multiline_text((x, y + 3), label, fill=220, font=font, spacing=3)
            sheet.paste(tile(image), (x, y + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
