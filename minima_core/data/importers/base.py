"""What an importer is: it reads pairs of images in somebody else's form and gives scenes of the one index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from minima_core.config import Section
from minima_core.data.index import Scene
from minima_core.errors import DataError
from minima_core.manifest import Split
from minima_core.plugins import Plugins
from minima_core.random import rng

RAW = "raw"  # folder of the copies in an index that brings its own
MODALITIES = "modalities"  # folder of the shards that come with an index, beside it
EXAMPLES = 5  # names that stand beside the count of what was left out
MEGADEPTH_1500 = frozenset({"0015", "0022"})
IMC_2021 = frozenset({"0008", "0019", "0021", "0024", "0025", "0032", "0063", "1589"})

# The files that name the parts of each split: beside LoFTR's index, and beside glue-factory's. RoMa's loader knows its
# scenes by heart; ours are listed as glue-factory's are.
SPLIT_LISTS: dict[Split, str] = {s: f"trainvaltest_list/{s}_list.txt" for s in ("train", "val", "test")}
SCENE_LISTS: dict[Split, str] = {"train": "train_scenes.txt", "val": "valid_scenes.txt", "test": "test_scenes.txt"}


@dataclass
class Skipped:
    """What an import leaves out: by reason how many, and the names of the first few."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, names: Iterable[str], count: int | None = None) -> None:
        """Count ``names``, or ``count`` things of which these are some, under a reason."""
        listed = list(names)
        count = len(listed) if count is None else count
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            held = self.first.setdefault(reason, [])
            held += listed[: EXAMPLES - len(held)]

    def summary(self) -> str:
        """Return it in one line: how many for which reason, each with an example."""
        return "; ".join(
            f"{n} x {reason}, for example {self.first[reason][0]}" for reason, n in sorted(self.counts.items())
        )

    def merge(self, other: Skipped) -> None:
        """Add what another part of the import left out."""
        for reason, count in other.counts.items():
            self.add(reason, other.first[reason], count)


class Settings(Section):
    """Settings that every importer has; the command line gives others with ``--set name=value``."""

    licence: str = "unknown"  # of the images, as the user knows it
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of the scenes


class Importer(ABC):
    """A form in which others keep pairs of images.

    Args:
        source: the folder in that form.
        params: settings.
        images: where image paths start from, for forms that only name images; None where they lie below ``source``.
        seed: of what is drawn.
    """

    class Params(Settings):
        """Settings of the importer."""

    relation: ClassVar[Literal["depth", "homography"]] = "depth"

    def __init__(self, source: Path, params: Settings, *, images: Path | None = None, seed: int = 0) -> None:
        if not source.is_dir():
            raise DataError(f"no folder {source}; give the folder to import with --source")
        if images is not None and not images.is_dir():
            raise DataError(f"no folder {images}; give the folder that image paths start from with --images")
        self.source = source
        self.params = params
        self.licence = params.licence
        self.images = images
        self.seed = seed
        self.left_out = Skipped()  # by prepare

    @property
    def root(self) -> Path | None:
        """Where the images of the index lie if they stay where they are; None if ``prepare`` brings copies."""
        return None

    def prepare(self, out: Path, *, workers: int = 1) -> None:  # noqa: B027, most forms are read in place
        """Bring images and depth maps under ``out/raw``, and whatever else comes with them under ``out``."""

    @abstractmethod
    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes.

        Raises:
            DataError: if there is nothing in this form in the source.
        """

    @abstractmethod
    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:
        """Return a scene, or None where nothing of it can be used; what is left out is told to ``skipped``.

        Raises:
            DataError: naming the file that is damaged or refused.
        """

    def finish(self, out: Path) -> None:  # noqa: B027, most have nothing to add
        """Write what lies beside the index and names its digest."""


IMPORTERS: Plugins[Importer] = Plugins("minima_core.data.importers", Importer, "form")  # type: ignore[type-abstract]


def splits(
    names: Iterable[str], share: float, *, seed: int, listed: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """Return each scene's split: test for those that benchmarks use, for the others what ``listed`` says.

    Where that names none for validation, ``share`` of those that it does not name as test are drawn, at least one.
    """
    held: dict[str, Split] = dict.fromkeys(MEGADEPTH_1500 | IMC_2021, "test")
    # LoFTR's own list for validation names held scenes alone
    listed = {n: split for n, split in (listed or {}).items() if n not in held}
    known = dict(listed) if "val" in listed.values() else {n: split for n, split in listed.items() if split == "test"}
    known |= held
    free = sorted(set(names) - known.keys())
    drawn = {name for name in free if rng(seed, name, "split").random() < share}
    if share and not drawn and len(free) > 1 and "val" not in known.values():
        drawn = {free[int(rng(seed, "split").integers(len(free)))]}
    return {name: known.get(name, "val" if name in drawn else "train") for name in names}


def inside(root: Path, path: Path) -> Path:
    """Return ``path`` if it lies below ``root`` once links are followed.

    Raises:
        DataError: if it leads out of it.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{path} is refused: it leads out of {root}, to {path.resolve()}; put the file itself there, or name the "
            "folder it lies in"
        )
    return path
