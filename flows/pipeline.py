"""The bridge to DVC: its graph is read into frozen records, and one Prefect task a stage runs ``dvc repro`` for it."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer
from prefect import Flow, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.environment import running_server
from flows.subprocesses import CommandFailed, Commands
from minima_core.cli_arguments import run_command
from minima_core.config import Section, checked, unknown
from minima_core.errors import ConfigError, MinimaError
from tasks.reports import Report, read_report

DVC = [sys.executable, "-m", "flows.dvc_child"]


class StageFailed(MinimaError):
    """A stage did not finish; the message is its own last ``error:`` line."""


class _Plain(logging.Filter):
    """Takes the traceback off what Prefect logs of a mistake that the project tells of: its message says all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], MinimaError):
            record.exc_info = None
        return True


for name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(name).addFilter(_Plain())


class Meta(Section):
    """What a stage may say under ``meta:`` in dvc.yaml: how it is run, never what it makes."""

    tags: tuple[str, ...] = ()
    retries: int = Field(0, ge=0)
    retry_delay: float = Field(10.0, ge=0)  # seconds
    timeout: float | None = Field(None, gt=0)  # seconds


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml: its name as DVC writes it (``synthesise@event``) and what must be done before."""

    name: str
    upstream: tuple[str, ...] = ()
    report: Path | None = None
    meta: Meta = field(default_factory=Meta)


@dataclass(frozen=True)
class Outcome:
    """What became of a stage; ``ran`` is false where DVC had nothing to do.

    A result that DVC takes out of its run cache counts as run: the outputs are others than before, and what needs
    them must be looked at again.
    """

    stage: str
    ran: bool
    report: Report | None


def read_stages(targets: Iterable[str] = ()) -> list[Stage]:
    """Return the stages that ``targets`` need, upstream first; all stages where there are no targets.

    A target is a stage (``synthesise@event``) or all of a matrix (``synthesise``). This is the one place that reads
    DVC's graph in memory, where an edge points from a stage to one that it needs.

    Raises:
        ConfigError: if DVC cannot read the graph, there is no such stage, or its ``meta`` holds what this version does
            not know.
    """
    import networkx as nx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = _graph(repo)
        nodes = {node.addressing: node for node in graph}
        wanted = set(nodes)
        if targets := list(targets):
            roots = [nodes[name] for target in targets for name in _expand(target, nodes)]
            wanted = {n.addressing for root in roots for n in (root, *nx.descendants(graph, root))}
        order = list(nx.lexicographical_topological_sort(graph.reverse(), key=lambda node: node.addressing))
        return [_record(graph, node) for node in order if node.addressing in wanted]


def _graph(repo: Any) -> Any:
    from dvc.exceptions import DvcException

    try:
        return repo.index.graph
    except (DvcException, TypeError) as error:  # the second of a list of params.yaml that is none
        raise ConfigError(
            f"DVC cannot read the graph: {' '.join(str(error).split())}; look at dvc.yaml and params.yaml, whose "
            "modalities, matchers and benchmarks are lists in brackets"
        ) from error


def _expand(target: str, names: Iterable[str]) -> list[str]:
    found = [name for name in names if name == target or name.startswith(f"{target}@")]
    if not found:
        raise ConfigError(f"no such stage: {unknown(target, names, 'dvc.yaml')}")
    return found


def _record(graph: Any, node: Any) -> Stage:
    command = shlex.split(node.cmd if isinstance(node.cmd, str) else " ".join(node.cmd))
    report = Path(command[command.index("--report") + 1]) if "--report" in command else None
    upstream = tuple(sorted(needed.addressing for needed in graph.successors(node)))
    meta = checked(dict(node.meta or {}), Meta, f"dvc.yaml: {node.addressing}: meta")
    return Stage(node.addressing, upstream, report, meta)


def changed_stages() -> set[str] | None:
    """Return the stages that DVC sees changed in their own inputs, code or outputs; None while DVC cannot say."""
    command = [*DVC, "status", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        return set(json.loads(done.stdout))
    except json.JSONDecodeError:  # another DVC process holds what status wants to read
        return None


@task(name="stage", task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: Stage, changed: bool, upstream: list[Outcome], commands: Commands) -> Any:
    """Bring one stage up to date and return its Outcome; state ``Cached`` where there was nothing to do.

    ``changed`` is what DVC's status said before the flow began; it holds for as long as nothing upstream has run.

    Raises:
        StageFailed: with the stage's last ``error:`` line.
    """
    ran = False
    if changed or any(before.ran for before in upstream):
        logger = get_run_logger()
        command = [*DVC, "--wait-for-lock", "repro", "--single-item", stage.name]
        try:
            lines = commands.follow(command, logger.info, timeout=stage.meta.timeout)
        except CommandFailed as error:
            raise StageFailed(f"{stage.name}: {error}") from None
        ran = any(line.startswith("Running stage ") or "is cached - skipping run" in line for line in lines)
    outcome = Outcome(stage.name, ran, read_report(stage.report) if stage.report else None)
    return outcome if ran else Completed(name="Cached", message="nothing to do", data=outcome)


def parallel() -> int:
    """Return how many stages run side by side: one a core, at most four."""
    return min(4, len(os.sched_getaffinity(0)))


# A stage that waits for its upstream holds a thread, so the pool is larger than any graph here; how many commands run
# at a time is decided by Commands.
SIDE_BY_SIDE: Any = ThreadPoolTaskRunner(max_workers=256)


@flow(name="reproduce", task_runner=SIDE_BY_SIDE, validate_parameters=False)
def reproduce(targets: list[str] | None = None) -> dict[str, Outcome]:
    """Bring ``targets`` and what they need up to date, independent stages side by side; returns what became of each.

    Raises:
        StageFailed: when a stage failed; the others that do not need it have finished by then.
    """
    stages = read_stages(targets or [])
    changed = changed_stages()
    runs: dict[str, PrefectFuture[Any]] = {}
    commands = Commands(parallel())
    try:
        for stage in stages:
            run = run_stage.with_options(
                tags=list(stage.meta.tags), retries=stage.meta.retries, retry_delay_seconds=stage.meta.retry_delay
            )
            before: Any = [runs[name] for name in stage.upstream]
            runs[stage.name] = run.submit(stage, changed is None or stage.name in changed, before, commands)
        wait(list(runs.values()))
    except BaseException:  # cancelled, or interrupted: no stage may go on without its flow
        commands.stop()
        raise
    return _collect(runs)


def once(flow: Flow[..., Any]) -> NoReturn:
    """Run a flow as a command whose options are the flow's parameters: a failed stage is one line and exit code 1."""

    @functools.wraps(flow.fn)
    def run(**options: Any) -> None:
        if (api := os.environ.get("PREFECT_API_URL", "")) and not running_server(api):
            raise ConfigError(f"no Prefect server answers at PREFECT_API_URL={api}; start it, or unset the variable")
        try:
            flow(**options)
        except MinimaError:
            logging.disable()  # what Prefect would still say of it
            raise

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    told = inspect.getdoc(flow.fn) or ""
    app.command(help=told.replace("Args:", "\b\nArgs:"))(run)  # which keeps its lines apart
    run_command(app, sys.argv[1:], f"python -m flows.{flow.name.replace('-', '_')}")


def _collect(runs: dict[str, PrefectFuture[Any]]) -> dict[str, Outcome]:
    failed = {name: run for name, run in runs.items() if run.state.is_failed() or run.state.is_crashed()}
    if failed:
        errors = {name: run.result(raise_on_failure=False) for name, run in failed.items()}
        said = [str(e) if isinstance(e, MinimaError) else f"{name}: {e!r}" for name, e in errors.items()]
        waiting = sorted(name for name, run in runs.items() if not run.state.is_final())
        raise StageFailed("; ".join([*said, *([f"not run: {', '.join(waiting)}"] if waiting else [])]))
    return {name: run.result() for name, run in runs.items()}
