"""The record of runs: the MLflow adapter for ``minima_core.tracking.Tracker``, with lineage and DVC's digests."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from minima_core.config import digest
from minima_core.errors import DataError
from minima_core.provenance import code_digest
from tasks.process import is_dead, process_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

EXPERIMENT = "minima"
DATABASE = "sqlite:///mlflow.db"
ARTIFACTS = Path("mlruns")
OFFLINE = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
PARAM_LIMIT = 6000  # characters that MLflow keeps of one value


class MlflowTracker:
    """Writes to one MLflow run; satisfies ``minima_core.tracking.Tracker``."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        names = client.get_run(run_id).data.metrics
        points = (point for name in names for point in client.get_metric_history(run_id, name))
        self._logged = {(point.key, point.step, point.value) for point in points}

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings; nested ones get dotted names."""
        from mlflow.entities import Param

        params = [Param(name, str(value)[:PARAM_LIMIT]) for name, value in flat(values).items()]
        self.client.log_batch(self.run_id, params=params)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record finite numbers; ``auc@5`` becomes ``auc_at_5``, because MLflow refuses the sign, as it does others.

        What a continued run holds already is left out: a training goes back to its last checkpoint, and comes again by
        the points that it logged after it.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {_metric_name(name): float(value) for name, value in values.items() if math.isfinite(value)}
        points = [(name, step or 0, value) for name, value in finite.items()]
        new = [point for point in points if point not in self._logged]
        self.client.log_batch(self.run_id, metrics=[Metric(name, value, now, at) for name, at, value in new])
        self._logged.update(new)

    def artifact(self, path: Path) -> None:
        """Record a file."""
        self.client.log_artifact(self.run_id, str(path))

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts about the run; a trained model sets ``card_digest``, by which its children find the run."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in values.items()])


@contextmanager
def stage_run(
    name: str,
    *,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    parent_card: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[MlflowTracker]:
    """Open the MLflow run of a stage and yield its tracker.

    A stage that was killed and runs again with the same parameters, inputs and code continues its run, as it continues
    its work; other runs of it whose process is gone are marked as killed. The run hangs below the one that made the
    parent model, where this store knows that one.

    Args:
        name: of the stage, for example ``finetune@lightglue``.
        params: settings that decide the result.
        inputs: what the stage reads, by role (``{"training": Path("data/index")}``); each becomes a logged dataset
            with DVC's digest.
        parent_card: digest of the parent model's card.
        tags: further facts.

    Raises:
        DataError: if MLflow cannot write.
    """
    with _in_one_line():
        client = connect()
        commit, dirty = git_state()
        locked = {role: dvc_digests(path) for role, path in inputs.items()}
        facts = {
            "stage": name,
            "git.commit": commit,
            "git.dirty": str(dirty).lower(),
            "code": code_digest(),  # the commit does not tell of edits
            "params_digest": digest(dict(params)),
        }
        end_dead_runs(client, name)
        facts["run_key"] = digest([facts, locked, parent_card])
        if parent_card:
            facts["parent_card"] = parent_card
            if made := find_run(client, card_digest=parent_card):
                facts["mlflow.parentRunId"] = made.info.run_id
        run = unfinished_run(client, facts["run_key"]) or client.create_run(
            experiment(client), run_name=name, tags={**facts, **dict(tags or {})}
        )
        tracker = MlflowTracker(client, run.info.run_id)
        client.update_run(tracker.run_id, status="RUNNING")
        tracker.tags({"process": process_name()})
        try:
            tracker.params(params)
            client.log_inputs(
                tracker.run_id, [_dataset(role, *item) for role in locked for item in locked[role].items()]
            )
            yield tracker
        except KeyboardInterrupt:
            client.set_terminated(tracker.run_id, "KILLED")
            raise
        except BaseException:
            client.set_terminated(tracker.run_id, "FAILED")
            raise
        client.set_terminated(tracker.run_id, "FINISHED")


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what MLflow says of its store (disk full, file locked or damaged) into one line; it stays as the cause."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow", "sqlalchemy")):
            raise
        said = str(error).strip().splitlines()
        raise DataError(
            f"cannot write the record of runs at {tracking_uri()} ({said[0] if said else type(error).__name__}); free "
            "some space, or end the process that holds the file"
        ) from error


def connect() -> MlflowClient:
    """Return a client of MLFLOW_TRACKING_URI, by default ``mlflow.db`` in the working directory.

    The schema of a new sqlite file is made under a lock: two stages that start together must not both create it.
    """
    for key, value in OFFLINE.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every migration of a new file
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what it raises anyway
    uri = tracking_uri()
    with _creation_lock(uri):
        client = MlflowClient(uri, uri)
        experiment(client)
    return client


def tracking_uri() -> str:
    """Return where runs are kept; a sqlite file by its absolute path, which holds from any working directory."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DATABASE
    path = uri.removeprefix("sqlite:///")
    return uri if path == uri else f"sqlite:///{Path(path).absolute()}"


def experiment(client: MlflowClient) -> str:
    """Return the id of the project's experiment, which is made where it is missing.

    A local store keeps artifacts under an absolute address, so that models load from any working directory; a server
    decides for itself.
    """
    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    local = client.tracking_uri.startswith("sqlite")
    return str(client.create_experiment(EXPERIMENT, ARTIFACTS.absolute().as_uri() if local else None))


def find_run(client: MlflowClient, **tags: str) -> Run | None:
    """Return the newest run with all of ``tags``, or None."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment(client)], query, max_results=1, order_by=["attributes.start_time DESC"])
    return found[0] if found else None


def unfinished_run(client: MlflowClient, run_key: str) -> Run | None:
    """Return the run of the same work that did not come to its end, or None."""
    run = find_run(client, run_key=run_key)
    return run if run and run.info.status != "FINISHED" else None


def end_dead_runs(client: MlflowClient, stage: str) -> None:
    """Mark as killed the runs of a stage that seem to go on, but whose process, one of this machine, is gone."""
    query = f"tags.stage = '{stage}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment(client)], query):
        if is_dead(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "KILLED")


def dvc_digests(path: Path, lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """Return the md5 that dvc.lock holds of ``path``, of the output it lies in, or of each output below it.

    Empty where DVC does not know it (a stage run by hand).
    """
    try:
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values()
    except (FileNotFoundError, TypeError, KeyError, yaml.YAMLError):
        return {}
    outs = {Path(out["path"]): str(out.get("md5", "")) for stage in stages for out in stage.get("outs", [])}
    related = {out: md5 for out, md5 in outs.items() if out.is_relative_to(path) or path.is_relative_to(out)}
    return {str(out): md5 for out, md5 in sorted(related.items()) if md5}


def git_state() -> tuple[str, bool]:
    """Return the commit and whether tracked files differ from it; dvc.lock, which a run changes, does not count."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"))
    except (OSError, subprocess.CalledProcessError):
        return "none", True


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _metric_name(name: str) -> str:
    """Return a name that MLflow takes; categories of a benchmark may be called after folders of the user."""
    return re.sub(r"[^\w./: -]", "_", name.replace("@", "_at_"))


def _dataset(role: str, path: str, md5: str) -> DatasetInput:
    """Return a logged dataset that reads no data: only the path and DVC's digest."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    source = CodeDatasetSource(tags={"dvc.path": path, "dvc.md5": md5})
    dataset = MetaDataset(source, name=path, digest=md5[:36])  # type: ignore[abstract]
    tags = [InputTag("mlflow.data.context", role), InputTag("dvc.md5", md5)]
    return DatasetInput(dataset._to_mlflow_entity(), tags)


def _git(*command: str) -> str:
    out = subprocess.run(["git", *command], check=True, capture_output=True, text=True)
    return out.stdout.strip()


@contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """Hold a lock beside a sqlite file; a server needs none."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///") + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
