"""The stage as a process: killed in the middle it ends like an undisturbed run; mistakes are one line and exit 1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from minima_core.config import read_value
from minima_core.data.index import Scene, write_scene
from minima_core.errors import ConfigError
from minima_core.io.images import write_image
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest, folder_digest, sealed
from minima_core.synthesis.runner import synthesise_index
from tasks.reports import SynthesisReport, read_report
from tasks.synthesise import SynthesiseArgs, main

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 40


@pytest.fixture
def checkout(tmp_path):
    """A folder like a checkout: params.yaml, raw images, an index."""
    folder = tmp_path / "check out"  # a path with a space in it
    (folder / "data").mkdir(parents=True)
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    photo = cv2.resize(data.astronaut(), (320, 300), interpolation=cv2.INTER_AREA)
    images = [f"town/imgs/{i:03d}.png" for i in range(IMAGES)]
    for i, name in enumerate(images):
        write_image(folder / "data/raw" / name, photo[i : i + 240, i : i + 256])
    n = len(images)
    scene = Scene(
        "town",
        "train",
        images,
        [""] * n,
        [""] * n,
        np.tile([256, 240], (n, 1)),
        np.full((n, 3, 3), np.nan),
        np.full((n, 4, 4), np.nan),
        np.zeros((0, 2), int),
        np.zeros(0),
    )
    write_scene(folder / "data/index", scene)
    entry = SceneEntry(name="town", split="train", images=n, pairs=0, digest="0")
    manifest = SceneManifest(dataset="t", licence="CC0-1.0", relation="homography", raw="data/raw", scenes=[entry])
    manifest.save(folder / "data/index")
    return folder


def start(checkout: Path, modality: str, workers: int) -> subprocess.Popen[str]:
    command = (
        f"-m tasks.synthesise --modality {modality} --raw data/raw --index data/index "
        f"--out data/modalities/{modality} --report reports/synthesise/{modality}.json"
    )
    return subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MINIMA_WORKERS": str(workers), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def digests(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def undisturbed(checkout: Path, modality: str) -> dict[str, str]:
    """What one process makes without being killed."""
    synthesise_index(
        checkout / "data/index",
        checkout / "data/raw",
        checkout / "undisturbed",
        modality=modality,
        settings=read_value(f"synthesis.{modality}", ROOT / "params.yaml"),
        gate=read_value("gate", ROOT / "params.yaml"),
        seed=int(read_value("seed", ROOT / "params.yaml")),
        workers=1,
        scratch=checkout / "other scratch",
    )
    return digests(checkout / "undisturbed")


def parts(checkout: Path) -> list[Path]:
    """Return the parts that are whole: a kill between a part and its seal leaves one to be made again."""
    return sorted(path for path in (checkout / ".scratch").glob("synthesise/*/parts/*/[0-9]*.h5") if sealed(path))


def test_killed_in_the_middle_it_continues_and_ends_bit_identical(checkout):
    process = start(checkout, "paint", workers=2)
    deadline = time.monotonic() + 60
    while not parts(checkout):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts(checkout)}
    assert 0 < len(kept) < IMAGES // 8
    assert not (checkout / "data/modalities").exists() and not (checkout / "reports").exists()

    process = start(checkout, "paint", workers=1)
    seen: dict[Path, int] = {}
    while process.poll() is None:  # the kept parts are not made again: nobody writes them before they go
        for path in kept:
            try:
                seen[path] = path.stat().st_mtime_ns
            except FileNotFoundError:
                break
        time.sleep(0.01)
    assert process.returncode == 0, process.stderr.read()
    assert seen == kept
    assert digests(checkout / "data/modalities/paint") == undisturbed(checkout, "paint")
    assert not list((checkout / ".scratch/synthesise").iterdir())

    report = read_report(checkout / "reports/synthesise/paint.json")
    assert isinstance(report, SynthesisReport)
    assert (report.status, report.images, report.failed) == ("complete", IMAGES, 0)


def test_a_damaged_image_is_one_line_and_exit_1(checkout):
    bad = checkout / "data/raw/town/imgs/030.png"
    bad.write_bytes(bad.read_bytes()[:900])
    process = start(checkout, "event", 1)
    _, error = process.communicate(timeout=100)
    last = error.strip().splitlines()[-1]
    assert process.returncode == 1
    assert last.startswith("error: ") and "town/imgs/030.png" in last and "replace or remove" in last
    assert "Traceback" not in error
    assert len(parts(checkout)) == 3  # what was whole before it is kept
    assert not (checkout / "data/modalities").exists() and not (checkout / "reports").exists()


def arguments(modality: str) -> SynthesiseArgs:
    line = f"--modality {modality} --raw data/raw --index data/index --out data/modalities/{modality} --report r.json"
    return SynthesiseArgs.parse(line.split())


def test_a_modality_that_the_data_cannot_give_is_no_failure(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    report = main(arguments("depth"))
    assert (report.status, report.images) == ("unavailable", 0) and "no depth" in report.reason
    assert ModalityManifest.load(checkout / "data/modalities/depth").status == "unavailable"


def test_the_report_knows_the_output_by_its_bytes(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    first = main(arguments("event"))
    again = main(arguments("event"))
    assert (first.engine, first.status, first.images) == ("closed_form", "complete", IMAGES)
    assert first.digest == again.digest
    (checkout / "data/modalities/event/town.h5").write_bytes(b"")
    assert folder_digest(checkout / "data/modalities/event") != first.digest


def test_a_misspelt_modality_is_refused_with_the_closest(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    with pytest.raises(ConfigError, match="did you mean 'paint'"):
        main(arguments("paints"))
