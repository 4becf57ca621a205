"""Values as JSON: how they are read. Nothing here imports, evaluates, or calls what the data name, except for the
classes that the program has named itself."""

from __future__ import annotations

import dataclasses
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ValidationError

from ..errors import DeclarationError, LoadError
from ..routine.binding import shortened
from . import models
from .known_types import KnownTypes, is_namedtuple
from .plain import MARK
from .serializer import Serializer
from .unpacking import as_mapping
from .values import Attribute, spell_path


class Reader:
    """Reads values that a `Writer` has written, and that are JSON.

    Args:
        subject: the flow and job as they stand in error messages.
        known: returns the classes that may be loaded; called when the first one is met.
        serializer: reads what a serializer has written.
    """

    def __init__(self, subject: str, known: Callable[[], KnownTypes], serializer: Serializer | None) -> None:
        self.subject = subject
        self._find_known = known
        self._known: KnownTypes | None = None
        self._serializer = serializer
        self._where = ""
        self._path: list[Any] = []

    def value(self, data: Any, where: str) -> Any:
        """Return the value with this JSON form. Raises LoadError when it is no such form."""
        return self._begin(where, lambda: self._decode(data))

    def mapping(self, data: Any, where: str) -> dict[str, Any]:
        """Return a dict with string keys; see `Writer.mapping`."""
        if data.__class__ is dict:
            return data
        if data.__class__ is not list or len(data) != 1:
            self._where = where
            raise self._problem(f"must be an object, or a list of one, not {shortened(data)}")
        found = self.value(data[0], where)
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise self._problem(f"must be a dict with string keys, not {shortened(found)}")
        return found

    def mappings(self, column: list[Any], where: str) -> list[dict[str, Any]]:
        """Return dicts with string keys; see `Writer.mappings`."""
        if set(map(type, column)) <= {dict}:
            return column
        return [self.mapping(data, where) for data in column]

    def state(self, kind: type[BaseModel], data: Any, where: str) -> BaseModel:
        """Return the typed state with this JSON form."""
        return self._begin(where, lambda: self._model(kind, data))  # type: ignore[no-any-return]

    def field(self, kind: type[BaseModel], name: str, data: Any, where: str) -> Any:
        """Return the value of one field whose JSON form as pydantic makes it this is."""
        return self._begin(where, lambda: models.from_dumped_field(kind, name, self._decode(data)))

    # --- how ----------------------------------------------------------------------------------------------------

    def _begin(self, where: str, read: Callable[[], Any]) -> Any:
        self._where = where
        self._path.clear()
        try:
            return read()
        except (LoadError, DeclarationError):
            raise
        except ValidationError as error:
            raise self._problem(f"is not valid (any more): {error.title}: {models.problems(error)}") from error
        except Exception as error:  # what data can be made to do, and what validators of models raise
            raise self._problem(f"cannot be read: {type(error).__name__}: {error}") from error

    def _decode(self, data: Any) -> Any:
        if data.__class__ is list:
            return [self._part(index, each) for index, each in enumerate(data)]
        if data.__class__ is dict:
            if MARK in data:
                return self._tagged(data)
            return {key: self._part(key, each) for key, each in data.items()}
        return data

    def _part(self, part: Any, data: Any) -> Any:
        self._path.append(part)
        value = self._decode(data)
        self._path.pop()
        return value

    def _tagged(self, data: dict[str, Any]) -> Any:
        tag = data[MARK]
        if tag == "object":
            return self._object(data)
        decode = DECODERS.get(tag) if isinstance(tag, str) else None
        if decode is None:
            raise self._problem(f"is of a kind that this version of routilux does not know: {shortened(tag)}")
        return decode(self, data)

    def _object(self, data: dict[str, Any]) -> Any:
        name, body = data["class"], data["v"]
        if self._known is None:
            self._known = self._find_known()
        kind = self._known.find(name) if isinstance(name, str) else None
        if kind is None:
            raise self._problem(
                f"is of class {shortened(name)}, which this flow does not know; "
                f"register it: flow.register_types(...){self._known.hint(str(name))}"
            )
        if issubclass(kind, Flag):
            return kind(self._decode(body))
        if issubclass(kind, Enum):
            if body not in kind.__members__:
                raise self._problem(f"is no member of {name} (any more): {shortened(body)}")
            return kind[body]
        if issubclass(kind, BaseModel):
            model = self._model(kind, body)
            return as_mapping(model) if data.get("unpacks") else model
        values = {key: self._part(Attribute(key), each) for key, each in body.items()}
        if is_namedtuple(kind):
            return self._namedtuple(kind, values)
        return self._dataclass(kind, values)

    def _model(self, kind: type[BaseModel], body: dict[str, Any]) -> BaseModel:
        if not isinstance(body, dict) or ("json" in body) == ("fields" in body):
            raise self._problem(f"is no {kind.__qualname__}: {shortened(body)}")
        try:
            if "json" in body:
                return models.from_dump(kind, self._decode(body["json"]))
            fields = {name: self._part(Attribute(name), each) for name, each in body["fields"].items()}
            extra = {name: self._part(Attribute(name), each) for name, each in body.get("extra", {}).items()}
            return models.from_fields(kind, fields, extra, body.get("unset", ()))
        except ValidationError as error:
            raise self._problem(f"is not valid (any more): {kind.__qualname__}: {models.problems(error)}") from error

    def _namedtuple(self, kind: Any, values: dict[str, Any]) -> Any:
        self._check_fields(kind, values, kind._fields)
        values = {**kind._field_defaults, **values}
        self._check_complete(kind, values, kind._fields)
        return kind._make(values[name] for name in kind._fields)

    def _dataclass(self, kind: Any, values: dict[str, Any]) -> Any:
        """Put a dataclass together past its ``__init__``, which may do more than to set fields."""
        fields = {field.name: field for field in dataclasses.fields(kind)}
        self._check_fields(kind, values, fields)
        for name, field in fields.items():
            if name not in values:
                if field.default is not dataclasses.MISSING:
                    values[name] = field.default
                elif field.default_factory is not dataclasses.MISSING:
                    values[name] = field.default_factory()
        self._check_complete(kind, values, [name for name, field in fields.items() if field.init])
        if hasattr(kind, "__pydantic_validator__"):  # a dataclass of pydantic's
            made = kind(**{name: value for name, value in values.items() if fields[name].init})
            values = {name: value for name, value in values.items() if not fields[name].init}
        else:
            made = object.__new__(kind)
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made

    def _check_fields(self, kind: type, values: dict[str, Any], known: Any) -> None:
        unknown = [name for name in values if name not in known]
        if unknown:
            raise self._problem(f"has the fields {unknown!r}, which {kind.__qualname__} does not have (any more)")

    def _check_complete(self, kind: type, values: dict[str, Any], needed: Any) -> None:
        missing = [name for name in needed if name not in values]
        if missing:
            raise self._problem(f"lacks the fields {missing!r} of {kind.__qualname__}, which have no default")

    def serialized(self, data: dict[str, Any]) -> Any:
        """Return what a serializer has written."""
        if self._serializer is None:
            raise self._problem("was saved with a serializer; pass the serializer to load it")
        return self._serializer.deserialize(self._decode(data["v"]))

    def items(self, data: dict[str, Any]) -> list[Any]:
        """Return the items of a container."""
        if not isinstance(data["v"], list):
            raise self._problem(f"must be a list, not {shortened(data['v'])}")
        return [self._part(index, each) for index, each in enumerate(data["v"])]

    def pairs(self, data: dict[str, Any]) -> dict[Any, Any]:
        """Return a dict that was written as pairs."""
        return dict(self.items(data))

    def text(self, data: dict[str, Any]) -> str:
        """Return a string inside a tagged object."""
        found = self._decode(data["v"])
        if not isinstance(found, str):
            raise self._problem(f"must be a string, not {shortened(found)}")
        return found

    def zone(self, data: Any) -> tzinfo | None:
        """Return a time zone."""
        if data is None:
            return None
        if isinstance(data, str):
            return ZoneInfo(data)
        days, seconds, microseconds, *name = data
        return timezone(timedelta(days, seconds, microseconds), *map(self._decode, name))

    def _problem(self, what: str) -> LoadError:
        return LoadError(f"{self.subject}: {self._where}{spell_path(self._path)} {what}")


def _bytes(reader: Reader, data: dict[str, Any]) -> bytes:
    return a2b_base64(reader.text(data).encode("ascii"))


def _datetime(reader: Reader, data: dict[str, Any]) -> datetime:
    text, fold, zone = data["v"]
    return datetime.fromisoformat(text).replace(tzinfo=reader.zone(zone), fold=fold)


def _time(reader: Reader, data: dict[str, Any]) -> time:
    text, fold, zone = data["v"]
    return time.fromisoformat(text).replace(tzinfo=reader.zone(zone), fold=fold)


DECODERS: dict[str, Callable[[Reader, dict[str, Any]], Any]] = {
    "serialized": Reader.serialized,
    "dict": Reader.pairs,
    "tuple": lambda reader, data: tuple(reader.items(data)),
    "set": lambda reader, data: set(reader.items(data)),
    "frozenset": lambda reader, data: frozenset(reader.items(data)),
    "deque": lambda reader, data: deque(reader.items(data), data["maxlen"]),
    "bytes": _bytes,
    "bytearray": lambda reader, data: bytearray(_bytes(reader, data)),
    "int": lambda reader, data: int(reader.text(data), 16),
    "float": lambda reader, data: float(reader.text(data)),
    "str": lambda reader, data: _bytes(reader, data).decode("utf-8", "surrogatepass"),
    "complex": lambda reader, data: complex(*reader.items(data)),
    "datetime": _datetime,
    "time": _time,
    "date": lambda reader, data: date.fromisoformat(reader.text(data)),
    "timedelta": lambda _, data: timedelta(*data["v"]),
    "Decimal": lambda reader, data: Decimal(reader.text(data)),
    "UUID": lambda reader, data: UUID(reader.text(data)),
    "Path": lambda reader, data: Path(reader.text(data)),
    "PurePosixPath": lambda reader, data: PurePosixPath(reader.text(data)),
    "PureWindowsPath": lambda reader, data: PureWindowsPath(reader.text(data)),
}
