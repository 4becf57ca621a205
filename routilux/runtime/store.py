"""``ctx.store``: the shared data of a job by dotted paths, and atomic edits of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from pydantic import BaseModel

from ..core import paths
from ..core.copying import copy_payload, copy_value
from ..core.job_record import Activation
from ..errors import PathError
from ..graph.schema import StateSchema, plain
from .drafts import Draft, face_of
from .job import Job

MISSING: Any = object()


class Acting(Protocol):
    """A turn, as far as a store knows it."""

    job: Job

    def acting(self, what: str) -> Activation:
        """Return the activation that runs; raise ContextError elsewhere or later."""

    def snapshot(self) -> tuple[dict[str, Any], int]:
        """Return the shared data as they are, and their revision."""

    def commit_draft(self) -> None:
        """Write what was changed in place."""

    def note_read(self, area: str | None, key: str | None) -> None:
        """Remember that a key was read."""

    def write(self, area: str | None, values: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
        """Set and remove keys."""

    def replace(self, parts: list[str], value: Any, path: str) -> None:
        """Set what a path leads to."""

    def begin_edit(self) -> Activation:
        """Become the only one that edits, and return it."""

    def end_edit(self, activation: Activation, draft: Draft | None, since: int) -> None:
        """Commit an edit, or roll it back when there is no draft."""


class Store:
    """The shared data of the job that a handler runs in.

    A path names a key, then keys, list indices and model fields inside its value, joined by dots:
    ``"cart.items.0"``. What is read is a copy. Under a ``state_schema`` the first part must be one of its fields, and
    what is written is validated.
    """

    __slots__ = ("_turn",)

    def __init__(self, turn: Acting) -> None:
        self._turn = turn

    def get(self, path: str, default: Any = MISSING) -> Any:
        """Return a copy of what a path leads to, or ``default``.

        Raises:
            PathError: when something on the way is missing and there is no default.
            StateError: when the state has no such field.
            ContextError: outside the handler's turn.
        """
        parts = paths.split(path)
        self._turn.acting("store.get()")
        self._turn.commit_draft()
        self._check_field(parts[0])
        record = self._turn.job.record
        with self._turn.job.lock:
            self._turn.note_read(None, parts[0])
            value = record.shared.get(parts[0], MISSING)
        try:
            if value is MISSING:
                paths.follow(self._turn.snapshot()[0], parts[:1], path)
            return copy_value(paths.follow(value, parts[1:], path))
        except PathError:
            if default is MISSING:
                raise
            return default

    def set(self, path: str, value: Any) -> None:
        """Set what a path leads to; missing mappings on the way are made.

        Raises:
            PathError: when the path leads beyond a list, or into something that has no parts.
            StateError: when the state has no such field, or refuses the value.
            ConflictError: when this activation had read the first part of the path, and another has changed it since.
            ContextError: outside the handler's turn.
        """
        parts = paths.split(path)
        self._turn.acting("store.set()")
        self._check_field(parts[0])
        self._turn.replace(parts, copy_value(value), path)

    def get_state(self) -> Any:
        """Return a copy of the whole state: a model with a schema, a dict without one."""
        self._turn.acting("store.get_state()")
        self._turn.commit_draft()
        values, _ = self._turn.snapshot()
        schema = self._schema
        if schema is None:
            return copy_payload(values)
        return schema.instance(copy_payload(schema.fields_of(values)))

    def set_state(self, state: BaseModel | Mapping[str, Any]) -> None:
        """Replace the whole state: fields that are not given get their defaults, other keys are removed.

        Raises:
            StateError: when the state does not fit the schema, or is no model and no mapping with string keys.
            ContextError: outside the handler's turn.
        """
        self._turn.acting("store.set_state()")
        self._turn.commit_draft()
        values, _ = self._turn.snapshot()
        schema = self._schema
        if schema is not None:
            self._turn.write(None, schema.initial(state))
            return
        new = plain(state, "store.set_state()")
        self._turn.write(None, copy_payload(new), tuple(key for key in values if key not in new))

    def clear(self) -> None:
        """Remove all keys; with a schema, give every field its default."""
        self.set_state({})

    @contextmanager
    def edit_state(self) -> Iterator[Any]:
        """Edit the state atomically: ``with ctx.store.edit_state() as state: state.count += 1``.

        ``state`` is an isolated copy, a model with a schema and a mapping without one. Only one edit of a job is open
        at a time. It is validated and committed at the end of the block, and dropped when the block raises; events
        emitted inside leave at its end.

        Raises:
            StateError: when the state refuses the change, or edits are nested.
            ConflictError: when a plain write has changed an edited key meanwhile.
            ContextError: outside the handler's turn.
        """
        turn = self._turn
        activation = turn.begin_edit()
        draft: Draft | None = None
        since = 0
        try:
            values, since = turn.snapshot()
            schema = self._schema
            if schema is not None:
                values = schema.fields_of(values)
            draft = Draft(values, touch=lambda key: None)
            yield face_of(draft, schema)
        except BaseException:
            draft = None
            raise
        finally:
            turn.end_edit(activation, draft, since)

    @property
    def _schema(self) -> StateSchema | None:
        schema: StateSchema | None = self._turn.job.plan.state_schema
        return schema

    def _check_field(self, name: str) -> None:
        if self._schema is not None:
            self._schema.check_field(name)
