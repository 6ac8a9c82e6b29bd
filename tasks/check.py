"""Stage: every name in params.yaml is the name of something; before any stage that would need it."""

from __future__ import annotations

from typing import Any

from minima_core.config import read_value
from minima_core.errors import ConfigError
from minima_core.io.atomic import write_json
from minima_core.plugins import Plugins
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.policy import require_allowed
from tasks.reports import CheckReport
from tasks.stage import Args, Output, run

KINDS: dict[str, Plugins[Any]] = {  # where params.yaml names plugins, modalities aside
    "dataset.name": Plugins("minima_core.data.datasets", object, "data set"),
    "matchers": Plugins("minima_core.matchers", object, "matcher"),
    "benchmarks": Plugins("minima_core.evaluation.benchmarks", object, "benchmark"),
}


class CheckArgs(Args):
    """Command line of the stage."""

    out: Output


def main(args: CheckArgs) -> CheckReport:
    """Refuse names in params.yaml that no plugin has, with the closest one, and engines that licence_policy refuses.

    What is written is always the same, so a new name in a list runs nothing again but what needs it. The stages that
    begin the graph depend on it, because DVC itself would only say which folder is missing.
    """
    for key, plugins in KINDS.items():
        for name in _names(key):
            plugins.require(name)
    for name in _names("modalities"):
        MODALITIES.engines(name)
        require_allowed(name, read_value(f"synthesis.{name}"), str(read_value("licence_policy")))
    write_json(args.out, {"names": "known"})
    return CheckReport()


def _names(key: str) -> list[str]:
    value = read_value(key)
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"params.yaml: {key} must name at least one, it says {value!r}")
    if len(set(names)) < len(names):
        raise ConfigError(f"params.yaml: {key} names one twice: {', '.join(names)}")
    return names


if __name__ == "__main__":
    run(main)
