"""Licences of what is made from several things: all of them together, and whether they let everybody use it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# those that let everybody use what they cover for anything; whatever is not listed is taken as not allowing it
FREE = frozenset(
    {
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "CC0-1.0", "CC-BY-2.0", "CC-BY-3.0",
        "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "PDDL-1.0", "Unlicense",
    }
)  # fmt: skip
_AND = " AND "
_RESTRICTS = re.compile(r"(?i)\bNC\b|non-?commercial|research|evaluation|unknown|unstated|no licence|all rights")


def join(licences: Iterable[str]) -> str:
    """Return the licence of what stands under all of ``licences``; each is named once, one that is empty not at all."""
    return _AND.join(dict.fromkeys(part for licence in licences for part in licence.split(_AND) if part))


def combine(parts: Iterable[tuple[str, bool]]) -> tuple[str, bool]:
    """Return the licence of what was made from parts, and whether it may be used commercially.

    Args:
        parts: of each: its licence, and whether its owner says that commercial use is allowed. A licence that
            ``allows_commercial_use`` does not know counts as not allowing it.
    """
    known = list(parts)
    return join(licence for licence, _ in known), all(said and allows_commercial_use(name) for name, said in known)


def allows_commercial_use(licence: str) -> bool:
    """Say whether every part of a licence is free: parts stand between AND, semicolons or commas.

    A part may say of what it is the licence (``images: CC-BY-2.0``) and have a remark in brackets.
    """
    if _RESTRICTS.search(licence):
        return False
    parts = re.split(r"\bAND\b|[;,]", re.sub(r"\([^()]*\)", "", licence))
    return all(re.sub(r"^[\w ]+:", "", part.strip()).strip() in FREE for part in parts)
