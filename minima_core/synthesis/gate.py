"""The geometric quality gate: an image that does not show its source's structure at its place is not let through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

import cv2
import numpy as np
from omegaconf import OmegaConf
from pydantic import Field as Setting

from minima_core.checks.structure import Agreement, Field, agreement, depth_fields, image_field
from minima_core.config import Section, checked
from minima_core.random import rng as generator
from minima_core.synthesis.base import Engine, Rendition, Source

COARSE, FINE = 160, 320  # longer side of the fields that are compared: first glance, and where that leaves doubt
USUAL = 640  # pixels; the offset allowed is that of a picture of this width
SYMMETRIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
}
# finds the matches of two (H, W, 3) uint8 images: (N, 2) points in each
Match = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Params(Section):
    """Settings of the gate, ``gate`` in params.yaml.

    ``sure``: agreement at a first glance that needs no second; ``score``: least agreement, in deviations of the
    correlation around its peak (a wrong image has 1 to 4); ``offset``: farthest that the peak may lie from zero shift,
    in pixels of a picture of up to 640 pixels, and more of a wider one; ``retries``: attempts after the first.
    """

    sure: float
    score: float
    offset: Annotated[float, Setting(gt=0)]
    retries: Annotated[int, Setting(ge=0)]


def shipped() -> Params:
    """Return the shipped settings, for users without a params.yaml."""
    text = (resources.files("minima_core.synthesis") / "gate.yaml").read_text(encoding="utf-8")
    return checked(OmegaConf.to_container(OmegaConf.create(text)), Params, "gate.yaml")


@dataclass(frozen=True)
class Verdict:
    """What the gate says of an image.

    Attributes:
        reason: why it is refused; "" where it passes.
        score: agreement with its source, None where there is too little structure to say.
    """

    reason: str = ""
    score: float | None = None


class Gate:
    """Judges renditions of one source; what it needs of the source is computed once for all attempts.

    ``match``, where given, is of a matcher that can read the modality; it is asked about what has passed so far.
    """

    def __init__(self, params: Params, source: Source, match: Match | None = None) -> None:
        self.params = params
        self.source = source
        self.match = match
        self._fields: dict[int, list[Field]] = {}

    def judge(self, image: np.ndarray) -> Verdict:
        """Return the verdict on an (H, W, 3) uint8 rendition.

        Edge orientations of the rendition are correlated with those of the photograph and of its depth, where known:
        the peak must stand out and lie at zero shift, and no mirror image of the rendition may agree better. Pictures
        whose sides are all below 320 pixels hold too little for that; of them only blank ones are refused. A matcher
        must find a known warp of the rendition as near to its place as the peak has to lie.
        """
        limit = self.params.offset * max(1.0, max(image.shape[:2]) / USUAL)
        found = self._correlated(image, limit)
        if found.reason or self.match is None:
            return found
        error = matcher_error(self.match, self.source.image, image, generator(0, self.source.name, "gate"))
        if error <= limit:
            return found
        place = f"{error:.0f} px from its place" if np.isfinite(error) else "nowhere in its source"
        return Verdict(f"found by the matcher {place}", found.score)

    def _correlated(self, image: np.ndarray, limit: float) -> Verdict:
        """Return the verdict by correlation alone, whose peak may lie up to ``limit`` pixels from zero shift."""
        if max(image.shape[:2]) < FINE:
            return self._flat(image)
        glance = image_field(image, COARSE)
        for source in self._source(COARSE):  # the photograph first: its field costs least
            found = agreement(source, glance)
            if found is not None and found.score >= self.params.sure and found.offset <= limit:
                return Verdict("", found.score)
        found = self._best(image, limit)
        if found is None:
            return self._flat(image)
        if found.score < self.params.score:
            return Verdict(f"another structure than its source (agreement {found.score:.1f})", found.score)
        if found.offset > limit:
            return Verdict(f"shifted by {found.offset:.0f} px from its source", found.score)
        if found.score >= self.params.sure:
            return Verdict("", found.score)
        for what, warp in SYMMETRIES.items():
            other = self._best(np.ascontiguousarray(warp(image)), limit)
            if other is not None and other.offset <= limit and other.score > found.score:
                return Verdict(what, found.score)
        return Verdict("", found.score)

    def _best(self, image: np.ndarray, limit: float) -> Agreement | None:
        """Return the agreement with that side of the source which the rendition follows best; None where flat.

        A side that it follows at its place (within ``limit`` pixels) counts more than one that it seems to follow
        elsewhere: long parallel edges agree with each other at a distance, too.
        """
        own = image_field(image, FINE)
        found = [a for source in self._source(FINE) if (a := agreement(source, own)) is not None]
        return max(found, key=lambda a: (a.offset <= limit and a.score >= self.params.score, a.score), default=None)

    def _source(self, side: int) -> Iterator[Field]:
        """Yield the fields of the photograph and of its depth, each made when it is first asked for."""
        known = self._fields.setdefault(side, [])
        if not known:
            known.append(image_field(self.source.image, side))
        yield known[0]
        if len(known) == 1 and self.source.depth is not None:
            known += depth_fields(self.source.depth, side)
        yield from known[1:]

    def _flat(self, image: np.ndarray) -> Verdict:
        """Return the verdict on an image that cannot be compared: blank, or rightly as flat as its source."""
        blank = image_field(image, COARSE).energy == 0
        structured = all(field.energy > 0 for field in self._source(COARSE))
        return Verdict("blank, but its source has structure" if blank and structured else "")


@dataclass(frozen=True)
class Judged:
    """A rendition after the gate: the last one made, what the gate says of it, and which attempt it was."""

    rendition: Rendition
    verdict: Verdict
    attempt: int

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of a rendition that passed: what was drawn, at which attempt, and how well it agrees."""
        judged = {} if self.verdict.score is None else {"agreement": round(self.verdict.score, 2)}
        return {**self.rendition.drawn, "attempt": self.attempt, **judged}

    @property
    def refused(self) -> str:
        """Why every attempt was refused, and how many there were; "" for an image that passed."""
        if not self.verdict.reason:
            return ""
        return f"{self.verdict.reason}; {self.attempt + 1} attempts" if self.attempt else self.verdict.reason


def judge(
    engine: Engine,
    source: Source,
    first: Rendition,
    params: Params,
    *,
    seed: int,
    modality: str,
    match: Match | None = None,
) -> Judged:
    """Return an image after the gate; one that is refused is made again with another seed, as often as allowed.

    Args:
        engine: that made it.
        source: that it was made from.
        first: the first attempt.
        params: the gate's settings.
        seed: the project's seed.
        modality: what was made.
        match: of a matcher that is to be asked, too; see ``Gate``.
    """
    gate = Gate(params, source, match)
    found = Judged(first, gate.judge(first.image), 0)
    while found.verdict.reason and engine.seeded and found.attempt < params.retries:
        attempt = found.attempt + 1
        made = engine.synthesise(source, seed=seed, modality=modality, attempt=attempt)
        found = Judged(made, gate.judge(made.image), attempt)
    return found


def matcher_error(match: Match, source: np.ndarray, image: np.ndarray, rng: np.random.Generator) -> float:
    """Return how far a matcher's homography between a source and its warped rendition is from the warp, in pixels.

    A second opinion beside the correlation, for modalities that the matcher can read: the rendition is warped by a
    drawn homography, matched to the source, and the mean distance of the four corners from where the warp takes them is
    returned; inf where there are too few matches for a homography.

    Args:
        match: finds matches.
        source: (H, W, 3) uint8.
        image: (H, W, 3) uint8 rendition.
        rng: draws the warp: each corner moves by up to a tenth of the sides.
    """
    height, width = source.shape[:2]
    square = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    moved = (square + rng.uniform(-0.1, 0.1, (4, 2)) * (width, height)).astype(np.float32)
    H_0to1 = cv2.getPerspectiveTransform(square, moved)
    mkpts0, mkpts1 = match(source, cv2.warpPerspective(image, H_0to1, (width, height), borderMode=cv2.BORDER_REFLECT))
    if len(mkpts0) < 4:
        return float("inf")
    found, _ = cv2.findHomography(mkpts0.astype(np.float32), mkpts1.astype(np.float32), cv2.USAC_MAGSAC, 3.0)
    if found is None:
        return float("inf")
    return float(np.linalg.norm(cv2.perspectiveTransform(square[None], found)[0] - moved, axis=1).mean())
