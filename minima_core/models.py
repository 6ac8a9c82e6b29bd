"""Models on disk and by name: a folder with a card and weights, a published name, or a version in a registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from minima_core import weights
from minima_core.config import checked, closest, unknown
from minima_core.errors import ConfigError, DataError
from minima_core.io.atomic import whole_folder
from minima_core.io.images import eight_bits, read_image, to_tensor
from minima_core.io.weights import save_weights
from minima_core.manifest import ModelCard, file_sha256
from minima_core.matchers.base import MATCHERS, Matcher, Precision
from minima_core.parallel import torch_device
from minima_core.types import Matches

WEIGHTS = "model.safetensors"
REMEDY = "get the model folder again, or make it again with `dvc repro`"
REGISTRY = "models:/"
STORE = Path("mlflow.db")  # of a checkout
# settings of the published models for users of the package; a checkout's are in params.yaml
PUBLISHED_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{extractor}-lightglue": (
        "lightglue",
        {"extractor": extractor, "long_side": 1024, "max_keypoints": 2048, "filter_threshold": 0.1},
    )
    for extractor in ("xfeat", "aliked", "disk", "superpoint")
}
# MINIMA's own, under SuperPoint's licence
PUBLISHED_MODELS["minima-lightglue-superpoint"] = (
    "lightglue",
    {**PUBLISHED_MODELS["superpoint-lightglue"][1], "published": "minima"},
)
_SEMIDENSE = {"size": "full", "long_side": 640, "max_keypoints": 10000, "threshold": 0.2}
PUBLISHED_MODELS |= {
    "loftr": ("loftr", {**_SEMIDENSE, "positions": "buggy", "published": "outdoor"}),
    "minima-loftr": ("loftr", {**_SEMIDENSE, "positions": "fixed", "published": "minima"}),
    "eloftr": ("eloftr", {**_SEMIDENSE, "published": "outdoor"}),
    "minima-eloftr": ("eloftr", {**_SEMIDENSE, "published": "minima"}),
}
_XOFTR = {"size": "full", "long_side": 640, "max_keypoints": 10000, "threshold": 0.3, "fine_threshold": 0.1}
PUBLISHED_MODELS |= {
    "xoftr": ("xoftr", {**_XOFTR, "published": "640"}),
    "minima-xoftr": ("xoftr", {**_XOFTR, "published": "minima"}),
}
_ROMA = {"width": "full", "long_side": 640, "max_keypoints": 10000, "coarse_side": 560, "fine_side": 864}
PUBLISHED_MODELS |= {
    "roma": ("roma", {**_ROMA, "threshold": 0.05, "published": "outdoor"}),
    "minima-roma": ("roma", {**_ROMA, "threshold": 0.05, "published": "minima"}),
}
# 0.82 is its authors' own bound
PUBLISHED_MODELS["xfeat"] = ("xfeat", {"long_side": 1024, "max_keypoints": 2048, "similarity": 0.82})
PUBLISHED_MODELS["xfeat-star"] = (
    "xfeat_star",
    {"long_side": 640, "max_keypoints": 4096, "cells": 4096, "certainty": 0.25},
)
PUBLISHED_MODELS["sift"] = ("sift", {"long_side": 1024, "max_keypoints": 2048, "ratio": 0.8})
# the file of a published model's network, which NAME=FILE gives another for
NETWORKS = {
    "xfeat-lightglue": "xfeat-lighterglue.pt",
    "aliked-lightglue": "aliked_lightglue.pth",
    "disk-lightglue": "disk_lightglue.pth",
    "superpoint-lightglue": "superpoint_lightglue.pth",
    "minima-lightglue-superpoint": "minima_lightglue.pth",
    "xfeat-star": "xfeat.pt",
    "loftr": "outdoor_ds.ckpt",
    "minima-loftr": "minima_loftr.ckpt",
    "eloftr": "minima_eloftr.ckpt",  # the authors' own is in the same form, and on the hub in that of transformers
    "minima-eloftr": "minima_eloftr.ckpt",
    "xoftr": "weights_xoftr_640.ckpt",
    "minima-xoftr": "minima_xoftr.ckpt",
    "roma": "roma_outdoor.pth",
    "minima-roma": "minima_roma.pth",
}
# ours, by scripts/train_release.py, shipped with the package; everybody may use it for anything
RELEASED = {"minima-lightglue": Path(__file__).parent / "released" / "minima-lightglue"}
# the extractor of a released model, matching cells instead of keypoints: name -> (matcher, model)
SEMIDENSE = {"minima-xfeat-star": ("xfeat-star", "minima-lightglue")}
_NAMES = f"{REGISTRY}NAME@ALIAS, NAME=FILE, or one of {', '.join(sorted([*RELEASED, *SEMIDENSE, *PUBLISHED_MODELS]))}"
Picture = str | Path | np.ndarray | torch.Tensor


class LoadedMatcher:
    """A matcher ready for use: two pictures in, matches out."""

    def __init__(self, name: str, matcher: Matcher, licence: str, card: ModelCard | None = None) -> None:
        self.name = name
        self.matcher = matcher
        self.licence = licence
        self.card = card  # None for published weights

    def match(
        self,
        image0: Picture,
        image1: Picture,
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
        any_rotation: bool = False,
    ) -> Matches:
        """Return the matches of two pictures, in their own pixels.

        Args:
            image0: a file, an (H, W, 3) or (H, W) array in RGB, or a (3, H, W) tensor; uint8, or floats in [0, 1]; an
                array may be uint16, and is scaled as a file of such values is.
            image1: likewise.
            max_keypoints: instead of the model's own.
            long_side: the size to match at, instead of the model's own.
            any_rotation: whether the pictures may be turned against each other by any angle: image 1 is matched in each
                of four turns, and the turn whose scores have the largest sum counts. It takes up to four times as long.

        Raises:
            DataError: if a picture cannot be read or has another shape.
            ConfigError: if a number is below 1.
        """
        how: Any = {"max_keypoints": max_keypoints, "long_side": long_side, "any_rotation": any_rotation}
        return self.match_batch([(image0, image1)], **how)[0]

    def match_batch(
        self,
        pairs: Sequence[tuple[Picture, Picture]],
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
        any_rotation: bool = False,
    ) -> list[Matches]:
        """Return the matches of pairs of pictures of any sizes, computed together: as ``match``, but for rounding.

        Raises:
            DataError: as ``match``, or if ``pairs`` are no pairs.
            ConfigError: as ``match``.
        """
        for n, pair in enumerate(pairs):  # an array or a name of length two would unpack
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                what = type(pair).__name__ + (f" of {len(pair)}" if isinstance(pair, tuple | list) else "")
                raise DataError(f"match_batch takes pairs of pictures, [(a, b), (c, d)]; pair {n} is {what}")
        tensors = [(as_tensor(image0), as_tensor(image1)) for image0, image1 in pairs]
        match = self.matcher.match_in_turns if any_rotation else self.matcher.match_batch
        return match(tensors, max_keypoints=max_keypoints, long_side=long_side)


def as_tensor(picture: Picture) -> torch.Tensor:
    """Return a picture as (3, H, W) float32 in [0, 1].

    Raises:
        DataError: if it cannot be read or is none of the kinds ``LoadedMatcher.match`` takes.
    """
    if isinstance(picture, torch.Tensor):
        if picture.dtype == torch.uint8:
            return picture.float() / 255
        return _in_range(picture.float())
    if isinstance(picture, np.ndarray):
        if picture.dtype.type not in {np.uint8, np.uint16} and not np.issubdtype(picture.dtype, np.floating):
            raise DataError(f"an array of uint8, uint16, or of floats in [0, 1], expected, not {picture.dtype}")
        if picture.size == 0:
            raise DataError(f"the array of shape {picture.shape} has no pixels; give a picture")
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        if picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"an RGB array of shape (H, W, 3) expected, not {picture.shape}")
        if picture.dtype.kind == "u":
            return to_tensor(picture if picture.dtype == np.uint8 else eight_bits(picture))
        values = np.require(picture, np.float32, ["C", "W"])  # whatever the order of bytes, rows and columns was
        return _in_range(torch.from_numpy(values).permute(2, 0, 1).contiguous())
    if not isinstance(picture, str | os.PathLike):
        raise DataError(
            f"a path, an array or a tensor expected, not {type(picture).__name__}; an array of a picture of Pillow is "
            'np.asarray(picture.convert("RGB"))'
        )
    return to_tensor(read_image(Path(picture)))


def _in_range(image: torch.Tensor) -> torch.Tensor:
    if not bool(((image > -1e-3) & (image < 1 + 1e-3)).all()):  # NaN fails too; filters overshoot a little
        raise DataError("floats in [0, 1] expected, the picture has others; divide it by its range or give uint8")
    return image


def create(matcher: str, settings: Any, where: str) -> Matcher:
    """Return a matcher with random weights, by plugin name and settings.

    Raises:
        ConfigError: if there is no such matcher, the settings are not its, or a package that it needs is not there.
    """
    plugin = MATCHERS.get(matcher)
    params = checked(settings, plugin.Params, where)
    try:
        return plugin(params)
    except ModuleNotFoundError as error:
        remedy = "install it with `pip install 'minima-pipeline[engines]'`"
        raise ConfigError(f"matcher {matcher} needs {error.name}; {remedy}") from None


def load_matcher(
    model: str | Path, device: str | torch.device = "cpu", *, precision: Precision = "float32", compiled: bool = False
) -> LoadedMatcher:
    """Return a matcher by MODEL: a model folder, a released or published name, or ``models:/NAME@ALIAS`` of MLflow.

    ``NAME=FILE`` is a published model with the weights in a file of the user's, in the form of the published ones.

    Args:
        model: MODEL.
        device: where it computes: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one; or a device of torch.
        precision: of the networks that match; half of it, on a GPU, takes less time and memory. Keypoints are found in
            float32: in bfloat16 a third of XFeat's are others.
        compiled: by torch.compile, at the first pair: up to minutes, which only many pairs pay back.

    Raises:
        ConfigError: if MODEL is none of these; names the closest published one. If there is no such precision, or the
            device is not there.
        DataError: if the model folder is damaged.
        WeightsError: if published weights cannot be had.
    """
    if precision not in get_args(Precision):
        raise ConfigError(unknown(str(precision), get_args(Precision), "the precisions"))
    device = torch_device(str(device))
    _check_device(device)
    loaded = _load(str(model), device)
    loaded.matcher.precision = precision
    if compiled:
        loaded.matcher.compile(dynamic=True)  # pairs differ in size
    return loaded


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
        there = device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
        torch.empty(0, device=device if there else "cpu")
    except (RuntimeError, AssertionError):  # of a name that torch does not know, and of what it was built without
        there = False
    if not there:
        raise ConfigError(f"no device {name!r} here; use auto, cpu, or cuda where torch finds a GPU")


def _load(name: str, device: str) -> LoadedMatcher:
    if not name.strip():
        raise ConfigError(f"no MODEL was given; it is a folder with {ModelCard.FILE}, or {_NAMES}")
    published, with_file, file = name.partition("=")
    if published in PUBLISHED_MODELS:
        plugin, settings = PUBLISHED_MODELS["minima-eloftr" if with_file and published == "eloftr" else published]
        matcher = create(plugin, settings, published)
        if with_file:
            if published not in NETWORKS:
                raise ConfigError(f"{published} takes no file; those that do are {', '.join(sorted(NETWORKS))}")
            with weights.given(NETWORKS[published], Path(file)):
                matcher.load_published()
            licence = "unknown"  # the file does not say
        else:
            licence = matcher.load_published().licence.name
        return LoadedMatcher(name, matcher.to(device).eval(), licence)
    if name.startswith(REGISTRY):
        with TemporaryDirectory() as downloaded:
            matcher, card = read_model(_from_registry(name, Path(downloaded)), device)
        return LoadedMatcher(name, matcher, card.licence, card)
    if name in SEMIDENSE:
        return _semidense(name, device)
    folder = RELEASED.get(name) or Path(name)
    if not folder.is_dir():
        hint = closest(name, [*RELEASED, *SEMIDENSE, *PUBLISHED_MODELS])
        raise ConfigError(f"no model '{name}'; {hint}MODEL is a folder with {ModelCard.FILE}, {_NAMES}")
    matcher, card = read_model(folder, device)
    return LoadedMatcher(name, matcher, card.licence, card)


def _semidense(name: str, device: str) -> LoadedMatcher:
    """Return a model of ``SEMIDENSE``."""
    published, released = SEMIDENSE[name]
    plugin, settings = PUBLISHED_MODELS[published]
    matcher = create(plugin, settings, name)
    card, path = _checked_files(RELEASED[released])
    with weights.given(NETWORKS[published], path):
        matcher.load_published()
    card = card.model_copy(update={"matcher": plugin, "params": settings})
    return LoadedMatcher(name, matcher.to(device).eval(), card.licence, card)


def save_model(folder: Path, matcher: Matcher, card: ModelCard) -> ModelCard:
    """Write a self-contained model folder, whole or not at all; return the card with the digest of what was written.

    Raises:
        DataError: if a weight is not finite.
    """
    state = matcher.state_dict()
    if bad := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
        raise DataError(f"{bad[0]} holds values that are not finite; the model was not saved")
    with whole_folder(folder, folder.with_name(f".{folder.name}.unfinished")) as unfinished:
        save_weights(unfinished / WEIGHTS, state)
        card = card.model_copy(update={"weights_sha256": file_sha256(unfinished / WEIGHTS)})
        card.save(unfinished)
    return card


def read_model(folder: Path, device: str = "cpu") -> tuple[Matcher, ModelCard]:
    """Return the matcher of a model folder, in evaluation mode, and its card.

    Raises:
        DataError: if a file is missing or damaged, or the weights are not those the card names.
    """
    card, path = _checked_files(folder)
    try:
        matcher = create(card.matcher, card.params, "params")
    except ConfigError as error:
        raise ConfigError(f"{folder / ModelCard.FILE}: {error}; it was edited, or made by another version") from None
    try:
        matcher.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DataError(f"{path} does not hold the weights of a {card.matcher}: {lines[-1]}; {REMEDY}") from None
    return matcher.to(device).eval(), card


def _checked_files(folder: Path) -> tuple[ModelCard, Path]:
    """Return the card and the weight file of a model folder, which is the one that the card names."""
    path = folder / WEIGHTS
    if not (folder / ModelCard.FILE).is_file():
        raise DataError(f"no {folder / ModelCard.FILE}; a model folder holds it and {WEIGHTS}, {folder} is none")
    try:
        card = ModelCard.load(folder)
    except DataError as error:  # not every user has the graph that it speaks of
        raise DataError(f"{str(error).removesuffix(ModelCard.REMEDY)}{REMEDY}") from None
    if not path.is_file():
        raise DataError(f"no {path}; {REMEDY}")
    if (got := file_sha256(path)) != card.weights_sha256:
        raise DataError(f"{path} has sha256 {got}, its card says {card.weights_sha256}; {REMEDY}")
    return card, path


def _registered() -> str:
    """Return what the registry holds, as names that may be asked for."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        models = MlflowClient().search_registered_models(max_results=20)
    except MlflowException as error:
        return f"unknown ({str(error).splitlines()[0]})"
    found = [f"{REGISTRY}{model.name}@{alias}" for model in models for alias in model.aliases]
    found += [f"{REGISTRY}{model.name}/{version.version}" for model in models for version in model.latest_versions]
    return ", ".join(found) or "none (run `make demo`, or `python -m flows.retrain`)"


def _from_registry(name: str, target: Path) -> Path:
    """Download a registered model into ``target`` and return the model folder inside it."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # hundreds of small files, in a moment
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise ConfigError(f"{name} needs mlflow; install it with `pip install 'minima-pipeline[pipeline]'`") from None
    # MLflow's own default spells a space in the path %20, and makes a folder of that name
    if not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        if not STORE.is_file():
            raise ConfigError(f"no {STORE} in {Path.cwd()}; run from the checkout, or set MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(f"sqlite:///{STORE.absolute()}")
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=name, dst_path=str(target)))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot load {name} from {mlflow.get_tracking_uri()}: {reason.rstrip('.')}; there are: {_registered()}"
        ) from None
    found = sorted(root.rglob(ModelCard.FILE))
    if not found:
        raise DataError(f"{name} holds no {ModelCard.FILE}; it was not registered by this project")
    return found[0].parent
