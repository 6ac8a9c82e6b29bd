"""Tar and zip archives of strangers, unpacked so that a part of them is there whole or not at all.

Members go into a hidden folder first; when the archive has been read to its end, each part (a scene, say) is renamed
to its place. A killed run continues there and writes no finished file again.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from rich.filesize import decimal

from minima_core.errors import DataError
from minima_core.progress import track

SUSPECT_BYTES, SUSPECT_RATIO = 256 << 20, 50  # what unpacks to more than this, and that many times its size, is a bomb
_DAMAGED = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)
_ZIP = {b"PK\x03\x04", b"PK\x05\x06"}  # zipfile's own test takes any file that ends in a zip, as a tar of zips may
Place = Callable[[PurePosixPath], PurePosixPath | None]


@dataclass(frozen=True)
class _Member:
    """A file in an archive; ``odd`` says what it is when it is none."""

    path: PurePosixPath
    size: int
    odd: str
    open: Callable[[], IO[bytes] | None]


class _Refused(Exception):
    """A member that is not unpacked, and why."""


def unpack(archive: Path, folder: Path, place: Place = lambda path: path) -> list[str]:
    """Unpack an archive below ``folder`` and return the names of the parts that are new there.

    ``place`` gives where a member goes, relative to ``folder``, or None to leave it out. The first name of that path is
    the part; parts that are in ``folder`` already are left as they are.

    Raises:
        DataError: if the archive is damaged, holds links, devices or paths that lead out of the folder, unpacks to far
            more than its size or to more than the disk holds; no new part is left then.
    """
    building = folder / f".{archive.name}.unpacking"
    building.mkdir(parents=True, exist_ok=True)
    try:
        _unpack(archive, folder, building, place)
    except _Refused as error:
        shutil.rmtree(building)
        raise DataError(f"{archive} is refused: {error}; get it from another source") from None
    except _DAMAGED as error:
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # of the file system; those of archives have no number
            raise DataError(
                f"cannot unpack {archive} into {folder}: {error.strerror}; mend that and try again"
            ) from None
        shutil.rmtree(building)
        raise DataError(
            f"{archive} cannot be read ({str(error).splitlines()[0]}); remove it and fetch it again"
        ) from None
    parts = sorted(path.name for path in building.iterdir())
    for part in parts:
        (building / part).replace(folder / part)
    building.rmdir()
    return parts


def _unpack(archive: Path, folder: Path, building: Path, place: Place) -> None:
    packed, total = archive.stat().st_size, 0
    there = {path.name for path in folder.iterdir()}
    room = shutil.disk_usage(folder).free + sum(p.stat().st_size for p in building.rglob("*") if p.is_file())
    most = max(SUSPECT_BYTES, SUSPECT_RATIO * packed)
    with _members(archive) as members:
        for member in track(members, f"unpacking {archive.name}"):
            _check(member)
            total += member.size  # what is left out is unpacked too, on the way
            if total > most:
                raise _Refused(f"{decimal(packed)} that unpack to more than {decimal(most)} are a bomb")
            target = place(member.path)
            if target is None or target.parts[0] in there:
                continue
            if total > room:
                raise DataError(f"{archive} unpacks to more than the {decimal(room)} free in {folder}; free some space")
            _write(member, building / target)


def _write(member: _Member, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:  # of a killed run
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    if source is None:
        raise _Refused(f"{member.path} has no content")
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if path.stat().st_size != member.size:
        raise EOFError(f"{member.path} ends early")


def _check(member: _Member) -> None:
    if member.odd:
        raise _Refused(f"{member.path} is {member.odd}")
    if not member.path.parts or member.path.is_absolute() or ".." in member.path.parts or "\\" in str(member.path):
        raise _Refused(f"{member.path} leads out of the folder")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    with archive.open("rb") as file:
        magic = file.read(4)
    if magic in _ZIP:
        with zipfile.ZipFile(archive) as zipped:
            yield (_of_zip(zipped, entry) for entry in zipped.infolist() if not entry.is_dir())
    else:
        with tarfile.open(archive, "r:*") as tar:
            yield _files(tar, archive)


def _files(tar: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    yield from (_of_tar(tar, entry, archive) for entry in tar if not entry.isdir())
    while tar.fileobj and tar.fileobj.read(1 << 20):  # the checksum of the packed bytes stands at their end
        pass


def _of_zip(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    mode = entry.external_attr >> 16
    odd = "encrypted" if entry.flag_bits & 1 else "" if stat.S_IFMT(mode) in {0, stat.S_IFREG} else "a link or a device"
    return _Member(PurePosixPath(entry.filename), entry.file_size, odd, lambda: zipped.open(entry))


def _of_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo, archive: Path) -> _Member:
    odd = "" if entry.isreg() else f"a link to {entry.linkname}" if entry.linkname else "a device"
    if not odd:
        try:
            tarfile.data_filter(entry, str(archive.parent))
        except tarfile.FilterError as error:
            odd = f"not safe: {error}"
    return _Member(PurePosixPath(entry.name), entry.size, odd, lambda: tar.extractfile(entry))
