"""Progress and tables in a terminal: one line per step, rewritten in place only where somebody watches."""

import sys
import time


class Steps:
    """Numbered steps with their seconds. In a plain log each step is one line when it begins and one when it is done."""

    def __init__(self, total: int, out=sys.stdout):
        self.total, self.out = total, out
        self.live = out.isatty()
        self.number = 0
        self._text, self._began, self._shown = "", 0.0, ""

    def begin(self, text: str) -> None:
        self.number += 1
        self._text, self._began, self._shown = f"[{self.number}/{self.total}] {text}", time.monotonic(), ""
        self._write(self._text + " …", end="" if self.live else "\n")

    def progress(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        if self.live:
            self._write(f"\r\033[K{self._text} … {text}", end="")
        else:
            self._write(f"      {text}")

    def done(self, text: str = "") -> None:
        line = f"{self._text}: {text}" if text else self._text
        seconds = f"({time.monotonic() - self._began:.1f} s)"
        self._write(f"\r\033[K{line} {seconds}" if self.live else f"      {text or 'done'} {seconds}")

    def broken(self) -> None:
        """Ends the line of a step that did not come to its end."""
        if self.live:
            self._write("")

    def _write(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self.out, flush=True)


def table(head: list[str], rows: list[list[str]], out=sys.stdout) -> None:
    """Columns as wide as their widest cell; those whose cells are all numbers stand to the right."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(row[i].replace(".", "", 1).lstrip("-").isdigit() for row in rows) for i in range(len(head))]

    def line(row: list[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()

    print(line(head), file=out)
    print("  ".join("-" * w for w in widths), file=out)
    for row in rows:
        print(line(row), file=out)
    out.flush()
