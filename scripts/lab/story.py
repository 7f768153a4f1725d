"""What EVALUATION.md says, section by section, from the steps of a campaign."""

import os

import numpy as np

from . import agreement, baselines, dataset, evaluation, findings, leaks, plots, report, testset
from .campaign import ENRICHED_FIRST, RADIOGRAPH_FIRST
from .reader import CLASSES
from .tasks import TASKS

RESOLUTION = ("model", "linear", "cubic", "lanczos", "paper's network", "truth")
TRANSLATION = ("model", "identity", "histogram-matched source", "paper's network", "truth")
RADIOGRAPH = ("model", "mean image", "nearest neighbour", "paper's network", "truth")
HEADS = ("source", "truth", "result", "difference x 2")
CANNOT_KNOW = ("What the model cannot know: a radiograph holds no signal of water. How bright a disc is, fluid, nerves and cord, protrusions, "
               "oedema and fatty marrow are guessed from what is usual; agreement on discs and Modic below is what such guesses reach. "
               "Outlines of bones, alignment, heights of discs and shapes of fractures are on the radiograph. The truth is the T2 image of the "
               "same standing subject in the radiograph's frame, which no scanner could take.")
NAMED = ("Which vertebra is the marked one? For the findings above the reader is told; here it names L5 to T11 from the image and the mark alone, as the paper's readers "
         "did: it looks for discs and names them together, as a chain that rises from the sacrum (`scripts/lab/numbering.py`). What discs look like was learned from "
         "native images of {} validation subjects, how one lies above the other from the spines of {}; the rules are the same for native and synthetic images. "
         "Transitional vertebrae have the phantom's names, which nobody can tell from counting. Where the collimator hides the sacrum, angles and sizes are all there is.")
STEPS = 300  # subjects from whose spines is learned how far one disc lies above the other
BOUND = ("The observer is given what the reader measures on the native source (a disc's signal, rim and height, an endplate's signal, each on three slices) and knows from "
         "validation subjects what the reader says of the native target where the source measures so. His kappa is what these measurements hold of the finding, "
         "by densities of one kind: not what the image holds. A network that sees the whole image may pass it; one that lies below it leaves something lying; where "
         "it lies below a goal, the goal asks for more than these measurements tell. A second scan is of the same slices of the same subjects by the same protocol, so that "
         "only noise differs: its kappa is how well the reader agrees with himself, about the most that a synthetic image can be asked for.")


def numbered(count):
    """Validation subjects from whom the naming of vertebrae is learned."""
    first = dataset.SPLITS["validation"] + testset.FIRST + RADIOGRAPH_FIRST
    return [first + i for i in range(count)]


def gather(results, key, task):
    return [entry for r in results for entry in r[key].get(task, [])]


def tell(work, args, facts):
    """Run every step and return the report.Told.  facts: {task: metadata of its model}."""
    told = report.Told()
    natives, rich, ill, digests = work.validate(args.validation, args.enriched, args.lesions)
    reader = findings.Reader(natives, rich, ill)
    if "xray-to-t2" in facts:
        work.number(numbered(args.numbered), numbered(STEPS))
    known = baselines.KnownPairs(os.path.join(args.cache, "known"), workers=args.workers) if "xray-to-t2" in facts else None
    results = work.measure(args.subjects, args.pictures, known)
    digests |= {r["seed"]: r["digests"] for r in results}
    unseen = work.hidden(args.hidden)
    folder = next((p for p in args.real if os.path.isdir(p)), None)
    native, again = ({c: [entry for r in results for entry in r[key][c]] for c in dataset.CONTRASTS} for key in ("native", "again"))
    for task in report.ORDER:
        if task not in facts:
            if not args.only:
                told.goals.add(f"{task}/shipped", f"{task}: trained, shipped and measured", False, "no model in the folder")
            continue
        if task == "super-resolution":
            _resolution(told, work, args, results, reader, native)
        elif task == "xray-to-t2":
            _radiograph(told, work, args, reader)
        else:
            _translation(told, work, args, task, results, reader, native, again, unseen)
    _real(told, work, args, folder, facts)
    _likeness(told, args, folder)
    _reader(told, reader, native)
    _leaks(told, args, facts, digests, folder)
    told.intro = [
        "Made by `make evaluate`; do not edit. Run by onnxruntime, not by the node's engine.",
        f"Test set: {args.subjects} subjects of the numerical phantom, 3 slices of 512 x 512 each (the midsagittal one and its neighbours), "
        f"{3 * args.subjects} slices in all; findings are read on all of them, images compared with the truth on the first {args.pictures} subjects "
        f"({3 * args.pictures} slices; the paper has 30 images). The reader was set on {args.validation} + {args.enriched} other subjects, the "
        f"observer of the source on {args.validation} + {args.lesions}. "
        f"X-ray: {args.radiographs} subjects, one radiograph each. Hidden lesions: {args.hidden} subjects for either source contrast, three slices each, "
        "whose source shows the lesion neither by brightness nor by grain nor, since fat and water are not displaced on it, by an outline.",
        "Intervals are 95 %, by resampling subjects. MSE, PSNR and SSIM on a range of 1; VIFp ('valid' borders) and CPBD (Sobel edges) on 0 to 255.",
        "A phantom is not a patient: these figures rank methods, they do not promise what happens on clinical images."]
    return told


def _resolution(told, work, args, results, reader, native):
    task = "super-resolution"
    rows = gather(results, "rows", task)
    for label, rows, slices in [("phantom", rows, None)]:
        body = []
        for way in evaluation.WAYS:
            body += [f"Low resolution made by {way}:", ""] + report.mean_table([r for r in rows if r["way"] == way], RESOLUTION) + [""]
            report.resolution_goal(told.goals, label, way, rows)
        comparison = findings.compare(reader, "t2", *_same_subjects(native["t2"], gather(results, "synthetic", task)))
        paper = gather(results, "paper", task)
        paper = findings.compare(reader, "t2", *_same_subjects(native["t2"], paper)) if paper else None
        body += ["Readings, native against enlarged (low resolution made linearly, as in the paper):", ""] + report.finding_table(task, comparison, paper)
        told.sections.append((f"{task}: {label}", body))
        told.figures[f"{task} {label}"] = {"rows": rows, "findings": comparison}
        plots.boxes(os.path.join(args.output, f"{task}-{label}-box.png"), f"{task}, {label}", rows, RESOLUTION)
    _sheet(args, task, results)


def _same_subjects(native, synthetic):
    seeds = {seed for seed, _, _ in synthetic}
    return [entry for entry in native if entry[0] in seeds], synthetic


def _translation(told, work, args, task, results, reader, native, again, unseen):
    spec = TASKS[task]
    rows, synthetic, paper = (gather(results, key, task) for key in ("rows", "synthetic", "paper"))
    comparison = findings.compare(reader, spec.target, native[spec.target], synthetic)
    papers = findings.compare(reader, spec.target, native[spec.target], paper) if paper else None
    bounds = findings.bounds(reader, spec, native[spec.source], native[spec.target])
    twice = {row["finding"]: row["kappa"] for row in findings.compare(reader, spec.target, native[spec.target], again[spec.target])}
    found = findings.lesions(reader, spec, native[spec.source], native[spec.target], synthetic)
    sets = {kind: [*([e for r in unseen[spec.source, kind] for e in r["native"][c]] for c in (spec.source, spec.target)),
                   gather(unseen[spec.source, kind], "synthetic", task)] for kind in testset.KINDS}
    hidden = findings.hidden(reader, spec, *sets[""], sets[testset.ABSENT][1:])
    hidden["outlined"] = findings.hidden(reader, spec, *sets[testset.OUTLINED])["synthetic"]
    report.translation_goals(told.goals, task, rows, TRANSLATION[1:4])
    report.kappa_goals(told.goals, task, comparison, bounds, twice)
    report.lesion_goals(told.goals, task, found, hidden)
    told.sections.append((task, report.mean_table(rows, TRANSLATION) + [""] + report.finding_table(task, comparison, papers, bounds, twice) + ["", BOUND, ""]
                          + report.lesion_table(found, hidden)))
    told.figures[task] = {"rows": rows, "findings": comparison, "bounds": bounds, "twice": twice, "lesions": {**found, "threshold": vars(found["threshold"])}, "hidden": hidden}
    plots.boxes(os.path.join(args.output, f"{task}-box.png"), task, rows, TRANSLATION)
    _sheet(args, task, results)


def _radiograph(told, work, args, reader):
    task = "xray-to-t2"
    results = work.radiographs(args.radiographs)
    rows, synthetic, paper = (gather(results, key, task) for key in ("rows", "synthetic", "paper"))
    native = [entry for r in results for entry in r["native"]["t2"]]
    comparison = findings.compare(reader, "t2", native, synthetic)
    papers = findings.compare(reader, "t2", native, paper) if paper else None
    names = {m: [entry for r in results for entry in r["named"][m]] for m in results[0]["named"]}
    report.translation_goals(told.goals, task, rows, RADIOGRAPH[1:4])
    told.sections.append((task, [CANNOT_KNOW, ""] + report.mean_table(rows, RADIOGRAPH) + [""] + report.finding_table(task, comparison, papers)
                          + ["", NAMED.format(args.numbered, STEPS), ""] + report.naming_table(names)))
    told.figures[task] = {"rows": rows, "findings": comparison, "named": names}
    plots.boxes(os.path.join(args.output, f"{task}-box.png"), task, rows, RADIOGRAPH)
    _sheet(args, task, results)


def _sheet(args, task, results):
    shown = [r["examples"][task] for r in results if task in r["examples"]]
    heads = ("cubic", "result", "truth", "|truth - result| x 2") if task == "super-resolution" else HEADS
    if shown:
        plots.sheet(shown, heads, os.path.join(args.output, f"{task}.png"))


def _real(told, work, args, folder, facts):
    slices, voxel = evaluation.real_slices(folder) if folder else ([], None)
    body = []
    if "super-resolution" in facts:
        if slices:
            rows, examples = work.real(slices)
            body += [f"Super-resolution on {len(slices)} midsagittal slices of a real lumbar T2 volume (one volunteer, 3D, {voxel[1]:.1f} mm; intervals are "
                     "over slices of one person; lateral slices of the same volume may have been trained on):", ""]
            for way in evaluation.WAYS:
                body += [f"Low resolution made by {way}:", ""] + report.mean_table([r for r in rows if r["way"] == way], RESOLUTION) + [""]
                report.resolution_goal(told.goals, "real", way, rows)
            told.figures["super-resolution real"] = {"rows": rows}
            plots.boxes(os.path.join(args.output, "super-resolution-real-box.png"), "super-resolution, real", rows, RESOLUTION)
            plots.sheet([[*e, 2 * abs(e[2] - e[1])] for e in examples[:4]], ("cubic", "truth", "result", "difference x 2"),
                        os.path.join(args.output, "super-resolution-real.png"))
        elif not args.only:
            told.goals.add("super-resolution/real", "super-resolution, real slices: better than cubic", False, "the real volumes were not found")
    others = [t for t in facts if TASKS[t].source == "t2" and TASKS[t].scale == 1]
    if slices and others:
        beside = evaluation.real_beside(folder)[::2]
        made = {t: work.apply(t, beside) for t in others}
        plots.sheet([[s] + [made[t][k] for t in others] for k, s in enumerate(slices[::2])], ("T2", *others),
                    os.path.join(args.output, "translation-real.png"), 256)
        body += [f"`translation-real.png` among the sheets shows {', '.join(others)} on the same slices, given with those about {evaluation.BESIDE_MM} mm to either side; there is no truth to measure them by.", ""]
    files = [os.path.join(folder, f"sct_pair_{c}.nii.gz") for c in ("t1", "t2")] if folder else []
    if files and all(os.path.exists(f) for f in files):
        t1, t2, voxel = evaluation.real_pair(*files)
        pair = work.pair(t1, t2)
        for task, (rows, examples) in pair.items():
            plain = report.compare_plainly(rows)
            body += [f"{task} on a real pair, **far from what it was made for**: a cervical block of {t1.shape[1]} x {t1.shape[2]} pixels of "
                     f"{voxel[1]:.1f} mm, {len(t1)} slices of one person, a gradient-echo T1. {plain}", ""]
            body += report.mean_table([{k: v for k, v in r.items() if k != "cpbd"} for r in rows], TRANSLATION[:3]) + [""]
            told.figures[f"{task} real pair"] = {"rows": rows}
            plots.sheet([[*e, 2 * abs(e[2] - e[1])] for e in examples[len(examples) // 4::len(examples) // 4][:3]], HEADS,
                        os.path.join(args.output, f"{task}-real-pair.png"))
    if body:
        told.sections.append(("Real images", body))


def _likeness(told, args, folder):
    """The phantom's contrasts beside the real volume, at its size of pixels: a sheet to look at, and three plain measures."""
    slices, voxel = evaluation.real_slices(folder) if folder else ([], None)
    if not slices:
        return
    drawn = [testset.cached(args.cache, seed) for seed in testset.seeds("test", 4)]
    at_size = {c: [baselines.resample(case.images[c][1], [round(case.field_mm / voxel[1])] * 2) for case in drawn] for c in dataset.CONTRASTS}
    plots.sheet([[slices[2 * k], *(at_size[c][k] for c in ("t2", "t1", "stir", "tirm"))] for k in range(4)],
                ("real T2", "phantom T2", "T1", "STIR", "TIRM"), os.path.join(args.output, "phantom-beside-real.png"))
    measured = [np.array([evaluation.likeness(s) for s in which]) for which in (slices, at_size["t2"])]
    rows = [[name] + [f"{m[:, k].mean():.3f} ({m[:, k].min():.3f} to {m[:, k].max():.3f})" for m in measured] for k, name in enumerate(evaluation.LIKENESS)]
    told.sections.append(("How like a real T2 the phantom is", [
        f"`phantom-beside-real.png` shows them side by side. Mean (least to most) over {len(slices)} midsagittal slices of the real volume and "
        f"{len(drawn)} of the phantom, at {voxel[1]:.1f} mm; what still differs to the eye stands in `README.md` beside this file.", ""]
        + report.table(["measured", "real", "phantom"], rows)))


def _reader(told, reader, native):
    rows = []
    for contrast, readings in native.items():
        for finding, classes in CLASSES.items():
            places = findings.by_place(readings, finding)
            read, truth = reader.read(contrast, places), [r.truth for r in places.values()]
            value = agreement.kappa(read, truth, [k[0] for k in places], classes)
            healthy = [r.healthy for r in places.values()]
            wrong = agreement.share((read != 0)[healthy], [k[0] for k, h in zip(places, healthy) if h])
            rows.append([contrast.upper(), finding, report.interval(value), value[3], sum(t != 0 for t in truth), report.percent(wrong)])
    told.sections.append(("How good the reader is", [
        "Its readings of native test images against the phantom's truth. What agreement of native with synthetic images can mean is bounded by this. "
        "Rules: `scripts/lab/reader.py`; weights and cuts were fitted on native validation images only. Classes: discs grade 1-2, 3, 4-5; protrusion "
        "no, yes; endplate darker, as healthy, brighter; body normal, wedge, biconcave. \"Ill\" for sensitivity and specificity is grade 4-5, or any but the healthy class.", ""]
        + report.table(["contrast", "finding", "kappa with the truth", "places", "ill in truth", "healthy places read as ill"], rows)))
    told.figures["reader"] = rows


def _leaks(told, args, facts, digests, folder):
    first = dataset.SPLITS["validation"] + testset.FIRST + ENRICHED_FIRST
    used = {"validation": testset.seeds("validation", args.validation) + [first + i for i in range(args.enriched)]
            + testset.with_modic("validation", args.lesions, args.validation) + (numbered(args.numbered) if "xray-to-t2" in facts else []),
            "test": testset.seeds("test", args.subjects)}
    rows = leaks.check(facts, used, digests, folder)
    told.sections.append(("Leak checks", report.table(["checked", "passed", "measured"], [[a, "yes" if ok else "**no**", b] for a, ok, b in rows])))
    told.goals.add("leaks", "no subject, anatomy, seed or slice is shared between training, validation and test", all(ok for _, ok, _ in rows),
                   f"{sum(ok for _, ok, _ in rows)} of {len(rows)} checks passed")
