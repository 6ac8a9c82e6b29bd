"""Run the stages in folders of their own, beside the graph of dvc.yaml: what the other scripts here share."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

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
# title of a column -> the benchmark it is about, and its figure in that benchmark's scores
Columns = dict[str, tuple[str, Callable[[dict[str, Any]], float]]]
AUC_AT_10: Columns = {
    "synthetic_six, six": ("synthetic_six", lambda r: r["metrics"]["auc@10"]),
    "synthetic_six, RGB": ("synthetic_six", lambda r: r["categories"]["rgb"]["auc@10"]),
    "real RGB": ("rgb_retention", lambda r: r["metrics"]["auc@10"]),
    **{
        f"{name}, {title}": (name, lambda r, part=part, row=row: r[part][row]["auc@10px"])
        for name in ("mmim", "mmim_warped")
        for title, part, row in (
            ("medical", "groups", "Medical"),
            ("remote sensing", "groups", "RemoteSensing"),
            ("VIS-IR", "categories", "ComputerVision/VIS_IR"),
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
    """Score a model on benchmarks by ``strict-v1``, as far as their results are not in the folder."""
    for name, root in benchmarks.items():
        result = folder / f"{name}.json"
        if not result.is_file():
            every = {"model": model, "benchmark": name, "root": root, "protocol": "strict-v1", "out": result, **options}
            call(folder, "minima_core.cli", "evaluate", *(f"--{key}={value}" for key, value in every.items()))


def table(head: str, rows: dict[str, list[Path]], columns: Columns) -> str:
    """Return a Markdown table: the mean over a row's folders of scores, and the lowest and highest."""
    lines = [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, folders in rows.items():
        cells = []
        for benchmark, read in columns.values():
            found = [read(json.loads((folder / f"{benchmark}.json").read_text())) for folder in folders]
            spread = f" ({min(found):.1f}–{max(found):.1f})" if len(found) > 1 else ""
            cells.append(f"{mean(found):.1f}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
