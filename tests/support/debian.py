"""Debian packages, made on the spot."""

from __future__ import annotations

import io
import lzma
import tarfile


def deb(files: dict[str, bytes]) -> bytes:
    """Return a package that holds ``files``."""
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(tar(files))}
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        for name, content in parts.items()
    )


def tar(files: dict[str, bytes]) -> bytes:
    """Return a tar archive that holds ``files``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
