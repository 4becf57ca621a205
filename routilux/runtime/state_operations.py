"""What a handler may do to the state of its job during its turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.copying import copy_payload
from ..core.job_record import Activation
from ..core.machine import deferred, emitted, wrote
from ..core.paths import replaced
from ..core.plan import EventPlan
from ..core.records import Deferred, Emitted
from ..errors import ConflictError, StateError
from ..graph.schema import checked_change
from .acting import ActingTurn
from .drafts import Draft, face_of
from .job import Job

Area = str | None  # a routine id, or None for the shared data
Change = Callable[[dict[str, Any]], tuple[dict[str, Any], tuple[str, ...]]]  # shared data -> what to set, and remove
HeldEmissions = list[tuple[EventPlan, dict[str, Any], bool, bool]]  # event, data, isolate, deferred


class StateOperations(ActingTurn):
    """Writes, the working copy, and edits, with what is needed to see that no update is lost.

    ``reads`` and ``own`` hold the revisions at which this activation has read, and itself written, keys of an area (or,
    with None for the key, the whole area). ``held`` are emissions that have not left yet.
    """

    __slots__ = ("draft", "editing", "face", "held", "held_before", "own", "reads")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.held: HeldEmissions | None = None
        self.reads: dict[tuple[Area, str | None], int] = {}
        self.own: dict[tuple[Area, str], int] = {}
        self.draft: Draft | None = None
        self.face: Any = None
        self.editing = False
        self.held_before: HeldEmissions | None = None

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision of a key, or of a whole area, was read. The caller holds the lock."""
        self.reads[area, key] = self.record.revision

    def write(self, area: Area, values: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
        """Set and remove keys, unless one that this activation has read was changed by another since."""
        activation = self.acting("a write")
        if area is None:
            self.commit_draft()
        self._write(activation, area, lambda shared: (values, removed))

    def replace(self, parts: list[str], value: Any, path: str) -> None:
        """Set what a path into the shared data leads to."""
        activation = self.acting("store.set()")
        self.commit_draft()
        first, rest = parts[0], parts[1:]

        def make(shared: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
            return {first: replaced(shared.get(first, {}), rest, value, path)}, ()

        self._write(activation, None, make)

    def snapshot(self) -> tuple[dict[str, Any], int]:
        """Return the shared data as they are, not copied, and their revision."""
        with self.job.lock:
            return dict(self.record.shared), self.record.revision

    def _write(self, activation: Activation, area: Area, make: Change, since: int | None = None) -> None:
        """Commit what ``make`` makes of the shared data; again, when they have changed while it was checked.

        ``since`` is the revision that an edit began with; without it, what was read when is known key by key.
        """
        record, schema = self.record, self.job.plan.state_schema if area is None else None
        while True:
            # Values in the record are replaced, never changed, so they can be read without the lock; whether they
            # were all of one moment is checked afterwards.
            revision = record.revision
            values, removed = make(record.shared)
            if schema is not None:
                values = checked_change(schema, record.shared, values, removed)
            with self.job.lock:
                self.check(activation)
                if record.closed:
                    return
                if area is None and revision != record.revision:
                    continue
                for key in (*values, *removed):
                    self._check_conflict(activation, area, key, since)
                wrote(record, area, values, removed)
                for key in (*values, *removed):
                    self.own[area, key] = record.revision
            if self.draft is not None and area is None:
                if schema is not None:
                    values = {key: value for key, value in values.items() if key in schema.fields}
                self.draft.renew(values, removed)
            return

    def _check_conflict(self, activation: Activation, area: Area, key: str, since: int | None) -> None:
        seen = since
        if seen is None:
            seen = max(self.reads.get((area, key), -1), self.reads.get((area, None), -1))
        version = self.record.versions.get((area, key), 0)
        if 0 <= seen < version and self.own.get((area, key)) != version:
            raise self._conflict(activation, area, key)

    # --- the working copy, and edits ------------------------------------------------------------------------------

    def state(self) -> Any:
        """Return the working copy of the state for this activation: a model with a schema, else a mapping."""
        self.acting("state")
        schema = self.job.plan.state_schema
        if self.draft is None:
            values, since = self.snapshot()
            if schema is not None:
                values = schema.fields_of(values)

            def touch(key: str) -> None:
                self.reads[None, key] = since

            def assign(values: dict[str, Any], removed: tuple[str, ...]) -> None:
                self.write(None, copy_payload(values), removed)

            self.draft = Draft(values, touch, assign)
            self.face = face_of(self.draft, schema)
        return self.face

    def commit_draft(self) -> None:
        """Write what was changed in place, which the draft goes on to hold."""
        draft = self.draft
        if draft is not None:
            changes = copy_payload(draft.changes())
            if changes:
                self.draft = None  # it is not to be renewed by its own changes
                try:
                    self._write(self.acting("a write"), None, lambda shared: (changes, ()))
                finally:
                    self.draft = draft
                draft.committed({key: self.record.shared.get(key) for key in changes})

    def begin_edit(self) -> Activation:
        """Become the only activation of the job that edits, and return it; emissions are held from now on."""
        activation = self.before_edit()
        self.job.edits.take(activation, self.check)
        self.edit_begun()
        return activation

    def before_edit(self) -> Activation:
        """Return the activation, which may ask to be the one that edits."""
        activation = self.acting("store.edit_state()")
        self.commit_draft()
        if self.editing:
            raise StateError(f"{self.where(activation.slot)}: edit_state() inside edit_state(): edits cannot be nested")
        return activation

    def edit_begun(self) -> None:
        """Note that this activation edits; its emissions are held from now on."""
        self.editing = True
        self.held_before = self.held
        self.held = [*(self.held or ())]

    def end_edit(self, activation: Activation, draft: Draft | None, since: int) -> None:
        """Commit an edit and let its emissions leave; drop both without a draft, or when the commit is refused."""
        if self.activation is not activation or not self.here():
            self.job.edits.give(activation)
            raise self.too_late(activation)
        held, before = self.held or [], self.held_before
        self.editing = False
        self.held = before
        try:
            if draft is not None:
                values, removed = copy_payload(draft.changes()), tuple(draft.removed)
                if values or removed:
                    self._write(activation, None, lambda shared: (values, removed), since)
                if before is not None:
                    self.held = held
                else:
                    with self.job.lock:
                        self.check(activation)
                        self.release(activation, held)
        finally:
            self.job.edits.give(activation)

    def release(self, activation: Activation, held: HeldEmissions) -> None:
        """Let held emissions leave. The caller holds the lock."""
        at = self.job.now()
        for event, data, isolate, later in held:
            if later:
                deferred(self.record, activation, event, data, isolate)
            else:
                emitted(self.record, activation, event, data, isolate, at)
            if self.noting:
                made = (activation.delivery.id, event.name, data, isolate)
                self.job.note(Deferred(*made) if later else Emitted(*made, at), activation)
        self.job.call()

    def _conflict(self, activation: Activation, area: Area, key: str) -> ConflictError:
        what = f"shared data {key!r}" if area is None else f"key {key!r} of the state of routine {area!r}"
        return ConflictError(
            f"{self.where(activation.slot)}: {what} was changed by another activation after this one had read it; "
            f"writing now would lose that change. Change it inside 'with ctx.store.edit_state() as state:', or let the "
            f"activation run again (ErrorStrategy.RETRY)"
        )
