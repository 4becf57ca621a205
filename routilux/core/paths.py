"""Dotted paths into plain data: ``"cart.items.0.price"``.

A part names a key of a mapping, an index of a list, or a field of a pydantic model. Functions here never change what
they are given: a value is replaced by rebuilding the containers on the way to it, which leaves the others shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..errors import PathError


def split(path: object) -> list[str]:
    """Return the parts of a path. Raises PathError unless it is a string of non-empty parts."""
    if not isinstance(path, str) or not path or not all(parts := path.split(".")):
        raise PathError(f"a path must be names and indices joined by dots, such as 'cart.items.0', not {path!r}")
    return parts


def follow(value: Any, parts: list[str], path: str) -> Any:
    """Return what the parts lead to from ``value``. Raises PathError when something on the way is missing."""
    for index, part in enumerate(parts):
        value = _step(value, part, path, index)
    return value


def replaced(value: Any, parts: list[str], new: Any, path: str) -> Any:
    """Return ``value`` with what the parts lead to replaced by ``new``; missing mappings on the way are made.

    Raises PathError when a part leads into something that has no parts, or beyond a list.
    """
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if isinstance(value, BaseModel):
        old = _step(value, part, path, 0)
        return value.model_copy(update={part: replaced(old, rest, new, path)})
    if isinstance(value, list):
        place = _place(value, part, path)
        copied = value[:]
        copied[place] = replaced(value[place], rest, new, path)
        return copied
    if isinstance(value, Mapping):
        return {**value, part: replaced(value.get(part, {} if rest else None), rest, new, path)}
    raise PathError(f"path {path!r}: {part!r} leads into {type(value).__name__} {value!r}, which has no parts")


def _step(value: Any, part: str, path: str, index: int) -> Any:
    if isinstance(value, BaseModel):
        if part in type(value).model_fields:
            return getattr(value, part)
    elif isinstance(value, list):
        return value[_place(value, part, path)]
    elif isinstance(value, Mapping) and part in value:
        return value[part]
    raise PathError(f"path {path!r}: there is no {part!r}{_names(value)}")


def _place(value: list[Any], part: str, path: str) -> int:
    try:
        place = int(part)
        value[place]
    except (ValueError, IndexError):
        raise PathError(f"path {path!r}: {part!r} is no index of a list of {len(value)}") from None
    return place


def _names(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f" among the fields {', '.join(type(value).model_fields)}"
    if isinstance(value, Mapping):
        return f" among the keys {', '.join(map(repr, list(value)[:12]))}" if value else " in an empty mapping"
    return f" in {type(value).__name__} {value!r}"
