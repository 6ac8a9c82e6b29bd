"""Stage: every name in params.yaml is the name of something; before any stage that would need it."""

from __future__ import annotations

from typing import Any

from minima_core.config import load_params, read_seed, read_value, unknown
from minima_core.errors import ConfigError
from minima_core.io.atomic import write_json
from minima_core.plugins import Plugins
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.policy import require_allowed
from tasks.reports import CheckReport
from tasks.stage import Args, Output, run

DATASETS: Plugins[Any] = Plugins("minima_core.data.datasets", object, "data set")
MATCHERS: Plugins[Any] = Plugins("minima_core.matchers", object, "matcher")
BENCHMARKS: Plugins[Any] = Plugins("minima_core.evaluation.benchmarks", object, "benchmark")
TOP = (  # the names at the top level of params.yaml
    *("seed", "licence_policy", "modalities", "matchers", "benchmarks"),
    *("dataset", "synthesis", "gate", "validation", "matcher", "training", "benchmark", "evaluation", "promotion"),
    *("infrared_training", "joint_training", "painter_training", "refiner_training"),
)


class CheckArgs(Args):
    """Command line of the stage."""

    out: Output


def main(args: CheckArgs) -> CheckReport:
    """Refuse names in params.yaml that nothing has, with the closest one, matchers that cannot be trained, and engines
    that licence_policy refuses.

    What is written is always the same, so a new name in a list runs nothing again but what needs it. The stages that
    begin the graph depend on it, because DVC itself would only say which folder is missing.
    """
    for name in load_params():
        if name not in TOP:
            raise ConfigError(unknown(name, TOP, "params.yaml"))
    read_seed()
    DATASETS.require(str(read_value("dataset.name")))
    for name in _names("modalities"):
        MODALITIES.engines(name)
        require_allowed(name, read_value(f"synthesis.{name}"), str(read_value("licence_policy")))
    for name in _names("matchers"):
        MATCHERS.require(name)
        _require_trainable(name)
    for name in [*_names("benchmarks"), *_settings("promotion.benchmarks")]:
        BENCHMARKS.require(name)
    write_json(args.out, {"names": "known"})
    return CheckReport()


def _require_trainable(matcher: str) -> None:
    """Refuse a matcher without settings of training: every one that is listed is trained."""
    for key in ("training.pretrain", "training.finetune", "matcher"):
        known = _settings(key)
        if matcher not in known:
            raise ConfigError(
                f"params.yaml: matchers lists '{matcher}', which has no settings in {key}; "
                f"those that can be trained are {', '.join(sorted(known))}"
            )
    read_value(f"training.finetune.{matcher}.{read_value('training.preset')}")


def _names(key: str) -> list[str]:
    names = read_value(key)
    if not isinstance(names, list):
        raise ConfigError(f"params.yaml: {key} must be a list in brackets, it says {names!r}")
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"params.yaml: {key} must name at least one, it says {names!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"params.yaml: {key} names one twice: {', '.join(names)}")
    return names


def _settings(key: str) -> dict[str, Any]:
    settings = read_value(key)
    if not isinstance(settings, dict):
        raise ConfigError(f"params.yaml: {key} must hold names and their settings, it says {settings!r}")
    return {str(name): values for name, values in settings.items()}


if __name__ == "__main__":
    run(main)
