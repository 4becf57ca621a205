"""What a handler may do to the state of its job during its turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.copying import copy_payload, copy_value
from ..core.job_record import Activation
from ..core.paths import replaced
from ..errors import StateError
from ..graph.origins import Origins, carried, paired
from ..graph.schema import plain
from .drafts import MISSING, Draft, EditDraft, WorkingCopy
from .faces import face_of
from .job import Job
from .state_writes import Area, Change, StateWrites


class StateOperations(StateWrites):
    """Reads, writes, and the working copy.

    ``editing`` is the state inside an open edit, ``given`` the model that was handed out last as a copy of the whole
    state.
    """

    __slots__ = ("editing", "face", "given")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.face: Any = None
        self.given: tuple[Any, Origins] | None = None
        self.editing: EditDraft | None = None

    def acting_for(self, activation: Activation, what: str) -> None:
        """Raise ContextError unless this thread runs this activation now."""
        if self.acting(what) is not activation:
            raise self.not_acting(what)

    def admit(self, draft: Draft) -> None:
        """Raise unless this thread may use a draft now: its activation acts, and the draft is the one to use."""
        if self.acting("the state") is not draft.activation:
            raise self.not_acting("the state")
        if draft is not (self.draft if self.editing is None else self.editing):
            raise StateError(
                f"{draft.where()}: "
                + (
                    "this is the state of an edit that is over; use ctx.state, or edit_state() again"
                    if self.editing is None
                    else "inside edit_state(), read and change the state that it gives (ctx.state is the same there)"
                )
            )

    def still(self, activation: Activation) -> None:
        """Raise ContextError when this thread was given up meanwhile. The caller holds the lock."""
        if self.activation is not activation or not self.here():
            raise self.not_acting("the state")

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, key: str, default: Any) -> Any:
        """Return a value of the shared data, which is not to be changed, or ``default``."""
        activation = self.acting("a read")
        if self.editing is not None:
            if self.schema is not None and key not in self.schema.fields:
                return self.shared.get(key, default)
            return self.editing.load(key) if self.editing.has(key) else default
        self.commit_draft()
        value, revision = self._look(activation, key)
        self._written((key,), {} if value is MISSING else {key: value}, revision, by_another=True)
        return default if value is MISSING else value

    def _look(self, activation: Activation, key: str) -> tuple[Any, int]:
        """Return a value of the shared data, `MISSING` if it is not there, and its revision; note that it was read."""
        with self.job.lock:
            self.still(activation)
            self.note_read(None, key)
            return self.record.shared.get(key, MISSING), self.record.revision

    def read_all(self) -> Any:
        """Return a copy of the whole state: a model with a schema, a dict without one."""
        activation, schema = self.acting("store.get_state()"), self.schema
        if self.editing is not None:
            return copy_value(self.editing.face)
        self.commit_draft()
        values, revision = self.snapshot(activation, read=True)
        if self.draft is not None:
            self.draft.was_read(dict(values), revision)
        copied = copy_payload(values)
        if schema is None:
            return copied
        origins: Origins = {}
        if schema.checked.with_models:
            paired(copied, values, origins)
        self.given = (schema.instance(copied), origins)
        self.touched = True
        return self.given[0]

    def snapshot(self, activation: Activation, *, read: bool = False) -> tuple[dict[str, Any], int]:
        """Return the values of the state as they are, which are not to be changed, and their revision.

        With ``read``, the handler is to be told of a change of any of them by somebody else.
        """
        with self.job.lock:
            self.still(activation)
            if read:
                self.note_read(None, None)
            return self.values(), self.record.revision

    def values(self) -> dict[str, Any]:
        """Return the values of the state as they are in the record. The caller holds the lock."""
        schema = self.schema
        return dict(self.shared) if schema is None else schema.fields_of(self.shared)

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, area: Area, values: dict[str, Any]) -> None:
        """Set keys, unless one that this activation has read was changed by another since."""
        if area is not None:
            self.write_routine_state(area, values)
        else:
            self._write(self._writing("update_shared_data()"), values)

    def replace(self, parts: list[str], value: Any, path: str) -> None:
        """Set what a path into the shared data leads to; the value is nobody else's."""
        activation = self._writing("store.set()")
        first, rest = parts[0], parts[1:]
        if not rest:
            self._write(activation, {first: value})
            return
        self.commit_draft()

        def make(now: Mapping[str, Any]) -> Change:
            current = {} if now[first] is MISSING else now[first]
            if self.schema is None:
                return Change({first: replaced(current, rest, value, path, {})})
            own, origins, made = copy_value(current), Origins(), Origins()  # validators are to see
            paired(own, current, origins)
            new = replaced(own, rest, value, path, made)
            for key, (each, copied) in made.items():
                if id(copied) in origins:
                    origins[key] = (each, origins[id(copied)][1])
            return Change({first: new}, origins=origins)

        written = self.write_shared(activation, (first,), make, depends=(first,), seen=self.path_seen)
        if written is not None:
            self._written(written[0], *written)

    def path_seen(self, key: str) -> int:
        """Return the revision of a key that a change of a part of its value builds on."""
        return self.seen(key)

    def replace_all(self, state: Any) -> None:
        """Set the whole state."""
        activation = self._writing("store.set_state()")
        self.commit_draft()
        schema, where = self.schema, self.where(activation.slot)
        new = plain(state, f"{where}: store.set_state()")
        known = tuple(new) if schema is None else schema.checked.fields
        gone = tuple(key for key in list(self.shared) if key not in new) if schema is None else ()
        origins = self.given[1] if self.given is not None and self.given[0] is state else None

        def make(now: Mapping[str, Any]) -> Change:
            if schema is None:
                return Change(copy_payload(new), gone)
            return Change(schema.replaced(now, state, origins, where), valid=True)

        whole = self.reads.get((None, None))  # what the new state was made from, if it was
        seen = None if whole is None else lambda key: whole
        keys = (*known, *gone)
        written = self.write_shared(activation, keys, make, seen=seen, depends=keys if schema is not None else ())
        if written is not None:
            self._written({**written[0], **dict.fromkeys(gone)}, *written)

    def assign(self, draft: WorkingCopy, key: str, value: Any) -> None:
        """Write a value that was assigned in the working copy."""
        self._write(draft.activation, {key: value}, assigned=True)

    def unset(self, draft: WorkingCopy, key: str) -> None:
        """Write that a key was removed in the working copy."""
        self._write(draft.activation, {}, (key,))

    def commit_draft(self) -> None:
        """Write what was changed in place in the working copy, which goes on to hold it."""
        if self.draft is not None and self.editing is None:
            self._write(self.draft.activation, {})

    def _writing(self, what: str) -> Activation:
        activation = self.acting(what)
        if self.editing is not None:
            raise StateError(
                f"{self.where(activation.slot)}: {what} inside edit_state() would be no part of the edit; change the "
                f"state that edit_state() gives"
            )
        return activation

    def _write(
        self, activation: Activation, values: dict[str, Any], removed: tuple[str, ...] = (), *, assigned: bool = False
    ) -> None:
        """Write values, with what was changed in place before. ``assigned`` ones may be anybody's."""
        draft = self.draft
        pending: dict[str, Any] = {}
        if draft is not None:
            if draft.lost:
                draft.check_lost((*values, *removed))
            changed = draft.changed_in_place()
            pending = {key: now for key, now in changed.items() if key not in values and key not in removed}
        if not pending and not values and not removed:
            return
        taken = {**pending, **values} if assigned else pending  # handlers have hold of these

        def make(now: Mapping[str, Any]) -> Change:
            new, origins = carried(taken, draft.origins) if draft is not None else ({}, {})
            if not assigned:  # the values are nobody else's; validators may change them, and run again
                new.update(values if self.schema is None else copy_payload(values))
            return Change(new, removed, origins)

        keys = (*pending, *values, *removed)
        write = self.write_shared(activation, keys, make, in_place=frozenset(pending))
        if write is None:
            return
        written, revision = write
        if draft is not None:
            for key in pending:
                draft.was_committed(key, written[key], revision)
            if assigned:
                for key, value in values.items():
                    draft.was_assigned(key, value, written[key], revision)
            if not assigned or len(written) > len(taken):
                self._written([key for key in (*written, *removed) if key not in taken], written, revision)

    def _written(
        self, keys: Iterable[str], written: Mapping[str, Any], revision: int, *, by_another: bool = False
    ) -> None:
        """Tell the working copy of the values of keys in the record; those without a value are not there."""
        draft = self.draft
        if draft is not None:
            for key in keys:
                if draft.schema is None or key in draft.schema.fields:
                    draft.was_written(key, written.get(key, MISSING), revision, by_another=by_another)

    # --- the working copy -----------------------------------------------------------------------------------------

    def state(self) -> Any:
        """Return what a handler sees as ``ctx.state``: a model with a schema, else a mapping."""
        activation = self.acting("state")
        if self.editing is not None:
            return self.editing.face
        if self.draft is None:
            draft = WorkingCopy(self, activation, *self.snapshot(activation), self.schema)
            self.face = face_of(draft)
            with self.job.lock:
                self.still(activation)
                self.draft = draft
                self.touched = True
        return self.face
