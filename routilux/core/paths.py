"""Dotted paths into plain data: ``"cart.items.0.price"``.

A part names a string key of a mapping, an index of a list, tuple or deque, or a field of a pydantic model. Functions
here never change what they are given: a value is replaced by rebuilding the containers on the way to it, each of its
own class, which leaves the others shared.
"""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..errors import PathError, known_names
from .models import is_model

_INDEX = re.compile(r"-?[0-9]+")
_SEQUENCES = (list, tuple, deque)


def split(path: object) -> list[str]:
    """Return the parts of a path. Raises PathError unless it is a string of non-empty parts."""
    if not isinstance(path, str) or not path or not all(parts := path.split(".")):
        raise PathError(f"a path must be names and indices joined by dots, such as 'cart.items.0', not {path!r}")
    return parts


def follow(value: Any, parts: list[str], path: str) -> Any:
    """Return what the parts lead to from ``value``. Raises PathError when something on the way is missing."""
    for part in parts:
        value = _step(value, part, path)
    return value


def replaced(value: Any, parts: list[str], new: Any, path: str, made: dict[int, tuple[Any, Any]]) -> Any:
    """Return ``value`` with what the parts lead to replaced by ``new``; missing mappings on the way are made.

    ``made`` gets, by its id, each model that was rebuilt, and what it was made from. Raises PathError when a part leads
    into something that has no parts or cannot be changed, or beyond a list.
    """
    if not parts:
        return new
    part, rest = parts[0], parts[1:]
    if is_model(value):
        item = replaced(_step(value, part, path), rest, new, path, made)
        rebuilt = value.model_copy(update={part: item})
        made[id(rebuilt)] = (rebuilt, value)
        return rebuilt
    if isinstance(value, _SEQUENCES):
        place = _place(value, part, path)
        item = replaced(value[place], rest, new, path, made)
        if isinstance(value, tuple):
            items = list(value)
            items[place] = item
            return tuple.__new__(value.__class__, items)
        copied = copy.copy(value)
        copied[place] = item
        return copied
    if isinstance(value, dict):
        _check_new_key(value, part, path)
        rebuilt_dict = copy.copy(value)
        rebuilt_dict[part] = replaced(dict.get(value, part, {} if rest else None), rest, new, path, made)
        return rebuilt_dict
    raise PathError(f"path {path!r}: {part!r} leads into {_shown(value)}, which has no parts that can be set")


def _step(value: Any, part: str, path: str) -> Any:
    if is_model(value):
        if part in type(value).model_fields:
            return getattr(value, part)
    elif isinstance(value, _SEQUENCES):
        return value[_place(value, part, path)]
    elif isinstance(value, Mapping) and part in value:
        return value[part]
    raise PathError(f"path {path!r}: there is no {part!r}{_names(value, part)}")


def _place(value: Any, part: str, path: str) -> int:
    place = int(part) if _INDEX.fullmatch(part) else len(value)
    if not -len(value) <= place < len(value):
        kind = "list" if isinstance(value, list) else type(value).__name__
        raise PathError(f"path {path!r}: {part!r} is no index of a {kind} of {len(value)}")
    return place


def _check_new_key(value: dict[Any, Any], part: str, path: str) -> None:
    if part not in value and not all(isinstance(key, str) for key in value):
        raise PathError(f"path {path!r}: {part!r} cannot be set{_names(value, part)}")


def _names(value: Any, part: str) -> str:
    if is_model(value):
        return f" among the fields {', '.join(type(value).model_fields)}{_near(part, type(value).model_fields)}"
    if not isinstance(value, Mapping):
        return f" in {_shown(value)}"
    if not value:
        return " in an empty mapping"
    names = [key for key in value if isinstance(key, str)]
    others = f"; a part of a path names string keys only, not {next(iter(value))!r}" if len(names) < len(value) else ""
    return f" among the keys {', '.join(map(repr, list(value)[:12]))}{_near(part, names)}{others}"


def _near(part: str, names: Any) -> str:
    hint = known_names(part, names, "")
    return hint[: hint.index("?") + 1] if "?" in hint else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 200 else text[:200] + '...'}"
