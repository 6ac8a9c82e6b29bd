"""Two processes train as one would: the same curve, half of the samples each, one of them writing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
import train_once
import yaml
from line_matcher import main, run
from plane_world import PlaneWorld, plain, save_data_set, save_parent
from refiner_settings import REFINER
from view_learner import main as learn
from view_learner import run as run_views

from minima_core.models import read_model
from minima_core.training.distributed import start_on_every_gpu

ROOT = Path(__file__).parents[3]


def run_on_two(*command, folder=None):
    """Run a module of tests/support as both processes of a group; they have to end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    common = {"PYTHONPATH": path, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", *map(str, command)]
    ranks = [
        subprocess.Popen(command, env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank}, cwd=folder)
        for rank in "01"
    ]
    assert [process.wait(100) for process in ranks] == [0, 0]


def test_two_processes_are_one(tmp_path):
    batch = 5  # does not divide by two: gradients count by samples
    alone = tmp_path / "alone"
    alone.mkdir()
    main(alone, batch)
    one = json.loads((alone / "0.json").read_text())
    run_on_two("line_matcher", tmp_path, batch)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for name in ("train/loss", "val/loss", "val/a"):
        assert [s for s, _ in first["curves"][name]] == [s for s, _ in one["curves"][name]]
        assert [v for _, v in first["curves"][name]] == pytest.approx([v for _, v in one["curves"][name]], rel=1e-4)
    assert first["weights"] == second["weights"] == pytest.approx(one["weights"], rel=1e-4)
    assert first["curves"] == second["curves"]
    assert first["read"] + second["read"] == one["read"]
    _, again = run(tmp_path / "scratch", batch=batch, micro_batch=2)  # one process takes up what two have done
    assert again.final["val/loss"] == pytest.approx(one["curves"]["val/loss"][-1][1], rel=1e-4)
    assert [p.name for p in sorted((tmp_path / "scratch").glob("step-*"))] == ["step-00000028", "step-00000030"]


def test_two_processes_share_the_pairs_of_drawn_views(tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    learn(alone)
    one = json.loads((alone / "0.json").read_text())
    run_on_two("view_learner", tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["pairs"] == 30 and (first["pairs"], second["pairs"]) == (18, 12)  # of six steps of five
    assert first["curves"] == second["curves"] and first["weights"] == second["weights"]
    assert first["weights"] == pytest.approx(one["weights"], rel=1e-4)
    for name in ("train/loss", "val/loss", "val/off"):
        assert first["curves"][name] == [[step, pytest.approx(value, rel=1e-4)] for step, value in one["curves"][name]]
    assert one["curves"]["val/loss"][-1][1] < one["curves"]["val/loss"][0][1]
    _, again = run_views(tmp_path / "scratch", steps=8)  # one process goes on where two have been
    assert [step for step, _ in again.curves["val/loss"]] == [0, 3, 6, 8]


@pytest.mark.slow
def test_two_processes_train_a_network_as_one_would(tmp_path):
    """LightGlue, whose features the leader alone computes; its pairs are padded otherwise, one by one."""
    world = tmp_path / "world"
    PlaneWorld(world).make()
    save_parent(world / "parent")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train_once.main(world, tmp_path / "one")
    run_on_two("train_once", world, tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "result.json").read_text())["curves"] for name in ("one", "two"))
    assert one.keys() == two.keys() and one["train/positive"][0][1] > 0
    for name in ("train/loss", "val/loss"):
        assert two[name] == [[step, pytest.approx(value, rel=1e-4)] for step, value in one[name]]


@pytest.mark.slow
def test_a_stage_on_albums_of_two_processes_writes_one_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    save_data_set(tmp_path / "data" / "walls", ["Ada"])
    save_parent(tmp_path / "parent")
    settings = plain(REFINER) | {"view": [96, 96], "batch": 3, "micro_batch": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": 0, "refiner_training": settings}))
    given = ("--parent", "parent", "--data", "data", "--out", "model", "--report", "r.json")
    run_on_two("tasks.train_refiner", *given, folder=tmp_path)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["steps"] == REFINER["steps"] and report["skipped_steps"] == 0
    assert read_model(tmp_path / "model")[0].refiner is not None
    assert not list((tmp_path / ".scratch").glob("train_refiner/*"))  # the leader has cleared it
    assert len(mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])) == 1


def test_a_stage_starts_itself_on_every_gpu_but_once(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda program, command: started.append(command))
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--out", "x"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    start_on_every_gpu("tasks.finetune", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    start_on_every_gpu("tasks.finetune", "cpu")
    assert started == []
    start_on_every_gpu("tasks.finetune", "cuda")
    assert "--nproc-per-node=4" in started[0] and started[0][-4:] == ["-m", "tasks.finetune", "--out", "x"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    start_on_every_gpu("tasks.finetune", "cuda")
    assert len(started) == 1
