"""What slots gather, and which inputs are open, as JSON. What is empty is left out.

A part is ``[number, payload, isolate, at, origin, source]``. A delivery that is made of parts is written as these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.deliveries import recounted
from ..core.gathers import Gathers, Part, joined
from ..core.job_record import Delivery, JobRecord
from ..core.plan import SOURCES, SlotPlan
from .turn_forms import PartReader
from .values import Writer

PlaceOf = Callable[[SlotPlan], int]
SlotAt = Callable[[Any], SlotPlan]


# --- writing ------------------------------------------------------------------------------------------------------


def part_rows(slot: SlotPlan, parts: Iterable[Part], values: Writer, epoch: int) -> list[Any]:
    """Return the JSON form of parts; ``epoch`` is what is added to times."""
    where = f"payload of a delivery that '{slot.routine_id}.{slot.name}' gathers: "
    return [
        [number, values.mapping(payload, where), isolate, at + epoch, origin, values.text(source)]
        for number, payload, isolate, at, origin, source in parts
    ]


def made_of(waiting: Sequence[Delivery], values: Writer, epoch: int) -> dict[str, Any]:
    """Return the parts that deliveries are made of, by the places of these, as far as there are any."""
    rows = [
        [place, part_rows(each.slot, each.parts, values, epoch)] for place, each in enumerate(waiting) if each.parts
    ]
    return {"parts": rows} if rows else {}


def gather_rows(gathers: Gathers, place_of: PlaceOf, values: Writer, epoch: int) -> list[Any]:
    """Return what waits in slots that gather."""
    slots = enumerate(gathers.reach.slots)
    return [
        [place_of(slot), part_rows(slot, gathers.parts(number), values, epoch)]
        for number, slot in slots
        if gathers.held[number]
    ]


def input_rows(inputs: Mapping[int, int | None], slots: Sequence[SlotPlan], place_of: PlaceOf, epoch: int) -> list[Any]:
    """Return the inputs that are open, each with when it closes by itself, if it does."""
    return [[place_of(slots[index]), None if due is None else due + epoch] for index, due in inputs.items()]


# --- reading ------------------------------------------------------------------------------------------------------


class GatherReader:
    """Reads them. Every method raises LoadError for what is none, or does not fit the flow.

    Args:
        form: the JSON form of a record.
        parts: reads small parts of it.
        slot_at: returns the slot that a number stands for.
    """

    def __init__(self, form: Mapping[str, Any], parts: PartReader, slot_at: SlotAt) -> None:
        self.form = form
        self.parts = parts
        self.shapes = parts.shapes
        self.slot_at = slot_at
        self.numbers: list[int] = []

    def delivery(self, delivery: Delivery, rows: Any) -> Delivery:
        """Return a delivery as it is when it is made of its parts."""
        parts = tuple(self._parts(delivery.slot, rows))
        if parts and delivery.slot.gather is not None:
            return delivery._replace(parts=parts, payload=joined(delivery.slot.gather, parts))
        return delivery

    def read(self, record: JobRecord) -> None:
        """Read what waits, and which inputs are open; then what is ahead of gathers is counted."""
        for row in self.parts.optional(self.form, "inputs", list):
            place, due = self.parts.row(row, 2, "a row of 'inputs'")
            slot = self.slot_at(place)
            record.inputs[slot.index] = None if due is None else self.parts.time(due, "'inputs'")
        for row in self.parts.optional(self.form, "gathers", list):
            place, rows = self.parts.row(row, 2, "a row of 'gathers'")
            slot = self.slot_at(place)
            parts = self._parts(slot, rows)
            if record.gathers is not None:
                record.gathers.put_back(record.gathers.reach.numbers[slot.index], parts)
        record.gathers = recounted(record)

    def _parts(self, slot: SlotPlan, rows: Any) -> list[Part]:
        what = f"a delivery that '{slot.routine_id}.{slot.name}' gathers"
        if slot.gather is None:
            raise self.shapes.problem(f"slot '{slot.routine_id}.{slot.name}' does not gather, and did")
        parts = [self._part(row, what) for row in self.shapes.check(rows, what, list)]
        self.numbers += [part.number for part in parts]
        if slot.gather.key is not None:
            for part in parts:
                if part.payload.get(slot.gather.key, parts) is parts:
                    raise self.shapes.problem(f"{what} lacks its key {slot.gather.key!r}")
        return sorted(parts)

    def _part(self, row: Any, what: str) -> Part:
        number, payload, isolate, at, origin, source = self.parts.row(row, 6, what)
        return Part(
            self.shapes.least(self.shapes.check(number, what, int), 1, what),
            self.parts.values.mapping(payload, what),
            self.shapes.check(isolate, what, bool),
            self.parts.time(at, what),
            self.shapes.check(origin, what, int),
            self.parts.text(source, what),
        )


def unknown_sources(record: JobRecord) -> list[str]:
    """Return the connections that gathered parts came along, and that the flow does not have."""
    gathers = record.gathers
    if gathers is None:
        return []
    waiting = [(each.slot, each.parts) for mailbox in record.mailboxes for each in mailbox.deliveries()]
    waiting += [(slot, tuple(gathers.parts(number))) for number, slot in enumerate(gathers.reach.slots)]
    return [
        f"connection '{part.source or 'from outside'} -> {slot.routine_id}.{slot.name}'"
        for slot, parts in waiting
        if slot.gather is not None and slot.gather.mode == SOURCES
        for part in parts
        if part.source not in gathers.reach.sources[gathers.reach.numbers[slot.index]]
    ]
