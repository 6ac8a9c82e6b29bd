"""Models on disk and by name."""

import json
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plane_world import SETTINGS, random_matcher, save_parent

import minima_core
from minima_core import weights
from minima_core.errors import ConfigError, DataError, WeightsError
from minima_core.io.images import write_image
from minima_core.io.weights import state_digest
from minima_core.manifest import ModelCard, file_sha256
from minima_core.models import (
    NETWORKS,
    PUBLISHED_MODELS,
    WEIGHTS,
    as_tensor,
    create,
    load_matcher,
    read_model,
    save_model,
)
from minima_core.published import PUBLISHED


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    save_parent(folder)
    return folder


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def reseal(folder):
    """Make the card agree with the weights file, whatever it holds."""
    card = json.loads((folder / ModelCard.FILE).read_text())
    card["weights_sha256"] = file_sha256(folder / WEIGHTS)
    (folder / ModelCard.FILE).write_text(json.dumps(card))


def test_model_survives_the_disk(model):
    matcher, card = read_model(model)
    assert state_digest(matcher.state_dict()) == state_digest(random_matcher().state_dict())
    assert card.weights_sha256 == file_sha256(model / WEIGHTS)
    assert not matcher.training


def test_equal_models_give_equal_bytes(model, tmp_path):
    again = save_parent(tmp_path / "m")
    assert (tmp_path / "m" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert again.digest() == ModelCard.load(model).digest()


def test_saving_replaces_the_folder_whole(copy):
    (copy / "stray").write_text("old")
    save_parent(copy)
    assert sorted(p.name for p in copy.iterdir()) == [ModelCard.FILE, WEIGHTS]


def test_weights_that_are_not_finite_are_not_saved(tmp_path, model):
    matcher = random_matcher()
    with torch.no_grad():
        matcher.network.posenc.Wr.weight[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"network\.posenc\.Wr\.weight holds values that are not finite"):
        save_model(tmp_path / "m", matcher, ModelCard.load(model))
    assert not (tmp_path / "m").exists()


def test_other_bytes_than_the_card_names(copy):
    with (copy / WEIGHTS).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="its card says"):
        read_model(copy)


@pytest.mark.parametrize(
    "data",
    [b"", b"not a model", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}"],
    ids=["empty", "text", "header of 4 EiB", "no tensors"],
)
def test_malformed_weights_are_one_line(copy, data):
    (copy / WEIGHTS).write_bytes(data)
    reseal(copy)
    with pytest.raises(DataError, match="does not hold the weights of a lightglue") as error:
        read_model(copy)
    assert "\n" not in str(error.value)


def test_missing_weights_and_missing_card(copy):
    (copy / WEIGHTS).unlink()
    with pytest.raises(DataError, match=r"no .*model\.safetensors"):
        read_model(copy)
    (copy / ModelCard.FILE).unlink()
    with pytest.raises(DataError, match=r"no .*card\.json"):
        read_model(copy)


def test_wrong_name_gives_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'xfeat-lightglue'"):
        load_matcher("xfeat-lightglu")


@pytest.fixture
def asked(monkeypatch):
    """Stand in for the reading of weights; returns under which names they were asked for."""
    names = []

    def load(name):
        names.append(name)
        raise WeightsError("no network here")

    monkeypatch.setattr(weights, "load", load)
    monkeypatch.setattr(weights, "fetch", lambda names: {})
    monkeypatch.setattr("minima_core.models.create", lambda plugin, settings, _: create_small(plugin, settings))
    return names


def create_small(plugin, settings):
    matcher = create(plugin, settings, "test")
    if plugin == "lightglue":
        matcher.extractor.load_published = lambda: None
    return matcher


@pytest.mark.parametrize(
    "name", [name for name, file in NETWORKS.items() if not file.startswith(("roma", "minima_roma"))]
)
def test_a_file_stands_for_the_network_of_a_published_model(name, asked, tmp_path):
    (tmp_path / "mine.ckpt").write_bytes(b"")
    with pytest.raises(WeightsError, match="no network here"):
        load_matcher(f"{name}={tmp_path / 'mine.ckpt'}")
    assert asked == [NETWORKS[name]] and NETWORKS[name] in PUBLISHED


def test_a_checkpoint_of_ones_own_is_used_whatever_its_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    official = create("loftr", PUBLISHED_MODELS["minima-loftr"][1], "test")
    state = {f"matcher.{name}": torch.zeros_like(tensor) for name, tensor in official.network.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    loaded = load_matcher(f"minima-loftr={tmp_path / 'last.ckpt'}")
    assert not any(tensor.any() for tensor in loaded.matcher.network.state_dict().values())
    assert loaded.licence == "unknown"
    torch.save({"state_dict": dict(list(state.items())[1:])}, tmp_path / "less.ckpt")
    (tmp_path / "text.ckpt").write_text("none")
    for file, message in (("less", "does not fit"), ("text", "is no checkpoint"), ("none", "no file .*none")):
        with pytest.raises(WeightsError, match=message):
            load_matcher(f"minima-loftr={tmp_path / file}.ckpt")
    with pytest.raises(WeightsError, match=r"text\.ckpt is no checkpoint"):
        load_matcher(f"eloftr={tmp_path / 'text.ckpt'}")  # not asked of the hub
    with pytest.raises(ConfigError, match=r"sift takes no file; those that do are aliked-lightglue, .*, roma"):
        load_matcher("sift=last.ckpt")
    with pytest.raises(WeightsError, match="cannot get minima_loftr"):
        weights.fetch(["minima_loftr.ckpt"])  # it is given no longer


def test_public_names():
    assert minima_core.load_matcher is load_matcher
    with pytest.raises(AttributeError):
        _ = minima_core.nothing


def test_two_pictures_are_matched_by_the_released_model_unless_told_otherwise():
    pictures = texture(0), texture(0)[:, 10:]
    expected = load_matcher("minima-lightglue").match(*pictures)
    found = minima_core.match(*pictures)
    assert torch.equal(found.mkpts0, expected.mkpts0) and torch.equal(found.scores, expected.scores)
    assert len(found) > 0


def texture(seed, h=120, w=160):
    return np.random.default_rng(seed).integers(0, 255, (h, w, 3)).astype(np.uint8)


def test_files_arrays_and_tensors_are_the_same_picture(model, tmp_path):
    loaded = load_matcher(model)
    pictures = [texture(0), texture(1)]
    for k, picture in enumerate(pictures):
        write_image(tmp_path / f"{k}.png", picture)
    kinds = [
        pictures,
        [tmp_path / "0.png", str(tmp_path / "1.png")],
        [torch.from_numpy(p).permute(2, 0, 1) for p in pictures],
        [torch.from_numpy(p).permute(2, 0, 1).float() / 255 for p in pictures],
    ]
    found = [loaded.match(*kind) for kind in kinds]
    assert len(found[0]) > 0
    assert len({len(f) for f in found}) == 1
    assert all(torch.equal(f.mkpts0, found[0].mkpts0) for f in found)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((0, 0, 3), np.uint8), r"array of shape \(0, 0, 3\) has no pixels"),
        (np.zeros((0, 9), np.float32), "has no pixels"),
        (torch.zeros(3, 0, 9), r"with pixels, .* expected, not \(3, 0, 9\)"),
        (Image.new("RGB", (9, 9)), r"expected, not Image; an array of a picture of Pillow is np\."),
        (None, "expected, not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(model, picture, message):
    with pytest.raises(DataError, match=message):
        load_matcher(model).match(picture, texture(0))


@pytest.mark.parametrize("wrong", [{"max_keypoints": -5}, {"max_keypoints": 0}, {"long_side": -1}])
def test_numbers_that_are_not_positive_are_refused(model, wrong):
    with pytest.raises(ConfigError, match="must be at least 1, or None for the model's own, not"):
        load_matcher(model).match(texture(0), texture(1), **wrong)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps", ""])
def test_a_device_that_is_not_there_is_refused(model, device):
    with pytest.raises(ConfigError, match=f"^no device '{device}' here; use auto, cpu"):
        load_matcher(model, device)


@pytest.mark.parametrize("device", ["auto", torch.device("cpu")])
def test_python_knows_the_devices_of_the_command_line(model, device):
    loaded = load_matcher(model, device)
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert next(loaded.matcher.parameters()).device.type == expected


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([np.zeros((8, 8, 3), np.uint8)] * 2, "pair 0 is ndarray"),
        ([torch.zeros(2, 8, 8)], "pair 0 is Tensor"),  # would unpack
        ([("a.png", "b.png"), "ab"], "pair 1 is str"),
        ([("a.png", "b.png", "c.png")], "pair 0 is tuple of 3"),
    ],
)
def test_what_is_no_list_of_pairs_is_told_in_one_line(model, pairs, said):
    with pytest.raises(DataError, match=rf"^match_batch takes pairs of pictures, \[\(a, b\), \(c, d\)\]; {said}$"):
        load_matcher(model).match_batch(pairs)


def test_a_folder_without_a_card_is_told_from_one_with_a_damaged_card(tmp_path):
    with pytest.raises(DataError, match=r"no .*card\.json; a model folder holds it and model\.safetensors"):
        load_matcher(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(DataError, match=r"is not a valid ModelCard .*; get the model folder again, or make it"):
        load_matcher(tmp_path)


def test_a_batch_gives_what_each_pair_of_pictures_gives(model):
    page = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    loaded = load_matcher(model)
    pairs = [(page, np.roll(page, 8, 1)), (page[:64], page), (np.full_like(page, 9), page)]
    for found, (image0, image1) in zip(loaded.match_batch(pairs, max_keypoints=60), pairs, strict=True):
        alone = loaded.match(image0, image1, max_keypoints=60)
        torch.testing.assert_close(found.mkpts0, alone.mkpts0)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-4, rtol=0)


def test_a_picture_turned_upside_down_is_matched_where_any_rotation_is_asked_for():
    page, loaded = texture(0), load_matcher("minima-lightglue")
    turned = page[::-1, ::-1].copy()
    assert len(loaded.match(page, turned)) < 5
    found = loaded.match(page, turned, any_rotation=True)
    last = torch.tensor([page.shape[1], page.shape[0]]) - 1
    right = (found.mkpts1 - (last - found.mkpts0)).norm(dim=1) < 2
    assert right.sum() > 20
    assert right.float().mean() > 0.9


def test_precision_and_compilation_are_those_asked_for(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: compiled.append(options) or call)
    assert load_matcher(model).matcher.precision == "float32" and compiled == []
    assert load_matcher(model, precision="bfloat16", compiled=True).matcher.precision == "bfloat16"
    assert compiled and all(options == {"dynamic": True} for options in compiled)
    with pytest.raises(ConfigError, match=r"'float61' is not in the precisions; did you mean 'float16'"):
        load_matcher(model, precision="float61")
    with pytest.raises(ConfigError, match=r"'torch.float16' is not in the precisions; did you mean 'float16'"):
        load_matcher(model, precision=torch.float16)


def test_gray_array_is_repeated():
    assert as_tensor(texture(0)[..., 0]).shape == (3, 120, 160)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3), int), np.zeros((4, 4, 4), np.uint8), np.zeros((3,), np.uint8)])
def test_wrong_arrays_are_refused(wrong):
    with pytest.raises(DataError, match="expected"):
        as_tensor(wrong)


@pytest.mark.parametrize("counts", [(0, 65535), (7000, 9000)])
def test_an_array_of_a_thermal_camera_is_the_picture_of_its_file(tmp_path, counts):
    values = np.interp(texture(0)[..., 0], (0, 255), counts).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    for array in (values, values.astype(">u2")):
        assert torch.equal(as_tensor(array), as_tensor(tmp_path / "a.tif"))


def test_arrays_that_are_views_or_may_not_be_written_are_taken_as_they_are():
    image = texture(0)
    frozen = np.asarray(Image.fromarray(image))
    assert not frozen.flags.writeable  # and warnings are errors here
    assert torch.equal(as_tensor(frozen), as_tensor(image))
    for picture in (image, image / np.float32(255), (image / 255).astype(">f8")):
        assert torch.equal(as_tensor(picture[:, ::-1]), as_tensor(image).flip(2))


def test_floats_in_the_unit_range_are_the_same_picture():
    assert torch.equal(as_tensor(texture(0) / np.float32(255)), as_tensor(texture(0)))


@pytest.mark.parametrize("value", [-0.5, 2.0, 255.0, np.nan])
def test_floats_of_another_range_are_refused_in_one_line(value):
    for picture in (np.full((4, 4, 3), value), torch.full((3, 4, 4), value)):
        with pytest.raises(DataError, match=r"floats in \[0, 1\] expected"):
            as_tensor(picture)


@pytest.fixture
def no_store(tmp_path, monkeypatch):
    """A folder with a space in its name as the working directory, and no word to MLflow of where its store is."""
    import mlflow

    folder = tmp_path / "a checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):  # both are also set by what other tests call
        monkeypatch.delenv(variable, raising=False)
    before = mlflow.tracking._model_registry.utils._registry_uri
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)
    yield folder
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(before)


def test_without_a_store_a_registered_model_is_one_line_and_makes_none(no_store):
    with pytest.raises(
        ConfigError, match=r"no mlflow\.db in .*a checkout; run from the checkout, or set MLFLOW_TRACKING"
    ):
        load_matcher("models:/any@champion")
    assert list(no_store.parent.iterdir()) == [no_store] and not list(no_store.iterdir())


def test_the_store_of_a_checkout_with_a_space_in_its_path_is_found(no_store):
    from mlflow import MlflowClient

    uri = f"sqlite:///{no_store}/mlflow.db"
    MlflowClient(uri, uri).create_registered_model("any")
    with pytest.raises(ConfigError, match=r"cannot load models:/any@champion .*; there are: none"):
        load_matcher("models:/any@champion")
    assert list(no_store.parent.iterdir()) == [no_store]


def test_a_registered_model_leaves_no_download_behind(model, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    def download(artifact_uri, dst_path=None):
        target = Path(dst_path or tempfile.mkdtemp()) / "model" / "artifacts" / "m"
        return str(shutil.copytree(model, target).parents[1])

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    loaded = load_matcher("models:/any@champion")
    assert len(loaded.match(texture(0), texture(1))) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_image_has_no_matches(model, value):
    loaded = load_matcher(model)
    blank = np.full((96, 128, 3), value, np.uint8)
    blank[..., 0] = 40
    assert len(loaded.match(blank, blank)) == 0
    assert len(loaded.match(blank, texture(0))) == 0


def test_a_package_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"matcher eloftr needs transformers; install it with .*\[engines\]"):
        create(*PUBLISHED_MODELS["eloftr"], "test")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_working_directory(name):
    with pytest.raises(ConfigError, match=r"no MODEL was given; it is a folder with card\.json, or models:/NAME@ALIAS"):
        load_matcher(name)


def test_a_damaged_card_says_which_field(copy):
    card = json.loads((copy / ModelCard.FILE).read_text())
    del card["licence"]
    (copy / ModelCard.FILE).write_text(json.dumps(card))
    with pytest.raises(DataError, match=r"card\.json is not a valid ModelCard \(licence: Field required\)"):
        read_model(copy)


def test_settings_of_another_version_are_named(copy):
    card = json.loads((copy / ModelCard.FILE).read_text())
    card["params"] = SETTINGS | {"extractor": "sift"}
    (copy / ModelCard.FILE).write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=r"card\.json: params\.extractor: .*made by another version"):
        read_model(copy)
