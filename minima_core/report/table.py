"""The final table, for a terminal and for markdown: RGB parent against fine-tuned model."""

from __future__ import annotations

from rich.table import Table

from minima_core.report.summary import Comparison, Row, Summary
from minima_core.types import RGB

RETENTION = "rgb (retention)"


def render_table(summary: Summary, benchmark: str | None = None) -> Table:
    """Return the comparison on a benchmark, the first that was scored when none is named, as a table for a terminal.

    A row a category, the benchmark's own mean below a rule, and under each metric the parent's value, the fine-tuned
    model's and the difference in points. Skipped benchmarks stand in the caption.
    """
    chosen = [c for c in summary.comparisons() if benchmark in (None, c.benchmark)]
    skipped = "; ".join(f"{name} skipped: {why}" for name, why in summary.skipped().items())
    if not chosen:
        return Table(title="no benchmark was scored", caption=skipped or None)
    first = chosen[0]
    caption = "; ".join(filter(None, [*dict.fromkeys(c.caveat for c in chosen), skipped]))
    table = Table(title=f"{first.title}: RGB parent → fine-tuned (percent)", caption=caption or None)
    table.add_column("category")
    for metric in first.metrics:
        table.add_column(shown(metric), justify="right")
    for comparison in (c for c in chosen if c.benchmark == first.benchmark):
        prefix = f"{comparison.matcher}: " if len({c.matcher for c in chosen}) > 1 else ""
        rows = list(comparison.rows())
        for row in rows:
            table.add_row(prefix + label(row), *(_cell(row, metric) for metric in first.metrics))
        table.add_section()
        overall = comparison.overall
        table.add_row(prefix + "mean", *(_cell(overall, metric) for metric in first.metrics), style="bold")
        table.add_section()
    return table


def markdown_table(comparison: Comparison) -> str:
    """Return a comparison as a markdown table, ending with a line feed."""
    metrics = comparison.metrics
    head = ["category", *(f"{metric} parent | fine-tuned | gain" for metric in metrics)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" + "---:|" * (3 * len(metrics))]
    for row in (*comparison.rows(), comparison.overall):
        cells = [f"{row.parent[m]:.2f} | {row.child[m]:.2f} | {row.gain(m):+.2f}" for m in metrics]
        lines.append(f"| {label(row)} | {' | '.join(cells)} |")
    if comparison.caveat:
        lines += ["", f"Not comparable: {comparison.caveat}."]
    return "\n".join(lines) + "\n"


def label(row: Row) -> str:
    """Return what a row is called."""
    return RETENTION if row.name == RGB else row.name


def shown(metric: str) -> str:
    """Return a metric's name as people write it: ``auc@5px`` as AUC@5 px, ``far@15`` as FAR@15 inliers."""
    what, _, at = metric.partition("@")
    if not at:
        return metric.replace("_", " of ").upper().replace(" OF ", " of ")
    unit = " px" if at.endswith("px") else "°" if what == "auc" else " inliers"
    return f"{what.upper()}@{at.removesuffix('px')}{unit}"


def _cell(row: Row, metric: str) -> str:
    gain = row.gain(metric)
    colour = "green" if gain > 0.05 else "red" if gain < -0.05 else "dim"
    return f"{row.parent[metric]:.1f} → {row.child[metric]:.1f} [{colour}]{gain:+.1f}[/]"
