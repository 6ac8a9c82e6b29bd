"""What a semi-dense matcher learns from modalities: from random weights to RGB, and from there on two ways.

    python scripts/semidense.py semidense --real ../shared/data [--matcher eloftr] [--steps 2200 1100]

The small network is trained on the photographs of `commons` and warps of each, RGB alone: the parent. Then on random
modalities, and for as many steps on RGB again, a core each. All three are scored at the size they were trained at
(`strict-v1` with `--long-side 256`) on `synthetic_six` and, where the folder `--real` has the data, on `mmim_warped`
and `rgb_retention`. A run that was cut continues. Prints a Markdown table of AUC at 10 degrees or pixels.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages import OF_TEXTURES, Columns, begin, fetch, lying_in, make_data, merged, params_with, score, stage, table

from minima_core.manifest import ModelCard

# photographs have no depth, so neither depth images nor normals
MODALITIES = ["infrared", "event", "paint", "sketch", "sar", "medical"]
SIDE = 256  # pixels, of images in training and in use
THRESHOLD = 0.02  # in use; so short a training leaves probabilities low, and 0.2 is what training refines from
CHANGES: dict[str, Any] = {
    "modalities": MODALITIES,
    "dataset": {"name": "commons"},
    "validation": OF_TEXTURES,
}
TRAIN: dict[str, Any] = {
    "batch": 4,
    "micro_batch": 4,
    "optimiser": {"lr": {"all": 2.0e-3}, "lr_batch": 4},
    "schedule": {"warmup": 50, "decay_to": 0.05},
    "pairs": {"per_scene": 150, "repeats": 1, "augment": {"shift": 0, "flip": 0.5, "rotation": 0, "scale": 1.0}},
    "validation_samples": 64,
    "validate_every": 250,
    "checkpoint_every": 250,
}
COLUMNS: Columns = {
    "synthetic_six, RGB": ("synthetic_six", lambda r: r["categories"]["rgb"]["auc@10"]),
    "synthetic_six, six": ("synthetic_six", lambda r: r["metrics"]["auc@10"]),
    "real RGB": ("rgb_retention", lambda r: r["metrics"]["auc@10"]),
    "mmim_warped, medical": ("mmim_warped", lambda r: r["groups"]["Medical"]["auc@10px"]),
    "mmim_warped, remote sensing": ("mmim_warped", lambda r: r["groups"]["RemoteSensing"]["auc@10px"]),
    "mmim_warped, VIS-IR": ("mmim_warped", lambda r: r["categories"]["ComputerVision/VIS_IR"]["auc@10px"]),
}
STRATEGIES = {"random": "fine-tuned on random modalities", "rgb_only": "as long on RGB alone"}


def main(arguments: argparse.Namespace) -> None:
    """Make the data, train the parent and both children, score all three and print the table."""
    out, matcher = arguments.out.resolve(), arguments.matcher
    shape = {"size": "small", "long_side": SIDE, "max_keypoints": 2048, "threshold": 0.2}
    changes: dict[str, Any] = {"seed": arguments.seed, "matcher": {matcher: shape}}
    names = ["synthetic_six"]
    if arguments.real:
        real = ["mmim_warped", "rgb_retention"]
        changes |= lying_in(arguments.real, real)
        names += real
    params = merged(params_with(CHANGES), changes)
    preset = merged(params["training"]["finetune"][matcher]["demo"], TRAIN)
    make_data(out / "data", params, MODALITIES)
    steps, more = arguments.steps
    first = merged(preset, {"steps": steps, "threads": 2, "pairs": {"modalities": {"strategy": "rgb_only"}}})
    parent = {"training": {"pretrain": {matcher: {"mode": "train", "start": "random", "train": first}}}}
    begin(out, merged(params, parent))
    inputs = {name: str(out / "data" / name) for name in ("raw", "index", "certificate")}
    benchmarks = fetch(out, names)
    stage(out, "pretrain", matcher=matcher, out="parent", **inputs)

    size = {"long-side": SIDE}

    def train_and_score(strategy: str) -> None:
        folder = out / strategy
        rate = {"optimiser": {"lr": {"all": 1.0e-3}}}
        train = merged(preset, {"steps": more, "threads": 1, "pairs": {"modalities": {"strategy": strategy}}} | rate)
        begin(folder, merged(params, {"training": {"finetune": {matcher: {"demo": train}}}}))
        stage(
            folder, "finetune", matcher=matcher, preset="demo", parent=str(out / "parent"), out="model",
            modalities=str(out / "data/modalities"), **inputs,
        )  # fmt: skip
        score(folder, in_use(folder / "model", folder / "in-use"), benchmarks, **size)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(train_and_score, strategy) for strategy in STRATEGIES]
        running.append(pool.submit(score, out, in_use(out / "parent", out / "in-use"), benchmarks, **size))
        for each in running:
            each.result()
    rows = {"RGB parent": [out]} | {title: [out / strategy] for strategy, title in STRATEGIES.items()}
    columns = {title: column for title, column in COLUMNS.items() if column[0] in benchmarks}
    sys.stdout.write(table("AUC@10", rows, columns) + "\n")


def in_use(model: Path, copy: Path) -> Path:
    """Return a copy of a model that takes matches from ``THRESHOLD`` on."""
    if not copy.is_dir():
        shutil.copytree(model, copy)
        card = ModelCard.load(copy)
        card.model_copy(update={"params": {**card.params, "threshold": THRESHOLD}}).save(copy)
    return copy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("semidense"))
    parser.add_argument("--matcher", choices=["loftr", "eloftr"], default="eloftr")
    parser.add_argument("--real", type=Path)
    parser.add_argument("--steps", type=int, nargs=2, default=[2200, 1100], metavar=("PARENT", "CHILD"))
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
