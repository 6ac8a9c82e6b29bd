"""How results are made comparable: named, frozen settings of matching and scoring, known by their digest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from minima_core.config import Section, digest, unknown
from minima_core.errors import ConfigError


class Matching(Section):
    """What decides the matches; predictions carry the digest of this part alone, so new thresholds need no new ones.

    ``resize`` says how images come to their size. ``antialiased``: once, by the matcher, with its half-pixel rule.
    ``upstream``: as the method's authors do it (spec/evaluation.md section 2): without antialiasing, both sides floored
    to multiples of 8, sparse matchers enlarge the result to ``sparse_long_side``, and matches are multiplied back.
    """

    resize: Literal["antialiased", "upstream"]
    long_side: int = Field(gt=0)  # images are resized to this, both up and down
    sparse_long_side: int | None = Field(gt=0)  # a second size for matchers of keypoints; None: there is none
    max_keypoints: int | None = Field(gt=0)  # None: the model's own


class PoseLib(Section):
    """poselib's LO-RANSAC with nothing left to chance."""

    estimator: Literal["poselib"]
    threshold: float = Field(gt=0)  # pixels of the original images
    confidence: float = Field(gt=0, lt=1)
    min_iterations: int = Field(ge=1)
    max_iterations: int = Field(ge=1)
    min_matches: int = Field(ge=4)  # fewer are a failure
    seed: int

    def options(self) -> dict[str, Any]:
        """Return what poselib's estimators share; the threshold's name differs between them."""
        return {
            "success_prob": self.confidence,
            "min_iterations": self.min_iterations,
            "max_iterations": self.max_iterations,
            "seed": self.seed,
            "progressive_sampling": False,
        }


class OpenCv(Section):
    """OpenCV's plain RANSAC, which the published figures were made with."""

    estimator: Literal["opencv"]
    threshold: float = Field(gt=0)  # pixels of the original images
    confidence: float = Field(gt=0, lt=1)
    max_iterations: int = Field(ge=1)
    min_matches: int = Field(ge=4)
    seed: Literal[0]  # not ours to choose: its generator begins alike at every call


Ransac = Annotated[PoseLib | OpenCv, Field(discriminator="estimator")]


class Protocol(Section):
    """All settings between two images and a number."""

    name: str
    matching: Matching
    pose: Ransac
    pose_thresholds: tuple[float, ...]  # degrees
    homography: Ransac
    homography_thresholds: tuple[float, ...]  # pixels
    corner_error: Literal["strict", "reordered"]  # each corner against itself, or both quadrilaterals sorted first
    aggregation: Literal["macro", "pooled"]

    def digest(self) -> str:
        """Return the sha256 that results are stored with (``protocol_hash``)."""
        return digest(self)


# A published protocol never changes; a different setting is a new name here.
PROTOCOLS = {
    # The authors' scripts with their quirks, for figures that stand beside the published ones (spec/evaluation.md).
    "minima-v1": Protocol(
        name="minima-v1",
        matching=Matching(resize="upstream", long_side=640, sparse_long_side=1024, max_keypoints=None),
        pose=OpenCv(estimator="opencv", threshold=0.5, confidence=0.99999, max_iterations=1000, min_matches=5, seed=0),
        pose_thresholds=(5.0, 10.0, 20.0),
        homography=OpenCv(
            estimator="opencv", threshold=3.0, confidence=0.995, max_iterations=2000, min_matches=4, seed=0
        ),
        homography_thresholds=(3.0, 5.0, 10.0),
        corner_error="reordered",
        aggregation="macro",
    ),
    # Ours: nothing hidden, a better estimator, hence less noise in the figures.
    "strict-v1": Protocol(
        name="strict-v1",
        matching=Matching(resize="antialiased", long_side=640, sparse_long_side=None, max_keypoints=None),
        pose=PoseLib(
            estimator="poselib",
            threshold=1.0,
            confidence=0.9999,
            min_iterations=1000,
            max_iterations=10_000,
            min_matches=5,
            seed=0,
        ),
        pose_thresholds=(5.0, 10.0, 20.0),
        homography=PoseLib(
            estimator="poselib",
            threshold=3.0,
            confidence=0.9999,
            min_iterations=1000,
            max_iterations=100_000,
            min_matches=4,
            seed=0,
        ),
        homography_thresholds=(3.0, 5.0, 10.0),
        corner_error="strict",
        aggregation="macro",
    ),
}


class Evaluation(Section):
    """Settings of the stages match and score, ``evaluation.<benchmark>`` in params.yaml."""

    protocol: str


def get_protocol(name: str, *, max_keypoints: int | None = None) -> Protocol:
    """Return a protocol by name; ``max_keypoints`` overrides the model's own and thereby changes the digest.

    Raises:
        ConfigError: if there is no such protocol, or ``max_keypoints`` is not positive.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol: {unknown(name, PROTOCOLS, 'minima_core.evaluation.protocol')}")
    protocol = PROTOCOLS[name]
    if max_keypoints is None:
        return protocol
    if max_keypoints < 1:
        raise ConfigError(f"max_keypoints must be at least 1, not {max_keypoints}")
    matching = protocol.matching.model_copy(update={"max_keypoints": max_keypoints})
    return protocol.model_copy(update={"matching": matching})
