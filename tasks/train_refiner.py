"""Stage: a LightGlue model learns to move its matches, from the pictures of any number of certified data sets."""

from __future__ import annotations

import time

import torch

from minima_core.config import read_section, read_seed
from minima_core.io.atomic import scratch_folder
from minima_core.matchers.lightglue import LightGlue
from minima_core.models import create
from minima_core.random import derive
from minima_core.training.distributed import joined, start_on_every_gpu
from minima_core.training.refinement import RefinerTraining, fit_refiner
from tasks.albums import DataSets, read_lightglue, save_trained, trained_card, training_key
from tasks.reports import TrainingReport
from tasks.stage import Args, Input, Output, execution, run


class TrainRefinerArgs(Args):
    """The parent model, a folder of data sets (each with raw, index, modalities, certificate), where the model goes."""

    parent: Input
    data: Input
    out: Output


def with_refiner(unmoved: LightGlue, seed: int) -> LightGlue:
    """Return the matcher with a refiner that has random weights yet, and all of its own."""
    with torch.random.fork_rng(devices=[]):  # initialisers draw from torch's global generator
        torch.manual_seed(derive(seed, "refiner") >> 1)
        settings = unmoved.params.model_dump(mode="json") | {"refine": True}
        matcher = create("lightglue", settings, "the parent's card")
    assert isinstance(matcher, LightGlue)
    matcher.load_state_dict(matcher.state_dict() | unmoved.state_dict())
    return matcher


def main(args: TrainRefinerArgs) -> TrainingReport:
    """Give a LightGlue model a refiner of its matches; nothing else of it changes. A killed run continues."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    params, seed = read_section("refiner_training", RefinerTraining), read_seed()
    data = DataSets(args.data)
    unmoved, parent = read_lightglue(args.parent)
    settings = params.model_dump(mode="json")
    record = {"seed": seed, "matcher": {parent.matcher: parent.params}, "refiner": settings}
    scratch = scratch_folder("train_refiner", training_key([parent], data, params, seed))
    inputs = {"parent": args.parent} | data.indices()
    device = execution().torch_device
    start_on_every_gpu("tasks.train_refiner", device)
    recorded = stage_run("train_refiner", params=record, inputs=inputs, parent_card=parent.digest())
    with joined(device, recorded) as (group, tracker):
        matcher = with_refiner(unmoved, seed)
        fitted = fit_refiner(
            matcher.to(device),
            data.album("train"),
            data.album("val"),
            params,
            seed=seed,
            tracker=tracker,
            scratch=scratch,
        )
        group.leave_to_leader()
        card = trained_card([parent], data, settings, seed, fitted)
        card = card.model_copy(update={"params": matcher.params.model_dump(mode="json")})
        card = save_trained(args.out, matcher, card, fitted, scratch=scratch, tracker=tracker)
    return TrainingReport.of("train_refiner", card, fitted, time.monotonic() - began)


if __name__ == "__main__":
    run(main)
