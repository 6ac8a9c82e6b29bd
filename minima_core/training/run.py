"""A whole training from files: sources, samples, loop; what pre-training and fine-tuning share."""

from __future__ import annotations

import math
from pathlib import Path

from minima_core.config import digest
from minima_core.data.index import index_digest
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import epoch_items, used_modalities, validation_items
from minima_core.errors import ConfigError, DataError, TrainingError
from minima_core.io.atomic import write_json
from minima_core.manifest import CURVES, Certificate, Split, folder_digest
from minima_core.matchers.base import Matcher
from minima_core.provenance import code_digest
from minima_core.tracking import Tracker
from minima_core.training.distributed import group
from minima_core.training.loop import TrainingParams, fit
from minima_core.training.steps import Fitted


def training_code(matcher: str) -> str:
    """Return the digest of the code that decides what a training ends with: no other code continues its checkpoints."""
    parts = ("training", "supervision", "data", "geometry", "io", "random.py", "types.py")
    return code_digest(*parts, "matchers/base.py", "matchers/_semidense.py", f"matchers/{matcher}")


def certified(certificate: Path, index: Path, modalities: Path | None = None) -> Certificate:
    """Return the certificate of an index and, where given, of the modalities; there is no training without one.

    Raises:
        DataError: if there is none.
        TrainingError: if it was given to other data.
    """
    found = Certificate.load(certificate)
    if found.index_digest != index_digest(index):
        raise TrainingError(f"{certificate / Certificate.FILE} certifies other data than {index}; {Certificate.REMEDY}")
    if modalities is None:
        return found
    for name in found.modalities:
        if not (modalities / name).is_dir() or found.digests.get(name) != folder_digest(modalities / name):
            raise TrainingError(
                f"{modalities / name} is not what {certificate / Certificate.FILE} certifies; {Certificate.REMEDY}"
            )
    return found


def save_curves(model: Path, fitted: Fitted) -> None:
    """Write the curves beside the model, by name as [step, value]; what is not finite is left out."""
    finite = {name: [point for point in curve if math.isfinite(point[1])] for name, curve in fitted.curves.items()}
    write_json(model / CURVES, finite)


def train(
    matcher: Matcher,
    params: TrainingParams,
    *,
    index: Path,
    raw: Path,
    modalities: Path | None,
    names: list[str],
    seed: int,
    workers: int,
    cache: Path,
    scratch: Path,
    tracker: Tracker,
) -> Fitted:
    """Train ``matcher`` in place on the train split, with the val split telling which of its weights are best.

    Args:
        matcher: with the weights to start from.
        params: the settings.
        index: folder of the pair index.
        raw: folder of the raw scenes.
        modalities: folder of the synthesised modalities; None where only RGB pairs are wanted.
        names: modalities to draw beside RGB, where the strategy of ``params`` takes no fewer.
        seed: of the sampler.
        workers: how many images are worked on at a time; changes nothing in the result.
        cache: where features of a frozen extractor are kept.
        scratch: folder of the checkpoints, belonging to exactly these arguments; the caller removes it.
        tracker: gets the curves.

    Raises:
        ConfigError: if a modality was asked for that is not among ``names``, or to move images of kept keypoints.
        DataError: if a split has no pair to train or validate on.
        TrainingError: if too many steps are not finite.
    """
    if matcher.sparse and params.pairs.augment is not None:
        raise ConfigError(
            "pairs.augment in params.yaml: the keypoints of a frozen extractor are found once, in images as they are; "
            "set it to null"
        )
    names = used_modalities(params.pairs.modalities, names)

    def source(split: Split) -> PairSource:
        found = PairSource(index, raw, modalities, split=split, names=names)
        if not len(found):
            raise DataError(f"{index} has no {split} pair; give `dataset` in params.yaml more scenes or frames")
        return found

    learn, check = source("train"), source("val")
    fixed = validation_items(check, params.pairs, seed=seed, count=params.validation_samples)
    if not fixed:
        raise DataError(
            f"{index} has no val pair with overlap above {params.pairs.overlap[0]}; lower it in params.yaml"
        )
    with group().leader_first():  # it fills the cache
        data, check_data = (
            matcher.training_data(pairs, max_keypoints=params.max_keypoints, cache=cache, workers=workers)
            for pairs in (learn, check)
        )
    scratch = scratch / digest([data.key, check_data.key])[:16]
    try:
        return fit(
            matcher,
            data,
            lambda epoch: epoch_items(learn, params.pairs, seed=seed, epoch=epoch),
            (check_data, fixed),
            params,
            tracker=tracker,
            scratch=scratch,
        )
    finally:
        data.close()
        check_data.close()
