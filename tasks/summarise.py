"""Stage: all scores in one place: a record, a page for people and a table for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, TypeAdapter

from minima_core.config import digest, read_seed, read_value
from minima_core.data.index import index_digest, read_scenes
from minima_core.data.shards import Shard
from minima_core.errors import DataError, redo
from minima_core.evaluation.benchmarks.base import PairTruth, Prepared
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.scoring import Scores, match_errors
from minima_core.io.atomic import write_text
from minima_core.io.images import read_image
from minima_core.manifest import CURVES, BenchmarkManifest, Certificate, ModalityManifest, ModelCard, SceneManifest
from minima_core.provenance import code_digest
from minima_core.published import PUBLISHED
from minima_core.report.drawing import Curve
from minima_core.report.page import (
    THRESHOLD,
    BeforeAfter,
    Duel,
    Finding,
    Gallery,
    Swept,
    duel,
    match_picture,
    render_page,
    swept,
)
from minima_core.report.pairs import changed_most, couples, error_curve, reach, unit
from minima_core.report.paper import Entry, paper_tables
from minima_core.report.summary import Comparison, Result, Source, Summary
from minima_core.report.table import markdown_table
from minima_core.types import RGB, Matches
from tasks.reports import ScoreReport, SummaryReport, read_json, read_report
from tasks.stage import Args, Input, Output, run

PAGE, TEXT = "report.html", "summary.md"
ERRORS, PAIRS = "errors", "pairs"  # folders of what dvc.yaml lists under plots, a file a benchmark and matcher
GALLERIES = 3
PICTURES = 12  # pairs shown before and after, or one a comparison; each costs about 150 kB of the page
CHANGED = 2  # pairs of a comparison that improved most, and as many that lost most
MODELS: tuple[Literal["pretrained", "finetuned"], ...] = ("pretrained", "finetuned")
NAMES = "parent", "fine-tuned"
CODE = {  # the code as the page tells of it, by digests; dvc.yaml lists all of it, so that they are never old ones
    "data": ("data", "geometry", "io"),
    "synthesis": ("synthesis",),
    "matchers": ("matchers",),
    "training": ("training", "supervision"),
    "evaluation": ("evaluation",),
}
PACKAGES = (
    "minima-pipeline", "torch", "kornia", "numpy", "scipy", "opencv-python-headless", "h5py", "poselib", "safetensors",
    "dvc", "prefect", "mlflow", "great-expectations",
)  # fmt: skip


class SummariseArgs(Args):
    """Where everything lies that the page shows."""

    scores: Input
    predictions: Input
    raw: Input
    index: Input
    modalities: Input
    certificate: Input
    benchmarks: Input
    models: Input
    out: Output


def main(args: SummariseArgs) -> SummaryReport:
    """Collect the scores of every matcher on every benchmark of params.yaml into summary.json, summary.md and a page.

    The page is one HTML file without links: tables, images of the modalities, matches of parent and fine-tuned model on
    the same pairs, training curves, what was validated, and what data, models and licences it all stands on. It holds
    no clock, so equal inputs give equal bytes. Beside it lie the tables that `dvc plots show` draws, and MLflow gets a
    run with the page.
    """
    reports = list(_reports(args.scores))
    summary = Summary(
        dataset=SceneManifest.load(args.index).dataset,
        scenes=_scene_counts(args.index),
        seed=read_seed(),
        modalities=[str(name) for name in read_value("modalities")],
        certificate=Certificate.load(args.certificate),
        results=[Result.model_validate(report.model_dump(exclude={"stage"})) for report in reports],
        sources=list(_sources(args)),
        packages=_packages(),
        code={part: code_digest(*paths) for part, paths in CODE.items()},
    )
    page = render_page(
        summary,
        galleries=list(galleries(args.index, args.raw, args.modalities, summary.certificate.modalities)),
        papers=paper_tables(_entries(args.scores, summary)),
        duels=list(_duels(args, summary.comparisons())),
        sweeps=list(_sweeps(args, summary.comparisons())),
        changed=list(_changed(args, summary.comparisons())),
        matches=list(_matches(args, summary.comparisons())),
        curves=_curves(args.models),
        findings=_findings(args.certificate),
    )
    write_text(args.out / PAGE, page)
    write_text(args.out / TEXT, _markdown(summary))
    for comparison in summary.comparisons():
        _plots(args, comparison)
    summary.save(args.out)
    _record(args)
    return SummaryReport(scores=reports, html=str(args.out / PAGE))


def _reports(folder: Path) -> Iterator[ScoreReport]:
    for matcher in read_value("matchers"):
        for benchmark in read_value("benchmarks"):
            for model in MODELS:
                path = folder / f"{matcher}-{model}-{benchmark}" / "report.json"
                if not path.is_file():
                    raise DataError(f"no {path}; score the model with `dvc repro score@{matcher}-{model}-{benchmark}`")
                report = read_report(path)
                if not isinstance(report, ScoreReport):
                    again = redo(f"score@{matcher}-{model}-{benchmark}")
                    raise DataError(f"{path} is a report of {report.stage}, not of score; make it again with {again}")
                yield report


def _scene_counts(index: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for scene in SceneManifest.load(index).scenes:
        counts[scene.split] = counts.get(scene.split, 0) + 1
    return counts


def galleries(index: Path, raw: Path, modalities: Path, names: Sequence[str]) -> Iterator[Gallery]:
    """Yield a few images in all their modalities: the middle one of scenes spread over the index, validation first."""
    scenes = [s for s in read_scenes(index) if s.image]
    scenes.sort(key=lambda scene: scene.split != "val")  # training never saw those
    chosen = np.unique(np.linspace(0, len(scenes) - 1, min(GALLERIES, len(scenes))).round().astype(int))
    for scene in (scenes[k] for k in chosen):
        i = len(scene.image) // 2
        shown = {RGB: read_image(raw / scene.image[i])}
        for name in names:
            with Shard(modalities / name / f"{scene.name}.h5") as shard:
                if scene.image_id(i) in shard:
                    shown[name] = shard.image(scene.image_id(i))
        yield Gallery(scene.image_id(i), shown)


@dataclass(frozen=True)
class _Outcome:
    """What a comparison was made from: the pairs, and by model (parent, fine-tuned) its matches and scores."""

    prepared: Prepared
    found: list[list[Matches]]
    scores: list[Scores]

    def shown(self, comparison: Comparison, k: int, tag: str = "") -> BeforeAfter:
        """Return pair ``k`` with the matches of both models drawn over it."""
        truth = self.prepared.list.pairs[k]
        before, after = (
            match_picture(self.prepared, k, found[k], scores.pairs[k])
            for found, scores in zip(self.found, self.scores, strict=True)
        )
        where = comparison.title, comparison.matcher, truth.category, truth.name
        return BeforeAfter(*where, unit(self.scores[0]), before, after, NAMES, tag)


def _outcome(args: SummariseArgs, comparison: Comparison) -> _Outcome:
    where = [args.predictions / comparison.matcher / model / comparison.benchmark for model in MODELS]
    return _Outcome(
        Prepared(args.benchmarks / comparison.benchmark),
        [list(read_predictions(folder)) for folder in where],
        _both(args, comparison),
    )


def _scores(folder: Path, matcher: str, model: str, benchmark: str) -> Scores:
    return Scores.load(folder / f"{matcher}-{model}-{benchmark}")


def _entries(folder: Path, summary: Summary) -> list[Entry]:
    return [
        Entry(f"{r.matcher} ({NAMES[MODELS.index(r.model)]})", _scores(folder, r.matcher, r.model, r.benchmark))
        for r in summary.results
        if not r.skipped
    ]


def _duels(args: SummariseArgs, comparisons: Sequence[Comparison]) -> Iterator[Duel]:
    for comparison in comparisons:
        own = _both(args, comparison)
        if not comparison.caveat and reach(own[0]):
            entries = [Entry(name, scores) for name, scores in zip(NAMES, own, strict=True)]
            yield duel(f"{comparison.title} · {comparison.matcher}", entries)


def _sweeps(args: SummariseArgs, comparisons: Sequence[Comparison]) -> Iterator[Swept]:
    for comparison in comparisons:
        if not comparison.caveat:
            entries = [Entry(name, scores) for name, scores in zip(NAMES, _both(args, comparison), strict=True)]
            yield from swept(f"{comparison.title} · {comparison.matcher}", entries)


def _both(args: SummariseArgs, comparison: Comparison) -> list[Scores]:
    return [_scores(args.scores, comparison.matcher, model, comparison.benchmark) for model in MODELS]


def _plots(args: SummariseArgs, comparison: Comparison) -> None:
    """Write what `dvc plots` draws: the share of pairs within an error, and the errors of each pair."""
    before, after = _both(args, comparison)
    limit = reach(after)  # of lost pairs it says nothing by how much
    if not limit:
        return
    name = f"{comparison.benchmark}-{comparison.matcher}.csv"
    curves = zip(error_curve(before), error_curve(after), strict=True)
    shares = ((f"{at:g}", f"{one:.2f}", f"{two:.2f}") for (at, one), (_, two) in curves)
    errors = ((f"{min(one, limit):.4g}", f"{min(two, limit):.4g}") for one, two in couples(before, after))
    _write_csv(args.out / ERRORS / name, ("error", *NAMES), shares)
    _write_csv(args.out / PAIRS / name, NAMES, errors)


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    write_text(path, text.getvalue())


def _record(args: SummariseArgs) -> None:
    """Keep the page and the table in MLflow, beside the runs that they tell of."""
    from tasks.tracking import stage_run

    read = {name: list(read_value(name)) for name in ("modalities", "matchers", "benchmarks")}
    with stage_run("summarise", params=read, inputs={"scores": args.scores, "models": args.models}) as tracker:
        tracker.artifact(args.out / PAGE)
        tracker.artifact(args.out / TEXT)


def _matches(args: SummariseArgs, comparisons: Sequence[Comparison]) -> Iterator[BeforeAfter]:
    for comparison in comparisons:
        outcome = _outcome(args, comparison)
        if outcome.prepared.list.task == "overlap":
            continue
        counts = outcome.prepared.manifest.categories
        categories = [name for name in comparison.names if name in counts and name != RGB]
        chosen = categories[: max(1, PICTURES // len(comparisons))]
        for k in typical(outcome.prepared.list.pairs, outcome.found[0], outcome.found[1], chosen):
            yield outcome.shown(comparison, k)


def _changed(args: SummariseArgs, comparisons: Sequence[Comparison]) -> Iterator[BeforeAfter]:
    for comparison in comparisons:
        outcome = _outcome(args, comparison)
        if comparison.caveat or outcome.prepared.list.task == "overlap":
            continue
        before, after = outcome.scores
        improved, lost = changed_most(before.pairs, after.pairs, reach(after), CHANGED)
        for tag, chosen in (("improved", improved), ("lost", lost)):
            for k in chosen:
                yield outcome.shown(comparison, k, tag)


def typical(
    pairs: Sequence[PairTruth], before: Sequence[Matches], after: Sequence[Matches], categories: Sequence[str]
) -> Iterator[int]:
    """Yield for each category the number of the pair whose gain in right matches is the median of the category."""
    gains = [_right(truth, a) - _right(truth, b) for truth, b, a in zip(pairs, before, after, strict=True)]
    for category in categories:
        own = sorted((k for k, truth in enumerate(pairs) if truth.category == category), key=lambda k: (gains[k], k))
        yield own[len(own) // 2]


def _right(truth: PairTruth, matches: Matches) -> int:
    return int((match_errors(truth, matches) <= THRESHOLD).sum())


def _curves(models: Path) -> dict[str, dict[str, Curve]]:
    curves: dict[str, dict[str, Curve]] = {}
    for matcher in read_value("matchers"):
        again = f"make it again with {redo(f'finetune@{matcher}')}"
        curves[matcher] = read_json(models / "finetuned" / matcher / CURVES, _CURVES, again)
    return curves


def _findings(folder: Path) -> list[Finding]:
    rows = read_json(folder / "findings.json", _ROWS, f"make it again with {redo('validate')}")
    return [Finding(row.table, row.rule, row.checked, row.broken, _span(row.observed)) for row in rows]


class _Row(BaseModel):
    """A finding as validate wrote it; the page does not show all of it."""

    table: str
    rule: str
    checked: int
    broken: int
    observed: list[float] | None


_CURVES = TypeAdapter(dict[str, Curve])
_ROWS = TypeAdapter(list[_Row])


def _span(observed: Sequence[float] | None) -> str:
    if observed is None:
        return ""
    low, high = (f"{value:.4g}" for value in observed)
    return low if low == high else f"{low} to {high}"


def _sources(args: SummariseArgs) -> Iterator[Source]:
    index = SceneManifest.load(args.index)
    yield Source(
        kind="data set",
        name=index.dataset,
        made_by="download, index",
        digest=index_digest(args.index),
        licence=index.licence,
    )
    for name in read_value("modalities"):
        made = ModalityManifest.load(args.modalities / name)
        yield Source(
            kind="modality",
            name=name,
            made_by=made.engine if made.status == "complete" else f"unavailable ({made.engine})",
            digest=digest(made),
            licence=made.licence,
            commercial=made.commercial,
            settings=made.params,
        )
    for matcher in read_value("matchers"):
        yield from _model_sources(args.models, matcher)
    for benchmark in read_value("benchmarks"):
        manifest = BenchmarkManifest.load(args.benchmarks / benchmark)
        yield Source(
            kind="benchmark",
            name=benchmark,
            made_by="skipped" if manifest.skipped else "fetch_benchmark",
            digest=manifest.data_digest,
            licence=manifest.licence,
        )


def _model_sources(models: Path, matcher: str) -> Iterator[Source]:
    for stage in ("pretrained", "finetuned"):
        card = ModelCard.load(models / stage / matcher)
        if card.parent is None:
            for file, sha256 in card.source.items():
                known = PUBLISHED.get(file)  # a card of another version may name a file that this one does not know
                yield Source(
                    kind="weights",
                    name=file,
                    made_by="published",
                    digest=sha256,
                    licence=known.licence.name if known else card.licence,
                    commercial=known.licence.commercial if known else card.commercial,
                )
        yield Source(
            kind="model",
            name=f"{matcher} ({stage})",
            made_by="fine-tuning" if card.parent else "pre-training" if card.training else "adopted weights",
            digest=card.digest(),
            licence=card.licence,
            commercial=card.commercial,
            settings={"matcher": card.params, "training": card.training},
        )


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the core runs without the orchestrators
            continue
    return found


def _markdown(summary: Summary) -> str:
    certificate = summary.certificate
    parts = [
        f"# {summary.dataset}: RGB parent against fine-tuned model\n",
        f"{certificate.images} images and {certificate.pairs} pairs, modalities "
        f"{', '.join(certificate.modalities) or 'none'}; seed {summary.seed}; values in percent.\n",
    ]
    for comparison in summary.comparisons():
        parts.append(f"## {comparison.title}, {comparison.matcher}\n")
        parts.append(markdown_table(comparison))
        result = comparison.child
        parts.append(f"{result.pairs} pairs, protocol {result.protocol} (`{result.protocol_hash[:12]}`).\n")
    parts += [f"## {name}\n\nSkipped: {reason}\n" for name, reason in summary.skipped().items()]
    return "\n".join(parts)


if __name__ == "__main__":
    run(main)
