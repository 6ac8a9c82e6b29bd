"""One modality of plain picture files, for people who have no data set."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from minima_core.config import digest
from minima_core.errors import ConfigError, DataError, Unavailable
from minima_core.io.atomic import write_bytes, write_json
from minima_core.io.images import RAW, RECORD, encode_raw, find_images, find_made, write_image
from minima_core.manifest import file_sha256
from minima_core.progress import track
from minima_core.provenance import code_digest
from minima_core.synthesis.base import MODALITIES, Engine
from minima_core.synthesis.gate import Params as GateParams
from minima_core.synthesis.gate import judge, shipped
from minima_core.synthesis.policy import require_allowed
from minima_core.synthesis.runner import CODE
from minima_core.synthesis.sources import Item

logger = logging.getLogger(__name__)
RECORD_EVERY = 25  # images
NAMED = 5  # pictures that an error names


class _Made(BaseModel):
    """What an output was made from and is: sha256 of its sources and settings, and of its files; and who made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str
    output: str
    raw: str = ""  # of the raw values beside it, where the engine keeps any
    drawn: dict[str, Any]  # as in a shard: with the attempt, its agreement with the source and the range of raw values
    by: dict[str, Any]  # modality, engine, its parameters, seed, licence, sha256 of the code


def synthesise_files(
    input: Path,
    out: Path,
    *,
    modality: str,
    settings: dict[str, Any],
    seed: int,
    device: str = "cpu",
    licence: str = "permissive",
) -> list[Path]:
    """Make ``modality`` of a picture, or of all under a folder, keeping its tree; return the outputs.

    Each passes the quality gate with its shipped settings; one that does not is left out with a warning. They are
    ``.png`` where the engine asks for it, else JPEG of quality 95; raw values that the engine keeps lie beside them as
    ``<stem>.raw.png``, see ``decode_raw``. An output that an earlier run made from the same bytes, settings and seed by
    the same code stays, and is returned too. Beside a picture ``<stem>.h5`` (data set ``depth``) may give its depth and
    ``<stem>.txt`` (first line fx,fy,cx,cy) its intrinsics, which engines that look at the camera read. ``licence`` is
    the policy: ``permissive``, or ``any`` for an engine, or weights, that forbid commercial use.

    Raises:
        Unavailable: if no picture holds what the modality is made from.
        DataError: naming pictures that cannot be read; the others are made nevertheless. If there is no picture.
        ConfigError: if ``out`` is the folder of the pictures themselves, or the policy refuses the engine.
    """
    engine = MODALITIES.create(modality, settings, f"settings of {modality}")
    words = {"where": f"modality {modality}", "called": "--licence", "remedy": "give --licence any"}
    require_allowed(modality, settings, licence, **words)
    engine.setup(device)
    root, images = _pictures(input, out)
    targets = _targets(images, root, engine.suffix)
    by = {
        "modality": modality,
        "engine": settings["engine"],
        "params": engine.params.model_dump(mode="json"),
        "seed": seed,
        "gate": shipped().model_dump(),
        "licence": engine.terms().name,
        "commercial": engine.terms().commercial,
        "weights": engine.weights,
        "weight_files": engine.sources(),
        "code": code_digest(*CODE, "synthesis/files.py", f"synthesis/{modality}"),
    }
    record = _read_record(out / RECORD)
    problems: list[str] = []
    missing: list[str] = []
    done: list[Path] = []
    try:
        for image, target in track(list(zip(images, targets, strict=True)), modality):
            try:
                record[target] = _one(engine, image, root, out / target, record.get(target), by)
                done.append(out / target)
                if len(done) % RECORD_EVERY == 0:  # a killed run, too, goes on from there
                    _write_record(out / RECORD, record)
            except Unavailable as error:
                missing.append(str(error))
            except DataError as error:
                if error.__cause__ is not None:  # the disk, not the picture: no use in going on
                    raise
                problems.append(str(error))
    finally:
        if record:
            _write_record(out / RECORD, record)
    return _verdict(done, problems, missing)


def _verdict(done: list[Path], problems: list[str], missing: list[str]) -> list[Path]:
    """Return what was made, or say in one line what was not."""
    if problems:
        named = "; ".join(problems[:NAMED]) + (f" (and {len(problems) - NAMED} more)" if len(problems) > NAMED else "")
        without = f"; {len(missing)} left out: {missing[0]}" if missing else ""
        raise DataError(f"{named}; {len(done)} other outputs were made{without}")
    if missing and not done:
        raise Unavailable(missing[0] if len(missing) == 1 else f"{missing[0]} (the same for {len(missing) - 1} more)")
    for reason in missing:
        logger.warning("left out: %s", reason)
    return done


def _pictures(given: Path, out: Path) -> tuple[Path, list[Path]]:
    """Return the folder that relative names start from, and the pictures, without those that were made of others."""
    if given.is_file():
        root, images = given.parent, [given]
    elif given.exists():
        root, images = given, find_images(given)
    else:
        raise DataError(f"no file or folder {given}; give a picture or a folder of pictures")
    if out.resolve() == root.resolve():
        raise ConfigError(f"the outputs would lie among the pictures of {root}; choose another folder with --out")
    made = {folder.resolve() for folder in (out, *find_made(given))}
    images = [image for image in images if made.isdisjoint(image.resolve().parents)]
    if not images:
        raise DataError(f"no images in {given} but what `minima synthesise` made; name one of its folders")
    return root, images


def _targets(images: list[Path], root: Path, suffix: str) -> list[str]:
    """Return the outputs' names relative to ``out``; pictures that differ only in their suffix keep it in the name."""
    stems = [image.relative_to(root).with_suffix("").as_posix() for image in images]
    count = Counter(stems)
    return [
        (stem if count[stem] == 1 else image.relative_to(root).as_posix()) + suffix
        for stem, image in zip(stems, images, strict=True)
    ]


def _one(engine: Engine, image: Path, root: Path, target: Path, before: _Made | None, by: dict[str, Any]) -> _Made:
    """Make one output unless it is there already; return its record."""
    camera = image.with_suffix(".txt") if "camera" in engine.reads else None  # else it may be a caption or labels
    item = _item(image, image.relative_to(root).as_posix(), camera)
    beside = [path for path in (item.image, item.depth, camera) if path is not None and path.is_file()]
    source = digest([by, item.name, *(file_sha256(path) for path in beside)])
    if before is not None and before.source == source and _is_whole(target, before):
        return before
    how = {"seed": by["seed"], "modality": by["modality"]}
    read = item.read(engine.reads)
    found = judge(engine, read, engine.synthesise(read, **how), GateParams(**by["gate"]), **how)
    if found.refused:
        raise Unavailable(f"the {by['modality']} image of {item.name} is not like its source: {found.refused}")
    drawn, raw, values = found.facts, _raw_path(target), found.rendition.raw
    if values is not None:
        data, drawn["raw_range"] = encode_raw(values)
        write_bytes(raw, data)
    elif before is not None and before.raw:  # of the picture that this one replaces
        raw.unlink(missing_ok=True)
    write_image(target, found.rendition.image)
    kept = "" if values is None else file_sha256(raw)
    return _Made(source=source, output=file_sha256(target), raw=kept, drawn=drawn, by=by)


def _is_whole(target: Path, made: _Made) -> bool:
    """Say whether an output and its raw values are still what was made."""
    files = [(target, made.output)] + ([(_raw_path(target), made.raw)] if made.raw else [])
    return all(path.is_file() and file_sha256(path) == sha256 for path, sha256 in files)


def _raw_path(target: Path) -> Path:
    return target.with_suffix(RAW)


def _item(image: Path, name: str, camera: Path | None) -> Item:
    depth = image.with_suffix(".h5")
    return Item(name, image, depth if depth.is_file() else None, K=_read_intrinsics(camera))


def _read_intrinsics(path: Path | None) -> np.ndarray | None:
    """Return (3, 3) intrinsics from a file whose first line is fx,fy,cx,cy; None where there is none."""
    if path is None or not path.is_file():
        return None
    try:
        fx, fy, cx, cy = (float(word) for word in path.read_text(encoding="utf-8").splitlines()[0].split(","))
    except (ValueError, IndexError):
        raise DataError(f"the first line of {path} is not fx,fy,cx,cy; mend or remove the file") from None
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        raise DataError(f"the first line of {path} is not of a camera ({fx:g},{fy:g},{cx:g},{cy:g}); mend or remove it")
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _write_record(path: Path, record: dict[str, _Made]) -> None:
    write_json(path, {name: made.model_dump(mode="json") for name, made in sorted(record.items())})


def _read_record(path: Path) -> dict[str, _Made]:
    """Return what earlier runs recorded; nothing where it is missing or unreadable, and everything is made again."""
    try:
        return {name: _Made.model_validate(made) for name, made in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, ValidationError):
        return {}
