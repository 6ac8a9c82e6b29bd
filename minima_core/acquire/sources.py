"""The sources in ``sources.yaml``: what is there, under which licence, and how it comes into a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self, cast

from omegaconf import OmegaConf
from pydantic import Field, model_validator

from minima_core.acquire.archives import unpack
from minima_core.acquire.transfer import Remote, fetch, held, require_space, to_come
from minima_core.config import Section, checked, unknown
from minima_core.errors import ConfigError, DataError
from minima_core.io.atomic import sole_writer
from minima_core.licences import Licence, named
from minima_core.manifest import Record
from minima_core.weights import cache_folder

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")


class File(Section):
    """A file of a source, for the folder ``into``; ``about`` and ``unpacked`` are bytes, roughly.

    Of an archive with ``top`` the folder of that name is taken, at whatever depth, and laid over what is there already.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    digest: str = ""
    about: int = 0
    unpacked: int = 0
    into: str = ""
    top: str = ""

    def remote(self, mirrors: Sequence[str] = ()) -> Remote:
        """Return the file at its official addresses, mirrors before them: folders, or addresses of folders, have it."""
        places = tuple(_at(mirror, self.name) for mirror in mirrors)
        return Remote(self.name, (*places, *self.urls), self.size, self.digest)

    def needed(self, remote: Remote) -> tuple[int, int]:
        """Return the bytes that are to come of an archive, and those that lie in the folder in the end."""
        size = self.size or self.about
        if self.name.endswith(ARCHIVES):
            return to_come(remote, downloads(), size), self.unpacked or size
        return 0, size


class Hub(Section):
    """A data set on the Hugging Face hub; ``about`` is its size in bytes, roughly."""

    repo: str
    revision: str = "main"
    about: int


class Source(Section):
    """Where one set of data comes from."""

    what: str
    page: str
    licence: str
    files: tuple[File, ...] = ()
    hub: Hub | None = None
    by_hand: str = ""  # why no program can get it
    steps: str = ""
    expects: tuple[str, ...] = Field(default=())  # patterns of files that are there once it was got by hand

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(map(bool, (self.files, self.hub, self.by_hand))) != 1 or bool(self.by_hand) != bool(self.expects):
            raise ValueError("a source has files, a hub, or steps by hand with what they bring")
        return self

    def terms(self) -> Licence:
        """Return the licence."""
        return named(self.licence)


class Fetched(Record):
    """What a folder holds (``source.json``), written when it is whole."""

    FILE: ClassVar[str] = "source.json"
    source: str
    licence: str
    page: str


@cache
def sources() -> dict[str, Source]:
    """Return all sources by name."""
    text = (resources.files("minima_core.acquire") / "sources.yaml").read_text(encoding="utf-8")
    loaded = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(text)))
    return {name: checked(values, Source, f"sources.yaml: {name}") for name, values in loaded.items()}


def source(name: str) -> Source:
    """Return one source.

    Raises:
        ConfigError: if there is none of this name; the message lists them and the closest.
    """
    if name not in sources():
        raise ConfigError(f"unknown source: {unknown(name, sources(), 'the table of sources')}")
    return sources()[name]


def fetch_source(name: str, folder: Path, *, mirrors: Sequence[str] = (), patterns: Sequence[str] = ()) -> Path:
    """Bring a source into ``folder`` and return it; what is there already is not brought again.

    Args:
        name: of the source.
        folder: archives are unpacked into it; what is there counts as this source's, left by a run that was cut.
        mirrors: folders, or addresses of folders, to look for its files in before the official addresses.
        patterns: which files of a hub to bring, all by default.

    Raises:
        ConfigError: if there is no such source.
        DataError: if it cannot be had, the disk is too small, or it must be got by hand and is not there yet; the
            message says what to get and where to put it.
    """
    entry = source(name)
    if (folder / Fetched.FILE).is_file() and not patterns and Fetched.load(folder).source == name:
        return folder
    if entry.by_hand:
        _by_hand(name, entry, folder)
    elif entry.hub:
        fetch_hub(entry.hub, folder, patterns)
    else:
        bring_files(name, entry.files, folder, mirrors)
    Fetched(source=name, licence=entry.licence, page=entry.page).save(folder)
    return folder


def bring_files(name: str, files: Sequence[File], folder: Path, mirrors: Sequence[str]) -> None:
    """Bring files into ``folder``, archives unpacked; these lie in the user's cache until they are.

    Raises:
        DataError: if one cannot be had or used, the disk is too small for what is not there yet, or another process
            brings something into the folder.
    """
    remotes = {file: file.remote(mirrors) for file in files}
    archived, unpacked = map(sum, zip(*(file.needed(remote) for file, remote in remotes.items()), strict=True))
    require_space({folder: max(0, unpacked - held(folder)), downloads(): archived}, name)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder / Fetched.FILE):
        archives = []
        for file, remote in remotes.items():
            place = folder / file.into
            if file.name.endswith(ARCHIVES):
                archives.append((fetch(remote, downloads()), place, file.top))
            elif (path := fetch(remote, place)).parent != place:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place / file.name)
        for archive, place, top in archives:
            if top:
                _lay_over(archive, place, top)
            else:
                unpack(archive, place)
        for archive, *_ in archives:
            forget(archive)


def _lay_over(archive: Path, folder: Path, top: str) -> None:
    """Unpack the folder ``top`` of an archive into ``folder``, where another archive's may be already."""

    def place(path: PurePosixPath) -> PurePosixPath | None:
        return PurePosixPath(*path.parts[path.parts.index(top) :]) if top in path.parts[:-1] else None

    scratch = folder / f".{archive.name}.whole"
    if not unpack(archive, scratch, place) and not (scratch / top).is_dir():
        raise DataError(f"{archive} holds no folder {top}; get it from another source")
    shutil.copytree(scratch, folder, copy_function=os.replace, dirs_exist_ok=True)  # no second copy for a while
    shutil.rmtree(scratch)


def downloads() -> Path:
    """Return where archives lie until they are unpacked; they survive a change of settings or code."""
    return cache_folder().parent / "downloads"


def forget(archive: Path) -> None:
    """Remove an archive that was downloaded; one that lies elsewhere is the user's."""
    if archive.parent == downloads():
        archive.unlink(missing_ok=True)  # another process may have unpacked it too
        archive.with_name(f"{archive.name}.sha256").unlink(missing_ok=True)


def fetch_hub(hub: Hub, folder: Path, patterns: Iterable[str] = (), *, endpoint: str | None = None) -> None:
    """Bring the files of a data set on the hub into ``folder``: continued after a cut, checked by the hub's digests.

    How much disk the files of some patterns need, the caller knows and checks.

    Raises:
        DataError: if the hub cannot be reached or does not have it, or the disk is too small for all of it.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise DataError(
            f"{hub.repo} is on the Hugging Face hub; install `pip install 'minima-pipeline[engines]'`"
        ) from None
    if not patterns:
        require_space({folder: max(0, hub.about - held(folder))}, hub.repo)
    try:
        snapshot_download(
            hub.repo,
            repo_type="dataset",
            revision=hub.revision,
            local_dir=folder,
            allow_patterns=list(patterns) or None,
            endpoint=endpoint,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"cannot get {hub.repo} from the hub: {str(error).splitlines()[0]}; try again, or get the files of "
            f"huggingface.co/datasets/{hub.repo} (revision {hub.revision}) another way and put them into {folder}"
        ) from None


def _by_hand(name: str, entry: Source, folder: Path) -> None:
    missing = [pattern for pattern in entry.expects if not any(folder.glob(pattern))]
    if missing:
        raise DataError(
            f"{name} is behind {entry.by_hand}: {entry.steps}, into {folder} (no {missing[0]} there yet); "
            f"licence {entry.licence}"
        )


def _at(mirror: str, name: str) -> str:
    """Return where a mirror has a file; a mirror that names the file itself is taken as it is."""
    return mirror if mirror.rstrip("/").endswith(name) else f"{mirror.rstrip('/')}/{name}"
