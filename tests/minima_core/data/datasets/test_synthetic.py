"""The rendered data set: what is on disk, that views agree with each other, seeds, resuming."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from minima_core.data.datasets import synthetic
from minima_core.data.datasets._world import photographs as table
from minima_core.data.datasets.synthetic import Synthetic
from minima_core.data.materials import Material
from minima_core.errors import DataError
from minima_core.geometry.pose import orthonormality_error, relative_pose
from minima_core.geometry.project import sample_depth, warp_points
from minima_core.io.depth import read_depth
from minima_core.io.images import read_image

FREE = {"CC0-1.0", "public domain", "CC-BY-2.0"}


def dataset(seed: int = 0, **changes) -> Synthetic:
    settings = {
        "world": "train",
        "scenes": 1,
        "validation_scenes": 1,
        "views": 4,
        "size": (160, 120),
        "overlap": (0.1, 0.9),
        "max_pairs": 50,
    }
    return Synthetic(Synthetic.Params(**(settings | changes)), seed=seed)


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw world")
    dataset().prepare(root)
    return root


def test_scenes_lie_in_megadepths_layout(raw):
    scenes = list(dataset().scenes(raw))
    assert [(s.name, s.split, len(s.image)) for s in scenes] == [("town-000", "train", 4), ("town-001", "val", 4)]
    scene = scenes[0]
    assert scene.image[0] == "town-000/dense0/imgs/000.jpg" and scene.depth[0] == "town-000/dense0/depths/000.h5"
    for k in range(4):
        image, depth = read_image(raw / scene.image[k]), read_depth(raw / scene.depth[k])
        material = cv2.imread(str(raw / scene.material[k]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (120, 160, 3) and depth.shape == material.shape == (120, 160)
        assert image.std() > 15
        assert np.array_equal(depth == 0, material == Material.SKY)
        assert set(np.unique(material)) <= set(map(int, Material))
        assert len(np.unique(material)) >= 4
    assert float(orthonormality_error(torch.from_numpy(scene.T_w2c[:, :3, :3])).max()) < 1e-12


def test_views_agree_with_each_other_in_depth_and_colour(raw):
    checked = 0
    for scene in dataset(overlap=(0.3, 1.0)).scenes(raw):
        for (i, j), overlap in zip(scene.pairs, scene.overlap, strict=True):
            depths = [torch.from_numpy(read_depth(raw / scene.depth[k]))[None].double() for k in (i, j)]
            y, x = torch.meshgrid(torch.arange(0, 120, 3), torch.arange(0, 160, 3), indexing="ij")
            points = torch.stack([x, y], -1).reshape(1, -1, 2).double()
            K, T = torch.from_numpy(scene.K), torch.from_numpy(scene.T_w2c)
            z0 = sample_depth(depths[0], points)
            there, z1 = warp_points(points, z0, K[i][None], K[j][None], relative_pose(T[i], T[j])[None])
            found = sample_depth(depths[1], there)
            seen = ((z1 - found).abs() < 0.01 * found)[0]
            share = float(seen.sum() / (z0 > 0).sum())
            assert share == pytest.approx(overlap, abs=0.12)
            # colours of the same points follow each other, though exposure, noise and tone differ
            gray = [
                cv2.cvtColor(read_image(raw / scene.image[k]), cv2.COLOR_RGB2GRAY).astype(np.float32) for k in (i, j)
            ]
            gray = [cv2.GaussianBlur(g, (0, 0), 1.0) for g in gray]
            at0 = points[0][seen].numpy().astype(np.float32)
            at1 = there[0][seen].numpy().astype(np.float32)
            values = [
                cv2.remap(g, a[:, :1].copy(), a[:, 1:].copy(), cv2.INTER_LINEAR)[:, 0]
                for g, a in zip(gray, (at0, at1), strict=True)
            ]
            assert np.corrcoef(*values)[0, 1] > 0.6
            checked += 1
    assert checked >= 2


def test_result_depends_on_the_seed_and_not_on_the_workers(raw, tmp_path):
    dataset().prepare(tmp_path / "two", workers=2)
    assert tree(tmp_path / "two") == tree(raw)
    dataset(seed=1, validation_scenes=0, views=2).prepare(tmp_path / "other")
    image = "town-000/dense0/imgs/000.jpg"
    assert (tmp_path / "other" / image).read_bytes() != (raw / image).read_bytes()


def test_unfinished_work_is_continued_to_the_same_bytes(raw, tmp_path):
    def fail(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        calls = []
        keep = synthetic.write_image
        patch.setattr(synthetic, "write_image", lambda *a: keep(*a) if calls.append(0) or len(calls) < 4 else fail())
        with pytest.raises(KeyboardInterrupt):
            dataset(validation_scenes=0).prepare(tmp_path)
    whole = {name: value for name, value in tree(raw).items() if name.startswith("town-000")}
    assert 0 < len(tree(tmp_path)) < len(whole)
    dataset(validation_scenes=0).prepare(tmp_path)
    assert tree(tmp_path) == whole


def test_benchmark_world_shares_no_photograph_and_no_scene_with_training(tmp_path):
    names = [{p.name for p in table.PHOTOGRAPHS if p.world == world} for world in ("train", "benchmark")]
    assert names[0] and names[1] and not names[0] & names[1]
    held = dataset(world="benchmark", validation_scenes=0, views=2)
    held.prepare(tmp_path)
    assert [(s.name, s.split) for s in held.scenes(tmp_path)] == [("bench-000", "test")]
    assert any("flower" in line and "CC-BY-2.0" in line for line in held.attribution())


@pytest.mark.parametrize("photo", table.PHOTOGRAPHS, ids=lambda photo: photo.name)
def test_every_photograph_is_free_and_is_the_recorded_file(photo):
    assert photo.licence in FREE and photo.attribution
    assert min(table.read_photograph(photo).shape[:2]) >= 300


def test_another_file_under_a_photographs_name_is_refused():
    photo = replace(table.PHOTOGRAPHS[0], sha256="0" * 64)
    with pytest.raises(DataError, match="is not the file this world was made for"):
        table.read_photograph(photo)


def test_missing_package_is_named():
    with pytest.raises(DataError, match="package no_such_package is not installed"):
        table.read_photograph(replace(table.PHOTOGRAPHS[0], package="no_such_package"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "town-000/dense0/depths/001.h5").unlink(), "no depth file .*001.h5"),
        (lambda root: (root / "town-000/cameras.json").write_text("{"), "cannot read .*cameras.json"),
        (lambda root: (root / "town-000/dense0/imgs/002.jpg").unlink(), "no file .*002.jpg; make the raw scenes again"),
    ],
)
def test_damaged_raw_folder_is_named(raw, tmp_path, damage, message):
    shutil.copytree(raw, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(DataError, match=message):
        list(dataset().scenes(tmp_path / "copy"))
