"""Stage: XFeat and its LightGlue learn modalities together, from the pictures of any number of certified data sets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from minima_core.config import read_section, read_seed
from minima_core.io.atomic import scratch_folder
from minima_core.training.average import blend
from minima_core.training.distributed import joined, start_on_every_gpu
from minima_core.training.joint import JointTraining, fit_joint
from tasks.albums import DataSets, read_lightglue, save_trained, trained_card, training_key
from tasks.reports import TrainingReport
from tasks.stage import INPUT, Args, Input, Output, execution, run


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
    params, seed = read_section("joint_training", JointTraining), read_seed()
    data = DataSets(args.data)
    matcher, parent = read_lightglue(args.parent)
    teacher, taught_by = read_lightglue(args.teacher or args.parent)
    settings = params.model_dump(mode="json")
    record = {"seed": seed, "matcher": {parent.matcher: parent.params}, "joint": settings}
    inputs = {"parent": args.parent, "teacher": args.teacher or args.parent} | data.indices()
    scratch = scratch_folder("finetune_joint", training_key([parent, taught_by], data, params, seed))
    device = execution().torch_device
    start_on_every_gpu("tasks.finetune_joint", device)
    recorded = stage_run("finetune_joint", params=record, inputs=inputs, parent_card=parent.digest())
    with joined(device, recorded) as (group, tracker):
        fitted = fit_joint(
            matcher.to(device),
            data.album("train"),
            data.album("val"),
            params,
            seed=seed,
            tracker=tracker,
            scratch=scratch,
            teacher=teacher,
        )
        group.leave_to_leader()
        blend(matcher, teacher.state_dict(), params.learned_share)
        taught = {} if taught_by == parent else {"teacher": taught_by.digest()}
        card = trained_card([parent, taught_by], data, taught | settings, seed, fitted)
        card = save_trained(args.out, matcher, card, fitted, scratch=scratch, tracker=tracker)
    return TrainingReport.of("finetune_joint", card, fitted, time.monotonic() - began)


if __name__ == "__main__":
    run(main)
