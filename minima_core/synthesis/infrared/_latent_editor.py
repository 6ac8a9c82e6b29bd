"""An InstructPix2Pix-shaped latent editor: its networks, and how a picture is drawn with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

LATENT_SCALE = 0.18215  # of latents that noise is mixed into; the image condition goes in unscaled


@dataclass(frozen=True)
class Guidance:
    """How three predictions become one.

    Attributes:
        text: weight of what the instruction adds.
        image: weight of what the picture adds.
        rescale: share of the correction of the result's spread.
    """

    text: float
    image: float
    rescale: float


@dataclass(frozen=True)
class LatentEditor:
    """The networks of an editor that knows one instruction.

    Attributes:
        unet: takes the noisy and the image latent, (B, 8, h, w), and predicts the noise, (B, 4, h, w).
        vae: between pixels and latents, one for 8 x 8 pixels where the networks are the published ones.
        prompt: (1, 77, C) states of the text tower for the instruction.
        null: (1, 77, C), those for the empty text.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompt: torch.Tensor
    null: torch.Tensor

    @property
    def stride(self) -> int:
        """How many pixels a latent stands for along a side: 8, more in the tiny networks."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the latents of (B, 3, H, W) in [-1, 1]: (B, 4, h, w) float32, unscaled.

        It is the mode of the posterior. The original draws a sample from torch's global generator, so that not even its
        seed makes its output repeatable.
        """
        return self.vae.encode(picture.to(self.prompt)).latent_dist.mode().float()

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the picture of unscaled latents (B, 4, h, w): (B, 3, H, W) float32, about [-1, 1]."""
        return self.vae.decode(latent.to(self.prompt)).sample.float()

    def predict(
        self, latent: torch.Tensor, step: torch.Tensor, image: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        """Return the noise that is seen in scaled latents (B, 4, h, w) at step (B,): (B, 4, h, w) float32.

        Args:
            latent: scaled, with noise.
            step: of the noise, 0 to 999.
            image: (B, 4, h, w) unscaled latents of the image; zeros for none.
            text: (B, 77, C) states of the text.
        """
        both = torch.cat([latent, image], dim=1).to(self.prompt)
        return self.unet(both, step, encoder_hidden_states=text).sample.float()

    def predict_guided(self, guidance: Guidance, image: torch.Tensor, latent: torch.Tensor, step: int) -> torch.Tensor:
        """Return the guided prediction, (B, 4, h, w), for latents at one step; three predictions in one batch."""
        count = len(latent)
        text = torch.cat([self.prompt, self.null, self.null]).repeat_interleave(count, dim=0)
        images = torch.cat([image, image, torch.zeros_like(image)])
        steps = torch.full((3 * count,), step, device=latent.device)
        y, m, u = self.predict(latent.repeat(3, 1, 1, 1), steps, images, text).chunk(3)
        return guide(y, m, u, guidance)

    @torch.no_grad()
    def edit(
        self, pictures: Sequence[torch.Tensor], noise: torch.Tensor, guidance: Guidance, *, steps: int
    ) -> list[torch.Tensor]:
        """Return pictures, (3, H, W) in [-1, 1], edited by the instruction: (3, H, W) float32 in [0, 1].

        The autoencoder takes them one by one, because at full resolution it needs more memory than the rest.

        Args:
            pictures: of one size, whose sides are multiples of ``stride``.
            noise: (B, 4, H / stride, W / stride) to begin with.
            guidance: how strongly instruction and pictures count.
            steps: of the sampler.
        """
        image = torch.cat([self.encode(picture[None].to(noise.device)) for picture in pictures])
        latent = sample(partial(self.predict_guided, guidance, image), noise, steps=steps)
        return [((self.decode(one[None] / LATENT_SCALE)[0] + 1) / 2).clamp(0, 1) for one in latent]


def guide(y: torch.Tensor, m: torch.Tensor, u: torch.Tensor, guidance: Guidance) -> torch.Tensor:
    """Return one noise prediction, (B, ...), of three, each of that shape (InstructPix2Pix eq. 3).

    Its spread is brought back towards that of ``y`` (arXiv 2305.08891 eq. 15 and 16).

    Args:
        y: with text and image.
        m: with the image alone.
        u: with neither.
        guidance: the weights.
    """
    mixed = u + guidance.image * (m - u) + guidance.text * (y - m)
    dims = tuple(range(1, y.dim()))
    corrected = y.std(dims, keepdim=True) / mixed.std(dims, keepdim=True)
    return mixed * (guidance.rescale * corrected + (1 - guidance.rescale))


def sample(predict: Callable[[torch.Tensor, int], torch.Tensor], noise: torch.Tensor, *, steps: int) -> torch.Tensor:
    """Return what DDIM without added noise (eta 0) makes of ``noise``, (B, 4, h, w) scaled latents.

    Args:
        predict: the noise in latents at a step.
        noise: standard normal.
        steps: how many; trailing, so that the first is the last one of training.
    """
    levels, timesteps = signal_levels(), trailing(steps)
    latent = noise
    for step, after in zip(timesteps, [*timesteps[1:], None], strict=True):
        found = predict(latent, step)
        here, there = levels[step], 1.0 if after is None else levels[after]
        clean = (latent - (1 - here) ** 0.5 * found) / here**0.5
        latent = there**0.5 * clean + (1 - there) ** 0.5 * found
    return latent


def signal_levels() -> list[float]:
    """Return the share of the signal's variance at each of the 1000 steps of training (the product of all alphas)."""
    return _scheduler().alphas_cumprod.tolist()


def trailing(steps: int) -> list[int]:
    """Return the steps of training that a sampler of so many steps goes through, from 999 down."""
    scheduler = _scheduler()
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
