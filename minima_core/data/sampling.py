"""Which pairs an epoch visits, in which modalities and how moved: functions of seed, epoch and pair alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from minima_core.config import Section, unknown
from minima_core.data.augment import Augment, Moves, draw
from minima_core.data.pairs import PairSource
from minima_core.errors import ConfigError, DataError
from minima_core.random import rng
from minima_core.types import RGB

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One training sample: a pair of a source, the modality of each side, and how its images are moved, if they are."""

    pair: int
    modality0: str
    modality1: str
    moves: Moves | None = None


class RandomModalities(Section):
    """One side at most is not RGB: the paper's way (spec/training.md section 2)."""

    strategy: Literal["random"]
    rgb_share: Annotated[float, Field(ge=0, le=1)] | None = None  # of RGB pairs; null: as many as of every modality


class RgbOnly(Section):
    """Both sides are RGB."""

    strategy: Literal["rgb_only"]


class SingleModality(Section):
    """As ``random``, of one modality alone."""

    strategy: Literal["single"]
    modality: str


class SubsetOfModalities(Section):
    """As ``random``, of some modalities."""

    strategy: Literal["subset"]
    modalities: Annotated[list[str], Field(min_length=1)]


class AnyPair(Section):
    """Each side is drawn by itself, evenly from RGB and all modalities, so that pairs may have no RGB side."""

    strategy: Literal["any_pair"]


Modalities = Annotated[
    RandomModalities | RgbOnly | SingleModality | SubsetOfModalities | AnyPair, Field(discriminator="strategy")
]


def used_modalities(strategy: Modalities, names: Sequence[str]) -> list[str]:
    """Return which of ``names`` a strategy draws from.

    Raises:
        ConfigError: if it asks for others.
    """
    match strategy:
        case RgbOnly():
            return []
        case SingleModality(modality=one):
            asked = [one]
        case SubsetOfModalities(modalities=some):
            asked = some
        case _:
            return list(names)
    for name in asked:
        if name not in names:
            raise ConfigError(f"pairs.modalities in params.yaml: {unknown(name, names, 'the certified modalities')}")
    return asked


class PairSampling(Section):
    """How an epoch's pairs are drawn (spec/datasets.md section 4)."""

    per_scene: Annotated[int, Field(gt=0)]  # pairs of a scene and epoch
    overlap: tuple[float, float]  # of the pairs, above the first and up to the second
    bins: Annotated[int, Field(gt=0)]  # of equal width over that range, drawn from equally
    repeats: Annotated[int, Field(gt=0)]  # visits of a drawn pair, each in modalities of its own
    modalities: Modalities
    augment: Augment | None  # null: images stay as they are; for matchers that look at whole images


def modality_pair(names: Sequence[str], strategy: Modalities, *, seed: int, epoch: int, sample: int) -> tuple[str, str]:
    """Return the modalities of a sample's two sides; but for ``any_pair``, at most one of them is not RGB.

    One of ``names``, which are those that the strategy uses, and RGB is drawn evenly and takes one side, drawn evenly:
    of n names an RGB pair comes with probability 1 / (n + 1), every other (modality, side) with half of that; or an RGB
    pair with ``rgb_share`` of ``random``, where it is set. With ``any_pair`` all (n + 1)^2 pairs are equally probable.
    """
    others = [name for name in names if name != RGB]
    generator = rng(seed, "modality", epoch, sample)
    share = strategy.rgb_share if isinstance(strategy, RandomModalities) else None
    listed = [RGB, *others]
    if share is not None and others:
        listed = [RGB] if generator.random() < share else others
    name = listed[int(generator.integers(len(listed)))]
    if isinstance(strategy, AnyPair):
        return name, listed[int(generator.integers(len(listed)))]
    return (name, RGB) if generator.integers(2) else (RGB, name)


def sample_pairs(overlap: np.ndarray, settings: PairSampling, generator: np.random.Generator) -> np.ndarray:
    """Return indices into (M,) ``overlap``: an equal number from every overlap bin, without replacement.

    A bin counts if it holds twice its share of pairs. Where none does (small scenes, on which the reference fails), the
    pairs in range are drawn from evenly; where none is in range, those above its lower end.
    """
    low, high = settings.overlap
    edges = np.linspace(low, high, settings.bins + 1)
    share = settings.per_scene // settings.bins
    members = [np.flatnonzero((overlap > a) & (overlap <= b)) for a, b in pairwise(edges)]
    pools = [bin_ for bin_ in members if share and len(bin_) >= 2 * share] or [np.concatenate(members)]
    if not len(pools[0]):
        pools = [np.flatnonzero(overlap > low)]
    each = settings.per_scene // len(pools)
    return np.concatenate([generator.choice(pool, min(each, len(pool)), replace=False) for pool in pools])


def epoch_items(source: PairSource, settings: PairSampling, *, seed: int, epoch: int) -> list[Item]:
    """Return an epoch's samples, shuffled; those whose image an engine failed on are left out.

    A scene is drawn in the modalities that it can give; one that can give none of those that are used is left out.

    Raises:
        ConfigError: if the strategy asks for a modality that the source does not offer.
        DataError: if no scene can give any of those modalities, or has a pair with enough overlap.
    """
    used = used_modalities(settings.modalities, source.names)
    if used and not any(source.offers(scene, name) for scene in source.scenes for name in used):
        raise DataError(
            f"no {source.split} scene of {source.index} can give {' or '.join(used)}; name other modalities in "
            "pairs.modalities in params.yaml"
        )
    items = []
    for s, scene in enumerate(source.scenes):
        names = [name for name in used if source.offers(scene, name)]
        if used and not names:
            continue
        drawn = sample_pairs(scene.overlap, settings, rng(seed, "pairs", epoch, scene.name))
        for k in source.first(s) + np.sort(drawn):
            for repeat in range(settings.repeats):
                sample = int(k) * settings.repeats + repeat
                drawn_as = modality_pair(names, settings.modalities, seed=seed, epoch=epoch, sample=sample)
                moves = draw(settings.augment, rng(seed, "augment", epoch, sample)) if settings.augment else None
                item = Item(int(k), *drawn_as, moves)
                if _exists(source, item):
                    items.append(item)
    if not items:
        raise DataError(
            f"{source.index} has no {source.split} pair with overlap above {settings.overlap[0]}; check `dataset` and "
            "`overlap` in params.yaml"
        )
    order = rng(seed, "order", epoch).permutation(len(items))
    return [items[n] for n in order]


def validation_items(source: PairSource, settings: PairSampling, *, seed: int, count: int) -> list[Item]:
    """Return about ``count`` fixed samples: the same pairs in every modality, on alternating sides, RGB pairs too."""
    pairs = np.concatenate(
        [
            source.first(s) + np.sort(sample_pairs(scene.overlap, settings, rng(seed, "validation", scene.name)))
            for s, scene in enumerate(source.scenes)
        ]
        or [np.zeros(0, np.int64)]
    )
    names = [RGB, *source.names]
    kept = rng(seed, "validation").permutation(pairs)[: max(1, count // len(names))]
    items = [
        Item(int(k), *((name, RGB) if (n + m) % 2 else (RGB, name)))
        for n, k in enumerate(np.sort(kept))
        for m, name in enumerate(names)
    ]
    return [item for item in items if _exists(source, item)]


def _exists(source: PairSource, item: Item) -> bool:
    scene, pair = source.locate(item.pair)
    i, j = (int(n) for n in scene.pairs[pair])
    return source.has(scene, i, item.modality0) and source.has(scene, j, item.modality1)


def batches(epochs: Iterator[list[Item]], size: int) -> Iterator[list[Item]]:
    """Yield batches of ``size`` without end; the rest of an epoch that fills no batch is dropped."""
    for items in epochs:
        if len(items) < size:
            logger.warning("an epoch has %d samples, fewer than a batch of %d", len(items), size)
            yield items
        for start in range(0, len(items) - size + 1, size):
            yield items[start : start + size]
