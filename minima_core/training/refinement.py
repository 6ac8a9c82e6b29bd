"""The refiner of matches trained: on keypoints of drawn views, each a slip away from where the other view shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch.nn import functional as F

from minima_core.errors import TrainingError
from minima_core.matchers.lightglue.matcher import LightGlue
from minima_core.matchers.lightglue.refiner import REACH, STRIDE, Refiner
from minima_core.tracking import Tracker
from minima_core.training.steps import Fitted
from minima_core.training.view_loop import Learner, ViewTraining, fit_views
from minima_core.training.views import Album, Batch

FARTHEST = STRIDE * (REACH - 1.0)  # pixels, of a slip that can be put right
SHARP = 1.2  # pixels, deviation of the target about the true place
NEAR = 0.3  # pixels within which the distance counts as its square
CHOICE = 0.3  # weight of the cross-entropy beside the distance


class RefinerTraining(ViewTraining):
    """Settings, ``refiner_training`` in params.yaml."""

    lr: Annotated[float, Field(gt=0)]
    points: Annotated[int, Field(gt=0)]  # of a view, drawn among its keypoints that the other view sees
    slip: tuple[float, float]  # pixels, between which the deviation of a match lies, along x and y


class Refinement(Learner):
    """The refiner of a LightGlue matcher, whose other parts stay as they are."""

    JUDGED = "distance"

    def __init__(self, matcher: LightGlue, params: RefinerTraining) -> None:
        super().__init__()
        if matcher.refiner is None:
            raise TrainingError("the model moves no matches: its setting `refine` is false")
        self.matcher, self.params = matcher, params
        self.matcher.network.requires_grad_(False)
        self.refiner = matcher.refiner

    @property
    def kept(self) -> Refiner:
        """The refiner."""
        return self.refiner

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the refiner alone."""
        super().train(False)
        self.refiner.train(mode)
        return self

    def groups(self) -> list[dict[str, Any]]:
        """Return the refiner's weights as one group."""
        return [{"params": list(self.refiner.parameters()), "initial_lr": self.params.lr}]

    def loss(self, batch: Batch, random: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean over pairs and directions of how far from the true place points are moved to.

        Its parts are ``distance``, a robust one in pixels, the ``choice`` of a cell, and the mean error in pixels of
        the points ``before`` and ``after``.
        """
        pairs = len(batch.T_0to1)
        with self.params.computing(batch.views.device):
            maps = self.refiner.describe(batch.views.mean(1, keepdim=True)).unbind()
            distances, choices, befores, afters = [], [], [], []
            for b, side, kpts, places, away in self._off(batch, random):
                logits = self.refiner(maps[b + side * pairs], maps[b + (1 - side) * pairs], kpts, places)
                error = (self.refiner.offsets(logits) - away).norm(dim=-1)
                distances.append(((error.square() + NEAR**2).sqrt() - NEAR).mean())
                target = (-torch.cdist(away, self.refiner.moves).square() / (2 * SHARP**2)).softmax(-1)
                choices.append(F.cross_entropy(logits, target))
                befores.append(float(away.norm(dim=-1).mean()))
                afters.append(float(error.detach().mean()))
        if not distances:
            nothing = self.refiner.prior.sum() * 0
            return nothing, dict.fromkeys(("distance", "choice", "before", "after"), 0.0)
        distance, choice = torch.stack(distances).mean(), torch.stack(choices).mean()
        parts = {"distance": float(distance.detach()), "choice": float(choice.detach())}
        parts |= {"before": sum(befores) / len(befores), "after": sum(afters) / len(afters)}
        return distance + CHOICE * choice, parts

    def _off(
        self, batch: Batch, random: torch.Generator
    ) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield pair, side, (N, 2) keypoints of that side, points near their places in the other, and how far off."""
        pairs, (low, high) = len(batch.T_0to1), self.params.slip
        for k, view in enumerate(batch.views):
            side, b = divmod(k, pairs)
            kpts = self.matcher.extractor.extract(view, batch.keypoints).kpts.clone()  # out of inference mode
            there, seen = batch.of_pairs(b, 1).warp(kpts[None], side)
            deviation = torch.empty(len(kpts), 1).uniform_(low, high, generator=random)
            slip = (deviation * torch.randn(kpts.shape, generator=random)).to(kpts)
            chosen = torch.rand(len(kpts), generator=random).to(kpts) * (seen[0] & (slip.norm(dim=-1) < FARTHEST))
            best = chosen.argsort(descending=True, stable=True)[: self.params.points]
            best = best[chosen[best] > 0]
            if len(best):
                yield b, side, kpts[best], (there[0] + slip)[best], -slip[best]


def fit_refiner(
    matcher: LightGlue,
    album: Album,
    held_out: Album,
    params: RefinerTraining,
    *,
    seed: int,
    tracker: Tracker,
    scratch: Path,
) -> Fitted:
    """Train the refiner of ``matcher`` in place, as ``fit_views``.

    Raises:
        TrainingError: if the matcher has none, or as ``fit_views``.
    """
    refinement = Refinement(matcher, params).to(next(matcher.parameters()).device)
    return fit_views(refinement, album, held_out, params, seed=seed, tracker=tracker, scratch=scratch)
