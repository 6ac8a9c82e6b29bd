"""The process that runs the deployments of prefect.yaml on this machine: ``python -m flows.worker``."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO

from flows.environment import STATE, running_server
from minima_core.io.atomic import write_text

POOL = "minima"


def main() -> None:
    """Make the work pool, deploy, settle what a killed worker left running, and become the worker."""
    os.environ["PREFECT_API_URL"] = wait_for_server()
    lock = only_one()
    prefect = [str(Path(sys.executable).with_name("prefect")), "--no-prompt"]
    subprocess.run([*prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"], check=True)
    subprocess.run([*prefect, "deploy", "--all"], check=True)
    settle(worker_name())
    # A shell that starts this in the background lets it ignore SIGINT, by which the worker stops its flows.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.set_inheritable(lock.fileno(), True)
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")
    # one run at a time: all work in this checkout
    os.execv(prefect[0], [*prefect, "worker", "start", "--pool", POOL, "--name", worker_name(), "--limit", "1"])


def wait_for_server(seconds: float = 60) -> str:
    """Return the address in PREFECT_API_URL, else of this checkout's server, which may just have been started."""
    given = os.environ.get("PREFECT_API_URL", "")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if api := running_server(given):
            return api
        time.sleep(1)
    if given:
        sys.exit(f"error: no Prefect server answers at {given}; start it, or take PREFECT_API_URL away")
    sys.exit("error: no Prefect server; start `make server` in another terminal, or set PREFECT_API_URL")


def only_one() -> IO[str]:
    """Take the lock that says a worker of this checkout is alive; it is held until the process ends."""
    STATE.mkdir(parents=True, exist_ok=True)  # PREFECT_HOME may be elsewhere
    lock = (STATE / "worker.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: a worker of this checkout is running already")
    return lock


def worker_name() -> str:
    """Return what the workers of this checkout are called, one after the other; no other checkout's are."""
    kept = STATE / "worker-name"
    if not kept.is_file():
        write_text(kept, f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")
    return kept.read_text(encoding="utf-8")


def settle(worker: str) -> None:
    """Mark runs as crashed whose worker is gone: Prefect leaves them `Running`, and they hold the concurrency limit.

    Those that another worker took are its own: several checkouts may share a server. Prefect labels a run when it has
    taken it; one without a label got no further than that.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId, WorkPoolFilter
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    unfinished = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": [StateType.RUNNING, StateType.CANCELLING, StateType.PENDING]}}}
    )
    pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=unfinished, work_pool_filter=pool):
            if run.labels.get("prefect.worker.name", worker) == worker:
                parent = FlowRunFilterParentFlowRunId(any_=[run.id])
                within = unfinished.model_copy(update={"parent_flow_run_id": parent})  # subflows are in no pool
                for gone in (*client.read_flow_runs(flow_run_filter=within), run):
                    client.set_flow_run_state(gone.id, Crashed(message="its worker is gone"), force=True)


if __name__ == "__main__":
    main()
