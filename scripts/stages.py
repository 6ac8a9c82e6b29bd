"""Run the stages in folders of their own, beside the graph of dvc.yaml: what the other scripts here share."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from minima_core.evaluation.bootstrap import intervals
from minima_core.evaluation.metrics import Metrics, aggregate, macro
from minima_core.evaluation.protocol import PROTOCOLS
from minima_core.evaluation.scoring import Scores

ROOT = Path(__file__).resolve().parent.parent
# modalities; photographs have no depth, so neither depth images nor normals
OF_PHOTOGRAPHS = ["infrared", "event", "paint", "sketch", "sar", "medical"]
OF_MIXTURE = ["infrared", "depth", "event", "normal", "paint", "sketch", "sar", "medical"]
# what params.yaml asks of photographs, widened: textures of games show less
OF_TEXTURES: dict[str, Any] = {
    "failed": 0.06,
    "bands": {
        "rgb": {"entropy": [2, 8]},
        "event": {"entropy": [0.001, 3], "saturated": [0.1, 1]},
        "paint": {"agreement": 4.4},
        "sketch": {"std": [0.5, 125], "entropy": [0.01, 8]},
    },
}
REAL = {"mmim": "mmim", "mmim_warped": "mmim", "rgb_retention": "rgbd"}  # benchmarks, and what folder their data are in
PROTOCOL = "strict-v1"
POSES, CORNERS = PROTOCOLS[PROTOCOL].pose_thresholds, PROTOCOLS[PROTOCOL].homography_thresholds
AT = 10.0  # degrees, or pixels: of the threshold that intervals are given for


class Column(NamedTuple):
    """Figures of a table: of the categories of a benchmark that begin so, or, where none is named, its headline."""

    benchmark: str
    thresholds: tuple[float, ...]
    categories: str = ""

    def errors(self, folder: Path) -> dict[str, np.ndarray]:
        """Return the errors of the pairs of each category in a run's folder, infinite where there is no model."""
        scores = Scores.model_validate_json((folder / f"{self.benchmark}.json").read_text())
        names = [name for name in scores.categories if name.startswith(self.categories)]
        return {
            name: np.array([math.inf if p.error is None else p.error for p in scores.pairs if p.category == name])
            for name in (names if self.categories else scores.headline)
        }


COLUMNS = {
    "synthetic_six, six": Column("synthetic_six", POSES),
    "synthetic_six, RGB": Column("synthetic_six", POSES, "rgb"),
    "real RGB": Column("rgb_retention", POSES),
    **{
        f"{name}, {title}": Column(name, CORNERS, categories)
        for name in ("mmim", "mmim_warped")
        for title, categories in (
            ("medical", "Medical/"),
            ("remote sensing", "RemoteSensing/"),
            ("VIS-IR", "ComputerVision/VIS_IR"),
            ("mean of the categories", ""),
        )
    },
}


def params_with(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the project's params.yaml with ``changes`` in their places."""
    return merged(yaml.safe_load((ROOT / "params.yaml").read_text()), changes)


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with those of ``changes`` in their places."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result[key], dict)  # settings may be null, where none are used
        result[key] = merged(result[key], value) if both else value
    return result


def write(folder: Path, params: dict[str, Any]) -> None:
    """Write the params.yaml that the stages run in ``folder`` read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def begin(folder: Path, params: dict[str, Any]) -> None:
    """Write params.yaml for a run that may have begun before; end with a line if the folder holds one of others."""
    path = folder / "params.yaml"
    if path.is_file() and yaml.safe_load(path.read_text()) != params:
        sys.exit(f"{path} is of a run with other settings; name another folder")
    write(folder, params)


def make_data(folder: Path, params: dict[str, Any], modalities: list[str]) -> None:
    """Make the data set that ``params`` names, its modalities and its certificate, as far as they are not there."""
    begin(folder, params)
    stage(folder, "download", out="raw", checked="params.yaml")
    stage(folder, "index", raw="raw", out="index")
    for modality in modalities:
        stage(
            folder, "synthesise", f"-{modality}", modality=modality, raw="raw", index="index",
            out=f"modalities/{modality}",
        )  # fmt: skip
    stage(folder, "validate", raw="raw", index="index", modalities="modalities", out="certificate", docs="docs")


def stage(folder: Path, name: str, suffix: str = "", **arguments: str) -> None:
    """Run a stage in a folder, unless its report says that it ran."""
    report = f"reports/{name}{suffix}.json"
    if not (folder / report).is_file():
        options = [text for key, value in arguments.items() for text in (f"--{key}", value)]
        call(folder, f"tasks.{name}", *options, "--report", report)


def call(folder: Path, module: str, *arguments: str) -> None:
    """Run a module of the project in a folder; end with a line that names both if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, env=environment, check=False).returncode:
        sys.exit(f"{module} failed in {folder}; mend what it names and run this again")


def lying_in(real: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the settings by which benchmarks of real data find them in the folder ``real``."""
    return {"benchmark": {name: {"root": str(real.resolve() / REAL[name])} for name in names}}


def fetch(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Prepare benchmarks in a folder whose params.yaml is written, and return where each is."""
    for name in names:
        stage(folder, "fetch_benchmark", f"-{name}", benchmark=name, out=name, checked="params.yaml")
    return {name: folder / name for name in names}


def score(folder: Path, model: Path, benchmarks: dict[str, Path], **options: object) -> None:
    """Score a model on benchmarks by ``PROTOCOL``, as far as their results are not in the folder."""
    for name, root in benchmarks.items():
        result = folder / f"{name}.json"
        if not result.is_file():
            every = {"model": model, "benchmark": name, "root": root, "protocol": PROTOCOL, "out": result, **options}
            call(folder, "minima_core.cli", "evaluate", *(f"--{key}={value}" for key, value in every.items()))


def table(head: str, rows: dict[str, list[Path]], benchmarks: Collection[str]) -> str:
    """Return a Markdown table of AUC, each the mean over a row's folders, which are seeds.

    In parentheses are the middle 95 % of that mean over draws of pairs, and the lowest and highest of the seeds.
    """
    columns = {title: column for title, column in COLUMNS.items() if column.benchmark in benchmarks}
    lines = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(_cell(column, folders) for column in columns.values())} |"
        for name, folders in rows.items()
    ]
    return "\n".join(lines)


def _cell(column: Column, folders: list[Path]) -> str:
    """Return the figures of a column over some seeds."""
    of_seeds = [column.errors(folder) for folder in folders]

    def one(errors: Mapping[str, np.ndarray]) -> Metrics:
        return aggregate(errors, errors, column.thresholds, "", "macro")

    def all_seeds(errors: Mapping[str, np.ndarray]) -> Metrics:  # of each category: pairs by seeds
        return macro(one({name: own[:, k] for name, own in errors.items()}) for k in range(len(folders)))

    together = {name: np.stack([errors[name] for errors in of_seeds], -1) for name in of_seeds[0]}
    at = f"auc@{AT:g}"
    low, high = intervals(together, all_seeds, name=column.benchmark)[at]
    seeds = [one(errors)[at] for errors in of_seeds]
    spread = f"; {min(seeds):.1f}–{max(seeds):.1f}" if len(seeds) > 1 else ""
    return f"{' / '.join(f'{value:.1f}' for value in all_seeds(together).values())} ({low:.1f}–{high:.1f}{spread})"
