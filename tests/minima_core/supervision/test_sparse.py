"""Labels of keypoints, on scenes whose answer is known: planes, an occluder, a homography, nothing in common."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minima_core.geometry.epipolar import fundamental, symmetric_distances
from minima_core.geometry.project import inside, warp_points
from minima_core.supervision.sparse import matches_from_depth, matches_from_homography
from minima_core.types import IGNORE, UNMATCHED

SIZE = (200, 160)
K = torch.tensor([[100.0, 0, 100], [0, 100, 80], [0, 0, 1]])
NAN = float("nan")


def moved(x):
    T = torch.eye(4)
    T[0, 3] = x
    return T


def label(kpts0, kpts1, depth0, depth1, T=None, **kwargs):
    T = moved(-0.5) if T is None else T
    found = matches_from_depth(
        torch.tensor(kpts0, dtype=torch.float32).reshape(-1, 2),
        torch.tensor(kpts1, dtype=torch.float32).reshape(-1, 2),
        depth0=torch.as_tensor(depth0, dtype=torch.float32),
        depth1=torch.as_tensor(depth1, dtype=torch.float32),
        K0=K,
        K1=K,
        T_0to1=T,
        size0=SIZE,
        size1=SIZE,
        **kwargs,
    )
    return found.matches0.tolist(), found.matches1.tolist()


def test_plane_shifts_by_focal_length_times_baseline_over_depth():
    # depth 5, baseline 0.5, f 100: everything moves 10 px to the left
    kpts0, kpts1 = [[50, 40], [90, 100], [150, 20]], [[140, 20], [40, 40], [80, 104], [60, 60]]
    m0, m1 = label(kpts0, kpts1, [5.0] * 3, [5.0] * 4)
    assert m0 == [1, IGNORE, 0]  # the second has a keypoint 4 px away: neither a match nor surely none
    assert m1 == [2, 0, IGNORE, UNMATCHED]


def test_thresholds_are_pixels():
    kpts1 = [[42.9, 40]]
    assert label([[50, 40]], kpts1, [5.0], [5.0]) == ([0], [0])  # 2.9 px
    assert label([[50, 40]], kpts1, [5.0], [5.0], th_pos=2.8) == ([IGNORE], [IGNORE])
    assert label([[50, 40]], kpts1, [5.0], [5.0], th_pos=2, th_neg=2.8) == ([UNMATCHED], [UNMATCHED])


def test_occluded_point_has_no_match():
    # near plane (depth 2.5) moves 20 px, far plane (depth 5) 10 px; the far point at (70, 40) falls on (60, 40), where
    # image 1 shows the near plane, which image 0 shows at (80, 40)
    m0, m1 = label([[70, 40], [80, 40]], [[60, 40]], [5.0, 2.5], [2.5])
    assert m0 == [IGNORE, 0]  # it lands on a keypoint, which lands elsewhere: no match, and not surely none
    assert m1 == [1]


def test_nearest_is_mutual():
    m0, m1 = label([[50, 40], [52, 40]], [[40.5, 40]], [5.0] * 2, [5.0])
    assert (m0, m1) == ([0, IGNORE], [0])


def test_point_behind_the_other_camera_is_unmatched():
    T = torch.eye(4)
    T[2, 3] = -10.0
    assert label([[50, 40]], [[50, 40]], [5.0], [5.0], T=T)[0] == [UNMATCHED]


def test_point_without_depth_is_judged_by_its_epipolar_line():
    # the motion is along x, so epipolar lines are rows
    m0, m1 = label([[50, 40], [50, 80]], [[120, 44], [20, 120]], [NAN, NAN], [NAN, 5.0])
    assert m0 == [IGNORE, UNMATCHED]  # 4 px from row 40 lies a keypoint; none near row 80
    assert m1 == [IGNORE, UNMATCHED]


def test_zero_depth_is_unknown():
    assert label([[50, 40]], [[40, 40]], [0.0], [5.0]) == ([IGNORE], [IGNORE])


@pytest.mark.parametrize(("n0", "n1"), [(0, 0), (0, 3), (3, 0)])
def test_no_keypoints(n0, n1):
    m0, m1 = label([[50, 40]] * n0, [[90, 90]] * n1, [5.0] * n0, [5.0] * n1)
    assert m0 == [UNMATCHED] * n0
    assert m1 == [UNMATCHED] * n1


def test_views_without_overlap_have_only_unmatched():
    kpts = [[10, 10], [60, 70], [110, 30]]
    assert label(kpts, kpts, [1.0] * 3, [1.0] * 3, T=moved(-50.0)) == ([UNMATCHED] * 3, [UNMATCHED] * 3)


def test_homography_labels():
    H = torch.tensor([[1.0, 0, 30], [0, 1, -20], [0, 0, 1]])
    kpts0 = torch.tensor([[20.0, 60], [100, 100], [190, 100]])
    kpts1 = torch.tensor([[51.0, 40], [10, 10], [130, 84]])
    found = matches_from_homography(kpts0, kpts1, H_0to1=H, size0=SIZE, size1=SIZE)
    assert found.matches0.tolist() == [0, IGNORE, UNMATCHED]
    assert found.matches1.tolist() == [0, UNMATCHED, IGNORE]


def test_match_must_lie_on_the_image():
    H = torch.tensor([[1.0, 0, 30], [0, 1, 0], [0, 0, 1]])
    kpts0, kpts1 = torch.tensor([[171.0, 50]]), torch.tensor([[199.0, 50]])
    found = matches_from_homography(kpts0, kpts1, H_0to1=H, size0=SIZE, size1=SIZE)
    assert found.matches0.tolist() == [IGNORE]  # it falls on x = 201, outside, though 2 px from a keypoint


def plain(kpts0, kpts1, depth0, depth1, T, th_pos=3.0, th_neg=5.0):
    """The rules of spec/training.md section 3.3 over the whole table of distances."""
    kpts0, kpts1, depth0, depth1, Kd, T = (x.double() for x in (kpts0, kpts1, depth0, depth1, K, T))
    p0, _ = warp_points(kpts0[None], depth0[None], Kd[None], Kd[None], T[None])
    p1, _ = warp_points(kpts1[None], depth1[None], Kd[None], Kd[None], torch.linalg.inv(T)[None])
    p0, p1, valid0, valid1 = p0[0], p1[0], depth0 > 0, depth1 > 0
    d0 = (p0[:, None] - kpts1[None]).norm(dim=-1).nan_to_num(torch.inf)
    d1 = (kpts0[:, None] - p1[None]).norm(dim=-1).nan_to_num(torch.inf)
    seen = (valid0 & inside(p0, SIZE))[:, None] & (valid1 & inside(p1, SIZE))[None]
    d = torch.where(seen, torch.maximum(d0, d1), torch.inf)
    m0, m1 = torch.full((len(kpts0),), IGNORE), torch.full((len(kpts1),), IGNORE)
    for i in range(len(kpts0)):
        j = int(d[i].argmin())
        if d[i, j] < th_pos and int(d[:, j].argmin()) == i:
            m0[i], m1[j] = j, i
    m0[valid0 & (d0.amin(1) > th_neg)] = UNMATCHED
    m1[valid1 & (d1.amin(0) > th_neg)] = UNMATCHED
    epi = symmetric_distances(kpts0, kpts1, fundamental(T, Kd, Kd))
    epi = torch.where((m0 == IGNORE)[:, None] & (m1 == IGNORE)[None], epi, torch.inf)
    out0 = (m0 == IGNORE) & ~valid0 & (epi.amin(1) > th_neg)
    out1 = (m1 == IGNORE) & ~valid1 & (epi.amin(0) > th_neg)
    return m0.masked_fill(out0, UNMATCHED).tolist(), m1.masked_fill(out1, UNMATCHED).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_search_tree_gives_what_the_whole_table_gives(seed):
    g = torch.Generator().manual_seed(seed)
    kpts0, kpts1 = (torch.rand(n, 2, generator=g) * torch.tensor(SIZE) for n in (120, 90))
    depth0, depth1 = (4 + 2 * torch.rand(n, generator=g) for n in (120, 90))
    depth0[torch.rand(120, generator=g) < 0.3] = NAN
    depth1[torch.rand(90, generator=g) < 0.3] = NAN
    T = moved(-0.6)
    T[1, 3] = 0.2
    assert label(kpts0.tolist(), kpts1.tolist(), depth0, depth1, T=T) == plain(kpts0, kpts1, depth0, depth1, T)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapped_views_give_swapped_labels(seed):
    g = torch.Generator().manual_seed(seed)
    kpts0, kpts1 = (torch.rand(80, 2, generator=g) * torch.tensor(SIZE) for _ in range(2))
    depth0, depth1 = (4 + 2 * torch.rand(80, generator=g) for _ in range(2))
    m0, m1 = label(kpts0.tolist(), kpts1.tolist(), depth0, depth1)
    s1, s0 = label(kpts1.tolist(), kpts0.tolist(), depth1, depth0, T=moved(0.5))
    assert (m0, m1) == (s0, s1)
