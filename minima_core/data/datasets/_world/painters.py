"""Painters of facades, posters, crates, vehicles, trees and people: textures with a material under every texel."""

from __future__ import annotations

import string
from dataclasses import dataclass

import cv2
import numpy as np

from minima_core.data.datasets._world.photographs import WorldName, photographs, print_of
from minima_core.data.datasets._world.textures import Texture, finish, noise, plain
from minima_core.data.materials import Material

TEXELS = 36  # a metre on walls
FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX)
WALLS = {  # material, detail tiles in order of preference, detail strength, colours
    "brick": (
        Material.BRICK,
        ("brick", "gravel"),
        0.9,
        ((158, 92, 72), (176, 120, 92), (128, 84, 74), (192, 158, 128)),
    ),
    "plaster": (
        Material.CONCRETE,
        ("plaster",),
        1.0,
        ((226, 208, 168), (214, 178, 150), (196, 206, 196), (222, 222, 214), (178, 190, 204), (232, 196, 120)),
    ),
    "stone": (Material.STONE, ("plaster", "gravel"), 0.9, ((186, 178, 160), (160, 158, 152), (200, 186, 158))),
    "concrete": (Material.CONCRETE, ("asphalt", "plaster"), 0.6, ((168, 168, 164), (146, 150, 154))),
}


@dataclass(frozen=True)
class Canvas:
    """What painters draw on: a float base (H, W, 4) and the material ids (H, W) below it."""

    base: np.ndarray
    material: np.ndarray

    @classmethod
    def of(cls, size: tuple[int, int], colour: np.ndarray, material: Material, detail: float = 1.0) -> Canvas:
        """Return a canvas of one colour and material."""
        return cls(plain(size, colour, detail=detail), np.full((size[1], size[0]), material, np.uint8))

    def box(
        self, x: float, y: float, w: float, h: float, colour: np.ndarray, material: Material, detail: float = 0.15
    ) -> None:
        """Fill a rectangle."""
        rows, columns = slice(max(0, round(y)), max(0, round(y + h))), slice(max(0, round(x)), max(0, round(x + w)))
        self.base[rows, columns] = (*colour, 255 * detail)
        self.material[rows, columns] = material

    def paste(self, x: float, y: float, picture: np.ndarray, material: Material, *, opacity: float = 1.0) -> None:
        """Lay (h, w, 3) over a place, cut at the border."""
        x0, y0 = max(0, round(x)), max(0, round(y))
        h = min(picture.shape[0], self.base.shape[0] - y0)
        w = min(picture.shape[1], self.base.shape[1] - x0)
        if h <= 0 or w <= 0:
            return
        place = self.base[y0 : y0 + h, x0 : x0 + w]
        place[..., :3] = opacity * picture[:h, :w] + (1 - opacity) * place[..., :3]
        self.material[y0 : y0 + h, x0 : x0 + w] = material

    def write(self, text: str, x: float, y: float, height: float, colour: np.ndarray, font: int) -> None:
        """Write ``text`` with its baseline's left end at a place."""
        scale = height / 22
        (tw, th), below = cv2.getTextSize(text, font, scale, 1)
        mask = np.zeros((th + below + 4, tw + 4), np.uint8)  # OpenCV writes on 8 bit only
        cv2.putText(mask, text, (2, th + 2), font, scale, 255, max(1, round(scale * 1.6)), cv2.LINE_AA)
        x0, y0 = max(0, round(x)), max(0, round(y) - th - 2)
        place = self.base[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
        cover = mask[: place.shape[0], : place.shape[1], None] / np.float32(255)
        place += cover * (np.array([*colour, 40.0], np.float32) - place)

    def texture(self, solid: np.ndarray | None = None) -> Texture:
        """Return the finished texture."""
        return Texture(finish(self.base), self.material, solid)


def word(random: np.random.Generator, longest: int) -> str:
    """Return a word of capitals."""
    return "".join(random.choice(list(string.ascii_uppercase + "0123456789"), int(random.integers(3, longest + 1))))


def bright(random: np.random.Generator) -> np.ndarray:
    """Return a saturated colour (3,) in [0, 255]."""
    hsv = np.array([[[random.integers(180), random.integers(90, 230), random.integers(110, 240)]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def crop(random: np.random.Generator, world: WorldName, size: tuple[int, int], *, least: float = 0.35) -> np.ndarray:
    """Return (h, w, 3) float32: a random part of a random photograph, stretched, mirrored and tinted a little."""
    pictures = photographs(world, "picture")
    image = print_of(pictures[int(random.integers(len(pictures)))])
    h, w = image.shape[:2]
    # a window of about the wanted proportions: faces drawn out to columns look like nothing
    aspect = float(np.clip(size[0] / max(size[1], 1) * random.uniform(0.75, 1.33), 0.2, 5.0))
    widest = min(w, h * aspect)
    cw = max(8, int(widest * random.uniform(least, 1.0) ** 0.5))
    ch = max(8, min(h, int(cw / aspect)))
    y, x = int(random.integers(h - ch + 1)), int(random.integers(w - cw + 1))
    part = image[y : y + ch, x : x + cw]
    shrink = ch > size[1] or cw > size[0]
    wanted = (max(size[0], 1), max(size[1], 1))
    part = cv2.resize(part, wanted, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    if random.random() < 0.5:
        part = part[:, ::-1]
    return part * random.uniform(0.8, 1.15, 3).astype(np.float32)


def weathered(canvas: Canvas, random: np.random.Generator, strength: float = 0.09) -> None:
    """Stain a canvas: blotches, streaks down, dirt at its foot."""
    h, w = canvas.material.shape
    blotches = noise(random, (w, h), coarsest=max(w, h) / 3, octaves=6)
    streaks = noise(random, (w, max(2, h // 40)), coarsest=max(4, w / 40), octaves=3)
    streaks = cv2.resize(streaks, (w, h), interpolation=cv2.INTER_LINEAR)
    factor = 1 + strength * blotches + 0.5 * strength * streaks
    foot = np.clip((np.arange(h, dtype=np.float32)[:, None] - h + TEXELS) / TEXELS, 0, 1)
    canvas.base[..., :3] *= (factor * (1 - 0.25 * foot))[..., None]


def courses(canvas: Canvas, random: np.random.Generator, width: float, height: float, strength: float) -> None:
    """Tone a canvas in blocks of ``width`` x ``height`` texels, every other row moved by half a block."""
    h, w = canvas.material.shape
    rows = int(np.ceil(h / height))
    for k in range(rows):
        tones = 1 + strength * random.standard_normal(int(np.ceil(w / width)) + 2).astype(np.float32)
        row = np.repeat(tones, round(width))[int(width / 2) * (k % 2) :][:w]
        if len(row) < w:
            row = np.pad(row, (0, w - len(row)), mode="edge")
        joints = np.zeros(w, bool)
        joints[(round(width) - int(width / 2) * (k % 2)) % round(width) :: round(width)] = True
        row = np.where(joints, row * 0.82, row)
        y0, y1 = round(k * height), min(h, round((k + 1) * height))
        canvas.base[y0:y1, :, :3] *= row[None, :, None]
        canvas.base[y0 : y0 + 1, :, :3] *= 0.8


def _window(
    canvas: Canvas,
    random: np.random.Generator,
    world: WorldName,
    place: tuple[float, float, float, float],
    trim: np.ndarray,
    shutters: np.ndarray | None,
) -> None:
    x, y, w, h = place
    canvas.box(x - 3, y - 3, w + 6, h + 6, trim, Material.WOOD, 0.4)
    lit = random.random() < 0.07
    glass = np.array((228, 190, 110)) if lit else np.array((44, 56, 70)) * random.uniform(0.6, 1.6)
    canvas.box(x, y, w, h, glass, Material.LAMP if lit else Material.GLASS, 0.0)
    inner = canvas.base[round(y) : round(y + h), round(x) : round(x + w), :3]
    if inner.size:
        # what the pane mirrors: unlike in any other window, so that windows can be told apart
        mirrored = cv2.resize(crop(random, world, (24, 32)), (inner.shape[1], inner.shape[0]))
        inner[:] = (
            0.72 * inner + 0.28 * mirrored * np.linspace(1.2, 0.6, inner.shape[0], dtype=np.float32)[:, None, None]
        )
        if random.random() < 0.45:  # a curtain
            reach = round(inner.shape[1] * random.uniform(0.15, 0.5))
            cloth = random.uniform(140, 230, 3).astype(np.float32)
            side = slice(0, reach) if random.random() < 0.5 else slice(inner.shape[1] - reach, None)
            inner[:, side] = 0.45 * inner[:, side] + 0.55 * cloth
        if random.random() < 0.3:  # a blind
            drop = round(inner.shape[0] * random.uniform(0.2, 0.8))
            inner[:drop] = 205 - 25 * (np.arange(drop) % 5 == 0)[:, None, None]
    bars = int(random.integers(0, 3))
    for k in range(1, bars + 1):
        canvas.box(x + w * k / (bars + 1) - 1, y, 2, h, trim, Material.WOOD)
    if random.random() < 0.6:
        canvas.box(x, y + h * 0.35, w, 2, trim, Material.WOOD)
    canvas.box(x - 6, y + h + 3, w + 12, 4, trim * 0.95, Material.STONE, 0.5)
    canvas.base[round(y + h + 7) : round(y + h + 12), round(x - 5) : round(x + w + 5), :3] *= 0.7
    canvas.base[round(y) : round(y + 4), round(x) : round(x + w), :3] *= 0.55  # the lintel's shadow
    if shutters is not None:
        for edge in (x - 3 - w * 0.45, x + w + 3):
            canvas.box(edge, y - 2, w * 0.45, h + 4, shutters, Material.WOOD, 0.6)
            canvas.base[round(y) : round(y + h) : 4, round(edge) : round(edge + w * 0.45), :3] *= 0.75
    if random.random() < 0.2:  # a flower box
        canvas.box(x, y + h - 3, w, 9, np.array((96, 62, 40)), Material.WOOD, 0.6)
        for _ in range(14):
            centre = (round(x + random.uniform(0, w)), round(y + h - random.uniform(0, 9)))
            cv2.circle(canvas.base, centre, int(random.integers(2, 5)), (*map(float, bright(random)), 90.0), -1)
            cv2.circle(canvas.material, centre, 3, int(Material.VEGETATION), -1)


def _shop(canvas: Canvas, random: np.random.Generator, world: WorldName, top: float) -> None:
    """Paint the ground floor below row ``top``: doors, shop windows, posters and a sign."""
    h, w = canvas.material.shape
    trim = bright(random) * 0.7
    x = TEXELS * random.uniform(0.3, 0.8)
    while x < w - TEXELS * 1.2:
        kind = random.choice(["door", "shop", "poster", "wall", "window"], p=[0.22, 0.3, 0.26, 0.1, 0.12])
        room = w - x - 6
        if kind == "door":
            dw, dh = min(TEXELS * 1.1, room), min(TEXELS * 2.2, h - top - 4)
            leaf = bright(random) * 0.6
            canvas.box(x - 4, h - dh - 4, dw + 8, dh + 4, trim * 1.2, Material.STONE, 0.6)
            canvas.box(x, h - dh, dw, dh, leaf, Material.WOOD, 0.8)
            for row in range(3):
                canvas.box(
                    x + dw * 0.15, h - dh * (0.93 - 0.3 * row), dw * 0.7, dh * 0.22, leaf * 0.75, Material.WOOD, 0.8
                )
            canvas.box(x + dw * 0.84, h - dh * 0.48, 3, 5, np.array((220, 200, 120)), Material.METAL)
            x += dw + TEXELS * random.uniform(0.4, 1.0)
        elif kind == "shop":
            sw, sh = min(TEXELS * random.uniform(1.8, 3.4), room), (h - top) * 0.62
            y = h - sh - TEXELS * 0.35
            canvas.box(x - 4, y - 4, sw + 8, sh + 8, trim, Material.METAL)
            canvas.box(x, y, sw, sh, np.array((58, 62, 66)), Material.GLASS, 0.0)
            canvas.paste(x, y, crop(random, world, (round(sw), round(sh))), Material.GLASS, opacity=0.62)
            canvas.box(x - 4, y - TEXELS * 0.62, sw + 8, TEXELS * 0.5, trim * 1.2, Material.PLASTIC)
            ink = np.array((245, 240, 225)) if trim.mean() < 130 else np.array((30, 28, 34))
            canvas.write(
                word(random, 9), x + 4, y - TEXELS * 0.24, TEXELS * 0.3, ink, FONTS[int(random.integers(len(FONTS)))]
            )
            x += sw + TEXELS * random.uniform(0.4, 0.9)
        elif kind == "poster":
            pw, ph = min(TEXELS * random.uniform(0.7, 1.5), room), TEXELS * random.uniform(1.0, 1.8)
            y = h - ph - TEXELS * random.uniform(0.5, 0.9)
            canvas.box(x - 2, y - 2, pw + 4, ph + 4, np.array((238, 236, 228)), Material.PLASTIC)
            canvas.paste(x, y, crop(random, world, (round(pw), round(ph))), Material.PLASTIC)
            x += pw + TEXELS * random.uniform(0.15, 0.7)
        elif kind == "window":
            ww = min(TEXELS * 1.1, room)
            _window(canvas, random, world, (x, h - TEXELS * 2.3, ww, TEXELS * 1.3), trim, None)
            x += ww + TEXELS * 0.6
        else:
            canvas.write(
                word(random, 6).lower(),
                x,
                h - TEXELS * random.uniform(0.5, 1.4),
                TEXELS * 0.5,
                bright(random),
                FONTS[3],
            )
            x += TEXELS * random.uniform(0.8, 1.6)


def facade(
    random: np.random.Generator, metres: tuple[float, float], world: WorldName, style: str, colour: np.ndarray
) -> Texture:
    """Return the outside wall of a building of ``metres`` (width, height): floors of windows above a ground floor."""
    w, h = (max(16, round(m * TEXELS)) for m in metres)
    material, _, detail, _ = WALLS[style]
    canvas = Canvas.of((w, h), colour, material, detail)
    if style == "stone":
        courses(canvas, random, TEXELS * 0.9, TEXELS * 0.45, 0.09)
    elif style == "brick":
        courses(canvas, random, TEXELS * 0.5, TEXELS * 0.25, 0.07)
    weathered(canvas, random)
    ground_floor = min(3.4, metres[1] * 0.6)
    floors = max(0, int((metres[1] - ground_floor - 0.3) / random.uniform(2.7, 3.3)))
    bays = max(1, int(metres[0] / random.uniform(1.9, 3.0)))
    storey = (h - ground_floor * TEXELS) / max(floors, 1)
    trim = np.full(3, random.uniform(170, 245)) if random.random() < 0.7 else bright(random) * 0.7
    shutters = bright(random) * 0.65 if random.random() < 0.4 else None
    bay = w / bays
    ww = min(bay * random.uniform(0.36, 0.55) * (0.75 if shutters is not None else 1), TEXELS * 1.6)
    wh = min(storey * random.uniform(0.45, 0.62), TEXELS * 1.9)
    mural = random.random() < 0.22 and floors >= 1
    if mural:
        span = (round(w * random.uniform(0.55, 0.95)), round(storey * floors * random.uniform(0.6, 0.95)))
        canvas.paste((w - span[0]) / 2, 8, crop(random, world, span, least=0.6), material, opacity=0.8)
    for floor in range(floors):
        y = storey * floor + (storey - wh) * 0.45
        if floor and random.random() < 0.7:
            canvas.box(0, storey * floor - 3, w, 5, trim * 0.9, Material.STONE, 0.6)
            canvas.base[round(storey * floor + 2) : round(storey * floor + 5), :, :3] *= 0.75
        for k in range(bays):
            if random.random() < (0.65 if mural else 0.07):
                continue
            _window(canvas, random, world, (bay * (k + 0.5) - ww / 2, y, ww, wh), trim, shutters)
    canvas.box(0, 0, w, 7, trim * 0.85, Material.STONE, 0.6)
    _shop(canvas, random, world, h - ground_floor * TEXELS)
    if random.random() < 0.7:  # a cable
        points = np.stack([np.linspace(0, w, 12), h - TEXELS * 3.3 + random.normal(0, 3, 12)], -1).astype(np.int32)
        cv2.polylines(canvas.base, [points], False, (40.0, 40.0, 44.0, 60.0), 2, cv2.LINE_AA)
    return canvas.texture()


def poster(random: np.random.Generator, metres: tuple[float, float], world: WorldName, texels: int = 90) -> Texture:
    """Return a framed picture with a line of text."""
    w, h = (max(12, round(m * texels)) for m in metres)
    canvas = Canvas.of((w, h), random.uniform(200, 245, 3), Material.PLASTIC, 0.2)
    canvas.paste(w * 0.05, h * 0.05, crop(random, world, (round(w * 0.9), round(h * 0.78))), Material.PLASTIC)
    canvas.write(word(random, 7), w * 0.08, h * 0.95, h * 0.08, np.array((30, 30, 40)), FONTS[int(random.integers(3))])
    return canvas.texture()


def crate(random: np.random.Generator, metres: tuple[float, float], world: WorldName) -> Texture:
    """Return a wooden side: planks, corner irons, a stencil or a label."""
    w, h = (max(12, round(m * 110)) for m in metres)
    canvas = Canvas.of((w, h), np.array((172, 128, 78)) * random.uniform(0.6, 1.15), Material.WOOD, 1.0)
    planks = int(random.integers(3, 7))
    for k in range(planks):
        y0, y1 = round(k * h / planks), round((k + 1) * h / planks)
        canvas.base[y0:y1, :, :3] *= random.uniform(0.78, 1.2)
        canvas.base[y0 : y0 + 2, :, :3] *= 0.45
    weathered(canvas, random, 0.1)
    for x in (0, w - w * 0.12):
        canvas.box(x, 0, w * 0.12, h, np.array((120, 84, 50)) * random.uniform(0.7, 1.2), Material.WOOD, 1.0)
    if random.random() < 0.6:
        side = (round(w * random.uniform(0.3, 0.6)), round(h * random.uniform(0.3, 0.6)))
        place = (w * random.uniform(0.15, 0.35), h * random.uniform(0.1, 0.35))
        canvas.paste(*place, crop(random, world, side), Material.PLASTIC)
    else:
        ink = np.array((40, 30, 26))
        canvas.write(word(random, 5), w * 0.16, h * random.uniform(0.4, 0.7), h * 0.22, ink, FONTS[2])
    return canvas.texture()


def metal(random: np.random.Generator, metres: tuple[float, float], material: Material = Material.METAL) -> Texture:
    """Return a painted, ribbed metal panel (kiosks, cabinets, air conditioners)."""
    w, h = (max(12, round(m * 70)) for m in metres)
    colour = random.uniform(110, 210) * np.ones(3) if random.random() < 0.5 else bright(random) * 0.8
    canvas = Canvas.of((w, h), colour, material, 0.35)
    weathered(canvas, random, 0.08)
    for y in range(int(h * 0.15), int(h * 0.6), max(4, h // 14)):
        canvas.base[y : y + 2, round(w * 0.15) : round(w * 0.85), :3] *= 0.55
    canvas.write(word(random, 4), w * 0.15, h * 0.85, h * 0.14, np.array((245, 245, 240)), FONTS[0])
    return canvas.texture()


def roof(random: np.random.Generator, metres: tuple[float, float]) -> Texture:
    """Return a tiled roof."""
    w, h = (max(16, round(m * 26)) for m in metres)
    colour = np.array(((168, 84, 60), (112, 70, 60), (96, 96, 104), (142, 104, 76))[int(random.integers(4))])
    canvas = Canvas.of((w, h), colour, Material.BRICK, 0.8)
    courses(canvas, random, 8, 8, 0.14)
    weathered(canvas, random, 0.12)
    return canvas.texture()


def car_side(random: np.random.Generator, paint: np.ndarray) -> Texture:
    """Return the side of a car, 4.2 x 0.95 m, with wheels; one looks through below the sill."""
    w, h = 336, 76
    canvas = Canvas.of((w, h), paint, Material.VEHICLE, 0.1)
    canvas.base[..., :3] *= np.linspace(1.15, 0.7, h, dtype=np.float32)[:, None, None]
    solid = np.ones((h, w), bool)
    solid[round(h * 0.78) :] = False
    for x in (w * 0.2, w * 0.8):
        centre, radius = (round(x), round(h * 0.66)), round(h * 0.34)
        cv2.circle(canvas.base, centre, radius, (26.0, 26.0, 28.0, 40.0), -1)
        cv2.circle(canvas.base, centre, radius // 2, (150.0, 150.0, 155.0, 40.0), -1)
        cv2.circle(canvas.material, centre, radius, int(Material.PLASTIC), -1)
        disc = np.zeros((h, w), np.uint8)
        cv2.circle(disc, centre, radius, 1, -1)
        solid |= disc > 0
    for x in (w * 0.36, w * 0.62):
        canvas.base[4 : round(h * 0.75), round(x) : round(x) + 2, :3] *= 0.5
        canvas.box(x - 22, h * 0.25, 12, 4, np.array((200, 200, 200)), Material.METAL)
    canvas.box(2, h * 0.22, 14, 10, np.array((250, 235, 190)), Material.LAMP)
    canvas.box(w - 14, h * 0.22, 12, 10, np.array((190, 30, 30)), Material.PLASTIC)
    for _ in range(6):
        canvas.base[int(random.integers(5, 50)), int(random.integers(10, 200)) :, :3] *= 0.97
    return canvas.texture(solid)


def car_panel(random: np.random.Generator, paint: np.ndarray, *, glass: bool) -> Texture:
    """Return front, rear or cabin wall of a car."""
    canvas = Canvas.of((150, 60), paint, Material.VEHICLE, 0.1)
    if glass:
        canvas.box(8, 8, 134, 44, np.array((40, 48, 56)), Material.GLASS, 0.0)
        canvas.base[8:52, 8:142, :3] += np.linspace(70, 0, 44, dtype=np.float32)[:, None, None]
    else:
        canvas.box(20, 20, 110, 16, np.array((30, 30, 34)), Material.ENGINE, 0.0)
        for x in (4, 128):
            canvas.box(x, 16, 18, 12, np.array((245, 236, 200)), Material.LAMP)
        canvas.box(50, 42, 50, 12, np.array((240, 240, 235)), Material.PLASTIC)
        canvas.write(word(random, 6), 53, 52, 9, np.array((20, 20, 20)), FONTS[0])
    return canvas.texture()


def car_top(paint: np.ndarray) -> Texture:
    """Return a car's body from above: the bonnet, warm, is at the left."""
    canvas = Canvas.of((210, 90), paint * 1.05, Material.VEHICLE, 0.1)
    canvas.material[:, :58] = Material.ENGINE
    canvas.base[:, 57:59, :3] *= 0.6
    return canvas.texture()


def crown(random: np.random.Generator, texels: int = 288) -> Texture:
    """Return a tree's crown as a cut-out."""
    y, x = np.mgrid[-1 : 1 : texels * 1j, -1 : 1 : texels * 1j]
    ragged = noise(random, (texels, texels), coarsest=texels / 5, octaves=6)
    solid = (x**2 + y**2 + 0.16 * ragged) < 0.72
    solid &= noise(random, (texels, texels), coarsest=texels / 9, octaves=4) > -1.1
    colour = np.array((84, 108, 56)) * random.uniform(0.75, 1.15) * random.uniform(0.9, 1.1, 3)
    canvas = Canvas.of((texels, texels), colour, Material.VEGETATION, 1.0)
    clumps = noise(random, (texels, texels), coarsest=texels / 8, octaves=5)
    canvas.base[..., :3] *= (1 + 0.2 * clumps - 0.25 * y.astype(np.float32))[..., None]
    return canvas.texture(solid)


def person(random: np.random.Generator) -> Texture:
    """Return a standing person as a cut-out, 0.8 x 1.8 m."""
    w, h = 96, 216
    canvas = Canvas.of((w, h), bright(random) * 0.8, Material.PERSON, 0.4)
    mask = np.zeros((h, w), np.uint8)
    trousers = bright(random) * 0.45
    skin = np.array((224, 172, 138)) * random.uniform(0.45, 1.05)
    lean = int(random.integers(-5, 6))
    cv2.ellipse(mask, (48 + lean, 22), (13, 17), 0, 0, 360, 1, -1)
    cv2.fillPoly(mask, [np.array([(28, 42), (68, 42), (74, 70), (66, 118), (30, 118), (22, 70)], np.int32)], 1)
    for x0, x1 in ((24, 14 + lean), (72, 82 + lean)):
        cv2.line(mask, (x0, 50), (x1, 112), 1, 11)
    for x0, x1 in ((38, 34 - lean), (58, 64 + lean)):
        cv2.line(mask, (x0, 112), (x1, 208), 1, 17)
    canvas.base[112:, :, :3] = trousers
    canvas.base[:40, :, :3] = skin
    canvas.base[:14, :, :3] = np.array((60, 44, 34)) * random.uniform(0.4, 2.5)
    canvas.base[204:, :, :3] = 40
    weathered(canvas, random, 0.12)
    return canvas.texture(mask > 0)


def hedge(random: np.random.Generator, metres: tuple[float, float]) -> Texture:
    """Return a clipped hedge."""
    w, h = (max(12, round(m * 40)) for m in metres)
    canvas = Canvas.of((w, h), np.array((74, 104, 50)) * random.uniform(0.75, 1.2, 3), Material.VEGETATION, 1.0)
    weathered(canvas, random, 0.22)
    return canvas.texture()


def cloth(random: np.random.Generator, stripes: int) -> Texture:
    """Return an awning's striped fabric."""
    canvas = Canvas.of((stripes * 16, 64), np.array((236, 232, 220)), Material.FABRIC, 0.3)
    dye = bright(random)
    for k in range(0, stripes, 2):
        canvas.box(k * 16, 0, 16, 64, dye, Material.FABRIC, 0.3)
    weathered(canvas, random, 0.06)
    return canvas.texture()


def flat(colour: np.ndarray, material: Material, *, detail: float = 0.3) -> Texture:
    """Return one colour and material for small or hardly seen parts."""
    return Canvas.of((8, 8), colour, material, detail).texture()


def panorama(random: np.random.Generator) -> np.ndarray:
    """Return (256, 1024, 3) uint8 sky: blue above, pale at the horizon, clouds; its left and right ends meet."""
    w, h = 1024, 256
    elevation = np.linspace(90, -10, h, dtype=np.float32)[:, None, None]
    zenith = np.array((84, 132, 200), np.float32) * random.uniform(0.85, 1.15)
    horizon = np.array((206, 216, 226), np.float32)
    blend = np.clip(elevation / 60, 0, 1) ** 0.6
    sky = horizon * (1 - blend) + zenith * blend + np.zeros((h, w, 3), np.float32)
    clouds = noise(random, (w, h), coarsest=130, octaves=6, wrap=True)
    cover = np.clip((clouds - random.uniform(-0.4, 1.2)) * 0.7, 0, 0.92)[..., None]
    grey = 225 + 20 * noise(random, (w, h), coarsest=60, octaves=4, wrap=True)[..., None]
    return finish(sky * (1 - cover) + grey * cover)
