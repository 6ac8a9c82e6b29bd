"""A small MegaDepth from a folder, from one archive and from one a scene: the same scenes, none of a benchmark's."""

import hashlib
import logging
import shutil
import tarfile
from collections import namedtuple

import h5py
import legacy_forms as small
import numpy as np
import pytest
from bad_host import serving

from minima_core.data.datasets import _megadepth as module
from minima_core.data.datasets._megadepth import ARCHIVE, LEFT_OUT, bring_scenes
from minima_core.data.datasets.base import DATASETS
from minima_core.errors import ConfigError, DataError
from minima_core.geometry.coords import from_corner_origin
from minima_core.io.depth import is_ordinal

TREE = "phoenix/S6/zl548/MegaDepth_v1"
FORMS = {"roma": small.write_roma, "glue_factory": small.write_glue_factory, "loftr": small.write_loftr}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def published(tmp_path):
    """A folder with MegaDepth's tree and a folder with its index in each form."""
    small.write_files(tmp_path / "disk", undistorted=False)
    for form, write in FORMS.items():
        write(tmp_path / form)
    return tmp_path


def dataset(published, **changes):
    settings = {
        "subset": "full",
        "scenes": [],
        "sources": [str(published / "disk")],
        "index": "roma",
        "index_sources": [str(published / "roma")],
        "validation": ["0002"],
        "overlap": (0.1, 0.7),
        "max_pairs": 100,
    }
    plugin = DATASETS.get("megadepth")
    return plugin(plugin.Params(**settings | changes), seed=0)


def packed(published, scene=None, name="MegaDepth_v1.tar.gz", strip=False):
    path = published / "www" / name
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted((published / "disk" / TREE / (scene or "")).rglob("*.*")):
            start = published / "disk" / TREE / scene if strip else published / "disk"
            archive.add(file, file.relative_to(start).as_posix())
    return path


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*.*")
        if p.is_file()
    }


@pytest.mark.parametrize("form", FORMS)
def test_scenes_have_the_cameras_and_pairs_of_the_index(published, form):
    made = dataset(published, index=form, index_sources=[str(published / form)])
    made.prepare(published / "raw")
    scenes = list(made.scenes(published / "raw"))
    assert [(s.name, s.split) for s in scenes] == [("0001", "train"), ("0002", "val")]
    scene = scenes[0]
    assert scene.image == [f"0001/dense0/imgs/{i}_o.jpg" for i in (1, 3, 5)]
    assert all((published / "raw" / path).is_file() for path in [*scene.image, *scene.depth])
    assert {tuple(p): o for p, o in zip(scene.pairs.tolist(), scene.overlap, strict=True)} == {
        (0, 1): 0.4, (0, 2): 0.65, (1, 2): 0.3, (2, 1): 0.15
    }  # fmt: skip
    centre = from_corner_origin(small.W / 2)
    assert scene.K[0, 0, 2] == centre
    assert scene.T_w2c[1, 0, 3] == pytest.approx(-0.3)


def test_every_kind_of_source_gives_the_same(published):
    archive = packed(published)
    for scene in ("0001", "0002"):
        packed(published, scene, f"{scene}.tar.gz")
        packed(published, scene, f"short-{scene}.tar.gz", strip=True)
    sources = {
        "folder": str(published / "disk"),
        "inner": str(published / "disk" / TREE),
        "archive": archive.as_uri(),
        "scenes": str(published / "www" / "{scene}.tar.gz"),
        "short": str(published / "www" / "short-{scene}.tar.gz"),
    }
    for name, where in sources.items():
        dataset(published, sources=[where]).prepare(published / name / "raw")
    found = [tree(published / name / "raw") for name in sources]
    assert all(one == found[0] for one in found)
    assert not any("0015" in path for path in found[0])


def test_a_damaged_archive_does_not_stand_for_others_of_its_name(published):
    archives = {scene: packed(published, scene, f"{scene}.tar.gz").read_bytes() for scene in ("0001", "0002")}
    archives["0001"] = archives["0001"][:3000]
    with serving(lambda h, _: h.file(archives[h.path.split("/")[1]])) as host:
        url = host.url.replace("file.bin", "{scene}/data.tar.gz")
        assert bring_scenes(published / "raw", ["0001", "0002"], [url]) == ["0001"]
    assert len(list((published / "raw/0002/dense0/imgs").iterdir())) == 3


def test_scenes_come_from_a_server_that_cuts_and_none_twice(published):
    content = packed(published, "0001", "0001.tar.gz").read_bytes()
    with serving(lambda h, n: h.file(content, send=len(content) // 2 if n == 1 else None)) as host:
        url = host.url.replace("file.bin", "{scene}.tar.gz")
        assert bring_scenes(published / "raw", ["0001"], [url]) == []
        assert bring_scenes(published / "raw", ["0001"], [url]) == []
    assert len(host.ranges) == 2
    assert len(list((published / "raw/0001/dense0/imgs").iterdir())) == 3
    assert not list((published / "cache/downloads").iterdir())


def test_a_source_that_lacks_a_scene_is_followed_by_the_next(published):
    packed(published, "0002", "0002.tar.gz")
    shutil.rmtree(published / "disk" / TREE / "0002")
    sources = [str(published / "nowhere"), str(published / "disk"), str(published / "www" / "{scene}.tar.gz")]
    made = dataset(published, sources=sources)
    made.prepare(published / "raw")
    assert [s.name for s in made.scenes(published / "raw")] == ["0001", "0002"]


def test_a_scene_that_nobody_has_is_named_if_it_was_asked_for(published, caplog):
    shutil.rmtree(published / "disk" / TREE / "0002")
    with pytest.raises(DataError, match="no source has scene 0002"):
        dataset(published, scenes=["0001", "0002"]).prepare(published / "raw")
    made = dataset(published)
    made.prepare(published / "raw")
    assert "no source has the scenes 0002" in caplog.text
    assert [s.name for s in made.scenes(published / "raw")] == ["0001"]


def test_subsets_and_lists_choose_scenes(published):
    made = dataset(published, scenes=["0002"])
    made.prepare(published / "raw")
    assert not (published / "raw/0001").exists()
    assert [s.name for s in made.scenes(published / "raw")] == ["0002"]
    with pytest.raises(DataError, match="the index has no scene 0012"):
        dataset(published, subset="smoke").prepare(published / "raw")


@pytest.mark.parametrize("change", [{"scenes": ["0001", "0015"]}, {"validation": ["0022"]}, {"scenes": ["0021"]}])
def test_scenes_of_benchmarks_are_refused(published, change):
    with pytest.raises(ConfigError, match=r"scene 00(15|22|21) of MegaDepth belongs to a benchmark"):
        dataset(published, **change).prepare(published / "raw")


def test_depth_maps_that_order_or_do_not_fit_are_left_out(published, caplog):
    caplog.set_level(logging.INFO)
    depths = published / "disk" / TREE / "0001/dense0/depths"
    with h5py.File(depths / "1_o.h5", "w") as file:
        file["depth"] = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (small.H, small.W)).astype(np.float32)
    made = dataset(published)
    made.prepare(published / "raw")
    assert "'ordinal': 1" in caplog.text
    scene = next(made.scenes(published / "raw"))
    assert scene.image == ["0001/dense0/imgs/3_o.jpg", "0001/dense0/imgs/5_o.jpg"]
    assert scene.pairs.tolist() == [[0, 1], [1, 0]]
    for name, content in {"3_o": np.ones((4, 4)), "5_o": np.zeros((small.H, small.W))}.items():
        with h5py.File(depths / f"{name}.h5", "w") as file:
            file["depth"] = content.astype(np.float32)
    made.prepare(published / "again")
    assert [s.name for s in made.scenes(published / "again")] == ["0002"]
    reasons = (published / "again/0001" / LEFT_OUT).read_text()
    assert all(reason in reasons for reason in ("ordinal", "another size", "empty"))


def test_distances_are_not_taken_for_labels():
    plane = np.linspace(2, 9, 600, dtype=np.float32).reshape(20, 30)
    assert not is_ordinal(plane) and not is_ordinal(np.where(plane > 5, plane, 0))
    assert not is_ordinal(np.full((20, 30), 3.0))  # a wall
    assert is_ordinal(np.where(plane > 5, 1, 2)) and is_ordinal(np.where(plane > 5, plane, -1))


def test_images_keep_the_names_that_they_come_with(published):
    images = published / "disk" / TREE / "0001/dense0/imgs"
    (images / "1_o.jpg").rename(images / "1_o.JPG")
    made = dataset(published)
    made.prepare(published / "raw")
    assert next(made.scenes(published / "raw")).image[0] == "0001/dense0/imgs/1_o.JPG"


def test_a_killed_copy_leaves_no_scene_and_goes_on(published, monkeypatch):
    made, keep, calls = dataset(published), shutil.copyfile, []

    def copy(source, target):
        calls.append(target)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return keep(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", copy)
        made.prepare(published / "raw")
    names = [p.name for p in (published / "raw").iterdir() if not p.name.startswith(".")]
    assert names in (["index"], ["index", "0001"], ["0001", "index"])
    made.prepare(published / "raw")
    dataset(published).prepare(published / "undisturbed")
    assert tree(published / "raw") == tree(published / "undisturbed")


def free(monkeypatch, size):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, size))


def sparse(path, size):
    """Write a file that has ``size`` bytes and takes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("http://127.0.0.1:1/{scene}.tar", r"2 scenes of MegaDepth needs 3\.3 GB in .*raw and .*downloads"),
        ("http://127.0.0.1:1/some.tar", r"2 scenes of MegaDepth needs 4\.3 GB in .*raw and .*downloads"),
        (ARCHIVE.urls[0], r"2 scenes of MegaDepth, with the archive of all of it, needs 201\.2 GB in .*raw and .*down"),
    ],
)
def test_the_disk_for_scenes_is_asked_before_anything_comes(tmp_path, monkeypatch, where, words):
    free(monkeypatch, 1_000_000_000)
    monkeypatch.setattr(module, "fetch", lambda *_: pytest.fail("begun"))
    with pytest.raises(DataError, match=f"cannot get MegaDepth: {words}"):
        bring_scenes(tmp_path / "raw", ["0001", "0002"], [where])


def test_archives_that_are_here_need_no_second_place(published, monkeypatch):
    packed(published, "0001", "0001.tar.gz")  # there is none of 0002
    free(monkeypatch, 1_200_000_000)
    assert bring_scenes(published / "raw", ["0001", "0002"], [str(published / "www/{scene}.tar.gz")]) == ["0002"]
    free(monkeypatch, 1_000_000_000)
    with pytest.raises(DataError, match=r"1 scenes of MegaDepth needs 1\.1 GB in .*again, where"):
        bring_scenes(published / "again", ["0001"], [packed(published).as_uri()])


def test_an_archive_that_is_not_here_is_named_on_a_full_disk_too(tmp_path, monkeypatch):
    free(monkeypatch, 0)
    with pytest.raises(DataError, match=r"some\.tar: no such file"):
        bring_scenes(tmp_path / "raw", ["0001"], [str(tmp_path / "some.tar")])


def test_what_a_cut_left_is_not_asked_for_again(tmp_path, monkeypatch):
    free(monkeypatch, 1_000_000)
    sparse(tmp_path / "cache/downloads/.MegaDepth_v1.tar.gz.part", 150_000_000_000)
    sparse(tmp_path / "raw/.MegaDepth_v1.tar.gz.unpacking/0001/dense0/imgs/a.jpg", 2_000_000_000)
    with pytest.raises(DataError, match=r"with the archive of all of it, needs 49\.2 GB in"):
        bring_scenes(tmp_path / "raw", ["0001", "0002"], ARCHIVE.urls)


def test_a_copy_that_was_cut_is_not_asked_for_again(published, monkeypatch):
    places = [path for scene in ("0001", "0002") for path in (published / "disk" / TREE / scene).rglob("*.*")]
    whole = sum(path.stat().st_size for path in places)
    shutil.copytree(published / "disk" / TREE / "0001", published / "raw/.0001.unfinished")
    free(monkeypatch, whole - 1)
    assert bring_scenes(published / "raw", ["0001", "0002"], [str(published / "disk")]) == []


def test_the_index_behind_a_page_says_what_to_get(published):
    with pytest.raises(DataError, match=r"megadepth_indices\.tar.*dataset\.megadepth\.index_sources"):
        dataset(published, index="loftr", index_sources=[]).prepare(published / "raw")


def test_a_source_that_is_something_else_is_named(published):
    (published / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds none of the scenes 0001, 0002"):
        dataset(published, sources=[str(published / "empty")]).prepare(published / "raw")
