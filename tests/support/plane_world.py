"""A tiny world whose views agree: a textured wall, three metres away, that a camera passes by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tiny_world import VIEWS, H, W, World, picture

from minima_core.data.index import Scene, index_digest
from minima_core.io.depth import write_depth
from minima_core.io.images import write_image
from minima_core.manifest import Certificate, ModelCard, RawDataset, SceneManifest, folder_digest
from minima_core.matchers.lightglue import LightGlue
from minima_core.models import save_model

STEP = 5  # pixels that the wall moves from one view to the next: f 150, baseline 0.1, depth 3
SETTINGS = {"extractor": "xfeat", "long_side": W, "max_keypoints": 128, "filter_threshold": 0.0}


class PlaneWorld(World):
    """The tiny world with views that see the same wall; a depth image of it would be blank, so there is none."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, ["infrared", "event", "sketch"])

    def _scene(self, s: int, name: str, split: str) -> Scene:
        scene = super()._scene(s, name, split)
        wall = np.concatenate([picture(1000 * (s + 1))[0], picture(1000 * (s + 1) + 1)[0]], axis=1)
        depth = np.full((H, W), 3.0, np.float32)
        for v in range(VIEWS):
            start = W - STEP * v
            shown = np.ascontiguousarray(wall[:, start : start + W])
            self.pictures[scene.image_id(v)] = (shown, depth)
            write_image(self.raw / scene.image[v], shown)
            write_depth(self.raw / scene.depth[v], depth)
        return scene

    def certify(self, folder: Path) -> Path:
        """Write a certificate of everything."""
        Certificate(
            index_digest=index_digest(self.index),
            modalities=self.names,
            unavailable={},
            digests={name: folder_digest(self.modalities / name) for name in self.names},
            expectations=1,
            images=12,
            pairs=9,
            statistics={},
        ).save(folder)
        return folder


def save_data_set(folder: Path, attribution: list[str]) -> None:
    """Write a certified plane world as a training on any number of data sets reads it, under CC-BY-4.0."""
    world = PlaneWorld(folder).make()
    SceneManifest.load(world.index).model_copy(update={"licence": "CC-BY-4.0"}).save(world.index)
    world.certify(folder / "certificate")
    raw = RawDataset(dataset=folder.name, licence="CC-BY-4.0", attribution=attribution, relation="depth", settings="00")
    raw.save(world.raw)


def plain(settings: dict[str, object]) -> dict[str, object]:
    """Return settings with lists in the place of tuples, as YAML has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def random_matcher(seed: int = 0, **settings: object) -> LightGlue:
    """Return a matcher whose weights are random but fixed, and whose detector is sharp enough to find keypoints."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        matcher = LightGlue(LightGlue.Params.model_validate(SETTINGS | settings))
    with torch.no_grad():
        matcher.extractor.net.net.keypoint_head[-1].weight *= 30
    return matcher


def save_parent(folder: Path) -> ModelCard:
    """Write a model folder with a random matcher."""
    card = ModelCard(
        matcher="lightglue",
        stage="pretrained",
        params=SETTINGS,
        weights_sha256="",
        licence="Apache-2.0",
        commercial=True,
    )
    return save_model(folder, random_matcher(), card)


def training_settings(**changes: object) -> dict[str, object]:
    """Return settings of a training that takes a few seconds."""
    settings: dict[str, object] = {
        "steps": 8,
        "batch": 2,
        "micro_batch": 2,
        "max_keypoints": 64,
        "precision": "float32",
        "compile": False,
        "optimiser": {"kind": "adam", "weight_decay": 0.0, "lr": {"all": 1e-3}, "lr_batch": 32},
        "schedule": {"kind": "exponential", "warmup": 2, "decay_from": 0.5, "decay_to": 0.1},
        "clip": 1.0,
        "ema": 0.0,
        "learned_share": 1.0,
        "pairs": {
            "per_scene": 3,
            "overlap": [0.1, 0.7],
            "bins": 1,
            "repeats": 2,
            "modalities": {"strategy": "random"},
            "augment": None,
        },
        "validation_samples": 4,
        "validate_every": 3,
        "checkpoint_every": 2,
        "max_skipped": 1,
        "threads": 1,
    }
    return settings | changes
