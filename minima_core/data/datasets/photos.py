"""Any folder of images as homography pairs: of each photo a crop and several random perspectives of the same photo.

Every view is taken from inside the photo, so that every pixel of it is real, and is written as an image: what follows
treats it as any other. A photo is in one split only, chosen by a digest of its pixels, so that copies of a file under
another name or with other metadata stay together (and are used once).
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import cv2
import numpy as np
import torch
from pydantic import AfterValidator, Field, PositiveFloat

from minima_core.config import Section
from minima_core.data.datasets._layout import REMEDY, image_path, scene_names, tissue_path
from minima_core.data.datasets.base import Dataset
from minima_core.data.importers.base import RAW
from minima_core.data.index import Scene
from minima_core.errors import DataError
from minima_core.geometry.coords import scaling
from minima_core.geometry.homography import corners
from minima_core.geometry.overlap import homography_overlap
from minima_core.io.atomic import write_json
from minima_core.io.images import find_images, find_made, read_ids, read_image, write_image
from minima_core.manifest import SceneManifest, Split
from minima_core.parallel import map_jobs
from minima_core.random import rng

VIEWS_FILE = "views.json"
TRIES = 20  # draws of a perspective before it is given up
NAMED = 5  # photos that an error names
SMALLEST = 64  # pixels along a photo's shorter side
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """One file: its path, the digest of its pixels and its contrast."""

    path: Path
    digest: str
    std: float

    @property
    def stem(self) -> str:
        """The name of its views."""
        return self.digest[:12]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError(f"must rise, {span[0]:g} to {span[1]:g} does not")
    return span


Side = Annotated[int, Field(ge=16)]  # pixels


class Views(Section):
    """How views are taken of photographs."""

    size: tuple[Side, Side]  # width and height of every view
    views: int = Field(ge=1, le=20)  # perspectives a photo, beside the crop
    crop: float = Field(gt=0.2, le=1)  # side of the crop, as a share of the largest that fits
    scale: Annotated[
        tuple[PositiveFloat, PositiveFloat], AfterValidator(_rising)
    ]  # side of a perspective as a factor on the crop's
    rotation: float = Field(ge=0, le=180)  # degrees, both ways
    perspective: float = Field(ge=0, le=0.35)  # shift of each corner, as a share of half the side
    shift: float = Field(ge=0, le=1)  # of the centre, as a share of half the side
    validation_share: float = Field(gt=0, lt=1)  # of the photos
    photos_per_scene: int = Field(ge=1)  # photos whose views lie in one folder and one shard
    min_std: float = Field(ge=0)  # gray levels; a photo or view with less contrast has nothing to match
    max_saturated: float = Field(gt=0, le=1)  # share of a view's pixels that may be fully black or white
    overlap: tuple[float, float]  # a pair's overlap lies in (low, high]


class PhotoViews(Dataset):
    """Views of the photographs in one folder."""

    relation = "homography"

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the photographs lie."""

    @property
    def tissues(self) -> Path | None:
        """Where maps of tissues lie, under the names of their photographs; None where there are none."""
        return None

    @property
    def settings(self) -> Views:
        """The settings with their type."""
        return cast("Views", self.params)

    def files(self) -> list[Path]:
        """Return the photographs, sorted by path."""
        return find_images(self.folder)

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Write the views of all photos under ``root``.

        Raises:
            DataError: naming the first photos that are damaged, too small or without texture, and how many there are.
        """
        p = self.settings
        photos = self._usable(map_jobs(_look, self.files(), workers=workers, what="reading photos"))
        jobs = []
        for split, members in self._split(photos).items():
            for k in range(0, len(members), p.photos_per_scene):
                name = f"photos-{split}-{k // p.photos_per_scene:04d}"
                some = members[k : k + p.photos_per_scene]
                jobs.append((root, name, split, some, self.folder, self.tissues, p, self.seed))
        map_jobs(_write_scene, jobs, workers=workers, what="warping photos")
        if lost := views_left_out(root, p):
            first = self.folder / next(iter(lost))
            why = "they do not have what min_std and max_saturated ask for"
            logger.warning("%d views are left out, for example of %s: %s", sum(lost.values()), first, why)

    def _usable(self, looked: list[Photo | str]) -> list[Photo]:
        """Return the photos sorted by digest, each once; what is wrong with others is told of all at once."""
        unique: dict[str, Photo] = {}
        problems: list[str] = []
        for photo in looked:
            if isinstance(photo, str):
                problems.append(photo)
                continue
            if photo.std < self.settings.min_std:
                problems.append(
                    f"{photo.path} has no texture (standard deviation {photo.std:.1f} gray levels, "
                    f"{self.settings.min_std:g} needed); remove it or lower min_std of the data set"
                )
                continue
            if photo.digest in unique:
                logger.warning("%s shows the same pixels as %s; used once", photo.path, unique[photo.digest].path)
            unique.setdefault(photo.digest, photo)
        if problems:
            more = f"; and {len(problems) - NAMED} more such photographs" if len(problems) > NAMED else ""
            raise DataError("; ".join(problems[:NAMED]) + more)
        return [unique[key] for key in sorted(unique)]

    def _split(self, photos: list[Photo]) -> dict[Split, list[Photo]]:
        """Return who is in which split; a photo stays where it is when others come or go."""
        share = self.settings.validation_share
        held = [photo for photo in photos if int(photo.digest[:8], 16) / 2**32 < share]
        if not held and len(photos) > 1:
            held = photos[:1]  # of a handful of photos none may have fallen below the share
        digests = {photo.digest for photo in held}
        return {"train": [photo for photo in photos if photo.digest not in digests], "val": held}

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:  # noqa: ARG002, pairs are known
        """Yield the scenes with their pairs: all views of a photo with each other."""
        for name in scene_names(root, VIEWS_FILE):
            yield read_views(root, name, self.settings)


class Photos(PhotoViews):
    """Photographs of the user."""

    class Params(Views):
        """Settings, ``dataset.photos`` in params.yaml."""

        root: str
        licence: str  # of the photographs, as the user knows it

    def __init__(self, params: Params, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = params.licence
        self._root = Path(params.root)

    @property
    def folder(self) -> Path:
        """The user's folder."""
        return self._root

    def source(self) -> list[tuple[str, int, int]]:
        """Return what identifies the photographs."""
        return [(str(p.relative_to(self.folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in self.files()]

    def files(self) -> list[Path]:
        """Return the photographs; where there is none, say which setting names the folder."""
        try:
            return originals(self.folder)
        except DataError as error:
            raise DataError(f"{error} (dataset.photos.root in params.yaml)") from None


def photographs(folder: Path) -> list[Path]:
    """Return the images under a folder, sorted by path, without the views in an index that was made there.

    A view would be taken for one more photograph, and may lie in the other split than its own.

    Raises:
        DataError: if there is none.
    """
    views = [path.parent / RAW for path in folder.rglob(SceneManifest.FILE) if (path.parent / RAW).is_dir()]
    found = [path for path in find_images(folder) if not any(path.is_relative_to(view) for view in views)]
    if not found:
        raise DataError(
            f"no images in {folder} but the views of {views[0].parent}; put some there or name another folder"
        )
    return found


def originals(folder: Path) -> list[Path]:
    """Return the ``photographs`` under a folder without what `minima synthesise` made of them there.

    A rendition would be taken for one more photograph, and may lie in the other split than its own.

    Raises:
        DataError: if there is none.
    """
    made = find_made(folder)
    found = [path for path in photographs(folder) if not any(path.is_relative_to(one) for one in made)]
    if not found:
        raise DataError(
            f"no images in {folder} but what `minima synthesise` made; put some there or name another folder"
        )
    return found


def _look(path: Path) -> Photo | str:
    """Return what decides over a photo, or why it cannot be used."""
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    if min(image.shape[:2]) < SMALLEST:
        return f"{path} is {image.shape[1]} x {image.shape[0]}, smaller than {SMALLEST} pixels; remove it"
    content = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return Photo(path, content, float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std()))


def _write_scene(job: tuple[Path, str, Split, list[Photo], Path, Path | None, Views, int]) -> None:
    """Write the views of some photos, and how each view came from its photo."""
    root, name, split, photos, folder, tissues, p, seed = job
    if (root / name / VIEWS_FILE).is_file():  # written last
        return
    records = {}
    for photo in photos:
        shown = read_image(photo.path)
        views = list(draw_views(shown, p, rng(seed, photo.digest, "views")))
        if len(views) < 2:
            logger.warning("%s is left out: no two views of it have what min_std and max_saturated ask for", photo.path)
            continue
        ids = None if tissues is None else read_ids(tissues / photo.path.name)
        if ids is not None and ids.shape != shown.shape[:2]:
            raise DataError(f"{photo.path} and its map in {tissues} differ in size; remove them, they are made again")
        for k, (H, view) in enumerate(views):
            write_image(root / image_path(name, f"{photo.stem}-{k}"), view)
            if ids is not None:
                seen = cv2.warpPerspective(ids, H, p.size, flags=cv2.INTER_NEAREST)
                write_image(root / tissue_path(name, f"{photo.stem}-{k}"), seen)
        records[photo.stem] = {"file": str(photo.path.relative_to(folder)), "H": [H.tolist() for H, _ in views]}
    write_json(root / name / VIEWS_FILE, {"split": split, "size": list(p.size), "photos": records})


def draw_views(photo: np.ndarray, p: Views, random: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (3, 3) homographies from an (H, W, 3) photo to its views, with the views: the central crop, perspectives.

    A view that shows only sky, say, is drawn again, and left out where that does not help.
    """
    quads = view_quads((photo.shape[1], photo.shape[0]), p, random)
    for k in range(1 + p.views):
        for _ in range(1 if k == 0 else TRIES):
            quad = next(quads)
            H = homography(quad, p.size)
            view = take(photo, H, quad, p.size)
            gray = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
            if gray.std() >= p.min_std and ((gray == 0) | (gray == 255)).mean() <= p.max_saturated:
                yield H, view
                break


def view_quads(size: tuple[int, int], p: Views, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield (4, 2) corners in the photo's pixels, clockwise from the top left: the central crop, then perspectives."""
    w, h = size
    fit = min(w / p.size[0], h / p.size[1]) * p.crop
    half = (np.array(p.size) * fit - 1) / 2
    centre = (np.array(size) - 1) / 2
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    yield centre + signs * half
    while True:
        angle = np.radians(random.uniform(-p.rotation, p.rotation))
        factor = np.exp(random.uniform(np.log(p.scale[0]), np.log(p.scale[1])))
        moved_corners = (signs + random.uniform(-p.perspective, p.perspective, (4, 2))) * half * factor
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        moved = centre + random.uniform(-p.shift, p.shift, 2) * half
        yield _inside(moved_corners @ turn + moved, size)


def _inside(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink a quad where it is larger than the photo, then push it in."""
    room = np.array(size) - 1.0
    middle = quad.mean(axis=0)
    quad = middle + (quad - middle) * min(1.0, float((room / np.ptp(quad, axis=0)).min()))
    return quad - np.minimum(quad.min(axis=0), 0) - np.maximum(quad.max(axis=0) - room, 0)


def homography(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (3, 3) float64 that maps (4, 2) ``quad`` to the corner pixels of an image of ``size`` = (W, H)."""
    rows, values = [], []
    for (x, y), (u, v) in zip(quad, corners(size).numpy(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def take(photo: np.ndarray, H: np.ndarray, quad: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the (H, W, 3) view of a photo through ``H`` (photo to view), shrunk first where the view is."""
    (ax, ay), (bx, by) = quad[2] - quad[0], quad[3] - quad[1]
    area = 0.5 * abs(ax * by - ay * bx)
    step = np.sqrt(area / (size[0] * size[1]))
    if step > 1:
        small = tuple(max(2, round(side / step)) for side in photo.shape[1::-1])
        factor = (small[0] / photo.shape[1], small[1] / photo.shape[0])
        photo = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
        H = H @ np.linalg.inv(scaling(factor).numpy())
    return cv2.warpPerspective(photo, H, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


class _Taken(NamedTuple):
    """The views of one scene: of each photograph, by the name of its views, its file and the (K, 3, 3) ways to them."""

    split: Split
    size: tuple[int, int]
    photos: dict[str, tuple[str, np.ndarray]]


def _taken(root: Path, name: str) -> _Taken:
    """Return what ``_write_scene`` wrote down."""
    path = root / name / VIEWS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        photos = {stem: (str(r["file"]), np.array(r["H"], np.float64)) for stem, r in sorted(content["photos"].items())}
        return _Taken(content["split"], (int(content["size"][0]), int(content["size"][1])), photos)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read {path} ({type(error).__name__}: {error}); {REMEDY}") from None


def kept_views(root: Path) -> dict[str, int]:
    """Return how many views ``prepare`` wrote of each photograph, by its path below their folder; sorted.

    Raises:
        DataError: if a file is missing or damaged.
    """
    taken = [view for name in scene_names(root, VIEWS_FILE) for view in _taken(root, name).photos.values()]
    return {file: len(H) for file, H in sorted(taken, key=lambda view: view[0])}


def views_left_out(root: Path, p: Views) -> dict[str, int]:
    """Return how many views the photographs lack that have some but not all, as ``kept_views`` does."""
    return {file: 1 + p.views - kept for file, kept in kept_views(root).items() if kept <= p.views}


def read_views(root: Path, name: str, p: Views) -> Scene:
    """Return one scene of the index from what ``prepare`` wrote.

    Raises:
        DataError: if a file is missing or damaged.
    """
    taken = _taken(root, name)
    images: list[str] = []
    pairs, overlaps, homographies = [], [], []
    for stem, (_, H) in taken.photos.items():
        first = len(images)
        images += [image_path(name, f"{stem}-{k}") for k in range(len(H))]
        for i, j in zip(*np.triu_indices(len(H), 1), strict=True):
            H_0to1 = H[j] @ np.linalg.inv(H[i])
            H_0to1 = H_0to1 / H_0to1[2, 2]
            overlap = homography_overlap(torch.from_numpy(H_0to1), taken.size, taken.size)
            if p.overlap[0] < overlap <= p.overlap[1]:
                pairs.append((first + i, first + j))
                overlaps.append(overlap)
                homographies.append(H_0to1)
    n = len(images)
    if missing := next((image for image in images if not (root / image).is_file()), None):
        raise DataError(f"no {root / missing}; {REMEDY}")
    return Scene(
        name,
        taken.split,
        images,
        [""] * n,
        [""] * n,
        np.tile(np.array(taken.size, np.int64), (n, 1)),
        np.full((n, 3, 3), np.nan),
        np.full((n, 4, 4), np.nan),
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array(overlaps, np.float64),
        np.array(homographies, np.float64).reshape(-1, 3, 3),
    )
