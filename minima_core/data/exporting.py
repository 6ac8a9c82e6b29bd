"""From the one index to the forms that upstream training code reads, synthesised images included."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from minima_core.config import unknown
from minima_core.data.exporters.base import EXPORTERS, Exporter
from minima_core.data.index import read_scene
from minima_core.data.shards import Shard
from minima_core.errors import ConfigError, DataError
from minima_core.io.atomic import new_folder, write_bytes
from minima_core.io.images import encode_jpeg, encode_png
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest, Split
from minima_core.parallel import map_jobs

JPEG = b"\xff\xd8\xff"  # what such files begin with
PNG_MODALITIES = frozenset({"event"})  # the loaders look for all others as .jpg


def targets() -> list[str]:
    """Return the names of all forms, as the command line has them."""
    return [name.replace("_", "-") for name in EXPORTERS.names()]


def export_index(form: str, index: Path, out: Path, *, modalities: Path | None = None, workers: int = 1) -> list[str]:
    """Write an index to ``out`` in another form, whole or not at all; return the names of the modalities with it.

    Of ``modalities``, a folder as the stage synthesise makes them, the images are written as files,
    ``MODALITY/<path of the RGB image>``, which is where the loaders of MINIMA look for them.

    Raises:
        ConfigError: if there is no such form, or ``out`` holds something.
        DataError: if the index or a modality cannot be read, its pairs are related by homographies, or another process
            exports to ``out``.
    """
    if form not in targets():
        raise ConfigError(f"--to: {unknown(form, targets(), 'the forms')}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists; give another folder")
    manifest = SceneManifest.load(index)
    if manifest.relation != "depth":
        raise DataError(f"pairs of {index} are related by homographies; {form} knows depth and poses only")
    names = [] if modalities is None else _complete(modalities)
    exporter = EXPORTERS.get(form.replace("-", "_"))()
    with new_folder(out) as folder:
        one = partial(_scene, exporter, index, modalities, names, folder)
        done = map_jobs(one, manifest.scenes, workers=workers, what="exporting scenes")
        exporter.finish(folder, (part for parts in done for part in parts))
    return names


def _complete(modalities: Path) -> list[str]:
    """Return the names of the modalities that were made."""
    found = sorted(path.parent.name for path in modalities.glob(f"*/{ModalityManifest.FILE}"))
    if not found:
        raise DataError(f"no modality in {modalities}; give the folder that the stage synthesise writes to")
    return [name for name in found if ModalityManifest.load(modalities / name).status == "complete"]


def _scene(
    exporter: Exporter, index: Path, modalities: Path | None, names: list[str], out: Path, entry: SceneEntry
) -> list[tuple[Split, str]]:
    scene = read_scene(index, entry.name)
    for name in names:
        assert modalities is not None
        with Shard(modalities / name / f"{scene.name}.h5") as shard:
            for i, path in enumerate(scene.image):
                if scene.image_id(i) in shard:
                    _write(out / name, path, shard, scene.image_id(i))
    return [(scene.split, part) for part in exporter.write(out, scene)]


def _write(folder: Path, path: str, shard: Shard, name: str) -> None:
    """Write one image of a modality in the loaders' format: a JPEG as it lies in the shard, all else encoded as that.

    A PNG gets three channels, which RoMa's loader counts on; in a shard it may hold a palette or one.
    """
    suffix = ".png" if folder.name in PNG_MODALITIES else ".jpg"
    data = shard.encoded(name)
    if suffix == ".png":
        data = encode_png(shard.image(name))
    elif not data.startswith(JPEG):
        data = encode_jpeg(shard.image(name))
    write_bytes(folder / PurePosixPath(path).with_suffix(suffix), data)
