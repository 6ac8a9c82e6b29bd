"""What every engine of every modality keeps to; a new engine is tested the moment its file exists."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from minima_core.errors import ConfigError, Unavailable
from minima_core.licences import allows_commercial_use
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.sources import FILES

ENGINES = [(m, e) for m in MODALITIES.names() for e in MODALITIES.engines(m).names()]
QUICK = {"weights": "random", "load_size": 256}
SIX = ["depth", "event", "infrared", "normal", "paint", "sketch"]
NEED_DEPTH = {("depth", "dataset"), ("event", "motion"), ("normal", "dataset")}


def settings(name):
    """Shipped settings; networks get small random weights, so that nothing is fetched, and small pictures."""
    shipped = MODALITIES.settings(*name)
    return shipped | {key: value for key, value in QUICK.items() if key in shipped}


def parameter(name):
    """One engine; those that import diffusers or transformers, which takes ten seconds, go to one worker."""
    heavy = name[1] in {"stylebooth", "depth_anything_v2", "marigold"}
    return pytest.param(name, id="/".join(name), marks=[pytest.mark.xdist_group("networks")] if heavy else [])


@pytest.fixture(params=[parameter(name) for name in ENGINES])
def name(request):
    return request.param


@pytest.fixture
def subject(name):
    made = MODALITIES.create(name[0], settings(name))
    made.setup()
    return made


def make(subject, name, source, seed=0):
    return subject.synthesise(source, seed=seed, modality=name[0])


def test_all_six_modalities_are_there():
    assert set(SIX) <= set(MODALITIES.names())


def test_output_is_aligned_uint8_rgb_and_its_record_is_json(subject, name, photo, complete_source):
    made = make(subject, name, complete_source("a/0", photo))
    assert made.image.shape == photo.shape and made.image.dtype == np.uint8
    assert made.image.flags.c_contiguous
    assert len(np.unique(made.image.reshape(-1, 3), axis=0)) > 1
    assert json.loads(json.dumps(made.drawn)) == made.drawn


def test_same_seed_and_name_give_the_same_picture_whatever_came_before(subject, name, photo, complete_source):
    source = complete_source("a/0", photo)
    first = make(subject, name, source)
    make(subject, name, complete_source("b/7", photo[::-1].copy()))
    again = make(subject, name, source)
    assert (first.image == again.image).all() and first.drawn == again.drawn


def test_what_an_engine_does_not_read_changes_nothing(subject, name, photo, complete_source):
    """The runner leaves files unread that an engine does not name."""
    ids = np.full(photo.shape[:2], 2, np.uint8)
    source = replace(complete_source("a/0", photo), material=ids, tissue=ids)
    spared = dict.fromkeys("K" if what == "camera" else what for what in FILES - subject.reads)
    assert subject.reads <= FILES
    assert (make(subject, name, source).image == make(subject, name, replace(source, **spared)).image).all()


def test_input_is_left_alone(subject, name, photo, complete_source):
    source = complete_source("a/0", photo.copy())
    before = source.image.copy(), source.depth.copy(), source.K.copy()
    make(subject, name, source)
    assert all((a == b).all() for a, b in zip(before, (source.image, source.depth, source.K), strict=True))


def test_name_and_seed_change_what_is_drawn_and_only_that(subject, name, photo, complete_source):
    source = complete_source("a/0", photo)
    here = make(subject, name, source).image
    elsewhere = [make(subject, name, replace(source, name="a/1")).image, make(subject, name, source, seed=1).image]
    assert [bool((here != other).any()) for other in elsewhere] == [subject.seeded] * 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (1, 40), (2, 2), (31, 17), (97, 101), (300, 1030)])
def test_every_size_works(subject, name, shape, complete_source):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    try:
        assert make(subject, name, complete_source("a/0", image)).image.shape == image.shape
    except Unavailable:
        assert name in NEED_DEPTH and min(shape) < 3  # no plane can be fitted to fewer pixels


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_picture_works(subject, name, level, complete_source):
    image = np.full((40, 50, 3), level, np.uint8)
    assert make(subject, name, complete_source("a/0", image)).image.shape == image.shape


def test_missing_depth_is_said_in_one_line(subject, name, photo, complete_source):
    source = replace(complete_source("a/0", photo), depth=None)
    if name not in NEED_DEPTH:
        make(subject, name, source)
        return
    with pytest.raises(Unavailable, match="a/0") as caught:
        make(subject, name, source)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable, match="a/0"):
        make(subject, name, replace(source, depth=np.zeros(photo.shape[:2], np.float32)))


def test_licence_and_encoding_are_stated(subject):
    assert subject.terms().name.strip()
    assert subject.terms().commercial == allows_commercial_use(subject.terms().name)
    assert subject.encoding in {"png", "jpeg95"}


def test_several_at_once_are_as_each_alone(subject, name, photo, complete_source):
    sources = [complete_source(f"a/{k}", np.roll(photo, 9 * k, 1)) for k in range(2)]
    together = subject.synthesise_batch(sources, seed=0, modality=name[0])
    for source, made in zip(sources, together, strict=True):
        alone = make(subject, name, source)
        assert made.drawn == alone.drawn
        # batches of a network round differently; one step of the depth colours moves a channel by up to 3
        assert np.abs(made.image.astype(int) - alone.image).max() <= 3


def test_another_attempt_draws_anew_where_anything_is_drawn(subject, name, photo, complete_source):
    source = complete_source("a/0", photo)
    again = subject.synthesise(source, seed=0, modality=name[0], attempt=1)
    assert bool((make(subject, name, source).image != again.image).any()) == subject.seeded


def test_raw_values_lie_beside_the_picture_where_promised(subject, name, photo, complete_source):
    raw = make(subject, name, complete_source("a/0", photo)).raw
    assert (raw is not None) == subject.raw
    assert raw is None or (raw.shape == photo.shape[:2] and raw.dtype == np.float32)


@pytest.mark.parametrize("wrong", [{}, {"engine": "nothing"}, {"engine": None}, None])
def test_an_engine_that_is_not_there_is_refused_with_the_list(name, wrong):
    with pytest.raises(ConfigError, match=name[1]):
        MODALITIES.create(name[0], wrong)


def test_an_unknown_setting_is_refused(name):
    wrong = {**MODALITIES.settings(*name), "sigmas": 1}
    with pytest.raises(ConfigError, match="sigmas"):
        MODALITIES.create(name[0], wrong)


def test_a_reversed_range_is_refused(subject, name):
    shipped = subject.params.model_dump(mode="json")
    for keys, values in pairs(shipped):
        if values[0] < values[1] and takes_two(name, shipped, keys, values):
            with pytest.raises(ConfigError, match="rising order"):
                MODALITIES.create(name[0], changed(shipped, keys, values[::-1]))


@pytest.mark.parametrize("name", [n for n in ENGINES if "weights" not in MODALITIES.settings(*n)], indirect=True)
@pytest.mark.parametrize("number", [0, 1e-30, 3, 1000, 10**9])
def test_any_number_is_refused_or_makes_a_picture(subject, name, number, photo, complete_source):
    shipped, source = subject.params.model_dump(mode="json"), complete_source("a/0", photo[:48, :64])
    for keys, value in numbers(shipped):
        other = [number] * len(value) if isinstance(value, list) else number
        try:
            odd = MODALITIES.create(name[0], changed(shipped, keys, other))
        except ConfigError:
            continue
        for seed in range(4):  # of several sequences and palettes one is drawn
            image = make(odd, name, source, seed).image
            assert (image.shape, image.dtype) == (source.image.shape, np.uint8), keys


def numbers(values, keys=()):
    """Yield keys and values of the numbers in settings, and of the lists of numbers."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, (*keys, key))
        elif all(isinstance(one, int | float) for one in (value if isinstance(value, list) else [value])):
            yield (*keys, key), value


def pairs(values, keys=()):
    """Yield keys and values of the lists of two numbers in settings."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from pairs(value, (*keys, key))
        elif isinstance(value, list) and len(value) == 2 and not any(isinstance(end, str) for end in value):
            yield (*keys, key), value


def changed(values, keys, value):
    """Return a copy of settings in which one is another."""
    key, *inner = keys
    return {**values, key: changed(values[key], inner, value) if inner else value}


def takes_two(name, shipped, keys, values):
    """Whether a setting is a range, which a list of any length is not."""
    try:
        MODALITIES.create(name[0], changed(shipped, keys, [*values, values[1]]))
    except ConfigError:
        return True
    return False


def test_a_misspelt_modality_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'infrared'"):
        MODALITIES.create("infrarot", {"engine": "thermal"})
