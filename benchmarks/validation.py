"""Seconds and peak memory of validating a generated index: `python -m benchmarks.validation [--pairs 1000000]`.

Each size is measured in a process of its own, building the tables and judging them apart. The images are small, so that
what is measured is the rows; `--images` a scene cost reading and hashing a file each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Measure each size that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--images", type=int, default=20, help="a scene")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        measure(args.inside, args.workers)
        return
    for pairs in args.pairs:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), pairs, args.scenes, args.images)
            command = [
                sys.executable,
                "-m",
                "benchmarks.validation",
                "--inside",
                folder,
                "--workers",
                str(args.workers),
            ]
            subprocess.run(command, check=True)


def generate(root: Path, pairs: int, scenes: int, images: int) -> None:
    """Write an index of that many pairs in all, and its images."""
    from minima_core.data.index import Scene, write_scene
    from minima_core.io.images import write_image
    from minima_core.manifest import SceneEntry, SceneManifest

    random = np.random.default_rng(0)
    entries = []
    for s in range(scenes):
        name, split = f"scene-{s:04d}", "val" if s % 10 == 9 else "train"
        paths = [f"{name}/dense0/imgs/{i:04d}.png" for i in range(images)]
        for path in paths:
            write_image(root / "raw" / path, random.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        m = pairs // scenes
        K = np.tile(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), (images, 1, 1))
        poses = np.tile(np.eye(4), (images, 1, 1))
        poses[:, 0, 3] = np.arange(images)
        i = random.integers(0, images, m)
        indices = np.stack([i, (i + random.integers(1, images, m)) % images], 1)
        size, none = np.tile([64, 48], (images, 1)), [""] * images
        scene = Scene(name, split, paths, none, none, size, K, poses, indices, random.uniform(0.1, 0.9, m))
        write_scene(root / "index", scene)
        entries.append(SceneEntry(name=name, split=split, images=images, pairs=m, digest=""))
    manifest = SceneManifest(dataset="generated", licence="CC0-1.0", relation="depth", raw="raw", scenes=entries)
    manifest.save(root / "index")


def measure(root: Path, workers: int) -> None:
    """Print what one size takes."""
    from minima_core.checks.rules import Params, rules
    from minima_core.checks.tables import Sampling, build_tables
    from minima_core.config import load_params
    from tasks.expectations import judge

    values = load_params(Path(__file__).resolve().parents[1] / "params.yaml")["validation"]
    values["bands"]["rgb"] = {"std": [0, 128], "entropy": [0, 8], "saturated": [0, 1]}
    params = Params(**values)
    began = time.monotonic()
    sampling = Sampling(images=2, pairs=0, held_out=params.held_out)
    places = (root / "raw", root / "index", root / "modalities", root / "tables.db")
    tables = build_tables(*places, names=[], sampling=sampling, workers=workers)
    built = time.monotonic()
    findings = judge(tables, rules(params, []))
    judged = time.monotonic()
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    broken = [finding.rule.text for finding in findings if not finding.passed]
    print(
        f"{tables.count('pairs')} pairs, {tables.count('images')} images: {built - began:.1f} s for the tables, "
        f"{judged - built:.1f} s for {len(findings)} rules, peak {peak:.0f} MiB, broken: {broken or 'none'}"
    )


if __name__ == "__main__":
    main()
