"""Progress of everything that takes longer than a few seconds: a bar on a terminal, now and then a line in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
logger = logging.getLogger(__name__)
LOG_EVERY = 10.0  # seconds


def track(items: Iterable[T], what: str, *, total: int | None = None, done: int = 0) -> Iterator[T]:
    """Yield ``items`` and show how far they are; ``done`` counts those that an earlier run finished.

    Of items that have no length and no ``total`` only the number is shown.
    """
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            job = bar.add_task(what, total=total, completed=done)
            for item in items:
                yield item
                bar.advance(job)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=done + 1):
        yield item
        if time.monotonic() - last > LOG_EVERY or count == total:
            last = time.monotonic()
            logger.info("%s: %d%s", what, count, "" if total is None else f" of {total}")
