"""Registering: once a model, loadable from anywhere, champion by decision."""

import base64
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.artifacts import MarkdownArtifact

from flows.promotion import Promotion
from flows.registry import CHAMPION, promote, register, registered_name, requirements
from minima_core.errors import DataError
from minima_core.io.images import encode_png, write_image
from minima_core.manifest import ModelCard
from minima_core.matchers.base import MATCHERS
from minima_core.models import create, save_model
from minima_core.random import rng
from tasks.reports import ScoreReport
from tasks.tracking import connect, stage_run

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning")]  # mlflow's own, while it is imported and logs
SETTINGS = {"extractor": "xfeat", "long_side": 128, "max_keypoints": 64, "filter_threshold": 0.0}
RULE = Promotion(benchmarks={"six": "auc@10"}, min_gain=0.5, max_rgb_loss=2.0)
PREDICT = """
import json, sys, mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/minima-lightglue@champion")
found = model.predict(pd.DataFrame([json.loads(sys.stdin.read())], columns=["image0", "image1"]))
print(json.dumps({name: len(found[name][0]) for name in found}))
"""


def model(folder: Path, seed: int) -> ModelCard:
    import torch

    torch.manual_seed(seed)
    card = ModelCard(
        matcher="lightglue", stage="finetuned", params=SETTINGS, seed=seed, parent="p" * 64, weights_sha256="",
        licence="Apache-2.0", commercial=True,
    )  # fmt: skip
    return save_model(folder, create("lightglue", SETTINGS, "test"), card)


def reports(parent: float, child: float) -> list[ScoreReport]:
    common = {
        "benchmark": "six", "protocol": "p", "protocol_hash": "h", "data_digest": "d", "matcher": "lightglue",
        "seed": 0, "categories": {},
        "pairs": 1, "failures": 0,
    }  # fmt: skip
    values = {"pretrained": parent, "finetuned": child}
    return [ScoreReport(model=name, metrics={"auc@10": value}, **common) for name, value in values.items()]


@pytest.mark.parametrize(
    ("matcher", "extractor", "needed"),
    [("lightglue", "xfeat", False), ("lightglue", "superpoint", True), ("eloftr", "", True)],
)
def test_requirements_are_what_the_matcher_imports(matcher, extractor, needed):
    card = ModelCard(
        matcher=matcher, stage="finetuned", params={"extractor": extractor}, weights_sha256="", licence="MIT",
        commercial=True,
    )  # fmt: skip
    assert ("transformers" in requirements(card)) is needed


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / "a checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return folder


def test_every_matchers_name_may_name_an_artifact_of_prefect():
    names = [registered_name(matcher) for matcher in [*MATCHERS.names(), "Line_Matcher2"]]
    assert "minima-xfeat-star" in names and names[-1] == "minima-line-matcher2"
    for name in names:
        assert MarkdownArtifact(key=f"promotion-{name}", markdown="").key


def test_a_model_is_registered_once_and_matches_in_a_fresh_process(checkout, tmp_path):
    folder = checkout / "models" / "finetuned" / "lightglue"
    card = model(folder, seed=0)
    with stage_run("finetune@lightglue", params={}, inputs={}) as trained:
        trained.tags({"card_digest": card.digest()})
    first = register.fn("lightglue", folder)
    again = register.fn("lightglue", folder)
    assert (first.name, first.new, again.new, again.version) == ("minima-lightglue", True, False, first.version)
    client = connect()
    version = client.get_model_version(first.name, first.version)
    assert version.run_id == trained.run_id
    assert version.tags["card_digest"] == card.digest() and version.tags["licence"] == "Apache-2.0"

    decision = promote.fn(first, reports(parent=10, child=20), RULE)
    assert decision.promoted
    assert str(client.get_model_version_by_alias(first.name, CHAMPION).version) == first.version

    worse = checkout / "models" / "worse"
    model(worse, seed=1)
    second = register.fn("lightglue", worse)
    assert second.new and second.version != first.version
    lock = {"stages": {"b": {"outs": [{"path": "data/benchmarks/six", "md5": "of another root in its pairs.json"}]}}}
    (checkout / "dvc.lock").write_text(json.dumps(lock))  # the pairs themselves are those of before
    decision = promote.fn(second, reports(parent=10, child=20.2), RULE)  # the parent falls, the champion does not
    assert not decision.promoted and "against the champion" in decision.reason
    assert str(client.get_model_version_by_alias(first.name, CHAMPION).version) == first.version
    kept = json.loads(client.get_model_version(second.name, second.version).tags["decision"])
    assert [vote["rival"] for vote in kept["votes"]] == ["parent", "champion"]

    image = rng(0, "picture").integers(0, 255, (96, 128, 3), dtype=np.uint8)
    write_image(tmp_path / "b.png", image)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cells = [base64.b64encode(encode_png(image)).decode(), str(tmp_path / "b.png")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREDICT],
        cwd=elsewhere, input=json.dumps(cells), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["mkpts0"] == counts["mkpts1"] == counts["scores"]
    assert not list((checkout / "mlruns").rglob("*.pkl"))


def test_a_model_whose_registration_was_killed_is_one_version(checkout, monkeypatch):
    card = model(checkout / "model", seed=2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr("mlflow.MlflowClient.set_model_version_tag", killed)  # when the version is there already
        register.fn("lightglue", checkout / "model")
    register.fn("lightglue", checkout / "model")
    versions = connect().search_model_versions("name = 'minima-lightglue'")
    assert [version.tags["card_digest"] for version in versions] == [card.digest()]


def test_arrays_are_matched_too(checkout):
    from flows.pyfunc_model import picture

    image = np.zeros((4, 6, 3), np.uint8)
    assert picture(image).shape == (4, 6, 3)
    assert picture((image + 200).tolist()).dtype == np.uint8  # as JSON brings it
    assert picture(image + 0.5).max() == 0.5  # and not black


def test_transparent_and_16_bit_pictures_in_base64_are_read_like_files(checkout, tmp_path):
    from flows.pyfunc_model import picture

    rgba = np.dstack([np.full((4, 4, 3), 100, np.uint8), np.array([[0, 255, 0, 255]] * 4, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 257 * 90, np.uint16)).save(tmp_path / "d.png")
    shown = [picture(base64.b64encode((tmp_path / name).read_bytes()).decode()) for name in ("a.png", "d.png")]
    assert shown[0][0, :, 0].tolist() == [255, 100, 255, 100]
    assert (shown[1] == 90).all()
    with pytest.raises(DataError, match="base64 is not an image"):
        picture(base64.b64encode(b"text").decode())


def test_base64_of_a_small_picture_is_no_name_of_a_file_that_is_too_long(checkout):
    from flows.pyfunc_model import picture

    for seed in range(60):  # some of them have no slash for 255 letters
        image = rng(seed, "small").integers(0, 255, (20, 30, 3), dtype=np.uint8)
        assert np.array_equal(picture(base64.b64encode(encode_png(image)).decode()), image)
    for wrong in ("x" * 300 + ".png", "?" * 5000, "nul\0.png", ""):
        with pytest.raises(DataError):
            picture(wrong)
