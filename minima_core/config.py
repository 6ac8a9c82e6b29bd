"""One reader for params.yaml: OmegaConf parses, pydantic checks, nothing else opens the file."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError

from minima_core.errors import ConfigError

PARAMS = Path("params.yaml")
_READ: dict[tuple[Path, str], Any] = {}  # every value that this process read, as it was the first time


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error, so a misspelt one cannot pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=BaseModel)


def load_params(path: Path = PARAMS) -> dict[str, Any]:
    """Return the whole file as plain containers.

    Raises:
        ConfigError: if the file is missing or not YAML.
    """
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except FileNotFoundError:
        raise ConfigError(f"no {path} in {Path.cwd()}; run from the root of a checkout") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no mapping")
    return {str(key): value for key, value in loaded.items()}


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
    """Validate plain ``values`` with ``schema``; the first problem becomes one line."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}{'.' + key if key else ''}: {first['msg']} (got {first['input']!r})") from None


def unknown(name: str, names: Any, where: str) -> str:
    """Say what may stand in ``where`` instead of ``name``, the closest first."""
    known = sorted(str(n) for n in names)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"'{name}' is not in {where}; {hint}there are: {', '.join(known) or 'none'}"


def digest(values: Any) -> str:
    """Return the sha256 of plain or pydantic values, independent of key order."""
    plain = values.model_dump(mode="json") if isinstance(values, BaseModel) else values
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
