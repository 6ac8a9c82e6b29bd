"""Images kept at a matcher's size: what resizing gives, made once, whole or not at all, read by many threads."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from plane_world import PlaneWorld
from tiny_world import H, W

from minima_core.data.fitted import GEOMETRY, FittedImages
from minima_core.data.pairs import PairSource
from minima_core.errors import DataError
from minima_core.io.images import to_tensor
from minima_core.matchers.base import resize


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return PlaneWorld(tmp_path_factory.mktemp("world")).make()


def fitted(world, folder, names=("infrared",), workers=1, side=96, multiple=32):
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=list(names))
    return FittedImages(source, folder, side=side, fit="pad", multiple=multiple, workers=workers)


def test_they_are_what_resizing_gives(world, tmp_path):
    images = fitted(world, tmp_path)
    scene = images.source.scenes[1]
    for modality in ("rgb", "infrared"):
        expected, _ = resize(to_tensor(images.source.image(scene, 2, modality)), 96, 32)
        found = images.image(scene, 2, modality)
        assert found.dtype == torch.uint8 and found.shape == expected.shape == (3, 64, 96)
        torch.testing.assert_close(found.float() / 255, expected, atol=0.51 / 255, rtol=0)
    assert images.size(scene, 2) == (96, 64) and (W, H) == (192, 144)
    assert torch.equal(images.depth(scene, 2), torch.full((64, 96), 3.0))


def test_depth_is_that_of_the_pixel_in_the_middle(world, tmp_path, monkeypatch):
    ramp = 1 + np.arange(H * W, dtype=np.float32).reshape(H, W)
    monkeypatch.setattr(PairSource, "depth", lambda self, scene, i: ramp)
    images = fitted(world, tmp_path, side=64, multiple=1)  # a third
    assert torch.equal(images.depth(images.source.scenes[0], 0), torch.from_numpy(ramp[1::3, 1::3]))


def test_number_of_workers_changes_no_byte_and_new_modalities_leave_parts_alone(world, tmp_path):
    fitted(world, tmp_path / "1")
    fitted(world, tmp_path / "3", workers=3)
    one, three = ({path.name: path.read_bytes() for path in (tmp_path / run).iterdir()} for run in "13")
    assert one == three and len(one) == 6  # two scenes; RGB, infrared and depth
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "1").iterdir()}
    fitted(world, tmp_path / "1", names=("infrared", "event"))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "1").iterdir()}
    assert len(after) == 8 and before.items() <= after.items()


def test_killed_in_the_middle_leaves_whole_parts(world, tmp_path, monkeypatch):
    def make(self, scene, kind, i, original=FittedImages._make):
        if scene.name != self.source.scenes[0].name and i == 1:
            raise KeyboardInterrupt
        return original(self, scene, kind, i)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FittedImages, "_make", make)
        fitted(world, tmp_path)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(first) == 3 and not [path for path in first if path.name.startswith(".")]
    cut = next(path for path in first if GEOMETRY in path.name)
    os.truncate(cut, 100)  # as a full disk or a power cut may leave it
    fitted(world, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in first if path != cut}.items() <= first.items()
    assert len(list(tmp_path.iterdir())) == 6 and cut.stat().st_size > 100


def test_threads_read_what_one_thread_reads(world, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.io.open_files.OPEN_FILES", 1)  # so that each closes what the other reads
    images = fitted(world, tmp_path)
    jobs = [(scene, i, m) for scene in images.source.scenes for i in range(4) for m in ("rgb", "infrared")] * 8
    alone = [images.image(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: images.image(*job), jobs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert not [path for path in links("/proc/self/fd") if path.is_relative_to(world.modalities)]
    images.close()
    assert not [path for path in links("/proc/self/fd") if path.is_relative_to(tmp_path)]
    assert torch.equal(images.image(*jobs[0]), alone[0])  # opens again


def links(folder):
    return [path.readlink() for path in Path(folder).iterdir() if path.is_symlink()]


def test_a_part_that_is_cut_while_in_use_is_one_line(world, tmp_path):
    images = fitted(world, tmp_path)
    for path in tmp_path.iterdir():
        os.truncate(path, 10)
    with pytest.raises(DataError, match=r"\.raw was cut while it was in use; remove it"):
        images.image(images.source.scenes[0], 0, "rgb")
