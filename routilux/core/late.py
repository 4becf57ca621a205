"""Names of a package that are imported from its modules when somebody first asks for them.

A program pays for what it uses: to import the package is cheap, and ``routilux.Flow`` imports what flows need. A name
that was fetched stays in the package, so that asking again costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _LateNames(ModuleType):
    """A package with such names. ``_homes`` tells the module of each."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        home = vars(self)["_homes"].get(name)
        if home is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        value = getattr(import_module(home, self.__name__), name)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Python puts each module of a package into it; but a name that is called like its module, or like the package
        # that its module is in, stays what it is.
        if not (isinstance(value, ModuleType) and name in self._homes):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes})


def fetch_late(package: str, names: Mapping[str, str]) -> None:
    """Have a package fetch names when they are first asked for.

    Args:
        package: the name of the package, which is being imported.
        names: for each module, relative to the package, what comes from there, separated by spaces.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = {name: f".{home}" for home, each in names.items() for name in each.split()}
    module.__class__ = _LateNames
