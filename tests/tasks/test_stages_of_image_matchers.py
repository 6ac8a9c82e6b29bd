"""The stages pretrain, finetune and match with the matchers that look at whole images, at sizes for a CPU."""

import math

import pytest
import torch
import yaml
from plane_world import PlaneWorld, training_settings

from minima_core.manifest import ModelCard
from minima_core.models import read_model
from tasks import finetune, pretrain

SEMIDENSE = {"size": "small", "published": "outdoor", "long_side": 96, "max_keypoints": 500, "threshold": 0.05}
SETTINGS = {
    "loftr": SEMIDENSE | {"positions": "fixed"},
    "eloftr": SEMIDENSE,
    "roma": {
        "width": "tiny",
        "published": "outdoor",
        "long_side": 112,
        "max_keypoints": 200,
        "coarse_side": 112,
        "fine_side": 128,
        "threshold": 0.05,
    },
    "xfeat_star": {"long_side": 96, "max_keypoints": 200, "cells": 100, "certainty": 0.0},
}
RATES = {"roma": {"encoder": 1e-4, "decoder": 1e-3}, "eloftr": {"backbone": 1e-3, "matching": 1e-3}}
FOLDERS = {"raw": "raw", "index": "index", "certificate": "certificate", "report": "r.json"}


@pytest.fixture
def world(tmp_path, monkeypatch, tracker):
    """A checkout with a certified world, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    made = PlaneWorld(tmp_path).make()
    made.certify(tmp_path / "certificate")
    return made


def write_params(name, steps):
    optimiser = {"kind": "adamw", "weight_decay": 0.01, "lr": RATES.get(name, {"all": 1e-3}), "lr_batch": 2}
    settings = training_settings(steps=steps, optimiser=optimiser, validation_samples=2, validate_every=steps)
    params = {
        "seed": 0,
        "licence_policy": "permissive",
        "matcher": {name: SETTINGS[name]},
        "training": {
            "pretrain": {name: {"mode": "train", "start": "random", "train": settings}},
            "finetune": {name: {"demo": settings}},
        },
    }
    with open("params.yaml", "w") as file:
        yaml.safe_dump(params, file)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_matcher_of_whole_images_goes_through_the_stages(world, tmp_path, name):
    write_params(name, steps=3)
    pretrain.main(pretrain.PretrainArgs.model_validate({"matcher": name, "out": "parent", **FOLDERS}))
    given = {"matcher": name, "preset": "demo", "parent": "parent", "modalities": "modalities", "out": "fine"}
    report = finetune.main(finetune.FinetuneArgs.model_validate(given | FOLDERS))
    assert report.steps == 3 and report.skipped_steps == 0
    assert math.isfinite(report.final["val/loss"])
    parent = ModelCard.load(tmp_path / "parent")
    matcher, card = read_model(tmp_path / "fine")
    assert card.parent == parent.digest() and parent.training["train"]["steps"] == 3
    assert card.params == SETTINGS[name]
    image = torch.rand(3, 90, 120, generator=torch.Generator().manual_seed(0))
    assert matcher.match(image, image).mkpts0.isfinite().all()
