"""What may be done with what was made from several things."""

import pytest

from minima_core.data.datasets.synthetic import Synthetic
from minima_core.evaluation.benchmarks.synthetic_six import SyntheticSix
from minima_core.licences import APACHE_2_0, MIT, Licence, allows_commercial_use, combine, join, named
from minima_core.published import PUBLISHED


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True),
        ("images: CC-BY-2.0 (attribution in dataset.json); geometry: Apache-2.0", True),
        ("Apache-2.0 AND images: CC-BY-2.0 (attribution in dataset.json); geometry: Apache-2.0", True),
        ("Apache-2.0 AND GPL-3.0", False),
        ("MIT, GPL-3.0", False),
        ("proprietary, like MIT's", False),
        ("MIT (non-commercial use only)", False),
        ("Apache-2.0 AND (GPL-3.0)", False),
        ("Apache-2.0; ", False),
        ("CC-BY-NC-SA-4.0", False),
        ("CC BY-NC-SA 4.0", False),
        ("Microsoft 7-Scenes: research, non-commercial", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_what_a_licence_allows(licence, allowed):
    assert allows_commercial_use(licence) is allowed


def test_combination_is_as_strict_as_its_strictest_part():
    assert combine([APACHE_2_0, MIT, APACHE_2_0]) == Licence("Apache-2.0 AND MIT", True)
    assert not combine([APACHE_2_0, named("unknown")]).commercial
    assert not combine([APACHE_2_0, Licence("MIT", False)]).commercial
    assert not combine([APACHE_2_0, Licence("LicenseRef-odd", True)]).commercial


@pytest.mark.parametrize("made_here", [Synthetic, SyntheticSix])
def test_what_is_rendered_here_may_be_used_by_everybody(made_here):
    assert allows_commercial_use(join(["Apache-2.0", made_here.licence]))


def test_a_licence_that_is_met_again_is_named_once():
    assert join(["MIT AND Apache-2.0", "", "Apache-2.0", "MIT AND CC0-1.0"]) == "MIT AND Apache-2.0 AND CC0-1.0"


def test_matchers_of_minima_stand_under_what_their_pictures_were_made_with():
    theirs = [file for name, file in PUBLISHED.items() if name.startswith("minima_")]
    assert len(theirs) == 5 and not any(file.licence.commercial for file in theirs)
