"""Copies of a job's record: what is written, while the job may go on."""

from __future__ import annotations

from collections import deque
from copy import copy

from ..core.deliveries import recounted
from ..core.job_record import JobRecord
from ..core.points import Point


def snapshot(record: JobRecord) -> JobRecord:
    """Return a copy of a record that nobody else changes; values in a record are only replaced, so they are shared.

    A durable job need not be held still while the copy is written.
    """
    taken = copy(record)
    taken.mailboxes = [copy(mailbox) for mailbox in record.mailboxes]
    taken.ready = deque(taken.mailboxes[mailbox.index] for mailbox in record.ready)
    for mailbox in taken.mailboxes:
        mailbox.queue, mailbox.resumed = mailbox.queue.copy(), mailbox.resumed.copy()
    taken.running, taken.retrying, taken.waiting = dict(record.running), dict(record.retrying), dict(record.waiting)
    taken.points = {delivery: [_point_of(point) for point in points] for delivery, points in record.points.items()}
    taken.events = {topic: forms[:] for topic, forms in record.events.items()}
    taken.versions = dict(record.versions)
    taken.routine_states = {routine_id: dict(state) for routine_id, state in record.routine_states.items()}
    taken.shared = dict(record.shared)
    taken.buffers, taken.inputs = dict(record.buffers), dict(record.inputs)
    taken.gathers = recounted(record)
    for name in ("errors", "stopped", "deferred", "log", "outputs"):
        setattr(taken, name, getattr(record, name)[:])
    taken.history = record.history.copy()
    if record.durable:
        _take_apart(taken)
    return taken


def _take_apart(taken: JobRecord) -> None:
    """Copy what changes while handlers run."""
    for mailbox in taken.mailboxes:
        mailbox.resumed = deque(map(copy, mailbox.resumed))
    for each in (taken.running, taken.retrying, taken.waiting):
        each.update({delivery: copy(activation) for delivery, activation in each.items()})
    taken.stopped = list(map(copy, taken.stopped))
    for index, buffer in taken.buffers.items():
        if taken.plan.slots[index].merge == "append":
            taken.buffers[index] = {key: values[:] for key, values in buffer.items()}


def _point_of(point: Point) -> Point:
    taken = copy(point)
    taken.arrived, taken.own = dict(point.arrived), dict(point.own)
    return taken
