"""Cached features: computed once, the same for any number of workers, with depth read at their places."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from plane_world import PlaneWorld, random_matcher

from minima_core.data import features, pairs
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return PlaneWorld(tmp_path_factory.mktemp("world")).make()


def samples(world, cache, workers=1, names=("infrared",), **settings):
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=list(names))
    return random_matcher(**settings).training_data(source, max_keypoints=64, cache=cache, workers=workers)


def test_number_of_workers_changes_no_byte(world, tmp_path):
    for workers in (1, 3):
        samples(world, tmp_path / str(workers), workers)
    one, three = (
        {path.relative_to(tmp_path / run): path.read_bytes() for path in (tmp_path / run).rglob("*.h5")}
        for run in ("1", "3")
    )
    assert one == three
    assert len(one) == 4  # two scenes, two modalities


def test_depth_is_read_where_the_keypoint_lies_in_the_whole_image(world, tmp_path, monkeypatch):
    """Of an image of 192 x 144 at 160 x 96, as sides are multiples of 32."""
    y, x = np.mgrid[:144, :192].astype(np.float32)
    monkeypatch.setattr(PairSource, "depth", lambda self, scene, i: 1 + x + 1000 * y)
    data = samples(world, tmp_path, long_side=160)
    found = data.cache.get(data.pairs.scenes[0].name, "rgb", 0)
    assert found.size.tolist() == [160, 96] and len(found.kpts) > 20
    at = (found.kpts + 0.5) * (1.2, 1.5) - 0.5
    np.testing.assert_allclose(found.depth, 1 + at[:, 0] + 1000 * at[:, 1], atol=0.1)


def test_parts_are_made_once_and_new_modalities_leave_them_alone(world, tmp_path, monkeypatch):
    samples(world, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    samples(world, tmp_path, names=("infrared", "event"))
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    assert len(after) == 6
    assert before.items() <= after.items()


def test_other_settings_do_not_share_parts(world, tmp_path):
    keys = {samples(world, tmp_path, long_side=side).key for side in (192, 160)}
    assert len(keys) == 2
    assert len(list(tmp_path.iterdir())) == 2


def test_killed_in_the_middle_leaves_whole_parts(world, tmp_path, monkeypatch):
    written = []

    def write(path, images, original=features._write):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        original(path, images)

    monkeypatch.setattr(features, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        samples(world, tmp_path)
    assert sorted(tmp_path.rglob("*.h5")) == sorted(written)
    assert not list(tmp_path.rglob(".*.h5"))


def test_an_error_puts_the_number_of_threads_back(world, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError

    monkeypatch.setattr(features, "_write", broken)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(OSError):  # noqa: PT011, any
            samples(world, tmp_path)
        with ThreadPoolExecutor(1) as pool:  # what a new thread starts with
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_closing_leaves_no_file_open_and_may_be_followed_by_more(world, tmp_path):
    data = samples(world, tmp_path)
    for _ in range(2):
        data.sample(Item(0, "infrared", "rgb"))
        assert open_files(tmp_path)
        data.close()
        assert not open_files(tmp_path)


def open_files(folder):
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [path for path in links if path.is_relative_to(folder)]


def test_threads_share_a_shard(world, monkeypatch):
    opened = []

    class Slow(pairs.Shard):
        def __init__(self, path):
            opened.append(path)
            time.sleep(0.05)
            super().__init__(path)

    monkeypatch.setattr(pairs, "Shard", Slow)
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: source.image(source.scenes[0], 0, "infrared"), range(4)))
    source.close()
    assert len(opened) == 1


def test_threads_read_from_more_shards_than_may_be_open(world, monkeypatch):
    monkeypatch.setattr("minima_core.io.open_files.OPEN_FILES", 1)  # so that each closes what the others read
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared", "event"])
    jobs = [(scene, i, name) for i in range(4) for scene in source.scenes for name in source.names] * 4
    alone = [source.image(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: source.image(*job), jobs))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))
    assert len(open_files(world.modalities)) == 1
    source.close()
    assert not open_files(world.modalities)


def test_no_shard_stays_open_once_features_are_made(world, tmp_path):
    data = samples(world, tmp_path)
    data.sample(Item(0, "infrared", "rgb"))
    assert open_files(tmp_path)
    assert not open_files(world.modalities)
    data.close()


def test_cached_features_are_those_of_the_extractor(world, tmp_path):
    data = samples(world, tmp_path)
    sample = data.sample(Item(0, "infrared", "rgb"))
    source = data.pairs
    image = torch.from_numpy(source.image(source.scenes[0], 0, "infrared")).permute(2, 0, 1).float() / 255
    image = image[:, :128]  # 144 rows are floored to 128 by resizing, so compare what does not depend on it: shapes
    found = random_matcher().extractor.extract(image, 64)
    assert sample.features0.desc.shape == found.desc.shape
    assert sample.features0.size == (192, 128)
    torch.testing.assert_close(sample.features0.desc.norm(dim=1), torch.ones(64), atol=1e-3, rtol=0)


def test_depth_is_read_at_the_keypoints(world, tmp_path):
    data = samples(world, tmp_path)
    assert np.allclose(data.cache.get("alley", "rgb", 0).depth, 3.0)
    sx, sy = data.cache.get("alley", "rgb", 0).scale
    assert (sx, sy) == (1.0, 128 / 144)


def test_labels_are_the_wall_s_five_pixels(world, tmp_path):
    sample = samples(world, tmp_path).sample(Item(0, "infrared", "rgb"))
    i = torch.nonzero(sample.targets.matches0 >= 0)[:, 0]
    assert len(i) > 0
    shift = sample.features1.kpts[sample.targets.matches0[i]] - sample.features0.kpts[i]
    assert (shift - torch.tensor([5.0, 0.0])).norm(dim=1).max() < 3


def test_batch_pads_with_ignore(world, tmp_path):
    data = samples(world, tmp_path)
    batch = data.collate([data.sample(Item(k, "rgb", "rgb")) for k in (0, 1)])
    assert batch.matches0.shape == batch.points0.mask.shape == (2, 64)
    assert bool(batch.points0.mask.all())
