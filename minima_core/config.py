"""One reader for params.yaml: OmegaConf parses, pydantic checks, nothing else opens the file."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml import YAMLError

from minima_core.errors import ConfigError

PARAMS = Path("params.yaml")
_READ: dict[tuple[Path, str], Any] = {}  # every value that this process read, as it was the first time


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error, so a misspelt one cannot pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)
Loc = tuple[int | str, ...]  # the way to a problem, as pydantic has it


def load_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the whole file as plain containers.

    Raises:
        ConfigError: if the file is missing or not YAML.
    """
    try:
        loaded = read_yaml(path)
    except FileNotFoundError:
        raise ConfigError(f"no {path} in {Path.cwd()}; run from the root of a checkout") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no mapping")
    return {str(key): value for key, value in loaded.items()}


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds, as plain containers; references to other values stay as they are written.

    Raises:
        ConfigError: if it is not YAML.
        FileNotFoundError: if it is missing.
    """
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not read: brackets lie within brackets too many times") from None


def lookup(params: dict[str, Any], name: str) -> Any:
    """Return the value at a dotted ``name``; raise ConfigError naming the closest key where there is none."""
    node: Any = params
    for depth, key in enumerate(name.split(".")):
        if not isinstance(node, dict) or key not in node:
            where = ".".join(name.split(".")[:depth]) or "the top level"
            raise ConfigError(
                f"params.yaml has no '{name}': {unknown(key, node if isinstance(node, dict) else (), where)}"
            )
        node = node[key]
    return node


def read_value(name: str, path: Path = PARAMS) -> Any:
    """Return one value of params.yaml by its dotted name."""
    value = lookup(load_params(path), name)
    _READ.setdefault((path.absolute(), name), value)
    return value


def read_seed(path: Path = PARAMS) -> int:
    """Return the seed that everything drawn at random comes from.

    Raises:
        ConfigError: if it is no whole number.
    """
    seed = read_value("seed", path)
    if type(seed) is not int:  # true is one to Python
        raise ConfigError(f"params.yaml: seed must be a whole number, not {seed!r}")
    return seed


def read_section(name: str, schema: type[S], path: Path = PARAMS) -> S:
    """Return the section at a dotted ``name``, checked against ``schema``.

    Raises:
        ConfigError: if the section is missing, has unknown keys or a value out of bounds.
    """
    return checked(read_value(name, path), schema, f"params.yaml: {name}")


def edited_values() -> list[str]:
    """Return the names of the values that are no longer what this process read."""
    return [name for (path, name), value in _READ.items() if _now(path, name) != value]


def _now(path: Path, name: str) -> Any:
    try:
        return lookup(load_params(path), name)
    except ConfigError:
        return ConfigError  # equal to no value


def checked(values: Any, schema: type[S], where: str) -> S:
    """Validate plain ``values`` with ``schema``; one problem becomes one line, an unknown key before any other.

    Raises:
        ConfigError: naming the key, and its value unless that is a whole section.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = _of_the_nearest(error.errors(), values)
        strange = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        if strange:
            told = _unknown_key(strange[0]["loc"], problems, values, schema, where)
        else:
            told = _problem(problems[0], values, where)
        raise ConfigError(told) from None


def _unknown_key(loc: Loc, problems: list[ErrorDetails], values: Any, schema: type[BaseModel], where: str) -> str:
    """Say that the section has no such key, and which it has: those given, those missing, and the schema's own."""
    section = loc[:-1]
    beside = {problem["loc"][-1]: problem["type"] for problem in problems if problem["loc"][:-1] == section}
    path, given, _ = _follow(section, values)
    names = {*given, *beside, *(() if section else schema.model_fields)}
    known = [name for name in names if beside.get(name) != "extra_forbidden"]
    return unknown(str(loc[-1]), known, ".".join([where, *path]))


def _problem(problem: ErrorDetails, values: Any, where: str) -> str:
    loc, value = problem["loc"], problem["input"]
    if problem["type"] == "missing":
        path, _, _ = _follow(loc[:-1], values)
        return f"{'.'.join([where, *path])}: '{loc[-1]}' is missing"
    path, _, _ = _follow(loc, values)
    got = "" if isinstance(value, dict) else f" (got {value!r})"  # a whole section would bury what is wrong with it
    remedy = "; a list stands in brackets, [1, 2]" if problem["type"] in {"list_type", "tuple_type"} else ""
    return f"{'.'.join([where, *path])}: {problem['msg']}{got}{remedy}"


def _of_the_nearest(problems: list[ErrorDetails], values: Any) -> list[ErrorDetails]:
    """Return the problems; of the alternatives of a union, those of the one that has the fewest."""
    groups: dict[Loc, dict[Loc, list[ErrorDetails]]] = {}
    for problem in problems:
        *_, alternative = _follow(problem["loc"][:-1] if problem["type"] == "missing" else problem["loc"], values)
        groups.setdefault(alternative[:-1], {}).setdefault(alternative, []).append(problem)
    return [problem for alternatives in groups.values() for problem in min(alternatives.values(), key=len)]


def _follow(loc: Loc, values: Any) -> tuple[list[str], Any, Loc]:
    """Return the keys on the way to a problem, the value there, and ``loc`` up to the first alternative of a union.

    pydantic names alternatives among the keys; no value has them.
    """
    path: list[str] = []
    alternative: Loc = ()
    for depth, part in enumerate(loc):
        if part in values if isinstance(values, dict) else isinstance(part, int):
            path, values = [*path, str(part)], values[part]
        elif not alternative:
            alternative = loc[: depth + 1]
    return path, values, alternative


def unknown(name: str, names: Any, where: str) -> str:
    """Say what may stand in ``where`` instead of ``name``, the closest first."""
    known = sorted(str(n) for n in names)
    return f"'{name}' is not in {where}; {closest(name, known)}there are: {', '.join(known) or 'none'}"


def closest(name: str, names: Iterable[str]) -> str:
    """Return "did you mean 'x'? " of the closest of ``names``, upper and lower case being one; "" if none is close."""
    known = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean '{known[close[0]]}'? " if close else ""


def digest(values: Any) -> str:
    """Return the sha256 of plain or pydantic values, independent of key order."""
    plain = values.model_dump(mode="json") if isinstance(values, BaseModel) else values
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
