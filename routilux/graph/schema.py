"""The typed state of a flow: a pydantic model whose fields are keys of the shared data.

Names are the names of fields everywhere; aliases play no part. What is validated is what changes: a field when it is
assigned, or changed in place, at any depth. A model with validators of its own as a whole is checked as a whole, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.comparing import same
from ..core.copying import copy_payload
from ..core.models import BaseModel, is_model, is_model_class
from ..errors import DeclarationError, StateError, known_names
from ..routine.binding import shortened
from .origins import Origins, Refusal, carried


class StateSchema:
    """A state model, compiled.

    Args:
        model: the class; all of its fields should have defaults.
        where: the flow as it stands in error messages.

    Raises:
        DeclarationError: when it is no pydantic model class with fields.
    """

    def __init__(self, model: type[BaseModel], where: str) -> None:
        if not (isinstance(model, type) and is_model_class(model)):
            raise DeclarationError(f"{where}: state_schema must be a pydantic model class, not {model!r}")
        if model.__pydantic_root_model__:
            raise DeclarationError(
                f"{where}: state_schema must be a pydantic model class with fields, not the RootModel "
                f"{model.__name__}; make its root a field of a model"
            )
        from .models import Models

        self.model = model
        self.where = where
        self.fields = frozenset(model.model_fields)
        self.excluded = frozenset(name for name, field in model.model_fields.items() if field.exclude)  # never written
        self.face: type[BaseModel] | None = None  # what handlers work with; the runtime makes it
        self.models = Models()
        self.checked = self.models.of(model)

    def check_field(self, name: str, where: str | None = None) -> None:
        """Raise StateError when the state has no such field."""
        if name not in self.fields:
            hint = known_names(name, self.fields, "fields")
            raise StateError(f"{where or self.where}: the state {self.model.__name__} has no field {name!r}{hint}")

    def fields_of(self, shared: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the state among the shared data, in a dict of their own."""
        if len(shared) == len(self.fields):
            return dict(shared)
        return {name: shared[name] for name in self.checked.fields}

    def instance(self, fields: dict[str, Any]) -> BaseModel:
        """Return an instance of the model with these values as they are, which become its own."""
        return self.checked.instance(fields)

    # --- whole states ---------------------------------------------------------------------------------------------

    def initial(self, given: object, handed: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the fields of a new state: the given values over those of an earlier state, or over the defaults.

        Those of the earlier state are valid already, and become the new one's own. Raises StateError for an unknown
        field, a value that is not valid, or a field without value and default.
        """
        what = "the initial state"
        if not handed or isinstance(given, self.model):
            return self.whole(given, where, what)
        values = self._named(given, where)
        before = dict(handed)
        for name in self.checked.fields:
            if name not in before:
                before[name] = values[name] if name in values else self._default(name, before, where)
        if not self.checked.frozen_fields.isdisjoint(values):  # they cannot be assigned
            return self.whole(self.instance({**before, **values}), where, what)
        return {**before, **self._refusing(where, what, before, values, {})}

    def whole(self, given: object, where: str, what: str) -> dict[str, Any]:
        """Return the fields of a state: the given ones, validated once, and defaults for those that are not given.

        Raises StateError as `initial` does; ``what`` is the state as it stands in messages.
        """
        values = self._named(given, where)
        try:
            for name, value in values.items():
                self.models.settle(value, {}, (name,), set())
            return (self.checked.verified if isinstance(given, self.model) else self.checked.created)(values)
        except Refusal as refusal:
            raise StateError(
                f"{where}: {what} does not fit {self.model.__name__}: {refusal}; give every field a default, or a value"
            ) from refusal.__cause__

    def _named(self, given: object, where: str, *, copied: bool = True) -> dict[str, Any]:
        values = plain(given, where)
        if copied:
            values = copy_payload(values)
        for name in values:
            self.check_field(name, where)
        return values

    def _default(self, name: str, before: Mapping[str, Any], where: str) -> Any:
        field = self.model.model_fields[name]
        if getattr(field, "default_factory_takes_validated_data", False):
            make: Any = field.default_factory
            return make(dict(before))
        if field.is_required():
            raise StateError(f"{where}: the initial state does not fit {self.model.__name__}: {name}: Field required")
        return field.get_default(call_default_factory=True)

    def replaced(self, before: Mapping[str, Any], state: object, origins: Origins | None, where: str) -> dict[str, Any]:
        """Return the fields of a state that takes the place of another.

        ``origins`` are given when the state is a copy of an earlier one, which may have been changed since. Raises
        StateError as `initial` and `changed` do.
        """
        if origins is None or self.checked.frozen:
            values = self.whole(state, where, "the state given to store.set_state()")
        else:
            values, origins = carried(self._named(state, where, copied=False), origins)
            changes = {name: value for name, value in values.items() if not same(value, before[name])}
            values.update(self.changed(before, changes, (), origins, where))
        for name in () if self.checked.frozen else self.checked.frozen_fields:
            self.check_settable(name, before[name], values[name], where)
        return values

    # --- changes --------------------------------------------------------------------------------------------------

    def check_settable(self, name: str, before: Any, value: Any, where: str) -> None:
        """Raise StateError when a field is frozen and the value is not what it holds."""
        if name in self.checked.frozen_fields and not same(value, before):
            raise StateError(f"{where}: field {name!r} of the state {self.model.__name__} is frozen")

    def changed(
        self,
        before: Mapping[str, Any],
        changes: Mapping[str, Any],
        removed: tuple[str, ...],
        origins: Origins,
        where: str,
        in_place: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """Return the values to write for a change of shared data: all those asked for, validated, and what follows.

        Args:
            before: the shared data as they are, which nobody is given uncopied.
            changes: the values to set, which become the record's; those of keys that are no fields stay as they are.
            removed: the keys to remove.
            origins: which instances in the changes are copies of which.
            where: the handler as it stands in error messages.
            in_place: the fields that were not assigned.

        Raises StateError when a value is not valid, a frozen field would change, or a field would be removed.
        """
        for name in removed:
            if name in self.fields:
                raise StateError(f"{where}: field {name!r} of the state {self.model.__name__} cannot be removed")
        fields = {name: value for name, value in changes.items() if name in self.fields}
        if self.checked.frozen_fields:
            for name in self.checked.frozen_fields.intersection(fields):
                self.check_settable(name, before[name], fields[name], where)
        changed = self._refusing(where, None, before, fields, origins, in_place) if fields else {}
        return {**changes, **changed} if len(fields) < len(changes) else changed

    def _refusing(
        self,
        where: str,
        what: str | None,
        before: Mapping[str, Any],
        fields: dict[str, Any],
        origins: Origins,
        in_place: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        try:
            for name, value in fields.items():
                if name in self.checked.with_models:
                    self.models.settle(value, origins, (name,), set())
            if self.checked.looks_around:
                before = {name: before[name] for name in self.checked.fields}
            if not self.checked.frozen_fields:
                return self.checked.changed(before, fields)
            kept = {name: fields.pop(name) for name in self.checked.frozen_fields.intersection(fields)}
            return {**kept, **self.checked.changed(before, fields)} if fields else kept
        except Refusal as refusal:
            bad = sorted({str(at[0]) for at, _, _ in refusal.problems if at} & in_place)
            hint = f"; {' and '.join(map(repr, bad))} was changed in place: assign it to put it right" if bad else ""
            head = f"{what} does not fit {self.model.__name__}" if what else f"the state {self.model.__name__} refuses"
            raise StateError(f"{where}: {head}{'' if what else ' the change'}: {refusal}{hint}") from refusal.__cause__


def plain(given: object, where: str) -> dict[str, Any]:
    """Return given state as a dict of its keys, or fields. Raises StateError for anything without string keys."""
    if given is None:
        return {}
    if is_model(given):
        return {name: getattr(given, name) for name in type(given).model_fields if hasattr(given, name)}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise StateError(f"{where}: a state must be a model or a mapping with string keys, not {shortened(given)}")
    return dict(given)
