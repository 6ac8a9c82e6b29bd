"""A folder of photographs: the homographies hold, splits do not leak, bad files are named."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from minima_core.data.datasets.photos import Photos, homography, view_quads
from minima_core.errors import DataError
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import read_image, write_image

REAL = Path(__file__).resolve().parents[4].parent / "shared/data/photos"


def dataset(root: Path, *, seed: int = 0, **changes) -> Photos:
    settings = {
        "root": str(root),
        "licence": "CC0-1.0",
        "size": (160, 120),
        "views": 2,
        "crop": 0.75,
        "scale": (0.6, 1.3),
        "rotation": 30,
        "perspective": 0.2,
        "shift": 0.3,
        "validation_share": 0.3,
        "photos_per_scene": 4,
        "min_std": 4.0,
        "max_saturated": 0.4,
        "overlap": (0.1, 1.0),
    }
    return Photos(Photos.Params(**(settings | changes)), seed=seed)


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """Return a smooth random image."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def album(tmp_path) -> Path:
    folder = tmp_path / "my album"
    for k in range(10):
        write_image(folder / f"sub {k % 2}" / f"{k}.png", picture(k))
    return folder


def test_every_homography_maps_one_image_onto_the_other(album, tmp_path):
    data = dataset(album)
    data.prepare(tmp_path / "raw")
    checked = 0
    for scene in data.scenes(tmp_path / "raw"):
        for (i, j), H, overlap in zip(scene.pairs, scene.H_0to1, scene.overlap, strict=True):
            image0, image1 = (read_image(tmp_path / "raw" / scene.image[k]).astype(np.float32) for k in (i, j))
            warped = cv2.warpPerspective(image0, H, (160, 120), flags=cv2.INTER_LINEAR)
            valid = cv2.erode(cv2.warpPerspective(np.ones((120, 160), np.uint8), H, (160, 120)), np.ones((5, 5))) > 0
            off = cv2.warpPerspective(image0, H @ np.array([[1, 0, 3.0], [0, 1, 0], [0, 0, 1]]), (160, 120))
            error = np.abs(warped - image1)[valid].mean()
            assert error < 5.0
            assert error < 0.6 * np.abs(off - image1)[valid].mean()  # three pixels off would be seen
            assert 0.1 < overlap <= 1.0
            checked += 1
    assert checked > 20


def test_views_stay_inside_the_photo():
    p = dataset(Path(), scale=(0.5, 3.0), shift=1.0).settings
    for k in range(50):
        for quad in islice(view_quads((300, 200), p, np.random.default_rng(k)), 3):
            assert quad.min() >= -1e-9 and (quad.max(axis=0) <= np.array([299, 199]) + 1e-9).all()


def test_views_without_texture_are_drawn_again_or_left_out(tmp_path, caplog):
    sky = picture(1, (640, 480))
    sky[:, :480] = 255  # overexposed, but for the right quarter
    nothing = picture(2, (640, 480))
    nothing[:, : 640 - 12] = 255
    for name, image in (("sky", sky), ("nothing", nothing), ("other", picture(3, (640, 480)))):
        write_image(tmp_path / "album" / f"{name}.png", image)
    data = dataset(tmp_path / "album", views=8, scale=(0.3, 0.5), shift=1.0, min_std=12.0)
    data.prepare(tmp_path / "raw")
    count = {}
    for scene in data.scenes(tmp_path / "raw"):
        for path in scene.image:
            image = read_image(tmp_path / "raw" / path)
            assert image.std() > 10 and (image == 255).mean() < 0.5
            count[Path(path).stem[:12]] = count.get(Path(path).stem[:12], 0) + 1
    assert len(count) == 2 and max(count.values()) == 9 and min(count.values()) >= 2
    assert "nothing.png is left out" in caplog.text
    lost = 2 * 9 - sum(count.values())
    assert lost > 0 and f"{lost} views are left out, for example of {tmp_path}/album/sky.png: " in caplog.text


def test_homography_maps_the_quad_to_the_corners():
    quad = np.array([[3.0, 4], [90, 10], [80, 70], [5, 60]])
    mapped = warp_homography(torch.from_numpy(homography(quad, (40, 30))), torch.from_numpy(quad))
    assert torch.allclose(mapped, torch.tensor([[0.0, 0], [39, 0], [39, 29], [0, 29]], dtype=torch.float64))


def test_a_photo_is_in_one_split_and_copies_are_used_once(album, tmp_path, caplog):
    Image.fromarray(picture(3)).save(album / "a copy under another name.TIFF")
    data = dataset(album)
    data.prepare(tmp_path / "raw")
    members = {"train": set(), "val": set()}
    for scene in data.scenes(tmp_path / "raw"):
        members[scene.split] |= {Path(path).stem.split("-")[0] for path in scene.image}
    assert members["train"] and members["val"] and not members["train"] & members["val"]
    assert len(members["train"] | members["val"]) == 10
    assert "shows the same pixels" in caplog.text


def test_split_of_a_photo_does_not_change_when_others_come(album, tmp_path):
    def splits(raw: Path) -> dict[str, str]:
        data = dataset(album)
        data.prepare(raw)
        return {Path(i).stem[:12]: scene.split for scene in data.scenes(raw) for i in scene.image}

    before = splits(tmp_path / "before")
    write_image(album / "new.png", picture(99))
    after = splits(tmp_path / "after")
    assert len(after) == 11 and all(after[name] == split for name, split in before.items())


def test_result_depends_on_seed_and_pixels_only(album, tmp_path):
    dataset(album).prepare(tmp_path / "one")
    for path in list(album.rglob("*.png")):
        path.rename(path.with_name(f"z{path.name}"))
    dataset(album).prepare(tmp_path / "two", workers=2)
    dataset(album, seed=1).prepare(tmp_path / "three")
    images = [
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*.jpg")}
        for r in (tmp_path / n for n in ("one", "two", "three"))
    ]
    assert images[0] == images[1]
    assert images[0].keys() == images[2].keys() and images[0] != images[2]


def test_any_extension_case_and_mode_is_taken(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.fromarray(picture(0)).save(folder / "A.JPG")
    Image.fromarray(picture(1)).convert("L").save(folder / "gray.Png")
    Image.fromarray(picture(2)).convert("CMYK").save(folder / "print.jpeg")
    Image.fromarray(np.dstack([picture(3), np.full((240, 320), 200, np.uint8)])).save(folder / "alpha.webp")
    cv2.imwrite(str(folder / "deep.TIF"), picture(4)[..., 0].astype(np.uint16) * 257)
    data = dataset(folder)
    data.prepare(tmp_path / "raw")
    scenes = list(data.scenes(tmp_path / "raw"))
    assert sum(len(scene.image) for scene in scenes) == 15
    assert all(np.isnan(scene.K).all() and scene.depth == [""] * len(scene.image) for scene in scenes)


@pytest.mark.parametrize(
    ("name", "plant", "message"),
    [
        (
            "cut.jpg",
            lambda p: p.write_bytes(cv2.imencode(".jpg", picture(7))[1].tobytes()[:4000]),
            "cannot read .*cut.jpg",
        ),
        ("text.jpg", lambda p: p.write_text("no image"), "text.jpg is not an image"),
        ("flat.png", lambda p: write_image(p, np.full((240, 320, 3), 90, np.uint8)), "flat.png has no texture"),
        ("tiny.png", lambda p: write_image(p, picture(8, (48, 48))), "tiny.png is 48 x 48"),
    ],
)
def test_bad_photo_is_one_line_that_names_it(album, tmp_path, name, plant, message):
    plant(album / name)
    with pytest.raises(DataError, match=message) as error:
        dataset(album).prepare(tmp_path / "raw", workers=2)
    assert "\n" not in str(error.value)


def test_views_whose_record_is_damaged_are_one_line(album, tmp_path):
    data = dataset(album)
    data.prepare(tmp_path / "raw")
    record = next((tmp_path / "raw").glob("*/views.json"))
    record.write_text(record.read_text()[:-20])
    for again in (lambda: data.prepare(tmp_path / "raw"), lambda: list(data.scenes(tmp_path / "raw"))):
        with pytest.raises(DataError, match=r"^cannot read .*views\.json .*; [^\n]*$"):
            again()


def test_all_bad_photos_are_told_of_at_once(album, tmp_path):
    write_image(album / "flat.png", np.full((240, 320, 3), 90, np.uint8))
    write_image(album / "tiny.png", picture(8, (48, 48)))
    for k in range(5):
        (album / f"text{k}.jpg").write_text("no image")
    with pytest.raises(DataError) as error:
        dataset(album).prepare(tmp_path / "raw")
    told = str(error.value)
    assert all(f"{name} " in told for name in ("flat.png", *(f"text{k}.jpg" for k in range(4))))
    assert told.endswith("; and 2 more such photographs") and "\n" not in told


def test_links_in_the_users_own_folder_are_followed(album, tmp_path):
    (tmp_path / "linked").mkdir()
    for path in album.rglob("*.png"):
        (tmp_path / "linked" / path.name).symlink_to(path)
    found = []
    for folder in (album, tmp_path / "linked"):
        data = dataset(folder)
        data.prepare(tmp_path / "raw" / folder.name)
        found.append([(scene.split, scene.H_0to1.tolist()) for scene in data.scenes(tmp_path / "raw" / folder.name)])
    assert found[0] == found[1] and len(found[0]) > 1


def test_empty_folder_is_named(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"no images in .*nothing"):
        dataset(tmp_path / "nothing").prepare(tmp_path / "raw")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real photographs at {REAL}")
def test_real_photographs_give_pairs(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(REAL.glob("*.jpg"))[::9]:
        (few / path.name).symlink_to(path)
    data = dataset(few, size=(320, 240))
    data.prepare(tmp_path / "raw", workers=2)
    scenes = list(data.scenes(tmp_path / "raw"))
    assert {scene.split for scene in scenes} == {"train", "val"}
    assert sum(len(scene.pairs) for scene in scenes) >= 30
    assert min(read_image(tmp_path / "raw" / path).std() for scene in scenes for path in scene.image) > 10
