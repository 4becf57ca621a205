"""Telling, at the speed of C, whether values are plain JSON that comes back as it was.

The check goes level by level over many values at once, and never calls Python code per value. What it does not find to
be plain may still be: it is then written value by value.
"""

from __future__ import annotations

from itertools import chain, compress, repeat
from math import isfinite
from operator import is_
from typing import Any

MARK = "~"  # a JSON object with this key stands for something else than a dict with string keys
DEEPEST = 200  # levels of JSON; orjson writes 254
_CHECKED = frozenset({str, int, float, list, dict})
_PLAIN = _CHECKED | {bool, type(None)}


def is_plain(values: list[Any]) -> bool:
    """Whether every value is exactly what comes back when it is written as JSON and read again."""
    for _ in range(DEEPEST):
        if not values:
            return True
        classes = list(map(type, values))
        kinds = set(classes)
        if not kinds <= _PLAIN:
            return False
        of = {kind: list(compress(values, map(is_, classes, repeat(kind)))) for kind in kinds & _CHECKED}
        if not _scalars_are_plain(of):
            return False
        for kind in (list, dict):  # a container that is in itself a thousand times is looked into once
            if kind in of and len(set(map(id, of[kind]))) < len(of[kind]):
                of[kind] = list({id(each): each for each in of[kind]}.values())
        inner = list(chain.from_iterable(of.get(list, ())))
        if dict in of:
            if not _keys_are_plain(of[dict]):
                return False
            inner.extend(chain.from_iterable(map(dict.values, of[dict])))
        values = inner
    return False


def _scalars_are_plain(of: dict[type, list[Any]]) -> bool:
    if str in of and not all_text(of[str]):
        return False
    if int in of and not -(2**63) <= min(of[int]) <= max(of[int]) < 2**63:
        return False
    return float not in of or all(map(isfinite, of[float]))


def _keys_are_plain(dicts: list[dict[Any, Any]]) -> bool:
    keys = list(chain.from_iterable(dicts))
    # Classes first: of equal keys, a set has only one.
    if not set(map(type, keys)) <= {str}:
        return False
    distinct = set(keys)
    return MARK not in distinct and all_text(list(distinct))


def all_text(strings: list[str]) -> bool:
    """Whether strings have a form in UTF-8: a lone surrogate has none."""
    if all(map(str.isascii, strings)):
        return True
    try:
        for each in strings:
            each.encode()
    except UnicodeEncodeError:
        return False
    return True
