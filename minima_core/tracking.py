"""Where training and scoring say how they go; the core knows no tracking service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Four calls that any tracking service can serve."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record numbers, at a step where they belong to one."""

    def artifact(self, path: Path) -> None:
        """Record a file."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record facts about the run."""


class NullTracker:
    """Records nothing; the default, so that no caller needs an ``if``."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Ignore settings."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Ignore numbers."""

    def artifact(self, path: Path) -> None:
        """Ignore a file."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Ignore facts."""
