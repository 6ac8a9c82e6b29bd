from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minima_core.errors import ConfigError, WeightsError
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.normal.dataset import encode, normals_of
from minima_core.synthesis.normal.marigold import outward, plan, prepare

pytestmark = pytest.mark.xdist_group("networks")  # importing diffusers takes ten seconds: once is enough

RECORDED = Path(__file__).with_name("recorded") / "marigold.npz"


@pytest.fixture
def network(engine):
    small = {"engine": "marigold", "weights": "random", "processing_resolution": 128}
    return lambda **settings: engine("normal", **{**small, **settings})


def picture(made, source, seed=0):
    return made.synthesise(source, seed=seed, modality="normal").image


def towards_the_viewer(depth, K):
    """(H, W, 3) normals as Marigold gives them, by its definition: cross products of surface points with x to the
    right, y up and z towards the viewer, pointing to where the camera is."""
    ys, xs = np.mgrid[: depth.shape[0], : depth.shape[1]]
    points = np.stack([(xs - K[0, 2]) / K[0, 0] * depth, -(ys - K[1, 2]) / K[1, 1] * depth, -depth], -1)
    across, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(across, down)
    normals *= -np.sign((normals * points).sum(-1, keepdims=True))
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


@pytest.mark.parametrize("plane", [(0, 0, 1), (0, 1, 0.4), (0, -1, 0.4), (0.9, 0, 0.4), (-0.9, 0.2, 0.5)])
def test_their_frame_becomes_ours(plane):
    K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    ys, xs = np.mgrid[:48, :64]
    rays = np.stack([(xs - 31.5) / 60, (ys - 23.5) / 60, np.ones(xs.shape)], -1)
    depth = 2 / np.maximum(rays @ np.array(plane), 0.02)
    seen = rays @ np.array(plane) > 0.1
    theirs = torch.from_numpy(towards_the_viewer(depth, K).transpose(2, 0, 1))[None]
    ours = outward(theirs, 48, 64)[0].numpy()
    inner = seen & np.roll(seen, (1, 1), (0, 1)) & np.roll(seen, (-1, -1), (0, 1))
    assert inner.sum() > 300
    assert np.abs(ours - normals_of(depth, K, (2,)))[inner].max() < 0.01


def test_known_normals():
    wall, floor, right = (0.0, 0, 1), (0.0, 1, 0), (-1.0, 0, 0)  # Marigold's: towards the viewer, up, to the left
    theirs = torch.tensor([wall, floor, right]).T.view(1, 3, 1, 3)
    assert outward(theirs, 1, 3)[0, 0].tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]  # forward, down, to the right
    assert encode(outward(theirs, 1, 3)[0].numpy())[0, 0].tolist() == [127, 127, 255]


def test_resized_normals_have_unit_length():
    theirs = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    ours = outward(theirs, 31, 17)
    assert ours.shape == (2, 31, 17, 3)
    assert (ours.norm(dim=-1) - 1).abs().max() < 1e-5


def test_plans():
    assert plan(640, 480, 768) == (768, 576)
    assert plan(33, 65, 768) == (389, 768)
    assert plan(1, 1000, 768) == (1, 768)


def test_what_the_network_is_given_stays_in_range():
    images = torch.randint(0, 2, (2, 50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8) * 255
    made = prepare(images, 128)
    assert made.shape == (2, 3, 91, 128) and made.min() >= 0 and made.max() <= 1


@pytest.mark.parametrize("size", [(192, 256), (75, 50)])
def test_equals_the_pipelines_own_way(network, photo, size):
    made = network(steps=2)
    source = Source("s/0", np.ascontiguousarray(photo[: size[0], : size[1]]))
    rendition = made.synthesise(source, seed=0, modality="normal")
    theirs = made.pipe(
        torch.from_numpy(source.image).permute(2, 0, 1)[None] / 255,
        num_inference_steps=2,
        processing_resolution=128,
        generator=torch.Generator().manual_seed(rendition.drawn["noise"]),
    ).prediction[0]
    wanted = encode(theirs * np.float32([-1, 1, 1])).astype(int)
    assert np.abs(wanted - rendition.image).max() <= 1


def test_steps_and_resolution_are_used(network, photo):
    source = Source("s/0", photo)
    first = picture(network(steps=1), source)
    assert (first != picture(network(steps=2), source)).any()
    assert (first != picture(network(steps=1, processing_resolution=64), source)).any()


def test_noise_does_not_depend_on_the_other_images_of_a_batch(network, photo):
    made = network(steps=1)
    sources = [Source(name, photo) for name in ("s/0", "s/1")]
    both = made.synthesise_batch(sources, seed=0, modality="normal")
    turned = made.synthesise_batch(sources[::-1], seed=0, modality="normal")[::-1]
    assert [b.drawn for b in both] == [t.drawn for t in turned] and both[0].drawn != both[1].drawn
    assert all(np.abs(b.image.astype(int) - t.image).max() <= 1 for b, t in zip(both, turned, strict=True))
    assert (both[0].image != both[1].image).mean() > 0.1


def test_intrinsics_are_not_asked_for(network, photo):
    source = Source("s/0", photo)
    made = network(steps=1)
    assert (picture(made, source) == picture(made, replace(source, K=np.eye(3)))).all()


def test_equals_what_was_recorded(network, photo):
    made = picture(network(), Source("s/0", photo))
    difference = np.abs(made[::8, ::8].astype(int) - np.load(RECORDED)["image"])
    assert (difference <= 1).mean() > 0.99 and difference.max() <= 4


def test_half_precision_is_close(network, photo):
    source = Source("s/0", photo)
    full, half = (picture(network(precision=precision), source).astype(int) for precision in ("float32", "bfloat16"))
    assert (full != half).any() and np.abs(full - half).mean() < 4


def save_with_text(pipe, folder):
    """Write a pipeline as its authors do, with a text encoder and a tokenizer that knows single letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    spelling = folder.parent / "spelling"
    spelling.mkdir()
    (spelling / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (spelling / "merges.txt").write_text("#version: 0.2\n")
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPTextConfig(vocab_size=len(tokens), bos_token_id=52, eos_token_id=53, **small)
    text = CLIPTextModel(config)
    tokenizer = CLIPTokenizer.from_pretrained(spelling, model_max_length=77)
    type(pipe)(pipe.unet, pipe.vae, pipe.scheduler, text, tokenizer, prediction_type="normals").save_pretrained(folder)


def test_published_weights_are_read_from_their_repository(network, photo, tmp_path, monkeypatch):
    theirs = network(steps=1)
    save_with_text(theirs.pipe, tmp_path / "marigold-normals")
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    ours = network(steps=1, weights="published")
    source = Source("s/0", photo)
    assert picture(ours, source).shape == photo.shape
    ours.pipe.empty_text_embedding = theirs.pipe.empty_text_embedding
    assert np.abs(picture(ours, source).astype(int) - picture(theirs, source)).max() <= 1
    files = [Path(name).relative_to("marigold-normals") for name in ours.sources()]
    assert [file.parts[0] for file in files if file.suffix == ".safetensors"] == ["text_encoder", "unet", "vae"]
    assert Path("tokenizer/tokenizer.json") in files and Path("scheduler/scheduler_config.json") in files


def test_a_folder_without_the_model_is_refused_in_one_line(network, tmp_path, monkeypatch):
    (tmp_path / "marigold-normals").mkdir()
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="does not hold marigold-normals") as caught:
        network(weights="published")
    assert "\n" not in str(caught.value)


def test_its_terms_allow_commercial_use():
    made = MODALITIES.create("normal", MODALITIES.settings("normal", "marigold"))
    assert made.weights == "published" and made.terms().commercial
    assert "OpenRAIL" in made.terms().name


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"processing_resolution": 7}, {"weights": "mine.safetensors"}])
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MODALITIES.create("normal", {**MODALITIES.settings("normal", "marigold"), **wrong})
