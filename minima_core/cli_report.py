"""``minima report``: scores of several models, side by side on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from minima_core.cli_arguments import check_output
from minima_core.errors import ConfigError, DataError


def report(
    *,
    scores: Annotated[
        list[Path],
        typer.Option(help="What evaluate or score wrote; several times. The first is held against the others."),
    ],
    out: Annotated[Path, typer.Option(help="The page, .html.")],
    predictions: Annotated[
        list[Path], typer.Option(help="Folder of evaluate --keep, one for each --scores, in order.")
    ] = [],  # noqa: B006, typer reads it only
    root: Annotated[
        Path | None, typer.Option(help="The benchmark's data, as for evaluate; for pictures of matches.")
    ] = None,
) -> None:
    """Put scores on one page.

    It holds tables by protocol, published figures beside them, every pair, and the largest changes. Pictures of the
    pairs that changed most, or that a single model is farthest off on, are drawn where --predictions and --root are
    given.
    """
    check_output(out, "--out", (".html",), tuple(scores))
    if predictions and (len(predictions) != len(scores) or root is None):
        raise ConfigError("give one --predictions for each --scores, in the same order, and --root")
    from minima_core.evaluation.run import prepared_root
    from minima_core.io.atomic import write_text
    from minima_core.report.paper import Entry
    from minima_core.report.scores_page import Drawn, grouped, render_scores

    entries = _told_apart([Entry(read.model, read) for read in map(_read, scores)])
    changed, worst = [], []
    if root is not None and predictions:
        where = {id(entry): folder for entry, folder in zip(entries, predictions, strict=True)}
        for group in grouped(entries):
            with prepared_root(group.benchmark, root, group.protocol, group.subset or "full") as folder:
                drawn = Drawn(group, {entry.label: where[id(entry)] for entry in group.entries}, folder)
                changed += list(drawn.changed())
                worst += list(drawn.worst())
    write_text(out, render_scores(entries, changed, worst))
    typer.echo(f"{len(entries)} scores on {out}")


def _told_apart(entries: list[Any]) -> list[Any]:
    """Return ``entries`` with numbers behind labels that one table has twice: a folder before and after a training."""
    from collections import Counter
    from dataclasses import replace

    def place(entry: Any) -> tuple[str, ...]:
        read = entry.scores
        return entry.label, read.benchmark, read.data_digest, read.protocol_hash

    of_all, seen = Counter(map(place, entries)), Counter[tuple[str, ...]]()
    told = []
    for entry in entries:
        seen[place(entry)] += 1
        many = of_all[place(entry)] > 1
        told.append(replace(entry, label=f"{entry.label} ({seen[place(entry)]})") if many else entry)
    return told


def _read(path: Path) -> Any:
    from pydantic import ValidationError

    from minima_core.evaluation.scoring import Scores

    try:
        return Scores.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give what `minima evaluate --out` wrote") from None
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path} holds no scores ({first}); give what `minima evaluate --out` wrote") from None
