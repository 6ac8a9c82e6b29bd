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
from minima_core.acquire.transfer import held, require_space
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
        for modality in p.renditions:
            bring_renditions(root, modality, _parts(root), [Path(where) for where in p.rendition_sources])


def bring_renditions(root: Path, modality: Name, parts: Sequence[Path], folders: Sequence[Path]) -> None:
    """Copy the renditions of each part of a scene beside its photographs, from the first folder or the hub.

    Args:
        root: the raw folder.
        modality: which renditions.
        parts: the folders ``root/<scene>/dense<k>`` that are to have them.
        folders: where to look for them, in order; none for the hub.

    Raises:
        DataError: if nobody has those of any part, the hub cannot be reached, or the disk is too small.
    """
    missing = _without(modality, parts)
    if not missing:
        return
    fetched = None
    names = [part.relative_to(root).as_posix() for part in missing]
    if not folders:
        hub, fetched = source("megadepth_syn").hub, downloads() / f"MegaDepth-Syn-{modality}"
        assert hub is not None
        places = [layout.format(Modality=modality.capitalize()) for layout in LAYOUTS[:2]]
        asked = [f"{place}/{name}" for place in places for name in names]
        begun = held(fetched / ".cache", *(fetched / folder for folder in asked))  # the hub's client begins in .cache
        _require_space(root, modality, missing, fetched, begun)
        fetch_hub(hub, fetched, [f"{folder}/*" for folder in asked])
        folders = [fetched]
    for part in missing:
        _copy(part, modality, folders)
    still = _without(modality, missing)
    if len(still) == len(parts):
        raise DataError(
            f"no {modality} rendition of {names[0]} in {', '.join(map(str, folders))}, looked for "
            f"{LAYOUTS[0].format(Modality=modality.capitalize())}; see dataset.megadepth_syn.rendition_sources"
        )
    if fetched and fetched.is_dir():  # made by the first file that the hub has
        shutil.rmtree(fetched)
    if still:
        lacking = ", ".join(part.relative_to(root).as_posix() for part in still)
        logger.warning("there are no %s renditions of %s", modality, lacking)


def _require_space(root: Path, modality: Name, parts: Sequence[Path], fetched: Path, begun: int) -> None:
    """Say how much disk renditions take that are brought to ``fetched``, where ``begun`` bytes are already, and copied.

    Nobody says how large a scene's are: each scene counts as its share of all, less the renditions of its other parts.

    Raises:
        DataError: if it is not there.
    """
    hub = source("megadepth_syn").hub
    assert hub is not None
    scenes = {part.parent for part in parts}
    done = held(*(folder for scene in scenes for folder in scene.glob(f"dense*/{modality}")))
    size = hub.about * len(scenes) // (ALL_SCENES * len(get_args(Name))) - done
    copied = held(*(_building(part, modality) for part in parts))
    require_space(
        {fetched: max(0, size - begun), root: max(0, size - copied)},
        f"the {modality} renditions of {len(scenes)} scenes, brought and copied,",
    )


def _parts(root: Path) -> list[Path]:
    """Return the folders ``<scene>/dense<k>`` that hold photographs; some scenes have none in the first of theirs."""
    images = (path for path in root.glob("[!.]*/dense*/imgs") if any(path.iterdir()))
    return sorted(path.parent for path in images)


def _without(modality: Name, parts: Sequence[Path]) -> list[Path]:
    return [part for part in parts if not (part / modality).is_dir()]


def _copy(part: Path, modality: Name, folders: Sequence[Path]) -> None:
    """Copy the renditions of those photographs of a part that have one."""
    found = _find(folders, modality, f"{part.parent.name}/{part.name}/imgs")
    renditions = {path.stem: path for path in sorted(found.iterdir())} if found else {}
    photographs = {path.stem for path in (part / "imgs").iterdir()}
    if not renditions.keys() & photographs:
        return
    if lacking := len(photographs - renditions.keys()):
        logger.info("%s: %d of %d photographs have no %s rendition", part, lacking, len(photographs), modality)
    building = _building(part, modality)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    for stem in sorted(renditions.keys() & photographs):
        shutil.copyfile(renditions[stem], building / renditions[stem].name)
    building.replace(part / modality)


def _building(part: Path, modality: Name) -> Path:
    return part / f".{modality}{UNFINISHED}"


def _find(folders: Sequence[Path], modality: Name, below: str) -> Path | None:
    names = (layout.format(Modality=modality.capitalize(), modality=modality) for layout in LAYOUTS)
    places = (folder / name / below for name in names for folder in folders)
    return next((place for place in places if place.is_dir()), None)
