"""The graph tells the truth: commands parse, their paths are what is declared, and so is the code they run."""

import importlib
import inspect
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from minima_core.config import load_params
from tasks.stage import INPUT, OUTPUT, Args

ROOT = Path(__file__).resolve().parents[1]
PARAMS = load_params(ROOT / "params.yaml")
LISTED = PARAMS["matchers"][0]
CHOICES = sorted(set(PARAMS["matcher"]) - set(PARAMS["matchers"]))  # that a user may list instead
# How stages are run, recorded and told apart, never what they make; editing these re-runs nothing.
NEUTRAL = {
    *("tasks.stage", "tasks.process", "tasks.reports", "tasks.tracking"),
    *("minima_core.config", "minima_core.errors", "minima_core.plugins", "minima_core.progress"),
    *("minima_core.tracking", "minima_core.parallel", "minima_core.memory", "minima_core.provenance"),
}
# What a benchmark's `prepare` imports shows in the folder that it wrote, which `match` and `score` depend on.
PREPARES = ("minima_core.data.datasets", "minima_core.synthesis")
# How packages are fetched; what comes of them is checked by its digest.
FETCHES = ("minima_core.licences", "minima_core.published", "minima_core.weights")
# What a matcher imports when it is asked for training data, and not before: `match` never asks.
TRAINS = ("minima_core.data", "minima_core.supervision", "minima_core.training")


@dataclass(frozen=True)
class Stage:
    """One stage as DVC resolves it."""

    name: str
    module: str
    argv: tuple[str, ...]
    deps: frozenset[str]
    outs: frozenset[str]
    params: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.name.partition("@")[0]

    @property
    def code(self) -> list[str]:
        return sorted(path for path in self.deps if path.startswith(("tasks/", "minima_core/")))

    def flag(self, name: str) -> str:
        return self.argv[self.argv.index(f"--{name}") + 1]


@cache
def stages() -> dict[str, Stage]:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    found = {}
    with Repo(str(ROOT)) as repo:
        for node in repo.index.stages:
            shell, python, dash_m, module, *argv = shlex.split(node.cmd)
            assert (shell, python, dash_m) == ("exec", "python", "-m")
            params = [dep for dep in node.deps if isinstance(dep, ParamsDependency)]
            deps = {relative(dep) for dep in node.deps if dep not in params}
            outs = {relative(out) for out in node.outs}
            names = tuple(name for dep in params for name in dep.params)
            found[node.addressing] = Stage(
                node.addressing, module, tuple(argv), frozenset(deps), frozenset(outs), names
            )
    return found


def relative(path):
    return str(Path(path.fs_path).relative_to(ROOT))


NAMES = sorted(stages())


def arguments(stage):
    module = importlib.import_module(stage.module)
    found = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if issubclass(c, Args) and c is not Args and c.__module__ == module.__name__
    ]
    assert len(found) == 1
    return found[0].parse(list(stage.argv))


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_deps_and_outputs_are_outs(name):
    stage = stages()[name]
    args = arguments(stage)
    assert {str(getattr(args, field)) for field in args.paths(INPUT)} == stage.deps - set(stage.code)
    assert {str(getattr(args, field)) for field in args.paths(OUTPUT)} == stage.outs


@cache
def imports():
    """Return which modules each module imports, by name."""
    import grimp

    sys.path.insert(0, str(ROOT))
    try:
        return grimp.build_graph("minima_core", "tasks", exclude_type_checking_imports=True, cache_dir=None)
    finally:
        sys.path.remove(str(ROOT))


def plugins(stage):
    """Return the modules that a stage finds by name, which no import statement shows."""
    params = load_params(ROOT / "params.yaml")
    match stage.kind:
        case "download" | "index":
            return {f"minima_core.data.datasets.{params['dataset']['name']}"}
        case "synthesise":
            modality = stage.flag("modality")
            return {f"minima_core.synthesis.{modality}.{params['synthesis'][modality]['engine']}"}
        case "pretrain" | "finetune" | "match":
            return {f"minima_core.matchers.{stage.flag('matcher')}"}
        case "score":
            return benchmark(stage.flag("benchmark"))
        case "fetch_benchmark":
            settings = params["benchmark"][stage.flag("benchmark")].get("engines", {})
            engines = {f"minima_core.synthesis.{modality}.{of['engine']}" for modality, of in settings.items()}
            return benchmark(stage.flag("benchmark")) | engines
    return set()


def benchmark(folder):
    return {f"minima_core.evaluation.benchmarks.{Path(folder).name}"}


def closure(roots, prune):
    """Return all modules that ``roots`` import, themselves included, without what lies in ``prune``."""
    found, todo = set(), set(roots)
    while todo:
        module = todo.pop()
        if module in found or any(f"{module}.".startswith(f"{name}.") for name in prune):
            continue
        found.add(module)
        todo |= imports().find_modules_directly_imported_by(module)
    return found


def file(module):
    path = Path(*module.split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("name", NAMES)
def test_code_that_a_stage_runs_is_a_dependency(name):
    missing = undeclared(stages()[name])
    assert not missing, f"dvc.yaml: deps of {name} lack {missing}"


def undeclared(stage, found=None, aside=()):
    """Return the files that a stage runs and does not declare; ``found`` instead of the plugins that it is set to."""
    prune = {*NEUTRAL, *{"match": TRAINS, "score": PREPARES}.get(stage.kind, ()), *aside}
    needed = {file(module) for module in closure({stage.module, *(found or plugins(stage))}, prune)}
    declared = [Path(path) for path in stage.code]
    return sorted(str(path) for path in needed if not any(path.is_relative_to(dep) for dep in declared))


@pytest.mark.parametrize("matcher", CHOICES)
@pytest.mark.parametrize("kind", ["pretrain", "finetune", "match"])
def test_code_of_a_matcher_that_may_be_listed_is_a_dependency(kind, matcher):
    stage = next(stage for stage in stages().values() if stage.kind == kind and stage.flag("matcher") == LISTED)
    argv = tuple(matcher if word == LISTED else word for word in stage.argv)
    missing = undeclared(replace(stage, argv=argv, deps={dep.replace(LISTED, matcher) for dep in stage.deps}))
    assert not missing, f"dvc.yaml: deps of {kind}@{matcher} lack {missing}"


@pytest.mark.parametrize("modality", sorted(PARAMS["synthesis"]))
def test_code_of_a_modality_that_may_be_listed_is_a_dependency(modality):
    stage = next(stage for stage in stages().values() if stage.kind == "synthesise")
    listed = stage.flag("modality")
    argv = tuple(modality if word == listed else word for word in stage.argv)
    deps = {dep.replace(f"synthesis/{listed}", f"synthesis/{modality}") for dep in stage.deps}
    missing = undeclared(replace(stage, argv=argv, deps=deps))
    assert not missing, f"dvc.yaml: deps of synthesise@{modality} lack {missing}"


@pytest.mark.parametrize("name", sorted(set(PARAMS["dataset"]) - {"name"}))
@pytest.mark.parametrize("kind", ["download", "index"])
def test_code_of_a_data_set_that_may_be_named_is_a_dependency(kind, name):
    missing = undeclared(stages()[kind], {f"minima_core.data.datasets.{name}"}, FETCHES)
    assert not missing, f"dvc.yaml: deps of {kind} lack {missing} for {name}"


def test_matching_loads_nothing_of_what_training_does():
    matchers = [f"minima_core.matchers.{name}" for name in PARAMS["matcher"]]
    code = f"import sys, importlib, tasks.match; [importlib.import_module(m) for m in {matchers}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not [m for m in done.stdout.split() if any(f"{m}.".startswith(f"{name}.") for name in TRAINS)]


def reruns(path):
    """Return the kinds of stages that an edit of ``path`` runs again by itself."""
    return {s.name for s in stages().values() if any(Path(path).is_relative_to(dep) for dep in s.code)}


def test_declared_code_exists():
    assert not [path for stage in stages().values() for path in stage.code if not (ROOT / path).exists()]


@pytest.mark.parametrize(
    "path", ["minima_core/cli.py", "minima_core/doctor.py", "docs/results.md", "flows/pipeline.py", "execution.yaml"]
)
def test_an_edit_that_cannot_change_results_runs_nothing(path):
    assert reruns(path) == set()


def test_an_engine_concerns_its_own_modality_and_the_benchmark_made_with_it():
    again = reruns("minima_core/synthesis/event/closed_form.py")
    assert {name for name in again if not name.startswith("fetch_benchmark@")} == {"synthesise@event", "summarise"}


def test_results_travel_and_no_stage_reads_a_report():
    """Reports hold clocks; all that a stage makes is in DVC's cache, so that a clone can pull it and is up to date."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        outs = [out for node in repo.index.stages for out in node.outs]
    assert all(out.use_cache and out.can_push for out in outs)
    reports = {relative(out) for out in outs if out.metric}
    assert len(reports) == len(stages())
    read = {dep for stage in stages().values() for dep in stage.deps}
    assert not [report for report in reports if any(Path(report).is_relative_to(dep) for dep in read)]


def test_names_are_checked_before_anything_else():
    first = stages()["check"]
    assert not [dep for dep in first.deps if dep not in first.code]
    begin = [s for s in stages().values() if s.deps - first.outs == set(s.code)]
    assert {s.kind for s in begin} == {"check", "download", "fetch_benchmark"}
    assert all(first.outs & s.deps for s in begin if s is not first)


def test_scoring_needs_no_network_code():
    assert not {
        name for name in reruns("minima_core/evaluation/metrics.py") if not name.startswith(("score@", "summarise"))
    }
    assert not {name for name in reruns("minima_core/matchers/lightglue/loss.py") if name.startswith("score@")}


def test_the_page_tells_of_the_code_that_it_depends_on():
    from tasks.summarise import CODE

    named = {f"minima_core/{path}" for paths in CODE.values() for path in paths}
    assert named <= stages()["summarise"].deps
