"""The stage that gives a model what moves its matches: nothing else of the model changes, and the card says so."""

import shutil

import pytest
import torch
import yaml
from joint_settings import JOINT
from plane_world import SETTINGS, plain, save_data_set, save_parent
from refiner_settings import REFINER

from minima_core.errors import TrainingError
from minima_core.manifest import ModelCard
from minima_core.models import read_model
from tasks.finetune_joint import FinetuneJointArgs
from tasks.finetune_joint import main as finetune_joint
from tasks.train_refiner import TrainRefinerArgs, main


@pytest.fixture
def place(tmp_path, monkeypatch, tracker):
    """A working directory with a certified world, a parent and a params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    save_data_set(tmp_path / "data" / "walls", ["Ada"])
    save_parent(tmp_path / "parent")
    params = {"seed": 0, "refiner_training": plain(REFINER) | {"view": [96, 96]}, "joint_training": plain(JOINT)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def made(out="model", **changes):
    given = {"parent": "parent", "data": "data", "out": out, "report": "r.json"}
    return main(TrainRefinerArgs.model_validate(given | changes))


def test_the_refiner_alone_is_new_and_the_card_says_who_taught_it(place, tracker):
    report = made()
    model, card = read_model(place / "model")
    parent, about = read_model(place / "parent")
    state = model.state_dict()
    assert all(torch.equal(state[name], weights) for name, weights in parent.state_dict().items())
    assert {name.partition(".")[0] for name in state.keys() - parent.state_dict().keys()} == {"refiner"}
    assert card.params == SETTINGS | {"published": "rgb", "subpixel": False, "refine": True}
    assert card.attribution == ["Ada"] and "Apache-2.0" in card.licence and "CC-BY-4.0" in card.licence
    assert card.training["data_sets"] == ["walls"] and card.training["steps"] == report.steps == REFINER["steps"]
    assert card.parent == about.digest() == tracker.run["parent_card"]
    assert report.stage == "train_refiner" and report.card_digest == card.digest() == tracker.seen["card_digest"]


def test_the_same_data_give_the_same_bytes(place):
    made("one")
    shutil.rmtree(".scratch")
    made("two")
    for name in (ModelCard.FILE, "model.safetensors"):
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes()


def test_a_model_that_moves_its_matches_is_trained_no_further(place):
    made()
    with pytest.raises(TrainingError, match="model moves its matches already; give the model that it was trained from"):
        made("again", parent="model")
    with pytest.raises(TrainingError, match="model moves its matches already"):
        finetune_joint(
            FinetuneJointArgs.model_validate({"parent": "model", "data": "data", "out": "o", "report": "o.json"})
        )
