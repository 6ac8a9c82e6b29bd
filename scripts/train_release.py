"""Train `minima-lightglue`, the model that the package ships, from nothing but what anybody may use.

    python scripts/train_release.py [release]

Pictures come from the data sets `commons` and `synthetic`, through the same stages as any other training; what differs
from params.yaml stands in CHANGES. A run that was cut continues. Two hours on a core that knows bfloat16.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
MODALITIES = ["infrared", "depth", "event", "normal", "paint", "sketch", "sar", "medical"]
CHANGES: dict[str, Any] = {
    "modalities": MODALITIES,
    "dataset": {"commons": {"views": 1}},  # joint training warps them itself
    "matcher": {"lightglue": {"long_side": 1024, "max_keypoints": 2048, "filter_threshold": 0.1}},
    # textures of games show less than photographs do
    "validation": {
        "failed": 0.06,
        "bands": {
            "rgb": {"entropy": [2, 8]},
            "event": {"entropy": [0.001, 3], "saturated": [0.1, 1]},
            "paint": {"agreement": 4.4},
            "sketch": {"std": [0.5, 125], "entropy": [0.01, 8]},
        },
    },
}


def main(out: Path) -> None:
    """Make the data sets, adopt the parent, train, and say where the model lies."""
    params = merged(yaml.safe_load((ROOT / "params.yaml").read_text()), CHANGES)
    for name in ("commons", "synthetic"):
        folder = out / "data" / name
        write(folder, merged(params, {"dataset": {"name": name}}))
        stage(folder, "download", out="raw", checked="params.yaml")
        stage(folder, "index", raw="raw", out="index")
        for modality in MODALITIES:
            stage(
                folder, "synthesise", f"-{modality}", modality=modality, raw="raw", index="index",
                out=f"modalities/{modality}",
            )  # fmt: skip
        stage(folder, "validate", raw="raw", index="index", modalities="modalities", out="certificate", docs="docs")
    write(out, params)
    first = "data/synthetic"
    stage(
        out, "pretrain", matcher="lightglue", raw=f"{first}/raw", index=f"{first}/index",
        certificate=f"{first}/certificate", out="parent",
    )  # fmt: skip
    stage(out, "finetune_joint", parent="parent", data="data", out="minima-lightglue")
    sys.stdout.write(f"{out / 'minima-lightglue'}\n")


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with those of ``changes`` in their places."""
    result = copy.deepcopy(values)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) else value
    return result


def write(folder: Path, params: dict[str, Any]) -> None:
    """Write the params.yaml that the stages run in ``folder`` read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def stage(folder: Path, name: str, suffix: str = "", **arguments: str) -> None:
    """Run a stage in a folder, unless its report says that it ran."""
    report = folder / f"reports/{name}{suffix}.json"
    if report.is_file():
        return
    options = [text for key, value in arguments.items() for text in (f"--{key}", value)]
    command = [sys.executable, "-m", f"tasks.{name}", *options, "--report", str(report.relative_to(folder))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode:
        sys.exit(f"tasks.{name} failed in {folder}; mend what it names and run this again")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "release").resolve())
