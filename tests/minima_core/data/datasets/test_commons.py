"""Images out of packages: what is listed is read, everything is checked, and the licences are free ones."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from minima_core.data.datasets import commons
from minima_core.data.datasets._commons.catalogue import Image, Package, attribution, licence, packages
from minima_core.data.datasets._commons.fetch import fetch
from minima_core.data.datasets._world.photographs import PHOTOGRAPHS
from minima_core.data.datasets.commons import Commons
from minima_core.errors import DataError
from minima_core.io.images import read_image
from minima_core.licences import allows_commercial_use
from tests.support.debian import deb


def png(seed: int, size: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)
    out = io.BytesIO()
    Pillow.fromarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)).save(out, "PNG")
    return out.getvalue()


PHOTOS = {f"share/{k}.png": png(k, (900, 600)) for k in range(4)}
ZIPPED = png(9, (500, 400))


def inner_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("art/rock.png", ZIPPED)
    return out.getvalue()


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., Package]:
    """Make a Debian package of the photographs, with a zip archive and a hostile name in it."""

    def make(**change: object) -> Package:
        content = deb({**{f"./{k}": v for k, v in PHOTOS.items()}, "./../../evil.png": b"x", "./mod.zip": inner_zip()})
        path = tmp_path / "made.deb"
        path.write_bytes(content)
        listed = [("photo", name, "", data) for name, data in PHOTOS.items()]
        images = [
            Image(
                file=f"{kind}_{k}.jpg",
                path=name,
                inner=inner,
                sha256=hashlib.sha256(data).hexdigest(),
                licence="CC-BY-4.0",
                author="A. Maker",
            )
            for k, (kind, name, inner, data) in enumerate([*listed, ("rock", "mod.zip", "art/rock.png", ZIPPED)])
        ]
        known = {"urls": [path.as_uri()], "sha256": hashlib.sha256(content).hexdigest(), "images": images}
        return Package(name="made", kind="deb", version="1", **(known | change))

    return make


def test_listed_members_become_small_jpegs_and_nothing_else_is_written(package, tmp_path):
    folder = tmp_path / "cache/commons"
    fetch((package(),), folder)
    assert sorted(p.name for p in folder.iterdir()) == [*(f"photo_{k}.jpg" for k in range(4)), "rock_4.jpg"]
    assert read_image(folder / "photo_0.jpg").shape == (533, 800, 3)
    assert read_image(folder / "rock_4.jpg").shape == (400, 500, 3)  # nothing is enlarged
    assert not list(tmp_path.rglob("evil.png"))
    (tmp_path / "made.deb").unlink()
    fetch((package(urls=[]),), folder)  # all there: no source is needed


def test_a_package_or_image_that_changed_is_refused(package, tmp_path):
    with pytest.raises(DataError, match=r"cannot get package made 1: .*sha256"):
        fetch((package(sha256="0" * 64),), tmp_path / "a")
    one = package().images[0]
    with pytest.raises(DataError, match=r"share/0\.png in made 1 is another image"):
        fetch((package(images=[one.model_copy(update={"sha256": "0" * 64})]),), tmp_path / "b")
    with pytest.raises(DataError, match=r"has no share/none\.png"):
        fetch((package(images=[one.model_copy(update={"path": "share/none.png"})]),), tmp_path / "c")


def test_the_data_set_takes_views_of_what_it_fetched(package, tmp_path, monkeypatch):
    made = (package(),)
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(commons, "packages", lambda: made)
    views = {"size": (160, 120), "views": 2, "crop": 0.75, "scale": (0.6, 1.3), "rotation": 30, "perspective": 0.2}
    limits = {"shift": 0.3, "validation_share": 0.3, "photos_per_scene": 4, "min_std": 4.0, "max_saturated": 0.4}
    data = Commons(Commons.Params(**views, **limits, overlap=(0.1, 1.0)), seed=1)
    data.prepare(tmp_path / "raw")
    assert sum(len(scene.image) for scene in data.scenes(tmp_path / "raw")) == 15
    assert data.licence == "CC-BY-4.0"
    assert data.attribution() == ["A. Maker (CC-BY-4.0), made 1: shrunk, warped"]


def test_everything_in_the_catalogue_may_be_used_for_anything_and_shows_nothing_of_the_benchmark():
    images = [image for package in packages() for image in package.images]
    assert len(images) == len({image.file for image in images}) >= 300
    assert all(Path(image.file).name == image.file and image.file.endswith(".jpg") for image in images)
    assert allows_commercial_use(licence(packages()))
    assert len(attribution(packages())) > 30
    held = {photograph.sha256 for photograph in PHOTOGRAPHS if photograph.world == "benchmark"}
    assert not held & {image.sha256 for image in images}
