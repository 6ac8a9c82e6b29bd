"""MegaDepth-1500-Syn: the pairs of MegaDepth-1500 with one side generated in another modality, in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks import _megadepth
from minima_core.evaluation.benchmarks._posed import PosedPair, truths
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task


class MegaDepth1500Syn(Benchmark):
    """Each pair twice a modality: (RGB 0, other 1) and (other 0, RGB 1); a group a modality, as the paper's columns."""

    class Params(_megadepth.Where):
        """Settings, ``benchmark.megadepth_1500_syn`` in params.yaml."""

        synthetic: Path  # holds <modality>/Undistorted_SfM/<scene>/images
        modalities: list[str]

    licence: ClassVar[str] = (
        "images: MegaDepth (photographs of Flickr, each under terms of its own); generated images: Apache-2.0; "
        "pairs: Apache-2.0"
    )
    task: ClassVar[Task] = "pose"
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        if reason := _megadepth.absent(self.params):
            return reason
        wanted = [self.params.synthetic / name / _megadepth.IMAGES for name in self.params.modalities]
        if missing := [str(path) for path in wanted if not path.is_dir()]:
            return f"no {missing[0]}; bring MegaDepth-1500-syn there or shorten modalities"
        return ""

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - nothing to write
        parts = _megadepth.parts(self.params)
        pairs = {part: list(_megadepth.read_part(self.params.index, part)) for part in parts}
        root = _megadepth.image_root(self.params.root).absolute()
        synthetic = self.params.synthetic.absolute()
        above = next(path for path in (root, *root.parents) if synthetic.is_relative_to(path))
        rgb, other = (str(path.relative_to(above)) for path in (root, synthetic))
        both = [
            side
            for modality in self.params.modalities
            for part in parts
            for side in self.params.some(list(_directions(pairs[part], modality, above, rgb, f"{other}/{modality}")))
        ]
        groups = {name: [f"{name}/{part}" for part in parts] for name in self.params.modalities}
        return PairList(
            task=self.task,
            protocol="",
            root=str(above),
            headline=[category for group in groups.values() for category in group],
            groups=groups,
            pairs=truths(above, both, workers=workers, what="megadepth_1500_syn"),
        )

    @staticmethod
    def place(truth: PairTruth) -> str:
        """The scene."""
        return _megadepth.scene(truth.category.rpartition("/")[2])

    @staticmethod
    def sensor(reference: str) -> str:
        """The folder of the modality, or of the photographs."""
        return reference.partition(_megadepth.IMAGES)[0]


def _directions(pairs: Iterable[PosedPair], modality: str, root: Path, rgb: str, other: str) -> Iterator[PosedPair]:
    """Yield each pair with the modality on side 1, then on side 0."""
    for pair in pairs:
        images = pair.image0, pair.image1
        plain = [str(Path(rgb, image)) for image in images]
        generated = [_generated(root, other, image) for image in images]
        category = f"{modality}/{pair.category}"
        name = f"{modality}/{pair.name}"
        yield replace(pair, name=f"{name}-1", category=category, image0=plain[0], image1=generated[1])
        yield replace(pair, name=f"{name}-0", category=category, image0=generated[0], image1=plain[1])


def _generated(root: Path, folder: str, image: str) -> str:
    """Return where the generated image of ``image`` lies: upstream puts png for jpg anywhere in the path."""
    names = [str(Path(folder, image.replace("jpg", "png"))), str(Path(folder, image).with_suffix(".png"))]
    for name in names:
        if (root / name).is_file():
            return name
    raise DataError(f"no {root / names[0]}; bring the whole of MegaDepth-1500-syn")
