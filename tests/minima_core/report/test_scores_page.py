"""The page of scores alone, by the command line."""

from __future__ import annotations

import re
import shutil

import h5py
import pytest
from finished_run import BENCHMARK, MATCHER, make

from minima_core import cli
from minima_core.evaluation.predictions import Predictions
from minima_core.evaluation.scoring import Scores
from minima_core.report.paper import Entry
from minima_core.report.scores_page import grouped, render_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    make(root)
    return root


def scores(run, model: str):
    return run / f"reports/scores/{MATCHER}-{model}-{BENCHMARK}/scores.json"


def command(*argv: object) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main(["report", *map(str, argv)])
    return done.value.code or 0


def test_the_page_has_tables_charts_and_the_pairs_that_changed_most(run, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # it is of no plugin
    argv: list[object] = ["--out", tmp_path / "page.html", "--root", run / "data/benchmarks" / BENCHMARK]
    for model in ("pretrained", "finetuned"):
        argv += ["--scores", scores(run, model), "--predictions", run / "predictions" / MATCHER / model / BENCHMARK]
    assert command(*argv) == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count('<svg class="chart"') == 2
    assert re.search(r"<h3>improved .*pretrained against finetuned", text)
    assert "matches of finetuned" in text and 'caveat">' not in text
    assert "A dot is a pair" in text
    for source in re.findall(r'(?:src|href)="([^"]*)"', text):
        assert source.startswith("data:image/jpeg;base64,")
    assert "<script" not in text and not re.search(r"https?://", text)


def test_a_single_model_is_shown_with_the_pairs_it_is_farthest_off_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # it is of no plugin
    own, root = run / "predictions" / MATCHER / "finetuned" / BENCHMARK, run / "data/benchmarks" / BENCHMARK
    page = tmp_path / "page.html"
    argv = ["--scores", scores(run, "finetuned"), "--predictions", own, "--root", root, "--out", page]
    assert command(*argv) == 0
    read = Scores.load(scores(run, "finetuned").parent)
    worst = max((pair for pair in read.pairs if pair.error is not None), key=lambda pair: pair.error)
    assert "A dot is a pair" not in page.read_text()  # one model has no before and after
    section = page.read_text().partition("farthest off</h2>")[2]
    assert section.index(worst.name) == min(section.find(p.name) for p in read.pairs if p.name in section)
    assert f"error {worst.error:.2f}" in section and section.count("<img") == min(4, len(read.pairs))


def test_two_scores_under_one_name_are_told_apart(run, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # it is of no plugin
    argv: list[object] = ["--out", tmp_path / "page.html", "--root", run / "data/benchmarks" / BENCHMARK]
    for model in ("pretrained", "finetuned"):
        own, folder = tmp_path / model, run / "predictions" / MATCHER / model / BENCHMARK
        named = Scores.load(scores(run, model).parent).model_copy(update={"model": "models/mine"})
        named.save(own)
        shutil.copy(folder / Predictions.FILE, own)
        with h5py.File(own / Predictions.FILE, "r+") as file:
            file.attrs["model"] = "models/mine"
        argv += ["--scores", own / Scores.FILE, "--predictions", own]
    assert command(*argv) == 0
    text = (tmp_path / "page.html").read_text()
    assert re.search(r"<h3>improved .*models/mine \(1\) against models/mine \(2\)", text)
    assert text.count('class="line s') == 2


def test_pictures_are_of_the_pairs_and_matches_that_were_scored(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # it is of no plugin
    folder, root = run / "predictions" / MATCHER / "finetuned" / BENCHMARK, run / "data/benchmarks" / BENCHMARK
    page = tmp_path / "page.html"
    argv = ["--scores", scores(run, "pretrained"), "--out", page, "--root", root, "--predictions", folder]
    assert command(*argv) == 1 and "were not made from" in capsys.readouterr().err
    read = Scores.load(scores(run, "finetuned").parent)
    others = [pair.model_copy(update={"matches": pair.matches + 1}) for pair in read.pairs]  # as with --max-keypoints
    read.model_copy(update={"pairs": others}).save(tmp_path)
    argv = ["--scores", tmp_path / Scores.FILE, "--out", page, "--root", root, "--predictions", folder]
    assert command(*argv) == 1 and "were not made from" in capsys.readouterr().err
    read.model_copy(update={"data_digest": "d" * 64}).save(tmp_path)
    argv = ["--scores", tmp_path / Scores.FILE, "--out", page, "--root", root, "--predictions", folder]
    assert command(*argv) == 1 and "is not what" in capsys.readouterr().err
    assert not page.exists()


def test_categories_outside_the_figure_are_named(run):
    read = Scores.load(scores(run, "finetuned").parent)
    assert re.search(r"leave out[^<]*: rgb\.", render_scores([Entry("a", read)]))
    everything = read.model_copy(update={"headline": list(read.categories)})
    assert "leave out" not in render_scores([Entry("a", everything)])


def test_scores_of_two_protocols_get_a_table_each_and_a_warning(run, tmp_path):
    read = Scores.load(scores(run, "finetuned").parent)
    other = read.model_copy(update={"protocol": "strict-v1", "protocol_hash": "e" * 64, "model": "<other>"})
    other.save(tmp_path)
    assert len(grouped([Entry("a", read), Entry("b", other), Entry("c", read)])) == 2
    argv = ["--scores", scores(run, "finetuned"), "--scores", tmp_path / Scores.FILE, "--out", tmp_path / "page.html"]
    assert command(*argv) == 0
    text = (tmp_path / "page.html").read_text()
    assert "do not compare" in text and "eeeeeeeeeeee" in text
    assert "&lt;other&gt;" in text and "<other>" not in text


def test_a_benchmark_without_errors_gets_a_table_and_no_empty_charts(run):
    read = Scores.load(scores(run, "finetuned").parent)
    rates = {"far@15": 3.0, "recall@15": 61.0, "auroc_inliers": 90.0}
    text = render_scores([Entry("a", read.model_copy(update={"metrics": rates, "categories": {}, "groups": {}}))], [])
    assert "61.0" in text and "<svg" not in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--scores", "nowhere.json", "--out", "p.html"], "cannot read nowhere.json"),
        (["--scores", "text.json", "--out", "p.html"], "text.json holds no scores"),
        (["--scores", "text.json", "--out", "p.csv"], "--out must end in .html"),
        (["--scores", "text.json", "--out", "p.html", "--predictions", "a"], "one --predictions for each --scores"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("{}")
    assert command(*argv) == 1
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "p.html").exists()


def test_a_part_of_a_benchmark_is_marked_and_shares_no_table_with_the_whole(run):
    whole = Scores.load(scores(run, "finetuned").parent)
    part = whole.model_copy(update={"subset": "smoke", "data_digest": "d" * 64})
    text = render_scores([Entry("a", whole), Entry("b", part)])
    titles = re.findall(rf"<h3>({BENCHMARK}.*) by ", text)
    assert titles == 2 * [BENCHMARK, f"{BENCHMARK} (subset smoke)"]  # of the tables, and of the charts
