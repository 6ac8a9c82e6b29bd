"""One modality of a whole index: parts made side by side, kept through a crash, merged into one shard a scene."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from minima_core import licences
from minima_core.config import checked, digest
from minima_core.data.index import index_digest, read_scene
from minima_core.data.shards import Entry, Shard, merge_shards, write_shard
from minima_core.errors import Unavailable
from minima_core.io.atomic import whole_folder
from minima_core.io.images import encode_jpeg, encode_palette_png, encode_png, encode_raw
from minima_core.manifest import GateCounts, ModalityManifest, SceneManifest, scene_of, seal, sealed
from minima_core.parallel import Cluster, map_jobs, torch_device
from minima_core.progress import track
from minima_core.provenance import code_digest
from minima_core.synthesis.base import MODALITIES, Engine, Rendition, Source, engine_at_work
from minima_core.synthesis.gate import Judged, judge
from minima_core.synthesis.gate import Params as GateParams
from minima_core.synthesis.sources import Item, items_of

logger = logging.getLogger(__name__)

PART = 8  # images; what a killed run loses at most per worker
STREAMS = 4  # parts that are made at a time where a GPU computes one of them
# what decides an image beside the engine's own package
CODE = (
    *("synthesis/_brought.py", "synthesis/_filters.py", "synthesis/_ranges.py", "synthesis/_tissues.py"),
    *("synthesis/base.py", "synthesis/gate.py", "synthesis/network.py"),
    *("synthesis/runner.py", "synthesis/sources.py", "checks/structure.py"),
    *("data/index.py", "data/materials.py", "data/tissues.py", "data/shards.py", "io", "random.py"),
)


@dataclass(frozen=True)
class _Job:
    """One part of a scene: what to make and where to put it."""

    modality: str
    settings: str  # JSON, so that a worker can keep its engine from job to job
    gate: GateParams
    seed: int
    device: str
    items: tuple[Item, ...]
    part: Path

    def engine(self) -> Engine:
        """Return the engine, set up once a process."""
        return engine_at_work(self.modality, self.settings, self.device)


def synthesise_index(
    index: Path,
    raw: Path,
    out: Path,
    *,
    modality: str,
    settings: dict[str, Any],
    gate: dict[str, Any],
    seed: int,
    workers: int,
    scratch: Path,
    device: str = "cpu",
    cluster: Cluster | None = None,
) -> ModalityManifest:
    """Make ``modality`` of every image of an index: ``out/<scene>.h5`` and ``out/manifest.json``.

    It is unavailable, and has no shard, where the engine can make it of no image. What the gate refuses does not make
    it so: the manifest lists those images, and validation judges how many there may be.

    Unfinished work lies under ``scratch`` in a folder of its own for every (modality, settings, seed, index, engine
    code); a rerun continues there, and what it leaves is bit for bit what an undisturbed run leaves.

    Args:
        index: folder of the pair index.
        raw: folder that the image paths of the index start from.
        out: folder to make; replaced when it exists, and only when everything is ready.
        modality: name of the modality.
        settings: ``synthesis.<modality>`` of params.yaml.
        gate: ``gate`` of params.yaml.
        seed: the project's seed.
        workers: processes to use; the result does not depend on it.
        scratch: folder for unfinished work, on the file system of ``out``.
        device: torch device of engines that are networks; with a cluster it may be ``auto``.
        cluster: Ray, instead of processes of this machine; a scene is the unit of its work.

    Raises:
        ConfigError: for an unknown modality, engine or setting.
        DataError: naming an image, depth or index file that cannot be used, or a full disk.
        WeightsError: if the engine's weights cannot be had.
    """
    engine = MODALITIES.create(modality, settings)
    bars = checked(gate, GateParams, "params.yaml: gate")
    scenes = SceneManifest.load(index)
    source, weight_files = index_digest(index), engine.sources()
    params = engine.params.model_dump(mode="json")
    key = [modality, params, weight_files, bars.model_dump(mode="json"), seed, source]
    work = scratch / digest([*key, code_digest(*CODE, f"synthesis/{modality}")])[:16]
    made = {entry.name: items_of(read_scene(index, entry.name), raw, modality) for entry in scenes.scenes}
    told = json.dumps(settings, sort_keys=True)
    jobs = [
        _Job(modality, told, bars, seed, device, tuple(items[k * PART : (k + 1) * PART]), path)
        for name, items in made.items()
        for k, path in enumerate(_part_paths(work / "parts", name, items))
    ]
    missing = [job for job in jobs if not sealed(job.part)]
    _make_parts(missing, engine, workers=workers, cluster=cluster, done=len(jobs) - len(missing))

    with whole_folder(out, work / "out") as folder:
        tally = _Tally()
        parts = {name: _part_paths(work / "parts", name, items) for name, items in made.items()}
        for name, paths in parts.items():
            tally.add(name, _facts(paths))
        empty = not any(tally.scenes.values())
        none = empty and not tally.rejected  # what the gate refused, the data set could give: for validation to judge
        if not none:
            for name, paths in parts.items():
                merge_shards(folder / f"{name}.h5", paths)
        terms = licences.combine([engine.terms(), licences.named(scenes.licence)])
        manifest = ModalityManifest(
            modality=modality,
            engine=str(settings["engine"]),
            params=params,
            seed=seed,
            licence=terms.name,
            commercial=terms.commercial,
            weights=engine.weights,
            weight_files=weight_files,
            encoding=engine.encoding,
            raw=engine.raw,
            source_digest=source,
            status="unavailable" if none else "complete",
            reason=next(iter(tally.failed.values()), "the index holds no image") if none else "",
            scenes={} if none else tally.scenes,
            failed=tally.failed,
            rejected=tally.rejected,
            gate=tally.counts(),
            holes=tally.holes,
        )
        manifest.save(folder)
    shutil.rmtree(work)
    if lacking := manifest.lacking():
        why = next(why for image, why in manifest.failed.items() if scene_of(image) in lacking)
        which = f"{len(lacking)} of {len(manifest.scenes)} scenes"
        logger.info("%s cannot be made of %s, which training draws without it: %s", modality, which, why)
    if empty and not none:
        first, why = next(iter(tally.rejected.items()))
        count = len(tally.rejected)
        logger.warning("no %s image was made; the gate refused %d, the first %s: %s", modality, count, first, why)
    return manifest


def encode(image: Rendition, engine: Engine) -> bytes:
    """Return a rendition's bytes in the engine's encoding; one channel stands for three equal ones."""
    if engine.palette:
        return encode_palette_png(image.image, engine.palette)
    red, green, blue = cv2.split(image.image)
    pixels = red if np.array_equal(red, green) and np.array_equal(green, blue) else image.image
    return encode_jpeg(pixels, 95) if engine.encoding == "jpeg95" else encode_png(pixels)


def _part_paths(parts: Path, scene: str, items: list[Item]) -> list[Path]:
    return [parts / scene / f"{start:06d}.h5" for start in range(0, len(items), PART)]


def _make_parts(jobs: list[_Job], engine: Engine, *, workers: int, cluster: Cluster | None, done: int) -> None:
    """Make the parts that are not there yet."""
    if not jobs:
        return
    what = jobs[0].modality
    if cluster is not None:
        by_scene: dict[Path, list[_Job]] = {}
        for job in jobs:
            by_scene.setdefault(job.part.parent, []).append(job)
        cluster.map_jobs(_make_scene, list(by_scene.values()), gpus=engine.gpus, what=what)
    elif jobs[0].device != "cpu" and engine.gpus:
        _stream_parts(jobs, what=what, done=done)
    else:
        map_jobs(_make_part, jobs, workers=workers, what=what, done=done)


def _make_scene(jobs: Sequence[_Job]) -> None:
    """Make the missing parts of one scene; the unit that Ray gives to a machine, and gives again if that dies."""
    device = torch_device(jobs[0].device)
    missing = [replace(job, device=device) for job in jobs if not sealed(job.part)]
    if missing and device != "cpu":
        _stream_parts(missing)
    else:
        for job in missing:
            _make_part(job)


def _make_part(job: _Job) -> None:
    reads = job.engine().reads
    sources = [item.read(reads) for item in job.items]
    write_shard(job.part, _judged(job, sources, _first_attempts(job, sources)))
    seal(job.part)


def _stream_parts(jobs: Sequence[_Job], *, what: str = "", done: int = 0) -> None:
    """Make parts with a network on a GPU, several at a time: it computes one while the others are read or judged."""
    jobs[0].engine()  # one for all threads
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(_make_part, job) for job in jobs]
        try:
            for future in track(running, what, done=done) if what else running:
                future.result()
        finally:
            for future in running:  # after an error nothing more is begun
                future.cancel()


def _first_attempts(job: _Job, sources: Sequence[Source]) -> list[Rendition | Unavailable]:
    """Return each source's rendition, or why there can be none; images of one size go through a network together."""
    engine = job.engine()
    made: dict[int, Rendition | Unavailable] = {}
    by_size: dict[tuple[int, ...], list[int]] = {}
    for k, source in enumerate(sources):
        by_size.setdefault(source.image.shape, []).append(k)
    for shape, members in by_size.items():
        size = engine.batch_size(shape[1], shape[0])
        for start in range(0, len(members), size):
            batch = members[start : start + size]
            made |= zip(batch, _batch(engine, job, [sources[k] for k in batch]), strict=True)
    return [made[k] for k in range(len(sources))]


def _batch(engine: Engine, job: _Job, sources: list[Source]) -> list[Rendition | Unavailable]:
    try:
        return list(engine.synthesise_batch(sources, seed=job.seed, modality=job.modality))
    except Unavailable as error:
        if len(sources) == 1:
            return [error]
    return [made for source in sources for made in _batch(engine, job, [source])]


def _judged(job: _Job, sources: Sequence[Source], made: Sequence[Rendition | Unavailable]) -> Iterator[Entry]:
    """Yield each image's record after the gate."""
    engine = job.engine()
    for source, first in zip(sources, made, strict=True):
        if isinstance(first, Unavailable):
            yield Entry(source.name, b"", json.dumps({"failed": str(first)}))
            continue
        found = judge(engine, source, first, job.gate, seed=job.seed, modality=job.modality)
        if found.refused:
            yield Entry(source.name, b"", json.dumps({"rejected": found.refused}))
        else:
            yield _entry(engine, source.name, found)


def _entry(engine: Engine, name: str, found: Judged) -> Entry:
    """Return the record of an image that passed."""
    facts = found.facts
    raw = b""
    if found.rendition.raw is not None:
        raw, facts["raw_range"] = encode_raw(found.rendition.raw)
    return Entry(name, encode(found.rendition, engine), json.dumps(facts, sort_keys=True), raw)


def _facts(parts: list[Path]) -> dict[str, Any]:
    """Return what the parts say of each image beside its bytes."""
    found: dict[str, Any] = {}
    for path in parts:
        with Shard(path) as shard:
            found |= {name: json.loads(drawn) for name, drawn in shard.facts().items()}
    return found


class _Tally:
    """What the manifest says of the images, counted scene by scene."""

    def __init__(self) -> None:
        self.scenes: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        self.rejected: dict[str, str] = {}
        self.holes: dict[str, float] = {}
        self._passed = Counter[str]()

    def add(self, scene: str, facts: Mapping[str, Any]) -> None:
        """Count one scene's records, by image id."""
        self.failed |= {name: of["failed"] for name, of in facts.items() if "failed" in of}
        self.rejected |= {name: of["rejected"] for name, of in facts.items() if "rejected" in of}
        good = [of for of in facts.values() if "failed" not in of and "rejected" not in of]
        self.scenes[scene] = len(good)
        for of in good:
            self._passed["retried" if of["attempt"] else "at_once" if "agreement" in of else "unjudged"] += 1
        if unknown := [of["unknown"] for of in good if of.get("unknown")]:
            self.holes[scene] = round(sum(unknown) / len(good), 4)

    def counts(self) -> GateCounts:
        """Return the gate's counts."""
        return GateCounts(**self._passed, rejected=len(self.rejected))
