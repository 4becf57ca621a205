"""A job's record from JSON; see `record_writing`.

What it is made of may come from anywhere: every part is checked before it is used, and what names routines, slots or
events that the flow does not have is reported as a whole.
"""

from __future__ import annotations

from typing import Any

from ..core.job_record import Activation, Delivery, Held, JobRecord
from ..core.plan import EventPlan, Plan, SlotPlan
from ..core.records import ErrorRecord, Logged, Sent
from ..core.status import JobStatus
from .gather_forms import GatherReader, unknown_sources
from .history_reading import HistoryReader
from .reading import Reader
from .shapes import NONE
from .turn_forms import PartReader

STATUSES = {
    "running": JobStatus.PAUSED,
    "waiting": JobStatus.PAUSED,
    "paused": JobStatus.PAUSED,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
    "cancelled": JobStatus.CANCELLED,
}
REASONS = {"running": "it was saved while it ran", "waiting": "it was saved while it waited"}
AS_THEY_WERE = {**STATUSES, "running": JobStatus.RUNNING, "waiting": JobStatus.WAITING}


class RecordReader(PartReader):
    """Reads one record.

    Args:
        form: its JSON form, which becomes the record's own.
        plan: the flow.
        values: reads the values in it.
        epoch: what the clock of this process shows less than UTC, in nanoseconds.
        history_limit: how many activations its history keeps.
        recovered: whether the record is that of a durable job whose facts are to be folded into it: what ran still
            does then, and its status is what it was. Otherwise what ran is to run again when the job is resumed, and
            a job that ran or waited is paused.
    """

    def __init__(
        self,
        form: dict[str, Any],
        plan: Plan,
        values: Reader,
        epoch: int,
        history_limit: int | None,
        recovered: bool = False,
    ) -> None:
        super().__init__(values, epoch)
        self.form = form
        self.plan = plan
        self.history_limit = history_limit
        self.recovered = recovered
        self.missing: list[str] = []
        self.slots: list[SlotPlan] = []
        self.errors: list[ErrorRecord] = []
        self.ids: set[int] = set()
        self.gathering = GatherReader(form, self, self._slot_at)

    def read(self) -> JobRecord:
        """Return the record, of which the typed state is still missing. Raises LoadError for what does not fit."""
        form, take = self.form, self.shapes.take
        self.slots = self._slots()
        states, deferred = self._routine_states(), self._deferred()
        if self.missing:
            raise self.shapes.problem(
                f"the flow does not have {', '.join(dict.fromkeys(self.missing))}, and the job still needs it, for a "
                f"delivery, a state or merged values; give it back to the flow until the job has ended"
            )
        self.errors = [self.error(row, "a row of 'errors'") for row in self.optional(form, "errors", list)]
        record = JobRecord(
            plan=self.plan,
            job_id=self.text(take(form, "job_id", str, dict), "'job_id'"),
            epoch=self.epoch,
            created=take(form, "created", int) - self.epoch,
            session_id=self._text_or_none("session_id"),
            user_id=self._text_or_none("user_id"),
            parent_job_id=self._text_or_none("parent_job_id"),
            durable=self.recovered,
            history=HistoryReader(self.values, self.epoch, self.errors, self.history_limit).read(form),
        )
        self._life(record)
        record.next_id = self.shapes.least(take(form, "next_id", int), 1, "'next_id'")
        record.routine_states, record.deferred = states, deferred
        record.shared = self.values.mapping(form.get("shared", {}), "the shared data")
        record.log, record.outputs = self._log(), self._outputs()
        record.buffers = self._buffers()
        self._pending(record)
        self._turns(record)
        self.gathering.read(record)
        self._add_ids(self.gathering.numbers)
        if gone := unknown_sources(record):
            raise self.shapes.problem(
                f"the flow does not have {', '.join(dict.fromkeys(gone))}, along which the job has gathered; give it "
                f"back to the flow until the job has ended"
            )
        if self.ids and not (min(self.ids) >= 1 and max(self.ids) < record.next_id):
            raise self.shapes.problem(f"the ids of deliveries must lie between 1 and 'next_id', {record.next_id}")
        return record

    def _life(self, record: JobRecord) -> None:
        form, take = self.form, self.shapes.take
        status = take(form, "status", str)
        if status not in STATUSES:
            raise self.shapes.problem(f"'status' is {status!r}, not one of {', '.join(STATUSES)}")
        record.status = (AS_THEY_WERE if self.recovered else STATUSES)[status]
        record.open = record.status is JobStatus.RUNNING
        finished_early = self.optional(form, "closed", bool)
        final = record.status in (JobStatus.COMPLETED, JobStatus.CANCELLED)
        record.closed = final or (finished_early and record.status is JobStatus.PAUSED)
        reason = self.text(form["reason"], "'reason'") if "reason" in form else ""
        record.reason = reason if self.recovered else REASONS.get(status, reason)
        record.started, record.finished = self._time_or_none("started"), self._time_or_none("finished")
        record.result = self.values.value(form.get("result"), "the result")
        record.errors = [self.error_at(place, self.errors) for place in self.optional(form, "job_errors", list)]
        failure = form.get("failure")
        record.failure = None if failure is None else self.error_at(failure, self.errors)

    # --- small parts --------------------------------------------------------------------------------------------

    def _clock(self, time: int | None) -> int | None:
        return None if time is None else time - self.epoch

    def _time_or_none(self, key: str) -> int | None:
        time = self.form.get(key)
        return None if time is None else self.time(time, f"{key!r}")

    def _text_or_none(self, key: str) -> str | None:
        return self.text_or_none(self.form.get(key), f"{key!r}")

    def _slots(self) -> list[SlotPlan]:
        found = []
        for row in self.shapes.take(self.form, "slots", list):
            routine_id, name = (self.text(each, "a slot") for each in self.row(row, 2, "a row of 'slots'"))
            node = self.plan.nodes.get(routine_id)
            if node is not None and name in node.slots:
                found.append(node.slots[name])
            else:
                self.missing.append(f"slot '{routine_id}.{name}'")
        return found

    def _slot_at(self, place: Any) -> SlotPlan:
        return self.slots[self.shapes.places([self.shapes.check(place, "a slot", int)], len(self.slots), "a slot")[0]]

    # --- what handlers have written -----------------------------------------------------------------------------

    def _routine_states(self) -> dict[str, dict[str, Any]]:
        states = {}
        for row in self.optional(self.form, "routine_states", list):
            name, data = self.row(row, 2, "a row of 'routine_states'")
            routine_id = self.text(name, "a routine id")
            if routine_id not in self.plan.nodes:
                self.missing.append(f"routine {routine_id!r}")
            else:
                states[routine_id] = self.values.mapping(data, f"the state of routine {routine_id!r}")
        return states

    def _log(self) -> list[Logged]:
        entries, at = self.shapes.table(self.form, "log", {"entries": (dict, list), "at": (int,)})
        entries = self.values.mappings(entries, "a log entry")
        return [Logged(entry, time - self.epoch) for entry, time in zip(entries, at, strict=True)]

    def _outputs(self) -> list[Sent]:
        kinds: dict[str, tuple[type, ...]] = {"from": (list,), "data": (dict, list), "at": (int,)}
        senders, data, at = self.shapes.table(self.form, "outputs", kinds)
        outputs = []
        for sender, each, time in zip(senders, self.values.mappings(data, "an output"), at, strict=True):
            routine_id, kind = (self.text(part, "an output") for part in self.row(sender, 2, "an output"))
            outputs.append(Sent(routine_id, kind, each, time - self.epoch))
        return outputs

    def _buffers(self) -> dict[int, dict[str, Any]]:
        buffers = {}
        for row in self.optional(self.form, "buffers", list):
            place, data = self.row(row, 2, "a row of 'buffers'")
            slot = self._slot_at(place)
            what = f"what was merged for '{slot.routine_id}.{slot.name}'"
            buffer = buffers[slot.index] = self.values.mapping(data, what)
            if slot.merge == "append" and not all(type(each) is list for each in buffer.values()):
                raise self.shapes.problem(f"{what} does not fit merge_strategy='append', which takes lists")
        return buffers

    # --- what is still to be done -------------------------------------------------------------------------------

    def _pending(self, record: JobRecord) -> None:
        self._queue(record)
        for activation in self._activations("resumed"):
            record.mailboxes[activation.slot.mailbox].resumed.append(activation)
        record.queued = sum(len(mailbox.queue) + len(mailbox.resumed) for mailbox in record.mailboxes)
        for activation in self._activations("retrying"):
            record.retrying[activation.id] = activation
            record.mailboxes[activation.slot.mailbox].tickets += 1
        record.stopped = self._activations("stopped")
        for place in self.optional(self.form, "ready", list):
            mailbox = record.mailboxes[self._slot_at(place).mailbox]
            if record.status is JobStatus.PAUSED and mailbox.tickets < mailbox.limit:
                mailbox.tickets += 1
                record.ready.append(mailbox)

    def _queue(self, record: JobRecord) -> None:
        kinds: dict[str, tuple[type, ...]] = {
            "id": (int,),
            "slot": (int,),
            "payload": (dict, list),
            "isolate": (bool,),
            "at": (int,),
            "origin": (int,),
        }
        ids, slots, payloads, isolate, at, origin = self.shapes.table(self.form, "queue", kinds)
        self.shapes.places(slots, len(self.slots), "'queue'")
        payloads = self.values.mappings(payloads, "the payload of a delivery")
        self._add_ids(ids)
        parts = {}
        for each in self.optional(self.form.get("queue", {}), "parts", list, "'queue': "):
            place, rows = self.row(each, 2, "an item of 'parts'")
            parts[ids[self.shapes.places([self.shapes.check(place, "'parts'", int)], len(ids), "'parts'")[0]]] = rows
        for row in zip(ids, slots, payloads, isolate, at, origin, strict=True):
            slot = self.slots[row[1]]
            delivery = Delivery(row[0], slot, row[2], row[3], row[4] - self.epoch, row[5])
            if row[0] in parts:
                delivery = self.gathering.delivery(delivery, parts[row[0]])
            record.mailboxes[slot.mailbox].queue.append(delivery)

    def _add_ids(self, ids: list[int]) -> None:
        before = len(self.ids)
        self.ids.update(ids)
        if len(self.ids) < before + len(ids):
            raise self.shapes.problem("two deliveries have the same id")

    def _activations(self, key: str) -> list[Activation]:
        return [
            self._activation(self.shapes.check(each, f"an item of {key!r}", dict), f"{key!r}: ")
            for each in self.optional(self.form, key, list)
        ]

    def _activation(self, data: dict[str, Any], where: str) -> Activation:
        def take(key: str, *kinds: type) -> Any:
            return self.shapes.take(data, key, *kinds, where=where)

        slot = self._slot_at(take("slot", int))
        what = f"payload of the delivery to '{slot.routine_id}.{slot.name}'"
        payload = self.values.mapping(take("payload", dict, list), what)
        at = take("at", int) - self.epoch
        self._add_ids([take("id", int)])
        delivery = Delivery(data["id"], slot, payload, take("isolate", bool), at, take("origin", int))
        if "parts" in data:
            delivery = self.gathering.delivery(delivery, data["parts"])
        each = Activation(delivery)
        if take("merged", dict, list, NONE) is not None:
            each.payload = self.values.mapping(data["merged"], what)
        each.isolate = take("merged_isolate", bool)
        each.attempt = self.shapes.least(take("attempt", int), 1, f"{where}'attempt'")
        each.first = self._clock(take("first", int, NONE))
        each.spent = self.shapes.least(take("spent", int), 0, f"{where}'spent'")
        each.due = self._clock(take("due", int, NONE)) or 0
        each.emitted = self.amount(data.get("emitted", 0), f"{where}'emitted'")
        if "event" in data:
            each.event = self.text(data["event"], f"{where}'event'")
            each.data = self.values.mapping(data.get("data"), f"{where}'data'")
        return each

    # --- turns that have not ended --------------------------------------------------------------------------------

    def _rows(self, key: str, length: int) -> list[list[Any]]:
        return [self.row(row, length, f"a row of {key!r}") for row in self.optional(self.form, key, list)]

    def _turns(self, record: JobRecord) -> None:
        for delivery, points in self._rows("points", 2):
            found = [self.point(each, "a point") for each in self.shapes.check(points, "'points'", list)]
            record.points[self.shapes.check(delivery, "'points'", int)] = found
        for topic, forms in self._rows("events", 2):
            record.events[self.text(topic, "'events'")] = self.shapes.check(forms, "'events'", list)
        inbox, record.life, record.revision = (
            self.amount(self.form.get(key, 0), f"{key!r}") for key in ("inbox", "life", "revision")
        )
        record.inbox = inbox if self.recovered else 0  # it counts messages of the store that the job was in
        for area, key, revision in self._rows("versions", 3):
            names = self.text_or_none(area, "'versions'"), self.text(key, "'versions'")
            record.versions[names] = self.amount(revision, "'versions'")
        self._began(record, "running")
        self._began(record, "waiting")

    def _began(self, record: JobRecord, key: str) -> None:
        for form in self.optional(self.form, key, list):
            where = f"{key!r}: "
            each = self._activation(self.shapes.check(form, f"an item of {key!r}", dict), where)
            delivery = each.id
            if key == "waiting":
                each.wait = self.wait(form.get("wait"), f"{where}'wait'")
                points = record.points.get(delivery)
                if not points or points[-1].wait != each.wait:
                    raise self.shapes.problem(f"{where}delivery {delivery} does not wait at its last point")
                record.waiting[delivery] = each
                continue
            each.started = self.time(form.get("started"), f"{where}'started'")
            if self.recovered:
                record.running[delivery] = each
            else:
                record.mailboxes[each.slot.mailbox].resumed.appendleft(each.later(0))
                record.queued += 1

    def _deferred(self) -> list[Held]:
        found = []
        for each in self.optional(self.form, "deferred", list):
            data, where = self.shapes.check(each, "an item of 'deferred'", dict), "'deferred': "
            names = self.row(self.shapes.take(data, "event", list, where=where), 2, f"{where}'event'")
            routine_id, name = (self.text(part, f"{where}'event'") for part in names)
            node = self.plan.nodes.get(routine_id)
            event: EventPlan | None = node.events.get(name) if node is not None else None
            if event is None:
                self.missing.append(f"event '{routine_id}.{name}'")
                continue
            payload = self.values.mapping(data.get("data"), f"the deferred event '{routine_id}.{name}'")
            isolate = self.shapes.take(data, "isolate", bool, where=where)
            found.append(Held(event, payload, isolate, self.shapes.take(data, "origin", int, where=where)))
        return found
