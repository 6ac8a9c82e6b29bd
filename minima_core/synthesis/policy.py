"""Which engines a licence policy lets through."""

from __future__ import annotations

from typing import Any

from minima_core.config import unknown
from minima_core.errors import ConfigError
from minima_core.synthesis.base import MODALITIES

POLICIES = ("permissive", "any")


def require_allowed(
    modality: str,
    settings: Any,
    policy: str,
    *,
    where: str = "",
    called: str = "licence_policy",
    remedy: str = "set licence_policy: any",
) -> None:
    """Refuse an engine whose licence, or that of its weights, forbids commercial use, unless the policy is ``any``.

    What such an engine makes, and every model trained on that, stands under its terms; so it takes a decision.

    Args:
        modality: its name.
        settings: of the engine, and ``engine``, its name.
        policy: which engines are let through.
        where: what messages call the settings; ``synthesis.<modality>`` of params.yaml unless said otherwise.
        called: what they call the policy.
        remedy: how they say to let every engine through.

    Raises:
        ConfigError: naming the engines of the modality that everybody may use; or for an unknown policy.
    """
    if policy not in POLICIES:
        raise ConfigError(unknown(policy, POLICIES, called))
    where = where or f"params.yaml: synthesis.{modality}"
    terms = MODALITIES.create(modality, settings, where).terms()
    if policy == "any" or terms.commercial:
        return
    free = [f"{name} ({licence})" for name, licence in _permissive(modality)]
    instead = f"use {' or '.join(free)}" if free else "no engine of this modality is free"
    raise ConfigError(
        f"{where} names engine {settings['engine']} under {terms.name}, which does not allow commercial use, "
        f"and {called} is permissive; {instead}, or {remedy}"
    )


def _permissive(modality: str) -> list[tuple[str, str]]:
    """Return the engines that everybody may use with their shipped settings, and their licences."""
    found = []
    for name in MODALITIES.engines(modality).names():
        terms = MODALITIES.create(modality, MODALITIES.settings(modality, name)).terms()
        if terms.commercial:
            found.append((name, terms.name))
    return found
