"""One modality of every image of the index."""

from __future__ import annotations

import time
from pathlib import Path

from minima_core.config import read_seed, read_value
from minima_core.manifest import folder_digest
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.policy import require_allowed
from minima_core.synthesis.runner import synthesise_index
from tasks.reports import SynthesisReport
from tasks.stage import Args, Input, Output, execution, run

SCRATCH = Path(".scratch/synthesise")


class SynthesiseArgs(Args):
    """Command line of the stage."""

    modality: str
    raw: Input
    index: Input
    out: Output


def main(args: SynthesiseArgs) -> SynthesisReport:
    """Make one modality of every image of the index: a shard for each scene, and a manifest.

    Every image passes a geometric gate; one that fails is drawn anew a few times, then listed in the manifest. An
    engine that licence_policy does not allow is refused at once. A killed run continues where it stopped. A modality
    that the data set cannot give is recorded as unavailable with the reason; the stage succeeds, and training goes on
    without it. One whose images the gate refused is not unavailable: validation stops at it.
    """
    start, how = time.monotonic(), execution()
    settings = read_value(f"synthesis.{args.modality}")
    require_allowed(args.modality, settings, str(read_value("licence_policy")))
    network = MODALITIES.create(args.modality, settings).gpus > 0
    there = how.device if how.cluster else how.torch_device  # each machine of a cluster looks for a GPU of its own
    manifest = synthesise_index(
        args.index,
        args.raw,
        args.out,
        modality=args.modality,
        settings=settings,
        gate=read_value("gate"),
        seed=read_seed(),
        workers=how.processes,
        scratch=SCRATCH,
        device=there if network else "cpu",
        cluster=how.cluster,
    )
    return SynthesisReport(
        modality=args.modality,
        engine=manifest.engine,
        status=manifest.status,
        reason=manifest.reason,
        images=sum(manifest.scenes.values()),
        weights=manifest.weights,
        licence=manifest.licence,
        failed=len(manifest.failed),
        rejected=len(manifest.rejected),
        retried=manifest.gate.retried,
        seconds=round(time.monotonic() - start, 2),
        digest=folder_digest(args.out),
    )


if __name__ == "__main__":
    run(main)
