"""``ctx.store``: the shared data of a job by dotted paths, and atomic edits of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Protocol

from ..core import paths
from ..core.copying import copy_value
from ..core.job_record import Activation
from ..core.models import BaseModel
from ..core.plan import SlotPlan
from ..errors import ContextError, PathError, StateError
from .drafts import MISSING, EditDraft
from .job import Job


class Acting(Protocol):
    """A turn, as far as a store knows it."""

    job: Job
    shared: Mapping[str, Any]

    def acting_for(self, activation: Activation, what: str) -> None:
        """Raise ContextError unless this thread runs this activation now."""

    def where(self, slot: SlotPlan) -> str:
        """Return the flow, routine and slot as they stand in error messages."""

    def read(self, key: str, default: Any) -> Any:
        """Return a value of the shared data, which is not to be changed, or ``default``."""

    def read_all(self) -> Any:
        """Return a copy of the whole state."""

    def replace(self, parts: list[str], value: Any, path: str) -> None:
        """Set what a path leads to."""

    def replace_all(self, state: Any) -> None:
        """Set the whole state."""

    def begin_edit(self, activation: Activation) -> EditDraft:
        """Become the only one that edits, and return the draft of the edit."""

    def end_edit(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, or drop it."""


class Store:
    """The shared data of the job that a handler runs in.

    A path names a key, then string keys, indices and model fields inside its value, joined by dots: ``"cart.items.0"``.
    What is read is a copy, what is set is copied. Under a ``state_schema`` the first part must be one of its fields,
    and what is written is validated.

    Inside ``edit_state()``, what is read is the state of the edit, and only that state can be changed.
    """

    __slots__ = ("_activation", "_turn")

    def __init__(self, turn: Acting, activation: Activation) -> None:
        self._turn = turn
        self._activation = activation

    def get(self, path: str, default: Any = MISSING) -> Any:
        """Return a copy of what a path leads to, or ``default``.

        Raises:
            PathError: when something on the way is missing and there is no default.
            StateError: when the state has no such field.
            ContextError: outside the handler's turn.
        """
        parts = self._begin(path, "store.get()")
        value = self._turn.read(parts[0], MISSING)
        try:
            if value is MISSING:
                if default is not MISSING:
                    return default
                with self._turn.job.lock:
                    known = dict.fromkeys(self._turn.shared)
                known.pop(parts[0], None)  # it may have come just now
                paths.follow(known, parts[:1], path)
            return copy_value(paths.follow(value, parts[1:], path))
        except PathError as error:
            if default is MISSING:
                raise self._placed(error) from None
            return default

    def set(self, path: str, value: Any) -> None:
        """Set what a path leads to; missing mappings on the way are made, tuples on the way are made anew.

        Raises:
            PathError: when the path leads beyond a list, or into something that has no parts.
            StateError: when the state has no such field, or refuses the value; inside ``edit_state()``.
            ConflictError: when this activation had read the first part of the path, and another has changed it since.
            ContextError: outside the handler's turn.
        """
        parts = self._begin(path, "store.set()")
        try:
            self._turn.replace(parts, copy_value(value), path)
        except PathError as error:
            raise self._placed(error) from None

    def get_state(self) -> Any:
        """Return a copy of the whole state: a model with a schema, a dict without one.

        A model's private attributes are set up, and its ``model_post_init`` is called, as in any new instance; what it
        does to fields does not count.
        """
        self._turn.acting_for(self._activation, "store.get_state()")
        return self._turn.read_all()

    def set_state(self, state: BaseModel | Mapping[str, Any]) -> None:
        """Replace the whole state: fields that are not given get their defaults, other keys are removed.

        Raises:
            StateError: when the state does not fit the schema, or is no model and no mapping with string keys; inside
                ``edit_state()``.
            ConflictError: when this activation had read what another has changed since.
            ContextError: outside the handler's turn.
        """
        self._turn.acting_for(self._activation, "store.set_state()")
        self._turn.replace_all(state)

    def clear(self) -> None:
        """Remove all keys; with a schema, give every field its default."""
        self.set_state({})

    def edit_state(self) -> Edit:
        """Edit the state atomically: ``with ctx.store.edit_state() as state: state.count += 1``.

        ``state`` is an isolated copy, a model with a schema and a mapping without one. Only one edit of a job is open
        at a time. It is validated and committed at the end of the block, and dropped when the block raises; events
        emitted inside leave at its end. Routine states, log entries and outputs are no part of the edit: they are
        written at once, and stay when it is dropped.

        Raises, when the block begins or ends:
            StateError: when the state refuses the change, or edits are nested.
            ConflictError: when a plain write has changed an edited key meanwhile.
            ContextError: outside the handler's turn.
        """
        self._turn.acting_for(self._activation, "store.edit_state()")
        return Edit(self._turn, self._activation)

    def _begin(self, path: str, what: str) -> list[str]:
        self._turn.acting_for(self._activation, what)
        try:
            parts = paths.split(path)
        except PathError as error:
            raise self._placed(error) from None
        schema = self._turn.job.plan.state_schema
        if schema is not None and parts[0] not in schema.fields:
            schema.check_field(parts[0], self._turn.where(self._activation.slot))
        return parts

    def _placed(self, error: PathError) -> PathError:
        return PathError(f"{self._turn.where(self._activation.slot)}: {error}")


class PendingEdit:
    """What ``edit_state()`` returns, until it is entered: it is not the state."""

    __slots__ = ("_activation", "_draft", "_turn")
    _activation: Activation
    _draft: EditDraft | None
    _usage = "with ctx.store.edit_state() as state:"

    def __init__(self, turn: Acting, activation: Activation) -> None:
        object.__setattr__(self, "_turn", turn)
        object.__setattr__(self, "_activation", activation)
        object.__setattr__(self, "_draft", None)

    def _begun(self, draft: EditDraft) -> Any:
        object.__setattr__(self, "_draft", draft)
        return draft.face

    def _ended(self) -> EditDraft:
        draft = self._draft
        if draft is None:
            raise ContextError(f"{self._where()}: edit_state() is left without having been entered")
        object.__setattr__(self, "_draft", None)
        return draft

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        self._refuse()

    def __getitem__(self, key: Any) -> NoReturn:
        self._refuse()

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self._refuse()

    def __delitem__(self, key: Any) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StateError(f"{self._where()}: edit_state() is entered with '{self._usage}'")

    def _where(self) -> str:
        turn: Acting = self._turn
        return turn.where(self._activation.slot)


class Edit(PendingEdit):
    """An edit of the state by a plain handler. Made by `Store.edit_state`; ``with`` gives the state to edit."""

    __slots__ = ()
    _turn: Acting

    def __enter__(self) -> Any:
        return self._begun(self._turn.begin_edit(self._activation))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.end_edit(self._ended(), keep=kind is None)

    async def __aenter__(self) -> NoReturn:
        raise StateError(f"{self._where()}: this is a plain handler: use '{self._usage}'")

    async def __aexit__(self, *raised: object) -> None:
        pass
