"""Labels of every pixel on scenes whose answer is known: a plane, an occluder, a homography."""

from dataclasses import replace

import pytest
import torch

from minima_core.data.image_pairs import ImageBatch
from minima_core.geometry.coords import to_grid
from minima_core.geometry.homography import warp_homography
from minima_core.supervision.dense import dense_targets

SIDE = 64
K = torch.tensor([[100.0, 0, 31.5], [0, 100, 31.5], [0, 0, 1]])


def scene(depth0=5.0, depth1=5.0, baseline=0.4):
    """Two cameras side by side; at depth 5 everything moves 8 px to the left."""
    T_0to1 = torch.eye(4)
    T_0to1[0, 3] = -baseline
    mask, size = torch.ones(1, SIDE, SIDE, dtype=torch.bool), torch.tensor([[SIDE, SIDE]])
    depths = [torch.as_tensor(d).expand(1, SIDE, SIDE).clone() for d in (depth0, depth1)]
    image = torch.zeros(1, 3, SIDE, SIDE)
    return ImageBatch(
        image, image, mask, mask, *depths, K[None], K[None], T_0to1[None], torch.eye(3)[None], torch.tensor([False]),
        size, size,
    )  # fmt: skip


def centres(n):
    axis = -1 + (2 * torch.arange(n) + 1) / n
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


@pytest.mark.parametrize("n", [8, 16, 64])
def test_a_plane_moves_as_one_at_every_size(n):
    found = dense_targets(scene(), (n, n))
    seen = found.certainty[0] > 0
    assert torch.equal(seen, centres(n)[..., 0] > -0.75)  # the rest leaves image 1
    moved = centres(n) - torch.tensor([0.25, 0.0])  # 8 of 64 px
    torch.testing.assert_close(found.warp_0to1[0][seen], moved[seen], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("share", "seen"), [(0.96, True), (1.04, True), (0.94, False), (1.07, False)])
def test_what_lies_more_than_a_twentieth_off_the_other_surface_is_hidden(share, seen):
    found = dense_targets(scene(depth1=5.0 / share), (8, 8))
    assert bool((found.certainty[0, :, 2:] == seen).all())


def test_a_near_plane_hides_the_far_one():
    # the right half of image 0 is at 2.5 and moves 16 px, over what the far plane moves 8 px
    depth0, depth1 = torch.full((SIDE, SIDE), 5.0), torch.full((SIDE, SIDE), 5.0)
    depth0[:, 32:], depth1[:, 16:48] = 2.5, 2.5
    certainty = dense_targets(scene(depth0, depth1), (SIDE, SIDE)).certainty[0, 32]
    assert certainty[8:23].all() and not certainty[:8].any()
    assert not certainty[24:31].any()  # falls on 16 to 23, where image 1 shows the near plane
    assert certainty[33:].all()


def test_unknown_depth_says_nothing_and_stays_finite():
    found = dense_targets(scene(depth0=0.0), (8, 8))
    assert not found.certainty.any() and bool(found.warp_0to1.isfinite().all())


def test_a_homography_needs_no_depth():
    H_0to1 = torch.tensor([[1.1, 0.05, 2.0], [-0.04, 0.95, 3.0], [1e-4, -2e-4, 1.0]])
    batch = replace(scene(0.0, 0.0), H_0to1=H_0to1[None], planar=torch.tensor([True]))
    found = dense_targets(batch, (SIDE, SIDE))
    pixels = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"), -1)
    expected = to_grid(warp_homography(H_0to1, pixels.reshape(-1, 2)), (SIDE, SIDE)).reshape(64, 64, 2)
    torch.testing.assert_close(found.warp_0to1[0], expected, atol=1e-4, rtol=0)
    assert torch.equal(found.certainty[0] > 0, (expected.abs() <= 1).all(-1))
