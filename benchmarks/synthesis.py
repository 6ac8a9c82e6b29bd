"""How fast synthesis is: `python benchmarks/synthesis.py [--engines all] [--sizes 640x480 1600x1200] [--device cpu]`.

For each engine the whole stage (read, make, judge, encode, write) over pictures on disk, in one process and with all
cores, against the ceiling: the same computation alone, in this process, pictures in memory. The three are measured in
turn, `--rounds` times: rates are medians, and so are ratios, each of one round, because the machine's speed wanders.
Times are wall-clock, so it should be otherwise idle. The pictures are photographs that scikit-image ships; depth,
materials and poses are made up, with holes, steps and tilted planes. Networks run with small random weights unless
`--weights published` is given: their rows then say what the machinery costs, not what the published networks do.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from minima_core.data.index import Scene, write_scene
from minima_core.io.atomic import write_json
from minima_core.io.depth import write_depth
from minima_core.io.images import write_image
from minima_core.manifest import SceneEntry, SceneManifest
from minima_core.memory import keep_freed
from minima_core.synthesis.base import MODALITIES, Engine, Source
from minima_core.synthesis.event.closed_form import events
from minima_core.synthesis.gate import judge, shipped
from minima_core.synthesis.runner import encode, synthesise_index
from minima_core.synthesis.sources import Item, items_of

CORES = len(os.sched_getaffinity(0))
SECONDS = 3.0  # that the ceiling is measured for, about


@dataclass(frozen=True)
class Row:
    """One engine at one size; rates are images a second, and what is compared is the median of paired rounds."""

    engine: str
    size: str
    images: int
    ceiling: float  # computation alone, one process
    one: float  # the stage, one process
    all: float  # the stage, all cores
    ratio: float  # achieved over ceiling in one process
    overhead: float  # milliseconds an image that reading, judging, encoding and writing take
    times: float  # all cores over one process
    weights: str


def main() -> None:
    """Print the table, and how much faster the vectorised event picture is than the published loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["default"], help="modality/engine, `default` or `all`")
    parser.add_argument("--sizes", nargs="+", default=["640x480"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", choices=["random", "published"], default="random")
    parser.add_argument("--rounds", type=int, default=5, help="that each row is the median of")
    parser.add_argument("--parts", action="store_true", help="also what a picture pays for what, in milliseconds")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    keep_freed()  # as stages do
    print(f"{CORES} cores, device {arguments.device}; rates in images a second")
    print(f"{'engine':26} {'size':>9} {'n':>4} {'alone':>7} {'1 proc':>7} {'ratio':>6} {'+ms':>6} {'all':>7} {'x':>5}")
    rows = []
    for size in arguments.sizes:
        for modality, name in chosen(arguments.engines):
            row = measure(modality, name, size, arguments.device, arguments.weights, arguments.rounds)
            rows.append(row)
            print(
                f"{row.engine:26} {row.size:>9} {row.images:4} {row.ceiling:7.1f} {row.one:7.1f} {row.ratio:6.2f} "
                f"{row.overhead:6.1f} {row.all:7.1f} {row.times:5.2f}"
                + (f"  ({row.weights} weights)" if row.weights != "none" else ""),
                flush=True,
            )
            if arguments.parts:
                print("  " + "  ".join(f"{what} {ms:.2f}" for what, ms in parts(modality, name, size).items()))
    if arguments.json:
        write_json(arguments.json, [vars(row) for row in rows])
    event_against_the_loop()


def chosen(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (modality, engine) of what was asked for."""
    for modality in MODALITIES.names():
        default = MODALITIES.settings(modality)["engine"]
        for engine in MODALITIES.engines(modality).names():
            if names == ["all"] or f"{modality}/{engine}" in names or (names == ["default"] and engine == default):
                yield modality, engine


def measure(modality: str, name: str, size: str, device: str, weights: str, rounds: int) -> Row:
    """Measure one engine at one size."""
    settings = MODALITIES.settings(modality, name)
    if "weights" in settings:
        settings["weights"] = weights
    width, height = (int(word) for word in size.split("x"))
    engine = MODALITIES.create(modality, settings)
    engine.setup(device if engine.gpus else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        items = write_world(root, 16, width, height)
        sources = [item.read() for item in items]
        seconds = timed(lambda: engine.synthesise(sources[0], seed=0, modality=modality))  # and warm
        count = int(np.clip(SECONDS / seconds, 48, 512)) // 8 * 8
        write_world(root, count, width, height)

        def stage(workers: int) -> float:
            return count / timed(
                lambda: synthesise_index(
                    root / "index",
                    root / "raw",
                    root / "out",
                    modality=modality,
                    settings=settings,
                    gate=shipped().model_dump(),
                    seed=0,
                    workers=workers,
                    scratch=root / "scratch",
                    device=device if engine.gpus else "cpu",
                )
            )

        rates = np.array(
            [
                (count / timed(lambda: compute(engine, modality, sources, count)), stage(1), stage(CORES))
                for _ in range(rounds)
            ]
        )
    alone, one, every = rates.T
    medians = [
        float(np.median(rate)) for rate in (alone, one, every, one / alone, 1e3 / one - 1e3 / alone, every / one)
    ]
    return Row(f"{modality}/{name}", size, count, *medians, weights=engine.weights)


def parts(modality: str, name: str, size: str) -> dict[str, float]:
    """Return the processor milliseconds that a picture takes to be read, judged and encoded, the least of several."""
    width, height = (int(word) for word in size.split("x"))
    engine = MODALITIES.create(modality, MODALITIES.settings(modality, name))
    engine.setup("cpu")
    with tempfile.TemporaryDirectory() as folder:
        (item,) = write_world(Path(folder), 1, width, height)
        source = item.read()
        made, bars = engine.synthesise(source, seed=0, modality=modality), shipped()
        work: dict[str, Callable[[], object]] = {
            "picture": lambda: item.read(frozenset()),
            "with what it reads": lambda: item.read(engine.reads),
            "gate": lambda: judge(engine, source, made, bars, seed=0, modality=modality),
            "encode": lambda: encode(made, engine),
        }
        return {what: 1e3 * min(processor_seconds(step) for _ in range(20)) for what, step in work.items()}


def compute(engine: Engine, modality: str, sources: list[Source], count: int) -> None:
    """Make ``count`` images from pictures in memory, in batches as the stage does."""
    height, width = sources[0].image.shape[:2]
    batch = min(engine.batch_size(width, height), 8)
    for start in range(0, count, batch):
        chunk = [sources[(start + k) % len(sources)] for k in range(batch)]
        engine.synthesise_batch(chunk, seed=0, modality=modality)


def timed(work: Callable[[], object]) -> float:
    """Return the wall-clock seconds of ``work``."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_world(root: Path, count: int, width: int, height: int) -> list[Item]:
    """Write an index of one scene of ``count`` pictures with depth, materials and poses; return their items."""
    names = [f"{k:04d}" for k in range(count)]
    images = [f"town/{name}.jpg" for name in names]
    made = picture(width, height)
    for k, name in enumerate(names):
        image = np.roll(made.image, 7 * k, 1)
        write_image(root / "raw" / f"town/{name}.jpg", image)
        write_depth(root / "raw" / f"town/{name}.h5", made.depth)
        write_image(root / "raw" / f"town/{name}.png", made.material)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = 0.05 * np.arange(count)
    pairs = np.stack([np.arange(count - 1), np.arange(1, count)], 1)
    scene = Scene(
        "town",
        "train",
        images,
        [path.replace(".jpg", ".h5") for path in images],
        [path.replace(".jpg", ".png") for path in images],
        np.tile([width, height], (count, 1)),
        np.tile(made.K, (count, 1, 1)),
        poses,
        pairs,
        np.full(len(pairs), 0.9),
    )
    write_scene(root / "index", scene)
    entry = SceneEntry(name="town", split="train", images=count, pairs=len(pairs), digest="0")
    SceneManifest(dataset="benchmark", licence="CC0-1.0", relation="depth", raw="raw", scenes=[entry]).save(
        root / "index"
    )
    return items_of(scene, root / "raw")


def picture(width: int, height: int) -> Source:
    """Return a photograph with made-up geometry."""
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    ys, xs = np.mgrid[:height, :width] / max(width, height)
    depth = (1 / (0.1 + 0.1 * xs + 0.3 * ys)).astype(np.float32)
    for k in range(12):  # as many steps as a street has
        left, top = (0.07 + 0.3 * (k % 3)) * width, (0.15 + 0.2 * (k // 3)) * height
        depth[int(top) : int(top + 0.15 * height), int(left) : int(left + (0.08 + 0.01 * k) * width)] = 1.5 + 0.3 * k
    depth[: height // 8] = 0
    material = (1 + (4 * xs).astype(np.uint8) * 4 + (4 * ys).astype(np.uint8)).astype(np.uint8)
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    return Source("benchmark/0", image, depth=depth, K=K, material=np.minimum(material, 17).astype(np.uint8))


def event_against_the_loop() -> None:
    """Print how much faster the vectorised event picture is than the pixel-by-pixel one, in processor time."""
    gray = cv2.cvtColor(picture(640, 480).image, cv2.COLOR_RGB2GRAY)
    assert (events(gray, 0.2, 2, -1) == double_loop(gray, 0.2, 2, -1)).all()
    fast = min(processor_seconds(lambda: events(gray, 0.2, 2, -1)) for _ in range(50))
    slow = processor_seconds(lambda: double_loop(gray, 0.2, 2, -1))
    print(f"event against the pixel loop: {slow / fast:.0f} times as fast ({1e3 * slow:.0f} ms to {1e3 * fast:.2f} ms)")


def processor_seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds of ``work``, which other work on the machine does not lengthen."""
    start = time.process_time()
    work()
    return time.process_time() - start


def double_loop(gray: np.ndarray, contrast: float, dx: int, dy: int) -> np.ndarray:
    """Return the event picture as its definition reads, pixel by pixel."""
    log = np.log(gray.astype(np.float32) + 1)
    result = np.full((*gray.shape, 3), 255, np.uint8)
    for i in range(abs(dy), gray.shape[0] - abs(dy)):
        for j in range(abs(dx), gray.shape[1] - abs(dx)):
            change = log[i + dy, j + dx] - log[i, j]
            if change > contrast:
                result[i, j] = (0, 0, 255)
            elif change < -contrast:
                result[i, j] = (255, 0, 0)
    return result


if __name__ == "__main__":
    main()
