"""What the quality gate lets through: `python benchmarks/gate.py [--datasets synthetic photos rgbd] [--matcher MODEL]`.

For each modality's default engine, over every image of the data sets (with their settings in params.yaml): the share of
honest renditions that pass, and of planted failures that are caught: shifted by 24 pixels, mirrored, upside down,
turned, blank, and the rendition of another image. With `--matcher`, a second opinion on modalities that the matcher can
read: the median corner error under known warps, of honest renditions and of ones shifted by 24 pixels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from minima_core.config import load_params
from minima_core.data.datasets.base import DATASETS
from minima_core.errors import Unavailable
from minima_core.parallel import map_jobs
from minima_core.random import rng
from minima_core.synthesis.base import MODALITIES, engine_at_work
from minima_core.synthesis.gate import Gate, matcher_error, shipped
from minima_core.synthesis.sources import Item, items_of

AHEAD = 7  # images of the order in which "another" is looked for: neighbours may show the same
PLANTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shifted": lambda image: np.roll(image, 24, 1),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned": lambda image: image[::-1, ::-1],
    "blank": lambda image: np.full_like(image, 255),
}


def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["synthetic"])
    parser.add_argument("--limit", type=int, default=200, help="images a data set, evenly spread")
    parser.add_argument("--matcher", default="", help="a model for the second opinion, for example xfeat-lightglue")
    arguments = parser.parse_args()
    params = load_params(Path("params.yaml"))
    for name in arguments.datasets:
        plugin = DATASETS.get(name)
        dataset = plugin(plugin.Params(**params["dataset"][name]), seed=0)
        with tempfile.TemporaryDirectory() as folder:
            dataset.prepare(Path(folder), workers=2)
            items = [item for scene in dataset.scenes(Path(folder)) for item in items_of(scene, Path(folder))]
            items = items[:: max(1, len(items) // arguments.limit)]
            report(name, items)
            if arguments.matcher:
                second_opinion(arguments.matcher, items[:: max(1, len(items) // 20)])


def report(name: str, items: list[Item]) -> None:
    """Print the shares for one data set: honest ones that pass, planted ones that are caught."""
    columns = [*PLANTED, "another"]
    print(f"\n{name}, {len(items)} images\n{'':10} {'honest':>13} " + " ".join(f"{c:>12}" for c in columns))
    for modality in MODALITIES.names():
        jobs = paired(items)
        counts = sum(map_jobs(partial(judged, modality), jobs, workers=2, what=modality), Counter[str]())
        if not counts["made"]:
            print(f"{modality:10} needs depth")
            continue
        shares = [f"{counts[c]}/{counts['made ' + c]}" for c in columns]
        passed = f"{counts['passed']}/{counts['made']}"
        print(f"{modality:10} {passed:>13} " + " ".join(f"{share:>12}" for share in shares), flush=True)


def paired(items: list[Item]) -> list[tuple[Item, Item]]:
    """Return each image with another one, half a round ahead where there are few; a lone one with itself."""
    ahead = min(AHEAD, len(items) // 2)
    return list(zip(items, items[ahead:] + items[:ahead], strict=True))


def judged(modality: str, job: tuple[Item, Item]) -> Counter[str]:
    """Return how an honest rendition and the planted ones of one image fare."""
    item, other = job
    source = item.read()
    try:
        image, wrong = (make(modality, which) for which in (item, other))
    except Unavailable:
        return Counter()
    gate = Gate(shipped(), source)
    counts = Counter({"made": 1, "passed": int(not gate.judge(image).reason)})
    spoilt = {name: np.ascontiguousarray(spoil(image)) for name, spoil in PLANTED.items()}
    if other.name != item.name:
        spoilt["another"] = cv2.resize(wrong, image.shape[1::-1])
    for name, picture in spoilt.items():
        counts["made " + name] += 1
        counts[name] += int(bool(gate.judge(picture).reason))
    return counts


def make(modality: str, item: Item) -> np.ndarray:
    """Return the rendition of the modality's default engine."""
    engine = engine_at_work(modality, json.dumps(MODALITIES.settings(modality)))
    return engine.synthesise(item.read(), seed=0, modality=modality).image


def second_opinion(model: str, items: list[Item]) -> None:
    """Print a matcher's median corner error in pixels for honest and for shifted renditions."""
    from minima_core import load_matcher

    matcher = load_matcher(model)

    def match(image0: np.ndarray, image1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = matcher.match(image0, image1)
        return np.asarray(found.mkpts0), np.asarray(found.mkpts1)

    print(f"\n{model}, corner error in px under known warps, {len(items)} images\n{'':10} {'honest':>8} {'shifted':>8}")
    for modality in MODALITIES.names():
        errors: dict[str, list[float]] = {"honest": [], "shifted": []}
        for item in items:
            try:
                image, source = make(modality, item), item.read().image
            except Unavailable:
                continue
            for what, picture in (("honest", image), ("shifted", np.roll(image, 24, 1))):
                errors[what].append(matcher_error(match, source, picture, rng(0, item.name, "gate")))
        if errors["honest"]:
            print(f"{modality:10} " + " ".join(f"{np.median(of):8.1f}" for of in errors.values()), flush=True)


if __name__ == "__main__":
    main()
