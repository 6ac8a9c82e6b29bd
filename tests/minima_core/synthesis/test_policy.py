"""Which engines the licence policy refuses, and what it names instead."""

from __future__ import annotations

import pytest

from minima_core.errors import ConfigError
from minima_core.licences import allows_commercial_use
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.policy import require_allowed


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_the_default_chain_may_be_used_by_everybody(modality):
    require_allowed(modality, MODALITIES.settings(modality), "permissive")


@pytest.mark.parametrize(
    ("modality", "engine", "changes", "licence"),
    [
        ("normal", "dsine", {}, "LicenseRef-Imperial-DSINE"),
        ("depth", "depth_anything_v2", {"model": "large"}, "CC-BY-NC-4.0"),
        ("infrared", "stylebooth", {}, "LicenseRef-MINIMA-infrared-research"),
    ],
)
def test_what_everybody_may_not_use_is_refused_with_what_they_may(modality, engine, changes, licence):
    settings = {**MODALITIES.settings(modality, engine), **changes}
    with pytest.raises(ConfigError, match=licence) as caught:
        require_allowed(modality, settings, "permissive")
    said = str(caught.value)
    assert "\n" not in said and "licence_policy: any" in said
    assert f"{MODALITIES.settings(modality)['engine']} (Apache-2.0)" in said  # the permissive alternative
    require_allowed(modality, settings, "any")


def test_nothing_is_fetched_to_know_a_licence(monkeypatch):
    def fail(*_args, **_more):
        raise AssertionError("fetched")

    monkeypatch.setattr("minima_core.weights.fetch", fail)
    monkeypatch.setattr("minima_core.weights.fetch_repository", fail)
    for modality in MODALITIES.names():
        for engine in MODALITIES.engines(modality).names():
            terms = MODALITIES.create(modality, MODALITIES.settings(modality, engine)).terms()
            assert terms.commercial == allows_commercial_use(terms.name)
