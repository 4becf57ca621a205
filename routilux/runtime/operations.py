"""What a handler may do during its turn.

Each operation checks that its activation may still act: it runs in the handler's own thread, and the record says that
exactly this attempt is running. So a handler whose time was up, or whose job has failed meanwhile, is refused whatever
it still tries, without anybody having to stop its thread.
"""

from __future__ import annotations

from _thread import get_ident
from typing import Any

from ..core.copying import ATOMS, copy_payload, copy_value, needs_copy
from ..core.job_record import Activation
from ..core.machine import deferred, emitted, logged, sent, wrote
from ..core.plan import EventPlan, SlotPlan
from ..errors import ConflictError, ContextError, ExecutionError, PayloadError, known_names
from ..routine.binding import shortened
from .context import Context
from .job import Job

Area = str | None  # a routine id, or None for the shared data


class Operations:
    """The operations of the activation that one thread runs, ``activation``, and what they have gathered so far."""

    __slots__ = ("activation", "finish_with", "held", "job", "own", "reads", "record", "routine", "thread")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.record = job.record
        self.thread = get_ident()
        self.activation: Activation | None = None
        self.routine: Any = None
        self.held: list[tuple[EventPlan, dict[str, Any], bool, bool]] | None = None
        self.reads: dict[tuple[Area, str | None], int] = {}
        self.own: dict[tuple[Area, str], int] = {}
        self.finish_with: tuple[Any] | None = None

    def relieve(self) -> None:
        """Let the queue get shorter before the handler goes on emitting."""
        raise NotImplementedError

    def context(self) -> Context:
        """Return the context of the activation that this thread runs."""
        return Context(self, self._acting("get_execution_context()"))

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
        activation = self._acting(f"emit_deferred_event({event_name!r})")
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
        activation = self._acting("finish()")
        value = copy_value(result)
        with self.job.lock:
            self.check(activation)
            self.finish_with = (value,)

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs."""
        activation = self._acting(f"send_output({output_type!r})")
        if not isinstance(output_type, str):
            raise ExecutionError(f"{self.where(activation.slot)}: output_type must be a string, not {output_type!r}")
        data = copy_payload(data)
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                sent(self.record, activation.slot.routine_id, output_type, data, self.job.now())

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log."""
        activation = self._acting("append_to_shared_log()")
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                logged(self.record, entry, self.job.now())

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision of a key, or of a whole area, was read. The caller holds the lock."""
        self.reads[area, key] = self.record.revision

    def write(self, area: Area, values: dict[str, Any]) -> None:
        """Set keys, unless one that this activation has read was changed by another since."""
        activation = self._acting("a write")
        record, reads, own = self.record, self.reads, self.own
        with self.job.lock:
            self.check(activation)
            if record.closed:
                return
            whole = reads.get((area, None), -1)
            for key in values:
                seen = max(reads.get((area, key), -1), whole)
                version = record.versions.get((area, key), 0)
                if 0 <= seen < version and own.get((area, key)) != version:
                    raise self._conflict(activation, area, key)
            wrote(record, area, values)
            for key in values:
                own[area, key] = record.revision

    # --- checks and errors ------------------------------------------------------------------------------------

    def _event(self, slot: SlotPlan, event_name: str, params: dict[str, Any]) -> EventPlan:
        try:
            event = slot.node.events[event_name]
        except (KeyError, TypeError):  # unknown, or not even hashable
            raise self._undeclared(slot, event_name, params) from None
        if event.params is not None and not params.keys() <= event.params:
            raise self._undeclared(slot, event_name, params)
        return event

    def _acting(self, what: str) -> Activation:
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
            f"writing now would lose that change. Read it again and write, or let the activation run again "
            f"(ErrorStrategy.RETRY)"
        )
