from __future__ import annotations

import errno
import hashlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

from minima_core.data.shards import Entry, Shard, merge_shards, write_shard
from minima_core.errors import DataError
from minima_core.io.images import encode_png

PICTURE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
ITEMS = [("s/b", encode_png(PICTURE), '{"c": 1}'), ("s/a", b"", "no depth"), ("s/c", b"xyz", "{}")]


def test_what_goes_in_comes_out_in_order(tmp_path):
    write_shard(tmp_path / "s.h5", iter(ITEMS))
    with Shard(tmp_path / "s.h5") as shard:
        assert shard.ids == ["s/b", "s/a", "s/c"]
        assert [(name, shard.encoded(name), shard.drawn(name)) for name in shard.ids] == ITEMS
        assert (shard.image("s/b") == PICTURE).all()
        assert "s/a" in shard and "s/z" not in shard


@pytest.mark.parametrize("raw", [b"", b"four"])
def test_all_of_a_shard_is_what_was_written(tmp_path, raw):
    written = [Entry(*item, raw if item[1] else b"") for item in ITEMS]
    write_shard(tmp_path / "s.h5", written)
    with Shard(tmp_path / "s.h5") as shard:
        whole = zip(shard.ids, shard.blobs("data"), shard.facts().values(), shard.blobs("raw"), strict=True)
        assert [Entry(*one) for one in whole] == written
        assert shard.sizes("raw").tolist() == [len(e.raw) for e in written]


def images(count, size, raw):
    """Return images of about ``size`` bytes, each third without any."""
    noise = np.random.default_rng(0)
    for i in range(count):
        data = b"" if i % 3 == 2 else noise.bytes(size + i)
        yield Entry(f"s/{i}", data, f'{{"drawn": {i}}}', noise.bytes(raw + i) if raw and data else b"")


@pytest.mark.parametrize("raw", [0, 9, 100_000])
@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 1), (3, 0), (7, 300), (300, 90), (31, 100_000)])
def test_a_merged_shard_is_bit_for_bit_the_one_written_at_once(tmp_path, count, size, raw):
    whole = list(images(count, size, raw))
    parts = [tmp_path / f"{start:06d}.h5" for start in range(0, count, 8)]
    for k, part in enumerate(parts):
        write_shard(part, whole[8 * k : 8 * k + 8])
    merge_shards(tmp_path / "merged.h5", parts)
    write_shard(tmp_path / "once.h5", [entry for entry in whole if entry.data])
    assert (tmp_path / "merged.h5").read_bytes() == (tmp_path / "once.h5").read_bytes()


def test_a_shard_is_bit_for_bit_what_earlier_versions_wrote(tmp_path):
    write_shard(tmp_path / "s.h5", images(12, 5000, 700))
    found = hashlib.sha256((tmp_path / "s.h5").read_bytes()).hexdigest()
    assert found == "a8bc92415adcdec1ce2c3b0a31711f2852f8e0614ef1d88906de9e19691ffacb"


def test_a_merge_holds_one_part_in_memory(tmp_path):
    """In a process of its own, whose address space has room for a few parts and not for the whole."""
    for k in range(24):
        write_shard(tmp_path / f"{k:06d}.h5", [(f"s/{k}", bytes([k]) * 8_000_000, "{}")])
    script = """
import resource
from pathlib import Path
from minima_core.data.shards import merge_shards

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
merge_shards(Path("whole.h5"), sorted(Path().glob("0*.h5")))
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    with Shard(tmp_path / "whole.h5") as shard:
        assert shard.sizes("data").tolist() == [8_000_000] * 24
        assert shard.encoded("s/5") == b"\5" * 8_000_000


@pytest.mark.parametrize("room", [100_000, 300_000])
def test_a_merge_without_room_is_one_line_and_leaves_nothing(tmp_path, room):
    write_shard(tmp_path / "part.h5", [("s/0", bytes(300_000), "{}")])
    script = f"""
import resource
from pathlib import Path
from minima_core.data.shards import merge_shards
from minima_core.errors import DataError

resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    merge_shards(Path("whole.h5"), [Path("part.h5")])
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cannot write whole.h5: File too large; free some space")
    assert [path.name for path in tmp_path.iterdir()] == ["part.h5"]


def test_a_shard_that_is_one_file_too_many_is_not_called_damaged(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(h5py, "File", full)
    with pytest.raises(DataError, match="too many open files; allow more") as caught:
        Shard(tmp_path / "s.h5")
    assert "make it again" not in str(caught.value)


def test_equal_items_give_equal_bytes(tmp_path):
    write_shard(tmp_path / "1.h5", ITEMS)
    write_shard(tmp_path / "2.h5", ITEMS)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_an_empty_shard_is_a_shard(tmp_path):
    write_shard(tmp_path / "s.h5", [])
    with Shard(tmp_path / "s.h5") as shard:
        assert shard.ids == []


def test_a_missing_image_and_an_undecodable_one_are_named(tmp_path):
    write_shard(tmp_path / "s.h5", ITEMS)
    with Shard(tmp_path / "s.h5") as shard:
        with pytest.raises(DataError, match="s/z"):
            shard.encoded("s/z")
        with pytest.raises(DataError, match="s/c"):
            shard.image("s/c")
        with pytest.raises(DataError, match="s/a"):
            shard.image("s/a")


def test_a_missing_or_truncated_shard_is_named_with_its_remedy(tmp_path):
    path = tmp_path / "s.h5"
    with pytest.raises(DataError, match=r"s\.h5.*dvc repro -f -s synthesise"):
        Shard(path)
    write_shard(path, ITEMS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"s\.h5.*dvc repro -f -s synthesise"):
        Shard(path)


def test_text_that_is_none_is_told_as_a_damaged_shard(tmp_path):
    path = tmp_path / "s.h5"
    write_shard(path, [("s/a", b"bytes", '{"drawn": 1}')])
    path.write_bytes(path.read_bytes().replace(b'{"drawn"', b'\xff"drawn"'))
    with Shard(path) as shard:
        for read in (shard.facts, lambda: shard.drawn("s/a")):
            with pytest.raises(DataError, match=r"cannot read shard .*s\.h5.*dvc repro -f -s synthesise"):
                read()


def test_offsets_that_do_not_fit_are_refused(tmp_path):
    write_shard(tmp_path / "s.h5", ITEMS)
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file["offset"][-1] = 3
    with pytest.raises(DataError, match="damaged"):
        Shard(tmp_path / "s.h5")


def test_a_failed_write_leaves_nothing(tmp_path):
    def items():
        yield ITEMS[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "s.h5", items())
    assert list(tmp_path.iterdir()) == []
