"""What a handler may do during its turn.

Each operation checks that its activation may still act: it runs in the handler's own thread, and the record says that
exactly this attempt is running. So a handler whose time was up, or whose job has failed meanwhile, is refused whatever
it still tries, without anybody having to stop its thread.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from typing import Any

from ..core.copying import ATOMS, copy_payload, copy_value, needs_copy
from ..core.job_record import Activation
from ..core.machine import deferred, emitted, logged, sent, wrote
from ..core.paths import replaced
from ..core.plan import EventPlan, SlotPlan
from ..errors import ConflictError, ContextError, ExecutionError, PayloadError, StateError, known_names
from ..graph.schema import checked_change
from ..routine.binding import shortened
from .context import Context
from .drafts import Draft, face_of
from .job import Job

Area = str | None  # a routine id, or None for the shared data
Change = Callable[[dict[str, Any]], tuple[dict[str, Any], tuple[str, ...]]]  # shared data -> what to set, and remove
HeldEmissions = list[tuple[EventPlan, dict[str, Any], bool, bool]]  # event, data, isolate, deferred


class Operations:
    """The operations of the activation that one thread runs, ``activation``, and what they have gathered so far."""

    __slots__ = (
        "activation",
        "draft",
        "editing",
        "face",
        "finish_with",
        "held",
        "held_before",
        "job",
        "own",
        "reads",
        "record",
        "routine",
        "thread",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.record = job.record
        self.thread = get_ident()
        self.activation: Activation | None = None
        self.routine: Any = None
        self.held: HeldEmissions | None = None
        self.reads: dict[tuple[Area, str | None], int] = {}
        self.own: dict[tuple[Area, str], int] = {}
        self.finish_with: tuple[Any] | None = None
        self.draft: Draft | None = None
        self.face: Any = None
        self.editing = False
        self.held_before: HeldEmissions | None = None

    def relieve(self) -> None:
        """Let the queue get shorter before the handler goes on emitting."""
        raise NotImplementedError

    def context(self) -> Context:
        """Return the context of the activation that this thread runs."""
        return Context(self, self.acting("get_execution_context()"))

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine that runs; see `Routine.emit`."""
        activation = self.activation
        if activation is None or get_ident() != self.thread:
            raise self.not_acting(f"emit({event_name!r})")
        event = self._event(activation.slot, event_name, params)
        isolate = False
        if self.job.plan.copy_payloads:
            for value in params.values():
                if value.__class__ not in ATOMS:
                    params, isolate = copy_payload(params), True
                    break
        job, record = self.job, self.record
        gate = job.lock
        if not gate.try_enter(False):
            gate.enter()
        try:
            if record.running.get(activation.delivery.id) is not activation:
                raise self._too_late(activation)
            if self.held is not None:
                self.held.append((event, params, isolate, False))
                return
            emitted(record, activation, event, params, isolate, job.now())
            if record.ready:
                if job.crew_size < job.max_workers:
                    job.call()
                if job.pressed:
                    job.settle()
        finally:
            gate.leave()
            if gate.waiting:
                gate.ring()
        # Replacing the delivery that it came from is an activation's right: only what is more presses.
        if record.queued > job.max_pending and (activation.emitted > 1 or len(event.routes) > 1):
            self.relieve()

    def emit_deferred(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event when the job is resumed; see `Routine.emit_deferred_event`."""
        activation = self.acting(f"emit_deferred_event({event_name!r})")
        event = self._event(activation.slot, event_name, params)
        isolate = self.job.plan.copy_payloads and needs_copy(params)
        data = copy_payload(params) if isolate else params
        with self.job.lock:
            self.check(activation)
            if self.held is not None:
                self.held.append((event, data, isolate, True))
            else:
                deferred(self.record, activation, event, data, isolate)

    def finish(self, result: Any) -> None:
        """End the job as completed when this turn has succeeded."""
        activation = self.acting("finish()")
        value = copy_value(result)
        with self.job.lock:
            self.check(activation)
            self.finish_with = (value,)

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs."""
        activation = self.acting(f"send_output({output_type!r})")
        if not isinstance(output_type, str):
            raise ExecutionError(f"{self.where(activation.slot)}: output_type must be a string, not {output_type!r}")
        data = copy_payload(data)
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                sent(self.record, activation.slot.routine_id, output_type, data, self.job.now())

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log."""
        activation = self.acting("append_to_shared_log()")
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                logged(self.record, entry, self.job.now())

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision of a key, or of a whole area, was read. The caller holds the lock."""
        self.reads[area, key] = self.record.revision

    def write(self, area: Area, values: dict[str, Any], removed: tuple[str, ...] = ()) -> None:
        """Set and remove keys, unless one that this activation has read was changed by another since."""
        activation = self.acting("a write")
        self._write(activation, area, lambda shared: (values, removed))

    def replace(self, parts: list[str], value: Any, path: str) -> None:
        """Set what a path into the shared data leads to."""
        activation = self.acting("store.set()")
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

    # --- the state as a draft, and edits --------------------------------------------------------------------------

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
        """Write what was changed in place."""
        if self.draft is not None:
            changes = self.draft.changes()
            if changes:
                self.write(None, copy_payload(changes))

    def begin_edit(self) -> Activation:
        """Become the only activation of the job that edits, and return it; emissions are held from now on."""
        activation = self.acting("store.edit_state()")
        if self.editing:
            raise StateError(f"{self.where(activation.slot)}: edit_state() inside edit_state(): edits cannot be nested")
        self.job.take_edit(activation, self.check)
        self.editing = True
        self.held_before = self.held
        self.held = [*(self.held or ())]
        return activation

    def end_edit(self, activation: Activation, draft: Draft | None, since: int) -> None:
        """Commit an edit and let its emissions leave; drop both without a draft, or when the commit is refused."""
        if self.activation is not activation or get_ident() != self.thread:
            self.job.give_edit(activation)
            raise self._too_late(activation)
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
            self.job.give_edit(activation)

    def release(self, activation: Activation, held: HeldEmissions) -> None:
        """Let held emissions leave. The caller holds the lock."""
        at = self.job.now()
        for event, data, isolate, later in held:
            if later:
                deferred(self.record, activation, event, data, isolate)
            else:
                emitted(self.record, activation, event, data, isolate, at)
        self.job.call()

    # --- checks and errors ------------------------------------------------------------------------------------

    def _event(self, slot: SlotPlan, event_name: str, params: dict[str, Any]) -> EventPlan:
        try:
            event = slot.node.events[event_name]
        except (KeyError, TypeError):  # unknown, or not even hashable
            raise self._undeclared(slot, event_name, params) from None
        if event.params is not None and not params.keys() <= event.params:
            raise self._undeclared(slot, event_name, params)
        return event

    def acting(self, what: str) -> Activation:
        """Return the activation that runs; raise ContextError elsewhere or later."""
        activation = self.activation
        if activation is None or get_ident() != self.thread:
            raise self.not_acting(what)
        return activation

    def check(self, activation: Activation) -> None:
        """Raise ContextError when the activation may not act any more. The caller holds the lock."""
        if self.record.running.get(activation.delivery.id) is not activation:
            raise self._too_late(activation)

    def where(self, slot: SlotPlan) -> str:
        """Return the flow, routine and slot as they stand in error messages."""
        return f"flow {self.job.plan.flow_id!r}, routine {slot.routine_id!r}, slot {slot.name!r}"

    def not_acting(self, what: str) -> ContextError:
        """Return the error for an operation outside the turn."""
        return ContextError(
            f"flow {self.job.plan.flow_id!r}: {what} belongs to a handler's own thread, while that handler runs; "
            f"this is another thread, or the handler has returned"
        )

    def _too_late(self, activation: Activation) -> ContextError:
        return ContextError(
            f"{self.where(activation.slot)}: attempt {activation.attempt} is over for its job, because its time was "
            f"up; what the handler still does is refused"
        )

    def _undeclared(self, slot: SlotPlan, event_name: str, params: dict[str, Any]) -> PayloadError:
        events = slot.node.events
        routine = f"flow {self.job.plan.flow_id!r}: routine {slot.routine_id!r}"
        if not isinstance(event_name, str) or event_name not in events:
            return PayloadError(f"{routine} has no event {event_name!r}{known_names(event_name, events, 'events')}")
        known = events[event_name].params or frozenset()
        extra = next(name for name in params if name not in known)
        return PayloadError(
            f"{routine}: event {event_name!r} has no parameter {extra!r} (emitted with {shortened(params[extra])})"
            f"{known_names(extra, known, 'parameters')}"
        )

    def _conflict(self, activation: Activation, area: Area, key: str) -> ConflictError:
        what = f"shared data {key!r}" if area is None else f"key {key!r} of the state of routine {area!r}"
        return ConflictError(
            f"{self.where(activation.slot)}: {what} was changed by another activation after this one had read it; "
            f"writing now would lose that change. Change it inside 'with ctx.store.edit_state() as state:', or let the "
            f"activation run again (ErrorStrategy.RETRY)"
        )
