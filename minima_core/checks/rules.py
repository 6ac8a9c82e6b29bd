"""What the tables must satisfy: the settings of validation and the rules that follow from them, as plain records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from minima_core.config import Section, checked
from minima_core.errors import redo
from minima_core.types import RGB

Span = tuple[float, float]
Colour = tuple[int, int, int]


class Band(Section):
    """Where the statistics of one modality's images must lie; both ends belong to the band."""

    std: Span  # standard deviation of the gray values
    entropy: Span  # bits of the gray histogram
    saturated: Span  # share of fully black and fully white pixels
    agreement: float | None = None  # least height of the alignment peak, see checks.structure
    offset: float | None = None  # farthest that peak may lie from zero shift, in pixels
    palette: list[Colour] | None = None  # the only RGB colours there may be
    mostly: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the images of which this must hold


class Params(Section):
    """Settings of validation, ``validation`` in params.yaml."""

    sample_per_scene: Annotated[int, Field(gt=0)]  # images a scene whose pixels are looked at
    pairs_per_scene: Annotated[int, Field(ge=0)]  # pairs a scene that are matched
    held_out: list[str]  # scenes of benchmarks: in no split but test
    copies: Annotated[float, Field(ge=0, le=1)]  # largest share of images that are there twice
    fit: float  # least share of a pair's matches that agree with its pose or homography
    fitting: Annotated[float, Field(gt=0, le=1)]  # least share of the matched pairs of which that holds
    overlap: Span  # share of image 0 that image 1 sees
    pose_error: float  # largest deviation of a pose from a rigid motion
    depth_coverage: float  # least share of pixels with known depth
    failed: float  # largest share of images that an engine may have left out, of scenes that it made any of
    judged: float  # least share of images with enough structure to judge alignment
    bands: dict[str, Band]  # by modality, with "rgb" for the sources and "other" for modalities without their own
    suites: dict[str, dict[str, Any]]  # data set -> what is other there

    def suite(self, dataset: str) -> Params:
        """Return the settings for a data set.

        Raises:
            ConfigError: if its suite holds something that is no setting.
        """
        own = self.suites.get(dataset, {})
        values = self.model_dump()
        values["bands"] |= {
            name: {**values["bands"].get(name, {}), **band} for name, band in own.get("bands", {}).items()
        }
        values |= {name: value for name, value in own.items() if name != "bands"}
        return checked(values, Params, f"params.yaml: validation.suites.{dataset}")

    def band(self, modality: str) -> Band:
        """Return the band of a modality, ``other`` where it has none of its own."""
        return self.bands[modality] if modality in self.bands else self.bands["other"]


@dataclass(frozen=True)
class Rule:
    """One thing that a column of a table must satisfy.

    Attributes:
        table: ``scenes``, ``images``, ``pairs``, ``manifests`` or the name of a modality.
        kind: ``band`` (low <= value <= high), ``known`` (no value missing), ``same`` (equal to ``other``), ``unique``,
            ``nothing`` (an empty string; any other names the fault), ``mean`` (low <= mean of the column <= high).
        column: what is looked at.
        text: the rule in words, as it stands in the error message.
        remedy: what to do about it.
        low: lower end.
        high: upper end.
        other: second column of ``same``.
        mostly: share of the rows that must satisfy it.
    """

    table: str
    kind: Literal["band", "known", "same", "unique", "nothing", "mean"]
    column: str
    text: str
    remedy: str
    low: float | None = None
    high: float | None = None
    other: str = ""
    mostly: float = 1.0


ID_COLUMN = {"scenes": "scene", "images": "image", "pairs": "pair", "manifests": "modality"}  # "image" for modalities
_REINDEX = f"make it again with {redo('index')}"
_REDOWNLOAD = f"replace or remove the file, then {redo('download')}"


def rules(params: Params, modalities: Sequence[str]) -> list[Rule]:
    """Return all rules, upstream tables first, so that the first one broken is the cause of those after it."""
    return [
        *_scenes(),
        *_images(params),
        *_pairs(params),
        *_manifests(params),
        *(rule for modality in modalities for rule in _renditions(modality, params)),
    ]


def _scenes() -> Iterator[Rule]:
    yield Rule("scenes", "unique", "scene", "a scene name stands once in the index, in one split", _REINDEX)
    yield Rule("scenes", "nothing", "differs", "index.json says what the scene's file holds", _REINDEX)
    yield Rule("scenes", "nothing", "doubled", "image ids are unique in a scene", f"rename the files, {_REINDEX}")
    yield Rule("scenes", "band", "loops", "no pair joins an image with itself", _REINDEX, 0, 0)
    text = "no scene of a benchmark is used for training or validation"
    leave = f"take the scene out of the data set, then {redo('download')}"
    yield Rule("scenes", "nothing", "held_out", text, leave)
    text = "no folder of images or depth maps is empty"
    yield Rule("scenes", "nothing", "empty", text, f"bring the files, or remove the folder, then {redo('index')}")


def _images(params: Params) -> Iterator[Rule]:
    def rule(kind: Literal["unique", "nothing"], column: str, text: str, remedy: str) -> Rule:
        return Rule("images", kind, column, text, remedy)

    yield rule("nothing", "problem", "source images can be read", _REDOWNLOAD)
    yield rule("unique", "image", "image ids are unique in the data set", f"rename the files, {_REINDEX}")
    for side in ("width", "height"):
        yield Rule("images", "same", side, f"{side} in the index is that of the file", _REINDEX, other=f"index_{side}")
    leak = f"keep copies of an image in one split: remove one of the files, then {redo('download')}"
    yield rule("nothing", "leak", "no image is in two splits", leak)
    once = f"remove one of the files, then {redo('download')}"
    text = "images are there once"
    if params.copies:
        text = f"at most {params.copies:.0%} of the images are there twice"
    yield Rule("images", "nothing", "copy", text, once, mostly=1 - params.copies)
    text = "images lie the way their cameras and depth maps do"
    yield rule("nothing", "orientation", text, f"turn the file and drop its EXIF flag, then {redo('download')}")
    yield rule("nothing", "camera", "camera intrinsics are sane", "mend or remove the frame's camera file")
    pose = f"mend or remove the frame's pose, then {redo('download')}"
    text = "poses are finite and orthonormal"
    yield Rule("images", "band", "pose_error", text, pose, 0, params.pose_error)
    yield rule(
        "nothing", "depth_problem", "depth maps can be read, hold distances and have their image's size", _REDOWNLOAD
    )
    text = f"depth is known on at least {params.depth_coverage:.0%} of an image"
    yield Rule("images", "band", "depth_coverage", text, _REDOWNLOAD, params.depth_coverage, 1)
    remedy = "remove images without texture, or widen validation.bands.rgb in params.yaml"
    yield from _contrast("images", RGB, params.band(RGB), remedy)


def _pairs(params: Params) -> Iterator[Rule]:
    low, high = params.overlap
    remedy = f"check the poses, or widen validation.overlap in params.yaml; then {redo('index')}"
    yield Rule("pairs", "known", "overlap", "overlap is a number", _REINDEX)
    yield Rule("pairs", "band", "overlap", f"overlap of a pair is within {low:g} to {high:g}", remedy, low, high)
    if params.pairs_per_scene:
        text = f"at least {params.fit:.0%} of the matches of a pair agree with its pose or homography"
        text += _of_most(params.fitting, "the pairs")
        mend = "poses, homographies or intrinsics are not those of the images: check the source's conventions"
        yield Rule("pairs", "band", "fit", text, mend, params.fit, 1, mostly=params.fitting)
    yield Rule("pairs", "nothing", "homography", "homographies are finite and keep the image in front", _REINDEX)


def _manifests(params: Params) -> Iterator[Rule]:
    remedy = "it was made from other data: `dvc repro synthesise`"
    text = "a modality is made from the present index"
    yield Rule("manifests", "same", "source_digest", text, remedy, other="index_digest")
    yield Rule("manifests", "same", "named", "a folder holds the modality it is named after", remedy, other="modality")
    yield Rule("manifests", "nothing", "surplus", "shards hold no image that the index lacks", remedy)
    weights = "set `weights: published` for it in params.yaml"
    yield Rule("manifests", "nothing", "random", "a modality is not made by a network with random weights", weights)
    text = f"engines left out at most {params.failed:.0%} of the images, scenes that they can make nothing of aside"
    remedy = "see `failed` and `rejected` in the modality's manifest.json; mend or remove the source images"
    yield Rule("manifests", "band", "failed", text, remedy, 0, params.failed)


def _renditions(modality: str, params: Params) -> Iterator[Rule]:
    band = params.band(modality)
    again = f"make them again with {redo(f'synthesise@{modality}')}"
    yield Rule(modality, "nothing", "problem", f"every {modality} image is in its shard and can be decoded", again)
    for side in ("width", "height"):
        text = f"{modality} images have their source's {side}"
        yield Rule(modality, "same", side, text, again, other=f"source_{side}")
    if band.palette is not None:
        colours = ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in band.palette)
        text = f"{modality} images hold no colour but {colours}"
        yield Rule(modality, "band", "off_palette", text, again, 0, 0)
    own = modality if modality in params.bands else "other"
    yield from _contrast(modality, modality, band, f"{again}, or widen validation.bands.{own} in params.yaml")
    if band.agreement is not None:
        text = f"{modality} images show the structure of their source{_of_most(band.mostly)}"
        enough = f"at least {params.judged:.0%} of {modality} images have enough structure to be compared"
        yield Rule(modality, "mean", "judged", enough, again, params.judged, 1)
        yield Rule(modality, "band", "agreement", text, again, band.agreement, mostly=band.mostly)
    if band.offset is not None:
        text = f"{modality} images lie within {band.offset:g} px of their source{_of_most(band.mostly)}"
        yield Rule(modality, "band", "offset", text, again, 0, band.offset, mostly=band.mostly)


def _contrast(table: str, modality: str, band: Band, remedy: str) -> Iterator[Rule]:
    words = {"std": "contrast", "entropy": "entropy", "saturated": "share of saturated pixels"}
    for column, word in words.items():
        low, high = getattr(band, column)
        text = f"{word} of {modality} images is within {low:g} to {high:g}{_of_most(band.mostly)}"
        yield Rule(table, "band", column, text, remedy, low, high, mostly=band.mostly)


def _of_most(share: float, rows: str = "them") -> str:
    """Return what a rule's text adds where not every row must satisfy it."""
    return "" if share == 1 else f" (at least {100 * share:.4g}% of {rows})"
