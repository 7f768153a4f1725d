"""The steps of an evaluation, each spread over worker processes, one subject at a time.

Workers hold the models; what they send back are figures and measurements, and images only for the
subjects that are shown on the sheets.  Test images are drawn once and kept in a cache folder.
"""

import time

import numpy as np

from . import crew, dataset, evaluation, leaks, numbering, testset
from .engine import Model
from .progress import Progress
from .tasks import TASKS

HIDDEN_FIRST, RADIOGRAPH_FIRST = 500_000, 700_000  # after the first of the measured seeds
ENRICHED_FIRST = 800_000
SHOWN = 4

_here = {}


def _begin(cache, models, papers, references, known, names):
    _here.update(cache=cache, references=references, known=known, names=names, models={t: Model(p) for t, p in models.items()},
                 papers={t: Model(p, task=t) for t, p in papers.items()})


def _timed(call):
    """(result, CPU seconds) of a call in a worker."""
    start = time.process_time()
    function, args = call
    return function(*args), time.process_time() - start


def _validation(seed, findings):
    case = testset.cached(_here["cache"], seed, findings=findings)
    thinned = {c: np.rint(stack[:, ::8, ::8] * 1023).astype(np.uint16).ravel() for c, stack in case.images.items()}
    return seed, evaluation.native_readings(case), thinned, leaks.slice_digests(case)


def _test(seed, pictures, keep):
    case = testset.cached(_here["cache"], seed)
    out = evaluation.measure_case(case, _here["models"], _here["papers"], _here["references"], pictures, keep)
    again = evaluation.native_readings(testset.cached(_here["cache"], seed, again=True))
    return {**out, "again": again, "digests": leaks.slice_digests(case)}


def _hidden(seed, source, kind):
    """A lesion that the source contrast does not show: readings of source, native targets and synthetic images.

    kind, of testset.KINDS: also that the source shows the line that chemical shift draws around it, or that it is not there.
    """
    contrasts = ("t1", "t2") if source == "t1" else dataset.CONTRASTS
    case = testset.cached(_here["cache"], seed, contrasts, 3, 512, {"modic1"}, f"hidden on {source}{kind}")
    models = {t: m for t, m in _here["models"].items() if m.task.source == source and m.scale == 1}
    out = evaluation.measure_case(case, models, {}, {}, pictures=False)
    return (source, kind), out


def _radiograph(seed, keep):
    return evaluation.measure_radiograph(seed, _here["models"], _here["papers"], _here["known"], keep, _here["names"])


def _real_slice(number, image):
    models = {"model": _here["models"]["super-resolution"]}
    if "super-resolution" in _here["papers"]:
        models["paper's network"] = _here["papers"]["super-resolution"]
    rows, made = evaluation.enlarge_slices(image[None], number, models)
    return rows, [made["linear"]["cubic"][0], image[:image.shape[0] // 4 * 4, :image.shape[1] // 4 * 4], made["linear"]["model"][0]]


def _real_pair(task, number, source, truth, reference):
    models = {"model": _here["models"][task]}
    rows, results = evaluation.translate_slices(source[None], truth[None], number, models, reference)
    return task, rows, [source, truth, results["model"][0]]


def _result(task, stack):
    return _here["models"][task].stack(stack)[len(stack) // 2]


class Campaign:
    """Runs the steps; cpu holds the CPU seconds of each."""

    def __init__(self, cache, models, papers, workers=2):
        self.cache, self.models, self.papers, self.workers = cache, models, papers, workers
        self.cpu = {}
        self.pool = self.names = None

    def _run(self, label, calls):
        if not calls:
            return []
        progress, out, spent = Progress(label), [], 0.0
        for result, seconds in self.pool.map(_timed, calls):
            out.append(result)
            spent += seconds
            progress(len(out), len(calls))
        self.cpu[label] = self.cpu.get(label, 0.0) + spent
        return out

    def _open(self, references=None, known=None, models=True):
        if self.pool:
            self.pool.shutdown()
        self.pool = crew.pool(self.workers, _begin, (self.cache, self.models if models else {}, self.papers if models else {}, references, known, self.names))

    def close(self):
        if self.pool:
            self.pool.shutdown()
            self.pool = None

    def validate(self, ordinary, rich, ill):
        """(readings by contrast of ordinary subjects, of subjects with many findings, of others with Modic changes, digests by seed)."""
        self._open(models=False)
        first = dataset.SPLITS["validation"] + testset.FIRST + ENRICHED_FIRST
        calls = [(_validation, (s, None)) for s in testset.seeds("validation", ordinary)]
        calls += [(_validation, (first + i, testset.enriched(first + i))) for i in range(rich)]
        calls += [(_validation, (s, None)) for s in testset.with_modic("validation", ill, ordinary)]
        results = self._run("validation subjects", calls)
        sides = [{c: [] for c in dataset.CONTRASTS} for _ in range(3)]
        for place, (_, readings, _, _) in enumerate(results):
            for contrast, found in readings.items():
                sides[(place >= ordinary) + (place >= ordinary + rich)][contrast] += found
        self.references = {c: np.concatenate([r[2][c] for r in results[:ordinary]]) / 1023.0 for c in dataset.CONTRASTS}
        return *sides, {r[0]: r[3] for r in results}

    def number(self, seeds, steps):
        """Learn to name vertebrae: what discs look like from seeds of validation subjects, how they lie from more (steps)."""
        self.names = numbering.Numbering(self._run("vertebrae", [(numbering.looks, (s,)) for s in seeds]), numbering.steps(steps))

    def measure(self, subjects, pictures, known=None):
        """Results of evaluation.measure_case for the test subjects."""
        self._open(self.references, known)
        return self._run("test subjects", [(_test, (s, i < pictures, i < SHOWN)) for i, s in enumerate(testset.seeds("test", subjects))])

    def hidden(self, subjects):
        """{(source, kind of testset.KINDS): results} of the sets whose lesions the source does not show, or only their outline, and of the same subjects without."""
        first = dataset.SPLITS["test"] + testset.FIRST + HIDDEN_FIRST
        sources = sorted({TASKS[t].source for t in self.models if TASKS[t].scale == 1 and TASKS[t].source in ("t1", "t2")})
        kinds = [(s, kind) for s in sources for kind in testset.KINDS]
        out = {kind: [] for kind in kinds}
        for kind, result in self._run("hidden lesions", [(_hidden, (first + i, *kind)) for kind in kinds for i in range(subjects)]):
            out[kind].append(result)
        return out

    def radiographs(self, subjects):
        first = dataset.SPLITS["test"] + testset.FIRST + RADIOGRAPH_FIRST
        return self._run("radiographs", [(_radiograph, (first + i, i < SHOWN)) for i in range(subjects)])

    def real(self, slices):
        """(rows, examples) of super-resolution on real slices."""
        results = self._run("real slices", [(_real_slice, (k, s)) for k, s in enumerate(slices)])
        return [row for rows, _ in results for row in rows], [e for _, e in results]

    def pair(self, t1, t2):
        """{task: (rows, examples)} of a real pair, where nothing was trained for such images."""
        calls = []
        for task, (source, truth) in {"t1-to-t2": (t1, t2), "t2-to-t1": (t2, t1)}.items():
            if task in self.models:
                reference = self.references[TASKS[task].target]
                calls += [(_real_pair, (task, k, a, b, reference)) for k, (a, b) in enumerate(zip(source, truth))]
        out = {}
        for task, rows, example in self._run("real pair", calls):
            mine = out.setdefault(task, ([], []))
            mine[0].extend(rows)
            mine[1].append(example)
        return out

    def apply(self, task, stacks):
        """A model's results on the middle slices of stacks."""
        return self._run("real slices", [(_result, (task, s)) for s in stacks])
