"""The training of an infrared engine: a low-rank adapter of the latent editor, learnt from aligned pictures.

The recipe is the one published (arXiv 2412.19412 section 4: rank 256, rate 1e-4, 210 000 steps, batch 2, 1024 x 1024)
where it says something, and InstructPix2Pix's (arXiv 2211.09800 section 3.2) elsewhere. A run that was killed and
resumed ends with the bits of an undisturbed one, as in ``training.loop``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field

from minima_core import licences
from minima_core.config import Section
from minima_core.errors import DataError
from minima_core.io.atomic import whole_folder, write_json
from minima_core.io.images import find_images, image_size, read_image
from minima_core.io.weights import save_weights
from minima_core.licences import Licence
from minima_core.manifest import file_sha256
from minima_core.progress import track
from minima_core.published import PUBLISHED, REPOSITORIES
from minima_core.random import derive, rng
from minima_core.synthesis.infrared._latent_editor import LATENT_SCALE, LatentEditor, signal_levels
from minima_core.synthesis.infrared._networks import CHECKPOINT, CLIP, published_networks, random_networks
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import adam
from minima_core.training.steps import Fitted, descend, deterministic, resume

if TYPE_CHECKING:
    from peft import LoraConfig

PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]  # of every attention
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names
ABOUT = "training.json"  # beside them
HELD_OUT = 0.05  # share of a set without a test part: its last pictures, as neighbours are of one drive


class InfraredTraining(Section):
    """Settings, ``infrared_training`` in params.yaml."""

    weights: Literal["published", "random"]  # what the adapter is trained on; random ones try the machinery
    licence: str  # of the pictures; written into the adapter and, through it, into everything made with it
    rank: Annotated[int, Field(gt=0)]
    alpha: Annotated[float, Field(gt=0)]  # the adapter's product counts alpha / rank
    lr: Annotated[float, Field(gt=0)]  # constant
    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(gt=0)]
    side: Annotated[int, Field(gt=0, multiple_of=64)]  # of the square that is cut out, pixels
    drop: Annotated[float, Field(ge=0, le=1 / 3)]  # share without the image, without the text, and without both: each
    clip: Annotated[float, Field(gt=0)]  # norm of the gradient
    precision: Literal["float32", "bfloat16"]  # of the frozen networks; the adapter is always float32
    validation_samples: Annotated[int, Field(gt=0)]
    validate_every: Annotated[int, Field(gt=0)]  # steps
    checkpoint_every: Annotated[int, Field(gt=0)]  # steps
    log_every: Annotated[int, Field(gt=0)]  # steps
    max_skipped: Annotated[int, Field(ge=0)]  # steps that may be lost to non-finite losses
    threads: Annotated[int, Field(gt=0)]  # of torch; part of the result


@dataclass(frozen=True)
class AlignedPair:
    """Two pictures of one scene, aligned to the pixel.

    Attributes:
        name: id, the path of the visible picture below the data's folder, without its suffix.
        visible: file.
        infrared: file.
    """

    name: str
    visible: Path
    infrared: Path


def find_pairs(root: Path) -> tuple[list[AlignedPair], list[AlignedPair]]:
    """Return the pairs to train on and those held out, from all data sets in a folder, up to two folders down.

    LLVIP's layout is ``visible/{train,test}`` and ``infrared/{train,test}``; its test part is held out. M3FD's is
    ``Vis`` and ``Ir``, or ``vis`` and ``ir``; its last twentieth is. A picture and its partner have the same name but
    for the suffix.

    Raises:
        DataError: if there is none, a picture has no partner, one of another size, or one that another has too.
    """
    train, held_out = [], []
    for folder in [root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))]:
        if (folder / "visible" / "train").is_dir():
            train += _pairs(root, folder / "visible" / "train", folder / "infrared" / "train")
            if (folder / "visible" / "test").is_dir():
                held_out += _pairs(root, folder / "visible" / "test", folder / "infrared" / "test")
        elif visible := _either_case(folder, "Vis"):
            found = _pairs(root, visible, _either_case(folder, "Ir") or folder / "Ir")
            kept = len(found) - max(1, round(HELD_OUT * len(found)))
            train, held_out = train + found[:kept], held_out + found[kept:]
    if not train or not held_out:
        raise DataError(
            f"{root} holds no aligned pictures to train on and to validate with; give it LLVIP (visible/train, "
            "visible/test, infrared/train, infrared/test) or M3FD (Vis, Ir)"
        )
    return train, held_out


def _either_case(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / name.lower()) if path.is_dir()), None)


def _pairs(root: Path, visible: Path, infrared: Path) -> list[AlignedPair]:
    """Return the pairs of two folders; sizes are compared here, not after days of training."""
    partners = _by_name(infrared)
    pairs = []
    for name, path in _by_name(visible).items():
        partner = partners.get(name)
        if partner is None:
            raise DataError(f"no infrared picture of {path} in {infrared}; remove the visible one or bring its partner")
        if image_size(path) != image_size(partner):
            raise DataError(f"{path} and {partner} differ in size; aligned pictures are needed")
        pairs.append(AlignedPair(path.relative_to(root).with_suffix("").as_posix(), path, partner))
    return pairs


def _by_name(folder: Path) -> dict[Path, Path]:
    """Return the pictures of a folder by what their partners are called too."""
    files: dict[Path, Path] = {}
    for path in find_images(folder):
        if (other := files.setdefault(path.relative_to(folder).with_suffix(""), path)) is not path:
            raise DataError(f"{other} and {path} would have the same partner; take one of them away")
    return files


@dataclass(frozen=True)
class Sample:
    """What one term of the loss is made of.

    Attributes:
        visible: (3, S, S) in [-1, 1].
        infrared: (3, S, S) in [-1, 1], the same part.
        noise: (4, S / stride, S / stride), standard normal.
        step: of the noise, 0 to 999.
        image: whether the prediction sees the visible picture.
        text: whether it sees the instruction.
    """

    visible: torch.Tensor
    infrared: torch.Tensor
    noise: torch.Tensor
    step: int
    image: bool = True
    text: bool = True


def draw_sample(pair: AlignedPair, generator: np.random.Generator, *, side: int, stride: int, drop: float) -> Sample:
    """Return a sample of a pair: a square as wide as its short side, brought to ``side``, mirrored or not.

    Image, text and both are left out in a share ``drop`` of the samples each, so that guidance has what it needs (5 %
    each in InstructPix2Pix).

    Raises:
        DataError: if a picture cannot be read.
    """
    visible, infrared = read_image(pair.visible), read_image(pair.infrared)
    height, width = visible.shape[:2]
    short = min(height, width)
    left, top = (int(generator.integers(room, endpoint=True)) for room in (width - short, height - short))
    mirrored, chance = bool(generator.integers(2)), float(generator.random())
    box = (left, top, left + short, top + short)
    return Sample(
        _cut(visible, box, side, mirrored=mirrored),
        _cut(infrared, box, side, mirrored=mirrored),
        torch.from_numpy(generator.standard_normal((4, side // stride, side // stride), dtype=np.float32)),
        step=int(generator.integers(1000)),
        image=not chance < 2 * drop,
        text=not drop <= chance < 3 * drop,
    )


def _cut(picture: np.ndarray, box: tuple[int, int, int, int], side: int, *, mirrored: bool) -> torch.Tensor:
    square = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS, box=box)
    values = np.asarray(square)[:, ::-1] if mirrored else np.asarray(square)
    return torch.from_numpy(values.copy()).permute(2, 0, 1).float() / 127.5 - 1


def denoising_loss(editor: LatentEditor, samples: Sequence[Sample]) -> torch.Tensor:
    """Return the mean squared error of the noise that is seen in the infrared pictures' noisy latents."""
    device = editor.prompt.device
    noise = torch.stack([sample.noise for sample in samples]).to(device)
    steps = torch.tensor([sample.step for sample in samples])
    level = torch.tensor(signal_levels())[steps].view(-1, 1, 1, 1).to(device)
    with torch.no_grad():
        image = torch.cat([editor.encode(sample.visible[None].to(device)) * sample.image for sample in samples])
        clean = torch.cat([editor.encode(sample.infrared[None].to(device)) * LATENT_SCALE for sample in samples])
    text = torch.cat([editor.prompt if sample.text else editor.null for sample in samples])
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    return F.mse_loss(editor.predict(noisy, steps.to(device), image, text), noise)


def make_editor(params: InfraredTraining, device: str, *, seed: int) -> LatentEditor:
    """Return the editor with a new adapter in its UNet, the only part of it that can be trained.

    Raises:
        WeightsError: if published weights cannot be had.
    """
    from peft import inject_adapter_in_model

    networks = published_networks() if params.weights == "published" else random_networks()
    with deterministic(params.threads):  # the instruction, too, is read in the same way by whoever continues
        editor = networks.editor(torch.device(device), getattr(torch, params.precision))
    with torch.random.fork_rng(devices=[]):  # the first factor is drawn from torch's global generator
        torch.manual_seed(derive(seed, "infrared adapter") >> 1)
        inject_adapter_in_model(_lora(params), editor.unet)
    for parameter in _trainable(editor):
        parameter.data = parameter.data.float()
    editor.unet.enable_gradient_checkpointing()  # a step at 1024 x 1024 would not fit otherwise
    return editor


def _lora(params: InfraredTraining) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(r=params.rank, lora_alpha=params.alpha, target_modules=PROJECTIONS)


def _trainable(editor: LatentEditor) -> list[torch.nn.Parameter]:
    return [parameter for parameter in editor.unet.parameters() if parameter.requires_grad]


def fit_adapter(
    editor: LatentEditor,
    pairs: tuple[Sequence[AlignedPair], Sequence[AlignedPair]],
    params: InfraredTraining,
    *,
    seed: int,
    tracker: Tracker,
    scratch: Path,
) -> Fitted:
    """Train the adapter in ``editor`` for a fixed number of steps; the last weights are the result.

    Args:
        editor: of ``make_editor``.
        pairs: to train on, and held out.
        params: the settings.
        seed: of everything that is drawn.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these parameters and pairs alone.

    Raises:
        TrainingError: if more than ``max_skipped`` steps had a loss or gradient that is not finite.
    """
    from peft import set_peft_model_state_dict

    train, held_out = pairs
    with deterministic(params.threads):
        optimiser = adam(_trainable(editor), params.lr)
        progress = resume(scratch, optimiser, partial(set_peft_model_state_dict, editor.unet))
        if progress is None:
            progress = Progress()
            _validate(editor, held_out, params, progress, tracker)
        todo = range(progress.step, params.steps)
        batches = (_batch(editor, train, params, seed=seed, step=step) for step in todo)
        for batch in track(batches, "training", total=params.steps, done=progress.step):
            _step(editor, optimiser, batch, params, progress, tracker)
            last = progress.step == params.steps
            if last or progress.step % params.validate_every == 0:
                _validate(editor, held_out, params, progress, tracker)
            if last or progress.step % params.checkpoint_every == 0:
                checkpoint.save(scratch, progress, adapter_state(editor), optimiser)
    return Fitted.of(progress)


def _batch(
    editor: LatentEditor, train: Sequence[AlignedPair], params: InfraredTraining, *, seed: int, step: int
) -> list[Sample]:
    """Return the samples of a step; they depend on seed, step and picture alone."""
    samples = []
    for place, pair in _visits(train, params.batch, seed=seed, step=step):
        generator = rng(seed, "infrared sample", place, pair.name)
        samples.append(draw_sample(pair, generator, side=params.side, stride=editor.stride, drop=params.drop))
    return samples


def _visits(train: Sequence[AlignedPair], batch: int, *, seed: int, step: int) -> Iterator[tuple[int, AlignedPair]]:
    """Yield the places in the endless sequence of epochs that a step takes, and their pairs."""
    for place in range(step * batch, (step + 1) * batch):
        epoch, index = divmod(place, len(train))
        yield place, train[int(rng(seed, "infrared order", epoch).permutation(len(train))[index])]


def _step(
    editor: LatentEditor,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[Sample],
    params: InfraredTraining,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    optimiser.zero_grad(set_to_none=True)
    loss = denoising_loss(editor, batch)
    norm = descend(
        optimiser,
        loss,
        _trainable(editor),
        progress,
        clip=params.clip,
        max_skipped=params.max_skipped,
        remedy="lower lr or look at the pictures (the last good state was kept)",
    )
    if norm is None:
        return
    if progress.step % params.log_every == 0:
        values = {"train/loss": float(loss.detach()), "train/norm": norm}
        progress.log(values, progress.step)
        tracker.metrics(values, progress.step)


@torch.no_grad()
def _validate(
    editor: LatentEditor,
    held_out: Sequence[AlignedPair],
    params: InfraredTraining,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Log the loss of samples that are always the same, whatever the seed."""
    total, count = 0.0, min(params.validation_samples, len(held_out))
    for pair in held_out[:: len(held_out) // count][:count]:
        generator = rng(0, "infrared validation", pair.name)
        sample = draw_sample(pair, generator, side=params.side, stride=editor.stride, drop=0)
        total += float(denoising_loss(editor, [sample]))
    values = {"val/loss": total / count}
    progress.log(values, progress.step)
    tracker.metrics(values, progress.step)


def adapter_state(editor: LatentEditor) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by diffusers' names."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(editor.unet)


def adapter_licence(params: InfraredTraining) -> Licence:
    """Return the licence of an adapter: that of what it changes and that of the pictures it was trained on."""
    base = [PUBLISHED[CHECKPOINT].licence, REPOSITORIES[CLIP].licence] if params.weights == "published" else []
    return licences.combine([*base, licences.named(params.licence)])


def save_adapter(folder: Path, editor: LatentEditor, params: InfraredTraining, about: dict[str, Any]) -> str:
    """Write a folder that peft and the engine read as an adapter, whole or not at all; return its weights' sha256.

    The licence stands in the weight file; ``about`` in a file of its own, because safetensors writes the words about a
    file in an order that changes from run to run, and equal trainings are to give equal bytes.

    Raises:
        DataError: if a weight is not finite.
    """
    state = {f"base_model.model.{name}": value for name, value in adapter_state(editor).items()}
    if bad := [name for name, value in state.items() if not bool(value.isfinite().all())]:
        raise DataError(f"{bad[0]} holds values that are not finite; the adapter was not saved")
    config = {"peft_type": "LORA", "r": params.rank, "lora_alpha": params.alpha, "target_modules": PROJECTIONS}
    with whole_folder(folder, folder.with_name(f".{folder.name}.unfinished")) as unfinished:
        save_weights(unfinished / WEIGHTS, state, {"licence": adapter_licence(params).name})
        write_json(unfinished / CONFIG, config)
        write_json(unfinished / ABOUT, about)
    return file_sha256(folder / WEIGHTS)
