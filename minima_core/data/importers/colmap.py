"""COLMAP models with depth maps: a dense workspace, or a sparse model whose images have depth maps beside them.

Looked for are ``cameras.bin`` (or ``.txt``) at any depth below the source, and in the nearest folder above it that has
``images`` the depth maps: ``stereo/depth_maps`` as COLMAP's stereo writes them, or ``depths`` with one ``.h5``
(``depth``, scene units) or 16-bit ``.png`` an image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, cast

import cv2
import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_matrix

from minima_core.data.datasets._layout import (
    CAMERAS,
    Camera,
    depth_path,
    image_path,
    posed_scene,
    scene_names,
    write_cameras,
)
from minima_core.data.importers.base import RAW, Importer, Settings, Skipped, inside, splits
from minima_core.data.index import Scene
from minima_core.errors import ConfigError, DataError
from minima_core.geometry.coords import from_corner_origin
from minima_core.io.atomic import write_bytes
from minima_core.io.depth import read_depth, write_depth
from minima_core.io.images import encode_jpeg, exif_orientation, image_size, read_image
from minima_core.io.pickled import npy_bytes
from minima_core.manifest import Split
from minima_core.parallel import map_jobs

COVISIBLE = "covisible.npy"  # pairs that share points of the model, by place among the cameras
DISTORTION = {  # camera models, and where OpenCV's k1 k2 p1 p2 ... begin among their parameters
    "SIMPLE_PINHOLE": None,
    "PINHOLE": None,
    "SIMPLE_RADIAL": 3,
    "RADIAL": 3,
    "OPENCV": 4,
    "FULL_OPENCV": 4,
}
TURNED = "image that its EXIF turns, which COLMAP does not do (`exiftool -Orientation= FILE` drops that)"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _View:
    """One image of a model, with what is needed to bring it."""

    stem: str
    image: Path
    depth: Path
    camera: Camera
    size: tuple[int, int]
    distortion: tuple[float, ...]
    points: np.ndarray


@dataclass(frozen=True)
class _Place:
    """Where a model, its images and its depth maps lie."""

    name: str
    model: Path
    images: Path
    depths: Path


class Colmap(Importer):
    """Posed photographs with depth; brings copies without distortion."""

    class Params(Settings):
        """Settings; ``validation_share`` is of the models, of a single model's images."""

        validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
        overlap: tuple[float, float] = (0.1, 0.9)  # a pair's overlap lies in (low, high]
        max_pairs: Annotated[int, Field(ge=1)] = 3000  # a scene
        min_points: Annotated[int, Field(ge=1)] = 20  # that two images must share before their overlap is looked at
        units: Annotated[float, Field(gt=0)] = 1000.0  # of a depth .png in a unit of the model

    def __init__(self, source: Path, params: Settings, *, images: Path | None = None, seed: int = 0) -> None:
        super().__init__(source, params, images=images, seed=seed)
        self._left_out: dict[str, Skipped] = {}

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Colmap.Params", self.params)

    def prepare(self, out: Path, *, workers: int = 1) -> None:
        """Convert all images and depth maps."""
        places = [place for place in self._places() if self._enough(place)]
        if not places:
            raise DataError(
                f"no model in {self.source} has two usable images ({self.left_out.summary()}); give those images and "
                "depth maps, or another project with --source"
            )
        for place in places:
            for name, split, members in self._split(place, self._views(place), places):
                jobs = [(view, out / RAW, name, self.settings.units) for view in members]
                map_jobs(_bring, jobs, workers=workers, what=f"converting {name}")
                write_bytes(out / RAW / name / COVISIBLE, npy_bytes(_covisible(members, self.settings.min_points)))
                write_cameras(out / RAW, name, split, [view.camera for view in members])

    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes."""
        return scene_names(out / RAW, CAMERAS)

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:
        """Return a scene with the pairs whose views overlap, out of those that share points of the model."""
        skipped.merge(self._left_out.get(name, Skipped()))
        p = self.settings
        return posed_scene(
            out / RAW,
            name,
            overlap=p.overlap,
            max_pairs=p.max_pairs,
            seed=self.seed,
            candidates=np.load(out / RAW / name / COVISIBLE),
            workers=workers,
        )

    def _places(self) -> Iterator[_Place]:
        models = sorted({path.parent for kind in ("bin", "txt") for path in self.source.rglob(f"cameras.{kind}")})
        if not models:
            raise DataError(f"no cameras.bin or cameras.txt in {self.source}; give a COLMAP project with --source")
        names: set[str] = set()
        for model in models:
            above = [folder for folder in (model, *model.parents) if folder.is_relative_to(self.source)]
            home = next((folder for folder in above if (folder / "images").is_dir()), None)
            images = self.images or (home / "images" if home else None)
            home = home or model
            depths = next((home / d for d in ("stereo/depth_maps", "depths", "depth") if (home / d).is_dir()), None)
            if images is None or depths is None:
                lack = "images" if images is None else "depth maps"
                logger.warning("%s is left out: no %s for it", model, lack)
                self.left_out.add(f"model without {lack}", [str(model.relative_to(self.source))])
                continue
            base = "-".join(home.relative_to(self.source).parts) or self.source.resolve().name
            name = next(name for k in count() if (name := f"{base}-{k}" if k else base) not in names)
            names.add(name)
            yield _Place(name, inside(self.source, model), images, depths)
        if not names:
            raise DataError(
                f"no model in {self.source} has images and depth maps; run `colmap image_undistorter` and `colmap "
                "patch_match_stereo`, or put a folder depths with one .h5 an image beside images"
            )

    def _views(self, place: _Place) -> list[_View]:
        """Return the images of a model that have all that is needed, in order of their stems."""
        pycolmap = _pycolmap()
        try:
            model = pycolmap.Reconstruction(str(place.model))
        except Exception as error:  # whatever its C++ throws
            raise DataError(f"cannot read the model {place.model}: {error}; make it again") from None
        views: dict[str, _View] = {}
        skipped = self._left_out[place.name] = Skipped()
        for image in sorted(model.images.values(), key=lambda image: image.name):
            path = PurePosixPath(image.name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{place.model} is refused: it names {image.name!r}, which leads out of its folder")
            if not image.has_pose:
                skipped.add("image without a pose", [image.name])
                continue
            file = place.images / path
            depth = _depth_file(place.depths, path)
            if not file.is_file() or depth is None:
                skipped.add("image that is not there" if depth else "image without a depth map", [image.name])
                continue
            if exif_orientation(inside(place.images, file)) != 1:
                skipped.add(TURNED, [image.name])
                continue
            camera = model.cameras[image.camera_id]
            if image_size(inside(place.images, file)) != (camera.width, camera.height):
                skipped.add("image of another size than its camera", [image.name])
                continue
            view = _view(image, camera, file, inside(place.depths, depth))
            if view.stem in views:  # 00.jpg and 00.png, or a/b.jpg and a-b.jpg: their copies would be one file
                skipped.add("image of the same name in the model, but for suffix and folder", [image.name])
                continue
            views[view.stem] = view
        return [views[stem] for stem in sorted(views)]

    def _enough(self, place: _Place) -> bool:
        """Say whether a model has a pair of images; one that has none is reported, with what its images lack.

        Models are read for this before any is converted: a single one that is left is split in two.
        """
        views = self._views(place)
        if len(views) < 2:
            self.left_out.merge(self._left_out.pop(place.name))
            self.left_out.add("only usable image of its model", [str(view.image) for view in views])
            model = place.model.relative_to(self.source).as_posix()
            self.left_out.add("model with fewer than two usable images", [model])
        return len(views) >= 2

    def _split(self, place: _Place, views: list[_View], places: list[_Place]) -> list[tuple[str, Split, list[_View]]]:
        """Return scenes: one of each of several models, two of a single one.

        Raises:
            DataError: if a single one has too few images for two.
        """
        share = self.settings.validation_share
        if len(places) > 1:
            return [(place.name, splits([other.name for other in places], share, seed=self.seed)[place.name], views)]
        last = max(2, round(len(views) * share))
        left_out = self._left_out.pop(place.name)
        if len(views) - last < 2:
            raise DataError(
                f"{self.source} has {len(views)} usable images, too few for training and validation "
                f"({left_out.summary() or 'it names no more'}); give those images and depth maps, or a larger model"
            )
        self._left_out[f"{place.name}-train"] = left_out
        return [(f"{place.name}-train", "train", views[:-last]), (f"{place.name}-val", "val", views[-last:])]


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError:
        raise ConfigError(
            "--from colmap needs pycolmap; install it with `pip install 'minima-pipeline[colmap]'`"
        ) from None
    return pycolmap


def _view(image: Any, camera: Any, file: Path, depth: Path) -> _View:
    model = str(camera.model_name)
    if model not in DISTORTION:
        raise DataError(f"{file} is by a camera {model}; run `colmap image_undistorter` and import its workspace")
    K = np.array(camera.calibration_matrix(), np.float64)
    K[:2, 2] = from_corner_origin(torch.from_numpy(K[:2, 2])).numpy()
    T_w2c = np.eye(4)
    T_w2c[:3] = image.cam_from_world().matrix()
    begin = DISTORTION[model]
    distortion = () if begin is None else tuple(float(value) for value in camera.params[begin:])
    if 0 < len(distortion) < 4:
        distortion = (*distortion, *[0.0] * (4 - len(distortion)))
    stem = str(PurePosixPath(image.name).with_suffix("")).replace("/", "-")
    points = np.array([point.point3D_id for point in image.get_observation_points2D()], np.uint64)
    size = (int(camera.width), int(camera.height))
    return _View(stem, file, depth, Camera(stem, K, T_w2c), size, distortion, points)


def _depth_file(folder: Path, image: PurePosixPath) -> Path | None:
    """Return the depth map of an image: geometrically checked before photometric, then other forms."""
    names = [f"{image}{s}.bin" for s in (".geometric", ".photometric")]
    names += [str(image.with_suffix(suffix)) for suffix in (".h5", ".png")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _covisible(views: list[_View], least: int) -> np.ndarray:
    """Return (M, 2) pairs of views that share points; all pairs where the model has none."""
    counts = [len(np.unique(view.points)) for view in views]
    if not any(counts):
        return np.stack(np.triu_indices(len(views), 1), -1)
    ids, columns = np.unique(np.concatenate([np.unique(view.points) for view in views]), return_inverse=True)
    rows = np.repeat(np.arange(len(views)), counts)
    seen = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(views), len(ids)))
    shared = (seen @ seen.T).tocoo()
    kept = (shared.row < shared.col) & (shared.data >= least)
    pairs = np.stack([shared.row[kept], shared.col[kept]], -1).astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _bring(job: tuple[_View, Path, str, float]) -> None:
    """Convert one image and its depth map, both without distortion."""
    view, root, scene, units = job
    image = read_image(view.image)
    depth = _read_depth(view.depth, units)
    if depth.shape != (view.size[1], view.size[0]):  # stereo works on smaller images where it was told to
        depth = cv2.resize(depth, view.size, interpolation=cv2.INTER_NEAREST_EXACT)  # the other is half a pixel off
    if any(view.distortion):
        K = view.camera.K
        maps = cv2.initUndistortRectifyMap(K, np.array(view.distortion), np.eye(3), K, view.size, cv2.CV_32FC1)
        image = cv2.remap(image, *maps, cv2.INTER_LINEAR)
        depth = cv2.remap(depth, *maps, cv2.INTER_NEAREST)
    write_depth(root / depth_path(scene, view.stem), depth)
    as_it_is = view.image.suffix.lower() in {".jpg", ".jpeg"} and not any(view.distortion)
    write_bytes(root / image_path(scene, view.stem), view.image.read_bytes() if as_it_is else encode_jpeg(image))


def _read_depth(path: Path, units: float) -> np.ndarray:
    """Return (H, W) float32, 0 where unknown."""
    if path.suffix == ".h5":
        depth = read_depth(path)
        if not depth.size:
            raise DataError(f"{path} holds a depth map without pixels; make it again")
        return depth
    if path.suffix == ".png":
        steps = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if steps is None or steps.dtype != np.uint16 or steps.ndim != 2:
            raise DataError(f"{path} is no 16-bit gray PNG; replace it")
        return (steps / units).astype(np.float32)
    data = path.read_bytes()
    try:
        w, h, channels = (int(part) for part in data[:64].split(b"&")[:3])
        values = np.frombuffer(data.split(b"&", 3)[3], "<f4")
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is no depth map of COLMAP ({error}); make it again") from None
    if w < 1 or h < 1 or channels != 1:
        raise DataError(
            f"{path} says that it is {w} x {h} pixels of {channels} channels, a depth map has one; make it again"
        )
    if len(values) != w * h:
        raise DataError(f"{path} is no depth map of COLMAP ({len(values)} values for {w} x {h} pixels); make it again")
    return np.where(np.isfinite(values) & (values > 0), values, 0).reshape(h, w).astype(np.float32)
