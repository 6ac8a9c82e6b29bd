"""A tiny world on disk that needs neither data set plugins nor engines: three scenes and modalities, made by numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from minima_core.data.index import Scene, index_digest, read_scene, write_scene
from minima_core.data.shards import write_shard
from minima_core.io.depth import write_depth
from minima_core.io.images import encode_png, write_image
from minima_core.manifest import ModalityManifest, RawDataset, SceneEntry, SceneManifest

W, H = 192, 144
VIEWS = 4
SCENES = {"alley": "train", "court": "train", "yard": "val"}
MODALITIES = ["infrared", "event", "depth"]
PAINTER = "Ann Example (CC-BY-4.0): a wall"


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an (H, W, 3) uint8 image of coloured boxes on noise, and its (H, W) depth."""
    rng = np.random.default_rng(seed)
    noise = cv2.resize(rng.uniform(60, 190, (H // 6, W // 6, 3)).astype(np.float32), (W, H))
    depth = np.linspace(6, 3, H, dtype=np.float32)[:, None].repeat(W, 1)
    for _ in range(9):
        x, y = int(rng.integers(0, W - 20)), int(rng.integers(0, H - 20))
        w, h = (int(n) for n in rng.integers(14, 60, 2))
        noise[y : y + h, x : x + w] = rng.uniform(20, 235, 3) + rng.normal(0, 8, noise[y : y + h, x : x + w].shape)
        depth[y : y + h, x : x + w] = rng.uniform(1, 3)
    return np.clip(noise, 0, 255).astype(np.uint8), depth


def render(modality: str, image: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return a crude image of the modality."""
    if modality == "depth":
        near = (1 / depth - 1 / depth.max()) / (1 / depth.min() - 1 / depth.max())
        return np.repeat((near * 255).astype(np.uint8)[..., None], 3, 2)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if modality == "infrared":
        return np.repeat(np.clip(255 - gray * 0.7 + 20 * np.sin(gray / 17), 0, 255).astype(np.uint8)[..., None], 3, 2)
    change = np.roll(np.log1p(gray), (-1, -2), (0, 1)) - np.log1p(gray)
    event = np.full((H, W, 3), 255, np.uint8)
    event[change > 0.1] = (0, 0, 255)
    event[change < -0.1] = (255, 0, 0)
    return event


class World:
    """Paths of a world below a folder, and how to spoil it."""

    def __init__(self, root: Path, modalities: list[str] | None = None) -> None:
        self.raw, self.index, self.modalities = root / "raw", root / "index", root / "modalities"
        self.names = modalities or MODALITIES
        self.pictures: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def make(self) -> World:
        """Write everything and return the world."""
        RawDataset(dataset="tiny", licence="none", attribution=[PAINTER], relation="depth", settings="00").save(
            self.raw
        )
        for s, (name, split) in enumerate(SCENES.items()):
            write_scene(self.index, self._scene(s, name, split))
        self.list_scenes()
        for modality in self.names:
            self.write_modality(modality)
        return self

    def _scene(self, s: int, name: str, split: str) -> Scene:
        images = [f"{name}/dense0/imgs/{v:03d}.png" for v in range(VIEWS)]
        depths = [f"{name}/dense0/depths/{v:03d}.h5" for v in range(VIEWS)]
        for v in range(VIEWS):
            shown = picture(100 * s + v)
            self.pictures[f"{name}/{v:03d}"] = shown
            write_image(self.raw / images[v], shown[0])
            write_depth(self.raw / depths[v], shown[1])
        K = np.array([[150.0, 0, W / 2], [0, 150, H / 2], [0, 0, 1]])
        poses = np.tile(np.eye(4), (VIEWS, 1, 1))
        poses[:, 0, 3] = np.arange(VIEWS) * 0.1
        pairs = np.array([[i, i + 1] for i in range(VIEWS - 1)])
        sizes, Ks = np.tile([W, H], (VIEWS, 1)), np.tile(K, (VIEWS, 1, 1))
        none = [""] * VIEWS
        return Scene(name, split, images, depths, none, sizes, Ks, poses, pairs, np.full(len(pairs), 0.6))

    def list_scenes(self) -> None:
        """Write index.json from the scenes' files."""
        scenes = [read_scene(self.index, name) for name in SCENES]
        entries = [
            SceneEntry(name=s.name, split=s.split, images=len(s.image), pairs=len(s.pairs), digest="0") for s in scenes
        ]
        manifest = SceneManifest(dataset="tiny", licence="none", relation="depth", raw="raw", scenes=entries)
        manifest.save(self.index)

    def write_modality(self, modality: str, **changes: object) -> None:
        """Write shards and manifest of a modality; ``changes`` go into the manifest."""
        for name in SCENES:
            self.write_shard(modality, name, {})
        manifest = ModalityManifest(
            modality=modality,
            engine="tiny",
            params={},
            seed=0,
            licence="none",
            commercial=True,
            encoding="png",
            source_digest=index_digest(self.index),
            status="complete",
            scenes=dict.fromkeys(SCENES, VIEWS),
        )
        manifest.model_copy(update=changes).save(self.modalities / modality)

    def write_shard(self, modality: str, scene: str, instead: dict[str, np.ndarray | bytes | None]) -> None:
        """Write one shard; ``instead`` gives other images or bytes by id, None leaves the image out."""
        items = []
        for v in range(VIEWS):
            name = f"{scene}/{v:03d}"
            image = instead.get(name, render(modality, *self.pictures[name]))
            if image is not None:
                items.append((name, image if isinstance(image, bytes) else encode_png(image), "{}"))
        write_shard(self.modalities / modality / f"{scene}.h5", items)

    def change(self, scene: str, **fields: object) -> None:
        """Change fields of a scene in the index, and make everything else agree with the new index."""
        write_scene(self.index, replace(read_scene(self.index, scene), **fields))
        self.list_scenes()
        for modality in self.names:
            folder = self.modalities / modality
            manifest = ModalityManifest.load(folder)
            manifest.model_copy(update={"source_digest": index_digest(self.index)}).save(folder)
