"""The paper's tables with our rows beside the published ones; a row of ours says where it does not compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from minima_core.evaluation.metrics import Metrics, by_threshold
from minima_core.evaluation.protocol import get_protocol
from minima_core.evaluation.scoring import Scores

PROTOCOL = "minima-v1"  # by which the published figures were made
Cell = tuple[float | None, ...]  # percent at the thresholds of a table; None where nobody published one


class Column(BaseModel):
    """One column: a benchmark's own figure, or that of a group of its categories."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    benchmark: str
    group: str  # "" for the benchmark's own
    pairs: int  # that the published figure is over

    def of(self, scores: Scores) -> Metrics | None:
        """Return the metrics of ours that stand in this column, None where there are none."""
        if scores.benchmark != self.benchmark or scores.skipped:
            return None
        return scores.groups.get(self.group) if self.group else scores.metrics

    def counted(self, scores: Scores) -> int:
        """Return over how many pairs that is."""
        if not self.group:
            return len(scores.pairs)
        return sum(pair.category.startswith(f"{self.group}/") for pair in scores.pairs)


class PublishedTable(BaseModel):
    """One table as it was published."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    source: str
    columns: list[Column]
    rows: dict[str, list[Cell]]


@dataclass(frozen=True)
class Entry:
    """Scores of one model under the name that tables show."""

    label: str
    scores: Scores


@dataclass(frozen=True)
class OurRow:
    """One row of ours: a cell a column, None where we have nothing, and why it may not compare."""

    label: str
    cells: list[Cell | None]
    remarks: list[str]

    @property
    def note(self) -> str:
        """The remarks in one line, "" where there are none."""
        return "; ".join(self.remarks)


@dataclass(frozen=True)
class PaperTable:
    """A published table and the rows of ours that belong into it."""

    published: PublishedTable
    ours: list[OurRow]

    @property
    def notes(self) -> list[str]:
        """The remarks of our rows, each once; rows refer to them by number."""
        return list(dict.fromkeys(row.note for row in self.ours if row.note))


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Return the tables of ``published.yaml``."""
    text = files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(PublishedTable.model_validate(table) for table in yaml.safe_load(text))


def paper_tables(entries: Sequence[Entry]) -> list[PaperTable]:
    """Return the tables that one of ``entries`` has a figure for.

    A row a label and protocol; one that scored a benchmark twice, with another setting, has a second row for that.
    """
    rows_of: dict[tuple[str, str], list[dict[str, Scores]]] = {}
    for entry in entries:
        variants = rows_of.setdefault((entry.label, entry.scores.protocol), [])
        free = next((of for of in variants if entry.scores.benchmark not in of), None)
        if free is None:
            variants.append(free := {})
        free[entry.scores.benchmark] = entry.scores
    tables = []
    for table in published_tables():
        rows = []
        for (label, protocol), variants in rows_of.items():
            for of in variants:
                row = _row(f"{label}, {protocol}", table.columns, list(of.values()))
                if any(row.cells):
                    rows.append(row)
        if rows:
            tables.append(PaperTable(table, rows))
    return tables


def _row(label: str, columns: Sequence[Column], scores: Sequence[Scores]) -> OurRow:
    cells: list[Cell | None] = []
    remarks: list[str] = []
    for column in columns:
        found = next((s for s in scores if column.of(s)), None)
        metrics = column.of(found) if found else None
        if found is None or not metrics:
            cells.append(None)
            continue
        cells.append(tuple(metrics[name] for name in by_threshold(metrics)))
        if (n := column.counted(found)) != column.pairs or found.subset:
            part = f"subset {found.subset}, " if found.subset else ""
            remarks.append(f"{column.title}: {part}{n} pairs, published {column.pairs}")
        if found.protocol_hash != get_protocol(PROTOCOL, column.benchmark).digest():
            remarks.append(f"{column.title}: not the published protocol ({found.protocol_hash[:12]})")
    return OurRow(label, cells, remarks)
