"""A model on a benchmark, from images to numbers: match, then score."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minima_core.errors import DataError, redo
from minima_core.evaluation.benchmarks.base import BENCHMARKS, create_benchmark
from minima_core.evaluation.matching import MatchesImages, match_benchmark
from minima_core.evaluation.predictions import Predictions
from minima_core.evaluation.protocol import Protocol
from minima_core.evaluation.scoring import Scores, score_predictions
from minima_core.io.atomic import sole_writer
from minima_core.manifest import BenchmarkManifest


def evaluate(
    matcher: MatchesImages,
    benchmark: Path,
    protocol: Protocol,
    *,
    model: str,
    licence: str,
    workers: int = 1,
    scorers: int = 1,
    keep: Path | None = None,
) -> Scores:
    """Match and score in one go.

    Args:
        matcher: with its weights.
        benchmark: a prepared folder.
        protocol: how.
        model: what the scores call the model.
        licence: of the model.
        workers: threads that match.
        scorers: processes that score.
        keep: folder for predictions.h5, so that they can be scored again; None leaves no file.

    Raises:
        DataError: naming the file that cannot be used, or ``keep`` where another process fills it.
    """
    with tempfile.TemporaryDirectory(prefix="minima-") as name:
        scratch = Path(name)
        out = keep or scratch
        with sole_writer(out / Predictions.FILE):  # what is scored is what this process matched
            match_benchmark(
                matcher, benchmark, protocol, out, model=model, licence=licence, scratch=scratch / "parts",
                workers=workers,
            )  # fmt: skip
            return score_predictions(out, benchmark, protocol, workers=scorers)


@contextmanager
def prepared_root(benchmark: str, root: Path, protocol: str, subset: str = "") -> Iterator[Path]:
    """Yield a prepared folder for ``root``: itself where it is one, else a temporary one that reads the data there.

    Args:
        benchmark: its name.
        root: the folder.
        protocol: the name of the one that pairs are drawn by.
        subset: another one than a prepared folder has is refused; "" for what it has, and all of other data.

    Raises:
        ConfigError: for an unknown benchmark or subset.
        DataError: where the folder holds another benchmark or subset, or where there are no data: a benchmark that
            was asked for by name is not skipped.
    """
    plugin = BENCHMARKS.get(benchmark)
    if not root.is_dir():
        raise DataError(f"no folder {root}; it must hold the data of {benchmark}")
    if (root / BenchmarkManifest.FILE).is_file():
        manifest = BenchmarkManifest.load(root)
        if manifest.benchmark != benchmark or manifest.skipped:
            raise DataError(f"{root} holds no {benchmark}: {manifest.skipped or f'it is {manifest.benchmark}'}")
        if subset and subset != (manifest.subset or "full"):
            raise DataError(
                f"{root} is prepared as {manifest.subset or 'the whole'}; give the data themselves, or set "
                f"benchmark.{benchmark}.subset in params.yaml and say {redo(f'fetch_benchmark@{benchmark}')}"
            )
        yield root
        return
    settings = {"root": root, "subset": subset or "full", "scenes": []}
    if not plugin.Params.model_fields.keys() <= settings.keys():
        raise DataError(
            f"no {BenchmarkManifest.FILE} in {root}; prepare it with `dvc repro fetch_benchmark@{benchmark}` "
            f"and give data/benchmarks/{benchmark}"
        )
    with tempfile.TemporaryDirectory(prefix="minima-") as name:
        folder = Path(name)
        own = {name: settings[name] for name in plugin.Params.model_fields}
        found = create_benchmark(benchmark, own, protocol)
        if reason := found.absent():  # asked here, because the graph would be told that the benchmark is skipped
            raise DataError(f"{reason} or give another --root")
        found.prepare(folder, scratch=folder / "scratch")
        yield folder
