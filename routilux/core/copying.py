"""Copies that isolate readers from writers.

Plain containers, pydantic models and dataclass instances are copied, everything inside them too; any other object (an
array, a frame, a handle) is shared, because only its owner knows whether it may be copied.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .models import BaseModel, is_model

# Instances of exactly these classes cannot change and hold nothing that can.
ATOMS = frozenset({int, float, str, bool, type(None), bytes, complex})


class StandIn:
    """What stands for a value, such as a handler's view of the state: its copies are copies of that value."""

    __slots__ = ()

    def plain(self) -> Any:
        """Return the value itself, as a copy."""
        raise NotImplementedError


def copy_value(value: Any) -> Any:
    """Return ``value`` with its containers, models and dataclasses copied at every depth, other objects shared."""
    return value if value.__class__ in ATOMS else _copy(value, {})


def copy_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new dict of the values of ``payload``, each isolated as `copy_value` does; aliases stay aliases."""
    seen: dict[int, Any] = {}
    return {key: value if value.__class__ in ATOMS else _copy(value, seen) for key, value in payload.items()}


def needs_copy(payload: Mapping[str, Any]) -> bool:
    """Whether anything in a payload is more than an atom."""
    return any(value.__class__ not in ATOMS for value in payload.values())


def _copy(value: Any, seen: dict[int, Any]) -> Any:
    kind = value.__class__
    if kind in ATOMS:
        return value
    known = seen.get(id(value))
    if known is not None:
        return known
    # Most containers are plain dicts and lists: what `_copy_items` does, without the calls that others need.
    if kind is dict:
        new = seen[id(value)] = value.copy()
        for key, item in value.items():
            if item.__class__ not in ATOMS:
                new[key] = _copy(item, seen)
        return new
    if kind is list:
        new = seen[id(value)] = value.copy()
        for index, item in enumerate(value):
            if item.__class__ not in ATOMS:
                new[index] = _copy(item, seen)
        return new
    if kind is tuple:
        return _copy_tuple(value, seen)
    return _copy_other(value, seen)


def _copy_other(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return _copy_items(value, seen, dict.items(value), dict.__setitem__)
    if isinstance(value, list):
        return _copy_items(value, seen, enumerate(list.__iter__(value)), list.__setitem__)
    if isinstance(value, deque):
        return _copy_items(value, seen, enumerate(value), deque.__setitem__)
    if isinstance(value, tuple):
        return _copy_tuple(value, seen)
    if isinstance(value, (set, bytearray)):
        return seen.setdefault(id(value), copy.copy(value))
    if is_model(value):
        return _copy_model(value, seen)
    if hasattr(value.__class__, "__dataclass_fields__"):
        return _copy_dataclass(value, seen)
    if isinstance(value, StandIn):
        return seen.setdefault(id(value), value.plain())
    return value


def _copy_items(
    value: Any, seen: dict[int, Any], items: Iterable[tuple[Any, Any]], put: Callable[[Any, Any, Any], None]
) -> Any:
    """Copy a container, then replace the items of the copy by copies of the original's.

    ``put`` is the base class's way to set an item: a subclass may not let its users do that.
    """
    new = seen[id(value)] = copy.copy(value)
    for key, item in items:
        if item.__class__ not in ATOMS:
            put(new, key, _copy(item, seen))
    return new


def _copy_tuple(value: tuple[Any, ...], seen: dict[int, Any]) -> tuple[Any, ...]:
    items = [_copy(item, seen) for item in value]
    if id(value) in seen:  # an item leads back to it
        return seen[id(value)]  # type: ignore[no-any-return]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    # Past the constructor of a subclass, which may take other arguments.
    made: tuple[Any, ...] = tuple.__new__(value.__class__, items)
    seen[id(value)] = made
    if hasattr(value, "__dict__"):
        made.__dict__.update(value.__dict__)
    return made


def _copy_model(value: BaseModel, seen: dict[int, Any]) -> BaseModel:
    new = seen[id(value)] = value.model_copy()
    parts = (
        (value.__dict__, new.__dict__),
        (value.__pydantic_extra__, new.__pydantic_extra__),
        (value.__pydantic_private__, new.__pydantic_private__),
    )
    for old_part, new_part in parts:
        if old_part and new_part:
            for key, item in old_part.items():
                if item.__class__ not in ATOMS:
                    new_part[key] = _copy(item, seen)
    return new


def _copy_dataclass(value: Any, seen: dict[int, Any]) -> Any:
    """Copy an instance of a dataclass; a frozen one with nothing in it that can change is shared."""
    kind = value.__class__
    try:
        new = seen[id(value)] = object.__new__(kind)
    except TypeError:  # it is an exception, or the like, as well
        return value
    differs = not kind.__dataclass_params__.frozen
    for name, item in attributes(value).items():
        copied = _copy(item, seen)
        differs = differs or copied is not item
        object.__setattr__(new, name, copied)  # past what a frozen or validating class does at an assignment
    if not differs:
        seen[id(value)] = value
        return value
    return new


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance of a dataclass: its fields, and whatever else it was given."""
    found = {name: getattr(value, name) for name in value.__dataclass_fields__ if _is_set(value, name)}
    return {**found, **getattr(value, "__dict__", {})}


def _is_set(value: Any, name: str) -> bool:
    if name in getattr(value, "__dict__", ()):
        return True
    return hasattr(getattr(value.__class__, name, None), "__set__") and hasattr(value, name)  # a slot
