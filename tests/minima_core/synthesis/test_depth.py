from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from minima_core.data.materials import Material
from minima_core.synthesis.base import Source
from minima_core.synthesis.depth._spectral import colour, index, spectral_r

FAR, NEAR = (94, 79, 162), (158, 1, 66)


@pytest.mark.parametrize("name", ["ramp_16x16", "random_40x52", "smooth_33x47", "sparse_20x20"])
def test_equals_the_recorded_originals(parity, name):
    recorded = parity("depth")
    nearness = recorded[name]
    known = np.ones(nearness.shape, bool)
    assert (index(nearness, known) == recorded[f"{name}_index"]).all()
    assert (colour(nearness, known)[..., ::-1] == recorded[f"{name}_bgr"]).all()


def test_table_is_matplotlibs():
    theirs = (colormaps["Spectral_r"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    assert (spectral_r() == theirs).all()


def test_a_ramp_uses_all_indices():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    assert (np.diff(index(ramp, ramp >= 0)[0].astype(int)) >= 0).all()
    assert len(np.unique(index(ramp, ramp >= 0))) == 256


def source(depth, **more):
    return Source("s/0", np.zeros((*depth.shape, 3), np.uint8), depth=depth, **more)


def test_near_is_red_far_is_violet_and_holes_are_black(engine):
    depth = np.array([[1, 2, 0], [4, 10, 0]], np.float32)
    made = engine("depth").synthesise(source(depth), seed=0, modality="depth")
    assert tuple(made.image[0, 0]) == NEAR and tuple(made.image[1, 1]) == FAR
    assert (made.image[:, 2] == 0).all()
    assert made.drawn == {"unknown": round(2 / 6, 4)}


def test_encoding_is_linear_in_inverse_depth():
    depth = np.array([[1, 2, 1e9]])
    assert index((1 / depth).astype(np.float32), depth > 0).tolist() == [[255, 127, 0]]


def test_constant_depth_has_one_colour_and_no_warning(engine):
    made = engine("depth").synthesise(source(np.full((4, 5), 3, np.float32)), seed=0, modality="depth")
    assert (made.image == FAR).all()


def test_sky_is_infinitely_far_where_materials_say_so(engine):
    depth = np.array([[0, 0, 2], [0, 5, 1]], np.float32)
    material = np.array([[Material.SKY, Material.SKY, 5], [Material.GLASS, 5, 5]], np.uint8)
    made = engine("depth").synthesise(source(depth, material=material), seed=0, modality="depth")
    assert (made.image[0, :2] == FAR).all() and (made.image[1, 0] == 0).all()
    assert made.drawn == {"unknown": round(1 / 6, 4)}
