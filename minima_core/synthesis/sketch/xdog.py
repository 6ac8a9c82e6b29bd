"""Line drawings by extended difference of Gaussians, sharpened along the flow of the edges."""

from __future__ import annotations

from typing import ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from minima_core.synthesis._filters import along, gaussian, tangents
from minima_core.synthesis.base import Engine, Rendition, Source

WIDER = 1.6  # ratio of the two Gaussians that approximates a Laplacian
WIDEST = 32  # pixels of a line, and line widths of a flow
SOFT = 2.5  # how much wider the lines are sought where the picture is out of focus


class XDoG(Engine):
    """Dark strokes on light paper (after Winnemöller, Kyprianidis and Olsen 2012).

    The difference of Gaussians is taken of log brightness over the local contrast, so that shade draws the same lines
    as sun; the flow of the edges joins what noise has broken.
    """

    class Params(Engine.Params):
        """``sigma``: line width in pixels of a 640 pixel wide picture; ``threshold``: contrast at which a line starts;
        ``sharpness``: how fast it becomes black; ``flow``: smoothing along the lines in line widths."""

        sigma: float = Field(gt=0, le=WIDEST)
        threshold: float = Field(gt=0)
        sharpness: float = Field(gt=0)
        flow: float = Field(ge=0, le=WIDEST)

    params: XDoG.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    encoding: ClassVar[Literal["png", "jpeg95"]] = "png"

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:  # noqa: ARG002, nothing is drawn
        params = self.params
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        sigma = params.sigma * max(1.0, max(gray.shape) / 640) ** 0.5
        response = focused_response(gray, sigma)
        if params.flow > 0:
            flow, _ = tangents(gray, 2 * sigma, reduce=2)
            response = along(response, flow, params.flow * sigma)
        ink = np.tanh(np.maximum(response - params.threshold, 0) * params.sharpness)
        paper = np.clip(np.round(255 * (1 - ink)), 0, 255).astype(np.uint8)
        return Rendition(cv2.merge([paper] * 3))


def focused_response(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Return (H, W) float32: how much darker than its surroundings a pixel is, over the contrast around it.

    A sharp edge answers as strongly at ``sigma`` as at a wider one; a blurred edge answers at the wider one only, and
    there it is drawn from that.
    """
    log = np.log(gray + np.float32(0.05))
    mean = gaussian(log, 12 * sigma)
    contrast = np.sqrt(np.maximum(gaussian(log * log, 12 * sigma) - mean * mean, 0)) + np.float32(0.1)
    fine, coarse = (
        np.maximum((gaussian(log, WIDER * s) - gaussian(log, s)) / contrast, 0) for s in (sigma, SOFT * sigma)
    )
    around = np.ones((2 * round(3 * SOFT * sigma) + 1,) * 2, np.uint8)
    sharpness = cv2.dilate(fine, around) / np.maximum(cv2.dilate(coarse, around), 1e-3)
    blurred = np.clip(2 - 2.5 * sharpness, 0, 1)  # all fine from 0.8 on, all coarse up to 0.4
    return fine + blurred * (coarse - fine)
