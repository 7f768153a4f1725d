"""What /proc says of a process, also where /proc belongs to another PID namespace than ours (a chroot in a container).

There a process has another number in /proc than the one by which we can signal it; `NSpid` in its status has both.
"""

import os


def _foreign() -> bool:
    return os.readlink("/proc/self") != str(os.getpid())


def _number_inside(outer: str) -> int | None:
    """Our number of the process that /proc calls `outer`; None if it is not of our namespace."""
    try:
        if os.readlink(f"/proc/{outer}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            return None
        with open(f"/proc/{outer}/status") as f:
            return next(int(line.split()[-1]) for line in f if line.startswith("NSpid:"))
    except (OSError, StopIteration):
        return None


def folder(pid: int) -> str:
    """/proc/… of a process; raises FileNotFoundError when it is gone."""
    if not _foreign():
        return f"/proc/{pid}"
    for outer in os.listdir("/proc"):
        if outer.isdigit() and _number_inside(outer) == pid:
            return f"/proc/{outer}"
    raise FileNotFoundError(f"no process {pid}")


def read(pid: int, name: str) -> str:
    with open(f"{folder(pid)}/{name}", errors="replace") as f:
        return f.read()


def children(pid: int) -> list[int]:
    found = []
    at = folder(pid)
    for task in os.listdir(f"{at}/task"):
        with open(f"{at}/task/{task}/children") as f:
            found += f.read().split()
    if not _foreign():
        return [int(p) for p in found]
    return [n for n in map(_number_inside, found) if n is not None]


def is_alive(pid: int) -> bool:
    """False for one that is gone, and for one that has ended and waits to be reaped."""
    try:
        return read(pid, "stat").rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
