"""The worker of a checkout: what it finds when it starts after one that was killed."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bad_host import serving
from prefect import Flow, Task
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows import worker

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("prefect")


def test_a_checkouts_workers_share_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "STATE", tmp_path / "one")
    name = worker.worker_name()
    assert worker.worker_name() == name
    monkeypatch.setattr(worker, "STATE", tmp_path / "other")
    assert worker.worker_name() != name


def test_a_server_that_was_named_is_waited_for_and_its_absence_is_one_line(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(SystemExit, match=rf"error: no Prefect server answers at {address}; start it"):
        worker.wait_for_server(0.1)
    with serving(lambda handler, n: handler.file(b"true") if n > 1 else handler.send_error(401)) as host:
        monkeypatch.setenv("PREFECT_API_URL", host.url)
        assert worker.wait_for_server(5) == host.url  # one that asks who we are
        assert worker.wait_for_server(5) == host.url


def test_a_flow_ends_with_the_worker_that_started_it():
    """The next worker says that it crashed, and starts another one in the same checkout."""
    flow = "import flows, time; print('begun', flush=True); time.sleep(30)"
    worker = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {flow!r}])"
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": "a run"}
    command = [sys.executable, "-c", worker]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        killed = time.monotonic()
        process.kill()
        process.stdout.read()  # until the flow, which holds it open too, is gone
        assert time.monotonic() - killed < 20


def test_runs_of_another_checkouts_worker_are_left_alone(prefect_server):
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=worker.POOL, type="process"))
        flow = client.create_flow_from_name("retrain")
        deployment = client.create_deployment(flow, "on-demand", work_pool_name=worker.POOL)
        taken = {"own": {"prefect.worker.name": "own"}, "other": {"prefect.worker.name": "other"}, "none": {}}
        runs = {}
        for name, labels in taken.items():
            run = client.create_flow_run_from_deployment(deployment, labels=labels)
            client.set_flow_run_state(run.id, Running(), force=True)
            runs[name] = run.id
        for name in ("own", "other"):
            step = client.create_task_run(Task(lambda: None), runs[name], "0")
            below = client.create_flow_run(Flow(lambda: None, name="reproduce"), parent_task_run_id=step.id)
            client.set_flow_run_state(below.id, Running(), force=True)
            runs[f"below {name}"] = below.id

        worker.settle("own")

        states = {name: client.read_flow_run(run).state.name for name, run in runs.items()}
    assert states == dict.fromkeys(("own", "none", "below own"), "Crashed") | {
        "other": "Running",
        "below other": "Running",
    }
