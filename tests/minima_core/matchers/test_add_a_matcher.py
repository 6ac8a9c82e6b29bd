"""What docs/add-a-matcher.md shows is what works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_matcher_conformance as conformance

import minima_core.matchers
from minima_core import models
from minima_core.matchers.base import MATCHERS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "add-a-matcher.md").read_text(encoding="utf-8")
CODE, LINE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The matcher of the page, by its name and at a size for tests, as conformance tests take one."""
    (tmp_path / "orb.py").write_text(CODE)
    monkeypatch.setattr(minima_core.matchers, "__path__", [*minima_core.matchers.__path__, str(tmp_path)])
    monkeypatch.setattr(models, "PUBLISHED_MODELS", dict(models.PUBLISHED_MODELS))
    exec(LINE, {"PUBLISHED_MODELS": models.PUBLISHED_MODELS})
    assert "orb" in MATCHERS.names()
    loaded = models.load_matcher("orb").matcher
    loaded.params = loaded.params.model_copy(update={"long_side": 128, "max_keypoints": 60})
    return "orb", loaded


@pytest.mark.parametrize(
    "test",
    [
        conformance.test_matches_lie_on_images_of_two_sizes_and_are_no_more_than_asked_for,
        conformance.test_matching_twice_gives_the_same,
        conformance.test_an_image_without_texture_has_no_matches,
        conformance.test_an_image_of_few_pixels_is_no_error,
        conformance.test_a_batch_of_several_sizes_gives_what_each_pair_gives,
    ],
    ids=lambda test: test.__name__,
)
def test_the_template_passes_the_conformance_test(made, test):
    test(made)


def test_the_template_finds_a_known_shift(made):
    image = conformance.picture(240, 320)
    found = made[1].match(image, image.roll(8, -1), long_side=320, max_keypoints=500)
    moved = found.mkpts1 - found.mkpts0
    assert len(found) > 20
    assert ((moved[:, 0] - 8).abs() < 1).float().mean() > 0.8 and (moved[:, 1].abs() < 1).float().mean() > 0.8


def test_paths_and_names_of_the_page_exist():
    for path in re.findall(r"`(?:pytest )?((?:minima_core|tests)/[\w/]+\.py)", PAGE):
        assert path.endswith("orb.py") or (ROOT / path).exists(), path
    for name in ("terms", "load_published", "_extract", "_match", "training_data", "loss"):
        assert f"`{name}" in PAGE or f"def {name}" in PAGE
        assert hasattr(minima_core.matchers.base.Matcher, name)
