"""The paper's ablation in miniature: what a matcher learns from RGB alone, from each modality alone, and from all.

    python scripts/ablation.py ablation --mmim ../shared/data/mmim [--seeds 0 1 2] [--steps 80] [--jobs 2]

XFeat's LightGlue, the extractor frozen, learns from the photographs of `commons` with each strategy and seed; scored on
`synthetic_six` and, where the data are at hand, on `mmim` (`strict-v1`). A run that was cut continues. Prints a
Markdown table: the mean over the seeds of the AUC at 10 degrees or pixels, and the lowest and highest.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages import OF_TEXTURES, Columns, make_data, merged, params_with, score, stage, table, write

# photographs have no depth, so neither depth images nor normals
MODALITIES = ["infrared", "event", "paint", "sketch", "sar", "medical"]
STRATEGIES: dict[str, dict[str, Any]] = {
    "rgb_only": {"strategy": "rgb_only"},
    **{f"single: {name}": {"strategy": "single", "modality": name} for name in MODALITIES},
    "random": {"strategy": "random"},
}
CHANGES: dict[str, Any] = {
    "modalities": MODALITIES,
    "dataset": {"name": "commons", "commons": {"views": 1}},  # a photograph is one pair
    "validation": OF_TEXTURES,
}
COLUMNS: Columns = {
    "synthetic_six, six": ("synthetic_six", lambda r: r["metrics"]["auc@10"]),
    "synthetic_six, RGB": ("synthetic_six", lambda r: r["categories"]["rgb"]["auc@10"]),
    "mmim, medical": ("mmim", lambda r: r["groups"]["Medical"]["auc@10px"]),
    "mmim, remote sensing": ("mmim", lambda r: r["groups"]["RemoteSensing"]["auc@10px"]),
    "mmim, VIS-IR": ("mmim", lambda r: r["categories"]["ComputerVision/VIS_IR"]["auc@10px"]),
}


def main(arguments: argparse.Namespace) -> None:
    """Make the data, train and score every run, and print the table."""
    out = arguments.out.resolve()
    train = {"steps": arguments.steps, "learned_share": 1.0, "threads": 1, "checkpoint_every": 40, "validate_every": 40}
    params = merged(params_with(CHANGES), {"training": {"finetune": {"lightglue": {"demo": train}}}})
    data = out / "data"
    make_data(data, params, MODALITIES)
    benchmarks = {"synthetic_six": out / "synthetic_six"}
    write(out, params)
    stage(out, "fetch_benchmark", benchmark="synthetic_six", out="synthetic_six", checked="params.yaml")
    if arguments.mmim:
        benchmarks["mmim"] = arguments.mmim.resolve()
    stage(out, "pretrain", matcher="lightglue", out="parent", **_inputs(data))

    def train_and_score(run: tuple[str, int]) -> None:
        strategy, seed = run
        folder = _folder(out, strategy, seed)
        pairs = {"pairs": {"modalities": STRATEGIES[strategy]}}
        changes = {"seed": seed, "training": {"finetune": {"lightglue": {"demo": pairs}}}}
        write(folder, merged(params, changes))
        (folder / ".scratch").mkdir(exist_ok=True)
        if not (folder / ".scratch/features").exists():
            (folder / ".scratch/features").symlink_to(out / "features")  # the same keypoints for every run
        stage(
            folder, "finetune", matcher="lightglue", preset="demo", parent=str(out / "parent"), out="model",
            modalities=str(data / "modalities"), **_inputs(data),
        )  # fmt: skip
        score(folder, folder / "model", benchmarks)

    (out / "features").mkdir(exist_ok=True)
    train_and_score(("random", arguments.seeds[0]))  # needs the keypoints of every image
    score(out, out / "parent", benchmarks)
    runs = [(strategy, seed) for seed in arguments.seeds for strategy in STRATEGIES]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train_and_score, runs))
    rows = {"nothing: the RGB parent": [out]} | {
        strategy: [_folder(out, strategy, seed) for seed in arguments.seeds] for strategy in STRATEGIES
    }
    columns = {title: column for title, column in COLUMNS.items() if column[0] in benchmarks}
    sys.stdout.write(table("trained on", rows, columns) + "\n")


def _inputs(data: Path) -> dict[str, str]:
    return {name: str(data / name) for name in ("raw", "index", "certificate")}


def _folder(out: Path, strategy: str, seed: int) -> Path:
    return out / "runs" / f"{strategy.replace(': ', '-')}-{seed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("ablation"))
    parser.add_argument("--mmim", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=2)
    main(parser.parse_args())
