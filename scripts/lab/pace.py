"""How fast the phantom draws what models learn from: images a second, and the CPU seconds of each.

Every process draws subjects of its own with one thread, as dataset.build() and radiographs.build() do. The rates of the
processes, each from its own first image to its last, add up; starting them does not count. On a busy machine the CPU
seconds say more than the rate.
"""

import time
from functools import partial

from . import crew, dataset, radiographs

SLICES = 3      # of a subject, as the training draws them
FIRST = 900_000_000  # subjects of no split


def _subject(size, seed):
    return len(dataset.draw_subject(seed, SLICES, size=size))


def _pair(seed):
    radiographs.draw_pair(seed)
    return 1


def _work(draw, seeds):
    """(images, seconds, CPU seconds) of drawing the subjects one after the other, after one that does not count."""
    draw(FIRST)
    began, cpu = time.monotonic(), time.process_time()
    count = sum(draw(seed) for seed in seeds)
    return count, time.monotonic() - began, time.process_time() - cpu


def _measure(draw, processes, subjects):
    processes = processes if crew.possible() else 1  # one after the other they would seem to be as fast as side by side
    with crew.pool(processes) as pool:
        jobs = [pool.submit(_work, draw, range(FIRST + 1 + k, FIRST + 1 + subjects * processes, processes)) for k in range(processes)]
        done = [job.result() for job in jobs]
    count = sum(n for n, _, _ in done)
    return {"images": count, "per_s": round(sum(n / s for n, s, _ in done), 2), "cpu_s": round(sum(c for *_, c in done) / count, 4)}


def measure(processes, size=512, subjects=4):
    """{"slices": …, "pairs": …}, each {"images", "per_s", "cpu_s" of one}, of so many subjects in each process.

    A slice is all four contrasts, each with noise and as the mean over all noise; a pair is a lateral radiograph and the
    T2 image in its posture, at 1 mm.
    """
    return {"slices": _measure(partial(_subject, size), processes, subjects), "pairs": _measure(_pair, processes, 2 * subjects)}
