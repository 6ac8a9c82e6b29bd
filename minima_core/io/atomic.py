"""Writers that leave either the whole file or nothing: a temporary name, then a rename."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from minima_core.errors import DataError

UNFINISHED = ".unfinished"  # in the name of every temporary file, so that those of killed runs can be told from outputs


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; it is renamed to ``path`` when the block ends well.

    The suffix is kept, because some writers choose their format by it. On an error the temporary file goes.

    Raises:
        DataError: when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{UNFINISHED}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written nothing can be removed
            temporary.unlink(missing_ok=True)
        if error.errno is None:  # raised by a library about what it was given, not about the disk
            raise
        raise DataError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any, *, rows: bool = False) -> None:
    """Write plain values as JSON with sorted keys, so that equal values give equal bytes.

    With ``rows`` a list of numbers, such as a point, stands in one line.
    """
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if rows:  # a text has no line breaks in JSON, so what is matched is a list
        text = re.sub(r"\[\n([-+.\deE,\s]+)\n *\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    write_text(path, text + "\n")


@contextmanager
def whole_folder(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield ``scratch`` to fill; when the block ends well it takes the place of ``path``, else it is kept for a rerun.

    Temporary files of a run that was killed in the middle of one are removed, and never become part of ``path``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _sweep(scratch)
    yield scratch
    _sweep(scratch)
    replace_folder(scratch, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` to fill, which takes its place when the block ends well, and else is gone.

    Raises:
        DataError: if another process fills one for ``path``.
    """
    scratch = path.with_name(f".{path.name}{UNFINISHED}")
    with sole_writer(path):
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            with whole_folder(path, scratch) as folder:
                yield folder
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Refuse other processes that would write ``path`` in the same way; a locked file beside it keeps them out.

    Raises:
        DataError: if another process writes it.
    """
    import fcntl  # Windows has none

    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is writing {path}; wait for it, or choose another place") from None
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder ``new`` in the place of ``path``; an older one there is removed last, or stays if that fails."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(old)
    try:
        new.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder of unfinished work, if it is there; a kill leaves nothing of it under its name, or all."""
    gone = path.with_name(f".{path.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        path.replace(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for leftover in folder.rglob(f".*{UNFINISHED}*"):
        if leftover.is_file():
            leftover.unlink()


def scratch_folder(stage: str, key: str) -> Path:
    """Return where a stage keeps unfinished work; ``key`` is a digest of its parameters and inputs.

    The folder lies on the same file system as the outputs, so that a rename moves it.
    """
    return Path(".scratch") / stage / key[:16]
