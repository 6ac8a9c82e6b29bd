"""The registered model as MLflow runs it: two columns of images in, matches out; executed when a model is loaded."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from minima_core.errors import DataError
from minima_core.io.images import read_image
from minima_core.models import load_matcher

if TYPE_CHECKING:
    import pandas as pd


class MatcherModel(PythonModel):
    """Loads the model folder that was logged with it; needs no network and unpickles nothing."""

    def load_context(self, context: Any) -> None:
        """Load the matcher."""
        self.matcher = load_matcher(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        """Match the pairs of ``model_input``.

        Args:
            context: MLflow's; not used after loading.
            model_input: columns ``image0`` and ``image1``: a path, an image file as base64, or an (H, W, 3) RGB
                array of uint8 or of floats in [0, 1].
            params: ``max_keypoints``, 0 for the model's own.

        Returns:
            A row a pair: ``mkpts0`` and ``mkpts1``, lists of (x, y) in original pixels, and ``scores``.

        Raises:
            ConfigError: if ``max_keypoints`` is below 1.
            DataError: if a column is missing or an image cannot be read.
        """
        import pandas as pd

        if missing := {"image0", "image1"} - set(model_input.columns):
            raise DataError(f"the input has no column {', '.join(sorted(missing))}; it has {list(model_input.columns)}")
        limit = int((params or {}).get("max_keypoints", 0)) or None
        rows = []
        for image0, image1 in zip(model_input["image0"], model_input["image1"], strict=True):
            found = self.matcher.match(picture(image0), picture(image1), max_keypoints=limit)
            rows.append([found.mkpts0.tolist(), found.mkpts1.tolist(), found.scores.tolist()])
        return pd.DataFrame(rows, columns=["mkpts0", "mkpts1", "scores"], index=model_input.index)


def picture(value: Any) -> np.ndarray:
    """Return a cell as an (H, W, 3) or (H, W) array: uint8, or floats, whose range the matcher checks.

    Raises:
        DataError: if a string is neither a file nor base64, or what it names is no image.
    """
    if not isinstance(value, str):
        image = np.asarray(value)
        if np.issubdtype(image.dtype, np.integer) and image.size and image.min() >= 0 and image.max() <= 255:
            return image.astype(np.uint8)  # JSON has no narrow integers
        return image
    if os.path.isfile(value):  # noqa: PTH113 (Path.is_file raises where base64 is longer than a name may be)
        return read_image(Path(value))
    try:
        return read_image(base64.b64decode(value, validate=True), "an image in base64")
    except binascii.Error:
        raise DataError(f"'{value[:80]}' is neither a file nor base64") from None


set_model(MatcherModel())
