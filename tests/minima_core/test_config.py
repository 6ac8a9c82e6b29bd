"""params.yaml is read once, checked, and a mistake names the key and what was meant."""

import pytest

from minima_core.config import Section, checked, digest, load_params, read_section, read_seed, read_value, unknown
from minima_core.errors import ConfigError


class Event(Section):
    contrast: tuple[float, float]
    steps: int


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("synthesis:\n  event: {contrast: [1e-4, 0.5], steps: 3}\n  paint: {stepz: 3}\n")
    return path


def test_a_section_is_typed_and_reads_1e_4_as_a_number(params):
    assert read_section("synthesis.event", Event, params) == Event(contrast=(1e-4, 0.5), steps=3)


def test_a_missing_section_names_the_closest(params):
    with pytest.raises(ConfigError, match="did you mean 'event'"):
        read_section("synthesis.evnt", Event, params)


def test_an_unknown_key_is_refused(params):
    params.write_text("event: {contrast: [0, 1], steps: 1, extra: 2}\n")
    with pytest.raises(ConfigError, match=r"'extra' is not in params\.yaml: event; there are: contrast, steps$"):
        read_section("event", Event, params)


class Window(Section):
    level: float
    width: float


class Scanner(Section):
    kinds: dict[str, Event | Window]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"contrast": [0, 1], "stesp": 1}, "'stesp' is not in here; did you mean 'steps'?"),
        ({"contrast": [0, 1], "steps": 1, "stesp": 1}, "'stesp' is not in here; did you mean 'steps'?"),
        ({"contrast": [0, 1]}, "here: 'steps' is missing"),
    ],
)
def test_a_misspelt_key_is_named_before_what_it_leaves_missing(values, words):
    with pytest.raises(ConfigError) as caught:
        checked(values, Event, "here")
    assert str(caught.value).startswith(words) and "{" not in str(caught.value)


def test_upper_and_lower_case_are_one_to_the_closest():
    assert "did you mean 'sar'?" in unknown("SAR", ["sar", "paint"], "here")
    assert "did you mean 'K0'?" in unknown("k0", ["K0", "image"], "here")


def test_a_list_without_brackets_is_told_of_them():
    with pytest.raises(ConfigError, match=r"here\.contrast: .*'0,1'.*; a list stands in brackets, \[1, 2\]$"):
        checked({"contrast": "0,1", "steps": 1}, Event, "here")


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"level": 1, "widht": 2}, "'widht' is not in here.kinds.ct; did you mean 'width'? there are: level, width"),
        ({"level": 1}, "here.kinds.ct: 'width' is missing"),
        ({"level": 1, "width": "two"}, "here.kinds.ct.width: Input should be a valid number"),
    ],
)
def test_of_alternatives_the_nearest_is_meant(window, words):
    with pytest.raises(ConfigError) as caught:
        checked({"kinds": {"ct": window}}, Scanner, "here")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("seed", ["abc", "1.5", "true", "[1]", ""])
def test_a_seed_is_a_whole_number(params, seed):
    params.write_text(f"seed: {seed}\n")
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        read_seed(params)
    params.write_text("seed: 7\n")
    assert read_seed(params) == 7


def test_a_wrong_type_names_key_and_value(params):
    params.write_text("event: {contrast: [0, 1], steps: many}\n")
    with pytest.raises(ConfigError, match=r"event\.steps.*'many'"):
        read_section("event", Event, params)


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n", "a: " + "[" * 9999])
def test_a_file_that_is_no_mapping_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ConfigError, match="root of a checkout"):
        read_value("seed", tmp_path / "params.yaml")


def test_digest_ignores_key_order_and_sees_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest(Event(contrast=(0, 1), steps=1)) == digest({"contrast": [0.0, 1.0], "steps": 1})
