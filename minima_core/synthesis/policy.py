"""Which engines a licence policy lets through."""

from __future__ import annotations

from typing import Any

from minima_core.config import unknown
from minima_core.errors import ConfigError
from minima_core.synthesis.base import MODALITIES

POLICIES = ("permissive", "any")


def require_allowed(modality: str, settings: Any, policy: str) -> None:
    """Refuse an engine whose licence, or that of its weights, forbids commercial use, unless the policy is ``any``.

    What such an engine makes, and every model trained on that, stands under its terms; so it takes a decision.

    Raises:
        ConfigError: naming the engines of the modality that everybody may use; or for an unknown policy.
    """
    if policy not in POLICIES:
        raise ConfigError(f"params.yaml: {unknown(policy, POLICIES, 'licence_policy')}")
    terms = MODALITIES.create(modality, settings).terms()
    if policy == "any" or terms.commercial:
        return
    free = [f"{name} ({licence})" for name, licence in _permissive(modality)]
    instead = f"use {' or '.join(free)}" if free else "no engine of this modality is free"
    raise ConfigError(
        f"params.yaml: synthesis.{modality} names engine {settings['engine']} under {terms.name}, which does not allow "
        f"commercial use, and licence_policy is permissive; {instead}, or set licence_policy: any"
    )


def _permissive(modality: str) -> list[tuple[str, str]]:
    """Return the engines that everybody may use with their shipped settings, and their licences."""
    found = []
    for name in MODALITIES.engines(modality).names():
        terms = MODALITIES.create(modality, MODALITIES.settings(modality, name)).terms()
        if terms.commercial:
            found.append((name, terms.name))
    return found
