"""The real dvc.yaml on a world of two small scenes: killed, finished, changed, through both doors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

SMALL = {
    "modalities": ["event", "sketch"],
    "benchmarks": ["synthetic_six"],
    "dataset.synthetic": {"scenes": 1, "validation_scenes": 1, "views": 6, "size": [160, 120], "max_pairs": 20},
    "benchmark.synthetic_six": {"scenes": 1, "views": 4, "size": [160, 120], "pairs": 2},
    "matcher.lightglue": {"long_side": 160, "max_keypoints": 128},
    "training.finetune.lightglue.demo": {
        "steps": 4,
        "batch": 2,
        "max_keypoints": 64,
        "validation_samples": 4,
        "validate_every": 2,
        "checkpoint_every": 2,
    },
    "training.finetune.lightglue.demo.schedule": {"warmup": 1},
    "training.finetune.lightglue.demo.pairs": {"per_scene": 6, "repeats": 1},
    "validation": {"judged": 0.0},  # images this small hold too little structure to judge
    "promotion.benchmarks": {"synthetic_six": "auc@10"},
}
# Every process of a stage notes which values of params.yaml it looks up.
RECORDER = """
import os, sys
if "DVC_STAGE" in os.environ:
    sys.path.insert(0, os.getcwd())
    import minima_core.config as config
    plain = config.lookup
    def lookup(params, name):
        with open(".lookups", "a") as file:
            file.write(os.environ["DVC_STAGE"] + " " + name + "\\n")
        return plain(params, name)
    config.lookup = lookup
    sys.path.pop(0)
"""
DOWNSTREAM_OF_SKETCH = {
    "check",  # reads the settings of every modality; what it writes stays the same, so nothing follows from it
    *("synthesise@sketch", "validate", "pretrain@lightglue", "finetune@lightglue"),
    *("match@lightglue-finetuned-synthetic_six", "score@lightglue-finetuned-synthetic_six", "summarise"),
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the checkout, with a space in its path and everything in it made small."""
    root = tmp_path / "a checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / "dvc.lock").unlink(missing_ok=True)
    params = OmegaConf.load(root / "params.yaml")
    for name, values in SMALL.items():
        OmegaConf.update(params, name, values, merge=name != "promotion.benchmarks")
    OmegaConf.save(params, root / "params.yaml")
    recorder = tmp_path / "recorder"
    recorder.mkdir()
    (recorder / "sitecustomize.py").write_text(RECORDER)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(recorder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "A copy")
    return root


def git(*command):
    subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e@x", *command], check=True)


def dvc(*command):
    done = subprocess.run([sys.executable, "-m", "dvc", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def retrain():
    """Run the flow as a user does, in a process of its own; returns it and where its output goes."""
    from prefect.settings import PREFECT_API_URL

    env = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    with Path("flow.log").open("w") as log:
        return subprocess.Popen([sys.executable, "-m", "flows.retrain"], env=env, stdout=log, stderr=subprocess.STDOUT)


def finished_flow():
    """Run the flow to its end and return the state of each stage."""
    flow = retrain()
    assert flow.wait(400) == 0, Path("flow.log").read_text()[-4000:]
    states = {}
    for line in Path("flow.log").read_text().splitlines():
        if "| Task run '" in line and "Finished in state" in line:
            name, _, state = line.partition("Task run '")[2].partition("' - Finished in state ")
            states[name] = state.partition("(")[0]
    return {name: state for name, state in states.items() if " " not in name}


def test_the_whole_graph(checkout, prefect_server):
    flow = retrain()
    until(lambda: Path("data/index").exists(), flow)  # in the middle of synthesis
    flow.send_signal(signal.SIGKILL)
    flow.wait()

    states = finished_flow()
    assert "Cached" in {states["download"], states["index"]} and set(states.values()) <= {"Completed", "Cached"}
    assert dvc("status").strip() == "Data and pipelines are up to date."
    assert "Running stage" not in dvc("repro")
    assert Path("reports/summary/report.html").stat().st_size > 1000

    params = Path("params.yaml")
    params.write_text(params.read_text().replace("sharpness: 9.0", "sharpness: 8.0", 1))
    ran = {line.split("'")[1] for line in dvc("repro").splitlines() if line.startswith("Running stage ")}
    assert "synthesise@sketch" in ran and ran <= DOWNSTREAM_OF_SKETCH
    assert set(finished_flow().values()) == {"Cached"}

    lineage(checkout)
    undeclared(checkout)


def until(condition, process):
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None and time.monotonic() < end, Path("flow.log").read_text()[-4000:]
        time.sleep(0.1)


def lineage(checkout):
    """Check that both fine-tuned models are registered once, below the runs that made them and their parents."""
    from tasks.tracking import connect, find_run

    client = connect()
    versions = client.search_model_versions("name = 'minima-lightglue'")
    assert len(versions) == 2
    card = json.loads((checkout / "models/finetuned/lightglue/card.json").read_text())
    newest = max(versions, key=lambda version: int(version.version))
    assert json.loads(newest.tags["decision"])["votes"][0]["benchmark"] == "synthetic_six"
    trained = client.get_run(newest.run_id)
    assert trained.data.tags["card_digest"] == newest.tags["card_digest"]
    assert trained.data.tags["parent_card"] == card["parent"]
    pretrained = client.get_run(trained.data.tags["mlflow.parentRunId"])
    assert pretrained.data.tags["card_digest"] == card["parent"]
    assert {d.dataset.name for d in trained.inputs.dataset_inputs} >= {"data/index", "data/certificate"}
    score = find_run(client, stage="score@lightglue-finetuned-synthetic_six")
    assert score.data.tags["mlflow.parentRunId"] == newest.run_id


def undeclared(checkout):
    """Check that no stage looked up a value of params.yaml that it does not declare."""
    stages = yaml.safe_load((checkout / "dvc.lock").read_text())["stages"]
    seen = {tuple(line.split()) for line in (checkout / ".lookups").read_text().splitlines()}
    assert len({stage for stage, _ in seen}) > 8
    for address, name in seen:
        stage = address.removeprefix("dvc.yaml:")
        declared = stages[stage].get("params", {}).get("params.yaml", {})
        covered = any(name == key or name.startswith(f"{key}.") for key in declared)
        assert covered, f"{stage} reads {name} and declares {sorted(declared)}"
