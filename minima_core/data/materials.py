"""What the synthetic world is made of: the ids in a material map, shared by renderer and thermal engine."""

from __future__ import annotations

from enum import IntEnum


class Material(IntEnum):
    """One value of a material map (uint8 PNG). The numbers are on disk: append, never renumber."""

    UNKNOWN = 0  # a data set that cannot say
    SKY = 1
    GROUND = 2  # soil, gravel, sand
    VEGETATION = 3  # grass, hedges, tree crowns
    ASPHALT = 4
    CONCRETE = 5  # plaster, paving
    BRICK = 6
    STONE = 7
    GLASS = 8  # windows
    METAL = 9
    WOOD = 10  # crates, trunks, doors
    WATER = 11
    PLASTIC = 12  # posters, signs, painted panels
    FABRIC = 13  # awnings, tarpaulins
    PERSON = 14  # warm, upright clutter
    VEHICLE = 15  # bodywork
    ENGINE = 16  # the warm part of a vehicle, air conditioners, exhausts
    LAMP = 17  # lit lamps and lit windows
