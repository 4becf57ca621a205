"""Checks of the shape of saved data, which may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import LoadError
from ..routine.binding import shortened

NONE = type(None)
KINDS = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    NONE: "null",
}


class Shapes:
    """Checks whose errors begin with ``subject``."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def take(self, data: Mapping[str, Any], key: str, *kinds: type, where: str = "") -> Any:
        """Return ``data[key]`` when it is there and of one of these classes."""
        if key not in data:
            raise self.problem(f"{where}the key {key!r} is missing")
        return self.check(data[key], f"{where}{key!r}", *kinds)

    def check(self, value: Any, what: str, *kinds: type) -> Any:
        """Return a value when it is of one of these classes."""
        if type(value) not in kinds:
            names = " or ".join(KINDS[kind] for kind in kinds)
            raise self.problem(f"{what} must be {names}, not {shortened(value)}")
        return value

    def table(self, data: Mapping[str, Any], key: str, columns: Mapping[str, tuple[type, ...]]) -> list[list[Any]]:
        """Return columns of equal length, in the order in which they are asked for; empty ones without the table."""
        if key not in data:
            return [[] for _ in columns]
        where = f"{key!r}: "
        table = self.take(data, key, dict)
        found = [self.take(table, name, list, where=where) for name in columns]
        for column, (name, kinds) in zip(found, columns.items(), strict=True):
            if len(column) != len(found[0]):
                raise self.problem(f"{where}{name!r} has {len(column)} items, and other columns have {len(found[0])}")
            if not set(map(type, column)) <= set(kinds):
                wrong = next(each for each in column if type(each) not in kinds)
                self.check(wrong, f"{where}an item of {name!r}", *kinds)
        return found

    def places(self, column: list[int], of: int, what: str) -> list[int]:
        """Return a column of whole numbers when they are places in a table of so many rows."""
        if column and not (min(column) >= 0 and max(column) < of):
            raise self.problem(f"{what} refers to rows that are not there: there are {of}")
        return column

    def least(self, number: int, least: int, what: str) -> int:
        """Return a number that is at least so much."""
        if number < least:
            raise self.problem(f"{what} must be at least {least}, not {number}")
        return number

    def problem(self, what: str) -> LoadError:
        """Return the error."""
        return LoadError(f"{self.subject}: {what}")
