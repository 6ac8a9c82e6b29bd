"""MegaDepth with MINIMA's published renditions of it, MegaDepth-Syn: six modalities, each beside its photographs.

The renditions lie in ``<scene>/dense<k>/<modality>`` under the names of their photographs: JPEG, of events PNG.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from minima_core.acquire.sources import downloads, fetch_hub, source
from minima_core.acquire.transfer import require_space
from minima_core.data.datasets._megadepth import ALL_SCENES
from minima_core.data.datasets.megadepth import MegaDepth
from minima_core.errors import DataError
from minima_core.io.atomic import UNFINISHED
from minima_core.licences import join

# of scenes below a folder: the hub's, where Sketch has a level less than the others, and that of MINIMA's own checkout
LAYOUTS = (
    "train/{Modality}/MegaDepth_v1",
    "train/{Modality}",
    "{Modality}/MegaDepth_v1",
    "{Modality}",
    "train/{modality}/phoenix/S6/zl548/MegaDepth_v1",
    "{modality}/phoenix/S6/zl548/MegaDepth_v1",
)
Name = Literal["infrared", "depth", "event", "normal", "paint", "sketch"]
logger = logging.getLogger(__name__)


class MegaDepthSyn(MegaDepth):
    """Scenes of MegaDepth_v1 with their published renditions."""

    class Params(MegaDepth.Params):
        """Settings, ``dataset.megadepth_syn`` in params.yaml: those of ``megadepth``, and which renditions to bring."""

        renditions: list[Name]
        rendition_sources: list[str]  # folders in the layout of the hub or of MINIMA's checkout; [] for the hub

    licence = join([source("megadepth").licence, source("megadepth_syn").licence])

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring index, scenes and renditions under ``root``."""
        super().prepare(root, workers=workers)
        p = cast("MegaDepthSyn.Params", self.params)
        scenes = sorted(path.parent.parent.name for path in root.glob("*/dense0/imgs"))
        for modality in p.renditions:
            bring_renditions(root, modality, scenes, [Path(where) for where in p.rendition_sources])


def bring_renditions(root: Path, modality: Name, scenes: Sequence[str], folders: Sequence[Path]) -> None:
    """Copy the renditions of each scene beside its photographs, from the first folder that has them or from the hub.

    Raises:
        DataError: if nobody has those of any scene.
    """
    missing = [scene for scene in scenes if not any((root / scene).glob(f"dense*/{modality}"))]
    if not missing:
        return
    fetched = None
    if not folders:
        hub, fetched = source("megadepth_syn").hub, downloads() / f"MegaDepth-Syn-{modality}"
        assert hub is not None
        size = hub.about * len(missing) // (ALL_SCENES * len(get_args(Name)))
        what = f"the {modality} renditions of {len(missing)} scenes, brought and copied,"
        require_space({fetched: size, root: size}, what)
        places = [layout.format(Modality=modality.capitalize()) for layout in LAYOUTS[:2]]
        fetch_hub(hub, fetched, [f"{place}/{scene}/*" for place in places for scene in missing])
        folders = [fetched]
    for scene in missing:
        _copy(root / scene, modality, folders)
    still = [scene for scene in missing if not any((root / scene).glob(f"dense*/{modality}"))]
    if len(still) == len(scenes):
        raise DataError(
            f"no {modality} rendition of scene {still[0]} in {', '.join(map(str, folders))}, looked for "
            f"{LAYOUTS[0].format(Modality=modality.capitalize())}; see dataset.megadepth_syn.rendition_sources"
        )
    if fetched:
        shutil.rmtree(fetched)
    if still:
        logger.warning("there are no %s renditions of the scenes %s", modality, ", ".join(still))


def _copy(scene: Path, modality: Name, folders: Sequence[Path]) -> None:
    """Copy the renditions of those photographs of a scene that have one."""
    for dense in sorted(path for path in scene.glob("dense*") if (path / "imgs").is_dir()):
        found = _find(folders, modality, f"{scene.name}/{dense.name}/imgs")
        renditions = {path.stem: path for path in sorted(found.iterdir())} if found else {}
        photographs = {path.stem for path in (dense / "imgs").iterdir()}
        if not renditions.keys() & photographs:
            continue
        if lacking := len(photographs - renditions.keys()):
            logger.info("%s: %d of %d photographs have no %s rendition", dense, lacking, len(photographs), modality)
        building = dense / f".{modality}{UNFINISHED}"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        for stem in sorted(renditions.keys() & photographs):
            shutil.copyfile(renditions[stem], building / renditions[stem].name)
        building.replace(dense / modality)


def _find(folders: Sequence[Path], modality: Name, below: str) -> Path | None:
    names = (layout.format(Modality=modality.capitalize(), modality=modality) for layout in LAYOUTS)
    places = (folder / name / below for name in names for folder in folders)
    return next((place for place in places if place.is_dir()), None)
