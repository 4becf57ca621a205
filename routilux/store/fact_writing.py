"""The facts of durable jobs as JSON, one object for each.

What is empty is left out. Times are nanoseconds since 1970, in UTC, slots are places in the table of the plan.
`fact_reading` knows the way back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from ..core.plan import Plan
from ..core.points import Answered, Batch, Committed, DurableFact, Noted, Published
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
    Wrote,
)
from ..errors import SaveError
from .plain import looks_plain
from .turn_forms import error_row, read_rows, wait_row
from .typed_writes import Shared, TypedState
from .values import Writer


class Values(Protocol):
    """What writes the values in a fact; see `values.Writer`."""

    def value(self, value: Any, where: str) -> Any:
        """Return the JSON form of a value."""

    def mapping(self, values: dict[str, Any], where: str) -> Any:
        """Return the JSON form of a dict with string keys."""

    def text(self, value: str | None) -> Any:
        """Return the JSON form of a string."""


class _AsIs:
    """Writes values that are JSON already."""

    def value(self, value: Any, where: str) -> Any:
        """Return a value."""
        return value

    def mapping(self, values: dict[str, Any], where: str) -> Any:
        """Return a dict."""
        return values

    def text(self, value: str | None) -> Any:
        """Return a string."""
        return value


AS_IS = _AsIs()


class FactWriter:
    """Writes the facts of one job, one at a time.

    Args:
        plan: the flow.
        values: writes the values in them, if they are not plain JSON.
        epoch: what is added to a time of the job to get nanoseconds since 1970.
    """

    def __init__(self, plan: Plan, values: Writer, epoch: int) -> None:
        self.plan = plan
        self.values = values
        self.epoch = epoch
        self.state = TypedState(plan.state_schema)

    def write(self, fact: Fact | DurableFact, shared: Shared | None = None) -> bytes:
        """Return the JSON form of a fact.

        Args:
            fact: a fact of `points`, or what happens to a durable job besides: `Paused`, `Resumed`, `Cancelled`,
                `Failed`, `Wrote`, `Logged`, `Received` and `InputClosed`.
            shared: returns the shared data as they were before the fact. It is called when fields of a typed state
                cannot be written without the others.

        Raises:
            SaveError: for a value that has no form; it says where that is.
        """
        if fact.__class__ is Committed:
            quick = self._quickly(fact)
            if quick is not None:
                return quick
        form = FORMS[type(fact)]
        special = self.state.is_special and any(self._fields_in(fact))
        if not special and looks_plain(held_in(fact)):
            try:
                return orjson.dumps(form(self, fact, AS_IS, shared))
            except TypeError:  # a string or a number that JSON has no form for
                pass
        try:
            return orjson.dumps(form(self, fact, self.values, shared))
        except TypeError as error:
            raise SaveError(f"{self.values.subject}: a fact cannot be written as JSON: {error}") from error

    def _quickly(self, fact: Committed) -> bytes | None:
        """Return the JSON form of what most facts are, a turn that has completed and emitted plain data; else None."""
        delivery, slot, started, kind, name, outcome, (emissions, writes, log, outputs), reads, at = fact
        if kind != "end" or name is not None or writes or log or outputs or reads:
            return None
        if outcome[2:] != (at, None, False, None):
            return None
        epoch = self.epoch
        form = {
            "kind": kind,
            "delivery": delivery,
            "slot": slot,
            "started": started + epoch,
            "at": at + epoch,
            "outcome": outcome[:2],
        }
        if emissions:
            rows = []
            for event, data, isolate, later in emissions:
                if later or not looks_plain([data]):
                    return None
                rows.append((event, data, isolate, later) if isolate else (event, data))
            form["emissions"] = rows
        try:
            return orjson.dumps(form)
        except TypeError:  # a string or a number that JSON has no form for
            return None

    def _fields_in(self, fact: Any) -> list[str]:
        """Return the fields of the typed state that a fact sets."""
        written = fact.batch.writes if type(fact) is Committed else (fact,) if type(fact) is Wrote else ()
        return [key for area, values, _ in written if area is None for key in values if key in self.state.fields]

    # --- turns --------------------------------------------------------------------------------------------------

    def _committed(self, fact: Committed, to: Values, shared: Shared | None) -> dict[str, Any]:
        delivery, slot, started, kind, name, outcome, batch, reads, at = fact
        epoch = self.epoch
        form = {"kind": kind, "delivery": delivery, "slot": slot, "started": started + epoch, "at": at + epoch}
        if name is not None:
            form["name"] = to.text(name)
        if outcome is not None:
            form["outcome"] = OUTCOMES[kind](self, fact, to)
        if batch.emissions:
            form["emissions"] = self._emissions(batch, to)
        if batch.writes or batch.log or batch.outputs:
            self._rest_of(form, batch, to, shared)
        if reads:
            form["reads"] = read_rows(reads, to)
        return form

    def _emissions(self, batch: Batch, to: Values) -> list[Any]:
        rows: list[Any] = []
        for event, data, isolate, later in batch.emissions:
            row = [event, data] if to is AS_IS else [to.text(event), to.mapping(data, f"event {event!r}: ")]
            if isolate or later:
                row += [isolate, later]
            rows.append(row)
        return rows

    def _rest_of(self, form: dict[str, Any], batch: Batch, to: Values, shared: Shared | None) -> None:
        if batch.writes:
            form["writes"] = self._writes(batch.writes, to, shared)
        if batch.log:
            form["log"] = [[to.mapping(entry, "log entry: "), at + self.epoch] for entry, at in batch.log]
        if batch.outputs:
            form["outputs"] = [
                [to.text(routine_id), to.text(kind), to.mapping(data, f"output {kind!r}: "), at + self.epoch]
                for routine_id, kind, data, at in batch.outputs
            ]

    def _writes(self, writes: tuple[Wrote, ...], to: Values, shared: Shared | None) -> list[Any]:
        known: dict[str, Any] | None = None
        rows = []
        for area, values, removed in writes:
            row: dict[str, Any] = {}
            if area is not None:
                row["area"] = to.text(area)
            if area is None and self.state.fields and to is self.values:
                if known is None:
                    known = {} if shared is None else dict(shared())
                known.update(values)
                row.update(self.state.write(values, known, self.values))
            elif values:
                row["set"] = to.mapping(values, "shared data " if area is None else f"the state of routine {area!r}: ")
            if removed:
                row["removed"] = [to.text(key) for key in removed]
            rows.append(row)
        return rows

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _end(self, fact: Committed, to: Values) -> list[Any]:
        status, spent, at, error, stop, finish = fact.outcome
        if at == fact.at and error is None and not stop and finish is None:
            return [to.text(status), spent]
        row = None if error is None else error_row(error, to)
        result = None if finish is None else [to.value(finish[0], "the result")]
        return [to.text(status), spent, at + self.epoch, row, stop, result]

    def _given_up(self, fact: Committed, to: Values) -> list[Any]:
        error, at = fact.outcome
        return [error_row(error, to), at + self.epoch]

    def _retry(self, fact: Committed, to: Values) -> list[Any]:
        spent, due = fact.outcome
        return [spent, due + self.epoch]

    def _merge(self, fact: Committed, to: Values) -> Any:
        slot = self.plan.slots[fact.slot]
        return to.mapping(fact.outcome, f"what was merged for '{slot.routine_id}.{slot.name}': ")

    def _as_it_is(self, fact: Committed, to: Values) -> Any:
        return fact.outcome

    def _failure(self, fact: Committed, to: Values) -> list[Any]:
        return error_row(fact.outcome, to)

    def _step(self, fact: Committed, to: Values) -> list[Any]:
        return error_row(fact.outcome, to) if isinstance(fact.outcome, ErrorRecord) else list(fact.outcome)

    def _wait(self, fact: Committed, to: Values) -> list[Any]:
        wait, spent = fact.outcome
        return [wait_row(wait, to, self.epoch), spent]

    # --- what comes from outside --------------------------------------------------------------------------------

    def _published(self, fact: Published, to: Values, shared: Shared | None) -> dict[str, Any]:
        form = {"kind": "published", "name": to.text(fact.topic), "outcome": fact.form, "at": fact.at + self.epoch}
        if fact.keep:
            form["keep"] = True
        return _with_message(form, fact.message)

    def _answered(self, fact: Answered, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "answered", "delivery": fact.delivery, "name": to.text(fact.job_id), "outcome": fact.answer}

    def _noted(self, fact: Noted, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "noted", "message": fact.message}

    def _received(self, fact: Received, to: Values, shared: Shared | None) -> dict[str, Any]:
        slot = self.plan.slots[fact.slot]
        payload = to.mapping(fact.payload, f"what was sent to '{slot.routine_id}.{slot.name}': ")
        form = {"kind": "received", "slot": fact.slot, "outcome": payload, "at": fact.at + self.epoch}
        if fact.isolate:
            form["isolate"] = True
        return _with_message(form, fact.message)

    def _input_closed(self, fact: InputClosed, to: Values, shared: Shared | None) -> dict[str, Any]:
        return _with_message({"kind": "input closed", "slot": fact.slot, "at": fact.at + self.epoch}, fact.message)

    def _wrote(self, fact: Wrote, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "wrote", "writes": self._writes((fact,), to, shared)}

    def _logged(self, fact: Logged, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "logged", "log": [[to.mapping(fact.entry, "log entry: "), fact.at + self.epoch]]}

    def _failed(self, fact: Failed, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "failed", "outcome": error_row(fact.error, to), "at": fact.at + self.epoch}

    def _paused(self, fact: Paused, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "paused", "outcome": to.text(fact.reason)}

    def _resumed(self, fact: Resumed, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "resumed", "at": fact.at + self.epoch}

    def _cancelled(self, fact: Cancelled, to: Values, shared: Shared | None) -> dict[str, Any]:
        return {"kind": "cancelled", "outcome": to.text(fact.reason), "at": fact.at + self.epoch}


OUTCOMES: Mapping[str, Callable[[FactWriter, Committed, Values], Any]] = {
    "end": FactWriter._end,
    "given up": FactWriter._given_up,
    "retry": FactWriter._retry,
    "merge": FactWriter._merge,
    "start": FactWriter._as_it_is,
    "failure": FactWriter._failure,
    "step": FactWriter._step,
    "wait": FactWriter._wait,
    "begin": FactWriter._as_it_is,
    "edit": FactWriter._as_it_is,
    "flush": FactWriter._as_it_is,
}
FORMS: Mapping[type, Callable[[FactWriter, Any, Values, Shared | None], dict[str, Any]]] = {
    Committed: FactWriter._committed,
    Published: FactWriter._published,
    Answered: FactWriter._answered,
    Noted: FactWriter._noted,
    Received: FactWriter._received,
    InputClosed: FactWriter._input_closed,
    Wrote: FactWriter._wrote,
    Logged: FactWriter._logged,
    Failed: FactWriter._failed,
    Paused: FactWriter._paused,
    Resumed: FactWriter._resumed,
    Cancelled: FactWriter._cancelled,
}


def _with_message(form: dict[str, Any], message: int) -> dict[str, Any]:
    """Return a form with the number of the message that brought the fact, if one did."""
    if message:
        form["message"] = message
    return form


def held_in(fact: Any) -> list[Any]:
    """Return the values in a fact that need not be JSON."""
    if type(fact) is Wrote:
        return [fact.values]
    if type(fact) is Logged:
        return [fact.entry]
    if type(fact) is Received:
        return [fact.payload]
    if type(fact) is not Committed:
        return []
    emissions, writes, log, outputs = fact.batch
    held: list[Any] = [each.data for each in emissions]
    if writes or log or outputs:
        held += [each.values for each in writes]
        held += [each.entry for each in log]
        held += [each.data for each in outputs]
    if fact.kind == "end" and fact.outcome[5] is not None:
        held.append(fact.outcome[5][0])
    elif fact.kind == "merge" and fact.outcome is not None:
        held.append(fact.outcome)
    return held
