"""XoFTR beside its original, which gave the recorded values (to 2e-5 px and 3e-6) under weights made from a formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import weight
from safetensors.torch import save_file
from torch.nn import functional as F

from minima_core.errors import ConfigError, WeightsError
from minima_core.matchers._semidense import cell_area, windows
from minima_core.matchers.xoftr import XoFTR, network
from minima_core.matchers.xoftr.network import Network, either_way, match_cells
from minima_core.models import PUBLISHED_MODELS, create, load_matcher

RECORDED = np.load(Path(__file__).parent / "recorded" / "xoftr.npz")
SETTINGS = PUBLISHED_MODELS["xoftr"][1] | {"threshold": 0.2}


def picture(h, w, seed):
    small = np.random.default_rng(seed).random((1, 1, h // 6, w // 6), dtype=np.float32)
    return F.interpolate(torch.from_numpy(small), (h, w), mode="bicubic").clamp(0, 1)


PAIRS = {
    "two_sizes": (picture(96, 128, 1), picture(120, 88, 2)),
    "shifted": (picture(96, 128, 3), picture(96, 128, 3).roll(8, -1)),
}


@pytest.fixture(scope="module")
def state():
    """The weights of the formula, by the names in the published files."""
    with torch.device("meta"):
        empty = Network("full").state_dict()
    return {name: weight(name, tensor.shape) for name, tensor in empty.items()}


@pytest.fixture(scope="module")
def full(state):
    made = create("xoftr", SETTINGS, "test").eval()
    made.network.load_state_dict(state)
    return made


def small(**changes):
    torch.manual_seed(0)
    return create("xoftr", SETTINGS | {"size": "small", "long_side": 96} | changes, "test").eval()


def colours(images):
    return [image.expand(-1, 3, -1, -1)[0] for image in images]


@torch.inference_mode()
def matches(made, pair, number=1000):
    (found,) = made._match(*([image] for image in colours(pair)), number)
    return found


def test_the_network_has_the_names_and_shapes_of_the_published_files(state):
    found = {f"{name} {list(tensor.shape)}" for name, tensor in state.items()}
    assert found == set(RECORDED["keys"].tolist())


@pytest.mark.parametrize("name", PAIRS)
@torch.inference_mode()
def test_cells_match_as_in_the_original(full, name):
    image0, image1 = PAIRS[name]
    similarities = match_cells(full.network, image0, image1)[2]
    for axis, way in ((2, "there"), (1, "back")):
        found = similarities.softmax(axis).flatten()[::97]
        # logits reach 120, where float32 steps by 8e-6; the original is itself 3e-5 from its result in float64
        np.testing.assert_allclose(found, RECORDED[f"{name}_{way}"], rtol=0, atol=5e-5)
    inner = (cell_area(image, *image.shape[2:], 2).flatten() for image in (image0, image1))
    _, *cells = either_way(similarities, 0.2, *inner)
    assert np.array_equal(torch.stack(cells), RECORDED[f"{name}_cells"])


@pytest.mark.parametrize("name", PAIRS)
def test_matches_are_those_of_the_original_in_pixels_whose_centres_are_whole(full, name):
    found, expected = matches(full, PAIRS[name]), RECORDED[f"{name}_matches"]
    assert len(found) == len(expected) > 80  # a few windows less than cells: the fine threshold
    points = torch.cat([found.mkpts0, found.mkpts1], 1)
    np.testing.assert_allclose(points, expected[:, :4], rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected[:, 4], rtol=0, atol=1e-4)


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_a_file_of_the_published_form_is_used_by_name(state, full, tmp_path, ending):
    file = tmp_path / f"mine.{ending}"
    if ending == "ckpt":
        torch.save({"state_dict": {f"matcher.{name}": tensor for name, tensor in state.items()}}, file)
    else:
        save_file(state, file)
    loaded = load_matcher(f"minima-xoftr={file}")
    assert loaded.licence == "unknown"
    mine = loaded.matcher.network.state_dict()
    assert all(torch.equal(mine[name], tensor) for name, tensor in full.network.state_dict().items())


def test_a_checkpoint_with_a_tensor_too_few_is_refused(state, tmp_path):
    less = {name: tensor for name, tensor in state.items() if name != "fine_matching.fine_proj.weight"}
    torch.save({"state_dict": less}, tmp_path / "less.ckpt")
    with pytest.raises(WeightsError, match=r"does not fit the network .*fine_proj"):
        load_matcher(f"xoftr={tmp_path / 'less.ckpt'}")
    with pytest.raises(WeightsError, match="no weights of size small"):
        small().load_published()


def test_a_cell_may_be_matched_from_either_side():
    # cells 0 and 1 both look for 0, which prefers 0; 2 in image 1 looks for 1, which does not look for it
    logits = torch.tensor([[[9.0, 0.0, 0.0], [7.0, 0.0, 6.0], [0.0, 0.0, 0.0]]])
    inner = torch.ones(3, dtype=torch.bool)
    ids = either_way(logits, 0.5, inner, inner)
    assert torch.stack(ids).T.tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 2]]
    edge = torch.tensor([False, True, True])
    assert torch.stack(either_way(logits, 0.5, inner, edge)).T.tolist() == [[0, 1, 2]]


def test_a_window_lies_around_its_cell_and_beyond_the_edge_are_zeros():
    features = torch.arange(1, 65).reshape(1, 1, 8, 8)  # 2 x 2 cells of 4 x 4
    cells = torch.tensor([0, 3])
    first, last = windows(features, torch.zeros_like(cells), cells, 2, stride=4, size=5, margin=2)[..., 0]
    assert first.reshape(5, 5)[:3].tolist() == [[0] * 5, [0] * 5, [0, 0, 1, 2, 3]]
    assert last.reshape(5, 5)[2].tolist() == [35, 36, 37, 38, 39]


def test_matches_are_refined_some_at_a_time(monkeypatch):
    made = small(threshold=0.0, fine_threshold=0.0)
    together = matches(made, PAIRS["shifted"])
    monkeypatch.setattr(network, "AT_ONCE", len(together) // 3)
    apart = matches(made, PAIRS["shifted"])
    assert len(apart) == len(together) > 20
    torch.testing.assert_close(apart.scores, together.scores)
    ends, other_ends = (torch.cat([found.mkpts0, found.mkpts1], 1) for found in (apart, together))
    assert (ends[:, None] - other_ends).abs().amax(2).amin(1).max() < 1e-3


def test_a_pair_that_matches_nowhere_has_no_made_up_match():
    for changes in ({"threshold": 0.999}, {"threshold": 0.0, "fine_threshold": 0.999}):
        assert len(matches(small(**changes), PAIRS["shifted"])) == 0


def test_the_surest_are_kept():
    made = small(threshold=0.0, fine_threshold=0.0)
    every, few = matches(made, PAIRS["two_sizes"]), matches(made, PAIRS["two_sizes"], number=5)
    assert len(every) > 5 and torch.equal(few.scores, every.scores[:5])
    assert (every.scores.diff() <= 0).all()


def test_nothing_is_trained_and_the_licence_says_that_kaist_was_seen():
    with pytest.raises(ConfigError, match="xoftr has nothing to train"):
        small().loss(None)
    assert all(not small(published=which).terms().commercial for which in ("640", "minima"))
    assert XoFTR.Params.model_fields.keys() == SETTINGS.keys()
