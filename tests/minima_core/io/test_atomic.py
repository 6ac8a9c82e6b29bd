"""A writer leaves the whole file or nothing."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minima_core.errors import DataError
from minima_core.io.atomic import (
    atomic_path,
    new_folder,
    remove_folder,
    replace_folder,
    sole_writer,
    whole_folder,
    write_json,
)


def test_a_crash_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(DataError, match=r"a\.txt: No space left"), atomic_path(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not target.exists()


def test_a_read_only_folder_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    def refused(*_args, **_more):
        raise OSError(errno.EROFS, "Read-only file system", ".a.unfinished.txt")

    monkeypatch.setattr(Path, "unlink", refused)  # says so of files that are not there, too
    target = tmp_path / "a.txt"
    with pytest.raises(DataError, match=r"cannot write .*/a\.txt: Read-only file system"), atomic_path(target):
        refused()


def test_a_kill_while_a_folder_is_removed_leaves_nothing_of_it_under_its_name(tmp_path, monkeypatch):
    """Half a checkpoint was taken for a damaged one, by a training that had come to its end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_args, **_more: None)  # killed before it removes anything
        remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)  # as the run that continues does
    assert not list(tmp_path.iterdir())


def test_a_point_stands_in_one_line(tmp_path):
    values = {
        "name": "[\n 1,\n 2\n]",
        "points": [[0.5, -1e-07], [3, 4.25]],
        "scores": [1.0, 0.5],
        "none": [],
        "texts": ["1", "2"],
    }
    write_json(tmp_path / "a.json", values, rows=True)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == values
    assert "  [0.5, -1e-07],\n  [3, 4.25]\n" in text and '"scores": [1.0, 0.5]' in text


def test_equal_values_give_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "b.json", {"a": [1.5], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_nan_is_refused_because_it_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_folder_appears_whole_and_its_scratch_survives_a_crash(tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    with pytest.raises(RuntimeError), whole_folder(out, scratch) as folder:
        (folder / "part").write_text("1")
        raise RuntimeError
    assert not out.exists()
    with whole_folder(out, scratch) as folder:
        assert (folder / "part").read_text() == "1"
    assert (out / "part").read_text() == "1"
    assert not scratch.exists()


def test_a_folder_is_filled_by_one_process_at_a_time(tmp_path):
    """Each would remove what the other has begun, and one of them ended well with a part of the files."""
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "part").write_text("1")
        with pytest.raises(DataError, match=r"another process is writing .*/out; wait for it"), new_folder(out):
            raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "part").read_text() == "1"


def test_what_a_killed_writer_leaves_keeps_nobody_out(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from minima_core.io.atomic import new_folder
with new_folder(Path({str(tmp_path / "out")!r})) as folder:
    (folder / "old").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with sole_writer(tmp_path / "out"):
        assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    assert not list(tmp_path.iterdir())


def test_what_a_kill_leaves_half_written_never_reaches_the_output(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from minima_core.io.atomic import atomic_path, whole_folder
with whole_folder(Path({str(tmp_path / "out")!r}), Path({str(tmp_path / "scratch")!r})) as folder:
    with atomic_path(folder / "deep" / "000.jpg") as temporary:
        temporary.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "scratch").rglob("*.jpg"))) == 1
    with whole_folder(tmp_path / "out", tmp_path / "scratch") as folder:
        assert list(folder.rglob("*.jpg")) == []
        (folder / "deep" / "001.jpg").write_bytes(b"whole")
    assert [p.name for p in (tmp_path / "out").rglob("*.jpg")] == ["001.jpg"]


def test_an_older_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(OSError, match="gone"):
        replace_folder(tmp_path / "gone", tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]
    (tmp_path / "new").mkdir()
    replace_folder(tmp_path / "new", tmp_path / "out")
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
