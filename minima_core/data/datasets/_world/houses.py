"""Houses round the square and the taller ones behind them."""

from __future__ import annotations

import numpy as np

from minima_core.data.datasets._world import painters as paint
from minima_core.data.datasets._world.photographs import WorldName
from minima_core.data.datasets._world.scenery import UP, Obstacle, Town, rectangle
from minima_core.data.datasets._world.surfaces import Surface, block, quad, triangle
from minima_core.data.materials import Material


def add_houses(town: Town, random: np.random.Generator, world: WorldName) -> None:
    """Add a row of houses along each side of the square, fronts towards it."""
    a, b = town.half
    sides = [  # start, direction along the front, outward normal (away from the square)
        (np.array([-a, b]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), 2 * a),
        (np.array([a, b]), np.array([0.0, -1.0]), np.array([1.0, 0.0]), 2 * b),
        (np.array([a, -b]), np.array([-1.0, 0.0]), np.array([0.0, -1.0]), 2 * a),
        (np.array([-a, -b]), np.array([0.0, 1.0]), np.array([-1.0, 0.0]), 2 * b),
    ]
    for start, along, out, length in sides:
        at = random.uniform(-3.0, 0.5)
        while at < length:
            width = random.uniform(6.0, 11.5)
            front = start + along * (at + width / 2) + out * random.uniform(0.5, 3.5)
            _building(town, random, world, front, along, out, width)
            at += width + (random.uniform(1.5, 4.0) if random.random() < 0.3 else 0.0)


def _building(
    town: Town,
    random: np.random.Generator,
    world: WorldName,
    front: np.ndarray,
    along: np.ndarray,
    out: np.ndarray,
    width: float,
) -> None:
    """Put a house with its front's middle at ``front`` (2,); ``along`` runs to the right of who looks at it."""
    style = str(random.choice(list(paint.WALLS), p=[0.32, 0.34, 0.2, 0.14]))
    _, details, _, colours = paint.WALLS[style]
    colour = np.array(colours[int(random.integers(len(colours)))]) * random.uniform(0.85, 1.1, 3)
    depth, height = random.uniform(7, 10), random.uniform(4.2, 13.5)
    detail, tile = town.tile(*details), 1.6
    right, back = np.append(along, 0.0), np.append(out, 0.0)
    corner = np.append(front, height) - right * width / 2
    walls = [
        quad(corner, right * width, -UP * height, paint.facade(random, (width, height), world, style, colour)),
        quad(
            corner + back * depth,
            -back * depth,
            -UP * height,
            paint.facade(random, (depth, height), world, style, colour),
        ),
        quad(
            corner + right * width,
            back * depth,
            -UP * height,
            paint.facade(random, (depth, height), world, style, colour),
        ),
    ]
    walls = [Surface(s.corners, s.origin, s.along, s.down, s.texture, detail, tile) for s in walls]
    yaw = float(np.arctan2(along[1], along[0]))
    centre = front + out * depth / 2
    town.add(walls, obstacle=Obstacle(rectangle(centre, (width, depth), yaw), 0.0, height))
    town.subjects.append(np.append(front, random.uniform(1.2, min(height, 5.0))))
    _roof(town, random, corner, right * width, back * depth, colour)
    _relief(town, random, world, np.append(front, 0.0), right, -back, width, height)


def _roof(
    town: Town,
    random: np.random.Generator,
    corner: np.ndarray,
    right: np.ndarray,
    back: np.ndarray,
    colour: np.ndarray,
) -> None:
    """Cover a house: a gable with eaves towards the square, a gable front, or a flat roof with a parapet."""
    width, depth = float(np.linalg.norm(right)), float(np.linalg.norm(back))
    kind = random.choice(["eaves", "gable", "flat"])
    rise = random.uniform(1.2, 3.0) * UP
    plaster, tiles = paint.flat(colour, Material.CONCRETE, detail=1.0), town.tile("leaves")
    if kind == "eaves":
        over = -back / depth * 0.4 - UP * 0.25
        ridge = corner + back / 2 + rise
        slope = corner + over - ridge
        cover = paint.roof(random, (width, float(np.linalg.norm(slope))))
        town.add([quad(ridge, right, slope, cover, detail=tiles, both_sides=True)])
        for left, other in ((corner + back, corner), (corner + right, corner + right + back)):
            town.add([triangle([left, other, (left + other) / 2 + rise], plaster, detail=town.tile("plaster"))])
    elif kind == "gable":
        town.add([triangle([corner, corner + right, corner + right / 2 + rise], plaster, detail=town.tile("plaster"))])
        for side in (corner, corner + right):
            ridge = corner + right / 2 + rise
            slope = (side - ridge) * 1.06
            cover = paint.roof(random, (depth, float(np.linalg.norm(slope))))
            town.add([quad(ridge, back, slope, cover, detail=tiles, both_sides=True)])
    else:
        parapet = paint.flat(colour * 0.85, Material.CONCRETE, detail=1.0)
        middle = corner + right / 2 + back / 2
        yaw = float(np.arctan2(right[1], right[0]))
        town.add(block(middle, (width + 0.3, depth + 0.3, 0.5), yaw, [parapet], parapet, details=town.tile("plaster")))
    chimney = corner + right * random.uniform(0.2, 0.8) + back * random.uniform(0.3, 0.6)
    brick = paint.flat(np.array((140, 88, 70)), Material.BRICK, detail=1.0)
    town.add(block(chimney, (0.7, 0.6, 2.6 + rise[2]), 0.3, [brick], brick, details=town.tile("brick", "gravel")))


def _relief(
    town: Town,
    random: np.random.Generator,
    world: WorldName,
    foot: np.ndarray,
    right: np.ndarray,
    towards: np.ndarray,
    width: float,
    height: float,
) -> None:
    """Hang balconies, awnings, pipes and machines on a front; ``towards`` points into the square."""
    yaw = float(np.arctan2(right[1], right[0]))
    for _ in range(int(random.integers(0, 4))):
        if height < 6.5:
            break
        place = foot + right * random.uniform(-0.38, 0.38) * width + towards * 0.5
        place = place + UP * random.uniform(3.2, height - 2.2)
        size = (random.uniform(1.4, 2.6), 1.0, 1.0)
        side = (
            paint.poster(random, (size[0], 1.0), world, 60) if random.random() < 0.4 else paint.metal(random, size[:2])
        )
        town.add(
            block(
                place,
                size,
                yaw,
                [side, paint.metal(random, (1.0, 1.0))],
                paint.flat(np.full(3, 150.0), Material.CONCRETE),
            )
        )
        floor = place - (right * size[0] + towards) / 2
        under = paint.flat(np.full(3, 90.0), Material.CONCRETE)
        town.add([quad(floor, right * size[0], towards * size[1], under, both_sides=True)])
    if random.random() < 0.55:
        span = random.uniform(2.0, min(4.5, width * 0.6))
        start = foot + right * random.uniform(-0.45 * width, 0.45 * width - span) + UP * 2.9
        fall = towards * random.uniform(0.9, 1.5) - UP * 0.6
        town.add(
            [quad(start, right * span, fall, paint.cloth(random, 12), detail=town.tile("plaster"), both_sides=True)]
        )
    for _ in range(int(random.integers(0, 3))):
        place = (
            foot + right * random.uniform(-0.42, 0.42) * width + towards * 0.2 + UP * random.uniform(2.6, height - 1)
        )
        side = paint.metal(random, (0.9, 0.6), Material.ENGINE)
        town.add(block(place, (0.9, 0.4, 0.6), yaw, [side], side))
    pipe = paint.flat(np.full(3, random.uniform(70, 170)), Material.METAL)
    place = foot + right * (width / 2 - 0.15) + towards * 0.08
    town.add(block(place, (0.12, 0.12, height), yaw, [pipe], None))
    if random.random() < 0.4:  # a sign that juts out
        sign = paint.poster(random, (0.9, 0.9), world)
        start = foot + right * random.uniform(-0.4, 0.4) * width + UP * 3.9
        town.add([quad(start, towards * 0.9, -UP * 0.9, sign, both_sides=True)])


def add_skyline(town: Town, random: np.random.Generator, world: WorldName) -> None:
    """Put taller houses behind those round the square."""
    a, b = town.half
    for _ in range(int(random.integers(5, 9))):
        angle = random.uniform(0, 2 * np.pi)
        reach = random.uniform(16, 34)
        centre = np.array([np.cos(angle) * (a + reach), np.sin(angle) * (b + reach), 0.0])
        width, height = random.uniform(8, 15), random.uniform(14, 26)
        style = str(random.choice(["plaster", "concrete", "brick"]))
        _, details, _, colours = paint.WALLS[style]
        sides = [
            paint.facade(
                random, (width / 2, height / 2), world, style, np.array(colours[int(random.integers(len(colours)))])
            )
            for _ in range(2)
        ]
        top = paint.flat(np.full(3, 120.0), Material.CONCRETE)
        yaw = random.uniform(0, np.pi)
        town.add(block(centre, (width, width, height), yaw, sides, top, details=town.tile(*details), tile=2.5))
