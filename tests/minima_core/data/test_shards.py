from __future__ import annotations

import h5py
import numpy as np
import pytest

from minima_core.data.shards import Entry, Shard, write_shard
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
def test_entries_are_what_was_written(tmp_path, raw):
    written = [Entry(*item, raw if item[1] else b"") for item in ITEMS]
    write_shard(tmp_path / "s.h5", written)
    with Shard(tmp_path / "s.h5") as shard:
        assert list(shard.entries()) == written


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
