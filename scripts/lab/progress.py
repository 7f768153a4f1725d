"""A progress line on standard error: a bar on a terminal, a line every tenth otherwise."""

import sys
import time


class Progress:
    """Call it with (done, total); it draws itself and ends its line when done == total."""

    def __init__(self, label, quiet=False):
        self.label, self.quiet, self.start, self.shown = label, quiet, time.monotonic(), -1

    def __call__(self, done, total, note=""):
        if self.quiet:
            return
        tenth = done * 10 // max(total, 1)
        seconds = time.monotonic() - self.start
        left = seconds / max(done, 1) * (total - done)
        if sys.stderr.isatty():
            filled = done * 30 // max(total, 1)
            sys.stderr.write(f"\r{self.label} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {left:.0f} s left {note} ")
            if done >= total:
                sys.stderr.write("\n")
        elif tenth != self.shown:
            sys.stderr.write(f"{self.label}: {done}/{total}, {left:.0f} s left {note}\n")
        self.shown = tenth
        sys.stderr.flush()
