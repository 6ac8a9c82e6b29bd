"""The tables that validation looks at, in one SQLite file: the disk limits how many rows there are, not the memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

_SOURCE = {"file": "text", "scene": "text", "split": "text", "problem": "text", "width": "integer", "height": "integer"}
_CONTRAST = {"std": "real", "entropy": "real", "saturated": "real"}
COLUMNS = {
    "scenes": {
        **dict.fromkeys(("scene", "file", "split", "differs", "doubled", "held_out", "empty"), "text"),
        "loops": "integer",
    },
    "images": {
        "image": "text",
        **_SOURCE,
        **_CONTRAST,
        **dict.fromkeys(("content", "camera", "depth_problem", "leak", "copy", "orientation", "look"), "text"),
        **dict.fromkeys(("index_width", "index_height"), "integer"),
        **dict.fromkeys(("pose_error", "depth_coverage"), "real"),
    },
    "pairs": {
        **dict.fromkeys(("pair", "file", "split", "homography"), "text"),
        **dict.fromkeys(("overlap", "fit"), "real"),
    },
    "manifests": {
        **dict.fromkeys(
            ("modality", "file", "named", "source_digest", "index_digest", "surplus", "failed_images", "random"), "text"
        ),
        "failed": "real",
    },
}
RENDITION = {
    "image": "text",
    **_SOURCE,
    **_CONTRAST,
    **dict.fromkeys(("source_width", "source_height"), "integer"),
    **dict.fromkeys(("off_palette", "judged", "agreement", "offset"), "real"),
}


class Tables:
    """Rows of plain values by table; a table whose name is none of ``COLUMNS`` is that of a modality.

    NaN is stored as no value.

    Attributes:
        path: the file.
        modalities: those that have a table, in their order.
        unavailable: modality -> why it could not be made; it has no rows.
    """

    def __init__(self, path: Path, modalities: Iterable[str]) -> None:
        self.path = path
        self.modalities = list(modalities)
        self.unavailable: dict[str, str] = {}
        with self._open() as db:
            for table in self.names():
                columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in self.columns(table).items())
                db.execute(f"create table if not exists {_quoted(table)} ({columns})")

    def names(self) -> list[str]:
        """Return the names of all tables."""
        return [*COLUMNS, *self.modalities]

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table with their types."""
        return COLUMNS.get(table, RENDITION)

    def add(self, table: str, rows: Iterable[Row]) -> None:
        """Append rows; a column that a row lacks has no value there."""
        columns = list(self.columns(table))
        places = ", ".join("?" for _ in columns)
        with self._open() as db:
            values = ([row.get(column) for column in columns] for row in rows)
            db.executemany(f"insert into {_quoted(table)} values ({places})", values)

    def merge(self, path: Path) -> None:
        """Append the rows of another such file, in their order, and remove it."""
        with self._open() as db:
            db.execute("attach ? as other", (str(path),))
            for table in self.names():
                db.execute(f"insert into {_quoted(table)} select * from other.{_quoted(table)} order by rowid")
            db.commit()
            db.execute("detach other")
        path.unlink()

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return int(self.ask(f"select count(*) from {_quoted(table)}")[0][0])

    def ask(self, question: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; for few rows."""
        with self._open() as db:
            return db.execute(question, tuple(values)).fetchall()

    def change(self, *statements: str, values: Iterable[Any] = ()) -> None:
        """Run statements that change rows; ``values`` are those of each."""
        given = tuple(values)
        with self._open() as db:
            for statement in statements:
                db.execute(statement, given)

    def median(self, table: str, column: str) -> float | None:
        """Return the median of the values that a column has, None where it has none."""
        name, own = _quoted(column), _quoted(table)
        known = int(self.ask(f"select count({name}) from {own}")[0][0])
        if not known:
            return None
        middle = f"select {name} from {own} where {name} is not null order by {name} limit 2 - ? % 2 offset (? - 1) / 2"
        values = [row[0] for row in self.ask(middle, (known, known))]
        return float(sum(values) / len(values))

    def _open(self) -> _Connection:
        return _Connection(self.path)


class _Connection(closing[sqlite3.Connection]):
    """A connection that is committed and closed; it waits for no disk, because the file is thrown away in the end."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite3.connect(path, isolation_level="DEFERRED"))
        self.thing: sqlite3.Connection
        self.thing.execute("pragma journal_mode = off")
        self.thing.execute("pragma synchronous = off")

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.thing.commit()
        super().__exit__(*error)


def _quoted(name: str) -> str:
    assert name.isidentifier(), name
    return f'"{name}"'
