"""Scoring beyond one figure: on all cores, with intervals, in many ways, and of pairs that do not belong together."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch
from oracle import SIZE, H, Oracle

from minima_core import cli
from minima_core.errors import ConfigError
from minima_core.evaluation.benchmarks.base import Lens, PairList, PairTruth, Prepared, as_matrix
from minima_core.evaluation.bootstrap import intervals
from minima_core.evaluation.matching import match_benchmark
from minima_core.evaluation.metrics import auc_metrics
from minima_core.evaluation.protocol import AS_PUBLISHED, Sweep, get_protocol, with_estimator
from minima_core.evaluation.rejection import auroc, rejection_metrics
from minima_core.evaluation.scoring import Scores, score_pair, score_pairs, score_predictions, summarise
from minima_core.evaluation.sweep import sweep_predictions
from minima_core.geometry.homography import warp_homography
from minima_core.random import rng
from minima_core.types import Matches

PROTOCOL = get_protocol("strict-v1")


@pytest.fixture
def matched(benchmark_folder, tmp_path):
    out = tmp_path / "predictions"
    match_benchmark(Oracle(), benchmark_folder, PROTOCOL, out, model="m", licence="MIT", scratch=tmp_path / "scratch")
    return out


def truth(name: str = "a", category: str = "c", **about) -> PairTruth:
    files = {"image0": "0.png", "image1": "1.png", "sha0": "", "sha1": "", "size0": SIZE, "size1": SIZE}
    return PairTruth(name=name, category=category, **files, **about)


def exact(H_0to1: torch.Tensor, n: int = 30) -> Matches:
    kpts0 = torch.from_numpy(rng(3, "points").uniform([0, 0], SIZE, (n, 2)))
    return Matches(kpts0.float(), warp_homography(H_0to1, kpts0).float(), torch.full((n,), 0.5))


def test_scores_are_the_same_bytes_for_any_number_of_workers(benchmark_folder, matched, tmp_path):
    for workers in (1, 2):
        score_predictions(matched, benchmark_folder, PROTOCOL, workers=workers).save(tmp_path / str(workers))
    one, two = ((tmp_path / name / Scores.FILE).read_bytes() for name in "12")
    assert one == two


@pytest.mark.parametrize("n", [0, 3])
def test_matches_survive_the_way_to_a_worker(n):
    sent = Matches(torch.rand(n, 2), torch.rand(n, 2), torch.rand(n, requires_grad=True))
    packed = pickle.dumps(sent)
    assert b"torch" not in packed.replace(b"minima_core", b"").split(b"_of_arrays")[1]  # no tensor, which is slow
    got = pickle.loads(packed)
    for part in ("mkpts0", "mkpts1", "scores"):
        one, other = getattr(sent, part), getattr(got, part)
        assert torch.equal(one, other) and one.dtype == other.dtype
    got.mkpts0.add_(1)  # its own memory, to write to


def test_an_interval_holds_its_figure_and_narrows_with_more_pairs(benchmark_folder, matched):
    scores = score_predictions(matched, benchmark_folder, PROTOCOL)
    for metric, value in scores.metrics.items():
        low, high = scores.intervals[metric]
        assert low <= value <= high
    low, high = scores.intervals["auc@10px"]
    assert 40 <= low < high <= 100  # 8 of 10 are found: the binomial's middle 95 % are 50 to 100
    spans = []
    for n in (10, 1000):
        errors = np.where(np.arange(n) % 5 == 4, np.inf, 0.0)
        found = intervals({"c": errors}, lambda rows: auc_metrics(rows["c"], (5.0,)), name="n")["auc@5"]
        assert found[0] <= 80 <= found[1]
        spans.append(found[1] - found[0])
    assert spans[1] == pytest.approx(2 * 1.96 * 100 * math.sqrt(0.8 * 0.2 / 1000), rel=0.2)
    assert spans[0] > 5 * spans[1]


def test_another_threshold_is_another_hash_and_needs_no_new_matches(benchmark_folder, matched):
    tight = with_estimator(PROTOCOL, threshold=0.5)
    other = with_estimator(PROTOCOL, "opencv")
    hashes = {score_predictions(matched, benchmark_folder, p).protocol_hash for p in (PROTOCOL, tight, other)}
    assert len(hashes) == 3
    assert (tight.homography.threshold, tight.homography.estimator) == (0.5, "poselib")
    assert (other.pose.threshold, other.homography.estimator) == (1.0, "opencv")
    with pytest.raises(ConfigError, match="did you mean 'opencv'"):
        with_estimator(PROTOCOL, "opencw")
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="positive"):
            with_estimator(PROTOCOL, threshold=wrong)


def test_a_sweep_scores_in_every_way_and_counts_failures(benchmark_folder, matched):
    found = sweep_predictions(matched, benchmark_folder, PROTOCOL, Sweep(thresholds=(1.0, 3.0), seeds=(0, 1)))
    ways = [(v.estimator, v.threshold, v.seed) for v in found]
    assert len(set(ways)) == len(ways) == 8
    assert {v.failures for v in found} == {4}
    assert all(v.metrics["auc@10px"] == pytest.approx(80, abs=0.5) for v in found)
    plain = score_predictions(matched, benchmark_folder, PROTOCOL)
    same = next(v for v in found if (v.estimator, v.threshold, v.seed) == ("poselib", 3.0, 0))
    assert same.metrics == plain.metrics


def test_the_command_scores_kept_predictions_again(benchmark_folder, matched, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # toy is no plugin
    monkeypatch.setattr("minima_core.cli.cores", lambda: 1)
    out = tmp_path / "r.json"
    base = ["score", "--predictions", matched, "--benchmark", "toy", "--root", benchmark_folder, "--out", out]

    def run(*argv: object) -> dict:
        with pytest.raises(SystemExit) as done:
            cli.main([str(word) for word in (*base, *argv)])
        assert not done.value.code
        return json.loads(out.read_text())

    plain, tight = run(), run("--threshold", 0.5, "--estimator", "opencv")
    assert plain["protocol_hash"] == PROTOCOL.digest() != tight["protocol_hash"]
    assert tight["metrics"]["auc@10px"] == pytest.approx(80, abs=0.5)
    swept = run("--sweep")
    assert len(swept["sweep"]) == 2 * 6 * 3 and {v["failures"] for v in swept["sweep"]} == {4}
    assert {**swept, "sweep": []} == plain


def test_auroc_counts_pairs_in_the_right_order_and_ties_half():
    positive = np.array([True, True, False, False])
    assert auroc(positive, np.array([3, 4, 1, 2])) == 100
    assert auroc(positive, np.array([3, 1, 2, 2])) == 50  # one of the two above both, the other below
    assert auroc(positive, np.array([2, 3, 2, 1])) == 87.5
    assert auroc(positive, np.zeros(4)) == 50
    assert auroc(np.array([True]), np.array([9])) == 50


def test_false_accepts_are_a_share_of_the_unrelated_pairs():
    related = np.array([True, True, False, False, False, False])
    found = rejection_metrics(related, np.array([70, 14, 15, 3, 0, 31]), np.array([9.0, 8, 1, 1, 1, 1]))
    assert (found["far@15"], found["recall@15"]) == (50, 50)
    assert (found["far@30"], found["far@60"], found["recall@60"]) == (25, 0, 50)
    assert found["auroc_scores"] == 100


def test_unrelated_pairs_are_scored_by_inliers_and_have_no_error():
    together, apart = truth("together", H_0to1=as_matrix(H.numpy())), truth("apart")
    noise = torch.from_numpy(rng(0, "noise").uniform([0, 0], SIZE, (2, 30, 2))).float()
    matches = [exact(H), Matches(noise[0], noise[1], torch.full((30,), 0.1))]
    listed = PairList(task="overlap", protocol="", headline=[], groups={}, pairs=[together, apart])
    rows = score_pairs(listed.pairs, matches, PROTOCOL, workers=1, what="")
    assert rows[0].inliers == 30 and rows[0].error < 1e-3 and rows[0].confidence == pytest.approx(15)
    assert rows[1].inliers < 15 and rows[1].error is None
    metrics, categories, _ = summarise(rows, listed, PROTOCOL)
    assert (metrics["far@15"], metrics["recall@15"], metrics["auroc_inliers"]) == (0, 100, 100)
    assert categories == {"c": metrics}


@pytest.mark.parametrize(("benchmark", "size"), [("diode_depth", (96, 64)), ("dsec", (96, 64)), ("mmim", (96, 64))])
def test_the_published_corner_error_of_every_script_is_zero_for_the_truth(benchmark, size):
    protocol = get_protocol("minima-v1", benchmark)
    row = score_pair(truth(H_0to1=as_matrix(H.numpy())), exact(H), protocol)
    assert row.error < 1e-3 and row.inliers == 30


def test_a_wrong_homography_is_measured_where_the_script_measures_it():
    double = torch.diag(torch.tensor([2.0, 2, 1], dtype=torch.float64))
    pair = truth(H_0to1=as_matrix(np.eye(3)))
    errors = {b: score_pair(pair, exact(double), get_protocol("minima-v1", b)).error for b in ("diode_depth", "mmim")}
    diagonal = (95 + 63 + math.hypot(95, 63)) / 4  # of the corners (0, 0), (95, 0), (0, 63), (95, 63), moved by this
    assert errors["mmim"] == pytest.approx(diagonal, rel=1e-4)
    assert errors["diode_depth"] == pytest.approx(diagonal / 2, rel=1e-4)  # taken back by the inverse


def test_protocols_of_benchmarks_are_what_their_scripts_say():
    assert get_protocol("minima-v1", "metu_vistir").pose.threshold == 1.5
    mega = get_protocol("minima-v1", "megadepth_1500")
    assert (mega.matching.long_side, mega.matching.sparse_long_side, mega.aggregation) == (1200, 1600, "pooled")
    assert all(get_protocol("minima-v1", name) != get_protocol("minima-v1") for name in AS_PUBLISHED)
    assert get_protocol("strict-v1", "dsec") == PROTOCOL


def test_the_mean_of_groups_gives_each_group_the_same_weight(benchmark_folder):
    pairs = [truth(f"{c}{k}", c, H_0to1=as_matrix(H.numpy())) for c in "abc" for k in range(2)]
    listed = PairList(
        task="homography", protocol="", headline=[], groups={"one": ["a"], "two": ["b", "c"]}, pairs=pairs
    )
    found = [Matches.empty() if pair.category == "a" else exact(H) for pair in pairs]
    rows = score_pairs(pairs, found, PROTOCOL, workers=1, what="")
    for how, expected in (("groups", 50), ("macro", 200 / 3), ("pooled", 200 / 3)):
        metrics, _, _ = summarise(rows, listed, PROTOCOL.model_copy(update={"aggregation": how}))
        assert metrics["auc@5px"] == pytest.approx(expected, abs=0.1)


def test_an_image_with_a_lens_is_read_without_its_distortion(benchmark_folder):
    listed = PairList.load(benchmark_folder)
    lens = Lens(K=[[80.0, 0, 48], [0, 80, 32], [0, 0, 1]], distortion=[-0.3, 0.1, 0, 0])
    changed = listed.model_copy(update={"lenses": {"0.png": lens}})
    assert changed.digest() != listed.digest()
    changed.save(benchmark_folder)
    changed.manifest("toy", "CC0-1.0").save(benchmark_folder)
    prepared = Prepared(benchmark_folder)
    straight = prepared.image("0.png", listed.pairs[0].sha0)
    assert straight.shape == (64, 96, 3)
    K = lens.straight(SIZE)
    # what the straight camera sees at a pixel, the distorted one saw at the pixel its coefficients say
    x, y = (np.array([60.0, 20]) - K[:2, 2]) / K[[0, 1], [0, 1]]
    r2 = x * x + y * y
    bent = 1 - 0.3 * r2 + 0.1 * r2 * r2
    u, v = 80 * x * bent + 48, 80 * y * bent + 32
    plain = listed.model_copy(update={"lenses": {}})
    plain.save(benchmark_folder)
    plain.manifest("toy", "CC0-1.0").save(benchmark_folder)
    image = Prepared(benchmark_folder).image("0.png", listed.pairs[0].sha0).astype(float)
    x0, y0 = int(u), int(v)
    a, b = u - x0, v - y0
    patch = image[y0 : y0 + 2, x0 : x0 + 2]
    expected = (1 - b) * ((1 - a) * patch[0, 0] + a * patch[0, 1]) + b * ((1 - a) * patch[1, 0] + a * patch[1, 1])
    assert np.abs(straight[20, 60] - expected).max() < 8  # the remap is rounded to 1/32 pixel, the image is noise


def test_what_the_truth_is_uncertain_by_does_not_change_the_data(benchmark_folder):
    listed = PairList.load(benchmark_folder)
    assert listed.model_copy(update={"floor": {"pair0": 1.5}}).digest() == listed.digest()
