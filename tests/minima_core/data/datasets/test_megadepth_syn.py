"""Published renditions, in the hub's two layouts and that of MINIMA's checkout, come beside their photographs."""

import shutil
from collections import namedtuple

import legacy_forms as small
import pytest

from minima_core.data.datasets import megadepth_syn as module
from minima_core.data.datasets.base import DATASETS
from minima_core.errors import DataError

TREE = "phoenix/S6/zl548/MegaDepth_v1"
LAYOUTS = {
    "infrared": "train/Infrared/MegaDepth_v1",
    "sketch": "train/Sketch",  # no level MegaDepth_v1
    "event": "train/event/phoenix/S6/zl548/MegaDepth_v1",
}


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMA_CACHE", str(tmp_path / "cache"))
    small.write_files(tmp_path / "disk", undistorted=False)
    small.write_roma(tmp_path / "roma")
    for modality, layout in LAYOUTS.items():
        for scene in ("0001", "0002"):
            folder = tmp_path / "syn" / layout / scene / "dense0/imgs"
            folder.mkdir(parents=True)
            suffix = "png" if modality == "event" else "jpg"
            for stem in ("1_o", "3_o", "5_o", "9_other"):
                (folder / f"{stem}.{suffix}").write_text(f"{modality} {scene} {stem}")
    return tmp_path


def dataset(published, renditions, sources):
    plugin = DATASETS.get("megadepth_syn")
    settings = {
        "subset": "full",
        "scenes": [],
        "sources": [str(published / "disk")],
        "index": "roma",
        "index_sources": [str(published / "roma")],
        "validation": [],
        "overlap": (0.1, 0.7),
        "max_pairs": 100,
        "renditions": renditions,
        "rendition_sources": sources,
    }
    return plugin(plugin.Params(**settings), seed=0)


def test_every_layout_is_brought_beside_the_photographs(published):
    made = dataset(published, list(LAYOUTS), [str(published / "syn")])
    made.prepare(published / "raw")
    for modality in LAYOUTS:
        suffix = "png" if modality == "event" else "jpg"
        found = {p.name: p.read_text() for p in (published / f"raw/0002/dense0/{modality}").iterdir()}
        assert found == {f"{stem}.{suffix}": f"{modality} 0002 {stem}" for stem in ("1_o", "3_o", "5_o")}
    assert [s.name for s in made.scenes(published / "raw")] == ["0001", "0002"]


def second_part(published, scene="0001"):
    """Give a scene a ``dense1`` with a photograph and a rendition of it in infrared."""
    for top in (published / "disk" / TREE, published / "syn" / LAYOUTS["infrared"]):
        path = top / scene / "dense1/imgs/7_o.jpg"
        path.parent.mkdir(parents=True)
        path.write_text(f"infrared {scene} 7_o")


def test_a_cut_between_two_parts_of_a_scene_is_continued(published, monkeypatch):
    second_part(published)
    made, keep = dataset(published, ["infrared"], [str(published / "syn")]), shutil.copyfile

    def copy(source, target):
        if target.name == "7_o.jpg" and "infrared" in target.parent.name:
            raise KeyboardInterrupt
        return keep(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "copyfile", copy)
        made.prepare(published / "raw")
    assert (published / "raw/0001/dense0/infrared").is_dir()
    made.prepare(published / "raw")
    assert (published / "raw/0001/dense1/infrared/7_o.jpg").read_text() == "infrared 0001 7_o"
    assert not list((published / "raw").rglob("*.unfinished"))


@pytest.mark.parametrize("emptied", ["absent", "empty"])
def test_a_scene_without_photographs_in_its_first_part_has_its_renditions(published, emptied, caplog):
    second_part(published)
    shutil.rmtree(published / "disk" / TREE / "0001/dense0")
    dataset(published, [], []).prepare(published / "raw")
    if emptied == "empty":  # as some archives have it
        (published / "raw/0001/dense0/imgs").mkdir(parents=True)
    dataset(published, ["infrared"], [str(published / "syn")]).prepare(published / "raw")
    assert [p.name for p in (published / "raw/0001/dense1/infrared").iterdir()] == ["7_o.jpg"]
    assert "there are no" not in caplog.text


def test_parts_that_nobody_has_renditions_of_are_named(published, caplog):
    second_part(published)
    shutil.rmtree(published / "syn" / LAYOUTS["infrared"] / "0001/dense1")
    dataset(published, ["infrared"], [str(published / "syn")]).prepare(published / "raw")
    assert "there are no infrared renditions of 0001/dense1" in caplog.text


def test_a_hub_that_has_nothing_of_a_part_is_said(published, monkeypatch, caplog):
    second_part(published)
    dataset(published, [], []).prepare(published / "raw")
    (published / "raw/0001/dense0/infrared").mkdir()
    (published / "raw/0002/dense0/infrared").mkdir()
    monkeypatch.setattr(module, "fetch_hub", lambda *_: None)
    dataset(published, ["infrared"], []).prepare(published / "raw")
    assert "there are no infrared renditions of 0001/dense1" in caplog.text


def test_only_the_scenes_that_lack_them_are_asked_of_the_hub(published, monkeypatch):
    asked = []

    def hub(entry, folder, patterns):
        asked.append(patterns)
        (published / "syn").rename(folder)

    dataset(published, [], []).prepare(published / "raw")
    (published / "raw/0002/dense0/sketch").mkdir()
    (published / "cache/downloads").mkdir(parents=True)
    monkeypatch.setattr(module, "fetch_hub", hub)
    dataset(published, ["sketch"], []).prepare(published / "raw")
    assert asked == [["train/Sketch/MegaDepth_v1/0001/dense0/*", "train/Sketch/0001/dense0/*"]]
    assert len(list((published / "raw/0001/dense0/sketch").iterdir())) == 3
    assert not any((published / "cache/downloads").iterdir())


def test_renditions_that_the_disk_cannot_hold_twice_are_not_begun(published, monkeypatch):
    usage = namedtuple("usage", "total used free")
    dataset(published, [], []).prepare(published / "raw")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 400_000_000))
    monkeypatch.setattr(module, "fetch_hub", lambda *_: pytest.fail("begun"))
    with pytest.raises(DataError, match=r"paint renditions of 2 scenes.* needs 510\.2 MB in .* and .*raw, where 400"):
        dataset(published, ["paint"], []).prepare(published / "raw")


def test_what_a_cut_left_is_not_asked_for_again(published, monkeypatch):
    def sparse(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)

    usage = namedtuple("usage", "total used free")
    second_part(published)
    dataset(published, [], []).prepare(published / "raw")
    sparse(published / "raw/0001/dense0/paint/1_o.jpg", 55_100_000)  # of the 255.1 MB that two scenes count for
    sparse(published / "raw/0001/dense1/.paint.unfinished/7_o.jpg", 50_000_000)
    hub = published / "cache/downloads/MegaDepth-Syn-paint"
    sparse(hub / "train/Paint/MegaDepth_v1/0001/dense0/imgs/1_o.jpg", 55_100_000)
    sparse(hub / "train/Paint/MegaDepth_v1/0001/dense1/imgs/7_o.jpg", 50_000_000)
    sparse(hub / ".cache/huggingface/download/train/Paint/MegaDepth_v1/0002/dense0/imgs/1_o.jpg.incomplete", 20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 100_000_000))
    monkeypatch.setattr(module, "fetch_hub", lambda *_: pytest.fail("begun"))
    with pytest.raises(DataError, match=r"paint renditions of 2 scenes.* needs 280\.0 MB in"):
        dataset(published, ["paint"], []).prepare(published / "raw")


def test_a_modality_that_nobody_has_is_named(published):
    with pytest.raises(DataError, match=r"no paint rendition of 0001/dense0 in .*syn, looked for train/Paint"):
        dataset(published, ["paint"], [str(published / "syn")]).prepare(published / "raw")
