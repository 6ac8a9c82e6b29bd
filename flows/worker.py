"""The process that runs the deployments of prefect.yaml on this machine: ``python -m flows.worker``."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from flows.environment import STATE, running_server

POOL = "minima"


def main() -> None:
    """Make the work pool, deploy, settle what a killed worker left running, and become the worker."""
    os.environ["PREFECT_API_URL"] = os.environ.get("PREFECT_API_URL") or wait_for_server()
    lock = only_one()
    prefect = [str(Path(sys.executable).with_name("prefect")), "--no-prompt"]
    subprocess.run([*prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"], check=True)
    subprocess.run([*prefect, "deploy", "--all"], check=True)
    settle()
    # A shell that starts this in the background lets it ignore SIGINT, by which the worker stops its flows.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.set_inheritable(lock.fileno(), True)
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")
    os.execv(prefect[0], [*prefect, "worker", "start", "--pool", POOL, "--limit", "1"])  # one: they share a checkout


def wait_for_server(seconds: float = 60) -> str:
    """Return the address of this checkout's server, which may just have been started."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if api := running_server():
            return api
        time.sleep(1)
    sys.exit("error: no Prefect server; start `make server` in another terminal, or set PREFECT_API_URL")


def only_one() -> IO[str]:
    """Take the lock that says a worker of this checkout is alive; it is held until the process ends."""
    lock = (STATE / "worker.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: a worker of this checkout is running already")
    return lock


def settle() -> None:
    """Mark runs as crashed whose worker is gone: Prefect leaves them `Running`, and they hold the concurrency limit."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    unfinished = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]}}}
    )
    pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=unfinished, work_pool_filter=pool):
            client.set_flow_run_state(run.id, Crashed(message="its worker is gone"), force=True)


if __name__ == "__main__":
    main()
