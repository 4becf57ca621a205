"""Telling, at the speed of C, whether values are plain JSON that comes back as it was.

The check of many values goes level by level over all at once, and never calls Python code per value. It looks for what
orjson would silently turn into something else, and leaves the rest to orjson, which refuses keys that are no strings,
integers beyond 64 bits and lone surrogates.
"""

from __future__ import annotations

from itertools import chain, compress, repeat
from math import isfinite
from operator import contains, is_
from typing import Any

import orjson

MARK = "~"  # a JSON object with this key stands for something else than a dict with string keys
DEEPEST = 200  # levels of JSON; orjson writes 254
_FEW = 100  # so many values, parts included, are checked sooner one by one
_LEAVES = frozenset({str, int, bool, type(None)})
_PLAIN = _LEAVES | {float, list, dict}


def is_plain(values: list[Any]) -> bool:
    """Whether every value is exactly what comes back when it is written as JSON and read again."""
    return looks_plain(values) and _is_taken(values)


def looks_plain(values: list[Any]) -> bool:
    """Whether values are plain, provided that orjson writes them."""
    found = _few_are_plain(values)
    return _are_plain(values) if found is None else found


def size_of_few(value: Any) -> int | None:
    """Return how many bytes of JSON a value is that has few parts, all of them plain; None for any other."""
    if not _few_are_plain([value]):
        return None
    try:
        return len(orjson.dumps(value))
    except TypeError:
        return None


def _few_are_plain(values: list[Any]) -> bool | None:
    """Return whether values are plain if they are few, else None."""
    parts = values[:_FEW]
    room = _FEW - len(values)
    for value in parts:  # which grows on the way
        if room < 0:
            return None
        kind = type(value)
        if kind in _LEAVES:
            continue
        if kind is dict:
            if MARK in value:
                return False
            room -= len(value)
            if room >= 0:
                parts += value.values()
        elif kind is list:
            room -= len(value)
            if room >= 0:
                parts += value
        elif kind is not float or not isfinite(value):
            return False
    return None if room < 0 else True


def _are_plain(values: list[Any]) -> bool:
    level = values
    for _ in range(DEEPEST):
        if not level:
            return True
        classes = list(map(type, level))
        kinds = set(classes)
        if not kinds <= _PLAIN:
            return False
        floats, lists, dicts = (_of(kind, level, classes, kinds) for kind in (float, list, dict))
        if not all(map(isfinite, floats)) or any(map(contains, dicts, repeat(MARK))):
            return False
        level = list(chain.from_iterable(_distinct(lists)))
        level.extend(chain.from_iterable(map(dict.values, _distinct(dicts))))
    return False


def _of(kind: type, level: list[Any], classes: list[type], kinds: set[type]) -> list[Any]:
    """Return the values of a class."""
    if kind not in kinds:
        return []
    return level if len(kinds) == 1 else list(compress(level, map(is_, classes, repeat(kind))))


def _distinct(containers: list[Any]) -> list[Any]:
    """Return each container once: one that is in itself a thousand times would be a million on the next level."""
    if len(set(map(id, containers))) == len(containers):
        return containers
    return list({id(each): each for each in containers}.values())


def _is_taken(values: list[Any]) -> bool:
    try:
        orjson.dumps(values)
    except TypeError:
        return False
    return True


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
