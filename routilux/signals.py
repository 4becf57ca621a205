"""Signals that tell other code what happens in jobs: one for each kind of thing, as `blinker` defines them.

A receiver is connected once, ``signals.job_failed.connect(receiver)``, or for one flow only,
``signals.job_failed.connect(receiver, sender=flow)``. It is called as ``receiver(flow, job_state=..., ...)`` with the
keyword arguments that the signal names, after what it hears of was committed, in the order of the commits, by the
thread that has made one, so it should be quick. It holds no lock and is no part of any handler's turn. What it raises
is logged and harms nobody. ``execute`` returns after all receivers have heard of the job's end. Blinker keeps weak
references: connect functions and methods that live on, or pass ``weak=False``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import blinker

from .core.copying import copy_payload
from .core.records import Began, Deferred, Emitted, Ended, Logged, Retried, Sent, Wrote
from .core.status import JobStatus
from .runtime import reports
from .runtime.audience import Notice, audience
from .runtime.clock import utc
from .runtime.job import describe
from .runtime.job_state import JobState
from .runtime.logs import log_failure

__all__ = [
    "activation_ended",
    "activation_failed",
    "activation_retried",
    "activation_started",
    "event_emitted",
    "job_cancelled",
    "job_completed",
    "job_failed",
    "job_paused",
    "job_resumed",
    "job_started",
    "log_appended",
    "output_sent",
    "state_changed",
]


class JobSignal(blinker.Signal):
    """A signal about jobs. Jobs are told that somebody listens when the first receiver is connected."""

    def connect(self, receiver: Any, sender: Any = blinker.ANY, weak: bool = True) -> Any:
        """Connect a receiver, for all flows or for one, and return it; see `blinker.Signal.connect`."""
        connected = super().connect(receiver, sender, weak)
        audience.everything = _tell
        return connected

    def disconnect(self, receiver: Any, sender: Any = blinker.ANY) -> None:
        """Disconnect a receiver; see `blinker.Signal.disconnect`."""
        super().disconnect(receiver, sender)
        if not any(signal.receivers for signal in _ALL):
            audience.everything = None


job_started = JobSignal("A job began to run.")
job_paused = JobSignal("A job was paused: ``reason``.")
job_resumed = JobSignal("A paused or failed job goes on: ``was`` is its status before.")
job_completed = JobSignal("A job has completed: ``result``.")
job_failed = JobSignal("A job has failed: ``error``, an `ErrorRecord`.")
job_cancelled = JobSignal("A job was cancelled: ``reason``.")
activation_started = JobSignal("An attempt of a handler began: ``routine_id``, ``slot``, ``attempt``.")
activation_retried = JobSignal(
    "An attempt failed and will be repeated: ``routine_id``, ``slot``, ``attempt``, ``error``, ``due`` (when)."
)
activation_failed = JobSignal("An activation failed, or was skipped: ``routine_id``, ``slot``, ``attempt``, ``error``.")
activation_ended = JobSignal("An activation is over: ``record``, its `ExecutionRecord`.")
event_emitted = JobSignal(
    "An event was emitted: ``routine_id``, ``event_name``, ``data``, ``deliveries`` (how many), ``deferred`` (whether "
    "they are made when the job is resumed)."
)
state_changed = JobSignal(
    "Keys of the state were written: ``routine_id`` (None for the shared data), ``values``, ``removed``."
)
log_appended = JobSignal("An entry was appended to the shared log: ``entry``.")
output_sent = JobSignal("A handler sent something out of the flow: ``output``, an `Output`.")

_ALL = [value for value in list(globals().values()) if isinstance(value, JobSignal)]


def _tell(notice: Notice) -> None:
    """Send the signals for one notice."""
    make = _BY_FACT.get(type(notice.fact))
    if make is not None:
        make(notice)


def _send(signal: JobSignal, notice: Notice, make: Callable[[], dict[str, Any]]) -> None:
    if not signal.receivers:
        return
    flow, fields = notice.job.flow, None
    for receiver in signal.receivers_for(flow):
        if fields is None:
            fields = make()
        try:
            receiver(flow, job_state=JobState(notice.job), **fields)
        except Exception:
            log_failure(f"flow {flow.flow_id!r}: receiver {receiver!r} of a signal")


def _status(notice: Notice) -> None:
    record, was = notice.job.record, notice.detail
    if notice.fact is JobStatus.RUNNING and was is JobStatus.PENDING:
        _send(job_started, notice, dict)
    elif notice.fact is JobStatus.RUNNING:
        _send(job_resumed, notice, lambda: {"was": was})
    elif notice.fact is JobStatus.PAUSED:
        _send(job_paused, notice, lambda: {"reason": record.reason})
    elif notice.fact is JobStatus.COMPLETED:
        _send(job_completed, notice, lambda: {"result": JobState(notice.job).result})
    elif notice.fact is JobStatus.FAILED:
        _send(job_failed, notice, lambda: {"error": record.failure})
    elif notice.fact is JobStatus.CANCELLED:
        _send(job_cancelled, notice, lambda: {"reason": record.reason})


def _where(notice: Notice) -> dict[str, Any]:
    activation = notice.activation
    assert activation is not None
    return {"routine_id": activation.slot.routine_id, "slot": activation.slot.name, "attempt": activation.attempt}


def _began(notice: Notice) -> None:
    _send(activation_started, notice, lambda: _where(notice))


def _retried(notice: Notice) -> None:
    fact, activation, job = notice.fact, notice.activation, notice.job
    assert isinstance(fact, Retried)
    assert activation is not None

    def fields() -> dict[str, Any]:
        error = describe(notice.detail, activation.slot, activation.attempt)
        return {**_where(notice), "error": error, "due": utc(fact.due + job.record.epoch)}

    _send(activation_retried, notice, fields)


def _ended(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Ended)
    if fact.error is not None:
        _send(activation_failed, notice, lambda: {**_where(notice), "error": fact.error})
    epoch = notice.job.record.epoch
    _send(activation_ended, notice, lambda: {"record": reports.execution_records([notice.detail], epoch)[0]})


def _emitted(notice: Notice) -> None:
    fact, activation = notice.fact, notice.activation
    assert isinstance(fact, (Emitted, Deferred))
    assert activation is not None

    def fields() -> dict[str, Any]:
        slot = activation.slot
        routes = slot.node.events[fact.event].routes
        return {
            "routine_id": slot.routine_id,
            "event_name": fact.event,
            "data": copy_payload(fact.data),
            "deliveries": len(routes),
            "deferred": isinstance(fact, Deferred),
        }

    _send(event_emitted, notice, fields)


def _wrote(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Wrote)
    _send(
        state_changed,
        notice,
        lambda: {"routine_id": fact.area, "values": copy_payload(fact.values), "removed": fact.removed},
    )


def _logged(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Logged)
    _send(log_appended, notice, lambda: {"entry": reports.log_entry(fact, notice.job.record.epoch)})


def _sent(notice: Notice) -> None:
    fact, record = notice.fact, notice.job.record
    assert isinstance(fact, Sent)
    _send(output_sent, notice, lambda: {"output": reports.output(fact, record.job_id, record.epoch)})


_BY_FACT: dict[type, Callable[[Notice], None]] = {
    JobStatus: _status,
    Began: _began,
    Retried: _retried,
    Ended: _ended,
    Emitted: _emitted,
    Deferred: _emitted,
    Wrote: _wrote,
    Logged: _logged,
    Sent: _sent,
}
