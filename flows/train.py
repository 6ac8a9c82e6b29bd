"""Flow: pretrain and fine-tune matchers."""

from __future__ import annotations

from prefect import flow

from flows.pipeline import once, reproduce
from tasks.reports import TrainingReport


@flow(name="train")
def train(matchers: list[str] | None = None) -> dict[str, TrainingReport]:
    """Bring the named matchers up to date, all of params.yaml when none is named; returns how fine-tuning went."""
    outcomes = reproduce([f"finetune@{matcher}" for matcher in matchers] if matchers else ["finetune"])
    reports = [outcome.report for outcome in outcomes.values()]
    return {r.matcher: r for r in reports if isinstance(r, TrainingReport) and r.stage == "finetune"}


if __name__ == "__main__":
    once(train)
