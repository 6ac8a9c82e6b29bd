"""The runner: resumable, the same whatever the number of workers, and honest about what cannot be made."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from minima_core.data.index import Scene, index_digest, read_scene, write_scene
from minima_core.data.shards import Shard
from minima_core.errors import ConfigError, DataError
from minima_core.io.atomic import UNFINISHED
from minima_core.io.depth import write_depth
from minima_core.io.images import decode, read_image, write_image
from minima_core.manifest import ModalityManifest, SceneEntry, SceneManifest
from minima_core.parallel import Cluster
from minima_core.synthesis import runner
from minima_core.synthesis.base import MODALITIES, Rendition, Source
from minima_core.synthesis.depth import depth_anything_v2
from minima_core.synthesis.runner import encode, synthesise_index

SIZE = (48, 36)


def folder_bytes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def world(tmp_path, photo):
    """Two scenes with 11 and 3 images; the second has depth for its first image only."""

    def scene(name: str, count: int, with_depth: int) -> Scene:
        images, depths = [], []
        for i in range(count):
            images.append(f"{name}/imgs/{i:03d}.png")
            crop = photo[4 * i : 4 * i + SIZE[1], 5 * i : 5 * i + SIZE[0]]
            write_image(tmp_path / "raw" / images[-1], crop)
            depths.append(f"{name}/depths/{i:03d}.h5" if i < with_depth else "")
            if depths[-1]:
                write_depth(tmp_path / "raw" / depths[-1], 1 + np.linspace(0, 1, SIZE[0]) * np.ones((SIZE[1], 1)))
        K = np.tile(np.array([[50.0, 0, 24], [0, 50.0, 18], [0, 0, 1]]), (count, 1, 1))
        size, pose = np.tile(np.array(SIZE), (count, 1)), np.tile(np.eye(4), (count, 1, 1))
        return Scene(name, "train", images, depths, [""] * count, size, K, pose, np.zeros((0, 2), int), np.zeros(0))

    scenes = [scene("alpha", 11, 11), scene("beta", 3, 1)]
    for one in scenes:
        write_scene(tmp_path / "index", one)
    entries = [SceneEntry(name=s.name, split="train", images=len(s.image), pairs=0, digest="0") for s in scenes]
    SceneManifest(dataset="t", licence="CC0-1.0", relation="depth", raw="raw", scenes=entries).save(tmp_path / "index")
    return tmp_path


GATE = {"sure": -99.0, "score": 0.0, "offset": 1000.0, "retries": 2}  # the pictures are too small for the real one


def synthesise(world: Path, modality: str, out: str = "out", *, workers: int = 1, seed: int = 0, **settings):
    gate, cluster = settings.pop("gate", GATE), settings.pop("cluster", None)
    return synthesise_index(
        world / "index",
        world / "raw",
        world / out,
        modality=modality,
        settings={**MODALITIES.settings(modality), **settings},
        seed=seed,
        workers=workers,
        scratch=world / "scratch",
        gate=gate,
        cluster=cluster,
    )


def test_every_image_is_in_its_shard_in_index_order(world):
    manifest = synthesise(world, "event")
    assert manifest == ModalityManifest.load(world / "out")
    assert manifest.scenes == {"alpha": 11, "beta": 3} and manifest.failed == {}
    assert manifest.source_digest == index_digest(world / "index")
    assert manifest.params == {"engine": "closed_form", "contrast": [0.05, 0.5], "shift": [1, 3]}
    assert "CC0-1.0" in manifest.licence and "Apache-2.0" in manifest.licence
    with Shard(world / "out" / "alpha.h5") as shard:
        assert shard.ids == [f"alpha/{i:03d}" for i in range(11)]


def test_a_shard_holds_what_the_engine_makes(world, engine):
    synthesise(world, "event")
    image = read_image(world / "raw" / "alpha/imgs/009.png")
    made = engine("event").synthesise(Source("alpha/009", image), seed=0, modality="event")
    with Shard(world / "out" / "alpha.h5") as shard:
        assert (shard.image("alpha/009") == made.image).all()
        assert json.loads(shard.drawn("alpha/009")).items() >= made.drawn.items()


@pytest.mark.parametrize(("modality", "off"), [("sketch", 0), ("infrared", 3)])
def test_gray_pictures_are_kept_in_one_channel(photo, modality, off):
    engine = MODALITIES.create(modality, MODALITIES.settings(modality))
    for image, channels in ((np.repeat(photo[..., :1], 3, axis=2), 1), (photo, 3)):
        data = encode(Rendition(image), engine)
        with Image.open(io.BytesIO(data)) as picture:
            assert len(picture.getbands()) == channels
        assert np.abs(decode(data).astype(int) - image).mean() <= off  # levels


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_number_of_workers_changes_nothing(world, modality):
    synthesise(world, modality, "one", workers=1)
    synthesise(world, modality, "two", workers=2)
    assert folder_bytes(world / "one") == folder_bytes(world / "two")
    assert not list((world / "scratch").iterdir())


def test_seed_and_settings_change_the_result(world):
    outs = ["a", "b", "c"]
    synthesise(world, "event", "a")
    synthesise(world, "event", "b", seed=1)
    synthesise(world, "event", "c", shift=[3, 4])
    assert len({folder_bytes(world / out)["alpha.h5"] for out in outs}) == 3


def test_images_without_depth_are_listed_as_failed(world):
    manifest = synthesise(world, "depth")
    assert manifest.status == "complete"
    assert manifest.scenes == {"alpha": 11, "beta": 1}
    assert sorted(manifest.failed) == ["beta/001", "beta/002"]
    assert "no depth" in manifest.failed["beta/001"]


def test_no_depth_at_all_is_unavailable_and_leaves_no_shard(world):
    for name in ("alpha", "beta"):
        scene = read_scene(world / "index", name)
        write_scene(world / "index", replace(scene, depth=[""] * len(scene.depth)))
    manifest = synthesise(world, "normal")
    assert manifest.status == "unavailable" and "no depth for alpha/000" in manifest.reason
    assert manifest.scenes == {} and [p.name for p in (world / "out").iterdir()] == ["manifest.json"]
    assert len(manifest.failed) == 14 and manifest.rejected == {}


def blank(monkeypatch, modality="event", engine="closed_form"):
    """Let an engine make black pictures, which the gate refuses."""
    cls = MODALITIES.engines(modality).get(engine)
    honest = cls._synthesise_batch

    def black(self, sources, rngs):
        return [replace(made, image=np.zeros_like(made.image)) for made in honest(self, sources, rngs)]

    monkeypatch.setattr(cls, "_synthesise_batch", black)


def test_a_modality_of_which_the_gate_refuses_all_is_not_unavailable(world, monkeypatch, caplog):
    blank(monkeypatch)
    manifest = synthesise(world, "event")
    assert (manifest.status, manifest.reason) == ("complete", "")
    assert manifest.scenes == {"alpha": 0, "beta": 0} and manifest.failed == {}
    assert len(manifest.rejected) == manifest.gate.rejected == 14
    for scene in manifest.scenes:
        with Shard(world / "out" / f"{scene}.h5") as shard:
            assert shard.ids == []
    assert "no event image was made; the gate refused 14, the first alpha/000: blank" in caplog.text


def test_images_that_cannot_be_made_do_not_hide_those_that_were_refused(world, monkeypatch):
    blank(monkeypatch, "depth", "dataset")
    manifest = synthesise(world, "depth")
    assert manifest.status == "complete" and sorted(manifest.failed) == ["beta/001", "beta/002"]
    assert len(manifest.rejected) == 12


def test_a_scene_without_an_image_has_an_empty_shard(world):
    scene = read_scene(world / "index", "beta")
    write_scene(world / "index", replace(scene, depth=[""] * len(scene.depth)))
    manifest = synthesise(world, "depth")
    assert manifest.scenes == {"alpha": 11, "beta": 0}
    with Shard(world / "out" / "beta.h5") as shard:
        assert shard.ids == []


def test_a_damaged_image_is_named_and_finished_parts_are_kept_and_used(world, monkeypatch):
    synthesise(world, "sketch", "undisturbed")
    bad = world / "raw" / "alpha/imgs/010.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"alpha/imgs/010\.png") as caught:
        synthesise(world, "sketch")
    assert "\n" not in str(caught.value) and not (world / "out").exists()
    parts = sorted(p.name for p in (world / "scratch").rglob("*.h5"))
    assert parts == ["000000.h5"]

    bad.write_bytes(whole)
    made: list[str] = []
    first = runner._first_attempts
    monkeypatch.setattr(
        runner, "_first_attempts", lambda job, sources: made.extend(s.name for s in sources) or first(job, sources)
    )
    synthesise(world, "sketch")
    assert made == ["alpha/008", "alpha/009", "alpha/010", "beta/000", "beta/001", "beta/002"]
    assert folder_bytes(world / "out") == folder_bytes(world / "undisturbed")


@pytest.mark.parametrize("left", ["nothing", "zeros", "other words", "other pixels"])
def test_a_part_that_a_power_cut_or_a_bad_disk_changed_is_made_again(world, left):
    synthesise(world, "sketch", "undisturbed")
    bad = world / "raw" / "beta/imgs/002.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="beta/imgs/002"):
        synthesise(world, "sketch")
    bad.write_bytes(whole)
    part = next((world / "scratch").rglob("000000.h5"))
    data = part.read_bytes()
    words, pixels = data.index(b"attempt"), data.index(b"IDAT")
    changed = {
        "nothing": b"",
        "zeros": bytes(len(data)),
        "other words": data[:words] + b'"' + data[words + 1 :],
        "other pixels": data[: pixels + 20] + bytes(8) + data[pixels + 28 :],
    }
    part.write_bytes(changed[left])
    synthesise(world, "sketch")
    assert folder_bytes(world / "out") == folder_bytes(world / "undisturbed")


def test_other_settings_never_continue_these_parts(world):
    bad = world / "raw" / "beta/imgs/002.png"
    bad.write_bytes(b"")
    for settings in ({}, {"sigma": 2.0}, {"flow": 0.0}):
        with pytest.raises(DataError):
            synthesise(world, "sketch", **settings)
    with pytest.raises(DataError):
        synthesise(world, "sketch", seed=1)
    assert len(list((world / "scratch").iterdir())) == 4


def test_a_leftover_of_a_killed_merge_does_not_reach_the_output(world):
    bad = world / "raw" / "beta/imgs/002.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(DataError):
        synthesise(world, "sketch")
    bad.write_bytes(whole)
    work = next((world / "scratch").iterdir())
    (work / "out").mkdir()
    (work / "out" / f".alpha.1234{UNFINISHED}.h5").write_bytes(b"half")
    synthesise(world, "sketch")
    assert sorted(p.name for p in (world / "out").iterdir()) == ["alpha.h5", "beta.h5", "manifest.json"]


def test_a_full_disk_is_one_line_and_keeps_an_older_output(world, monkeypatch):
    synthesise(world, "event")
    before = folder_bytes(world / "out")

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left on device; free some space") as caught:
        synthesise(world, "event", seed=1)
    assert "\n" not in str(caught.value)
    assert folder_bytes(world / "out") == before


def test_an_image_of_another_size_than_its_index_says_is_named(world, photo):
    write_image(world / "raw" / "alpha/imgs/002.png", photo)
    with pytest.raises(DataError, match=r"alpha/imgs/002\.png is 256 x 192 but its index says 48 x 36"):
        synthesise(world, "event")


def test_a_depth_map_of_another_size_is_named(world):
    write_depth(world / "raw" / "alpha/depths/003.h5", np.ones((5, 5)))
    with pytest.raises(DataError, match=r"alpha/depths/003\.h5"):
        synthesise(world, "depth")


def test_a_missing_depth_file_is_named(world):
    (world / "raw" / "alpha/depths/003.h5").unlink()
    with pytest.raises(DataError, match=r"alpha/depths/003\.h5"):
        synthesise(world, "depth")


def test_an_unknown_modality_is_refused_before_any_work(world):
    with pytest.raises(ConfigError, match="did you mean 'sketch'"):
        synthesise_index(
            world / "index",
            world / "raw",
            world / "out",
            modality="scetch",
            settings={"engine": "xdog"},
            seed=0,
            workers=1,
            scratch=world / "scratch",
            gate=GATE,
        )
    assert not (world / "scratch").exists()


def test_two_images_of_one_id_are_refused(world):
    scene = read_scene(world / "index", "beta")
    write_scene(world / "index", replace(scene, image=[scene.image[0], "beta/imgs/000.jpg", scene.image[2]]))
    with pytest.raises(DataError, match="beta/000"):
        synthesise(world, "event")


def test_what_the_gate_refuses_is_drawn_anew_then_listed(world, monkeypatch):
    """The event engine is made to leave two images blank: one at its first attempt only, one always."""
    honest = MODALITIES.engines("event").get("closed_form")._synthesise_batch
    seen: dict[str, int] = {}

    def failing(self, sources, rngs):
        made = honest(self, sources, rngs)
        for k, source in enumerate(sources):
            seen[source.name] = seen.get(source.name, 0) + 1
            if source.name == "alpha/003" or (source.name == "beta/001" and seen[source.name] == 1):
                made[k] = replace(made[k], image=np.zeros_like(made[k].image))
        return made

    monkeypatch.setattr(MODALITIES.engines("event").get("closed_form"), "_synthesise_batch", failing)
    gate = {**GATE, "retries": 2}  # at this size only blanks can be told
    manifest = synthesise(world, "event", gate=gate)
    assert manifest.rejected == {"alpha/003": "blank, but its source has structure; 3 attempts"}
    assert (manifest.gate.rejected, manifest.gate.retried) == (1, 1)
    assert manifest.gate.at_once + manifest.gate.unjudged == 12 and manifest.gate.rate == pytest.approx(1 / 14)
    assert seen["alpha/003"] == 3 and seen["beta/001"] == 2 and seen["alpha/000"] == 1
    with Shard(world / "out" / "alpha.h5") as shard:
        assert "alpha/003" not in shard and "alpha/002" in shard
    with Shard(world / "out" / "beta.h5") as shard:
        assert json.loads(shard.drawn("beta/001"))["attempt"] == 1


def test_the_way_of_a_gpu_makes_the_same(world, monkeypatch):
    """Threads that read, judge and write beside one that computes, in batches, with a retry among them."""
    synthesise(world, "event", "one by one")
    engine = MODALITIES.engines("event").get("closed_form")
    monkeypatch.setattr(engine, "batch_size", lambda self, width, height: 3)
    monkeypatch.setattr(runner, "map_jobs", lambda function, jobs, **how: runner._stream_parts(jobs))
    synthesise(world, "event")
    assert folder_bytes(world / "out") == folder_bytes(world / "one by one")


def test_one_thread_at_a_time_uses_the_network(world, monkeypatch):
    """The others read, judge and write meanwhile; in parts of one image, so that they meet."""
    inside, together = [], []

    class Gray(torch.nn.Module):
        def forward(self, images):
            inside.append(threading.get_ident())
            together.append(list(inside))
            time.sleep(0.01)
            inside.remove(threading.get_ident())
            return SimpleNamespace(predicted_depth=images.mean(1))

    monkeypatch.setattr(depth_anything_v2, "_random", Gray)
    monkeypatch.setattr(runner, "PART", 1)
    how = {"engine": "depth_anything_v2", "model": "small", "precision": "float32", "weights": "random"}
    synthesise(world, "depth", "one by one", input_size=42, **how)
    alone = len(together)
    monkeypatch.setattr(runner, "map_jobs", lambda function, jobs, **how: runner._stream_parts(jobs))
    synthesise(world, "depth", input_size=42, **how)
    assert folder_bytes(world / "out") == folder_bytes(world / "one by one")
    assert len(together) == 2 * alone >= 28
    assert all(len(threads) == 1 for threads in together)
    assert len({threads[0] for threads in together[alone:]}) > 1


def test_an_image_of_a_batch_that_cannot_be_made_leaves_the_others(world, monkeypatch):
    synthesise(world, "depth", "one by one")
    monkeypatch.setattr(MODALITIES.engines("depth").get("dataset"), "batch_size", lambda self, width, height: 3)
    manifest = synthesise(world, "depth")
    assert sorted(manifest.failed) == ["beta/001", "beta/002"]
    assert folder_bytes(world / "out") == folder_bytes(world / "one by one")


def test_a_wrong_file_ends_the_way_of_a_gpu_in_one_line(world, monkeypatch):
    bad = world / "raw" / "alpha/imgs/010.png"
    bad.write_bytes(bad.read_bytes()[:200])
    monkeypatch.setattr(runner, "map_jobs", lambda function, jobs, **how: runner._stream_parts(jobs))
    with pytest.raises(DataError, match=r"alpha/imgs/010\.png"):
        synthesise(world, "event")


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, started once for the tests that need it."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'minima-pipeline[ray]'")
    cluster = Cluster("", workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own defaults
        cluster.begin()
    yield cluster
    ray.shutdown()


def kill_a_ray_worker(stop: threading.Event, killed: list[int]) -> None:
    """Kill the first process that makes a scene."""
    import psutil

    while not stop.is_set() and not killed:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ray::_make_scene" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.002)


@pytest.mark.slow
def test_killing_a_ray_worker_in_the_middle_changes_no_digest(world, cluster):
    synthesise(world, "paint", "undisturbed")
    stop, killed = threading.Event(), []
    thread = threading.Thread(target=kill_a_ray_worker, args=(stop, killed))
    thread.start()
    try:
        synthesise(world, "paint", cluster=cluster)
    finally:
        stop.set()
        thread.join()
    assert killed
    assert folder_bytes(world / "out") == folder_bytes(world / "undisturbed")


@pytest.mark.slow
def test_a_ray_worker_works_in_the_folder_that_paths_start_from(world, cluster, monkeypatch):
    synthesise(world, "event", "here")
    monkeypatch.chdir(world)  # the cluster was started elsewhere
    synthesise(Path(), "event", cluster=cluster)
    assert folder_bytes(world / "out") == folder_bytes(world / "here")


@pytest.mark.slow
def test_what_is_wrong_on_a_ray_worker_is_said_as_here(world, cluster):
    bad = world / "raw" / "alpha/imgs/010.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=r"alpha/imgs/010\.png"):
        synthesise(world, "sketch", cluster=cluster)
