"""The MLflow adapter against a real sqlite store in a temporary folder."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from minima_core.errors import DataError
from tasks import tracking
from tasks.tracking import connect, dvc_digests, experiment, find_run, flat, stage_run

ROOT = Path(__file__).resolve().parents[2]
LOCK = """\
schema: '2.0'
stages:
  index:
    cmd: x
    outs:
    - {path: data/index, hash: md5, md5: aaaa.dir, size: 1, nfiles: 1}
  synthesise@event:
    cmd: x
    outs:
    - {path: data/modalities/event, hash: md5, md5: bbbb.dir, size: 1, nfiles: 1}
  synthesise@paint:
    cmd: x
    outs:
    - {path: data/modalities/paint, hash: md5, md5: cccc.dir, size: 1, nfiles: 1}
"""


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory):
    """A store with its schema made, to copy: making it takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect()
    return folder / "mlflow.db"


@pytest.fixture
def checkout(tmp_path, monkeypatch, fresh_store):
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "dvc.lock").write_text(LOCK)
    shutil.copy(fresh_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def runs(client):
    return client.search_runs([experiment(client)])


def test_a_run_records_what_it_was_and_what_it_read(checkout, tmp_path):
    curve = tmp_path / "curve.txt"
    curve.write_text("0 1\n")
    inputs = {"training": checkout.relative_to(checkout) / "data/modalities"}
    with stage_run("finetune@lightglue", params={"seed": 0, "optim": {"lr": 1e-4}}, inputs=inputs) as tracker:
        tracker.metrics({"loss": 2.0, "auc@5": 10.0}, step=0)
        tracker.metrics({"loss": 1.5, "bad": float("nan")}, step=1)
        tracker.tags({"card_digest": "c" * 64})
        tracker.artifact(curve)
    client = connect()
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0", "optim.lr": "0.0001"}
    assert run.data.metrics == {"loss": 1.5, "auc_at_5": 10.0}
    assert [m.value for m in client.get_metric_history(tracker.run_id, "loss")] == [2.0, 1.5]
    assert {d.dataset.name: d.dataset.digest for d in run.inputs.dataset_inputs} == {
        "data/modalities/event": "bbbb.dir",
        "data/modalities/paint": "cccc.dir",
    }
    assert [f.path for f in client.list_artifacts(tracker.run_id)] == ["curve.txt"]


def test_a_child_hangs_below_the_run_that_made_its_parent(checkout):
    with stage_run("pretrain@lightglue", params={}, inputs={}) as parent:
        parent.tags({"card_digest": "p" * 64})
    with stage_run("finetune@lightglue", params={}, inputs={}, parent_card="p" * 64) as child:
        pass
    with stage_run("finetune@lightglue", params={}, inputs={}, parent_card="q" * 64) as orphan:
        pass
    tags = connect().get_run(child.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id and tags["parent_card"] == "p" * 64
    assert "mlflow.parentRunId" not in connect().get_run(orphan.run_id).data.tags


def test_an_interrupted_run_is_continued_and_a_finished_one_is_not(checkout):
    def go(fail):
        with stage_run("finetune@lightglue", params={"seed": 1}, inputs={}) as tracker:
            if fail:
                raise ValueError("stop")
        return tracker.run_id

    with pytest.raises(ValueError, match="stop"):
        go(fail=True)
    interrupted = runs(connect())[0]
    assert interrupted.info.status == "FAILED"
    assert go(fail=False) == interrupted.info.run_id
    assert go(fail=False) != interrupted.info.run_id


def test_a_continued_run_holds_each_point_once(checkout):
    def go(steps):
        with stage_run("finetune@lightglue", params={"seed": 2}, inputs={}) as tracker:
            for step in steps:
                tracker.metrics({"loss": 10.0 - step, "auc@5": 1.0}, step=step)
            if steps[-1] < 5:
                raise ValueError("stop")
        return tracker.run_id

    with pytest.raises(ValueError, match="stop"):
        go(range(4))  # the checkpoint was after step 1
    points = connect().get_metric_history(go(range(2, 6)), "loss")
    assert [(p.step, p.value) for p in points] == [(step, 10.0 - step) for step in range(6)]


def test_a_killed_stage_leaves_no_run_that_seems_to_go_on(checkout):
    code = (
        "import os, signal; from tasks.tracking import stage_run\n"
        "with stage_run('match@x', params={'k': 1}, inputs={}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == -signal.SIGKILL
    (killed,) = runs(connect())
    assert killed.info.status == "RUNNING"
    with stage_run("other", params={}, inputs={}):
        assert connect().get_run(killed.info.run_id).info.status == "RUNNING"
    with stage_run("match@x", params={"k": 2}, inputs={}) as alive:
        assert connect().get_run(killed.info.run_id).info.status == "KILLED"
        tracking.end_dead_runs(connect(), "match@x")
        assert connect().get_run(alive.run_id).info.status == "RUNNING"


def test_a_category_may_have_any_name_of_a_folder(checkout):
    with stage_run("score@lightglue", params={}, inputs={}) as tracker:
        tracker.metrics({"rgb_retention/rgbd-Büro (2), west-val/auc@5": 10.0})
    found = connect().get_run(tracker.run_id).data.metrics
    assert found == {"rgb_retention/rgbd-Büro _2__ west-val/auc_at_5": 10.0}


def test_runs_are_tagged_with_commit_and_dirtiness(checkout):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True, cwd=checkout)
    (checkout / "dvc.lock").write_text(LOCK + "\n")  # what `dvc repro` itself does
    commit, dirty = tracking.git_state()
    assert len(commit) == 40 and not dirty


def test_digests_come_from_outputs_at_above_or_below_a_path(checkout):
    assert dvc_digests(checkout.relative_to(checkout) / "data/index") == {"data/index": "aaaa.dir"}
    assert dvc_digests(checkout.relative_to(checkout) / "data/index/a.h5") == {"data/index": "aaaa.dir"}
    assert dvc_digests(checkout.relative_to(checkout) / "elsewhere") == {}
    (checkout / "dvc.lock").unlink()
    assert dvc_digests(checkout.relative_to(checkout) / "data/index") == {}


def test_nested_settings_get_dotted_names():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def _write(k):
    with stage_run(f"score@{k}", params={"k": k}, inputs={}) as tracker:
        for step in range(20):
            tracker.metrics({"loss": float(step)}, step=step)


def test_two_processes_share_a_fresh_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(k,)) for k in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    client = connect()
    assert {run.data.tags["stage"] for run in runs(client)} == {"score@0", "score@1"}
    assert find_run(client, stage="score@1").data.metrics == {"loss": 19.0}


def test_a_disk_that_fills_up_is_told_without_mlflow_s_traceback(checkout, capfd):
    connect()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # the store is larger
    try:
        with pytest.raises(DataError, match="cannot write the record of runs"), stage_run("s", params={}, inputs={}):
            raise AssertionError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "Traceback" not in capfd.readouterr().err


def test_a_store_that_cannot_be_written_is_one_line_that_names_it(checkout):
    from mlflow.exceptions import MlflowException

    full = Mock(log_batch=Mock(side_effect=MlflowException("database or disk is full")))
    message = r"cannot write the record of runs at sqlite:///.*mlflow\.db \(.*disk is full"
    with pytest.raises(DataError, match=message), stage_run("score", params={}, inputs={}) as tracker:
        tracker.client = full
        tracker.metrics({"auc": 1.0})


def test_a_damaged_store_is_named(checkout):
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match=r"mlflow\.db"), stage_run("score", params={}, inputs={}):
        pass
