"""Makes the one pair index from the raw scenes."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter
from pathlib import Path

from minima_core.config import digest, read_section, read_seed, read_value
from minima_core.data.datasets.base import DATASETS
from minima_core.data.index import Scene, index_digest, scene_folders, write_scene
from minima_core.errors import DataError
from minima_core.io.atomic import scratch_folder, whole_folder
from minima_core.manifest import RawDataset, SceneEntry, SceneManifest
from minima_core.progress import track
from tasks.reports import IndexReport
from tasks.stage import Args, Input, Output, execution, run

logger = logging.getLogger(__name__)


class IndexArgs(Args):
    """Command line of the stage."""

    raw: Input
    out: Output


def main(args: IndexArgs) -> IndexReport:
    """Find the images under --raw, the pairs among them and their overlap, and write the index to --out."""
    name = str(read_value("dataset.name"))
    plugin = DATASETS.get(name)
    dataset = plugin(read_section(f"dataset.{name}", plugin.Params), seed=read_seed())
    held = RawDataset.load(args.raw)
    if held.dataset != name:
        raise DataError(f"{args.raw} holds '{held.dataset}', params.yaml asks for '{name}'; run `dvc repro download`")
    scratch = scratch_folder("index", digest([name, held.settings]))
    if scratch.exists():  # an index takes seconds; nothing of a killed run is worth keeping
        shutil.rmtree(scratch)
    with whole_folder(args.out, scratch) as folder:
        folders = len(scene_folders(args.raw))
        entries = []
        for scene in track(dataset.scenes(args.raw, workers=execution().processes), "indexing scenes", total=folders):
            write_scene(folder, scene)
            entries.append(_entry(args.raw, scene))
        pairs = sum(entry.pairs for entry in entries)
        if not pairs:
            raise DataError(f"no pair in {args.raw} overlaps enough; widen dataset.{name}.overlap or add images")
        SceneManifest(
            dataset=name, licence=held.licence, relation=held.relation, raw=args.raw.as_posix(), scenes=entries
        ).save(folder)
    images = sum(entry.images for entry in entries)
    logger.info("%d pairs of %d images in %d scenes", pairs, images, len(entries))
    return IndexReport(
        dataset=name,
        scenes=dict(sorted(Counter(entry.split for entry in entries).items())),
        images=images,
        pairs=pairs,
        digest=index_digest(args.out),
    )


def _entry(raw: Path, scene: Scene) -> SceneEntry:
    """Return the manifest's line about a scene, with the digest of its source files."""
    files = hashlib.sha256()
    for i in range(len(scene.image)):
        for path in (scene.image[i], scene.depth[i], scene.material[i]):
            if path:
                files.update(path.encode())
                files.update((raw / path).read_bytes())
    return SceneEntry(
        name=scene.name, split=scene.split, images=len(scene.image), pairs=len(scene.pairs), digest=files.hexdigest()
    )


if __name__ == "__main__":
    run(main)
