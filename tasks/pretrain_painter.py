"""Stage: weights of our own for the engine paint/paint_transformer, from strokes drawn at random."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import field_validator

from minima_core.config import digest, read_section, read_seed
from minima_core.io.atomic import scratch_folder
from minima_core.io.weights import save_weights
from minima_core.licences import APACHE_2_0
from minima_core.manifest import file_sha256
from minima_core.provenance import code_digest
from minima_core.synthesis.paint._painter import CONFIG
from minima_core.training.painter import PainterTraining, fit_painter
from tasks.reports import PainterReport
from tasks.stage import Args, Output, execution, remove_when_done, run


class PainterArgs(Args):
    """Where the weights go: a .safetensors file, for ``weights:`` of the engine."""

    out: Output

    @field_validator("out")
    @classmethod
    def _taken_by_the_engine(cls, value: Path) -> Path:
        if value.suffix != ".safetensors":
            raise ValueError("give the name of a .safetensors file")
        return value


def main(args: PainterArgs) -> PainterReport:
    """Train the Paint Transformer's network on random strokes; no pictures are read. A killed run continues."""
    from tasks.tracking import stage_run

    began = time.monotonic()
    params, seed = read_section("painter_training", PainterTraining), read_seed()
    settings = params.model_dump(mode="json")
    code = code_digest("training", "synthesis/paint", "random.py")
    scratch = scratch_folder("pretrain_painter", digest([settings, seed, code]))
    with stage_run("pretrain_painter", params={"seed": seed, "painter": settings}, inputs={}) as tracker:
        painter, fitted = fit_painter(
            params, seed=seed, tracker=tracker, scratch=scratch, device=execution().torch_device
        )
        about = {"licence": APACHE_2_0.name, CONFIG: params.size.model_dump_json(), "code": code}
        save_weights(args.out, painter.state_dict(), about)
        sha256 = file_sha256(args.out)
        tracker.tags({"weights_sha256": sha256, **APACHE_2_0.tags()})
        remove_when_done(scratch)  # a forced rerun is to train again
    return PainterReport(
        steps=fitted.steps,
        skipped_steps=fitted.skipped,
        final=fitted.final,
        seconds=time.monotonic() - began,
        weights_sha256=sha256,
    )


if __name__ == "__main__":
    run(main)
