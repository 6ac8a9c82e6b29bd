"""Licences of weights, engines and data: a name and whether everybody may use what it covers for anything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# those that let everybody use what they cover for anything; whatever is not listed is taken as not allowing it
FREE = frozenset(
    {
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0",
        "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "PDDL-1.0", "Unlicense",
        "CreativeML-OpenRAIL-M", "CreativeML-OpenRAIL++-M",  # for any trade; harmful uses, listed there, are ruled out
    }
)  # fmt: skip
_AND = " AND "
_RESTRICTS = re.compile(r"(?i)\bNC\b|non-?commercial|research|evaluation|unknown|unstated|no licence|all rights")


@dataclass(frozen=True)
class Licence:
    """Terms that something came under.

    Attributes:
        name: its SPDX name, or ``LicenseRef-`` and a name of ours for one that SPDX does not list.
        commercial: whether it allows commercial use.
        url: where its text stands, for one that SPDX does not list.
    """

    name: str
    commercial: bool
    url: str = ""

    def tags(self) -> dict[str, str]:
        """Return what a tracking server tags runs with whose results stand under it."""
        return {"licence": self.name, "commercial": str(self.commercial).lower()}


def named(name: str) -> Licence:
    """Return a licence that is known by its name, or one that a user wrote down; an unknown one allows nothing."""
    return Licence(name, allows_commercial_use(name))


def join(licences: Iterable[str]) -> str:
    """Return the licence of what stands under all of ``licences``; each is named once, one that is empty not at all."""
    return _AND.join(dict.fromkeys(part for licence in licences for part in licence.split(_AND) if part))


def combine(parts: Iterable[Licence]) -> Licence:
    """Return the licence of what was made from parts.

    It allows commercial use where every part does, and where each part's name is known to allow it.
    """
    known = list(parts)
    return Licence(
        join(part.name for part in known), all(p.commercial and allows_commercial_use(p.name) for p in known)
    )


def allows_commercial_use(licence: str) -> bool:
    """Say whether every part of a licence is free: parts stand between AND, semicolons or commas.

    A part may say of what it is the licence (``images: CC-BY-2.0``) and have a remark in brackets.
    """
    if _RESTRICTS.search(licence):
        return False
    parts = re.split(r"\bAND\b|[;,]", re.sub(r"\([^()]*\)", "", licence))
    return all(re.sub(r"^[\w ]+:", "", part.strip()).strip() in FREE for part in parts)


APACHE_2_0 = named("Apache-2.0")
BSD_3_CLAUSE = named("BSD-3-Clause")
MIT = named("MIT")
OPENRAIL_M = Licence("CreativeML-OpenRAIL-M", True, "https://huggingface.co/spaces/CompVis/stable-diffusion-license")
OPENRAIL_PP_M = Licence(
    "CreativeML-OpenRAIL++-M", True, "https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL"
)
CC_BY_NC_4_0 = Licence("CC-BY-NC-4.0", False)
SUPERPOINT = Licence(
    "LicenseRef-MagicLeap-SuperPoint",
    False,
    "https://github.com/magicleap/SuperPointPretrainedNetwork/blob/master/LICENSE",
)
DSINE = Licence("LicenseRef-Imperial-DSINE", False, "https://github.com/baegwangbin/DSINE/blob/main/LICENSE")
# the adapter's repository says Apache-2.0, but the pairs it was trained on may be used for research only
LLVIP_M3FD = Licence(
    "LicenseRef-MINIMA-infrared-research", False, "https://huggingface.co/lsxi77777/MINIMA (trained on LLVIP and M3FD)"
)
# likewise: its matchers, whose renditions were made by that adapter, a non-commercial depth network and DSINE
MINIMA = Licence(
    "LicenseRef-MINIMA-research", False, "https://github.com/LSXI7/MINIMA (Apache-2.0; trained on MegaDepth-Syn)"
)
# likewise: XoFTR's network first learnt from KAIST's visible and thermal pairs, for research as far as we know
XOFTR = Licence("LicenseRef-XoFTR-KAIST", False, "https://github.com/OnderT/XoFTR (Apache-2.0; pretrained on KAIST)")
UNSTATED = Licence("LicenseRef-unstated", False)
