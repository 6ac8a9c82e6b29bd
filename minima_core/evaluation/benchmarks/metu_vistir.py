"""METU-VisTIR: visible against thermal, outdoors, with poses; both images are undistorted when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._files import read_lines
from minima_core.evaluation.benchmarks._part import ScenePart
from minima_core.evaluation.benchmarks._posed import PosedPair, read_index, relative_pose, truths
from minima_core.evaluation.benchmarks.base import Benchmark, Lens, PairList, PairTruth, Task, as_matrix
from minima_core.io.paths import inside

INDEX, LIST = "index/scene_info_test", "index/val_test_list/test_list.txt"
KEYS = ("image_paths", "intrinsics", "distortion_coefs", "poses", "pair_infos")
VISIBLE, THERMAL = 0, 1  # of the second axis


class MetuVistir(Benchmark):
    """Pairs (visible, thermal): a category an index file, a group a condition of the weather."""

    class Params(ScenePart):
        """Settings, ``benchmark.metu_vistir`` in params.yaml."""

        root: Path  # the folder that holds index/

    licence: ClassVar[str] = "CC-BY-NC-SA-4.0"
    task: ClassVar[Task] = "pose"
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        if any((self.params.root / INDEX).glob("*.npz")):
            return ""
        root = self.params.root
        return f"no {INDEX}/*.npz in {root}; `minima download metu_vistir --out {root}`"

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - nothing to write
        p, root = self.params, self.params.root
        pairs: list[PosedPair] = []
        lenses: dict[str, Lens] = {}
        for name in p.of_scenes(_names(root), _scene):
            read = p.some(list(_read(root / INDEX / f"{name}.npz")))
            pairs += [pair for pair, _ in read]
            lenses |= {image: lens for _, both in read for image, lens in both.items()}
        categories = list(dict.fromkeys(pair.category for pair in pairs))
        groups: dict[str, list[str]] = {}
        for category in categories:
            groups.setdefault(category.partition("_scene")[0], []).append(category)
        return PairList(
            task=self.task,
            protocol="",
            root=str(root),
            headline=categories,
            groups=groups,
            pairs=truths(root, pairs, workers=workers, what="metu_vistir", lenses=lenses),
            lenses=lenses,
        )

    @staticmethod
    def place(truth: PairTruth) -> str:
        """The scene, in whatever weather."""
        return _scene(truth.category)


def _scene(name: str) -> str:
    """Return the scene that an index file is about, as ``scene_1``; "" where its name does not say."""
    _, named, number = name.partition("_scene")
    return f"scene{number}" if named else ""


def _names(root: Path) -> list[str]:
    if (root / LIST).is_file():
        return [inside(line.split()[0].removesuffix(".npz"), root / LIST) for line in read_lines(root / LIST)]
    return sorted(path.stem for path in (root / INDEX).glob("*.npz"))


def _read(path: Path) -> Iterator[tuple[PosedPair, dict[str, Lens]]]:
    """Yield the pairs of one index file with the lenses of their images: the visible one of i, the thermal one of j."""
    images, K, bent, poses, pairs = read_index(path, KEYS).values()
    for entry in pairs:
        try:
            i, j = (int(k) for k in entry)
            if min(i, j) < 0:
                raise IndexError(f"pair {i}, {j}")
            image0, image1 = inside(images[i][VISIBLE], path), inside(images[j][THERMAL], path)
            lenses = {
                image: Lens(K=as_matrix(K[k][side]), distortion=[float(value) for value in np.ravel(bent[k][side])])
                for image, k, side in ((image0, i, VISIBLE), (image1, j, THERMAL))
            }
            T_0to1 = relative_pose(poses[i], poses[j])
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(f"{path} is no index of METU-VisTIR ({error}); get it again") from None
        name = f"{path.stem}/{Path(image0).stem}-{Path(image1).stem}"
        K0, K1 = (np.array(lens.K) for lens in lenses.values())
        yield PosedPair(name, path.stem, image0, image1, K0, K1, T_0to1), lenses
