"""The table of sources, and how each kind of them comes into a folder."""

import hashlib
import http.server
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from collections import namedtuple

import pytest

from minima_core import cli
from minima_core.acquire import sources as module
from minima_core.acquire.sources import File, Hub, Source, downloads, fetch_hub, fetch_source, source, sources
from minima_core.errors import ConfigError, DataError
from minima_core.evaluation.benchmarks.mmim import Mmim, categories
from minima_core.licences import allows_commercial_use

CONTENT = b"picture" * 500


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def publish(monkeypatch):
    return lambda **made: monkeypatch.setattr(module, "sources", lambda: made)


def archive(path, name="val/a.png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(CONTENT)
        tar.addfile(entry, io.BytesIO(CONTENT))
    return path


@pytest.mark.parametrize("name", sources())
def test_every_source_says_where_and_under_which_licence(name):
    entry = source(name)
    assert entry.page.startswith("http") and entry.licence
    for file in entry.files:
        assert all(url.startswith("http") for url in file.urls)
        assert file.size or file.about, "nothing says how much disk it needs"
        assert file.digest.partition(":")[0] in {"", "sha256", "md5"}


def test_only_known_terms_allow_commercial_use():
    assert not allows_commercial_use(source("metu_vistir").licence)
    assert not allows_commercial_use(source("llvip").licence)
    assert source("megadepth_syn").terms().commercial


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'diode_val'"):
        source("diode")


def test_a_mirror_folder_comes_before_the_official_address(tmp_path):
    mirror = archive(tmp_path / "disk" / "scene_info.tar.gz")
    fetch_source("megadepth_index_glue_factory", tmp_path / "out", mirrors=[str(mirror.parent)])
    assert (tmp_path / "out/val/a.png").read_bytes() == CONTENT
    assert json.loads((tmp_path / "out/source.json").read_text())["licence"] == "LicenseRef-unstated"
    assert mirror.is_file() and not downloads().exists()  # used where it lies
    mirror.unlink()
    fetch_source("megadepth_index_glue_factory", tmp_path / "out")  # asks for nothing


def test_archives_of_the_same_names_go_into_folders_of_their_own(tmp_path):
    names = [file.name for file in source("megadepth_1500_syn").files]
    for name in names:
        archive(tmp_path / "disk" / name, "Undistorted_SfM/0015/images/a.png")
    fetch_source("megadepth_1500_syn", tmp_path / "out", mirrors=[str(tmp_path / "disk")])
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    modalities = ("depth", "event", "infrared", "normal", "paint", "sketch")
    assert found == [f"{modality}/Undistorted_SfM/0015/images/a.png" for modality in modalities]


def test_the_lists_of_mmim_lie_beside_its_images(tmp_path):
    inner = "Multimodal_Image_Matching_Datasets/Medical/Retina"
    database, minima = {f"db-master/{inner}/a.png": CONTENT, "db-master/code.m": b"x"}, {f"db/{inner}/list.json": b"{}"}
    (tmp_path / "disk").mkdir()
    for name, files in (("mmim.zip", database), ("mmim_lists.zip", minima)):
        with zipfile.ZipFile(tmp_path / "disk" / name, "w") as zipped:
            for path, content in files.items():
                zipped.writestr(path, content)
    out = fetch_source("mmim", tmp_path / "out", mirrors=[str(tmp_path / "disk")])
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {f"{inner}/a.png", f"{inner}/list.json", "source.json"}
    assert list(categories(Mmim(Mmim.Params(root=out, subset="full"), "minima-v1").root)) == ["Medical/Retina"]
    with zipfile.ZipFile(tmp_path / "disk/mmim_lists.zip", "w") as zipped:
        zipped.writestr("other/list.json", b"{}")
    with pytest.raises(DataError, match=r"mmim_lists\.zip holds no folder Multimodal"):
        fetch_source("mmim", tmp_path / "again", mirrors=[str(tmp_path / "disk")])


def test_a_wrong_file_of_a_mirror_is_refused(tmp_path):
    mirror = archive(tmp_path / "val.tar.gz")
    with pytest.raises(DataError, match=r"val\.tar\.gz: has md5 .*, 5c895d09201b88973c8fe4552a67dd85 expected"):
        fetch_source("diode_val", tmp_path / "out", mirrors=[mirror.parent.as_uri()])


def test_a_downloaded_archive_goes_when_it_is_unpacked(tmp_path, publish):
    sent = archive(tmp_path / "www" / "a.tar.gz").read_bytes()
    downloads().mkdir(parents=True)
    (downloads() / "a.tar.gz").write_bytes(sent)
    digest = "sha256:" + hashlib.sha256(sent).hexdigest()
    publish(one=Source(what="", page="", licence="MIT", files=(File(name="a.tar.gz", urls=(), digest=digest),)))
    fetch_source("one", tmp_path / "out")
    assert not list(downloads().iterdir())


def test_a_file_that_is_no_archive_is_copied(tmp_path, publish):
    (tmp_path / "list.txt").write_bytes(CONTENT)
    file = File(name="list.txt", urls=(str(tmp_path / "list.txt"),), size=len(CONTENT))
    publish(one=Source(what="", page="", licence="MIT", files=(file,)))
    fetch_source("one", tmp_path / "out")
    assert (tmp_path / "out/list.txt").read_bytes() == CONTENT


def test_the_disk_for_archive_and_content_must_be_there(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 300_000_000_000))
    with pytest.raises(DataError, match=r"megadepth needs 419\.0 GB in .*out and .*downloads, where 300\.0 GB"):
        fetch_source("megadepth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def sparse(path, size):
    """Write a file that has ``size`` bytes and takes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_what_a_cut_left_is_not_asked_for_again(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1_000_000_000))

    def needs(words):
        with pytest.raises(DataError, match=rf"megadepth needs {words}, where 1\.0 GB"):
            fetch_source("megadepth", tmp_path / "out")

    sparse(downloads() / ".MegaDepth_v1.tar.gz.part", 150_000_000_000)
    needs(r"269\.0 GB in .*out and .*downloads")
    (downloads() / ".MegaDepth_v1.tar.gz.part").rename(downloads() / "MegaDepth_v1.tar.gz")
    needs(r"220\.0 GB in .*out")
    sparse(tmp_path / "out/.MegaDepth_v1.tar.gz.unpacking/MegaDepth_v1/0001/a.h5", 200_000_000_000)
    needs(r"20\.0 GB in .*out")


def test_what_came_of_a_hub_is_not_asked_for_again(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    sparse(tmp_path / "out/train/a.jpg", 4000)
    sparse(tmp_path / "out/.cache/huggingface/download/train/b.jpg.incomplete", 1000)
    with pytest.raises(DataError, match=r"me/syn needs 4\.0 kB in .*out, where 1\.0 kB"):
        fetch_hub(Hub(repo="me/syn", about=9000), tmp_path / "out")


def test_a_folder_of_an_archive_is_moved_and_a_cut_move_goes_on(tmp_path, publish, monkeypatch):
    disk = archive(tmp_path / "disk/a.tar.gz", "a-main/top/one.png").parent
    with tarfile.open(disk / "a.tar.gz", "w:gz") as tar:
        for name in ("one", "two"):
            entry = tarfile.TarInfo(f"a-main/top/{name}.png")
            entry.size = len(CONTENT)
            tar.addfile(entry, io.BytesIO(CONTENT))
    publish(one=Source(what="", page="", licence="MIT", files=(File(name="a.tar.gz", urls=(), top="top"),)))
    moved, keep = [], os.replace

    def replace(old, new):
        if moved:
            raise KeyboardInterrupt
        moved.append(new)
        keep(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.os, "replace", replace)
        fetch_source("one", tmp_path / "out", mirrors=[str(disk)])
    fetch_source("one", tmp_path / "out", mirrors=[str(disk)])
    assert sorted(p.name for p in (tmp_path / "out/top").iterdir()) == ["one.png", "two.png"]
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("name", [name for name, entry in sources().items() if entry.by_hand])
def test_what_is_gated_says_what_to_get_and_where_to_put_it(name, tmp_path):
    with pytest.raises(DataError) as caught:
        fetch_source(name, tmp_path / "here")
    message = str(caught.value)
    assert str(tmp_path / "here") in message and "http" in message and "\n" not in message
    for pattern in source(name).expects:
        path = tmp_path / "here" / pattern.replace("**", "deep/folder").replace("*", "x")
        path = path.with_name(path.name.replace("[Vv]", "V").replace("[Ii]", "I"))
        path = path.parent.with_name(path.parent.name.replace("[Vv]", "V").replace("[Ii]", "I")) / path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    fetch_source(name, tmp_path / "here")
    assert (tmp_path / "here/source.json").is_file()


def test_the_command_lists_brings_and_refuses_in_one_line(tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(["download", *map(str, words)])
        return end.value.code or 0, *capsys.readouterr()

    code, said, _ = run()
    assert code == 0 and len(said.splitlines()) == len(sources())
    archive(tmp_path / "scene_info.tar.gz")
    name = "megadepth_index_glue_factory"
    code, said, _ = run(name, "--out", tmp_path / "out", "--mirror", tmp_path)
    assert code == 0 and "licence LicenseRef-unstated" in said and (tmp_path / "out/val/a.png").is_file()
    code, _, said = run("llvip", "--out", tmp_path / "llvip")
    assert code == 1 and len(said.splitlines()) == 1 and "LLVIP.zip" in said
    assert run("llvip")[0] == 1 and run("lvip", "--out", tmp_path)[0] == 1


HUB = {"train/Infrared/MegaDepth_v1/0001/dense0/imgs/a.jpg": CONTENT, "train/Sketch/0001/dense0/imgs/a.jpg": b"sketch"}


@pytest.fixture
def hub():
    """A hub with one data set, whose first answer of each file breaks off."""
    served = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            if self.path.startswith("/api/datasets/me/syn"):
                files = [
                    {"rfilename": name, "size": len(data), "path": name, "type": "file", "oid": "0"}
                    for name, data in HUB.items()
                ]
                found = files if "/tree/" in self.path else {"id": "me/syn", "sha": "c" * 40, "siblings": files}
                return self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, body)
            name = self.path.partition(f"/datasets/me/syn/resolve/{'c' * 40}/")[2]
            if name not in HUB:
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            data, start = HUB[name], 0
            if asked := self.headers.get("Range"):
                start = int(asked.removeprefix("bytes=").split("-")[0])
            if body:
                served.append((name, start))
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": "c" * 40}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.send(206 if start else 200, data[start:], headers, body)

        def send(self, code, data, headers, body):
            self.send_response(code)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", served
    httpd.shutdown()
    httpd.server_close()


def test_a_hub_gives_the_files_that_are_asked_for_and_each_once(hub, tmp_path):
    endpoint, served = hub
    entry = Hub(repo="me/syn", about=1)
    fetch_hub(entry, tmp_path / "out", ["train/Infrared/*"], endpoint=endpoint)
    assert not (tmp_path / "out/train/Sketch").exists()
    fetch_hub(entry, tmp_path / "out", endpoint=endpoint)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in HUB} == HUB
    assert sorted(served) == [(name, 0) for name in sorted(HUB)]


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"cannot get me/syn from the hub: .* another way and put them into"):
        fetch_hub(Hub(repo="me/syn", about=1), tmp_path / "out", endpoint="http://127.0.0.1:1")
