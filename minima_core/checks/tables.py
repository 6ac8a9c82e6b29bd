"""The tables that validation looks at: a row per scene, source image, pair, synthesised image and modality.

Sizes, ids, cameras, poses and digests are taken of everything; pixels of at most ``sample_per_scene`` images a scene,
the same ones in every run. A file that cannot be read becomes a row with the reason in ``problem``, so that one damaged
image is reported beside all others and not instead of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from minima_core.checks.cameras import camera_problem, homography_problem, pose_error
from minima_core.checks.contrast import contrast, off_palette
from minima_core.checks.structure import Field, agreement, depth_fields, image_field
from minima_core.data.index import Scene, index_digest, read_scene
from minima_core.data.shards import Shard
from minima_core.errors import DataError
from minima_core.io.depth import read_depth
from minima_core.io.images import decode, image_size, read_image
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest
from minima_core.parallel import map_jobs
from minima_core.random import rng

Row = dict[str, Any]
Palette = Sequence[Sequence[int]]


@dataclass
class Tables:
    """Rows of plain values by table.

    Attributes:
        scenes: what the index's manifest says of a scene against what its file holds.
        images: one row a source image: file, size, camera, pose, depth, contrast.
        pairs: one row a pair: overlap, homography.
        manifests: one row a complete modality: where it was made from, what could not be made.
        renditions: by modality, one row an image that should be there.
        unavailable: modality -> why it could not be made; it has no rows.
    """

    scenes: list[Row] = field(default_factory=list)
    images: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)
    manifests: list[Row] = field(default_factory=list)
    renditions: dict[str, list[Row]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def add(self, other: Tables) -> None:
        """Append another scene's rows."""
        self.scenes += other.scenes
        self.images += other.images
        self.pairs += other.pairs
        for modality, rows in other.renditions.items():
            self.renditions.setdefault(modality, []).extend(rows)


def build_tables(
    raw: Path,
    index: Path,
    modalities: Path,
    *,
    names: Sequence[str],
    sample_per_scene: int,
    palettes: Mapping[str, Palette],
    seed: int = 0,
    workers: int = 1,
) -> Tables:
    """Return all tables of an index and of the modalities ``names`` below ``modalities``.

    ``palettes`` names the only RGB colours a modality may have, for those that have few.

    Raises:
        DataError: if the index, a scene or a modality's manifest is missing or unreadable.
    """
    entries = SceneManifest.load(index).scenes
    manifests = {name: ModalityManifest.load(modalities / name) for name in names}
    complete = {name: m for name, m in manifests.items() if m.status == "complete"}
    work = partial(
        scene_tables,
        raw,
        index,
        modalities,
        failed={name: m.without() for name, m in complete.items()},
        sample_per_scene=sample_per_scene,
        palettes=palettes,
        seed=seed,
    )
    tables = Tables(renditions={name: [] for name in complete})
    for part in map_jobs(work, entries, workers=workers, what="checking scenes"):
        tables.add(part)
    tables.unavailable = {name: m.reason for name, m in manifests.items() if m.status == "unavailable"}
    ids = {row["image"] for row in tables.images}
    digest = index_digest(index)
    tables.manifests = [_manifest_row(modalities, name, m, digest, ids) for name, m in complete.items()]
    _mark_leaks(tables.images)
    return tables


def scene_tables(
    raw: Path,
    index: Path,
    modalities: Path,
    entry: SceneEntry,
    *,
    failed: Mapping[str, frozenset[str]],
    sample_per_scene: int,
    palettes: Mapping[str, Palette],
    seed: int = 0,
) -> Tables:
    """Return the rows of one scene; ``failed`` lists by complete modality the images that could not be made."""
    scene = read_scene(index, entry.name)
    ids = [scene.image_id(i) for i in range(len(scene.image))]
    sampled = sample(scene, sample_per_scene, seed)
    fields: dict[str, list[Field]] = {}
    file = str(index / f"{entry.name}.h5")
    tables = Tables(
        scenes=[{**_scene_row(scene, entry, ids), "file": file}],
        pairs=[{**_pair_row(scene, ids, k), "file": file} for k in range(len(scene.pairs))],
    )
    for i, name in enumerate(ids):
        row, fields[name] = _image_row(raw, scene, i, look=i in sampled)
        tables.images.append(row)
    sizes = {name: (int(w), int(h)) for name, (w, h) in zip(ids, scene.size, strict=True)}
    for modality, without in failed.items():
        expected = {name: size for name, size in sizes.items() if name not in without}
        shard = modalities / modality / f"{scene.name}.h5"
        tables.renditions[modality] = [
            {"scene": scene.name, "file": str(shard), **row}
            for row in _rendition_rows(shard, expected, fields, palettes.get(modality))
        ]
    return tables


def sample(scene: Scene, count: int, seed: int) -> set[int]:
    """Return which images of a scene are looked at: all, or ``count`` that depend on the seed and the scene's name."""
    if len(scene.image) <= count:
        return set(range(len(scene.image)))
    return set(rng(seed, scene.name, "validate").choice(len(scene.image), count, replace=False).tolist())


def _scene_row(scene: Scene, entry: SceneEntry, ids: list[str]) -> Row:
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
    }


def _pair_row(scene: Scene, ids: list[str], k: int) -> Row:
    i, j = (int(n) for n in scene.pairs[k])
    size = (int(scene.size[i][0]), int(scene.size[i][1]))
    return {
        "pair": f"{ids[i]} - {ids[j]}",
        "split": scene.split,
        "overlap": float(scene.overlap[k]),
        "homography": "" if scene.H_0to1 is None else homography_problem(scene.H_0to1[k], size),
    }


def _image_row(raw: Path, scene: Scene, i: int, *, look: bool) -> tuple[Row, list[Field]]:
    path = raw / scene.image[i]
    size = (int(scene.size[i][0]), int(scene.size[i][1]))
    row: Row = {"image": scene.image_id(i), "file": str(path), "scene": scene.name, "split": scene.split}
    row |= {"index_width": size[0], "index_height": size[1], "sha256": "", "problem": "", "depth_problem": ""}
    fields: list[Field] = []
    try:
        data = path.read_bytes()
        row["sha256"] = hashlib.sha256(data).hexdigest()
        row["width"], row["height"] = image_size(data, str(path))
        if look:
            image = read_image(path)
            row |= contrast(image)
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
            row: Row = {"image": name, "problem": "", "source_width": size[0], "source_height": size[1]}
            try:
                data = shard.encoded(name)
                row["width"], row["height"] = image_size(data, f"{name} in {path}")
                if fields[name]:
                    row |= _rendition(decode(data, f"{name} in {path}"), fields[name], palette)
            except DataError as error:
                row["problem"] = _short(error)
            yield row


def _rendition(image: Any, sources: Sequence[Field], palette: Palette | None) -> Row:
    row: Row = contrast(image)
    if palette is not None:
        row["off_palette"] = off_palette(image, palette)
    own = image_field(image)
    found = [a for a in (agreement(source, own) for source in sources) if a is not None]
    row["judged"] = float(bool(found))
    if found:  # a depth or normal map follows the scene's geometry where the photograph's edges are only texture
        best = max(found, key=lambda a: a.score)
        row |= {"agreement": best.score, "offset": best.offset}
    return row


def _manifest_row(folder: Path, name: str, manifest: ModalityManifest, digest: str, ids: set[str]) -> Row:
    held: set[str] = set()
    for scene in manifest.scenes:
        path = folder / name / f"{scene}.h5"
        if path.is_file():
            with Shard(path) as shard:
                held |= set(shard.ids)
    surplus = sorted(held - ids)
    return {
        "modality": name,
        "named": manifest.modality,
        "source_digest": manifest.source_digest,
        "index_digest": digest,
        "surplus": ", ".join(surplus[:3]) + (f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""),
        "failed": len(manifest.without()) / max(len(ids), 1),
        "failed_images": ", ".join(sorted(manifest.without())[:3]),
        "random": "its network has random weights" if manifest.weights == "random" else "",
    }


def _mark_leaks(rows: list[Row]) -> None:
    """Set ``leak`` to the file of another split that has the same content or path, "" where there is none."""
    by_content: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_content[row["sha256"] or row["file"]].append(row)
    for row in rows:
        same = by_content[row["sha256"] or row["file"]]
        other = next((r for r in same if r["split"] != row["split"]), None)
        row["leak"] = f"the same as {other['file']} of split {other['split']}" if other else ""


def _short(error: Exception) -> str:
    """Return what is wrong without the remedy, which the rule gives once for all files."""
    return str(error).split(";")[0]
