"""What is unpacked is whole; what is hostile or damaged is refused in one line and leaves nothing."""

import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path, PurePosixPath

import pytest

from minima_core.acquire import archives
from minima_core.acquire.archives import unpack
from minima_core.errors import DataError

FILES = {
    "pre/fix/0001/dense0/imgs/a.jpg": b"a" * 900,
    "pre/fix/0002/dense0/imgs/b.jpg": b"b" * 800,
    "pre/fix/0001/dense0/depths/a.h5": os.urandom(5000),  # scenes need not be in order
    "pre/fix/readme.txt": b"hello",
}


def tar(path: Path, files: dict[str, bytes], *odd: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o777
            archive.addfile(entry, io.BytesIO(content))
        for entry in odd:
            archive.addfile(entry)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


MAKERS = {"tar.gz": tar, "zip": zipped}


def scene(path: PurePosixPath) -> PurePosixPath | None:
    parts = path.parts[2:]
    return PurePosixPath(*parts) if len(parts) > 1 else None


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kind", MAKERS)
def test_members_go_to_their_place_with_plain_permissions(tmp_path, kind):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", FILES)
    assert unpack(archive, tmp_path / "out", scene) == ["0001", "0002"]
    assert tree(tmp_path / "out") == {name.removeprefix("pre/fix/"): FILES[name] for name in list(FILES)[:3]}
    modes = {p.stat().st_mode & 0o111 for p in (tmp_path / "out").rglob("*.jpg")}
    assert modes == {0}


def test_a_tar_that_ends_in_a_zip_is_unpacked_as_a_tar(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"inner.txt": b"inner"}).read_bytes()
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as file:
        entry = tarfile.TarInfo("0001/inner.zip")
        entry.size = len(inner)
        file.addfile(entry, io.BytesIO(inner))
    assert unpack(archive, tmp_path / "out") == ["0001"]
    assert tree(tmp_path / "out") == {"0001/inner.zip": inner}


def test_an_empty_zip_holds_nothing(tmp_path):
    assert unpack(zipped(tmp_path / "a.zip", {}), tmp_path / "out") == []


def test_parts_that_are_there_are_left_alone(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", FILES)
    own = tmp_path / "out" / "0002" / "own.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert unpack(archive, tmp_path / "out", scene) == ["0001"]
    assert set(tree(tmp_path / "out" / "0002")) == {"own.txt"}


def test_a_killed_run_leaves_no_scene_and_is_continued(tmp_path, monkeypatch):
    archive = tar(tmp_path / "a.tar.gz", FILES)
    written, keep = [], shutil.copyfileobj

    def copy(source, file, length):
        if len(written) == 2:
            file.write(b"half")
            raise KeyboardInterrupt
        written.append(file.name)
        keep(source, file, length)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfileobj", copy)
        unpack(archive, tmp_path / "out", scene)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".a.tar.gz.unpacking"]
    kept = {p: p.stat().st_mtime_ns for p in map(Path, written)}
    unpack(archive, tmp_path / "out", scene)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0001", "0002"]
    assert tree(tmp_path / "out") == {name.removeprefix("pre/fix/"): FILES[name] for name in list(FILES)[:3]}
    moved = {Path(str(p).replace(".a.tar.gz.unpacking/", "")): changed for p, changed in kept.items()}
    assert {p: p.stat().st_mtime_ns for p in moved} == moved


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("pre/fix/0001/link")
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (link(tarfile.SYMTYPE, "/etc/passwd"), "is a link to /etc/passwd"),
        (link(tarfile.SYMTYPE, "a.jpg"), "is a link to a.jpg"),
        (link(tarfile.LNKTYPE, "../../out"), "is a link to ../../out"),
        (link(tarfile.CHRTYPE, ""), "is a device"),
        (link(tarfile.FIFOTYPE, ""), "is a device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path, entry, words):
    refused(tar(tmp_path / "a.tar.gz", FILES, entry), tmp_path, words)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["../../evil.txt", "pre/../../evil.txt", "/etc/evil.txt", "a\\..\\evil.txt"])
def test_paths_that_lead_out_are_refused(tmp_path, kind, name):
    refused(
        MAKERS[kind](tmp_path / f"a.{kind}", {**FILES, name: b"evil"}), tmp_path, "leads out of the folder|not safe"
    )
    assert not list(tmp_path.parent.rglob("evil.txt"))


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    entry = zipfile.ZipInfo("pre/fix/0001/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(entry, "/etc/passwd")
    refused(archive, tmp_path, "is a link")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["pre/fix/0003/zeros.h5", "left/out/zeros"])
def test_a_bomb_is_refused(tmp_path, kind, name, monkeypatch):
    monkeypatch.setattr(archives, "SUSPECT_BYTES", 1 << 20)
    refused(MAKERS[kind](tmp_path / f"a.{kind}", {**FILES, name: bytes(8 << 20)}), tmp_path, "are a bomb")


def test_more_than_the_disk_holds_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 3500, 5500))
    with pytest.raises(DataError, match=r"unpacks to more than the 5\.5 kB free in .*out; free some space"):
        unpack(tar(tmp_path / "a.tar.gz", FILES), tmp_path / "out", scene)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-2000], lambda b: b[:2000] + b"!!!!" + b[2004:], lambda b: b"no archive"]
)
def test_a_damaged_archive_leaves_nothing(tmp_path, kind, damage):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", FILES)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError, match=r"a\..* cannot be read \(.*remove it and fetch it again"):
        unpack(archive, tmp_path / "out", scene)
    assert not list((tmp_path / "out").iterdir())


def refused(archive: Path, folder: Path, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        unpack(archive, folder / "out", scene)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert not list((folder / "out").iterdir())
