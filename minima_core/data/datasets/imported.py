"""An index that ``minima index build`` made of somebody else's pairs, brought into the graph.

Its scenes for training and validation are copied, records and files, so that nothing that follows depends on where
they lay, and follows when they change. The scenes of its split test are not: nothing in the graph reads them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import cast

from minima_core.config import Section
from minima_core.data.datasets.base import Dataset
from minima_core.data.index import Scene, read_scene, write_scene
from minima_core.errors import DataError
from minima_core.io.atomic import atomic_path
from minima_core.manifest import Relation, SceneEntry, SceneManifest
from minima_core.parallel import map_jobs


class Imported(Dataset):
    """Pairs of a finished index."""

    class Params(Section):
        """Settings, ``dataset.imported`` in params.yaml."""

        index: str  # the folder that `minima index build` wrote
        raw: str  # where its image paths start; "" for where they did when it was built

    def __init__(self, params: Section, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = self._manifest.licence

    @property
    def _index(self) -> Path:
        return Path(cast("Imported.Params", self.params).index)

    @cached_property
    def _manifest(self) -> SceneManifest:
        if not (self._index / SceneManifest.FILE).is_file():
            raise DataError(
                f"no index in {self._index}; make one with `minima index build`, or set dataset.imported.index in "
                "params.yaml to where it is"
            )
        return SceneManifest.load(self._index)

    @property
    def relation(self) -> Relation:  # type: ignore[override]  # of others it is the class's
        """What relates the pairs of the index."""
        return self._manifest.relation

    @property
    def _raw(self) -> Path:
        asked, named = cast("Imported.Params", self.params).raw, self._manifest.raw
        beside = self._index / named
        raw = Path(asked) if asked else beside if named and beside.is_dir() else Path(named or ".")
        if not (asked or named) or not raw.is_dir():
            raise DataError(
                f"the images of {self._index} are not at {raw if asked or named else 'any place that it knows'}; set "
                "dataset.imported.raw in params.yaml to where its image paths start"
            )
        return raw

    def source(self) -> list[tuple[str, int, int]]:
        """Return what identifies the index; its files know their images' sizes."""
        files = sorted(path for path in self._index.glob("*") if path.suffix in {".h5", ".json"})
        return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Copy images, depth maps and records under ``root``, and the manifest, which says what form they came from.

        Raises:
            DataError: if one is missing, or there is nothing to train on.
        """
        jobs = [job for scene in self._scenes() for job in _copies(scene, self._raw, root)]
        if not jobs:
            raise DataError(f"{self._index} has no scene for training or validation, only for test; import other data")
        map_jobs(_copy, jobs, workers=workers, what="copying images")
        for scene in self._scenes():
            write_scene(root, _moved(scene))
        self._manifest.model_copy(update={"raw": ""}).save(root)  # equal data give equal bytes wherever they lay

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:  # noqa: ARG002, pairs are known
        """Yield the scenes with the paths of the copies."""
        for entry in _used(SceneManifest.load(root)):
            scene = read_scene(root, entry.name)
            if missing := next((path for path in scene.image if not (root / path).is_file()), None):
                raise DataError(f"no {root / missing}; run `dvc repro -f -s download`")
            yield scene

    def _scenes(self) -> Iterator[Scene]:
        for entry in _used(self._manifest):
            yield read_scene(self._index, entry.name)


def _used(manifest: SceneManifest) -> list[SceneEntry]:
    return [entry for entry in manifest.scenes if entry.split != "test"]


def _moved(scene: Scene) -> Scene:
    """Return a scene with the paths of the copies; a depth map has the name of its image, which no other has."""
    folder, images = f"{scene.name}/dense0", [PurePosixPath(path) for path in scene.image]
    depth = [
        path and f"{folder}/depths/{image.stem}{PurePosixPath(path).suffix}"
        for image, path in zip(images, scene.depth, strict=True)
    ]
    return replace(scene, image=[f"{folder}/imgs/{image.name}" for image in images], depth=depth)


def _copies(scene: Scene, raw: Path, root: Path) -> Iterator[tuple[Path, Path]]:
    moved = _moved(scene)
    files = zip([*scene.image, *scene.depth], [*moved.image, *moved.depth], strict=True)
    yield from ((raw / path, root / copy) for path, copy in files if path)


def _copy(job: tuple[Path, Path]) -> None:
    """Copy one file, unless an earlier run did."""
    source, target = job
    if target.is_file():
        return
    if not source.is_file():
        raise DataError(f"no {source}, which the index names; bring it back, or build the index again")
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
