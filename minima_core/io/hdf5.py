"""HDF5 files that appear whole: built in memory, because the HDF5 library may crash the process on a full disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import h5py

from minima_core.errors import DataError
from minima_core.io.atomic import write_bytes

# what h5py raises at bytes that are not what a file promises: a flipped bit may make text no text, or a table a number
_DAMAGED = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)
_numbers = count()  # two open files in memory must not have the same name


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield an empty HDF5 file in memory to fill; it is written to ``path`` atomically when the block ends well.

    Equal contents give equal bytes.

    Raises:
        DataError: when the disk is full or the folder cannot be written.
    """
    with h5py.File(f"{path.name}.{next(_numbers)}", "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        data = file.id.get_file_image()
    write_bytes(path, data)


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Let a block read a file that may be damaged; ``what`` and ``remedy`` are the ends of the line that says so.

    Raises:
        DataError: in the place of what h5py raises.
    """
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            raise DataError(f"cannot read {what}: too many open files; allow more (ulimit -n)") from None
        raise DataError(f"cannot read {what}: {error}; {remedy}") from None
