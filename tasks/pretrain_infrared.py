"""Stage: the adapter of the engine infrared/stylebooth, trained on aligned visible and infrared pictures."""

from __future__ import annotations

import time
from pathlib import Path

from minima_core.config import digest, read_section, read_seed
from minima_core.io.atomic import scratch_folder
from minima_core.manifest import file_sha256
from minima_core.provenance import code_digest
from minima_core.training.infrared import (
    AlignedPair,
    InfraredTraining,
    adapter_licence,
    find_pairs,
    fit_adapter,
    make_editor,
    save_adapter,
)
from minima_core.training.run import save_curves
from tasks.reports import InfraredTrainingReport
from tasks.stage import Args, Input, Output, execution, remove_when_done, run


class PretrainInfraredArgs(Args):
    """The folder of aligned pictures (LLVIP, M3FD or both), and where the adapter goes."""

    pairs: Input
    out: Output


def main(args: PretrainInfraredArgs) -> InfraredTrainingReport:
    """Train an adapter that turns pictures infrared; `synthesis.infrared.adapter` takes the folder that it writes."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    params, seed = read_section("infrared_training", InfraredTraining), read_seed()
    record = {"seed": seed, "infrared_training": params.model_dump(mode="json")}
    terms = adapter_licence(params)
    train, held_out = find_pairs(args.pairs)
    with stage_run("pretrain_infrared", params=record, inputs={"training": args.pairs}) as tracker:
        editor = make_editor(params, execution().torch_device, seed=seed)  # weights that cannot be had are told at once
        data = _digest([*train, *held_out])
        scratch = _scratch(record, data)
        fitted = fit_adapter(editor, (train, held_out), params, seed=seed, tracker=tracker, scratch=scratch)
        about = {**record, "data_digest": data, "steps": fitted.steps, "skipped": fitted.skipped}
        sha256 = save_adapter(args.out, editor, params, about)
        save_curves(args.out, fitted)
        remove_when_done(scratch)  # a forced rerun is to train again
        tracker.tags({"adapter_sha256": sha256, **terms.tags()})
    return InfraredTrainingReport(
        pairs=len(train),
        validation_pairs=len(held_out),
        steps=fitted.steps,
        skipped_steps=fitted.skipped,
        final=fitted.final,
        seconds=time.monotonic() - began,
        adapter_sha256=sha256,
        licence=terms.name,
    )


def _digest(pairs: list[AlignedPair]) -> str:
    """Return the sha256 over the names and bytes of the pictures."""
    return digest([[pair.name, file_sha256(pair.visible), file_sha256(pair.infrared)] for pair in pairs])


def _scratch(record: dict[str, object], data: str) -> Path:
    """Return where the checkpoints of exactly this training lie."""
    code = code_digest("training", "io", "random.py", "synthesis/infrared")
    return scratch_folder("pretrain_infrared", digest([record, data, code]))


if __name__ == "__main__":
    run(main)
