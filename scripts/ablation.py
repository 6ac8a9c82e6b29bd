"""The paper's ablation in miniature: what a matcher learns from RGB alone, from each modality alone, and from all.

    python scripts/ablation.py ablation --real ../shared/data [--seeds 0 1 2] [--steps 80] [--jobs 2]
    python scripts/ablation.py world --real ../shared/data --dataset synthetic
    python scripts/ablation.py superpoint --real ../shared/data --extractor superpoint --strategies random

LightGlue on a frozen extractor learns with each strategy and seed from the photographs of `commons`, or, with
`--dataset synthetic`, from the rendered world, which has depth and normals too; scored on `synthetic_six` and, where
the folder `--real` has the data, on `mmim`, `mmim_warped` and `rgb_retention` (`strict-v1`). A run that was cut
continues. Prints a Markdown table of AUC at 5, 10 and 20 degrees or 3, 5 and 10 pixels, the mean over the seeds; in
parentheses, at 10, the middle 95 % of it over draws of pairs, and the lowest and highest seed.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages import (
    OF_MIXTURE,
    OF_PHOTOGRAPHS,
    OF_TEXTURES,
    REAL,
    begin,
    fetch,
    lying_in,
    make_data,
    merged,
    params_with,
    score,
    stage,
    table,
)

STRATEGIES: dict[str, dict[str, Any]] = {
    "rgb_only": {"strategy": "rgb_only"},
    **{f"single: {name}": {"strategy": "single", "modality": name} for name in OF_MIXTURE},
    "random": {"strategy": "random"},
}
BENCHMARKS = ["synthetic_six", *REAL]
CHANGES: dict[str, Any] = {
    "dataset": {"commons": {"views": 1}},  # a photograph is one pair
    "validation": OF_TEXTURES,
}


def main(arguments: argparse.Namespace) -> None:
    """Make the data, train and score every run, and print the table."""
    out = arguments.out.resolve()
    modalities = arguments.modalities or (OF_PHOTOGRAPHS if arguments.dataset == "commons" else OF_MIXTURE)
    absent = set(OF_MIXTURE) - set(modalities)
    train = {
        "steps": arguments.steps,
        "max_keypoints": arguments.keypoints,
        "learned_share": 1.0,
        "threads": 1,
        "checkpoint_every": 40,
        "validate_every": 40,
    }
    changes: dict[str, Any] = {
        "modalities": modalities,
        "dataset": {"name": arguments.dataset},
        "licence_policy": "any" if arguments.extractor == "superpoint" else "permissive",
        "matcher": {"lightglue": {"extractor": arguments.extractor}},
        "training": {"finetune": {"lightglue": {"demo": train}}},
    }
    names = [name for name in arguments.benchmarks if name not in REAL or arguments.real]
    if arguments.real:
        changes |= lying_in(arguments.real, REAL)
    params = merged(params_with(CHANGES), changes)
    data = out / "data"
    make_data(data, params, modalities)
    begin(out, params)
    benchmarks = fetch(out, names)
    stage(out, "pretrain", matcher="lightglue", out="parent", **_inputs(data))

    def train_and_score(run: tuple[str, int]) -> None:
        strategy, seed = run
        folder = _folder(out, strategy, seed)
        pairs = {"pairs": {"modalities": STRATEGIES[strategy]}}
        changes = {"seed": seed, "training": {"finetune": {"lightglue": {"demo": pairs}}}}
        begin(folder, merged(params, changes))
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
    chosen = arguments.strategies or [s for s, how in STRATEGIES.items() if how.get("modality") not in absent]
    runs = [(strategy, seed) for seed in arguments.seeds for strategy in chosen]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(train_and_score, runs))
    rows = {"nothing: the RGB parent": [out]} | {
        strategy: [_folder(out, strategy, seed) for seed in arguments.seeds] for strategy in chosen
    }
    sys.stdout.write(table("trained on", rows, benchmarks) + "\n")


def _inputs(data: Path) -> dict[str, str]:
    return {name: str(data / name) for name in ("raw", "index", "certificate")}


def _folder(out: Path, strategy: str, seed: int) -> Path:
    return out / "runs" / f"{strategy.replace(': ', '-')}-{seed}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("ablation"))
    parser.add_argument("--real", type=Path)
    parser.add_argument("--extractor", choices=["xfeat", "aliked", "disk", "superpoint"], default="xfeat")
    parser.add_argument("--dataset", choices=["commons", "synthetic"], default="commons")
    parser.add_argument("--modalities", nargs="+", choices=OF_MIXTURE, help="by default all that the data set allows")
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--keypoints", type=int, default=384, help="of an image in training")
    parser.add_argument("--benchmarks", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--jobs", type=int, default=2)
    main(parser.parse_args())
