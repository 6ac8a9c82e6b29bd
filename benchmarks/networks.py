"""What the published networks cost: `python benchmarks/networks.py [--device cpu] [--engines …] [--images 130000]`.

Each network is built at its published size with random weights (its arithmetic does not depend on them), its
floating point operations for one 640 x 480 image are counted, and one pass is timed on the device. Of diffusion models
one pass of the UNet is timed and multiplied by the number of passes that an image takes. The last columns are a paper
estimate for a whole data set: hours at the measured rate, and hours of a GPU that achieves `--tflops`. With `--device
meta` operations are counted and nothing is computed or timed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minima_core.synthesis.depth.depth_anything_v2 import plan
from minima_core.synthesis.infrared._networks import PUBLISHED
from minima_core.synthesis.normal._dsine_encoder import B5
from minima_core.synthesis.normal._dsine_network import Dsine
from minima_core.synthesis.paint._painter import PUBLISHED_SIZE, Painter
from minima_core.synthesis.sketch._generator import Generator

WIDTH, HEIGHT = 640, 480
LATENT = 1024 // 8  # side of the latent that an image of this size has in stylebooth: its canvas is 1024 x 1024


@dataclass(frozen=True)
class Cost:
    """One network for one image: operations and seconds."""

    engine: str
    parameters: int
    flops: float
    seconds: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--engines", nargs="+", default=sorted(NETWORKS))
    parser.add_argument("--images", type=int, default=130_000)
    parser.add_argument("--tflops", type=float, default=100.0, help="that a GPU achieves, not its sheet")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.backends.mha.set_fastpath_enabled(False)  # it is not counted
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, {arguments.precision}, one {WIDTH} x {HEIGHT} image; {arguments.images} images")
    print(f"{'engine':28} {'M param':>8} {'TFLOP':>8} {'seconds':>9} {'hours here':>11} {'GPU-hours':>10}")
    for engine in arguments.engines:
        torch.manual_seed(0)
        cost = NETWORKS[engine](engine, device, getattr(torch, arguments.precision))
        hours = arguments.images / 3600
        print(
            f"{cost.engine:28} {cost.parameters / 1e6:8.1f} {cost.flops / 1e12:8.3f} {cost.seconds:9.3f} "
            f"{cost.seconds * hours:11.0f} {cost.flops / 1e12 / arguments.tflops * hours:10.1f}",
            flush=True,
        )


def passed(network: torch.nn.Module, times: int, *arguments: Any, **more: Any) -> tuple[int, float, float]:
    """Return parameters, operations and seconds of ``times`` equal passes, of which one is made."""
    network.eval().requires_grad_(False)
    sync = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # fused kernels are not counted
            network(*arguments, **more)
        if next(network.parameters()).device.type == "meta":
            return sum(p.numel() for p in network.parameters()), times * counter.get_total_flops(), math.nan
        repeats = 10 if torch.cuda.is_available() else 1
        for _ in range(repeats // 3):  # first calls choose kernels
            network(*arguments, **more)
        sync()
        start = time.perf_counter()
        for _ in range(repeats):
            network(*arguments, **more)
        sync()
    seconds = (time.perf_counter() - start) / repeats
    return sum(p.numel() for p in network.parameters()), times * counter.get_total_flops(), times * seconds


def total(engine: str, *parts: tuple[int, float, float]) -> Cost:
    """Return the sum of the parts."""
    parameters, flops, seconds = (sum(column) for column in zip(*parts, strict=True))
    return Cost(engine, int(parameters), flops, seconds)


def depth_anything(engine: str, device: torch.device, dtype: torch.dtype) -> Cost:
    """Depth Anything V2 with a ViT of the size in the name."""
    columns, rows = plan(WIDTH, HEIGHT, 518)
    image = torch.rand(1, 3, rows, columns).to(device, dtype)
    return total(engine, passed(depth_network(small="small" in engine).to(device, dtype), 1, image))


def depth_network(*, small: bool) -> Any:
    """Return Depth Anything V2 at its small or large published size, with random weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    width, layers, heads = (384, 12, 6) if small else (1024, 24, 16)
    taps = [3, 6, 9, 12] if small else [5, 12, 18, 24]
    backbone = {
        "model_type": "dinov2",
        "image_size": 518,
        "patch_size": 14,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "out_indices": taps,
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=[48, 96, 192, 384] if small else [256, 512, 1024, 1024],
        fusion_hidden_size=64 if small else 256,
        head_hidden_size=32,
    )
    return DepthAnythingForDepthEstimation(config)


def dsine(engine: str, device: torch.device, dtype: torch.dtype) -> Cost:
    """DSINE with EfficientNet-B5 and five refinements."""
    K = torch.tensor([[[554.0, 0, 320], [0, 554, 240], [0, 0, 1]]], device=device)
    return total(engine, passed(Dsine(B5).to(device, dtype), 1, torch.rand(1, 3, 480, 640).to(device, dtype), K))


def anime2sketch(engine: str, device: torch.device, dtype: torch.dtype) -> Cost:
    """The sketch generator on its square of 1024 pixels."""
    image = torch.rand(1, 3, 1024, 1024).to(device, dtype)
    return total(engine, passed(Generator(improved=True).to(device, dtype), 1, image))


def paint_transformer(engine: str, device: torch.device, dtype: torch.dtype) -> Cost:
    """The painter on all patches of all layers of an image; its renderer is measured in paint_renderer.py."""
    layers = int(np.ceil(np.log2(max(WIDTH, HEIGHT) / 32)))
    patches = sum(4**layer for layer in range(layers + 1)) + (2**layers + 1) ** 2
    some = torch.rand(256, 3, 32, 32).to(device, dtype)
    parameters, flops, seconds = passed(Painter(PUBLISHED_SIZE).to(device, dtype), 1, some, some)
    return Cost(engine, parameters, flops * patches / 256, seconds * patches / 256)


def stylebooth(engine: str, device: torch.device, dtype: torch.dtype) -> Cost:
    """The latent editor: fifty steps of three passes, encoder and decoder, on the canvas of 1024 x 1024."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(**PUBLISHED.unet).to(device, dtype)
    text = torch.zeros(1, 77, 768, device=device, dtype=dtype)
    latent = torch.randn(1, 8, LATENT, LATENT).to(device, dtype)
    noise = passed(unet, 150, latent, 999, text)
    del unet
    vae = diffusers.AutoencoderKL(**PUBLISHED.vae).to(device, dtype)
    picture = torch.rand(1, 3, 8 * LATENT, 8 * LATENT).to(device, dtype)
    return total(engine, noise, passed(vae, 1, picture))


NETWORKS: dict[str, Callable[[str, torch.device, torch.dtype], Cost]] = {
    "depth/depth_anything_v2 small": depth_anything,
    "depth/depth_anything_v2 large": depth_anything,
    "normal/dsine": dsine,
    "sketch/anime2sketch": anime2sketch,
    "paint/paint_transformer": paint_transformer,
    "infrared/stylebooth": stylebooth,
}


if __name__ == "__main__":
    main()
