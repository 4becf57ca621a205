"""What happens in jobs, announced by signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import signals
from ..core.copying import copy_payload
from ..core.records import Began, Deferred, Emitted, Ended, Logged, Retried, Sent, Wrote
from ..core.status import JobStatus
from . import reports
from .audience import Notice
from .clock import utc
from .describing import describe
from .job_state import JobState
from .logs import log_failure


def announce(notice: Notice) -> None:
    """Send the signals for one notice."""
    make = _BY_FACT.get(type(notice.fact))
    if make is not None:
        make(notice)


def _send(signal: signals.JobSignal, notice: Notice, make: Callable[[], dict[str, Any]]) -> None:
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
        _send(signals.job_started, notice, dict)
    elif notice.fact is JobStatus.RUNNING:
        _send(signals.job_resumed, notice, lambda: {"was": was})
    elif notice.fact is JobStatus.PAUSED:
        _send(signals.job_paused, notice, lambda: {"reason": record.reason})
    elif notice.fact is JobStatus.COMPLETED:
        _send(signals.job_completed, notice, lambda: {"result": JobState(notice.job).result})
    elif notice.fact is JobStatus.FAILED:
        _send(signals.job_failed, notice, lambda: {"error": record.failure})
    elif notice.fact is JobStatus.CANCELLED:
        _send(signals.job_cancelled, notice, lambda: {"reason": record.reason})


def _where(notice: Notice) -> dict[str, Any]:
    activation = notice.activation
    assert activation is not None
    return {"routine_id": activation.slot.routine_id, "slot": activation.slot.name, "attempt": activation.attempt}


def _began(notice: Notice) -> None:
    _send(signals.activation_started, notice, lambda: _where(notice))


def _retried(notice: Notice) -> None:
    fact, activation, job = notice.fact, notice.activation, notice.job
    assert isinstance(fact, Retried)
    assert activation is not None

    def fields() -> dict[str, Any]:
        error = describe(notice.detail, activation.slot, activation.attempt)
        return {**_where(notice), "error": error, "due": utc(fact.due + job.record.epoch)}

    _send(signals.activation_retried, notice, fields)


def _ended(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Ended)
    if fact.error is not None:
        _send(signals.activation_failed, notice, lambda: {**_where(notice), "error": fact.error})
    epoch = notice.job.record.epoch
    _send(signals.activation_ended, notice, lambda: {"record": reports.execution_records([notice.detail], epoch)[0]})


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

    _send(signals.event_emitted, notice, fields)


def _wrote(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Wrote)
    _send(
        signals.state_changed,
        notice,
        lambda: {"routine_id": fact.area, "values": copy_payload(fact.values), "removed": fact.removed},
    )


def _logged(notice: Notice) -> None:
    fact = notice.fact
    assert isinstance(fact, Logged)
    _send(signals.log_appended, notice, lambda: {"entry": reports.log_entry(fact, notice.job.record.epoch)})


def _sent(notice: Notice) -> None:
    fact, record = notice.fact, notice.job.record
    assert isinstance(fact, Sent)
    _send(signals.output_sent, notice, lambda: {"output": reports.output(fact, record.job_id, record.epoch)})


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
