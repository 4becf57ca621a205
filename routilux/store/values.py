"""Values as JSON: how they are written.

JSON values are themselves. Anything else is an object with the key ``~``, which tells what ``v`` stands for; a dict
that has this key itself, or keys that are no strings, is written as pairs. `reading` knows the way back.
"""

from __future__ import annotations

import dataclasses
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from math import isfinite
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel
from pydantic_core import TzInfo

from ..errors import SaveError
from ..routine.binding import shortened
from . import models
from .known_types import KnownTypes, full_name, is_namedtuple
from .plain import DEEPEST, MARK, all_text, is_plain
from .serializer import Serializer
from .unpacking import plain_kind


class Attribute(str):
    """A step of a path that leads to an attribute, not to an item."""

    __slots__ = ()


def spell_path(path: Iterable[Any]) -> str:
    """Return steps into a value as Python would write them."""
    return "".join(f".{part}" if part.__class__ is Attribute else f"[{shortened(part)}]" for part in path)


class Writer:
    """Writes values.

    Args:
        subject: the flow and job as they stand in error messages.
        known: returns the classes that may be saved; called when the first one is met.
        serializer: asked for what nobody else knows.
    """

    def __init__(self, subject: str, known: Callable[[], KnownTypes], serializer: Serializer | None) -> None:
        self.subject = subject
        self._find_known = known
        self._known: KnownTypes | None = None
        self._serializer = serializer
        self._itself: dict[type, bool] = {}
        self._where = ""
        self._path: list[Any] = []
        self._around: set[int] = set()

    def value(self, value: Any, where: str) -> Any:
        """Return the JSON form of a value, which is called ``where`` in the error that there may be.

        Raises SaveError when it has none.
        """
        if is_plain([value]):
            return value
        return self._begin(where, lambda: self._encode(value, 0))

    def mapping(self, values: dict[str, Any], where: str) -> Any:
        """Return the JSON form of a dict with string keys: itself if it is plain, else in a list of its own."""
        if is_plain([values]):
            return values
        return [self._items(values, where)]

    def _items(self, values: dict[str, Any], where: str) -> Any:
        parts = {key: self.value(value, f"{where}{key!r}") for key, value in values.items()}
        if _keys_are_text(parts):
            return parts
        return self._begin(
            where, lambda: _tagged("dict", [[self._encode(key, 0), part] for key, part in parts.items()])
        )

    def mappings(self, column: list[dict[str, Any]], where: Callable[[int], str]) -> list[Any]:
        """Return the JSON forms of many dicts with string keys; ``where`` gives what one is called by its index."""
        if is_plain(column):
            return column
        return [self.mapping(values, where(index)) for index, values in enumerate(column)]

    def text(self, value: str | None) -> Any:
        """Return the JSON form of a string; one of a subclass is a plain one afterwards."""
        if value.__class__ is str and value.isascii():
            return value
        return None if value is None else self.value(str.__str__(value), "text")

    def state(self, model: BaseModel, where: str) -> Any:
        """Return the JSON form of the typed state, whose fields are shared data."""
        return self._begin(where, lambda: self._model_body(model, 1))

    # --- how ----------------------------------------------------------------------------------------------------

    def _begin(self, where: str, write: Callable[[], Any]) -> Any:
        self._where = where
        self._path.clear()
        self._around.clear()
        try:
            return write()
        except RecursionError as error:
            raise self._problem("is nested too deeply to be saved") from error

    def _encode(self, value: Any, depth: int) -> Any:
        method = ENCODERS.get(type(value))
        return method(self, value, depth) if method is not None else self._other(value, depth)

    def _part(self, part: Any, value: Any, depth: int) -> Any:
        self._path.append(part)
        form = self._encode(value, depth)
        self._path.pop()
        return form

    def _enter(self, value: Any, depth: int) -> None:
        if id(value) in self._around:
            raise self._problem(f"is a {type(value).__name__} that contains itself, which JSON has no form for")
        if depth > DEEPEST:
            raise self._problem(f"is nested more than {DEEPEST} levels deep, as JSON")
        self._around.add(id(value))

    def _leave(self, value: Any) -> None:
        self._around.discard(id(value))

    def list_of(self, value: Iterable[Any], depth: int) -> list[Any]:
        """Return the forms of items in their order."""
        self._enter(value, depth)
        forms = [self._part(index, item, depth + 1) for index, item in enumerate(value)]
        self._leave(value)
        return forms

    def dict_of(self, value: Mapping[Any, Any], depth: int) -> Any:
        """Return the form of a dict."""
        self._enter(value, depth)
        if _keys_are_text(value):
            form: Any = {key: self._part(key, item, depth + 1) for key, item in value.items()}
        else:
            pairs = [[self._encode(key, depth + 3), self._part(key, item, depth + 3)] for key, item in value.items()]
            form = _tagged("dict", pairs)
        self._leave(value)
        return form

    def _attributes(self, value: Any, names: Iterable[str], depth: int) -> dict[str, Any]:
        return {name: self._part(Attribute(name), getattr(value, name), depth) for name in names}

    def _other(self, value: Any, depth: int) -> Any:
        """Return the form of a value of a class that is not built in."""
        kind = plain_kind(type(value))
        if self._known is None or kind not in self._known:  # the flow may have learned of it since
            self._known = self._find_known()
        if kind in self._known:
            name = self._known.name_of(kind)
            self._enter(value, depth)
            body = self._body(value, depth + 2)
            self._leave(value)
            form = {MARK: "object", "class": name, "v": body}
            return form if kind is type(value) else {**form, "unpacks": True}
        if self._serializer is not None:
            try:
                form = self._serializer.serialize(value)
            except TypeError:
                pass
            except Exception as error:
                raise self._problem(f"cannot be saved: the serializer failed with {_told(error)}") from error
            else:
                self._enter(value, depth)
                form = self._encode(form, depth + 2)
                self._leave(value)
                return _tagged("serialized", form)
        raise self._problem(
            f"is {shortened(value)} of {full_name(kind)}, which cannot be saved; register the class "
            f"(flow.register_types), pass a serializer, or keep it out of the job, as a resource of the flow"
        )

    def _body(self, value: Any, depth: int) -> Any:
        if isinstance(value, Flag):
            return self._encode(value.value, depth)
        if isinstance(value, Enum):
            return self._encode(value.name, depth)
        if isinstance(value, BaseModel):
            return self._model_body(value, depth)
        if is_namedtuple(type(value)):
            names: tuple[str, ...] = type(value)._fields
            return {name: self._part(Attribute(name), part, depth) for name, part in zip(names, value, strict=True)}
        names = tuple(field.name for field in dataclasses.fields(value) if hasattr(value, field.name))
        return self._attributes(value, names, depth + 1)

    def _model_body(self, model: BaseModel, depth: int) -> dict[str, Any]:
        kind = type(model)
        if kind not in self._itself:
            self._itself[kind] = models.serializes_itself(kind)
        try:
            if self._itself[kind]:
                return {"json": self._encode(models.dumped(model), depth + 1)}
            names = models.kept_fields(model)
        except SaveError:
            raise
        except Exception as error:  # serializers are the user's
            raise self._problem(f"cannot be saved: {kind.__qualname__}: {_told(error)}") from error
        body: dict[str, Any] = {"fields": {name: self._field(model, name, depth + 2) for name in names}}
        if model.__pydantic_extra__:
            extra = model.__pydantic_extra__
            body["extra"] = {key: self._part(Attribute(key), value, depth + 2) for key, value in extra.items()}
        unset = [name for name in names if name not in model.model_fields_set]
        if unset:
            body["unset"] = unset
        return body

    def _field(self, model: BaseModel, name: str, depth: int) -> Any:
        """Return the form of a field: its value's own; or pydantic's, for a class that only pydantic knows."""
        at = len(self._path)
        around = set(self._around)
        try:
            return self._part(Attribute(name), model.__dict__[name], depth)
        except SaveError:
            path, self._path[at:] = self._path[at:], []
            try:
                form = self._part(Attribute(name), models.dumped_field(model, name), depth)
                self._around = around
                return form
            except Exception:
                self._path[at:] = path
            raise

    def timezone(self, zone: tzinfo | None, depth: int) -> Any:
        """Return the form of a time zone."""
        if zone is None:
            return None
        if type(zone) is ZoneInfo and zone.key is not None:
            return zone.key
        if type(zone) in (timezone, TzInfo):
            offset, name = zone.utcoffset(None), zone.tzname(None)
            assert offset is not None
            own = type(zone) is timezone and name is not None and name != timezone(offset).tzname(None)
            seconds = [offset.days, offset.seconds, offset.microseconds]
            return [*seconds, self._encode(name, depth)] if own else seconds
        raise self._problem(f"has the time zone {shortened(zone)}, which cannot be saved; use zoneinfo or an offset")

    def _problem(self, what: str) -> SaveError:
        return SaveError(f"{self.subject}: {self._where}{spell_path(self._path)} {what}")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _tagged(tag: str, form: Any) -> dict[str, Any]:
    return {MARK: tag, "v": form}


def _keys_are_text(value: Mapping[Any, Any]) -> bool:
    return all(key.__class__ is str for key in value) and MARK not in value and all_text(list(value))


def _integer(_: Writer, value: int, __: int) -> Any:
    return value if -(2**63) <= value < 2**63 else _tagged("int", hex(value))


def _real(_: Writer, value: float, __: int) -> Any:
    return value if isfinite(value) else _tagged("float", repr(value))


def _text(_: Writer, value: str, __: int) -> Any:
    return value if all_text([value]) else _tagged("str", _base64(value.encode("utf-8", "surrogatepass")))


def _base64(value: bytes | bytearray) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


def _moment(writer: Writer, value: datetime | time, depth: int) -> Any:
    naive = value.replace(tzinfo=None)
    form = [naive.isoformat(), value.fold, writer.timezone(value.tzinfo, depth + 3)]
    return _tagged("datetime" if isinstance(value, datetime) else "time", form)


def _path(tag: str) -> Callable[[Writer, PurePath, int], Any]:
    return lambda writer, value, depth: _tagged(tag, writer.list_of([str(value)], depth + 1)[0])


def _items(tag: str) -> Callable[[Writer, Iterable[Any], int], Any]:
    return lambda writer, value, depth: _tagged(tag, writer.list_of(value, depth + 1))


def _itself(_: Writer, value: Any, __: int) -> Any:
    return value


ENCODERS: dict[type, Callable[[Writer, Any, int], Any]] = {
    type(None): _itself,
    bool: _itself,
    int: _integer,
    float: _real,
    str: _text,
    list: Writer.list_of,
    dict: Writer.dict_of,
    tuple: _items("tuple"),
    set: _items("set"),
    frozenset: _items("frozenset"),
    deque: lambda writer, value, depth: {**_items("deque")(writer, value, depth), "maxlen": value.maxlen},
    bytes: lambda _, value, __: _tagged("bytes", _base64(value)),
    bytearray: lambda _, value, __: _tagged("bytearray", _base64(value)),
    complex: lambda writer, value, depth: _tagged("complex", writer.list_of([value.real, value.imag], depth + 1)),
    datetime: _moment,
    time: _moment,
    date: lambda _, value, __: _tagged("date", value.isoformat()),
    timedelta: lambda _, value, __: _tagged("timedelta", [value.days, value.seconds, value.microseconds]),
    Decimal: lambda _, value, __: _tagged("Decimal", str(value)),
    UUID: lambda _, value, __: _tagged("UUID", str(value)),
    PosixPath: _path("Path"),
    WindowsPath: _path("Path"),
    PurePosixPath: _path("PurePosixPath"),
    PureWindowsPath: _path("PureWindowsPath"),
}
