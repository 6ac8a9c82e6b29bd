"""Posed depth frames in the layouts of 7-Scenes, TUM RGB-D and ScanNet, or in plain folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field

from minima_core.data.datasets._frames import sequences
from minima_core.data.datasets._layout import CAMERAS, posed_scene, scene_names
from minima_core.data.datasets.rgbd import bring_sequences, split_in_time
from minima_core.data.importers.base import RAW, Importer, Settings, Skipped, inside
from minima_core.data.index import Scene


class RgbdFrames(Importer):
    """Sequences of frames, each split in time; brings copies without distortion."""

    class Params(Settings):
        """Settings; ``validation_share`` is of a sequence's frames, its last ones."""

        validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
        gap: Annotated[int, Field(ge=0)] = 5  # frames left out between training and validation
        every: Annotated[int, Field(ge=1)] = 1  # take every such frame; videos have thirty a second
        overlap: tuple[float, float] = (0.1, 0.9)  # a pair's overlap lies in (low, high]
        max_pairs: Annotated[int, Field(ge=1)] = 600  # a scene

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("RgbdFrames.Params", self.params)

    def prepare(self, out: Path, *, workers: int = 1) -> None:
        """Convert all frames."""
        p = self.settings
        found = sequences(self.source, setting="give the folder of the frames with --source", every=p.every)
        for sequence in found:
            for frame in sequence.frames:
                inside(self.source, frame.colour)
                inside(self.source, frame.depth)
            self.left_out.add("frame without depth or pose", [f"{sequence.name}: {name}" for name in sequence.lost])
            taken = split_in_time(sequence, p.validation_share, p.gap)
            between = sequence.frames[len(taken["train"]) : -len(taken["val"])]
            self.left_out.add(
                "frame in the gap between training and validation", [str(frame.colour) for frame in between]
            )
        bring_sequences(found, out / RAW, validation_share=p.validation_share, gap=p.gap, workers=workers)

    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes: two of each sequence."""
        return scene_names(out / RAW, CAMERAS)

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:  # noqa: ARG002
        """Return a scene with the pairs whose views overlap."""
        p = self.settings
        return posed_scene(out / RAW, name, overlap=p.overlap, max_pairs=p.max_pairs, seed=self.seed, workers=workers)
