from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from minima_core.errors import ConfigError, WeightsError
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.depth._spectral import colour
from minima_core.synthesis.depth.depth_anything_v2 import LONGEST, at_size, plan, prepare

pytestmark = pytest.mark.xdist_group("networks")  # importing diffusers takes ten seconds: once is enough

RECORDED = Path(__file__).with_name("recorded") / "depth_anything_v2.npz"


@pytest.fixture
def network(engine):
    def make(**settings):
        return engine("depth", engine="depth_anything_v2", **{"weights": "random", "input_size": 112, **settings})

    return make


def test_plan_equals_the_recorded_original(parity):
    for height, width, net_height, net_width in parity("depth")["resize_plan_h_w_newh_neww"].tolist():
        assert plan(width, height, 518) == (net_width, net_height)


def test_what_the_network_is_given_equals_the_recorded_original(parity):
    recorded = parity("depth")
    made = prepare(recorded["preproc_image_rgb_45x60"], 56)
    assert np.abs(made - recorded["preproc_input_size56"][0]).max() <= 1e-5


def test_resize_to_the_image_equals_the_recorded_original(parity):
    recorded = parity("depth")
    made = at_size(torch.from_numpy(recorded["raw_network_map_56x70"])[None], 45, 60)[0].numpy()
    assert np.abs(made - recorded["raw_map_resized_45x60"]).max() <= 1e-5


def test_known_plans():
    assert plan(640, 480, 518) == (686, 518)  # 690.7 is 49.3 patches
    assert plan(100, 100, 20) == (28, 28)  # never fewer pixels than asked for
    assert plan(1, 1, 518) == (518, 518)


def test_a_strip_is_held_to_a_bounded_size():
    assert plan(500, 2000, 518) == (518, LONGEST * 518)
    assert plan(500, 20000, 518) == (56, LONGEST * 518)
    assert plan(1, 10**6, 518) == (14, LONGEST * 518)


def test_a_gray_image_is_normalised_as_imagenet():
    made = prepare(np.full((20, 30, 3), 51, np.uint8), 28)
    assert made.shape == (3, 28, 42) and made.dtype == np.float32
    wanted = (0.2 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert np.allclose(made, wanted[:, None, None], atol=1e-5)


def test_corners_stay_on_corners():
    made = at_size(torch.tensor([[[0.0, 2], [4, 6]]]), 3, 3)
    assert made.tolist() == [[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]


def test_picture_is_the_coloured_raw_map(network, photo):
    made = network().synthesise(Source("s/0", photo), seed=0, modality="depth")
    assert made.raw.shape == photo.shape[:2] and made.raw.min() >= 0 and made.raw.max() > made.raw.min()
    assert (made.image == colour(made.raw, np.ones(made.raw.shape, bool))).all()


def test_a_constant_prediction_has_one_colour(network):
    made = network()
    torch.nn.init.zeros_(made.net.head.conv3.weight)
    torch.nn.init.ones_(made.net.head.conv3.bias)
    picture = made.synthesise(Source("s/0", np.zeros((30, 40, 3), np.uint8)), seed=0, modality="depth").image
    assert (picture == (94, 79, 162)).all()


def test_equals_what_was_recorded(network, photo):
    made = network().synthesise(Source("s/0", photo), seed=0, modality="depth")
    assert np.abs(made.raw[::8, ::8] - np.load(RECORDED)["raw"]).max() < 1e-3  # of a range of about 8


def test_half_precision_is_close(network, photo):
    source = Source("s/0", photo)
    full, half = (
        network(precision=precision).synthesise(source, seed=0, modality="depth").raw
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32 and not (half == full).all()
    assert np.abs(half - full).mean() < 0.05 * (full.max() - full.min())


def test_published_weights_are_read_from_their_repository(network, photo, tmp_path, monkeypatch):
    theirs = network()
    theirs.net.save_pretrained(tmp_path / "depth-anything-v2-base")
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    ours = network(weights="published", model="base")
    source = Source("s/0", photo)
    first, second = (made.synthesise(source, seed=0, modality="depth").raw for made in (theirs, ours))
    assert (first == second).all()
    assert list(ours.sources()) == [f"depth-anything-v2-base/{file}" for file in ("config.json", "model.safetensors")]


def test_a_folder_without_the_model_is_refused_in_one_line(network, tmp_path, monkeypatch):
    (tmp_path / "depth-anything-v2-small").mkdir()
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="does not hold depth-anything-v2-small") as caught:
        network(weights="published")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("model", "commercial"), [("small", True), ("base", False), ("large", False)])
def test_licence_follows_the_model(model, commercial):
    shipped = MODALITIES.settings("depth", "depth_anything_v2")
    assert MODALITIES.create("depth", {**shipped, "model": model}).terms().commercial is commercial


def test_the_shipped_model_may_be_used_commercially():
    made = MODALITIES.create("depth", MODALITIES.settings("depth", "depth_anything_v2"))
    assert made.terms().commercial and made.weights == "published"


@pytest.mark.parametrize("wrong", [{"model": "giant"}, {"input_size": 13}, {"weights": "mine.safetensors"}])
def test_settings_out_of_bounds_are_refused(wrong):
    shipped = MODALITIES.settings("depth", "depth_anything_v2")
    with pytest.raises((ConfigError, ValidationError)):
        MODALITIES.create("depth", {**shipped, **wrong})


def test_a_batch_is_decided_once_for_a_size_by_all_the_memory_that_can_be_had(network, monkeypatch):
    made = network()
    made.setup("cpu")
    assert made.batch_size(640, 480) == 1
    made.device = torch.device("cuda")
    one = made.memory(640, 480)
    memory = {"mem_get_info": (one, one * 20), "memory_reserved": one * 4, "memory_allocated": one}
    for name, value in memory.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert made.batch_size(640, 480) == 3  # four fifths of one that is free and three that torch has kept
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    assert made.batch_size(640, 480) == 3


def test_a_batch_leaves_the_other_half_of_a_gpu_to_the_process_beside(network, monkeypatch):
    made = network()
    made.setup("cpu")
    made.device = torch.device("cuda")
    one = made.memory(640, 480)
    for name, value in {"mem_get_info": (one * 10, one * 10), "memory_reserved": 0, "memory_allocated": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert made.gpus == 0.5 and made.batch_size(640, 480) == 4
