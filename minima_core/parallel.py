"""The same function over many jobs in worker processes, with results in the order of the jobs."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

import cv2

from minima_core.errors import MinimaError
from minima_core.progress import track

J = TypeVar("J")
R = TypeVar("R")


def map_jobs(function: Callable[[J], R], jobs: Sequence[J], *, workers: int, what: str, done: int = 0) -> list[R]:
    """Return ``function`` of every job, in order; ``function`` is importable by name, jobs and results can be pickled.

    One worker runs in this process. The first error cancels what has not begun and is raised here. ``done`` counts
    jobs that an earlier run finished, for the bar.

    Raises:
        MinimaError: what ``function`` raises, or that a worker was killed.
    """
    if workers <= 1 or len(jobs) <= 1:
        return [function(job) for job in track(jobs, what, done=done)]
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # OpenCV's threads do not survive a fork, and the workers would wait for them
    pool = ProcessPoolExecutor(min(workers, len(jobs)), _context(), initializer=_start)
    try:
        futures = [pool.submit(function, job) for job in jobs]
        for finished in track(as_completed(futures), what, total=done + len(jobs), done=done):
            finished.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise MinimaError(
            f"{what}: a worker process was killed, perhaps for want of memory; run again with fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def _context() -> BaseContext:
    """Return how workers start: without importing torch anew, which takes each three seconds.

    Forking is safe while no other thread runs. Beside threads a server forks, which has imported it once.
    """
    if threading.active_count() == 1:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch"])
    return context


def _start() -> None:
    """Make a worker single-threaded, and end with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # the fork server, too, ends with the process that started it
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            os._exit(1)
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for what only the job imports
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
