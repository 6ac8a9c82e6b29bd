"""The rule by which a model becomes champion: pure functions over scores, so that a decision can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from minima_core.config import Section, digest, unknown
from minima_core.errors import ConfigError
from minima_core.evaluation.metrics import gain
from minima_core.types import RGB
from tasks.reports import ScoreReport

Rival = Literal["parent", "champion"]


class Promotion(Section):
    """``promotion`` in params.yaml; without a vote nothing is promoted.

    A benchmark that was skipped, or of which only a part was scored, does not vote.
    """

    benchmarks: dict[str, str] = Field(min_length=1)  # name -> metric; each of them must gain
    min_gain: float  # points of that metric over the parent, and over the champion
    max_rgb_loss: float = Field(ge=0)  # points that RGB pairs may lose, where the benchmark has them


class Score(BaseModel):
    """What one model reached on one benchmark, and what it was measured on: only equal measures compare."""

    model_config = ConfigDict(frozen=True)
    metric: str
    value: float
    rgb: float | None
    measured_on: str


class Vote(BaseModel):
    """One benchmark's comparison with one rival."""

    model_config = ConfigDict(frozen=True)
    benchmark: str
    metric: str
    rival: Rival
    candidate: float
    against: float
    gain: float
    rgb_loss: float | None
    passed: bool


class Decision(BaseModel):
    """Whether a model becomes champion, and the figures that say so."""

    model_config = ConfigDict(frozen=True)
    promoted: bool
    reason: str
    votes: list[Vote]

    def markdown(self, model: str) -> str:
        """Return the decision as a page for people."""
        head = "| benchmark | metric | against | candidate | other | gain | RGB loss | passed |"
        lines = [f"# {model}: {'promoted' if self.promoted else 'not promoted'}", "", self.reason, "", head]
        lines.append("|---|---|---|---:|---:|---:|---:|---|")
        for vote in self.votes:
            loss = "" if vote.rgb_loss is None else f"{vote.rgb_loss:+.2f}"
            lines.append(
                f"| {vote.benchmark} | {vote.metric} | {vote.rival} | {vote.candidate:.2f} | {vote.against:.2f} "
                f"| {vote.gain:+.2f} | {loss} | {'yes' if vote.passed else 'no'} |"
            )
        return "\n".join(lines) + "\n"


Scores = dict[str, Score]


def scores_of(reports: Iterable[ScoreReport], rule: Promotion) -> Scores:
    """Return the scores that ``rule`` asks for of one model's reports.

    Raises:
        ConfigError: if a benchmark has no such metric.
    """
    found: Scores = {}
    for report in reports:
        metric = rule.benchmarks.get(report.benchmark)
        if metric is None or report.skipped or report.subset:
            continue
        if metric not in report.metrics:
            where = f"the metrics of {report.benchmark}"
            raise ConfigError(f"promotion.benchmarks.{report.benchmark}: {unknown(metric, report.metrics, where)}")
        found[report.benchmark] = Score(
            metric=metric,
            value=report.metrics[metric],
            rgb=report.categories.get(RGB, {}).get(metric),
            measured_on=digest([report.protocol_hash, metric, report.data_digest]),
        )
    return found


def decide(candidate: Scores, parent: Scores, champion: Scores | None, rule: Promotion) -> Decision:
    """Compare a candidate with its parent and with the champion, if there is one that was measured alike."""
    votes = _votes(candidate, parent, "parent", rule)
    if not votes:
        return Decision(promoted=False, reason="no benchmark of the rule was scored as a whole", votes=[])
    votes += _votes(candidate, champion or {}, "champion", rule)
    lost = [vote for vote in votes if not vote.passed]
    if lost:
        where = ", ".join(f"{vote.benchmark} (against the {vote.rival})" for vote in lost)
        return Decision(promoted=False, reason=f"falls short on {where}", votes=votes)
    if champion is not None and not any(vote.rival == "champion" for vote in votes):
        return Decision(
            promoted=True,
            reason="better than its parent; the champion was measured on other data or otherwise, and not compared",
            votes=votes,
        )
    silent = sorted(set(rule.benchmarks) - {vote.benchmark for vote in votes})
    rest = f"; not measured: {', '.join(silent)}" if silent else ""
    against = {rival: {vote.benchmark for vote in votes if vote.rival == rival} for rival in ("parent", "champion")}
    if champion is not None and (alone := sorted(against["parent"] - against["champion"])):
        rest += f"; not compared with the champion, which was measured otherwise: {', '.join(alone)}"
    return Decision(promoted=True, reason=f"better on every benchmark that was measured{rest}", votes=votes)


def _votes(candidate: Scores, others: Scores, rival: Rival, rule: Promotion) -> list[Vote]:
    votes = []
    for name, metric in rule.benchmarks.items():
        ours, other = candidate.get(name), others.get(name)
        if ours is None or other is None or ours.measured_on != other.measured_on:
            continue
        better = gain(metric, other.value, ours.value)
        loss = None if ours.rgb is None or other.rgb is None else gain(metric, ours.rgb, other.rgb)
        passed = better >= rule.min_gain and (loss is None or loss <= rule.max_rgb_loss)
        votes.append(
            Vote(
                benchmark=name,
                metric=metric,
                rival=rival,
                candidate=ours.value,
                against=other.value,
                gain=better,
                rgb_loss=loss,
                passed=passed,
            )
        )
    return votes
