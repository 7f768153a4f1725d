"""Free ports, waiting, and ending what was started."""

import collections
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

LOOPBACK = "127.0.0.1"
# Below the range from which the kernel takes the ports of outgoing connections: a port found here stays free until it
# is bound.
PORTS = range(15000, 32000)
_draw = random.Random(os.getpid() * 1_000_003 + time.monotonic_ns())
# The ports last given out, each claimed from the other processes that draw by an abstract name that the kernel gives once.
_claims: collections.deque[socket.socket] = collections.deque()
CLAIMS = 200


def _claim(port: int) -> bool:
    """Nobody else is given it until this process has drawn CLAIMS others, or ended."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0spinenode-port-{port}")
    except OSError:
        name.close()
        return False
    _claims.append(name)
    while len(_claims) > CLAIMS:
        _claims.popleft().close()
    return True


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, nor will if they draw theirs here."""
    for _ in range(200):
        port = _draw.choice(PORTS)
        with socket.socket() as s:
            try:
                s.bind((LOOPBACK, port))
            except OSError:
                continue
        if _claim(port):
            return port
    raise RuntimeError("no free port found")


def wait_for(condition: Callable[[], object], seconds: float, what: str | Callable[[], str], pause: float = 0.02):
    """The first true value of condition(), asked again and again; TimeoutError says what was waited for.

    what: the words, or what gives them: it is asked when the time is over, and can tell how things stand then.
    """
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what() if callable(what) else what}")
        time.sleep(pause)


def listens(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((LOOPBACK, port)) == 0


def http(method: str, url: str, body: object = None, timeout: float = 20) -> tuple[int, bytes]:
    """Status and body; 0 and nothing when nobody answers."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except OSError:
        return 0, b""


def end_process(process: subprocess.Popen | None, seconds: float = 15, group: bool = False) -> int | None:
    """SIGTERM, then SIGKILL for what does not go; with group, also for the children it left. Returns the exit status."""
    if process is None:
        return None
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if group:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    return process.returncode
