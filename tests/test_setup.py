"""The set-up script's decisions; installing itself is what `.ci/run` shows."""

import contextlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup():
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_told_what_pip_is_configured_to_do(setup, monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    told = setup.uv_settings(
        {
            "index-url": "https://mirror/simple",
            "extra-index-url": "https://a https://b",
            "find-links": "/w /x",
            "cert": "/c",
        }
    )
    assert (told["UV_DEFAULT_INDEX"], told["UV_INDEX"]) == ("https://mirror/simple", "https://a https://b")
    assert (told["UV_FIND_LINKS"], told["SSL_CERT_FILE"]) == ("/w,/x", "/c")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine")
    assert "UV_DEFAULT_INDEX" not in setup.uv_settings({"index-url": "https://mirror/simple"})


def test_a_wheel_folder_with_a_cpu_build_needs_no_other_index(setup, tmp_path, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup, "TORCH_CPU", (tmp_path / "index").as_uri())  # an index that does not answer
    assert setup.cpu_torch_index({}) is None  # nothing there: the package index has to do
    monkeypatch.setattr(setup.urllib.request, "urlopen", lambda url, timeout: contextlib.nullcontext())
    assert setup.cpu_torch_index({}) == setup.TORCH_CPU
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    assert setup.cpu_torch_index({"find-links": str(tmp_path)}) is None
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert setup.cpu_torch_index({}) is None  # a GPU wants the other build


def test_the_lock_pins_what_must_be_pinned(setup):
    assert setup.locked("torch").startswith("torch==") and "+" not in setup.locked("torch")
    assert setup.locked("uv").startswith("uv==")
    lock = setup.LOCK.read_text()
    assert "\nopencv-python==" not in lock and "\nnvidia-" not in lock
    with pytest.raises(SystemExit, match="does not name nonsense"):
        setup.locked("nonsense")


@pytest.mark.parametrize("python", ["", "/nowhere/python3", "false"])
def test_a_missing_python_is_one_line(python):
    command = ["make", "setup", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr.startswith("error: Python 3.11 or newer is needed")


def test_make_explains_itself():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"demo", "test", "server", "worker"} <= {line.split()[0] for line in done.stdout.splitlines()}
    assert sys.version_info >= (3, 11)
