"""Records that are filled once and never change.

They are written like frozen dataclasses with slots, and type checkers see them as such. But a dataclass compiles its
methods when its class is made, which takes most of a millisecond for each; these share theirs.
"""

from __future__ import annotations

from typing import Any, TypeVar

from typing_extensions import dataclass_transform

F = TypeVar("F", bound="Frozen")


class _Made(type):
    """Makes slots of the annotations in a class body, and keeps the values there as their defaults."""

    _fields: tuple[str, ...]
    _defaults: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        fields = tuple(body.get("__annotations__", ()))
        defaults = {field: body.pop(field) for field in fields if field in body}
        body.setdefault("__slots__", fields)
        return super().__new__(cls, name, bases, {**body, "_fields": fields, "_defaults": defaults})


@dataclass_transform(frozen_default=True, eq_default=False)
class Frozen(metaclass=_Made):
    """The base of such records. Two of them are equal when they are the same."""

    __slots__ = ("__weakref__",)

    def __init__(self, *values: Any, **named: Any) -> None:
        cls = type(self)
        fields = cls._fields
        if named or len(values) != len(fields):
            given = {**cls._defaults, **dict(zip(fields, values, strict=False)), **named}
            twice = named.keys() & set(fields[: len(values)])
            if twice or given.keys() != set(fields) or len(values) > len(fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
            values = tuple([given[name] for name in fields])
        put = object.__setattr__
        for name, value in zip(fields, values, strict=True):
            put(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change", name=name, obj=self)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change", name=name, obj=self)

    def __copy__(self: F) -> F:
        return self  # copies of a record share what is frozen

    def __deepcopy__(self: F, memo: object) -> F:
        return self

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in type(self)._fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in type(self)._fields)})"

    def with_changes(self: F, **changes: Any) -> F:
        """Return another one, with these values in place of its own."""
        return type(self)(**{name: getattr(self, name) for name in type(self)._fields} | changes)
