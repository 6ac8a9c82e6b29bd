"""Benchmarks read from the folders that their authors publish: tiny trees with the same names, and what is at hand."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from minima_core.acquire.sources import fetch_source
from minima_core.errors import ConfigError, DataError
from minima_core.evaluation.benchmarks._megadepth import LIST, PARTS
from minima_core.evaluation.benchmarks.base import (
    BENCHMARKS,
    Benchmark,
    PairList,
    PairTruth,
    Prepared,
    create_benchmark,
)
from minima_core.evaluation.benchmarks.diode_depth import DiodeDepth
from minima_core.evaluation.benchmarks.diode_normal import DiodeNormal
from minima_core.evaluation.metrics import epipolar_errors
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.homography_sampler import published_homography, sample_homography
from minima_core.io.images import write_image
from minima_core.io.pickled import pickle_bytes
from minima_core.random import rng
from minima_core.types import RGB

SHARED = Path(__file__).resolve().parents[5] / "shared/data"
K = np.array([[60.0, 0, 24], [0, 60, 16], [0, 0, 1]])
SIZE = (48, 32)


def prepare(name: str, folder: Path, **settings):
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    return benchmark(name, **settings).prepare(folder, scratch=folder.parent / "scratch")


def benchmark(name: str, protocol: str = "minima-v1", **settings) -> Benchmark:
    """Return a benchmark of all its pairs, unless ``settings`` ask for a part."""
    part = {"subset": "full", "scenes": []}
    whole = {key: value for key, value in part.items() if key in BENCHMARKS.get(name).Params.model_fields}
    return create_benchmark(name, whole | settings, protocol)


def noise(path: Path, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    write_image(path, np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    return path


def pose(x: float, angle: float = 0.0) -> np.ndarray:
    """World to camera of one that stands at (x, 0, 0), turned about its vertical axis."""
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T[:3, 3] = T[:3, :3] @ [-x, 0, 0]
    return T


def megadepth_part(path: Path, scene: str, entries: list[tuple[int, int]]) -> None:
    """Write an index file as LoFTR's are: a pickled dict, None where a record is unused."""
    images = np.array([None, *(f"Undistorted_SfM/{scene}/images/{k}_o.jpg" for k in (1, 2, 3))], dtype=object)
    poses, intrinsics = np.empty(4, object), np.empty(4, object)
    for k in (1, 2, 3):
        poses[k], intrinsics[k] = pose(0.2 * k, 0.05 * k), K + np.diag([k, 0, 0])
    pairs = [(np.array(entry), 0.3, np.zeros(4)) for entry in entries]
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"image_paths": images, "depth_paths": images, "intrinsics": intrinsics, "poses": poses}
    path.write_bytes(pickle_bytes({**arrays, "pair_infos": pairs}))


@pytest.fixture
def megadepth(tmp_path) -> dict[str, Path]:
    """Two scenes of three photographs, and infrared pictures of them."""
    where = {"root": tmp_path / "mega", "index": tmp_path / "index", "synthetic": tmp_path / "mega/train"}
    for scene, part in (("0022", PARTS[0]), ("0015", PARTS[1])):
        megadepth_part(where["index"] / f"{part}.npz", scene, [(1, 2), (3, 1)])
        for k in (1, 2, 3):
            noise(where["root"] / f"test/Undistorted_SfM/{scene}/images/{k}_o.jpg", k)
            noise(where["synthetic"] / f"infrared/Undistorted_SfM/{scene}/images/{k}_o.png", 10 * k)
    return where


def plain(where: dict[str, Path]) -> dict[str, Path]:
    return {"root": where["root"], "index": where["index"]}


def test_a_pair_of_megadepth_has_the_pose_from_its_first_camera_to_its_second(megadepth, tmp_path):
    manifest = prepare("megadepth_1500", tmp_path / "out", **plain(megadepth))
    assert manifest.categories == {"0022_0.1_0.3": 2, "0015_0.1_0.3": 2}
    listed = PairList.load(tmp_path / "out")
    first, second = listed.pairs[:2]
    assert (first.image0, first.image1) == tuple(f"Undistorted_SfM/0022/images/{k}_o.jpg" for k in (1, 2))
    assert (first.K0[0][0], first.K1[0][0], first.size0) == (61, 62, SIZE)
    world = np.array([[0.3, -0.2, 3.0], [1, 0.5, 4], [-1, 0.1, 2]])
    for pair, (i, j) in ((first, (1, 2)), (second, (3, 1))):
        seen = [world @ pose(0.2 * k, 0.05 * k)[:3, :3].T + pose(0.2 * k, 0.05 * k)[:3, 3] for k in (i, j)]
        T = np.array(pair.T_0to1)
        assert np.allclose(seen[0] @ T[:3, :3].T + T[:3, 3], seen[1])
    assert Prepared(tmp_path / "out").load(first).image0.shape == (3, 32, 48)


@pytest.mark.parametrize("above", ["", "images", "megadepth1500", "megadepth1500/images"])
def test_photographs_are_found_below_the_folders_of_an_archive(megadepth, tmp_path, above):
    root = tmp_path / "root"
    (root / above).mkdir(parents=True)
    (megadepth["root"] / "test/Undistorted_SfM").rename(root / above / "Undistorted_SfM")
    assert not prepare("megadepth_1500", tmp_path / "out", root=root, index=megadepth["index"]).skipped


def test_the_list_decides_the_order_of_the_parts(megadepth, tmp_path):
    (megadepth["index"] / LIST).write_text("0015_0.1_0.3\n0022_0.1_0.3\n")
    prepare("megadepth_1500", tmp_path / "out", **plain(megadepth))
    assert PairList.load(tmp_path / "out").headline == ["0015_0.1_0.3", "0022_0.1_0.3"]


def test_generated_sides_come_in_both_directions_and_a_group_a_modality(megadepth, tmp_path):
    prepare("megadepth_1500_syn", tmp_path / "out", **megadepth, modalities=["infrared"])
    listed = PairList.load(tmp_path / "out")
    assert len(listed.pairs) == 8
    assert listed.groups == {"infrared": ["infrared/0022_0.1_0.3", "infrared/0015_0.1_0.3"]}
    one, other = listed.pairs[:2]
    assert one.image0 == "test/Undistorted_SfM/0022/images/1_o.jpg"
    assert one.image1 == "train/infrared/Undistorted_SfM/0022/images/2_o.png"
    assert other.image0 == "train/infrared/Undistorted_SfM/0022/images/1_o.png"
    assert other.image1 == "test/Undistorted_SfM/0022/images/2_o.jpg"
    assert one.T_0to1 == other.T_0to1
    assert Prepared(tmp_path / "out").load(other).image0.shape == (3, 32, 48)


def test_a_missing_photograph_or_picture_is_named(megadepth, tmp_path):
    picture = megadepth["synthetic"] / "infrared/Undistorted_SfM/0022/images/2_o.png"
    picture.unlink()
    with pytest.raises(DataError, match=r"no .*2_o\.png"):
        prepare("megadepth_1500_syn", tmp_path / "out", **megadepth, modalities=["infrared"])
    (megadepth["root"] / "test/Undistorted_SfM/0022/images/2_o.jpg").unlink()
    with pytest.raises(DataError, match=r"no .*2_o\.jpg"):
        prepare("megadepth_1500", tmp_path / "out", **plain(megadepth))


@pytest.mark.parametrize("entries", [[(0, 1)], [(1, 9)], [(-1, 1)], [(1,)]])
def test_a_pair_that_points_at_nothing_is_refused(megadepth, tmp_path, entries):
    megadepth_part(megadepth["index"] / f"{PARTS[0]}.npz", "0022", entries)
    with pytest.raises(DataError, match=r"0022_0\.1_0\.3\.npz is no index of MegaDepth-1500"):
        prepare("megadepth_1500", tmp_path / "out", **plain(megadepth))


@pytest.mark.parametrize("scene", ["../../etc", "/etc"])
def test_a_path_that_leads_out_of_the_folder_is_refused(megadepth, tmp_path, scene):
    path = megadepth["index"] / f"{PARTS[0]}.npz"
    megadepth_part(path, "0022", [(1, 2)])
    path.write_bytes(path.read_bytes().replace(b"Undistorted_SfM/0022/images/1_o.jpg", f"{scene:0<35}".encode()))
    with pytest.raises(DataError, match="no path inside its folder"):
        prepare("megadepth_1500", tmp_path / "out", **plain(megadepth))


def test_the_real_index_is_read_to_its_1500_pairs(tmp_path):
    index = SHARED / "megadepth_1500_index"
    if not index.is_dir():
        pytest.skip(f"no real index files at {index}")
    from minima_core.io.pickled import read_arrays

    tiny = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for part in PARTS:
        for name in filter(None, read_arrays(index / f"{part}.npz")["image_paths"]):
            path = tmp_path / "mega/test" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tiny)
    manifest = prepare("megadepth_1500", tmp_path / "out", root=tmp_path / "mega", index=index)
    assert (manifest.pairs, manifest.categories) == (1500, dict.fromkeys(PARTS, 300))
    pairs = PairList.load(tmp_path / "out").pairs
    assert len({pair.name for pair in pairs}) == 1500
    for pair in pairs[::100]:
        R = np.array(pair.T_0to1)[:3, :3]
        assert np.allclose(R @ R.T, np.eye(3), atol=1e-6) and np.linalg.det(R) == pytest.approx(1, abs=1e-6)


BENT = np.array([-0.2, 0.05, 0, 0, 0, 0, 0, 0])
CONDITIONS = ("cloudy_cloudy_scene_1", "cloudy_cloudy_scene_2", "cloudy_sunny_scene_1")


def vistir(root: Path, image=noise) -> Path:
    """Write three index files of two rig positions each, with their images."""
    (root / "index/scene_info_test").mkdir(parents=True)
    (root / "index/val_test_list").mkdir()
    (root / "index/val_test_list/test_list.txt").write_text("\n".join(CONDITIONS))
    for name in CONDITIONS:
        paths = [[f"{name}/{kind}/images/IM_{k}.jpg" for kind in ("visible", "thermal")] for k in range(2)]
        for k, both in enumerate(paths):
            for side, path in enumerate(both):
                image(root / path, 2 * k + side)
        np.savez(
            root / f"index/scene_info_test/{name}.npz",
            image_paths=np.array(paths),
            intrinsics=np.broadcast_to(K, (2, 2, 3, 3)),
            distortion_coefs=np.broadcast_to(BENT, (2, 2, 8)),
            poses=np.stack([pose(0), pose(0.5)]),
            pair_infos=np.array([[0, 1], [1, 0]]),
        )
    return root


def test_pairs_of_vistir_are_visible_against_thermal_by_condition(tmp_path):
    manifest = prepare("metu_vistir", tmp_path / "out", root=vistir(tmp_path / "vistir"))
    assert manifest.categories == dict.fromkeys(CONDITIONS, 2)
    listed = PairList.load(tmp_path / "out")
    assert listed.groups == {"cloudy_cloudy": list(CONDITIONS[:2]), "cloudy_sunny": [CONDITIONS[2]]}
    first, second = listed.pairs[:2]
    assert first.image0.endswith("visible/images/IM_0.jpg") and first.image1.endswith("thermal/images/IM_1.jpg")
    assert np.allclose(first.T_0to1, pose(0.5)) and np.allclose(second.T_0to1, np.linalg.inv(pose(0.5)))


def test_images_of_vistir_are_straightened_and_their_camera_is_that_of_the_result(tmp_path):
    """A line that the lens bends is straight in what is matched, and its points are where the new camera sees them."""
    K_ = np.array([[200.0, 0, 160], [0, 200, 120], [0, 0, 1]])
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 7), np.linspace(-0.4, 0.4, 5))
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], -1)
    bent, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K_, BENT)

    def dots(path: Path, seed: int) -> Path:
        image = np.zeros((240, 320), np.uint8)
        for point in bent[:, 0]:
            cv2.circle(image, tuple(int(v) for v in np.round(point * 16)), 4 * 16, 255, -1, cv2.LINE_AA, shift=4)
        write_image(path.with_suffix(".png"), np.repeat(image[..., None], 3, 2))
        path.with_suffix(".png").rename(path)
        return path

    root = vistir(tmp_path / "vistir", dots)
    for path in (root / "index/scene_info_test").iterdir():
        arrays = dict(np.load(path)) | {"intrinsics": np.broadcast_to(K_, (2, 2, 3, 3))}
        np.savez(path, **arrays)
    prepare("metu_vistir", tmp_path / "out", root=root)
    pair = Prepared(tmp_path / "out").load(PairList.load(tmp_path / "out").pairs[0])
    straight = (pair.image0[0].numpy() > 0.5).astype(np.uint8)
    _, _, _, centres = cv2.connectedComponentsWithStats(straight)
    expected = rays @ pair.K0.numpy().T
    inner = [p for p in expected[:, :2] if 6 < p[0] < 313 and 6 < p[1] < 233]
    distance = np.linalg.norm(np.array(inner)[:, None] - centres[None, 1:], axis=-1).min(1)
    assert len(inner) >= 9 and distance.max() < 0.5
    assert not np.allclose(pair.K0.numpy(), K_, atol=1)


def test_real_frames_of_vistir_go_through_the_published_matching(tmp_path):
    frames = SHARED / "vistir_frames"
    if not frames.is_dir():
        pytest.skip(f"no real frames at {frames}")
    from minima_core.evaluation.matching import resize_upstream

    def real(path: Path, seed: int) -> Path:
        kind = "thermal" if "thermal" in str(path) else "visible"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(sorted(frames.glob(f"{kind}_*"))[seed // 2])
        return path

    root = vistir(tmp_path / "vistir", real)
    for path in (root / "index/scene_info_test").iterdir():
        cameras = np.array([[[2940.0, 0, 1920], [0, 2940, 1080], [0, 0, 1]], [[768, 0, 320], [0, 768, 256], [0, 0, 1]]])
        np.savez(path, **dict(np.load(path)) | {"intrinsics": np.stack([cameras, cameras])})
    prepare("metu_vistir", tmp_path / "out", root=root)
    listed = PairList.load(tmp_path / "out")
    assert (listed.pairs[0].size0, listed.pairs[0].size1) == ((3840, 2160), (640, 512))
    small, scale = resize_upstream(Prepared(tmp_path / "out").image(listed.pairs[0].image0, listed.pairs[0].sha0), 640)
    assert small.shape == (3, 360, 640) and scale == (6, 6)


STEM = "scene_00022/scan_00193/00022_00193_outdoor_000_010"


@pytest.fixture
def diode(tmp_path) -> Path:
    """One photograph whose white disc is a hole in the depth, beside normals."""
    stem = tmp_path / "DIODE/val/outdoor" / STEM
    rows, columns = np.mgrid[:480, :640]
    disc = (columns - 320) ** 2 + (rows - 240) ** 2 <= 400
    write_image(stem.with_name(stem.name + ".png"), np.where(disc[..., None], 255, 40).repeat(3, -1).astype(np.uint8))
    depth = np.where(disc, 0.0, 5 + rows / 100)[..., None]
    np.save(f"{stem}_depth.npy", depth.astype(np.float32))
    np.save(f"{stem}_depth_mask.npy", (~disc).astype(np.float32))
    np.save(f"{stem}_normal.npy", np.where(disc[..., None], [0.0, 0, -1], [0.0, -1, 0]))
    return tmp_path / "DIODE"


def centre(mask: torch.Tensor) -> torch.Tensor:
    return mask.nonzero().flip(-1).double().mean(0)


@pytest.mark.parametrize("name", ["diode_depth", "diode_normal"])
def test_the_second_image_of_diode_is_warped_as_the_path_of_the_first_says(diode, tmp_path, name):
    prepare(name, tmp_path / "out", root=diode)
    pairs = [Prepared(tmp_path / "out").load(truth) for truth in PairList.load(tmp_path / "out").pairs]
    kind = name.removeprefix("diode_")
    assert [pair.category for pair in pairs] == [f"rgb-{kind}", f"{kind}-rgb"]
    for pair, folder in zip(pairs, ("outdoor", f"outdoor_{kind}"), strict=True):
        H = published_homography((640, 480), f"./data/DIODE/val/{folder}/{STEM}.png")
        assert torch.allclose(pair.H_0to1, torch.from_numpy(H / H[2, 2]))
    forward = pairs[1]  # the photograph, warped, is image 1
    carried = warp_homography(forward.H_0to1, torch.tensor([[320.0, 240]]).double())[0]
    assert torch.allclose(centre(forward.image1.mean(0) > 0.8), carried, atol=0.5)


def test_a_strict_protocol_draws_homographies_by_names_and_the_two_do_not_mix(diode, tmp_path):
    for protocol, folder in (("minima-v1", "published"), ("strict-v1", "strict"), ("strict-v1", "again")):
        made = benchmark("diode_depth", protocol, root=str(diode))
        made.prepare(tmp_path / folder, scratch=tmp_path / "scratch")
    published, strict, again = (Prepared(tmp_path / folder) for folder in ("published", "strict", "again"))
    assert strict.manifest.data_digest == again.manifest.data_digest != published.manifest.data_digest
    for one, other in zip(published.list.pairs, strict.list.pairs, strict=True):
        assert one.name == other.name and one.sha0 == other.sha0 and one.sha1 != other.sha1
        H = sample_homography((640, 480), rng(0, other.name))
        assert np.allclose(np.array(other.H_0to1), H / H[2, 2])
    strict.check_protocol("strict-v1")
    path = tmp_path / "published/pairs.json"  # as it was before protocols were written down
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "protocol"})
    )
    with pytest.raises(DataError, match=r"pairs\.json is not a valid PairList \(protocol: .*fetch the benchmark again"):
        Prepared(tmp_path / "published")
    with pytest.raises(DataError, match=r"drawn as strict-v1 does, minima-v1 draws others.*evaluation\.diode_depth"):
        strict.check_protocol("minima-v1")


def test_depth_is_drawn_as_the_devkit_does_and_a_picture_that_was_brought_is_taken(diode, tmp_path):
    drawn = DiodeDepth.draw(diode / f"val/outdoor/{STEM}_depth.npy")
    assert not drawn[240, 320].any()  # the hole
    near, far = drawn[0, 0].astype(int), drawn[479, 0].astype(int)
    assert near.argmax() == 2 and far.argmax() == 0  # jet: from blue to red
    normal = DiodeNormal.draw(diode / f"val/outdoor/{STEM}_normal.npy")
    assert normal[240, 320].tolist() == [128, 128, 0] and normal[0, 0].tolist() == [128, 0, 128]
    picture = noise(diode / f"val/outdoor_depth/{STEM}.png", size=(640, 480))
    prepare("diode_depth", tmp_path / "out", root=diode)
    pair = PairList.load(tmp_path / "out").pairs[1]
    assert (tmp_path / "out" / pair.image0).read_bytes() == picture.read_bytes()


def test_the_list_of_diode_decides_which_photographs_count(diode, tmp_path):
    path = diode / "val/data_list/val_outdoor.csv"
    path.parent.mkdir()
    for text, found in ((f"./val/outdoor/{STEM}.png,./a.npy,./b.npy\n", 2), ("./val/outdoor/none.png,,\n", None)):
        path.write_text(text)
        if found:
            assert prepare("diode_depth", tmp_path / "out", root=diode).pairs == found
            continue
        with pytest.raises(DataError, match=r"none_depth\.npy"):
            prepare("diode_depth", tmp_path / "out", root=diode)
    (diode / f"val/outdoor/{STEM}_depth.npy").write_bytes(b"no array")
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*_depth\.npy"):
        prepare("diode_depth", tmp_path / "out", root=diode)


def test_the_first_image_of_dsec_is_warped_and_frames_without_events_are_left_out(diode, tmp_path, caplog):
    root = tmp_path / "DSEC"
    disc = diode / f"val/outdoor/{STEM}.png"
    for kind in ("images", "events"):
        (root / f"thun_01_a/{kind}").mkdir(parents=True)
        (root / f"thun_01_a/{kind}/000345.png").write_bytes(disc.read_bytes())
    (root / "event_list.txt").write_text("thun_01_a/images/000345.png\nthun_01_a/images/000346.png\n")
    assert prepare("dsec", tmp_path / "out", root=root).categories == {"rgb-event": 1, "event-rgb": 1}
    assert "1 of the 2 frames" in caplog.text
    for pair, kind in zip(Benchmark.pairs(tmp_path / "out"), ("images", "events"), strict=True):
        H = published_homography((640, 480), f"./data/DSEC/thun_01_a/{kind}/000345.png")
        assert torch.allclose(torch.linalg.inv(pair.H_0to1), torch.from_numpy(H), atol=1e-4)
        carried = warp_homography(pair.H_0to1, centre(pair.image0.mean(0) > 0.8)[None])[0]
        assert torch.allclose(carried, torch.tensor([320.0, 240]).double(), atol=0.5)
    (root / "event_list.txt").write_text("thun_01_a/images/000346.png\n")
    with pytest.raises(DataError, match="names no frame"):
        prepare("dsec", tmp_path / "out", root=root)


def frames(root: Path, suffix: str = "jpg", count: int = 8) -> Path:
    """Write frames of a wall, seen by a camera that moves along it."""
    root.mkdir()
    (root / "camera-intrinsics.txt").write_text("60 0 31.5\n0 60 23.5\n0 0 1\n")
    for k in range(count):
        stem = root / f"frame-{k:06d}"
        noise(Path(f"{stem}.color.{suffix}"), k, (64, 48))
        cv2.imwrite(f"{stem}.depth.png", np.full((48, 64), 2000, np.uint16))
        np.savetxt(f"{stem}.pose.txt", np.linalg.inv(pose(0.05 * k)))
    return root


@pytest.mark.parametrize("suffix", ["jpg", "png"])  # plain folders, and 7-Scenes
def test_retention_is_measured_on_the_last_frames_of_a_sequence(tmp_path, suffix):
    root = frames(tmp_path / "frames", suffix)
    settings = {"share": 0.5, "overlap": [0.1, 1.0], "pairs": 6, "seed": 0}
    manifest = prepare("rgb_retention", tmp_path / "out", root=root, **settings)
    assert manifest.categories == {"rgbd-val": 6}
    for pair in Benchmark.pairs(tmp_path / "out"):
        kpts0 = torch.tensor([[20.0, 10], [40, 30]])
        shift = 60 * float(pair.T_0to1[0, 3]) / 2.0  # the wall is 2 m away
        errors = epipolar_errors(kpts0, kpts0 + torch.tensor([shift, 0]), pair.T_0to1, pair.K0, pair.K1)
        assert errors.max() < 1e-6 and abs(shift) > 1
    names = {path.name for path in (tmp_path / "out/images/rgbd-val").iterdir()}
    assert names == {f"frame-{k:06d}.jpg" for k in range(4, 8)}


def test_retention_keeps_nothing_of_a_killed_run_on_other_frames(tmp_path, monkeypatch):
    root, settings = frames(tmp_path / "frames"), {"share": 0.5, "overlap": [0.1, 1.0], "pairs": 6, "seed": 0}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minima_core.evaluation.benchmarks.rgb_retention.truths", killed)
        prepare("rgb_retention", tmp_path / "out", root=root, **settings)
    for k in range(8):
        noise(root / f"frame-{k:06d}.color.jpg", 100 + k, (64, 48))
    prepare("rgb_retention", tmp_path / "out", root=root, **settings)
    for k in range(4, 8):
        copied = tmp_path / f"out/images/rgbd-val/frame-{k:06d}.jpg"
        assert copied.read_bytes() == (root / f"frame-{k:06d}.color.jpg").read_bytes()


@pytest.mark.parametrize(
    "files",
    [
        ["house/hall/seq-01/frame-000000.color.png"],
        ["rgbd_dataset_freiburg1_desk/rgb.txt", "rgbd_dataset_freiburg1_desk/groundtruth.txt"],
        ["scene0000_00/color/0.jpg", "scene0000_00/pose/0.txt"],
    ],
    ids=["7-Scenes", "TUM", "ScanNet"],
)
def test_retention_finds_the_sequences_that_the_data_set_rgbd_finds(tmp_path, files):
    retention = benchmark("rgb_retention", root=str(tmp_path), **FOLDERS["rgb_retention"])
    assert "TUM's rgb.txt" in retention.absent()
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert retention.absent() == ""


def test_negatives_take_the_second_image_from_another_place_and_have_no_truth(megadepth, tmp_path):
    settings = {key: str(value) for key, value in megadepth.items()} | {"modalities": ["infrared"], "scenes": []}
    manifest = prepare("negatives", tmp_path / "out", of="megadepth_1500_syn", settings=settings, seed=0)
    listed = PairList.load(tmp_path / "out")
    assert (manifest.pairs, listed.task) == (16, "overlap")
    assert Counter(pair.related for pair in listed.pairs) == {True: 8, False: 8}
    for pair in listed.pairs:
        places = {Path(image).parts[-3] for image in (pair.image0, pair.image1)}
        assert len(places) == (1 if pair.related else 2)
        assert ("infrared" in pair.image0) != ("infrared" in pair.image1)  # one side of each, as in the other benchmark
        assert pair.K0 and pair.K1
    again = prepare("negatives", tmp_path / "again", of="megadepth_1500_syn", settings=settings, seed=0)
    other = prepare("negatives", tmp_path / "other", of="megadepth_1500_syn", settings=settings, seed=1)
    assert again.data_digest == manifest.data_digest != other.data_digest


def test_negatives_need_two_places_and_a_benchmark_that_tells_them_apart(megadepth, tmp_path):
    (megadepth["index"] / f"{PARTS[1]}.npz").unlink()
    settings = {key: str(value) for key, value in plain(megadepth).items()} | {"scenes": []}
    with pytest.raises(DataError, match="need a second place"):
        prepare("negatives", tmp_path / "out", of="megadepth_1500", settings=settings, seed=0)
    with pytest.raises(ConfigError, match="does not say which pairs"):
        benchmark("dsec", root=".").place(PairList.load(unrelated(tmp_path, megadepth)).pairs[0])


def unrelated(tmp_path: Path, megadepth: dict[str, Path]) -> Path:
    prepare("megadepth_1500", tmp_path / "plain", **plain(megadepth))
    return tmp_path / "plain"


def check_part(tmp_path: Path, name: str, subset: str = "smoke", **settings) -> list[PairTruth]:
    """Check that a part holds pairs of the whole, two of each category, and can be told from it; return its pairs."""
    whole = prepare(name, tmp_path / "whole", **settings)
    part = prepare(name, tmp_path / subset, subset=subset, **settings)
    pairs = PairList.load(tmp_path / subset).pairs
    assert part.categories == dict.fromkeys(whole.categories, 2) and max(whole.categories.values()) > 2
    assert [pair for pair in PairList.load(tmp_path / "whole").pairs if pair in pairs] == pairs
    assert (whole.subset, part.subset) == ("", subset) and whole.data_digest != part.data_digest
    Prepared(tmp_path / subset)  # its list belongs to its manifest
    return pairs


ALL = [(1, 2), (3, 1), (2, 3), (2, 1), (1, 3)]  # pairs of three photographs


def test_a_part_of_megadepth_has_the_first_and_the_last_pair_of_each_list(megadepth, tmp_path):
    for scene, part in (("0022", PARTS[0]), ("0015", PARTS[1])):
        megadepth_part(megadepth["index"] / f"{part}.npz", scene, ALL)
    pairs = check_part(tmp_path, "megadepth_1500", **plain(megadepth))
    assert [pair.name.rpartition("/")[2] for pair in pairs] == 2 * ["1_o-2_o", "1_o-3_o"]


def test_a_part_of_generated_pairs_has_both_directions(megadepth, tmp_path):
    pairs = check_part(tmp_path, "megadepth_1500_syn", **megadepth, modalities=["infrared"])
    assert ["infrared" in pair.image0 for pair in pairs] == 2 * [False, True]


def test_scenes_of_megadepth_are_chosen_by_name_and_named_in_the_manifest(megadepth, tmp_path):
    manifest = prepare("megadepth_1500", tmp_path / "out", **plain(megadepth), scenes=["0015"])
    assert (manifest.categories, manifest.subset) == ({"0015_0.1_0.3": 2}, "scenes 0015")
    assert PairList.load(tmp_path / "out").headline == ["0015_0.1_0.3"]
    with pytest.raises(ConfigError, match=r"'0016' is not in the data.*did you mean '0015'"):
        prepare("megadepth_1500", tmp_path / "out", **plain(megadepth), scenes=["0016"])


def test_a_part_of_vistir_holds_the_lenses_of_its_images_alone(tmp_path):
    root = vistir(tmp_path / "vistir")
    for path in (root / "index/scene_info_test").iterdir():  # only the middle pair has the second visible one
        np.savez(path, **dict(np.load(path)) | {"pair_infos": np.array([[0, 0], [1, 1], [0, 1]])})
    pairs = check_part(tmp_path, "metu_vistir", root=root)
    used = {image for pair in pairs for image in (pair.image0, pair.image1)}
    assert set(PairList.load(tmp_path / "smoke").lenses) == used
    one = prepare("metu_vistir", tmp_path / "one", root=root, scenes=["scene_2"])
    assert (list(one.categories), one.subset) == ([CONDITIONS[1]], "scenes scene_2")


def test_what_a_part_of_diode_leaves_out_is_neither_asked_for_nor_warped(diode, tmp_path):
    stem = diode / "val/outdoor" / STEM
    later = stem.parents[2] / "scene_00023/scan_00200"
    later.mkdir(parents=True)
    for name in ("one", "two"):
        for file in stem.parent.iterdir():
            (later / file.name.replace(stem.name, name)).write_bytes(file.read_bytes())
    pairs = check_part(tmp_path, "diode_depth", root=diode)
    assert [pair.name.rpartition("/")[2] for pair in pairs] == [stem.name, stem.name, "two", "two"]
    assert len(list((tmp_path / "smoke").rglob("*.png"))) == 8
    (later / "one_depth.npy").unlink()
    assert prepare("diode_depth", tmp_path / "again", root=diode, subset="smoke").pairs == 4
    one = prepare("diode_depth", tmp_path / "scene", root=diode, scenes=["scene_00022"])
    assert (one.pairs, one.subset) == (2, "scenes scene_00022")


def test_a_part_of_dsec_is_spread_over_its_list(diode, tmp_path):
    root, disc = tmp_path / "DSEC", diode / f"val/outdoor/{STEM}.png"
    for kind in ("images", "events"):
        (root / f"thun_01_a/{kind}").mkdir(parents=True)
        for k in range(4):
            (root / f"thun_01_a/{kind}/{k}.png").write_bytes(disc.read_bytes())
    (root / "event_list.txt").write_text("\n".join(f"thun_01_a/images/{k}.png" for k in range(4)))
    pairs = check_part(tmp_path, "dsec", root=root)
    assert [pair.name[-1] for pair in pairs] == ["0", "0", "3", "3"]


def test_a_part_of_retention_copies_the_frames_of_its_pairs_alone(tmp_path):
    settings = {"share": 0.5, "overlap": [0.1, 1.0], "pairs": 20, "seed": 0}
    pairs = check_part(tmp_path, "rgb_retention", root=frames(tmp_path / "frames", count=16), **settings)
    copied = [{path.name for path in (tmp_path / name).rglob("*.jpg")} for name in ("whole", "smoke")]
    assert copied[1] == {Path(image).name for pair in pairs for image in (pair.image0, pair.image1)} < copied[0]


def test_a_part_of_negatives_is_a_part_of_the_other_benchmark(megadepth, tmp_path):
    for scene, part in (("0022", PARTS[0]), ("0015", PARTS[1])):
        megadepth_part(megadepth["index"] / f"{part}.npz", scene, ALL)
    settings = {key: str(value) for key, value in plain(megadepth).items()} | {"scenes": []}
    manifest = prepare("negatives", tmp_path / "out", subset="smoke", of="megadepth_1500", settings=settings, seed=0)
    assert (manifest.subset, set(manifest.categories.values())) == ("smoke", {4})
    related = Counter((pair.category, pair.related) for pair in PairList.load(tmp_path / "out").pairs)
    assert set(related.values()) == {2} and len(related) == 4
    with pytest.raises(ConfigError, match="subset belongs beside settings"):
        benchmark("negatives", of="megadepth_1500", settings=settings | {"subset": "smoke"}, seed=0)


FOLDERS = {
    "metu_vistir": {},
    "megadepth_1500": {"index": "nowhere"},
    "megadepth_1500_syn": {"index": "nowhere", "synthetic": "nowhere", "modalities": [RGB]},
    "diode_depth": {},
    "diode_normal": {},
    "dsec": {},
    "rgb_retention": {"share": 0.5, "overlap": [0.1, 1.0], "pairs": 1, "seed": 0},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_absent_data_are_skipped_with_the_remedy(tmp_path, name):
    manifest = prepare(name, tmp_path / "out", root=tmp_path / "nowhere", **FOLDERS[name])
    assert manifest.pairs == 0
    assert f"dvc repro -f -s fetch_benchmark@{name}" in manifest.skipped


def test_diode_without_normals_is_skipped_for_normals_alone(diode, tmp_path):
    (diode / f"val/outdoor/{STEM}_normal.npy").unlink()
    manifest = prepare("diode_normal", tmp_path / "out", root=diode)
    assert manifest.pairs == 0 and "minima download diode_val_normals --out" in manifest.skipped
    assert prepare("diode_depth", tmp_path / "depth", root=diode).pairs == 2


@pytest.mark.parametrize(
    ("plugin", "name", "files"),
    [
        ("metu_vistir", "metu_vistir", ["index/scene_info_test/cloudy_cloudy_scene_1.npz"]),
        ("dsec", "dsec_subset", ["event_list.txt", "a/images/0.png", "a/events/0.png"]),
    ],
)
def test_what_download_takes_for_whole_the_benchmark_finds(tmp_path, plugin, name, files):
    for folder in ("deeper", "."):
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).touch()
        found = not benchmark(plugin, root=str(tmp_path)).absent()
        assert found == (folder == ".")
        with nullcontext() if found else pytest.raises(DataError, match="into"):
            fetch_source(name, tmp_path)


def test_every_plugin_that_reads_a_folder_is_tested_here():
    others = {"mmim", "mmim_warped", "own_pairs", "synthetic_six", "negatives"}
    assert set(BENCHMARKS.names()) == set(FOLDERS) | others
