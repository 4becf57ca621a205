"""Names of a package that are imported from its modules when somebody first asks for them.

A program pays for what it uses: to import the package is cheap, and ``routilux.Flow`` imports what flows need. A name
that was fetched stays in the package, so that asking again costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any

# Threads that begin with different modules, each of which needs the other's, would meet them half imported.
_fetching = RLock()


def _forget() -> None:
    global _fetching
    _fetching = RLock()  # a thread that the child does not have may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _LateNames(ModuleType):
    """A package with such names. ``_homes`` tells the module of each, ``_rooms`` are modules that can be asked for."""

    _homes: dict[str, str]
    _rooms: frozenset[str]

    def __getattr__(self, name: str) -> Any:
        home = vars(self)["_homes"].get(name)
        if home is None and name not in vars(self)["_rooms"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        with _fetching:
            if home is None:
                return import_module(f".{name}", self.__name__)
            value = getattr(import_module(home, self.__name__), name)
            vars(self)[name] = value
            return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Python puts each module of a package into it; but a name that is called like its module, or like the package
        # that its module is in, stays what it is.
        if name not in self._homes or getattr(value, "__name__", None) != f"{self.__name__}.{name}":
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes, *self._rooms})


def fetch_late(package: str, names: Mapping[str, str], modules: Iterable[str] = ()) -> list[str]:
    """Have a package fetch names when they are first asked for, and return them.

    Args:
        package: the name of the package, which is being imported.
        names: for each module, relative to the package, what comes from there, separated by spaces.
        modules: those that are imported when they are asked for themselves.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = {name: f".{home}" for home, each in names.items() for name in each.split()}
    vars(module)["_rooms"] = frozenset(modules)
    module.__class__ = _LateNames
    return list(vars(module)["_homes"])
