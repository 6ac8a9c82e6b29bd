"""Memory that is freed stays with the process, for the next picture or step, which needs as much again.

The C library of most Linuxes hands large pieces back, and the kernel then clears and maps new ones: thousands of page
faults a picture. Other C libraries and allocators are left as they are.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = 32 << 20  # bytes; larger pieces are handed back whatever is asked
NEVER = 2**31 - 1  # bytes at the end of the heap that it takes to hand some back
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed() -> None:
    """Ask the C library to keep what this process frees, unless its environment says how malloc is to be."""
    if sys.platform != "linux" or _told():
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, KEPT)
        mallopt(_M_TRIM_THRESHOLD, NEVER)


def environment() -> dict[str, str]:
    """Return the variables that ask it of a new process, or none where this one's say how malloc is to be."""
    return {} if _told() else {"MALLOC_MMAP_THRESHOLD_": str(KEPT), "MALLOC_TRIM_THRESHOLD_": str(NEVER)}


def _told() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ)
