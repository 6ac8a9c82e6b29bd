"""Stage: a matcher's RGB weights, adopted from their authors or trained on RGB pairs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import model_validator

from minima_core import licences
from minima_core.config import Section, digest, read_section, read_seed, read_value
from minima_core.errors import ConfigError
from minima_core.io.atomic import scratch_folder
from minima_core.licences import Licence, named
from minima_core.manifest import Certificate, ModelCard, RawDataset, SceneManifest, file_sha256
from minima_core.matchers.base import Matcher, Provenance
from minima_core.models import create, save_model
from minima_core.random import derive
from minima_core.tracking import Tracker
from minima_core.training.distributed import joined, start_on_every_gpu
from minima_core.training.loop import TrainingParams, summary
from minima_core.training.run import certified, save_curves, train, training_code
from minima_core.training.steps import Fitted
from tasks.reports import TrainingReport
from tasks.stage import Args, Input, Output, execution, remove_when_done, run


class Pretrain(Section):
    """Settings, ``training.pretrain.<matcher>`` in params.yaml."""

    mode: Literal["adopt", "train"]  # take the official RGB weights as they are, or train on RGB pairs
    start: Literal["official", "random"]  # what training starts from
    train: TrainingParams | None  # null where nothing is trained

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.mode == "train" and self.train is None:
            raise ValueError("mode train needs the settings `train`; start from those of training.finetune")
        return self


class PretrainArgs(Args):
    """Which matcher, the data to train on, and where the model goes."""

    matcher: str
    raw: Input
    index: Input
    certificate: Input
    out: Output


def main(args: PretrainArgs) -> TrainingReport:
    """Bring a matcher's RGB model: the official weights, or weights trained on RGB pairs of the certified data."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    params = read_section(f"training.pretrain.{args.matcher}", Pretrain)
    settings, seed = read_value(f"matcher.{args.matcher}"), read_seed()
    record = {"seed": seed, "matcher": {args.matcher: settings}, "pretrain": params.model_dump(mode="json")}
    data = {"training": args.index, "raw": args.raw, "certificate": args.certificate}
    recorded = stage_run(f"pretrain@{args.matcher}", params=record, inputs=data if params.mode == "train" else {})
    device = execution().torch_device
    if params.mode == "train":
        start_on_every_gpu("tasks.pretrain", device)
    with joined(device, recorded) as (group, tracker):
        matcher, origin = _start(args.matcher, settings, params, seed)
        fitted, card, scratch = None, _adopted(args.matcher, matcher, origin), None
        if params.mode == "train":
            fitted, card, scratch = _trained(args, matcher, card, params, seed, tracker)
        group.leave_to_leader()
        card = save_model(args.out, matcher, card)
        if fitted is not None and scratch is not None:
            save_curves(args.out, fitted)
            remove_when_done(scratch)  # a forced rerun is to train again
        tracker.artifact(args.out / ModelCard.FILE)
        tracker.tags(card.tags())
    return TrainingReport.of("pretrain", card, fitted, time.monotonic() - began)


def _start(name: str, settings: Any, params: Pretrain, seed: int) -> tuple[Matcher, Provenance]:
    """Return the matcher with the weights that ``params`` starts from."""
    with torch.random.fork_rng(devices=[]):  # initialisers draw from torch's global generator
        torch.manual_seed(derive(seed, "initial weights", name) >> 1)
        matcher = create(name, settings, f"params.yaml: matcher.{name}")
    _require_allowed(name, matcher.terms())
    scratch = params.mode == "train" and params.start == "random"
    return matcher, matcher.load_frozen() if scratch else matcher.load_published()


def _require_allowed(name: str, terms: Licence) -> None:
    """Refuse weights that forbid commercial use unless licence_policy lets them through: all that follows inherits it.

    Raises:
        ConfigError: naming the licence.
    """
    policy = read_value("licence_policy")
    if policy != "any" and not terms.commercial:
        raise ConfigError(
            f"params.yaml: matcher.{name} takes weights under {terms.name}, which does not allow commercial use, and "
            f"licence_policy is {policy}; choose other weights, or set licence_policy: any"
        )


def _adopted(name: str, matcher: Matcher, origin: Provenance) -> ModelCard:
    return ModelCard(
        matcher=name,
        stage="pretrained",
        params=matcher.params.model_dump(mode="json"),
        source=origin.source,
        weights_sha256="",  # known once they are written
        licence=origin.licence.name,
        commercial=origin.licence.commercial,
    )


def _trained(
    args: PretrainArgs, matcher: Matcher, card: ModelCard, params: Pretrain, seed: int, tracker: Tracker
) -> tuple[Fitted, ModelCard, Path]:
    """Train on RGB pairs; return what happened, the card of the result, and the scratch folder that may go."""
    assert params.train is not None
    certificate, how = certified(args.certificate, args.index), execution()
    key = [card.digest(), params.model_dump(mode="json"), seed, certificate.index_digest]
    code = training_code(args.matcher)
    scratch = scratch_folder("pretrain", digest([*key, code]))
    fitted = train(
        matcher.to(how.torch_device),
        params.train,
        index=args.index,
        raw=args.raw,
        modalities=None,
        names=[],
        seed=seed,
        workers=how.processes,
        cache=scratch_folder("features", "all"),
        scratch=scratch,
        tracker=tracker,
    )
    terms = licences.combine([Licence(card.licence, card.commercial), named(SceneManifest.load(args.index).licence)])
    facts = {
        "training": {**params.model_dump(mode="json"), **summary(fitted)},
        "seed": seed,
        "attribution": RawDataset.authors(args.raw),
        "data_digest": file_sha256(args.certificate / Certificate.FILE),
        "licence": terms.name,
        "commercial": terms.commercial,
    }
    return fitted, card.model_copy(update=facts), scratch


if __name__ == "__main__":
    run(main)
