"""From somebody else's form to the one index: a folder with ``index.json``, a file a scene and a report."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from minima_core.config import checked, digest, unknown
from minima_core.data.importers.base import IMPORTERS, RAW, Importer, Skipped
from minima_core.data.index import Scene, index_digest, write_scene
from minima_core.errors import ConfigError, DataError
from minima_core.io.atomic import new_folder
from minima_core.manifest import RawDataset, SceneEntry, SceneManifest
from minima_core.parallel import map_jobs


class LeftOut(BaseModel):
    """What an import did not take for one reason."""

    reason: str
    count: int
    first: list[str]


class ImportReport(BaseModel):
    """What an import found."""

    form: str
    scenes: int
    images: int
    pairs: int
    splits: dict[str, int]  # scenes a split
    skipped: list[LeftOut]
    raw: str  # where the images lie; "" where only an index was there, so that sizes are unknown
    digest: str


def forms() -> list[str]:
    """Return the names of all forms, as the command line has them."""
    return [name.replace("_", "-") for name in IMPORTERS.names()]


def build_index(
    form: str,
    source: Path,
    out: Path,
    *,
    settings: dict[str, Any] | None = None,
    images: Path | None = None,
    seed: int = 0,
    workers: int = 1,
) -> ImportReport:
    """Write the index of ``source`` to ``out``, whole or not at all.

    An index that is already there is replaced when the new one is whole; any other folder is left alone.

    Raises:
        ConfigError: if the form or a setting is unknown.
        DataError: if the source is not in that form, a file is damaged or refused, no pair is left, or another process
            builds an index at ``out``.
    """
    if form not in forms():
        raise ConfigError(f"--from: {unknown(form, forms(), 'the forms')}")
    _check_out(out, source)
    plugin = IMPORTERS.get(form.replace("-", "_"))
    importer = plugin(source, checked(settings or {}, plugin.Params, "--set"), images=images, seed=seed)
    with new_folder(out) as folder:
        report = _build(importer, form, folder, workers)
    return report.model_copy(update={"digest": index_digest(out), "raw": _raw(importer, out)})


def _check_out(out: Path, source: Path) -> None:
    if out.exists() and not (out / SceneManifest.FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is no index; give another folder")
    if source.exists() and (source.resolve() == out.resolve() or source.resolve().is_relative_to(out.resolve())):
        raise ConfigError(f"--out {out} holds the source; give another folder")


def _raw(importer: Importer, out: Path) -> str:
    if (out / RAW).is_dir():
        return (out / RAW).resolve().as_posix()
    return importer.root.as_posix() if importer.root else ""


def _build(importer: Importer, form: str, folder: Path, workers: int) -> ImportReport:
    importer.prepare(folder, workers=workers)
    names, _ = importer.names(folder), importer.root  # found once, before the work is spread
    spread = len(names) >= workers  # else the cores share one scene after the other
    one = partial(_scene, importer, folder, 1 if spread else workers)
    done = map_jobs(one, names, workers=workers if spread else 1, what="indexing scenes")
    skipped = importer.left_out
    for _, left_out in done:
        skipped.merge(left_out)
    entries = [entry for entry, _ in done if entry]
    listed = [LeftOut(reason=r, count=n, first=skipped.first[r]) for r, n in sorted(skipped.counts.items())]
    if not entries:
        raise DataError(f"no pair in {importer.source} can be used ({skipped.summary() or 'it names none'})")
    manifest = SceneManifest(
        dataset=form,
        licence=importer.licence,
        relation=importer.relation,
        raw=RAW if (folder / RAW).is_dir() else _raw(importer, folder),
        scenes=entries,
    )
    manifest.save(folder)
    if (folder / RAW).is_dir():  # as the stage download does: trainings ask the raw folder whose pictures it holds
        RawDataset(
            dataset=form,
            licence=importer.licence,
            attribution=[],
            relation=importer.relation,
            settings=digest([importer.seed, importer.params.model_dump(mode="json")]),
        ).save(folder / RAW)
    importer.finish(folder)
    return ImportReport(
        form=form,
        scenes=len(entries),
        images=sum(entry.images for entry in entries),
        pairs=sum(entry.pairs for entry in entries),
        splits=dict(sorted(Counter(entry.split for entry in entries).items())),
        skipped=listed,
        raw="",
        digest="",
    )


def _scene(importer: Importer, folder: Path, workers: int, name: str) -> tuple[SceneEntry | None, Skipped]:
    """Write one scene; returns its line of the manifest and what was left out."""
    skipped = Skipped()
    scene = importer.scene(folder, name, skipped, workers=workers)
    if scene is None or not len(scene.pairs):
        skipped.add("scene without a usable pair", [name])
        return None, skipped
    write_scene(folder, scene)
    root = folder / RAW if (folder / RAW).is_dir() else importer.root
    digest = _files_digest(root, scene)
    return SceneEntry(
        name=scene.name, split=scene.split, images=len(scene.image), pairs=len(scene.pairs), digest=digest
    ), skipped


def _files_digest(root: Path | None, scene: Scene) -> str:
    """Return a digest of the names and lengths of a scene's files; a hundred gigabytes are not read for it."""
    paths = [*scene.image, *scene.depth]
    lines = [f"{path} {(root / path).stat().st_size if root and path else 0}" for path in paths]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def raw_folder(index: Path) -> Path | None:
    """Return the folder that an index's image paths start from, None if only the index was ever there."""
    raw = SceneManifest.load(index).raw
    if not raw:
        return None
    return index / raw if raw == RAW and (index / raw).is_dir() else Path(raw)
