"""A sound world passes and certifies bit-identically; each planted fault is refused in one line that names files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image
from plane_world import STEP, PlaneWorld
from tiny_world import MODALITIES, SCENES, VIEWS, H, W, World, render

from minima_core.data.index import index_digest, read_scene
from minima_core.errors import ConfigError, DataError
from minima_core.io.depth import write_depth
from minima_core.io.images import write_image
from minima_core.manifest import Certificate, ModalityManifest, SceneManifest, folder_digest
from tasks.validate import FINDINGS, ValidateArgs, main

BANDS = {
    "rgb": {"std": [8, 120], "entropy": [3, 8], "saturated": [0, 0.5]},
    "event": {
        "std": [2, 110],
        "entropy": [0.02, 3],
        "saturated": [0.1, 1],
        "agreement": 7,
        "offset": 8,
        "palette": [[255, 255, 255], [0, 0, 255], [255, 0, 0]],
    },
    "other": {"std": [5, 120], "entropy": [1, 8], "saturated": [0, 0.8], "agreement": 7, "offset": 6},
}
VALIDATION = {
    "sample_per_scene": 10,
    "pairs_per_scene": 0,
    "held_out": ["0015"],
    "copies": 0,
    "fit": 0.3,
    "fitting": 0.7,
    "overlap": [0.1, 1.0],
    "pose_error": 1e-4,
    "depth_coverage": 0.2,
    "failed": 0.02,
    "judged": 0.5,
    "bands": BANDS,
    "suites": {},
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    World(root).make()
    return root


@pytest.fixture
def world(sound, tmp_path, monkeypatch):
    shutil.copytree(sound, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    world = World(Path("data"))
    world.pictures = {f"{s}/{v:03d}": _picture(s, v) for s in ("alley", "court", "yard") for v in range(VIEWS)}
    return world


def _picture(scene: str, view: int) -> tuple[np.ndarray, np.ndarray]:
    from tiny_world import SCENES, picture

    return picture(100 * list(SCENES).index(scene) + view)


def run(world: World, names: list[str], out: str = "certificate", docs: str = "", **changes: object) -> Certificate:
    Path("params.yaml").write_text(yaml.safe_dump({"modalities": names, "validation": VALIDATION | changes}))
    folders = {"raw": world.raw, "index": world.index, "modalities": world.modalities, "out": Path(out)}
    main(ValidateArgs(report=Path("report.json"), docs=docs, **folders))
    return Certificate.load(Path(out))


def refused(world: World, names: list[str], *words: str) -> str:
    with pytest.raises(DataError) as caught:
        run(world, names)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message
    assert not Path("certificate").exists()
    return message


def test_a_sound_world_is_certified_the_same_twice(world, monkeypatch):
    certificate = run(world, MODALITIES)
    assert certificate.modalities == MODALITIES
    assert (certificate.images, certificate.pairs) == (12, 9)
    assert certificate.index_digest == index_digest(world.index)
    assert certificate.statistics["event"]["agreement"] > 7
    monkeypatch.setenv("MINIMA_WORKERS", "2")
    run(world, MODALITIES, "again")
    for name in (Certificate.FILE, FINDINGS):
        assert Path("certificate", name).read_bytes() == Path("again", name).read_bytes()


@pytest.mark.parametrize("passes", [True, False])
def test_the_docs_are_written_and_replaced_whether_or_not_the_data_pass(world, passes):
    stale = Path("reports/data_docs/stale.html")
    stale.parent.mkdir(parents=True)
    stale.touch()
    if passes:
        run(world, [], docs="reports/data_docs")
    else:
        write_image(world.raw / "yard/dense0/imgs/002.png", np.full((H, W, 3), 120, np.uint8))
        with pytest.raises(DataError, match=r"all of them: reports/data_docs/index\.html"):
            run(world, [], docs="reports/data_docs")
    assert not stale.exists()
    assert Path("reports/data_docs/index.html").is_file()
    assert sorted(p.name for p in Path("reports").iterdir()) == ["data_docs"]


def test_an_unavailable_modality_is_carried_and_not_certified(world):
    shutil.rmtree(world.modalities / "depth")
    manifest = ModalityManifest.load(world.modalities / "event")
    changes = {"modality": "depth", "status": "unavailable", "reason": "no depth in photographs", "scenes": {}}
    manifest.model_copy(update=changes).save(world.modalities / "depth")
    certificate = run(world, MODALITIES)
    assert certificate.modalities == ["infrared", "event"]
    assert certificate.unavailable == {"depth": "no depth in photographs"}
    assert certificate.digests == {name: folder_digest(world.modalities / name) for name in ("infrared", "event")}


def test_pixels_of_a_sample_and_ids_of_all_are_looked_at(world):
    run(world, ["infrared"], sample_per_scene=1)
    rules = {
        (row["table"], row["rule"]): row["checked"] for row in json.loads(Path("certificate", FINDINGS).read_text())
    }
    assert rules["infrared", "infrared images show the structure of their source"] == len(SCENES)
    assert rules["infrared", "infrared images have their source's width"] == len(SCENES) * VIEWS


def test_images_of_another_size_are_named(world):
    image = np.ascontiguousarray(render("infrared", *world.pictures["court/002"])[:-8])
    world.write_shard("infrared", "court", {"court/002": image})
    refused(world, ["infrared"], "court/002", "height", "1 of 12", "dvc repro -f -s synthesise@infrared")


def test_a_black_image_is_named(world):
    world.write_shard("infrared", "yard", {"yard/001": np.zeros((H, W, 3), np.uint8)})
    refused(world, ["infrared"], "yard/001", "contrast of infrared images", "(0)")


def test_a_fourth_colour_in_an_event_image_is_named(world):
    image = render("event", *world.pictures["alley/000"])
    image[5, 5] = (0, 255, 0)
    world.write_shard("event", "alley", {"alley/000": image})
    refused(world, ["event"], "alley/000", "#ffffff, #0000ff, #ff0000")


def test_shuffled_images_are_named(world):
    ids = [f"alley/{v:03d}" for v in range(VIEWS)]
    images = [render("infrared", *world.pictures[name]) for name in ids]
    world.write_shard("infrared", "alley", dict(zip(ids, images[1:] + images[:1], strict=True)))
    message = refused(
        world,
        ["infrared"],
        "alley/000",
        "alley/001",
        "alley/002 ",
        "structure of their source",
        "4 of 12",
        "and 1 more",
    )
    assert "yard" not in message


def test_one_shifted_image_is_named(world):
    image = np.roll(render("depth", *world.pictures["court/003"]), (10, 14), (0, 1))
    world.write_shard("depth", "court", {"court/003": image})
    refused(world, ["depth"], "court/003", "depth images")


@pytest.mark.parametrize("pale", [1, 2])
def test_as_many_pale_images_as_the_band_says_are_let_through(world, pale):
    ids = [f"court/{v:03d}" for v in range(pale)]
    white = np.full((H, W, 3), 255, np.uint8)
    world.write_shard("event", "court", dict.fromkeys(ids, white))
    bands = BANDS | {"event": BANDS["event"] | {"mostly": 0.9}}  # of twelve images one may be outside, not two
    if pale == 1:
        assert run(world, ["event"], bands=bands).modalities == ["event"]
    else:
        said = r"contrast of event images .* \(at least 90% of them\); 2 of 12 break it: court/000"
        with pytest.raises(DataError, match=said):
            run(world, ["event"], bands=bands)


def test_damaged_bytes_are_named(world):
    world.write_shard("event", "yard", {"yard/003": b"no image at all"})
    refused(world, ["event"], "yard/003", "can be decoded")


def test_a_missing_id_is_named(world):
    world.write_shard("event", "yard", {"yard/002": None})
    refused(world, ["event"], "yard/002", "every event image is in its shard")


def test_a_missing_shard_names_its_images(world):
    (world.modalities / "event" / "court.h5").unlink()
    refused(world, ["event"], "court/000", "4 of 12")


def test_images_that_the_index_lacks_are_named(world):
    scene = read_scene(world.index, "yard")
    last = VIEWS - 1
    fields = {name: getattr(scene, name)[:last] for name in ("image", "depth", "material", "size", "K", "T_w2c")}
    world.change("yard", **fields, pairs=scene.pairs[:-1], overlap=scene.overlap[:-1])
    refused(world, ["event"], "yard/003", "no image that the index lacks")


def test_a_stale_manifest_is_named(world):
    world.write_modality("event", source_digest="0" * 64)
    refused(world, ["event"], "event", "present index", "dvc repro synthesise")


def test_too_many_failed_images_are_refused(world):
    world.write_shard("event", "yard", {"yard/002": None})
    ModalityManifest.load(world.modalities / "event").model_copy(update={"failed": {"yard/002": "flat"}}).save(
        world.modalities / "event"
    )
    refused(world, ["event"], "event", "left out at most 2%")


def test_images_that_the_gate_refused_count_as_left_out(world):
    world.write_shard("event", "yard", {"yard/002": None})
    world.write_modality("event", rejected={"yard/002": "blank"})
    world.write_shard("event", "yard", {"yard/002": None})
    refused(world, ["event"], "event", "left out at most 2%")


@pytest.mark.parametrize("shards", [True, False])
def test_a_modality_of_which_the_gate_refused_all_is_refused(world, shards):
    ids = list(world.pictures)
    world.write_modality("event", scenes=dict.fromkeys(SCENES, 0), rejected=dict.fromkeys(ids, "blank"))
    for scene in SCENES:
        world.write_shard("event", scene, dict.fromkeys(ids))
        if not shards:
            (world.modalities / "event" / f"{scene}.h5").unlink()
    refused(world, MODALITIES, "left out at most 2%", "1 of 3", "event/manifest.json (1)", "`rejected`")


def test_what_random_weights_made_is_refused(world):
    world.write_modality("event", weights="random")
    refused(world, ["event"], "event", "random weights", "weights: published")


def test_nan_depth_names_the_file(world):
    depth = world.pictures["court/001"][1].copy()
    depth[3, 4] = np.nan
    write_depth(world.raw / "court/dense0/depths/001.h5", depth)
    refused(world, [], "court/001", "depths/001.h5", "depth maps can be read")


def test_missing_depth_names_the_file(world):
    (world.raw / "alley/dense0/depths/002.h5").unlink()
    refused(world, [], "alley/002", "depths/002.h5")


def test_sparse_depth_is_refused(world):
    depth = np.zeros((H, W), np.float32)
    depth[:10] = 2
    write_depth(world.raw / "alley/dense0/depths/002.h5", depth)
    refused(world, [], "alley/002", "at least 20%")


@pytest.mark.parametrize("value", [np.nan, 1.5, 0.01])
def test_bad_overlap_names_the_pair(world, value):
    overlap = read_scene(world.index, "court").overlap
    overlap[1] = value
    world.change("court", overlap=overlap)
    refused(world, [], "court/001 - court/002", "overlap")


@pytest.mark.parametrize("value", [np.nan, 1.1])
def test_a_bad_pose_names_the_image(world, value):
    poses = read_scene(world.index, "alley").T_w2c
    poses[2, 0, 0] = value
    world.change("alley", T_w2c=poses)
    refused(world, [], "alley/002 in data/raw/alley/dense0/imgs/002.png", "orthonormal")


def test_a_bad_camera_names_the_image(world):
    K = read_scene(world.index, "alley").K
    K[1, 0, 0] = 0
    world.change("alley", K=K)
    refused(world, [], "alley/001", "focal length not positive")


def test_an_image_in_two_splits_is_named(world):
    copied = world.raw / "yard/dense0/imgs/000.png"
    write_image(copied, world.pictures["alley/001"][0])
    refused(world, [], "alley/001", "yard/000", "split val", "no image is in two splits")


def test_a_scene_in_two_splits_is_refused(world):
    manifest = world.index / "index.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"yard"', '"court"'))
    refused(world, [], "court", "one split")


def test_a_truncated_source_is_named(world):
    path = world.raw / "yard/dense0/imgs/001.png"
    path.write_bytes(path.read_bytes()[:3000])
    refused(world, [], "yard/001", "source images can be read")


def test_a_source_without_texture_is_named(world):
    write_image(world.raw / "yard/dense0/imgs/002.png", np.full((H, W, 3), 120, np.uint8))
    refused(world, [], "yard/002", "contrast of rgb images")


def test_a_misspelt_modality_is_answered_with_the_right_name(world):
    with pytest.raises(ConfigError, match="did you mean 'infrared'"):
        run(world, ["infrard"])


def test_a_missing_modality_says_what_to_run(world):
    shutil.rmtree(world.modalities / "event")
    with pytest.raises(DataError, match=r"manifest.json; make it again with `dvc repro`"):
        run(world, ["event"])


def test_a_scene_of_a_benchmark_is_refused_unless_it_is_for_testing(world):
    with pytest.raises(
        DataError, match=r"no scene of a benchmark is used for training.*yard .*yard is in the split val"
    ):
        run(world, [], held_out=["yard", "0015"])
    world.change("yard", split="test")
    run(world, [], held_out=["yard", "0015"])


def test_an_image_that_is_there_twice_is_named_and_a_share_of_them_let_through(world):
    write_image(world.raw / "alley/dense0/imgs/002.png", world.pictures["alley/001"][0])
    write_depth(world.raw / "alley/dense0/depths/002.h5", world.pictures["alley/001"][1])
    refused(world, [], "alley/002", "images are there once", "the same as data/raw/alley/dense0/imgs/001.png")
    run(world, [], copies=0.1)


def test_a_copy_in_another_split_is_found_though_its_bytes_differ(world):
    brighter = np.clip(world.pictures["alley/001"][0].astype(np.int16) + 3, 0, 255).astype(np.uint8)
    write_image(world.raw / "yard/dense0/imgs/000.png", brighter)
    refused(world, [], "alley/001", "looks the same as data/raw/yard/dense0/imgs/000.png of split val")


def test_an_image_upside_down_to_its_depth_map_is_named(world):
    write_image(
        world.raw / "court/dense0/imgs/003.png", np.ascontiguousarray(world.pictures["court/003"][0][::-1, ::-1])
    )
    refused(world, [], "court/003", "lie the way", "upside down")


def test_an_exif_flag_that_cameras_do_not_know_is_named(world):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    Image.fromarray(world.pictures["court/001"][0]).save(world.raw / "court/dense0/imgs/001.png", exif=exif)
    refused(world, [], "court/001", "EXIF")


@pytest.mark.parametrize("folder", ["court/dense1/imgs", "court/dense0/materials", "lost/dense0/imgs"])
def test_an_empty_folder_is_named(world, folder):
    (world.raw / folder).mkdir(parents=True)
    refused(world, [], folder, "no folder of images or depth maps is empty")


def test_labels_in_the_place_of_distances_are_named(world):
    depth = np.where(world.pictures["alley/002"][1] > 2, 2, 1).astype(np.float32)
    write_depth(world.raw / "alley/dense0/depths/002.h5", depth)
    refused(world, [], "alley/002", "holds labels that order regions")


@pytest.fixture
def wall(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    world = PlaneWorld(Path("data"))
    world.make()
    return world


def test_poses_that_are_those_of_the_images_pass_and_others_are_named(wall):
    run(wall, [], pairs_per_scene=3)
    a = np.deg2rad(15)
    poses = read_scene(wall.index, "court").T_w2c
    poses[1::2, 1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    wall.change("court", T_w2c=poses)
    run(wall, [], pairs_per_scene=3, fitting=0.5)  # two scenes of three fit
    said = r"agree with its pose.* \(at least 70% of the pairs\); 3 of 9 break it: court/000 - court/001"
    with pytest.raises(DataError, match=said):
        run(wall, [], pairs_per_scene=3)


def test_a_brought_index_is_judged_by_the_suite_of_its_form(world):
    (world.raw / "court/dense0/depths/001.h5").unlink()
    depth = np.zeros((H, W), np.float32)
    depth[:10] = np.linspace(2, 3, W)
    write_depth(world.raw / "court/dense0/depths/001.h5", depth)
    manifest = SceneManifest.load(world.index)
    manifest.model_copy(update={"dataset": "imported"}).save(world.index)
    manifest.model_copy(update={"dataset": "megadepth"}).save(world.raw)
    megadepth = {"megadepth": {"depth_coverage": 0.01}}
    run(world, [], suites=megadepth)
    with pytest.raises(DataError, match="at least 20%"):  # one of its own comes first
        run(world, [], suites=megadepth | {"imported": {}})
    (world.raw / SceneManifest.FILE).unlink()
    with pytest.raises(DataError, match="at least 20%"):
        run(world, [], suites=megadepth)


def test_a_suite_holds_what_is_other_for_a_data_set(world):
    (world.raw / "court/dense0/depths/001.h5").unlink()
    depth = np.zeros((H, W), np.float32)
    depth[:10] = np.linspace(2, 3, W)
    write_depth(world.raw / "court/dense0/depths/001.h5", depth)
    refused(world, [], "court/001", "at least 20%")
    with pytest.raises(DataError, match="at least 20%"):
        run(world, [], suites={"other": {"depth_coverage": 0.01}})
    run(world, [], suites={"tiny": {"depth_coverage": 0.01, "bands": {"rgb": {"std": [1, 127]}}}})
    with pytest.raises(ConfigError, match=r"'depth_cover' is not in .*validation\.suites\.tiny"):
        run(world, [], suites={"tiny": {"depth_cover": 0.01}})


PRESENT = yaml.safe_load((Path(__file__).resolve().parents[2] / "params.yaml").read_text())["validation"]


def refused_as(world: World, dataset: str, text: str) -> None:
    """Check that the settings in use let the world through, but not under the name of ``dataset``."""
    run(world, [], **PRESENT)
    manifest = SceneManifest.load(world.index)
    manifest.model_copy(update={"dataset": dataset}).save(world.index)
    with pytest.raises(DataError, match=text):
        run(world, [], **PRESENT)


def named(world: World, dataset: str) -> None:
    """Check that a sound world passes under the name of ``dataset``, and give it back its own."""
    manifest = SceneManifest.load(world.index)
    manifest.model_copy(update={"dataset": dataset}).save(world.index)
    run(world, [], **PRESENT)
    manifest.save(world.index)


def test_a_rendered_pose_must_be_rigid_to_the_last_bits(world):
    named(world, "synthetic")
    poses = read_scene(world.index, "court").T_w2c
    poses[1, :3, :3] *= 1 + 1e-5
    world.change("court", T_w2c=poses)
    refused_as(world, "synthetic", r"poses are finite and orthonormal; 1 of 12 break it: court/001")


def test_rendered_depth_must_be_known_on_most_of_an_image(world):
    depth = world.pictures["court/001"][1].copy()
    depth[: H // 2] = 0
    write_depth(world.raw / "court/dense0/depths/001.h5", depth)
    refused_as(world, "synthetic", r"depth is known on at least 60%.*court/001")


def test_a_rendered_image_is_neither_flat_nor_burnt_out(world):
    image = world.pictures["court/001"][0].copy()
    image[: H // 3] = 255
    write_image(world.raw / "court/dense0/imgs/001.png", image)
    refused_as(world, "synthetic", r"saturated pixels of rgb images is within 0 to 0\.05.*court/001")


def test_poses_of_a_third_of_the_pairs_may_not_be_wrong_where_they_are_rendered(wall):
    named(wall, "synthetic")
    a = np.deg2rad(15)
    poses = read_scene(wall.index, "court").T_w2c
    poses[1::2, 1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    wall.change("court", T_w2c=poses)
    refused_as(wall, "synthetic", r"at least 20% of the matches.*3 of 9 break it: court/000 - court/001")


def test_of_posed_frames_more_pairs_are_matched(wall):
    pairs = np.array([[i, j] for i in range(VIEWS) for j in range(VIEWS) if i != j])
    for scene in SCENES:
        wall.change(scene, pairs=pairs, overlap=np.full(len(pairs), 0.6))
    matched = []
    for dataset in ("tiny", "rgbd"):
        manifest = SceneManifest.load(wall.index)
        manifest.model_copy(update={"dataset": dataset}).save(wall.index)
        run(wall, [], **PRESENT)
        findings = json.loads(Path("certificate", FINDINGS).read_text())
        matched += [row["checked"] for row in findings if "matches of a pair" in row["rule"]]
    assert matched == [3 * 4, 3 * len(pairs)]


@pytest.mark.parametrize("dataset", ["photos", "commons"])
def test_homographies_of_two_pairs_in_nine_may_not_be_wrong(wall, dataset):
    H_0to1 = np.tile(np.eye(3), (VIEWS - 1, 1, 1))
    H_0to1[:, 0, 2] = STEP
    for scene in SCENES:
        wall.change(scene, H_0to1=H_0to1, depth=[""] * VIEWS)
    named(wall, dataset)
    wrong = H_0to1.copy()
    wrong[:2, 0, 2] += 20
    wall.change("court", H_0to1=wrong)
    refused_as(wall, dataset, r"at least 50% of the matches.*2 of 9 break it: court/000 - court/001")
