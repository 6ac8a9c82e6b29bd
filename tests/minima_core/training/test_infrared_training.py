"""The adapter's training on made-up pictures: data, samples, loss, resuming, what comes out."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from infrared_pairs import llvip, m3fd, settings, write
from pydantic import ValidationError

from minima_core.errors import DataError, TrainingError
from minima_core.io.weights import read_metadata, state_digest
from minima_core.random import rng
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.infrared import _networks
from minima_core.tracking import NullTracker
from minima_core.training import infrared
from minima_core.training.infrared import (
    AlignedPair,
    InfraredTraining,
    adapter_licence,
    adapter_state,
    denoising_loss,
    draw_sample,
    find_pairs,
    fit_adapter,
    make_editor,
    save_adapter,
)

pytestmark = pytest.mark.xdist_group("networks")  # importing diffusers takes ten seconds: once is enough

ROOT = Path(__file__).parents[3]


def made(**changes):
    params = InfraredTraining.model_validate(settings(**changes))
    return params, make_editor(params, "cpu", seed=0)


def fit(pairs, scratch, **changes):
    params, editor = made(**changes)
    fitted = fit_adapter(editor, pairs, params, seed=0, tracker=NullTracker(), scratch=scratch)
    return editor, fitted


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return find_pairs(llvip(tmp_path_factory.mktemp("llvip")))


def names(found):
    return [pair.name for pair in found]


def test_both_layouts_are_found_side_by_side(tmp_path):
    llvip(tmp_path / "LLVIP", train=3, test=2)
    m3fd(tmp_path / "M3FD" / "M3FD_Detection", count=40)
    train, held_out = find_pairs(tmp_path)
    assert names(train)[:2] == ["LLVIP/visible/train/00000", "LLVIP/visible/train/00001"]
    assert len(train) == 3 + 38
    assert names(held_out)[:2] == ["LLVIP/visible/test/00000", "LLVIP/visible/test/00001"]
    assert names(held_out)[2:] == ["M3FD/M3FD_Detection/Vis/00038", "M3FD/M3FD_Detection/Vis/00039"]
    assert all(pair.infrared.parts[-2] in {"train", "test", "Ir"} for pair in train + held_out)
    assert not set(names(train)) & set(names(held_out))


def test_a_layout_in_the_folder_itself_is_found(tmp_path):
    train, held_out = find_pairs(m3fd(tmp_path, count=3))
    assert names(train) == ["Vis/00000", "Vis/00001"] and names(held_out) == ["Vis/00002"]


def test_a_folder_without_pairs_is_refused_in_one_line(tmp_path):
    (tmp_path / "visible").mkdir()
    with pytest.raises(DataError, match=r"no aligned pictures.*LLVIP.*M3FD"):
        find_pairs(tmp_path)


def test_a_picture_without_partner_is_named(tmp_path):
    m3fd(tmp_path)
    (tmp_path / "Ir" / "00003.png").unlink()
    with pytest.raises(DataError, match=r"Vis/00003\.png"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("side", ["Vis", "Ir"])
def test_two_pictures_of_one_name_are_refused(tmp_path, side):
    m3fd(tmp_path)
    shutil.copyfile(tmp_path / side / "00003.png", tmp_path / side / "00003.jpg")
    with pytest.raises(DataError, match=rf"{side}/00003\.jpg and .*{side}/00003\.png would have the same partner"):
        find_pairs(tmp_path)


def test_pictures_of_two_sizes_are_refused_before_anything_is_trained(tmp_path):
    m3fd(tmp_path, count=2)
    cv2.imwrite(str(tmp_path / "Ir" / "00000.png"), np.zeros((7, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"Vis/00000\.png and .*Ir/00000\.png differ in size"):
        find_pairs(tmp_path)


def test_partners_lie_in_the_same_sub_folder(tmp_path):
    """Sequences count their frames from zero each."""
    for sequence in ("day", "night"):
        write(tmp_path, {f"Vis/{sequence}:Ir/{sequence}": 2}, ".png")
    train, held_out = find_pairs(tmp_path)
    found = [(pair.visible.parts[-2:], pair.infrared.parts[-2:]) for pair in train + held_out]
    assert len(found) == 4 and all(visible == infrared for visible, infrared in found)


def test_m3fd_s_folders_may_be_in_small_letters(tmp_path):
    """As ``minima fetch m3fd`` expects them."""
    train, held_out = find_pairs(write(tmp_path, {"vis:ir": 3}, ".png"))
    assert names(train + held_out) == ["vis/00000", "vis/00001", "vis/00002"]


def test_both_pictures_are_cut_alike(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    pair = AlignedPair("a", tmp_path / "a.png", tmp_path / "a.png")
    samples = [draw_sample(pair, rng(k), side=64, stride=8, drop=0.1) for k in range(6)]
    assert all(torch.equal(sample.visible, sample.infrared) for sample in samples)
    assert len({float(sample.visible[0, 0, 0]) for sample in samples}) > 2  # elsewhere, or mirrored
    assert samples[0].visible.shape == (3, 64, 64) and samples[0].noise.shape == (4, 8, 8)


def test_conditions_are_left_out_in_the_stated_shares(pairs):
    seen = Counter()
    for k in range(400):
        sample = draw_sample(pairs[0][0], rng(k), side=64, stride=32, drop=0.2)
        seen[sample.image, sample.text] += 1
    assert len(seen) == 4
    assert all(0.15 < seen[which] / 400 < 0.25 for which in [(False, True), (True, False), (False, False)])


def test_the_loss_is_that_of_the_noise(pairs, monkeypatch):
    _, editor = made()
    sample = draw_sample(pairs[0][0], rng(0), side=64, stride=32, drop=0)
    monkeypatch.setattr(type(editor), "predict", lambda self, latent, step, image, text: sample.noise[None] + 2)
    assert float(denoising_loss(editor, [sample])) == pytest.approx(4)


@pytest.mark.parametrize(("image", "text"), [(False, True), (True, False)])
def test_what_is_left_out_is_not_seen(pairs, monkeypatch, image, text):
    _, editor = made()
    given = vars(draw_sample(pairs[0][0], rng(0), side=64, stride=32, drop=0)) | {"image": image, "text": text}
    seen = []

    def predict(self, latent, step, image, text):
        seen.append((image, text))
        return latent

    monkeypatch.setattr(type(editor), "predict", predict)
    denoising_loss(editor, [infrared.Sample(**given)])
    assert bool(seen[0][0].any()) == image
    assert torch.equal(seen[0][1], editor.prompt if text else editor.null)


def test_only_the_adapter_is_trained_and_it_begins_as_nothing(pairs, tmp_path):
    params, editor = made()
    untouched = {n: p.detach().clone() for n, p in editor.unet.named_parameters() if "lora_" not in n}
    assert all(not value.any() for name, value in adapter_state(editor).items() if "lora_B" in name)
    assert {p.dtype for p in editor.unet.parameters() if p.requires_grad} == {torch.float32}
    before = state_digest(adapter_state(editor))
    fit_adapter(editor, pairs, params, seed=0, tracker=NullTracker(), scratch=tmp_path)
    assert state_digest(adapter_state(editor)) != before
    after = dict(editor.unet.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in untouched.items())


def test_every_visit_of_a_picture_is_another_and_an_epoch_visits_all(pairs):
    params, editor = made()
    assert len(pairs[0]) == 8
    epochs = [
        [pair.name for step in range(4 * e, 4 * e + 4) for _, pair in infrared._visits(pairs[0], 2, seed=0, step=step)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(names(pairs[0])) and epochs[0] != epochs[1]
    first, again, other = (infrared._batch(editor, pairs[0][:1], params, seed=0, step=step)[0] for step in (0, 0, 1))
    assert torch.equal(first.noise, again.noise) and not torch.equal(first.noise, other.noise)


@pytest.fixture
def able(monkeypatch):
    """Networks that are small, but can learn: attention everywhere, and latents of 8 x 8 pixels."""
    tiny = _networks.TINY
    unet = {"block_out_channels": (8, 8), "down_block_types": ("CrossAttnDownBlock2D",) * 2}
    unet |= {"up_block_types": ("CrossAttnUpBlock2D",) * 2}
    vae = {"block_out_channels": (4,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4}
    vae |= {"up_block_types": ("UpDecoderBlock2D",) * 4}
    monkeypatch.setattr(_networks, "TINY", replace(tiny, unet={**tiny.unet, **unet}, vae={**tiny.vae, **vae}))


@pytest.mark.slow
def test_the_loss_falls(pairs, able, tmp_path):
    schedule = {"steps": 30, "validate_every": 10, "checkpoint_every": 30}
    _, fitted = fit(pairs, tmp_path, rank=8, alpha=16, batch=4, **schedule)
    losses = [value for _, value in fitted.curves["val/loss"]]
    assert [step for step, _ in fitted.curves["val/loss"]] == [0, 10, 20, 30]
    assert losses[-1] < 0.95 * losses[0]
    assert fitted.final["val/loss"] == losses[-1] and fitted.skipped == 0


def test_half_precision_trains_a_single_precision_adapter(pairs, tmp_path):
    editor, fitted = fit(pairs, tmp_path, precision="bfloat16", steps=2)
    assert fitted.steps == 2 and fitted.skipped == 0
    assert {value.dtype for value in adapter_state(editor).values()} == {torch.float32}
    assert next(editor.vae.parameters()).dtype == torch.bfloat16


def test_steps_that_are_not_finite_end_the_training(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(infrared, "denoising_loss", lambda editor, samples: torch.tensor(torch.nan))
    with pytest.raises(TrainingError, match="2 steps had a loss or gradient that is not finite, max_skipped is 1"):
        fit(pairs, tmp_path, max_skipped=1)


def test_a_run_that_stops_is_continued_to_the_same_bits(pairs, tmp_path, monkeypatch):
    whole, fitted = fit(pairs, tmp_path / "a")
    step = infrared._step

    def stop(*args):
        step(*args)
        if args[4].step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(infrared, "_step", stop)
        fit(pairs, tmp_path / "b")
    resumed, again = fit(pairs, tmp_path / "b")
    assert state_digest(adapter_state(whole)) == state_digest(adapter_state(resumed))
    assert fitted == again and [step for step, _ in again.curves["val/loss"]] == [0, 3, 6]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    root, out = llvip(tmp_path / "data"), tmp_path / "killed"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "adapt_once", str(root), str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 180
    while not list(out.glob("scratch/step-0000000[2-8]")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "adapter").exists()
    # in a process of its own, as whoever continues would: what other tests have run here can round the last bit
    subprocess.run([*command, str(tmp_path / "undisturbed")], env=environment, stderr=subprocess.DEVNULL, check=True)
    files = [where / "adapter" / "adapter_model.safetensors" for where in (out, tmp_path / "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_engine_draws_with_what_was_trained(pairs, tmp_path, photo_of_discs):
    params, editor = made(steps=2, lr=0.1)
    fit_adapter(editor, pairs, params, seed=0, tracker=NullTracker(), scratch=tmp_path / "scratch")
    save_adapter(tmp_path / "adapter", editor, params, {})
    assert read_metadata(tmp_path / "adapter" / "adapter_model.safetensors") == {"licence": "CC0-1.0"}

    def draw(adapter):
        shipped = MODALITIES.settings("infrared", "stylebooth")
        engine = MODALITIES.create("infrared", {**shipped, "weights": "random", "steps": 2, "adapter": adapter})
        engine.setup()
        return engine, engine.synthesise(Source("s/0", photo_of_discs), seed=0, modality="infrared").image

    engine, image = draw(str(tmp_path / "adapter"))
    assert (image != draw("none")[1]).any()
    inputs = torch.zeros(1, 8, 4, 4), 500, editor.prompt
    with torch.no_grad():
        assert torch.allclose(engine.editor.unet(*inputs).sample, editor.unet(*inputs).sample, atol=1e-5)


@pytest.fixture
def photo_of_discs(pairs):
    return cv2.imread(str(pairs[1][0].visible))[..., ::-1].copy()


def test_the_folder_is_peft_s_own_layout(tmp_path):
    from peft import LoraConfig, PeftModel

    params, editor = made()
    save_adapter(tmp_path / "adapter", editor, params, {})
    config = LoraConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (config.r, config.lora_alpha, set(config.target_modules)) == (4, 8, set(infrared.PROJECTIONS))
    plain = _networks.random_networks().unet
    wrapped = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    state = {
        name.removeprefix("base_model.model.").replace(".default", ""): v for name, v in wrapped.named_parameters()
    }
    assert all(torch.equal(state[name], value) for name, value in adapter_state(editor).items())
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    params, editor = made()
    next(p for p in editor.unet.parameters() if p.requires_grad).data.fill_(torch.inf)
    with pytest.raises(DataError, match="not finite"):
        save_adapter(tmp_path / "adapter", editor, params, {})
    assert not (tmp_path / "adapter").exists()


def test_the_licence_is_that_of_base_and_pictures():
    random, published = (InfraredTraining.model_validate(settings(weights=w)) for w in ("random", "published"))
    assert adapter_licence(random).name == "CC0-1.0" and adapter_licence(random).commercial
    assert adapter_licence(published).name == "CreativeML-OpenRAIL-M AND MIT AND CC0-1.0"
    assert not adapter_licence(published.model_copy(update={"licence": "unknown"})).commercial


@pytest.mark.parametrize("wrong", [{"drop": 0.4}, {"side": 100}, {"weights": "x.safetensors"}, {"batch": 0}, {"x": 1}])
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        InfraredTraining.model_validate(settings(**wrong))
