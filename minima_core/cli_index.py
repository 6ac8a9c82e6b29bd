"""The command line ``minima index``: between the one index and the forms that others keep their pairs in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minima_core.cli_arguments import PICTURE, assignments, check_folder, check_output, cores
from minima_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from minima_core.manifest import SceneManifest

index = typer.Typer(rich_markup_mode=None)

Raw = Annotated[Path | None, typer.Option(help="Where the image paths start, if not where they did.")]
Workers = Annotated[int | None, typer.Option(help="Processes; all cores by default.")]


@index.callback(invoke_without_command=True)
def forms(context: typer.Context) -> None:
    """Bring pairs in and out, check and look at them."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@index.command()
def build(
    *,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="megadepth, loftr, glue-factory, roma, colmap, rgbd (7-Scenes, TUM, ScanNet), aligned or photos.",
        ),
    ],
    source: Annotated[Path, typer.Option(help="The folder in that form.")],
    out: Annotated[Path, typer.Option(help="Folder for the index; an index that is there is replaced.")],
    report: Annotated[Path | None, typer.Option(help="What was found and what was left out, .json.")] = None,
    images: Annotated[Path | None, typer.Option(help="Where image paths start, if not in or beside --source.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="A setting of the form, name=value; several times.")] = [],  # noqa: B006, typer reads it only
    seed: Annotated[int, typer.Option(help="Of what is drawn: splits, pairs where there are too many.")] = 0,
    workers: Workers = None,
) -> None:
    """Make the index of a folder that is in somebody else's form.

    docs/bring-your-own-data.md describes each form and its settings.
    """
    from minima_core.data.importing import build_index
    from minima_core.io.atomic import write_json

    if report is not None:
        check_output(report, "--report", (".json",), ())
    check_folder(out.parent)
    found = build_index(
        from_, source, out, settings=assignments(set_), images=images, seed=seed, workers=_workers(workers)
    )
    if report is not None:
        write_json(report, found.model_dump(mode="json"))
    typer.echo(f"{found.pairs} pairs of {found.images} images in {found.scenes} scenes in {out}")
    for one in found.skipped:
        typer.echo(f"  left out: {one.count} x {one.reason}, for example {one.first[0]}")
    if not found.raw:
        typer.echo("  no images there: sizes are unknown; build it again with --images to train on it or look at it")


@index.command()
def validate(
    folder: Annotated[Path, typer.Argument(help="The index.")],
    *,
    raw: Raw = None,
    sample: Annotated[int, typer.Option(help="Images and pairs a scene whose pixels are looked at.")] = 12,
    report: Annotated[Path | None, typer.Option(help="The faults, .json.")] = None,
    workers: Workers = None,
) -> None:
    """Look for faults in an index.

    In records, files and sizes; copies in two splits, scenes of benchmarks in training. Also poses that do not fit the
    depth, and images of another sensor that do not fit their photographs. A fault ends it with exit code 1. The stage
    validate looks closer, at near copies and synthesised images too.
    """
    from minima_core.data.checking import check_index
    from minima_core.io.atomic import write_json

    if report is not None:
        check_output(report, "--report", (".json",), ())
    if sample < 0:
        raise ConfigError(f"--sample must not be negative, as {sample} is")
    scenes = _manifest(folder).scenes
    where = _raw(folder, raw)
    faults = check_index(folder, where, sample=sample, workers=_workers(workers))
    listed = [{"fault": what, "count": n, "first": faults.first[what]} for what, n in sorted(faults.counts.items())]
    if report is not None:
        write_json(report, {"faults": listed, "images": where is not None})
    for one in listed:
        typer.echo(f"fault: {one['count']} x {one['fault']}, for example {faults.first[str(one['fault'])][0]}")
    pairs = sum(scene.pairs for scene in scenes)
    if listed:
        raise DataError(f"{folder} has the faults above; mend the source and build it again")
    if where is None:
        seen = "its images were not looked at: it was built without them"
    else:
        images, some = (sum(counts) for counts in ([s.images for s in scenes], [min(s.images, sample) for s in scenes]))
        seen = f"pixels of {some} of {images} images looked at{' (--sample)' if some < images else ''}"
    typer.echo(f"no fault in {pairs} pairs of {len(scenes)} scenes; {seen}")


@index.command()
def view(
    folder: Annotated[Path, typer.Argument(help="The index.")],
    *,
    out: Annotated[Path, typer.Option(help="The picture, .png or .jpg.")],
    count: Annotated[int, typer.Option(help="Pairs, a row each.")] = 6,
    scene: Annotated[str, typer.Option(help="Of this scene only.")] = "",
    seed: Annotated[int, typer.Option(help="Which pairs.")] = 0,
    raw: Raw = None,
) -> None:
    """Draw pairs of an index, with points of one view in the other.

    Points are where depth and pose, or the homography, take them; gray circles have no depth, or no place there.
    `found` is the share of the points with depth that have one; where it is far from the overlap, something is wrong.
    """
    from minima_core.data.viewing import draw_index
    from minima_core.io.images import write_image

    check_output(out, "--out", PICTURE, ())
    if count < 1:
        raise ConfigError(f"--count must be at least 1, not {count}")
    _manifest(folder)
    where = _raw(folder, raw)
    if where is None:
        raise DataError(f"{folder} was built without images; build it again with --images, or give --raw")
    write_image(out, draw_index(folder, where, count=count, seed=seed, scene=scene))
    typer.echo(f"drawn in {out}")


@index.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The index.")],
    *,
    to: Annotated[str, typer.Option(help="loftr, glue-factory or roma.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    modalities: Annotated[Path | None, typer.Option(help="Write the images of these too, as files.")] = None,
    workers: Workers = None,
) -> None:
    """Write an index in a form of LoFTR, glue-factory or RoMa.

    Their training code reads it. The RGB images and depth maps stay where they are; the paths start from the folder
    that is named in the end.
    """
    from minima_core.data.exporting import export_index
    from minima_core.data.importing import raw_folder

    check_folder(out.parent)
    _manifest(folder)
    names = export_index(to, folder, out, modalities=modalities, workers=_workers(workers))
    written = f"the index and {', '.join(names)}" if names else "the index"
    typer.echo(f"{written} in {out}; image paths start from {raw_folder(folder) or 'where the images are'}")


def _manifest(index: Path) -> SceneManifest:
    """Return what an index says of itself; where it says nothing, both commands that make one are named."""
    from minima_core.manifest import SceneManifest

    try:
        return SceneManifest.load(index)
    except DataError as error:  # it speaks of the graph, which users of folders do not have
        told = str(error).removesuffix(SceneManifest.REMEDY)
        raise DataError(f"{told}make it with `minima index build`, or `dvc repro index` in a checkout") from None


def _raw(index: Path, asked: Path | None) -> Path | None:
    """Return where the images of an index lie, None where it never had any."""
    from minima_core.data.importing import raw_folder

    raw = asked or raw_folder(index)
    if raw is not None and not raw.is_dir():
        raise DataError(f"no folder {raw}, where the images of {index} lay; give it with --raw")
    return raw


def _workers(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise ConfigError(f"--workers must be at least 1, not {asked}")
    return asked or cores()
