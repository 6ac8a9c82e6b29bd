"""RGB beside another modality on the same pixels: the partner's views show what the photograph's views show."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from minima_core.data.checking import check_index
from minima_core.data.importing import build_index
from minima_core.data.pairs import PairSource
from minima_core.data.viewing import BAR, GAP, HEIGHT, draw_index
from minima_core.errors import DataError
from minima_core.io.images import write_image
from minima_core.manifest import ModalityManifest, RawDataset

SETTINGS = {"size": [96, 64], "views": 2, "licence": "CC0-1.0"}


def photo(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (10, 15, 3), dtype=np.uint8)
    return cv2.resize(noise, (300, 200), interpolation=cv2.INTER_CUBIC)


def negative(image: np.ndarray) -> np.ndarray:
    return 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


@pytest.fixture
def source(tmp_path):
    """Four photographs, their negatives at half the size, and one with neither partner nor place."""
    for k in range(4):
        write_image(tmp_path / f"llvip/visible/train/{k:03d}.png", photo(k))
        small = cv2.resize(negative(photo(k)), (150, 100), interpolation=cv2.INTER_AREA)
        write_image(tmp_path / f"llvip/infrared/train/{k:03d}.jpg", small)
    write_image(tmp_path / "llvip/visible/train/alone.png", photo(9))
    return tmp_path / "llvip"


def test_views_of_a_partner_lie_on_the_pixels_of_the_photographs_views(tmp_path, source):
    report = build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    assert report.images == 12 and report.splits.keys() == {"train", "val"}
    raw, modalities = tmp_path / "out/raw", tmp_path / "out/modalities"
    pairs = PairSource(tmp_path / "out", raw, modalities, split="train", names=["infrared"])
    for k in range(len(pairs)):
        pair = pairs.load(k, "rgb", "infrared")
        scene, number = pairs.locate(k)
        shown = pairs.image(scene, int(scene.pairs[number][1]))
        heat = (pair.view1.image.mean(0) * 255).numpy()
        assert np.abs(heat - negative(shown)).mean() < 6  # half the size and a JPEG lie between them
        assert pair.H_0to1 is not None


def test_a_training_by_hand_finds_in_the_raw_folder_what_it_asks_of_one(tmp_path, source):
    build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    said = RawDataset.load(tmp_path / "out/raw")
    assert (said.dataset, said.licence, said.relation) == ("aligned", "CC0-1.0", "homography")


def test_the_picture_shows_the_other_sensor_beside_the_photographs(tmp_path, source):
    build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    picture = draw_index(tmp_path / "out", tmp_path / "out/raw", count=2)
    width = round(96 * HEIGHT / 64)
    assert picture.shape == (2 * (BAR + HEIGHT), 3 * width + 2 * GAP, 3)
    shown = picture[BAR : BAR + HEIGHT].astype(int)
    rgb, heat = shown[:, width + GAP :][:, :width], shown[:, 2 * (width + GAP) :]
    plain = np.ptp(heat, axis=-1) < 3  # of one sensor, and between the points
    gray = cv2.cvtColor(rgb.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    assert plain.mean() > 0.5 and np.abs(255 - gray - heat[..., 0])[plain].mean() < 8


def test_the_manifest_says_where_the_modality_is_from(tmp_path, source):
    report = build_index("aligned", source, tmp_path / "out", settings=SETTINGS, workers=2)
    manifest = ModalityManifest.load(tmp_path / "out/modalities/infrared")
    assert (manifest.engine, manifest.licence, manifest.commercial) == ("aligned", "CC0-1.0", True)
    assert manifest.source_digest == report.digest
    assert sum(manifest.scenes.values()) == 12 and not manifest.failed


def test_a_partner_of_another_shape_is_left_out_and_listed(tmp_path, source):
    write_image(source / "infrared/train/002.jpg", negative(photo(2))[:, :150])
    report = build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    assert {one.reason: one.first for one in report.skipped} == {
        "infrared partner of another shape": ["train/002.png"],
        "rgb image without a partner": ["alone.png"],
    }
    failed = ModalityManifest.load(tmp_path / "out/modalities/infrared").failed
    assert len(failed) == 3 and set(failed.values()) == {"has no partner"}


def test_annotations_and_labels_beside_the_images_are_left_out_and_listed(tmp_path, source):
    """LLVIP has Annotations of XML, M3FD_Detection has Annotation, MSRS pictures of labels."""
    (source / "Annotations").mkdir()
    (source / "Annotations/000.xml").write_text("<annotation/>")
    for k in range(4):
        write_image(source / f"label/train/{k:03d}.png", photo(k))
    (source / "thermal").mkdir()
    report = build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    skipped = {one.reason: one.first for one in report.skipped}
    assert skipped["folder without images"] == ["Annotations", "thermal"]
    (reason,) = (reason for reason in skipped if "no modality" in reason)
    assert skipped[reason] == ["label"] and "--set modalities=[NAME]" in reason
    assert [path.name for path in (tmp_path / "out/modalities").iterdir()] == ["infrared"]


def test_a_folder_of_an_unknown_name_is_taken_where_a_setting_names_it(tmp_path, source):
    (source / "infrared").rename(source / "Lidar")
    with pytest.raises(DataError, match=r"are needed there; left out: 1 x folder .*modalities=\[NAME\].*Lidar"):
        build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    build_index("aligned", source, tmp_path / "out", settings=SETTINGS | {"modalities": ["lidar"]}, workers=2)
    assert ModalityManifest.load(tmp_path / "out/modalities/lidar").modality == "lidar"
    with pytest.raises(DataError, match="nothing called sonar as --set modalities asks"):
        build_index("aligned", source, tmp_path / "out", settings=SETTINGS | {"modalities": ["lidar", "sonar"]})


@pytest.mark.parametrize("name", ["event", "SAR", "Ir"])
def test_folders_of_known_modalities_need_no_setting(tmp_path, source, name):
    (source / "infrared").rename(source / name)
    build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    (made,) = (tmp_path / "out/modalities").iterdir()
    assert made.name == {"Ir": "infrared"}.get(name, name.lower())


def test_optical_is_what_remote_sensing_calls_rgb(tmp_path, source):
    (source / "visible").rename(source / "Optical")
    (source / "infrared").rename(source / "sar")
    assert build_index("aligned", source, tmp_path / "out", settings=SETTINGS).pairs


def test_folders_that_are_not_in_this_form_are_named(tmp_path, source):
    with pytest.raises(DataError, match=r"holds infrared, visible|a folder rgb"):
        build_index("aligned", source.parent, tmp_path / "out")
    write_image(source / "thermal/000.jpg", negative(photo(0)))
    with pytest.raises(DataError, match="both hold infrared"):
        build_index("aligned", source, tmp_path / "out")
    (source / "thermal/000.jpg").unlink()
    for path in sorted((source / "infrared/train").iterdir()):
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DataError, match="has one of the same name"):
        build_index("aligned", source, tmp_path / "out")


@pytest.mark.parametrize("folder", ["visible", "infrared"])
def test_two_images_that_differ_in_their_suffix_alone_are_refused(tmp_path, source, folder):
    for suffix in ("jpg", "png"):
        write_image(source / f"{folder}/train/002.{suffix}", photo(7))
    with pytest.raises(DataError, match=rf"{folder}/train/002\.jpg and .*002\.png would have the same partners"):
        build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_link_that_leads_out_is_refused(tmp_path, source):
    moved = tmp_path / "elsewhere.jpg"
    (source / "infrared/train/001.jpg").rename(moved)
    (source / "infrared/train/001.jpg").symlink_to(moved)
    with pytest.raises(DataError, match="leads out of"):
        build_index("aligned", source, tmp_path / "out", settings=SETTINGS)
    assert not Path(tmp_path / "out").exists()


def test_partners_of_other_photographs_are_a_fault(tmp_path, source):
    build_index("aligned", source, tmp_path / "right", settings=SETTINGS)
    assert check_index(tmp_path / "right", tmp_path / "right/raw").counts == {}
    for k in range(4):
        (source / f"infrared/train/{k:03d}.jpg").rename(source / f"infrared/train/{(k + 1) % 4:03d}.moved")
    for path in source.rglob("*.moved"):
        path.rename(path.with_suffix(".jpg"))
    build_index("aligned", source, tmp_path / "wrong", settings=SETTINGS)
    (fault,) = {f.partition(",")[0] for f in check_index(tmp_path / "wrong", tmp_path / "wrong/raw").counts}
    assert fault == "infrared image that does not fit its photograph"
