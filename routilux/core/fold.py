"""Facts that were kept, folded into a record by the transitions of `machine`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import ExecutionError
from .commits import answered, committed, published, taken
from .deliveries import deferred, emitted
from .job_record import Activation, JobRecord
from .life import cancelled, failed, given_up, input_closed, received, resumed
from .machine import began, due, ended, logged, merged, paused, retried, sent, started, wrote
from .points import Answered, Committed, DurableFact, Noted, Published
from .records import (
    Began,
    Cancelled,
    Deferred,
    Due,
    Emitted,
    Ended,
    Fact,
    Failed,
    GivenUp,
    InputClosed,
    Logged,
    Merged,
    Paused,
    Received,
    Resumed,
    Retried,
    Sent,
    Started,
    Wrote,
)


def _activation(record: JobRecord, delivery: int, where: Mapping[int, Activation]) -> Activation:
    try:
        return where[delivery]
    except KeyError:
        raise ExecutionError(f"job {record.job_id!r}: a fact names delivery {delivery}, which is not there") from None


def _apply_emitted(record: JobRecord, fact: Emitted) -> None:
    activation = _activation(record, fact.delivery, record.running)
    event = activation.slot.node.events[fact.event]
    emitted(record, activation, event, fact.data, fact.isolate, fact.at)


def _apply_deferred(record: JobRecord, fact: Deferred) -> None:
    activation = _activation(record, fact.delivery, record.running)
    event = activation.slot.node.events[fact.event]
    deferred(record, activation, event, fact.data, fact.isolate)


def _apply_ended(record: JobRecord, fact: Ended) -> None:
    ended(record, _activation(record, fact.delivery, record.running), *fact[1:])


def _apply_published(record: JobRecord, fact: Published) -> None:
    published(record, fact)


def _apply_noted(record: JobRecord, fact: Noted) -> None:
    record.inbox = max(record.inbox, fact.message)


APPLY: dict[type, Callable[[JobRecord, Any], object]] = {
    Started: lambda record, fact: started(record, record.plan.slots[fact.slot], *fact[1:]),
    Began: lambda record, fact: began(record, record.mailboxes[fact.mailbox], fact.at),
    Merged: lambda record, fact: merged(record, _activation(record, fact.delivery, record.running), fact.buffer),
    Emitted: _apply_emitted,
    Wrote: lambda record, fact: wrote(record, *fact),
    Logged: lambda record, fact: logged(record, *fact),
    Sent: lambda record, fact: sent(record, *fact),
    Retried: lambda record, fact: retried(record, _activation(record, fact.delivery, record.running), *fact[1:]),
    Due: lambda record, fact: due(record, _activation(record, fact.delivery, record.retrying)),
    Ended: _apply_ended,
    Failed: lambda record, fact: failed(record, *fact),
    Deferred: _apply_deferred,
    GivenUp: lambda record, fact: given_up(record, *fact),
    Paused: lambda record, fact: paused(record, fact.reason),
    Resumed: lambda record, fact: resumed(record, fact.at),
    Cancelled: lambda record, fact: cancelled(record, *fact),
    Received: lambda record, fact: received(record, record.plan.slots[fact.slot], *fact[1:]),
    InputClosed: lambda record, fact: input_closed(record, *fact),
    Committed: lambda record, fact: committed(record, taken(record, fact), fact),
    Published: _apply_published,
    Answered: lambda record, fact: answered(record, fact),
    Noted: _apply_noted,
}


def apply(record: JobRecord, fact: Fact | DurableFact) -> None:
    """Fold one fact into a record. Raises ExecutionError when it names a delivery that the record does not have."""
    APPLY[type(fact)](record, fact)


def fold(record: JobRecord, facts: Iterable[Fact | DurableFact]) -> JobRecord:
    """Fold facts into a record, in order, and return it."""
    for fact in facts:
        apply(record, fact)
    return record
