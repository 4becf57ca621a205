"""Pydantic models as parts, and back.

A model that brings serializers of its own is written and read by pydantic, in its JSON form. Any other is taken apart
field by field, so that a field annotated ``Any`` keeps what it holds, and is validated when it is put together.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    WrapSerializer,
)
from pydantic_core import to_json


def serializes_itself(kind: type[BaseModel]) -> bool:
    """Whether a model class declares how it, or anything in it, is serialized."""
    declared = kind.__pydantic_decorators__
    if declared.field_serializers or declared.model_serializers or kind.model_config.get("json_encoders"):
        return True
    return any(_has_serializer([field.annotation, *field.metadata], set()) for field in kind.model_fields.values())


def _has_serializer(parts: Iterable[Any], seen: set[int]) -> bool:
    for part in parts:
        if isinstance(part, (PlainSerializer, WrapSerializer)):
            return True
        if id(part) not in seen:
            seen.add(id(part))
            if _has_serializer((*typing.get_args(part), getattr(part, "__value__", None)), seen):
                return True
    return False


def dumped(model: BaseModel) -> Any:
    """Return the JSON form of a model as pydantic makes it."""
    serializer = type(model).__pydantic_serializer__
    return serializer.to_python(model, mode="json", by_alias=True, round_trip=True, warnings=False)


def from_dump(kind: type[BaseModel], dump: Any) -> BaseModel:
    """Return the model whose JSON form this is. Raises ValidationError when it is not valid (any more)."""
    if isinstance(dump, dict):
        names = {field.serialization_alias or name: name for name, field in kind.model_fields.items()}
        known = {names[key]: value for key, value in dump.items() if key in names}
        rest = {key: value for key, value in dump.items() if key not in names}
        dump = {**rest, **_by_alias(kind, known)}
    return kind.__pydantic_validator__.validate_json(to_json(dump, inf_nan_mode="constants"))  # type: ignore[no-any-return]


def kept_fields(model: BaseModel) -> list[str]:
    """Return the names of the fields that are to be saved.

    Raises ValueError when one is excluded that a model cannot be made without.
    """
    kept = []
    for name, field in type(model).model_fields.items():
        if not field.exclude:
            kept.append(name)
        elif field.is_required():
            raise ValueError(f"its field {name!r} is excluded from serialization and has no default")
    return [name for name in kept if name in model.__dict__]


def dumped_field(model: BaseModel, name: str) -> Any:
    """Return the JSON form of one field, if the field has the same value when that is validated.

    Raises ValueError when it has not, or there is no such form.
    """
    kind = type(model)
    value = model.__dict__[name]
    form = kind.__pydantic_serializer__.to_python(
        model, mode="json", include={name}, round_trip=True, by_alias=False, warnings=False
    )[name]
    if from_dumped_field(kind, name, form) != value:
        raise ValueError("it is another value afterwards")
    return form


def from_dumped_field(kind: type[BaseModel], name: str, form: Any) -> Any:
    """Return the value of a field whose JSON form this is. Raises ValidationError when it is not valid (any more)."""
    return _adapter(kind, name).validate_python(form)


@lru_cache(maxsize=128)  # making one takes a hundred times as long as using it
def _adapter(kind: type[BaseModel], name: str) -> TypeAdapter[Any]:
    field = kind.model_fields[name]
    annotation: Any = field.annotation
    for each in field.metadata:
        annotation = Annotated[annotation, each]
    return TypeAdapter(annotation)


def from_fields(
    kind: type[BaseModel], fields: Mapping[str, Any], extra: Mapping[str, Any], unset: Iterable[str]
) -> BaseModel:
    """Return the model of these fields and extra values. Raises ValidationError when they are not valid (any more)."""
    # Not by isinstance: to import RootModel takes as long as to import this package.
    given = fields["root"] if kind.__pydantic_root_model__ else {**_by_alias(kind, fields), **extra}
    made: BaseModel = kind.__pydantic_validator__.validate_python(given)
    unset = frozenset(unset)
    if unset:
        object.__setattr__(made, "__pydantic_fields_set__", made.model_fields_set - unset)
    return made


def _by_alias(kind: type[BaseModel], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of fields where the model's validation looks for them."""
    if kind.model_config.get("validate_by_alias") is False:
        return dict(fields)
    found: dict[Any, Any] = {}
    for name, value in fields.items():
        alias: Any = kind.model_fields[name].validation_alias if name in kind.model_fields else None
        if isinstance(alias, AliasChoices):
            alias = alias.choices[0]
        path = [name if alias is None else alias] if not isinstance(alias, AliasPath) else alias.path
        place = found
        for part in path[:-1]:
            place = place.setdefault(part, _Nested())
        place[path[-1]] = value
    return {key: _resolved(value) for key, value in found.items()}


class _Nested(dict[Any, Any]):
    """What lies on the way to a field: a dict, or a list by its indices."""


def _resolved(value: Any) -> Any:
    if not isinstance(value, _Nested):
        return value
    inner = {key: _resolved(each) for key, each in value.items()}
    if not all(isinstance(key, int) for key in inner):
        return inner
    items = [None] * max(key + 1 if key >= 0 else -key for key in inner)
    for key, each in inner.items():
        items[key] = each
    return items


def problems(error: ValidationError) -> str:
    """Return what is wrong with a model: field and reason, of each."""
    return "; ".join(
        ".".join(map(str, problem["loc"])) + ": " + problem["msg"] if problem["loc"] else problem["msg"]
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )
