from __future__ import annotations

import numpy as np
import pytest

from minima_core.synthesis.base import Source
from minima_core.synthesis.normal._planes import fit_planes, quantum
from minima_core.synthesis.normal.dataset import default_intrinsics, encode, normals_of

K = np.array([[300.0, 0, 79.3], [0, 310.0, 61.7], [0, 0, 1]])
RADII = (2, 6)


def rays(height=120, width=160):
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([(xs - K[0, 2]) / K[0, 0], (ys - K[1, 2]) / K[1, 1], np.ones_like(xs)], -1)


def depth_of_plane(normal, distance, height=120, width=160):
    """z of the plane n.X = distance along each pixel's ray."""
    return (distance / (rays(height, width) @ np.asarray(normal))).astype(np.float32)


def unit(*vector):
    return np.array(vector) / np.linalg.norm(vector)


def degrees(normals, wanted):
    return np.degrees(np.arccos(np.clip((normals * wanted).sum(-1), -1, 1)))


@pytest.mark.parametrize(
    "normal", [unit(0, 0, 1), unit(0.5, 0, 1), unit(-0.3, 0.8, 1), unit(0, 1, 0.35), unit(0.9, -0.2, 0.5)]
)
def test_a_tilted_plane_has_its_normal_everywhere(normal):
    found = normals_of(depth_of_plane(normal, 2.5), K, RADII)
    assert degrees(found, normal).max() < 0.5  # float32 depth; the borders of the image included


def test_a_wall_that_faces_the_camera_is_drawn_as_published():
    assert (encode(normals_of(np.full((40, 50), 2, np.float32), K, RADII)) == (127, 127, 255)).all()


def test_encoding_equals_the_recorded_original(parity):
    recorded = parity("normals_io")
    assert (encode(recorded["scalar_normal"]) == recorded["scalar_uint8"]).all()
    for case in range(4):
        left, _, top, _ = _padding(recorded[f"case{case}_image"].shape, recorded[f"case{case}_net_normals"].shape)
        height, width = recorded[f"case{case}_image"].shape[:2]
        full = recorded[f"case{case}_net_normals"][0].transpose(1, 2, 0)
        inner = full[top : top + height, left : left + width]
        assert (encode(inner) == recorded[f"case{case}_result_rgb"]).all()


def _padding(image, net):
    across, down = net[-1] - image[1], net[-2] - image[0]
    return across // 2, across - across // 2, down // 2, down - down // 2


def test_intrinsics_rule_equals_the_recorded_original(parity):
    for row in parity("normals_io")["table_h_w_l_r_t_b_fx_fy_cx_cy_cxpad_cypad"]:
        K60 = default_intrinsics(int(row[1]), int(row[0]))
        assert [K60[0, 0], K60[1, 1], K60[0, 2], K60[1, 2]] == pytest.approx(row[6:10], rel=1e-6)


def test_a_step_between_two_walls_bends_no_normals():
    depth = np.full((60, 80), 2.0, np.float32)
    depth[:, 37:] = 3.0
    assert degrees(normals_of(depth, K, RADII), unit(0, 0, 1)).max() < 0.5


def test_a_crease_stays_sharp():
    left, right = unit(0.8, 0, 1), unit(-0.8, 0, 1)
    first, second = depth_of_plane(left, 2.0), depth_of_plane(right, 2.0)
    depth = np.maximum(first, second)  # two walls that meet behind a ridge
    wanted = np.where((first >= second)[..., None], left, right)
    wrong = degrees(normals_of(depth, K, RADII), wanted) > 5
    assert wrong.mean() < 0.02


def test_quantised_depth_is_smoothed_but_exact_depth_is_not_taken_for_it():
    normal = unit(0.3, 0.2, 1)
    exact = 1 / depth_of_plane(normal, 2.0).astype(np.float64)
    coarse = np.round(exact / 0.003) * 0.003
    assert quantum(exact, exact > 0) == 0
    assert quantum(coarse, coarse > 0) == pytest.approx(0.003)
    error = degrees(normals_of((1 / coarse).astype(np.float32), K, RADII), normal)
    assert np.median(error) < 6
    assert np.median(error) < 0.5 * np.median(degrees(normals_of((1 / coarse).astype(np.float32), K, (1,)), normal))


def test_holes_are_gray_and_do_not_spread():
    depth = depth_of_plane(unit(0.2, 0, 1), 2.0)
    depth[30:50, 40:70] = 0
    found = normals_of(depth, K, RADII)
    assert ((found == 0).all(-1) == (depth == 0)).all()
    assert degrees(found, unit(0.2, 0, 1))[depth > 0].max() < 0.5
    assert (encode(found)[40, 50] == 127).all()


def test_normals_point_away_from_the_camera_and_have_unit_length():
    depth = np.random.default_rng(0).uniform(1, 4, (120, 160)).astype(np.float32)
    found = normals_of(depth, K, RADII)
    known = (found != 0).any(-1)
    assert known.mean() > 0.99
    assert np.allclose(np.linalg.norm(found[known], axis=-1), 1, atol=1e-5)
    plane = normals_of(depth_of_plane(unit(0.9, 0, 0.45), 2.0), K, RADII)
    assert ((plane * rays()).sum(-1) > 0).all()


def test_unknown_intrinsics_are_assumed_and_recorded(engine):
    image = np.zeros((30, 40, 3), np.uint8)
    made = engine("normal")
    with_K = made.synthesise(
        Source("s/0", image, depth=np.full((30, 40), 2, np.float32), K=K), seed=0, modality="normal"
    )
    without = made.synthesise(Source("s/0", image, depth=np.full((30, 40), 2, np.float32)), seed=0, modality="normal")
    assert with_K.drawn["intrinsics"] == "data set"
    assert without.drawn["intrinsics"] == "60 degrees assumed"


def test_rows_without_holes_come_out_as_they_do_beside_one():
    values = 0.3 + np.random.default_rng(0).normal(0, 1e-3, (150, 90))
    known = np.ones(values.shape, bool)
    pierced = known.copy()
    pierced[10::20, 3] = False  # a hole in every strip
    whole, beside = (fit_planes(values, each, (2, 6)) for each in (known, pierced))
    assert (whole[:, 20:] == beside[:, 20:]).all()
    assert (whole[:, :20] != beside[:, :20]).any()
