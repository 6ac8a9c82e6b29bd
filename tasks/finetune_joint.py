"""Stage: XFeat and its LightGlue learn modalities together, from the pictures of any number of certified data sets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from minima_core import licences
from minima_core.config import digest, read_section, read_seed
from minima_core.data.pairs import PairSource
from minima_core.errors import DataError, TrainingError
from minima_core.io.atomic import scratch_folder
from minima_core.licences import Licence, named
from minima_core.manifest import Certificate, ModalityManifest, ModelCard, RawDataset, SceneManifest, Split, file_sha256
from minima_core.matchers.lightglue import LightGlue
from minima_core.models import read_model, save_model
from minima_core.training.average import blend
from minima_core.training.distributed import in_one_process
from minima_core.training.joint import Album, JointTraining, fit_joint
from minima_core.training.loop import summary
from minima_core.training.run import certified, save_curves, training_code
from minima_core.training.steps import Fitted
from tasks.reports import TrainingReport
from tasks.stage import INPUT, Args, Input, Output, execution, remove_when_done, run


class FinetuneJointArgs(Args):
    """The parent model, a folder of data sets (each with raw, index, modalities, certificate), where the model goes.

    ``teacher`` is the model whose extractor knows photographs: the parent, where none is given.
    """

    parent: Input
    data: Input
    out: Output
    teacher: Annotated[Path | None, INPUT] = None


def main(args: FinetuneJointArgs) -> TrainingReport:
    """Train XFeat and its LightGlue on pictures in two modalities; a killed run continues where it was."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    in_one_process("finetune_joint")
    params, seed = read_section("joint_training", JointTraining), read_seed()
    data_sets = find_data_sets(args.data)
    matcher, parent = _read(args.parent)
    teacher, taught_by = _read(args.teacher or args.parent)
    record = {"seed": seed, "matcher": {parent.matcher: parent.params}, "joint": params.model_dump(mode="json")}
    inputs = {"parent": args.parent, "teacher": args.teacher or args.parent} | {
        name: folder / "index" for name, folder in data_sets.items()
    }
    scratch = scratch_folder("finetune_joint", _key([parent, taught_by], data_sets, params, seed))
    with stage_run("finetune_joint", params=record, inputs=inputs, parent_card=parent.digest()) as tracker:
        fitted = fit_joint(
            matcher.to(execution().torch_device),
            _album(data_sets, "train"),
            _album(data_sets, "val"),
            params,
            seed=seed,
            tracker=tracker,
            scratch=scratch,
            teacher=teacher,
        )
        blend(matcher, teacher.state_dict(), params.learned_share)
        card = save_model(args.out, matcher, _card(parent, taught_by, data_sets, params, seed, fitted))
        save_curves(args.out, fitted)
        remove_when_done(scratch)  # a forced rerun is to train again
        tracker.artifact(args.out / ModelCard.FILE)
        tracker.tags(card.tags())
    return TrainingReport.of("finetune_joint", card, fitted, time.monotonic() - began)


def find_data_sets(folder: Path) -> dict[str, Path]:
    """Return the data sets of a folder by name.

    Raises:
        DataError: if there is none, or one lacks a part.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}
    if not found:
        raise DataError(f"no data set in {folder}; it holds folders, each with raw, index, modalities and certificate")
    for path in found.values():
        for part in ("raw", "index", "modalities", "certificate"):
            if not (path / part).is_dir():
                raise DataError(f"no folder {path / part}; copy it from the data folder of a checkout whose stages ran")
    return found


def _certificate(folder: Path) -> Certificate:
    return certified(folder / "certificate", folder / "index", folder / "modalities")


def _album(data_sets: dict[str, Path], split: Split) -> Album:
    return Album(
        [
            PairSource(
                folder / "index",
                folder / "raw",
                folder / "modalities",
                split=split,
                names=sorted(_certificate(folder).modalities),
            )
            for folder in data_sets.values()
        ]
    )


def _certificates(data_sets: dict[str, Path]) -> str:
    """Return a digest of what was certified."""
    return digest({name: file_sha256(folder / "certificate" / Certificate.FILE) for name, folder in data_sets.items()})


def _read(folder: Path) -> tuple[LightGlue, ModelCard]:
    matcher, card = read_model(folder)
    if not isinstance(matcher, LightGlue):
        raise TrainingError(f"{folder} is a {card.matcher}; give a lightglue model on xfeat")
    return matcher, card


def _key(models: list[ModelCard], data_sets: dict[str, Path], params: JointTraining, seed: int) -> str:
    settings, code = params.model_dump(mode="json"), training_code(models[0].matcher)
    return digest([[card.digest() for card in models], settings, seed, _certificates(data_sets), code])


def _card(
    parent: ModelCard,
    teacher: ModelCard,
    data_sets: dict[str, Path],
    params: JointTraining,
    seed: int,
    fitted: Fitted,
) -> ModelCard:
    """Return the card of a model that took weights from its parent and from its teacher."""
    taught = {} if teacher == parent else {"teacher": teacher.digest()}
    pictures = [line for folder in data_sets.values() for line in RawDataset.authors(folder / "raw")]
    made = [
        ModalityManifest.load(folder / "modalities" / name)
        for folder in data_sets.values()
        for name in _certificate(folder).modalities
    ]
    terms = licences.combine(
        [
            *(Licence(card.licence, card.commercial) for card in (parent, teacher)),
            *(named(SceneManifest.load(folder / "index").licence) for folder in data_sets.values()),
            *(Licence(manifest.licence, manifest.commercial) for manifest in made),
        ]
    )
    return ModelCard(
        matcher=parent.matcher,
        stage="finetuned",
        params=parent.params,
        training={"data_sets": list(data_sets), **taught, **params.model_dump(mode="json"), **summary(fitted)},
        seed=seed,
        source=teacher.source | parent.source,
        attribution=list(dict.fromkeys([*parent.attribution, *teacher.attribution, *pictures])),
        data_digest=_certificates(data_sets),
        parent=parent.digest(),
        weights_sha256="",  # known once they are written
        licence=terms.name,
        commercial=terms.commercial,
    )


if __name__ == "__main__":
    run(main)
