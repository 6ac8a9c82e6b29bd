"""Tasks that change the registry, a service and not a file: register a model version, move the alias ``champion``."""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.environment import ROOT
from flows.promotion import Decision, Promotion, Score, Scores, decide, scores_of
from minima_core.manifest import ModelCard
from tasks.reports import ScoreReport
from tasks.tracking import connect, dvc_digests, find_run, git_state, stage_run, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
CHAMPION = "champion"
# What the logged code imports; the versions are those it was trained with.
REQUIREMENTS = (
    "torch", "kornia", "numpy", "opencv-python-headless", "h5py", "pillow", "pydantic", "omegaconf", "safetensors",
    "rich", "pandas", "mlflow", "scipy",
)  # fmt: skip
MORE = {"eloftr": ("transformers",), "superpoint": ("transformers",)}  # of a matcher, or of an extractor


@dataclass(frozen=True)
class Registered:
    """A model version in the registry; ``new`` is false where the same model was registered before."""

    name: str
    version: str
    card: str
    new: bool


def registered_name(matcher: str) -> str:
    """Return what a matcher's models are called in the registry; Prefect's artifacts know dashes, no underscores."""
    return f"minima-{matcher}".lower().replace("_", "-")


@task(name="register", task_run_name="register {matcher}", cache_policy=NO_CACHE, persist_result=False)
def register(matcher: str, folder: Path) -> Registered:
    """Register a model folder as a version of ``registered_name``, once: the same card is the same version."""
    card = ModelCard.load(folder)
    name, digest = registered_name(matcher), card.digest()
    client = connect()
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.tags.get("card_digest") == digest:
            logger.info("%s version %s is this model already", name, known.version)
            return Registered(name, str(known.version), digest, new=False)
    return Registered(name, _log_model(client, name, folder, card), digest, new=True)


@task(name="promote", task_run_name="promote {model.name}", cache_policy=NO_CACHE, persist_result=False)
def promote(model: Registered, reports: list[ScoreReport], rule: Promotion) -> Decision:
    """Decide whether a version becomes champion, move the alias if so, and keep the figures either way.

    ``reports`` are the scores of the model and of its parent.
    """
    client = connect()
    candidate = scores_of((r for r in reports if r.model == "finetuned"), rule)
    parent = scores_of((r for r in reports if r.model == "pretrained"), rule)
    decision = decide(candidate, parent, _champion_scores(client, model), rule)
    tags = {
        "scores": json.dumps({name: score.model_dump() for name, score in candidate.items()}),
        "decision": decision.model_dump_json(),
        "promoted": str(decision.promoted).lower(),
    }
    for key, value in tags.items():
        client.set_model_version_tag(model.name, model.version, key, value)
    if decision.promoted:
        client.set_registered_model_alias(model.name, CHAMPION, model.version)
    logger.info("%s version %s: %s", model.name, model.version, decision.reason)
    return decision


def _champion_scores(client: MlflowClient, model: Registered) -> Scores | None:
    """Return what the champion reached; None where there is none, or where it is the candidate itself."""
    from mlflow.exceptions import MlflowException

    try:
        champion = client.get_model_version_by_alias(model.name, CHAMPION)
    except MlflowException:  # there is no champion yet
        return None
    if str(champion.version) == model.version:
        return None
    return {name: Score(**score) for name, score in json.loads(champion.tags.get("scores", "{}")).items()}


def _facts(folder: Path, card: ModelCard) -> dict[str, str]:
    commit, dirty = git_state()
    return {
        **card.tags(),
        "parent_card": card.parent or "",
        "git.commit": commit,
        "git.dirty": str(dirty).lower(),
        "dvc.md5": " ".join(dvc_digests(folder).values()),
    }


def _log_model(client: MlflowClient, name: str, folder: Path, card: ModelCard) -> str:
    """Log the folder and the code that runs it below the run that trained it; return the new version's number."""
    made = find_run(client, card_digest=card.digest())
    if made is not None:
        return _log_below(made.info.run_id, name, folder, card)
    # trained elsewhere and pulled: there is no run yet to hang it below
    with stage_run(f"register@{name}", params={}, inputs={"model": folder}, parent_card=card.parent) as tracker:
        tracker.tags(card.tags())
        return _log_below(tracker.run_id, name, folder, card)


def _log_below(run_id: str, name: str, folder: Path, card: ModelCard) -> str:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(tracking_uri())
    with warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
        warnings.simplefilter("ignore", UserWarning)  # it would like examples and type hints, which serve no images
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(ROOT / "flows" / "pyfunc_model.py"),
            artifacts={"model": str(folder.absolute())},
            code_paths=[str(ROOT / "minima_core")],
            signature=_signature(),
            # without the local part (+cpu), which no index has
            pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in requirements(card)],
            metadata={"card_digest": card.digest(), "licence": card.licence},
        )
        # with its facts from the first moment: one without a digest, left by a kill, would be registered twice
        made = mlflow.register_model(info.model_uri, name, tags=_facts(folder, card))
    return str(made.version)


def requirements(card: ModelCard) -> list[str]:
    """Return the packages that a logged model imports."""
    parts = (card.matcher, str(card.params.get("extractor")))
    return [*REQUIREMENTS, *(package for part in parts for package in MORE.get(part, ()))]


def _signature() -> Any:
    """Return the signature: any image in, lists out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    numbers, anything = Array(DataType.double), AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(
        inputs=Schema([ColSpec(anything, "image0"), ColSpec(anything, "image1")]),
        outputs=Schema(
            [ColSpec(Array(numbers), "mkpts0"), ColSpec(Array(numbers), "mkpts1"), ColSpec(numbers, "scores")]
        ),
        params=ParamSchema([ParamSpec("max_keypoints", DataType.long, 0)]),
    )
