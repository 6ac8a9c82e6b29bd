from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import weight

from minima_core.errors import ConfigError, WeightsError
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.normal import dsine
from minima_core.synthesis.normal._dsine_encoder import B5, _SameConv
from minima_core.synthesis.normal._dsine_network import (
    Dsine,
    facing,
    focal_lengths,
    neighbours,
    ray_encoding,
    rotate_about,
    rotation_axis,
    unit,
)
from minima_core.synthesis.normal.dataset import default_intrinsics

RECORDED = Path(__file__).with_name("recorded") / "dsine.npz"
NAMES_AND_SHAPES = "b3f9d4636ac929e16f76e3471a4ed368353635653c8422f29c7badb42e11fd6f"


def skeleton():
    with torch.device("meta"):
        return Dsine(B5)


@pytest.fixture(scope="module")
def published_size():
    """The published network with weights by formula, loaded as the published file is."""
    state = {f"module.{name}": weight(name, tensor.shape) for name, tensor in skeleton().state_dict().items()}
    return dsine.network(state).eval()


@pytest.fixture
def network(engine):
    return lambda **settings: engine("normal", engine="dsine", **{"weights": "random", **settings})


def test_names_and_shapes_are_the_checkpoints(parity):
    recorded = json.loads((Path(parity("dsine_96x128").fid.name).parent / "dsine_keys.json").read_text())["tensors"]
    assert [(name, shape) for name, shape, _ in recorded] == [
        (name, list(tensor.shape)) for name, tensor in skeleton().state_dict().items()
    ]


def test_names_and_shapes_stay_as_they_were():
    state = skeleton().state_dict()
    words = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    assert len(state) == 918 and sum(tensor.numel() for tensor in state.values()) == 72_737_611
    assert hashlib.sha256(words.encode()).hexdigest() == NAMES_AND_SHAPES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsine_96x128", "dsine_batch2_64x96"])
def test_the_published_network_is_the_original(name, published_size, parity):
    recorded = {key: torch.from_numpy(array) for key, array in parity(name).items()}
    image, K = recorded["input"], recorded["intrinsics"]
    with torch.inference_mode():
        features = published_size.encoder(image)
        for index, feature in zip((6, 8, 11), features, strict=True):
            assert (feature - recorded[f"feature_{index}"]).abs().max() < 1e-5
        uvs = [ray_encoding(K, feature, image) for feature in features]
        decoded = published_size.decoder(features, uvs)
        for part, made in zip(("normal", "feature", "hidden"), decoded, strict=True):
            assert (made - recorded[f"decoder_{part}"]).abs().max() < 1e-4
        states = published_size.refine(*decoded, uvs[0], focal_lengths(K, features[0], image))
        predictions = [published_size.upsample(*state, uvs[0]) for state in states]
        result = published_size(image, K)
    for k in (1, 5):
        assert (states[k][1] - recorded[f"refine_{k}_hidden"]).abs().max() < 1e-3
        assert (states[k][0] - recorded[f"refine_{k}_normal"]).abs().max() < 1e-3
    assert len(predictions) == 6 and (result == predictions[-1]).all()
    for k, made in enumerate(predictions):
        difference = (made - recorded[f"prediction_{k}"]).abs()
        assert difference.max() < 1e-3 and difference.mean() < 3e-5


def test_padding_equals_the_recorded_original(parity):
    for row in parity("normals_io")["table_h_w_l_r_t_b_fx_fy_cx_cy_cxpad_cypad"]:
        height, width = int(row[0]), int(row[1])
        left, right, top, bottom = dsine.padding(width, height)
        assert [left, right, top, bottom] == row[2:6].tolist()
        made = dsine.padded_intrinsics(default_intrinsics(width, height)[None], left, top)[0]
        assert [made[0, 0], made[1, 1], made[0, 2], made[1, 2]] == pytest.approx(row[[6, 7, 10, 11]], rel=1e-6)


class StandIn:
    """Says what the recorded network said; remembers what it was given."""

    def __init__(self, answer):
        self.answer = torch.from_numpy(answer)

    def __call__(self, image, K):
        self.image, self.K = image.numpy(), K.numpy()
        return self.answer


@pytest.mark.parametrize("case", range(4))
def test_steps_before_and_after_the_network_equal_the_recorded_original(case, network, parity):
    recorded = parity("normals_io")
    made = network()
    made.net = StandIn(recorded[f"case{case}_net_normals"])
    K = None
    if case == 3:
        fx, fy, cx, cy = recorded["case3_sidecar_fx_fy_cx_cy"]
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    source = Source("s/0", recorded[f"case{case}_image"], K=K)
    rendition = made.synthesise(source, seed=0, modality="normal")
    assert np.allclose(made.net.image, recorded[f"case{case}_net_input"], rtol=1e-6, atol=1e-6)
    assert np.allclose(made.net.K, recorded[f"case{case}_net_intrinsics"], rtol=1e-6)
    assert (rendition.image == recorded[f"case{case}_result_rgb"]).all()
    assert rendition.drawn["intrinsics"] == ("data set" if case == 3 else "60 degrees assumed")


def test_a_wall_that_faces_the_camera_is_drawn_as_published(network):
    made = network()
    made.net = StandIn(np.broadcast_to(np.float32([0, 0, 1])[:, None, None], (1, 3, 64, 64)).copy())
    picture = made.synthesise(Source("s/0", np.zeros((40, 50, 3), np.uint8)), seed=0, modality="normal").image
    assert (picture == (127, 127, 255)).all()


def test_normals_have_unit_length_and_face_the_camera(network):
    made = network()
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    K = torch.tensor(np.stack([default_intrinsics(96, 64)] * 2), dtype=torch.float32)
    with torch.inference_mode():
        normals = made.net(image, K)
    rays = unit(torch.cat([ray_encoding(K, image, image), torch.ones(2, 1, 64, 96)], 1))
    assert (normals.norm(dim=1) - 1).abs().max() < 1e-5
    assert ((normals * rays).sum(1) > -0.1).all()  # exactly so at 1/8, nearly after the convex upsampling


def test_intrinsics_of_the_data_set_change_the_normals(network, photo):
    made = network()
    source = Source("s/0", photo)
    wide = replace(source, K=np.array([[100.0, 0, 127.5], [0, 100.0, 95.5], [0, 0, 1]]))
    same = replace(source, K=default_intrinsics(photo.shape[1], photo.shape[0]))
    pictures = [made.synthesise(s, seed=0, modality="normal").image for s in (source, wide, same)]
    assert (pictures[0] != pictures[1]).any() and (pictures[0] == pictures[2]).all()


def test_images_of_a_batch_keep_their_own_intrinsics(network, photo):
    made = network()
    source = Source("s/0", photo)
    wide = replace(source, K=np.array([[100.0, 0, 127.5], [0, 100.0, 95.5], [0, 0, 1]]))
    together = made.synthesise_batch([source, wide], seed=0, modality="normal")
    for given, rendition in zip((source, wide), together, strict=True):
        alone = made.synthesise(given, seed=0, modality="normal")
        assert np.abs(alone.image.astype(int) - rendition.image).max() <= 1 and alone.drawn == rendition.drawn


def test_ray_encoding_is_the_inverse_of_the_intrinsics():
    K = torch.tensor([[[50.0, 0, 12], [0, 40.0, 7], [0, 0, 1]]])
    image = torch.zeros(1, 3, 16, 32)
    u, v = ray_encoding(K, image, image)[0]
    assert u[3, 12] == 0 and u[3, 22] == pytest.approx(0.2) and v[7, 5] == 0 and v[11, 5] == pytest.approx(0.1)
    coarse = ray_encoding(K, torch.zeros(1, 8, 4, 8), image)[0]
    assert torch.allclose(coarse[0], u.reshape(4, 4, 8, 4).mean((1, 3)), atol=1e-6)


def test_a_rotation_axis_lies_in_the_plane_and_projects_onto_the_step():
    generator = torch.Generator().manual_seed(0)
    normal = unit(torch.randn(1, 3, 1, 1, 50, generator=generator) + torch.tensor([0, 0, 3.0]).view(1, 3, 1, 1, 1))
    uv = 0.3 * torch.randn(1, 2, 1, 1, 50, generator=generator)
    step = 0.01 * torch.randn(1, 2, 1, 1, 50, generator=generator)
    axis = rotation_axis(normal, uv, step)
    assert (axis * normal).sum(1).abs().max() < 1e-5
    point = torch.cat([uv, torch.ones_like(uv[:, :1])], 1)  # a point of each plane, moved along the axis
    moved = point + 1e-2 * axis
    along = moved[:, :2] / moved[:, 2:] - uv
    cosine = (unit(along) * unit(step)).sum(1)
    assert cosine.min() > 0.999


def test_a_step_that_leads_nowhere_has_no_axis():
    normal = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1, 1)
    axis = rotation_axis(normal, torch.zeros(1, 2, 1, 1, 1), torch.zeros(1, 2, 1, 1, 1))
    assert (axis == 0).all()


def test_rotation_about_the_third_axis_by_a_right_angle():
    x, z = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0, 1.0]])
    assert torch.allclose(rotate_about(x, z, torch.tensor([[math.pi / 2]])), torch.tensor([[0.0, 1, 0]]), atol=1e-6)


def test_a_normal_that_looks_away_is_turned_just_enough():
    ray = torch.tensor([[0.0, 0, 1]])
    seen, hidden = unit(torch.tensor([[1.0, 0, 1]])), unit(torch.tensor([[1.0, 0, -1]]))
    assert torch.allclose(facing(seen, ray), seen, atol=1e-6)
    turned = facing(hidden, ray)
    assert turned[0, 2] > 0 and turned[0, 2] < 0.02 and turned.norm() == pytest.approx(1)


def test_neighbours_come_in_reading_order_with_edges_repeated():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    around = neighbours(x, 3)[0, 0]
    assert around[:, 0, 0].tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    assert around[:, 1, 2].tolist() == [1, 2, 2, 4, 5, 5, 4, 5, 5]


def test_padding_of_convolutions_is_tensorflows():
    net = _SameConv(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(net.weight)
    with torch.no_grad():
        assert net(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]  # even: only the end is padded
        assert net(torch.ones(1, 1, 5, 5))[0, 0, 0].tolist() == [4, 6, 4]  # odd: both ends


def test_equals_what_was_recorded(network, photo):
    made = network().synthesise(Source("s/0", photo), seed=0, modality="normal").image
    assert np.abs(made[::8, ::8].astype(int) - np.load(RECORDED)["image"]).max() <= 1


def test_half_precision_is_close(network, photo):
    source = Source("s/0", photo)
    full, half = (
        network(precision=precision).synthesise(source, seed=0, modality="normal").image.astype(int)
        for precision in ("float32", "bfloat16")
    )
    assert (full != half).any() and np.abs(full - half).mean() < 4


def test_published_weights_are_read_from_their_file(network, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(dsine, "B5", dsine.TRIAL)
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    theirs = Dsine(dsine.TRIAL)
    torch.save({"model": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "dsine.pt")
    ours = network(weights="published")
    assert all((ours.net.state_dict()[k] == v).all() for k, v in theirs.state_dict().items())
    assert list(ours.sources()) == ["dsine.pt"]
    made = ours.synthesise(Source("s/0", photo), seed=0, modality="normal")
    assert made.image.shape == photo.shape


@pytest.mark.parametrize("content", [{"model": {"gru.convz.bias": torch.zeros(64)}}, {"model": []}, [1]])
def test_another_file_under_its_name_is_refused_in_one_line(content, network, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    torch.save(content, tmp_path / "dsine.pt")
    with pytest.raises(WeightsError, match=r"dsine\.pt .* (not the published file|read as weights)") as caught:
        network(weights="published")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("weights", ["published", "random"])
def test_it_is_for_research_only(weights):
    made = MODALITIES.create("normal", {**MODALITIES.settings("normal", "dsine"), "weights": weights})
    assert made.terms().name == "LicenseRef-Imperial-DSINE" and not made.terms().commercial


def test_weights_of_ones_own_are_refused():
    with pytest.raises(ConfigError, match="weights"):
        MODALITIES.create("normal", {**MODALITIES.settings("normal", "dsine"), "weights": "mine.safetensors"})
