"""The stages fetch_benchmark, match and score, one after the other, on a benchmark of two pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import yaml

from minima_core.errors import ConfigError
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.scoring import Scores
from minima_core.io.images import write_image
from minima_core.manifest import BenchmarkManifest, ModelCard
from minima_core.models import create, save_model
from minima_core.random import rng
from tasks import fetch_benchmark, match, score
from tasks.reports import read_report

ROOT = Path(__file__).resolve().parents[2]
PARAMS = {"extractor": "xfeat", "long_side": 96, "max_keypoints": 64, "filter_threshold": 0.0}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A working directory with parameters, a model of random weights and the data of two pairs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    params = {
        "benchmark": {"mmim": {"subset": "full", "root": "mmim"}},
        "evaluation": {"mmim": {"protocol": "minima-v1", "sweep": None}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    folder = tmp_path / "mmim" / "RemoteSensing" / "SAR_Optical"
    folder.mkdir(parents=True)
    listed = {}
    for k in (1, 2):
        image = np.kron(rng(k, "image").integers(0, 255, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        scipy.io.savemat(folder / f"SO{k}.mat", {"I_fix": image, "I_move": image, "T": np.eye(3)})
        write_image(folder / f"SO{k}a.png", image)
        write_image(folder / f"SO{k}b.png", image)
        listed[f"group{k}"] = [f"SO{k}.mat", f"SO{k}a.png", f"SO{k}b.png"]
    (folder / "list.json").write_text(json.dumps(listed))
    torch.manual_seed(0)
    card = ModelCard(
        matcher="lightglue", stage="pretrained", params=PARAMS, weights_sha256="", licence="MIT", commercial=True
    )
    save_model(tmp_path / "model", create("lightglue", PARAMS, "test"), card)
    return tmp_path


def fetch():
    return fetch_benchmark.main(fetch_benchmark.FetchArgs(benchmark="mmim", out=Path("b"), report=Path("fetch.json")))


def predict(out: str = "p"):
    return match.main(
        match.MatchArgs(
            matcher="lightglue", model=Path("model"), benchmark=Path("b"), out=Path(out), report=Path("match.json")
        )
    )


def evaluate(out: str = "s"):
    return score.main(
        score.ScoreArgs(
            matcher="lightglue",
            model="pretrained",
            predictions=Path("p"),
            benchmark=Path("b"),
            out=Path(out),
            report=Path("score.json"),
        )
    )


def test_fetch_match_and_score_in_a_row(checkout, monkeypatch):
    monkeypatch.setattr(score, "record", lambda *_: None)
    assert fetch().categories == {"RemoteSensing/SAR_Optical": 2}
    assert predict().pairs == 2
    report = evaluate()
    assert report.pairs == 2
    assert set(report.metrics) == {"auc@3px", "auc@5px", "auc@10px"}
    assert read_report(checkout / "s" / score.REPORT) == report
    scores = Scores.load(checkout / "s")
    card = ModelCard.load(checkout / "model")
    assert scores.model == read_predictions(checkout / "p").origin.model == card.digest()
    assert not (checkout / ".scratch" / "match").exists() or not any((checkout / ".scratch" / "match").iterdir())


def test_a_sweep_in_the_parameters_stands_beside_the_figure_and_changes_nothing_else(checkout, monkeypatch):
    monkeypatch.setattr(score, "record", lambda *_: None)
    fetch()
    predict()
    evaluate("s")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["evaluation"]["mmim"]["sweep"] = {"thresholds": [1, 3], "seeds": [0]}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    evaluate("swept")
    plain, swept = Scores.load(Path("s")), Scores.load(Path("swept"))
    assert [(way.estimator, way.threshold) for way in swept.sweep] == [
        (name, at) for name in ("poselib", "opencv") for at in (1, 3)
    ]
    assert swept.model_copy(update={"sweep": []}) == plain
    own = next(way for way in swept.sweep if (way.estimator, way.threshold) == ("poselib", 1))
    assert set(own.metrics) == set(plain.metrics) and own.protocol_hash != plain.protocol_hash
    params["evaluation"]["mmim"]["sweep"] = {"thresholds": [0], "seeds": [0]}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(ConfigError, match=r"evaluation\.mmim\.sweep\.thresholds"):
        evaluate("s")


def test_outputs_are_the_same_bytes_the_second_time(checkout, monkeypatch):
    monkeypatch.setattr(score, "record", lambda *_: None)  # tested below; it takes seconds
    fetch()
    first = {path.name: path.read_bytes() for path in Path("b").iterdir()}
    fetch()
    assert first == {path.name: path.read_bytes() for path in Path("b").iterdir()}
    predict("p")
    predict("again")
    assert Path("p/predictions.h5").read_bytes() == Path("again/predictions.h5").read_bytes()
    evaluate("s")
    evaluate("again_s")
    for name in (Scores.FILE, score.REPORT):
        assert (Path("s") / name).read_bytes() == (Path("again_s") / name).read_bytes()


def test_absent_data_are_skipped_all_the_way(checkout):
    (checkout / "mmim").rename(checkout / "elsewhere")
    assert "dvc repro -f -s fetch_benchmark@mmim" in fetch().skipped
    assert predict().skipped
    report = evaluate()
    assert report.skipped == BenchmarkManifest.load(checkout / "b").skipped
    assert report.metrics == {}
    assert not (checkout / "mlflow.db").exists()  # nothing to record


def test_scores_are_recorded_with_their_benchmark_in_the_name(checkout):
    fetch()
    predict()
    evaluate()
    from mlflow import MlflowClient

    from tasks.tracking import experiment, tracking_uri

    client = MlflowClient(tracking_uri())
    [run] = client.search_runs([experiment(client)])
    assert "mmim/auc_at_3px" in run.data.metrics
    assert "mmim/RemoteSensing/SAR_Optical/auc_at_10px" in run.data.metrics
    assert run.data.tags["parent_card"] == ModelCard.load(checkout / "model").digest()


def test_an_unknown_benchmark_is_named(checkout):
    with pytest.raises(ConfigError, match="did you mean 'mmim'"):
        fetch_benchmark.main(fetch_benchmark.FetchArgs(benchmark="mmin", out=Path("b"), report=Path("r.json")))


def test_a_missing_model_is_one_line_and_exit_1(checkout):
    fetch()
    command = [sys.executable, "-m", "tasks.match", "--matcher", "lightglue", "--model", "nowhere"]
    command += ["--benchmark", "b", "--out", "p", "--report", "r.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.startswith("error: no nowhere/card.json")
    assert len(done.stderr.splitlines()) == 1
    assert not Path("p").exists()
