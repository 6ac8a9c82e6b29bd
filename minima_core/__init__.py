"""Image matching across sensors: ``match`` two pictures, or ``load_matcher`` once and match many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minima_core.models import LoadedMatcher, Picture, load_matcher
    from minima_core.types import Matches

__all__ = ["Matches", "load_matcher", "match"]


def match(image0: Picture, image1: Picture, *, model: str = "minima-lightglue", device: str = "cpu") -> Matches:
    """Return the matches of two pictures (files, arrays or tensors) in their own pixels.

    Loads the model each time; for many pairs use ``load_matcher(model).match``.
    """
    from minima_core.models import load_matcher

    loaded: LoadedMatcher = load_matcher(model, device)
    return loaded.match(image0, image1)


def __getattr__(name: str) -> Any:
    """Import the other public names when they are first used: torch takes seconds, `minima --help` should not."""
    if name == "Matches":
        from minima_core.types import Matches

        return Matches
    if name == "load_matcher":
        from minima_core.models import load_matcher

        return load_matcher
    raise AttributeError(f"module 'minima_core' has no attribute {name!r}")
