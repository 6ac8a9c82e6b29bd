"""Published tables with our rows, and charts of every pair."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest

from minima_core.evaluation.metrics import error_auc
from minima_core.evaluation.protocol import get_protocol
from minima_core.evaluation.scoring import PairScore, Scores, Variant
from minima_core.report.drawing import svg_lines, svg_scatter
from minima_core.report.page import duel, swept
from minima_core.report.pairs import changed_most, couples, error_curve
from minima_core.report.paper import Entry, paper_tables, published_tables
from minima_core.report.scores_page import render_scores


def scores(errors: list[float | None], benchmark: str = "mmim", protocol: str = "minima-v1", **changes) -> Scores:
    used = get_protocol(protocol, benchmark)
    row = {"auc@10px": 30.0, "auc@3px": 10.0, "auc@5px": 20.0}
    values = {
        "benchmark": benchmark,
        "protocol": protocol,
        "protocol_hash": used.digest(),
        "model": "m",
        "data_digest": "d",
        "seed": 0,
        "licence": "",
        "metrics": row,
        "categories": {},
        "groups": {"Medical": row},
        "pairs": [
            PairScore(
                name=str(k),
                category="Medical/Retina",
                error=error,
                matches=9,
                inliers=9,
                failure=None if error is not None else "no",
            )
            for k, error in enumerate(errors)
        ],
    }
    return Scores(**(values | changes))


def test_published_tables_are_complete_and_each_row_grows_with_the_threshold():
    tables = published_tables()
    assert len(tables) == 4
    for table in tables:
        for name, cells in table.rows.items():
            assert len(cells) == len(table.columns), name
            for cell in cells:
                assert len(cell) == 3
                known = [value for value in cell if value is not None]
                assert known == sorted(known) and all(0 <= value <= 100 for value in known), name
    columns = [column for table in tables for column in table.columns]
    assert all(get_protocol("minima-v1", column.benchmark) for column in columns)
    lightglue = next(t for t in tables if "medical" in str(t.columns)).rows["MINIMA_LG"]
    assert lightglue[1] == (37.95, 44.08, 52.50)


def test_our_row_stands_beside_the_published_ones_and_says_what_it_is_over():
    (table,) = paper_tables([Entry("mine", scores([1.0] * 73))])
    (row,) = table.ours
    assert row.cells == [None, (10.0, 20.0, 30.0), None, None]
    assert row.label == "mine, minima-v1" and row.remarks == []
    (few,) = paper_tables([Entry("mine", scores([1.0] * 32))])[0].ours
    assert few.remarks == ["medical: 32 pairs, published 73"]
    (part,) = paper_tables([Entry("mine", scores([1.0] * 12, subset="smoke"))])[0].ours
    assert part.remarks == ["medical: subset smoke, 12 pairs, published 73"]


def test_rows_with_the_same_remarks_share_a_note():
    entries = [Entry(name, scores([1.0] * n)) for name, n in (("a", 32), ("b", 73), ("c", 32), ("d", 31))]
    (table,) = paper_tables(entries)
    assert table.notes == ["medical: 32 pairs, published 73", "medical: 31 pairs, published 73"]
    text = render_scores(entries, [])
    numbers = re.findall(r'<tr class="ours"><th>(\w), minima-v1(?: <small>\((\d)\)</small>)?', text)
    assert numbers == [("a", "1"), ("b", ""), ("c", "1"), ("d", "2")]


def test_another_protocol_gets_a_row_of_its_own_that_says_so():
    (table,) = paper_tables(
        [Entry("mine", scores([1.0] * 73)), Entry("mine", scores([1.0] * 73, protocol="strict-v1"))]
    )
    assert [bool(row.remarks) for row in table.ours] == [False, True]
    assert "not the published protocol" in table.ours[1].remarks[0]
    assert table.notes == [table.ours[1].note]
    assert paper_tables([Entry("mine", scores([1.0], benchmark="toy"))]) == []


def test_a_benchmark_scored_with_another_setting_keeps_both_rows():
    both = [scores([1.0] * 73), scores([2.0] * 73, protocol_hash="other")]
    (table,) = paper_tables([Entry("mine", one) for one in both])
    assert [row.label for row in table.ours] == ["mine, minima-v1"] * 2
    assert [bool(row.remarks) for row in table.ours] == [False, True]
    assert "not the published protocol (other)" in table.ours[1].note


def test_the_area_under_the_error_curve_is_the_auc():
    errors = [0.5, 1.0, 2.5, 4.0, 8.0, 30.0, None]
    curve = error_curve(scores(errors))
    assert curve[0] == (0, 0) and curve[-1] == (10, pytest.approx(500 / 7))
    step = curve[1][0]
    area = sum(step * (a[1] + b[1]) / 2 for a, b in pairwise(curve)) / 10
    exact = 100 * error_auc([math.inf if e is None else e for e in errors], [10])[0]
    assert area == pytest.approx(exact, abs=7)  # steps here, chords between the errors there


def test_pairs_are_coupled_by_name_and_the_largest_changes_found():
    before, after = scores([1.0, 9.0, None, 5.0, None]), scores([8.0, 1.0, 2.0, 5.0, 40.0])
    assert couples(before, after)[2] == (math.inf, 2.0)
    improved, lost = changed_most(before.pairs, after.pairs, 10.0, 2)
    assert improved == [1, 2]  # 9 to 1, none to 2; 40 is as bad as none
    assert lost == [0]


def test_a_scatter_has_a_dot_a_pair_in_the_colour_of_what_became_of_it():
    text = svg_scatter([(4, 1), (1, 4), (math.inf, 2), (math.inf, 20), (0, 0)], 10, "a & b")
    kinds = re.findall(r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', text)
    assert [kind for kind, _, _ in kinds] == ["better", "worse", "better", "same", "same"]
    assert kinds[0][1] == f"{46 + (360 - 56) * math.sqrt(0.4):.1f}"  # by the square root
    assert re.findall(r'text-anchor="end">([^<]+)<', text) == ["0.5", "1", "2.5", "5", "10"]
    assert "a &amp; b" in text and "nan" not in text and "inf" not in text
    assert svg_scatter([], 10, "") == svg_lines({}, "") == ""


def test_a_duel_holds_every_other_model_against_the_first():
    first, second, third = (
        Entry(name, scores(errors)) for name, errors in zip("abc", ([1.0, None], [2.0, 3.0], [1.0, None]), strict=True)
    )
    made = duel("toy", [first, second, third])
    assert [(s.before, s.after, s.better, s.worse) for s in made.scatters] == [("a", "b", 1, 1), ("a", "c", 0, 0)]
    assert made.names == ["a", "b", "c"] and made.unit == " px"
    assert all(f'class="line s{k}"' in made.curves for k in range(3))


def test_a_swept_chart_tells_what_threshold_and_seed_are_worth():
    def way(threshold, seed, value, failures):
        facts = {"estimator": "opencv", "threshold": threshold, "seed": seed, "protocol_hash": "h"}
        metrics = {"auc@3px": 0.0, "auc@5px": value, "auc@10px": 0.0}
        return Variant(**facts, metrics=metrics, failures=failures)

    ways = [way(1, 0, 40.0, 3), way(1, 1, 42.0, 2), way(3, 0, 50.0, 0), way(3, 1, 50.0, 0)]
    first, second = (Entry(name, scores([1.0, 2.0])) for name in "ab")
    both = [Entry(e.label, e.scores.model_copy(update={"sweep": ways})) for e in (first, second)]
    (chart,) = swept("toy", both)
    assert (chart.title, chart.names) == ("toy", ["a", "b"])
    assert (chart.estimator, chart.metric, chart.spread, chart.failures) == ("opencv", "AUC@5 px", 2.0, (0, 3))
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", re.search(r'line s1" d="M([^"]+)"', chart.svg)[1])]
    assert len(heights) == 2 and heights[0] > heights[1]  # 41 lies below 50
    assert len(re.findall('circle class="dot s1"', chart.svg)) == 2
    (alone,) = swept("toy", [first, both[1]])
    assert alone.names == ["b"] and list(swept("toy", [first, second])) == []
