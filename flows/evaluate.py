"""Flow: match and score matchers on benchmarks."""

from __future__ import annotations

from prefect import flow

from flows.pipeline import once, read_stages, reproduce
from minima_core.config import unknown
from minima_core.errors import ConfigError
from tasks.reports import ScoreReport


@flow(name="evaluate")
def evaluate(matchers: list[str] | None = None, benchmarks: list[str] | None = None) -> list[ScoreReport]:
    """Bring the scores of the named matchers on the named benchmarks up to date; all where none is named."""
    reports = [outcome.report for outcome in reproduce(targets(matchers or [], benchmarks or [])).values()]
    return [report for report in reports if isinstance(report, ScoreReport)]


def targets(matchers: list[str], benchmarks: list[str]) -> list[str]:
    """Return the score stages of the named matchers and benchmarks.

    Raises:
        ConfigError: if no score stage has a name that is asked for.
    """
    parts = {stage.name: stage.name.partition("@")[2].split("-") for stage in read_stages(["score"])}
    stages = {name: part for name, part in parts.items() if name.startswith("score@")}
    for place, names in ((0, matchers), (2, benchmarks)):
        known = {part[place] for part in stages.values()}
        if wrong := [name for name in names if name not in known]:
            raise ConfigError(f"nothing to evaluate: {unknown(wrong[0], known, 'dvc.yaml')}")
        stages = {name: part for name, part in stages.items() if not names or part[place] in names}
    return list(stages)


if __name__ == "__main__":
    once(evaluate)
