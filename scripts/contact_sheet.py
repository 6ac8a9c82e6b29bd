"""Draw every engine of every modality on the same pictures: `python scripts/contact_sheet.py --out docs/images`.

One PNG a modality: a row for each source, a column for each engine. Sources are a view of the rendered world (with its
depth, materials and camera), a photograph that scikit-image ships and, for those that know tissues, a slice of a head,
of which `anatomy.png` shows more; `--folder` takes photographs of your own instead.
Networks whose published weights cannot be had run with small random ones and say so in the column's title; what they
draw then shows the machinery and nothing else. `--painter FILE` gives the paint engine weights that were trained here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from minima_core.config import load_params
from minima_core.data.datasets.anatomy import Anatomy
from minima_core.data.datasets.synthetic import Synthetic
from minima_core.errors import Unavailable, WeightsError
from minima_core.io.images import find_images, read_image, write_image
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.sources import items_of

CELL = 320  # pixels, width of one picture
BAND = 26  # pixels, height of the titles
OF_TISSUES = ("medical", "nuclear")
# of air, bone, fluid, gray matter, white matter, fat, muscle and liver
COLOURS = [
    (0, 0, 0),
    (240, 240, 220),
    (70, 130, 220),
    (130, 130, 130),
    (210, 210, 210),
    (240, 200, 60),
    (190, 60, 60),
    (120, 60, 30),
]


def main() -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="photographs of your own")
    parser.add_argument("--painter", default="", help="weights of the paint engine that were trained here")
    parser.add_argument("--modalities", nargs="+", default=MODALITIES.names())
    arguments = parser.parse_args()
    own = photographs(arguments.folder) if arguments.folder else [rendered_view(), photograph()]
    slices = heads() if {*OF_TISSUES} & {*arguments.modalities} and not arguments.folder else []
    for modality in arguments.modalities:
        sources = own + slices[:1] if modality in OF_TISSUES else own
        columns = [("source", [source.image for source in sources])]
        columns += [column(modality, name, sources, arguments.painter) for name in MODALITIES.engines(modality).names()]
        write_image(arguments.out / f"engines-{modality}.png", sheet(columns))
    if slices:
        write_image(arguments.out / "anatomy.png", anatomy(slices))


def column(modality: str, name: str, sources: list[Source], painter: str) -> tuple[str, list[np.ndarray | None]]:
    """Return an engine's title and what it makes of each source; None where the source lacks what it needs."""
    settings = MODALITIES.settings(modality, name)
    if name == "paint_transformer" and painter:
        settings |= {"weights": painter, "brushes": "own"}
    engine = MODALITIES.create(modality, settings)
    title = name + (" (trained here)" if engine.weights == "local" else "")
    try:
        engine.setup()
    except WeightsError:
        title, engine = f"{name} (random weights)", MODALITIES.create(modality, settings | {"weights": "random"})
        engine.setup()
    made: list[np.ndarray | None] = []
    for source in sources:
        try:
            made.append(engine.synthesise(source, seed=0, modality=modality).image)
        except Unavailable:
            made.append(None)
    return title, made


def anatomy(slices: list[Source]) -> np.ndarray:
    """Return slices of a head, their tissues, and what scanners would show of them, as one picture."""
    columns = [("source", [source.image for source in slices])]
    tissues = [np.array(COLOURS, np.uint8)[source.tissue] for source in slices]
    columns.append(("tissues", tissues))
    sequences = MODALITIES.settings("medical")["sequences"]
    of_medical = {name: {"sequences": {name: sequences[name]}} for name in ("t2", "ct")}
    of_nuclear = {f"PET, {palette}": {"palettes": [palette]} for palette in ("gray", "spectral")}
    for modality, changes in (("medical", of_medical), ("nuclear", of_nuclear)):
        for title, change in changes.items():
            engine = MODALITIES.create(modality, MODALITIES.settings(modality) | change)
            columns.append((title, [engine.synthesise(s, seed=0, modality=modality).image for s in slices]))
    return sheet(columns)


def sheet(columns: list[tuple[str, list[np.ndarray | None]]]) -> np.ndarray:
    """Return the columns side by side as one picture."""
    drawn = []
    for title, pictures in columns:
        band = np.full((BAND, CELL, 3), 255, np.uint8)
        cv2.putText(band, title, (4, BAND - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        drawn.append(np.concatenate([band, *(cell(picture) for picture in pictures)]))
    return np.concatenate(drawn, 1)


def cell(picture: np.ndarray | None) -> np.ndarray:
    """Return a picture in its cell, or a cell that says there is none."""
    box = np.full((CELL * 3 // 4 + 4, CELL, 3), 255, np.uint8)
    if picture is None:
        cv2.putText(
            box, "needs depth or poses", (60, 120), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (120, 120, 120), 1, cv2.LINE_AA
        )
        return box
    box[:-4, : CELL - 4] = cv2.resize(picture, (CELL - 4, CELL * 3 // 4), interpolation=cv2.INTER_AREA)
    return box


def rendered_view() -> Source:
    """Return a view of the rendered world."""
    settings = load_params(Path("params.yaml"))["dataset"]["synthetic"] | {"scenes": 1, "validation_scenes": 0}
    world = Synthetic(Synthetic.Params(**settings | {"views": 6}), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        world.prepare(Path(folder), workers=1)
        scene = next(iter(world.scenes(Path(folder))))
        return next(item for item in items_of(scene, Path(folder)) if item.T_0to1 is not None).read()


def heads() -> list[Source]:
    """Return two slices of a head, one of each split."""
    settings = load_params(Path("params.yaml"))["dataset"]["anatomy"] | {"slices": 2, "tilt": 5}
    head = Anatomy(Anatomy.Params(**settings), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        head.prepare(Path(folder), workers=1)
        scenes = head.scenes(Path(folder))
        return [items_of(scene, Path(folder), "medical")[0].read() for scene in scenes]


def photograph() -> Source:
    """Return a photograph without anything else."""
    return Source("astronaut", cv2.resize(data.astronaut(), (640, 480), interpolation=cv2.INTER_AREA))


def photographs(folder: Path) -> list[Source]:
    """Return the first four pictures of a folder, 640 x 480."""
    return [
        Source(path.stem, cv2.resize(read_image(path), (640, 480), interpolation=cv2.INTER_AREA))
        for path in find_images(folder)[:4]
    ]


if __name__ == "__main__":
    main()
