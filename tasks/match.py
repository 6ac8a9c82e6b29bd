"""Stage: a model matches all pairs of a benchmark."""

from __future__ import annotations

from minima_core.config import digest, read_value
from minima_core.evaluation.matching import match_benchmark
from minima_core.evaluation.protocol import get_protocol
from minima_core.io.atomic import scratch_folder
from minima_core.manifest import BenchmarkManifest, ModelCard
from minima_core.models import load_matcher
from minima_core.provenance import code_digest
from tasks.reports import MatchReport
from tasks.stage import Args, Input, Output, execution, run


class MatchArgs(Args):
    """Which model folder on which prepared benchmark, and where the predictions go."""

    matcher: str
    model: Input
    benchmark: Input
    out: Output


def main(args: MatchArgs) -> MatchReport:
    """Match every pair of a prepared benchmark and write predictions.h5.

    A killed run continues after the last part of pairs that it finished. A skipped benchmark gives an empty file that
    says so.
    """
    benchmark = BenchmarkManifest.load(args.benchmark)
    protocol = get_protocol(str(read_value(f"evaluation.{benchmark.benchmark}.protocol")), benchmark.benchmark)
    card, how = ModelCard.load(args.model), execution()
    device = how.torch_device
    found = match_benchmark(
        load_matcher(args.model, device).matcher,
        args.benchmark,
        protocol,
        args.out,
        model=card.digest(),
        licence=card.licence,
        scratch=scratch_folder("match", digest([card.digest(), code_digest()])),
        workers=how.processes if device == "cpu" else 1,
    )
    return MatchReport(
        benchmark=benchmark.benchmark,
        model=card.digest(),
        pairs=len(found.predictions),
        seconds_per_pair=found.seconds_per_pair,
        skipped=benchmark.skipped,
    )


if __name__ == "__main__":
    run(main)
