"""Several data sets in one index, through the stages: scenes keep what relates them, each is drawn in what it has."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from plane_world import SETTINGS, random_matcher, save_parent, training_settings
from pydantic import ValidationError
from small_album import PHOTOS

from minima_core import licences
from minima_core.config import load_params
from minima_core.data.datasets.base import DATASETS
from minima_core.data.datasets.mixture import Mixture
from minima_core.data.datasets.photos import Photos
from minima_core.data.image_pairs import ImagePairs
from minima_core.data.index import read_scenes
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import PairSampling, RandomModalities, SingleModality, epoch_items
from minima_core.errors import ConfigError, DataError
from minima_core.io.images import write_image
from minima_core.manifest import Certificate, ModalityManifest, ModelCard, RawDataset, SceneManifest
from tasks import download, finetune, index, pretrain, synthesise, validate

MODALITIES = ["infrared", "depth", "sketch"]
OF: dict[str, Any] = {
    "photos": PHOTOS,
    "synthetic": {
        "world": "train",
        "scenes": 1,
        "validation_scenes": 1,
        "views": 4,
        "size": [96, 72],
        "overlap": [0.05, 1.0],
        "max_pairs": 6,
    },
}
WIDE = {"std": [0, 130], "entropy": [0, 8], "saturated": [0, 1]}
WHERE = {"raw": Path("raw"), "index": Path("index"), "modalities": Path("modalities"), "report": Path("r.json")}
SEMIDENSE = {"size": "small", "published": "outdoor", "long_side": 96, "max_keypoints": 500, "threshold": 0.05}


def params() -> dict[str, Any]:
    """Return settings of a mixture of tiny data sets; pictures so small show too little for the gate and the bands."""
    shipped = load_params(Path(download.__file__).resolve().parents[1] / "params.yaml")
    validation = shipped["validation"] | {"fit": 0.0, "overlap": [0.01, 1.0], "depth_coverage": 0.0, "suites": {}}
    pairs = {"per_scene": 3, "overlap": [0.05, 1.0], "bins": 1, "repeats": 2, "augment": None}
    train = training_settings(
        steps=3,
        validation_samples=4,
        validate_every=3,
        optimiser={"kind": "adamw", "weight_decay": 0.0, "lr": {"backbone": 1e-3, "matching": 1e-3}, "lr_batch": 2},
        pairs=pairs | {"modalities": {"strategy": "random"}},
    )
    sparse = train | {"optimiser": {"kind": "adam", "weight_decay": 0.0, "lr": {"all": 1e-4}, "lr_batch": 2}}
    return {
        "seed": 0,
        "licence_policy": "permissive",
        "modalities": MODALITIES,
        "dataset": {"name": "mixture", "mixture": {"of": OF}},
        "synthesis": {name: shipped["synthesis"][name] for name in MODALITIES},
        "gate": {"sure": 0.0, "score": 0.0, "offset": 1000.0, "retries": 0},
        "validation": validation | {"bands": {"rgb": WIDE, "other": WIDE}},
        "matcher": {"lightglue": SETTINGS, "eloftr": SEMIDENSE},
        "training": {
            "pretrain": {"eloftr": {"mode": "train", "start": "random", "train": train}},
            "finetune": {"lightglue": {"demo": sparse}, "eloftr": {"demo": train}},
        },
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a mixture of photographs and a rendered world: indexed, in three modalities, certified."""
    folder = tmp_path_factory.mktemp("mixture")
    rng = np.random.default_rng(0)
    for k in range(8):
        small = rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)
        write_image(folder / "album" / f"{k}.png", cv2.resize(small, (160, 128), interpolation=cv2.INTER_CUBIC))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MINIMA_WORKERS", "1")
        Path("params.yaml").write_text(yaml.safe_dump(params()))
        report = download.main(download.DownloadArgs(out=Path("raw"), report=Path("r.json")))
        assert (report.scenes, report.images) == (6, 24 + 8)
        index.main(index.IndexArgs(raw=Path("raw"), out=Path("index"), report=Path("r.json")))
        for name in MODALITIES:
            given = {"modality": name, "out": Path("modalities") / name, **without("modalities")}
            synthesise.main(synthesise.SynthesiseArgs.model_validate(given))
        validate.main(validate.ValidateArgs(**WHERE, out=Path("certificate"), docs=""))
    return folder


@pytest.fixture
def place(made, monkeypatch):
    """Return the folder of the mixture as the working directory."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    monkeypatch.setenv("MINIMA_DEVICE", "cpu")
    return made


def without(name: str) -> dict[str, Path]:
    return {key: value for key, value in WHERE.items() if key != name}


def mixture(of: dict[str, Any]) -> Mixture:
    return Mixture(Mixture.Params(of=of), seed=0)


def sampling(**changes: Any) -> PairSampling:
    modalities = RandomModalities(strategy="random", rgb_share=0.0)
    common = {"per_scene": 6, "overlap": (0.05, 1.0), "bins": 1, "repeats": 8, "augment": None}
    return PairSampling(**common | {"modalities": modalities} | changes)


def source() -> PairSource:
    return PairSource(WHERE["index"], WHERE["raw"], WHERE["modalities"], split="train", names=MODALITIES)


def kind(scene: str) -> str:
    return scene.rpartition("-")[2]


def test_scenes_are_those_of_all_and_keep_what_relates_their_pairs(place):
    assert SceneManifest.load(Path("index")).relation == RawDataset.load(Path("raw")).relation == "both"
    scenes = list(read_scenes(Path("index")))
    kinds = Counter((kind(scene.name), scene.H_0to1 is None) for scene in scenes)
    assert kinds == {("photos", False): 4, ("synthetic", True): 2}
    for scene in scenes:
        assert len(scene.pairs) and (Path("raw") / scene.image[0]).is_file()
        there = [(Path("raw") / path).is_file() for path in scene.depth if path]
        assert all(there) and len(there) == (0 if scene.H_0to1 is not None else len(scene.image))
    assert {scene.split for scene in scenes if scene.H_0to1 is None} == {"train", "val"}
    of_one_kind = {name: value for name, value in PHOTOS.items() if name not in {"root", "licence"}}
    assert mixture({"photos": PHOTOS, "commons": of_one_kind}).relation == "homography"


def test_licence_and_authors_are_those_of_all(place):
    held = RawDataset.load(Path("raw"))
    parts = {name: DATASETS.get(name) for name in OF}
    alone = [part(part.Params.model_validate(OF[name]), seed=0) for name, part in parts.items()]
    assert held.licence == licences.join(each.licence for each in alone)
    assert held.attribution == [line for each in alone for line in each.attribution()]


def test_pictures_are_those_that_the_data_set_alone_has(place, tmp_path):
    Photos(Photos.Params.model_validate(PHOTOS), seed=0).prepare(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.jpg")]
    assert len(files) == 24
    for name in files:
        assert (Path("raw/photos") / name).read_bytes() == (tmp_path / name).read_bytes()


def test_what_a_part_cannot_give_is_left_out_of_its_draws_alone(place):
    depth = ModalityManifest.load(Path("modalities/depth"))
    assert depth.status == "complete" and sorted(map(kind, depth.lacking())) == ["photos"] * 4
    assert Certificate.load(Path("certificate")).modalities == MODALITIES
    train = source()
    items = epoch_items(train, sampling(), seed=0, epoch=0)
    drawn = Counter((kind(train.locate(i.pair)[0].name), *sorted({i.modality0, i.modality1})) for i in items)
    asked = sum(min(6, len(scene.pairs)) * 8 for scene in train.scenes)
    assert sum(drawn.values()) == asked  # none was drawn that is not there, and dropped
    expected = {("photos", "infrared", "rgb"), ("photos", "rgb", "sketch")}
    assert set(drawn) == expected | {("synthetic", *sorted([name, "rgb"])) for name in MODALITIES}
    only = sampling(modalities=SingleModality(strategy="single", modality="depth"))
    assert {kind(train.locate(i.pair)[0].name) for i in epoch_items(train, only, seed=0, epoch=0)} == {"synthetic"}


def test_a_modality_that_no_scene_for_training_can_give_is_named(place, tmp_path):
    manifest = ModalityManifest.load(Path("modalities/depth"))
    none = {entry.name: 0 for entry in SceneManifest.load(Path("index")).split("train")}
    failed = manifest.failed | {f"{scene}/000": "no depth" for scene in none}
    manifest.model_copy(update={"scenes": manifest.scenes | none, "failed": failed}).save(tmp_path / "depth")
    train = PairSource(WHERE["index"], WHERE["raw"], tmp_path, split="train", names=["depth"])
    with pytest.raises(DataError, match="no train scene of index can give depth"):
        epoch_items(train, sampling(), seed=0, epoch=0)


def test_an_image_that_is_missing_in_a_scene_that_has_others_counts(place, tmp_path):
    manifest = ModalityManifest.load(Path("modalities/depth"))
    of_world = next(name for name in manifest.scenes if kind(name) == "synthetic")
    assert manifest.model_copy(update={"rejected": {f"{of_world}/000": "blank"}}).lacking() == manifest.lacking()
    some = next(iter(sorted(manifest.lacking())))
    refused = manifest.model_copy(update={"rejected": {f"{some}/000": "blank"}})
    assert refused.lacking() == manifest.lacking() - {some}


def test_a_scene_without_images_lacks_nothing(place):
    manifest = ModalityManifest.load(Path("modalities/depth"))
    more = manifest.model_copy(update={"scenes": {**manifest.scenes, "empty": 0}})
    assert more.lacking() == manifest.lacking()
    assert not manifest.model_copy(update={"status": "unavailable", "scenes": {}}).lacking()


def test_an_emptied_folder_of_a_part_is_named(place, tmp_path):
    forgotten = Path("raw/photos/forgotten/dense0/imgs")
    forgotten.mkdir(parents=True)
    try:
        with pytest.raises(DataError, match=r"no folder of images .* photos/forgotten"):
            validate.main(validate.ValidateArgs(**WHERE, out=tmp_path / "certificate", docs=""))
    finally:
        forgotten.rmdir()
        forgotten.parent.rmdir()
        forgotten.parent.parent.rmdir()


def test_a_batch_holds_pairs_of_both_kinds_each_with_its_own_truth(place, tmp_path):
    pairs = ImagePairs(source(), side=96, fit="pad", cache=tmp_path)
    items = epoch_items(pairs.pairs, sampling(per_scene=2, repeats=1), seed=0, epoch=0)
    batch = pairs.collate([pairs.sample(item) for item in items])
    assert set(batch.planar.tolist()) == {True, False}
    assert torch.equal(batch.depth0.flatten(1).any(1), ~batch.planar)
    one = torch.eye(3).expand(len(batch), 3, 3)
    assert torch.equal((one == batch.K0).flatten(1).all(1), batch.planar)
    assert torch.equal((batch.H_0to1 == one).flatten(1).all(1), ~batch.planar)


def test_nothing_is_kept_of_what_a_part_cannot_give(place, tmp_path):
    ImagePairs(source(), side=96, fit="pad", cache=tmp_path / "images").close()
    random_matcher().training_data(source(), max_keypoints=64, cache=tmp_path / "features", workers=1).close()
    for cache in ("images", "features"):
        parts = [path.name.split(".")[:2] for path in (tmp_path / cache).rglob("*.*")]
        assert {kind(scene) for scene, of in parts if of == "sketch"} == {"photos", "synthetic"}
        assert {kind(scene) for scene, of in parts if of == "depth"} == {"synthetic"}


def fine_tuned(matcher: str, parent: str, out: Path) -> tuple[Any, ModelCard]:
    given = {"matcher": matcher, "preset": "demo", "parent": parent, "certificate": "certificate", "out": out}
    return finetune.main(finetune.FinetuneArgs.model_validate(given | WHERE)), ModelCard.load(out)


def test_matchers_are_trained_on_both_kinds_and_their_cards_name_all_authors(place, tmp_path, tracker):
    save_parent(tmp_path / "sparse")
    given = {"matcher": "eloftr", "out": tmp_path / "whole", "certificate": "certificate"}
    pretrain.main(pretrain.PretrainArgs.model_validate(given | without("modalities")))
    for matcher, parent in (("lightglue", "sparse"), ("eloftr", "whole")):
        report, card = fine_tuned(matcher, str(tmp_path / parent), tmp_path / matcher)
        assert report.steps == 3 and report.skipped_steps == 0 and math.isfinite(report.final["val/loss"])
        assert set(mixture(OF).attribution()) <= set(card.attribution)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"photos": PHOTOS, "mixture": {"of": OF}}, r"dataset\.mixture\.of holds 'mixture'"),
        ({"photos": PHOTOS, "syntetic": OF["synthetic"]}, "did you mean 'synthetic'"),
        ({**OF, "photos": {**PHOTOS, "vews": 2}}, r"'vews' is not in .*dataset\.mixture\.of\.photos"),
    ],
)
def test_wrong_settings_are_named(of, said):
    with pytest.raises(ConfigError, match=said):
        mixture(of)


def test_one_data_set_is_no_mixture():
    with pytest.raises(ValidationError, match="at least 2"):
        Mixture.Params(of={"photos": PHOTOS})
