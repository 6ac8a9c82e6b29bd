"""A wrong name in params.yaml, as `dvc repro` says it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from minima_core.config import load_params
from minima_core.errors import ConfigError
from tasks.check import CheckArgs, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        params = load_params(ROOT / "params.yaml") | changes
        Path("params.yaml").write_text(yaml.safe_dump(params))

    return write


ARGS = CheckArgs(out=Path("checked.json"), report=Path("check.json"))


def test_known_names_give_the_same_file_whatever_they_are(write, tmp_path):
    write()
    main(ARGS)
    first = (tmp_path / "checked.json").read_bytes()
    write(modalities=["event"])
    main(ARGS)
    assert (tmp_path / "checked.json").read_bytes() == first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalities": ["infrard"]}, "unknown modality: 'infrard'.*did you mean 'infrared'"),
        ({"matchers": ["lightglu"]}, "unknown matcher: 'lightglu'.*did you mean 'lightglue'"),
        ({"benchmarks": ["mmin"]}, "unknown benchmark: 'mmin'.*did you mean 'mmim'"),
        ({"promotion": {"benchmarks": {"mmin": "auc@10px"}}}, "unknown benchmark: 'mmin'.*did you mean 'mmim'"),
        ({"promotion": {"benchmarks": None}}, "promotion.benchmarks must hold names and their settings, it says None"),
        ({"matcher": 5}, "matcher must hold names and their settings, it says 5"),
        ({"dataset": {"name": "synthetics"}}, "unknown data set: 'synthetics'.*did you mean 'synthetic'"),
        ({"modalities": []}, "modalities must name at least one"),
        ({"modalities": ["event", "event"]}, "modalities names one twice"),
        ({"licence_policy": "permisive"}, "did you mean 'permissive'"),
        ({"modalities": "infrared"}, "modalities must be a list in brackets, it says 'infrared'"),
        ({"matchers": ["sift"]}, "'sift', which has no settings in training.pretrain.* are eloftr, lightglue"),
        ({"seed": "abc"}, "seed must be a whole number, not 'abc'"),
        ({"gaet": 3}, "'gaet' is not in params.yaml; did you mean 'gate'"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_right_one(write, changes, words):
    write(**changes)
    with pytest.raises(ConfigError, match=words):
        main(ARGS)


@pytest.mark.parametrize("key", ["modalities", "matchers", "benchmarks"])
def test_dvc_repro_says_the_line_before_it_misses_a_folder(write, tmp_path, key):
    for package in ("tasks", "minima_core"):
        shutil.copytree(ROOT / package, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write(**{key: ["infrard"]})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
    for command in ("init --no-scm -q", "repro"):
        dvc = [sys.executable, "-m", "dvc", *command.split()]
        done = subprocess.run(dvc, capture_output=True, text=True, check=False, env=environment)
    lines = done.stderr.splitlines()
    assert done.returncode != 0
    assert lines[0].startswith("error: unknown") and "'infrard'" in lines[0]
    assert "failed to reproduce 'check'" in lines[1] and "exited with 1" in lines[1]
    assert not (tmp_path / "data").exists()
