"""What benchmarks that are read from published folders share: lists, sizes and digests of files."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minima_core.errors import DataError
from minima_core.io.images import image_size
from minima_core.manifest import file_sha256
from minima_core.parallel import map_jobs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """What is written down of an image: its sha256, width and height."""

    sha256: str
    size: tuple[int, int]


def about_images(root: Path, references: Iterable[str], *, workers: int, what: str) -> dict[str, ImageFile]:
    """Return what is known of each image below ``root``; each is read once.

    Raises:
        DataError: naming the image that is missing or none.
    """
    names = sorted(set(references))
    found = map_jobs(_about, [root / name for name in names], workers=workers, what=f"images of {what}")
    return dict(zip(names, found, strict=True))


def _about(path: Path) -> ImageFile:
    return ImageFile(file_sha256(path), image_size(path)) if path.is_file() else _missing(path)


def _missing(path: Path) -> ImageFile:
    raise DataError(f"no {path}, which the list of pairs names; bring it there")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that say something.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; get the list again") from None
