"""Files from addresses to disk: continued after a cut, checked, from the first mirror that has the right one.

A file that is being fetched lies beside its target as ``.<name>.part`` and survives the process; the target appears
when its size and digest are right. Where nobody published a digest, the first copy's sha256 is written beside it and
holds from then on, as for weights.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from pooch.hashes import file_hash
from rich.filesize import decimal

from minima_core.errors import DataError
from minima_core.io.atomic import sole_writer, write_text
from minima_core.progress import track

CONNECT = 10.0  # seconds that a host has to answer
PATIENCE = 60.0  # seconds without a byte; mirrors pause within a gigabyte
TRIES = 6  # in a row that bring nothing new, before a mirror is given up
LONGEST_WAIT = 300.0  # seconds that a busy host may ask for; another mirror is quicker than more
PIECE = 1 << 20
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """One file, and where it may be had.

    Attributes:
        name: what it is called here.
        urls: addresses in the order in which they are asked: http(s), file://, or a path of this machine.
        size: bytes, None where unknown.
        digest: ``sha256:…`` or ``md5:…``, "" where nobody published one.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    digest: str = ""


class _Refused(Exception):
    """A mirror that will not give the right file, and why."""


class _Busy(Exception):
    """A mirror to be asked again, after ``wait`` seconds if it said so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def fetch(remote: Remote, folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Return a copy of the file that is right: ``folder/name``, or one of this machine where it lies.

    Raises:
        DataError: if no mirror gives the right file, the disk is too small, another process fetches it, or what lies in
            ``folder`` already is another file; nothing that is whole is overwritten or removed.
    """
    target = folder / remote.name
    if target.is_file():
        if problem := _problem(target, remote.size, remote.digest or _recorded(target)):
            raise DataError(f"{target} {problem}; remove it to have it fetched again")
        return target
    failures = []
    for url in remote.urls:
        try:
            if (path := local_path(url)) is not None:
                if not path.is_file():
                    raise _Refused("no such file")
                if problem := _problem(path, remote.size, remote.digest):
                    raise _Refused(problem)
                return path
            with sole_writer(target):
                _download(url, remote, target, sleep)
        except _Refused as error:
            logger.warning("%s: %s", url, error)
            failures.append(f"{url}: {error}")
            continue
        if not remote.digest:
            write_text(_record(target), file_hash(str(target)) + "\n")
        return target
    tried = "; ".join(failures) or "it has no address"
    raise DataError(f"cannot get {remote.name}: {tried}; try again, or put the file at {target}")


def local_path(url: str) -> Path | None:
    """Return the path of a ``file://`` address or of a plain path, None for an address of another machine."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in url else Path(url)


def require_space(needs: Mapping[Path, int], what: str) -> None:
    """Say how much disk something needs, and where; folders of one disk share what is free on it.

    Raises:
        DataError: if it is not there.
    """
    disks: dict[int, list[tuple[Path, int]]] = {}
    for folder, needed in needs.items():
        disks.setdefault(_existing(folder).stat().st_dev, []).append((folder, needed))
    for parts in disks.values():
        needed = sum(size for _, size in parts)
        free = shutil.disk_usage(_existing(parts[0][0])).free
        where = " and ".join(str(folder) for folder, size in parts if size or len(parts) == 1)
        logger.info("%s needs %s in %s, where %s are free", what, decimal(needed), where, decimal(free))
        if needed > free:
            raise DataError(
                f"{what} needs {decimal(needed)} in {where}, where {decimal(free)} are free; "
                "free some space, choose another folder or ask for less"
            )


def to_come(remote: Remote, folder: Path, about: int = 0) -> int:
    """Return how many bytes ``fetch`` has to bring yet, of a file that has ``about`` if its size is unknown."""
    target = folder / remote.name
    if target.is_file() or any(path.is_file() for url in remote.urls if (path := local_path(url))):
        return 0
    return max(0, (remote.size or about) - _Part(target).size())


def held(*folders: Path) -> int:
    """Return how many bytes the files in some folders have, at any depth; a folder that is not there holds none."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    """Return the folder, or the closest above it that is there."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())


def _download(url: str, remote: Remote, target: Path, sleep: Callable[[float], None]) -> None:
    """Bring ``url`` to ``target``, in as many requests as it takes while each brings more than those before.

    What lies there of an earlier request is continued if the file is still the same one; that it is, the host says by
    its validator, or the digest at the end.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(target)
    continued = part.size() > 0
    if continued and not remote.digest and not part.tag_of(url):
        part.remove()
    furthest, failed = part.size(), 0
    while True:
        try:
            _request(url, remote, part)
        except (_Busy, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if not part.size() and _unreachable(error):
                raise _Refused("the host cannot be reached") from None
            failed = 0 if part.size() > furthest else failed + 1
            furthest = max(furthest, part.size())
            wait = getattr(error, "wait", None)
            if failed == TRIES or (wait or 0) > LONGEST_WAIT:
                raise _Refused(f"{_first_line(error)} ({failed + 1} tries)" if failed else _first_line(error)) from None
            pause = min(2.0**failed, 60.0) if wait is None else wait
            logger.warning("%s: %s; going on in %g s", url, _first_line(error), pause)
            sleep(pause)
            continue
        problem = _problem(part.path, remote.size, remote.digest)
        if not problem:
            part.finish()
            return
        part.remove()
        if not continued:
            raise _Refused(problem)
        continued, furthest = False, 0  # the beginning may have been another file's


class _Part:
    """An unfinished file beside its target, with the validator that its host gave: ``url``, newline, ETag or date."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.part")
        self.tag = target.with_name(f".{target.name}.tag")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def tag_of(self, url: str) -> str:
        """Return the validator that ``url`` gave, "" where it gave none or another address did."""
        if not self.tag.is_file():
            return ""
        asked, _, validator = self.tag.read_text(encoding="utf-8").partition("\n")
        return validator if asked == url else ""

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def finish(self) -> None:
        self.path.replace(self.target)
        self.tag.unlink(missing_ok=True)


def _request(url: str, remote: Remote, part: _Part) -> None:
    """Ask once for what is missing and write what comes."""
    have = part.size()
    headers = {"Accept-Encoding": "identity"}  # a compressed body has no ranges
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := part.tag_of(url):
            headers["If-Range"] = validator
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT, PATIENCE)) as answer:
        if answer.status_code == 416:  # all is there, or the file became shorter
            if have != _total(answer):
                part.remove()
                raise _Busy("has another file now", 0.0)
            return
        start = _started(answer, have)
        total = _total(answer)
        if total is not None:
            if remote.size is not None and total != remote.size:
                raise _Refused(f"says that it has {total} bytes, {remote.size} expected")
            if not start:  # what is there of an earlier request is written over
                require_space({part.path.parent: max(0, total - have)}, f"fetching {remote.name}")
        validator = answer.headers.get("ETag", "")
        validator = (
            answer.headers.get("Last-Modified", "") if validator.startswith("W/") or not validator else validator
        )
        write_text(part.tag, f"{url}\n{validator}")
        _write(_pieces(answer, start, total, remote.name), part.path, start, remote.size)
    if total is not None and part.size() < total:
        raise _Busy(f"broke off after {part.size()} of {total} bytes")


def _started(answer: requests.Response, have: int) -> int:
    """Return from which byte on the answer goes: ``have``, or 0 from a host that sends the whole file."""
    status = answer.status_code
    if status in _BUSY:
        wait = urllib3.Retry().parse_retry_after(header) if (header := answer.headers.get("Retry-After")) else None
        raise _Busy(f"answered {status}", wait)
    if status not in {200, 206}:
        raise _Refused(f"answered {status}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise _Refused("gave a web page, perhaps one that asks to log in")
    if status == 200:
        return 0
    if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise _Refused(f"gave another range than the one from byte {have} on")
    return have


def _total(answer: requests.Response) -> int | None:
    """Return how many bytes the whole file has, as the host says; None where it does not."""
    if answer.status_code in {206, 416}:
        said = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        said = answer.headers.get("Content-Length", "")
    return int(said) if said.isdigit() else None


def _pieces(answer: requests.Response, start: int, total: int | None, name: str) -> Iterator[bytes]:
    pieces = answer.raw.stream(PIECE, decode_content=False)
    if total is None:
        return pieces
    return track(pieces, f"fetching {name} (MiB)", total=math.ceil(total / PIECE), done=start // PIECE)


def _write(pieces: Iterator[bytes], path: Path, start: int, most: int | None) -> None:
    try:
        with path.open("r+b" if start else "wb") as file:
            file.seek(start)
            for piece in pieces:
                file.write(piece)
                if most is not None and file.tell() > most:
                    path.unlink()
                    raise _Refused(f"sends more than the {most} bytes expected")
    except OSError as error:
        if error.errno is None or isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            raise
        raise DataError(f"cannot write {path}: {error.strerror}; free some space, what is there is kept") from None


def _problem(path: Path, size: int | None, digest: str) -> str:
    """Return why a file is not the one expected, "" where it is."""
    if size is not None and (got := path.stat().st_size) != size:
        return f"has {got} bytes, {size} expected"
    if digest:
        kind, _, value = digest.rpartition(":")
        if (found := file_hash(str(path), kind or "sha256")) != value.lower():
            return f"has {kind or 'sha256'} {found}, {value} expected"
    return ""


def _record(path: Path) -> Path:
    """Return where the sha256 of a file stands that nobody published one for."""
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str:
    record = _record(path)
    return record.read_text(encoding="utf-8").strip() if record.is_file() else ""


def _unreachable(error: Exception) -> bool:
    """Say whether no connection came about: nobody listens, or the name is unknown."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)


def _first_line(error: Exception) -> str:
    said = str(error.args[0] if error.args else "") or type(error).__name__
    return said.splitlines()[0]
