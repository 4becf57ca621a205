"""The rules of a job: one transition for each kind of fact.

Each takes the record, and the parts of the fact with activations resolved to their objects. The engine calls the
transitions directly while it runs handlers; `fold` applies facts that were kept. What to do next is in the record
itself: ``ready`` and ``on_loop`` list the mailboxes that may take a turn, ``retrying`` the activations that wait for
their time. The caller holds the job's lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .deliveries import close_gathers, drop, enqueue, finished, withdraw
from .job_record import Activation, JobRecord, Mailbox
from .plan import SlotPlan
from .points import Point, Wait
from .records import ErrorRecord, Logged, Sent
from .status import MAY_FOLLOW, JobStatus, check_change

# --- beginning ------------------------------------------------------------------------------------------------


def started(record: JobRecord, slot: SlotPlan, payload: dict[str, Any], isolate: bool, at: int) -> None:
    """The job runs, with one delivery to its entry slot, and with all inputs open."""
    change(record, JobStatus.RUNNING)
    record.started = at
    for each in record.plan.inputs:
        record.inputs[each.index] = None if each.deadline is None else at + each.deadline
        if record.gathers is not None:
            record.gathers.count(record.gathers.reach.arrivals[each.index], 1)
    enqueue(record, slot, payload, isolate, at, 0)
    if not record.queued:  # the entry slot gathers
        close_gathers(record, at)
        if not record.queued:
            settle(record, at)


def inherited(record: JobRecord, shared: dict[str, Any], routine_states: dict[str, dict[str, Any]]) -> None:
    """The job begins with these shared data and routine states."""
    wrote(record, None, shared)
    for routine_id, state in routine_states.items():
        wrote(record, routine_id, state)


def change(record: JobRecord, status: JobStatus) -> None:
    """Give the job another status. Raises StatusError when that may not follow."""
    if status not in MAY_FOLLOW[record.status]:
        check_change(f"flow {record.plan.flow_id!r}: job {record.job_id!r}", record.status, status)
    record.status = status
    record.open = status is JobStatus.RUNNING and not record.holds
    record.closed = status in (JobStatus.COMPLETED, JobStatus.CANCELLED)


# --- turns ----------------------------------------------------------------------------------------------------


def began(record: JobRecord, mailbox: Mailbox, at: int, owner: int = 0) -> Activation | None:
    """Start the next attempt that waits in a mailbox, a retry first; None when there is none or none may start."""
    if not record.open:
        return None
    if mailbox.resumed:
        activation = mailbox.resumed.popleft()
        activation.started = at
        activation.owner = owner
    elif mailbox.queue:
        activation = Activation(mailbox.queue.popleft(), at, owner)
        if activation.slot.merge == "append" and not record.durable:
            append(record, activation)
    else:
        return None
    record.queued -= 1
    record.running[activation.id] = activation
    return activation


def append(record: JobRecord, activation: Activation) -> None:
    """Merge the payload of an activation as ``append`` does: into lists per key, which become the payload."""
    buffer = record.buffers.setdefault(activation.slot.index, {})
    for key, value in activation.payload.items():
        buffer.setdefault(key, []).append(value)
    activation.payload = {key: values[:] for key, values in buffer.items()}
    activation.isolate = record.plan.copy_payloads


def merged(record: JobRecord, activation: Activation, buffer: dict[str, Any]) -> None:
    """The slot's merge function made ``buffer`` of the old buffer and this activation's payload."""
    record.buffers[activation.slot.index] = activation.payload = buffer
    activation.isolate = record.plan.copy_payloads


def retried(record: JobRecord, activation: Activation, spent: int, due: int) -> Activation:
    """An attempt failed; return the next one, which waits until ``due``. Its mailbox stays held."""
    del record.running[activation.id]
    again = activation.again(spent)
    again.due = due
    record.retrying[again.id] = again
    forget_failed_step(record, again.id)
    return again


def forget_failed_step(record: JobRecord, delivery: int) -> None:
    """Let a step that has failed for good, if it is the last point of a turn, be done anew."""
    points = record.points.get(delivery)
    if points and points[-1].error is not None:
        forgotten = points.pop()
        if points:
            points[-1].own.update(forgotten.own)
        else:
            del record.points[delivery]


def _keep_points(record: JobRecord, activation: Activation, points: list[Point] | None) -> None:
    if points:
        record.points[activation.id] = points


def due(record: JobRecord, activation: Activation) -> None:
    """The wait before an attempt is over: its mailbox takes a turn again, with this attempt first."""
    del record.retrying[activation.id]
    mailbox = record.mailboxes[activation.slot.mailbox]
    mailbox.resumed.append(activation)
    record.queued += 1
    mailbox.listing.append(mailbox)


def suspended(record: JobRecord, activation: Activation, wait: Wait, spent: int, at: int) -> Activation:
    """A turn waits, and gives its mailbox to others meanwhile; return what will go on with it.

    In a durable job that is another object, because the turn runs again from its start.
    """
    del record.running[activation.id]
    if record.durable:
        activation = activation.later(spent)
    else:
        activation.interrupt(spent)
    activation.wait = wait
    record.waiting[activation.id] = activation
    if not record.queued and not record.running and not record.retrying and record.status is JobStatus.RUNNING:
        settle(record, at)
    return activation


def woken(record: JobRecord, activation: Activation) -> None:
    """What a turn waited for has come: its mailbox takes a turn again, with this one first."""
    del record.waiting[activation.id]
    activation.wait = None
    if record.status is JobStatus.WAITING:
        change(record, JobStatus.RUNNING)
    mailbox = record.mailboxes[activation.slot.mailbox]
    mailbox.resumed.append(activation)
    record.queued += 1
    if mailbox.tickets < mailbox.limit:
        mailbox.tickets += 1
        mailbox.listing.append(mailbox)


def ended(
    record: JobRecord,
    activation: Activation,
    status: str,
    spent: int,
    at: int,
    error: ErrorRecord | None = None,
    stop: bool = False,
    finish: tuple[Any] | None = None,
) -> tuple[Any, ...]:
    """An activation is over; the job too, when nothing else is outstanding or the activation ended it.

    Returns the history's entry for it, without the data.
    """
    entry = remember(record, activation, status, spent, error)
    if record.closed:
        return entry
    if error is not None:
        record.errors.append(error)
    points = record.points.pop(activation.id, None) if record.points else None
    if stop:
        if record.durable:  # what left at a point stays, and is not emitted again when the turn is
            record.stopped.append(activation.later(spent))
            _keep_points(record, activation, points)
        else:
            withdraw(record, activation.id, at)
            record.stopped.append(activation.anew())
        if record.status is not JobStatus.FAILED:
            fail(record, error, at)
    elif finish is not None and record.status is not JobStatus.FAILED:
        record.result = finish[0]
        drop(record)
        if record.status is JobStatus.RUNNING:
            complete(record, at)
        else:  # a paused job completes when it is resumed
            record.closed = True
    else:
        if record.gathers is not None:
            finished(record, activation.slot, at)
        if not record.queued and not record.running and not record.retrying and record.status is JobStatus.RUNNING:
            settle(record, at)
    return entry


def remember(
    record: JobRecord, activation: Activation, status: str, spent: int, error: ErrorRecord | None
) -> tuple[Any, ...]:
    """Take an activation that is over out of those that run; return the history's entry for it, without the data."""
    number, slot, payload, _, delivered, _, _ = activation.row
    del record.running[number]
    began_at = activation.started if activation.first is None else activation.first
    entry = (
        slot.routine_id,
        slot.name,
        activation.event or slot.name,
        None,
        began_at,
        activation.spent + spent,
        began_at - delivered if began_at > delivered else 0,
        "cancelled" if record.closed else status,
        error,
        activation.attempt,
        activation.emitted,
    )
    # What History.extend and Activation.shown do, without calls: they would be two more for every activation.
    history = record.history
    history.items.extend((entry, payload if activation.data is None else activation.data))
    if len(history.items) >= history.room:
        history.tidy()
    return entry


def settle(record: JobRecord, at: int) -> None:
    """Nothing can be handled: wait for what turns wait for or inputs get, or for the resumption that deferred
    emissions need, or complete."""
    if record.waiting or record.inputs:
        change(record, JobStatus.WAITING)
    elif record.deferred:
        paused(record, "deferred events wait until the job is resumed")
    else:
        complete(record, at)


def paused(record: JobRecord, reason: str) -> None:
    """Pause the job: no handler starts until it is resumed."""
    change(record, JobStatus.PAUSED)
    record.reason = reason


def complete(record: JobRecord, at: int) -> None:
    """Complete the job."""
    change(record, JobStatus.COMPLETED)
    record.finished = at


def fail(record: JobRecord, error: ErrorRecord | None, at: int) -> None:
    """Fail the job."""
    if record.status is JobStatus.WAITING:
        change(record, JobStatus.RUNNING)
    change(record, JobStatus.FAILED)
    record.failure = error
    record.finished = at


def released(record: JobRecord, mailbox: Mailbox) -> None:
    """A turn of the mailbox is over: it goes to the back of the ready queue when more waits in it.

    This is scheduling within a process, not a fact of the job.
    """
    if record.open and len(mailbox.queue) + len(mailbox.resumed) > 0:
        mailbox.listing.append(mailbox)
    else:
        mailbox.tickets -= 1


# --- what a turn writes -----------------------------------------------------------------------------------------


def wrote(record: JobRecord, area: str | None, values: Mapping[str, Any], removed: Collection[str] = ()) -> None:
    """Set keys of a routine's state, or of the shared data, and remove keys."""
    target = record.shared if area is None else record.routine_states.setdefault(area, {})
    record.revision += 1
    for key, value in values.items():
        target[key] = value
        record.versions[area, key] = record.revision
    for key in removed:
        target.pop(key, None)
        record.versions[area, key] = record.revision


def logged(record: JobRecord, entry: dict[str, Any], at: int) -> None:
    """Append to the shared log."""
    record.log.append(Logged(entry, at))


def sent(record: JobRecord, routine_id: str, output_type: str, data: dict[str, Any], at: int) -> None:
    """Append to the outputs."""
    record.outputs.append(Sent(routine_id, output_type, data, at))
