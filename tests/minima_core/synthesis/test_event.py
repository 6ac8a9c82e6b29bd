from __future__ import annotations

import cv2
import numpy as np
import pytest

from minima_core.errors import ConfigError
from minima_core.synthesis.base import Source
from minima_core.synthesis.event.closed_form import FALL, PAPER, RISE, events


def double_loop(gray, contrast, dx, dy):
    """The definition, spec/data-engine.md section 4, pixel by pixel."""
    height, width = gray.shape
    log = np.log(gray.astype(np.float32) + 1)
    picture = np.full((height, width, 3), 255, np.uint8)
    for i in range(abs(dy), height - abs(dy)):
        for j in range(abs(dx), width - abs(dx)):
            change = log[i + dy, j + dx] - log[i, j]
            if change > contrast:
                picture[i, j] = (0, 0, 255)
            elif change < -contrast:
                picture[i, j] = (255, 0, 0)
    return picture


@pytest.mark.parametrize("case", range(6))
def test_equals_the_recorded_originals(parity, case):
    recorded = parity("event")
    contrast, dx, dy = recorded["cases_C_xs_ys"][case]
    gray = recorded[str(recorded["cases_image"][case])]
    assert (events(gray, contrast, int(dx), int(dy))[..., ::-1] == recorded[f"case{case}_bgr"]).all()


@pytest.mark.parametrize(("dx", "dy"), [(1, 1), (-1, 2), (3, -3), (-2, -1)])
def test_equals_the_double_loop(photo, dx, dy):
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[:60, :70]
    assert (events(gray, 0.2, dx, dy) == double_loop(gray, 0.2, dx, dy)).all()


def test_border_is_white_and_there_are_three_colours(photo):
    picture = events(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), 0.05, 3, -2)
    assert {tuple(map(int, c)) for c in np.unique(picture.reshape(-1, 3), axis=0)} == {RISE, FALL, PAPER}
    assert (picture[:2] == 255).all() and (picture[-2:] == 255).all()
    assert (picture[:, :3] == 255).all() and (picture[:, -3:] == 255).all()


def test_a_brighter_right_half_rises_before_the_edge_when_looking_right():
    gray = np.zeros((9, 10), np.uint8)
    gray[:, 5:] = 200
    picture = events(gray, 0.5, 1, 1)
    assert (picture[1:-1, 4] == RISE).all()
    assert (picture[1:-1, [3, 5, 6]] == 255).all()
    assert (events(gray, 0.5, -1, 1)[1:-1, 5] == FALL).all()


def test_draws_stay_in_their_ranges_and_are_recorded(engine):
    made = engine("event")
    image = np.zeros((20, 20, 3), np.uint8)
    drawn = [made.synthesise(Source(f"s/{i}", image), seed=0, modality="event").drawn for i in range(200)]
    assert all(0.05 <= d["contrast"] <= 0.5 for d in drawn)
    assert {d["shift_x"] for d in drawn} == {d["shift_y"] for d in drawn} == {-3, -2, -1, 1, 2, 3}


def test_the_record_makes_the_picture_again(engine, photo):
    made = engine("event").synthesise(Source("s/0", photo), seed=0, modality="event")
    gray = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    assert (events(gray, made.drawn["contrast"], made.drawn["shift_x"], made.drawn["shift_y"]) == made.image).all()


@pytest.mark.parametrize("wrong", [{"contrast": [0.5, 0.1]}, {"contrast": [0, 1]}, {"shift": [0, 3]}])
def test_ranges_in_the_wrong_order_are_refused(engine, wrong):
    with pytest.raises(ConfigError, match="event"):
        engine("event", **wrong)
