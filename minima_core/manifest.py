"""What lies on disk beside the data: pydantic records saved as JSON, the contracts between stages."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from minima_core.errors import DataError
from minima_core.io.atomic import write_json, write_text

Split = Literal["train", "val", "test"]
Relation = Literal["depth", "homography", "both"]  # of a data set's pairs; both: scenes of either kind
CURVES = "curves.json"  # beside a model that was trained


class Record(BaseModel):
    """A JSON file with a fixed name in the folder it describes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILE: ClassVar[str]
    REMEDY: ClassVar[str] = "make it again with `dvc repro`"

    def save(self, folder: Path) -> None:
        """Write the record into ``folder`` atomically."""
        write_json(folder / self.FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record from ``folder``.

        Raises:
            DataError: if it is missing or not what this version writes.
        """
        path = folder / cls.FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"no {path}; {cls.REMEDY}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            said = f"{where}: {first['msg']}" if where else first["msg"]
            raise DataError(f"{path} is not a valid {cls.__name__} ({said}); {cls.REMEDY}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not a valid {cls.__name__} ({error}); {cls.REMEDY}") from None


class SceneEntry(BaseModel):
    """One scene of the index; ``<name>.h5`` beside the manifest holds its records."""

    name: str
    split: Split
    images: int
    pairs: int
    digest: str  # sha256 of the scene's source files, in index order


class RawDataset(Record):
    """What the raw folder holds (``dataset.json``), written when it is whole."""

    FILE: ClassVar[str] = "dataset.json"
    REMEDY: ClassVar[str] = "bring the raw scenes with `dvc repro download`"
    version: Literal[1] = 1
    dataset: str
    licence: str
    attribution: list[str]
    relation: Relation
    settings: str  # digest of seed and Params

    @classmethod
    def authors(cls, raw: Path) -> list[str]:
        """Return whom the pictures of a raw folder are by; that is not known of a user's own, where no stage put them.

        Raises:
            DataError: if the record is there and not what this version writes.
        """
        return cls.load(raw).attribution if (raw / cls.FILE).is_file() else []


class SceneManifest(Record):
    """The pair index: which scenes there are (``index.json``)."""

    FILE: ClassVar[str] = "index.json"
    version: Literal[1] = 1
    dataset: str
    licence: str
    relation: Relation  # how the pairs of this data set are related
    raw: str  # folder that the image paths start from, relative to the checkout
    scenes: list[SceneEntry]

    def split(self, name: Split) -> list[SceneEntry]:
        """Return the scenes of one split."""
        return [scene for scene in self.scenes if scene.split == name]


class GateCounts(BaseModel):
    """How many images passed the quality gate; together they are those that could be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at_once: int = 0
    retried: int = 0  # passed at a later attempt
    unjudged: int = 0  # passed because source and image have too little structure to compare
    rejected: int = 0

    @property
    def rate(self) -> float:
        """The share of images that were rejected."""
        return self.rejected / max(self.at_once + self.retried + self.unjudged + self.rejected, 1)


class ModalityManifest(Record):
    """One synthesised modality (``manifest.json`` beside its shards, one ``<scene>.h5`` a scene)."""

    FILE: ClassVar[str] = "manifest.json"
    version: Literal[2] = 2
    modality: str
    engine: str
    params: dict[str, Any]
    seed: int
    licence: str  # of the images: the engine's and the source's together
    commercial: bool  # whether that allows commercial use
    weights: Literal["none", "published", "random", "local"] = "none"  # validation refuses random ones
    weight_files: dict[str, str] = {}  # file -> sha256
    encoding: Literal["png", "jpeg95"]
    raw: bool = False  # whether raw values lie beside the pictures
    source_digest: str  # minima_core.data.index.index_digest of the index the images were made from
    status: Literal["complete", "unavailable"]
    reason: str = ""  # why it is unavailable
    scenes: dict[str, int]  # images a scene
    failed: dict[str, str] = {}  # image id -> why it could not be made
    rejected: dict[str, str] = {}  # image id -> why the quality gate refused every attempt
    gate: GateCounts = GateCounts()
    holes: dict[str, float] = {}  # scene -> share of pixels without a value, for scenes that have any; they are black

    def without(self) -> frozenset[str]:
        """Return the ids of the images that are not in the shards."""
        return frozenset(self.failed) | frozenset(self.rejected)

    def lacking(self) -> frozenset[str]:
        """Return the scenes that lack what the modality is made from: of none of their images it could be made."""
        failed, refused = ({scene_of(image) for image in images} for images in (self.failed, self.rejected))
        return frozenset(scene for scene in failed - refused if self.scenes.get(scene) == 0)


class Certificate(Record):
    """What validation found; training refuses to start without it (``certificate.json``)."""

    FILE: ClassVar[str] = "certificate.json"
    REMEDY: ClassVar[str] = "training needs validated data: run `dvc repro validate`"
    version: Literal[1] = 1
    index_digest: str  # minima_core.data.index.index_digest
    modalities: list[str]  # those that passed; training draws from these only
    unavailable: dict[str, str]  # modality -> reason
    digests: dict[str, str]  # modality that passed -> folder_digest of its manifest and shards
    expectations: int
    images: int
    pairs: int
    statistics: dict[str, dict[str, float]]  # modality -> statistic -> median


class ModelCard(Record):
    """What a trained matcher is and what made it (``card.json`` beside ``model.safetensors``)."""

    FILE: ClassVar[str] = "card.json"
    version: Literal[1] = 1
    matcher: str
    stage: Literal["pretrained", "finetuned"]
    params: dict[str, Any]  # the matcher's own settings
    training: dict[str, Any] = {}  # settings of what made it, `before` of what had come before; empty where adopted
    seed: int | None = None
    source: dict[str, str] = {}  # official files it came from -> sha256
    attribution: list[str] = []  # whose pictures it learned from, where their licences ask that this is said
    data_digest: str | None = None  # of the certificate it was trained under
    parent: str | None = None  # digest of the parent's card
    weights_sha256: str
    licence: str
    commercial: bool

    def digest(self) -> str:
        """Return the sha256 that children and runs know this model by."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def tags(self) -> dict[str, str]:
        """Return what a tracking server tags the model and its runs with."""
        return {"card_digest": self.digest(), "licence": self.licence, "commercial": str(self.commercial).lower()}


class BenchmarkManifest(Record):
    """A prepared benchmark (``benchmark.json``); ``skipped`` says why there is nothing to score."""

    FILE: ClassVar[str] = "benchmark.json"
    version: Literal[1] = 1
    benchmark: str
    licence: str
    pairs: int
    categories: dict[str, int] = {}
    data_digest: str = ""
    subset: str = ""  # what part of the benchmark it is; "" for the whole
    skipped: str = ""


def scene_of(image: str) -> str:
    """Return the scene of an image id, ``scene/stem``."""
    return image.rpartition("/")[0]


def titled(benchmark: str, subset: str) -> str:
    """Return a benchmark's name as results show it: a part never goes by the name of the whole."""
    return f"{benchmark} (subset {subset})" if subset else benchmark


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(path: Path) -> None:
    """Write the sha256 of a file beside it: from now on it is ``sealed`` for as long as no byte changes."""
    write_text(_seal(path), file_sha256(path))


def sealed(path: Path) -> bool:
    """Say whether a file is what ``seal`` saw, and not what a kill, a power cut or a bad disk has left of it."""
    return _seal(path).is_file() and path.is_file() and _seal(path).read_bytes() == file_sha256(path).encode()


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def folder_digest(folder: Path) -> str:
    """Return the sha256 over the names and bytes of a folder's files; they are read side by side."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    with ThreadPoolExecutor() as pool:
        lines = [f"{path.name} {sha256}" for path, sha256 in zip(paths, pool.map(file_sha256, paths), strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
