"""What a semi-dense matcher learns from modalities: from an RGB parent on, two ways.

    python scripts/semidense.py semidense --real ../shared/data [--recipe xfeat_star] [--steps 600]
    python scripts/semidense.py on-xfeat --real ../shared/data --recipe eloftr-on-xfeat --steps 700 --parent-steps 1000
    python scripts/semidense.py from-nothing --real ../shared/data --recipe eloftr --steps 1100 --parent-steps 2200
    python scripts/semidense.py mixed --real ../shared/data --recipe eloftr-on-xfeat --steps 1600 --parent-steps 1000 \
        --dataset mixture --rgb-share 0.35

The parent of `xfeat_star` has its authors' weights. Those of the others are not to be had everywhere, so that small
networks learn on the photographs of `commons` and warps of each, RGB alone: from XFeat's weights, which find cells
already, what tells them apart by both images and where in a cell a match lies; or all from random ones. Then the
parent is trained on random modalities, and for as many steps on RGB, a core each; on the same photographs, or with
`--dataset mixture` on those and the rendered world, which has depth and normals too. All are scored by `strict-v1` on
`synthetic_six` and, where the folder `--real` has the data, on `mmim`, `mmim_warped` and `rgb_retention`. A run that
was cut continues. Prints a Markdown table of AUC at 5, 10 and 20 degrees or 3, 5 and 10 pixels.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

from minima_core.manifest import ModelCard

THRESHOLD = 0.02  # in use; so short a training leaves probabilities low, and 0.2 is what training refines from


@dataclass(frozen=True)
class Recipe:
    """How one kind of matcher is made.

    Attributes:
        matcher: its name among the plugins.
        settings: what differs from its section of params.yaml.
        side: pixels, of images in use.
        start, rate: learning rates of the parent that starts from random weights, and from the parent on.
        share: of the way from the parent's weights to the trained ones.
    """

    matcher: str
    settings: dict[str, Any]
    side: int
    start: dict[str, float]
    rate: dict[str, float]
    share: float = 1.0


SMALL = {"size": "small", "long_side": 256, "max_keypoints": 2048, "threshold": 0.2}
RECIPES = {
    "xfeat_star": Recipe(
        "xfeat_star", {"long_side": 480, "max_keypoints": 2048}, 640, start={}, rate={"all": 1.0e-4}, share=0.5
    ),
    "eloftr-on-xfeat": Recipe(
        "eloftr",
        {**SMALL, "size": "xfeat"},
        480,
        start={"backbone": 1.0e-4, "matching": 2.0e-3},
        rate={"backbone": 1.0e-4, "matching": 1.0e-3},
    ),
    "eloftr": Recipe(
        "eloftr",
        SMALL,
        256,
        start={"backbone": 2.0e-3, "matching": 2.0e-3},
        rate={"backbone": 1.0e-3, "matching": 1.0e-3},
    ),
    "loftr": Recipe("loftr", SMALL, 256, start={"all": 2.0e-3}, rate={"all": 1.0e-3}),
}
CHANGES: dict[str, Any] = {
    "modalities": OF_PHOTOGRAPHS,
    "dataset": {"name": "commons"},
    "validation": OF_TEXTURES,
}
TRAIN: dict[str, Any] = {
    "batch": 4,
    "micro_batch": 4,
    "optimiser": {"lr_batch": 4},
    "schedule": {"warmup": 50, "decay_to": 0.05},
    "pairs": {"per_scene": 150, "repeats": 1, "augment": {"shift": 0, "flip": 0.5, "rotation": 0, "scale": 1.0}},
    "validation_samples": 64,
    "validate_every": 250,
    "checkpoint_every": 50,
    "threads": 1,
}
STRATEGIES = {"random": "fine-tuned on random modalities", "rgb_only": "as long on RGB alone"}


def main(arguments: argparse.Namespace) -> None:
    """Make the data, take or train the parent, train and score every child, and print the table."""
    out, recipe = arguments.out.resolve(), RECIPES[arguments.recipe]
    matcher = recipe.matcher
    changes: dict[str, Any] = {"matcher": {matcher: recipe.settings}}
    names = ["synthetic_six"]
    if arguments.real:
        changes |= lying_in(arguments.real, REAL)
        names += REAL
    params = merged(params_with(CHANGES), changes)
    preset = merged(params["training"]["finetune"][matcher]["demo"], TRAIN)
    make_data(out / "data", params, OF_PHOTOGRAPHS)
    learned = out / "data"
    if arguments.dataset == "mixture":
        learned = out / "mixture"
        mixed = merged(params, {"modalities": OF_MIXTURE, "dataset": {"name": "mixture"}})
        make_data(learned, mixed, OF_MIXTURE)
    start, rate = ({"optimiser": {"lr": each}} for each in (recipe.start, recipe.rate))
    parent: dict[str, Any] = {}
    if recipe.start:
        more = {"steps": arguments.parent_steps, "threads": 2, "pairs": {"modalities": {"strategy": "rgb_only"}}}
        first = merged(merged(preset, start), more | {"learned_share": 1.0})
        parent = {"training": {"pretrain": {matcher: {"mode": "train", "start": "random", "train": first}}}}
    begin(out, merged(params, parent))
    benchmarks = fetch(out, names)
    stage(out, "pretrain", matcher=matcher, out="parent", **lying(out / "data", "raw", "index", "certificate"))

    def scored(folder: Path, model: Path) -> None:
        score(folder, in_use(model, folder / "in-use"), benchmarks, **{"long-side": recipe.side})

    def train_and_score(run: tuple[str, int]) -> None:
        strategy, seed = run
        folder = out / "runs" / f"{strategy}-{seed}"
        modalities: dict[str, Any] = {"strategy": strategy}
        if strategy == "random" and arguments.rgb_share is not None:
            modalities["rgb_share"] = arguments.rgb_share
        how = {
            "steps": arguments.steps,
            "learned_share": recipe.share,
            "pairs": {"modalities": modalities},
        }
        train = merged(merged(preset, rate), how)
        begin(folder, merged(params, {"seed": seed, "training": {"finetune": {matcher: {"demo": train}}}}))
        stage(
            folder, "finetune", matcher=matcher, preset="demo", parent=str(out / "parent"), out="model",
            **lying(learned, "raw", "index", "modalities", "certificate"),
        )  # fmt: skip
        scored(folder, folder / "model")

    runs = [(strategy, seed) for seed in arguments.seeds for strategy in arguments.strategies]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(train_and_score, run) for run in runs]
        running.append(pool.submit(scored, out, out / "parent"))
        for each in running:
            each.result()
    rows = {"RGB parent": [out]} | {
        STRATEGIES[strategy]: [out / "runs" / f"{strategy}-{seed}" for seed in arguments.seeds]
        for strategy in arguments.strategies
    }
    sys.stdout.write(table("AUC", rows, benchmarks) + "\n")


def lying(folder: Path, *names: str) -> dict[str, str]:
    """Return where these parts of a data set are, as arguments of a stage."""
    return {name: str(folder / name) for name in names}


def in_use(model: Path, copy: Path) -> Path:
    """Return a copy of a model that takes matches from ``THRESHOLD`` on, or the model where it has no such bound."""
    card = ModelCard.load(model)
    if "threshold" not in card.params:
        return model
    if not copy.is_dir():
        shutil.copytree(model, copy)
        card.model_copy(update={"params": {**card.params, "threshold": THRESHOLD}}).save(copy)
    return copy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("semidense"))
    parser.add_argument("--recipe", choices=list(RECIPES), default="xfeat_star")
    parser.add_argument("--real", type=Path)
    parser.add_argument(
        "--dataset", choices=["commons", "mixture"], default="commons", help="of what follows the parent"
    )
    parser.add_argument("--steps", type=int, default=600, help="of each training from the parent on")
    parser.add_argument("--parent-steps", type=int, default=2200, help="of a parent that starts from random weights")
    parser.add_argument("--rgb-share", type=float, help="of RGB pairs among random ones; as many as of every modality")
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    main(parser.parse_args())
