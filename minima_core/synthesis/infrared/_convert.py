"""From the published checkpoint and its adapters to diffusers' and transformers' modules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from minima_core.errors import WeightsError
from minima_core.io.weights import read_checkpoint

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
CONFIG = "adapter_config.json"
_TEXT_PARTS = re.compile(r"^(?:cond_stage_model\.)?(?:model\.)?(?:transformer\.)?text_model\.")
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[\w-]+)?\.weight")
# settings of an adapter that make it more than the sum below
_UNSUPPORTED = ("use_dora", "alpha_pattern", "fan_in_fan_out", "use_merged_linear")


def bare(checkpoint: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """Return the weights of a checkpoint, which a training's own holds under ``state_dict``."""
    return checkpoint.get("state_dict", checkpoint)


def unet_of(checkpoint: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> UNet2DConditionModel:
    """Return the UNet of a checkpoint with LDM names under ``model.diffusion_model.``; it shares the tensors.

    Args:
        checkpoint: names and tensors; others may be among them.
        config: arguments of diffusers' class.

    Raises:
        WeightsError: if tensors are missing, left over or of another shape.
    """
    from diffusers import UNet2DConditionModel

    names = unet_names(checkpoint, config)
    unknown = {key for key in checkpoint if key.startswith(UNET)} - {UNET + name for name in names}
    state = {new: checkpoint[UNET + old] for old, new in names.items()}
    return _filled(lambda: UNet2DConditionModel(**config), state, unknown)


def unet_names(checkpoint: Iterable[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Return LDM name -> diffusers name of the UNet's tensors among the names in a checkpoint."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    names = {key: key.removeprefix(UNET) for key in checkpoint if key.startswith(UNET)}
    layers = {"layers_per_block": config.get("layers_per_block", 2)}
    return {old: new for new, old in convert_ldm_unet_checkpoint(names, layers).items()}  # it moves values untouched


def vae_of(checkpoint: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> AutoencoderKL:
    """Return the autoencoder of a checkpoint with LDM names under ``first_stage_model.``; as ``unet_of``.

    The original calls the two 1x1 convolutions about the latent ``conv1`` and ``conv2``.
    """
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    renamed = {f"{VAE}conv1.": f"{VAE}quant_conv.", f"{VAE}conv2.": f"{VAE}post_quant_conv."}
    state = {}
    for key, value in checkpoint.items():
        if key.startswith(VAE):
            old = next((old for old in renamed if key.startswith(old)), "")
            state[renamed[old] + key.removeprefix(old) if old else key] = value
    return _filled(lambda: AutoencoderKL(**config), convert_ldm_vae_checkpoint(state, config))


def text_of(checkpoint: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> CLIPTextModel:
    """Return CLIP's text tower of a checkpoint that holds it under ``cond_stage_model.``; as ``unet_of``."""
    from transformers import CLIPTextConfig, CLIPTextModel

    state = {key: value for key, value in checkpoint.items() if key.startswith(TEXT)}
    state = {_TEXT_PARTS.sub("", key): value for key, value in state.items() if not key.endswith("position_ids")}
    tower = CLIPTextModel(CLIPTextConfig(**config))
    if next(iter(tower.state_dict())).startswith("text_model."):  # how older versions of transformers call it
        state = {f"text_model.{key}": value for key, value in state.items()}
    return _filled(lambda: tower, state)


def _filled(make: Callable[[], Any], state: Mapping[str, torch.Tensor], unknown: Iterable[str] = ()) -> Any:
    """Return a module in eval mode that holds exactly the tensors of ``state``; none is drawn or copied for that."""
    with torch.device("meta"):
        module = make()
    problems = sorted(unknown)[:1]
    if not problems:
        try:
            module.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            problems = str(error).splitlines()[:2][-1:]  # the first line names the class alone
    if problems:
        raise WeightsError(
            f"the checkpoint does not fit {type(module).__name__}: {problems[0].strip()[:200]}; "
            "give the published file (minima_core/published.py names it)"
        )
    return module.eval()


@dataclass(frozen=True)
class Update:
    """What an adapter adds to the weight of one module: ``scale`` times ``up @ down``.

    Attributes:
        module: its name in LDM or diffusers (UNet), or in transformers (text tower).
        text: whether it belongs to the text tower.
        down: (r, in, ...), lora_A.
        up: (out, r, ...), lora_B.
        scale: alpha / r, or alpha / sqrt(r) for rank-stabilised adapters.
    """

    module: str
    text: bool
    down: torch.Tensor
    up: torch.Tensor
    scale: float


def read_adapter(folder: Path) -> list[Update]:
    """Return what an adapter folder adds; peft's layout, or ms-swift's with a sub-folder for each adapter.

    The tensors may stand in safetensors or in torch's format, under names that begin with ``base_model.model.`` (peft),
    ``model.[diffusion_model.]`` or ``cond_stage_model.`` (scepter), or with the module's own.

    Raises:
        WeightsError: naming what is missing or cannot be understood.
    """
    folders = [path.parent for path in [folder / CONFIG, *sorted(folder.glob(f"*/{CONFIG}"))] if path.is_file()]
    if not folders:
        raise WeightsError(f"no adapter in {folder} ({CONFIG} is missing); name a folder that holds one")
    return [update for part in folders for update in _read_part(part)]


def _read_part(folder: Path) -> list[Update]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        alpha, stabilised = float(config["lora_alpha"]), bool(config.get("use_rslora"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG} describes no LoRA ({error!r}); replace the adapter") from None
    if refused := [key for key in _UNSUPPORTED if config.get(key)]:
        raise WeightsError(f"{folder / CONFIG} sets {refused[0]}, which is not supported; use a plain LoRA")
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in _tensors(folder).items():
        if (found := _FACTOR.fullmatch(key)) is None:
            raise WeightsError(f"{folder} holds {key}, which is no factor of a LoRA; use a plain LoRA")
        factors.setdefault(found["module"], {})[found["factor"]] = value.float()
    if alone := [name for name, pair in factors.items() if len(pair) < 2]:
        raise WeightsError(f"{folder} holds only one factor of {alone[0]}; replace the adapter")
    updates = []
    for name, pair in factors.items():
        module, rank = name.removeprefix("base_model.model."), pair["A"].shape[0]
        text = _TEXT_PARTS.match(module) is not None
        module = _TEXT_PARTS.sub("", module) if text else re.sub(r"^(?:model\.)?(?:diffusion_model\.)?", "", module)
        updates.append(Update(module, text, pair["A"], pair["B"], alpha / (rank**0.5 if stabilised else rank)))
    return updates


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the only weight file in a folder; nothing in it is executed."""
    files = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.bin"))]
    if not files:
        raise WeightsError(f"no weights beside {folder / CONFIG}; replace the adapter")
    return read_checkpoint(files[0], "replace the adapter")


@torch.no_grad()
def merge(updates: Iterable[Update], unet: nn.Module, text: nn.Module, names: Mapping[str, str]) -> None:
    """Add an adapter to the weights; what is merged costs nothing afterwards.

    Args:
        updates: the adapter.
        unet: of diffusers.
        text: the text tower.
        names: LDM name -> diffusers name of the UNet's tensors; empty where adapters use diffusers' names only.

    Raises:
        WeightsError: if it changes a module that is not there or has another shape.
    """
    weights = [{name.removesuffix(".weight"): p for name, p in m.named_parameters()} for m in (unet, text)]
    weights[1] |= {name.removeprefix("text_model."): p for name, p in weights[1].items()}
    ldm = {old.removesuffix(".weight"): new.removesuffix(".weight") for old, new in names.items()}
    for update in updates:
        weight = weights[update.text].get(ldm.get(update.module, update.module))
        if weight is None:
            raise WeightsError(
                f"the adapter changes {update.module}, which the networks do not have; use another adapter"
            )
        change = update.scale * update.up.flatten(1) @ update.down.flatten(1)
        if change.numel() != weight.numel() or change.shape[0] != weight.shape[0]:
            raise WeightsError(f"the adapter does not fit {update.module} {tuple(weight.shape)}; use another adapter")
        weight.add_(change.view_as(weight).to(weight))
