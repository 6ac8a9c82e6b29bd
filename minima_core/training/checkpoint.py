"""Training states on disk: whole or not at all, the last ones kept, read without executing anything."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from minima_core.errors import TrainingError, WeightsError
from minima_core.io.atomic import whole_folder, write_bytes, write_json
from minima_core.io.weights import read_checkpoint, read_metadata, save_weights, state_digest
from minima_core.manifest import file_sha256

KEEP = 2
_STATE = ("model.safetensors", "optimiser.pt")  # beside progress.json
_DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError),  # the last ones of other JSON
    *(SafetensorError, WeightsError),
)


@dataclass
class Progress:
    """How far a training is, beside the weights and the optimiser.

    Attributes:
        step: steps done.
        skipped: steps of these that changed nothing, because their loss or gradient was not finite.
        curves: name -> (step, value) pairs.
        best: validation loss of the best weights so far, and the step they come from.
        scale: what the loss is multiplied by before its gradient is taken; 1 but for half precision.
    """

    step: int = 0
    skipped: int = 0
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    best: tuple[float, int] | None = None
    scale: float = 1.0

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Append values to their curves, but for those that are not finite: they say nothing and are no JSON."""
        for name, value in values.items():
            if math.isfinite(value):
                self.curves.setdefault(name, []).append((step, value))


def save(
    scratch: Path, progress: Progress, weights: Mapping[str, torch.Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """Write a checkpoint folder named by its step, then forget all but the last ``KEEP``."""
    folder = scratch / f"step-{progress.step:08d}"
    with whole_folder(folder, scratch / ".step") as unfinished:
        save_weights(unfinished / "model.safetensors", weights)
        buffer = io.BytesIO()  # torch's own writer fails on a full disk with a traceback, not with an OSError
        torch.save(optimiser.state_dict(), buffer)
        write_bytes(unfinished / "optimiser.pt", buffer.getvalue())
        written = {name: file_sha256(unfinished / name) for name in _STATE}
        write_json(unfinished / "progress.json", {**asdict(progress), "sha256": written})
    for old in _folders(scratch)[:-KEEP]:
        shutil.rmtree(old)


def load(scratch: Path) -> tuple[Progress, dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return the last checkpoint's progress, weights and optimiser state; None where there is none.

    Raises:
        TrainingError: if it is damaged.
    """
    folders = _folders(scratch)
    if not folders:
        return None
    try:
        values = json.loads((folders[-1] / "progress.json").read_text())
        for name in _STATE:  # torch reads a file with a flipped bit without a word
            if file_sha256(folders[-1] / name) != values["sha256"][name]:
                raise ValueError(f"{name} is not what was written")
        curves = {name: [(int(s), float(v)) for s, v in curve] for name, curve in values["curves"].items()}
        best = None if values["best"] is None else (float(values["best"][0]), int(values["best"][1]))
        state = load_file(folders[-1] / "model.safetensors")
        optimiser = read_checkpoint(folders[-1] / "optimiser.pt", "it was cut")
        progress = Progress(int(values["step"]), int(values["skipped"]), curves, best, float(values["scale"]))
    except _DAMAGED as error:
        raise TrainingError(
            f"checkpoint {folders[-1]} is damaged ({str(error).splitlines()[0]}); remove this folder and run again"
        ) from None
    return progress, state, optimiser


def keep_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write weights to a file beside the checkpoints, for ``weights``."""
    save_weights(path, state, {"digest": state_digest(state)})


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file beside the checkpoints.

    Raises:
        TrainingError: if it is missing or damaged.
    """
    try:
        state = load_file(path)
        if state_digest(state) != read_metadata(path).get("digest"):
            raise ValueError("it is not what was written")
    except (OSError, ValueError, SafetensorError, WeightsError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove {path.parent} and run again") from None
    return state


def _folders(scratch: Path) -> list[Path]:
    return sorted(scratch.glob("step-????????"))
