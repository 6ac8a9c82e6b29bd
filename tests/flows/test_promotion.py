"""The promotion rule, on figures that can be checked by eye."""

import pytest

from flows.promotion import Decision, Promotion, Score, decide, scores_of
from minima_core.errors import ConfigError
from tasks.reports import ScoreReport

RULE = Promotion(benchmarks={"six": "auc@10", "real": "auc@10px"}, min_gain=0.5, max_rgb_loss=2.0)


def score(value, rgb=None, on="same"):
    return Score(metric="auc@10", value=value, rgb=rgb, measured_on=on)


def test_better_everywhere_is_promoted():
    decision = decide({"six": score(50, 80), "real": score(30)}, {"six": score(40, 81), "real": score(29)}, None, RULE)
    assert decision.promoted
    assert [(v.benchmark, v.gain, v.rgb_loss) for v in decision.votes] == [("six", 10, 1), ("real", 1, None)]


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ({"six": score(40.4, 81), "real": score(40)}, "six (against the parent)"),  # gains too little
        ({"six": score(50, 78), "real": score(40)}, "six (against the parent)"),  # forgets RGB
        ({"six": score(50, 81), "real": score(29)}, "real (against the parent)"),  # good on one only
    ],
)
def test_every_benchmark_must_agree(candidate, why):
    decision = decide(candidate, {"six": score(40, 81), "real": score(29)}, None, RULE)
    assert not decision.promoted and why in decision.reason


def test_a_skipped_benchmark_does_not_vote():
    decision = decide({"six": score(50)}, {"six": score(40)}, None, RULE)
    assert decision.promoted and "not measured: real" in decision.reason
    assert not decide({}, {}, None, RULE).promoted


def test_the_champion_must_be_beaten_where_it_was_measured_alike():
    candidate, parent = {"six": score(50)}, {"six": score(40)}
    assert not decide(candidate, parent, {"six": score(49.8)}, RULE).promoted
    assert decide(candidate, parent, {"six": score(49)}, RULE).promoted
    elsewhere = decide(candidate, parent, {"six": score(99, on="another protocol")}, RULE)
    assert elsewhere.promoted and "the champion was measured on other data or otherwise" in elsewhere.reason
    both = {"six": score(50), "real": score(30)}, {"six": score(40), "real": score(20)}
    partly = decide(*both, {"six": score(40), "real": score(99, on="another protocol")}, RULE)
    assert partly.promoted
    assert partly.reason.endswith("; not compared with the champion, which was measured otherwise: real")


def test_scores_are_those_the_rule_names():
    report = {
        "protocol": "p", "protocol_hash": "h", "data_digest": "d", "matcher": "m", "model": "finetuned", "seed": 0,
        "pairs": 1,
        "failures": 0, "categories": {"rgb": {"auc@10": 70.0}}, "metrics": {"auc@10": 50.0},
    }  # fmt: skip
    reports = [ScoreReport(benchmark="six", **report), ScoreReport(benchmark="real", skipped="absent", **report)]
    found = scores_of(reports, RULE)
    assert set(found) == {"six"} and (found["six"].value, found["six"].rgb) == (50.0, 70.0)
    assert not scores_of([ScoreReport(benchmark="six", subset="mini", **report)], RULE)
    others = [r.model_copy(update={"data_digest": "other data"}) for r in reports]
    assert found["six"].measured_on != scores_of(others, RULE)["six"].measured_on


def test_a_metric_that_a_benchmark_does_not_have_is_refused_and_no_vote_less():
    report = ScoreReport(
        benchmark="real", protocol="p", protocol_hash="h", data_digest="d", matcher="m", model="finetuned", seed=0,
        pairs=1, failures=0, categories={}, metrics={"auc@5px": 20.0, "auc@10px": 30.0},
    )  # fmt: skip
    wrong = Promotion(benchmarks={"six": "auc@10", "real": "auc@10"}, min_gain=0.5, max_rgb_loss=2.0)
    with pytest.raises(ConfigError, match="'auc@10' is not in the metrics of real; did you mean 'auc@10px'"):
        scores_of([report], wrong)


def test_a_decision_reads_as_a_page():
    decision = decide({"six": score(50, 80)}, {"six": score(40, 81)}, None, RULE)
    assert "| six | auc@10 | parent | 50.00 | 40.00 | +10.00 | +1.00 | yes |" in decision.markdown("m")
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


def test_fewer_false_accepts_are_a_gain():
    rule = Promotion(benchmarks={"apart": "far@15"}, min_gain=0.5, max_rgb_loss=2.0)
    fewer, more = ({"apart": Score(metric="far@15", value=value, rgb=None, measured_on="m")} for value in (3, 8))
    assert decide(fewer, more, None, rule).votes[0].gain == 5
    assert not decide(more, fewer, None, rule).promoted


def test_more_false_accepts_among_rgb_pairs_are_a_loss():
    rule = Promotion(benchmarks={"apart": "far@15"}, min_gain=0.5, max_rgb_loss=2.0)
    values = {"metric": "far@15", "measured_on": "m"}
    before, after = ({"apart": Score(value=value, rgb=rgb, **values)} for value, rgb in ((8, 5), (3, 9)))
    assert decide(after, before, None, rule).votes[0].rgb_loss == 4
    assert not decide(after, before, None, rule).promoted
