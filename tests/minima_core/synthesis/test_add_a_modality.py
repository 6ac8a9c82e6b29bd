"""What docs/add-a-modality.md shows is what works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_conformance as conformance
import yaml

import minima_core.synthesis
from minima_core.checks.rules import Band
from minima_core.config import checked, load_params
from minima_core.synthesis.base import MODALITIES, Source

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "add-a-modality.md").read_text(encoding="utf-8")
CODE, SHIPPED, PARAMS = (text for _, text in re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL))
NAME = ("nightvision", "intensified")


@pytest.fixture
def subject(tmp_path, monkeypatch):
    """The engine of the page, found where a plugin is looked for."""
    package = tmp_path / NAME[0]
    package.mkdir()
    (package / "__init__.py").write_text('"""Night vision."""\n')
    (package / f"{NAME[1]}.py").write_text(CODE)
    monkeypatch.setattr(minima_core.synthesis, "__path__", [*minima_core.synthesis.__path__, str(tmp_path)])
    assert NAME[0] in MODALITIES.names() and MODALITIES.engines(NAME[0]).names() == [NAME[1]]
    made = MODALITIES.create(NAME[0], {"engine": NAME[1], **yaml.safe_load(SHIPPED)})
    made.setup()
    return made


def test_the_template_makes_a_green_picture_with_grain(subject, photo):
    made = subject.synthesise(Source("s/0", photo), seed=0, modality=NAME[0])
    assert made.image.shape == photo.shape
    red, green, blue = made.image.reshape(-1, 3).mean(0)
    assert green > 2 * red and green > 2 * blue
    assert 8 <= made.drawn["photons"] <= 30
    assert (made.image != subject.synthesise(Source("s/0", photo), seed=1, modality=NAME[0]).image).any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (97, 101)])
def test_the_template_works_at_every_size(subject, shape, complete_source):
    conformance.test_every_size_works(subject, NAME, shape, complete_source)


@pytest.mark.parametrize(
    "test",
    [
        conformance.test_output_is_aligned_uint8_rgb_and_its_record_is_json,
        conformance.test_same_seed_and_name_give_the_same_picture_whatever_came_before,
        conformance.test_input_is_left_alone,
        conformance.test_name_and_seed_change_what_is_drawn_and_only_that,
        conformance.test_several_at_once_are_as_each_alone,
        conformance.test_another_attempt_draws_anew_where_anything_is_drawn,
    ],
    ids=lambda test: test.__name__,
)
def test_the_template_passes_the_conformance_test(subject, photo, complete_source, test):
    test(subject, NAME, photo, complete_source)


def test_the_template_refuses_a_reversed_range(subject):
    conformance.test_a_reversed_range_is_refused(subject, NAME)


def test_the_settings_of_the_page_are_those_of_its_engine_and_its_band_is_one(subject):
    lines = yaml.safe_load(PARAMS)
    assert lines["synthesis"] == {NAME[0]: {"engine": NAME[1], **yaml.safe_load(SHIPPED)}}
    checked(lines["validation"]["bands"][NAME[0]], Band, "the page")
    assert lines["modalities"][-1] == NAME[0]
    assert set(lines) <= set(load_params(ROOT / "params.yaml"))


def test_paths_and_names_of_the_page_exist():
    from minima_core.synthesis.network import NetworkEngine

    for path in re.findall(r"`((?:minima_core|tests|tasks)/[\w/]+\.\w+)`", PAGE):
        assert (ROOT / path).exists(), path
    for method in ("published", "load", "_synthesise_batch", "memory"):
        assert method in PAGE and hasattr(NetworkEngine, method)
