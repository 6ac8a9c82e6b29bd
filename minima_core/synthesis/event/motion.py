"""Event pictures of a camera that moves through the scene: log brightness followed along a piece of its real path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from minima_core.errors import Unavailable
from minima_core.synthesis._ranges import Rising
from minima_core.synthesis.base import Engine, Rendition, RGBColour, Source
from minima_core.synthesis.event._path import Path, displacement
from minima_core.synthesis.event._view import Scene
from minima_core.synthesis.event.closed_form import FALL, PAPER, RISE

STEP = 1.0  # pixels that all but the fastest points travel between two looks
STEPS = (2, 24)  # fewest and most of them
SAMPLES = 20000  # points that the length of the motion is measured on
LEAST = 0.01  # pixels; a neighbour that moves the picture by less saw it from the same place

Contrast = Annotated[float, Field(ge=1e-3)]  # the gray levels of a picture are farther apart
Travel = Annotated[float, Field(ge=0.1)]


class Motion(Engine):
    """Events between two posed views of a scene (after ESIM: Rebecq, Gehrig and Scaramuzza 2018).

    The camera runs through a piece of the path to a neighbouring view, centred on its own pose so that the picture
    stays aligned. A pixel fires each time its log brightness, ln(1 + grey level), has changed by the contrast since it
    last fired. Blue is where more events rose than fell, red the contrary, white the rest.
    """

    class Params(Engine.Params):
        """``contrast``: range of the threshold in natural-log units; ``motion``: range of the median displacement of
        the scene's points, in pixels."""

        contrast: Annotated[tuple[Contrast, Contrast], Rising]
        motion: Annotated[tuple[Travel, Travel], Rising]

    params: Motion.Params
    reads: ClassVar[frozenset[str]] = frozenset({"depth", "camera"})
    seeded: ClassVar[bool] = True
    palette: ClassVar[tuple[RGBColour, ...]] = (PAPER, RISE, FALL)
    encoding: ClassVar[Literal["png", "jpeg95"]] = "png"

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        depth, K, path = _geometry(source)
        contrast, motion = float(rng.uniform(*self.params.contrast)), float(rng.uniform(*self.params.motion))
        inverse, unknown = filled_inverse(depth)
        scene = Scene(log_brightness(source.image), inverse, K)
        sample = scene.pixels[:, :: max(1, depth.size // SAMPLES)].astype(np.float64)
        span, moved = fitting_span(sample, K, path, motion)
        if float(np.median(moved)) < LEAST:
            raise Unavailable(
                f"the neighbouring view of {source.name} is from the same place, nothing moves; "
                "use the event engine closed_form"
            )
        steps = int(np.clip(np.ceil(np.quantile(moved, 0.99, method="inverted_cdf") / STEP), *STEPS))
        polarity, fired = events((scene.seen_from(path.at(s)) for s in moments(span, steps)), contrast)
        drawn = {
            "contrast": contrast,
            "motion": motion,
            "span": span,
            "displacement": round(float(np.median(moved)), 4),
            "steps": steps,
            "events": fired,
            "rising": int((polarity > 0).sum()),
            "falling": int((polarity < 0).sum()),
            "unknown": round(unknown, 4),
        }
        return Rendition(picture(polarity), drawn)


def _geometry(source: Source) -> tuple[np.ndarray, np.ndarray, Path]:
    """Return depth, intrinsics and the camera's path.

    Raises:
        Unavailable: naming what is missing.
    """
    remedy = f"for {source.name}; use the event engine closed_form, which needs none"
    if source.depth is None or not (source.depth > 0).any():
        raise Unavailable(f"no depth {remedy}")
    if source.K is None:
        raise Unavailable(f"no intrinsics {remedy}")
    if source.T_0to1 is None:
        raise Unavailable(f"no pose of a neighbouring view {remedy}")
    return source.depth, source.K, Path(source.T_0to1)


def log_brightness(image: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 ln(1 + grey level) of an (H, W, 3) uint8 RGB image, as the closed form has it."""
    return cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.log(np.arange(256, dtype=np.float32) + 1))


def filled_inverse(depth: np.ndarray) -> tuple[np.ndarray, float]:
    """Return (H, W) float32 inverse depth, that of the nearest known pixel where unknown, and the unknown share."""
    known = depth > 0
    inverse = np.divide(1, depth, out=np.zeros(depth.shape, np.float32), where=known)
    if known.all():
        return inverse, 0.0
    _, label = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(label.max() + 1, np.float32)
    of_label[label[known]] = inverse[known]
    return of_label[label], 1 - float(known.mean())


def fitting_span(points: np.ndarray, K: np.ndarray, path: Path, motion: float) -> tuple[float, np.ndarray]:
    """Return the share of the path over which the points move by ``motion`` pixels in the median, at most 1.

    Also how many pixels each of the (4, N) points travels over it.
    """
    small = 1e-4  # displacement grows in proportion there
    rate = float(np.median(displacement(points, K, path, small))) / small
    span = min(1.0, motion / rate) if rate > 0 else 1.0
    return span, displacement(points, K, path, span)


def moments(span: float, steps: int) -> np.ndarray:
    """Return the (steps + 1,) places on the path from which the scene is looked at."""
    return np.linspace(-span / 2, span / 2, steps + 1)


def events(looks: Iterable[np.ndarray], contrast: float) -> tuple[np.ndarray, int]:
    """Return (H, W) float32 rising minus falling events of successive (H, W) log brightness, and how many there were.

    The level that a pixel compares with starts as the first look and moves by ``contrast`` with each event.
    """
    looks = iter(looks)
    first = next(looks)
    polarity, new, fired = np.zeros_like(first), np.empty_like(first), 0
    for look in looks:
        np.subtract(look, first, out=new)
        new /= np.float32(contrast)
        new -= polarity
        np.trunc(new, out=new)
        polarity += new
        fired += round(cv2.norm(new, cv2.NORM_L1))
    return polarity, fired


def picture(polarity: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) uint8 picture of (H, W) net polarity: blue above zero, red below, white at it."""
    return np.array((PAPER, RISE, FALL), np.uint8).take((polarity > 0) + 2 * (polarity < 0), axis=0)
