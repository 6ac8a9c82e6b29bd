"""Which samples an epoch has: frequencies, determinism, overlap bins."""

from collections import Counter

import numpy as np
import pytest
from plane_world import PlaneWorld
from pydantic import TypeAdapter

from minima_core.data.augment import Augment
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import (
    Item,
    Modalities,
    PairSampling,
    RandomModalities,
    batches,
    epoch_items,
    modality_pair,
    sample_pairs,
    used_modalities,
    validation_items,
)
from minima_core.errors import ConfigError, DataError
from minima_core.manifest import ModalityManifest
from minima_core.random import rng

THREE = ["infrared", "event", "sketch"]
RANDOM = RandomModalities(strategy="random")
SETTINGS = PairSampling(per_scene=3, overlap=(0.1, 0.7), bins=1, repeats=2, modalities=RANDOM, augment=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return PlaneWorld(tmp_path_factory.mktemp("world")).make()


def source(world, split="train", names=THREE):
    return PairSource(world.index, world.raw, world.modalities, split=split, names=names)


def test_frequencies_are_those_of_the_reference():
    drawn = Counter(modality_pair(THREE, RANDOM, seed=0, epoch=0, sample=n) for n in range(8000))
    assert len(drawn) == 7
    for pair, count in drawn.items():
        expected = 0.25 if pair == ("rgb", "rgb") else 0.125
        assert count / 8000 == pytest.approx(expected, abs=0.015), pair  # 4 standard deviations


def test_never_two_that_are_not_rgb():
    assert all("rgb" in modality_pair(THREE, RANDOM, seed=1, epoch=2, sample=n) for n in range(500))


def draw_as(names=tuple(THREE), count=400, **strategy):
    chosen = TypeAdapter(Modalities).validate_python(strategy)
    used = used_modalities(chosen, names)
    return Counter(modality_pair(used, chosen, seed=0, epoch=0, sample=n) for n in range(count))


def test_strategies_draw_what_they_say():
    assert set(draw_as(strategy="rgb_only")) == {("rgb", "rgb")}
    single = draw_as(strategy="single", modality="event", count=4000)
    assert single["rgb", "rgb"] / 4000 == pytest.approx(1 / 2, abs=0.03)
    assert single["event", "rgb"] / 4000 == pytest.approx(1 / 4, abs=0.03) and len(single) == 3
    subset = draw_as(strategy="subset", modalities=["event", "sketch"])
    assert {m for pair in subset for m in pair} == {"rgb", "event", "sketch"} and ("event", "sketch") not in subset
    both = draw_as(strategy="any_pair", count=8000)
    assert len(both) == 16 and all(n / 8000 == pytest.approx(1 / 16, abs=0.011) for n in both.values())


def test_random_draws_the_share_of_rgb_that_it_is_told():
    drawn = draw_as(strategy="random", rgb_share=0.6, count=8000)
    assert len(drawn) == 7 and drawn["rgb", "rgb"] / 8000 == pytest.approx(0.6, abs=0.025)
    assert all(n / 8000 == pytest.approx(0.4 / 6, abs=0.015) for pair, n in drawn.items() if pair != ("rgb", "rgb"))
    assert ("rgb", "rgb") not in draw_as(strategy="random", rgb_share=0)
    for names in ((), tuple(THREE)):
        assert set(draw_as(names, strategy="random", rgb_share=1)) == {("rgb", "rgb")}


def test_strategy_may_only_ask_for_what_was_certified():
    with pytest.raises(ConfigError, match=r"'evnt' is not in the certified modalities; did you mean 'event'"):
        draw_as(strategy="single", modality="evnt")


def test_rgb_in_the_list_is_not_counted_twice():
    pairs = [
        [modality_pair(names, RANDOM, seed=0, epoch=0, sample=n) for n in range(50)]
        for names in (["rgb", *THREE], THREE)
    ]
    assert pairs[0] == pairs[1]


def test_modalities_depend_on_seed_epoch_and_sample_only():
    def draw(**k):
        return [modality_pair(THREE, RANDOM, **({"seed": 0, "epoch": 0} | k), sample=n) for n in range(40)]

    assert draw() == draw()
    assert draw() != draw(seed=1)
    assert draw() != draw(epoch=1)


def test_no_modalities_gives_rgb_pairs():
    assert {modality_pair([], RANDOM, seed=0, epoch=0, sample=n) for n in range(20)} == {("rgb", "rgb")}


def test_bins_are_drawn_from_equally():
    overlap = np.concatenate([np.full(500, 0.2), np.full(60, 0.4), np.full(40, 0.6), np.full(50, 0.9)])
    settings = PairSampling(per_scene=60, overlap=(0.1, 0.7), bins=3, repeats=1, modalities=RANDOM, augment=None)
    drawn = sample_pairs(overlap, settings, rng(0, "test"))
    assert Counter(overlap[drawn].tolist()) == {0.2: 20, 0.4: 20, 0.6: 20}
    assert len(set(drawn.tolist())) == 60


def test_bin_with_less_than_twice_its_share_is_left_out():
    overlap = np.concatenate([np.full(500, 0.2), np.full(60, 0.4), np.full(39, 0.6)])
    settings = PairSampling(per_scene=60, overlap=(0.1, 0.7), bins=3, repeats=1, modalities=RANDOM, augment=None)
    assert Counter(overlap[sample_pairs(overlap, settings, rng(0, "test"))].tolist()) == {0.2: 30, 0.4: 30}


def test_upper_end_belongs_to_the_range_and_lower_end_does_not():
    overlap = np.array([0.1, 0.7, 0.71])
    settings = PairSampling(per_scene=9, overlap=(0.1, 0.7), bins=1, repeats=1, modalities=RANDOM, augment=None)
    assert sample_pairs(overlap, settings, rng(0, "test")).tolist() == [1]


def test_small_scene_gives_what_it_has():
    settings = PairSampling(per_scene=60, overlap=(0.1, 0.7), bins=3, repeats=1, modalities=RANDOM, augment=None)
    assert sorted(sample_pairs(np.array([0.2, 0.05, 0.6]), settings, rng(0, "t")).tolist()) == [0, 2]
    assert sorted(sample_pairs(np.array([0.9, 0.05, 0.8]), settings, rng(0, "t")).tolist()) == [0, 2]


def test_every_visit_moves_its_images_in_a_way_of_its_own(world):
    settings = SETTINGS.model_copy(update={"augment": Augment(shift=8, flip=0.5, rotation=30, scale=1.5)})
    items = epoch_items(source(world), settings, seed=0, epoch=0)
    assert len({item.moves for item in items}) == len(items)
    assert items == epoch_items(source(world), settings, seed=0, epoch=0)
    still = epoch_items(source(world), SETTINGS, seed=0, epoch=0)
    assert [(i.pair, i.modality0) for i in still] == [(i.pair, i.modality0) for i in items]
    assert {item.moves for item in validation_items(source(world), settings, seed=0, count=4)} == {None}


def test_epoch_visits_each_pair_as_often_as_told(world):
    items = epoch_items(source(world), SETTINGS, seed=0, epoch=0)
    assert Counter(Counter(item.pair for item in items).values()) == {2: 6}
    assert items == epoch_items(source(world), SETTINGS, seed=0, epoch=0)
    assert items != epoch_items(source(world), SETTINGS, seed=0, epoch=1)
    few = SETTINGS.model_copy(update={"per_scene": 1})
    drawn = {item.pair for epoch in range(8) for item in epoch_items(source(world), few, seed=0, epoch=epoch)}
    assert len(drawn) > 2  # of two scenes: others in other epochs


def test_scene_s_samples_do_not_depend_on_other_scenes(world):
    """Modalities belong to a pair's number, the pairs drawn to the scene's name."""
    whole = epoch_items(source(world), SETTINGS, seed=0, epoch=0)
    first = [item for item in whole if item.pair < 3]
    alone = source(world)
    alone.scenes = alone.scenes[:1]
    assert sorted(map(repr, first)) == sorted(map(repr, epoch_items(alone, SETTINGS, seed=0, epoch=0)))


def test_image_that_an_engine_failed_on_is_not_drawn(world, tmp_path):
    spoilt = PlaneWorld(tmp_path).make()
    for name in THREE:
        manifest = ModalityManifest.load(spoilt.modalities / name)
        failed = {f"alley/{v:03d}": "why" for v in range(4)}
        manifest.model_copy(update={"failed": failed}).save(spoilt.modalities / name)
    items = epoch_items(source(spoilt), SETTINGS, seed=0, epoch=0)
    assert items and all(item.modality0 == item.modality1 == "rgb" for item in items if item.pair < 3)


def test_validation_has_every_modality_on_the_same_pairs(world):
    items = validation_items(source(world, "val"), SETTINGS, seed=0, count=8)
    assert len(items) == 8
    by_pair = {k: [i for i in items if i.pair == k] for k in {i.pair for i in items}}
    for some in by_pair.values():
        assert sorted({i.modality0, i.modality1} - {"rgb"} or {"rgb"} for i in some) == sorted(
            [{m} for m in ["rgb", *THREE]]
        )


def test_batches_drop_the_rest_and_go_on_with_the_next_epoch():
    epochs = iter([[Item(n, "rgb", "rgb") for n in range(5)], [Item(n, "rgb", "rgb") for n in range(5, 8)]])
    assert [[item.pair for item in batch] for batch in batches(epochs, 2)] == [[0, 1], [2, 3], [5, 6]]


def test_pair_loads_with_geometry_of_the_rgb_image(world):
    pair = source(world).load(0, "infrared", "rgb")
    assert (pair.view0.modality, pair.view1.modality) == ("infrared", "rgb")
    assert pair.view0.image.shape == (3, 144, 192)
    assert pair.T_0to1[0, 3].item() == pytest.approx(0.1)
    assert float(pair.view0.depth.mean()) == 3.0
    assert (pair.view0.image - source(world).load(0).view0.image).abs().mean() > 0.05


def test_unknown_modality_is_named(world):
    with pytest.raises(ConfigError, match="did you mean 'infrared'"):
        source(world).image(source(world).scenes[0], 0, "infrarot")
    with pytest.raises(DataError, match="paint"):
        source(world, names=["paint"])


def test_image_of_another_size_than_the_index_says_is_refused(world):
    found = source(world)
    found.scenes[0].size[0] = (10, 10)
    with pytest.raises(DataError, match="192 x 144, the index says 10 x 10"):
        found.image(found.scenes[0], 0)
