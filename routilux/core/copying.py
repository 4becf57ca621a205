"""Copies that isolate readers from writers.

Plain containers and pydantic models are copied, everything inside them too; any other object (an array, a frame, a
handle) is shared, because only its owner knows whether it may be copied.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

# Instances of exactly these classes cannot change and hold nothing that can.
ATOMS = frozenset({int, float, str, bool, type(None), bytes, complex})


def copy_value(value: Any) -> Any:
    """Return ``value`` with its plain containers and models copied at every depth, other objects shared."""
    return value if value.__class__ in ATOMS else _copy(value, {})


def copy_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new dict of the values of ``payload``, each isolated as `copy_value` does; aliases stay aliases."""
    seen: dict[int, Any] = {}
    return {key: value if value.__class__ in ATOMS else _copy(value, seen) for key, value in payload.items()}


def needs_copy(payload: Mapping[str, Any]) -> bool:
    """Whether anything in a payload is more than an atom."""
    return any(value.__class__ not in ATOMS for value in payload.values())


def _copy(value: Any, seen: dict[int, Any]) -> Any:
    if value.__class__ in ATOMS:
        return value
    known = seen.get(id(value))
    if known is not None:
        return known
    if isinstance(value, list):
        return _fill_list(value, seen)
    if isinstance(value, dict):
        return _fill_dict(value, seen)
    if isinstance(value, BaseModel):
        return _copy_model(value, seen)
    if isinstance(value, tuple):
        items = [_copy(item, seen) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        make = getattr(value.__class__, "_make", value.__class__)
        return seen.setdefault(id(value), make(items))
    if isinstance(value, (set, bytearray, deque)):
        new = copy.copy(value)
        if isinstance(new, deque):
            seen[id(value)] = new
            for index, item in enumerate(value):
                new[index] = _copy(item, seen)
        return seen.setdefault(id(value), new)
    return value


def _fill_list(value: list[Any], seen: dict[int, Any]) -> list[Any]:
    new = copy.copy(value) if value.__class__ is not list else value[:]
    seen[id(value)] = new
    for index, item in enumerate(new):
        if item.__class__ not in ATOMS:
            new[index] = _copy(item, seen)
    return new


def _fill_dict(value: dict[Any, Any], seen: dict[int, Any]) -> dict[Any, Any]:
    new = copy.copy(value) if value.__class__ is not dict else value.copy()
    seen[id(value)] = new
    for key, item in new.items():
        if item.__class__ not in ATOMS:
            new[key] = _copy(item, seen)
    return new


def _copy_model(value: BaseModel, seen: dict[int, Any]) -> BaseModel:
    new = value.model_copy()
    seen[id(value)] = new
    for part in (new.__dict__, new.__pydantic_extra__, new.__pydantic_private__):
        for key, item in (part or {}).items():
            if item.__class__ not in ATOMS:
                part[key] = _copy(item, seen)  # type: ignore[index]
    return new
