"""The bridge on a small graph: what runs, in which order, and what a failure, an edit or a kill leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.pipeline import StageFailed, changed_stages, read_stages, reproduce
from minima_core.errors import ConfigError

pytestmark = [pytest.mark.xdist_group("prefect")]
ALL = ["index", "make@left", "make@right", "join"]


def test_stages_come_upstream_first_with_their_meta(toy):
    stages = {stage.name: stage for stage in read_stages()}
    assert list(stages) == ALL
    assert stages["join"].upstream == ("make@left", "make@right")
    assert stages["make@left"].meta.tags == ("gpu",) and stages["make@left"].meta.timeout == 60
    assert stages["index"].report == Path("out/index.json")


def test_targets_bring_what_they_need(toy):
    assert [stage.name for stage in read_stages(["make@left"])] == ["index", "make@left"]
    assert [stage.name for stage in read_stages(["make"])] == ["index", "make@left", "make@right"]
    with pytest.raises(ConfigError, match="did you mean 'join'"):
        read_stages(["jion"])


def test_meta_that_is_not_known_is_refused(toy):
    graph = toy.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("timeout: 60", "timeot: 60"))
    with pytest.raises(ConfigError, match=r"'timeot' is not in dvc.yaml: make@left: meta; did you mean 'timeout'"):
        read_stages()


@pytest.mark.parametrize(
    ("kinds", "said"), [("left", "lists in brackets"), ("[left, {", r"'params.yaml', YAML file structure is corrupted")]
)
def test_a_graph_that_dvc_cannot_read_is_told_in_one_line(toy, kinds, said):
    graph = toy.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("[left, right]", '"${kinds}"'))
    toy.params(seed=0, left=0, right=0, kinds=kinds)
    with pytest.raises(ConfigError, match=said):
        read_stages()


def test_both_doors_leave_the_same_state(toy, prefect_server):
    toy.behave("left", "8")  # a busy machine may start one seconds after the other
    toy.behave("right", "8")
    first = reproduce()
    assert all(outcome.ran for outcome in first.values())
    assert first["join"].report.dataset == "join"
    log = toy.log()
    assert log.index("left begins") < log.index("right ends") and log.index("right begins") < log.index("left ends")
    assert changed_stages() == set()
    assert toy.dvc("repro").stdout.strip().endswith("Data and pipelines are up to date.")

    toy.forget()
    assert not any(outcome.ran for outcome in reproduce().values()) and toy.log() == []

    toy.params(seed=0, left=1, right=0)
    toy.dvc("repro")
    assert [line for line in toy.log() if "ends" in line] == ["left ends", "join ends"]
    assert not any(outcome.ran for outcome in reproduce().values())

    toy.forget()
    toy.params(seed=0, left=1, right=1)
    assert {name for name, outcome in reproduce().items() if outcome.ran} == {"make@right", "join"}
    assert json.loads(toy.dvc("status", "--json").stdout) == {}

    toy.params(seed=0, left=1, right=0)  # as before: DVC takes the result out of its run cache, and join must follow
    assert {name for name, outcome in reproduce().items() if outcome.ran} == {"make@right", "join"}
    assert json.loads(toy.dvc("status", "--json").stdout) == {}


def test_a_failure_stops_what_needs_it_and_nothing_else(toy, prefect_server):
    toy.behave("left", "fail")
    toy.behave("right", "1")
    with pytest.raises(StageFailed, match="make@left: no ground to stand on; find some; not run: join"):
        reproduce()
    assert "right ends" in toy.log() and "join begins" not in toy.log()
    assert changed_stages() == {"make@left", "join"}

    toy.behave("left", "0")
    assert {name for name, outcome in reproduce().items() if outcome.ran} == {"make@left", "join"}


def test_a_stage_that_takes_too_long_is_stopped(toy, prefect_server):
    graph = toy.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("timeout: 60", "timeout: 6"))
    toy.behave("left", "600")
    begin = time.monotonic()
    with pytest.raises(StageFailed, match="make@left: took longer than 6 s"):
        reproduce(["make@left"])
    assert time.monotonic() - begin < 300  # it would take 600
    assert not _alive(toy)


def test_a_killed_flow_leaves_no_stage_behind_and_the_next_one_finishes(toy, prefect_server):
    from prefect.settings import PREFECT_API_URL

    toy.behave("left", "600")
    code = "from flows.pipeline import reproduce; reproduce()"
    # dash stays when it has started a command, unless told to make way
    env = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value(), "SHELL": "/bin/sh"}
    flow = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: "left begins" in toy.log())
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    _until(lambda: not _alive(toy), seen=lambda: _alive(toy))
    toy.behave("left", "0")
    assert "make@left" in {name for name, outcome in reproduce().items() if outcome.ran}
    assert changed_stages() == set()


def _alive(toy):
    """Return the command lines of the processes that work in the toy's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = (process / "cwd").readlink() == toy.root and int(process.name) != os.getpid()
        except OSError:
            continue
        if here:
            found.append((process / "cmdline").read_bytes())
    return found


def _until(condition, seconds=120, seen=lambda: ""):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {seen()}"
        time.sleep(0.1)
