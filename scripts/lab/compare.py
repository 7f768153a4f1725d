"""Hold several models of one task against each other on validation subjects, image by image."""

from . import crew, evaluation, metrics, report, testset
from .engine import Model

_here = {}


def _begin(cache, paths, task):
    _here.update(cache=cache, models={p: Model(p, task=task) for p in paths})


def _case(seed, slices, keep):
    """(rows of figures, images of the middle slice for a sheet) of one subject."""
    case, models = testset.cached(_here["cache"], seed, slices=slices), _here["models"]
    task = next(iter(models.values())).task
    truth, middle = case.images[task.target], slices // 2
    if task.scale > 1:
        rows, made = evaluation.enlarge_slices(truth, seed, models)
        results, source = made["k-space"], made["k-space"]["source"]
        rows = [r for r in rows if r["method"] in models]
    else:
        source, rows, results = case.images[task.source], [], {p: m.stack(case.images[task.source]) for p, m in models.items()}
        for k, one in enumerate(truth):
            memo = {}
            rows += [{"method": p, "way": "", "group": seed, "slice": k, **evaluation.figures(one, r[k], memo)} for p, r in results.items()]
    return rows, [source[middle], truth[middle], *(results[p][middle] for p in models)] if keep else None


def compare(paths, task, cache, subjects=12, slices=3, workers=2, shown=4, progress=None):
    """({path: {measure: (mean, low, high)}}, {path: {measure: gain over the first, with its interval}}, examples).

    Gains are paired by image and positive where the model is better than the first; intervals are 95 %, by resampling
    subjects.  Models of x-ray to T2 have no such stacks and are refused, as are models of different tasks.
    """
    kinds = {Model(p, task=task).task.name for p in paths}
    if len(kinds) > 1:
        raise ValueError(f"these models are for {' and '.join(sorted(kinds))}: only models of one task can be compared")
    if kinds == {"xray-to-t2"}:
        raise ValueError("models of xray-to-t2 are measured by scripts/evaluate only")
    rows, examples = [], []
    with crew.pool(workers, _begin, (cache, paths, task)) as pool:
        jobs = [pool.submit(_case, seed, slices, k < shown) for k, seed in enumerate(testset.seeds("validation", subjects))]
        for done, job in enumerate(jobs, 1):
            found, example = job.result()
            rows += found
            examples += [example] if example else []
            if progress:
                progress(done, len(jobs))
    means, gains = {}, {}
    for path in paths:
        mine = [r for r in rows if r["method"] == path]
        means[path] = {m: metrics.bootstrap([r[m] for r in mine], [r["group"] for r in mine]) for m in report.NAMES}
        sides = [{**r, "method": "model"} for r in mine] + [{**r, "method": "first"} for r in rows if r["method"] == paths[0]]
        gains[path] = {m: report.gain(sides, "first", m) for m in report.NAMES}
    return means, gains, examples
