from __future__ import annotations

import cv2
import numpy as np
import pytest

from minima_core.checks.structure import agreement, image_field
from minima_core.data.tissues import TISSUE_NAMES
from minima_core.errors import ConfigError
from minima_core.io.images import read_image
from minima_core.random import rng
from minima_core.synthesis._tissues import UPTAKE, turns
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.nuclear.uptake import FWHM, coloured, grain

SHARP = {"noise": [0, 0], "resolution": [0.02, 0.02], "palettes": ["gray"]}


def scan(engine, image, seed=0, **settings):
    return engine("nuclear", **settings).synthesise(Source("s/0", image), seed=seed, modality="nuclear")


def test_without_blur_and_noise_the_picture_is_a_function_of_gray_that_turns(engine, photo):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    for seed in range(5):
        made = scan(engine, photo, seed, **SHARP).image[..., 0]
        levels = [np.unique(made[gray == g]) for g in np.unique(gray)]
        assert all(len(level) == 1 for level in levels)
        assert turns(np.concatenate(levels).astype(int)) >= 2


@pytest.mark.parametrize("width", [320, 1280])  # the resolution is of a picture 640 pixels wide, and no finer in others
def test_an_edge_is_as_wide_as_the_resolution_says(engine, width):
    edge = np.zeros((200, width, 3), np.uint8)
    edge[:, width // 2 :] = 255
    made = scan(engine, edge, **{**SHARP, "resolution": [12, 12]}).image[100, :, 0].astype(float)
    spread = np.abs(np.gradient(made))  # of an edge, the picture of a line
    at = np.arange(width)
    middle = (spread * at).sum() / spread.sum()
    sigma = np.sqrt((spread * (at - middle) ** 2).sum() / spread.sum())
    assert sigma * FWHM == pytest.approx(12 * max(1, width / 640), rel=0.06)
    assert middle == pytest.approx(width / 2 - 0.5, abs=0.3)


def test_noise_is_as_coarse_as_what_the_scanner_resolves():
    noise = grain((200, 300), 3.0, rng(0, "grain"))
    assert noise.std() == pytest.approx(1, abs=1e-3) and abs(noise.mean()) < 0.2
    neighbours = [np.corrcoef(noise[:, :-lag].ravel(), noise[:, lag:].ravel())[0, 1] for lag in (3, 6, 24)]
    expected = [np.exp(-(lag**2) / (4 * 3.0**2)) for lag in (3, 6, 24)]  # of white noise behind a Gaussian
    assert neighbours == pytest.approx(expected, abs=0.1)


def test_noise_grows_with_the_root_of_activity(engine):
    """Half of the picture is gray matter, half takes up less."""
    halves = np.repeat(np.uint8([0, 255]), 160)[None, :, None].repeat(240, 0).repeat(3, 2)
    for seed in range(20):
        quiet, noisy = (
            scan(engine, halves, seed, **{**SHARP, "resolution": [4, 4], "noise": [level, level]}).image[..., 0] / 255
            for level in (0, 0.05)
        )
        activity = quiet[:, [40, 280]].mean(0)
        if (activity > 0.2).all() and (activity < 0.8).all():  # not cut off at black and white
            scatter = [(noisy - quiet)[:, side].std() for side in (slice(20, 120), slice(200, 300))]
            assert scatter[1] / scatter[0] == pytest.approx(np.sqrt(activity[1] / activity[0]), rel=0.2)


def test_palettes_show_the_same_activity():
    activity = np.arange(256, dtype=np.uint8).reshape(16, 16)
    gray, inverted, hot, spectrum = (coloured(activity, name) for name in ("gray", "inverted", "hot", "spectrum"))
    assert (gray == activity[..., None]).all() and (inverted == 255 - gray).all()
    assert hot[0, 0].max() < 30 and (hot[-1, -1] > 200).all()
    assert (np.diff(hot.astype(int).sum(-1).ravel()) >= 0).all()  # brighter is more
    assert spectrum[0, 0].argmax() == 2 and spectrum[-1, -1].argmax() == 0  # RGB: from blue to red


def test_record_names_a_palette_of_the_settings_and_its_tissues(engine, photo):
    drawn = [scan(engine, photo, seed).drawn for seed in range(60)]
    assert {d["palette"] for d in drawn} == set(MODALITIES.settings("nuclear")["palettes"])
    for d in drawn:
        assert set(d["tissues"]) <= set(UPTAKE) and len(set(d["tissues"])) == len(d["tissues"])


def test_structure_stays_at_its_place(engine, photo):
    for seed in range(4):
        found = agreement(image_field(photo), image_field(scan(engine, photo, seed, resolution=[4, 6]).image))
        assert found.score > 7 and found.offset <= 3


def test_on_real_outdoor_photographs_too(engine, shared_photos):
    for path in shared_photos[::25]:
        image = cv2.resize(read_image(path), (640, 480), interpolation=cv2.INTER_AREA)
        found = agreement(image_field(image), image_field(scan(engine, image).image))
        assert found.score > 6 and found.offset <= 5


@pytest.mark.parametrize(
    "wrong",
    [{"palettes": []}, {"palettes": ["rainbow"]}, {"resolution": [9, 3]}, {"tissues": [3, 5]}, {"noise": [-1, 0]}],
)
def test_settings_that_no_scanner_has_are_refused(engine, wrong):
    with pytest.raises(ConfigError, match="nuclear"):
        engine("nuclear", **wrong)


def test_known_tissues_have_the_tracer_that_they_take_up(engine, photo):
    ids = np.full(photo.shape[:2], TISSUE_NAMES.index("air"), np.uint8)
    ids[20:-20, 20:-20] = TISSUE_NAMES.index("gray matter")
    ids[60:-60, 60:-60] = TISSUE_NAMES.index("white matter")
    made = engine("nuclear", **{**SHARP, "texture": 0.0}).synthesise(
        Source("s/0", photo, tissue=ids), seed=0, modality="nuclear"
    )
    air, white, gray = (
        made.image[..., 0][ids == TISSUE_NAMES.index(n)].mean() for n in ("air", "white matter", "gray matter")
    )
    assert air == 0 and 0.1 < white / gray < 0.6
