"""What a handler may do during its turn."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Mapping
from typing import Any

from ..core.copying import ATOMS, copy_payload, copy_value, needs_copy
from ..core.deliveries import deferred, emitted
from ..core.machine import logged, sent
from ..core.plan import EventPlan, SlotPlan
from ..core.records import Deferred, Emitted, Logged, Sent
from ..errors import ExecutionError, PayloadError, StateError, known_names
from ..routine.binding import Misfit, Validator, check_value, shortened
from ..routine.resource import Factory
from .context import Context, HandlerContext
from .edit_operations import EditOperations
from .gate import INSIDE
from .job import Job


class Operations(EditOperations):
    """The operations of the activation that one thread runs."""

    __slots__ = ("finish_with",)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.finish_with: tuple[Any] | None = None

    def relieve(self) -> None:
        """Let the queue get shorter before the handler goes on emitting."""
        raise NotImplementedError

    def context(self) -> HandlerContext:
        """Return the context of the activation that this thread runs."""
        return Context(self, self.acting("get_execution_context()"))

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine that runs; see `Routine.emit`."""
        activation, job, record, thread = self.activation, self.job, self.record, get_ident()
        if activation is None or thread != self.thread:
            raise self.not_acting(f"emit({event_name!r})")
        slot = activation.slot
        try:  # what `_event` does, without a call
            event = slot.node.events[event_name]
        except (KeyError, TypeError):  # unknown, or not even hashable
            raise self._undeclared(slot, event_name, params) from None
        if event.params is not None and (event.validators is not None or not event.params.issuperset(params)):
            self._check(slot, event, event.params, params)
        isolate = False
        if job.plan.copy_payloads:
            for value in params.values():
                if value.__class__ not in ATOMS:
                    params, isolate = copy_payload(params), True
                    break
        gate = job.lock
        inside = gate.inside
        try:
            entered = inside.setdefault(INSIDE, thread) is thread or gate.enter(thread)
            if record.running.get(activation.id) is not activation:
                raise self.too_late(activation)
            if self.held is not None:
                self.held.append((event, params, isolate, False))
                return
            now, noting = self.now, job.listening.everything  # what is no method is called faster by a local name
            at = now()
            emitted(record, activation, event, params, isolate, at)
            if noting:
                job.note(Emitted(activation.id, event.name, params, isolate, at), activation)
            if record.on_loop or (record.ready and job.crew_size < job.max_workers):
                job.call()
            if job.pressed or job.easing:
                job.settle()
        finally:
            if INSIDE in inside and inside[INSIDE] is thread:
                inside.clear()
                if gate.waiting:
                    gate.ring()
        if not entered:  # in a signal handler, which came inside: the emit that it interrupted does the rest
            return
        if noting:
            job.tell()
        # Replacing the delivery that it came from is an activation's right: only what is more presses.
        if record.queued > job.max_pending and (activation.emitted > 1 or len(event.routes) > 1):
            self.relieve()

    def flush(self) -> None:
        """Commit in-place changes of the state, and wait for room in the queue when it is full.

        Where emissions are held until the attempt has succeeded, nothing happens.
        """
        if self.flushing():
            self.relieve()

    def flushing(self) -> bool:
        """Commit what a flush commits, and return whether the queue is so full that the handler has to wait."""
        activation = self.acting("flush()")
        if self.editing:
            raise StateError(f"{self.where(activation.slot)}: flush() inside edit_state(): leave the edit first")
        if self.held is not None:
            return False
        self.commit_draft()
        return self.record.queued > self.job.max_pending

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
                if self.job.listening.everything:
                    self.job.note(Deferred(activation.id, event.name, data, isolate), activation)

    def resource(self, name: str) -> Any:
        """Return a resource of the flow, by the name that it was given."""
        return self.job.flow.resources.get(self.factory_of(name), self.job.engine)

    def factory_of(self, name: str) -> Factory:
        """Return what makes a resource, by its name."""
        where = self.where(self.acting(f"resource({name!r})").slot)
        factory: Factory = self.job.flow.resources.named(name, where)
        return factory

    def finish(self, result: Any) -> None:
        """End the job as completed when this turn has succeeded."""
        activation = self.acting("finish()")
        value = copy_value(result)
        with self.job.lock:
            self.check(activation)
            self.finish_with = (value,)
            self.touched = True

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs."""
        activation = self.acting(f"send_output({output_type!r})")
        if not isinstance(output_type, str):
            raise ExecutionError(f"{self.where(activation.slot)}: output_type must be a string, not {output_type!r}")
        data = copy_payload(data)
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                fact = Sent(activation.slot.routine_id, output_type, data, self.job.now())
                sent(self.record, *fact)
                if self.job.listening.everything or self.job.flow.output_handlers:
                    self.job.note(fact, activation)
        self.job.tell()

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log."""
        activation = self.acting("append_to_shared_log()")
        with self.job.lock:
            self.check(activation)
            if not self.record.closed:
                fact = Logged(entry, self.job.now())
                logged(self.record, *fact)
                if self.job.listening.everything:
                    self.job.note(fact, activation)
        if self.job.listening.everything:
            self.job.tell()

    def own_log(self) -> list[Logged]:
        """Return what the turn has logged and not yet committed: nothing, as it is at once."""
        return []

    def _event(self, slot: SlotPlan, event_name: str, params: dict[str, Any]) -> EventPlan:
        try:
            event = slot.node.events[event_name]
        except (KeyError, TypeError):  # unknown, or not even hashable
            raise self._undeclared(slot, event_name, params) from None
        if event.params is not None:
            self._check(slot, event, event.params, params)
        return event

    def _check(self, slot: SlotPlan, event: EventPlan, known: frozenset[str], params: dict[str, Any]) -> None:
        if not known.issuperset(params):
            raise self._undeclared(slot, event.name, params)
        if event.validators is not None:
            self._validate(slot, event, event.validators, params)

    def _validate(
        self, slot: SlotPlan, event: EventPlan, validators: Mapping[str, Validator], params: dict[str, Any]
    ) -> None:
        """Make of the parameters that have a type what it says; nobody else has the dict that they came in."""
        try:
            for name in validators.keys() & params.keys():
                params[name] = check_value(validators[name], f"parameter {name!r}", params[name], name)
        except Misfit as misfit:
            routine = f"flow {self.job.plan.flow_id!r}: routine {slot.routine_id!r}"
            raise PayloadError(f"{routine}: event {event.name!r}: {misfit}") from misfit.__cause__

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
