"""Normals from one image by Marigold, a diffusion model whose terms allow commercial use."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from minima_core.errors import WeightsError
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.network import NetworkEngine
from minima_core.synthesis.normal.dataset import encode
from minima_core.weights import fetch_repository

REPOSITORY = "marigold-normals"
# Marigold: x right, y up, z and the normal itself towards the viewer; here: x right, y down, z and the normal away.
# Turning the axes gives (x, -y, -z), turning the normal round (-x, y, z): a wall that faces the camera stays (0, 0, 1).
TO_OURS = (-1.0, 1.0, 1.0)


class Marigold(NetworkEngine):
    """Outward normals of a single image, x right, y down, z forward (Ke et al. 2024).

    Each image is denoised once, from noise of its own generator that is drawn on the CPU, so that every device starts
    from the same.
    """

    class Params(NetworkEngine.Params):
        """``steps``: of denoising; ``processing_resolution``: of the longer side, in pixels."""

        weights: Literal["published", "random"]
        steps: int = Field(ge=1)
        processing_resolution: int = Field(ge=8)

    params: Marigold.Params
    reads: ClassVar[frozenset[str]] = frozenset({"depth"})  # the gate compares with it, where the data set has it
    seeded: ClassVar[bool] = True

    def published(self) -> tuple[str, ...]:
        """Return the name of the model's repository."""
        return (REPOSITORY,)

    def load(self) -> None:
        """Make the pipeline."""
        self.pipe = _random() if self.weights == "random" else _published()
        for part in self.pipe.components.values():
            if isinstance(part, torch.nn.Module):
                torch.nn.Module.to(part.eval(), self.device, self.dtype)  # diffusers' own warns of each change of type
        self.pipe.set_progress_bar_config(disable=True)

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image of this size takes: the decoder holds 800 values for each pixel."""
        net_width, net_height = plan(width, height, self.params.processing_resolution)
        return 800 * self.dtype.itemsize * (net_width + 8) * (net_height + 8)

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:
        seeds = [int(rng.integers(2**63)) for rng in rngs]
        images = torch.from_numpy(np.stack([source.image for source in sources]))
        with self.computing:
            predicted = self.pipe(
                prepare(images.to(self.device), self.params.processing_resolution).to(self.dtype),
                num_inference_steps=self.params.steps,
                processing_resolution=0,  # resized already, in float32
                match_input_resolution=False,
                batch_size=len(sources),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="pt",
            ).prediction
            made = outward(predicted, *sources[0].image.shape[:2]).cpu().numpy()
        return [Rendition(encode(n), {"noise": seed}) for n, seed in zip(made, seeds, strict=True)]


def plan(width: int, height: int, longest: int) -> tuple[int, int]:
    """Return the width and height that the network sees: the longer side ``longest``, the other rounded down."""
    longer = max(width, height)
    return max(width * longest // longer, 1), max(height * longest // longer, 1)


def prepare(images: torch.Tensor, longest: int) -> torch.Tensor:
    """Return (B, 3, h, w) float32 in [0, 1] of (B, H, W, 3) uint8 images."""
    width, height = plan(images.shape[2], images.shape[1], longest)
    values = images.permute(0, 3, 1, 2).float() / 255
    return F.interpolate(values, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


def outward(predicted: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return (B, height, width, 3) float32 unit normals in our frame of (B, 3, h, w) in Marigold's."""
    resized = F.interpolate(predicted.float(), (height, width), mode="bilinear").permute(0, 2, 3, 1)
    return F.normalize((resized * resized.new_tensor(TO_OURS)).contiguous(), dim=-1)


def _published() -> Any:
    diffusers: Any = import_module("diffusers")  # Any: its classes are not typed
    folder = fetch_repository(REPOSITORY)
    try:
        return diffusers.MarigoldNormalsPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} does not hold {REPOSITORY}: {str(error).splitlines()[0]}") from None


def _random() -> Any:
    """Return a small pipeline of the same architecture, the same one each time, that needs no tokenizer."""
    diffusers: Any = import_module("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            in_channels=8,
            out_channels=4,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=8,
            norm_num_groups=4,
        )
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(4, 4, 8, 8),
            latent_channels=4,
            norm_num_groups=2,
            mid_block_add_attention=False,
        )
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    pipe = diffusers.MarigoldNormalsPipeline(unet, vae, scheduler, None, None, prediction_type="normals")
    pipe.empty_text_embedding = torch.zeros(1, 2, 8)
    return pipe
