"""What the facts of durable jobs do to a record. See `points` for the facts and `machine` for what they are made of.

Live, an activation runs when its facts are committed. When facts are folded it does not, so that the first fact of a
delivery takes it from wherever it waits; that a handler began is no fact, because a handler of which nothing was
committed simply runs anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ExecutionError
from .deliveries import deferred, emitted
from .job_record import Activation, JobRecord
from .life import give_up
from .machine import append, due, ended, logged, merged, retried, sent, suspended, woken, wrote
from .points import Answered, Batch, Committed, Point, Published, Wait
from .records import ErrorRecord
from .status import JobStatus

NO_BATCH = Batch()


def committed(record: JobRecord, activation: Activation, fact: Committed) -> Any:
    """Put a turn, or a part of it, into the record.

    Returns the history's entry when the activation has ended, what goes on when it waits or is retried, else None.
    """
    if fact.batch is NO_BATCH or record.closed:
        return OUTCOMES[fact.kind](record, activation, fact)
    _put(record, activation, fact.batch, fact.at)
    result = OUTCOMES[fact.kind](record, activation, fact)
    points = record.points.get(activation.id)
    if points:
        _note_own(record, points[-1], fact.batch)
    return result


def _put(record: JobRecord, activation: Activation, batch: Batch, at: int) -> None:
    for event, data, isolate, later in batch.emissions:
        plan = activation.slot.node.events[event]
        if later:
            deferred(record, activation, plan, data, isolate)
        else:
            emitted(record, activation, plan, data, isolate, at)
    for area, values, removed in batch.writes:
        wrote(record, area, values, removed)
    for entry, when in batch.log:
        logged(record, entry, when)
    for output in batch.outputs:
        sent(record, *output)


def _note_own(record: JobRecord, point: Point, batch: Batch) -> None:
    """Have a turn that runs again from its start know its own writes: others may have made later ones."""
    for area, values, removed in batch.writes:
        point.own.update(((area, key), record.versions[area, key]) for key in (*values, *removed))


# --- outcomes -----------------------------------------------------------------------------------------------------


def _points(record: JobRecord, activation: Activation) -> list[Point]:
    return record.points.setdefault(activation.id, [])


def _point(record: JobRecord, activation: Activation, fact: Committed, kind: str) -> Point:
    """Return the point that a fact is about: the last one if that is still open, else a new one."""
    points = _points(record, activation)
    if points and not points[-1].done and (points[-1].kind, points[-1].name) == (kind, fact.name):
        return points[-1]
    if points:
        points[-1].done = True
    points.append(Point(kind, fact.name, fact.reads))
    return points[-1]


def _end(record: JobRecord, activation: Activation, fact: Committed) -> Any:
    return ended(record, activation, *fact.outcome)


def _given_up(record: JobRecord, activation: Activation, fact: Committed) -> Any:
    return give_up(record, activation, *fact.outcome)


def _retry(record: JobRecord, activation: Activation, fact: Committed) -> Any:
    return retried(record, activation, *fact.outcome)


def _merge(record: JobRecord, activation: Activation, fact: Committed) -> None:
    if fact.outcome is None:
        append(record, activation)
    else:
        merged(record, activation, fact.outcome)


def _start(record: JobRecord, activation: Activation, fact: Committed) -> None:
    if fact.outcome is None:
        _point(record, activation, fact, "step")
    else:
        _point(record, activation, fact, "invoke").form = (fact.outcome,)


def _failure(record: JobRecord, activation: Activation, fact: Committed) -> None:
    _point(record, activation, fact, "step").failures += 1


def _step(record: JobRecord, activation: Activation, fact: Committed) -> None:
    point = _point(record, activation, fact, "step")
    if isinstance(fact.outcome, ErrorRecord):
        point.error = fact.outcome
        point.failures += 1
    else:
        point.form = fact.outcome
    point.done = True


def _wait(record: JobRecord, activation: Activation, fact: Committed) -> Any:
    wait, spent = fact.outcome
    point = _point(record, activation, fact, "invoke" if wait.jobs else "wait")
    point.wait = wait
    if wait.topic is not None and record.events.get(wait.topic):
        point.form = (_kept(record, wait.topic),)
    return suspended(record, activation, wait, spent, fact.at)


def _kept(record: JobRecord, topic: str) -> Any:
    kept = record.events[topic]
    form = kept.pop(0)
    if not kept:
        del record.events[topic]
    return form


def _passed(record: JobRecord, activation: Activation, fact: Committed) -> None:
    _point(record, activation, fact, fact.kind).done = True


def _begin(record: JobRecord, activation: Activation, fact: Committed) -> None:
    """The activation was taken from where it waited; nothing else happens."""


OUTCOMES: dict[str, Callable[[JobRecord, Activation, Committed], Any]] = {
    "begin": _begin,
    "end": _end,
    "given up": _given_up,
    "retry": _retry,
    "merge": _merge,
    "start": _start,
    "failure": _failure,
    "step": _step,
    "wait": _wait,
    "edit": _passed,
    "flush": _passed,
}


# --- what comes from outside --------------------------------------------------------------------------------------


def published(record: JobRecord, fact: Published) -> Activation | None:
    """Give an event to the turn that has waited for it longest, and return that; or keep it for the next."""
    record.inbox = max(record.inbox, fact.message)
    if record.closed:
        return None
    activation = addressee(record, fact)
    if activation is not None:
        last_point(record, activation).form = (fact.form,)
    elif fact.keep:
        record.events.setdefault(fact.topic, []).append(fact.form)
    return activation


def addressee(record: JobRecord, fact: Published) -> Activation | None:
    """Return the turn that an event is for.

    That the time of a wait has come is no fact. So the time of the event decides, in a fold as it did before.
    """
    for activation in record.waiting.values():
        wait = activation.wait
        if wait is None or wait.topic != fact.topic or (wait.due is not None and wait.due <= fact.at):
            continue
        if last_point(record, activation).form is None:
            return activation
    return None


def answered(record: JobRecord, fact: Answered) -> Activation | None:
    """Note how a job that a turn waits for has ended; return the activation when it has waited for no other."""
    activation = record.waiting.get(fact.delivery)
    if activation is None or activation.wait is None or fact.job_id not in activation.wait.jobs:
        return None
    point = last_point(record, activation)
    point.arrived.setdefault(fact.job_id, fact.answer)
    return activation if len(point.arrived) == len(set(activation.wait.jobs)) else None


def last_point(record: JobRecord, activation: Activation) -> Point:
    """Return the point at which a turn waits."""
    return record.points[activation.id][-1]


def awaited(record: JobRecord, activation: Activation) -> Wait | None:
    """Return what a turn still waits for: of other jobs, those of which it has not heard how they have ended.

    It may be asked without the lock of the job, which may be about to go on.
    """
    wait, points = activation.wait, record.points.get(activation.id)
    if wait is None or not wait.jobs or not points:
        return wait
    arrived = points[-1].arrived
    return wait._replace(jobs=tuple(each for each in wait.jobs if each not in arrived))


def is_over(record: JobRecord, activation: Activation, now: int) -> bool:
    """Whether what a turn waits for has come, or its time has."""
    wait = activation.wait
    if wait is None or (wait.due is not None and wait.due <= now):
        return True
    point = last_point(record, activation)
    return len(point.arrived) == len(set(wait.jobs)) if wait.jobs else point.form is not None


def go_on(waits: Iterable[Wait | None], jobs_do: Callable[[tuple[str, ...]], bool]) -> bool:
    """Whether one of these waits will end without anybody outside doing something; ``jobs_do`` tells of other jobs.

    The deadline of an event is none that counts, because whoever publishes it may come first.
    """
    return any(jobs_do(wait.jobs) if wait.jobs else wait.topic is None for wait in waits if wait is not None)


# --- folding ------------------------------------------------------------------------------------------------------


def taken(record: JobRecord, fact: Committed) -> Activation:
    """Return the activation that a kept fact is about, which runs from now on.

    Raises ExecutionError when the record has no such delivery.
    """
    activation = record.running.get(fact.delivery)
    if activation is not None:
        return activation
    if fact.delivery in record.retrying:
        due(record, record.retrying[fact.delivery])
    elif fact.delivery in record.waiting:
        woken(record, record.waiting[fact.delivery])
    mailbox = record.mailboxes[record.plan.slots[fact.slot].mailbox]
    for place, waiting in enumerate(mailbox.resumed):
        if waiting.id == fact.delivery:
            del mailbox.resumed[place]
            return _run(record, waiting, fact)
    for place, row in enumerate(mailbox.queue):
        if row[0] == fact.delivery:
            del mailbox.queue[place]
            return _run(record, Activation(row), fact)
    raise ExecutionError(f"job {record.job_id!r}: a fact names delivery {fact.delivery}, which is not there")


def _run(record: JobRecord, activation: Activation, fact: Committed) -> Activation:
    activation.started = fact.started
    record.queued -= 1
    record.running[fact.delivery] = activation
    return activation


def unfinished(record: JobRecord) -> None:
    """After the last fact: what ran when it was made runs again, before what is queued, and nobody has a ticket.

    So does what was given up just before the job would have failed.
    """
    record.life += 1
    again = {activation.id: activation.later(0) for activation in record.running.values()}
    record.running.clear()
    if not record.status.ended:
        again.update((activation.id, activation) for activation in record.stopped)
        record.stopped.clear()
    for delivery in sorted(again, reverse=True):
        record.mailboxes[again[delivery].slot.mailbox].resumed.appendleft(again[delivery])
    record.queued += len(again)
    record.ready.clear()
    record.on_loop.clear()
    for mailbox in record.mailboxes:
        mailbox.tickets = 0
    for activation in record.retrying.values():
        record.mailboxes[activation.slot.mailbox].tickets += 1
    if record.status is JobStatus.WAITING and record.queued:
        record.status = JobStatus.RUNNING
    record.open = record.status is JobStatus.RUNNING and not record.holds
