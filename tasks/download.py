"""Brings the raw scenes of the data set that params.yaml names."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from minima_core.config import digest, read_section, read_seed, read_value
from minima_core.data.datasets.base import DATASETS, Dataset
from minima_core.data.index import scene_folders
from minima_core.io.atomic import scratch_folder, whole_folder
from minima_core.manifest import RawDataset
from minima_core.provenance import code_digest
from tasks.reports import DownloadReport
from tasks.stage import Args, Input, Output, execution, run

logger = logging.getLogger(__name__)
# what decides the raw scenes
CODE = (
    "acquire",
    "data/datasets",
    "data/importers",
    "data/index.py",
    "data/materials.py",
    "data/tissues.py",
    "geometry",
    "io",
    "manifest.py",
    "random.py",
)


class DownloadArgs(Args):
    """Command line of the stage."""

    out: Output
    checked: Input = Path("data/checked.json")  # not read: it says that the names are known


def main(args: DownloadArgs) -> DownloadReport:
    """Bring the raw scenes of the data set named by dataset.name in params.yaml to --out.

    A killed run continues where it stopped. A folder of yours (photos, rgbd) lies outside what DVC watches: after you
    put something into it, run `dvc repro -f -s download`, then `dvc repro`.
    """
    start = time.monotonic()
    name = str(read_value("dataset.name"))
    plugin = DATASETS.get(name)
    dataset = plugin(read_section(f"dataset.{name}", plugin.Params), seed=read_seed())
    with whole_folder(args.out, scratch_folder("download", _key(name, dataset))) as folder:
        dataset.prepare(folder, workers=execution().processes)
        manifest = RawDataset(
            dataset=name,
            licence=dataset.licence,
            attribution=dataset.attribution(),
            relation=dataset.relation,
            settings=settings_digest(dataset),
        )
        manifest.save(folder)
    count = {folder: len(list(args.out.glob(f"{folder}/dense*/imgs/*"))) for folder in scene_folders(args.out)}
    images, scenes = sum(count.values()), sum(1 for found in count.values() if found)
    logger.info("%s: %d images in %d scenes", name, images, scenes)
    return DownloadReport(
        dataset=name,
        licence=dataset.licence,
        scenes=scenes,
        images=images,
        seconds=round(time.monotonic() - start, 1),
    )


def settings_digest(dataset: Dataset) -> str:
    """Return the digest of what a data set depends on, its source files aside."""
    return digest({"seed": dataset.seed, "params": dataset.params.model_dump(mode="json")})


def _key(name: str, dataset: Dataset) -> str:
    """Return the key of unfinished work: it is continued only by the same code on the same settings and files."""
    return digest([name, settings_digest(dataset), dataset.source(), code_digest(*CODE)])


if __name__ == "__main__":
    run(main)
