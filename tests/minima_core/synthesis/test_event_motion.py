from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path as FilePath

import cv2
import numpy as np
import pytest

from minima_core.errors import ConfigError, Unavailable
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.event._path import Path
from minima_core.synthesis.event._view import Scene
from minima_core.synthesis.event.closed_form import FALL, PAPER, RISE
from minima_core.synthesis.event.motion import events, filled_inverse, fitting_span, log_brightness, moments, picture

RECORDED = FilePath(__file__).parent / "recorded" / "event_motion.npz"
FOCAL = 100.0
K = np.array([[FOCAL, 0, 31.5], [0, FOCAL, 11.5], [0, 0, 1]])
SHAPE = (24, 64)


def motion(t=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)):
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array(turn, np.float64))[0]
    T[:3, 3] = t
    return T


def watch(log, depth, T, steps, contrast):
    """Net polarity and number of events over the whole path, centred on the source."""
    scene = Scene(log.astype(np.float32), (1 / np.broadcast_to(depth, log.shape)).astype(np.float32), K)
    path = Path(T)
    return events((scene.seen_from(path.at(s)) for s in moments(1.0, steps)), contrast)


def sideways(pixels, depth):
    """The motion that moves what lies at ``depth`` to the right."""
    return motion((pixels * depth / FOCAL, 0, 0))


def ramp(slopes):
    """Log brightness that rises to the right, a slope a row."""
    return np.asarray(slopes)[:, None] * np.arange(SHAPE[1])


def pixel_by_pixel(levels, contrast):
    """The definition: compare with the level of the last event, for each pixel and look."""
    net = np.zeros(levels[0].shape)
    for at in np.ndindex(net.shape):
        level = levels[0][at]
        for look in levels[1:]:
            while abs(look[at] - level) >= contrast:
                sign = np.sign(look[at] - level)
                level += sign * contrast
                net[at] += sign
    return net


@pytest.mark.parametrize(("pixels", "contrast"), [(4.0, 0.13), (2.0, 0.07), (-3.0, 0.11)])
def test_a_plane_that_moves_sideways_fires_where_its_ramp_crosses_the_threshold(pixels, contrast):
    slopes = np.linspace(-0.151, 0.153, SHAPE[0])
    net, fired = watch(ramp(slopes), 2.0, sideways(pixels, 2.0), 8, contrast)
    expected = np.trunc(-slopes * pixels / contrast)
    assert (net[:, 4:-4] == expected[:, None]).all()
    assert len(np.unique(expected)) > 4 and fired >= np.abs(net).sum()


def test_a_random_texture_fires_as_the_definition_says():
    log = np.random.default_rng(0).uniform(0, 2, SHAPE)
    net, _ = watch(log, 2.0, sideways(4, 2.0), 4, 0.3)
    expected = pixel_by_pixel([np.roll(log, shift, 1) for shift in range(-2, 3)], 0.3)
    assert (net == expected)[:, 4:-4].mean() > 0.995  # rounding, where a level is hit exactly


def test_polarity_flips_when_the_motion_flips():
    log = ramp(np.linspace(-0.151, 0.153, SHAPE[0]))
    there, _ = watch(log, 2.0, sideways(4, 2.0), 4, 0.1)
    back, _ = watch(log, 2.0, sideways(-4, 2.0), 4, 0.1)
    assert (there == -back).all() and there.any()


def test_what_is_nearer_moves_more():
    depth = np.where(np.arange(SHAPE[1]) < 32, 1.0, 4.0)
    net, _ = watch(ramp(np.full(SHAPE[0], -0.101)), depth, sideways(8, 1.0), 16, 0.2)
    assert (net[:, 8:24] == 4).all()  # 8 pixels of 0.101
    assert (net[:, 40:56] == 1).all()  # 2 pixels


@pytest.mark.parametrize("turned", [False, True])
def test_a_near_square_covers_ground_and_uncovers_it(turned):
    log, depth = np.zeros((48, 64)), np.full((48, 64), 1e4)
    log[16:32, 20:40], depth[16:32, 20:40] = 1.0, 1.0
    T = motion((0, 4 / FOCAL, 0)) if turned else motion((4 / FOCAL, 0, 0))
    net, _ = watch(log, depth, T, 4, 0.4)
    expected = np.zeros_like(net)
    rows, columns = slice(16, 32), slice(20, 40)
    for sign, start, end in ((-2, (14, 18), (18, 22)), (2, (30, 34), (38, 42))):  # two crossings of 0.4 in 1.0
        if turned:
            expected[start[0] : start[1], columns] = sign
        else:
            expected[rows, end[0] : end[1]] = sign
    assert (net == expected).all()


def test_uncovered_ground_repeats_the_farther_surface():
    log = ramp(np.full(48, 0.01))[:, :64] + 0.5
    depth = np.full((48, 64), 1e4)
    log[16:32, 20:40], depth[16:32, 20:40] = 3.0, 1.0
    scene = Scene(log.astype(np.float32), (1 / depth).astype(np.float32), K)
    seen = scene.seen_from(motion((4 / FOCAL, 0, 0)))
    assert np.allclose(seen[16:32, 24:44], 3.0)
    assert np.allclose(seen[20:28, 20:24], 0.69, atol=0.002)  # the ground at column 19


def test_a_surface_that_comes_nearer_has_no_cracks():
    log = ramp(np.full(SHAPE[0], 0.1)) + 0.2 * np.arange(SHAPE[0])[:, None]
    scene = Scene(log.astype(np.float32), np.full(SHAPE, 0.5, np.float32), K)
    seen = scene.seen_from(motion((0, 0, -0.4)))  # from 2 to 1.6: 1.25 times as large
    x, y = (0.8 * (np.arange(n) - c) + c for n, c in ((64, 31.5), (24, 11.5)))
    assert np.abs(seen - (0.1 * x + 0.2 * y[:, None])).max() < 0.01


def test_turning_looks_the_same_whatever_the_depth():
    log = np.random.default_rng(0).uniform(0, 2, SHAPE)
    nets = [
        watch(log, depth, motion(turn=(0.01, 0.03, 0.02)), 4, 0.2)[0] for depth in (1.0, 50.0, np.linspace(2, 3, 64))
    ]
    assert (nets[0] != 0).any()
    assert all((net == nets[0]).mean() > 0.999 for net in nets[1:])


def test_a_higher_contrast_fires_less_and_nowhere_else():
    log = ramp(np.linspace(-0.151, 0.153, SHAPE[0]))
    made = [watch(log, 2.0, sideways(4, 2.0), 4, contrast) for contrast in (0.05, 0.1, 0.2, 0.4)]
    for (low, many), (high, few) in pairwise(made):
        assert few < many
        assert (low[high != 0] != 0).all()


def test_path_goes_from_one_pose_to_the_other_and_as_far_back():
    for T in (motion((1, 2, 3), (0.4, -1.0, 0.7)), motion((1, 2, 3)), motion((1, 0, 0), (0, 1e-5, 0)), np.eye(4)):
        path = Path(T)
        assert np.allclose(path.at(1), T) and np.allclose(path.at(0), np.eye(4))
        assert np.allclose(path.at(-0.3) @ path.at(0.3), np.eye(4))
        assert np.allclose(path.at(0.25) @ path.at(0.5), path.at(0.75))


def test_span_gives_the_median_displacement_and_ends_with_the_path():
    points = np.array([[0, 10, 20.0], [0, 0, 0], [1, 1, 1], [1, 0.5, 0.25]])
    path = Path(motion((0.2, 0, 0)))  # moves them by 20, 10 and 5 pixels
    span, moved = fitting_span(points, K, path, 3.0)
    assert span == pytest.approx(0.3) and np.allclose(moved, [6, 3, 1.5])
    assert fitting_span(points, K, path, 30.0)[0] == 1.0


def test_unknown_depth_is_that_of_the_nearest_known_pixel():
    depth = np.zeros((5, 8), np.float32)
    depth[2, 1], depth[2, 6] = 2.0, 4.0
    inverse, unknown = filled_inverse(depth)
    assert (inverse[:, :4] == 0.5).all() and (inverse[:, 4:] == 0.25).all()
    assert unknown == pytest.approx(38 / 40)


def test_picture_is_blue_where_brightness_rises_and_red_where_it_falls():
    assert (picture(np.array([[3.0, 0, -1]])) == [[RISE, PAPER, FALL]]).all()


def make(engine, source, **settings):
    return engine("event", engine="motion", **settings).synthesise(source, seed=0, modality="event")


def test_the_record_makes_the_picture_again(engine, photo, complete_source):
    source = complete_source("s/0", photo)
    made = make(engine, source)
    drawn, path = made.drawn, Path(source.T_0to1)
    scene = Scene(log_brightness(photo), 1 / source.depth, source.K)
    net, fired = events(
        (scene.seen_from(path.at(s)) for s in moments(drawn["span"], drawn["steps"])), drawn["contrast"]
    )
    assert (picture(net) == made.image).all() and fired == drawn["events"]
    assert drawn["rising"] == (made.image == RISE).all(-1).sum()
    assert drawn["falling"] == (made.image == FALL).all(-1).sum()
    assert drawn["unknown"] == 0


def test_draws_stay_in_their_ranges(engine, photo, complete_source):
    made = engine("event", engine="motion")
    image = cv2.resize(photo, (64, 48))
    drawn = [made.synthesise(complete_source(f"s/{i}", image), seed=0, modality="event").drawn for i in range(60)]
    assert all(0.05 <= d["contrast"] <= 0.5 and 1 <= d["motion"] <= 3 for d in drawn)
    assert all(d["displacement"] == pytest.approx(d["motion"], rel=0.01) for d in drawn)
    assert np.ptp([d["motion"] for d in drawn]) > 1.5 and np.ptp([d["contrast"] for d in drawn]) > 0.3


def test_a_path_that_is_too_short_is_taken_whole(engine, photo, complete_source):
    source = complete_source("s/0", photo)
    usual = make(engine, source).drawn
    hardly = make(engine, replace(source, T_0to1=motion((0.001, 0, 0)))).drawn
    assert hardly["span"] == 1.0 and 0.01 < hardly["displacement"] < 0.1
    assert hardly["events"] < usual["events"] / 10


def test_unknown_depth_is_counted_and_does_not_hinder(engine, photo, complete_source):
    source = complete_source("s/0", photo)
    depth = source.depth.copy()
    depth[50:60, 100:180] = 0
    holes = make(engine, replace(source, depth=depth))
    assert holes.drawn["unknown"] == round(800 / depth.size, 4)
    assert (holes.image == make(engine, source).image).all(-1).mean() > 0.99


def test_points_behind_the_camera_do_not_come_back(engine, photo, complete_source):
    source = complete_source("s/0", photo)
    T = motion((0, 0, -2.0))
    depth = np.where(np.arange(256) < 10, 0.001, source.depth).astype(np.float32)  # passed within the first step
    assert make(engine, replace(source, T_0to1=T, depth=depth)).drawn["events"] > 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"depth": None}, "no depth"),
        ({"depth": np.zeros((192, 256), np.float32)}, "no depth"),
        ({"K": None}, "no intrinsics"),
        ({"T_0to1": None}, "no pose of a neighbouring view"),
        ({"T_0to1": np.eye(4)}, "nothing moves"),
    ],
)
def test_what_is_missing_is_named_with_the_remedy(engine, photo, complete_source, change, named):
    with pytest.raises(Unavailable, match=named) as caught:
        make(engine, replace(complete_source("s/0", photo), **change))
    assert "s/0" in str(caught.value) and "closed_form" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"contrast": [0.5, 0.1]}, {"contrast": [0, 1]}, {"motion": [0, 3]}])
def test_ranges_in_the_wrong_order_are_refused(wrong):
    shipped = MODALITIES.settings("event", "motion")
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MODALITIES.create("event", {**shipped, **wrong})


def test_pictures_are_as_they_were_recorded(engine):
    recorded = np.load(RECORDED)
    source = Source("s/0", *(recorded[k] for k in ("image", "depth", "K")), T_0to1=recorded["T_0to1"])
    made = make(engine, source)
    assert (made.image == recorded["picture"]).all(-1).mean() > 0.998
    assert 0.1 < (recorded["picture"] != 255).any(-1).mean() < 0.9
