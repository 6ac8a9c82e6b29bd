"""Train `minima-lightglue`, the model that the package ships, from nothing but what anybody may use.

    python scripts/train_release.py [release]

Pictures come from the data sets `commons` and `synthetic`, through the same stages as any other training; what differs
from params.yaml stands in CHANGES. It learns twice: the modalities from single pictures, FIRST, and then, with the
same teacher, how places look from two cameras, SECOND, which the first has cost it. A run that was cut continues.
Three hours on a core that knows bfloat16.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stages import OF_TEXTURES, make_data, merged, params_with, stage, write

MODALITIES = ["infrared", "depth", "event", "normal", "paint", "sketch", "sar", "medical"]
CHANGES: dict[str, Any] = {
    "modalities": MODALITIES,
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


def main(out: Path) -> None:
    """Make the data sets, adopt the parent, train, and say where the model lies."""
    params = params_with(CHANGES)
    for name in ("commons", "synthetic"):
        make_data(out / "data" / name, merged(params, {"dataset": {"name": name}}), MODALITIES)
    write(out, merged(params, {"joint_training": FIRST}))
    world = "data/synthetic"
    stage(
        out, "pretrain", matcher="lightglue", raw=f"{world}/raw", index=f"{world}/index",
        certificate=f"{world}/certificate", out="parent",
    )  # fmt: skip
    stage(out, "finetune_joint", "-first", parent="parent", data="data", out="first")
    write(out, merged(params, {"joint_training": SECOND}))
    stage(out, "finetune_joint", parent="first", teacher="parent", data="data", out="minima-lightglue")
    sys.stdout.write(f"{out / 'minima-lightglue'}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "release").resolve())
