"""XFeat and its LightGlue trained together, on pictures of one place in two modalities.

A modality made from a photograph lies on its pixels, so the extractor has a teacher that costs nothing: itself before
the training, looking at the photograph. It learns to find in every modality the keypoints that the teacher finds in
RGB, and to describe them as the teacher would, while a contrast between the two sides of a pair keeps descriptions
apart (InfoNCE, as XFeat's own training, arXiv 2404.19174 section 3.3). RGB pictures are among what it sees, so it
stays what it was for them. LightGlue is trained on what the extractor finds at the moment, with the loss of
``matchers.lightglue.loss``, whose gradient reaches the descriptors.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch.nn import functional as F

from minima_core.errors import DataError
from minima_core.geometry.cells import CELL
from minima_core.matchers.lightglue.loss import deep_loss
from minima_core.matchers.lightglue.matcher import LightGlue
from minima_core.matchers.lightglue.network import Points, layers
from minima_core.supervision.reliability import reliability_loss
from minima_core.supervision.sparse import matches_from_places
from minima_core.tracking import Tracker
from minima_core.training.steps import Fitted
from minima_core.training.view_loop import Learner, ViewTraining, fit_views
from minima_core.training.views import Album, Batch

NMS, SURE = 5, 0.05  # XFeat's own: window and least value of a keypoint
NEAR = 8.0  # pixels within which two points are too alike to be told apart


class JointTraining(ViewTraining):
    """Settings, ``joint_training`` in params.yaml."""

    points: Annotated[int, Field(gt=1)]  # of a view, for the contrast of descriptors
    lr_extractor: Annotated[float, Field(gt=0)]
    lr_matcher: Annotated[float, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0)]  # of the contrast
    weights: dict[str, float]  # of the losses: keypoint, anchor, contrast, reliability, matcher
    learned_share: Annotated[float, Field(gt=0, le=1)]  # of the way from the teacher's weights to the trained ones


class Joint(Learner):
    """The student, a LightGlue matcher on XFeat, beside the teacher: an extractor that knows photographs."""

    JUDGED = "matcher"

    def __init__(self, matcher: LightGlue, params: JointTraining, teacher: LightGlue | None = None) -> None:
        super().__init__()
        if matcher.params.extractor != "xfeat":
            raise DataError(f"joint training is for the extractor xfeat, not {matcher.params.extractor}")
        self.matcher, self.params = matcher, params
        self.teacher = copy.deepcopy((teacher or matcher).extractor).freeze()
        matcher.extractor.net.requires_grad_(True)

    @property
    def kept(self) -> LightGlue:
        """The student."""
        return self.matcher

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, ``initial_lr`` of each is its rate at factor 1."""
        p = self.params
        xfeat: Any = self.matcher.extractor.net  # its parts have no types
        pairs = ((xfeat.net, p.lr_extractor), (self.matcher.network, p.lr_matcher))
        return [{"params": [w for w in part.parameters() if w.requires_grad], "initial_lr": lr} for part, lr in pairs]

    def loss(self, batch: Batch, random: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the weighted loss and its parts."""
        pairs, size = len(batch.T_0to1), batch.views.shape[-2:]
        student: Any = self.matcher.extractor.net
        teacher: Any = self.teacher.net
        with self.params.computing(batch.views.device):
            dense, logits, reliability = (some.float() for some in student.net(batch.views))
            with torch.no_grad():
                dense_rgb, logits_rgb, _ = (some.float() for some in teacher.net(batch.twins))
        dense, dense_rgb = F.normalize(dense, dim=1), F.normalize(dense_rgb, dim=1)
        seen = F.avg_pool2d(batch.inside.float(), CELL)[:, 0] == 1
        parts = {"keypoint": _keypoint_loss(logits, logits_rgb, seen)}
        parts["anchor"] = (1 - (dense * dense_rgb).sum(1))[seen].mean()

        points0 = self._likely(logits_rgb[:pairs], batch.inside[:pairs], random)
        points1, seen1 = batch.warp(points0, 0)
        points1 = points1.nan_to_num(nan=-1e4).clamp(-1e4, 1e4)
        desc0 = self._describe(dense[:pairs], points0, size)
        desc1 = self._describe(dense[pairs:], points1, size)
        parts["contrast"], right = _contrast(desc0, desc1, points1, seen1, self.params.temperature)
        trust0, trust1 = (
            student._bilinear(some, points, *size)[..., 0]
            for some, points in ((reliability[:pairs], points0), (reliability[pairs:], points1))
        )
        parts["reliability"] = (_trust_loss(trust0, right, seen1) + _trust_loss(trust1, right, seen1)) / 2
        matched, more = self._matcher_loss(batch, dense, logits, reliability)
        parts["matcher"] = matched
        total = torch.stack([self.params.weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: float(value.detach()) for name, value in parts.items()} | more

    def _likely(self, logits: torch.Tensor, inside: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Return (B, P, 2) pixels inside the views, drawn among those that the teacher thinks keypoints."""
        heat = self.teacher.net._get_kpts_heatmap(logits)  # type: ignore[operator]
        luck = torch.rand(heat.shape, generator=random).to(heat.device)
        return _places((heat + 1e-4) * inside * luck, self.params.points)[0]

    def _describe(self, dense: torch.Tensor, points: torch.Tensor, size: torch.Size) -> torch.Tensor:
        found = self.matcher.extractor.net.interpolator(dense, points, *size)  # type: ignore[operator]
        return F.normalize(found, dim=-1)

    def _matcher_loss(
        self, batch: Batch, dense: torch.Tensor, logits: torch.Tensor, reliability: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return LightGlue's loss on the keypoints of both sides as inference would find them."""
        pairs, size = len(batch.T_0to1), batch.views.shape[-2:]
        with torch.no_grad():
            heat = self.matcher.extractor.net._get_kpts_heatmap(logits)  # type: ignore[operator]
            rows = F.max_pool2d(heat, (1, NMS), 1, (0, NMS // 2))  # one way, then the other: less work than a square
            peak = (heat == F.max_pool2d(rows, (NMS, 1), 1, (NMS // 2, 0))) & (heat > SURE)
            trust = F.interpolate(reliability, size=heat.shape[-2:], mode="bilinear", align_corners=False)
            kpts, scores = _places(heat * trust * peak * batch.inside, batch.keypoints)
        # one place more, always padding: where any place is, LightGlue's masked attention needs one a side
        kpts, mask = F.pad(kpts, (0, 0, 0, 1)), F.pad(scores > 0, (0, 1))
        desc = self._describe(dense, kpts, size)
        shape = kpts.new_tensor([size[1], size[0]]).expand(len(kpts), 2)
        sides = [Points(kpts[s], desc[s], shape[s], mask[s]) for s in (slice(0, pairs), slice(pairs, None))]
        targets0, targets1 = matches_from_places(
            sides[0].kpts,
            sides[1].kpts,
            sides[0].mask,
            sides[1].mask,
            warped0=batch.warp(sides[0].kpts, 0)[0],
            warped1=batch.warp(sides[1].kpts, 1)[0],
            size=(size[1], size[0]),
        )
        net = self.matcher.network
        masks = (sides[0].mask, sides[1].mask)
        with self.params.computing(desc.device):
            total, last, (decided0, _) = deep_loss(net, layers(net, *sides), masks, targets0, targets1)
        true = targets0 >= 0
        right = (true & (decided0 == targets0)).sum()
        more = {
            "recall": float(right / true.sum().clamp(min=1)),
            "repeated": float(true.sum() / sides[0].mask.sum().clamp(min=1)),
            "nll": float(last["nll"].detach().mean()),
        }
        return total.mean(), more


def _places(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (N, count, 2) pixels and (N, count) values of the largest of (N, 1, H, W) values."""
    best, where = values.flatten(1).topk(count, dim=1)
    return torch.stack([where % values.shape[3], where // values.shape[3]], -1).to(values.dtype), best


def _keypoint_loss(logits: torch.Tensor, teacher: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return the divergence from the teacher's 65-way choice a cell; cells where it sees a keypoint count more."""
    target = F.softmax(teacher, 1)
    divergence = (target * (F.log_softmax(teacher, 1) - F.log_softmax(logits, 1))).sum(1)
    weight = (1.1 - target[:, 64]) * seen
    return (weight * divergence).sum() / weight.sum().clamp(min=1e-6)


def _contrast(
    desc0: torch.Tensor, desc1: torch.Tensor, points1: torch.Tensor, seen: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of telling each point's partner from the others, both ways, and (B, P) whether it was told.

    Points that lie within ``NEAR`` pixels of each other are no negatives of each other.
    """
    sim = desc0 @ desc1.mT / temperature
    itself = torch.eye(sim.shape[1], dtype=torch.bool, device=sim.device)
    near = (torch.cdist(points1, points1) < NEAR) & ~itself
    sim = sim.masked_fill(near | ~(seen[:, :, None] & seen[:, None, :] | itself), -1e4)
    target = torch.arange(sim.shape[1], device=sim.device).expand(len(sim), -1)
    each = (F.cross_entropy(sim.mT, target, reduction="none") + F.cross_entropy(sim, target, reduction="none")) / 2
    with torch.no_grad():
        right = (sim.argmax(1) == target) & (sim.argmax(2) == target)
    return (each * seen).sum() / seen.sum().clamp(min=1), right


def _trust_loss(trust: torch.Tensor, right: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return how far the (B, P) reliabilities are from saying which points were told from the others."""
    each = reliability_loss(trust, right.float())
    return (each * seen).sum() / seen.sum().clamp(min=1)


def fit_joint(
    matcher: LightGlue,
    album: Album,
    held_out: Album,
    params: JointTraining,
    *,
    seed: int,
    tracker: Tracker,
    scratch: Path,
    teacher: LightGlue | None = None,
) -> Fitted:
    """Train ``matcher`` and its extractor in place, as ``fit_views``; ``teacher`` is by default the matcher as it is.

    Raises:
        DataError: if the extractor is not XFeat.
        TrainingError: as ``fit_views``.
    """
    joint = Joint(matcher, params, teacher).to(next(matcher.parameters()).device)
    fitted = fit_views(joint, album, held_out, params, seed=seed, tracker=tracker, scratch=scratch)
    matcher.extractor.freeze()
    return fitted
