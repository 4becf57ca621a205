"""The facts of durable jobs from JSON; see `fact_writing`.

What they are made of may come from anywhere: every part is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from ..core.plan import Plan, SlotPlan
from ..core.points import Answered, Batch, Committed, DurableFact, Emission, Noted, Published
from ..core.records import (
    Cancelled,
    ErrorRecord,
    Fact,
    Failed,
    InputClosed,
    Logged,
    Paused,
    Received,
    Resumed,
    Sent,
    Wrote,
)
from ..routine.binding import shortened
from .reading import Reader
from .turn_forms import PartReader
from .typed_writes import TypedState

TURN_KEYS = frozenset(
    {"kind", "delivery", "slot", "started", "at", "name", "outcome", "reads", "emissions", "writes", "log", "outputs"}
)
WRITE_KEYS = frozenset({"area", "set", "removed", "state", "fields"})
STATUSES = ("completed", "failed", "skipped", "cancelled")


class FactReader(PartReader):
    """Reads the facts of one job.

    Args:
        plan: the flow as it is now.
        slots: the slots of the flow in the order in which it had them when the facts were written; see
            `documents.Recovered`.
        values: reads the values in the facts.
        epoch: what the clock of this process shows less than UTC, in nanoseconds.
    """

    def __init__(self, plan: Plan, slots: Sequence[SlotPlan | str], values: Reader, epoch: int) -> None:
        super().__init__(values, epoch)
        self.plan = plan
        self.slots = slots
        self.state = TypedState(plan.state_schema)

    def read(self, data: bytes) -> Fact | DurableFact:
        """Return the fact with this JSON form. Raises LoadError when it is none, or does not fit the flow."""
        try:
            form = orjson.loads(data)
        except ValueError as error:
            raise self.shapes.problem(f"a fact is truncated or damaged: it is no JSON: {error}") from error
        kind = self.shapes.take(self.shapes.check(form, "a fact", dict), "kind", str, where="a fact: ")
        if kind in OUTCOMES:
            return self._committed(kind, form)
        if kind not in KINDS:
            raise self.shapes.problem(f"a fact is of a kind that this version of routilux does not know: {kind!r}")
        keys, method = KINDS[kind]
        self.known_keys(form, keys, f"a fact of kind {kind!r}")
        return method(self, form)

    def _take(self, form: Mapping[str, Any], key: str, *kinds: type) -> Any:
        return self.shapes.take(form, key, *kinds, where="a fact: ")

    def _at(self, form: Mapping[str, Any], key: str = "at") -> int:
        return self.time(self._take(form, key, int), key)

    def _mapping(self, data: Any, where: str) -> dict[str, Any]:
        return self.values.mapping(data, where)

    def _slot(self, form: Mapping[str, Any]) -> SlotPlan:
        slots = self.slots
        slot = slots[self.shapes.places([self._take(form, "slot", int)], len(slots), "'slot'")[0]]
        if isinstance(slot, str):
            raise self.shapes.problem(f"the flow lacks slot {slot!r}, of which there are facts")
        return slot

    # --- turns --------------------------------------------------------------------------------------------------

    def _committed(self, kind: str, form: dict[str, Any]) -> Committed:
        self.known_keys(form, TURN_KEYS, f"a fact of kind {kind!r}")
        slot = self._slot(form)
        at = self._at(form)
        needed, method = OUTCOMES[kind]
        outcome = form.get("outcome")
        if needed is not None and needed is not (outcome is not None):
            raise self.shapes.problem(f"a fact of kind {kind!r} {'lacks' if needed else 'has'} the key 'outcome'")
        return Committed(
            self.shapes.least(self._take(form, "delivery", int), 1, "'delivery'"),
            slot.index,
            self._at(form, "started"),
            kind,
            self.text_or_none(form.get("name"), "'name'"),
            None if outcome is None else method(self, outcome, at),
            self._batch(form, slot),
            self.reads(self.optional(form, "reads", list), "'reads'"),
            at,
        )

    def _batch(self, form: dict[str, Any], slot: SlotPlan) -> Batch:
        return Batch(
            tuple(self._emission(row, slot) for row in self.optional(form, "emissions", list)),
            tuple(self._write(row) for row in self.optional(form, "writes", list)),
            tuple(self._entry(row) for row in self.optional(form, "log", list)),
            tuple(self._output(row) for row in self.optional(form, "outputs", list)),
        )

    def _emission(self, row: Any, slot: SlotPlan) -> Emission:
        length = 2 if type(row) is list and len(row) == 2 else 4
        name, data, *marks = self.row(row, length, "an emission")
        event = self.text(name, "an event")
        if event not in slot.node.events:
            raise self.shapes.problem(f"routine {slot.routine_id!r} emitted event {event!r}, which it does not have")
        isolate, later = (self.shapes.check(each, "an emission", bool) for each in marks or (False, False))
        return Emission(event, self._mapping(data, f"event {event!r}: "), isolate, later)

    def _write(self, row: Any) -> Wrote:
        self.known_keys(self.shapes.check(row, "an item of 'writes'", dict), WRITE_KEYS, "an item of 'writes'")
        area = self.text_or_none(row.get("area"), "'area'")
        if area is not None and area not in self.plan.nodes:
            raise self.shapes.problem(f"a fact changes the state of routine {area!r}, which the flow does not have")
        what = "shared data " if area is None else f"the state of routine {area!r}: "
        values = self._mapping(row["set"], what) if "set" in row else {}
        if "fields" in row or "state" in row:
            if area is not None:
                raise self.shapes.problem("a fact sets fields of the typed state in the state of a routine")
            values.update(self.state.read(row, self.values, self.shapes))
        removed = tuple(self.text(key, "'removed'") for key in self.optional(row, "removed", list))
        return Wrote(area, values, removed)

    def _entry(self, row: Any) -> Logged:
        entry, at = self.row(row, 2, "an item of 'log'")
        return Logged(self._mapping(entry, "a log entry: "), self.time(at, "the time of a log entry"))

    def _output(self, row: Any) -> Sent:
        routine_id, kind, data, at = self.row(row, 4, "an item of 'outputs'")
        names = self.text(routine_id, "an output"), self.text(kind, "an output")
        return Sent(*names, self._mapping(data, "an output: "), self.time(at, "the time of an output"))

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _end(self, outcome: Any, at: int) -> tuple[Any, ...]:
        length = 2 if type(outcome) is list and len(outcome) == 2 else 6
        status, spent, *more = self.row(outcome, length, "'outcome'")
        if status not in STATUSES:
            raise self.shapes.problem(f"'outcome' is {shortened(status)}, not one of {', '.join(STATUSES)}")
        self.amount(spent, "the duration")
        if not more:
            return status, spent, at, None, False, None
        at, row, stop, finish = more
        error = None if row is None else self.error(row, "the error")
        self.shapes.check(stop, "'outcome'", bool)
        result = None if finish is None else (self.values.value(self.row(finish, 1, "the result")[0], "the result"),)
        return status, spent, self.time(at, "'outcome'"), error, stop, result

    def _given_up(self, outcome: Any, _: int) -> tuple[Any, ...]:
        error, at = self.row(outcome, 2, "'outcome'")
        return self.error(error, "the error"), self.time(at, "'outcome'")

    def _retry(self, outcome: Any, _: int) -> tuple[Any, ...]:
        spent, due = self.row(outcome, 2, "'outcome'")
        return self.amount(spent, "the duration"), self.time(due, "the time of the next attempt")

    def _merge(self, outcome: Any, _: int) -> dict[str, Any]:
        return self._mapping(outcome, "what was merged: ")

    def _as_it_is(self, outcome: Any, _: int) -> Any:
        return outcome

    def _failure(self, outcome: Any, _: int) -> ErrorRecord:
        return self.error(outcome, "the error")

    def _step(self, outcome: Any, _: int) -> Any:
        if type(outcome) is list and len(outcome) == 1:
            return (outcome[0],)
        return self.error(outcome, "the outcome of a step")

    def _wait(self, outcome: Any, _: int) -> tuple[Any, ...]:
        wait, spent = self.row(outcome, 2, "'outcome'")
        return self.wait(wait, "what a turn waits for"), self.amount(spent, "the duration")

    # --- what comes from outside --------------------------------------------------------------------------------

    def _published(self, form: dict[str, Any]) -> Published:
        topic = self.text(self._take(form, "name", str, dict), "'name'")
        if "outcome" not in form:
            raise self.shapes.problem("a fact: the key 'outcome' is missing")
        keep = self.optional(form, "keep", bool)
        message = self.amount(form.get("message", 0), "'message'")
        return Published(topic, form["outcome"], keep, self._at(form), message)

    def _answered(self, form: dict[str, Any]) -> Answered:
        if "outcome" not in form:
            raise self.shapes.problem("a fact: the key 'outcome' is missing")
        delivery = self.shapes.least(self._take(form, "delivery", int), 1, "'delivery'")
        return Answered(delivery, self.text(self._take(form, "name", str, dict), "'name'"), form["outcome"])

    def _noted(self, form: dict[str, Any]) -> Noted:
        return Noted(self.amount(self._take(form, "message", int), "'message'"))

    def _received(self, form: dict[str, Any]) -> Received:
        slot = self._slot(form)
        payload = self._mapping(form.get("outcome"), f"what was sent to '{slot.routine_id}.{slot.name}': ")
        isolate = self.optional(form, "isolate", bool)
        return Received(slot.index, payload, isolate, self._at(form), self.amount(form.get("message", 0), "'message'"))

    def _input_closed(self, form: dict[str, Any]) -> InputClosed:
        return InputClosed(self._slot(form).index, self._at(form), self.amount(form.get("message", 0), "'message'"))

    def _wrote(self, form: dict[str, Any]) -> Wrote:
        return self._write(self.row(self._take(form, "writes", list), 1, "'writes'")[0])

    def _logged(self, form: dict[str, Any]) -> Logged:
        return self._entry(self.row(self._take(form, "log", list), 1, "'log'")[0])

    def _failed(self, form: dict[str, Any]) -> Failed:
        return Failed(self.error(self._take(form, "outcome", list), "the error"), self._at(form))

    def _paused(self, form: dict[str, Any]) -> Paused:
        return Paused(self.text(self._take(form, "outcome", str, dict), "the reason"))

    def _resumed(self, form: dict[str, Any]) -> Resumed:
        return Resumed(self._at(form))

    def _cancelled(self, form: dict[str, Any]) -> Cancelled:
        return Cancelled(self.text(self._take(form, "outcome", str, dict), "the reason"), self._at(form))


# Whether there must be an outcome (None: there may), and what reads it.
OUTCOMES: Mapping[str, tuple[bool | None, Callable[[FactReader, Any, int], Any]]] = {
    "begin": (False, FactReader._as_it_is),
    "end": (True, FactReader._end),
    "given up": (True, FactReader._given_up),
    "retry": (True, FactReader._retry),
    "merge": (None, FactReader._merge),
    "start": (None, FactReader._as_it_is),
    "failure": (True, FactReader._failure),
    "step": (True, FactReader._step),
    "wait": (True, FactReader._wait),
    "edit": (False, FactReader._as_it_is),
    "flush": (False, FactReader._as_it_is),
}
KINDS: Mapping[str, tuple[frozenset[str], Callable[[FactReader, dict[str, Any]], Fact | DurableFact]]] = {
    "published": (frozenset({"kind", "name", "outcome", "keep", "message", "at"}), FactReader._published),
    "answered": (frozenset({"kind", "delivery", "name", "outcome"}), FactReader._answered),
    "noted": (frozenset({"kind", "message"}), FactReader._noted),
    "received": (frozenset({"kind", "slot", "outcome", "at", "isolate", "message"}), FactReader._received),
    "input closed": (frozenset({"kind", "slot", "at", "message"}), FactReader._input_closed),
    "wrote": (frozenset({"kind", "writes"}), FactReader._wrote),
    "logged": (frozenset({"kind", "log"}), FactReader._logged),
    "failed": (frozenset({"kind", "outcome", "at"}), FactReader._failed),
    "paused": (frozenset({"kind", "outcome"}), FactReader._paused),
    "resumed": (frozenset({"kind", "at"}), FactReader._resumed),
    "cancelled": (frozenset({"kind", "outcome", "at"}), FactReader._cancelled),
}
