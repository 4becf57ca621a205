"""Which status a job will have when a fact is in its record: the store tells it at a glance, and is written first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .deliveries import renamed
from .job_record import Activation, JobRecord
from .plan import COUNT, DROP, OUTSIDE, SOURCES, EventPlan, SlotPlan
from .points import Committed
from .records import Cancelled, Failed, InputClosed, Paused, Received, Resumed
from .status import JobStatus


class Arrival(NamedTuple):
    """A delivery that is about to be made."""

    slot: SlotPlan
    payload: dict[str, Any]
    source: str


def status_after(record: JobRecord, activation: Activation | None, fact: Any) -> JobStatus | None:
    """Return the status that a job will have when a fact is in its record, None when it stays as it is."""
    if fact.__class__ is Committed and activation is not None:
        return _after_commit(record, activation, fact)
    if fact.__class__ is Resumed:
        return _after_resuming(record)
    if fact.__class__ is Received:
        return _after_receiving(record, fact)
    if fact.__class__ is InputClosed:
        return _after_closing(record, fact)
    return FIXED.get(fact.__class__)


def _after_commit(record: JobRecord, activation: Activation, fact: Committed) -> JobStatus | None:
    status, kind = record.status, fact.kind
    if kind == "end" and fact.outcome[4]:
        return JobStatus.FAILED
    if status is not JobStatus.RUNNING or record.closed:
        return None
    if kind == "end":
        if fact.outcome[5] is not None:
            return JobStatus.COMPLETED
    elif kind != "wait":
        return status
    if record.queued or len(record.running) > 1 or record.retrying:
        return JobStatus.RUNNING
    events = activation.slot.node.events
    later = [events[each.event] for each in fact.batch.emissions if each.later]
    arrivals = [
        arrival
        for each in fact.batch.emissions
        if not each.later
        for arrival in _arrivals(events[each.event], each.data)
    ]
    over = activation.slot if kind == "end" else None
    if _queued(record, arrivals, over=over, deferred=later):
        return JobStatus.RUNNING
    if kind == "wait" or record.waiting or record.inputs:
        return JobStatus.WAITING
    return JobStatus.PAUSED if record.deferred or later else JobStatus.COMPLETED


def _after_resuming(record: JobRecord) -> JobStatus:
    """Return the status of a paused or failed job that goes on: one with nothing left to do ends with that."""
    if record.closed:
        return JobStatus.COMPLETED
    if record.stopped or record.queued or record.running or record.retrying:
        return JobStatus.RUNNING
    events = [held.event for held in record.deferred]
    arrivals = [arrival for held in record.deferred for arrival in _arrivals(held.event, held.data)]
    if _queued(record, arrivals, released=events):
        return JobStatus.RUNNING
    return JobStatus.WAITING if record.waiting or record.inputs else JobStatus.COMPLETED


def _after_receiving(record: JobRecord, fact: Received) -> JobStatus | None:
    if record.status is not JobStatus.WAITING:
        return None
    arrival = Arrival(record.plan.slots[fact.slot], fact.payload, OUTSIDE)
    return JobStatus.RUNNING if _queued(record, [arrival]) else None


def _after_closing(record: JobRecord, fact: InputClosed) -> JobStatus | None:
    if record.status is not JobStatus.WAITING or fact.slot not in record.inputs:
        return None
    if _queued(record, [], closed=fact.slot):
        return JobStatus.RUNNING
    if record.waiting or len(record.inputs) > 1:
        return None
    return JobStatus.PAUSED if record.deferred else JobStatus.COMPLETED


FIXED: dict[type, JobStatus] = {
    Paused: JobStatus.PAUSED,
    Cancelled: JobStatus.CANCELLED,
    Failed: JobStatus.FAILED,
}


def _arrivals(event: EventPlan, data: dict[str, Any]) -> list[Arrival]:
    return [
        Arrival(route.slot, data if route.rename is None else renamed(data, route.rename), route.source)
        for route in event.routes
    ]


def _queued(
    record: JobRecord,
    arrivals: list[Arrival],
    *,
    over: SlotPlan | None = None,
    closed: int | None = None,
    deferred: Iterable[EventPlan] = (),
    released: Iterable[EventPlan] = (),
) -> bool:
    """Whether a delivery gets into a mailbox, if all of them are empty now, when these things have happened.

    Args:
        record: the record, which stays as it is.
        arrivals: deliveries that are made.
        over: the slot of an activation that ends.
        closed: an input that is closed.
        deferred: events that are kept until the job is resumed.
        released: events that were kept, and are emitted.
    """
    gathers = record.gathers
    if gathers is None or any(each.slot.gather is None for each in arrivals):
        return bool(arrivals)
    reach, ahead, held = gathers.reach, gathers.ahead[:], gathers.held[:]

    def count(which: Iterable[int], change: int) -> None:
        for number in which:
            ahead[number] += change

    for events, change in ((deferred, 1), (released, -1)):
        for event in events:
            for route in event.routes:
                count(reach.arrivals[route.slot.index], change)
    count(() if over is None else reach.work[over.index], -1)
    count(() if closed is None else reach.arrivals[closed], -1)
    groups: dict[tuple[int, Any], dict[str, int]] = {}  # those that grow, with how many parts of each source
    for slot, payload, source in arrivals:
        gather, number = slot.gather, reach.numbers[slot.index]
        assert gather is not None
        try:
            key = None if gather.key is None else payload[gather.key]
            known = gathers.groups[number].get(key, {})
        except (KeyError, TypeError):  # what has no key is a delivery by itself
            return True
        group = groups.setdefault((number, key), {each: len(waiting) for each, waiting in known.items()})
        place = source if gather.mode == SOURCES else ""
        group[place] = group.get(place, 0) + 1
        if gather.mode == COUNT and group[place] >= gather.count:
            return True
        if gather.mode == SOURCES and len(group) == len(reach.sources[number]):
            return True
        held[number] += 1
        count(reach.parts[number], 1)
    while ripe := [number for number, many in enumerate(held) if many and not ahead[number]]:
        for number in ripe:
            gather = reach.slots[number].gather
            if gather is None or gather.rest != DROP:
                return True
            count(reach.parts[number], -held[number])
            held[number] = 0
    return False
