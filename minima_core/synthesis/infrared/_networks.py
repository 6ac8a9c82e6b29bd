"""The networks of the latent editor: the published ones, or tiny random ones of the same family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.synthesis.infrared import _convert
from minima_core.synthesis.infrared._latent_editor import LatentEditor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

CHECKPOINT, CLIP, ADAPTER = "stylebooth-tb-5000-0.bin", "clip-vit-large-patch14", "minima-infrared-lora"
PROMPT = "Convert the image to an infrared image"
TOKENS = 77


@dataclass(frozen=True)
class Architecture:
    """What the three networks are built with: arguments of diffusers' and transformers' classes."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]


# Stable Diffusion 1.5 with the latent of the image beside the noise (spec/data-engine.md section 2.1)
PUBLISHED = Architecture(
    unet={"in_channels": 8, "out_channels": 4, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae={
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    },
    text={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    },
)
# the same family, small enough for one core in a test: a latent stands for 32 pixels, attention is in the middle only
TINY = Architecture(
    unet={
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": (4, 8),
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
    },
    vae={
        "block_out_channels": (2, 2, 4, 4, 4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 6,
        "up_block_types": ("UpDecoderBlock2D",) * 6,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
    },
    text={
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 16,
        "bos_token_id": 0,
        "eos_token_id": 15,
    },
)


@dataclass(frozen=True)
class Networks:
    """What a latent editor is made of, in single precision on the CPU.

    Attributes:
        unet: predicts the noise.
        vae: between pixels and latents.
        text: CLIP's text tower.
        tokens: (2, 77) of the instruction and of the empty text.
        names: LDM name -> diffusers name of the UNet's tensors; empty where there never were LDM names.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    tokens: torch.Tensor
    names: Mapping[str, str] = field(default_factory=dict)

    def editor(self, device: torch.device, dtype: torch.dtype) -> LatentEditor:
        """Return the editor with frozen weights on a device; the instruction is read here, in single precision."""
        with torch.no_grad():
            states = self.text(input_ids=self.tokens).last_hidden_state.to(device, dtype)
        for network in (self.unet, self.vae):
            torch.nn.Module.to(network, device, dtype)  # diffusers' own warns of each change of type
            network.eval().requires_grad_(False)
        return LatentEditor(self.unet, self.vae, *states.split(1))


def published_networks() -> Networks:
    """Return the published base, without an adapter.

    Raises:
        WeightsError: if it cannot be had or does not fit.
    """
    checkpoint, clip = _convert.bare(weights.load(CHECKPOINT)), weights.fetch_repository(CLIP)
    tokens = _tokens(clip)
    own = any(key.startswith(_convert.TEXT) for key in checkpoint)  # a checkpoint of the base may lack the text tower
    text = _convert.text_of(checkpoint, PUBLISHED.text) if own else _text_tower(clip)
    return Networks(
        _convert.unet_of(checkpoint, PUBLISHED.unet).float(),
        _convert.vae_of(checkpoint, PUBLISHED.vae).float(),
        text.float().eval(),
        tokens,
        _convert.unet_names(checkpoint, PUBLISHED.unet),
    )


def _tokens(clip: Path) -> torch.Tensor:
    """Return the (2, 77) tokens of the instruction and of the empty text, by the tokenizer in CLIP's folder."""
    from transformers import CLIPTokenizer

    files = {path.name for path in clip.glob("*")}
    if not ("tokenizer.json" in files or {"vocab.json", "merges.txt"} <= files):
        # transformers would take an empty vocabulary for it, and every word would be the unknown one
        raise WeightsError(f"{clip} lacks the tokenizer of {CLIP} (tokenizer.json, or vocab.json and merges.txt)")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(clip)
    except (OSError, ValueError) as error:
        raise WeightsError(f"the tokenizer in {clip} cannot be read: {str(error).splitlines()[0]}") from None
    told = tokenizer([PROMPT, ""], padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    return told["input_ids"]


def _text_tower(clip: Path) -> CLIPTextModel:
    """Return the text tower in CLIP's folder."""
    from transformers import CLIPTextModel

    try:
        return CLIPTextModel.from_pretrained(clip)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{clip} does not hold {CLIP}: {str(error).splitlines()[0]}") from None


def random_networks(seed: int = 0) -> Networks:
    """Return tiny networks with random weights, the same for the same seed, and made-up tokens."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):  # initialisers draw from torch's global generator
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**TINY.unet)
        vae = AutoencoderKL(**TINY.vae)
        text = CLIPTextModel(CLIPTextConfig(**TINY.text)).eval()
    tokens = torch.stack([torch.arange(TOKENS) % 16, torch.full((TOKENS,), 15)])
    return Networks(unet, vae, text, tokens)
