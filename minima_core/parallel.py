"""The same function over many jobs in worker processes, with results in the order of the jobs."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeVar

import cv2

from minima_core import memory
from minima_core.errors import MinimaError
from minima_core.progress import track

J = TypeVar("J")
R = TypeVar("R")
RAY_RETRIES = 5  # times that a job is given to another worker when one dies


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
        futures = [pool.submit(_packed, function, pickle.dumps(job, pickle.HIGHEST_PROTOCOL)) for job in jobs]
        for finished in track(as_completed(futures), what, total=done + len(jobs), done=done):
            finished.result()
        return [pickle.loads(future.result()) for future in futures]
    except BrokenProcessPool:
        raise MinimaError(
            f"{what}: a worker process was killed, perhaps for want of memory; run again with fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(before)


def _packed(function: Callable[[J], R], job: bytes) -> bytes:
    """Return ``function`` of a job, both packed here.

    The pool itself would share each tensor as a file of its own, and leave a thread behind, beside which no more
    workers can be forked.
    """
    return pickle.dumps(function(pickle.loads(job)), pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True)
class Cluster:
    """Ray in the place of processes: a cluster at ``address``, or one of ``workers`` cores on this machine for "".

    The machines of a cluster see the same file system, and have the project installed.
    """

    address: str
    workers: int

    def map_jobs(self, function: Callable[[J], R], jobs: Sequence[J], *, gpus: float, what: str) -> list[R]:
        """Return ``function`` of every job, in order; a job whose worker dies is given to another.

        Args:
            function: importable by name; may be called again for a job that a killed worker began.
            jobs: can be pickled.
            gpus: share of a GPU that a job needs; ignored where the cluster has none.
            what: the name of the work, for the bar.

        Raises:
            MinimaError: what ``function`` raises, or that Ray is missing, cannot be reached or gave a job up.
        """
        try:
            import ray
        except ImportError:
            raise MinimaError("executor ray needs Ray; install it with `pip install 'minima-pipeline[ray]'`") from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        own = not ray.is_initialized()
        if own:
            self.begin()
        try:
            found = ray.cluster_resources()  # type: ignore[no-untyped-call]
            share = gpus if found.get("GPU") else 0
            options = {"name": function.__name__, "num_cpus": 1, "num_gpus": share, "max_retries": RAY_RETRIES}
            remote: Any = ray.remote(_in_folder).options(**options)
            tasks = [remote.remote(Path.cwd(), function, job) for job in jobs]
            waiting = list(tasks)
            for _ in track(range(len(tasks)), what):
                done, waiting = ray.wait(waiting)
                ray.get(done)
            return ray.get(tasks)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MinimaError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise MinimaError(f"{what}: Ray gave a job up: {str(error).splitlines()[0]}; run again") from None
        finally:
            if own:
                ray.shutdown()

    def begin(self) -> None:
        """Connect to the cluster, or start one; ``map_jobs`` does it itself, and ends what it began.

        Raises:
            MinimaError: if there is none at the address.
        """
        import ray

        where: dict[str, Any] = (
            {"address": self.address} if self.address else {"address": "local", "num_cpus": self.workers}
        )
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        if port.isdigit():  # Ray itself would try for five minutes
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
            except OSError as error:
                raise MinimaError(
                    f"no Ray cluster at {self.address}: {error.strerror or error}; see execution.yaml"
                ) from None
        runtime: dict[str, Any] = {"env_vars": {"OMP_NUM_THREADS": "1", **memory.environment()}}
        if " " in sys.executable:  # Ray hands it to a shell as it is
            runtime["py_executable"] = shlex.quote(sys.executable)
        try:
            ray.init(
                **where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime
            )
        except Exception as error:  # a node that does not start in time is told by no narrower one
            asks = self.address and os.environ.get("RAY_AUTH_MODE") != "token"  # Ray does not say that this is why
            token = "; where it asks for a token, as those of `ray start` do, set RAY_AUTH_MODE=token" if asks else ""
            raise MinimaError(
                f"no Ray cluster at {self.address or 'this machine'}: {str(error).splitlines()[0]}{token}; "
                "see execution.yaml"
            ) from None


def torch_device(name: str) -> str:
    """Return the torch device that a name in execution.yaml stands for here: ``auto`` is a GPU where there is one."""
    if name != "auto":
        return name
    import torch  # takes seconds

    return "cuda" if torch.cuda.is_available() else "cpu"


def _in_folder(folder: Path, function: Callable[[J], R], job: J) -> R:
    """Return ``function`` of a job whose paths start from ``folder``; a worker of Ray starts where its machine did."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise MinimaError(
            f"a machine of the Ray cluster cannot enter {folder}: {error.strerror}; all must see it at the same path"
        ) from None
    return function(job)


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
    memory.keep_freed()
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for what only the job imports
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
