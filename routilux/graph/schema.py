"""The typed state of a flow: a pydantic model whose fields are keys of the shared data.

Values are checked field by field, as an assignment to a model is, so that a change costs what it touches. A model with
validators of its own as a whole is checked as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, PydanticUndefined, to_json

from ..core.copying import copy_payload
from ..errors import DeclarationError, StateError, known_names


class StateSchema:
    """A state model, compiled.

    Args:
        model: the class; all of its fields should have defaults.
        where: the flow as it stands in error messages.

    Raises:
        DeclarationError: when it is no pydantic model class.
    """

    def __init__(self, model: type[BaseModel], where: str) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise DeclarationError(f"{where}: state_schema must be a pydantic model class, not {model!r}")
        self.model = model
        self.where = where
        self.fields = frozenset(model.model_fields)
        # How pydantic itself tells: validators of the model as a whole see, and may change, all fields.
        self.face: type[BaseModel] | None = None  # what handlers work with; the runtime makes it
        self.as_a_whole = bool(model.__pydantic_decorators__.model_validators)

    def initial(self, given: BaseModel | Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the fields of a new state, from the given values and the defaults.

        Raises StateError for an unknown field, a value that is not valid, or a field without value and default.
        """
        given = copy_payload(plain(given, self.where))
        for name in given:
            self.check_field(name)
        try:
            made = self.model.model_validate(self._by_alias(given))
        except ValidationError as error:
            raise StateError(
                f"{self.where}: the initial state does not fit {self.model.__name__}: {_problems(error)}; give every "
                f"field a default, or a value in initial_state"
            ) from error
        return dict(made.__dict__)

    def check_field(self, name: str) -> None:
        """Raise StateError when the state has no such field."""
        if name not in self.fields:
            hint = known_names(name, self.fields, "fields")
            raise StateError(f"{self.where}: the state {self.model.__name__} has no field {name!r}{hint}")

    def fields_of(self, shared: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of the state among the shared data; the dict itself when it has nothing else."""
        if len(shared) == len(self.fields):
            return shared
        return {name: shared[name] for name in self.model.model_fields}

    def checked(self, shared: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the changes that a change of fields amounts to, validated, given the shared data as they are.

        Raises StateError when a value is not valid.
        """
        try:
            if self.as_a_whole:
                before = {name: shared[name] for name in self.fields}
                made = self.model.model_validate(self._by_alias({**before, **changes}))
                return {name: value for name, value in made.__dict__.items() if value is not before[name]}
            held = self.instance({})
            for name, value in changes.items():
                self.model.__pydantic_validator__.validate_assignment(held, name, value)
            return {name: held.__dict__[name] for name in changes}
        except ValidationError as error:
            raise StateError(
                f"{self.where}: the state {self.model.__name__} refuses the change: {_problems(error)}"
            ) from error

    def instance(self, fields: dict[str, Any], cls: type[BaseModel] | None = None) -> BaseModel:
        """Return an instance of the model (or of ``cls``) with these values as they are, unchecked and not copied."""
        kind = cls or self.model
        made = kind.__new__(kind)
        object.__setattr__(made, "__dict__", fields)
        object.__setattr__(made, "__pydantic_fields_set__", set(fields))
        object.__setattr__(made, "__pydantic_extra__", None)
        private = {name: each.get_default() for name, each in self.model.__private_attributes__.items()}
        private = {name: value for name, value in private.items() if value is not PydanticUndefined}
        object.__setattr__(made, "__pydantic_private__", private or None)
        return made

    def _by_alias(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values of fields under the names by which the model's validation knows them."""
        aliases = {name: field.validation_alias for name, field in self.model.model_fields.items()}
        return {alias if isinstance(alias := aliases.get(name), str) else name: value for name, value in values.items()}


def _problems(error: ValidationError) -> str:
    return "; ".join(
        ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"]
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    )


def plain(given: object, where: str) -> dict[str, Any]:
    """Return given state as a dict of its keys, or fields. Raises StateError for anything without string keys."""
    if given is None:
        return {}
    if isinstance(given, BaseModel):
        return {name: getattr(given, name) for name in type(given).model_fields}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise StateError(f"{where}: a state must be a model or a mapping with string keys, not {given!r}")
    return dict(given)


def check_size(shared: dict[str, Any], most: int, where: str, otherwise: int = 0) -> None:
    """Raise StateError when the shared data take more than ``most`` bytes as JSON.

    Data that have no JSON form are of the size ``otherwise``, by default none: a job in memory may hold them.
    """
    try:
        size = len(to_json(shared))
    except PydanticSerializationError:
        size = otherwise
    if size > most:
        raise StateError(
            f"{where}: the state takes {size:,} bytes as JSON, more than max_state_bytes={most:,}; keep large things "
            f"elsewhere and a reference to them in the state"
        )


def checked_change(
    schema: StateSchema, shared: Mapping[str, Any], values: dict[str, Any], removed: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values to write for a change of shared data under a schema; keys that are no fields stay as they are.

    Raises StateError when a value is not valid, or a field would be removed.
    """
    for name in removed:
        if name in schema.fields:
            raise StateError(f"{schema.where}: field {name!r} of the state {schema.model.__name__} cannot be removed")
    fields = {name: value for name, value in values.items() if name in schema.fields}
    beside = {name: value for name, value in values.items() if name not in schema.fields}
    return {**beside, **schema.checked(shared, fields)} if fields else beside
