"""The ports that tests draw: no two processes are given the same."""

import subprocess
import sys

from harness import net

FEW = range(14990, 14994)  # beside those that others draw
DRAW = "import sys; sys.path[:0] = {path}; from harness import net; net.PORTS = range({first}, {end}); net.free_port()"


def test_ports__are_given_once_to_all_processes(monkeypatch):
    monkeypatch.setattr(net, "PORTS", FEW)
    assert {net.free_port() for _ in FEW} == set(FEW)
    other = subprocess.run([sys.executable, "-c", DRAW.format(path=sys.path, first=FEW.start, end=FEW.stop)],
                           capture_output=True, text=True)
    assert other.returncode == 1 and "no free port found" in other.stderr
    for _ in FEW:
        net._claims.pop().close()
    assert net.free_port() in FEW
