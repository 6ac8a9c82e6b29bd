"""What is unpacked is whole; what is hostile or damaged is refused in one line and leaves nothing."""

import errno
import gzip
import io
import os
import shutil
import stat
import tarfile
import tracemalloc
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


def blocks(kind: bytes, content: bytes, name: str = "x") -> bytes:
    """Return a header of a tar and what follows it, of any kind and as it is."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(content)
    return entry.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


SPARSE = bytearray(blocks(tarfile.GNUTYPE_SPARSE, b""))
SPARSE[482] = 1  # its map goes on in the next block
SPARSE[148:156] = b"%06o\0 " % (sum(SPARSE[:148]) + 256 + sum(SPARSE[156:512]))
FILE = blocks(tarfile.REGTYPE, b"hello", "0001/a")
HEADERS = {
    "long name": blocks(tarfile.GNUTYPE_LONGNAME, b"a" * (4 << 20)) + FILE,
    "long link": blocks(tarfile.GNUTYPE_LONGLINK, b"a" * (4 << 20)) + FILE,
    "attributes": blocks(tarfile.XHDTYPE, b"4194304 a=".ljust(4 << 20, b"b")) + FILE,
    "attributes of all": blocks(tarfile.XGLTYPE, b"4194304 a=".ljust(4 << 20, b"b")) + FILE,
    "after a file": FILE + blocks(tarfile.GNUTYPE_LONGNAME, b"a" * (4 << 20)) + FILE,
    "map of holes": bytes(SPARSE) + (bytes(504) + b"\1" + bytes(7)) * 8192,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_bomb_in_headers_is_refused_before_it_is_read(tmp_path, kind):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(HEADERS[kind] + bytes(1024)))
    tracemalloc.start()
    refused(archive, tmp_path, r"headers of more than 1\.0 MB for one file are a bomb; get it from another source")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 << 20


def test_many_headers_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SUSPECT_BYTES", 1 << 20)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(b"".join(blocks(tarfile.REGTYPE, b"", f"0001/{i}") for i in range(4096))))
    refused(archive, tmp_path, "are a bomb")


def test_headers_about_headers_end(tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(blocks(tarfile.GNUTYPE_LONGNAME, b"a") * 1000 + FILE))
    with pytest.raises(DataError, match=r"a\.tar\.gz cannot be read \(maximum recursion depth"):
        unpack(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_file_of_less_than_no_bytes_is_refused(tmp_path):
    block = bytearray(blocks(tarfile.REGTYPE, b"", "pre/fix/0001/a"))
    block[124:136] = (-512).to_bytes(12, "big", signed=True)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    (tmp_path / "a.tar").write_bytes(FILE + bytes(block) + bytes(1024))
    refused(tmp_path / "a.tar", tmp_path, "has -512 bytes")


def test_long_names_and_attributes_within_reason_are_read(tmp_path):
    name = "/".join(["0001", *["deep" * 20] * 5, "a.jpg"])
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        archive = tmp_path / f"{form}.tar.xz"
        with tarfile.open(archive, "w:xz", format=form, pax_headers={"comment": "c" * 5000}) as file:
            entry = tarfile.TarInfo(name)
            entry.size = 5
            file.addfile(entry, io.BytesIO(b"hello"))
        unpack(archive, tmp_path / str(form))
        assert tree(tmp_path / str(form)) == {name: b"hello"}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0001/a", "0001/a/b"], "File exists"),
        (["0001/a", "0001/a/b/c"], "Not a directory"),
        (["0001/a/b", "0001/a"], "Is a directory"),
        (["0001/" + "a" * 300], "File name too long"),
    ],
)
def test_names_that_no_disk_takes_are_refused(tmp_path, kind, names, words):
    archive = MAKERS[kind](tmp_path / f"a.{kind}", {f"pre/fix/{name}": b"hello" for name in names})
    refused(archive, tmp_path, f"is refused: a path in it cannot be made .{words}.; get it from another source")


def test_a_file_without_a_name_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"a": b"hello"})
    archive.write_bytes(archive.read_bytes().replace(b"a", b"\0"))
    refused(archive, tmp_path, "leads out of the folder")


def test_a_full_disk_keeps_what_is_unpacked(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match="No space left on device; mend that and try again"):
        unpack(tar(tmp_path / "a.tar.gz", FILES), tmp_path / "out", scene)
    assert (tmp_path / "out/.a.tar.gz.unpacking").is_dir()


def test_more_than_the_disk_holds_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 3500, 5500))
    with pytest.raises(DataError, match=r"unpacks to more than the 5\.5 kB free in .*out; free some space"):
        unpack(tar(tmp_path / "a.tar.gz", FILES), tmp_path / "out", scene)


def test_what_an_archive_of_the_same_name_could_not_finish_is_not_taken_for_whole(tmp_path, monkeypatch):
    for name, files in (("0001", FILES), ("0003", {"pre/fix/0003/dense0/imgs/c.jpg": b"c"})):
        (tmp_path / name).mkdir()
        tar(tmp_path / name / "data.tar.gz", files)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 3500, 5500))
    with pytest.raises(DataError, match="free some space"):
        unpack(tmp_path / "0001/data.tar.gz", tmp_path / "out", scene)
    assert unpack(tmp_path / "0003/data.tar.gz", tmp_path / "out", scene) == ["0003"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0003"]


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


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    (tmp_path / "a.tar").write_bytes(FILE + b"!" + FILE + bytes(1024))
    with pytest.raises(DataError, match=r"a\.tar cannot be read \(a header is damaged\)"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def refused(archive: Path, folder: Path, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        unpack(archive, folder / "out", scene)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert not list((folder / "out").iterdir())
