from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from minima_core.data.materials import Material
from minima_core.random import rng
from minima_core.synthesis.base import Source
from minima_core.synthesis.infrared._regions import objects_of_materials, objects_of_picture
from minima_core.synthesis.infrared._sensor import expose
from minima_core.synthesis.infrared._surfaces import _TABLE, Weather, surfaces_of_materials


def shoot(engine, image, name="s/0", seed=0, **more):
    return engine("infrared").synthesise(Source(name, image, **more), seed=seed, modality="infrared")


def best_monotone(gray, thermal):
    """Share of the thermal picture's variance that the best monotone function of gray explains, rising or falling."""
    from scipy.optimize import isotonic_regression

    count = np.bincount(gray.ravel(), minlength=256)
    mean = np.bincount(gray.ravel(), thermal.ravel(), minlength=256) / np.maximum(count, 1)
    there = count > 0
    total = thermal.var()
    shares = []
    for sign in (1, -1):
        fitted = np.zeros(256)
        fitted[there] = sign * isotonic_regression(sign * mean[there], weights=count[there]).x
        shares.append(1 - ((thermal - fitted[gray]) ** 2).mean() / total)
    return max(shares)


@pytest.mark.parametrize("seed", range(4))
def test_without_materials_it_is_no_monotone_function_of_gray(engine, photo, seed):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    thermal = shoot(engine, photo, seed=seed).image[..., 0]
    assert best_monotone(gray, gray.astype(float)) == pytest.approx(1)  # the measure itself
    assert best_monotone(gray, np.sqrt(255.0 - gray)) > 0.99
    assert abs(spearmanr(gray.ravel(), thermal.ravel()).statistic) < 0.9
    assert best_monotone(gray, thermal.astype(float)) < 0.85


def test_on_real_outdoor_photographs_too(engine, shared_photos):
    shares = []
    for path in shared_photos[::20]:
        image = cv2.resize(cv2.imread(str(path))[..., ::-1], (320, 240), interpolation=cv2.INTER_AREA)
        thermal = shoot(engine, image, name=path.stem).image[..., 0]
        shares.append(best_monotone(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), thermal.astype(float)))
    assert np.median(shares) < 0.8


def test_gray_in_three_channels(engine, photo):
    image = shoot(engine, photo).image
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()


def test_a_person_is_warmer_than_a_cold_street_and_the_sky_is_coldest(engine):
    material = np.full((60, 80), Material.ASPHALT, np.uint8)
    material[:20] = Material.SKY
    material[30:50, 30:40] = Material.PERSON
    image = np.full((60, 80, 3), 128, np.uint8)
    night = {"air": [0, 5], "sun": [0, 0]}
    made = engine("infrared", **night).synthesise(Source("s/0", image, material=material), seed=0, modality="infrared")
    thermal = made.image[..., 0].astype(int)
    person, street, sky = thermal[35:45, 33:37].mean(), thermal[40:, 50:].mean(), thermal[:15].mean()
    assert person > street + 30 > sky + 60
    assert made.drawn["materials"]


def test_every_material_has_its_place_in_the_table():
    assert set(_TABLE) == set(Material)
    weather = Weather.draw(rng(0, "t"), air=(10, 10), sun=(0.5, 0.5))
    surfaces = surfaces_of_materials(weather, rng(0, "s"))
    assert len(surfaces.warmth) == max(Material) + 1
    assert (surfaces.emissivity > 0).all() and (surfaces.emissivity <= 1).all()
    assert surfaces.is_sky.nonzero()[0].tolist() == [Material.SKY]


def test_an_id_that_the_table_does_not_know_is_named(engine, photo):
    from minima_core.errors import DataError

    with pytest.raises(DataError, match="200"):
        shoot(engine, photo, material=np.full(photo.shape[:2], 200, np.uint8))


def test_depth_fades_contrast_with_distance(engine):
    material = np.full((60, 80), Material.ASPHALT, np.uint8)
    material[:, 20:40] = material[:, 60:] = Material.PERSON
    image = np.full((60, 80, 3), 128, np.uint8)
    depth = np.full((60, 80), 5, np.float32)
    depth[:, 40:] = 300
    settings = {"air": [0, 0], "sun": [0, 0], "haze": [0.6, 0.6], "equalise": [0, 0]}
    made = engine("infrared", **settings).synthesise(
        Source("s/0", image, material=material, depth=depth), seed=0, modality="infrared"
    )
    level = made.image[..., 0].astype(int)
    near = level[:, 25:35].mean() - level[:, 5:15].mean()
    far = level[:, 65:75].mean() - level[:, 45:55].mean()
    assert near > 100 and far < 0.4 * near


def test_objects_of_materials_are_connected_areas():
    material = np.array([[1, 1, 2, 2], [2, 1, 2, 2], [2, 2, 1, 1]], np.uint8)
    objects, kinds = objects_of_materials(material)
    assert (kinds[objects] == material).all()
    assert len(kinds) == 4


def test_objects_of_a_picture_cover_it_and_part_what_looks_different():
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, :30], image[:, 30:60], image[:, 60:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    objects, kinds, looks = objects_of_picture(image, 3, 8, rng(0, "t"))
    assert objects.min() == 0 and objects.max() == len(kinds) - 1
    found = kinds[objects]
    assert [len(np.unique(found[:, a : a + 20])) for a in (5, 35, 65)] == [1, 1, 1]
    assert len({int(found[30, x]) for x in (15, 45, 75)}) == 3
    assert looks.shape == (3, 5)


def test_a_scene_of_one_temperature_is_not_blown_up_to_noise():
    quiet = expose(np.full((50, 60), 20, np.float32), blur=1, noise=0.01, equalise=0.0, rng=rng(0, "t"))
    assert quiet.std() < 10
