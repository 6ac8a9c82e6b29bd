"""Weights on disk and as a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from minima_core.errors import WeightsError
from minima_core.io.atomic import write_bytes

ABOUT = "about"  # the one entry of a file's metadata


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 of a state dict's names, shapes and bytes."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def save_weights(path: Path, state: Mapping[str, torch.Tensor], about: dict[str, str] | None = None) -> None:
    """Write a state dict as safetensors, atomically, with words about it; equal states give equal bytes."""
    # in one entry, because safetensors writes several in an order that changes from run to run
    metadata = {ABOUT: json.dumps(about, sort_keys=True)} if about else None
    write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, metadata))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the words about a safetensors file that were written into it.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            found = dict(file.metadata() or {})
            return {**json.loads(found.pop(ABOUT, "{}")), **found}
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}; make it again or name another file") from None
