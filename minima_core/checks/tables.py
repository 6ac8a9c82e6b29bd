"""The tables that validation looks at: a row per scene, source image, pair, synthesised image and modality.

Sizes, ids, cameras, poses and digests are taken of everything; pixels of a sample of the images and pairs of each
scene, the same ones in every run. A file that cannot be read becomes a row with the reason in ``problem``, so that one
damaged image is reported beside all others and not instead of them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minima_core.checks.cameras import camera_problem, homography_problem, pose_error
from minima_core.checks.contrast import contrast, off_palette
from minima_core.checks.fit import pair_fit, picture_look, same_looks, same_picture, turned
from minima_core.checks.store import Row, Tables
from minima_core.checks.structure import Field, agreement, depth_fields, image_field
from minima_core.data.index import Scene, index_digest, read_scene, scene_folder, scene_folders
from minima_core.data.shards import Shard
from minima_core.errors import DataError
from minima_core.geometry.epipolar import fundamental
from minima_core.geometry.pose import relative_pose
from minima_core.io.depth import is_ordinal, read_depth
from minima_core.io.images import decode, exif_orientation, image_size, read_image
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest, scene_of
from minima_core.parallel import map_jobs
from minima_core.random import rng

Palette = Sequence[Sequence[int]]
MATCHABLE = 0.4  # overlap from which the pose of a pair is checked by matching it
FLAT = 5.0  # gray levels; pictures of less contrast all look the same
FOLDERS = ("imgs", "depths", "materials")


@dataclass(frozen=True)
class Sampling:
    """How closely to look.

    Attributes:
        images: of a scene, whose pixels are looked at.
        pairs: of a scene, that are matched.
        held_out: scenes of benchmarks, which nothing may be trained or validated on.
        palettes: the only RGB colours a modality may have, for those that have few.
        seed: of what is drawn.
    """

    images: int
    pairs: int
    held_out: Collection[str] = ()
    palettes: Mapping[str, Palette] = field(default_factory=dict)
    seed: int = 0


def build_tables(
    raw: Path, index: Path, modalities: Path, file: Path, *, names: Sequence[str], sampling: Sampling, workers: int = 1
) -> Tables:
    """Return all tables of an index and of the modalities ``names`` below ``modalities``, in a new ``file``.

    Raises:
        DataError: if the index, a scene or a modality's manifest is missing or unreadable.
    """
    entries = SceneManifest.load(index).scenes
    manifests = {name: ModalityManifest.load(modalities / name) for name in names}
    complete = {name: m for name, m in manifests.items() if m.status == "complete"}
    tables = Tables(file, complete)
    tables.unavailable = {name: m.reason for name, m in manifests.items() if m.status == "unavailable"}
    failed = {name: m.without() for name, m in complete.items()}
    work = partial(scene_tables, raw, index, modalities, file, failed=failed, sampling=sampling)
    for part in map_jobs(work, list(enumerate(entries)), workers=workers, what="checking scenes"):
        tables.merge(part)
    tables.change(*(f"create index by_{column} on images ({column})" for column in ("content", "image", "scene")))
    tables.add("scenes", _forgotten(raw, tables))
    digest = index_digest(index)
    tables.add("manifests", [_manifest_row(modalities, name, m, digest, tables) for name, m in complete.items()])
    _mark_copies(tables)
    return tables


def scene_tables(
    raw: Path,
    index: Path,
    modalities: Path,
    file: Path,
    job: tuple[int, SceneEntry],
    *,
    failed: Mapping[str, frozenset[str]],
    sampling: Sampling,
) -> Path:
    """Write the tables of one scene beside ``file`` and return where.

    ``failed`` lists by complete modality the images that could not be made.
    """
    number, entry = job
    part = file.with_name(f"{file.stem}-{number}.db")
    tables = Tables(part, failed)
    scene = read_scene(index, entry.name)
    ids = [scene.image_id(i) for i in range(len(scene.image))]
    sampled = sample(scene, sampling.images, sampling.seed)
    fields: dict[str, list[Field]] = {}
    records = str(index / f"{entry.name}.h5")
    tables.add("scenes", [{**_scene_row(raw, scene, entry, ids, sampling.held_out), "file": records}])
    tables.add("pairs", _pair_rows(raw, scene, ids, records, sampling))
    rows = []
    for i, name in enumerate(ids):
        row, fields[name] = _image_row(raw, scene, i, look=i in sampled)
        rows.append(row)
    tables.add("images", rows)
    sizes = {name: (int(w), int(h)) for name, (w, h) in zip(ids, scene.size, strict=True)}
    for modality, without in failed.items():
        expected = {name: size for name, size in sizes.items() if name not in without}
        shard = modalities / modality / f"{scene.name}.h5"
        found = _rendition_rows(shard, expected, fields, sampling.palettes.get(modality))
        tables.add(modality, ({"scene": scene.name, "file": str(shard), **row} for row in found))
    return part


def sample(scene: Scene, count: int, seed: int) -> set[int]:
    """Return which images of a scene are looked at: all, or ``count`` that depend on the seed and the scene's name."""
    if len(scene.image) <= count:
        return set(range(len(scene.image)))
    return set(rng(seed, scene.name, "validate").choice(len(scene.image), count, replace=False).tolist())


def _scene_row(raw: Path, scene: Scene, entry: SceneEntry, ids: list[str], held_out: Collection[str]) -> Row:
    doubled = [name for name, count in Counter(ids).items() if count > 1]
    loops = sum(int(i == j) for i, j in scene.pairs)
    wrong = {
        "name": scene.name != entry.name,
        "split": scene.split != entry.split,
        "number of images": len(ids) != entry.images,
        "number of pairs": len(scene.pairs) != entry.pairs,
    }
    return {
        "scene": entry.name,
        "split": entry.split,
        "differs": ", ".join(what for what, found in wrong.items() if found),
        "doubled": ", ".join(doubled[:3]),
        "loops": loops,
        "held_out": _held_out(scene, held_out),
        "empty": _empty(raw, {scene_folder(path) for path in scene.image}) if scene.image else "it has no images",
    }


def _held_out(scene: Scene, names: Collection[str]) -> str:
    """Say that a scene belongs to a benchmark and is not in the split test; parts of a scene have its name first."""
    place = re.split(r"[-_]", scene.name)[0]
    return f"{place} is in the split {scene.split}" if place in names and scene.split != "test" else ""


def _empty(raw: Path, folders: Iterable[str]) -> str:
    """Name the folders of images or depth maps that hold nothing."""
    found = [
        path.relative_to(raw).as_posix()
        for folder in sorted(folders)
        for path in sorted((raw / folder).glob("dense*/*"))
        if path.name in FOLDERS and path.is_dir() and not any(path.iterdir())
    ]
    return ", ".join(found)


def _forgotten(raw: Path, tables: Tables) -> Iterator[Row]:
    """Yield a row for each folder of raw scenes that the index lacks and that holds an empty folder."""
    known = {
        scene_folder(Path(file).relative_to(raw).as_posix())
        for (file,) in tables.ask("select min(file) from images group by scene")
    }
    for folder in scene_folders(raw):
        if folder not in known and (empty := _empty(raw, [folder])):
            row = {"scene": folder, "file": str(raw / folder), "empty": empty}
            yield {**row, "differs": "", "doubled": "", "held_out": ""}


def _pair_rows(raw: Path, scene: Scene, ids: list[str], file: str, sampling: Sampling) -> Iterator[Row]:
    chosen = _matchable(scene, sampling.pairs, sampling.seed)
    for k, ((i, j), overlap) in enumerate(zip(scene.pairs.tolist(), scene.overlap.tolist(), strict=True)):
        size = (int(scene.size[i][0]), int(scene.size[i][1]))
        yield {
            "pair": f"{ids[i]} - {ids[j]}",
            "file": file,
            "split": scene.split,
            "overlap": overlap,
            "homography": "" if scene.H_0to1 is None else homography_problem(scene.H_0to1[k], size),
            "fit": _fit(raw, scene, k) if k in chosen else None,
        }


def _matchable(scene: Scene, count: int, seed: int) -> set[int]:
    """Return which pairs of a scene are matched: ``count`` of those that overlap enough."""
    enough = np.flatnonzero(scene.overlap >= MATCHABLE)
    if len(enough) > count:
        enough = rng(seed, scene.name, "validate", "pairs").choice(enough, count, replace=False)
    return set(enough.tolist())


def _fit(raw: Path, scene: Scene, k: int) -> float | None:
    """Return the share of a pair's matches that fit its pose or homography; what cannot be read is another rule's."""
    i, j = (int(n) for n in scene.pairs[k])
    try:
        image0, image1 = (read_image(raw / scene.image[n]) for n in (i, j))
    except DataError:
        return None
    if scene.H_0to1 is not None:
        return pair_fit(image0, image1, H_0to1=scene.H_0to1[k]) if np.isfinite(scene.H_0to1[k]).all() else None
    T_w2c, K = torch.from_numpy(scene.T_w2c), torch.from_numpy(scene.K)
    try:
        F_0to1 = fundamental(relative_pose(T_w2c[i], T_w2c[j]), K[i], K[j]).numpy()
    except RuntimeError:  # a matrix that has no inverse
        return None
    return pair_fit(image0, image1, F_0to1=F_0to1) if np.isfinite(F_0to1).all() else None


def _image_row(raw: Path, scene: Scene, i: int, *, look: bool) -> tuple[dict[str, Any], list[Field]]:
    path = raw / scene.image[i]
    size = (int(scene.size[i][0]), int(scene.size[i][1]))
    row: dict[str, Any] = {"image": scene.image_id(i), "file": str(path), "scene": scene.name, "split": scene.split}
    row |= {"index_width": size[0], "index_height": size[1], "problem": "", "depth_problem": ""}
    row["orientation"] = ""
    row["content"] = row["file"]
    image: np.ndarray | None = None
    fields: list[Field] = []
    try:
        data = path.read_bytes()
        row["content"] = hashlib.sha256(data).hexdigest()
        row["width"], row["height"] = image_size(data, str(path))
        if scene.H_0to1 is None and (turn := exif_orientation(data, str(path))) != 1:
            row["orientation"] = f"its EXIF says that it lies otherwise ({turn}), which cameras and depth do not know"
        if look:
            image = read_image(path)
            row |= contrast(image)
            if row["std"] >= FLAT:
                row["look"] = f"{picture_look(image):x}"
            fields.append(image_field(image))
    except (DataError, OSError) as error:
        row["problem"] = _short(error)
    if scene.H_0to1 is None:
        row |= {"camera": camera_problem(scene.K[i], size), "pose_error": pose_error(scene.T_w2c[i])}
    else:
        row |= {"camera": "", "pose_error": 0.0}
    if scene.depth[i]:
        found, more = _depth(raw / scene.depth[i], size, look=look)
        row |= found
        if image is not None and more and (how := turned(image, more)):
            row["orientation"] = f"it fits its depth map when it is {how}"
        fields += more
    return row, fields


def _depth(path: Path, size: tuple[int, int], *, look: bool) -> tuple[Row, list[Field]]:
    if not path.is_file():
        return {"depth_problem": f"no file {path}"}, []
    if not look:
        return {}, []
    try:
        depth = read_depth(path)
    except DataError as error:
        return {"depth_problem": _short(error)}, []
    if depth.shape != (size[1], size[0]):
        return {"depth_problem": f"{path} has shape {depth.shape}, its image {size[1], size[0]}"}, []
    if is_ordinal(depth):
        return {"depth_problem": f"{path} holds labels that order regions, no distances"}, []
    return {"depth_coverage": float((depth > 0).mean())}, depth_fields(depth)


def _rendition_rows(
    path: Path, expected: Mapping[str, tuple[int, int]], fields: Mapping[str, list[Field]], palette: Palette | None
) -> Iterable[Row]:
    try:
        shard = Shard(path)
    except DataError as error:
        yield from ({"image": name, "problem": _short(error)} for name in expected)
        return
    with shard:
        for name, size in expected.items():
            row: dict[str, Any] = {"image": name, "problem": "", "source_width": size[0], "source_height": size[1]}
            try:
                data = shard.encoded(name)
                row["width"], row["height"] = image_size(data, f"{name} in {path}")
                if fields[name]:
                    row |= _rendition(decode(data, f"{name} in {path}"), fields[name], palette)
            except DataError as error:
                row["problem"] = _short(error)
            yield row


def _rendition(image: Any, sources: Sequence[Field], palette: Palette | None) -> Row:
    row: dict[str, Any] = dict(contrast(image))
    if palette is not None:
        row["off_palette"] = off_palette(image, palette)
    own = image_field(image)
    found = [a for a in (agreement(source, own) for source in sources) if a is not None]
    row["judged"] = float(bool(found))
    if found:  # a depth or normal map follows the scene's geometry where the photograph's edges are only texture
        best = max(found, key=lambda a: a.score)
        row |= {"agreement": best.score, "offset": best.offset}
    return row


def _manifest_row(folder: Path, name: str, manifest: ModalityManifest, digest: str, tables: Tables) -> Row:
    surplus: list[str] = []
    for scene in manifest.scenes:
        path = folder / name / f"{scene}.h5"
        if path.is_file():
            known = {image for (image,) in tables.ask("select image from images where scene = ?", (scene,))}
            with Shard(path) as shard:
                surplus += sorted(set(shard.ids) - known)
    lacking = manifest.lacking()
    left_out = sorted(image for image in manifest.without() if scene_of(image) not in lacking)
    images = tables.ask("select scene, count(*) from images group by scene")
    asked = sum(count for scene, count in images if scene not in lacking)
    return {
        "modality": name,
        "file": str(folder / name / ModalityManifest.FILE),
        "named": manifest.modality,
        "source_digest": manifest.source_digest,
        "index_digest": digest,
        "surplus": ", ".join(surplus[:3]) + (f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""),
        "failed": len(left_out) / max(asked, 1),
        "failed_images": ", ".join(left_out[:3]),
        "random": "its network has random weights" if manifest.weights == "random" else "",
    }


def _mark_copies(tables: Tables) -> None:
    """Set ``leak`` to the file of another split with the same content, path or look, ``copy`` to an earlier one."""
    same = (
        "(select {what} from images other where other.content = images.content and {which} "
        "order by other.rowid limit 1)"
    )
    leak = same.format(
        what="'the same as ' || other.file || ' of split ' || other.split", which="other.split != images.split"
    )
    copy = same.format(
        what="'the same as ' || other.file", which="other.split = images.split and other.rowid < images.rowid"
    )
    tables.change(f"update images set leak = coalesce({leak}, ''), copy = coalesce({copy}, '')")
    looks = tables.ask("select rowid, file, split, look from images where look is not null order by rowid")
    for i, j in same_looks([int(value, 16) for *_, value in looks]):
        one, two = looks[i], looks[j]
        if one[2] == two[2] or not same_picture(read_image(Path(one[1])), read_image(Path(two[1]))):
            continue
        for (row, *_), (_, file, other, _) in ((one, two), (two, one)):
            found = f"looks the same as {file} of split {other}"
            tables.change("update images set leak = ? where rowid = ? and leak = ''", values=(found, row))


def _short(error: Exception) -> str:
    """Return what is wrong without the remedy, which the rule gives once for all files."""
    return str(error).split(";")[0]
