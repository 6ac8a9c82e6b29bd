"""How a process behaves when the one that started it dies; imports nothing heavy, so that any launcher can use it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path

LAUNCHER = "MINIMA_LAUNCHER"  # environment variable: the process_name of who started this process


def die_with_parent() -> None:
    """Ask the kernel to end this process with its parent, so that a killed orchestrator leaves no orphan writing.

    The request survives ``exec``. It fires when the parent's *thread* that started this process ends. Who started this
    process says so in the environment, because it may have died before this process could ask for anything.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent or is_dead(os.environ.get(LAUNCHER, "")):
            os._exit(1)
        os.environ[LAUNCHER] = process_name()


def process_start() -> float:
    """Return when this process began, in seconds since the epoch (to 10 ms; now, where the system does not tell)."""
    found = _start_tick(os.getpid())
    if found is None:
        return time.time()
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + int(found) / os.sysconf("SC_CLK_TCK")


def process_name(pid: int | None = None) -> str:
    """Return a name that no other process has: host, id and the tick it began at; "" where it is gone or not told."""
    found = _start_tick(os.getpid() if pid is None else pid)
    return f"{socket.gethostname()}:{os.getpid() if pid is None else pid}:{found}" if found else ""


def is_dead(name: str) -> bool:
    """Say whether the process of this name surely ended; one of another host may live."""
    host, _, rest = name.rpartition(":")[0].rpartition(":")
    own = sys.platform == "linux" and host == socket.gethostname() and rest.isdecimal()
    return own and process_name(int(rest)) != name


def _start_tick(pid: int) -> str | None:
    """Return the clock tick since boot at which a process began; None where it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
