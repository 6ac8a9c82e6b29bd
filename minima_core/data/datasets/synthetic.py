"""A rendered world: towns with exact depth, poses and materials, textured with photographs that packages ship.

The worlds ``train`` and ``benchmark`` have no photograph, no layout and no seed in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import Field

from minima_core.config import Section
from minima_core.data.datasets._layout import (
    CAMERAS,
    Camera,
    depth_path,
    image_path,
    material_path,
    posed_scene,
    scene_names,
    write_cameras,
)
from minima_core.data.datasets._world.cameras import place_cameras
from minima_core.data.datasets._world.lens import photograph
from minima_core.data.datasets._world.photographs import WorldName, attribution
from minima_core.data.datasets._world.render import Mesh, render
from minima_core.data.datasets._world.town import build_town
from minima_core.data.datasets.base import Dataset
from minima_core.data.index import Scene
from minima_core.io.depth import write_depth
from minima_core.io.images import write_image
from minima_core.manifest import Split
from minima_core.parallel import map_jobs
from minima_core.random import rng


class Synthetic(Dataset):
    """Rendered towns."""

    class Params(Section):
        """Settings, ``dataset.synthetic`` in params.yaml."""

        world: WorldName  # which photographs and layouts; all scenes of "benchmark" are test scenes
        scenes: int = Field(ge=1)  # for training
        validation_scenes: int = Field(ge=0)  # more, for validation
        views: int = Field(ge=2, le=1000)  # a scene
        size: tuple[int, int]  # width and height
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        max_pairs: int = Field(ge=1)  # a scene

    licence = "Apache-2.0 AND CC-BY-2.0"  # of the geometry, and of photographs whose authors dataset.json names
    relation = "depth"

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Synthetic.Params", self.params)

    def attribution(self) -> list[str]:
        """Return whose photographs are in the images."""
        return attribution(self.settings.world)

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Render all scenes under ``root``."""
        p = self.settings
        prefix = "town" if p.world == "train" else "bench"
        jobs = []
        for k in range(p.scenes + p.validation_scenes):
            split: Split = "test" if p.world == "benchmark" else "train" if k < p.scenes else "val"
            jobs.append((root, f"{prefix}-{k:03d}", split, p, self.seed))
        map_jobs(_render_scene, jobs, workers=workers, what="rendering scenes")

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:
        """Yield the scenes with their pairs."""
        p = self.settings
        for name in scene_names(root, CAMERAS):
            yield posed_scene(root, name, overlap=p.overlap, max_pairs=p.max_pairs, seed=self.seed, workers=workers)


def _render_scene(job: tuple[Path, str, Split, Synthetic.Params, int]) -> None:
    """Render one scene; views that an earlier run finished are kept."""
    root, name, split, p, seed = job
    town = build_town(seed, name, p.world)
    mesh, light = Mesh(town.surfaces), town.light()
    placed = place_cameras(town, mesh, rng(seed, name, "cameras"), views=p.views, size=p.size)
    cameras = [Camera(f"{k:03d}", K, T_w2c) for k, (K, T_w2c) in enumerate(placed)]
    for camera in cameras:
        image = root / image_path(name, camera.stem)
        if image.is_file():  # written last, so the others are there
            continue
        picture = render(mesh, light, town.panorama, K=camera.K, T_w2c=camera.T_w2c, size=p.size)
        write_depth(root / depth_path(name, camera.stem), picture.depth)
        write_image(root / material_path(name, camera.stem), picture.material)
        write_image(image, photograph(picture, rng(seed, f"{name}/{camera.stem}", "lens")))
    write_cameras(root, name, split, cameras)
