"""The command line ``minima``: match, evaluate, download and more. A mistake is one line on stderr and exit code 1."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from minima_core.cli_arguments import PICTURE, assignments, check_folder, check_output, cores, device_of, run_command
from minima_core.cli_index import index
from minima_core.cli_report import report
from minima_core.errors import ConfigError, DataError
from minima_core.memory import keep_freed

if TYPE_CHECKING:
    import numpy as np

    from minima_core.evaluation.scoring import Scores
    from minima_core.types import Matches

logger = logging.getLogger(__name__)
TALLEST = 1080  # pixels that images are drawn at: matches are lines one pixel wide
MANY, USUAL = 8192, 2048  # keypoints an image
DATA = (".json", ".h5")
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

Model = Annotated[
    str,
    typer.Option(
        help="minima-lightglue, a published name (xfeat-lightglue; `minima doctor` lists them), NAME=FILE for one with "
        "weights of yours, a model folder, or models:/NAME@ALIAS."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
Keypoints = Annotated[int | None, typer.Option(help="Keypoints an image; the model's own number by default.")]
Subset = Annotated[
    str, typer.Option(help="smoke or mini: at most 2 or 10 pairs of each category, and results say so; or full.")
]
LongSide = Annotated[int | None, typer.Option(help="Pixels that images are resized to, instead of the protocol's.")]


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process."""
    keep_freed()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("minima_core").setLevel(logging.INFO)
    argv = sys.argv[1:] if argv is None else argv
    run_command(app, argv or ["--help"], "minima")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"minima {version('minima-pipeline')}")
        raise typer.Exit


@app.callback()
def minima(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Match images across sensors: infrared, depth, event, normal, paint and sketch against RGB."""


@app.command()
def match(
    image0: Annotated[Path, typer.Argument(help="First image.")],
    image1: Annotated[Path, typer.Argument(help="Second image.")],
    *,
    model: Model = "minima-lightglue",
    out: Annotated[Path, typer.Option(help="Matches in original pixels, .json or .h5.")],
    viz: Annotated[Path | None, typer.Option(help="A picture of the matches, .png or .jpg.")] = None,
    max_keypoints: Keypoints = None,
    any_rotation: Annotated[
        bool,
        typer.Option("--any-rotation", help="The images may be turned by any angle; takes up to four times as long."),
    ] = False,
    device: Device = "auto",
) -> None:
    """Match two images.

    The file holds mkpts0 and mkpts1 (N x 2, x and y, the centre of the top left pixel is 0, 0) and their scores.
    """
    _check_keypoints(max_keypoints)
    for path in (image0, image1):
        if not path.is_file():
            what = f"{path} is not a file" if path.exists() else f"no file {path}"
            raise DataError(f"{what}; give the path of an image")
    check_output(out, "--out", DATA, (image0, image1))
    if viz is not None:
        check_output(viz, "--viz", PICTURE, (image0, image1, out))
    from minima_core.io.images import read_image, write_image

    images = read_image(image0), read_image(image1)
    from minima_core.models import load_matcher

    matcher = load_matcher(model, device=device_of(device))
    _warn_of_many(max_keypoints, sparse=matcher.matcher.sparse)
    found = matcher.match(*images, max_keypoints=max_keypoints, any_rotation=any_rotation)
    _write_matches(out, found, {"image0": str(image0), "image1": str(image1), "model": model})
    drawn = ""
    if viz is not None:
        from minima_core.evaluation.plotting import LIMIT

        write_image(viz, _picture(images, found))
        drawn = f", {f'{LIMIT} of them ' if len(found) > LIMIT else ''}drawn in {viz}"
    typer.echo(f"{len(found)} matches in {out}{drawn}")


@app.command()
def synthesise(
    *,
    modality: Annotated[str, typer.Option(help="What to make: infrared, depth, event, normal, paint, sketch, …")],
    input: Annotated[Path, typer.Option(help="An image, or a folder of images of any depth.")],
    out: Annotated[Path, typer.Option(help="Folder for the images; names and sub-folders are kept.")],
    seed: Annotated[int, typer.Option(help="Of what engines draw at random.")] = 0,
    engine: Annotated[str, typer.Option(help="Another engine than the modality's default.")] = "",
    set_: Annotated[list[str], typer.Option("--set", help="A setting of the engine, name=value; several times.")] = [],  # noqa: B006, typer reads it only
    licence: Annotated[
        str, typer.Option(help="permissive refuses engines and weights that forbid commercial use; any takes them.")
    ] = "permissive",
    device: Device = "auto",
) -> None:
    """Make the images of a modality from RGB images.

    Each lies on the pixels of the image that it was made from; synthesis.json beside them says how. docs/engines.md
    describes the engines, `minima doctor` lists them.
    """
    if not input.exists():
        raise DataError(f"no {input}; give an image or a folder of images")
    if not out.is_dir() and (out.exists() or out.suffix.lower() in PICTURE):
        raise ConfigError(f"--out {out} is a file; give a folder")
    folder = input if input.is_dir() else input.parent
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is where the originals lie; give another folder")
    check_folder(out)
    from minima_core.synthesis.base import MODALITIES
    from minima_core.synthesis.files import synthesise_files

    settings = {**MODALITIES.settings(modality, engine), **assignments(set_)}
    chosen = MODALITIES.create(modality, settings, f"settings of {modality}")
    how: Any = {"seed": seed, "device": device_of(device), "licence": licence}
    made = synthesise_files(input, out, modality=modality, settings=settings, **how)
    terms = chosen.terms()
    use = "" if terms.commercial else ", which does not allow commercial use"
    typer.echo(f"{len(made)} {modality} images in {out}; licence of the engine {terms.name}{use}")
    if chosen.weights == "random":
        typer.echo("weights: random; the images show that the engine runs, and nothing else")


@app.command()
def evaluate(
    *,
    model: Model,
    benchmark: Annotated[str, typer.Option(help="Its name, for example mmim; `minima doctor` lists them.")],
    root: Annotated[Path, typer.Option(help="The benchmark's data; see above.")],
    out: Annotated[Path, typer.Option(help="Scores, .json.")],
    protocol: Annotated[str, typer.Option(help="minima-v1, as in published figures, or strict-v1.")] = "minima-v1",
    keep: Annotated[Path | None, typer.Option(help="Folder for the predictions, to be scored again.")] = None,
    subset: Subset = "",
    max_keypoints: Keypoints = None,
    long_side: LongSide = None,
    device: Device = "auto",
) -> None:
    """Score a model on a benchmark.

    ROOT is a folder that the stage fetch_benchmark prepared (data/benchmarks/NAME). For own_pairs, mmim, metu_vistir,
    diode_depth, diode_normal and dsec it may also be the data themselves. --max-keypoints and --long-side are part of
    the protocol: they change protocol_hash.
    """
    _check_keypoints(max_keypoints)
    from minima_core.evaluation.protocol import get_protocol

    chosen = get_protocol(protocol, benchmark, max_keypoints=max_keypoints, long_side=long_side)
    check_output(out, "--out", (".json",), ())
    if keep is not None:
        check_folder(keep)
    from minima_core.evaluation.run import evaluate as run
    from minima_core.evaluation.run import prepared_root

    with prepared_root(benchmark, root, chosen.name, subset) as folder:
        from minima_core.models import load_matcher

        where = device_of(device)
        loaded = load_matcher(model, device=where)
        _warn_of_many(max_keypoints, sparse=loaded.matcher.sparse)
        scores = run(
            loaded.matcher,
            folder,
            chosen,
            model=model,
            licence=loaded.licence,
            workers=cores() if where == "cpu" else 1,
            scorers=cores(),
            keep=keep,
        )
    _write_scores(out, scores)


@app.command()
def score(
    *,
    predictions: Annotated[Path, typer.Option(help="Folder that holds predictions.h5 (evaluate --keep).")],
    benchmark: Annotated[str, typer.Option(help="Name of the benchmark that was matched.")],
    root: Annotated[Path, typer.Option(help="Its data, as for evaluate.")],
    out: Annotated[Path, typer.Option(help="Scores, .json.")],
    protocol: Annotated[str, typer.Option(help="Settings of scoring; by default those it was matched by.")] = "",
    subset: Subset = "",
    estimator: Annotated[str, typer.Option(help="poselib or opencv, instead of the protocol's.")] = "",
    threshold: Annotated[float | None, typer.Option(help="Pixels, instead of the protocol's.")] = None,
    max_keypoints: Keypoints = None,
    long_side: LongSide = None,
    sweep: Annotated[bool, typer.Option(help="Beside it by both estimators at several thresholds and seeds.")] = False,
) -> None:
    """Score predictions again, without a network.

    By another estimator or threshold, or by many. What is changed against the protocol changes protocol_hash.
    """
    _check_keypoints(max_keypoints)
    from minima_core.evaluation.predictions import Predictions, read_predictions
    from minima_core.evaluation.protocol import get_protocol, with_estimator
    from minima_core.evaluation.run import prepared_root

    if not (predictions / Predictions.FILE).is_file():
        raise DataError(
            f"no {predictions / Predictions.FILE}; make it with `minima evaluate --keep`, or `dvc repro match` in a "
            "checkout"
        )
    protocol = protocol or read_predictions(predictions).origin.protocol
    chosen = get_protocol(protocol, benchmark, max_keypoints=max_keypoints, long_side=long_side)
    chosen = with_estimator(chosen, estimator, threshold=threshold)
    check_output(out, "--out", (".json",), ())
    with prepared_root(benchmark, root, chosen.name, subset) as folder:
        from minima_core.evaluation.scoring import score_predictions

        scores = score_predictions(predictions, folder, chosen, workers=cores())
        if sweep:
            from minima_core.evaluation.sweep import sweep_predictions

            found = sweep_predictions(predictions, folder, chosen, workers=cores())
            scores = scores.model_copy(update={"sweep": found})
    _write_scores(out, scores)


app.command()(report)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="Of the source; without one, all are listed.")] = "",
    *,
    out: Annotated[Path | None, typer.Option(help="Folder for it; archives are unpacked there.")] = None,
    mirror: Annotated[list[str], typer.Option(help="A folder, or the address of one, to look in first.")] = [],  # noqa: B006, typer reads it only
) -> None:
    """Bring published data by name.

    Transfers go on after a cut, and are checked; licence and the disk that is needed are said first. What is behind a
    form or a login is not brought: the message says what to get and where to put it.
    """
    from minima_core.acquire.sources import fetch_source, source, sources

    if not name:
        for known, entry in sources().items():
            typer.echo(f"{known:28} {entry.what} ({entry.licence}{'; by hand' if entry.by_hand else ''})")
        return
    entry = source(name)
    if out is None:
        raise ConfigError("--out is missing; name the folder to bring it to")
    check_folder(out)
    fetch_source(name, out, mirrors=mirror)
    typer.echo(f"{name} in {out}: {entry.what}; licence {entry.licence}")


app.add_typer(index, name="index")


@app.command()
def doctor() -> None:
    """Say what works on this machine and what is missing.

    Machine, packages, published weights, and the names of models, modalities, engines, benchmarks and data sets.
    """
    from minima_core.doctor import examine

    examine()


def _write_scores(out: Path, scores: Scores) -> None:
    from minima_core.io.atomic import write_json

    write_json(out, scores.model_dump(mode="json", exclude={"version", "skipped"}))
    summary = "  ".join(f"{name} {value:.2f}" for name, value in scores.metrics.items())
    typer.echo(f"{scores.title}: {summary}  ({len(scores.pairs)} pairs, {scores.failures} without a model) in {out}")


def _check_keypoints(number: int | None) -> None:
    if number is not None and number < 1:
        raise ConfigError(f"--max-keypoints must be at least 1, not {number}")


def _warn_of_many(keypoints: int | None, *, sparse: bool) -> None:
    if sparse and keypoints is not None and keypoints > MANY:
        logger.warning(
            "--max-keypoints %d: each is compared with each, which takes up to %d times the time and memory of %d",
            keypoints,
            round((keypoints / USUAL) ** 2),
            USUAL,
        )


def _write_matches(path: Path, found: Matches, about: dict[str, str]) -> None:
    arrays = {name: getattr(found, name).numpy() for name in ("mkpts0", "mkpts1", "scores")}
    if path.suffix.lower() == ".json":
        from minima_core.io.atomic import write_json

        write_json(path, {**about, **{name: values.tolist() for name, values in arrays.items()}}, rows=True)
        return
    from minima_core.io.hdf5 import new_hdf5

    with new_hdf5(path) as file:
        file.attrs.update(about)
        for name, values in arrays.items():
            file.create_dataset(name, data=values)


def _picture(images: tuple[np.ndarray, np.ndarray], found: Matches) -> np.ndarray:
    """Return the matches over both images, which are brought to one height, that of the higher one or ``TALLEST``."""
    from minima_core.evaluation.plotting import draw_matches

    height = min(max(image.shape[0] for image in images), TALLEST)
    return draw_matches(*images, found.mkpts0.numpy(), found.mkpts1.numpy(), height=height)


if __name__ == "__main__":
    main()
