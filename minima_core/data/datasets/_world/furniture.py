"""What stands on the square: a monument, columns, stalls, crates, hedges, trees, cars, boards, lamps, people."""

from __future__ import annotations

import numpy as np

from minima_core.data.datasets._world import painters as paint
from minima_core.data.datasets._world.photographs import WorldName
from minima_core.data.datasets._world.scenery import UP, Obstacle, Town, rectangle
from minima_core.data.datasets._world.surfaces import block, quad
from minima_core.data.datasets._world.textures import Texture
from minima_core.data.materials import Material


def _place(town: Town, random: np.random.Generator, margin: float, inset: float) -> np.ndarray | None:
    """Return a free (x, y, 0), or None where the square is full."""
    for _ in range(30):
        point = np.array([random.uniform(-1, 1) * (town.half[k] - inset) for k in (0, 1)])
        if town.free(point, margin):
            return np.append(point, 0.0)
    return None


def add_furniture(town: Town, random: np.random.Generator, world: WorldName) -> None:
    """Fill the square: a monument, advertising columns, stalls, crates, hedges, trees, cars, lamps, people."""
    makers = [
        (_monument, 1, 2.0, 5.0),
        (_car, int(random.integers(2, 5)), 2.4, 2.0),
        (_tree, int(random.integers(3, 7)), 1.2, 1.5),
        (_kiosk, int(random.integers(1, 4)), 1.6, 3.0),
        (_column, int(random.integers(1, 4)), 0.9, 2.0),
        (_crates, int(random.integers(4, 9)), 0.9, 1.0),
        (_hedge, int(random.integers(1, 4)), 1.4, 1.5),
        (_board, int(random.integers(2, 5)), 1.0, 1.5),
        (_lamp, int(random.integers(3, 6)), 0.4, 1.0),
        (_person, int(random.integers(3, 8)), 0.5, 1.5),
    ]
    for make, count, margin, inset in makers:
        for _ in range(count):
            place = _place(town, random, margin, inset)
            if place is not None:
                make(town, random, world, place)


def _solid(place: np.ndarray, size: tuple[float, float, float], yaw: float, *, bottom: float = 0.0) -> Obstacle:
    return Obstacle(rectangle(place, size[:2], yaw), bottom, bottom + size[2])


def _monument(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:
    yaw, stone = random.uniform(0, np.pi), town.tile("gravel", "plaster")
    grey = paint.flat(np.array((176, 170, 158)) * random.uniform(0.7, 1.1), Material.STONE, detail=1.0)
    step, base = (3.6, 3.6, 0.35), (2.0, 2.0, random.uniform(1.4, 2.4))
    town.add(block(place, step, yaw, [grey], grey, details=stone), obstacle=_solid(place, step, yaw))
    reliefs = [paint.poster(random, (2.0, base[2]), world, 80) for _ in range(4)]
    town.add(block(place + UP * 0.35, base, yaw, reliefs, grey, details=stone))
    column = (0.9, 0.9, random.uniform(2.0, 4.5))
    drums = [paint.crate(random, (0.9, column[2]), world) for _ in range(2)]
    bottom = 0.35 + base[2]
    town.add(block(place + UP * bottom, column, yaw + 0.4, drums, grey, details=stone))
    town.add(block(place + UP * (bottom + column[2]), (1.5, 1.5, 0.5), yaw, [grey], grey, details=stone))
    town.obstacles.append(_solid(place, (base[0], base[1], column[2]), yaw, bottom=bottom))
    town.subjects.append(place + UP * 1.4)


def _kiosk(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:
    yaw, size = random.uniform(0, np.pi), (random.uniform(1.8, 2.8), random.uniform(1.6, 2.2), random.uniform(2.2, 2.7))
    sides = [paint.poster(random, (size[0], size[2]), world, 75) for _ in range(3)] + [paint.metal(random, size[1:])]
    lid = paint.flat(paint.bright(random) * 0.8, Material.METAL)
    town.add(block(place, size, yaw, sides, None), obstacle=_solid(place, size, yaw))
    town.add(block(place + UP * size[2], (size[0] + 0.7, size[1] + 0.7, 0.22), yaw, [lid], lid))
    town.subjects.append(place + UP * 1.3)


def _column(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:
    """Put an eight-sided advertising column."""
    radius, height, sides = 0.65, 2.6, 8
    angles = np.arange(sides + 1) * 2 * np.pi / sides
    ring = place + radius * np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    for k in range(sides):
        left, right = ring[k], ring[k + 1]
        width = float(np.linalg.norm(right - left))
        town.add(
            [quad(left + UP * height, right - left, -UP * height, paint.poster(random, (width, height), world, 80))]
        )
    town.obstacles.append(Obstacle(ring[:-1, :2], 0.0, height))
    cap = paint.flat(np.array((60, 90, 70)), Material.METAL)
    town.add(block(place + UP * height, (1.5, 1.5, 0.18), 0.2, [cap], cap))
    town.subjects.append(place + UP * 1.3)


def _crates(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:
    side = random.uniform(0.6, 1.1)
    bottom = 0.0
    for _ in range(int(random.integers(1, 4))):
        yaw = random.uniform(0, np.pi)
        faces = [paint.crate(random, (side, side), world) for _ in range(4)]
        lid = paint.crate(random, (side, side), world)
        size = (side, side, side * random.uniform(0.7, 1.0))
        wood = town.tile("wood")
        town.add(block(place + UP * bottom, size, yaw, faces, lid, details=wood, tile=0.8))
        town.obstacles.append(_solid(place, size, yaw, bottom=bottom))
        bottom, side = bottom + size[2], side * 0.85
    town.subjects.append(place + UP * 0.6)


def _hedge(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:  # noqa: ARG001
    yaw, size = random.uniform(0, np.pi), (random.uniform(2.0, 5.0), 0.8, random.uniform(0.7, 1.3))
    sides = [paint.hedge(random, (size[0], size[2])), paint.hedge(random, (0.8, size[2]))]
    top = paint.hedge(random, (size[0], 0.8))
    leaves = town.tile("grass", "leaves")
    town.add(block(place, size, yaw, sides, top, details=leaves), obstacle=_solid(place, size, yaw))


def _tree(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:  # noqa: ARG001
    height, spread, trunk = random.uniform(4.5, 7.5), random.uniform(3.0, 5.0), random.uniform(0.2, 0.4)
    bark = paint.flat(np.array((92, 72, 54)), Material.WOOD, detail=1.0)
    size = (trunk, trunk, height - spread * 0.6)
    town.add(block(place, size, 0.5, [bark], None, details=town.tile("wood")), obstacle=_solid(place, size, 0.5))
    turn = random.uniform(0, np.pi)
    for k in range(3):
        direction = np.array([np.cos(turn + k * np.pi / 3), np.sin(turn + k * np.pi / 3), 0.0])
        corner = place + UP * height - direction * spread / 2
        leaves = town.tile("leaves")
        town.add([quad(corner, direction * spread, -UP * spread, paint.crown(random), detail=leaves, both_sides=True)])
    corner = place + UP * (height - spread * 0.45) - np.array([spread, -spread, 0]) / 2
    across, down = np.array([spread, 0.0, 0.0]), np.array([0.0, -spread, 0.0])
    town.add([quad(corner, across, down, paint.crown(random), detail=town.tile("leaves"), both_sides=True)])
    ring = rectangle(place, (spread * 0.8, spread * 0.8), 0.4)
    town.obstacles.append(Obstacle(ring, height - spread * 0.9, height))


def _car(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:  # noqa: ARG001
    yaw, colour = random.uniform(0, 2 * np.pi), paint.bright(random)
    left, front = paint.car_side(random, colour), paint.car_panel(random, colour, glass=False)
    mirrored = Texture(left.image[:, ::-1].copy(), np.asarray(left.material)[:, ::-1], np.asarray(left.solid)[:, ::-1])
    body = block(place, (4.2, 1.75, 0.95), yaw, [left, front, mirrored, front], paint.car_top(colour))
    ex = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    glass = paint.car_panel(random, colour, glass=True)
    roof = paint.flat(colour, Material.VEHICLE, detail=0.1)
    cabin = block(place + ex * 0.35 + UP * 0.95, (2.2, 1.55, 0.55), yaw, [glass], roof)
    town.add(body + cabin, obstacle=_solid(place, (4.2, 1.75, 1.4), yaw))
    town.subjects.append(place + UP * 0.8)


def _board(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:
    """Put a picture on two legs."""
    yaw, width, height = random.uniform(0, np.pi), random.uniform(1.4, 2.6), random.uniform(1.0, 1.8)
    right = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    away = np.array([-np.sin(yaw), np.cos(yaw), 0.0]) * 0.04
    corner = place - right * width / 2 + UP * (0.6 + height)
    town.add([quad(corner - away, right * width, -UP * height, paint.poster(random, (width, height), world))])
    town.add(
        [
            quad(
                corner + right * width + away,
                -right * width,
                -UP * height,
                paint.poster(random, (width, height), world),
            )
        ]
    )
    post = paint.flat(np.full(3, 80.0), Material.METAL)
    for side in (-0.45, 0.45):
        town.add(block(place + right * width * side, (0.08, 0.06, 0.6 + height), yaw, [post], None))
    town.obstacles.append(_solid(place, (width, 0.1, 0.6 + height), yaw))
    town.subjects.append(place + UP * 1.2)


def _lamp(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:  # noqa: ARG001
    height = random.uniform(3.2, 4.6)
    iron = paint.flat(np.array((52, 56, 54)), Material.METAL)
    glow = paint.flat(np.array((250, 240, 205)), Material.LAMP)
    size = (0.12, 0.12, height)
    town.add(block(place, size, 0.3, [iron], iron), obstacle=_solid(place, size, 0.3))
    town.add(block(place + UP * height, (0.35, 0.35, 0.45), 0.3, [glow], iron))


def _person(town: Town, random: np.random.Generator, world: WorldName, place: np.ndarray) -> None:  # noqa: ARG001
    yaw, height = random.uniform(0, np.pi), random.uniform(1.55, 1.95)
    right = np.array([np.cos(yaw), np.sin(yaw), 0.0]) * 0.8
    town.add([quad(place - right / 2 + UP * height, right, -UP * height, paint.person(random), both_sides=True)])
    town.obstacles.append(_solid(place, (0.7, 0.25, height), yaw))
