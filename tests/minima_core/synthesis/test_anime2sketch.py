from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import weight

from minima_core.errors import ConfigError, WeightsError
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.sketch import anime2sketch
from minima_core.synthesis.sketch._clahe import equalise
from minima_core.synthesis.sketch._generator import Generator
from minima_core.synthesis.sketch.anime2sketch import prepare, square, stretched, to_gray

RECORDED = Path(__file__).parent / "recorded" / "anime2sketch.npz"
VARIANTS = ["improved", "default"]


def formula(variant, width=64):
    """A generator with weights by formula; the binomial kernel stays as constructed."""
    net = Generator(improved=variant == "improved", width=width).eval()
    state = {k: v if k.endswith("kernel") else weight(k, v.shape) for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    return net


@pytest.fixture(scope="module", params=VARIANTS)
def published_size(request):
    return request.param, formula(request.param)


def sketch(engine, image, **settings):
    settings = {"engine": "anime2sketch", "weights": "random", "load_size": 256, **settings}
    return engine("sketch", **settings).synthesise(Source("s/0", image), seed=0, modality="sketch").image


def draw(net, image, clip):
    with torch.inference_mode():
        drawing = net(prepare(torch.from_numpy(square(image, 256))[None], clip))
    return stretched(to_gray(drawing)[0].numpy(), image.shape[1], image.shape[0])


def test_names_and_shapes_are_the_checkpoints(published_size, parity):
    variant, net = published_size
    folder = Path(parity("sketch_net").fid.name).parent
    recorded = json.loads((folder / f"sketch_{variant}_keys.json").read_text())["tensors"]
    assert [[k, list(v.shape), "float32"] for k, v in net.state_dict().items()] == recorded


def test_generator_equals_the_recorded_original(published_size, parity):
    variant, net = published_size
    recorded = parity("sketch_net")
    with torch.inference_mode():
        before_tanh = net.model.model[:-1](torch.from_numpy(recorded["input"]))
    assert np.abs(before_tanh.numpy() - recorded[f"pretanh_{variant}"]).max() < 1e-3
    assert np.abs(before_tanh.tanh().numpy() - recorded[f"output_{variant}"]).max() < 5e-4


@pytest.mark.parametrize("clip", [10, 0])
def test_every_step_equals_the_recorded_script(published_size, parity, clip):
    variant, net = published_size
    recorded = parity("sketch_script_load256")
    assert (
        np.abs(
            prepare(torch.from_numpy(square(recorded["image"], 256))[None], clip).numpy()
            - recorded[f"netinput_clip{clip}"]
        ).max()
        < 1e-5
    )
    with torch.inference_mode():
        drawing = net(torch.from_numpy(recorded[f"netinput_clip{clip}"])).numpy()
    assert np.abs(drawing - recorded[f"netoutput_{variant}_clip{clip}"]).max() < 5e-4
    off = np.abs(draw(net, recorded["image"], clip)[..., 0].astype(int) - recorded[f"result_{variant}_clip{clip}"])
    assert (off <= 1).mean() >= 0.99


def test_contrast_is_equalised_as_before_kornia_changed_it(parity):
    recorded = parity("sketch_script_load256")
    made = prepare(torch.from_numpy(square(recorded["image"], 256))[None], 10).numpy()
    assert np.abs(made - recorded["netinput_clip10_if_kornia_0_9_0"]).max() > 0.03


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_narrow_generator_draws_what_it_drew_when_parity_held(variant):
    recorded = np.load(RECORDED)
    prepared = prepare(torch.from_numpy(square(recorded["image"], 256))[None], 10.0)
    assert np.abs(prepared[..., ::8, ::8].numpy() - recorded["prepared"]).max() < 1e-5
    drawn = draw(formula(variant, width=4), recorded["image"], 10.0)[..., 0]
    assert (np.abs(drawn.astype(int) - recorded[variant]) <= 1).mean() >= 0.99


def test_a_corner_is_equalised_to_the_cumulated_histogram_of_its_tile():
    level = torch.arange(128.0).repeat(128, 1)  # the first tile holds levels 0 to 15, a sixteenth of its pixels each
    made = equalise(((level + 0.5) / 255)[None, None], 1000.0)[0, 0, :8, :8]
    assert torch.equal(made, (torch.floor(255 * (level + 1) / 16) / 255)[:8, :8])


def test_a_low_clip_leaves_the_contrast_and_a_high_one_stretches_it():
    faint = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45
    spreads = [float(equalise(faint, clip).std()) for clip in (1.0, 4.0, 40.0)]
    assert spreads[0] < spreads[1] < spreads[2]
    assert spreads[0] < 0.06 and spreads[2] > 0.25


def test_each_picture_and_channel_is_equalised_alone():
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) ** 2
    together = equalise(pictures, 4.0)
    assert torch.equal(together[1:, 2:], equalise(pictures[1:, 2:], 4.0))


def test_three_channels_are_equal_and_the_size_is_kept(engine, photo):
    sheet = sketch(engine, photo[:150])
    assert sheet.shape == (150, 256, 3)
    assert (sheet == sheet[..., :1]).all()


@pytest.mark.parametrize("change", [{"variant": "default"}, {"clahe_clip": 0.0}, {"load_size": 512}])
def test_each_setting_changes_the_drawing(engine, photo, change):
    assert (sketch(engine, photo) != sketch(engine, photo, **change)).any()


def test_half_precision_draws_nearly_the_same(engine, photo):
    off = np.abs(sketch(engine, photo).astype(int) - sketch(engine, photo, precision="bfloat16"))
    assert off.max() > 0 and np.median(off) <= 2


def test_published_weights_are_found_with_their_prefix_and_checked(engine, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(anime2sketch, "Generator", partial(Generator, width=4))
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    net = formula("default", width=4)
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, tmp_path / "anime2sketch-default.pth")
    made = sketch(engine, photo, weights="published", variant="default")
    assert (made == draw(net, photo, 10.0)).all()

    torch.save(net.state_dict(), tmp_path / "anime2sketch-improved.bin")
    with pytest.raises(WeightsError, match=r"anime2sketch-improved\.bin does not fit"):
        sketch(engine, photo, weights="published")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"load_size": 1000}, {"load_size": 0}, {"variant": "best"}, {"weights": "a.npz"}),
        *({"clahe_clip": math.nan}, {"clahe_clip": math.inf}),
    ],
)
def test_settings_that_cannot_work_are_refused(engine, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        engine("sketch", engine="anime2sketch", **wrong)


def test_licence_names_the_published_weights():
    made = MODALITIES.create("sketch", MODALITIES.settings("sketch", "anime2sketch"))
    assert made.terms().name == "Apache-2.0 AND MIT" and made.terms().commercial
