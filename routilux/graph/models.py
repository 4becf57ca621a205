"""Checking changes of pydantic models: field by field, as assignments, however a change was made.

pydantic takes an instance of a model as it is, whatever was done to it since it was made. Here what was changed inside
an instance is validated as an assignment to what the instance was, and a new instance is validated whole.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import to_json

from ..core.comparing import same
from ..core.copying import ATOMS, attributes, copy_payload
from ..core.models import Quiet
from ..errors import RoutiluxError
from ..routine.binding import shortened
from .origins import At, Origins, Refusal, bare

_PLAIN: tuple[Any, ...] = (*ATOMS, bytearray, list, dict, set, frozenset, tuple, deque, Any)
_NO_SCHEMAS = frozenset({"default", "metadata", "cls", "serialization"})  # in a core schema
_UNIONS: tuple[Any, ...] = (Union, types.UnionType)


def derived(model: type[BaseModel], *bases: type, **attributes: Any) -> Any:
    """Return a subclass of a model that goes by its name, with more bases behind the model."""
    names = {"__module__": model.__module__, "__qualname__": model.__qualname__, "__doc__": model.__doc__}
    make: Any = type(model)
    return make(model.__name__, (Quiet, model, *bases), {**names, **attributes})


class CheckedModel:
    """A model class, compiled."""

    def __init__(self, model: type[BaseModel]) -> None:
        fields = model.model_fields
        self.model = model
        self.fields = tuple(fields)
        self._order = {name: place for place, name in enumerate(fields)}
        self.frozen = bool(model.model_config.get("frozen"))
        self.frozen_fields = frozenset(name for name, field in fields.items() if self.frozen or field.frozen)
        self.with_models = frozenset(name for name, field in fields.items() if not _without_models(field.annotation))
        whole = model.__pydantic_decorators__.model_validators
        self.as_a_whole = bool(whole)
        # Whether validation of one field may look at others: that of the model as a whole, or by `info.data`.
        self.looks_around = self.as_a_whole or _takes_info(model.__pydantic_core_schema__)
        self._validator = self._alone = self._by_name = model.__pydantic_validator__
        if whole and len(fields) > 1:
            nothing = {name: pydantic.model_validator(mode="after")(_accepted) for name in whole}
            self._alone = derived(model, **nothing).__pydantic_validator__
        if any(field.validation_alias is not None for field in fields.values()):
            # Names are names of fields wherever values come from programs; aliases are for documents.
            self._by_name = derived(model, model_config=ConfigDict(populate_by_name=True)).__pydantic_validator__

    def instance(self, fields: dict[str, Any]) -> BaseModel:
        """Return an instance with these values as they are, which become its own; private attributes are set up."""
        made = bare(self.model, fields)
        if self.model.__pydantic_post_init__:
            if self.model.model_post_init.__name__ == "init_private_attributes":
                made.model_post_init(None)
            else:  # it may change fields, which are as they should be already
                scratch = bare(self.model, copy_payload(fields))
                scratch.model_post_init(None)
                object.__setattr__(made, "__pydantic_private__", scratch.__pydantic_private__)
        return made

    def changed(self, before: Mapping[str, Any], changes: Mapping[str, Any], at: At = ()) -> dict[str, Any]:
        """Return the changes, validated, and what validation of the model as a whole has changed with them.

        Field validators run for the changed fields only, those of the model as a whole once. Nothing in ``before``
        is shown to them uncopied. Raises Refusal.
        """
        order = sorted(changes, key=self._order.__getitem__) if len(changes) > 1 else list(changes)
        held = self.instance(copy_payload(before)) if self.looks_around else bare(self.model, {})
        result: Any = held
        for name in order:
            # The last assignment finds all others made: it is the one to check the whole.
            validator = self._validator if name is order[-1] else self._alone
            try:
                result = validator.validate_assignment(held, name, changes[name])
            except Exception as error:
                raise _refusal(error, at, name, changes[name]) from error
        if not self.as_a_whole:
            return {name: held.__dict__[name] for name in order}
        after = (result if isinstance(result, self.model) else held).__dict__
        return {
            name: after[name]
            for name in self.fields
            if name in changes or (name in after and not same(after[name], before.get(name)))
        }

    def created(self, values: dict[str, Any], at: At = ()) -> dict[str, Any]:
        """Return the fields of a new instance, validated, from values by the names of fields. Raises Refusal."""
        given = values.get("root") if self.model.__pydantic_root_model__ else values
        try:
            made = self._by_name.validate_python(given)
        except Exception as error:
            raise _refusal(error, at) from error
        return {name: value for name, value in made.__dict__.items() if name in self.model.model_fields}

    def verified(self, values: dict[str, Any], at: At = ()) -> dict[str, Any]:
        """Return the fields of an instance that somebody has made: the values, if they are valid, else coerced.

        An instance was validated when it was made, and may have been changed since. So it is validated again, but what
        validators would make of a value of the right type a second time does not count. Raises Refusal.
        """
        fields = self.model.model_fields
        given = dict(values)
        for name, value in values.items():
            if _is_json(fields[name].metadata):
                given[name] = to_json(value).decode()
        made = self.created(given, at)
        return {
            name: values[name]
            if name in values and (same(value, values[name]) or _fits(fields[name].annotation, values[name]))
            else value
            for name, value in made.items()
        }


class Models:
    """The models that occur in one state, compiled when they first do."""

    def __init__(self) -> None:
        self._known: dict[type[BaseModel], CheckedModel] = {}

    def of(self, model: type[BaseModel]) -> CheckedModel:
        """Return a model class, compiled."""
        known = self._known.get(model)
        return known if known is not None else self._known.setdefault(model, CheckedModel(model))

    def settle(self, value: Any, origins: Origins, at: At, done: set[int]) -> None:
        """Validate the instances inside a value, at every depth, and put right in place what is coerced.

        ``origins`` tells which of them are copies, and of what; the others are new. Raises Refusal.
        """
        kind = value.__class__
        if kind in ATOMS or id(value) in done:
            return
        done.add(id(value))
        if isinstance(value, dict):
            for key, item in dict.items(value):
                self.settle(item, origins, (*at, key), done)
        elif isinstance(value, (list, tuple, deque)):
            for index, item in enumerate(value):
                self.settle(item, origins, (*at, index), done)
        elif isinstance(value, BaseModel):
            self._settle_model(value, origins, at, done)
        elif hasattr(kind, "__dataclass_fields__") and hasattr(kind, "__pydantic_validator__"):
            self._settle_dataclass(value, origins, at, done)

    def _settle_model(self, value: BaseModel, origins: Origins, at: At, done: set[int]) -> None:
        for name, item in value.__dict__.items():
            self.settle(item, origins, (*at, name), done)
        checked = self.of(value.__class__)
        fields = {name: item for name, item in value.__dict__.items() if name in checked.model.model_fields}
        known = origins.get(id(value))
        if known is None:
            value.__dict__.update(checked.verified(fields, at))
            return
        before = known[1].__dict__
        changes = {name: item for name, item in fields.items() if name not in before or not same(item, before[name])}
        if changes:
            frozen = not checked.frozen_fields.isdisjoint(changes)  # only what they hold can have been changed
            value.__dict__.update(checked.verified(fields, at) if frozen else checked.changed(before, changes, at))

    def _settle_dataclass(self, value: Any, origins: Origins, at: At, done: set[int]) -> None:
        now = attributes(value)
        for name, item in now.items():
            self.settle(item, origins, (*at, name), done)
        known = origins.get(id(value))
        if known is not None and not value.__dataclass_params__.frozen:
            before = attributes(known[1])
            for name in value.__dataclass_fields__:
                if name in now and not (name in before and same(now[name], before[name])):
                    try:
                        value.__pydantic_validator__.validate_assignment(value, name, now[name])
                    except Exception as error:
                        raise _refusal(error, at, name, now[name]) from error


def _refusal(error: Exception, at: At, name: str | None = None, value: Any = None) -> Exception:
    """Return what validation of what lies ``at`` a place, or of its field ``name``, raises instead of an error."""
    if isinstance(error, ValidationError):
        return Refusal(
            (
                (*at, *problem["loc"]),
                problem["msg"],
                shortened(problem["input"], 60) if problem["loc"] and problem["type"] != "missing" else "",
            )
            for problem in error.errors(include_url=False, include_context=False)
        )
    if isinstance(error, (RoutiluxError, Refusal)):
        raise error
    where, given = (at, "") if name is None else ((*at, name), shortened(value, 60))
    return Refusal([(where, f"its validation raised {type(error).__name__}: {error}", given)])


def _accepted(self: Any) -> Any:
    return self


def _without_models(annotation: Any) -> bool:
    """Whether values of this type hold no models, as far as pydantic would see to it."""
    kind = get_origin(annotation)
    if kind is None:
        return annotation in _PLAIN or annotation is None or annotation is Ellipsis
    if kind is Literal:
        return True
    parts = get_args(annotation)
    if kind is Annotated:
        return _without_models(parts[0])
    return (kind in _PLAIN or kind in _UNIONS) and all(_without_models(part) for part in parts)


def _takes_info(schema: Any) -> bool:
    """Whether a function in a core schema is told of the other fields."""
    if isinstance(schema, Mapping):
        others = (part for key, part in schema.items() if key not in _NO_SCHEMAS)
        return schema.get("type") == "with-info" or any(map(_takes_info, others))
    return isinstance(schema, (list, tuple)) and any(_takes_info(part) for part in schema)


def _is_json(metadata: list[Any]) -> bool:
    return any(each is pydantic.Json or isinstance(each, pydantic.Json) for each in metadata)


def _fits(annotation: Any, value: Any) -> bool:
    """Whether a value is of this type, whatever validators say to it."""
    try:
        return same(TypeAdapter(annotation).validate_python(value, strict=True), value)
    except Exception:  # it is not, or the type needs the configuration of its model
        return False
