"""Labels of cells, on scenes whose answer is known, and the loss on numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from two_views import S, plane, scene

from minima_core.geometry.cells import CELL, cell_points
from minima_core.supervision.coarse import CoarseTargets, coarse_targets, focal_loss
from minima_core.types import UNMATCHED

SIDE = S // CELL


def labels(*partners):
    """Return the targets of pairs whose cells have these partners; nothing is padding."""
    partner0 = torch.tensor(partners)
    ones = torch.ones(partner0.shape, dtype=torch.bool)
    return CoarseTargets(partner0, torch.zeros(*partner0.shape, 2), ones, ones, ones)


def test_plane_moves_by_whole_cells():
    # 80 px focal length, baseline 0.5, depth 5: 8 px to the left
    partner = coarse_targets(scene(plane(5.0), plane(5.0))).partner0.reshape(SIDE, SIDE)
    assert partner[:, 0].eq(UNMATCHED).all()  # it leaves the image
    assert torch.equal(partner[:, 1:], torch.arange(SIDE * SIDE).reshape(SIDE, SIDE)[:, :-1])


def test_hidden_cells_have_no_match():
    # the near plane moves 16 px, the far one 8: far cells that land on it would come back two cells from home
    depth0, depth1 = plane(5.0), plane(5.0)
    depth0[:, 36:] = 2.5  # from cell 5 on
    depth1[:, 20:] = 2.5  # from cell 3 on
    partner = coarse_targets(scene(depth0, depth1)).partner0.reshape(SIDE, SIDE)
    column = (partner % SIDE).where(partner >= 0, UNMATCHED)
    assert column[3].tolist() == [UNMATCHED, 0, 1, 2, UNMATCHED, 3, 4, 5]


def test_homography_matches_the_cells_it_maps():
    H = torch.tensor([[1.0, 0, 0], [0, 1, 2 * CELL], [0, 0, 1]])
    partner = coarse_targets(scene(plane(0.0), plane(0.0), H=H)).partner0
    assert torch.equal(partner[0, : -2 * SIDE], torch.arange(2 * SIDE, SIDE * SIDE))
    assert partner[0, -2 * SIDE :].eq(UNMATCHED).all()


def test_swapped_views_have_the_same_matches():
    depth0, depth1 = plane(5.0), plane(5.0)
    depth0[:, 36:], depth1[:, 20:] = 2.5, 2.6
    batch = scene(depth0, depth1, shift=-0.4)
    b, i, j = coarse_targets(batch).matches()
    b_back, j_back, i_back = coarse_targets(batch.swap()).matches()
    assert len(b) > 20
    assert set(zip(b.tolist(), i.tolist(), j.tolist(), strict=True)) == set(
        zip(b_back.tolist(), i_back.tolist(), j_back.tolist(), strict=True)
    )


def test_padding_matches_nothing():
    batch = scene(plane(5.0), plane(5.0))
    batch.mask0[:, 32:] = False
    targets = coarse_targets(batch)
    assert targets.partner0[0, SIDE * 4 :].eq(UNMATCHED).all() and targets.partner0[0, : SIDE * 4].ge(0).any()


def test_a_cell_that_begins_where_the_image_ends_matches_nothing():
    """Its point lies on the edge."""
    batch = scene(plane(5.0), plane(5.0))
    mask = torch.zeros_like(batch.mask0)
    mask[:, :32] = True
    batch = replace(batch, mask0=mask, mask1=mask, size0=torch.tensor([[S, 32]]), size1=torch.tensor([[S, 32]]))
    targets = coarse_targets(batch)
    _, i, j = targets.matches()
    assert i.max() == j.max() + 1 == SIDE * 4 - 1 and targets.mask0[0, i].all() and targets.mask1[0, j].all()


def test_cells_count_from_the_corner():
    assert cell_points(2, 2).tolist() == [[-0.5, -0.5], [7.5, -0.5], [-0.5, 7.5], [7.5, 7.5]]


def test_focal_loss_of_even_odds_is_known():
    # two matches and two others at p = 0.5: 0.25 * 0.25 * ln 2 a side
    loss = focal_loss(torch.full((1, 2, 2), 0.5), labels([0, 1]))
    assert loss.item() == pytest.approx(2 * 0.25 * 0.25 * math.log(2))


def test_focal_loss_of_two_by_two_by_hand():
    p = torch.tensor([[[0.9, 0.2], [0.1, 0.6]]])
    expected = (0.1**2 * -math.log(0.9) + 0.4**2 * -math.log(0.6)) / 2
    expected += (0.2**2 * -math.log(0.8) + 0.1**2 * -math.log(0.9)) / 2
    assert focal_loss(p, labels([0, 1])).item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_pairs_without_truth_cost_nothing():
    p = torch.full((2, 2, 2), 0.5, requires_grad=True)
    loss = focal_loss(p, labels([UNMATCHED, UNMATCHED], [0, UNMATCHED]))
    assert loss[0] == 0 and loss[1] > 0
    focal_loss(p, labels([UNMATCHED] * 2, [UNMATCHED] * 2)).sum().backward()
    assert not p.grad.any()
