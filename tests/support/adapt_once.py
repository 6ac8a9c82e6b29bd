"""Trains an infrared adapter as a process of its own, so that a test can kill it."""

import sys
from pathlib import Path

from infrared_pairs import settings

from minima_core.tracking import NullTracker
from minima_core.training.infrared import InfraredTraining, find_pairs, fit_adapter, make_editor, save_adapter


def main(pairs: Path, out: Path) -> None:
    """Write the adapter to ``out/adapter``."""
    params = InfraredTraining.model_validate(settings(steps=16))
    editor = make_editor(params, "cpu", seed=0)
    fit_adapter(editor, find_pairs(pairs), params, seed=0, tracker=NullTracker(), scratch=out / "scratch")
    save_adapter(out / "adapter", editor, params, {})


if __name__ == "__main__":
    for folder in sys.argv[2:]:
        main(Path(sys.argv[1]), Path(folder))
