"""A training that is killed with SIGKILL and run again ends with the bits of an undisturbed one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import train_once
from plane_world import PlaneWorld, save_parent

ROOT = Path(__file__).parents[3]


def start(world, out):
    out.mkdir(exist_ok=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    command = [sys.executable, "-m", "train_once", str(world), str(out)]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )


def kill_when(process, condition, limit=120):
    end = time.monotonic() + limit
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_killed_twice_and_resumed(tmp_path):
    world = tmp_path / "world"
    PlaneWorld(world).make()
    save_parent(world / "parent")
    out = tmp_path / "b"
    kill_when(start(world, out), lambda: len(list(out.glob("features/*/*.h5"))) >= 3)  # between two parts of features
    kept = {path: path.stat().st_mtime_ns for path in out.glob("features/*/*.h5")}
    kill_when(start(world, out), lambda: list(out.glob("scratch/*/step-0000000[4-8]")))
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())  # no part was made twice
    (tmp_path / "a").mkdir()
    for undisturbed_and_resumed in (tmp_path / "a", out):
        train_once.main(world, undisturbed_and_resumed)
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("a", "b"))
    assert first == second
    assert first["curves"]["train/positive"][0][1] > 0  # there was something to learn
    assert len(first["curves"]["val/loss"]) == 4
