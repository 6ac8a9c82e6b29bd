"""Flow: everything up to date, then the fine-tuned matchers are registered, compared and perhaps promoted."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.pipeline import Outcome, once, reproduce
from flows.promotion import Decision, Promotion
from flows.publish import publish
from flows.registry import promote, register
from minima_core.config import read_section, read_value
from tasks.reports import ScoreReport


@flow(name="retrain")
def retrain(push: bool = False) -> dict[str, Decision]:
    """Run what changed, register each fine-tuned matcher and make it champion when it is better.

    Args:
        push: also push data and models to DVC's remote and commit dvc.lock on a branch.
    """
    rule = read_section("promotion", Promotion)
    outcomes = reproduce()
    decisions = {}
    for matcher in map(str, read_value("matchers")):
        model = register(matcher, Path("models/finetuned") / matcher)
        decision = decisions[matcher] = promote(model, scores(outcomes, matcher), rule)
        page = decision.markdown(f"{model.name} version {model.version}")
        create_markdown_artifact(page, key=f"promotion-{model.name}")
    if push:
        publish()
    return decisions


def scores(outcomes: dict[str, Outcome], matcher: str) -> list[ScoreReport]:
    """Return the score reports of one matcher."""
    reports = [outcome.report for outcome in outcomes.values()]
    return [r for r in reports if isinstance(r, ScoreReport) and r.matcher == matcher]


if __name__ == "__main__":
    once(retrain)
