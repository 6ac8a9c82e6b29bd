"""Stage: a benchmark plugin brings its pairs with their ground truth."""

from __future__ import annotations

from pathlib import Path

from minima_core.config import digest, read_value
from minima_core.evaluation.benchmarks.base import BENCHMARKS, create_benchmark
from minima_core.evaluation.protocol import get_protocol
from minima_core.io.atomic import scratch_folder, whole_folder
from minima_core.provenance import code_digest
from tasks.reports import FetchReport
from tasks.stage import Args, Input, Output, execution, remove_when_done, run


class FetchArgs(Args):
    """Which benchmark, and where to."""

    benchmark: str
    out: Output
    checked: Input = Path("data/checked.json")  # not read: it says that the names are known


def main(args: FetchArgs) -> FetchReport:
    """Prepare a benchmark for its protocol in params.yaml: pairs, ground truth and, where it makes them, images.

    A benchmark whose data are not there is not an error: what is written says that it is skipped, why, and the remedy.
    """
    BENCHMARKS.get(args.benchmark)
    settings = read_value(f"benchmark.{args.benchmark}")
    protocol = get_protocol(str(read_value(f"evaluation.{args.benchmark}.protocol"))).name
    scratch = scratch_folder("fetch_benchmark", digest([args.benchmark, settings, protocol, code_digest()]))
    with whole_folder(args.out, scratch / "whole") as folder:
        benchmark = create_benchmark(args.benchmark, settings, protocol)
        manifest = benchmark.prepare(folder, scratch=scratch / "work", workers=execution().processes)
    remove_when_done(scratch)
    return FetchReport(
        benchmark=args.benchmark, pairs=manifest.pairs, categories=manifest.categories, skipped=manifest.skipped
    )


if __name__ == "__main__":
    run(main)
