"""The tables keep rows, their order and what is missing, and merge from parts."""

import math
import statistics

import pytest

from minima_core.checks.store import Tables


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path / "t.db", ["infrared"])


def test_rows_keep_their_order_and_their_gaps(tables):
    tables.add("pairs", [{"pair": "b", "overlap": 0.5}, {"pair": "a", "overlap": math.nan}, {"pair": "c"}])
    assert tables.ask("select pair, overlap, homography from pairs") == [
        ("b", 0.5, None), ("a", None, None), ("c", None, None)
    ]  # fmt: skip
    assert (tables.count("pairs"), tables.count("infrared")) == (3, 0)


def test_parts_are_appended_and_removed(tables, tmp_path):
    for k in (2, 1):
        part = Tables(tmp_path / f"{k}.db", ["infrared"])
        part.add("infrared", [{"image": f"{k}/a"}, {"image": f"{k}/b"}])
        tables.merge(part.path)
    assert [name for (name,) in tables.ask("select image from infrared")] == ["2/a", "2/b", "1/a", "1/b"]
    assert [p.name for p in tmp_path.iterdir()] == ["t.db"]


@pytest.mark.parametrize("values", [[3.0], [5.0, 1.0], [4.0, 9.0, 1.0], [1.0, 2.0, 8.0, 9.0]])
def test_the_median_is_the_median(tables, values):
    tables.add("images", [{"std": value} for value in [*values, None]])
    assert tables.median("images", "std") == statistics.median(values)
    assert tables.median("images", "entropy") is None
