"""The catalogue: which images lie in which package, whose they are and under which licence."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from minima_core.licences import join

PATH = Path(__file__).with_name("catalogue.json")
PUBLIC_DOMAIN = "public-domain"  # as its package documents it; asks for nothing


class Image(BaseModel):
    """One image of a package.

    Attributes:
        file: its name in the folder of all.
        path: of the member in the package.
        inner: where that member is a zip archive, the member of it.
        sha256: of the image as the package has it.
        licence: its own SPDX name, or ``public-domain``.
        author: whom the package names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    path: str
    inner: str = ""
    sha256: str
    licence: str
    author: str = ""


class Package(BaseModel):
    """One package and its images.

    Attributes:
        kind: how it is packed: a Debian archive, an npm tarball, or a wheel, which pip chooses.
        urls: official addresses, best first; none for a wheel.
        sha256: of the archive; "" for a wheel: those of its images hold there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: Literal["deb", "npm", "pypi"]
    version: str
    urls: list[str]
    sha256: str
    images: list[Image]


@cache
def packages() -> tuple[Package, ...]:
    """Return every package of the catalogue."""
    return tuple(TypeAdapter(list[Package]).validate_json(PATH.read_bytes()))


def licence(of: tuple[Package, ...]) -> str:
    """Return the licence of all their images together."""
    return join(sorted({image.licence for package in of for image in package.images} - {PUBLIC_DOMAIN}))


def attribution(of: tuple[Package, ...]) -> list[str]:
    """Return a line for each author of each package."""
    lines = (
        f"{image.author or 'unnamed'} ({image.licence}), {package.name} {package.version}: shrunk, warped"
        for package in of
        for image in package.images
    )
    return list(dict.fromkeys(lines))
