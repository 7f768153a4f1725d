"""The driver (driver.c): what dicom/ makes of files, seen from Python."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np


class Refused(Exception):
    """The driver's error: word and text."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.word, _, self.text = line.partition(": ")


class Driver:
    def __init__(self, program: Path) -> None:
        self.program = program

    def run(self, *arguments, env: dict | None = None) -> str:
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, timeout=120, errors="replace", env=os.environ | (env or {}))
        assert done.returncode in (0, 1), f"exit {done.returncode}: {done.stderr[-3000:]}"
        if done.returncode == 1:
            raise Refused(done.stderr.strip())
        return done.stdout

    def series(self, paths: list[Path], *options: str) -> dict:
        return json.loads(self.run("series", *options, *paths))

    def pixels(self, path: Path, out: Path, shape: tuple[int, int], frame: int = 0) -> np.ndarray:
        self.run("pixels", path, frame, out)
        return np.fromfile(out, np.float32).reshape(shape)

    def open(self, paths: list[Path]) -> dict[str, tuple[str, str]]:
        rows = (line.split("\t") for line in self.run("open", *paths).splitlines())
        return {path: (word, text) for word, path, text in rows}

    def secondary(self, paths: list[Path], out: Path, task: str = "t2-to-t1", kind: str = "sc", scale: int = 1, key: str = "key") -> list[Path]:
        out.mkdir(parents=True)
        self.run("secondary", task, kind, scale, out, *paths, env={"DRIVER_KEY": key})
        return sorted(out.iterdir())
