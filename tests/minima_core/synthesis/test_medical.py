from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.fft import dctn
from scipy.stats import kstest, norm, rayleigh

from minima_core.checks.structure import agreement, image_field
from minima_core.data.tissues import TISSUE_NAMES
from minima_core.errors import ConfigError, DataError
from minima_core.io.images import read_image
from minima_core.random import rng
from minima_core.synthesis._tissues import (
    TISSUES,
    Tissue,
    assign,
    classes,
    curve,
    spin_echo,
    spin_echoes,
    tomogram,
    turns,
)
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.medical._scanner import rician, sensitivity

IDEAL = {"noise": [0, 0], "blur": [0.01, 0.01], "bias": [0, 0]}
TIMES = ((500, 10), (4000, 90))  # repetition and echo of T1 and T2 weighting, milliseconds


def scan(engine, image, seed=0, **settings):
    return engine("medical", **settings).synthesise(Source("s/0", image), seed=seed, modality="medical")


def drawn_curve(gray, seed):
    """A curve as the engine draws it, with its shipped settings."""
    draw, shipped = rng(seed, "curve"), MODALITIES.settings("medical")
    times = shipped["sequences"][str(draw.choice(list(shipped["sequences"])))]
    settings = {name: draw.uniform(*span) for name, span in times.items()}
    count = int(draw.integers(*shipped["tissues"], endpoint=True))
    _, signals = assign(count, tomogram(**settings) if "level" in times else spin_echoes(**settings), draw)
    return curve(gray, signals, shipped["texture"]), signals


@pytest.mark.parametrize("kind", ["photo", "constant", "black and white", "dull"])
def test_signal_turns_at_least_twice_over_gray_for_every_seed(photo, kind):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    gray = {
        "photo": gray,
        "constant": np.full_like(gray, 255),
        "black and white": np.where(gray > 100, 255, 0).astype(np.uint8),
        "dull": gray // 8 + 100,
    }[kind]
    for seed in range(40):
        table, signals = drawn_curve(gray, seed)
        assert turns(table) == turns(signals) >= 2
        assert table.min() > -1e-6 and table.max() < 1 + 1e-6


def test_without_noise_and_bias_the_picture_is_a_function_of_gray_that_turns(engine, photo):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    for seed in range(5):
        made = scan(engine, photo, seed, **IDEAL).image[..., 0]
        levels = [np.unique(made[gray == g]) for g in np.unique(gray)]
        assert all(len(level) == 1 for level in levels)
        assert turns(np.concatenate(levels).astype(int)) >= 2


def test_the_coil_multiplies_that_picture_with_a_smooth_field(engine, photo):
    resonance = {"t1": MODALITIES.settings("medical")["sequences"]["t1"]}
    plain, biased = (
        scan(engine, photo, **{**IDEAL, "bias": bias, "sequences": resonance}).image[..., 0].astype(float)
        for bias in ([0, 0], [0.4, 0.4])
    )
    bright = plain > 60
    ratio = np.where(bright, biased / np.maximum(plain, 1), np.nan)
    ys, xs = (grid / max(photo.shape) for grid in np.mgrid[: photo.shape[0], : photo.shape[1]])
    terms = np.stack([ys**a * xs**b for a in range(5) for b in range(5 - a)], -1)
    fitted = terms @ np.linalg.lstsq(terms[bright], ratio[bright], rcond=None)[0]
    assert np.abs(fitted - ratio)[bright].max() < 0.02  # half a level of 60, and the polynomial's own error
    assert np.ptp(fitted[bright]) > 0.25


@pytest.mark.parametrize("seed", range(4))
def test_sensitivity_is_of_low_frequency_and_within_its_strength(seed):
    field = sensitivity((120, 160), 0.3, rng(seed, "bias"))
    assert field.dtype == np.float32
    assert field.min() == pytest.approx(0.7) and field.max() == pytest.approx(1)
    energy = dctn(field - field.mean(), norm="ortho") ** 2
    assert energy[:6, :6].sum() > 0.998 * energy.sum()


def test_noise_is_rayleigh_where_it_is_dark_and_normal_where_it_is_bright():
    dark = rician(np.zeros((200, 250), np.float32), 0.05, rng(0, "dark")).ravel()
    assert dark.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.01)
    assert kstest(dark, rayleigh(scale=0.05).cdf).pvalue > 0.05
    bright = rician(np.full((200, 250), 1.0, np.float32), 0.05, rng(0, "bright")).ravel()
    assert bright.std() == pytest.approx(0.05, rel=0.02)
    assert bright.mean() == pytest.approx(np.sqrt(1 + 0.05**2), abs=1e-3)
    assert kstest(bright, norm(np.sqrt(1 + 0.05**2), 0.05).cdf).pvalue > 0.05
    assert kstest(dark, norm(dark.mean(), dark.std()).cdf).pvalue < 1e-3  # the test can tell


def test_spin_echo_gives_the_density_of_a_tissue_at_rest_and_fades_with_its_times():
    tissue = Tissue(0.8, 900, 50)
    assert spin_echo(tissue, repetition=1e6, echo=0) == pytest.approx(0.8)
    assert spin_echo(tissue, repetition=1e6, echo=50) == pytest.approx(0.8 / np.e)
    assert spin_echo(tissue, repetition=900, echo=0) == pytest.approx(0.8 * (1 - 1 / np.e))


def test_fluid_is_dark_in_t1_and_bright_in_t2():
    t1, t2 = ({name: spin_echo(t, repetition=tr, echo=te) for name, t in TISSUES.items()} for tr, te in TIMES)
    solid = ["gray matter", "white matter", "fat", "muscle", "liver"]
    assert t1["fluid"] < min(t1[name] for name in solid)
    assert t2["fluid"] > max(t2[name] for name in solid)
    assert t1["fat"] == max(t1.values()) and t2["gray matter"] > t2["white matter"]


def test_classes_part_what_has_different_gray_and_are_never_empty():
    gray = np.repeat(np.uint8([20, 90, 160, 230]), 500).reshape(40, 50)
    assert classes(gray, 4) == pytest.approx([20, 90, 160, 230], abs=12)
    for level in (0, 128, 255):
        centres = classes(np.full((5, 6), level, np.uint8), 7)
        assert (np.diff(centres) > 1).all() and centres[0] >= 0 and centres[-1] <= 255


def test_record_names_a_sequence_of_the_settings_and_its_tissues(engine, photo):
    drawn = [scan(engine, photo, seed).drawn for seed in range(12)]
    sequences = MODALITIES.settings("medical")["sequences"]
    assert {d["sequence"] for d in drawn} == set(sequences)
    for d in drawn:
        assert all(low <= d[name] <= high for name, (low, high) in sequences[d["sequence"]].items())
        assert set(d["tissues"]) <= set(TISSUES) and len(set(d["tissues"])) == len(d["tissues"])


def test_structure_stays_at_its_place(engine, photo):
    for seed in range(4):
        found = agreement(image_field(photo), image_field(scan(engine, photo, seed).image))
        assert found.score > 7 and found.offset <= 2


def test_on_real_outdoor_photographs_too(engine, shared_photos):
    for path in shared_photos[::25]:
        image = cv2.resize(read_image(path), (640, 480), interpolation=cv2.INTER_AREA)
        found = agreement(image_field(image), image_field(scan(engine, image).image))
        assert found.score > 7 and found.offset <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequences": {}},
        {"sequences": {"t1": {"repetition": [500, 400], "echo": [8, 15]}}},
        {"sequences": {"t1": {"repetition": [400, 500], "echo": [8, 15], "flip": 30}}},
        {"tissues": [3, 5]},
        {"tissues": [5, 9]},
        {"bias": [0.5, 1.5]},
        {"noise": [-1, 0]},
    ],
)
def test_settings_that_no_scanner_has_are_refused(engine, wrong):
    with pytest.raises(ConfigError, match="medical"):
        engine("medical", **wrong)


@pytest.fixture
def head(photo):
    """A picture, and tissues: gray matter on the left, fluid on the right, a skull around both, air around that."""
    ids = np.full(photo.shape[:2], TISSUE_NAMES.index("air"), np.uint8)
    for margin, left, right in ((10, "bone", "bone"), (30, "gray matter", "fluid")):
        for side, name in ((np.s_[margin : ids.shape[1] // 2], left), (np.s_[ids.shape[1] // 2 : -margin], right)):
            ids[margin:-margin, side] = TISSUE_NAMES.index(name)
    return photo, ids


def seen(made, ids, name):
    return float(made.image[..., 0][ids == TISSUE_NAMES.index(name)].mean())


def test_known_tissues_are_shown_whatever_the_picture_looks_like(engine, head):
    photo, ids = head
    settings = {**IDEAL, "texture": 0.0}
    sequences = MODALITIES.settings("medical")["sequences"]
    for image in (photo, 255 - photo):
        made = {
            name: engine("medical", **settings, sequences={name: sequences[name]}).synthesise(
                Source("s/0", image, tissue=ids), seed=0, modality="medical"
            )
            for name in sequences
        }
        assert seen(made["t1"], ids, "fluid") < seen(made["t1"], ids, "gray matter")
        assert seen(made["t2"], ids, "fluid") > seen(made["t2"], ids, "gray matter")
        assert seen(made["ct"], ids, "bone") > 1.5 * seen(made["ct"], ids, "gray matter") > 0
        assert all(seen(one, ids, "air") < 2 and not one.drawn["tissues"] for one in made.values())
        assert {"level", "width"} <= set(made["ct"].drawn) and made["ct"].drawn["bias"] == 0


def test_detail_inside_a_tissue_follows_the_picture_or_goes_against_it(engine, head):
    photo, ids = head
    inside = ids == TISSUE_NAMES.index("gray matter")
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[inside]
    sequences = {"t1": MODALITIES.settings("medical")["sequences"]["t1"]}
    signs = set()
    for seed in range(8):
        made = engine("medical", **IDEAL, sequences=sequences).synthesise(
            Source("s/0", photo, tissue=ids), seed=seed, modality="medical"
        )
        correlation = np.corrcoef(gray, made.image[..., 0][inside])[0, 1]
        assert abs(correlation) > 0.8
        signs.add(correlation > 0)
    assert signs == {True, False}


def test_an_id_that_is_no_tissue_is_refused(engine, head):
    photo, ids = head
    with pytest.raises(DataError, match="holds id 9, 7 is the highest known"):
        engine("medical").synthesise(Source("s/0", photo, tissue=ids * 0 + 9), seed=0, modality="medical")


def test_a_window_shows_nothing_below_and_everything_above_it():
    seen = tomogram(40, 80)
    assert seen["air"] == seen["fat"] == 0 and seen["bone"] == 1
    assert seen["gray matter"] == pytest.approx(0.475) and seen["white matter"] < seen["gray matter"]
