"""A job's record as JSON.

What is empty is left out, and most is when a job begins. What there is much of is kept by columns: that is smaller, and
faster, than an object for each. Names that occur again and again are in tables, and columns refer to the tables. Times
are nanoseconds since 1970, in UTC. `record_reading` knows the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from pydantic import BaseModel

from ..core.gathers import Gathers
from ..core.job_record import Activation, Held, JobRecord, Mailbox
from ..core.plan import SlotPlan
from ..core.points import Point
from ..core.records import ErrorRecord, Logged, Sent
from ..errors import SaveError
from .gather_forms import gather_rows, input_rows, made_of, part_rows
from .history_writing import history_form
from .turn_forms import error_row, point_form, wait_row
from .values import Writer


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
        form: dict[str, Any] = {
            "job_id": text(record.job_id),
            "status": str(record.status),
            "created": record.created + self.epoch,
            "next_id": record.next_id,
        }
        if self.state is not None:
            form["state"] = self.values.state(self.state, "the state")
        for key, written in UNLESS_NONE.items():
            held = getattr(record, key)
            if held is not None:
                form[key] = written(self, held)
        for key, attribute, written in UNLESS_EMPTY_IN_STORE if record.durable else UNLESS_EMPTY:
            held = getattr(record, attribute)
            if held and (part := written(self, held)):
                form[key] = part
        if history := history_form(record.history, self.values, self._error, self.epoch):
            form["history"] = history
        # Last, because the others have filled them.
        form["slots"] = [[text(slot.routine_id), text(slot.name)] for slot in self.slots]
        if self.error_rows:
            form["errors"] = self.error_rows
        return form

    def _utc(self, time: int) -> int:
        return time + self.epoch

    def _slot(self, slot: SlotPlan) -> int:
        return self.slots.setdefault(slot, len(self.slots))

    def _error(self, error: ErrorRecord) -> int:
        place = self.errors.get(id(error))
        if place is None:
            place = self.errors[id(error)] = len(self.error_rows)
            self.error_rows.append(error_row(error, self.values))
        return place

    # --- small parts --------------------------------------------------------------------------------------------

    def _text(self, text: str) -> Any:
        return self.values.text(text)

    def _itself(self, value: int) -> int:
        return value

    def _result(self, result: Any) -> Any:
        return self.values.value(result, "the result")

    def _errors(self, errors: list[ErrorRecord]) -> list[int]:
        return [self._error(error) for error in errors]

    # --- what handlers have written -----------------------------------------------------------------------------

    def _shared(self, shared: dict[str, Any]) -> Any:
        fields = type(self.state).model_fields if self.state is not None else ()
        return self.values.mapping({key: each for key, each in shared.items() if key not in fields}, "shared data ")

    def _routine_states(self, states: dict[str, dict[str, Any]]) -> list[Any]:
        return [
            [self.values.text(routine_id), self.values.mapping(state, f"the state of routine {routine_id!r}: ")]
            for routine_id, state in states.items()
        ]

    def _log(self, log: list[Logged]) -> dict[str, Any]:
        return {
            "entries": self.values.mappings([each.entry for each in log], lambda index: f"log entry {index}: "),
            "at": [each.at + self.epoch for each in log],
        }

    def _outputs(self, outputs: list[Sent]) -> dict[str, Any]:
        return {
            "from": [[self.values.text(each.routine_id), self.values.text(each.output_type)] for each in outputs],
            "data": self.values.mappings([each.data for each in outputs], lambda index: f"output {index}: "),
            "at": [each.at + self.epoch for each in outputs],
        }

    # --- what is still to be done -------------------------------------------------------------------------------

    def _queue(self, mailboxes: list[Mailbox]) -> dict[str, Any]:
        waiting = [each for mailbox in mailboxes for each in mailbox.deliveries()]
        if not waiting:
            return {}
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

    def _ready(self, mailboxes: Iterable[Mailbox]) -> list[int]:
        """Return in which order mailboxes take turns: each by the slot of what waits there."""
        ready = []
        for mailbox in mailboxes:
            if mailbox.resumed:
                ready.append(self._slot(mailbox.resumed[0].slot))
            elif mailbox.queue:
                ready.append(self._slot(mailbox.queue[0][1]))
        return ready

    def _resumed(self, mailboxes: list[Mailbox]) -> list[Any]:
        return self._activations([each for mailbox in mailboxes for each in mailbox.resumed])

    def _by_delivery(self, activations: dict[int, Activation]) -> list[Any]:
        return self._activations(activations.values())

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
            "first": None if each.first is None else each.first + self.epoch,
            "spent": each.spent,
            "due": each.due + self.epoch if each.due else None,
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

    def _points(self, found: dict[int, list[Point]]) -> list[Any]:
        return [
            [delivery, [point_form(point, self.values, self.epoch) for point in points]]
            for delivery, points in found.items()
        ]

    def _events(self, events: dict[str, list[Any]]) -> list[Any]:
        return [[self.values.text(topic), forms] for topic, forms in events.items()]

    def _gathers(self, gathers: Gathers) -> list[Any]:
        return gather_rows(gathers, self._slot, self.values, self.epoch)

    def _inputs(self, inputs: dict[int, int | None]) -> list[Any]:
        return input_rows(inputs, self.record.plan.slots, self._slot, self.epoch)

    def _versions(self, versions: dict[tuple[str | None, str], int]) -> list[Any]:
        text = self.values.text
        return [[text(area), text(key), number] for (area, key), number in versions.items()]

    def _deferred(self, deferred: list[Held]) -> list[Any]:
        owners = {event: node for node in self.record.plan.nodes.values() for event in node.events.values()}
        forms = []
        for event, data, isolate, origin in deferred:
            routine_id = owners[event].routine_id
            where = f"the deferred event '{routine_id}.{event.name}': "
            names = [self.values.text(routine_id), self.values.text(event.name)]
            forms.append(
                {"event": names, "data": self.values.mapping(data, where), "isolate": isolate, "origin": origin}
            )
        return forms

    def _buffers(self, buffers: dict[int, dict[str, Any]]) -> list[Any]:
        plans = self.record.plan.slots
        forms = []
        for index, buffer in buffers.items():
            slot = plans[index]
            where = f"what was merged for '{slot.routine_id}.{slot.name}': "
            forms.append([self._slot(slot), self.values.mapping(buffer, where)])
        return forms


def _payload_of(slot: SlotPlan) -> str:
    return f"payload of the delivery to '{slot.routine_id}.{slot.name}': "


Written: TypeAlias = Callable[[RecordWriter, Any], Any]
UNLESS_NONE: dict[str, Written] = {
    **dict.fromkeys(("session_id", "user_id", "parent_job_id"), RecordWriter._text),
    **dict.fromkeys(("started", "finished"), RecordWriter._utc),
    "result": RecordWriter._result,
    "failure": RecordWriter._error,
}
# The key, the attribute of the record, and what writes it.
UNLESS_EMPTY: tuple[tuple[str, str, Written], ...] = (
    ("closed", "closed", RecordWriter._itself),
    ("reason", "reason", RecordWriter._text),
    ("inbox", "inbox", RecordWriter._itself),
    ("shared", "shared", RecordWriter._shared),
    ("routine_states", "routine_states", RecordWriter._routine_states),
    ("log", "log", RecordWriter._log),
    ("outputs", "outputs", RecordWriter._outputs),
    ("queue", "mailboxes", RecordWriter._queue),
    ("ready", "ready", RecordWriter._ready),
    ("resumed", "mailboxes", RecordWriter._resumed),
    ("running", "running", RecordWriter._by_delivery),
    ("retrying", "retrying", RecordWriter._by_delivery),
    ("waiting", "waiting", RecordWriter._by_delivery),
    ("points", "points", RecordWriter._points),
    ("events", "events", RecordWriter._events),
    ("stopped", "stopped", RecordWriter._activations),
    ("deferred", "deferred", RecordWriter._deferred),
    ("buffers", "buffers", RecordWriter._buffers),
    ("inputs", "inputs", RecordWriter._inputs),
    ("gathers", "gathers", RecordWriter._gathers),
    ("job_errors", "errors", RecordWriter._errors),
)
UNLESS_EMPTY_IN_STORE: tuple[tuple[str, str, Written], ...] = (
    *UNLESS_EMPTY,
    ("life", "life", RecordWriter._itself),
    ("revision", "revision", RecordWriter._itself),
    ("versions", "versions", RecordWriter._versions),
)
