"""Square training images: geometry follows the resizing, padding is marked, a sample depends on its item alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plane_world import STEP, PlaneWorld
from tiny_world import H, W

from minima_core.data.augment import Augment, Moves, draw
from minima_core.data.image_pairs import ImagePairs
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.geometry.coords import to_grid
from minima_core.random import rng
from minima_core.supervision.warp import warp


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    return PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])


def test_padding_is_black_and_marked(source, tmp_path):
    batch = ImagePairs(source, cache=tmp_path, side=96, fit="pad", multiple=8).sample(Item(0, "rgb", "infrared"))
    assert batch.image0.shape == (1, 3, 96, 96) and batch.size0.tolist() == [[96, 72]]
    assert int(batch.mask0.sum()) == 96 * 72 and not batch.mask0[:, 72:].any()
    assert not batch.image0[:, :, 72:].any() and not batch.depth0[:, 72:].any()


@pytest.mark.parametrize(("fit", "moved"), [("pad", STEP * 96 / W), ("stretch", STEP * 96 / W)])
def test_cameras_follow_the_resizing(source, tmp_path, fit, moved):
    batch = ImagePairs(source, cache=tmp_path, side=96, fit=fit).sample(Item(0, "rgb", "rgb"))
    points = torch.tensor([[[48.0, 30.0]]])
    found, valid = warp(points, batch, tolerance=0.05)
    assert valid.all()
    assert (found - points).norm().item() == pytest.approx(moved, abs=1e-3)


def test_stretching_fills_the_square(source, tmp_path):
    batch = ImagePairs(source, cache=tmp_path, side=64, fit="stretch").sample(Item(0, "rgb", "rgb"))
    assert batch.mask0.all() and batch.K0[0, 1, 1] / batch.K0[0, 0, 0] == pytest.approx(W / H)


def test_sample_is_a_function_of_its_item(source, tmp_path):
    data = ImagePairs(source, cache=tmp_path, side=64, fit="pad")
    items = [Item(0, "rgb", "infrared"), Item(1, "rgb", "rgb")]
    batch = data.collate([data.sample(item) for item in items])
    again = data.sample(items[1])
    data.close()
    assert len(batch) == 2 and torch.equal(batch.image1[1:], again.image1)
    assert torch.equal(batch.swap().swap().image0, batch.image0)


def colours(image, points):
    grid = to_grid(points, (image.shape[-1], image.shape[-2]))[:, None]
    return torch.nn.functional.grid_sample(image, grid, align_corners=False)[:, :, 0]


TURNED = Moves(flip=True, shift=(7, -4), rotation=(25.0, -40.0), scale=(1.2, 0.8))


def as_planar(scene):
    """Return the scene with its pairs related by the homographies of the wall instead of depth and pose."""
    H_0to1 = np.tile(np.eye(3), (len(scene.pairs), 1, 1))
    moved = scene.T_w2c[scene.pairs[:, 1], 0, 3] - scene.T_w2c[scene.pairs[:, 0], 0, 3]
    H_0to1[:, 0, 2] = scene.K[0, 0, 0] * moved / 3.0
    return replace(scene, H_0to1=H_0to1)


@pytest.mark.parametrize("relation", [lambda scene: scene, as_planar])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_moved_images_still_show_the_same_where_the_geometry_says(source, tmp_path, monkeypatch, fit, relation):
    monkeypatch.setattr(source, "scenes", [relation(scene) for scene in source.scenes])
    data = ImagePairs(source, cache=tmp_path, side=96, fit=fit)
    points = 96 * torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(0))
    for moves in (None, TURNED):
        batch = data.sample(Item(0, "rgb", "rgb", moves))
        assert batch.planar.item() is (relation is as_planar)
        found, valid = warp(points, batch)
        assert 60 < valid.sum() < 400
        difference = (colours(batch.image0, points) - colours(batch.image1, found)).abs().mean(1)[valid]
        other = (colours(batch.image0, points) - colours(batch.image1, found.flip(1))).abs().mean(1)[valid]
        assert difference.mean() < 0.03 and difference.mean() < 0.4 * other.mean()


def test_mirroring_and_shifting_keep_whole_pixels(source, tmp_path):
    data = ImagePairs(source, cache=tmp_path, side=96, fit="pad")
    still = data.sample(Item(0, "rgb", "rgb"))
    batch = data.sample(Item(0, "rgb", "rgb", Moves(flip=True, shift=(3, 5), rotation=(0.0, 0.0), scale=(1.0, 1.0))))
    for before, after in ((still.image1, batch.image1), (still.depth0, batch.depth0), (still.mask0, batch.mask0)):
        torch.testing.assert_close(after[..., 5:, 3:], before.flip(-1)[..., :-5, :-3], atol=1e-4, rtol=0)
        assert max(float(edge.float().max()) for edge in (after[..., :5, :], after[..., :3])) < 1e-5


def test_draws_keep_their_bounds_and_come_from_the_seed():
    bounds = Augment(shift=4, flip=0.5, rotation=30, scale=1.5)
    drawn = [draw(bounds, rng(0, "augment", n)) for n in range(200)]
    assert drawn[3] == draw(bounds, rng(0, "augment", 3)) != drawn[4]
    assert {d.shift[0] for d in drawn} == set(range(-4, 5))
    assert 70 < sum(d.flip for d in drawn) < 130
    assert 25 < max(max(d.rotation) for d in drawn) <= 30 and -30 <= min(min(d.rotation) for d in drawn) < -25
    assert 1.4 < max(max(d.scale) for d in drawn) <= 1.5 and 1 / 1.5 <= min(min(d.scale) for d in drawn) < 0.7
    still = draw(Augment(shift=0, flip=0, rotation=0, scale=1), rng(0))
    torch.testing.assert_close(still.homography(1, 64), torch.eye(3, dtype=torch.float64))
