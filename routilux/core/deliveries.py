"""How deliveries come to their mailboxes, are gathered on their way, and are taken back: parts of the transitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gathers import Gathers, Part, joined
from .job_record import Activation, Delivery, Held, JobRecord, Row
from .plan import DROP, OUTSIDE, EventPlan, SlotPlan


def enqueue(
    record: JobRecord,
    slot: SlotPlan,
    payload: dict[str, Any],
    isolate: bool,
    at: int,
    origin: int,
    source: str = OUTSIDE,
) -> None:
    """Put a delivery into its mailbox, or among the parts that its slot gathers."""
    number = record.next_id
    record.next_id += 1
    gathers = record.gathers
    if gathers is None:
        put(record, slot, (number, slot, payload, isolate, at, origin, ()))
    elif slot.gather is None:
        gathers.count(gathers.reach.work[slot.index], 1)
        put(record, slot, (number, slot, payload, isolate, at, origin, ()))
    else:
        _gather(record, gathers, slot, Part(number, payload, isolate, at, origin, source))


def put(record: JobRecord, slot: SlotPlan, row: Row) -> None:
    """Put a delivery into the mailbox of its slot."""
    mailbox = record.mailboxes[slot.mailbox]
    mailbox.queue.append(row)
    record.queued += 1
    if mailbox.tickets < mailbox.limit:
        mailbox.tickets += 1
        mailbox.listing.append(mailbox)


def _gather(record: JobRecord, gathers: Gathers, slot: SlotPlan, part: Part) -> None:
    number = gathers.reach.numbers[slot.index]
    try:
        full = gathers.add(number, part)
    except (KeyError, TypeError):  # it has no key: the handler's activation fails for want of it
        gathers.count(gathers.reach.work[slot.index], 1)
        put(record, slot, (part.number, slot, part.payload, part.isolate, part.at, part.origin, ()))
    else:
        if full:
            _put_together(record, gathers, number, full, part.at)


def _put_together(record: JobRecord, gathers: Gathers, number: int, parts: list[Part], at: int) -> None:
    """Put parts of a gather into the mailbox as one delivery."""
    slot = gathers.reach.slots[number]
    gathers.count(gathers.reach.work[slot.index], 1)
    payload = joined(gathers.reach.gathers[number], parts)
    isolate, origin = record.plan.copy_payloads, parts[-1].origin
    put(record, slot, (record.next_id, slot, payload, isolate, at, origin, tuple(parts)))
    record.next_id += 1


def close_gathers(record: JobRecord, at: int) -> None:
    """Close the gathers that nothing can reach any more, as long as there are such."""
    gathers = record.gathers
    if gathers is None or record.closed:
        return
    while (number := gathers.ripe()) is not None:
        batches = gathers.close(number)
        if gathers.reach.gathers[number].rest != DROP:
            for parts in batches:
                _put_together(record, gathers, number, parts, at)


def regather(record: JobRecord, at: int) -> None:
    """See to groups that are full now, or get no more parts, because the flow has other connections than it had."""
    if record.gathers is not None and not record.closed:
        _take_full(record, record.gathers, at)
        if not record.status.ended:
            close_gathers(record, at)


def _take_full(record: JobRecord, gathers: Gathers, at: int) -> None:
    for number in range(len(gathers.held)):
        for parts in gathers.full(number):
            _put_together(record, gathers, number, parts, at)


def finished(record: JobRecord, slot: SlotPlan, at: int) -> None:
    """An activation is over, and what it was ahead of may be ripe."""
    gathers = record.gathers
    if gathers is not None:
        work = gathers.reach.work[slot.index]
        gathers.count(work, -1)
        for number in work:
            if not gathers.ahead[number]:
                close_gathers(record, at)
                return


def emitted(
    record: JobRecord, activation: Activation, event: EventPlan, data: dict[str, Any], isolate: bool, at: int
) -> None:
    """Enqueue one delivery per connection of the event."""
    if record.closed:
        return
    activation.emitted += 1
    activation.event = event.name
    activation.data = data
    origin = activation.id
    if event.counts:
        _send(record, event, data, isolate, at, origin)
        return
    for route in event.routes:
        slot = route.slot
        payload = data if route.rename is None else renamed(data, route.rename)
        # The body of `put` once more: a call here would cost every delivery a tenth of its price.
        mailbox = record.mailboxes[slot.mailbox]
        mailbox.queue.append((record.next_id, slot, payload, isolate, at, origin, ()))
        record.next_id += 1
        record.queued += 1
        if mailbox.tickets < mailbox.limit:
            mailbox.tickets += 1
            mailbox.listing.append(mailbox)


def _send(record: JobRecord, event: EventPlan, data: dict[str, Any], isolate: bool, at: int, origin: int) -> None:
    for route in event.routes:
        payload = data if route.rename is None else renamed(data, route.rename)
        enqueue(record, route.slot, payload, isolate, at, origin, route.source)


def renamed(data: Mapping[str, Any], rename: Mapping[str, str]) -> dict[str, Any]:
    """Return ``data`` with the keys of ``rename`` replaced; a renamed value wins over one that had the name already."""
    payload = {key: value for key, value in data.items() if key not in rename}
    payload.update({new: data[old] for old, new in rename.items() if old in data})
    return payload


def deferred(record: JobRecord, activation: Activation, event: EventPlan, data: dict[str, Any], isolate: bool) -> None:
    """Keep an emission until the job is resumed."""
    if not record.closed:
        activation.emitted += 1
        activation.event = event.name
        activation.data = data
        record.deferred.append(Held(event, data, isolate, activation.id))
        _count_deferred(record, event, 1)


def _count_deferred(record: JobRecord, event: EventPlan, change: int) -> None:
    if record.gathers is not None and event.counts:
        for route in event.routes:
            record.gathers.count(record.gathers.reach.arrivals[route.slot.index], change)


def release_deferred(record: JobRecord, at: int) -> None:
    """Emit what waited for the job to be resumed."""
    held, record.deferred = record.deferred, []
    for event, data, isolate, origin in held:
        _send(record, event, data, isolate, at, origin)
        _count_deferred(record, event, -1)


def withdraw(record: JobRecord, origin: int, at: int) -> None:
    """Take back what a failed turn emitted and nobody has begun to handle."""
    gathers = record.gathers
    for mailbox in record.mailboxes:
        waiting = mailbox.deliveries()
        kept = [delivery for delivery in waiting if not _is_of(delivery, origin)]
        taken = [] if gathers is None else [delivery for delivery in waiting if _is_of(delivery, origin)]
        record.queued -= len(mailbox.queue) - len(kept)
        if len(kept) < len(mailbox.queue):
            mailbox.queue.clear()
            mailbox.queue.extend(kept)
        for delivery in taken:
            _withdrawn(gathers, delivery, origin)
    if gathers is not None:
        gathers.withdraw(origin)
        _take_full(record, gathers, at)  # groups that were broken up may make others full
    for held in record.deferred:
        if held.origin == origin:
            _count_deferred(record, held.event, -1)
    record.deferred[:] = [held for held in record.deferred if held.origin != origin]


def _is_of(delivery: Delivery, origin: int) -> bool:
    """Whether a delivery was emitted by an activation, or a part of it was."""
    return delivery.origin == origin or any(part.origin == origin for part in delivery.parts)


def _withdrawn(gathers: Gathers | None, delivery: Delivery, origin: int) -> None:
    """A delivery was taken out of its mailbox: what it was made of, and is not taken back, is gathered anew."""
    if gathers is not None:
        gathers.count(gathers.reach.work[delivery.slot.index], -1)
        if delivery.parts:
            number = gathers.reach.numbers[delivery.slot.index]
            gathers.put_back(number, (part for part in delivery.parts if part.origin != origin))


def drop(record: JobRecord) -> None:
    """Forget every delivery that has not begun."""
    for mailbox in record.mailboxes:
        mailbox.queue.clear()
        mailbox.resumed.clear()
    record.ready.clear()
    record.on_loop.clear()
    record.retrying.clear()
    record.waiting.clear()
    record.points.clear()
    record.events.clear()
    record.stopped.clear()
    record.deferred.clear()
    record.inputs.clear()
    if record.gathers is not None:
        record.gathers.clear()
    record.queued = 0


def recounted(record: JobRecord) -> Gathers | None:
    """Return the gathers of a record with what is ahead of them counted anew from all that is outstanding."""
    gathers = record.gathers
    if gathers is None:
        return None
    counted, reach = Gathers(gathers.reach), gathers.reach
    slots = [each.slot for mailbox in record.mailboxes for each in mailbox.deliveries()]
    slots += [each.slot for mailbox in record.mailboxes for each in mailbox.resumed]
    for begun in (record.running, record.retrying, record.waiting):
        slots += [activation.slot for activation in begun.values()]
    slots += [activation.slot for activation in record.stopped]
    for slot in slots:
        counted.count(reach.work[slot.index], 1)
    for index in record.inputs:
        counted.count(reach.arrivals[index], 1)
    for held in record.deferred:
        for route in held.event.routes:
            counted.count(reach.arrivals[route.slot.index], 1)
    for number in range(len(reach.slots)):
        counted.put_back(number, gathers.parts(number))
    return counted
