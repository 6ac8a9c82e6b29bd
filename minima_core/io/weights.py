"""Weights on disk and as a digest."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from minima_core.errors import WeightsError
from minima_core.io.atomic import write_bytes

ABOUT = "about"  # the one entry of a file's metadata
# what the two readers raise at bytes that are no weights: torch's, which runs nothing of them, trusts their form
_DAMAGED = (
    *(OSError, EOFError, SafetensorError, struct.error, RuntimeError, AssertionError),
    *(LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError),
)


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


def read_checkpoint(path: Path, remedy: str) -> dict[str, Any]:
    """Return what a file of safetensors or of torch holds by name, tensors on the CPU; nothing in it is executed.

    Raises:
        WeightsError: if it is missing, damaged or something else; it says ``remedy``.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of protocols that bytes seem to name
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # in many lines, with torch's advice to run what the file holds
        what = "holds Python objects beside weights" if "allowed global" in str(error) else "is no checkpoint"
        raise WeightsError(f"{path} {what}; {remedy}") from None
    except _DAMAGED as error:
        told = str(error)
        reason = told.splitlines()[0] if " " in told else f"no checkpoint ({type(error).__name__})"
        raise WeightsError(f"{path} cannot be read as weights: {reason}; {remedy}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise WeightsError(f"{path} cannot be read as weights: it names none; {remedy}")
    return found


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
