"""Joint training: what is drawn lies where its homography says, labels agree with those of one pair, the loss falls."""

import cv2
import numpy as np
import pytest
import torch
from in_memory import InMemory
from joint_settings import JOINT
from skimage import data

from minima_core.errors import DataError
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.project import warp_points
from minima_core.models import create
from minima_core.supervision.sparse import matches_from_depth, matches_from_homography, matches_from_places
from minima_core.tracking import NullTracker
from minima_core.training import checkpoint
from minima_core.training.average import blend
from minima_core.training.joint import Joint, JointTraining, fit_joint
from minima_core.training.views import Album, draw
from minima_core.types import IGNORE, RGB

XFEAT = {"extractor": "xfeat", "long_side": 256, "max_keypoints": 64, "filter_threshold": 0.1}


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def album():
    pictures = [cv2.resize(p, (320, 256), interpolation=cv2.INTER_AREA) for p in (data.astronaut(), data.chelsea())]
    return Album([InMemory({RGB: pictures, "negative": [255 - pictures[0], None]})])


def test_pictures_are_numbered_through_all_sources_and_read_once(monkeypatch):
    grays = [[np.full((32, 64, 3), 10 * k + n, np.uint8) for n in range(2)] for k in range(3)]
    album = Album([InMemory({RGB: grays[0]}), InMemory({RGB: grays[1], "event": [None, grays[2][1]]})])
    assert len(album) == 4 and album.size == (64, 32)
    assert album.there["event"].tolist() == [False, False, False, True]
    read = []
    monkeypatch.setattr(InMemory, "image", lambda self, _, i, name: read.append(name) or self.arrays[name][i])
    found = album.pictures([(3, "event"), (2, RGB), (3, "event"), (1, RGB)])
    assert found.shape == (4, 3, 32, 64)
    assert found[:, 0, 0, 0].tolist() == [21, 10, 21, 1]
    assert read == ["event", RGB, RGB]


def test_pictures_of_several_sizes_are_refused():
    sources = [InMemory({RGB: [np.zeros((32, width, 3), np.uint8)]}) for width in (64, 96)]
    with pytest.raises(DataError, match=r"of one size are needed, there are \[\(64, 32\), \(96, 32\)\]"):
        Album(sources)


def shown(batch, b):
    """Return view 0 of a pair drawn as view 1 sees it, view 1, and where view 0's pixels are seen there."""
    pairs, (height, width) = len(batch.T_0to1), batch.views.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(1, -1, 2).float().expand(pairs, -1, -1)
    places, _ = batch.warp(pixels, 1)
    found = cv2.remap(
        batch.twins[b].permute(1, 2, 0).numpy(), places[b].reshape(height, width, 2).numpy(), None, cv2.INTER_LINEAR
    )
    _, seen = batch.warp(pixels, 1)
    return found, batch.twins[b + pairs].permute(1, 2, 0).numpy(), seen[b].reshape(height, width).numpy()


def test_views_of_one_picture_show_the_same_where_the_warp_says(album):
    batch = draw(album, JointTraining(**JOINT), 0, 0, device=CPU)
    for b in range(2):
        found, second, seen = shown(batch, b)
        assert seen.mean() > 0.1
        assert np.abs(found - second)[seen].mean() < 0.03  # resampled twice, not misplaced


@pytest.fixture(scope="module")
def stereo():
    """Two pictures of a textured wall that a box stands before, which hides another part of it from each camera."""
    f, baseline, size = 200.0, 0.2, (320, 256)
    texture = cv2.resize(data.astronaut(), (400, 256), interpolation=cv2.INTER_AREA)
    wall, box = 4.0, 2.0  # metres: the wall moves 10 pixels from one camera to the other, the box 20
    pictures, depths = [], []
    for camera in (0, 1):
        picture = texture[:, 40 + 10 * camera : 360 + 10 * camera].copy()
        depth = np.full(size[::-1], wall, np.float32)
        left = 150 - 20 * camera
        picture[80:180, left : left + 60] = data.coffee()[80:180, 200:260]
        depth[80:180, left : left + 60] = box
        pictures.append(picture)
        depths.append(depth)
    K = np.array([[f, 0, 160], [0, f, 128], [0, 0, 1]])
    T_w2c = np.tile(np.eye(4), (2, 1, 1))
    T_w2c[1, 0, 3] = -baseline
    return Album([InMemory({RGB: pictures}, depths, K, T_w2c, [(0, 1)])])


@pytest.mark.parametrize("step", [0, 1, 2, 3])  # either camera comes first
def test_views_of_two_cameras_show_the_same_where_depth_says(stereo, step):
    params = JointTraining(**JOINT | {"parallax_share": 1.0, "batch": 1, "view": (320, 256)})
    found, second, seen = shown(draw(stereo, params, 0, step, device=CPU), 0)
    assert np.abs(found - second)[seen].mean() < 1e-3
    hidden = seen[80:180, 100:260].size - seen[80:180, 100:260].sum()
    assert 800 < hidden < 1500  # beside the box, 10 pixels of the wall in 100 rows


def test_a_step_is_drawn_from_its_seed_and_number(album):
    params = JointTraining(**JOINT)
    one, same, other = (draw(album, params, 0, k, device=CPU) for k in (3, 3, 4))
    assert torch.equal(one.views, same.views)
    assert not torch.equal(one.H_view, other.H_view)


def drawn_keypoints():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 200, 2, generator=generator) * 99 for _ in range(2)]


def test_batched_labels_are_those_of_each_pair():
    kpts0, kpts1 = drawn_keypoints()
    H = torch.tensor([[[1.0, 0.05, 3], [-0.04, 1, 2], [1e-4, 0, 1]], [[0.9, 0, 5], [0, 1.1, -4], [0, 0, 1]]])
    mask0, mask1 = torch.ones(2, 200, dtype=torch.bool), torch.ones(2, 200, dtype=torch.bool)
    mask1[1, 150:] = False
    places = {"warped0": warp_homography(H, kpts0), "warped1": warp_homography(torch.linalg.inv(H), kpts1)}
    found0, found1 = matches_from_places(kpts0, kpts1, mask0, mask1, **places, size=(100, 100))
    for b, count in enumerate((200, 150)):
        one = matches_from_homography(kpts0[b], kpts1[b, :count], H_0to1=H[b], size0=(100, 100), size1=(100, 100))
        assert torch.equal(found0[b], one.matches0)
        assert torch.equal(found1[b, :count], one.matches1)
    assert (found1[1, 150:] == IGNORE).all()


def test_batched_labels_know_what_depth_knows():
    kpts0, kpts1 = drawn_keypoints()
    depth0, depth1 = (torch.rand(2, 200, generator=torch.Generator().manual_seed(k)) + 1 for k in (1, 2))
    K = torch.tensor([[80.0, 0, 50], [0, 80, 50], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    T = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    T[:, 0, 3] = 0.05
    warped0, _ = warp_points(kpts0.double(), depth0.double(), K, K, T)
    warped1, _ = warp_points(kpts1.double(), depth1.double(), K, K, torch.linalg.inv(T))
    warped0[1, :50] = torch.nan  # depth unknown
    everywhere = torch.ones(2, 200, dtype=torch.bool)
    found0, _ = matches_from_places(
        kpts0, kpts1, everywhere, everywhere, warped0=warped0.float(), warped1=warped1.float(), size=(100, 100)
    )
    known = {"depth0": depth0[0], "depth1": depth1[0], "K0": K[0], "K1": K[0], "T_0to1": T[0]}
    one = matches_from_depth(kpts0[0], kpts1[0], **known, size0=(100, 100), size1=(100, 100))
    assert torch.equal(found0[0], one.matches0)
    assert (one.matches0 >= 0).sum() > 3
    assert (found0[1, :50] == IGNORE).all()


def test_training_moves_the_extractor_too_and_resumes(album, tmp_path):
    torch.manual_seed(0)
    start = create("lightglue", XFEAT, "test").state_dict()

    def trained(scratch, steps):
        matcher = create("lightglue", XFEAT, "test")
        matcher.load_state_dict(start)
        params = JointTraining(**JOINT | {"decay_from": 1.0, "steps": steps})
        fitted = fit_joint(matcher, album, album, params, seed=0, tracker=NullTracker(), scratch=scratch)
        _, last, _ = checkpoint.load(scratch)
        return last, fitted

    whole, fitted = trained(tmp_path / "whole", 6)
    trained(tmp_path / "cut", 3)
    resumed, _ = trained(tmp_path / "cut", 6)
    assert fitted.steps == 6
    assert fitted.skipped == 0
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], start[name]) for name in whole if name.startswith("extractor."))


def test_a_blend_lies_between_the_two():
    start, end = create("lightglue", XFEAT, "test"), create("lightglue", XFEAT, "test")
    learned = {name: weights.clone() for name, weights in end.state_dict().items()}
    blend(end, start.state_dict(), 0.25)
    for name, weights in end.state_dict().items():
        if weights.is_floating_point():
            assert torch.allclose(weights, 0.75 * start.state_dict()[name] + 0.25 * learned[name], atol=1e-6)
        else:
            assert torch.equal(weights, learned[name])


def test_other_extractors_are_refused():
    with pytest.raises(DataError, match="xfeat"):
        Joint(create("lightglue", XFEAT | {"extractor": "disk"}, "test"), JointTraining(**JOINT))
