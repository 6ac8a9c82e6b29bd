"""The stage pretrain_infrared, from a params.yaml and pictures to an adapter folder."""

import json

import pytest
import yaml
from infrared_pairs import llvip, settings

from minima_core.errors import ConfigError, DataError
from minima_core.io.weights import read_metadata
from minima_core.manifest import CURVES, file_sha256
from minima_core.synthesis.base import MODALITIES
from minima_core.training.infrared import ABOUT
from tasks import pretrain_infrared
from tasks.reports import InfraredTrainingReport

pytestmark = pytest.mark.xdist_group("networks")  # importing diffusers takes ten seconds: once is enough


@pytest.fixture
def place(tmp_path, monkeypatch, tracker):
    """A checkout with pictures and a params.yaml, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    llvip(tmp_path / "pairs")
    write_params()
    return tmp_path


def write_params(**changes):
    with open("params.yaml", "w") as file:
        yaml.safe_dump({"seed": 0, "infrared_training": settings(steps=2, **changes)}, file)


def args(out="adapter", pairs="pairs"):
    return pretrain_infrared.PretrainInfraredArgs.model_validate({"pairs": pairs, "out": out, "report": "r.json"})


def test_pictures_become_an_adapter_that_the_engine_takes(place, tracker):
    report = pretrain_infrared.main(args())
    assert (report.pairs, report.validation_pairs, report.steps, report.skipped_steps) == (8, 4, 2, 0)
    assert set(report.final) == {"train/loss", "train/norm", "val/loss"}
    assert InfraredTrainingReport.model_validate_json(report.model_dump_json()) == report
    weights = place / "adapter" / "adapter_model.safetensors"
    assert report.adapter_sha256 == file_sha256(weights) == tracker.seen["adapter_sha256"]
    assert read_metadata(weights) == {"licence": report.licence} == {"licence": "CC0-1.0"}
    assert tracker.seen["licence"] == "CC0-1.0" and tracker.seen["commercial"] == "true"
    about = json.loads((place / "adapter" / ABOUT).read_text())
    assert about["steps"] == 2 and about["infrared_training"] == settings(steps=2)
    assert [step for step, _ in json.loads((place / "adapter" / CURVES).read_text())["val/loss"]] == [0, 2]
    assert tracker.run["name"] == "pretrain_infrared" and ("val/loss", 2) in tracker.points
    shipped = MODALITIES.settings("infrared", "stylebooth")
    engine = MODALITIES.create("infrared", {**shipped, "weights": "random", "adapter": "adapter"})
    engine.setup()
    assert engine.terms().name == "Apache-2.0 AND CC0-1.0"


def test_a_finished_training_is_picked_up_and_other_pictures_are_another(place, caplog):
    first = pretrain_infrared.main(args("one"))
    with caplog.at_level("INFO"):
        second = pretrain_infrared.main(args("two"))
        assert "continuing after step 2" in caplog.text
        caplog.clear()
        (place / "pairs/visible/train/00000.jpg").write_bytes((place / "pairs/visible/train/00001.jpg").read_bytes())
        pretrain_infrared.main(args("three"))
        assert "continuing" not in caplog.text
    assert first.adapter_sha256 == second.adapter_sha256


def test_a_folder_without_pictures_is_refused_before_anything_is_loaded(place, monkeypatch):
    monkeypatch.setattr(pretrain_infrared, "make_editor", None)
    (place / "empty").mkdir()
    with pytest.raises(DataError, match="no aligned pictures"):
        pretrain_infrared.main(args(pairs="empty"))


def test_a_misspelt_setting_is_named(place):
    write_params(stesp=3)
    with pytest.raises(ConfigError, match=r"'stesp' is not in .*infrared_training; did you mean 'steps'"):
        pretrain_infrared.main(args())
