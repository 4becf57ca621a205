"""What a turn of a durable job does, put together until it commits, and what it sees meanwhile.

A turn that runs again up to its last point sees what it saw before: what it read is kept with its points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.copying import ATOMS, copy_payload
from ..core.job_record import Activation
from ..core.points import Point, Read, Wait
from ..core.records import Logged, Sent
from ..errors import ExecutionError, Suspend
from .batching import COPY, EDIT, LOOK, PendingBatch, SharedView, over
from .committing import Committing
from .drafts import MISSING, Draft, EditDraft
from .durable_job import DurableJob
from .read_forms import WHAT, form_of, value_of
from .state_writes import Area

NO_POINTS: list[Point] = []
NOTHING: dict[str, Any] = {}


class DurableState(Committing):
    """The batch that a turn of a durable job is making, and the state of the job as the turn sees it.

    ``points`` are those that the turn had when it began, ``place`` counts those that it has reached. ``waits_for`` is
    set when the handler is left because it waits, ``refused`` when a commit was refused, which fails the activation.
    """

    job: DurableJob
    pending: PendingBatch
    points: list[Point]
    place: int
    waits_for: tuple[str, Wait] | None
    refused: Exception | None
    copied: dict[str, Any]
    copy_noted: set[str | None]
    edit_base: dict[str, Any]
    error: BaseException | None

    def prepare(self) -> None:
        """Make ready for the first activation."""
        self.pending = PendingBatch()
        self.shared = SharedView(self)

    def begin(self, activation: Activation) -> None:
        """Make ready for an activation."""
        self.held = []
        if not self.pending.clean:
            self.pending = PendingBatch()
        points = self.record.points
        self.points = points.get(activation.id, NO_POINTS)[:] if points else NO_POINTS
        if self.points:
            self.own = {key: revision for point in self.points for key, revision in point.own.items()}
            self.touched = True
        self.place = 0
        self.waits_for = None
        self.refused = None
        self.copied = NOTHING
        self.copy_noted = set()

    @property
    def replaying(self) -> bool:
        """Whether the handler is not yet past the last point that it had reached before."""
        return self.place < len(self.points)

    def check(self, activation: Activation) -> None:
        """Raise when the activation may not act any more."""
        if self.waits_for is not None:
            raise self.suspension()
        refused = self.refused or self.job.halted
        if refused is not None:
            raise refused
        if self.record.running.get(activation.id) is not activation:
            raise self.too_late(activation)

    def suspension(self) -> Suspend:
        """Return what leaves the handler because it waits."""
        assert self.waits_for is not None
        assert self.activation is not None
        return Suspend(
            f"{self.where(self.activation.slot)} waits at {self.waits_for[0]!r}: the handler is left, and runs again "
            f"from its start when that is over, with all steps as they were. This is no error: let it pass (catch "
            f"'Exception', never 'BaseException'); what a 'finally' block does to the job meanwhile is refused"
        )

    # --- what the handler does ----------------------------------------------------------------------------------------

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine when the turn commits; it does by itself when many wait for that."""
        activation, held = self.activation, self.held
        if activation is None or not self.here():
            raise self.not_acting(f"emit({event_name!r})")
        assert held is not None
        self.check(activation)
        event = self._event(activation.slot, event_name, params)
        isolate = False
        if self.job.plan.copy_payloads:
            for value in params.values():
                if value.__class__ not in ATOMS:
                    params, isolate = copy_payload(params), True
                    break
        held.append((event, params, isolate, False))
        if len(held) >= self.job.max_pending and self.editing is None:
            self.overflow()

    def overflow(self) -> None:
        """Commit, because many emissions wait for it."""
        raise NotImplementedError

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs when the turn commits."""
        activation = self.acting(f"send_output({output_type!r})")
        self.check(activation)
        if not isinstance(output_type, str):
            raise ExecutionError(f"{self.where(activation.slot)}: output_type must be a string, not {output_type!r}")
        self.pending.outputs.append(Sent(activation.slot.routine_id, output_type, copy_payload(data), self.job.now()))

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log when the turn commits."""
        self.check(self.acting("append_to_shared_log()"))
        self.pending.log.append(Logged(entry, self.job.now()))

    def own_log(self) -> list[Logged]:
        """Return what this turn has logged and not yet committed."""
        return self.pending.log

    # --- the state, as this turn sees it ------------------------------------------------------------------------------

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision was read: that of the first look since the last point."""
        known = self.pending.looked.get((area, key))
        self.reads[area, key] = self.record.revision if known is None else known[1]
        self.touched = True

    def _look(self, activation: Activation, key: str) -> tuple[Any, int]:
        own = self.pending.own(None)
        found = (own[key], self._present()) if key in own else self._looked(None, key)
        with self.job.lock:
            self.still(activation)
            self.reads[None, key] = found[1]
            self.touched = True
        return found

    def glance(self, key: str) -> Any:
        """Return a value of the shared data as this turn sees it, `MISSING` if it is not there. No read is noted."""
        own = self.pending.own(None)
        return own[key] if key in own else self._looked(None, key)[0]

    def _looked(self, area: Area, key: str | None) -> tuple[Any, int]:
        looked = self.pending.looked
        known = looked.get((area, key))
        if known is None and key is not None and (area, None) in looked:
            whole, revision = looked[area, None]
            return ({} if whole is None else whole).get(key, MISSING), revision
        if known is None:
            known = self._recalled(area, key)
        if known is None:
            with self.job.lock:
                values: Mapping[str, Any] | None = self.record.shared
                if area is not None:
                    values = self.record.routine_states.get(area)
                if key is None:
                    known = (None if values is None else self._as_looked(area, values), self.record.revision)
                else:
                    known = ((values or {}).get(key, MISSING), self.record.revision)
        looked[area, key] = known
        return known

    def _as_looked(self, area: Area, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values as they are, but those that this turn has looked at since its last point as they were."""
        found = dict(values)
        for (looked_area, key), (value, _) in self.pending.looked.items():
            if looked_area == area and key is not None:
                found[key] = value
        return {key: value for key, value in found.items() if value is not MISSING}

    def seen(self, key: str) -> int:
        """Return the latest revision of a key that this turn has read, or shown again since its last point."""
        return self._as_shown(None, key, super().seen(key))

    def _seen(self, area: Area, key: str) -> int:
        return self._as_shown(area, key, super()._seen(area, key))

    def _as_shown(self, area: Area, key: str, seen: int) -> int:
        known = self.pending.looked.get((area, key))
        return seen if known is None else min(seen, known[1])

    def _recalled(self, area: Area, key: str | None) -> tuple[Any, int] | None:
        """Return what the handler saw when it came to the next point for the first time."""
        if self.replaying:
            for read in self.points[self.place].reads:
                if read.source == LOOK and (read.area, read.key) == (area, key):
                    return self._decoded(read), read.revision
        return None

    def _decoded(self, read: Read) -> Any:
        if not read.form:
            return MISSING
        if read.area is not None:
            return self.job.decode(read.form[0], WHAT)
        return value_of(self.job, self.schema, read.key, read.form, self.record.shared)

    def routine_state(self, routine_id: str) -> dict[str, Any] | None:
        """Return the values of a routine's state as this turn sees it; None when it has none."""
        own = self.pending.own(routine_id)
        state, revision = self._looked(routine_id, None)
        self.reads[routine_id, None] = revision
        self.touched = True
        return None if state is None and not own else over(state or {}, own)

    def snapshot(self, activation: Activation, *, read: bool = False) -> tuple[dict[str, Any], int]:
        """Return the values of the state as this turn sees them, and their revision."""
        own, schema = self.pending.own(None), self.schema
        if read:
            values, revision = self._looked(None, None)
            self.reads[None, None] = revision
            self.touched = True
        else:
            with self.job.lock:
                self.still(activation)
                values, revision = dict(self.record.shared), self.record.revision
            for point in reversed(self.points[self.place :]):
                values = self._as_read(values, [read for read in reversed(point.reads) if read.source == COPY])
            self.copied = values
        values = over(values, own)
        return (values if schema is None else schema.fields_of(values)), revision

    def commit_changes(self, error: BaseException | None) -> BaseException | None:
        """Gather in-place changes of the state. A bad one fails the activation and takes the batch with it."""
        try:
            self.end_state()
        except Exception as refused:
            if error is None:
                self.refused = refused
            self.drop()
            return error or refused
        return error

    def state(self) -> Any:
        """Return what a handler sees as ``ctx.state``."""
        made = self.draft is None and self.editing is None
        face = super().state()
        if made and self.draft is not None:
            for point in self.points[self.place :]:
                for each in point.reads:
                    if each.source == COPY and each.key is not None:
                        self.draft.newer.setdefault(each.key, each.revision)
                    elif each.source == COPY:  # it has not seen the keys that came since
                        self.draft.since = min(self.draft.since, each.revision)
        return face

    def path_seen(self, key: str) -> int:
        """Return the revision of a key that a change of a part of its value builds on."""
        looked = self.pending.looked.get((None, key))
        return max(self.seen(key), -1 if looked is None else looked[1])

    def put(
        self,
        activation: Activation,
        area: Area,
        keys: tuple[str, ...],
        values: dict[str, Any],
        removed: tuple[str, ...],
        seen: Any,
    ) -> int:
        """Gather a write; whether it loses somebody else's is known when it is committed."""
        for key in keys:
            self.pending.seen.setdefault((area, key), seen(key))
        self.pending.put(area, values, removed)
        return self._present()

    def _present(self) -> int:
        """Return the revision that the turn knows its own writes at: one before all while it is replayed.

        What others have written since it made them for the first time, it has not seen.
        """
        return 0 if self.replaying else self.record.revision

    # --- edits --------------------------------------------------------------------------------------------------------

    def edit_values(self) -> dict[str, Any]:
        """Return the values that an edit begins with: those that it had, when it is replayed."""
        values = dict(self.record.shared)
        if self.replaying:
            reads = self.points[self.place].reads
            dropped = self._dropped_edit()
            source = dropped if any(read.source == dropped for read in reads) else EDIT
            values = self._as_read(values, [read for read in reads if read.source == source])
        self.edit_base = values
        values = over(values, self.pending.own(None))
        return values if self.schema is None else self.schema.fields_of(values)

    def writes_pending(self) -> bool:
        """Whether this turn has written to the shared data and not committed that."""
        self.commit_draft()
        return bool(self.pending.own(None))

    def _as_read(self, values: dict[str, Any], reads: Iterable[Read]) -> dict[str, Any]:
        """Return values with those that were read in the place of those that are there now."""
        values, names = dict(values), None
        for read in reads:
            if read.key is None:  # which keys there were, in their order
                names = self.job.decode(read.form[0], WHAT)
            else:
                values[read.key] = self._decoded(read)
        return values if names is None else {name: values[name] for name in names if name in values}

    def _dropped_edit(self) -> str:
        """Return the source of what the next edit reads, if that is dropped: one that leads to no point of its own."""
        return f"{EDIT} {self.pending.dropped}"

    def drop_edit(self, draft: EditDraft) -> None:
        """Keep what a dropped edit has read with the next point: its body runs again when the turn does."""
        if not self.replaying:
            self._note_draft(draft, self.edit_base, set(), self._dropped_edit())
        self.pending.dropped += 1

    def _commit_edit(self, draft: EditDraft) -> None:
        before = len(self.pending.reads)
        self._note_draft(draft, self.edit_base, set(), EDIT)
        try:
            super()._commit_edit(draft)
        except BaseException:
            del self.pending.reads[before:]
            self.drop_edit(draft)
            raise

    def _note_draft(self, draft: Draft, base: Mapping[str, Any], noted: set[str | None], source: str) -> None:
        keys = {*base, *draft.known()} if draft.whole else draft.known()
        if draft.whole and self.schema is None and None not in noted:
            noted.add(None)
            form = [self.job.encode(list(base), WHAT)]
            self.pending.reads.append(Read(None, None, form, draft.since, source))
        for key in sorted(keys):
            if key not in noted and (self.schema is None or key in self.schema.fields):
                noted.add(key)
                self._keep_read(None, key, base.get(key, MISSING), draft.since, source)

    def _keep_read(self, area: Area, key: str | None, value: Any, revision: int, source: str) -> None:
        form: list[Any] | None = []
        if area is not None:
            form = [self.job.encode(value, WHAT)]
        elif value is not MISSING:
            form = form_of(self.job, self.schema, key, value)
        if form is not None:
            self.pending.reads.append(Read(area, key, form, revision, source))

    def drop(self) -> None:
        """Forget what was put together."""
        self.pending = PendingBatch()
        self.held = []
