"""What the flows ask of the graph, and what they are deployed as."""

import logging
from pathlib import Path

import pytest
import yaml

from flows import evaluate
from flows.pipeline import Stage, StageFailed, once
from minima_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    f"score@{k}-{model}-{b}"
    for k in ("lightglue", "loftr")
    for model in ("pretrained", "finetuned")
    for b in ("six", "mmim")
]


@pytest.fixture(autouse=True)
def graph(monkeypatch):
    monkeypatch.setattr(evaluate, "read_stages", lambda targets: [Stage("download"), *map(Stage, NAMES)])


def test_evaluation_takes_all_or_what_is_named():
    assert evaluate.targets([], []) == NAMES
    assert evaluate.targets(["loftr"], ["mmim"]) == ["score@loftr-pretrained-mmim", "score@loftr-finetuned-mmim"]


def test_evaluation_of_an_unknown_name_says_which_are_known():
    with pytest.raises(ConfigError, match=r"'mim' is not in dvc.yaml; did you mean 'mmim'\?"):
        evaluate.targets([], ["mim"])


def test_deployments_are_one_at_a_time_and_one_has_a_schedule():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {(d["entrypoint"].partition(":")[2], d["name"]) for d in deployments}
    assert names == {("retrain", "on-demand"), ("retrain", "nightly"), ("build_dataset", "on-demand")}
    assert all(d["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"} for d in deployments)
    assert [d["schedules"][0]["cron"] for d in deployments if "schedules" in d] == ["0 2 * * *"]


def test_a_stage_that_fails_ends_a_flow_run_as_a_command_with_one_line(monkeypatch):
    def flow() -> None:
        raise StageFailed("download: no host")

    monkeypatch.setattr(logging, "disable", lambda: None)
    with pytest.raises(SystemExit, match=r"^error: download: no host$"):
        once(flow)


@pytest.mark.parametrize("name", ["build_dataset", "train", "evaluate", "retrain"])
def test_every_flow_that_is_a_command_ends_so(name):
    main = (ROOT / "flows" / f"{name}.py").read_text(encoding="utf-8")
    assert "    once(" in main
