"""How results are made comparable: named, frozen settings of matching and scoring, known by their digest."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from minima_core.config import Section, digest, unknown
from minima_core.errors import ConfigError


class Matching(Section):
    """What decides the matches; predictions carry the digest of this part alone, so new thresholds need no new ones.

    ``resize`` says how images come to their size. ``antialiased``: once, by the matcher, with its half-pixel rule.
    ``upstream``: as the method's authors do it (spec/evaluation.md section 2): without antialiasing, both sides floored
    to multiples of 8, files read gray for networks that see gray; sparse matchers enlarge the result to
    ``sparse_long_side``, and matches are multiplied back.
    ``upstream_once``: likewise, but sparse matchers get the original at ``sparse_long_side``, as for MegaDepth-1500.
    """

    resize: Literal["antialiased", "upstream", "upstream_once"]
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


CornerError = Literal["strict", "reordered", "reordered_inverse", "reordered_swapped"]
Ransac = Annotated[PoseLib | OpenCv, Field(discriminator="estimator")]


class Protocol(Section):
    """All settings between two images and a number.

    ``corner_error`` is ``strict``: each corner of image 0 against itself, or as published, both quadrilaterals sorted
    first: ``reordered`` (corners of image 0 in image 1), ``reordered_inverse`` (corners of image 1 taken back by the
    inverses, DIODE) or ``reordered_swapped`` (H is estimated from 1 to 0 and inverted, DSEC). ``aggregation`` is the
    mean over categories (``macro``), of all pairs (``pooled``), or over groups of categories (``groups``).
    """

    name: str
    matching: Matching
    pose: Ransac
    pose_thresholds: tuple[float, ...]  # degrees
    homography: Ransac
    homography_thresholds: tuple[float, ...]  # pixels
    corner_error: CornerError
    aggregation: Literal["macro", "pooled", "groups"]

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


# What the published scripts do otherwise on one benchmark (spec/evaluation.md section 4).
_POOLED = {"aggregation": "pooled"}
AS_PUBLISHED: dict[str, dict[str, Any]] = {
    "metu_vistir": {"pose": {"threshold": 1.5}, "aggregation": "groups"},
    "megadepth_1500": {
        "matching": {"resize": "upstream_once", "long_side": 1200, "sparse_long_side": 1600},
        **_POOLED,
    },
    "megadepth_1500_syn": {"aggregation": "groups"},
    "diode_depth": {"corner_error": "reordered_inverse", **_POOLED},
    "diode_normal": {"corner_error": "reordered_inverse", **_POOLED},
    "dsec": {"corner_error": "reordered_swapped", **_POOLED},
}
LEAST_SIDE = 64  # pixels; smaller images show nothing to match
# The other estimator of a protocol, for sweeps: what it is when it is asked for by name.
OTHER_ESTIMATORS: dict[str, tuple[Ransac, Ransac]] = {
    "poselib": (PROTOCOLS["strict-v1"].pose, PROTOCOLS["strict-v1"].homography),
    "opencv": (
        OpenCv(estimator="opencv", threshold=1.0, confidence=0.9999, max_iterations=10_000, min_matches=5, seed=0),
        OpenCv(estimator="opencv", threshold=3.0, confidence=0.9999, max_iterations=10_000, min_matches=4, seed=0),
    ),
}


class Sweep(Section):
    """In which other ways the same predictions are scored: both estimators, each threshold, each seed."""

    thresholds: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(min_length=1)  # pixels
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.thresholds)) < len(self.thresholds) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a threshold or seed is there twice")
        return self


class Evaluation(Section):
    """How one benchmark is drawn, matched and scored, ``evaluation.<benchmark>`` in params.yaml."""

    protocol: str
    sweep: Sweep | None  # beside the protocol's own figure; None: that alone


def get_protocol(
    name: str, benchmark: str = "", *, max_keypoints: int | None = None, long_side: int | None = None
) -> Protocol:
    """Return a protocol by name, as it is for ``benchmark``; every override changes the digest.

    Args:
        name: of the protocol.
        benchmark: the published scripts differ in a few settings; "" leaves those of most.
        max_keypoints: instead of the model's own.
        long_side: that images are resized to for any matcher, instead of the protocol's.

    Raises:
        ConfigError: if there is no such protocol, or an override is too small.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol: {unknown(name, PROTOCOLS, 'minima_core.evaluation.protocol')}")
    if max_keypoints is not None and max_keypoints < 1:
        raise ConfigError(f"max_keypoints must be at least 1, not {max_keypoints}")
    if long_side is not None and long_side < LEAST_SIDE:
        raise ConfigError(f"long_side must be at least {LEAST_SIDE}, not {long_side}")
    protocol = PROTOCOLS[name]
    if name == "minima-v1":
        protocol = _changed(protocol, AS_PUBLISHED.get(benchmark, {}))
    changes: dict[str, Any] = {}
    if max_keypoints is not None:
        changes["max_keypoints"] = max_keypoints
    if long_side is not None:
        changes |= {"long_side": long_side, "sparse_long_side": None}
    return _changed(protocol, {"matching": changes}) if changes else protocol


def with_estimator(protocol: Protocol, estimator: str = "", *, threshold: float | None = None) -> Protocol:
    """Return ``protocol`` with another estimator or threshold (pixels); the matching, hence the predictions, stay.

    Raises:
        ConfigError: if there is no such estimator, or the threshold is not positive.
    """
    if estimator and estimator not in OTHER_ESTIMATORS:
        raise ConfigError(
            f"unknown estimator: {unknown(estimator, OTHER_ESTIMATORS, 'minima_core.evaluation.protocol')}"
        )
    if threshold is not None and not 0 < threshold < float("inf"):
        raise ConfigError(f"the threshold must be a positive number of pixels, not {threshold}")
    pose, homography = protocol.pose, protocol.homography
    if estimator and estimator != pose.estimator:
        pose, homography = OTHER_ESTIMATORS[estimator]
    if threshold is not None:
        pose, homography = (part.model_copy(update={"threshold": float(threshold)}) for part in (pose, homography))
    return protocol.model_copy(update={"pose": pose, "homography": homography})


def _changed(protocol: Protocol, changes: dict[str, Any]) -> Protocol:
    """Return ``protocol`` with some settings, or some settings of its parts, replaced and checked."""
    values = protocol.model_dump()
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return Protocol.model_validate(values)
