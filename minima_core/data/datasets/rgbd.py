"""A folder of posed depth frames: plain folders of frames, 7-Scenes, TUM RGB-D or ScanNet.

A plain folder holds ``frame-NNNNNN.{color.jpg,depth.png,pose.txt}`` and ``camera-intrinsics.txt``: ``pose.txt`` is
camera to world (4 x 4, metres), ``depth.png`` uint16 millimetres with 0 and 65535 for unknown, and one 3 x 3 intrinsics
holds for colour and depth. Each sequence is split in time: its first frames are for training, its last for validation,
and ``gap`` frames between them are left out, so that the two halves do not share a moment. They show the same room,
though: validation says how training goes, not how well a model does elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from pydantic import Field

from minima_core.config import Section
from minima_core.data.datasets._frames import Frame, Sequence, bring, sequences
from minima_core.data.datasets._layout import CAMERAS, Camera, posed_scene, scene_names, write_cameras
from minima_core.data.datasets.base import Dataset
from minima_core.data.index import Scene
from minima_core.errors import DataError
from minima_core.manifest import Split
from minima_core.parallel import map_jobs

SETTING = "set dataset.rgbd.root in params.yaml to where the frames are"


class Rgbd(Dataset):
    """Posed depth frames of the user."""

    class Params(Section):
        """Settings, ``dataset.rgbd`` in params.yaml."""

        root: str  # one sequence, or folders that each hold one
        licence: str  # of the frames, as the user knows it
        validation_share: float = Field(gt=0, lt=1)  # of a sequence's frames, its last ones
        gap: int = Field(ge=0)  # frames left out between training and validation
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        max_pairs: int = Field(ge=1)  # a scene

    relation = "depth"

    def __init__(self, params: Section, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = self.settings.licence

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Rgbd.Params", self.params)

    def source(self) -> list[tuple[str, int, int]]:
        """Return what identifies the frames."""
        root = Path(self.settings.root)
        files = sorted(p for p in root.rglob("*") if p.suffix in {".jpg", ".png", ".txt"})
        return [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring the frames under ``root``: images without distortion, the depth as HDF5 in metres."""
        p = self.settings
        found = sequences(Path(p.root), setting=SETTING)
        bring_sequences(found, root, validation_share=p.validation_share, gap=p.gap, workers=workers)

    def scenes(self, root: Path, *, workers: int = 1) -> Iterator[Scene]:
        """Yield the scenes with their pairs."""
        p = self.settings
        for name in scene_names(root, CAMERAS):
            yield posed_scene(root, name, overlap=p.overlap, max_pairs=p.max_pairs, seed=self.seed, workers=workers)


def bring_sequences(found: list[Sequence], root: Path, *, validation_share: float, gap: int, workers: int = 1) -> None:
    """Write two scenes of each sequence under ``root``, its first frames for training and its last for validation.

    Raises:
        DataError: if a sequence is too short, or a file of a frame is damaged.
    """
    jobs, scenes = [], []
    for sequence in found:
        for split, frames in split_in_time(sequence, validation_share, gap).items():
            scene = f"{sequence.name}-{split}"
            scenes.append((scene, split, [Camera(frame.stem, sequence.K, frame.T_w2c) for frame in frames]))
            jobs += [(replace(sequence, frames=[]), frame, root, scene) for frame in frames]
    map_jobs(bring, jobs, workers=workers, what="converting frames")
    for scene, split, cameras in scenes:
        write_cameras(root, scene, split, cameras)


def split_in_time(sequence: Sequence, validation_share: float, gap: int) -> dict[Split, list[Frame]]:
    """Return the first frames for training and the last for validation, ``gap`` frames apart.

    Raises:
        DataError: if there are fewer than two for training.
    """
    frames = sequence.frames
    last = max(2, round(len(frames) * validation_share))
    first = len(frames) - last - gap
    if first < 2:
        remedy = "lower the setting gap or give a longer sequence" if gap else "give a longer sequence"
        raise DataError(
            f"{sequence.folder} has {len(frames)} frames, too few for training, a gap of {gap} and {last} for "
            f"validation; {remedy}"
        )
    return {"train": frames[:first], "val": frames[-last:]}
