"""Pairs of the user's own: landmarks become the homography that they were made by, and mistakes are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from minima_core.errors import MinimaError
from minima_core.evaluation.benchmarks.base import PairList, create_benchmark
from minima_core.evaluation.run import prepared_root
from minima_core.io.images import write_image

SHIFT = [[1.0, 0, 3], [0, 1, 5], [0, 0, 1]]
MARKS = [[0, 0, 3, 5], [30, 0, 33, 5], [30, 20, 33, 25], [0, 20, 3, 25], [10, 9, 13, 14]]  # by SHIFT
PAGE = Path(__file__).resolve().parents[4] / "docs/evaluation.md"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "my pairs"
    write_image(folder / "optical/a.png", np.full((24, 32, 3), 10, np.uint8))
    write_image(folder / "sar/a.png", np.full((30, 40, 3), 20, np.uint8))
    return folder


def entry(**kwargs):
    return {"image0": "optical/a.png", "image1": "sar/a.png", **kwargs}


def prepare(root: Path, *entries, subset: str = "full") -> PairList:
    (root / "own_pairs.json").write_text(json.dumps(entries))
    out = root / "out"
    create_benchmark("own_pairs", {"root": str(root), "subset": subset}, "strict-v1").prepare(out, scratch=root / "s")
    return PairList.load(out)


def test_landmarks_give_the_homography_that_they_lie_on(root):
    pairs = prepare(root, entry(landmarks=MARKS, category="harbour"))
    (pair,) = pairs.pairs
    np.testing.assert_allclose(pair.H_0to1, SHIFT, atol=1e-4)
    assert (pair.size0, pair.size1, pair.category) == ((32, 24), (40, 30), "harbour")
    assert pairs.floor == {pair.name: pytest.approx(0, abs=1e-3)}


def test_four_landmarks_say_nothing_of_their_own_error(root):
    assert prepare(root, entry(landmarks=MARKS[:4])).floor == {}


def test_a_homography_may_have_any_scale(root):
    (pair,) = prepare(root, entry(H_0to1=(-2 * np.array(SHIFT)).tolist())).pairs
    assert pair.H_0to1 == SHIFT


def test_a_landmark_that_does_not_fit_is_named(root, caplog):
    prepare(root, entry(landmarks=[*MARKS[:4], [15, 12, 30, 17]]))
    assert re.search(r"landmark 4 is \d+\.\d px from the homography", caplog.text)


def test_categories_are_averaged_and_a_subset_takes_some_of_each(root):
    entries = []
    for k in range(6):
        write_image(root / f"optical/{k}.png", np.full((24, 32, 3), k, np.uint8))
        entries.append(entry(image0=f"optical/{k}.png", H_0to1=SHIFT, category="ab"[k % 2]))
    pairs = prepare(root, *entries, subset="smoke")
    assert pairs.headline == ["a", "b"]
    assert [pair.image0[-5] for pair in pairs.pairs] == ["0", "4", "1", "5"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], r"cannot read .*own_pairs\.json: it is no list of pairs, or an empty one"),
        ([{}], r"pair 0: 'image0' is missing"),
        ([entry()], r"pair 0: .*either landmarks or H_0to1"),
        ([entry(landmarks=MARKS, H_0to1=SHIFT)], r"either landmarks or H_0to1"),
        ([entry(landmarks=MARKS[:3])], r"pair 0.landmarks: .*at least 4"),
        ([entry(landmark=MARKS)], r"'landmark' is not in .*did you mean 'landmarks'\?"),
        ([entry(H_0to1=[[1, 0], [0, 1]])], r"pair 0.H_0to1"),
        ([entry(image0="gone.png", H_0to1=SHIFT)], r"no .*gone\.png"),
        ([entry(image0="../a.png", H_0to1=SHIFT)], r"no path inside its folder"),
        ([entry(landmarks=[*MARKS, [31, 25, 5, 5]])], r"landmark 5, \[31\.0, 25\.0, 5\.0, 5\.0\], is outside"),
        ([entry(landmarks=[[k, k, k, k] for k in range(6)])], r"off one line|all over the images"),
        ([entry(H_0to1=np.zeros((3, 3)).tolist())], r"all over the images"),
        ([entry(H_0to1=[[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]])], r"infinity"),
        ([entry(H_0to1=SHIFT)] * 2, r"twice"),
    ],
)
def test_a_mistake_in_the_list_is_named(root, entries, message):
    with pytest.raises(MinimaError, match=message):
        prepare(root, *entries)


def test_a_folder_without_a_list_is_told_how_to_write_one(tmp_path):
    told = pytest.raises(MinimaError, match=r"no .*own_pairs\.json; write it as docs/evaluation\.md shows")
    with told, prepared_root("own_pairs", tmp_path, "strict-v1"):
        pass


@pytest.mark.parametrize("text", ['[{"image0": "optical/a.png",]', "[" * 100_000])
def test_a_list_that_is_no_json_is_named(root, text):
    prepare(root, entry(H_0to1=SHIFT))
    (root / "own_pairs.json").write_text(text)
    with pytest.raises(MinimaError, match=r"cannot read .*own_pairs\.json"):
        create_benchmark("own_pairs", {"root": str(root), "subset": "full"}, "strict-v1").prepare(
            root / "out", scratch=root / "s"
        )


def test_the_list_in_the_documentation_is_one(root):
    text = PAGE.read_text(encoding="utf-8")
    entries = json.loads(text.split("```json\n")[1].split("```")[0])
    for listed in entries:
        for image in (listed["image0"], listed["image1"]):
            write_image((root / image).with_suffix(".png"), np.zeros((480, 640, 3), np.uint8))
            (root / image).with_suffix(".png").rename(root / image)
    assert len(prepare(root, *entries).pairs) == 2
