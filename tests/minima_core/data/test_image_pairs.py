"""Square training images: geometry follows the resizing, padding is marked, a sample depends on its item alone."""

import pytest
import torch
from plane_world import STEP, PlaneWorld
from tiny_world import H, W

from minima_core.data.image_pairs import ImagePairs
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.supervision.warp import warp


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    return PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])


def test_padding_is_black_and_marked(source):
    batch = ImagePairs(source, side=96, fit="pad", multiple=8).sample(Item(0, "rgb", "infrared"))
    assert batch.image0.shape == (1, 3, 96, 96) and batch.size0.tolist() == [[96, 72]]
    assert int(batch.mask0.sum()) == 96 * 72 and not batch.mask0[:, 72:].any()
    assert not batch.image0[:, :, 72:].any() and not batch.depth0[:, 72:].any()


@pytest.mark.parametrize(("fit", "moved"), [("pad", STEP * 96 / W), ("stretch", STEP * 96 / W)])
def test_cameras_follow_the_resizing(source, fit, moved):
    batch = ImagePairs(source, side=96, fit=fit).sample(Item(0, "rgb", "rgb"))
    points = torch.tensor([[[48.0, 30.0]]])
    found, valid = warp(points, batch, tolerance=0.05)
    assert valid.all()
    assert (found - points).norm().item() == pytest.approx(moved, abs=1e-3)


def test_stretching_fills_the_square(source):
    batch = ImagePairs(source, side=64, fit="stretch").sample(Item(0, "rgb", "rgb"))
    assert batch.mask0.all() and batch.K0[0, 1, 1] / batch.K0[0, 0, 0] == pytest.approx(W / H)


def test_sample_is_a_function_of_its_item(source):
    data = ImagePairs(source, side=64, fit="pad")
    items = [Item(0, "rgb", "infrared"), Item(1, "rgb", "rgb")]
    batch = data.collate([data.sample(item) for item in items])
    again = data.sample(items[1])
    data.close()
    assert len(batch) == 2 and torch.equal(batch.image1[1:], again.image1)
    assert torch.equal(batch.swap().swap().image0, batch.image0)
