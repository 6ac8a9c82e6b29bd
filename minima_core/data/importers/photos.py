"""Any folder of images: of each photograph a crop and several perspectives, related by homographies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field

from minima_core.config import checked
from minima_core.data.datasets._layout import scene_names
from minima_core.data.datasets.photos import VIEWS_FILE, Photos, kept_views, originals, read_views, views_left_out
from minima_core.data.importers.base import RAW, Importer, Settings, Skipped, inside
from minima_core.data.index import Scene
from minima_core.io.images import find_images

NOT_TAKEN = "photograph that is a copy of another, or has too little texture for two views"
FLAT_VIEW = "view that is too flat, black or white, of a photograph that has others"
MADE = "image of an index, or made by `minima synthesise`, that lies among the photographs"


class ViewSettings(Settings):
    """How views are taken; what the names mean is said at ``minima_core.data.datasets.photos.Views``."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.15  # of the photographs
    size: tuple[int, int] = (640, 480)
    views: int = 3
    crop: float = 0.75
    scale: tuple[float, float] = (0.6, 1.3)
    rotation: float = 30.0
    perspective: float = 0.22
    shift: float = 0.35
    photos_per_scene: int = 25
    min_std: float = 10.0
    max_saturated: float = 0.4
    overlap: tuple[float, float] = (0.1, 1.0)

    def of(self, root: Path) -> Photos.Params:
        """Return the settings of the photographs in a folder.

        Raises:
            ConfigError: naming the setting whose value the data set does not take; its bounds stand there alone.
        """
        values = self.model_dump(include=set(ViewSettings.model_fields))
        return checked({"root": str(root), **values}, Photos.Params, "--set")


class _Photographs(Photos):
    """The photographs of a folder that no setting of params.yaml names, so that no message sends there."""

    def files(self) -> list[Path]:
        """Return them, sorted by path; a link that leads out of the folder is refused, as in every form."""
        return [inside(self.folder, path) for path in originals(self.folder)]


class PhotoFolder(Importer):
    """Photographs, each in one split; brings the views that it takes of them."""

    class Params(ViewSettings):
        """Settings."""

    relation = "homography"

    @property
    def views(self) -> Photos:
        """The data set that takes the views."""
        return _Photographs(cast("ViewSettings", self.params).of(self.source), seed=self.seed)

    def prepare(self, out: Path, *, workers: int = 1) -> None:
        """Take the views of all photographs."""
        made = sorted(set(find_images(self.source)) - set(self.views.files()))
        self.left_out.add(MADE, [str(path.relative_to(self.source)) for path in made])
        self.views.prepare(out / RAW, workers=workers)
        add_left_out(self.left_out, self.views, out / RAW)

    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes."""
        return scene_names(out / RAW, VIEWS_FILE)

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:  # noqa: ARG002
        """Return a scene with all pairs of views of one photograph."""
        return read_views(out / RAW, name, self.views.settings)


def add_left_out(left_out: Skipped, photos: Photos, raw: Path) -> None:
    """Tell ``left_out`` the photographs that ``raw`` holds no views of, and count the views that others lack."""
    files = {str(path.relative_to(photos.folder)) for path in photos.files()}
    left_out.add(NOT_TAKEN, sorted(files - kept_views(raw).keys()))
    lost = views_left_out(raw, photos.settings)
    left_out.add(FLAT_VIEW, lost, sum(lost.values()))
