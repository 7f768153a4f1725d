"""Box plots like the paper's, and contact sheets."""

import numpy as np
from PIL import Image, ImageDraw

from .report import NAMES


def sheet(rows, heads, path, cell=320):
    """One row per example, images side by side under their heads, values in [0, 1]; each keeps its shape."""
    lines = []
    for row in rows:
        line = []
        for image in row:
            scale = cell / max(image.shape)
            size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
            small = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).resize(size, Image.LANCZOS)
            square = Image.new("L", (cell, cell))
            square.paste(small, ((cell - size[0]) // 2, (cell - size[1]) // 2))
            line.append(np.asarray(square))
        lines.append(np.concatenate(line, 1))
    banner = Image.new("L", (lines[0].shape[1], 18))
    draw = ImageDraw.Draw(banner)
    for k, text in enumerate(heads):
        draw.text((k * cell + 4, 3), text, fill=255)
    Image.fromarray(np.concatenate([np.asarray(banner)] + lines, 0)).save(path)


def boxes(path, title, rows, methods):
    """Box plots of each measure by method."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, len(NAMES), figsize=(3.2 * len(NAMES), 3.4))
    for axis, measure in zip(axes, NAMES):
        shown = [(m, [r[measure] for r in rows if r["method"] == m and measure in r]) for m in methods]
        shown = [(m, values) for m, values in shown if values]
        axis.boxplot([values for _, values in shown], showfliers=False)
        axis.set_xticks(range(1, len(shown) + 1), [m for m, _ in shown], rotation=40, ha="right", fontsize=7)
        axis.set_title(NAMES[measure], fontsize=9)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
