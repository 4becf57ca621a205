"""Writes to the state of a job, and what is needed to see that no update is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..core.job_record import Activation
from ..core.machine import wrote
from ..core.records import Wrote
from ..errors import ConflictError
from ..graph.origins import Origins
from ..graph.schema import StateSchema
from .acting import ActingTurn
from .drafts import MISSING, WorkingCopy
from .job import Job

Area = str | None  # a routine id, or None for the shared data
ROUNDS = 8  # how often a write is validated beside what others write, before it is while they wait


class Change(NamedTuple):
    """A change of shared data.

    ``values`` are to be set, ``removed`` are the keys to be removed. ``origins`` tells which instances in the values
    are copies of which in the record. ``valid`` values are not validated again.
    """

    values: dict[str, Any]
    removed: tuple[str, ...] = ()
    origins: Origins | None = None
    valid: bool = False


class StateWrites(ActingTurn):
    """Writes that are refused when they would lose an update.

    ``reads`` and ``own`` hold the revisions at which this activation has read, and itself written, keys of an area (or,
    with None for the key, the whole area). ``draft``, its working copy, knows what was read through it. ``shared`` are
    the shared data as the turn sees them. ``touched`` is set by whatever is to be seen to, or forgotten, when the
    handler has returned.

    A thread whose activation was given up may be anywhere in here. So what others may see is changed under the job's
    lock, after a look at whether it may act, and the rest lies in objects that are made anew for each activation.
    """

    __slots__ = ("draft", "own", "reads", "shared", "touched")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.reads: dict[tuple[Area, str | None], int] = {}
        self.own: dict[tuple[Area, str], int] = {}
        self.draft: WorkingCopy | None = None
        self.touched = False
        self.shared: Mapping[str, Any] = job.record.shared

    @property
    def schema(self) -> StateSchema | None:
        """The schema of the shared data, if they have one."""
        schema: StateSchema | None = self.job.plan.state_schema
        return schema

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision of a key, or of a whole area, was read. The caller holds the lock."""
        self.reads[area, key] = self.record.revision
        self.touched = True

    def routine_state(self, routine_id: str) -> dict[str, Any] | None:
        """Return the values of a routine's state, which are not to be changed; None when it has none."""
        with self.job.lock:
            self.note_read(routine_id, None)
            state = self.record.routine_states.get(routine_id)
            return None if state is None else dict(state)

    def write_routine_state(self, routine_id: str, values: dict[str, Any]) -> None:
        """Set keys of a routine's state."""
        activation = self.acting("a write")
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                self.put(activation, routine_id, tuple(values), values, (), lambda key: self._seen(routine_id, key))
        if self.job.listening.everything:
            self.job.tell()

    def write_shared(
        self,
        activation: Activation,
        keys: tuple[str, ...],
        make: Callable[[Mapping[str, Any]], Change],
        *,
        seen: Callable[[str], int] | None = None,
        depends: tuple[str, ...] = (),
        in_place: frozenset[str] = frozenset(),
    ) -> tuple[dict[str, Any], int] | None:
        """Commit a change of shared data; return what was written, and its revision. None when the job is closed.

        Args:
            activation: the one that writes.
            keys: the keys that it asks for; what validators change with them is not read by anybody before.
            make: makes the change, given the present values of the keys that it depends on, `MISSING` for those that
                are not there. It may be called again.
            seen: tells which revision of a key the activation knows, -1 for none; by default, what it has read.
            depends: the keys that ``make`` depends on.
            in_place: keys whose values were changed in place.
        """
        schema, shared, lock = self.schema, self.shared, self.job.lock
        seen = seen or self.seen
        if schema is None and not depends:
            change = make({})
            with lock:
                written = self._commit(activation, keys, change.values, change.removed, seen)
            if self.job.listening.everything:
                self.job.tell()
            return written
        if schema is not None:
            depends = schema.checked.fields if schema.checked.looks_around else (*depends, *keys)

        def prepared() -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
            now = {key: shared.get(key, MISSING) for key in depends}
            values, removed, origins, valid = make(now)
            if schema is not None and not valid:
                values = schema.changed(now, values, removed, origins or {}, self.where(activation.slot), in_place)
            return now, values, removed

        for _ in range(ROUNDS):
            # Validators may be slow, so that they run beside other writers. Values in the record are replaced, never
            # changed: that they are all still there means that nothing that matters has happened meanwhile.
            now, values, removed = prepared()
            with lock:
                unchanged = self._unchanged(now)
                if unchanged:
                    written = self._commit(activation, keys, values, removed, seen)
            if unchanged:
                break
        else:
            with lock:
                _, values, removed = prepared()
                written = self._commit(activation, keys, values, removed, seen)
        if self.job.listening.everything:
            self.job.tell()
        return written

    def _unchanged(self, now: dict[str, Any]) -> bool:
        """Whether the values of keys are the very ones that they were. The caller holds the lock."""
        shared = self.shared
        return all(shared.get(key, MISSING) is value for key, value in now.items())

    def _commit(
        self,
        activation: Activation,
        keys: tuple[str, ...],
        values: dict[str, Any],
        removed: tuple[str, ...],
        seen: Callable[[str], int],
    ) -> tuple[dict[str, Any], int] | None:
        """Write a change of shared data. The caller holds the lock."""
        self.check(activation)
        if self.record.closed:
            return None
        return values, self.put(activation, None, keys, values, removed, seen)

    def put(
        self,
        activation: Activation,
        area: Area,
        keys: tuple[str, ...],
        values: dict[str, Any],
        removed: tuple[str, ...],
        seen: Callable[[str], int],
    ) -> int:
        """Put a change into the record, unless it would lose one of somebody else's; return its revision.

        The caller holds the lock.
        """
        for key in keys:
            self.check_conflict(activation, area, key, seen(key))
        wrote(self.record, area, values, removed)
        if self.job.listening.everything:
            self.job.note(Wrote(area, values, removed))
        revision = self.record.revision
        for key in (*values, *removed):
            self.own[area, key] = revision
        self.touched = True
        return revision

    def seen(self, key: str) -> int:
        """Return the latest revision of a key of the shared data that this activation has read; -1 for none."""
        read = self._seen(None, key)
        return read if self.draft is None else max(read, self.draft.seen(key))

    def _seen(self, area: Area, key: str) -> int:
        return max(self.reads.get((area, key), -1), self.reads.get((area, None), -1))

    def check_conflict(self, activation: Activation, area: Area, key: str, seen: int) -> None:
        """Raise ConflictError when another activation has changed a key since this revision (-1: it was not read)."""
        version = self.record.versions.get((area, key), 0)
        if 0 <= seen < version and self.own.get((area, key)) != version:
            what = f"shared data {key!r}" if area is None else f"key {key!r} of the state of routine {area!r}"
            raise ConflictError(
                f"{self.where(activation.slot)}: {what} was changed by another activation after this one had read it; "
                f"writing now would lose that change. Change it inside 'with ctx.store.edit_state() as state:', or let "
                f"the activation run again (ErrorStrategy.RETRY)"
            )
