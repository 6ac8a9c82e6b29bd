"""Weights on disk and as a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from minima_core.io.atomic import write_bytes


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 of a state dict's names, shapes and bytes."""
    hasher = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state dict as safetensors, atomically; equal states give equal bytes."""
    write_bytes(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))
