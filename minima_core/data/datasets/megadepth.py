"""MegaDepth: photographs of 196 places with depth maps; cameras, poses and pairs come from a published index.

The scenes that benchmarks use (MegaDepth-1500, IMC 2021) are never brought. Images are MegaDepth_v1's own, and the
depth maps that hold labels instead of distances are left out.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal, cast

import numpy as np
from pydantic import Field

from minima_core.acquire.archives import unpack
from minima_core.acquire.sources import downloads, forget, source
from minima_core.acquire.transfer import Remote, fetch, local_path
from minima_core.config import Section
from minima_core.data.datasets._megadepth import ARCHIVE, bring_scenes, left_out, sift
from minima_core.data.datasets.base import Dataset
from minima_core.data.importers._records import Legacy, LegacySettings, Records
from minima_core.data.importers.base import IMC_2021, IMPORTERS, MEGADEPTH_1500, Skipped
from minima_core.data.index import Scene
from minima_core.errors import ConfigError, DataError
from minima_core.parallel import map_jobs

HELD_OUT = MEGADEPTH_1500 | IMC_2021
SUBSETS = {
    "smoke": ("0012", "0133"),
    "mini": ("0001", "0003", "0007", "0012", "0013", "0026", "0035", "0042", "0121", "0133"),
}
INDEX = "index"  # the published index's files, below the raw folder
TREE = re.compile(r"^.*?(?=\d{4}/dense\d+/)")
logger = logging.getLogger(__name__)


class MegaDepth(Dataset):
    """Scenes of MegaDepth_v1."""

    class Params(Section):
        """Settings, ``dataset.megadepth`` in params.yaml."""

        subset: Literal["smoke", "mini", "full"]
        scenes: list[str]  # these instead of a subset; [] for the subset
        sources: list[str]  # folders, archives, or archives of {scene}, in order; [] for the official archive
        index: Literal["roma", "glue_factory", "loftr"]  # whose cameras, poses and pairs
        index_sources: list[str]  # folders of index files or archives of them, in order; [] for the official one
        validation: list[str]  # scenes; the others are for training
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        max_pairs: int = Field(ge=1)  # a scene

    licence = source("megadepth").licence
    relation = "depth"

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("MegaDepth.Params", self.params)

    def wanted(self) -> list[str]:
        """Return the scenes to bring, [] for all there are.

        Raises:
            ConfigError: if one belongs to a benchmark.
        """
        p = self.settings
        named = sorted(set(p.scenes or SUBSETS.get(p.subset, ())))
        if held := [scene for scene in [*named, *p.validation] if scene in HELD_OUT]:
            raise ConfigError(
                f"scene {held[0]} of MegaDepth belongs to a benchmark; take it off dataset.megadepth in params.yaml"
            )
        return named

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring index and scenes under ``root``, then look at every depth map."""
        wanted = self.wanted()
        self._bring_index(root / INDEX)
        listed = {_scene(path) for path in (root / INDEX).iterdir()} - HELD_OUT
        if absent := sorted(set(wanted) - listed):
            raise DataError(f"the index has no scene {absent[0]}; take it off dataset.megadepth.scenes in params.yaml")
        missing = bring_scenes(root, wanted or sorted(listed), self.settings.sources or ARCHIVE.urls)
        if missing and wanted:
            raise DataError(f"no source has scene {missing[0]} of MegaDepth; name another in dataset.megadepth.sources")
        if missing:
            logger.warning("no source has the scenes %s of MegaDepth", ", ".join(missing))
        jobs = [(root, scene) for scene in wanted or sorted(listed - set(missing))]
        map_jobs(sift, jobs, workers=workers, what="looking at depth maps")

    def _bring_index(self, folder: Path) -> None:
        """Bring the index files of the scenes that may be used."""
        if folder.is_dir():
            return
        failures = []
        for where in self.settings.index_sources or [""]:
            try:
                _bring_index(where, self.settings.index, folder)
                return
            except DataError as error:
                failures.append(str(error))
        raise DataError("; ".join(failures))

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:  # noqa: ARG002, pairs are known
        """Yield the scenes whose images are there, with those pairs whose depth maps can be used."""
        p = self.settings
        settings = LegacySettings(overlap=p.overlap, max_pairs=p.max_pairs, prefer_imgs=True, validation_share=0)
        importer = _flat(p.index)(root / INDEX, settings, images=root, seed=self.seed)
        for name in importer.names(root):
            skipped = Skipped()
            found = importer.scene(root, name, skipped)
            scene = None if found is None else _without(found, left_out(root, name))
            for reason, count in skipped.counts.items():
                logger.info("scene %s: left out %d x %s", name, count, reason)
            if scene is None or not len(scene.pairs):
                logger.warning("scene %s has no pair whose depth maps can be used", name)
                continue
            yield replace(scene, split="val" if name in p.validation else "train")


def _scene(path: Path) -> str:
    """Return the scene that an index file is about: LoFTR's have the range of overlaps in their name, too."""
    return path.stem.split("_")[0]


def _bring_index(where: str, form: str, folder: Path) -> None:
    path = local_path(where) if where else None
    if path is not None and path.is_dir():
        suffix = ".npy" if form == "roma" else ".npz"
        files = [p for p in sorted(path.rglob(f"*{suffix}")) if _placed(PurePosixPath(p.name))]
        if not files:
            raise DataError(f"{path} holds no {suffix} files of MegaDepth's index; see dataset.megadepth.index_sources")
        building = folder.with_name(f".{folder.name}.copying")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, building / file.name)
        building.replace(folder)
        return
    entry = source(f"megadepth_index_{form}")
    if entry.by_hand and not where:
        raise DataError(
            f"this index is behind {entry.by_hand}: {entry.steps}, and name the folder in "
            "dataset.megadepth.index_sources in params.yaml"
        )
    name = entry.files[0].name if entry.files else PurePosixPath(where).name
    archive = fetch(Remote(name, (where,) if where else entry.files[0].urls), downloads())
    unpack(archive, folder.parent, lambda path: _placed(PurePosixPath(path.name)))
    forget(archive)
    if not folder.is_dir():
        raise DataError(f"{archive} holds no index files of MegaDepth; see dataset.megadepth.index_sources")


def _placed(file: PurePosixPath) -> PurePosixPath | None:
    """Return where an index file goes; those of scenes that benchmarks use are not taken."""
    scene = file.stem.split("_")[0]
    usable = file.suffix in {".npy", ".npz"} and re.fullmatch(r"\d{4}", scene) and scene not in HELD_OUT
    return PurePosixPath(INDEX, file.name) if usable else None


@cache
def _flat(form: str) -> type[Legacy]:
    """Return a reader of index files for images that lie as ours do: below the scene, MegaDepth_v1's own."""
    base = IMPORTERS.get(form)
    assert issubclass(base, Legacy)

    class Flat(base):  # type: ignore[valid-type, misc]
        def files(self) -> dict[str, list[Path]]:
            """Return the files of those scenes whose images are there."""
            return {name: paths for name, paths in super().files().items() if (self.images / name).is_dir()}

        def read(self, path: Path) -> Records:
            """Return what a file holds, with paths from the scene on."""
            records = super().read(path)
            depth = [None if d is None else TREE.sub("", str(d)) for d in records.depth]
            image = [
                None if i is None or d is None else d.replace("/depths/", "/imgs/").removesuffix(".h5") + ".jpg"
                for i, d in zip(records.image, depth, strict=True)
            ]
            return replace(records, image=image, depth=depth)

    return Flat


def _without(scene: Scene, unusable: Collection[str]) -> Scene | None:
    """Return a scene without some of its depth maps' images and their pairs; None where nothing is left."""
    good = np.array([path not in unusable for path in scene.depth])
    pairs = good[scene.pairs].all(1)
    kept = np.unique(scene.pairs[pairs])
    if not len(kept):
        return None
    pick = [scene.image, scene.depth, scene.material]
    image, depth, material = ([values[i] for i in kept] for values in pick)
    return replace(
        scene,
        image=image,
        depth=depth,
        material=material,
        size=scene.size[kept],
        K=scene.K[kept],
        T_w2c=scene.T_w2c[kept],
        pairs=np.searchsorted(kept, scene.pairs[pairs]),
        overlap=scene.overlap[pairs],
    )
