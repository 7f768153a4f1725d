"""The node itself: a configuration derived from the shipped one, `spinenode run`, its log, its jobs."""

import copy
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import yaml

from . import proc
from .net import LOOPBACK, end_process, free_port, http, wait_for

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "config" / "spinenode.yaml"
SPOOL_FREE = 64_000_000  # octets
# What a sanitizer says in the log of a node that it stopped, or that leaked.
SANITIZER = re.compile(r"ERROR: (Address|Leak|Thread)Sanitizer|runtime error:|UndefinedBehaviorSanitizer")


class _NoAliases(yaml.SafeDumper):
    """The node takes no YAML aliases."""

    def ignore_aliases(self, data) -> bool:
        return True


def binary() -> Path:
    """The spinenode to test: of SPINENODE_BUILD (make test sets it), else of build/."""
    return ROOT / os.environ.get("SPINENODE_BUILD", "build") / "spinenode"


def merge(base: dict, changes: dict) -> dict:
    """base with changes, mappings merged key by key, everything else replaced."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


class Node:
    """One node in one folder. Ports are free ones; start() may be called again after stop() or kill()."""

    def __init__(self, folder: Path, pacs: list | None = None, changes: dict | None = None, shipped: Path = SHIPPED,
                 program: Path | None = None, port: int | None = None):
        """pacs: the peers (ae_title, port) that stand in for the shipped destinations, in their order; they and TESTER
        may call the node. changes: merged over the result, as the YAML would be written."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.program = Path(program) if program else binary()
        self.port = port or free_port()
        self.http_port = free_port()
        self.config_path = self.folder / "spinenode.yaml"
        self.log_path = self.folder / "spinenode.log"
        self.process: subprocess.Popen | None = None
        self.ready_s = 0.0
        self.settings = self._derive(yaml.safe_load(Path(shipped).read_text()), Path(shipped).parent, pacs or [])
        self.settings = merge(self.settings, changes or {})
        self.ae_title = self.settings["node"]["ae_title"]
        self.write_config()

    def _derive(self, settings: dict, beside: Path, pacs: list) -> dict:
        """The shipped configuration with nothing replaced but addresses, ports, paths and the share of the disk that
        must stay free: the spool lies for minutes on whatever disk there is, which is not the node's own."""
        settings["node"].update(bind=LOOPBACK, port=self.port, spool=str(self.folder / "spool"),
                                database=str(self.folder / "spinenode.db"))
        settings["limits"] = merge(settings.get("limits") or {}, {"disk_free_bytes": SPOOL_FREE, "disk_free_percent": 0})
        settings["http"] = merge(settings.get("http") or {}, {"bind": LOOPBACK, "port": self.http_port})
        # SPINENODE_MODELS: try other models than the shipped ones.
        models = os.environ.get("SPINENODE_MODELS") or beside / settings["models"]["folder"]
        settings["models"]["folder"] = str(Path(models).resolve())
        if pacs:
            titles = dict.fromkeys([p.ae_title for p in pacs] + ["TESTER"])
            settings["callers"] = [{"ae_title": title, "addresses": [LOOPBACK]} for title in titles]
            for destination, peer in zip(settings["destinations"], pacs, strict=False):
                destination.update(ae_title=peer.ae_title, host=LOOPBACK, port=peer.port)
        return settings

    def write_config(self) -> None:
        self.config_path.write_text(yaml.dump(self.settings, Dumper=_NoAliases, sort_keys=False))

    # --- the process ---

    def start(self, ready: bool = True, seconds: float = 30) -> "Node":
        with open(self.log_path, "ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen([str(self.program), "run", "-c", str(self.config_path)], cwd=self.folder,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        if ready:
            self.wait_until_ready(seconds)
            self.ready_s = time.monotonic() - began
        return self

    def wait_until_ready(self, seconds: float) -> None:
        """TimeoutError says what /readyz answers and how the log ends."""
        wait_for(self._ready, seconds, self._unready, pause=0.005)

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the node ended with {self.process.returncode}:\n{self.log()[-3000:]}")
        return self.http("/readyz")[0] == 200

    def _unready(self) -> str:
        status, why = self.http("/readyz")
        return f"the node to be ready; /readyz: {status} {why.decode(errors='replace').strip()}; its log ends:\n{self.log()[-1500:]}"

    def stop(self, seconds: float = 20) -> int | None:
        """SIGTERM; returns the exit status. What its process group left behind is ended too."""
        status = end_process(self.process, seconds, group=True)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL of every process at once, as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def processes(self) -> dict[int, str]:
        """pid -> command line of the supervisor and all below it."""
        found = {}
        pending = [self.process.pid] if self.process else []
        while pending:
            pid = pending.pop()
            try:
                found[pid] = proc.read(pid, "cmdline").replace("\0", " ").strip()
                pending += proc.children(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    def __enter__(self) -> "Node":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    # --- what it says ---

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def sanitizer_report(self) -> str:
        """What a sanitizer wrote into the log; empty if nothing."""
        found = SANITIZER.search(self.log())
        return self.log()[max(0, found.start() - 200) : found.start() + 4000] if found else ""

    def http(self, path: str) -> tuple[int, bytes]:
        return http("GET", f"http://{LOOPBACK}:{self.http_port}{path}")

    def command(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run([str(self.program), *arguments], cwd=self.folder, capture_output=True, text=True, timeout=timeout)

    def jobs(self) -> object:
        done = self.command("jobs", "-c", str(self.config_path), "list", "--json")
        if done.returncode != 0:
            raise RuntimeError(f"spinenode jobs: {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)
