"""Tar and zip archives of strangers, unpacked so that a part of them is there whole or not at all.

Members go into a hidden folder first; when the archive has been read to its end, each part (a scene, say) is renamed
to its place. A killed run continues there and writes no finished file again.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import math
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from rich.filesize import decimal

from minima_core.acquire.transfer import held
from minima_core.errors import DataError
from minima_core.progress import track

SUSPECT_BYTES, SUSPECT_RATIO = 256 << 20, 50  # what unpacks to more than this, and that many times its size, is a bomb
HEADER_BYTES = 1 << 20  # before one member of a tar: its name, links and attributes, which tarfile takes into memory
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # zipfile's own test takes any file that ends in a zip, as a tar of zips may
_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,
}
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,  # numbers and names that tarfile and zipfile cannot read
    RecursionError,  # tarfile's, of headers about headers
    NotImplementedError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
# at odds with the names in an archive, where other errors of the file system are at odds with the disk
_AT_ODDS = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
Place = Callable[[PurePosixPath], PurePosixPath | None]


@dataclass(frozen=True)
class _Member:
    """A file in an archive; ``odd`` says what it is when it is none, ``headers`` are the bytes that say all this."""

    path: PurePosixPath
    size: int
    headers: int
    odd: str
    open: Callable[[], IO[bytes] | None]


class _Refused(Exception):
    """A member that is not unpacked, and why."""


class _Tar:
    """The bytes of a tar for tarfile, which may read ``allowance`` more of them."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw, self.allowance, self.latest = raw, float(HEADER_BYTES), b""
        self.seek, self.tell = raw.seek, raw.tell

    def read(self, size: int) -> bytes:
        self.allowance -= size
        if size < 0 or self.allowance < 0:
            raise _Refused(f"headers of more than {decimal(HEADER_BYTES)} for one file are a bomb")
        self.latest = self.raw.read(size)
        return self.latest


def unpack(archive: Path, folder: Path, place: Place = lambda path: path) -> list[str]:
    """Unpack an archive below ``folder`` and return the names of the parts that are new there.

    ``place`` gives where a member goes, relative to ``folder``, or None to leave it out. The first name of that path is
    the part; parts that are in ``folder`` already are left as they are.

    Raises:
        DataError: if the archive is damaged, holds links, devices, or paths that lead out of the folder or cannot be
            made, unpacks to far more than its size or to more than the disk holds; no new part is left then.
    """
    building = _building(archive.name, folder)
    building.mkdir(parents=True, exist_ok=True)
    try:
        parts = sorted(_unpack(archive, folder, building, place))
    except _Refused as error:
        shutil.rmtree(building)
        raise DataError(f"{archive} is refused: {error}; get it from another source") from None
    except _DAMAGED as error:
        number = error.errno if isinstance(error, OSError) else None  # of the file system; archives' errors have none
        if number is not None and number not in _AT_ODDS:
            raise DataError(
                f"cannot unpack {archive} into {folder}: {os.strerror(number)}; mend that and try again"
            ) from None
        shutil.rmtree(building)
        if number is not None:
            raise DataError(
                f"{archive} is refused: a path in it cannot be made ({os.strerror(number)}); get it from another source"
            ) from None
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{archive} cannot be read ({said}); remove it and fetch it again") from None
    for part in parts:
        (building / part).replace(folder / part)
    shutil.rmtree(building)  # with what an archive of the same name left there
    return parts


def begun(name: str, folder: Path) -> int:
    """Return how many bytes of the archive ``name`` a killed run unpacked below ``folder``."""
    return held(_building(name, folder))


def _building(name: str, folder: Path) -> Path:
    return folder / f".{name}.unpacking"


def _unpack(archive: Path, folder: Path, building: Path, place: Place) -> set[str]:
    """Write an archive's members below ``building`` and return the parts that they are of."""
    packed, total = archive.stat().st_size, 0
    parts: set[str] = set()
    there = {path.name for path in folder.iterdir()}
    room = shutil.disk_usage(folder).free + held(building)
    most = max(SUSPECT_BYTES, SUSPECT_RATIO * packed)
    with _members(archive) as members:
        for member in track(members, f"unpacking {archive.name}"):
            _check(member)
            total += member.headers + member.size  # what is left out is unpacked too, on the way
            if total > most:
                raise _Refused(f"{decimal(packed)} that unpack to more than {decimal(most)} are a bomb")
            target = place(member.path)
            if target is None or target.parts[0] in there:
                continue
            if total > room:
                raise DataError(f"{archive} unpacks to more than the {decimal(room)} free in {folder}; free some space")
            _write(member, building / target)
            parts.add(target.parts[0])
    return parts


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
    if member.size < 0:  # leads tarfile back to where it was
        raise _Refused(f"{member.path} has {member.size} bytes")


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    with archive.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_ZIP):
        with zipfile.ZipFile(archive) as zipped:
            entries = (entry for entry in zipped.infolist() if not entry.filename.endswith("/"))
            yield (_of_zip(zipped, entry) for entry in entries)
        return
    opened = next((way for start, way in _PACKED.items() if magic.startswith(start)), open)
    with opened(archive, "rb") as raw:
        stream = _Tar(raw)
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as tar:
            yield _files(tar, stream, archive)


def _files(tar: tarfile.TarFile, stream: _Tar, archive: Path) -> Iterator[_Member]:
    headers = 0
    while True:
        before = stream.allowance = float(HEADER_BYTES)
        if (entry := tar.next()) is None:
            break
        headers += int(before - stream.allowance)
        stream.allowance = math.inf  # for the content
        tar.members.clear()  # type: ignore[attr-defined]  # the documented way to keep no list of those that are done
        tar.pax_headers = {}  # for all members to come: nothing that is read here, and as many as there are headers
        if not entry.isdir():
            yield _of_tar(tar, entry, archive, headers)
            headers = 0
    if stream.latest.strip(b"\0"):  # tarfile takes what it cannot read for the end
        raise tarfile.ReadError("a header is damaged")
    stream.allowance = math.inf
    while stream.read(1 << 20):  # the checksum of the packed bytes stands at their end
        pass


def _of_zip(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Member:
    mode = entry.external_attr >> 16
    odd = "encrypted" if entry.flag_bits & 1 else "" if stat.S_IFMT(mode) in {0, stat.S_IFREG} else "a link or a device"
    return _Member(PurePosixPath(entry.filename), entry.file_size, 0, odd, lambda: zipped.open(entry))


def _of_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo, archive: Path, headers: int) -> _Member:
    odd = "" if entry.isreg() else f"a link to {entry.linkname}" if entry.linkname else "a device"
    if not odd:
        try:
            tarfile.data_filter(entry, str(archive.parent))
        except tarfile.FilterError as error:
            odd = f"not safe: {error}"
    return _Member(PurePosixPath(entry.name), entry.size, headers, odd, lambda: tar.extractfile(entry))
