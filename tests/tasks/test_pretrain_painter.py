"""The stage that trains the paint engine's network, from params.yaml to a file that the engine takes."""

import shutil

import numpy as np
import pytest
import yaml
from painter_settings import PAINTER
from pydantic import ValidationError
from safetensors.torch import load_file

from minima_core.errors import ConfigError
from minima_core.io.weights import read_metadata, state_digest
from minima_core.manifest import file_sha256
from minima_core.synthesis.base import MODALITIES, Source
from tasks.pretrain_painter import PainterArgs, main

SIZE = {"strokes": 4, "hidden": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}


@pytest.fixture
def place(tmp_path, monkeypatch, tracker):
    """A working directory with a params.yaml; returns what writes another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")

    def write(**changes):
        section = {**PAINTER, "size": SIZE, "steps": 3, "batch": 2, "warmup": 1, "validation_samples": 4}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "painter_training": section | changes}))

    write()
    return write


def made(name):
    return main(PainterArgs.model_validate({"out": name, "report": "r.json"}))


def test_the_file_is_what_the_engine_takes(place, tmp_path, tracker):
    report = made("painter.safetensors")
    assert tracker.run["name"] == "pretrain_painter" and tracker.run["params"]["painter"]["size"] == SIZE
    path = tmp_path / "painter.safetensors"
    assert report.steps == 3 and report.skipped_steps == 0 and report.final["best/step"] in {0, 3}
    assert report.weights_sha256 == file_sha256(path)
    assert read_metadata(path)["licence"] == tracker.seen["licence"] == "Apache-2.0"
    assert tracker.seen["weights_sha256"] == report.weights_sha256
    settings = MODALITIES.settings("paint", "paint_transformer") | {"weights": str(path), "brushes": "own"}
    engine = MODALITIES.create("paint", settings)
    engine.setup()
    assert engine.painter.size.model_dump() == SIZE and engine.terms().commercial
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert engine.synthesise(Source("a/0", image), seed=0, modality="paint").image.max() > 0


def test_the_same_settings_give_the_same_weights(place, tmp_path):
    first = made("one.safetensors")
    shutil.rmtree(tmp_path / ".scratch")
    made("two.safetensors")
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert state_digest(load_file(one)) == state_digest(load_file(two)) and read_metadata(one) == read_metadata(two)
    place(lr=2.0e-3)
    assert made("three.safetensors").final != first.final


def test_a_misspelt_setting_is_named(place):
    place(learning_rate=1)
    with pytest.raises(ConfigError, match=r"'learning_rate' is not in .*painter_training; there are"):
        made("painter.safetensors")


def test_a_file_that_the_engine_would_not_take_is_refused_before_training():
    with pytest.raises(ValidationError, match=r"\.safetensors"):
        PainterArgs.model_validate({"out": "painter.pth", "report": "r.json"})
