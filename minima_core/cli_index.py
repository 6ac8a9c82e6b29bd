"""The command line ``minima index``: between the one index and the forms that others keep their pairs in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from minima_core.errors import ConfigError

index = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring pairs in and out, check and look at them.")

Workers = Annotated[int | None, typer.Option(help="Processes; all cores by default.")]


@index.command()
def build(
    *,
    from_: Annotated[
        str,
        typer.Option("--from", help="megadepth, loftr, glue-factory, roma, colmap, rgbd, aligned or photos."),
    ],
    source: Annotated[Path, typer.Option(help="The folder in that form.")],
    out: Annotated[Path, typer.Option(help="Folder for the index; an index that is there is replaced.")],
    report: Annotated[Path | None, typer.Option(help="What was found and what was left out, .json.")] = None,
    images: Annotated[Path | None, typer.Option(help="Where image paths start, if not in or beside --source.")] = None,
    set_: Annotated[list[str], typer.Option("--set", help="One of the form's settings, as name=value.")] = [],  # noqa: B006, typer reads it only
    seed: Annotated[int, typer.Option(help="Of what is drawn: splits, pairs where there are too many.")] = 0,
    workers: Workers = None,
) -> None:
    """Make the index of a folder that is in somebody else's form.

    docs/bring-your-own-data.md describes each form and its settings.
    """
    from minima_core.cli import _assignments, _check_folder, _check_output
    from minima_core.data.importing import build_index
    from minima_core.io.atomic import write_json

    if report is not None:
        _check_output(report, "--report", (".json",), ())
    _check_folder(out.parent)
    found = build_index(
        from_, source, out, settings=_assignments(set_), images=images, seed=seed, workers=_workers(workers)
    )
    if report is not None:
        write_json(report, found.model_dump(mode="json"))
    typer.echo(f"{found.pairs} pairs of {found.images} images in {found.scenes} scenes in {out}")
    for one in found.skipped:
        typer.echo(f"  left out: {one.count} x {one.reason}, for example {one.first[0]}")
    if not found.raw:
        typer.echo("  no images there: sizes are unknown; build it again with --images to train on it or look at it")


@index.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The index.")],
    *,
    to: Annotated[str, typer.Option(help="loftr, glue-factory or roma.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    modalities: Annotated[Path | None, typer.Option(help="Write the images of these too, as files.")] = None,
    workers: Workers = None,
) -> None:
    """Write an index as the training code of LoFTR, glue-factory or RoMa reads it.

    The RGB images and depth maps stay where they are; the paths start from the folder that is named in the end.
    """
    from minima_core.cli import _check_folder
    from minima_core.data.exporting import export_index
    from minima_core.data.importing import raw_folder

    _check_folder(out.parent)
    names = export_index(to, folder, out, modalities=modalities, workers=_workers(workers))
    written = f"the index and {', '.join(names)}" if names else "the index"
    typer.echo(f"{written} in {out}; image paths start from {raw_folder(folder) or 'where the images are'}")


def _workers(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise ConfigError(f"--workers must be at least 1, not {asked}")
    return asked or len(os.sched_getaffinity(0))
