"""How a job is ended, or taken up again, from outside its turns: transitions like those in `machine`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .deliveries import close_gathers, drop, enqueue, release_deferred
from .job_record import Activation, JobRecord
from .machine import change, complete, fail, forget_failed_step, remember, settle
from .plan import SlotPlan
from .records import ErrorRecord
from .scheduling import list_waiting
from .status import JobStatus

GivenUp = tuple[Activation, tuple[Any, ...]]


def failed(record: JobRecord, error: ErrorRecord, at: int) -> list[GivenUp]:
    """Fail the job as a whole; activations that run are `given_up`."""
    fail(record, error, at)
    record.errors.append(error)
    return given_up(record, error, at)


def given_up(record: JobRecord, error: ErrorRecord, at: int, owner: int | None = None) -> list[GivenUp]:
    """Stop waiting for activations that run, all or those of one owner, in a job that is not open any more.

    Returns them, each with the history's entry for it, without the data.
    """
    found = []
    for activation in list(record.running.values()):
        if owner is None or activation.owner == owner:
            found.append((activation, give_up(record, activation, error, at)))
    return found


def recalled(record: JobRecord, deliveries: Collection[int], at: int) -> None:
    """Count turns that wait, or are about to go on after a wait, among those that run, to be given up with these.

    They are turns of a job without a store whose coroutines are cancelled, so that nobody goes on with them.
    """
    found = [activation for delivery, activation in record.waiting.items() if delivery in deliveries]
    for mailbox in record.mailboxes:
        about = [activation for activation in mailbox.resumed if activation.id in deliveries]
        for activation in about:
            mailbox.resumed.remove(activation)
        record.queued -= len(about)
        found += about
    for activation in found:
        record.waiting.pop(activation.id, None)
        record.points.pop(activation.id, None)
        activation.wait = None
        activation.started = at
        record.running[activation.id] = activation


def give_up(record: JobRecord, activation: Activation, error: ErrorRecord, at: int) -> tuple[Any, ...]:
    """Stop waiting for an activation that runs; return the history's entry for it, without the data."""
    spent = at - activation.started
    entry = remember(record, activation, "failed", spent, error)
    if not record.closed:
        record.stopped.append(activation.later(spent) if record.durable else activation.anew())
    return entry


def resumed(record: JobRecord, at: int) -> None:
    """Go on with a paused job, or take up a failed one: what failed it runs again, before what is queued."""
    failed_before, finished_before = record.status is JobStatus.FAILED, record.closed
    change(record, JobStatus.RUNNING)
    record.reason = ""
    if finished_before:
        complete(record, at)
        return
    if failed_before:
        _revive(record)
    release_deferred(record, at)
    close_gathers(record, at)
    list_waiting(record)
    if not record.queued and not record.running and not record.retrying:
        settle(record, at)


def _revive(record: JobRecord) -> None:
    """Begin another life of a failed job, in which no turn of the last one has a ticket."""
    record.life += 1
    record.finished = record.failure = None
    record.ready.clear()
    record.on_loop.clear()
    for mailbox in record.mailboxes:
        mailbox.tickets = 0
    for activation in record.retrying.values():
        record.mailboxes[activation.slot.mailbox].tickets += 1
    for activation in reversed(record.stopped):
        forget_failed_step(record, activation.id)
        record.mailboxes[activation.slot.mailbox].resumed.appendleft(activation)
    record.queued += len(record.stopped)
    record.stopped.clear()


def cancelled(record: JobRecord, reason: str, at: int) -> None:
    """Cancel the job: drop what is queued, and what running handlers have not committed."""
    change(record, JobStatus.CANCELLED)
    record.reason = reason
    record.finished = at
    drop(record)


# --- what comes from outside --------------------------------------------------------------------------------------


def received(record: JobRecord, slot: SlotPlan, payload: dict[str, Any], isolate: bool, at: int, message: int) -> None:
    """A delivery came from outside."""
    record.inbox = max(record.inbox, message)
    if not record.closed:
        enqueue(record, slot, payload, isolate, at, 0)
        _stirred(record, at)


def input_closed(record: JobRecord, slot: int, at: int, message: int) -> None:
    """Nothing that comes to an external slot from outside is waited for any more."""
    record.inbox = max(record.inbox, message)
    if slot in record.inputs:
        del record.inputs[slot]
        if record.gathers is not None:
            record.gathers.count(record.gathers.reach.arrivals[slot], -1)
        _stirred(record, at)


def _stirred(record: JobRecord, at: int) -> None:
    """Something was done to the job from outside: what waited for it goes on, or waits no longer."""
    close_gathers(record, at)
    if record.status is JobStatus.WAITING and (record.queued or not (record.waiting or record.inputs)):
        change(record, JobStatus.RUNNING)
        if not record.queued:
            settle(record, at)
