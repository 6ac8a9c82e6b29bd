"""Plugins found by module name: one new file is one new plugin, nothing else is edited."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Generic, TypeVar

from minima_core.config import unknown
from minima_core.errors import ConfigError

T = TypeVar("T")


class Plugins(Generic[T]):
    """The plugins in one package: each public module (or sub-package) holds exactly one subclass of ``kind``.

    ``base`` and names with a leading underscore are not plugins. Listing imports nothing.
    """

    def __init__(self, package: str, kind: type[T], what: str) -> None:
        self.package = package
        self.kind = kind
        self.what = what

    def names(self) -> list[str]:
        """Return the names of all plugins, sorted."""
        path = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(path) if m.name != "base" and not m.name.startswith("_"))

    def require(self, name: str) -> None:
        """Raise ConfigError if there is no plugin ``name``; imports none."""
        if name not in self.names():
            raise ConfigError(f"unknown {self.what}: {unknown(name, self.names(), self.package)}")

    def get(self, name: str) -> type[T]:
        """Import the module ``name`` and return its class.

        Raises:
            ConfigError: if there is no such plugin; the message lists the right names and the closest.
        """
        self.require(name)
        module = importlib.import_module(f"{self.package}.{name}")
        found = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if issubclass(member, self.kind)
            and not inspect.isabstract(member)
            and member.__module__.startswith(module.__name__)
        ]
        if len(found) != 1:
            raise ConfigError(
                f"{module.__name__} must define exactly one {self.kind.__name__}, it defines {len(found)}"
            )
        return found[0]
