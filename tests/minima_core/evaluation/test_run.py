from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from oracle import FeatureOracle, Oracle

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import PairList, Prepared
from minima_core.evaluation.matching import ReusesFeatures, match_benchmark, resize_upstream
from minima_core.evaluation.predictions import Origin, Predictions, collect, read_predictions
from minima_core.evaluation.protocol import PROTOCOLS, get_protocol
from minima_core.evaluation.run import evaluate, prepared_root
from minima_core.evaluation.scoring import Scores, match_errors, score_predictions
from minima_core.io.atomic import sole_writer
from minima_core.io.images import to_tensor
from minima_core.manifest import BenchmarkManifest
from minima_core.types import Matches

PROTOCOL = get_protocol("strict-v1")


def run(matcher, benchmark: Path, out: Path, **how) -> bytes:
    how = {"model": "m", "licence": "MIT", "scratch": out.parent / "scratch", **how}
    match_benchmark(matcher, benchmark, PROTOCOL, out, **how)
    return (out / Predictions.FILE).read_bytes()


def test_predictions_come_back_as_they_were_written(tmp_path):
    origin = Origin("b", "d", "m", "minima-v1", "p", "MIT")
    rows = [np.random.default_rng(i).random((i, 2)).astype(np.float32) for i in (3, 0, 5)]
    matches = [Matches(torch.from_numpy(r), torch.from_numpy(r + 1), torch.ones(len(r))) for r in rows]
    collect(origin, ["x", "y", "z"], matches).save(tmp_path)
    read = read_predictions(tmp_path)
    assert read.origin == origin
    assert [len(m) for m in read] == [3, 0, 5]
    assert np.array_equal(read[2].mkpts1.numpy(), rows[2] + 1)
    assert read.kpts0.dtype == np.float32


def test_damaged_predictions_are_named(tmp_path):
    for folder, remedy in {
        "predictions/lightglue/finetuned/mmim": "dvc repro -f -s match@lightglue-finetuned-mmim`",
        "predictions/sift": "minima evaluate --keep`",  # of no stage
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / Predictions.FILE).write_bytes(b"no hdf5")
        with pytest.raises(DataError, match=rf"predictions\.h5.*{remedy}"):
            read_predictions(tmp_path / folder)


def test_predictions_are_the_same_bytes_for_any_number_of_workers(benchmark_folder, tmp_path):
    once = run(Oracle(), benchmark_folder, tmp_path / "a")
    assert run(Oracle(), benchmark_folder, tmp_path / "b", workers=3) == once


def test_features_that_are_reused_give_the_same_predictions(benchmark_folder, tmp_path):
    assert isinstance(FeatureOracle(), ReusesFeatures)
    assert not isinstance(Oracle(), ReusesFeatures)
    assert run(FeatureOracle(), benchmark_folder, tmp_path / "b") == run(Oracle(), benchmark_folder, tmp_path / "a")


def test_a_killed_match_continues_and_ends_with_the_same_bytes(benchmark_folder, tmp_path):
    undisturbed = run(Oracle(), benchmark_folder, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(fail_after=17), benchmark_folder, tmp_path / "b")
    assert not (tmp_path / "b" / Predictions.FILE).exists()
    second = Oracle()
    assert run(second, benchmark_folder, tmp_path / "b") == undisturbed
    assert second.calls == 4  # the first part of 16 was there
    assert not any((tmp_path / "scratch").rglob("*.h5"))


def test_a_damaged_part_is_matched_again(benchmark_folder, tmp_path):
    undisturbed = run(Oracle(), benchmark_folder, tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(fail_after=17), benchmark_folder, tmp_path / "b")
    part = next((tmp_path / "scratch").rglob("*.h5"))
    part.write_bytes(part.read_bytes()[:100])
    assert run(Oracle(), benchmark_folder, tmp_path / "b") == undisturbed


def test_scores_are_what_the_hand_says(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path)
    scores = score_predictions(tmp_path, benchmark_folder, PROTOCOL)
    # every fifth pair has no match: 8 of 10 are perfect, the recall ends at 0.8
    assert scores.metrics["auc@10px"] == pytest.approx(80, abs=0.1)
    assert scores.groups["both"] == pytest.approx(scores.metrics, abs=0.1)
    assert (set(scores.categories), set(scores.groups)) == ({"left", "right"}, {"both"})
    assert scores.failures == 4
    assert scores.protocol_hash == PROTOCOL.digest()
    lost = scores.pairs[4]
    assert (lost.error, lost.matches, lost.inliers, lost.failure) == (None, 0, 0, "too few matches (0 of 4)")
    found = scores.pairs[0]
    assert found.error is not None
    assert found.error < 0.01
    assert (found.matches, found.inliers, found.failure) == (40, 40, None)


def test_scoring_twice_gives_equal_bytes(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path)
    for name in ("a", "b"):
        score_predictions(tmp_path, benchmark_folder, PROTOCOL).save(tmp_path / name)
    assert (tmp_path / "a" / Scores.FILE).read_bytes() == (tmp_path / "b" / Scores.FILE).read_bytes()
    assert Scores.load(tmp_path / "a").pairs[4].error is None


def test_right_matches_have_no_error(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path)
    truth = Prepared(benchmark_folder).list.pairs[0]
    assert match_errors(truth, read_predictions(tmp_path)[0]).max() < 1e-4


def test_predictions_of_other_settings_are_refused(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path)
    with pytest.raises(DataError, match=r"was matched otherwise.*give the --protocol, --max-keypoints"):
        score_predictions(tmp_path, benchmark_folder, get_protocol("minima-v1", max_keypoints=7))


def test_predictions_of_other_data_are_refused(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path / "out")
    listed = PairList.load(benchmark_folder)
    changed = listed.model_copy(update={"headline": ["right"]})
    changed.save(benchmark_folder)
    with pytest.raises(DataError, match="does not belong to its manifest"):
        score_predictions(tmp_path / "out", benchmark_folder, PROTOCOL)
    changed.manifest("toy", "CC0-1.0").save(benchmark_folder)
    with pytest.raises(DataError, match=r"matches of other data than toy \(subset full\); name the subset"):
        score_predictions(tmp_path / "out", benchmark_folder, PROTOCOL)


def test_an_image_that_changed_is_named(benchmark_folder, tmp_path):
    (benchmark_folder / "3.png").write_bytes((benchmark_folder / "4.png").read_bytes())
    with pytest.raises(DataError, match=r"3\.png has changed"):
        run(Oracle(), benchmark_folder, tmp_path / "out")


def test_an_image_that_went_is_named(benchmark_folder, tmp_path):
    (benchmark_folder / "3.png").unlink()
    with pytest.raises(DataError, match=r"no .*3\.png"):
        run(Oracle(), benchmark_folder, tmp_path / "out")


def test_a_skipped_benchmark_gives_empty_predictions_and_scores(tmp_path):
    PairList(task="pose", protocol="", headline=[], groups={}, pairs=[]).save(tmp_path / "b")
    BenchmarkManifest(benchmark="toy", licence="", pairs=0, skipped="no data; bring them").save(tmp_path / "b")
    run(Oracle(), tmp_path / "b", tmp_path / "out")
    scores = score_predictions(tmp_path / "out", tmp_path / "b", PROTOCOL)
    assert scores.skipped == "no data; bring them"
    assert (scores.metrics, scores.categories, scores.groups, scores.pairs) == ({}, {}, {}, [])


def test_evaluating_in_one_go_gives_the_same_scores(benchmark_folder, tmp_path):
    run(Oracle(), benchmark_folder, tmp_path)
    apart = score_predictions(tmp_path, benchmark_folder, PROTOCOL)
    at_once = evaluate(Oracle(), benchmark_folder, PROTOCOL, model="name", licence="MIT")
    assert at_once.metrics == apart.metrics
    assert at_once.model == "name"
    json.dumps(at_once.model_dump(mode="json"), allow_nan=False)


def test_predictions_that_another_process_makes_are_not_scored(benchmark_folder, tmp_path):
    keep = tmp_path / "keep"
    how = {"model": "name", "licence": "MIT", "keep": keep}
    with sole_writer(keep / Predictions.FILE), pytest.raises(DataError, match=r"another process is writing .*h5;"):
        evaluate(Oracle(), benchmark_folder, PROTOCOL, **how)
    assert evaluate(Oracle(), benchmark_folder, PROTOCOL, **how).model == "name"
    assert [path.name for path in keep.iterdir()] == [Predictions.FILE]


def test_matches_say_how_many_and_how_sure_they_are():
    points = torch.zeros(2, 2)
    assert repr(Matches(points, points, torch.tensor([0.25, 0.5]))) == "Matches(2 matches, scores 0.25 to 0.50)"
    assert repr(Matches.empty()) == "Matches(0 matches)"


def test_a_root_without_data_is_an_error_not_a_skip(tmp_path):
    with pytest.raises(DataError, match=r"no list\.json"), prepared_root("mmim", tmp_path, "minima-v1"):
        pass
    with pytest.raises(DataError, match="no folder"), prepared_root("mmim", tmp_path / "absent", "minima-v1"):
        pass


def test_a_part_is_named_in_its_scores_and_another_one_is_not_passed_off_as_it(benchmark_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("minima_core.evaluation.run.BENCHMARKS.get", lambda name: None)  # it is of no plugin
    manifest = BenchmarkManifest.load(benchmark_folder)
    assert evaluate(Oracle(), benchmark_folder, PROTOCOL, model="m", licence="MIT").title == "toy"
    manifest.model_copy(update={"subset": "mini"}).save(benchmark_folder)
    scores = evaluate(Oracle(), benchmark_folder, PROTOCOL, model="m", licence="MIT")
    assert (scores.subset, scores.title) == ("mini", "toy (subset mini)")
    for subset in ("mini", ""):
        with prepared_root("toy", benchmark_folder, "minima-v1", subset) as folder:
            assert folder == benchmark_folder
    for subset in ("smoke", "full"):
        refused = pytest.raises(DataError, match=r"is prepared as mini; .*benchmark\.toy\.subset")
        with refused, prepared_root("toy", benchmark_folder, "minima-v1", subset):
            pass


def test_the_published_resizing_floors_to_eight_and_scales_without_the_half_pixel():
    image = np.random.default_rng(0).integers(0, 255, (301, 500, 3)).astype(np.uint8)
    small, scale = resize_upstream(image, 640)
    assert small.shape == (3, 384, 640)  # 301 * 1.28 = 385.3
    assert scale == (500 / 640, 301 / 384)


def test_the_published_protocol_gives_sparse_matchers_the_larger_size(benchmark_folder, tmp_path):
    class Watched(Oracle):
        def match(self, image0, image1, *, max_keypoints=None, long_side=None):
            seen.add((tuple(image0.shape), long_side))
            return Matches.empty()

    for sparse, side in ((True, 1024), (False, 640)):
        seen: set = set()
        matcher = Watched()
        matcher.sparse = sparse
        how = {"model": "m", "licence": "MIT", "scratch": tmp_path / "scratch"}
        match_benchmark(matcher, benchmark_folder, get_protocol("minima-v1"), tmp_path / str(sparse), **how)
        assert seen == {((3, 424, 640), side)}  # 96 x 64, enlarged


def test_matches_come_back_to_original_pixels_under_the_published_protocol(benchmark_folder, tmp_path):
    class Corner(Oracle):
        def match(self, image0, image1, *, max_keypoints=None, long_side=None):
            return Matches(torch.tensor([[320.0, 212.0]]), torch.tensor([[640.0, 424.0]]), torch.ones(1))

    how = {"model": "m", "licence": "MIT", "scratch": tmp_path / "scratch"}
    match_benchmark(Corner(), benchmark_folder, get_protocol("minima-v1"), tmp_path / "p", **how)
    found = read_predictions(tmp_path / "p")[0]
    assert found.mkpts0.tolist() == [[48, 32]] and found.mkpts1.tolist() == [[96, 64]]


def test_matching_is_in_whole_float32_and_leaves_what_was_set(benchmark_folder, tmp_path):
    class Watched(Oracle):
        def match(self, image0, image1, **_):
            seen.add((torch.backends.cudnn.allow_tf32, torch.get_num_threads()))
            return Matches.empty()

    seen: set[tuple[bool, int]] = set()
    before = torch.backends.cudnn.allow_tf32
    run(Watched(), benchmark_folder, tmp_path / "out")
    assert seen == {(False, 1)} and torch.backends.cudnn.allow_tf32 is before is True


def test_the_published_protocol_reads_files_gray_for_gray_networks(benchmark_folder, tmp_path):
    class Gray(Oracle):
        reads_gray = True

        def match(self, image0, image1, **_):
            seen.append(image0)
            return Matches.empty()

    for name in PROTOCOLS:
        seen: list[torch.Tensor] = []
        how = {"model": "m", "licence": "MIT", "scratch": tmp_path / "scratch"}
        match_benchmark(Gray(), benchmark_folder, get_protocol(name), tmp_path / name, **how)
        gray = cv2.imread(str(benchmark_folder / "0.png"), cv2.IMREAD_GRAYSCALE)
        if name == "minima-v1":
            expected = cv2.resize(gray, (640, 424), interpolation=cv2.INTER_LINEAR)
            assert torch.equal(seen[0], to_tensor(expected[..., None].repeat(3, 2)))
        else:  # which leaves colours to the matcher
            assert not torch.equal(seen[0][0], seen[0][1])
