"""MegaDepth's files: how its scenes come here, each whole or not at all, and which depth maps can be used."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np

from minima_core.acquire.archives import begun, unpack
from minima_core.acquire.sources import downloads, forget, source
from minima_core.acquire.transfer import Remote, fetch, held, local_path, require_space, to_come
from minima_core.errors import DataError
from minima_core.io.atomic import UNFINISHED, write_json
from minima_core.io.depth import is_ordinal
from minima_core.io.images import SUFFIXES, image_size

ARCHIVE = source("megadepth").files[0]
ALL_SCENES = 196
TREES = ("", "MegaDepth_v1", "phoenix/S6/zl548/MegaDepth_v1", "train/phoenix/S6/zl548/MegaDepth_v1")
ABSENT = "absent.json"  # beside the scenes: those that no source has
LEFT_OUT = "left_out.json"  # in a scene's folder, written last: depth maps that cannot be used, and why
DENSE = re.compile(r"dense\d+")
logger = logging.getLogger(__name__)


def bring_scenes(root: Path, wanted: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Bring scenes to ``root/<scene>/dense<k>/{imgs,depths}`` and return those that no source has.

    A source is a folder that holds MegaDepth's tree, an archive of that tree, or archives of one scene each: a path or
    an address with ``{scene}`` in it. What the first does not have comes from the next.

    Raises:
        DataError: if none of the sources can be used, or the disk is too small.
    """
    root.mkdir(parents=True, exist_ok=True)
    failures = []
    for where in sources:
        missing = _missing(root, wanted)
        if not missing or missing == _absent(root):
            break
        try:
            _bring(where, root, missing)
        except DataError as error:
            logger.warning("%s", error)
            failures.append(str(error))
    missing = _missing(root, wanted)
    if missing == list(wanted) and failures:
        raise DataError(f"cannot get MegaDepth: {'; '.join(failures)}")
    if not failures:
        write_json(root / ABSENT, missing)
    return missing


def _absent(root: Path) -> list[str]:
    """Return the scenes that an earlier run looked for in every source, so that none is read for them again."""
    path = root / ABSENT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _missing(root: Path, wanted: Sequence[str]) -> list[str]:
    return [scene for scene in wanted if not (root / scene).is_dir()]


def _bring(where: str, root: Path, missing: Sequence[str]) -> None:
    path = local_path(where)
    if path is not None and path.is_dir():
        _copy(path, root, missing)
        return
    remotes = {scene: _remote(where, scene) for scene in missing}
    _require_space(root, remotes)
    if "{scene}" not in where:
        _unpack(remotes[missing[0]], root, missing)
        return
    failures = []
    for scene, remote in remotes.items():
        try:
            _unpack(remote, root, [scene])
        except DataError as error:
            failures.append(str(error))
    if failures:
        raise DataError(f"{len(failures)} of {len(missing)} scenes could not be had, the first: {failures[0]}")


def _require_space(root: Path, remotes: Mapping[str, Remote]) -> None:
    """Say how much disk scenes need, each with its archive, before the first of them is brought.

    Nobody says how large a scene is: each counts as its share of all. Archives of one scene go one after the other, and
    those that should be on this machine and are not need nothing.

    Raises:
        DataError: if it is not there.
    """
    found = [one for one in remotes.values() if (p := local_path(one.urls[0])) is None or p.is_file()]
    if not found:
        return
    archives = list(dict.fromkeys(found))
    official = [one for one in archives if one.urls[0] in ARCHIVE.urls]
    share = ARCHIVE.about * len(found) // (ALL_SCENES * len(archives))
    packed = [to_come(one, downloads(), ARCHIVE.about if one in official else share) for one in archives]
    unpacked = ARCHIVE.unpacked * len(found) // ALL_SCENES
    there = sum(begun(one.name, root) for one in archives)
    whole = ", with the archive of all of it," if official else ""
    require_space(
        {root: max(0, unpacked - there), downloads(): max(packed)},
        f"{len(found)} scenes of MegaDepth{whole}",
    )


def _remote(where: str, scene: str) -> Remote:
    """Return the archive of a scene, under a name that is no other scene's unless it is the archive of all."""
    url = where.replace("{scene}", scene)
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return Remote(f"{scene}-{name}" if "{scene}" in where and scene not in name else name, (url,))


def _unpack(remote: Remote, root: Path, scenes: Sequence[str]) -> None:
    archive = fetch(remote, downloads())
    unpack(archive, root, lambda path: _place(path, scenes))
    forget(archive)


def _place(path: PurePosixPath, scenes: Sequence[str]) -> PurePosixPath | None:
    """Return where a member of an archive goes: images and depth maps of the scenes asked for."""
    parts = path.parts[-4:]
    if len(parts) < 3 or not DENSE.fullmatch(parts[-3]) or parts[-2] not in {"imgs", "depths"}:
        return None
    if len(parts) == 3:  # an archive of one scene that does not name it
        return PurePosixPath(scenes[0], *parts) if len(scenes) == 1 else None
    return PurePosixPath(*parts) if parts[0] in scenes else None


def _copy(folder: Path, root: Path, scenes: Sequence[str]) -> None:
    """Copy scenes out of a folder: nothing that is made from them points outside the checkout."""
    found = {scene: place for scene in scenes for tree in TREES if (place := folder / tree / scene).is_dir()}
    if not found:
        raise DataError(
            f"{folder} holds none of the scenes {', '.join(scenes[:3])} … of MegaDepth, looked for {TREES[2]}"
        )
    files = {
        scene: sorted(p for p in place.glob("dense*/*/*") if p.parent.name in {"imgs", "depths"})
        for scene, place in found.items()
    }
    size = sum(p.stat().st_size for paths in files.values() for p in paths)
    buildings = {scene: root / f".{scene}{UNFINISHED}" for scene in files}
    require_space({root: max(0, size - held(*buildings.values()))}, "copying MegaDepth's scenes")
    for scene, paths in files.items():
        building = buildings[scene]
        for path in paths:
            target = building / path.relative_to(found[scene])
            if not (target.is_file() and target.stat().st_size == path.stat().st_size):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if paths:
            building.replace(root / scene)


def sift(job: tuple[Path, str]) -> None:
    """Write down which depth maps of a scene cannot be used, unless an earlier run did."""
    root, scene = job
    folder = root / scene
    if (folder / LEFT_OUT).is_file():
        return
    reasons = {}
    for dense in sorted(p for p in folder.iterdir() if DENSE.fullmatch(p.name)):
        images = {p.stem: p for p in sorted((dense / "imgs").glob("*")) if p.suffix.lower() in SUFFIXES}
        if not images:
            logger.warning("%s/%s holds no images; it is left out", scene, dense.name)
        for path in sorted((dense / "depths").glob("*.h5")):
            if reason := depth_problem(path, images.get(path.stem)):
                reasons[path.relative_to(root).as_posix()] = reason
    if reasons:
        logger.info("scene %s: left out %s", scene, dict(Counter(reasons.values())))
    write_json(folder / LEFT_OUT, reasons)


def left_out(root: Path, scene: str) -> Collection[str]:
    """Return the depth maps of a scene that cannot be used.

    Raises:
        DataError: if the file that says so is missing or damaged.
    """
    try:
        found: dict[str, str] = json.loads((root / scene / LEFT_OUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {root / scene / LEFT_OUT} ({error}); bring the scene again") from None
    return found.keys()


def depth_problem(path: Path, image: Path | None) -> str:
    """Return why a depth map cannot supervise anything, "" where it can."""
    if image is None:
        return "no image of that name"
    try:
        with h5py.File(path, "r") as file:
            depth = np.asarray(file["depth"], np.float32)
        size = image_size(image)
    except (OSError, KeyError, ValueError, DataError):
        return "damaged"
    if depth.ndim != 2 or not np.isfinite(depth).all():
        return "no depth map"
    if depth.shape != (size[1], size[0]):
        return "another size than its image"
    return "ordinal" if is_ordinal(depth) else "" if depth.any() else "empty"
