"""What each stage says about its run; one discriminated union, so that a flow gets typed results from JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from minima_core.errors import DataError

if TYPE_CHECKING:
    from minima_core.manifest import ModelCard
    from minima_core.training.steps import Fitted


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckReport(_Report):
    """Every name in params.yaml is the name of something."""

    stage: Literal["check"] = "check"


class DownloadReport(_Report):
    """A data set was brought."""

    stage: Literal["download"] = "download"
    dataset: str
    licence: str
    scenes: int
    images: int
    seconds: float


class IndexReport(_Report):
    """The pair index was written."""

    stage: Literal["index"] = "index"
    dataset: str
    scenes: dict[str, int]  # split -> scenes
    images: int
    pairs: int
    digest: str


class SynthesisReport(_Report):
    """One modality was made."""

    stage: Literal["synthesise"] = "synthesise"
    modality: str
    engine: str
    status: Literal["complete", "unavailable"]
    reason: str = ""
    weights: str
    licence: str
    images: int
    failed: int
    rejected: int
    retried: int
    seconds: float
    digest: str


class ValidationReport(_Report):
    """The data were checked."""

    stage: Literal["validate"] = "validate"
    passed: bool
    expectations: int
    modalities: list[str]
    unavailable: dict[str, str]
    images: int
    pairs: int


class TrainingReport(_Report):
    """A matcher was adopted, pre-trained or fine-tuned."""

    stage: Literal["pretrain", "finetune", "finetune_joint", "train_refiner"]
    matcher: str
    steps: int
    skipped_steps: int
    final: dict[str, float]  # last values of the curves
    seconds: float
    card_digest: str
    weights_sha256: str

    @classmethod
    def of(
        cls,
        stage: Literal["pretrain", "finetune", "finetune_joint", "train_refiner"],
        card: ModelCard,
        fitted: Fitted | None,
        seconds: float,
    ) -> Self:
        """Return what is said of the model with ``card``; ``fitted`` is None where nothing was trained."""
        return cls(
            stage=stage,
            matcher=card.matcher,
            steps=fitted.steps if fitted else 0,
            skipped_steps=fitted.skipped if fitted else 0,
            final=fitted.final if fitted else {},
            seconds=seconds,
            card_digest=card.digest(),
            weights_sha256=card.weights_sha256,
        )


class FetchReport(_Report):
    """A benchmark was prepared."""

    stage: Literal["fetch_benchmark"] = "fetch_benchmark"
    benchmark: str
    pairs: int
    categories: dict[str, int]
    skipped: str = ""


class MatchReport(_Report):
    """A model matched a benchmark."""

    stage: Literal["match"] = "match"
    benchmark: str
    model: str
    pairs: int
    seconds_per_pair: float
    skipped: str = ""


class ScoreReport(_Report):
    """Predictions were scored; metric names as ``auc@5``, values in percent."""

    stage: Literal["score"] = "score"
    benchmark: str
    protocol: str
    protocol_hash: str
    data_digest: str
    subset: str = ""  # what part of the benchmark was scored; "" for the whole
    matcher: str
    model: Literal["pretrained", "finetuned"]
    seed: int
    metrics: dict[str, float]
    categories: dict[str, dict[str, float]]
    groups: dict[str, dict[str, float]] = {}  # of categories
    pairs: int
    failures: int
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)  # of the metrics, 95 % over pairs
    skipped: str = ""


class SummaryReport(_Report):
    """All scores in one place."""

    stage: Literal["summarise"] = "summarise"
    scores: list[ScoreReport]
    html: str


class PainterReport(_Report):
    """The paint engine's network was trained."""

    stage: Literal["pretrain_painter"] = "pretrain_painter"
    steps: int
    skipped_steps: int
    final: dict[str, float]  # last values of the curves
    seconds: float
    weights_sha256: str


class InfraredTrainingReport(_Report):
    """The adapter of an infrared engine was trained."""

    stage: Literal["pretrain_infrared"] = "pretrain_infrared"
    pairs: int
    validation_pairs: int
    steps: int
    skipped_steps: int
    final: dict[str, float]  # last values of the curves
    seconds: float
    adapter_sha256: str
    licence: str


Report = Annotated[
    CheckReport
    | DownloadReport
    | IndexReport
    | SynthesisReport
    | ValidationReport
    | TrainingReport
    | PainterReport
    | InfraredTrainingReport
    | FetchReport
    | MatchReport
    | ScoreReport
    | SummaryReport,
    Field(discriminator="stage"),
]
_ADAPTER: TypeAdapter[Report] = TypeAdapter(Report)
T = TypeVar("T")


def read_report(path: Path) -> Report:
    """Read any stage's report.

    Raises:
        DataError: if it is missing or no report.
    """
    return read_json(path, _ADAPTER, "make it again: `dvc repro -f` and the stage that writes it")


def read_json(path: Path, schema: TypeAdapter[T], remedy: str) -> T:
    """Read a JSON file that a stage wrote.

    Raises:
        DataError: if it is missing or damaged, with the ``remedy``.
    """
    try:
        return schema.validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no {path}; {remedy}") from None
    except ValueError as error:  # pydantic's and of the encoding
        raise DataError(f"{path} is damaged ({str(error).splitlines()[0]}); {remedy}") from None
