"""The stage that makes the pair index."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_album import PHOTOS

from minima_core.data.index import index_digest, read_scenes
from minima_core.errors import DataError
from minima_core.io.images import write_image
from minima_core.manifest import SceneManifest
from tasks import download, index


def write_params(name: str = "photos", **changes) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"seed": 0, "dataset": {"name": name, "photos": PHOTOS | changes}}))


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIMA_WORKERS", "1")
    rng = np.random.default_rng(0)
    for k in range(8):
        small = rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)
        write_image(tmp_path / "album" / f"{k}.png", cv2.resize(small, (160, 128), interpolation=cv2.INTER_CUBIC))
    write_params()
    download.main(download.DownloadArgs(out=Path("raw"), report=Path("d.json")))
    return tmp_path


def run(out: str = "index"):
    return index.main(index.IndexArgs(raw=Path("raw"), out=Path(out), report=Path("i.json")))


def test_manifest_and_report_count_what_is_there(checkout):
    report = run()
    manifest = SceneManifest.load(Path("index"))
    scenes = list(read_scenes(Path("index")))
    assert report.images == sum(len(scene.image) for scene in scenes) == 24
    assert report.pairs == sum(entry.pairs for entry in manifest.scenes) == sum(len(scene.pairs) for scene in scenes)
    assert report.scenes == {split: len(manifest.split(split)) for split in ("train", "val")}
    assert report.digest == index_digest(Path("index"))
    assert (manifest.dataset, manifest.relation, manifest.raw, manifest.licence) == (
        "photos",
        "homography",
        "raw",
        "CC0-1.0",
    )
    assert all((Path("raw") / path).is_file() for scene in scenes for path in scene.image)


def test_equal_data_give_an_equal_index(checkout):
    assert run("one").digest == run("two").digest


def test_digest_of_a_scene_follows_its_pixels(checkout):
    before = run()
    scene = SceneManifest.load(Path("index")).scenes[0]
    image = next(Path("raw", scene.name).rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"\0")
    after = run()
    changed = SceneManifest.load(Path("index")).scenes
    assert changed[0].digest != scene.digest and after.digest != before.digest


def test_raw_folder_of_another_data_set_is_refused(checkout):
    held = Path("raw/dataset.json")
    held.write_text(held.read_text().replace('"photos"', '"rgbd"'))
    with pytest.raises(DataError, match=r"raw holds 'rgbd', params\.yaml asks for 'photos'; run `dvc repro download`"):
        run()


def test_missing_raw_folder_names_the_remedy(checkout):
    Path("raw/dataset.json").unlink()
    with pytest.raises(DataError, match="bring the raw scenes with `dvc repro download`"):
        run()


def test_missing_image_is_named_and_the_old_index_stays(checkout):
    before = run().digest
    image = next(Path("raw").rglob("*.jpg"))
    image.unlink()
    with pytest.raises(DataError, match=rf"no {image}"):
        run()
    assert index_digest(Path("index")) == before


def test_no_overlap_at_all_is_refused(checkout):
    write_params(overlap=[0.1, 0.1001])
    with pytest.raises(DataError, match=r"no pair in raw overlaps enough; widen dataset\.photos\.overlap"):
        run()
