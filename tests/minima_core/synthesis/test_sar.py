from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import gamma, kstest

from minima_core.checks.structure import agreement, image_field
from minima_core.data.materials import Material
from minima_core.errors import ConfigError, DataError
from minima_core.io.images import read_image
from minima_core.random import rng
from minima_core.synthesis.base import Source
from minima_core.synthesis.sar._backscatter import _TABLE, roughness, tone
from minima_core.synthesis.sar._receiver import compress, power, speckle
from minima_core.synthesis.sar._relief import illuminate, relief_of, shadow_and_layover

FIXED = {"look": [0, 0], "incidence": [45, 45], "looks": [400, 400], "noise": [-60, -60], "dynamic": [60, 60]}


def shoot(engine, image, name="s/0", seed=0, settings=(), **more):
    return engine("sar", **dict(settings)).synthesise(Source(name, image, **more), seed=seed, modality="sar")


def expand(picture, drawn):
    """The dB that an 8-bit level stands for."""
    return drawn["top"] - drawn["dynamic"] * (1 - picture / 255)


@pytest.mark.parametrize("looks", [1, 2.5, 8])
def test_speckle_is_gamma_of_mean_one_with_the_variance_of_its_looks(looks):
    drawn = speckle((200, 250), looks=looks, width=0, rng=rng(0, "speckle")).ravel()
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.std() == pytest.approx(1 / np.sqrt(looks), rel=0.03)
    assert kstest(drawn, gamma(looks, scale=1 / looks).cdf).pvalue > 0.05
    assert kstest(drawn, gamma(1.1 * looks, scale=1 / (1.1 * looks)).cdf).pvalue < 1e-3  # the test can tell


def test_neighbours_share_the_impulse_response_and_each_pixel_keeps_its_distribution():
    drawn = speckle((800, 800), looks=3, width=0.8, rng=rng(0, "speckle"))
    assert np.corrcoef(drawn[:, 1:].ravel(), drawn[:, :-1].ravel())[0, 1] > 0.4
    assert abs(np.corrcoef(drawn[:, 10:].ravel(), drawn[:, :-10].ravel())[0, 1]) < 0.02
    assert kstest(drawn[::10, ::10].ravel(), gamma(3, scale=1 / 3).cdf).pvalue > 0.05


@pytest.mark.parametrize("looks", [2, 6])
def test_a_flat_picture_shows_speckle_of_its_looks(engine, looks):
    settings = {**FIXED, "looks": [looks, looks]}
    made = shoot(engine, np.full((240, 320, 3), 128, np.uint8), settings=settings)
    intensity = power(expand(made.image[..., 0].astype(np.float32), made.drawn))
    inside = intensity[made.image[..., 0] < 255]  # a few pixels in a thousand are cut off at the top
    assert inside.std() / inside.mean() == pytest.approx(1 / np.sqrt(looks), rel=0.05)


def test_levels_stand_for_decibels():
    decibel = np.linspace(-24.9, 4.9, 500, dtype=np.float32)[None]
    drawn = {"top": 5.0, "dynamic": 30.0}
    level = compress(power(decibel), **drawn)
    assert np.abs(expand(level.astype(float), drawn) - decibel).max() <= 30 / 255 / 2 + 1e-3
    assert compress(power(np.float32([[-80, -25, 5, 60]])), **drawn).tolist() == [[0, 0, 255, 255]]


@pytest.mark.parametrize("looks_for", ["right", "left"])
def test_a_step_throws_its_shadow_away_from_the_radar_and_as_far_as_it_is_high(looks_for):
    height = np.zeros((60, 160), np.float32)
    height[20:40, 60:80] = 25
    known = np.ones(height.shape, bool)
    look, behind = (0, slice(80, 105)) if looks_for == "right" else (180, slice(35, 60))
    shadow, fold = shadow_and_layover(height, known, look=look, incidence=45)
    expected = np.zeros_like(known)
    expected[20:40, behind] = True
    assert (shadow != expected).sum() <= 3 * 20  # a pixel or so along the rim
    assert not (shadow & fold).any()
    half, _ = shadow_and_layover(height, known, look=look, incidence=np.degrees(np.arctan(0.5)))
    assert half.sum() == pytest.approx(shadow.sum() / 2, rel=0.1)


@pytest.mark.parametrize("look", [30, 130, 215, 300])
def test_shadow_lies_behind_a_tower_from_any_side(look):
    height = np.zeros((101, 141), np.float32)
    cv2.circle(height, (70, 50), 6, 20, -1)
    shadow, _ = shadow_and_layover(height, np.ones(height.shape, bool), look=look, incidence=45)
    ys, xs = np.nonzero(shadow)
    along = (xs - 70) * np.cos(np.radians(look)) + (ys - 50) * np.sin(np.radians(look))
    across = (ys - 50) * np.cos(np.radians(look)) - (xs - 70) * np.sin(np.radians(look))
    assert len(xs) > 150
    assert np.percentile(along, 1) > 0 and along.min() > -6 and along.max() < 28  # the rays that graze its sides
    assert np.abs(across).max() < 8.5


def test_only_what_is_steeper_than_the_pulse_is_laid_over():
    steep, gentle = (np.tile(np.clip((np.arange(120) - 50) * slope, 0, 20), (20, 1)) for slope in (2.0, 0.5))
    known = np.ones(steep.shape, bool)
    _, fold = shadow_and_layover(steep.astype(np.float32), known, look=0, incidence=45)
    assert fold[10, 52:58].all() and not fold[10, :30].any() and not fold[10, 85:].any()
    _, none = shadow_and_layover(gentle.astype(np.float32), known, look=0, incidence=45)
    assert not none.any()


def test_slopes_that_face_the_radar_are_brighter_than_flat_ground_and_those_behind_darker():
    ridge = np.maximum(0, 15 - 0.4 * np.abs(np.arange(160) - 80)).astype(np.float32)
    lit = illuminate(np.tile(ridge, (60, 1)), np.ones((60, 160), bool), look=0, incidence=40)
    facing, away, flat = lit[30, 55:70], lit[30, 90:105], lit[30, 5:20]
    assert flat == pytest.approx(1, abs=1e-5)
    assert facing.min() > 1.5 and away.max() < 0.6
    # slope 0.4 at 40 degrees, by hand: cosine 1.240 and sine 0.486 of flat ground's
    assert lit[30, 62] == pytest.approx(1.2401**2 / 0.4859, rel=0.02)


def test_an_even_or_unknown_depth_changes_nothing(engine, photo):
    plain = shoot(engine, photo).image
    even = np.full(photo.shape[:2], 3, np.float32)
    assert (shoot(engine, photo, depth=even).image == plain).all()
    assert (shoot(engine, photo, depth=np.zeros_like(even)).image == plain).all()


def test_shadow_is_dark_in_the_picture_and_falls_on_known_depth_only(engine):
    image = np.full((160, 240, 3), 120, np.uint8)
    depth = np.full((160, 240), 10, np.float32)
    depth[40:120, 80:120] = 5
    settings = {**FIXED, "relief": 0.1}
    plain, made = (shoot(engine, image, settings=settings, depth=d) for d in (None, depth))
    change = expand(made.image[..., 0], made.drawn) - expand(plain.image[..., 0], plain.drawn)
    assert np.median(change[50:110, 124:140]) < -20  # 24 pixels long
    assert np.abs(change[50:110, 155:]).max() < 2 and np.abs(change[:30]).max() < 2
    holed = depth.copy()
    holed[:, 122:] = 0
    beyond = shoot(engine, image, settings=settings, depth=holed)
    assert (
        np.median((expand(beyond.image[..., 0], beyond.drawn) - expand(plain.image[..., 0], plain.drawn))[:, 130:]) > -1
    )


def test_relief_rises_to_the_camera_and_is_bounded_and_a_wall_with_noise_stays_flat():
    depth = np.geomspace(1, 100, 400, dtype=np.float32).reshape(20, 20)
    depth[0, :5] = 0
    height = relief_of(depth, 30)
    assert (height[0, :5] == 0).all()
    assert (np.diff(height[1:].ravel()) <= 1e-4).all()
    assert height.min() == pytest.approx(0, abs=1e-4) and height.max() == pytest.approx(30, rel=1e-4)
    noise = rng(0, "wall").normal(3, 0.01, (50, 60)).astype(np.float32)
    assert np.ptp(relief_of(noise, 30)) < 2


def test_backscatter_turns_over_the_gray_range_for_every_draw(engine):
    ramp = np.arange(256, dtype=np.uint8)[None]
    low, high = engine("sar").params.tone
    for k in range(100):
        draw = rng(k, "tone")
        curve = tone(ramp, waves=draw.uniform(low, high), phase=draw.uniform(), swing=6.0)[0]
        steps = np.sign(np.diff(curve))
        assert {-1, 1} <= set(steps.tolist())


def test_texture_scatters_more_than_its_surroundings():
    gray = np.full((60, 90), 120, np.uint8)
    gray[:, :30] = rng(0, "texture").integers(60, 180, (60, 30))
    rough = roughness(gray, 2.0)
    assert rough[20:40, 8:22].mean() > 2 and np.abs(rough[:, 50:]).max() < 0.1


def test_metal_is_brighter_than_a_street_and_that_than_water_and_sky_is_the_darkest(engine):
    material = np.repeat([Material.METAL, Material.ASPHALT, Material.WATER, Material.SKY], 40).astype(np.uint8)
    material = np.tile(material, (80, 1))
    image = np.full((*material.shape, 3), 128, np.uint8)
    made = shoot(engine, image, material=material, settings={"looks": [8, 8]})
    assert made.drawn["materials"]
    metal, street, water, sky = (made.image[:, a : a + 30].mean() for a in (5, 45, 85, 125))
    assert metal > street + 40 and street > water and water > sky
    assert set(_TABLE) == set(Material)


def test_an_unknown_material_is_named(engine, photo):
    with pytest.raises(DataError, match="200"):
        shoot(engine, photo, material=np.full(photo.shape[:2], 200, np.uint8))


def test_structure_stays_at_its_place_on_a_photograph_with_relief(engine, photo, complete_source):
    source = complete_source("s/0", photo)
    for seed in range(4):
        made = engine("sar").synthesise(source, seed=seed, modality="sar")
        found = agreement(image_field(photo), image_field(made.image))
        assert found.score > 7 and found.offset <= 2


def test_on_real_outdoor_photographs_too(engine, shared_photos):
    for path in shared_photos[::25]:
        image = cv2.resize(read_image(path), (640, 480), interpolation=cv2.INTER_AREA)
        found = agreement(image_field(image), image_field(shoot(engine, image, name=path.stem).image))
        assert found.score > 7 and found.offset <= 2


@pytest.mark.parametrize(
    "wrong", [{"looks": [0, 2]}, {"looks": [4, 2]}, {"incidence": [0, 40]}, {"incidence": [30, 90]}, {"relief": -1}]
)
def test_settings_that_no_radar_has_are_refused(engine, wrong):
    with pytest.raises(ConfigError, match="sar"):
        engine("sar", **wrong)
