"""Paths that somebody else's file names: relative, and without a way out of the folder that they start from."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from minima_core.errors import DataError


def inside(reference: object, where: Path) -> str:
    """Return a path that a published list names, relative and without a way out of its folder.

    Raises:
        DataError: naming the list ``where`` it stands.
    """
    path = PurePosixPath(str(reference))
    if not str(reference) or path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise DataError(f"{where} names {reference!r}, which is no path inside its folder; get the list again")
    return str(path)
