"""EVALUATION.md from what was measured: tables, goals, and why a goal was missed.  Never edited by hand.

Why a goal was missed, and what was tried, is written by people in attempts.toml, under the goal's key;
this file only joins the two: an entry for a goal that is met is left out, a miss without an entry says so.
"""

import fnmatch
import json
import tomllib

import numpy as np

from . import agreement, metrics, numbering

FULL_REFERENCE = ("mse", "psnr", "ssim", "vifp")
NAMES = {"mse": "MSE", "psnr": "PSNR dB", "ssim": "SSIM", "vifp": "VIFp", "cpbd": "CPBD"}
DIGITS = {"mse": 5, "psnr": 2, "ssim": 3, "vifp": 3, "cpbd": 3}
# The paper's readers, native against synthetic: discs L4-L5, L5-S1, Modic; other findings for two tasks.
PAPER_KAPPA = {"super-resolution": {"protrusion": 0.691}, "t1-to-t2": {"disc L4-L5": 0.455, "disc L5-S1": 0.221, "modic": 0.406},
               "t2-to-t1": {"disc L4-L5": 0.086, "disc L5-S1": 0.270, "modic": 0.286},
               "t2-to-stir": {"disc L4-L5": 0.842, "disc L5-S1": 1.000, "modic": 0.592},
               "t2-to-tirm": {"disc L4-L5": 0.842, "disc L5-S1": 0.933, "modic": 0.691}, "xray-to-t2": {"fracture": 0.051}}
PAPER_NAMES = 0.065  # of the vertebra's number, x-ray to T2
KAPPA_GOALS = {"t1-to-t2": (0.7, 0.5), "t2-to-t1": (0.7, 0.5), "t2-to-stir": (0.9, 0.7), "t2-to-tirm": (0.9, 0.7)}
ORDER = ("super-resolution", "t1-to-t2", "t2-to-t1", "t2-to-stir", "t2-to-tirm", "xray-to-t2")
LEAST_ATTEMPTS = 3


class Goals:
    """A list of (key, text, reached, what was measured)."""

    def __init__(self):
        self.rows = []

    def add(self, key, text, reached, measured):
        self.rows.append((key, text, bool(reached), measured))

    @property
    def met(self):
        return sum(reached for _, _, reached, _ in self.rows)

    @property
    def missed(self):
        return [(key, text) for key, text, reached, _ in self.rows if not reached]


def interval(value, digits=3, sign=False):
    """'mean (low to high)' of a (mean, low, high, …) tuple."""
    if not np.isfinite(value[0]):
        return "none"
    f = f"{{:{'+' if sign else ''}.{digits}f}}"
    return f"{f.format(value[0])} ({f.format(value[1])} to {f.format(value[2])})"


def percent(value):
    if not np.isfinite(value[0]):
        return "none"
    return f"{100 * value[0]:.1f} % ({100 * value[1]:.1f} to {100 * value[2]:.1f}; n = {value[3]})"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(str(c) for c in r) + " |" for r in rows]


def mean_table(rows, methods):
    """Means of every measure with 95 % intervals over subjects; methods that were not measured are said to be so."""
    lines = []
    for method in methods:
        mine = [r for r in rows if r["method"] == method]
        if not mine:
            lines.append([method] + ["not at hand"] + [""] * (len(NAMES) - 1))
            continue
        cells = []
        for measure in NAMES:
            values = [(r[measure], r["group"]) for r in mine if measure in r]
            cells.append(interval(metrics.bootstrap(*zip(*values)), DIGITS[measure]) if values else "")
        lines.append([method] + cells)
    return table(["method", *NAMES.values()], lines)


def gain(rows, other, measure):
    """Mean gain of the model over another method, paired per image, with its 95 % interval; better is positive."""
    sign = -1.0 if measure == "mse" else 1.0
    theirs = {(r["way"], r["group"], r["slice"]): r for r in rows if r["method"] == other}
    mine = [r for r in rows if r["method"] == "model"]
    gains = [sign * (r[measure] - theirs[r["way"], r["group"], r["slice"]][measure]) for r in mine]
    return metrics.bootstrap(gains, [r["group"] for r in mine])


def translation_goals(goals, task, rows, baselines):
    """One goal per full-reference measure: every baseline beaten by a margin whose interval excludes 0."""
    present = [b for b in baselines if any(r["method"] == b for r in rows)]
    absent = [b for b in baselines if b not in present]
    for measure in FULL_REFERENCE:
        results = [(b, *gain(rows, b, measure)) for b in present]
        worst = min(results, key=lambda r: r[2])
        text = f"hardest rival {worst[0]}: {interval(worst[1:], 5 if measure == 'mse' else 3, True)}"
        goals.add(f"{task}/{measure}", f"{task}: {NAMES[measure]} better than {', '.join(baselines)}", worst[2] > 0 and not absent,
                  text + (f"; {', '.join(absent)} not at hand" if absent else ""))


def resolution_goal(goals, label, way, rows):
    """Cubic beaten on PSNR, SSIM, VIFp and CPBD at once."""
    results = {m: gain([r for r in rows if r["way"] == way], "cubic", m) for m in ("psnr", "ssim", "vifp", "cpbd")}
    goals.add(f"super-resolution/{label}/{way}", f"super-resolution, {label}, low resolution by {way}: better than cubic on PSNR, SSIM, VIFp and CPBD at once",
              all(r[1] > 0 for r in results.values()), "; ".join(f"{NAMES[m]} {interval(r, 3, True)}" for m, r in results.items()))


def kappa_goals(goals, task, comparison, bounds, twice):
    """bounds, twice: what an observer of the source's measurements alone and a second scan of the target reach, said beside the figure."""
    by = {row["finding"]: row for row in comparison}
    for name, goal in zip(("disc", "modic"), KAPPA_GOALS[task]):
        value = by[name]["kappa"]
        beside = f"; an observer of the source's measurements alone {interval(bounds[name])}" if name in bounds else ""
        beside += f"; a second scan of the target itself {interval(twice[name])}" if name in twice else ""
        goals.add(f"{task}/{name}-kappa", f"{task}: kappa of {'discs' if name == 'disc' else 'Modic'} at least {goal}", value[0] >= goal, interval(value) + beside)


def lesion_goals(goals, task, found, unseen):
    """Sensitivity where the source carries the lesion, inventions, and the set in which it does not."""
    goals.add(f"{task}/lesion-sensitivity", f"{task}: endplate lesions that the source carries are found, at least 90 %",
              found["carried"][0] >= 0.9, percent(found["carried"]) if found["carried"][3] else "the source carries none")
    worst = max((found["invented"], unseen["invented"]), key=lambda v: v[0])
    goals.add(f"{task}/invented", f"{task}: healthy endplates read as ill on the synthetic image, at most 2 %", worst[0] <= 0.02,
              f"test set {percent(found['invented'])}, hidden lesions' set {percent(unseen['invented'])}; reader on native {percent(found['invented_native'])}")
    goals.add(f"{task}/hidden", f"{task}: lesions that the source does not show are not shown either (no more often than 2 %, within the interval)",
              unseen["synthetic"][1] <= 0.02, f"read as ill: source {percent(unseen['source'])}, native {percent(unseen['native'])}, synthetic {percent(unseen['synthetic'])}, synthetic where they are outlined {percent(unseen['outlined'])}, "
              f"of the same people without them: native {percent(unseen['absent_native'])}, synthetic {percent(unseen['absent'])}")


def finding_table(task, comparison, paper=None, bounds=None, twice=None):
    """Agreement of readings, native against synthetic, beside the paper's readers and the paper's network on this phantom.

    bounds: {finding: kappa} of what an observer of the source's measurements alone reads, twice: of a second scan of the target; a column each.
    """
    theirs = {row["finding"]: row for row in paper or []}
    rows = []
    for row in comparison:
        name = row["finding"]
        known = PAPER_KAPPA.get(task, {}).get(name)
        bound = [interval(side[name]) if name in side else "" for side in (bounds, twice) if side is not None]
        rows.append([name, interval(row["kappa"]), *bound, row["kappa"][3], "" if known is None else f"{known:.3f}",
                     interval(theirs[name]["kappa"]) if name in theirs else "not at hand", interval(row["sensitivity"]), interval(row["specificity"]),
                     f"{row['native_truth'][0]:.2f}, {row['synthetic_truth'][0]:.2f}"])
    head = [text for text, side in (("an observer of the source's measurements alone", bounds), ("a second scan of the target", twice)) if side is not None]
    return table(["finding", "kappa", *head, "readings", "the paper's readers", "the paper's network, here", "sensitivity", "specificity",
                  "kappa with the truth: native, synthetic"], rows)


def naming_table(names):
    """How the reader names marked vertebrae.  names: {"native" or method: [(seed, vertebra, its name)]}, the same places in each."""
    rows, native = [], [name for _, _, name in names["native"]]
    for method, entries in names.items():
        seeds, truth, name = (np.array(v) for v in zip(*entries))
        mine = method == "native"
        rows.append([method, percent(agreement.share(name == truth, seeds)), interval(agreement.kappa(truth, name, seeds, numbering.CLASSES)),
                     "" if mine else interval(agreement.kappa(native, name, seeds, numbering.CLASSES)), f"{PAPER_NAMES:.3f}" if method == "model" else ""])
    return table(["image", "named rightly", "kappa with the truth", "kappa with native", "the paper's readers, with native"], rows)


def observer_lines(found):
    """How surely the observer who says what the source carries may be believed."""
    threshold = found["threshold"]
    if not np.isfinite(threshold.least):
        return ["No threshold makes the observer right 9 times in 10 on validation lesions that he was not made of: the source carries nothing that these measurements hold."]
    return [f"The source carries a lesion where the observer's probability is at least {threshold.least:.2f}. Whether he is right so often:", ""] + table(
        ["lesions at or above it", "he claims", "he is right", "subjects"],
        [["validation, subjects that he was not made of", f"{100 * threshold.claimed:.1f} %", percent(threshold.right), threshold.subjects],
         ["test", f"{100 * found['claimed']:.1f} %", percent(found["carried_observer"]), found["subjects"]]]) + [
        "", f"Of the endplates of the test set without a lesion that the reader sees on the native target, {found['others']} are at or above it, too."]


def lesion_table(found, unseen):
    rows = [[f"{text}", percent(found[key]), percent(found[key + "_observer"])] for key, text in
            (("carried", "lesions that the source carries (goal)"), ("visible", "lesions visible on the source"), ("all", "all lesions seen on the native target"))]
    lines = table(["endplate lesions read the same way on the synthetic image", "model", "an observer of the source's measurements alone"], rows) + [""]
    lines += observer_lines(found) + [""]
    return lines + table(["read as ill", "share"], [
        ["healthy endplates, synthetic", percent(found["invented"])], ["healthy endplates, native", percent(found["invented_native"])],
        ["hidden lesions, source", percent(unseen["source"])], ["hidden lesions, native target", percent(unseen["native"])],
        ["hidden lesions, synthetic", percent(unseen["synthetic"])],
        ["the same lesions, synthetic, where chemical shift draws their outline on the source", percent(unseen["outlined"])],
        ["the same endplates of the same people without the lesion, native target", percent(unseen["absent_native"])],
        ["the same endplates of the same people without the lesion, synthetic", percent(unseen["absent"])],
        ["healthy endplates beside hidden lesions, synthetic", percent(unseen["invented"])]])


def compare_plainly(rows):
    """One sentence: does the model beat doing nothing and a matched histogram, measure by measure?"""
    words = []
    for measure in FULL_REFERENCE:
        worst = min(((b, *gain(rows, b, measure)) for b in ("identity", "histogram-matched source")), key=lambda r: r[1])
        words.append(f"{NAMES[measure]} {'better' if worst[2] > 0 else 'worse' if worst[3] < 0 else 'no different'} than {worst[0]}")
    return "Against the harder of its simple rivals: " + ", ".join(words) + "."


def load_attempts(path):
    """{key pattern: {"reason": text, "tried": [texts]}} from attempts.toml."""
    with open(path, "rb") as file:
        entries = tomllib.load(file)
    for key, entry in entries.items():
        if not isinstance(entry.get("reason"), str) or not isinstance(entry.get("tried"), list):
            raise ValueError(f"{path}: entry {key!r} needs a reason and a list of what was tried")
    return entries


def explain(goals, attempts):
    """(lines for the report, keys of misses that are not explained by a reason and three attempts, stale entries)."""
    lines, open_, groups = [], [], {}
    for key, text in goals.missed:
        pattern = next((p for p in attempts if fnmatch.fnmatchcase(key, p)), None)
        groups.setdefault(pattern or key, []).append((key, text))
    for pattern, misses in groups.items():
        lines.append("- **" + "**; **".join(text for _, text in misses) + "**")
        entry = attempts.get(pattern)
        if not entry:
            lines.append(f"  - not explained yet: add `{misses[0][0]}` to `scripts/lab/attempts.toml`")
        else:
            lines.append(f"  - why: {entry['reason']}")
            lines += [f"  - tried: {t}" for t in entry["tried"]]
        if not entry or len(entry["tried"]) < LEAST_ATTEMPTS:
            if entry:
                lines.append(f"  - only {len(entry['tried'])} of the {LEAST_ATTEMPTS} ways asked for")
            open_ += [key for key, _ in misses]
    stale = [p for p in attempts if p not in groups]
    return lines, open_, stale


def facts_table(models):
    return table(["model", "version", "file bytes", "MACs per 512-pixel result", "training", "SHA-256"],
                 [[m["name"], m["version"], m["bytes"], f"{m['gmac']:.1f} G", m["training"],
                   m["sha256"][:16] + "…"] for m in models])


def goals_table(goals):
    return table(["goal", "reached", "measured (95 % interval)"], [[text, "yes" if ok else "**no**", measured] for _, text, ok, measured in goals.rows])


class Told:
    """What a run found out: its goals, sections (title, lines), figures, and lines of introduction."""

    def __init__(self):
        self.goals, self.sections, self.figures, self.intro = Goals(), [], {}, []


def save(path, described, told):
    """Keep a run, so that its report can be written again; described: what describe() says of its models."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"models": [m["sha256"] for m in described], "goals": told.goals.rows, "sections": told.sections, "intro": told.intro}, file)


def load(path, described):
    """The Told of the run that save() kept, without its figures.  ValueError: it measured other models."""
    with open(path, encoding="utf-8") as file:
        kept = json.load(file)
    if kept["models"] != [m["sha256"] for m in described]:
        raise ValueError(f"{path} is of other models than these")
    told = Told()
    told.goals.rows, told.sections, told.intro = [tuple(r) for r in kept["goals"]], kept["sections"], kept["intro"]
    return told


def write(path, intro, sections, goals, misses):
    """The whole document.  intro: lines; sections: list of (title, lines)."""
    lines = ["# Evaluation of the models", "", *intro, ""]
    lines += ["## Goals", ""] + goals_table(goals) + ["", f"goals met: {goals.met} of {len(goals.rows)}", ""]
    lines += ["## What falls short, why, and what was tried", ""] + (misses or ["Nothing."]) + [""]
    for title, body in sections:
        lines += [f"## {title}", ""] + body + [""]
    while lines[-1] == "":
        lines.pop()
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
