"""EVALUATION.md from measured rows: tables, goals, and what was missed.  Never edited by hand."""

import numpy as np

from . import metrics

FULL_REFERENCE = ("mse", "psnr", "ssim", "vifp")
NAMES = {"mse": "MSE", "psnr": "PSNR dB", "ssim": "SSIM", "vifp": "VIFp", "cpbd": "CPBD"}
PAPER_KAPPA = {"t1-to-t2": "0.455 / 0.221 / 0.406", "t2-to-t1": "0.086 / 0.270 / 0.286", "t2-to-stir": "0.842 / 1.000 / 0.592",
               "t2-to-tirm": "0.842 / 0.933 / 0.691"}
KAPPA_GOALS = {"t1-to-t2": (0.7, 0.5), "t2-to-t1": (0.7, 0.5), "t2-to-stir": (0.9, 0.7), "t2-to-tirm": (0.9, 0.7)}
ORDER = ("super-resolution", "t1-to-t2", "t2-to-t1", "t2-to-stir", "t2-to-tirm", "xray-to-t2")


class Goals:
    """A list of (text, reached, what was measured)."""

    def __init__(self):
        self.rows = []

    def add(self, text, reached, measured):
        self.rows.append((text, bool(reached), measured))

    @property
    def met(self):
        return sum(r for _, r, _ in self.rows)


def mean_table(rows, methods):
    """Markdown table of means with 95 % intervals over subjects."""
    lines = ["| method | " + " | ".join(NAMES[m] for m in NAMES) + " |", "|---|" + "---|" * len(NAMES)]
    for method in methods:
        mine = [r for r in rows if r["method"] == method]
        cells = []
        for measure in NAMES:
            values = [(r[measure], r["group"]) for r in mine if measure in r]
            if not values:
                cells.append("")
                continue
            mean, low, high = metrics.bootstrap(*zip(*values))
            digits = 5 if measure == "mse" else 2 if measure == "psnr" else 3
            cells.append(f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def compare(rows, other, measure):
    """Mean gain of the model over another method, paired per image, with its 95 % interval; better is positive."""
    sign = -1.0 if measure == "mse" else 1.0
    mine = [r for r in rows if r["method"] == "model"]
    theirs = [r for r in rows if r["method"] == other]
    gains = [sign * (a[measure] - b[measure]) for a, b in zip(mine, theirs)]
    return metrics.bootstrap(gains, [a["group"] for a in mine])


def gain_goals(goals, label, rows, baselines, measures):
    """One goal per measure: the model beats every baseline by a margin whose interval excludes 0."""
    for measure in measures:
        results = [(b,) + compare(rows, b, measure) for b in baselines]
        worst = min(results, key=lambda r: r[2])
        digits = 5 if measure == "mse" else 3
        goals.add(f"{label}: {NAMES[measure]} better than {', '.join(baselines)}", worst[2] > 0,
                  f"against {worst[0]}: {worst[1]:+.{digits}f} ({worst[2]:+.{digits}f} to {worst[3]:+.{digits}f})")


def finding_goals(goals, task, findings):
    disc_goal, modic_goal = KAPPA_GOALS[task]
    by = {f["finding"]: f for f in findings}
    for name, goal in (("disc", disc_goal), ("modic", modic_goal)):
        f = by[name]
        goals.add(f"{task}: kappa of {name} at least {goal}", f["kappa"] >= goal, f"{f['kappa']:.3f} ({f['low']:.3f} to {f['high']:.3f})")
    f = by["modic"]
    goals.add(f"{task}: endplate lesions seen in the native image are seen in the synthetic one, at least 0.90",
              f["sensitivity"] >= 0.9, f"{f['sensitivity']:.3f}")
    goals.add(f"{task}: lesions invented on healthy endplates, at most 2 %", f["false_positive"] <= 0.02,
              f"{100 * f['false_positive']:.1f} % (the reader on native images: {100 * f['native_false_positive']:.1f} %)")


def finding_table(task, findings):
    lines = [f"Kappa of readings, native against synthetic. The paper's readers (L4-L5 disc / L5-S1 disc / Modic): {PAPER_KAPPA[task]}.", "",
             "| finding | kappa (95 % interval) | readings | sensitivity against native | false positives | reader against truth: native, synthetic |",
             "|---|---|---|---|---|---|"]
    for f in findings:
        if f["finding"] == "modic":
            truth = f"sensitivity of the reader on native {f['native_sensitivity']:.2f}"
        else:
            truth = f"kappa {f['native_truth']:.2f}, {f['synthetic_truth']:.2f}"
        lines.append(f"| {f['finding']} | {f['kappa']:.3f} ({f['low']:.3f} to {f['high']:.3f}) | {f['n']} | {f['sensitivity']:.3f} | "
                     f"{f['false_positive']:.3f} | {truth} |")
    return lines


def facts_table(models):
    lines = ["| model | version | file bytes | MACs per 512-pixel result | SHA-256 |", "|---|---|---|---|---|"]
    for m in models:
        lines.append(f"| {m['name']} | {m['version']} | {m['bytes']} | {m['gmac']:.1f} G | {m['sha256'][:16]}… |")
    return lines


def write(path, models, sections, goals, notes):
    """The whole document.  sections: list of (title, lines)."""
    lines = ["# Evaluation of the shipped models", "",
             "Made by `scripts/evaluate`; do not edit. Phantom test subjects were never used in training: their seeds come from a range",
             "of their own. Intervals are 95 % by bootstrap over subjects. All values on a range of 1 (MSE, PSNR, SSIM) or 255 (VIFp, CPBD).",
             "A phantom is not a patient: these figures rank methods, they do not promise what happens on clinical images.", ""]
    lines += facts_table(models) + [""]
    for title, body in sections:
        lines += [f"## {title}", ""] + body + [""]
    lines += ["## Goals", "", "| goal | reached | measured |", "|---|---|---|"]
    lines += [f"| {text} | {'yes' if ok else '**no**'} | {measured} |" for text, ok, measured in goals.rows]
    lines += ["", "## What falls short, and why", ""] + [f"- {n}" for n in notes]
    lines += ["", f"goals met: {goals.met} of {len(goals.rows)}"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def box_plot(path, task, rows, methods):
    """Box plots of each measure by method, as the paper shows them."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, len(NAMES), figsize=(3.2 * len(NAMES), 3.4))
    for axis, measure in zip(axes, NAMES):
        data = [[r[measure] for r in rows if r["method"] == m and measure in r] for m in methods]
        axis.boxplot([d if d else [np.nan] for d in data], showfliers=False)
        axis.set_xticks(range(1, len(methods) + 1), methods, rotation=40, ha="right", fontsize=7)
        axis.set_title(NAMES[measure], fontsize=9)
    figure.suptitle(task)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
