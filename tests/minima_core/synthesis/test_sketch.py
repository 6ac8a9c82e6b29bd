from __future__ import annotations

import cv2
import numpy as np

from minima_core.synthesis.base import Source


def draw(engine, image, **settings):
    return engine("sketch", **settings).synthesise(Source("s/0", image), seed=0, modality="sketch").image


def test_most_of_the_sheet_is_paper_and_lines_are_dark(engine, photo):
    sheet = draw(engine, photo)[..., 0]
    assert (sheet > 230).mean() > 0.6
    assert 0.01 < (sheet < 100).mean() < 0.3


def test_three_channels_are_equal(engine, photo):
    sheet = draw(engine, photo)
    assert (sheet[..., 0] == sheet[..., 1]).all() and (sheet[..., 0] == sheet[..., 2]).all()


def test_a_constant_picture_is_an_empty_sheet(engine):
    assert (draw(engine, np.full((50, 60, 3), 90, np.uint8)) == 255).all()


def test_lines_lie_where_the_edges_are(engine):
    image = np.full((100, 120, 3), 200, np.uint8)
    image[30:70, 40:90] = 60
    ink = draw(engine, image)[..., 0] < 128
    edges = np.zeros((100, 120), np.uint8)
    cv2.rectangle(edges, (40, 30), (89, 69), 255, 1)
    near = cv2.dilate(edges, np.ones((7, 7), np.uint8)) > 0
    assert ink.sum() > 100
    assert not ink[~near].any()


def test_shade_draws_the_lines_that_sun_draws(engine, photo):
    dark = (photo.astype(np.float32) * 0.5).astype(np.uint8)
    bright, shaded = (draw(engine, image)[..., 0] < 128 for image in (photo, dark))
    assert (bright & shaded).sum() / (bright | shaded).sum() > 0.6
