"""The code as an input: unfinished work is continued only by the code that began it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from minima_core.config import digest
from minima_core.manifest import file_sha256

CORE = Path(__file__).parent


@cache
def code_digest(*parts: str) -> str:
    """Return the sha256 of the named modules and packages of ``minima_core``, of all of it where none is named.

    A part is a path (``data/features.py``, ``training``). Whoever names parts names all that decide the result; naming
    none is coarse, and right where half-done work is cheap to do again.
    """
    chosen = [CORE / part for part in parts] or [CORE]
    assert all(path.exists() for path in chosen), f"no such code: {parts}"
    files = sorted({file for path in chosen for file in ([path] if path.is_file() else path.rglob("*.py"))})
    return digest({str(file.relative_to(CORE)): file_sha256(file) for file in files})
