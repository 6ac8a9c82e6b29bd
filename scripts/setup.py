"""Make `.venv` with the locked versions; a second run with the same lock does nothing.

Runs on the system's Python and uses the standard library only. pip's own configuration (index, certificate, wheel
folders) is honoured, for uv too, which does not read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
LOCK = ROOT / "requirements.lock"
STAMP = VENV / ".made-from"
TORCH_CPU = os.environ.get("MINIMA_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")


def main() -> None:
    """Bring `.venv` up to date."""
    key = wanted()
    if STAMP.is_file() and STAMP.read_text() == key:
        return
    print(f"setting up {VENV}: a minute or two", flush=True)
    STAMP.unlink(missing_ok=True)
    make_venv()
    install()
    STAMP.write_text(key)


def wanted() -> str:
    """Return what an environment is made from: the lock, the package's metadata, this Python, and the place."""
    parts = [LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def make_venv() -> None:
    """Make an empty environment, unless there is one of this Python that works here."""
    probe = "import pip, sys; print(sys.version)"
    if Path(PYTHON).exists():
        found = subprocess.run([PYTHON, "-c", probe], capture_output=True, text=True, check=False)
        if found.stdout.strip() == sys.version:
            return
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:  # Debian ships the module without what it needs
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit("error: this Python cannot make environments; on Debian run `apt install python3-venv`")


def install() -> None:
    """Install the locked versions with uv, which takes a fifth of pip's time; with pip where uv cannot do it."""
    pip, settings = [PYTHON, "-m", "pip", "install", "--quiet"], pip_settings()
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # on a terminal uv shows bars
    uv = [PYTHON, "-m", "uv", "pip", "install", *quiet, "--python", PYTHON]
    packages, itself = ["-r", str(LOCK)], ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run([*pip, locked("uv")], check=True)
        environment = os.environ | uv_settings(settings)
        if index := cpu_torch_index(settings):
            torch = ["--no-deps", "--default-index", index, locked("torch")]
            subprocess.run([*uv, *torch], check=True, env=environment)
        subprocess.run([*uv, *packages], check=True, env=environment)
        subprocess.run([*uv, *itself], check=True, env=environment)
        return
    print("uv could not install it all; pip tries, which takes longer", flush=True)
    try:
        if index := cpu_torch_index(settings):
            subprocess.run([*pip, "--no-deps", "--index-url", index, locked("torch")], check=True)
        subprocess.run([*pip, *packages], check=True)
        subprocess.run([*pip, *itself], check=True)
    except subprocess.CalledProcessError:
        sys.exit("error: the locked packages could not be installed; is the package index reachable?")


def locked(name: str) -> str:
    """Return the line of the lock that names a package's version."""
    found = re.search(rf"^{name}==\S+", LOCK.read_text(), re.MULTILINE)
    if not found:
        sys.exit(f"error: {LOCK.name} does not name {name}; make it again with `make lock`")
    return found[0]


def pip_settings() -> dict[str, str]:
    """Return pip's configuration from its files and the environment, the last of these first in rank."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        if found := re.fullmatch(r"(?:global|install|:env:)\.([\w-]+)='(.*)'", line):
            settings[found[1]] = found[2].replace("\\n", " ")
    return settings


def uv_settings(settings: dict[str, str]) -> dict[str, str]:
    """Return the environment that tells uv what pip is configured to do; what is set for uv itself stays."""
    given = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": settings.get("extra-index-url", ""),
        "UV_FIND_LINKS": ",".join(settings.get("find-links", "").split()),
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # as pip does: the versions are pinned
        "UV_HTTP_TIMEOUT": settings.get("default-timeout", "60"),
        "UV_PYTHON_DOWNLOADS": "never",
        "SSL_CERT_FILE": settings.get("cert", ""),
    }
    return {key: value for key, value in given.items() if value and not os.environ.get(key)}


def cpu_torch_index(settings: dict[str, str]) -> str | None:
    """Return the index with the CPU builds of torch, where they are wanted and no wheel folder has one already."""
    if shutil.which("nvidia-smi") or sys.platform != "linux":
        return None
    folders = [Path(folder.removeprefix("file://")) for folder in settings.get("find-links", "").split()]
    wheel = f"torch-{locked('torch').partition('==')[2]}+cpu-*.whl"
    if any(folder.is_dir() and list(folder.glob(wheel)) for folder in folders):
        return None
    try:
        with urllib.request.urlopen(f"{TORCH_CPU}/torch/", timeout=5):
            return TORCH_CPU
    except (OSError, ValueError):
        print(f"{TORCH_CPU} does not answer: torch comes from the package index, perhaps with gigabytes of CUDA")
        return None


if __name__ == "__main__":
    main()
