"""Transfers against a server that cuts connections, lies about lengths, serves a wrong file and is busy."""

import hashlib
import shutil
from collections import namedtuple

import pytest
from bad_host import DATA, serving

from minima_core.acquire import transfer
from minima_core.acquire.transfer import Remote, fetch, require_space, to_come
from minima_core.errors import DataError
from minima_core.io.atomic import sole_writer

SHA = "sha256:" + hashlib.sha256(DATA).hexdigest()
OTHER = DATA[::-1]
DEAD = "http://127.0.0.1:1/file.bin"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def get(tmp_path):
    """Return a function that fetches file.bin from hosts into tmp_path/out, and the waits it asked for."""
    waits = []

    def run(*urls, size=None, digest=SHA):
        return fetch(Remote("file.bin", urls, size, digest), tmp_path / "out", sleep=waits.append)

    run.waits, run.folder = waits, tmp_path / "out"
    return run


def left(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_a_file_comes_whole_and_is_not_asked_for_again(get):
    with serving(lambda h, n: h.file()) as host:
        assert get(host.url, size=len(DATA)).read_bytes() == DATA
        get(host.url)
    assert host.ranges == [""]
    assert left(get.folder) == ["file.bin"]


@pytest.mark.parametrize("digest", [SHA, "md5:" + hashlib.md5(DATA).hexdigest(), ""])
def test_a_cut_connection_is_continued_where_it_broke(get, digest):
    with serving(lambda h, n: h.file(send=2_000_000 if n < 4 else None)) as host:
        assert get(host.url, digest=digest).read_bytes() == DATA
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in host.ranges[1:]]
    assert starts == sorted(starts) and starts[0] >= 1_000_000  # nothing that had come was asked for twice


def test_a_killed_process_is_continued(get):
    with serving(lambda h, n: h.file(send=3_000_000 if n == 1 else None)) as host:

        def kill(_):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch(Remote("file.bin", (host.url,), None, SHA), get.folder, sleep=kill)
        assert left(get.folder) == [".file.bin.part", ".file.bin.tag"]
        assert get(host.url).read_bytes() == DATA
    assert host.ranges[1].startswith("bytes=3")


def test_two_processes_do_not_fetch_one_file_at_a_time(get):
    with serving(lambda h, n: h.file()) as host:
        with sole_writer(get.folder / "file.bin"), pytest.raises(DataError, match=r"another process is writing .*bin;"):
            get(host.url)
        assert host.ranges == []
        assert get(host.url).read_bytes() == DATA


def test_a_file_that_changed_between_requests_is_begun_anew(get):
    def behave(handler, n):
        if n == 1:
            handler.file(OTHER, send=3_000_000, etag='"old"')
        else:
            handler.file(etag='"new"')

    with serving(behave) as host:
        assert get(host.url, digest="").read_bytes() == DATA
    assert (get.folder / "file.bin.sha256").read_text().strip() == SHA.partition(":")[2]


def test_the_beginning_of_another_file_is_found_by_the_digest(get):
    get.folder.mkdir()
    (get.folder / ".file.bin.part").write_bytes(OTHER[:2_000_000])
    with serving(lambda h, n: h.file(etag="")) as host:
        assert get(host.url).read_bytes() == DATA
    assert host.ranges == ["bytes=2000000-", ""]


def test_a_host_without_ranges_is_read_from_the_beginning(get):
    with serving(lambda h, n: h.file(send=2_000_000 if n == 1 else None, ranges=False)) as host:
        assert get(host.url).read_bytes() == DATA


def test_a_host_that_never_gets_further_is_given_up(get):
    said = pytest.raises(DataError, match=r"cannot get file\.bin: http.*tries\); try again, or put the file at ")
    with serving(lambda h, n: h.file(send=2_000_000, ranges=False)) as host, said:
        get(host.url)
    assert len(host.ranges) == transfer.TRIES + 1
    assert get.waits == sorted(get.waits)  # it waits longer each time


def test_a_length_that_the_body_falls_short_of_is_not_believed(get):
    with serving(lambda h, n: h.file(says=len(DATA) + 5_000_000)) as host, pytest.raises(DataError, match="tries"):
        get(host.url)
    assert "file.bin" not in left(get.folder)


def test_a_length_below_the_files_gives_no_short_file(get):
    with serving(lambda h, n: h.file(says=3_000_000)) as host, pytest.raises(DataError, match="has sha256"):
        get(host.url)
    assert left(get.folder) == []


def test_a_length_other_than_the_known_size_is_refused_before_it_comes(get):
    said = pytest.raises(DataError, match="says that it has 5120000 bytes, 77 expected")
    with serving(lambda h, n: h.file()) as host, said:
        get(host.url, size=77)
    assert left(get.folder) == []


def test_a_body_without_length_ends_at_the_known_size(get):
    def endless(handler, n):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(DATA)

    with serving(endless) as host, pytest.raises(DataError, match="sends more than the 5120000 bytes"):
        get(host.url, size=len(DATA))
    assert "file.bin" not in left(get.folder)


def test_a_wrong_file_leads_to_the_next_mirror(get):
    with serving(lambda h, n: h.file(OTHER)) as wrong, serving(lambda h, n: h.file()) as right:
        assert get(wrong.url, right.url).read_bytes() == DATA


def test_a_wrong_file_everywhere_names_both_digests_and_leaves_nothing(get):
    with serving(lambda h, n: h.file(OTHER)) as wrong, pytest.raises(DataError) as caught:
        get(wrong.url)
    assert SHA.partition(":")[2] in str(caught.value) and hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left(get.folder) == []


def test_a_web_page_is_no_data(get):
    said = pytest.raises(DataError, match="web page, perhaps one that asks to log in")
    with serving(lambda h, n: h.file(b"<html>", kind="text/html; charset=utf-8")) as host, said:
        get(host.url, digest="")


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_host_is_given_the_time_it_asks_for(get, code):
    with serving(lambda h, n: h.file() if n > 2 else h.status(code, {"Retry-After": "7"})) as host:
        assert get(host.url).read_bytes() == DATA
    assert get.waits == [7, 7]


def test_a_busy_host_that_says_no_time_is_asked_ever_later(get):
    with serving(lambda h, n: h.file() if n > 3 else h.status(503)) as host:
        get(host.url)
    assert get.waits == [2, 4, 8]


def test_a_host_that_asks_for_an_hour_is_left_for_the_next(get):
    with serving(lambda h, n: h.status(429, {"Retry-After": "3600"})) as busy, serving(lambda h, n: h.file()) as free:
        assert get(busy.url, free.url).read_bytes() == DATA
    assert get.waits == []


def test_absent_files_and_dead_hosts_lead_to_the_next_mirror(get):
    with serving(lambda h, n: h.status(404)) as absent, serving(lambda h, n: h.file()) as right:
        assert get(DEAD, absent.url, right.url).read_bytes() == DATA
    assert get.waits == []


def test_a_second_mirror_continues_what_the_first_began(get):
    first = lambda h, n: h.file(send=3_000_000) if n == 1 else h.status(410)  # noqa: E731
    with serving(first) as one, serving(lambda h, n: h.file()) as two:
        assert get(one.url, two.url).read_bytes() == DATA
    assert two.ranges[0].startswith("bytes=3")


@pytest.mark.parametrize("form", ["file", "path"])
def test_a_local_file_is_used_where_it_lies(get, tmp_path, form):
    path = tmp_path / "with space.bin"
    path.write_bytes(DATA)
    assert get(path.as_uri() if form == "file" else str(path)) == path
    assert left(get.folder) == []


def test_a_wrong_local_file_is_refused_and_left_alone(get, tmp_path):
    path = tmp_path / "own.bin"
    path.write_bytes(OTHER)
    with pytest.raises(DataError, match=r"own\.bin: has sha256"):
        get(str(path))
    assert path.read_bytes() == OTHER


def test_another_file_in_the_place_is_named_and_left_alone(get):
    get.folder.mkdir()
    (get.folder / "file.bin").write_bytes(OTHER)
    with pytest.raises(DataError, match=r"out/file\.bin has sha256 .* remove it"):
        get(DEAD)
    assert (get.folder / "file.bin").read_bytes() == OTHER


def test_a_copy_without_a_published_digest_is_held_to_the_first(get):
    with serving(lambda h, n: h.file()) as host:
        path = get(host.url, digest="")
        path.write_bytes(OTHER)
        with pytest.raises(DataError, match="remove it"):
            get(host.url, digest="")


def test_too_small_a_disk_is_refused_before_anything_is_written(get, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9_000_000, 8_000_000, 1_000_000))
    said = pytest.raises(DataError, match=r"fetching file\.bin needs 5\.1 MB in .*out, where 1\.0 MB are free; free")
    with serving(lambda h, n: h.file()) as host, said:
        get(host.url)
    assert left(get.folder) == []


def test_what_is_written_over_is_room(get, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2_000_000))
    get.folder.mkdir()
    (get.folder / ".file.bin.part").write_bytes(DATA[:4_000_000])
    with serving(lambda h, n: h.file(ranges=False)) as host:
        assert get(host.url).read_bytes() == DATA


def test_what_is_to_come_is_what_is_not_there(tmp_path):
    remote = Remote("file.bin", (DEAD,), size=100)
    assert to_come(remote, tmp_path) == 100
    (tmp_path / ".file.bin.part").write_bytes(bytes(60))
    assert to_come(remote, tmp_path) == 40
    assert to_come(Remote("file.bin", (DEAD,)), tmp_path, about=50) == 0  # larger than somebody thought
    (tmp_path / "file.bin").write_bytes(bytes(70))
    assert to_come(Remote("file.bin", (DEAD,)), tmp_path, about=100) == 0
    assert to_come(Remote("other.bin", (DEAD, str(tmp_path / "file.bin"))), tmp_path, about=100) == 0


def test_needs_on_one_disk_add_up(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 15))
    require_space({tmp_path / "a": 10}, "one")
    with pytest.raises(DataError, match=r"both needs 20 bytes in .*a and .*b/c, where 15 bytes are free"):
        require_space({tmp_path / "a": 10, tmp_path / "b/c": 10}, "both")
