"""One modality of a whole index: parts made side by side, kept through a crash, merged into one shard a scene."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minima_core import licences
from minima_core.config import digest
from minima_core.data.index import index_digest, read_scene
from minima_core.data.shards import Shard, write_shard
from minima_core.errors import DataError, Unavailable
from minima_core.io.atomic import whole_folder
from minima_core.io.images import encode_jpeg, encode_png
from minima_core.manifest import ModalityManifest, SceneManifest
from minima_core.parallel import map_jobs
from minima_core.provenance import code_digest
from minima_core.synthesis.base import MODALITIES, Engine, Rendition, engine_at_work
from minima_core.synthesis.sources import Item, items_of

PART = 8  # images; what a killed run loses at most per worker
# what decides an image beside the engine's own package
CODE = (
    *("synthesis/_filters.py", "synthesis/base.py", "synthesis/runner.py", "synthesis/sources.py"),
    *("data/index.py", "data/materials.py", "data/shards.py", "io", "random.py"),
)


@dataclass(frozen=True)
class _Job:
    """One part of a scene: what to make and where to put it."""

    modality: str
    settings: str  # JSON, so that a worker can keep its engine from job to job
    seed: int
    items: tuple[Item, ...]
    part: Path


def synthesise_index(
    index: Path,
    raw: Path,
    out: Path,
    *,
    modality: str,
    settings: dict[str, Any],
    seed: int,
    workers: int,
    scratch: Path,
) -> ModalityManifest:
    """Make ``modality`` of every image of an index: ``out/<scene>.h5`` and ``out/manifest.json``.

    Unfinished work lies under ``scratch`` in a folder of its own for every (modality, settings, seed, index, engine
    code); a rerun continues there, and what it leaves is bit for bit what an undisturbed run leaves.

    Args:
        index: folder of the pair index.
        raw: folder that the image paths of the index start from.
        out: folder to make; replaced when it exists, and only when everything is ready.
        modality: name of the modality.
        settings: ``synthesis.<modality>`` of params.yaml.
        seed: the project's seed.
        workers: processes to use; the result does not depend on it.
        scratch: folder for unfinished work, on the file system of ``out``.

    Raises:
        ConfigError: for an unknown modality, engine or setting.
        DataError: naming an image, depth or index file that cannot be used, or a full disk.
    """
    engine = MODALITIES.create(modality, settings)
    scenes = SceneManifest.load(index)
    source = index_digest(index)
    params = engine.params.model_dump(mode="json")
    work = scratch / digest([modality, params, seed, source, code_digest(*CODE, f"synthesis/{modality}")])[:16]
    made = {entry.name: items_of(read_scene(index, entry.name), raw) for entry in scenes.scenes}
    _make_parts(work / "parts", made, modality=modality, settings=settings, seed=seed, workers=workers)

    with whole_folder(out, work / "out") as folder:
        counts: dict[str, int] = {}
        failed: dict[str, str] = {}
        for name, items in made.items():
            counts[name] = _merge(folder / f"{name}.h5", _part_paths(work / "parts", name, items), failed)
        none = not any(counts.values())
        manifest = ModalityManifest(
            modality=modality,
            engine=str(settings["engine"]),
            params=params,
            seed=seed,
            licence=licences.join([engine.licence, scenes.licence]),
            commercial=engine.commercial,
            encoding=engine.encoding,
            source_digest=source,
            status="unavailable" if none else "complete",
            reason=next(iter(failed.values()), "the index holds no image") if none else "",
            scenes={} if none else counts,
            failed={} if none else failed,
        )
        manifest.save(folder)
    shutil.rmtree(work)
    return manifest


def encode(image: Rendition, engine: Engine) -> bytes:
    """Return a rendition's bytes in the engine's encoding."""
    return encode_png(image.image) if engine.encoding == "png" else encode_jpeg(image.image, 95)


def _part_paths(parts: Path, scene: str, items: list[Item]) -> list[Path]:
    return [parts / scene / f"{start:06d}.h5" for start in range(0, len(items), PART)]


def _make_parts(
    parts: Path, made: dict[str, list[Item]], *, modality: str, settings: dict[str, Any], seed: int, workers: int
) -> None:
    """Make the parts that are not there yet."""
    jobs = [
        _Job(modality, json.dumps(settings, sort_keys=True), seed, tuple(items[k * PART : (k + 1) * PART]), path)
        for name, items in made.items()
        for k, path in enumerate(_part_paths(parts, name, items))
    ]
    missing = [job for job in jobs if not _is_whole(job.part)]
    map_jobs(_make_part, missing, workers=workers, what=modality, done=len(jobs) - len(missing))


def _is_whole(part: Path) -> bool:
    """Say whether a part is there and can be read; one that a power cut has emptied is made again."""
    try:
        Shard(part).close()
    except DataError:
        return False
    return True


def _make_part(job: _Job) -> None:
    engine = engine_at_work(job.modality, job.settings)
    write_shard(job.part, (_make(engine, item, job) for item in job.items))


def _make(engine: Engine, item: Item, job: _Job) -> tuple[str, bytes, str]:
    """Return an image's id, its bytes and what was drawn; no bytes and the reason where it cannot be made."""
    try:
        rendition = engine.synthesise(item.read(), seed=job.seed, modality=job.modality)
    except Unavailable as error:
        return item.name, b"", str(error)
    return item.name, encode(rendition, engine), json.dumps(rendition.drawn, sort_keys=True)


def _merge(path: Path, parts: list[Path], failed: dict[str, str]) -> int:
    """Write a scene's shard from its parts, unless all failed; return how many images it holds."""
    whole = list(_read_parts(parts))
    failed.update({name: reason for name, data, reason in whole if not data})
    good = [triple for triple in whole if triple[1]]
    if good:
        write_shard(path, good)
    return len(good)


def _read_parts(parts: list[Path]) -> Iterator[tuple[str, bytes, str]]:
    for path in parts:
        with Shard(path) as shard:
            for name in shard.ids:
                yield name, shard.encoded(name), shard.drawn(name)
