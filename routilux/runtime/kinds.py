"""What can happen in a job: what it is called, and what is told of it.

Signals and streams go by this one table: a kind is the name of a signal, its fields are the keyword arguments of that
signal's receivers. They are made when somebody is told, and what may change later is copied then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.copying import copy_payload, copy_value
from ..core.plan import SlotPlan
from ..core.records import Began, Deferred, Emitted, Ended, InputClosed, Logged, Received, Retried, Sent, Wrote
from ..core.status import JobStatus
from . import reports
from .audience import Notice
from .clock import utc
from .describing import describe

_KINDS: dict[Any, tuple[str, ...]] = {
    Began: ("activation_started",),
    Retried: ("activation_retried",),
    Emitted: ("event_emitted",),
    Deferred: ("event_emitted",),
    Wrote: ("state_changed",),
    Logged: ("log_appended",),
    Sent: ("output_sent",),
    Received: ("input_received",),
    InputClosed: ("input_closed",),
    JobStatus.WAITING: ("job_waiting",),
    JobStatus.PAUSED: ("job_paused",),
    JobStatus.COMPLETED: ("job_completed",),
    JobStatus.FAILED: ("job_failed",),
    JobStatus.CANCELLED: ("job_cancelled",),
}
_STARTED, _RESUMED = ("job_started",), ("job_resumed",)
_ENDED, _FAILED = ("activation_ended",), ("activation_failed", "activation_ended")


def kinds_of(notice: Notice) -> tuple[str, ...]:
    """Return what a notice tells of, in order: one kind, or two when an activation has failed."""
    fact = notice.fact
    if isinstance(fact, Ended):
        return _ENDED if fact.error is None else _FAILED
    if fact is JobStatus.RUNNING:
        return _STARTED if notice.detail.was is JobStatus.PENDING else _RESUMED
    return _KINDS[fact if isinstance(fact, JobStatus) else type(fact)]


def fields_of(kind: str, notice: Notice) -> dict[str, Any]:
    """Return what is told of a notice under one of its kinds, which is the reader's own."""
    return FIELDS[kind](notice)


def _slot(notice: Notice) -> SlotPlan:
    assert notice.activation is not None
    return notice.activation.slot


def _where(notice: Notice) -> dict[str, Any]:
    slot, activation = _slot(notice), notice.activation
    assert activation is not None
    return {"routine_id": slot.routine_id, "slot": slot.name, "attempt": activation.attempt}


def _retried(notice: Notice) -> dict[str, Any]:
    fact, where = notice.fact, _where(notice)
    assert isinstance(fact, Retried)
    error = describe(notice.detail, _slot(notice), where["attempt"])
    return {**where, "error": error, "due": utc(fact.due + notice.job.record.epoch)}


def _failed(notice: Notice) -> dict[str, Any]:
    assert isinstance(notice.fact, Ended)
    return {**_where(notice), "error": notice.fact.error}


def _ended(notice: Notice) -> dict[str, Any]:
    return {"record": reports.execution_records([notice.detail], notice.job.record.epoch)[0]}


def _emitted(notice: Notice) -> dict[str, Any]:
    fact, slot = notice.fact, _slot(notice)
    assert isinstance(fact, (Emitted, Deferred))
    return {
        "routine_id": slot.routine_id,
        "event_name": fact.event,
        "data": copy_payload(fact.data),
        "deliveries": len(slot.node.events[fact.event].routes),
        "deferred": isinstance(fact, Deferred),
    }


def _wrote(notice: Notice) -> dict[str, Any]:
    fact = notice.fact
    assert isinstance(fact, Wrote)
    return {"routine_id": fact.area, "values": copy_payload(fact.values), "removed": fact.removed}


def _logged(notice: Notice) -> dict[str, Any]:
    assert isinstance(notice.fact, Logged)
    return {"entry": reports.log_entry(notice.fact, notice.job.record.epoch)}


def _sent(notice: Notice) -> dict[str, Any]:
    record = notice.job.record
    assert isinstance(notice.fact, Sent)
    return {"output": reports.output(notice.fact, record.job_id, record.epoch)}


def _input(notice: Notice) -> dict[str, Any]:
    assert isinstance(notice.fact, (Received, InputClosed))
    slot = notice.job.record.plan.slots[notice.fact.slot]
    return {"routine_id": slot.routine_id, "slot": slot.name}


def _received(notice: Notice) -> dict[str, Any]:
    assert isinstance(notice.fact, Received)
    return {**_input(notice), "data": copy_payload(notice.fact.payload)}


FIELDS: dict[str, Callable[[Notice], dict[str, Any]]] = {
    "job_started": lambda notice: {},
    "job_waiting": lambda notice: {},
    "job_paused": lambda notice: {"reason": notice.detail.reason},
    "job_resumed": lambda notice: {"was": notice.detail.was},
    "job_completed": lambda notice: {"result": copy_value(notice.detail.result)},
    "job_failed": lambda notice: {"error": notice.detail.failure},
    "job_cancelled": lambda notice: {"reason": notice.detail.reason},
    "activation_started": _where,
    "activation_retried": _retried,
    "activation_failed": _failed,
    "activation_ended": _ended,
    "event_emitted": _emitted,
    "state_changed": _wrote,
    "log_appended": _logged,
    "output_sent": _sent,
    "input_received": _received,
    "input_closed": _input,
}
