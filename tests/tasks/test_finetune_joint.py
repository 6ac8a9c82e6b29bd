"""The stage that trains XFeat and its LightGlue together, from folders of certified data to a model that names them."""

import shutil

import pytest
import torch
import yaml
from joint_settings import JOINT
from plane_world import SETTINGS, plain, save_data_set, save_parent

from minima_core.errors import DataError, TrainingError
from minima_core.io.weights import state_digest
from minima_core.manifest import ModelCard, RawDataset
from minima_core.models import read_model
from tasks import albums
from tasks.finetune_joint import FinetuneJointArgs, main

AUTHORS = {"one": ["Ada, CC-BY-4.0"], "two": ["Ada, CC-BY-4.0", "Bob, CC-BY-SA-4.0"]}


@pytest.fixture
def place(tmp_path, monkeypatch, tracker):
    """A working directory with two certified worlds, a parent and a params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    for name, attribution in AUTHORS.items():
        save_data_set(tmp_path / "data" / name, attribution)
    save_parent(tmp_path / "parent")
    params = {
        "seed": 0,
        "joint_training": plain(JOINT) | {"parallax_share": 0.0, "view": [96, 96], "keypoints": [24, 32], "points": 24},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def made(out="model", **changes):
    given = {"parent": "parent", "data": "data", "out": out, "report": "r.json"}
    return main(FinetuneJointArgs.model_validate(given | changes))


def test_the_model_learned_and_says_from_whom(place, tracker):
    report = made()
    model, card = read_model(place / "model")
    parent, about = read_model(place / "parent")
    assert state_digest(model.extractor.state_dict()) != state_digest(parent.extractor.state_dict())
    assert card.attribution == ["Ada, CC-BY-4.0", "Bob, CC-BY-SA-4.0"]
    assert card.training["data_sets"] == ["one", "two"] and card.training["steps"] == report.steps == JOINT["steps"]
    assert card.parent == about.digest() == tracker.run["parent_card"]
    assert "Apache-2.0" in card.licence and "CC-BY-4.0" in card.licence
    assert report.card_digest == card.digest() == tracker.seen["card_digest"]


def test_pictures_that_no_stage_brought_need_no_record(place):
    (place / "data" / "two" / "raw" / RawDataset.FILE).unlink()
    made()
    card = ModelCard.load(place / "model")
    assert card.attribution == AUTHORS["one"] and "CC-BY-4.0" in card.licence


def test_the_same_data_give_the_same_bytes(place):
    made("one")
    shutil.rmtree(".scratch")
    made("two")
    for name in ("card.json", "model.safetensors"):
        assert (place / "one" / name).read_bytes() == (place / "two" / name).read_bytes()


def test_what_is_missing_or_not_certified_is_named(place):
    shutil.rmtree(place / "data" / "two" / "raw")
    with pytest.raises(DataError, match="data/two/raw"):
        made()
    shutil.rmtree(place / "data" / "two")
    (place / "data" / "one" / "modalities" / "event" / "more").write_text("x")
    with pytest.raises(TrainingError, match="data/one/modalities/event"):
        made()
    with pytest.raises(DataError, match="no data set in nowhere"):
        made(data="nowhere")


def test_other_matchers_are_refused(place, monkeypatch):
    card = ModelCard.load(place / "parent").model_copy(update={"matcher": "roma"})
    monkeypatch.setattr(albums, "read_model", lambda _: (torch.nn.Identity(), card))
    with pytest.raises(TrainingError, match="parent is a roma; give a lightglue model"):
        made()


def test_settings_are_those_of_the_parent(place):
    made()
    assert ModelCard.load(place / "model").params == SETTINGS


def test_a_second_training_may_keep_the_first_teacher(place):
    made("first")
    made("taught", parent="first", teacher="parent")
    made("alone", parent="first")
    first, taught, alone = (ModelCard.load(place / name) for name in ("first", "taught", "alone"))
    assert "before" not in first.training and taught.training["before"] == alone.training["before"] == first.training
    assert taught.parent == alone.parent == ModelCard.load(place / "first").digest()
    assert taught.weights_sha256 != alone.weights_sha256


def test_terms_and_authors_are_those_of_parent_and_teacher_too(place):
    shutil.copytree(place / "parent", place / "teacher")
    for name, changes in (
        ("parent", {"attribution": ["Cleo, CC-BY-4.0"]}),
        ("teacher", {"licence": "LicenseRef-of-the-teacher", "commercial": False, "attribution": ["Dan, CC-BY-4.0"]}),
    ):
        ModelCard.load(place / name).model_copy(update=changes).save(place / name)
    made(teacher="teacher")
    card = ModelCard.load(place / "model")
    assert "LicenseRef-of-the-teacher" in card.licence and not card.commercial
    assert card.attribution == ["Cleo, CC-BY-4.0", "Dan, CC-BY-4.0", *AUTHORS["two"]]
    assert card.training["teacher"] == ModelCard.load(place / "teacher").digest()
