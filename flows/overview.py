"""What a finished run shows at its end: the table, the page, and the commands that open the services' pages."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from minima_core.report.summary import Summary
from minima_core.report.table import render_table

FOLDER = Path("reports/summary")


def main() -> None:
    """Print the comparison of every benchmark, and where to look further."""
    console = Console()
    summary = Summary.load(FOLDER)
    for benchmark in dict.fromkeys(comparison.benchmark for comparison in summary.comparisons()):
        console.print(render_table(summary, benchmark))
    console.print(f"report   {(FOLDER / 'report.html').absolute()}", soft_wrap=True)
    console.print("MLflow   make mlflow   then http://127.0.0.1:5000", soft_wrap=True)
    console.print("Prefect  make server   then http://127.0.0.1:4200", soft_wrap=True)


if __name__ == "__main__":
    main()
