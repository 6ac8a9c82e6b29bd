from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import weight

from minima_core.errors import ConfigError, WeightsError
from minima_core.io.weights import save_weights
from minima_core.licences import LLVIP_M3FD, OPENRAIL_M
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.infrared import _canvas, _convert, _networks, stylebooth
from minima_core.synthesis.infrared._latent_editor import Guidance, guide, sample, signal_levels, trailing

pytestmark = pytest.mark.xdist_group("networks")  # importing diffusers takes ten seconds: once is enough

HERE = Path(__file__).resolve()
KEYS = HERE.parents[4] / "shared" / "data" / "parity"
RECORDED = HERE.parent / "recorded" / "stylebooth.npz"
TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"  # of the tiny UNet: (8, 8)


def create(**settings):
    shipped = MODALITIES.settings("infrared", "stylebooth")
    return MODALITIES.create("infrared", {**shipped, "weights": "random", **settings})


def infrared(image, **settings):
    subject = create(**settings)
    subject.setup()
    return subject.synthesise(Source("s/0", image), seed=0, modality="infrared").image


@pytest.fixture
def small(photo):
    return photo[::2, ::2]


def test_the_plan_is_the_originals(parity):
    rows = parity("infrared_geometry")["plan_W_H_option_native_contentW_contentH_netW_netH"]
    for width, height, option, native, *sizes in rows.tolist():
        canvas = _canvas.plan(width, height, native=bool(option), max_side=2048)
        assert canvas.content == ((width, height) if native else tuple(sizes[:2]))
        assert canvas.size == tuple(sizes[2:])


def test_there_and_back_without_an_edit_is_the_originals(parity):
    recorded = parity("infrared_geometry")
    for k in range(4):
        image, result = recorded[f"identity{k}_image_rgb"], recorded[f"identity{k}_result"]
        height, width = image.shape[:2]
        canvas = _canvas.plan(width, height, native=True, max_side=2048)
        back = _canvas.lift((_canvas.lay(image, canvas) + 1) / 2, canvas, width, height)
        assert np.abs(back.numpy() - result).max() < 1e-4


def test_a_picture_beyond_the_bound_is_brought_down_to_it_and_none_other():
    assert _canvas.plan(4000, 3000, native=True, max_side=2048) == _canvas.Canvas((2048, 1536), (2048, 1536))
    assert _canvas.plan(9, 5000, native=True, max_side=2048) == _canvas.Canvas((4, 2048), (8, 2048))
    assert _canvas.plan(2048, 9, native=True, max_side=2048) == _canvas.Canvas((2048, 9), (2048, 16))
    assert _canvas.plan(1, 9000, native=True, max_side=2048).content == (1, 2048)


def test_the_canvas_is_black_beside_the_picture():
    laid = _canvas.lay(np.full((4, 901, 3), 255, np.uint8), _canvas.Canvas((901, 4), (904, 8)))
    assert laid.shape == (3, 8, 904)
    assert (laid[:, :4, :901] == 1).all() and (laid[:, 4:] == -1).all() and (laid[:, :, 901:] == -1).all()


def test_guidance_is_the_originals(parity):
    recorded = parity("infrared_sampler")
    y, m, u = (torch.from_numpy(recorded[f"guide_{which}"]) for which in "ymu")
    for k, (text, image, rescale) in enumerate(recorded["guide_cases_text_image_phi"].tolist()):
        expected = recorded[f"guide_result_{k}"]
        np.testing.assert_allclose(guide(y, m, u, Guidance(text, image, rescale)), expected, rtol=1e-5, atol=1e-5)


def test_guidance_with_scales_of_one_is_the_full_prediction():
    y, m, u = torch.randn(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(guide(y, m, u, Guidance(1, 1, 0.7)), y, atol=1e-5)


def test_the_schedule_is_the_originals(parity):
    recorded = parity("infrared_sampler")
    assert trailing(50) == recorded["timesteps"].tolist()
    np.testing.assert_allclose(np.sqrt(signal_levels()), recorded["alphas_1000"], atol=1e-6)


def test_the_steps_trail():
    assert trailing(50) == list(range(999, -1, -20))
    assert trailing(1) == [999] and len(set(trailing(7))) == 7


def test_the_sampler_is_the_originals(parity):
    recorded = parity("infrared_sampler")
    noise, y, m, u = (torch.from_numpy(recorded[f"sampler_{which}"]) for which in ("noise", "c_y", "c_m", "c_u"))
    seen = []

    def predict(x, t):
        seen.append(x)
        return guide(*(0.6 * x + 0.8 * torch.sin(x + t / 1000 * c) for c in (y, m, u)), Guidance(7.5, 1.5, 0.5))

    result = sample(predict, noise, steps=50)
    assert np.abs(torch.stack(seen).numpy() - recorded["sampler_x_before_step"]).max() < 1e-3
    assert np.abs(result.numpy() - recorded["sampler_result"]).max() < 1e-3


def test_the_sampler_finds_the_picture_of_a_perfect_prediction():
    clean, levels = torch.full((1, 4, 2, 2), 0.3), signal_levels()

    def predict(x, t):
        return (x - levels[t] ** 0.5 * clean) / (1 - levels[t]) ** 0.5

    noise = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for steps in (1, 7, 50):
        assert torch.allclose(sample(predict, noise, steps=steps), clean, atol=1e-4)


def published_checkpoint():
    """Return the full checkpoint by formula; 4.3 GB."""
    made = {}
    for part in ("unet", "vae", "text"):
        listed = json.loads((KEYS / f"stylebooth_{part}_keys.json").read_text())
        for name, shape, _ in listed["tensors"]:
            made[listed["prefix_in_full_checkpoint"] + name] = weight(name, shape)
    return made


def tokenizer_files(folder):
    """Write a tokenizer that knows single letters."""
    letters = [*string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocabulary = [*letters, "<|startoftext|>", "<|endoftext|>"]
    ends = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.slow
def test_the_published_networks_are_the_originals(parity, tmp_path, monkeypatch):
    unet, vae = parity("stylebooth_unet"), parity("stylebooth_vae")
    monkeypatch.setattr("minima_core.weights.load", lambda name: published_checkpoint())
    monkeypatch.setattr("minima_core.weights.fetch_repository", lambda name: tokenizer_files(tmp_path / name))
    networks = _networks.published_networks()
    assert networks.tokens.shape == (2, 77)
    assert networks.tokens[:, 0].tolist() == [52, 52] and networks.tokens[1, 1:].unique().tolist() == [53]
    assert len(networks.names) == 686
    editor = networks.editor(torch.device("cpu"), torch.float32)
    assert editor.stride == 8 and editor.prompt.shape == (1, 77, 768)
    with torch.no_grad():
        arrays = [torch.from_numpy(unet[name]) for name in ("latent", "timesteps", "image_latent", "context")]
        assert np.abs(editor.predict(*arrays).numpy() - unet["output"]).max() < 2e-4
        mode = editor.encode(torch.from_numpy(vae["image"])).numpy()
        assert np.abs(mode - vae["moments"][:, :4]).max() < 2e-4
        assert np.abs(editor.decode(torch.from_numpy(vae["latent"])).numpy() - vae["decoded"]).max() < 2e-4


def test_a_checkpoint_of_a_training_holds_its_weights_a_level_deeper():
    weights = {"model.x": torch.zeros(1)}
    assert _convert.bare(weights) is weights
    assert _convert.bare({"state_dict": weights, "epoch": 3}) is weights


@pytest.mark.parametrize("missing", ["vocab.json", "merges.txt"])
def test_a_folder_of_clip_without_its_tokenizer_is_refused(missing, tmp_path):
    folder = tokenizer_files(tmp_path / "clip")
    assert _networks._tokens(folder)[0, 0] == 52
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=r"clip lacks the tokenizer"):  # else every word would be the unknown one
        _networks._tokens(folder)


def test_a_folder_of_clip_without_its_network_is_refused_in_one_line(tmp_path):
    with pytest.raises(WeightsError, match="does not hold clip-vit-large-patch14") as caught:
        _networks._text_tower(tokenizer_files(tmp_path / "clip"))
    assert "\n" not in str(caught.value)


def test_ldm_names_become_those_of_diffusers():
    pairs = {
        "time_embed.2.bias": "time_embedding.linear_2.bias",
        "input_blocks.0.0.weight": "conv_in.weight",
        "input_blocks.1.0.in_layers.2.weight": "down_blocks.0.resnets.0.conv1.weight",
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
        ),
        "input_blocks.2.1.proj_in.weight": "down_blocks.0.attentions.1.proj_in.weight",
        "middle_block.0.in_layers.0.weight": "mid_block.resnets.0.norm1.weight",
        "middle_block.1.transformer_blocks.0.ff.net.2.weight": (
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"
        ),
        "output_blocks.0.0.skip_connection.weight": "up_blocks.0.resnets.0.conv_shortcut.weight",
    }
    given = [*(_convert.UNET + name for name in pairs), "first_stage_model.conv1.weight", "betas"]
    assert _convert.unet_names(given, _networks.PUBLISHED.unet) == pairs


def ldm_vae(vae):
    """Return a tiny autoencoder's two latent convolutions under the names of a checkpoint."""
    renamed = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
    names = ((name, *name.split(".")) for name in vae.state_dict() if name.split(".")[0] in renamed)
    return {f"{_convert.VAE}{renamed[module]}.{rest}": vae.state_dict()[name] for name, module, rest in names}


@pytest.mark.parametrize("extra", [{}, {_convert.UNET + "input_blocks.99.7.weight": torch.zeros(1)}])
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(extra):
    unet = {_convert.UNET + "input_blocks.0.0.weight": torch.zeros(4, 8, 3, 3), **extra}
    with pytest.raises(WeightsError, match="does not fit UNet2DConditionModel") as caught:
        _convert.unet_of(unet, _networks.TINY.unet)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"does not fit AutoencoderKL: Missing key.*encoder"):
        _convert.vae_of(ldm_vae(_networks.random_networks().vae), _networks.TINY.vae)


def test_the_text_tower_is_found_under_both_spellings():
    tower = _networks.random_networks().text
    plain = {name.removeprefix("text_model."): value for name, value in tower.state_dict().items()}
    for prefix in ("cond_stage_model.transformer.text_model.", "cond_stage_model.model.transformer.text_model."):
        given = {prefix + name: value for name, value in plain.items()}
        given[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
        again = _convert.text_of(given, _networks.TINY.text)
        tokens = torch.arange(4)[None]
        assert torch.equal(again(input_ids=tokens).last_hidden_state, tower(input_ids=tokens).last_hidden_state)


def adapter(folder, factors, *, kind="safetensors", **config):
    """Write an adapter of the given tensors."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **config}))
    if kind == "safetensors":
        save_weights(folder / "adapter_model.safetensors", factors, {"licence": "CC0-1.0"})
    else:
        torch.save(factors, folder / "adapter_model.bin")
    return folder


def factors_of(down, up):
    draw = torch.Generator().manual_seed(0)
    return {down: torch.randn(2, 8, generator=draw), up: torch.randn(8, 2, generator=draw)}


LAYOUTS = {
    "peft": ("", f"base_model.model.{TO_Q}.lora_{{}}.weight", "safetensors"),
    "own names": ("", f"{TO_Q}.lora_{{}}.weight", "bin"),
    "swift": ("0_SwiftLoRA", "base_model.model.middle_block.1.attn1.to_q.lora_{}.0_SwiftLoRA.weight", "bin"),
    "scepter": ("0_SwiftLoRA", "model.middle_block.1.attn1.to_q.lora_{}.weight", "safetensors"),
    "full": ("a", "model.diffusion_model.middle_block.1.attn1.to_q.lora_{}.default.weight", "bin"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_adapter_adds_its_product_in_every_layout(tmp_path, layout):
    sub, name, kind = LAYOUTS[layout]
    factors = factors_of(name.format("A"), name.format("B"))
    adapter(tmp_path / "made" / sub, factors, kind=kind)
    networks = _networks.random_networks()
    before = networks.unet.get_submodule(TO_Q).weight.detach().clone()
    names = {"middle_block.1.attn1.to_q.weight": f"{TO_Q}.weight"}
    _convert.merge(_convert.read_adapter(tmp_path / "made"), networks.unet, networks.text, names)
    down, up = factors.values()
    assert torch.allclose(networks.unet.get_submodule(TO_Q).weight, before + 4 / 2 * up @ down, atol=1e-6)


def test_a_merged_adapter_is_what_peft_computes(tmp_path):
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    wrapped, merged = _networks.random_networks().unet.eval(), _networks.random_networks()
    config = LoraConfig(r=3, lora_alpha=6, use_rslora=True, target_modules=["to_v", "ff.net.2", "proj_in", "conv1"])
    inject_adapter_in_model(config, wrapped)
    draw = torch.Generator().manual_seed(0)
    for name, value in wrapped.named_parameters():
        if "lora_" in name:
            value.data = 0.3 * torch.randn(value.shape, generator=draw)
    factors = {f"base_model.model.{name}": value for name, value in get_peft_model_state_dict(wrapped).items()}
    folder = adapter(tmp_path / "made", factors, lora_alpha=6, use_rslora=True)
    _convert.merge(_convert.read_adapter(folder), merged.unet, merged.text, {})
    inputs = torch.randn(1, 8, 8, 8, generator=draw), 500, torch.randn(1, 77, 8, generator=draw)
    with torch.no_grad():
        base, expected, got = (
            u.eval()(*inputs).sample for u in (_networks.random_networks().unet, wrapped, merged.unet)
        )
    assert torch.allclose(got, expected, atol=1e-5) and not torch.allclose(base, expected, atol=1e-2)


def test_an_adapter_may_change_the_text_tower(tmp_path):
    name = "cond_stage_model.model.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight"
    factors = factors_of(name.format("A"), name.format("B"))
    networks = _networks.random_networks()
    parameters = {key.removeprefix("text_model."): p for key, p in networks.text.named_parameters()}
    weight = parameters["encoder.layers.0.self_attn.q_proj.weight"]
    before = weight.detach().clone()
    updates = _convert.read_adapter(adapter(tmp_path / "made", factors))
    _convert.merge(updates, networks.unet, networks.text, {})
    down, up = factors.values()
    assert torch.allclose(weight, before + 2 * up @ down, atol=1e-6)


A, B = f"{TO_Q}.lora_A.weight", f"{TO_Q}.lora_B.weight"
REFUSED = {
    "gone": (factors_of("nowhere.to_q.lora_A.weight", "nowhere.to_q.lora_B.weight"), {}, "changes nowhere.to_q"),
    "shape": ({A: torch.zeros(2, 9), B: torch.zeros(8, 2)}, {}, "does not fit"),
    "half": ({A: torch.zeros(2, 8)}, {}, "only one factor of"),
    "other": ({f"{TO_Q}.bias": torch.zeros(8)}, {}, "no factor of a LoRA"),
    "dora": (factors_of(A, B), {"use_dora": True}, "use_dora"),
    "alpha": (factors_of(A, B), {"lora_alpha": None}, "describes no LoRA"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_is_not_understood_is_refused_in_one_line(tmp_path, case):
    factors, config, message = REFUSED[case]
    subject = create(adapter=str(adapter(tmp_path / "made", factors, **config)))
    with pytest.raises(WeightsError, match=message) as caught:
        subject.setup()
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_adapter_is_refused_in_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"no adapter in .*/none"):
        create(adapter=str(tmp_path / "none")).setup()
    with pytest.raises(WeightsError, match=r"no adapter folder .*/none; .*tasks\.pretrain_infrared"):
        create(adapter=str(tmp_path / "none")).terms()  # asked for first; it is no question of licences
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 1}')
    with pytest.raises(WeightsError, match="no weights beside"):
        create(adapter=str(tmp_path)).setup()
    (tmp_path / "adapter_model.bin").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="is no checkpoint"):
        create(adapter=str(tmp_path)).setup()


def test_an_adapter_of_ones_own_changes_the_picture_and_the_terms(small, tmp_path):
    folder = adapter(tmp_path / "mine", {key: 3 * value for key, value in factors_of(A, B).items()})
    assert (infrared(small, adapter=str(folder), steps=2) != infrared(small, adapter="none", steps=2)).any()
    subject = create(adapter=str(folder))
    assert subject.terms().name == "Apache-2.0 AND CC0-1.0" and subject.terms().commercial
    assert list(subject.sources()) == ["adapter/adapter_model.safetensors"]
    unsaid = create(adapter=str(adapter(tmp_path / "unsaid", factors_of(A, B), kind="bin")))
    assert not unsaid.terms().commercial


def test_the_published_adapter_goes_with_the_published_base_alone(tmp_path, monkeypatch):
    folder = adapter(tmp_path / "made" / "0_SwiftLoRA", factors_of(A, B)).parent
    asked = []
    monkeypatch.setattr("minima_core.weights.fetch_repository", lambda name: asked.append(name) or folder)
    monkeypatch.setattr(stylebooth, "published_networks", _networks.random_networks)
    weights = {}
    for base, which in (("published", "published"), ("published", "none"), ("random", "published")):
        subject = create(weights=base, adapter=which)
        subject.setup()
        weights[base, which] = subject.editor.unet.get_submodule(TO_Q).weight
    assert asked == ["minima-infrared-lora"]
    assert not torch.equal(weights["published", "published"], weights["published", "none"])
    assert torch.equal(weights["random", "published"], weights["published", "none"])


def test_the_published_adapter_decides_the_terms():
    with_it, without = create(weights="published"), create(weights="published", adapter="none")
    assert LLVIP_M3FD.name in with_it.terms().name and not with_it.terms().commercial
    assert OPENRAIL_M.name in without.terms().name and without.terms().commercial
    assert set(with_it.files()) - set(without.files()) == {"minima-infrared-lora"}


def test_trained_weights_are_named_as_an_adapter():
    with pytest.raises(ConfigError, match="what was trained here is an adapter"):
        create(weights="some.safetensors")


@pytest.mark.parametrize("setting", [{"steps": 3}, {"text_scale": 1.0}, {"image_scale": 9.0}, {"rescale": 0.0}])
def test_every_setting_of_the_sampler_counts(small, setting):
    base = {"steps": 2}
    assert (infrared(small, **base) != infrared(small, **{**base, **setting})).any()


def test_the_bound_on_the_memory_holds():
    subject = create(steps=1, max_side=1024)
    subject.setup()
    seen = []
    edit = type(subject.editor).edit

    class Watched(type(subject.editor)):
        def edit(self, pictures, *args, **kwargs):
            seen.append(tuple(pictures[0].shape))
            return edit(self, pictures, *args, **kwargs)

    subject.editor = Watched(**vars(subject.editor))
    wide = np.random.default_rng(0).integers(0, 256, (40, 3000, 3), dtype=np.uint8)
    made = subject.synthesise(Source("s/0", wide), seed=0, modality="infrared")
    assert made.image.shape == wide.shape and seen == [(3, 32, 1024)]
    assert subject.memory(8000, 8000) == subject.memory(1024, 1024)


def test_half_precision_works(small):
    whole, half = (infrared(small, precision=p, steps=2).astype(int) for p in ("float32", "bfloat16"))
    assert 0 < np.abs(whole - half).mean() < 8


def test_random_networks_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    _networks.random_networks()
    assert torch.equal(torch.rand(1), expected)


def test_the_output_is_as_recorded(small):
    recorded = np.load(RECORDED)
    assert np.abs(infrared(small, steps=5).astype(int) - recorded["infrared"]).max() <= 2
