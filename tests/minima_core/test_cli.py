from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from minima_core import cli
from minima_core import models as real_models
from minima_core.errors import ConfigError
from minima_core.evaluation import plotting
from minima_core.io.images import read_image, write_image
from minima_core.licences import CC_BY_NC_4_0
from minima_core.types import Matches

MMIM = Path(__file__).resolve().parents[3] / "shared/data/mmim"


class Identity:
    """Matches every pixel of a grid with itself."""

    licence = "MIT"
    sparse = True

    @property
    def matcher(self):
        return self

    def match(self, image0, image1, *, max_keypoints=None, long_side=None, any_rotation=False):
        grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)) * 4
        grid = grid[: max_keypoints or len(grid)]
        return Matches(grid, grid.clone(), torch.ones(len(grid)))


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Stand in for published weights, which would be fetched."""

    def load_matcher(name: str, device: str = "cpu") -> Identity:
        if name != "identity":
            raise ConfigError(f"unknown model: {name}")
        return Identity()

    module = types.ModuleType("minima_core.models")
    module.load_matcher = load_matcher
    monkeypatch.setitem(sys.modules, "minima_core.models", module)


@pytest.fixture
def images(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path in paths:
        write_image(path, np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8))
    return str(paths[0]), str(paths[1])


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(a) for a in argv])
    return int(end.value.code or 0)


def fails(capsys, *argv: object) -> str:
    """Run what must fail: exit code 1 and exactly one line on stderr, which is returned."""
    assert run(*argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_match_writes_json(images, tmp_path):
    out = tmp_path / "new folder" / "m.json"
    assert run("match", *images, "--model", "identity", "--out", out, "--max-keypoints", 7) == 0
    written = json.loads(out.read_text())
    assert written["mkpts0"] == written["mkpts1"]
    assert len(written["scores"]) == 7
    assert (written["image0"], written["image1"]) == images


def test_match_writes_h5_and_a_picture(images, tmp_path):
    out, viz = tmp_path / "m.h5", tmp_path / "m.png"
    assert run("match", *images, "--model", "identity", "--out", out, "--viz", viz) == 0
    with h5py.File(out) as file:
        assert file["mkpts0"].shape == (25, 2)
        assert file.attrs["model"] == "identity"
    assert read_image(viz).shape[1] > 64


def test_a_picture_says_how_many_matches_it_shows_and_has_one_height(images, tmp_path, capsys, monkeypatch):
    out, viz = tmp_path / "m.json", tmp_path / "m.png"
    options = ["--model", "identity", "--out", out, "--viz", viz]
    assert run("match", *images, *options) == 0
    assert capsys.readouterr().out == f"25 matches in {out}, drawn in {viz}\n"
    monkeypatch.setattr(plotting, "LIMIT", 7)
    write_image(Path(images[1]), np.zeros((48, 16, 3), np.uint8))
    assert run("match", *images, *options) == 0
    assert capsys.readouterr().out == f"25 matches in {out}, 7 of them drawn in {viz}\n"
    assert read_image(viz).shape == (48, 64 + plotting.GAP + 16, 3)
    write_image(Path(images[1]), np.zeros((2160, 16, 3), np.uint8))
    assert run("match", *images, *options) == 0
    assert read_image(viz).shape == (1080, 1440 + plotting.GAP + 8, 3)
    write_image(Path(images[0]), np.zeros((2160, 32, 3), np.uint8))
    assert run("match", *images, *options) == 0
    assert read_image(viz).shape == (1080, 16 + plotting.GAP + 8, 3)  # equal heights too: lines are a pixel wide


def test_a_number_of_keypoints_that_takes_without_end_is_warned_of(images, tmp_path, caplog):
    options = ["--model", "identity", "--out", tmp_path / "m.json", "--max-keypoints"]
    assert run("match", *images, *options, 8192) == 0
    assert not caplog.messages
    assert run("match", *images, *options, 50000) == 0
    assert "takes up to 596 times the time and memory of 2048" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--out": "m.txt"}, "--out must end in .json or .h5"),
        ({"--out": "OUT/a.png"}, "--out must end in .json or .h5"),
        ({"--out": "OUT"}, "--out must end in"),
        ({"--viz": "OUT/a.png"}, "is also read or written"),
        ({"--viz": "OUT/m.gif"}, "--viz must end in .png"),
        ({"--max-keypoints": "0"}, "--max-keypoints must be at least 1"),
        ({"--max-keypoints": "many"}, "--max-keypoints"),
        ({"--model": "nobody"}, "unknown model: nobody"),
        ({"--device": "tpu"}, "--device must be cpu, cuda or auto"),
        ({"--out": "OUT/a.png/m.json"}, "cannot write into"),
        ({"--what": "x"}, "--what"),
    ],
)
def test_bad_options_of_match_are_one_line(images, tmp_path, capsys, change, message):
    options = {"--model": "identity", "--out": str(tmp_path / "m.json"), **change}
    argv = [part.replace("OUT", str(tmp_path)) for item in options.items() for part in item]
    assert message in fails(capsys, "match", *images, *argv)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_truncated_image_is_named(images, tmp_path, capsys):
    path = Path(images[1])
    path.write_bytes(path.read_bytes()[:200])
    assert "b.png" in fails(capsys, "match", *images, "--model", "identity", "--out", tmp_path / "m.json")


def test_a_missing_image_is_named(images, tmp_path, capsys):
    message = fails(capsys, "match", images[0], "nowhere.jpg", "--model", "identity", "--out", tmp_path / "m.json")
    assert "no file nowhere.jpg" in message


def test_a_folder_in_the_place_of_an_image_is_named(images, tmp_path, capsys):
    message = fails(capsys, "match", images[0], tmp_path, "--model", "identity", "--out", tmp_path / "m.json")
    assert f"{tmp_path} is not a file; give the path of an image" in message


def test_without_arguments_it_explains_itself(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["minima"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and "synthesise" in capsys.readouterr().out


def test_an_unknown_command_is_one_line(capsys):
    assert "no such command" in fails(capsys, "mach").lower()


def test_evaluate_writes_exactly_what_is_promised(tmp_path, capsys):
    if not MMIM.is_dir():
        pytest.skip(f"no real multi-modal pairs at {MMIM}")
    out = tmp_path / "r.json"
    argv = ["--model", "identity", "--benchmark", "mmim", "--root", MMIM, "--protocol", "minima-v1", "--out", out]
    assert run("evaluate", *argv) == 0
    first = json.loads(out.read_text())
    promised = {"benchmark", "protocol", "protocol_hash", "model", "metrics", "categories", "pairs"}
    assert set(first) == promised | {
        "groups",
        "headline",
        "data_digest",
        "subset",
        "seed",
        "licence",
        "intervals",
        "floor",
        "sweep",
    }
    assert list(first["metrics"]) == ["auc@10px", "auc@3px", "auc@5px"]
    assert {pair["category"] for pair in first["pairs"]} == set(first["categories"])
    assert {"Medical", "RemoteSensing"} <= set(first["groups"])
    assert first["licence"].startswith("MIT AND none stated")
    assert set(first["pairs"][0]) == {"name", "category", "error", "matches", "inliers", "confidence", "failure"}
    # averages are over categories, each the same
    groups = [v["auc@3px"] for k, v in first["categories"].items() if "/" in k and not k.startswith("Computer")]
    assert first["metrics"]["auc@3px"] == pytest.approx(np.mean(groups))
    assert run("evaluate", *argv, "--max-keypoints", 3, "--subset", "smoke") == 0
    second = json.loads(out.read_text())
    assert second["protocol_hash"] != first["protocol_hash"]
    assert (first["subset"], second["subset"]) == ("", "smoke")
    assert len(second["pairs"]) == 2 * len(second["categories"]) < len(first["pairs"])
    assert "mmim (subset smoke): " in capsys.readouterr().out
    assert {pair["failure"] for pair in second["pairs"]} == {"too few matches (3 of 4)"}
    assert {pair["error"] for pair in second["pairs"]} == {None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--benchmark": "mmin"}, "did you mean 'mmim'"),
        ({"--root": "nowhere"}, "no folder nowhere"),
        ({"--root": "."}, "no list.json"),
        ({"--protocol": "minima-v9"}, "unknown protocol"),
        ({"--out": "r.csv"}, "--out must end in .json"),
        ({"--long-side": "8"}, "long_side must be at least 64"),
        ({"--subset": "tiny"}, "benchmark.mmim.subset"),
    ],
)
def test_bad_options_of_evaluate_are_one_line(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    options = {"--model": "identity", "--benchmark": "mmim", "--root": ".", "--out": "r.json", **change}
    assert message in fails(capsys, "evaluate", *(part for item in options.items() for part in item))
    assert not any(tmp_path.iterdir())


def test_data_that_are_not_there_are_told_of_once_and_by_the_option(tmp_path, capsys, caplog):
    words = ["--model", "identity", "--root", tmp_path, "--out", tmp_path / "r.json", "--benchmark"]
    for benchmark, remedy in (("mmim", "put .* there"), ("dsec", "`minima download dsec_subset --out .*`")):
        told = fails(capsys, "evaluate", *words, benchmark)
        assert re.search(rf"; {remedy} or give another --root$", told)
        assert "params.yaml" not in told and "dvc" not in told
    assert not caplog.messages


def test_score_without_predictions_names_what_makes_them(tmp_path, capsys):
    words = ["--predictions", tmp_path, "--benchmark", "mmim", "--root", tmp_path, "--out", tmp_path / "s.json"]
    assert "predictions.h5; make it with `minima evaluate --keep`, or" in fails(capsys, "score", *words)


def test_synthesise_refuses_to_write_over_the_originals(images, tmp_path, capsys):
    message = fails(capsys, "synthesise", "--modality", "event", "--input", tmp_path, "--out", tmp_path)
    assert "where the originals lie" in message


def test_synthesise_names_an_input_that_is_not_there(tmp_path, capsys):
    out = tmp_path / "out"
    assert "no nowhere" in fails(capsys, "synthesise", "--modality", "event", "--input", "nowhere", "--out", out)


def test_synthesise_says_whether_its_images_may_be_sold(images, tmp_path, capsys, monkeypatch):
    command = ["synthesise", "--modality", "sketch", "--input", str(images[0]), "--out", str(tmp_path / "out")]
    assert run(*command) == 0 and capsys.readouterr().out.endswith("licence of the engine Apache-2.0\n")
    monkeypatch.setattr("minima_core.synthesis.sketch.xdog.XDoG.licence", CC_BY_NC_4_0)
    assert run(*command, "--licence", "any") == 0
    assert "licence of the engine CC-BY-NC-4.0, which does not allow commercial use" in capsys.readouterr().out


def test_synthesise_refuses_what_everybody_may_not_use_before_anything_is_loaded(images, tmp_path, capsys, monkeypatch):
    loaded = []
    monkeypatch.setattr("minima_core.synthesis.normal.dsine.DsineNormal.setup", lambda *_: loaded.append(1))
    command = ["synthesise", "--modality", "normal", "--input", images[0], "--out", tmp_path / "out"]
    message = fails(capsys, *command, "--engine", "dsine")
    assert "engine dsine under LicenseRef-Imperial-DSINE, which does not allow commercial use" in message
    assert "use dataset (Apache-2.0)" in message and message.endswith("or give --licence any")
    assert "params.yaml" not in message and "licence_policy" not in message
    assert not loaded and not (tmp_path / "out").exists()
    assert "'free' is not in --licence; there are: any, permissive" in fails(capsys, *command, "--licence", "free")


def test_synthesise_says_that_weights_are_random(images, tmp_path, capsys):
    command = ["--modality", "depth", "--input", images[0], "--out", tmp_path / "out", "--engine", "depth_anything_v2"]
    assert run("synthesise", *command, "--set", "weights=random", "--set", "input_size=56") == 0
    assert "\nweights: random; " in capsys.readouterr().out


def test_synthesise_takes_another_engine_and_its_settings(images, tmp_path):
    out = tmp_path / "out"
    command = ["--modality", "sketch", "--input", str(images[0]), "--out", str(out)]
    assert run("synthesise", *command, "--engine", "xdog", "--set", "sigma=2.5", "--set", "flow=0") == 0
    made = next(iter(json.loads((out / "synthesis.json").read_text()).values()))["by"]
    assert (made["engine"], made["params"]["sigma"], made["params"]["flow"]) == ("xdog", 2.5, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "xdogs"], "did you mean 'xdog'"),
        (["--set", "sigma"], "is not name=value"),
        (["--set", "sigmas=1"], "sigmas"),
        (["--set", "sigma=[1"], "is not YAML"),
        (["--modality", "XDoG"], "'XDoG' is not in minima_core.synthesis"),
        (["--modality", "xdog"], "'xdog' is an engine of sketch; name that"),
        (["--modality", "Sketch"], "did you mean 'sketch'?"),
        (["--out", "sketch.png"], "--out sketch.png is a file; give a folder"),
    ],
)
def test_bad_settings_of_an_engine_are_one_line(images, tmp_path, capsys, words, message):
    command = ["--modality", "sketch", "--input", images[0], "--out", tmp_path / "out"]
    assert message in fails(capsys, "synthesise", *command, *words)


def test_help_is_quick_and_imports_no_torch():
    code = "import sys; from minima_core import cli; assert 'torch' not in sys.modules; cli.main(['--help'])"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "evaluate" in done.stdout
    assert time.monotonic() - started < 5  # under 1 s on an idle machine


def test_errors_of_the_program_are_one_line_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "minima_core.cli", "match", "x.png", "y.png", "--model", "m", "--out", "m.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: no file x.png; give the path of an image\n"


def test_version_and_doctor_succeed(capsys, monkeypatch):
    monkeypatch.setattr("minima_core.doctor.PATIENCE", 0.1)
    monkeypatch.setitem(sys.modules, "minima_core.models", real_models)  # the stand-in has no names
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("minima ")
    assert run("doctor") == 0
    told = capsys.readouterr().out
    assert "poselib" in told
    assert "xfeat.pt" in told
    assert "mmim" in told
    assert "LicenseRef-MINIMA-infrared-research" in told  # in one piece
    assert "minima-xfeat-star" in told
    assert "MINIMA_WEIGHTS" in told


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["match"], "minima match"),
        (["match", "a.png", "b.png", "--out", "m.json", "--modle", "x"], "minima match"),
        (["index", "view"], "minima index view"),
        (["mtach"], "minima"),
    ],
)
def test_a_wrong_command_names_the_help_that_describes_it(words, command, capsys):
    assert run(*words) == 1
    assert capsys.readouterr().err.endswith(f"See `{command} --help`.\n")


def test_help_says_in_whole_sentences_what_each_command_does(capsys):
    for words in (["--help"], ["index", "--help"]):
        assert run(*words) == 0
        assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
