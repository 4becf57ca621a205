"""Which status a job will have when a fact is in its record: the store tells it at a glance, and is written first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .deliveries import renamed
from .gathers import Gathers
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
    if record.closed:
        return None
    if kind == "end" and fact.outcome[4]:
        return JobStatus.FAILED
    if status is not JobStatus.RUNNING:
        return None
    if kind == "end":
        if fact.outcome[5] is not None:
            return JobStatus.COMPLETED
    elif kind != "wait":
        return status
    if record.queued or len(record.running) > 1 or record.retrying:
        return JobStatus.RUNNING
    events = activation.slot.node.events
    if record.gathers is None and any(events[each.event].routes and not each.later for each in fact.batch.emissions):
        return JobStatus.RUNNING  # the usual case, without a look at what arrives where
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
    reach, outlook = gathers.reach, _Outlook(gathers)
    for events, change in ((deferred, 1), (released, -1)):
        for event in events:
            for route in event.routes:
                outlook.count(reach.arrivals[route.slot.index], change)
    if over is not None:
        outlook.count(reach.work[over.index], -1)
    if closed is not None:
        outlook.count(reach.arrivals[closed], -1)
    return any(map(outlook.fills, arrivals)) or outlook.closes()


class _Outlook:
    """What will have come to the gathers of a job; these stay as they are."""

    def __init__(self, gathers: Gathers) -> None:
        self.gathers = gathers
        self.ahead, self.held = gathers.ahead[:], gathers.held[:]
        self.groups: dict[tuple[int, Any], dict[str, int]] = {}  # those that grow: how many parts of each source

    def count(self, which: Iterable[int], change: int) -> None:
        """Count something that is ahead of these gathers, or is no longer."""
        for number in which:
            self.ahead[number] += change

    def fills(self, arrival: Arrival) -> bool:
        """Take in a delivery; return whether one gets into a mailbox because of it."""
        slot, payload, source = arrival
        number = self.gathers.reach.numbers[slot.index]
        gather = self.gathers.reach.gathers[number]
        try:
            key = None if gather.key is None else payload[gather.key]
            known = self.gathers.groups[number].get(key, {})
        except (KeyError, TypeError):  # what has no key is a delivery by itself
            return True
        group = self.groups.setdefault((number, key), {each: len(waiting) for each, waiting in known.items()})
        place = source if gather.mode == SOURCES else ""
        group[place] = group.get(place, 0) + 1
        self.held[number] += 1
        self.count(self.gathers.reach.parts[number], 1)
        if gather.mode == SOURCES:
            return len(group) == len(self.gathers.reach.sources[number])
        return gather.mode == COUNT and group[place] >= gather.count

    def closes(self) -> bool:
        """Close what is ripe; return whether a delivery gets into a mailbox because of it."""
        while ripe := [number for number, many in enumerate(self.held) if many and not self.ahead[number]]:
            for number in ripe:
                if self.gathers.reach.gathers[number].rest != DROP:
                    return True
                self.count(self.gathers.reach.parts[number], -self.held[number])
                self.held[number] = 0
        return False
