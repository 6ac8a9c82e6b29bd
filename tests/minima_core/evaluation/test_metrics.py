from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minima_core.evaluation.estimate import Estimate
from minima_core.evaluation.metrics import (
    aggregate,
    auc_metrics,
    epipolar_errors,
    error_auc,
    pose_error,
    reprojection_errors,
)
from minima_core.evaluation.pose import estimate_pose
from minima_core.evaluation.protocol import get_protocol
from minima_core.geometry.homography import corner_error, reordered_corner_error

RECORDED = Path(__file__).resolve().parents[4] / "shared/data/parity/metrics.npz"
INF = float("inf")


@pytest.fixture(scope="module")
def recorded():
    if not RECORDED.is_file():
        pytest.skip(f"no recorded results of the original metrics at {RECORDED}")
    with np.load(RECORDED) as file:
        return dict(file)


def test_auc_of_two_hits_and_two_failures_is_what_the_hand_says():
    # errors 0 1 1 inf inf, recall 0 .25 .5 .75 1: 0.125 up to 1, then a step to 0.5 held for one more unit
    assert error_auc([1, 1, INF, INF], [2]) == [pytest.approx(0.3125)]


def test_auc_of_perfect_errors_is_one_and_of_nothing_is_zero():
    assert error_auc([0, 0, 0], [5]) == [pytest.approx(1)]
    assert error_auc([], [5, 10]) == [0, 0]
    assert error_auc([INF, float("nan")], [5]) == [0]


def test_auc_of_one_error_halfway():
    # recall climbs from 0 to 1 over half of the range and stays: 0.25 + 0.5
    assert error_auc([5], [10]) == [pytest.approx(0.75)]


@given(st.lists(st.floats(0, 50), min_size=1, max_size=30), st.randoms())
def test_auc_does_not_depend_on_order_and_grows_with_the_threshold(errors, random):
    shuffled = errors.copy()
    random.shuffle(shuffled)
    areas = error_auc(errors, [5, 10, 20])
    assert areas == error_auc(shuffled, [5, 10, 20])
    assert 0 <= areas[0] <= areas[1] + 1e-12 <= areas[2] + 2e-12 <= 1 + 1e-9


def test_a_failed_pair_lowers_the_auc():
    assert error_auc([1, 2, INF], [5])[0] < error_auc([1, 2], [5])[0]


def test_metric_names_carry_threshold_and_unit():
    assert list(auc_metrics([0.0], (3.0, 5.0), "px")) == ["auc@3px", "auc@5px"]
    assert auc_metrics([0.0], (5.0,)) == {"auc@5": pytest.approx(100)}


def test_macro_counts_categories_and_pooled_counts_pairs():
    errors = {"large": [0.0] * 9, "small": [INF]}
    macro = aggregate(errors, errors, (5.0,), "", "macro")["auc@5"]
    pooled = aggregate(errors, errors, (5.0,), "", "pooled")["auc@5"]
    assert macro == pytest.approx(50)
    assert pooled == pytest.approx(90, abs=0.1)


def test_pose_error_takes_the_worse_angle_and_folds_the_direction():
    T = torch.eye(4, dtype=torch.float64)
    T[:3, 3] = torch.tensor([1.0, 0, 0])
    turned = T.clone()
    angle = torch.deg2rad(torch.tensor(7.0, dtype=torch.float64))
    turned[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    turned[:3, 3] = torch.tensor([-2.0, 0, 0])
    assert pose_error(turned, T) == pytest.approx(7)


def test_moved_points_have_the_distance_they_were_moved():
    H_0to1 = torch.tensor([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])
    kpts0 = torch.tensor([[0.0, 0], [5, 5]])
    kpts1 = torch.tensor([[10.0, 0], [15, 8]])
    assert reprojection_errors(kpts0, kpts1, H_0to1).tolist() == [0, 3]


def test_epipolar_errors_see_only_the_offset_across_the_line():
    # a camera moved along x sees horizontal epipolar lines
    K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    T = torch.eye(4)
    T[0, 3] = 1.0
    errors = epipolar_errors(torch.tensor([[10.0, 20], [10, 20]]), torch.tensor([[40.0, 20], [40, 24]]), T, K, K)
    assert errors.tolist() == pytest.approx([0, 4], abs=1e-9)


def test_auc_equals_the_original(recorded):
    for name, thresholds in (("auc_5_10_20", (5, 10, 20)), ("auc_1_3_5_7_10_15_20", (1, 3, 5, 7, 10, 15, 20))):
        for row, length, expected in zip(
            recorded["auc_errors_nan_padded"], recorded["auc_lengths"], recorded[name], strict=True
        ):
            assert error_auc(row[:length], thresholds) == pytest.approx(expected.tolist(), abs=1e-12)


def test_pose_error_equals_the_original(recorded):
    keys = ("pose_T_0to1", "pose_R", "pose_t", "pose_error_t_R_deg")
    for T_0to1, R, t, expected in zip(*(recorded[key] for key in keys), strict=True):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = R, t
        got = pose_error(torch.from_numpy(T), torch.from_numpy(T_0to1))
        assert got == pytest.approx(expected.max(), abs=1e-4)  # the original's arccos is coarse near 0 degrees


def test_reordered_corner_error_equals_the_original(recorded):
    keys = ("corner_H_true_float32", "corner_H_estimate", "corner_W_H", "corner_error_forward")
    for H_true, H_est, size, expected in zip(*(recorded[key] for key in keys), strict=True):
        got = reordered_corner_error(torch.from_numpy(H_est), torch.from_numpy(H_true), (int(size[0]), int(size[1])))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_reordered_corner_error_of_inverses_equals_the_original(recorded):
    keys = ("corner_H_true_float32", "corner_H_estimate", "corner_W_H", "corner_error_inverse")
    for H_true, H_est, size, expected in zip(*(recorded[key] for key in keys), strict=True):
        inverses = (torch.linalg.inv(torch.from_numpy(H).double()) for H in (H_est, H_true))
        got = reordered_corner_error(*inverses, (int(size[0]), int(size[1])))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_both_corner_errors_agree_on_a_shift():
    shift = torch.tensor([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    for error in (corner_error, reordered_corner_error):
        assert error(shift, torch.eye(3), (640, 480)) == 5


def test_strict_corner_error_sees_the_half_turn_that_the_original_hides():
    half_turn = torch.tensor([[-1.0, 0, 99], [0, -1, 99], [0, 0, 1]])
    assert corner_error(half_turn, torch.eye(3), (100, 100)) == pytest.approx(99 * 2**0.5)
    assert reordered_corner_error(half_turn, torch.eye(3), (100, 100)) == 0


def test_poselib_is_as_exact_as_the_original_estimates(recorded):
    settings = get_protocol("strict-v1").pose.model_copy(update={"threshold": 0.5})
    for case in (0, 1, 2, 5):
        values = {key: recorded[f"est{case}_{key}"] for key in ("pts0", "pts1", "K0", "K1", "T_0to1", "error_t_R")}
        found: Estimate = estimate_pose(values["pts0"], values["pts1"], values["K0"], values["K1"], settings)
        assert found.model is not None
        error = pose_error(torch.from_numpy(found.model), torch.from_numpy(values["T_0to1"]))
        assert error <= values["error_t_R"].max() + 0.1
    four = {key: recorded[f"est4_{key}"] for key in ("pts0", "pts1", "K0", "K1")}
    assert estimate_pose(four["pts0"], four["pts1"], four["K0"], four["K1"], settings).failure


@pytest.mark.parametrize("case", [0, 1, 2, 5])
def test_the_published_pose_estimate_comes_back(recorded, case):
    values = {key: recorded[f"est{case}_{key}"] for key in ("pts0", "pts1", "K0", "K1", "T_0to1", "R", "t", "inliers")}
    settings = get_protocol("minima-v1").pose
    found = estimate_pose(values["pts0"], values["pts1"], values["K0"], values["K1"], settings)
    assert found.model is not None
    assert np.allclose(found.model[:3, :3], values["R"], atol=1e-6)
    assert np.allclose(found.model[:3, 3], values["t"], atol=1e-6)
    assert np.array_equal(found.inliers, values["inliers"])
