"""Plain pictures through the command line's function."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minima_core.config import PARAMS, read_value
from minima_core.errors import ConfigError, DataError, Unavailable
from minima_core.io.depth import write_depth
from minima_core.io.images import RECORD, decode_raw, find_images, read_image, write_image
from minima_core.synthesis import files
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.files import synthesise_files
from minima_core.synthesis.gate import Gate, Verdict

NETWORK = {"engine": "depth_anything_v2", "weights": "random", "input_size": 56}


@pytest.fixture
def pictures(tmp_path, photo):
    for name in ("a.jpg", "a.png", "deep/er/b.JPG", "c.d.png"):
        write_image(tmp_path / "in" / name, photo[:40, :50])
    return tmp_path / "in"


def run(given, out, modality="event", seed=0, **changes):
    settings = {**MODALITIES.settings(modality, changes.get("engine", "")), **changes}
    return synthesise_files(given, out, modality=modality, settings=settings, seed=seed)


def record(out):
    return json.loads((out / "synthesis.json").read_text())


def test_the_shipped_settings_are_those_of_the_checkout(request):
    ours = read_value("synthesis", request.config.rootpath / PARAMS)
    assert {modality: MODALITIES.settings(modality) for modality in MODALITIES.names()} == ours


def test_settings_of_an_unknown_modality_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'paint'"):
        MODALITIES.settings("paints")


def test_a_folder_keeps_its_tree_and_no_output_hides_another(pictures, tmp_path):
    made = run(pictures, tmp_path / "out")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in made]
    assert names == ["a.jpg.png", "a.png.png", "c.d.png", "deep/er/b.png"]
    assert all(read_image(path).shape == (40, 50, 3) for path in made)


def test_jpeg_where_the_engine_does_not_ask_for_png(pictures, tmp_path):
    assert run(pictures / "a.png", tmp_path / "out", "paint") == [tmp_path / "out" / "a.jpg"]


def test_a_second_run_makes_nothing_and_a_change_makes_that_one(pictures, tmp_path, photo):
    out = tmp_path / "out"
    made = run(pictures, out)
    before = [path.stat().st_mtime_ns for path in made]
    assert run(pictures, out) == made
    assert [path.stat().st_mtime_ns for path in made] == before
    write_image(pictures / "c.d.png", photo[40:80, :50])
    run(pictures, out)
    assert [a != b.stat().st_mtime_ns for a, b in zip(before, made, strict=True)] == [False, False, True, False]
    run(pictures, out, seed=1)
    assert all(a != b.stat().st_mtime_ns for a, b in zip(before, made, strict=True))


def test_an_upgrade_of_the_engine_makes_the_pictures_again(pictures, tmp_path, monkeypatch):
    parts = []
    monkeypatch.setattr(files, "code_digest", lambda *named: parts.extend(named) or "older")
    (path,) = run(pictures / "a.png", tmp_path / "out")
    before = path.stat().st_mtime_ns
    assert {"synthesis/event", "synthesis/base.py"} <= set(parts)
    monkeypatch.setattr(files, "code_digest", lambda *_: "newer")
    run(pictures / "a.png", tmp_path / "out")
    assert path.stat().st_mtime_ns != before


def test_a_spoilt_output_is_made_again(pictures, tmp_path):
    (path,) = run(pictures / "a.png", tmp_path / "out")
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    run(pictures / "a.png", tmp_path / "out")
    assert path.read_bytes() == whole


def test_a_damaged_picture_is_named_and_the_others_are_made(pictures, tmp_path):
    (pictures / "a.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"a\.png.*3 other outputs were made"):
        run(pictures, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


@pytest.mark.parametrize("modality", ["depth", "normal"])
def test_depth_of_a_plain_picture_is_unavailable_in_one_line(pictures, tmp_path, modality):
    with pytest.raises(Unavailable, match=r"no depth for a\.jpg") as caught:
        run(pictures, tmp_path / "out", modality)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_depth_beside_a_picture_is_used_and_the_rest_is_left_out_aloud(pictures, tmp_path, caplog):
    write_depth(pictures / "c.d.h5", np.linspace(1, 2, 50) * np.ones((40, 1)))
    (pictures / "c.d.txt").write_text("40,40,25,20\n")
    with caplog.at_level(logging.WARNING):
        assert run(pictures, tmp_path / "out", "normal") == [tmp_path / "out" / "c.d.jpg"]
    assert "no depth for a.jpg" in caplog.text
    assert json.loads((tmp_path / "out" / RECORD).read_text())["c.d.jpg"]["drawn"]["intrinsics"] == "data set"


@pytest.mark.parametrize("line", ["forty", "nan,40,25,20", "40,inf,25,20", "0,0,25,20", "40,-40,25,20"])
def test_a_bad_intrinsics_file_is_named(pictures, tmp_path, line):
    (pictures / "c.d.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"c\.d\.txt"):
        run(pictures / "c.d.png", tmp_path / "out", "normal")


def test_a_caption_beside_a_picture_is_no_camera_to_an_engine_that_reads_none(pictures, tmp_path):
    (pictures / "c.d.txt").write_text("forty winks, in four, parts\n")
    (made,) = run(pictures / "c.d.png", tmp_path / "out")
    before = made.stat().st_mtime_ns
    (pictures / "c.d.txt").write_text("another caption\n")
    assert run(pictures / "c.d.png", tmp_path / "out")[0].stat().st_mtime_ns == before


def test_outputs_may_lie_in_a_folder_below_but_not_among_the_pictures(pictures):
    made = run(pictures, pictures / "event")
    assert run(pictures, pictures / "event") == made
    with pytest.raises(ConfigError, match="--out"):
        run(pictures, pictures)


def test_outputs_of_another_modality_among_the_pictures_are_no_pictures(pictures, tmp_path):
    made = run(pictures, pictures / "made" / "event")
    assert len(run(pictures, pictures / "made" / "sketch", "sketch")) == len(made) == 4
    assert len(run(pictures / "made" / "event", tmp_path / "again", "sketch")) == 4  # asked for by name
    with pytest.raises(DataError, match=r"made but what `minima synthesise` made; name one of its folders"):
        run(pictures / "made", tmp_path / "none", "sketch")


def test_a_missing_input_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        run(tmp_path / "empty", tmp_path / "out")


def test_a_full_disk_stops_at_once(pictures, tmp_path, monkeypatch):
    calls = []

    def full(path, *_):
        calls.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        run(pictures, tmp_path / "out")
    assert len(calls) == 1


def test_a_killed_run_goes_on_from_its_record(tmp_path, photo):
    for k in range(files.RECORD_EVERY + 3):
        write_image(tmp_path / "in" / f"{k:03d}.png", photo[k : k + 40, :50])
    script = """
import os, signal
from pathlib import Path
from minima_core.synthesis import base, files
made = []
def one(*args, original=files._one):
    if len(made) == files.RECORD_EVERY + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(args)
    return original(*args)
files._one = one
files.synthesise_files(Path("in"), Path("out"), modality="event", settings=base.MODALITIES.settings("event"), seed=0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert len(before) == files.RECORD_EVERY + 1
    run(tmp_path / "in", tmp_path / "out")
    assert sum(path.stat().st_mtime_ns == when for path, when in before.items()) == files.RECORD_EVERY


def test_settings_from_elsewhere_are_not_blamed_on_params_yaml(pictures, tmp_path):
    with pytest.raises(ConfigError, match=r"^settings of event") as caught:
        synthesise_files(pictures, tmp_path / "out", modality="event", settings={"engine": "closed_form"}, seed=0)
    assert "params.yaml" not in str(caught.value)


def test_an_engine_that_not_everybody_may_use_takes_a_decision(pictures, tmp_path):
    settings = MODALITIES.settings("normal", "dsine")
    with pytest.raises(ConfigError, match="does not allow commercial use, and --licence is permissive"):
        synthesise_files(pictures, tmp_path / "out", modality="normal", settings=settings, seed=0)
    assert not (tmp_path / "out").exists()


def test_raw_values_lie_beside_their_picture(pictures, tmp_path, engine):
    out = tmp_path / "out"
    made = run(pictures, out, "depth", **NETWORK)
    assert [path.name for path in made] == ["a.jpg.jpg", "a.png.jpg", "c.d.jpg", "b.jpg"]
    raws = [out / name for name in ("a.jpg.raw.png", "a.png.raw.png", "c.d.raw.png", "deep/er/b.raw.png")]
    assert sorted(out.rglob("*.raw.png")) == sorted(raws)
    source = Source("c.d.png", read_image(pictures / "c.d.png"))
    expected = engine("depth", **NETWORK).synthesise(source, seed=0, modality="depth").raw
    low, high = record(out)["c.d.jpg"]["drawn"]["raw_range"]
    assert (low, high) == (expected.min(), expected.max())
    found = decode_raw(raws[2].read_bytes(), (low, high))
    assert np.abs(found - expected).max() <= (high - low) / 65535
    assert (
        find_images(out) == made
    )  # and so they are no pictures where the outputs are what something else is made from


def test_raw_values_stay_as_long_as_their_picture_and_are_made_again(pictures, tmp_path):
    picture, out = pictures / "a.png", tmp_path / "out"
    run(picture, out, "depth", **NETWORK)
    raw = out / "a.raw.png"
    whole, before = raw.read_bytes(), raw.stat().st_mtime_ns
    run(picture, out, "depth", **NETWORK)
    assert raw.stat().st_mtime_ns == before
    raw.unlink()
    run(picture, out, "depth", **NETWORK)
    assert raw.read_bytes() == whole
    write_depth(pictures / "a.h5", np.linspace(1, 2, 50) * np.ones((40, 1)))
    assert run(picture, out, "depth") == [out / "a.jpg"]  # by an engine that keeps none
    assert not raw.exists()


def test_the_record_says_which_attempt_passed_and_how_well(pictures, tmp_path, engine, monkeypatch):
    verdicts = iter([Verdict("blank"), Verdict("", 7.126)])
    monkeypatch.setattr(Gate, "judge", lambda *_: next(verdicts))
    (path,) = run(pictures / "a.png", tmp_path / "out")
    drawn = record(tmp_path / "out")["a.png"]["drawn"]
    assert (drawn["attempt"], drawn["agreement"]) == (1, 7.13)
    source = Source("a.png", read_image(pictures / "a.png"))
    again = engine("event").synthesise(source, seed=0, modality="event", attempt=1)
    assert np.array_equal(read_image(path), again.image)
