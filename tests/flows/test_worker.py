"""The worker of a checkout: what it finds when it starts after one that was killed."""

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows import worker

pytestmark = pytest.mark.xdist_group("prefect")


def test_a_checkouts_workers_share_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "STATE", tmp_path / "one")
    name = worker.worker_name()
    assert worker.worker_name() == name
    monkeypatch.setattr(worker, "STATE", tmp_path / "other")
    assert worker.worker_name() != name


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

        worker.settle("own")

        states = {name: client.read_flow_run(run).state.name for name, run in runs.items()}
    assert states == {"own": "Crashed", "other": "Running", "none": "Crashed"}
