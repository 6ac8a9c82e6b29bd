"""MegaDepth as it is downloaded: the tree of MegaDepth_v1 and, beside it, the index of whichever matcher is there.

MegaDepth_v1 itself has images and depth maps but no poses; those come with the index. Its own images are taken, not
the undistorted ones that an index names: MINIMA trains on them (spec/datasets.md sections 1 and 3).
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from minima_core.data.importers._records import Legacy, LegacySettings
from minima_core.data.importers.base import IMPORTERS, Importer, Skipped
from minima_core.data.index import Scene
from minima_core.errors import DataError

Form = Literal["loftr", "glue_factory", "roma"]
FILES: dict[Form, str] = {"loftr": r".+_[0-9.]+_[0-9.]+\.npz", "glue_factory": r"[^_]+\.npz", "roma": r"[^_]+\.npy"}
PLACES: dict[Form, tuple[str, ...]] = {  # as the archives unpack; MINIMA's rewritten copies sort behind
    "loftr": ("index/scene_info_0.1_0.7*", "megadepth_indices/scene_info_0.1_0.7*", "scene_info_0.1_0.7*"),
    "glue_factory": ("scene_info*", "index/scene_info*"),
    "roma": ("prep_scene_info*", "pre_scene_info*", "index/prep_scene_info*"),
}


class Megadepth(Importer):
    """Images and depth of MegaDepth_v1 under the poses and pairs of an index."""

    class Params(LegacySettings):
        """Settings; ``index`` says whose, where there are several."""

        prefer_imgs: bool = True
        index: Literal["auto", "loftr", "glue_factory", "roma"] = "auto"

    @cached_property
    def _index(self) -> Legacy:
        asked = cast("Megadepth.Params", self.params).index
        for form in FILES if asked == "auto" else [asked]:
            for folder in (folder for place in PLACES[form] for folder in sorted(self.source.glob(place))):
                if folder.is_dir() and any(re.fullmatch(FILES[form], path.name) for path in folder.iterdir()):
                    plugin = cast("type[Legacy]", IMPORTERS.get(form))
                    settings = self.params.model_dump(exclude={"index"})
                    found = plugin(folder, plugin.Params(**settings), images=self.images, seed=self.seed)
                    found.home = self.source
                    return found
        looked = ", ".join(place for form, places in PLACES.items() if asked in {"auto", form} for place in places)
        raise DataError(
            f"no index in {self.source} (looked for {looked}), and MegaDepth_v1 has no poses; unpack "
            "megadepth_indices.tar (LoFTR), scene_info.tar.gz (glue-factory) or prep_scene_info.tar (RoMa) there, or "
            "import SfM models with --from colmap"
        )

    @property
    def root(self) -> Path | None:
        """The folder that the image paths start from."""
        return self._index.root

    def names(self, out: Path) -> list[str]:
        """Return the names of the scenes."""
        return self._index.names(out)

    def scene(self, out: Path, name: str, skipped: Skipped, *, workers: int = 1) -> Scene | None:
        """Return the images and pairs that the index lists."""
        return self._index.scene(out, name, skipped, workers=workers)
