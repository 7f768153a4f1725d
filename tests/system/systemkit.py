"""What the tests of the whole node share: a quick configuration, a small study, and what the node says about a series."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.node import ROOT, Node
from harness.results import SourceSeries, group_series
from harness.send import dicom_files
from pydicom import dcmread

# A series counts as complete soon after its association ended; failed deliveries are tried again soon.
QUICK = {"completeness": {"quiet_ms": 300}, "engine": {"threads": 2}}


def draw_study(folder: Path, *arguments: str) -> list[SourceSeries]:
    command = [sys.executable, str(ROOT / "scripts" / "phantom"), "--output", str(folder), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return group_series([dcmread(f) for f in dicom_files(folder)])


@dataclass
class Study:
    t1: SourceSeries
    t2: SourceSeries
    fast: SourceSeries

    @property
    def all(self) -> list[SourceSeries]:
        return [self.t1, self.t2, self.fast]

    @property
    def images(self) -> list:
        return [i for s in self.all for i in s.images]


def told(node: Node, uid: str) -> dict | None:
    """What `spinenode jobs --json` says about a series."""
    return next((s for s in node.jobs()["series"] if s["series_uid"] == uid), None)


def decided(node: Node, uid: str) -> dict | None:
    """The same, once the node has decided about it."""
    series = told(node, uid)
    return series if series and series["state"] in ("planned", "refused") else None


def jobs_of(node: Node, uid: str) -> list[dict]:
    return [j for j in node.jobs()["jobs"] if any(i["series_uid"] == uid for i in j["inputs"])]


def ended(node: Node, uid: str) -> list[dict]:
    """The jobs of a series, once there are some and none of them waits or runs."""
    jobs = jobs_of(node, uid)
    return jobs if jobs and all(j["state"] not in ("waiting", "leased") for j in jobs) else []
