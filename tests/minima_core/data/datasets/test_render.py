"""The renderer against planes whose depth can be written down."""

from __future__ import annotations

import numpy as np
import pytest

from minima_core.data.datasets._world.painters import flat
from minima_core.data.datasets._world.render import Mesh, glance, render, sky_image
from minima_core.data.datasets._world.surfaces import Surface, block, quad
from minima_core.data.datasets._world.textures import Texture
from minima_core.data.materials import Material

SIZE = (64, 48)
K = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
SKY = np.full((16, 64, 3), 77, np.uint8)
GREY = flat(np.full(3, 100.0), Material.CONCRETE)
# camera at the origin looking along +y, x right, z up
FORWARD = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def picture(surfaces: list[Surface], T_w2c: np.ndarray = FORWARD):
    return render(Mesh(surfaces), np.ones((len(surfaces), 3)), SKY, K=K, T_w2c=T_w2c, size=SIZE)


def wall(y: float, side: float = 100.0, texture: Texture = GREY, **options) -> Surface:
    """Return an upright square at distance ``y``, facing the camera."""
    return quad((-side / 2, y, side / 2), (side, 0, 0), (0, 0, -side), texture, **options)


def ground(z: float) -> Surface:
    """Return the plane below the camera; it reaches behind it."""
    return quad((-500, 500, z), (1000, 0, 0), (0, -1000, 0), GREY)


def test_depth_of_a_wall_is_its_distance_everywhere():
    assert np.abs(picture([wall(4.0)]).depth - 4.0).max() < 1e-12


def test_depth_of_the_ground_follows_the_formula_at_pixel_centres():
    depth = picture([ground(-1.5)]).depth
    rows = np.arange(SIZE[1])
    below = rows > 23.5
    expected = 1.5 * 50 / (rows[below] - 23.5)  # z = h f / (y - cy)
    assert np.abs(depth[below] - expected[:, None]).max() < 1e-9
    assert (depth[rows < 23] == 0).all()


def test_turned_camera_sees_the_same_plane_equation():
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T_w2c = turn @ FORWARD
    depth = picture([wall(4.0)], T_w2c).depth
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    world = (rays * depth[..., None] - T_w2c[:3, 3]) @ T_w2c[:3, :3]
    assert (depth > 0).all()
    assert np.abs(world[..., 1] - 4.0).max() < 1e-9


def test_nearer_surface_hides_the_farther_in_any_order():
    near, far = wall(2.0, 0.5), wall(5.0)
    first, second = picture([near, far]).depth, picture([far, near]).depth
    assert np.array_equal(first, second)
    inside = 0.5 / 2 * 50 / 2  # half side in pixels: 6.25
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    square = (np.abs(x - 31.5) <= inside) & (np.abs(y - 23.5) <= inside)
    assert np.array_equal(np.isclose(first, 2.0), square)


def test_what_is_behind_the_camera_or_turned_away_is_not_drawn():
    assert (picture([wall(-3.0, both_sides=True)]).depth == 0).all()
    away = quad((50, 4, 50), (-100, 0, 0), (0, 0, -100), GREY)
    assert (picture([away]).depth == 0).all()


def test_material_and_texture_fall_where_the_plane_puts_them():
    image = np.zeros((2, 2, 4), np.uint8)
    image[:, 1, :3] = 200
    material = np.array([[Material.WOOD, Material.METAL]] * 2, np.uint8)
    seen = picture([wall(4.0, texture=Texture(image, material))])
    assert (seen.material[:, :32] == Material.WOOD).all()
    assert (seen.material[:, 32:] == Material.METAL).all()
    assert seen.albedo[:, :31].max() < seen.albedo[:, 33:].min()


def test_cut_out_lets_the_sky_through():
    solid = np.ones((4, 4), bool)
    solid[:, 2:] = False
    texture = Texture(np.full((4, 4, 4), 100, np.uint8), int(Material.VEGETATION), solid)
    seen = picture([wall(4.0, texture=texture)])
    assert (seen.depth[:, :32] == 4.0).all() and (seen.depth[:, 32:] == 0).all()
    assert (seen.material[:, 32:] == Material.SKY).all()


def test_light_scales_the_colour():
    lit = render(Mesh([wall(4.0)]), np.array([[1.5, 1.0, 0.5]]), SKY, K=K, T_w2c=FORWARD, size=SIZE)
    assert lit.albedo[20, 20] == pytest.approx([150, 100, 50], abs=1)


def test_block_is_closed_towards_the_camera():
    box = block((0, 5, -1), (2, 2, 2), 0.0, [GREY], GREY)
    depth = picture([*box, wall(20.0)]).depth
    assert depth[23, 31] == pytest.approx(4.0)
    assert set(np.round(np.unique(depth), 6)) <= {4.0, 20.0}  # seen head on, only its front shows


def test_a_glance_sees_the_depth_at_the_middle_of_its_coarse_pixels():
    depth = glance(Mesh([ground(-1.5)]), K=K, T_w2c=FORWARD, size=SIZE, factor=4)
    rows = (np.arange(SIZE[1] // 4) + 0.5) * 4 - 0.5
    below = rows > 23.5
    assert np.abs(depth[below] - (1.5 * 50 / (rows[below] - 23.5))[:, None]).max() < 1e-9


@pytest.mark.parametrize("size", [SIZE, (66, 47)])
def test_sky_lies_where_the_camera_looks(size):
    elevation = np.linspace(90, -10, 4000)
    panorama = np.repeat(np.clip(200 - 5 * elevation, 0, 255)[:, None, None], 64, 1).repeat(3, 2).astype(np.uint8)
    shown = sky_image(panorama, K, FORWARD, size)[:, 31, 0].astype(float)
    rows = np.arange(4, 20)
    expected = 200 - 5 * np.degrees(np.arctan((23.5 - rows) / np.hypot(50, 0.5)))
    assert np.abs(shown[rows] - expected).max() < 2  # a row is about 5.5 gray values
