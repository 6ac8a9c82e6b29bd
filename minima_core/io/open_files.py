"""Files that stay open between reads, not more of them than a process may have."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

OPEN_FILES = 128  # of one user; a training has four (two splits, each with shards and parts), a process may open 1024


class _Closable(Protocol):
    def close(self) -> object: ...


F = TypeVar("F", bound=_Closable)


class OpenFiles(Generic[F]):
    """Files that open when they are asked for; of too many the one that was not used for longest is closed.

    Args:
        open_file: opens the file at a path.
    """

    def __init__(self, open_file: Callable[[Path], F]) -> None:
        self._open_file = open_file
        self._open: OrderedDict[Path, F] = OrderedDict()
        self._using = threading.Lock()

    @contextmanager
    def use(self, path: Path) -> Iterator[F]:
        """Yield the file at ``path``; meanwhile no other thread uses or closes any, so read and be done."""
        with self._using:
            if path not in self._open:
                while len(self._open) >= OPEN_FILES:
                    self._open.popitem(last=False)[1].close()
                self._open[path] = self._open_file(path)
            self._open.move_to_end(path)
            yield self._open[path]

    def close(self) -> None:
        """Close all files; they open again when needed."""
        with self._using:
            while self._open:
                self._open.popitem()[1].close()
