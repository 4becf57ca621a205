"""The classes whose instances may be saved, by name.

Saved data name classes and never say where they are: only those are found that the program has named itself, in an
annotation or explicitly. They are known by their qualified names, so that a program agrees with itself whether it is
run or imported.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from ..core.models import is_model_class, model_base
from ..errors import DeclarationError, known_names

KINDS = "enums, dataclasses, named tuples and pydantic models"


def is_namedtuple(kind: type) -> bool:
    """Whether a class was made as a named tuple, or derives from one."""
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def can_be_saved(kind: object) -> bool:
    """Whether instances of a class can be taken apart and put together again without knowing more about it."""
    if not isinstance(kind, type) or isinstance(kind, types.GenericAlias) or kind is model_base():
        return False
    if issubclass(kind, Enum):
        return bool(kind.__members__)
    return is_model_class(kind) or dataclasses.is_dataclass(kind) or is_namedtuple(kind)


def full_name(kind: type) -> str:
    """Return a class's module and qualified name, for people."""
    return f"{kind.__module__}.{kind.__qualname__}"


class KnownTypes:
    """Classes by qualified name.

    Args:
        where: the flow as it stands in error messages.
        registered: classes that were named explicitly.
        annotations: annotations, in which, and in whose fields, all classes that can be saved are found.
    """

    def __init__(self, where: str, registered: Iterable[type] = (), annotations: Iterable[Any] = ()) -> None:
        self.where = where
        self._named: dict[str, dict[type, None]] = {}
        for kind in _classes_in([*registered, *annotations]):
            self._named.setdefault(kind.__qualname__, {})[kind] = None

    def __contains__(self, kind: type) -> bool:
        return kind in self._named.get(kind.__qualname__, ())

    def name_of(self, kind: type) -> str:
        """Return the name of a class that is known. Raises DeclarationError when another one has it, too."""
        self.find(kind.__qualname__)
        return kind.__qualname__

    def find(self, name: str) -> type | None:
        """Return the class of this name, or None. Raises DeclarationError when there are two."""
        found = list(self._named.get(name, ()))
        if len(found) > 1:
            raise DeclarationError(
                f"{self.where}: {full_name(found[0])} and {full_name(found[1])} have the same qualified name {name!r}, "
                f"by which saved values know their classes; rename one"
            )
        return found[0] if found else None

    def hint(self, name: str) -> str:
        """Return the end of an error message about a name that is not known."""
        return known_names(name, self._named, "classes")


def check_types(kinds: Iterable[object], where: str, known: Iterable[type] = ()) -> dict[type, None]:
    """Return the known classes and these.

    Raises DeclarationError for anything that cannot be saved, and for two classes of one name.
    """
    checked = dict.fromkeys(known)
    for kind in kinds:
        if not can_be_saved(kind):
            raise DeclarationError(
                f"{where}: register_types takes {KINDS}, not {kind!r}; for other classes, pass a serializer to save "
                f"and load"
            )
        checked[typing.cast(type, kind)] = None
    named = KnownTypes(where, checked)
    for kind in checked:
        named.find(kind.__qualname__)
    return checked


def _classes_in(annotations: list[Any]) -> Iterator[type]:
    """Yield every class that can be saved, in annotations and in the fields of the classes found."""
    seen: set[int] = set()
    waiting = annotations[::-1]
    kept: list[Any] = []  # whose ids are in `seen`
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        kept.append(each)
        if can_be_saved(each):
            yield each
        waiting += reversed(_inside(each))


def _inside(annotation: Any) -> list[Any]:
    """Return the annotations that make up one, or those of a class's fields."""
    if isinstance(annotation, (list, tuple)):  # the arguments of a Callable
        return list(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return [type(value) for value in typing.get_args(annotation)]
    found = [*typing.get_args(annotation), typing.get_origin(annotation)]
    if isinstance(annotation, typing.TypeVar):
        return [annotation.__bound__, *annotation.__constraints__]
    for name in ("__value__", "__supertype__"):  # an alias made by ``type``, and a NewType
        if not isinstance(annotation, type) and hasattr(annotation, name):
            found.append(getattr(annotation, name))
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        found += _fields_of(annotation)
    return found


def _fields_of(kind: type) -> list[Any]:
    if is_model_class(kind):
        extra = getattr(kind, "__annotations__", {}).get("__pydantic_extra__")
        fields = [part for each in kind.model_fields.values() for part in (each.annotation, *each.metadata)]
        return [*fields, extra]
    if can_be_saved(kind) or hasattr(kind, "__required_keys__"):  # the latter is a TypedDict
        try:
            return list(typing.get_type_hints(kind, include_extras=True).values())
        except Exception:  # an annotation that names what is not there: what it means can still be registered
            return []
    return []
