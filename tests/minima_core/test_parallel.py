"""Jobs in worker processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from minima_core.errors import DataError, MinimaError
from minima_core.parallel import Cluster, map_jobs

ROOT = Path(__file__).parents[2]


def square(n):
    return n * n


def fails_at_three(n: int) -> int:
    if n == 3:
        raise DataError("three.png is damaged")
    return n


def dies(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert map_jobs(square, range(7), workers=workers, what="squares") == [0, 1, 4, 9, 16, 25, 36]
    assert map_jobs(square, [], workers=workers, what="nothing") == []


def test_tensors_leave_no_thread_behind_beside_which_nothing_can_be_forked():
    before = threading.active_count()
    made = map_jobs(square, [torch.full((64,), n) for n in range(4)], workers=2, what="squares")
    assert [int(found[0]) for found in made] == [0, 1, 4, 9]
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised(workers):
    with pytest.raises(DataError, match=r"three\.png is damaged"):
        map_jobs(fails_at_three, range(6), workers=workers, what="jobs")


def test_a_killed_worker_is_one_line():
    with pytest.raises(MinimaError, match="a worker process was killed"):
        map_jobs(dies, range(6), workers=2, what="jobs")


def test_an_absent_ray_cluster_is_one_line():
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'minima-pipeline[ray]'")
    with pytest.raises(MinimaError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        Cluster("127.0.0.1:1", workers=1).map_jobs(square, [1], gpus=0, what="jobs")


def test_a_cluster_that_turns_away_may_want_a_token(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:6399")  # whatever the reason is

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(
        MinimaError, match=r"at 127\.0\.0\.1:6399: Failed .*, set RAY_AUTH_MODE=token; see execution\.yaml$"
    ):
        Cluster("127.0.0.1:6399", workers=1).begin()


@pytest.mark.slow
def test_a_node_of_a_cluster_is_lost_and_no_result(tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'minima-pipeline[ray]'")
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "two_nodes", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *_, line = done.stdout.splitlines()
    assert line == f"{[n * n for n in range(12)]} 2 False"  # two nodes worked, one is gone


def test_a_machine_too_busy_to_start_ray_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray")

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nSee the logs.")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(MinimaError, match=r"^no Ray cluster at this machine: The current node timed out .*yaml$"):
        Cluster("", workers=1).begin()
