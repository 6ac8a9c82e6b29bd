"""The head: its tissues follow from what is shown, slices show what lies in the plane, and splits share no plane."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from minima_core.data.datasets import anatomy
from minima_core.data.datasets._anatomy.head import AT_BRAIN, BRAIN, HEAD, PACKAGE, read_head, tissues_of
from minima_core.data.datasets._anatomy.slices import AXES, FILLED, cut
from minima_core.data.datasets.anatomy import Anatomy
from minima_core.data.tissues import TISSUE_NAMES
from minima_core.errors import DataError
from minima_core.io.images import read_ids, read_image, write_image
from minima_core.licences import allows_commercial_use
from minima_core.synthesis._tissues import ATTENUATION, TISSUES, UPTAKE
from tests.support.debian import deb

nibabel = pytest.importorskip("nibabel")
GRAY = {"air": 0, "bone": 25, "fluid": 40, "gray matter": 85, "white matter": 115, "fat": 220, "muscle": 95}
SHAPE = (60, 72, 56)


def made_head() -> tuple[np.ndarray, np.ndarray]:
    """Return the gray values of nested ellipsoids, and the tissue of each voxel."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    layers = [
        (0.15, "fluid"),
        (0.45, "white matter"),
        (0.6, "gray matter"),
        (0.78, "bone"),
        (0.86, "muscle"),
        (0.92, "fat"),
    ]
    tissue = np.full(SHAPE, TISSUE_NAMES.index("air"), np.uint8)
    for limit, name in reversed(layers):
        tissue[radius < limit] = TISSUE_NAMES.index(name)
    gray = np.array([GRAY.get(name, 0) for name in TISSUE_NAMES], np.float32)[tissue]
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    return np.maximum(gray + noise * (gray > 0), 0).astype(np.float32), tissue


def volume(values: np.ndarray, *, mirrored: bool = False) -> bytes:
    affine = np.diag([-1.0 if mirrored else 1.0, 1, 1, 1])
    image = nibabel.Nifti1Image(values[::-1].copy() if mirrored else values, affine)
    return gzip.compress(image.to_bytes())


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Put a made head into the package's place; return the package."""
    gray, tissue = made_head()
    brain = np.isin(tissue, [TISSUE_NAMES.index(name) for name in ("fluid", "gray matter", "white matter")])
    content = {HEAD: volume(gray), BRAIN: volume((gray * brain).astype(np.float32), mirrored=True)}
    path = tmp_path / "made.deb"
    path.write_bytes(deb({f"./{image.path}": content[image.file] for image in PACKAGE.images}))
    images = [
        image.model_copy(update={"sha256": hashlib.sha256(content[image.file]).hexdigest()}) for image in PACKAGE.images
    ]
    known = {"urls": [path.as_uri()], "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "images": images}
    monkeypatch.setattr(anatomy, "PACKAGE", PACKAGE.model_copy(update=known))
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    return path


def data_set(**change: object) -> Anatomy:
    views = {"size": (160, 120), "views": 2, "crop": 0.75, "scale": (0.8, 1.2), "rotation": 20, "perspective": 0.1}
    limits = {"shift": 0.1, "validation_share": 0.25, "photos_per_scene": 4, "min_std": 4.0, "max_saturated": 1.0}
    known = {**views, **limits, "overlap": (0.1, 1.0), "slices": 8, "tilt": 10} | change
    return Anatomy(Anatomy.Params(**known), seed=1)


def test_ids_mean_the_same_to_the_data_and_to_the_engines():
    assert TISSUE_NAMES == tuple(TISSUES) == tuple(UPTAKE) == tuple(ATTENUATION)


def test_tissues_follow_from_gray_and_brain():
    gray, tissue = made_head()
    brain = np.isin(tissue, [TISSUE_NAMES.index(name) for name in ("fluid", "gray matter", "white matter")])
    found = tissues_of(gray, brain)
    for k, name in enumerate(TISSUE_NAMES[:7]):
        right = (found == k)[tissue == k].mean()
        assert right > (0.3 if name == "bone" else 0.97), name
    around = ndimage.binary_dilation(brain, iterations=AT_BRAIN) & ~brain
    assert (found[around] == TISSUE_NAMES.index("fluid")).mean() > 0.95  # the dark there
    assert not (found[~around & ~brain] == TISSUE_NAMES.index("fluid")).any()


@pytest.mark.parametrize("plane", list(AXES))
def test_a_slice_shows_what_lies_in_its_plane(plane):
    """Of a volume whose values are a ramp along one axis, an even slice shows the ramp, at its scale and its place."""
    across, up, _ = AXES[plane]
    size, voxel = (200, 160), max(SHAPE[across], SHAPE[up]) / (FILLED * 160)
    for axis, along in ((across, 1), (up, 0)):
        ramp = np.moveaxis(
            np.broadcast_to(
                np.arange(1, SHAPE[axis] + 1, dtype=np.float32),
                SHAPE[:axis] + SHAPE[axis + 1 :] + SHAPE[axis : axis + 1],
            ),
            -1,
            axis,
        )
        shown, _ = cut(ramp, np.zeros(SHAPE, np.uint8), plane, size, 0.0, np.random.default_rng(0))
        line = shown[80] if along else shown[::-1, 100]
        inside = np.flatnonzero(line)
        step = np.polyfit(inside[3:-3], line[inside[3:-3]].astype(float), 1)[0] / 255 * np.percentile(ramp, 99.5)
        assert step == pytest.approx(voxel, rel=0.02)
        assert (inside[0] + inside[-1]) / 2 == pytest.approx((len(line) - 1) / 2, abs=1)


def test_a_border_of_tissues_lies_where_gray_changes():
    gray, tissue = made_head()
    shown, ids = cut(gray, tissue, "axial", (320, 240), 10.0, np.random.default_rng(3))
    assert shown.dtype == ids.dtype == np.uint8 and shown.shape == ids.shape == (240, 320)
    assert ids[0, 0] == TISSUE_NAMES.index("air") and not shown[0, 0]
    inner = cv2.erode((ids == TISSUE_NAMES.index("fat")).astype(np.uint8), np.ones((5, 5))) > 0
    assert shown[inner].min() > 150  # the brightest
    rim = cv2.morphologyEx((ids > 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    near = (
        cv2.dilate(
            (np.abs(cv2.Sobel(shown, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(shown, cv2.CV_32F, 0, 1)) > 60).astype(
                np.uint8
            ),
            np.ones((5, 5)),
        )
        > 0
    )
    assert near[rim].mean() > 0.95


def test_views_have_their_tissues_and_splits_their_own_planes(package, tmp_path):
    data = data_set()
    data.prepare(tmp_path / "raw")
    scenes = list(data.scenes(tmp_path / "raw"))
    assert sorted((scene.split, len(scene.image)) for scene in scenes) == [("train", 6), ("train", 12), ("val", 6)]
    for scene in scenes:
        listed = json.loads((tmp_path / "raw" / scene.name / "views.json").read_text())["photos"].values()
        assert all((record["file"].startswith("sagittal")) == (scene.split == "val") for record in listed)
        for image in scene.image:
            shown = read_image(tmp_path / "raw" / image)[..., 0]
            ids = read_ids(tmp_path / "raw" / image.replace("/imgs/", "/tissues/").replace(".jpg", ".png"))
            assert ids.shape == shown.shape and 3 <= len(np.unique(ids)) <= 7
            inner = cv2.erode((ids > 0).astype(np.uint8), np.ones((7, 7))) > 0
            outer = cv2.erode((ids == 0).astype(np.uint8), np.ones((7, 7))) > 0
            assert shown[outer].mean() < 3 < 20 < shown[inner].mean()
    assert allows_commercial_use(data.licence)
    assert data.attribution() == [
        "Colin 27, Holmes et al. 1998 (BSD-3-Clause), mricron-data 1.2.20211006+dfsg-4: shrunk, warped"
    ]


def test_what_was_fetched_and_cut_is_there_for_the_next_run(package, tmp_path):
    data_set().prepare(tmp_path / "a")
    package.unlink()
    data_set().prepare(tmp_path / "b")
    first, second = (sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert len(first) == 2 * 24 + 3  # pictures, tissues, and a list a scene


def test_a_damaged_volume_is_brought_again(package, tmp_path):
    data = data_set()
    data.prepare(tmp_path / "a")
    whole = (data.volumes / HEAD).read_bytes()
    shutil.copyfile(data.volumes / BRAIN, data.volumes / HEAD)  # readable, and another volume
    shutil.rmtree(data.folder)
    data.prepare(tmp_path / "b")
    assert (data.volumes / HEAD).read_bytes() == whole
    first, second = (sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_slice_without_its_tissues_is_cut_again(package, tmp_path):
    data = data_set()
    data.prepare(tmp_path / "a")
    lost = data.tissues / data.files()[1].name
    before = lost.read_bytes()
    lost.unlink()
    data.prepare(tmp_path / "b")
    assert lost.read_bytes() == before


def test_tissues_of_another_size_than_their_slice_are_refused(package, tmp_path):
    data = data_set()
    data.prepare(tmp_path / "a")
    write_image(data.tissues / data.files()[0].name, np.zeros((10, 10), np.uint8))
    with pytest.raises(DataError, match=r"axial-0000\.png and its map in .* differ in size"):
        data.prepare(tmp_path / "b")


def test_a_volume_that_lies_another_way_is_turned(package, tmp_path):
    data = data_set()
    data.prepare(tmp_path / "raw")  # its brain is mirrored in the file
    gray, tissue = read_head(data.volumes)
    assert (tissue == TISSUE_NAMES.index("white matter")).sum() == pytest.approx(
        (made_head()[1] == TISSUE_NAMES.index("white matter")).sum(), rel=0.02
    )
    assert gray.shape == SHAPE
