"""From the URL of a store to the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

from ..errors import DeclarationError, known_names
from .base import FactStore
from .memory import MemoryStore

KINDS = {"memory": "memory:", "sqlite": "sqlite:///relative.db or sqlite:////absolute/path.db"}


def open_store(url: str) -> FactStore:
    """Return the store that a URL names.

    Args:
        url: ``"memory:"`` for a store that lives as long as the object; ``"sqlite:///relative.db"`` or
            ``"sqlite:////absolute/path.db"`` for one in a file, which is made when it is not there, with
            ``?synchronous=NORMAL`` (default ``FULL``) and ``&busy_timeout=5`` (seconds) as options.

    Raises:
        DeclarationError: for a URL that names no store, or an option that there is not.
        StoreError: when the store cannot be opened.
    """
    if not isinstance(url, str):
        raise DeclarationError(f"a store is opened by its URL, a string, not {url!r}; {_all_kinds()}")
    location, _, query = url.partition("?")
    kind, _, rest = location.partition(":")
    if kind == "memory":
        if rest:
            raise DeclarationError(f"store {url!r}: a memory store has no place; use 'memory:'")
        _options(url, query, {})
        return MemoryStore()
    if kind == "sqlite":
        path = unquote(rest.removeprefix("///"))
        if not rest.startswith("///") or not path:
            raise DeclarationError(f"store {url!r}: a SQLite store needs the path of a file; use {KINDS['sqlite']}")
        options = _options(url, query, {"synchronous": str.upper, "busy_timeout": float})
        from .sqlite import SQLiteStore

        return SQLiteStore(path, **options)
    raise DeclarationError(f"store {url!r}: no such kind{known_names(kind, KINDS, 'kinds')}; {_all_kinds()}")


def _all_kinds() -> str:
    return f"use {' or '.join(KINDS.values())}"


def _options(url: str, query: str, known: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the options in the query of a URL, each made into what it is by a function of the known ones."""
    options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise DeclarationError(f"store {url!r}: no option {name!r}{known_names(name, known, 'options')}")
        if name in options:
            raise DeclarationError(f"store {url!r}: option {name!r} is given twice")
        try:
            options[name] = known[name](value)
        except ValueError as error:
            raise DeclarationError(f"store {url!r}: {name}={value!r} is no number") from error
    return options
