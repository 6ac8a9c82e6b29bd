"""What the flows ask of the graph, and what they are deployed as."""

import logging
import runpy
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


class Toy:
    """A flow that fails, without Prefect."""

    name = "toy"

    @staticmethod
    def fn(part: list[str] | None = None) -> None:
        """Fail."""

    def __call__(self, part: list[str] | None = None) -> None:
        raise StageFailed(f"{part}: no host")


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


def test_a_stage_that_fails_ends_a_flow_run_as_a_command_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(logging, "disable", lambda: None)
    monkeypatch.setattr("sys.argv", ["", "--part", "a", "--part", "b"])
    with pytest.raises(SystemExit) as caught:
        once(Toy())
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: ['a', 'b']: no host\n"


def test_a_server_that_does_not_answer_is_told_before_the_run(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [""])
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(SystemExit):
        once(Toy())
    assert capsys.readouterr().err == (
        "error: no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api; start it, or unset the variable\n"
    )


@pytest.mark.parametrize("name", ["build_dataset", "train", "evaluate", "retrain"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # it has been imported
def test_every_flow_is_a_command_whose_mistakes_are_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", "--matchings", "x"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"flows.{name}", run_name="__main__")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("error: No such option: --matchings") and told.count("\n") == 1
    assert told.endswith(f"See `python -m flows.{name} --help`.\n")


def test_prefect_logs_a_mistake_of_ours_without_a_traceback(caplog):
    for error in (StageFailed("no host"), ValueError("a fault")):
        try:
            raise error
        except (StageFailed, ValueError):
            logging.getLogger("prefect.flow_runs").exception("failed")
    assert [record.exc_info is None for record in caplog.records] == [True, False]
