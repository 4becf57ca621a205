"""Whether two values are the same to the last detail.

``==`` calls ``1`` and ``True`` equal, and mappings whose keys are in another order. Whoever asks whether a value was
changed wants to know of both, and does not want to depend on the ``__eq__`` of somebody's class.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import is_dataclass
from operator import is_
from typing import Any

from .copying import ATOMS, attributes
from .models import is_model

_PLAIN = frozenset({list, dict})


def same(now: Any, before: Any) -> bool:
    """Whether two values are the same: equal, of the same classes at every depth, mappings in the same order.

    Values that cannot be compared, such as containers of arrays, are not.
    """
    try:
        if now is before:
            return True
        # Most containers that differ are told apart at once by ==, which is fast; the rest is for those that do not.
        return not (now.__class__ in _PLAIN and _leaf(now) in ATOMS and now != before) and _same(now, before)
    except Exception:  # whatever an __eq__ raises; values that contain themselves
        return False


def _same(now: Any, before: Any) -> bool:
    kind = now.__class__
    if kind is not before.__class__:
        return False
    if kind in ATOMS:
        return bool(now == before)
    if isinstance(now, dict):
        # A copy shares what cannot change with its original: most of this is decided by identity, without a loop.
        if len(now) != len(before) or not (all(map(is_, now, before)) or _all_same(now, before)):
            return False
        return all(map(is_, now.values(), before.values())) or _all_same(now.values(), before.values())
    if isinstance(now, (list, tuple, deque)):
        return len(now) == len(before) and _all_same(now, before) and _same_attributes(now, before)
    if isinstance(now, (set, frozenset)):
        return (
            len(now) == len(before)
            and now == before
            and {each.__class__ for each in now} == {each.__class__ for each in before}
        )
    if is_model(now):
        return (
            _same(now.__dict__, before.__dict__)
            and same(now.__pydantic_extra__, before.__pydantic_extra__)
            and same(now.__pydantic_private__, before.__pydantic_private__)
        )
    if is_dataclass(now):
        return same(attributes(now), attributes(before))
    return bool(now == before)


def _all_same(now: Iterable[Any], before: Iterable[Any]) -> bool:
    for one, other in zip(now, before, strict=True):
        if one is other:
            continue
        if (  # rows, of which there may be many
            one.__class__ is dict is other.__class__
            and len(one) == len(other)
            and all(map(is_, one.values(), other.values()))
            and all(map(is_, one, other))
        ):
            continue
        if not _same(one, other):
            return False
    return True


def _leaf(value: Any) -> type:
    """Return the class of what lies first and deepest in nested containers, whose ``==`` stands for that of the rest.

    An instance of a class of somebody else's may differ from its own copy, as far as ``==`` goes.
    """
    while value.__class__ in _PLAIN and value:
        value = next(iter(value.values() if value.__class__ is dict else value))
    kind: type = value.__class__
    return type(None) if kind in _PLAIN else kind


def _same_attributes(now: Any, before: Any) -> bool:
    return now.__class__ in (list, tuple) or same(getattr(now, "__dict__", None), getattr(before, "__dict__", None))
