"""The page of a made-up run: complete, self-contained, small, and the same twice."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import finished_run
import numpy as np
import pytest
from finished_run import ABSENT, BENCHMARK, MATCHER
from rich.console import Console
from tiny_world import MODALITIES

from minima_core.config import load_params
from minima_core.errors import DataError
from minima_core.evaluation.scoring import Scores, Variant
from minima_core.provenance import code_digest
from minima_core.report.summary import Summary
from minima_core.report.table import markdown_table, render_table
from tasks.summarise import SummariseArgs, main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    finished_run.make(root)
    return root


@pytest.fixture
def summarise(run, tmp_path, monkeypatch, tracker):
    monkeypatch.chdir(run)
    data = Path("data")
    folders = {name: data / name for name in ("raw", "index", "modalities", "certificate", "benchmarks")}
    folders |= {"scores": Path("reports/scores")}
    folders |= {"predictions": Path("predictions"), "models": Path("models"), "report": tmp_path / "report.json"}

    def summarise(out: str = "summary"):
        return tmp_path / out, main(SummariseArgs(out=tmp_path / out, **folders))

    return summarise


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "link", "iframe"}
        values = dict(attributes)
        self.sources += [values[key] for key in ("src", "href") if key in values]
        if tag not in {"meta", "img", "br", "circle", "line", "path"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"circle", "line", "path"}:
            assert self.open.pop() == tag


def test_the_page_stands_alone(summarise):
    out, report = summarise()
    text = (out / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.sources and all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    assert len(text) < 4_000_000
    assert report.html == str(out / "report.html")


def test_the_page_shows_everything(summarise):
    out, _ = summarise()
    text = (out / "report.html").read_text()
    assert f"training <code>{code_digest('training', 'supervision')[:16]}</code>" in text
    for name in (
        BENCHMARK,
        ABSENT,
        MATCHER,
        *MODALITIES,
        "rgb (retention)",
        "bring it there",
        "xfeat.pt",
        "Apache-2.0",
    ):
        assert name in text, name
    assert text.count('<svg class="chart"') == 2 + 2  # loss and recall (the rate is no quality); scatter and curves
    assert text.count('alt="matches of parent"') == len(MODALITIES) + text.count("<h3>improved") + text.count(
        "<h3>lost"
    )
    assert 1 <= text.count("<h3>improved") <= 2
    assert re.search(r"95 % intervals over pairs, AUC@5 px: parent \d+\.\d to \d+\.\d, fine-tuned", text)
    assert "<h2>Beside the published" not in text  # nobody published a figure of this benchmark
    assert "thermal &lt;b&gt;" in text  # what comes from data is escaped


def test_each_of_many_comparisons_still_shows_a_pair(summarise, monkeypatch):
    monkeypatch.setattr("tasks.summarise.PICTURES", 0)  # as 12 of 13 comparisons
    out, _ = summarise()
    assert (out / "report.html").read_text().partition("Matches before and after")[2].count("<h3>infrared ") == 1


def test_equal_inputs_give_equal_bytes(summarise):
    first, _ = summarise("first")
    second, _ = summarise("second")
    for name in ("report.html", "summary.md", "summary.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_the_page_is_kept_in_mlflow(summarise, tracker):
    summarise()
    assert tracker.run["name"] == "summarise"
    assert tracker.kept == ["report.html", "summary.md"]


def test_dvc_draws_the_errors_of_both_models(summarise, run):
    out, _ = summarise()
    drawn = load_params(Path(__file__).parents[2] / "dvc.yaml")["plots"]
    folders = {Path(folder).name: settings for plot in drawn for folder, settings in plot.items()}
    assert sorted(folders) == sorted(path.name for path in out.iterdir() if path.is_dir())
    rows = {name: list(csv.DictReader((out / name / f"{BENCHMARK}-{MATCHER}.csv").open())) for name in folders}
    for name, settings in folders.items():
        for row in rows[name]:
            assert set(row) == {settings["x"], *np.atleast_1d(settings["y"])}
    scores = Scores.load(run / "reports/scores" / f"{MATCHER}-finetuned-{BENCHMARK}")
    within = [pair.error is not None and pair.error <= 5 for pair in scores.pairs]
    (at_five,) = [row for row in rows["errors"] if float(row["error"]) == 5]
    assert float(at_five["fine-tuned"]) == pytest.approx(100 * np.mean(within), abs=0.01)
    shown = [float(row["fine-tuned"]) for row in rows["pairs"]]
    assert shown == pytest.approx([min(pair.error or np.inf, 10) for pair in scores.pairs], rel=1e-3)


def test_the_table_compares_parent_and_child(summarise):
    out, _ = summarise()
    summary = Summary.load(out)
    screen = io.StringIO()
    Console(file=screen, width=160).print(render_table(summary))
    text = screen.getvalue()
    rows = [line for line in text.splitlines() if "→" in line][1:]
    assert [row.split("│")[1].strip() for row in rows] == [*MODALITIES, "rgb (retention)", "mean"]
    assert "real skipped: no data at ../mmim" in " ".join(text.split())
    (comparison,) = summary.comparisons()
    assert comparison.overall.gain("auc@5px") > 5
    markdown = (out / "summary.md").read_text()
    assert f"{comparison.overall.child['auc@5px']:.2f}" in markdown and "Skipped: no data" in markdown


def test_results_of_two_protocols_are_never_compared_in_silence(summarise):
    out, _ = summarise()
    summary = Summary.load(out)
    other = [
        r.model_copy(update={"protocol_hash": "f" * 64}) if r.model == "pretrained" else r for r in summary.results
    ]
    mixed = summary.model_copy(update={"results": other})
    screen = io.StringIO()
    Console(file=screen, width=200).print(render_table(mixed))
    (comparison,) = mixed.comparisons()
    for text in (screen.getvalue(), markdown_table(comparison), comparison.caveat):
        assert "ffffffffffff" in text and "measured differently" in " ".join(text.split())
    assert not summary.comparisons()[0].caveat
    moved = [r.model_copy(update={"data_digest": "0"}) if r.model == "pretrained" else r for r in summary.results]
    assert "different data" in summary.model_copy(update={"results": moved}).comparisons()[0].caveat


def test_a_part_of_a_benchmark_is_marked_in_every_table(run, summarise):
    kept = {}
    try:
        for model in ("pretrained", "finetuned"):
            path = run / f"reports/scores/{MATCHER}-{model}-{BENCHMARK}/report.json"
            kept[path] = path.read_text()
            path.write_text(json.dumps(json.loads(kept[path]) | {"subset": "mini"}))
        out, _ = summarise("part")
    finally:
        for path, text in kept.items():
            path.write_text(text)
    screen = io.StringIO()
    Console(file=screen, width=200).print(render_table(Summary.load(out)))
    for text in (screen.getvalue(), (out / "summary.md").read_text(), (out / "report.html").read_text()):
        assert f"{BENCHMARK} (subset mini)" in text


def test_an_unscored_model_says_what_to_run(summarise, run):
    report = run / "reports/scores" / f"{MATCHER}-finetuned-{BENCHMARK}" / "report.json"
    hidden = report.rename(report.with_suffix(".hidden"))
    try:
        with pytest.raises(DataError, match=f"dvc repro score@{MATCHER}-finetuned-{BENCHMARK}"):
            summarise()
    finally:
        hidden.rename(report)


@pytest.mark.parametrize("content", [b"", b'{"loss": 1}', b"\xff", b'{"stage": "check"}'])
@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (f"models/finetuned/{MATCHER}/curves.json", f"finetune@{MATCHER}"),
        ("data/certificate/findings.json", "validate"),
        (f"reports/scores/{MATCHER}-finetuned-{BENCHMARK}/report.json", ""),
    ],
)
def test_a_damaged_file_says_what_to_run(summarise, run, path, stage, content):
    whole = (run / path).read_bytes()
    try:
        (run / path).write_bytes(content)
        with pytest.raises(DataError, match=rf"{path} is .*`dvc repro -f -s {stage}" if stage else path) as caught:
            summarise()
        assert "\n" not in str(caught.value)
    finally:
        (run / path).write_bytes(whole)


def test_sweeps_of_both_models_are_drawn(run, summarise, tmp_path):
    kept = {}
    try:
        for model in ("pretrained", "finetuned"):
            folder = run / f"reports/scores/{MATCHER}-{model}-{BENCHMARK}"
            kept[folder] = (folder / Scores.FILE).read_bytes()
            read = Scores.load(folder)
            facts = {"protocol_hash": "h", "metrics": read.metrics, "failures": 1, "seed": 0}
            ways = [Variant(estimator=e, threshold=t, **facts) for e in ("poselib", "opencv") for t in (1.0, 3.0)]
            read.model_copy(update={"sweep": ways}).save(folder)
        where, _ = summarise("swept")
    finally:
        for folder, text in kept.items():
            (folder / Scores.FILE).write_bytes(text)
    text = (where / "report.html").read_text()
    section = text.partition("How much hangs on the estimator</h2>")[2].partition("</section>")[0]
    assert section.count("<svg") == 2 and section.count('class="key"') == 4
    assert "by the threshold of opencv" in section and "a seed moves it" not in section  # there is one seed
    assert "How much hangs" not in (summarise("plain")[0] / "report.html").read_text()
