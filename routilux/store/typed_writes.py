"""Writes to the typed state of a flow, whose fields are keys of the shared data, as JSON.

A field has the form of its value, if that has one of its own; else the one that pydantic has for the field. A model
that brings serializers of its own is written as a whole, by pydantic. Fields that are excluded from serialization are
left out, here as in saved jobs: they have their defaults when the job is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from ..errors import SaveError
from . import models
from .reading import Reader
from .shapes import Shapes
from .values import Writer

Shared = Callable[[], Mapping[str, Any]]


class TypedState:
    """The typed state of a flow, as facts are concerned with it.

    Args:
        schema: the flow's ``StateSchema``, or None.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.model: type[BaseModel] | None = None if schema is None else schema.model
        self.fields: frozenset[str] = frozenset() if schema is None else schema.fields
        self.left_out: frozenset[str] = frozenset() if schema is None else schema.excluded
        self.itself = self.model is not None and models.serializes_itself(self.model)

    @property
    def is_special(self) -> bool:
        """Whether its fields may not be written as if they were any shared data."""
        return self.itself or bool(self.left_out)

    def write(self, given: dict[str, Any], shared: Mapping[str, Any], values: Writer) -> dict[str, Any]:
        """Return the parts of the form of values that are set, some of which are fields.

        ``shared`` are the shared data afterwards, as far as they are known. Raises SaveError for what has no form.
        """
        fields = [name for name in given if name in self.fields and name not in self.left_out]
        if not self.itself:
            return self._each(given, fields, shared, values)
        form: dict[str, Any] = {}
        if len(fields) < len(given):
            beside = {key: value for key, value in given.items() if key not in self.fields}
            form["set"] = values.mapping(beside, "shared data ")
        if fields:
            form["state"], form["fields"] = values.state(self._instance(shared), "the state"), fields
        return form

    def _each(
        self, given: dict[str, Any], fields: list[str], shared: Mapping[str, Any], values: Writer
    ) -> dict[str, Any]:
        own = {key: value for key, value in given.items() if key not in self.left_out}
        try:
            return {"set": values.mapping(own, "shared data ")}
        except SaveError:
            if not fields:
                raise
        forms = {}
        for name in fields:
            try:
                values.value(given[name], f"shared data {name!r}")
            except SaveError:
                found = self._dumped(name, shared, values)
                if not found:
                    raise
                forms[name] = found[0]
                del own[name]
        return {"set": values.mapping(own, "shared data "), "fields": forms}

    def _dumped(self, name: str, shared: Mapping[str, Any], values: Writer) -> list[Any]:
        """Return pydantic's form of a field in a list, which is empty when there is none."""
        try:
            return [values.value(models.dumped_field(self._instance(shared), name), name)]
        except Exception:  # serializers are the user's
            return []

    def _instance(self, shared: Mapping[str, Any]) -> BaseModel:
        fields = {name: shared[name] for name in self.schema.checked.fields if name in shared}
        return self.schema.instance(fields)  # type: ignore[no-any-return]

    def read(self, form: dict[str, Any], values: Reader, shapes: Shapes) -> dict[str, Any]:
        """Return the fields that `write` has given a form other than their own. Raises LoadError."""
        data = shapes.take(form, "fields", list if "state" in form else dict)
        if self.model is None:
            raise shapes.problem("a fact sets fields of a typed state, and the flow has no state_schema")
        for name in data:
            if type(name) is not str or name not in self.fields:
                raise shapes.problem(f"a fact sets the field {name!r}, which {self.model.__name__} does not have")
        if "state" in form:
            state = values.state(self.model, form["state"], "the state")
            return {name: state.__dict__[name] for name in data}
        found = {}
        for name, each in data.items():
            found[name] = values.field(self.model, name, each, f"shared data {name!r}")
        return found
