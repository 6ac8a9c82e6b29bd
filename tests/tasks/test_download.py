"""The stage that brings raw scenes: continues after a kill, refuses in one line, works in a folder with a space."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_album import PHOTOS

from minima_core.errors import ConfigError, DataError
from minima_core.manifest import RawDataset
from tasks import download

ROOT = Path(download.__file__).resolve().parents[1]
SYNTHETIC = {
    "world": "train",
    "scenes": 1,
    "validation_scenes": 0,
    "views": 16,
    "size": [160, 120],
    "overlap": [0.1, 0.9],
    "max_pairs": 40,
}


def params(name: str = "photos", **changes) -> dict:
    return {"seed": 0, "dataset": {"name": name, "synthetic": SYNTHETIC | changes, "photos": PHOTOS | changes}}


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()
    }


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """Return an empty folder with a space in its name, the working directory, with an album of photos in it."""
    folder = tmp_path / "a check out"
    (folder / "album").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(8):
        small = rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "album" / f"{k}.png"), cv2.resize(small, (160, 128), interpolation=cv2.INTER_CUBIC))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    (folder / "params.yaml").write_text(yaml.safe_dump(params()))
    return folder


def run(out: str = "data/raw"):
    return download.main(download.DownloadArgs(out=Path(out), report=Path("r.json")))


def start(out: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tasks.download", "--out", out, "--report", "reports/download.json"]
    os.utime("params.yaml", (0, 0))  # a stage refuses parameters written in the second in which it starts
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_raw_folder_says_what_it_is(checkout):
    report = run()
    assert (report.dataset, report.licence, report.images) == ("photos", "CC0-1.0", 24)
    held = RawDataset.load(Path("data/raw"))
    assert (held.dataset, held.relation, held.licence) == ("photos", "homography", "CC0-1.0")
    assert not list(Path(".scratch/download").iterdir())


def test_second_run_writes_the_same_bytes(checkout):
    run("one")
    run("two")
    run("two")
    assert tree(Path("one")) == tree(Path("two"))


def test_unknown_name_is_answered_with_the_closest(checkout):
    (checkout / "params.yaml").write_text(yaml.safe_dump(params("photo")))
    with pytest.raises(ConfigError, match=r"unknown data set: 'photo'.*did you mean 'photos'"):
        run()


def test_misspelt_setting_is_named(checkout):
    (checkout / "params.yaml").write_text(yaml.safe_dump(params(roto=3)))
    with pytest.raises(ConfigError, match=r"'roto' is not in .*dataset\.photos"):
        run()


def test_damaged_photo_leaves_the_old_data_alone_and_exits_with_one_line(checkout):
    run()
    before = tree(Path("data/raw"))
    broken = checkout / "album" / "broken.jpg"
    broken.write_bytes(cv2.imencode(".jpg", np.zeros((90, 90, 3), np.uint8))[1].tobytes()[:-200])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        run()
    process = start("data/raw")
    message = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == 1
    assert [line for line in message if "broken.jpg" in line] == [message[-1]]
    assert message[-1].startswith("error: cannot read album/broken.jpg")
    assert tree(Path("data/raw")) == before


def test_unfinished_work_on_other_files_is_not_continued(checkout):
    from minima_core.data.datasets import photos

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        calls = []
        keep = photos._write_scene
        patch.setattr(photos, "_write_scene", lambda job: fail() if calls else calls.append(keep(job)))
        with pytest.raises(KeyboardInterrupt):
            run()
    (scratch,) = Path(".scratch/download").iterdir()
    assert list(scratch.rglob("*.jpg"))
    assert not Path("data/raw").exists()
    (checkout / "album" / "3.png").unlink()
    run()
    assert scratch.exists()  # other photos, other key
    run("undisturbed")
    assert tree(Path("data/raw")) == tree(Path("undisturbed"))


def test_killed_run_continues_and_ends_with_the_same_bytes(checkout):
    (checkout / "params.yaml").write_text(yaml.safe_dump(params("synthetic")))
    process = start("data/raw")
    for _ in range(9000):  # a loaded machine takes long to import
        if process.poll() is not None or len(list(checkout.glob(".scratch/download/*/*/dense0/imgs/0*.jpg"))) >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    kept = {path.name: path.stat().st_mtime_ns for path in checkout.glob(".scratch/download/*/*/dense0/imgs/0*.jpg")}
    assert 2 <= len(kept) < SYNTHETIC["views"], said
    assert not Path("data/raw").exists()
    run()
    done = {path.name: path.stat().st_mtime_ns for path in checkout.glob("data/raw/*/dense0/imgs/*.jpg")}
    assert len(done) == SYNTHETIC["views"]
    assert all(done[name] == changed for name, changed in kept.items())  # finished views were not made again
    run("undisturbed")
    assert tree(Path("data/raw")) == tree(Path("undisturbed"))
    attribution = json.loads(Path("data/raw/dataset.json").read_text())["attribution"]
    assert any("danielbuechele" in line for line in attribution)
