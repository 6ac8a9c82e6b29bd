"""Stage: predictions to metrics, on the CPU and from files alone."""

from __future__ import annotations

from typing import Literal

from minima_core.config import read_section
from minima_core.evaluation.metrics import Metrics
from minima_core.evaluation.protocol import Evaluation, Protocol, get_protocol
from minima_core.evaluation.scoring import Scores, score_predictions
from minima_core.evaluation.sweep import sweep_predictions
from minima_core.io.atomic import write_text
from minima_core.manifest import BenchmarkManifest
from tasks.reports import ScoreReport
from tasks.stage import Args, Input, Output, execution, run

REPORT = "report.json"  # a copy of the stage's report that other stages may depend on


class ScoreArgs(Args):
    """Which predictions against which benchmark, of which of a matcher's models."""

    matcher: str
    model: Literal["pretrained", "finetuned"]
    predictions: Input
    benchmark: Input
    out: Output


def main(args: ScoreArgs) -> ScoreReport:
    """Score the predictions of a benchmark: a row a pair (scores.json), and the metrics of all and of each category.

    Where params.yaml names a sweep, scores.json also holds what other estimators, thresholds and seeds give. The run is
    recorded in MLflow below the one that made the model. A skipped benchmark has no numbers and no run.
    """
    benchmark = BenchmarkManifest.load(args.benchmark).benchmark
    chosen = read_section(f"evaluation.{benchmark}", Evaluation)
    protocol, workers = get_protocol(chosen.protocol, benchmark), execution().processes
    scores = score_predictions(args.predictions, args.benchmark, protocol, workers=workers)
    if chosen.sweep:
        swept = sweep_predictions(args.predictions, args.benchmark, protocol, chosen.sweep, workers=workers)
        scores = scores.model_copy(update={"sweep": swept})
    report = ScoreReport(
        benchmark=scores.benchmark,
        protocol=scores.protocol,
        protocol_hash=scores.protocol_hash,
        data_digest=scores.data_digest,
        subset=scores.subset,
        matcher=args.matcher,
        model=args.model,
        seed=scores.seed,
        metrics=scores.metrics,
        categories=scores.categories,
        groups=scores.groups,
        pairs=len(scores.pairs),
        failures=scores.failures,
        intervals=scores.intervals,
        skipped=scores.skipped,
    )
    scores.save(args.out)
    write_text(args.out / REPORT, report.model_dump_json(indent=1) + "\n")
    if not scores.skipped:
        record(args, scores, protocol)
    return report


def record(args: ScoreArgs, scores: Scores, protocol: Protocol) -> None:
    """Write the scores to MLflow, metric names led by the benchmark's."""
    from tasks.tracking import stage_run

    with stage_run(
        f"score@{args.matcher}-{args.model}-{scores.benchmark}",
        params={"benchmark": scores.benchmark, "protocol": protocol.model_dump(mode="json")},
        inputs={"predictions": args.predictions, "benchmark": args.benchmark},
        parent_card=scores.model,
        tags={
            "matcher": args.matcher,
            "model": args.model,
            "protocol_hash": scores.protocol_hash,
            "subset": scores.subset or "full",
        },
    ) as tracker:
        tracker.metrics(named(scores))
        tracker.artifact(args.out / scores.FILE)


def named(scores: Scores) -> Metrics:
    """Return all metrics under names that are unique in a store: benchmark, category, metric."""
    rows = {"": scores.metrics} | {f"{name}/": row for name, row in (scores.categories | scores.groups).items()}
    return {
        f"{scores.benchmark}/{row}{name}": value for row, metrics in rows.items() for name, value in metrics.items()
    }


if __name__ == "__main__":
    run(main)
