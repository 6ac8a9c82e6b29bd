"""What is made of every image of a source once and kept: a file (a part) a scene and kind, found again by its inputs.

A part's name holds a digest of the files that it was made from, and its folder's one of how: a part that exists is the
right one. A run that was killed goes on with the next part, and a new modality leaves the others' parts alone.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from minima_core.data.index import Scene
from minima_core.data.pairs import PairSource
from minima_core.manifest import SceneManifest, file_sha256
from minima_core.progress import track

T = TypeVar("T")
Parts = dict[tuple[str, str], Path]  # by scene and kind


def part_paths(source: PairSource, folder: Path, kinds: Sequence[str], *, suffix: str) -> Parts:
    """Return where the parts of ``source`` lie in ``folder``: of each scene one a kind, that is a modality or depth."""
    return {
        (scene.name, kind): folder / f"{scene.name}.{kind}.{inputs[:16]}{suffix}"
        for scene in source.scenes
        for kind, inputs in _inputs(source, scene, kinds)
    }


def _inputs(source: PairSource, scene: Scene, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each kind and the digest of the files of a scene that it is made from."""
    raw = next(entry.digest for entry in SceneManifest.load(source.index).scenes if entry.name == scene.name)
    for kind in kinds:
        if kind in source.names:
            shard = file_sha256(source.shard_path(scene.name, kind))
            yield kind, hashlib.sha256(f"{raw} {shard}".encode()).hexdigest()
        else:
            yield kind, raw


def make_parts(
    missing: Sequence[tuple[Scene, str]],
    make: Callable[[Scene, str, int], T],
    write: Callable[[Scene, str, Iterator[T]], None],
    *,
    workers: int,
    what: str,
) -> None:
    """Make parts one after the other.

    Args:
        missing: their scenes and kinds.
        make: returns what is kept of image ``i`` of a scene, called from ``workers`` threads, each computing on one
            core, so that the result does not depend on how many there are.
        write: writes a part, from what was made of the scene's images, in their order.
        workers: threads.
        what: is made, for the progress bar.
    """
    total = sum(len(scene.image) for scene, _ in missing)
    if not total:
        return
    with _threads_restored(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = ((scene, kind, i) for scene, kind in missing for i in range(len(scene.image)))
        progress = track(_in_order(make, jobs, pool, ahead=2 * workers), what, total=total)
        for scene, kind in missing:
            write(scene, kind, (next(progress) for _ in scene.image))
        next(progress, None)  # lets the bar end


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Put back torch's number of threads: setting it in one thread sets what later threads start with."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_order(
    make: Callable[[Scene, str, int], T],
    jobs: Iterator[tuple[Scene, str, int]],
    pool: ThreadPoolExecutor,
    *,
    ahead: int,
) -> Iterator[T]:
    """Yield the results of jobs in their order; ``ahead`` of them are under way at a time."""
    waiting: deque[Future[T]] = deque()
    for job in jobs:
        waiting.append(pool.submit(make, *job))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
