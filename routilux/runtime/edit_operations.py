"""Atomic edits of the state by a handler, and what is left to do when it has returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.deliveries import deferred, emitted
from ..core.job_record import Activation
from ..core.plan import EventPlan
from ..core.records import Deferred, Emitted
from ..errors import StateError
from ..graph.origins import carried
from .drafts import EditDraft
from .faces import face_of
from .job import Job
from .state_operations import StateOperations
from .state_writes import Change

HeldEmissions = list[tuple[EventPlan, dict[str, Any], bool, bool]]  # event, data, isolate, deferred


class EditOperations(StateOperations):
    """Edits, and the emissions that are held back meanwhile: ``held`` are those that have not left yet."""

    __slots__ = ("held", "held_before")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.held: HeldEmissions | None = None
        self.held_before: HeldEmissions | None = None

    def begin_edit(self, activation: Activation) -> EditDraft:
        """Become the only activation of the job that edits, and return its draft; emissions are held from now on."""
        self.before_edit(activation)
        self.job.edits.take(activation, self.check)
        return self.open_edit(activation)

    def before_edit(self, activation: Activation) -> None:
        """Raise unless this activation may ask to be the one that edits, and commit its working copy."""
        self.acting_for(activation, "store.edit_state()")
        if self.editing is not None:
            raise StateError(f"{self.where(activation.slot)}: edit_state() inside edit_state(): edits cannot be nested")
        self.commit_draft()

    def open_edit(self, activation: Activation) -> EditDraft:
        """Begin an edit of the activation whose turn it is to edit; it is the next one's when that fails."""
        try:
            draft = EditDraft(self, activation, {}, 0, self.schema)
            draft.face = face_of(draft)
            with self.job.lock:
                self.still(activation)
                draft.base, draft.since = self.edit_values(), self.record.revision
                self.held_before = self.held
                self.held = [*(self.held or ())]
                self.editing = draft
                self.touched = True
        except BaseException:
            self.job.edits.give(activation)
            raise
        return draft

    def edit_values(self) -> dict[str, Any]:
        """Return the values that an edit begins with. The caller holds the lock."""
        return self.values()

    def end_edit(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit and let its emissions leave; drop both unless it is kept, or when the commit is refused."""
        try:
            self.close_edit(draft, keep=keep)
        finally:
            self.job.edits.give(draft.activation)

    def close_edit(self, draft: EditDraft, *, keep: bool) -> None:
        """Do as `end_edit` does, without letting the next one edit."""
        activation = draft.activation
        if self.activation is not activation or not self.here() or self.editing is not draft:
            raise self.too_late(activation)
        held, before = self.held or [], self.held_before
        self.editing = None
        self.held = before
        self._check_outside(activation, refuse=keep)
        if not keep:
            self.drop_edit(draft)
            return
        self._commit_edit(draft)
        if before is not None:
            self.held = held
        elif held:
            with self.job.lock:
                self.check(activation)
                self.release(activation, held)

    def drop_edit(self, draft: EditDraft) -> None:
        """An edit is not committed."""

    def _commit_edit(self, draft: EditDraft) -> None:
        changed, removed = draft.changes(), tuple(draft.removed)
        if not changed and not removed:
            return

        def make(now: Mapping[str, Any]) -> Change:
            new, origins = carried(changed, draft.origins)
            return Change(new, removed, origins)

        def seen(key: str) -> int:
            if draft.whole or key in draft.read:
                return draft.since
            outside = self.seen(key)  # what is set here without a look at it may come from an earlier look
            return draft.since if outside < 0 else outside

        written = self.write_shared(draft.activation, (*changed, *removed), make, seen=seen)
        if written is not None:
            self._written((*written[0], *removed), *written)

    def _check_outside(self, activation: Activation, *, refuse: bool) -> None:
        """See to it that what was changed in place in the working copy during an edit is not lost silently."""
        draft = self.draft
        for key in draft.changed_in_place() if draft is not None else ():
            assert draft is not None
            draft.forget(key)
            if refuse:
                raise StateError(
                    f"{self.where(activation.slot)}: key {key!r} was changed through ctx.state inside edit_state(), "
                    f"which is no part of the edit; change the state that edit_state() gives"
                )

    def end_state(self) -> None:
        """Commit what is left to commit when the handler has returned."""
        draft = self.editing
        if draft is None:
            self.commit_draft()
            return
        self.editing, self.held = None, self.held_before
        self.job.edits.give(draft.activation)
        raise StateError(
            f"{draft.where()}: edit_state() was entered and not left, so that the edit was dropped; use "
            f"'with ctx.store.edit_state() as state:'"
        )

    def drop_state(self) -> None:
        """Drop what an attempt that was given up has not committed; its thread is not this turn's any more."""
        with self.job.lock:
            self.draft = self.editing = None

    def forget_state(self) -> None:
        """Forget what an activation has done to the state."""
        self.reads, self.own = {}, {}
        self.draft = self.face = self.given = self.editing = self.held_before = None
        self.touched = False

    def release(self, activation: Activation, held: HeldEmissions) -> None:
        """Let held emissions leave. The caller holds the lock."""
        at = self.job.now()
        for event, data, isolate, later in held:
            if later:
                deferred(self.record, activation, event, data, isolate)
            else:
                emitted(self.record, activation, event, data, isolate, at)
            if self.job.listening.everything:
                made = (activation.id, event.name, data, isolate)
                self.job.note(Deferred(*made) if later else Emitted(*made, at), activation)
        self.job.call()
