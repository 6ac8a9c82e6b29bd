"""Folders of images that lie on the same pixels, RGB beside infrared, say, as in LLVIP, M3FD and MSRS.

A photograph and its partner have the same path below folders that are called after what they hold: ``visible/0001.jpg``
and ``infrared/0001.jpg``. Of each photograph views are taken as of any other, and of its partners the same views: they
become the images of a real modality, which training draws from as from a synthesised one. Published folders lie beside
annotations and pictures of labels: what is called after no modality is left out, unless a setting names it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from minima_core.data.datasets._layout import scene_names
from minima_core.data.datasets.photos import VIEWS_FILE, Photos, photographs, read_views, take
from minima_core.data.importers.base import MODALITIES, RAW, Importer, Skipped, inside
from minima_core.data.importers.photos import ViewSettings, add_left_out
from minima_core.data.index import Scene, index_digest
from minima_core.data.shards import Shard, write_shard
from minima_core.errors import DataError
from minima_core.geometry.coords import scaling
from minima_core.geometry.homography import corners
from minima_core.io.images import encode_jpeg, image_size, read_image
from minima_core.licences import named
from minima_core.manifest import ModalityManifest, SceneManifest
from minima_core.synthesis.base import MODALITIES as KNOWN
from minima_core.types import RGB

ASPECT = 0.01  # share by which the sides' ratios of partners may differ
UNKNOWN = "folder that is called after no modality; --set modalities=[NAME] takes it"
NAMES = {  # what folders are called, beside the modalities themselves
    **dict.fromkeys(("rgb", "visible", "vis", "vi", "color", "colour", "optical", "opt"), RGB),
    **dict.fromkeys(("infrared", "ir", "thermal", "tir", "lwir"), "infrared"),
}


class _Partnered(Photos):
    """The photographs that have a partner."""

    def __init__(self, params: Photos.Params, files: list[Path], *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self._files = files

    def files(self) -> list[Path]:
        """Return them."""
        return self._files


@dataclass(frozen=True)
class _Found:
    """What lies in a source: by modality its folder, and its images by their key; the folders that are not taken."""

    folders: dict[str, Path]
    files: dict[str, dict[str, Path]]
    left_out: Skipped


class Aligned(Importer):
    """Photographs with pixel-aligned partners; brings the views that it takes, and shards of the partners' views."""

    class Params(ViewSettings):
        """Settings, those of photographs."""

        modalities: tuple[str, ...] = ()  # folders to take though no known modality is called so

    relation = "homography"

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Aligned.Params", self.params)

    @cached_property
    def _found(self) -> _Found:
        return _look(self.source, {_modality(name) for name in self.settings.modalities})

    @property
    def _folders(self) -> dict[str, Path]:
        """The folder of each modality."""
        return self._found.folders

    @property
    def _partners(self) -> dict[str, dict[str, Path]]:
        """The files of each modality by their path below its folder, without suffix."""
        return self._found.files

    @property
    def _views(self) -> _Partnered:
        others = [found for name, found in self._partners.items() if name != RGB]
        files = [path for key, path in self._partners[RGB].items() if any(key in found for found in others)]
        if not files:
            raise DataError(f"no image in {self._folders[RGB]} has one of the same name beside it; see --from aligned")
        params = self.settings.of(self._folders[RGB])
        return _Partnered(params, files, seed=self.seed)

    def prepare(self, out: Path, *, workers: int = 1) -> None:
        """Take the views of all photographs that have a partner."""
        views, rgb = self._views, self._folders[RGB]
        self.left_out.merge(self._found.left_out)
        alone = set(self._partners[RGB]) - {_key(path, rgb) for path in views.files()}
        self.left_out.add("rgb image without a partner", [self._partners[RGB][key].name for key in sorted(alone)])
        for name, found in self._partners.items():
            self.left_out.add(
                f"{name} image without an rgb one",
                [found[key].name for key in sorted(set(found) - set(self._partners[RGB]))],
            )
        views.prepare(out / RAW, workers=workers)
        add_left_out(self.left_out, views, out / RAW)

    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes."""
        return scene_names(out / RAW, VIEWS_FILE)

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:  # noqa: ARG002
        """Return a scene with all pairs of views of one photograph, after writing the partners' shards."""
        photos = json.loads((out / RAW / name / VIEWS_FILE).read_text(encoding="utf-8"))["photos"]
        size = self.settings.size
        for modality in (modality for modality in self._folders if modality != RGB):
            items = []
            for stem, record in sorted(photos.items()):
                photo = self._folders[RGB] / record["file"]
                partner = self._partners[modality].get(_key(photo, self._folders[RGB]))
                if reason := _problem(photo, partner):
                    skipped.add(f"{modality} {reason}", [record["file"]])
                    continue
                assert partner is not None
                views = _same_views(partner, photo, [np.array(H) for H in record["H"]], size)
                items += [(f"{name}/{stem}-{k}", encode_jpeg(view), "{}") for k, view in enumerate(views)]
            write_shard(out / MODALITIES / modality / f"{name}.h5", items)
        return read_views(out / RAW, name, self._views.settings)

    def finish(self, out: Path) -> None:
        """Write the manifest of each modality."""
        index = SceneManifest.load(out)
        for modality in (modality for modality in self._folders if modality != RGB):
            scenes: dict[str, int] = {}
            failed: dict[str, str] = {}
            for entry in index.scenes:
                with Shard(out / MODALITIES / modality / f"{entry.name}.h5") as shard:
                    scenes[entry.name] = len(shard.ids)
                    scene = read_views(out / RAW, entry.name, self._views.settings)
                    ids = [scene.image_id(i) for i in range(len(scene.image))]
                    failed |= {name: "has no partner" for name in ids if name not in shard}
            ModalityManifest(
                modality=modality,
                engine="aligned",
                params={},
                seed=self.seed,
                licence=self.licence,
                commercial=named(self.licence).commercial,
                encoding="jpeg95",
                source_digest=index_digest(out),
                status="complete",
                scenes=scenes,
                failed=failed,
            ).save(out / MODALITIES / modality)


def _modality(name: str) -> str:
    """Return the modality that a folder of this name holds."""
    return NAMES.get(name.lower(), name.lower())


def _look(source: Path, wanted: set[str]) -> _Found:
    """Return the folders of images in a source whose modality is known or ``wanted``.

    Raises:
        DataError: if there is no folder of RGB images, none beside it, none that is wanted, or two of one kind; if two
            images of a folder differ in their suffix alone.
    """
    found = _Found({}, {}, Skipped())
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and path.name[0] != "."):
        name, images = _modality(folder.name), _images(inside(source, folder))
        if not images:
            found.left_out.add("folder without images", [folder.name])
        elif name not in {*NAMES.values(), *KNOWN.names(), *wanted}:
            found.left_out.add(UNKNOWN, [folder.name])
        elif name in found.folders:
            raise DataError(f"{folder} and {found.folders[name]} both hold {name} images; take one of them away")
        else:
            found.folders[name] = folder
            found.files[name] = _by_key(folder, [inside(source, path) for path in images])
    held = ", ".join(folder.name for folder in found.folders.values()) or "no folder of images of a modality"
    left_out = f"; left out: {found.left_out.summary()}" if found.left_out.counts else ""
    if missing := sorted(wanted - found.folders.keys()):
        raise DataError(f"{source} holds {held}, and nothing called {missing[0]} as --set modalities asks{left_out}")
    if RGB not in found.folders or len(found.folders) < 2:
        raise DataError(
            f"{source} holds {held}; a folder rgb (or visible) and one for each other modality (infrared, say) are "
            f"needed there{left_out}"
        )
    return found


def _by_key(folder: Path, images: list[Path]) -> dict[str, Path]:
    """Return the images of a folder by what partners know them by."""
    files: dict[str, Path] = {}
    for path in images:
        if (other := files.setdefault(_key(path, folder), path)) is not path:
            raise DataError(f"{other} and {path} would have the same partners; take one of them away")
    return files


def _images(folder: Path) -> list[Path]:
    """Return the images under a folder, of which there may be none."""
    try:
        return photographs(folder)
    except DataError:
        return []


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _problem(photo: Path, partner: Path | None) -> str:
    """Return why there is no partner to a photograph, "" where there is one."""
    if partner is None:
        return "partner that is not there"
    (w, h), (other_w, other_h) = image_size(photo), image_size(partner)
    return "" if abs(w / h / (other_w / other_h) - 1) <= ASPECT else "partner of another shape"


def _same_views(partner: Path, photo: Path, H: list[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """Return the views of a partner that the homographies (photo to view) take of the photograph."""
    image, (w, h) = read_image(partner), image_size(photo)
    larger = scaling((w / image.shape[1], h / image.shape[0])).numpy()  # partner to photo
    views = []
    for H_view in (one @ larger for one in H):
        points = np.column_stack([corners(size).numpy(), np.ones(4)]) @ np.linalg.inv(H_view).T
        views.append(take(image, H_view, points[:, :2] / points[:, 2:], size))
    return views
