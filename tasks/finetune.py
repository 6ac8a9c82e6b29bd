"""Stage: a pre-trained matcher learns modalities, from pairs of which one side may be any certified one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from minima_core import licences
from minima_core.config import digest, read_section, read_seed, read_value
from minima_core.data.sampling import used_modalities
from minima_core.errors import TrainingError
from minima_core.io.atomic import scratch_folder
from minima_core.licences import Licence, named
from minima_core.manifest import Certificate, ModalityManifest, ModelCard, RawDataset, SceneManifest, file_sha256
from minima_core.models import read_model, save_model
from minima_core.training.distributed import joined, start_on_every_gpu
from minima_core.training.loop import TrainingParams, summary
from minima_core.training.run import certified, save_curves, train, training_code
from minima_core.training.steps import Fitted
from minima_core.types import RGB
from tasks.reports import TrainingReport
from tasks.stage import Args, Input, Output, execution, remove_when_done, run


class FinetuneArgs(Args):
    """Which matcher, by which settings, its parent model, the certified data, and where the model goes."""

    matcher: str
    preset: str
    parent: Input
    raw: Input
    index: Input
    modalities: Input
    certificate: Input
    out: Output


def main(args: FinetuneArgs) -> TrainingReport:
    """Fine-tune a model on random modality pairs of the certified modalities; a killed run continues where it was."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    params = read_section(f"training.finetune.{args.matcher}.{args.preset}", TrainingParams)
    seed = read_seed()
    certificate = certified(args.certificate, args.index, args.modalities)
    drawn = used_modalities(params.pairs.modalities, certificate.modalities)
    matcher, parent = read_model(args.parent)
    if parent.matcher != args.matcher or parent.params != read_value(f"matcher.{args.matcher}"):
        raise TrainingError(
            f"{args.parent} was made with other settings than matcher.{args.matcher} of params.yaml; run "
            f"`dvc repro pretrain@{args.matcher}`"
        )
    how, scratch = execution(), scratch_folder("finetune", _key(args, parent, params, seed))
    start_on_every_gpu("tasks.finetune", how.torch_device)
    record = {"seed": seed, "matcher": {args.matcher: parent.params}, "finetune": params.model_dump(mode="json")}
    inputs = {
        "training": args.index,
        "raw": args.raw,
        "modalities": args.modalities,
        "certificate": args.certificate,
        "parent": args.parent,
    }
    tags = {"modalities": ", ".join(drawn) or RGB}
    recorded = stage_run(
        f"finetune@{args.matcher}", params=record, inputs=inputs, parent_card=parent.digest(), tags=tags
    )
    with joined(how.torch_device, recorded) as (group, tracker):
        fitted = train(
            matcher.to(how.torch_device),
            params,
            index=args.index,
            raw=args.raw,
            modalities=args.modalities,
            names=certificate.modalities,
            seed=seed,
            workers=how.processes,
            cache=scratch_folder("features", "all"),
            scratch=scratch,
            tracker=tracker,
        )
        group.leave_to_leader()
        card = save_model(args.out, matcher, _card(args, parent, drawn, params, seed, fitted))
        save_curves(args.out, fitted)
        remove_when_done(scratch)  # a forced rerun is to train again
        tracker.artifact(args.out / ModelCard.FILE)
        tracker.tags(card.tags())
    return TrainingReport.of("finetune", card, fitted, time.monotonic() - began)


def _key(args: FinetuneArgs, parent: ModelCard, params: TrainingParams, seed: int) -> str:
    """Return the digest of everything that decides the result: work of another state is not continued."""
    code = training_code(args.matcher)
    certificate = file_sha256(args.certificate / Certificate.FILE)
    return digest([parent.digest(), params.model_dump(mode="json"), seed, certificate, code])


def _card(
    args: FinetuneArgs, parent: ModelCard, drawn: list[str], params: TrainingParams, seed: int, fitted: Fitted
) -> ModelCard:
    terms = licences.combine(_licences(parent, args.index, args.modalities, drawn))
    training: dict[str, Any] = {"modalities": drawn, **params.model_dump(mode="json")}
    return ModelCard(
        matcher=args.matcher,
        stage="finetuned",
        params=parent.params,
        training={**training, **summary(fitted)},
        seed=seed,
        source=parent.source,
        attribution=list(dict.fromkeys([*parent.attribution, *RawDataset.authors(args.raw)])),
        data_digest=file_sha256(args.certificate / Certificate.FILE),
        parent=parent.digest(),
        weights_sha256="",  # known once they are written
        licence=terms.name,
        commercial=terms.commercial,
    )


def _licences(parent: ModelCard, index: Path, modalities: Path, names: list[str]) -> list[Licence]:
    """Return the licences of everything the fine-tuned weights come from."""
    manifests = [ModalityManifest.load(modalities / name) for name in names]
    return [
        Licence(parent.licence, parent.commercial),
        named(SceneManifest.load(index).licence),
        *(Licence(manifest.licence, manifest.commercial) for manifest in manifests),
    ]


if __name__ == "__main__":
    run(main)
