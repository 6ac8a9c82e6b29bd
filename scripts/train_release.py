"""Train `minima-lightglue`, the model that the package ships, from nothing but what anybody may use.

    python scripts/train_release.py [release] [--seed 0]

Pictures come from the data sets `commons` and `synthetic`, through the same stages as any other training; what differs
from params.yaml stands in CHANGES. It learns twice: the modalities from single pictures, FIRST, and then, with the
same teacher, how places look from two cameras, SECOND, which the first has cost it. The seed is the trainings': the
pictures are those of params.yaml. A run that was cut continues. Three hours on a core that knows bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from stages import OF_MIXTURE, OF_TEXTURES, make_data, merged, params_with, stage, write

CHANGES: dict[str, Any] = {
    "modalities": OF_MIXTURE,
    "dataset": {"commons": {"views": 1}},  # joint training warps them itself
    "matcher": {"lightglue": {"long_side": 1024, "max_keypoints": 2048, "filter_threshold": 0.1}},
    "validation": OF_TEXTURES,
}
FIRST: dict[str, Any] = {"learned_share": 1.0}
SECOND: dict[str, Any] = {
    "steps": 1200,
    "keypoints": [384, 1152],
    "lr_extractor": 5.0e-5,
    "rgb_share": 0.3,
    "any_share": 0.2,
    "parallax_share": 0.4,
    "learned_share": 0.7,  # where RGB pairs of other scenes lose nothing
    "validate_every": 200,
    "checkpoint_every": 100,
}


def main() -> None:
    """Make the data sets, adopt the parent, train, and say where the model lies."""
    arguments = _parser().parse_args()
    out: Path = arguments.out.resolve()
    params = params_with(CHANGES)
    for name in ("commons", "synthetic"):
        make_data(out / "data" / name, merged(params, {"dataset": {"name": name}}), OF_MIXTURE)
    run = out / f"seed-{arguments.seed}"
    params = merged(params, {"seed": arguments.seed})
    write(run, merged(params, {"joint_training": FIRST}))
    world = out / "data" / "synthetic"
    stage(
        run, "pretrain", matcher="lightglue", raw=str(world / "raw"), index=str(world / "index"),
        certificate=str(world / "certificate"), out="parent",
    )  # fmt: skip
    data = str(out / "data")
    stage(run, "finetune_joint", "-first", parent="parent", data=data, out="first")
    write(run, merged(params, {"joint_training": SECOND}))
    stage(run, "finetune_joint", parent="first", teacher="parent", data=data, out="unmoved")
    stage(run, "train_refiner", parent="unmoved", data=data, out="minima-lightglue")
    sys.stdout.write(f"{run / 'minima-lightglue'}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("release"), help="a folder of its own for the run")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
