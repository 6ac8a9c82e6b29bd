"""A finished run made up on disk: everything that the summary reads, without a network having run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from tiny_world import MODALITIES, H, W, World, picture, render

from minima_core.config import digest
from minima_core.data.index import index_digest
from minima_core.evaluation.benchmarks.base import PairList, PairTruth, as_matrix
from minima_core.evaluation.predictions import Origin, collect
from minima_core.evaluation.protocol import get_protocol
from minima_core.evaluation.scoring import score_predictions
from minima_core.io.images import write_image
from minima_core.manifest import BenchmarkManifest, Certificate, ModelCard, file_sha256, folder_digest
from minima_core.types import Matches
from tasks.reports import ScoreReport

BENCHMARK, ABSENT, MATCHER, PROTOCOL = "six", "real", "lightglue", "minima-v1"
H_0TO1 = np.array([[0.96, 0.08, 9.0], [-0.07, 0.98, 4.0], [1e-4, 0, 1]])


def make(root: Path) -> None:
    """Write a run below ``root``, laid out as stages lay it out."""
    world = World(root / "data")
    world.make()
    _certificate(root, world)
    truths = _benchmark(root)
    for model, noise in (("pretrained", 9.0), ("finetuned", 1.0)):
        _score(root, model, truths, noise)
        _card(root, model)
    _training(root)
    values = {"seed": 0, "modalities": MODALITIES, "matchers": [MATCHER], "benchmarks": [BENCHMARK, ABSENT]}
    (root / "params.yaml").write_text(yaml.safe_dump(values))


def _certificate(root: Path, world: World) -> None:
    medians = {"std": 31.0, "entropy": 6.5, "saturated": 0.0}
    Certificate(
        index_digest=index_digest(world.index),
        modalities=MODALITIES,
        unavailable={"thermal <b>": "no sensor"},
        digests={name: folder_digest(world.modalities / name) for name in MODALITIES},
        expectations=51,
        images=12,
        pairs=9,
        statistics={"rgb": medians, **dict.fromkeys(MODALITIES, medians | {"agreement": 12.0, "offset": 0.0})},
    ).save(root / "data/certificate")
    row = {"table": "images", "rule": "sizes fit", "passed": True, "checked": 12, "broken": 0, "observed": [1, 2.5]}
    (root / "data/certificate/findings.json").write_text(json.dumps([row]))


def _benchmark(root: Path) -> list[PairTruth]:
    folder = root / "data/benchmarks" / BENCHMARK
    truths = []
    for c, category in enumerate(["rgb", *MODALITIES]):
        for k in range(3):
            image, depth = picture(900 + k)
            other = image if category == "rgb" else render(category, image, depth)
            names = f"{category}-{k}-0.png", f"{category}-{k}-1.png"
            write_image(folder / names[0], image)
            write_image(folder / names[1], cv2.warpPerspective(other, H_0TO1, (W, H)))
            truths.append(
                PairTruth(
                    name=f"{c}-{k}", category=category, image0=names[0], image1=names[1],
                    sha0=file_sha256(folder / names[0]), sha1=file_sha256(folder / names[1]),
                    size0=(W, H), size1=(W, H), H_0to1=as_matrix(H_0TO1),
                )
            )  # fmt: skip
    pairs = PairList(task="homography", protocol="", headline=MODALITIES, groups={}, pairs=truths)
    pairs.save(folder)
    pairs.manifest(BENCHMARK, "CC0-1.0").save(folder)
    empty = PairList(task="homography", protocol="", headline=[], groups={}, pairs=[])
    empty.save(root / "data/benchmarks" / ABSENT)
    skipped = "no data at ../mmim; bring it there"
    BenchmarkManifest(benchmark=ABSENT, licence="unknown", pairs=0, skipped=skipped).save(
        root / "data/benchmarks" / ABSENT
    )
    return truths


def _score(root: Path, model: str, truths: list[PairTruth], noise: float) -> None:
    protocol = get_protocol(PROTOCOL)
    for benchmark, own in ((BENCHMARK, truths), (ABSENT, [])):
        folder = root / "data/benchmarks" / benchmark
        manifest = BenchmarkManifest.load(folder)
        where = root / "predictions" / MATCHER / model / benchmark
        origin = Origin(
            benchmark, manifest.data_digest, model, PROTOCOL, digest(protocol.matching), "CC0-1.0", manifest.skipped
        )
        collect(origin, [t.name for t in own], [_guess(k, noise) for k in range(len(own))]).save(where)
        scores = score_predictions(where, folder, protocol)
        out = root / "reports/scores" / f"{MATCHER}-{model}-{benchmark}"
        scores.save(out)
        report = ScoreReport(
            benchmark=benchmark, protocol=PROTOCOL, protocol_hash=scores.protocol_hash,
            data_digest=scores.data_digest, matcher=MATCHER, model=model,
            seed=0, metrics=scores.metrics, categories=scores.categories, groups=scores.groups, pairs=len(own),
            failures=scores.failures, intervals=scores.intervals, skipped=manifest.skipped,
        )  # fmt: skip
        (out / "report.json").write_text(report.model_dump_json())


def _guess(k: int, noise: float) -> Matches:
    rng = np.random.default_rng(k)
    points = rng.uniform((10, 10), (W - 10, H - 10), (60, 2))
    warped = np.concatenate([points, np.ones((60, 1))], 1) @ H_0TO1.T
    warped = warped[:, :2] / warped[:, 2:] + rng.normal(0, noise, (60, 2))
    return Matches(torch.from_numpy(points).float(), torch.from_numpy(warped).float(), torch.full((60,), 0.9))


def _card(root: Path, model: str) -> None:
    child = model == "finetuned"
    parent = None if not child else ModelCard.load(root / "models/pretrained" / MATCHER).digest()
    ModelCard(
        matcher=MATCHER, stage=model, params={"extractor": "xfeat"}, training={"steps": 300} if child else {}, seed=0,
        source={} if child else {"xfeat.pt": "a" * 64}, parent=parent, weights_sha256="b" * 64, licence="Apache-2.0",
        commercial=True,
    ).save(root / "models" / model / MATCHER)  # fmt: skip


def _training(root: Path) -> None:
    steps = range(1, 301)
    rng = np.random.default_rng(0)
    curves = {
        "train/loss": [(s, 3 * np.exp(-s / 120) + 1 + float(rng.normal(0, 0.2))) for s in steps],
        "train/lr": [(s, 1e-4) for s in steps],
        "val/loss": [(s, 3 * np.exp(-s / 120) + 1.1) for s in (0, 100, 200, 300)],
        "val/recall": [(0, 0.2), (100, 0.5), (200, 0.6), (300, 0.64)],
    }
    (root / "models/finetuned" / MATCHER / "curves.json").write_text(json.dumps(curves))
