"""Small pictures with known content for the synthesis tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from minima_core.synthesis.base import MODALITIES, Engine, Source

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A real photograph, (192, 256, 3), that scikit-image ships."""
    return cv2.resize(data.astronaut(), (256, 192), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def parity():
    """Return a loader of recorded outputs of the published programs."""

    def load(name: str):
        path = SHARED / "parity" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no recorded outputs at {path}; they are not part of the project")
        return np.load(path)

    return load


@pytest.fixture
def engine():
    """Return a maker of engines with their shipped settings, some replaced."""

    def make(modality: str, **settings: object) -> Engine:
        shipped = MODALITIES.settings(modality, str(settings.get("engine", "")))
        made = MODALITIES.create(modality, {**shipped, **settings})
        made.setup()
        return made

    return make


@pytest.fixture(scope="session")
def complete_source():
    """Return a maker of sources that have everything: two planes as depth, intrinsics, a motion; no materials."""

    def make(name: str, image: np.ndarray) -> Source:
        height, width = image.shape[:2]
        ys, xs = np.mgrid[:height, :width]
        K = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
        inverse = 0.2 + 0.0002 * xs + 0.0004 * np.maximum(ys, height / 2)
        T_0to1 = np.eye(4)
        T_0to1[:3, 3] = 0.2, 0.05, 0.1
        depth, rendition = (1 / inverse).astype(np.float32), 255 - image
        return Source(name, image, depth=depth, K=K, T_0to1=T_0to1, rendition=rendition)

    return make


@pytest.fixture(scope="session")
def shared_photos() -> list[Path]:
    """Real outdoor photographs."""
    photos = sorted((SHARED / "photos").glob("*.jpg"))
    if not photos:
        pytest.skip(f"no photographs at {SHARED / 'photos'}; they are not part of the project")
    return photos
