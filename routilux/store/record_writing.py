"""A job's record as JSON.

What there is much of is kept by columns: that is smaller, and faster, than an object for each. Names that occur again
and again are in tables, and columns refer to the tables. Times are nanoseconds since 1970, in UTC.
`record_reading` knows the way back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from copy import copy, deepcopy
from itertools import chain
from operator import itemgetter
from typing import Any

from pydantic import BaseModel

from ..core.deliveries import recounted
from ..core.history import Entry, History, Totals, add_up
from ..core.job_record import Activation, JobRecord
from ..core.plan import SlotPlan
from ..core.points import Point
from ..core.records import ErrorRecord
from ..errors import SaveError
from .gather_forms import gather_rows, made_of, part_rows
from .turn_forms import error_row, point_form, wait_row
from .values import Writer

NAMED = ("routine", "slot", "event", "status")
TOTALS = ("count", "errors", "emitted", "total", "least", "most")
# What every job begins with: making it each time would be a quarter of the work of writing a job that begins. All forms
# share it, so nobody may change it.
NO_HISTORY: dict[str, Any] = {
    "names": [],
    **{key: [] for key in NAMED},
    "data": [],
    **{key: [] for key in ("started", "duration", "waited", "error", "attempt", "emitted")},
    "dropped": 0,
    "counted": 0,
    "totals": [],
}


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
    taken.history = _history_of(record.history)
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


def _history_of(history: History) -> History:
    taken = History(history.limit)
    taken.items, taken.totals = history.items[:], deepcopy(history.totals)
    taken.counted, taken.dropped = history.counted, history.dropped
    return taken


class RecordWriter:
    """Writes one record, which must be a `snapshot`.

    Args:
        record: the record.
        values: writes the values in it.
        state: the shared data as the state model of the flow, if it has one.
    """

    def __init__(self, record: JobRecord, values: Writer, state: BaseModel | None) -> None:
        self.record = record
        self.values = values
        self.state = state
        self.epoch = record.epoch
        self.errors: dict[int, int] = {}  # places in the table by identity
        self.error_rows: list[Any] = []
        self.slots: dict[SlotPlan, int] = {}

    def write(self) -> dict[str, Any]:
        """Return the JSON form of the record.

        Raises SaveError when something in it has none, and for a turn that waits in a job without a store.
        """
        record, text = self.record, self.values.text
        self._check_waiting()
        form = {
            "job_id": text(record.job_id),
            "session_id": text(record.session_id),
            "user_id": text(record.user_id),
            "status": str(record.status),
            "closed": record.closed,
            "reason": text(record.reason),
            "created": record.created + self.epoch,
            "started": self._utc(record.started),
            "finished": self._utc(record.finished),
            "next_id": record.next_id,
            "result": self.values.value(record.result, "the result"),
            **self._states(),
            "log": self._log(),
            "outputs": self._outputs(),
            "queue": self._queue(),
            "ready": self._ready(),
            "resumed": self._activations([each for mailbox in record.mailboxes for each in mailbox.resumed]),
            "retrying": self._activations(record.retrying.values()),
            "stopped": self._activations(record.stopped),
            "deferred": self._deferred(),
            "buffers": self._buffers(),
            "history": self._history(),
            "job_errors": [self._error(error) for error in record.errors],
            "failure": None if record.failure is None else self._error(record.failure),
            **{key: part for key, part in self._turns().items() if part},
        }
        # Last, because the others have filled them.
        form["slots"] = [[text(slot.routine_id), text(slot.name)] for slot in self.slots]
        form["errors"] = self.error_rows
        return form

    def _utc(self, time: int | None) -> int | None:
        return None if time is None else time + self.epoch

    def _slot(self, slot: SlotPlan) -> int:
        return self.slots.setdefault(slot, len(self.slots))

    def _error(self, error: ErrorRecord) -> int:
        place = self.errors.get(id(error))
        if place is None:
            place = self.errors[id(error)] = len(self.error_rows)
            self.error_rows.append(error_row(error, self.values))
        return place

    # --- what handlers have written -----------------------------------------------------------------------------

    def _states(self) -> dict[str, Any]:
        record, values = self.record, self.values
        fields = type(self.state).model_fields if self.state is not None else ()
        beside = {key: value for key, value in record.shared.items() if key not in fields}
        return {
            "state": None if self.state is None else values.state(self.state, "the state"),
            "shared": values.mapping(beside, "shared data "),
            "routine_states": [
                [values.text(routine_id), values.mapping(state, f"the state of routine {routine_id!r}: ")]
                for routine_id, state in record.routine_states.items()
            ],
        }

    def _log(self) -> dict[str, Any]:
        log = self.record.log
        return {
            "entries": self.values.mappings([each.entry for each in log], lambda index: f"log entry {index}: "),
            "at": [each.at + self.epoch for each in log],
        }

    def _outputs(self) -> dict[str, Any]:
        outputs = self.record.outputs
        return {
            "from": [[self.values.text(each.routine_id), self.values.text(each.output_type)] for each in outputs],
            "data": self.values.mappings([each.data for each in outputs], lambda index: f"output {index}: "),
            "at": [each.at + self.epoch for each in outputs],
        }

    # --- what is still to be done -------------------------------------------------------------------------------

    def _queue(self) -> dict[str, Any]:
        waiting = [each for mailbox in self.record.mailboxes for each in mailbox.deliveries()]
        return {
            "id": [each.id for each in waiting],
            "slot": [self._slot(each.slot) for each in waiting],
            "payload": self.values.mappings(
                [{} if each.parts else each.payload for each in waiting], lambda index: _payload_of(waiting[index].slot)
            ),
            "isolate": [each.isolate for each in waiting],
            "at": [each.at + self.epoch for each in waiting],
            "origin": [each.origin for each in waiting],
            **made_of(waiting, self.values, self.epoch),
        }

    def _ready(self) -> list[int]:
        """Return in which order mailboxes take turns: each by the slot of what waits there."""
        ready = []
        for mailbox in self.record.ready:
            if mailbox.resumed:
                ready.append(self._slot(mailbox.resumed[0].slot))
            elif mailbox.queue:
                ready.append(self._slot(mailbox.queue[0][1]))
        return ready

    def _activations(self, activations: Iterable[Activation]) -> list[Any]:
        return [self._activation(each) for each in activations]

    def _activation(self, each: Activation) -> dict[str, Any]:
        delivery, where = each.delivery, _payload_of(each.slot)
        return {
            "id": delivery.id,
            "slot": self._slot(each.slot),
            "payload": self.values.mapping({} if delivery.parts else delivery.payload, where),
            "isolate": delivery.isolate,
            "at": delivery.at + self.epoch,
            "origin": delivery.origin,
            # What it was merged to, when that is something else.
            "merged": self.values.mapping(each.payload, where) if each.merged else None,
            "merged_isolate": each.isolate,
            "attempt": each.attempt,
            "first": self._utc(each.first),
            "spent": each.spent,
            "due": self._utc(each.due or None),
            **self._turn(each, where),
        }

    # --- turns that have not ended --------------------------------------------------------------------------------

    def _check_waiting(self) -> None:
        if self.record.durable:
            return
        for each in self.record.waiting.values():
            points = self.record.points.get(each.id)
            name = points[-1].name if points else each.wait and each.wait.topic
            at = f" at {name!r}" if name is not None else ""
            raise SaveError(
                f"{self.values.subject}: '{each.slot.routine_id}.{each.slot.name}' waits{at} inside its handler, which "
                f"only a job with a store can be saved with; give the engine one, or save the job when it has gone on"
            )

    def _turn(self, each: Activation, where: str) -> dict[str, Any]:
        """Return what is known of an attempt that has begun, as far as there is any."""
        form: dict[str, Any] = {}
        parts = each.delivery.parts
        if parts:
            form["parts"] = part_rows(each.slot, parts, self.values, self.epoch)
        if each.emitted:
            form["emitted"] = each.emitted
        if each.event is not None and each.data is not None:
            form["event"], form["data"] = self.values.text(each.event), self.values.mapping(each.data, where)
        if each.wait is not None:
            form["wait"] = wait_row(each.wait, self.values, self.epoch)
        if each.id in self.record.running:
            form["started"] = each.started + self.epoch
        return form

    def _turns(self) -> dict[str, Any]:
        record, text = self.record, self.values.text
        form: dict[str, Any] = {
            "parent_job_id": text(record.parent_job_id),
            "running": self._activations(record.running.values()),
            "waiting": self._activations(record.waiting.values()),
            "points": [
                [delivery, [point_form(point, self.values, self.epoch) for point in points]]
                for delivery, points in record.points.items()
            ],
            "events": [[text(topic), forms] for topic, forms in record.events.items()],
            **gather_rows(record, self._slot, self.values),
            "inbox": record.inbox,
        }
        if record.durable:
            form["life"], form["revision"] = record.life, record.revision
            form["versions"] = [[text(area), text(key), number] for (area, key), number in record.versions.items()]
        return form

    def _deferred(self) -> list[Any]:
        owners = {event: node for node in self.record.plan.nodes.values() for event in node.events.values()}
        forms = []
        for event, data, isolate, origin in self.record.deferred:
            routine_id = owners[event].routine_id
            where = f"the deferred event '{routine_id}.{event.name}': "
            names = [self.values.text(routine_id), self.values.text(event.name)]
            forms.append(
                {"event": names, "data": self.values.mapping(data, where), "isolate": isolate, "origin": origin}
            )
        return forms

    def _buffers(self) -> list[Any]:
        plans = self.record.plan.slots
        forms = []
        for index, buffer in self.record.buffers.items():
            slot = plans[index]
            where = f"what was merged for '{slot.routine_id}.{slot.name}': "
            forms.append([self._slot(slot), self.values.mapping(buffer, where)])
        return forms

    # --- history ------------------------------------------------------------------------------------------------

    def _history(self) -> dict[str, Any]:
        history = self.record.history
        if not history.items and not history.totals and not history.dropped:
            return NO_HISTORY
        return self._history_form(history)

    def _history_form(self, history: History) -> dict[str, Any]:
        entries, data = history.latest()
        surplus = len(history) - len(entries)
        add_up(history.totals, history.items[2 * history.counted : 2 * surplus : 2])
        # Tuples and iterators, one per entry, would set off the garbage collector.
        fields = enumerate(Entry._fields)
        columns = [list(map(itemgetter(place), entries)) for place, name in fields if name != "data"]
        routine_ids, slots, events, started, spent, waited, statuses, errors, attempts, emitted = columns
        named = (routine_ids, slots, events, statuses)
        table = {name: place for place, name in enumerate(dict.fromkeys(chain.from_iterable(map(set, named))))}
        epoch = self.epoch
        return {
            "names": [self.values.text(name) for name in table],
            **{key: list(map(table.__getitem__, column)) for key, column in zip(NAMED, named, strict=True)},
            "data": self.values.mappings(data, lambda index: f"history of {entries[index][0]!r}: "),
            "started": [time + epoch for time in started],
            "duration": spent,
            "waited": waited,
            "error": [[at, self._error(error)] for at, error in enumerate(errors) if error is not None],
            "attempt": attempts,
            "emitted": emitted,
            "dropped": history.dropped + surplus,
            "counted": max(history.counted - surplus, 0),
            "totals": [[self.values.text(name), _totals(each)] for name, each in history.totals.items()],
        }


def _payload_of(slot: SlotPlan) -> str:
    return f"payload of the delivery to '{slot.routine_id}.{slot.name}': "


def _totals(totals: Totals) -> dict[str, Any]:
    form: dict[str, Any] = {name: getattr(totals, name) for name in TOTALS}
    for name, histogram in (("durations", totals.durations), ("waits", totals.waits)):
        form[name] = [list(histogram.buckets), list(histogram.buckets.values())]
    return form
