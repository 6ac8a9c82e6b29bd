"""RGB against each of six modalities, and against RGB, in rendered towns that no training has seen.

Photographs, layouts and seeds are those of the ``benchmark`` world, and the engines are fixed here in the settings:
the benchmark changes neither with the training data nor with an engine that training uses.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from minima_core.config import digest
from minima_core.data.datasets.synthetic import Synthetic
from minima_core.data.index import Scene
from minima_core.errors import ConfigError, DataError
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task, as_matrix
from minima_core.io.atomic import atomic_path, write_text
from minima_core.io.images import write_image
from minima_core.manifest import file_sha256
from minima_core.parallel import map_jobs
from minima_core.synthesis.base import MODALITIES, Engine, engine_at_work
from minima_core.synthesis.sources import Item, items_of
from minima_core.types import RGB

ATTRIBUTION = "ATTRIBUTION.txt"


class SyntheticSix(Benchmark):
    """The same pairs of views in seven categories: ``rgb``, and six in which one of the two views is of a modality.

    The modality is on side 1 and side 0 in turn. The headline averages the six; ``rgb`` shows what a model kept.
    """

    class Params(Benchmark.Params):
        """Settings, ``benchmark.synthetic_six`` in params.yaml."""

        seed: int
        scenes: int = Field(ge=1)
        views: int = Field(ge=2)  # a scene
        size: tuple[int, int]  # width and height
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        pairs: int = Field(ge=1)  # a scene
        engines: dict[str, dict[str, Any]]  # modality -> engine and its settings

    licence: ClassVar[str] = f"images: CC-BY-2.0 (photographs named in {ATTRIBUTION}); geometry: Apache-2.0"
    task: ClassVar[Task] = "pose"
    params: Params

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:
        p = self.params
        if not p.engines or RGB in p.engines:
            raise ConfigError("benchmark.synthetic_six.engines must name modalities other than rgb")
        engines = {
            modality: MODALITIES.create(modality, settings, f"params.yaml: benchmark.synthetic_six.engines.{modality}")
            for modality, settings in p.engines.items()
        }
        world = Synthetic(
            Synthetic.Params(
                world="benchmark",
                scenes=p.scenes,
                validation_scenes=0,
                views=p.views,
                size=p.size,
                overlap=p.overlap,
                max_pairs=p.pairs,
            ),
            seed=p.seed,
        )
        raw = scratch / digest(world.params)[:16]
        world.prepare(raw, workers=workers)
        scenes = list(world.scenes(raw))
        if not any(len(scene.pairs) for scene in scenes):
            raise DataError(f"no pair of views overlaps by {p.overlap}; widen benchmark.synthetic_six.overlap")
        kept = _kept(scenes, p)
        jobs = list(_jobs(scenes, kept, raw, folder, engines, p))
        missing = [job for job in jobs if not job.target.is_file()]
        map_jobs(_make, missing, workers=workers, what="benchmark images", done=len(jobs) - len(missing))
        write_text(folder / ATTRIBUTION, "\n".join(world.attribution()) + "\n")
        digests = {job.reference: file_sha256(job.target) for job in jobs}
        pairs = [pair for modality in (RGB, *engines) for pair in _pairs(scenes, kept, modality, engines, digests)]
        shutil.rmtree(raw)
        return PairList(task=self.task, protocol="", headline=sorted(engines), groups={}, pairs=pairs)

    @staticmethod
    def place(truth: PairTruth) -> str:
        """The town."""
        return truth.image0.split("/")[2]

    @staticmethod
    def sensor(reference: str) -> str:
        """The modality."""
        return reference.split("/")[1]


@dataclass(frozen=True)
class _Job:
    """One image to make."""

    item: Item
    modality: str
    settings: str  # JSON, so that a worker can keep its engine from job to job
    seed: int
    reference: str  # relative to the benchmark's folder
    target: Path


def _reference(scene: Scene, i: int, modality: str, engines: dict[str, Engine]) -> str:
    """Return where an image lies in the benchmark's folder."""
    return f"images/{modality}/{scene.image_id(i)}{'.jpg' if modality == RGB else engines[modality].suffix}"


def _sides(k: int, modality: str) -> tuple[str, str]:
    """Return the modalities of image 0 and 1 of a scene's pair ``k``: the direction alternates."""
    return (RGB, modality) if k % 2 == 0 else (modality, RGB)


def _kept(scenes: list[Scene], params: SyntheticSix.Params) -> list[list[int]]:
    """Return by scene which of its pairs are kept: some of each direction."""
    by_direction = [
        (s, k) for first in (0, 1) for s, scene in enumerate(scenes) for k in range(first, len(scene.pairs), 2)
    ]
    kept = params.some(by_direction)
    return [sorted(k for of, k in kept if of == s) for s in range(len(scenes))]


def _jobs(
    scenes: list[Scene],
    kept: list[list[int]],
    raw: Path,
    folder: Path,
    engines: dict[str, Engine],
    params: SyntheticSix.Params,
) -> Iterator[_Job]:
    """Yield a job for each image that a pair needs, by modality, so that a worker seldom changes its engine."""
    for modality in (RGB, *engines):
        for scene, chosen in zip(scenes, kept, strict=True):
            items = items_of(scene, raw)
            views = {
                int(i)
                for k in chosen
                for i, m in zip(scene.pairs[k], _sides(k, modality), strict=True)
                if m == modality
            }
            for i in sorted(views):
                reference = _reference(scene, i, modality, engines)
                settings = json.dumps(params.engines.get(modality), sort_keys=True)
                yield _Job(items[i], modality, settings, params.seed, reference, folder / reference)


def _make(job: _Job) -> None:
    """Write one image: the RGB file as it is, or its rendition."""
    if job.modality == RGB:
        with atomic_path(job.target) as temporary:
            shutil.copyfile(job.item.image, temporary)
        return
    rendition = engine_at_work(job.modality, job.settings).synthesise(
        job.item.read(), seed=job.seed, modality=job.modality
    )
    write_image(job.target, rendition.image)


def _pairs(
    scenes: list[Scene], kept: list[list[int]], modality: str, engines: dict[str, Engine], digests: dict[str, str]
) -> Iterator[PairTruth]:
    """Yield the pairs of one category."""
    for scene, chosen in zip(scenes, kept, strict=True):
        for k in chosen:
            i, j = scene.pairs[k].tolist()
            side0, side1 = _sides(k, modality)
            image0, image1 = _reference(scene, i, side0, engines), _reference(scene, j, side1, engines)
            yield PairTruth(
                name=f"{modality}/{scene.image_id(i)}-{Path(scene.image[j]).stem}",
                category=modality,
                image0=image0,
                image1=image1,
                sha0=digests[image0],
                sha1=digests[image1],
                size0=tuple(scene.size[i].tolist()),
                size1=tuple(scene.size[j].tolist()),
                K0=as_matrix(scene.K[i]),
                K1=as_matrix(scene.K[j]),
                T_0to1=as_matrix(scene.T_w2c[j] @ np.linalg.inv(scene.T_w2c[i])),
            )
