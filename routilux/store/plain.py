"""Telling, at the speed of C, whether values are plain JSON that comes back as it was.

The check goes level by level over many values at once, and never calls Python code per value. It looks for what orjson
would silently turn into something else, and leaves the rest to orjson, which refuses keys that are no strings, integers
beyond 64 bits and lone surrogates.
"""

from __future__ import annotations

from itertools import chain, compress, repeat
from math import isfinite
from operator import contains, is_
from typing import Any

import orjson

MARK = "~"  # a JSON object with this key stands for something else than a dict with string keys
DEEPEST = 200  # levels of JSON; orjson writes 254
_PLAIN = frozenset({str, int, float, bool, type(None), list, dict})


def is_plain(values: list[Any]) -> bool:
    """Whether every value is exactly what comes back when it is written as JSON and read again."""
    level = values
    for _ in range(DEEPEST):
        if not level:
            return _is_taken(values)
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
