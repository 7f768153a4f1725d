"""net_probe (tests/net/net_probe.c): dicom/scp.h and dicom/scu.h behind a command line."""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import node as harness_node
from harness import proc

ROOT = Path(__file__).resolve().parents[2]


class Scp:
    """A running `net_probe scp`: events as they come, files in .folder. Ends when told, never by itself."""

    def __init__(self, probe: Path, folder: Path, **options):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stderr = open(folder / "stderr.txt", "w+b")  # noqa: SIM115
        arguments = [f"{k}={v}" for k, v in options.items()]
        self.process = subprocess.Popen([probe, "scp", folder, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.stderr)
        self.events: list[dict] = []
        self._queue: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.wait("listening")["port"])

    def _read(self) -> None:
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    def wait(self, event: str, seconds: float = 20, **fields) -> dict:
        """The next event of that name with those fields that no wait() has returned yet."""
        end = time.monotonic() + seconds
        while True:
            for found in self.events:
                if found["event"] == event and not found.get("_seen") and all(found[k] == v for k, v in fields.items()):
                    found["_seen"] = True
                    return found
            try:
                found = self._queue.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no {event} {fields} within {seconds} s; there were {self.events[-8:]}") from None
            if found is None:
                self.stderr.seek(0)
                raise RuntimeError(f"net_probe ended: {self.stderr.read()[-3000:]!r}")
            self.events.append(found)

    def files(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.name != "stderr.txt")

    def descriptors(self) -> int:
        return len(os.listdir(f"{proc.folder(self.process.pid)}/fd"))

    def begin_stop(self) -> None:
        self.process.stdin.close()

    def stop(self, seconds: float = 30) -> int:
        if not self.process.stdin.closed:
            self.begin_stop()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="session")
def probe() -> Path:
    path = harness_node.binary().parent / "tests" / "net_probe"
    if not path.exists():
        pytest.fail(f"{path} is not built: make unit-programs")
    return path


@pytest.fixture
def start_scp(probe, tmp_path):
    """start_scp(key=value…) -> Scp. At the end each must stop by itself, without a word from a sanitizer."""
    started = []

    def start(**options) -> Scp:
        started.append(Scp(probe, tmp_path / f"scp{len(started)}", **options))
        return started[-1]

    yield start
    failures = []
    for scp in started:
        status = scp.stop()
        scp.stderr.seek(0)
        said = scp.stderr.read().decode(errors="replace")
        if status != 0 or said:
            failures.append(f"net_probe ended with {status}: {said[-4000:]}")
    assert not failures, "\n".join(failures)


@pytest.fixture
def scp(start_scp):
    return start_scp(digest=1)


@pytest.fixture
def scu(probe):
    """scu(port, verb, *arguments, called=…, **options) -> list of events, one per request."""

    def run(port: int, verb: str, *arguments, called: str = "PACS", calling: str = "PROBE", host: str = "127.0.0.1",
            timeout: float = 60, **options) -> list[dict]:
        command = [probe, "scu", host, str(port), called, calling, verb, *map(str, arguments)]
        command += [f"{k}={v}" for k, v in options.items()]
        done = subprocess.run(command, capture_output=True, timeout=timeout)
        assert done.returncode in (0, 1), done.stderr.decode(errors="replace")[-4000:]
        assert not done.stderr, done.stderr.decode(errors="replace")[-4000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
