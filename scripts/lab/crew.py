"""Work spread over processes; done here, one call after the other, where processes cannot share a semaphore.

They need /dev/shm for that, which chroots and some containers lack or do not let an ordinary user write to.
"""

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed


def possible():
    """Whether processes can share a semaphore here."""
    try:
        multiprocessing.Lock()
    except (OSError, ImportError):
        return False
    return True


class Alone(Executor):
    """Does at once, in this process, what it is given."""

    def __init__(self, initializer=None, initargs=()):
        if initializer:
            initializer(*initargs)

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # as an executor's: it is raised by result()
            future.set_exception(error)
        return future


def pool(workers, initializer=None, initargs=()):
    """An executor of so many processes, or Alone; the initializer is called in each."""
    return ProcessPoolExecutor(workers, initializer=initializer, initargs=initargs) if possible() else Alone(initializer, initargs)


def spread(function, calls, workers, progress=None):
    """function(*call) for every call, in any order; the first error is raised.  progress(done, of all) after each."""
    with pool(workers) as executor:
        jobs = [executor.submit(function, *call) for call in calls]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            if progress:
                progress(done, len(jobs))
