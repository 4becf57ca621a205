"""The history in a job's record from JSON; see `history_writing`."""

from __future__ import annotations

from itertools import repeat
from typing import Any

from ..core.history import History, Totals
from ..core.records import ErrorRecord
from .history_writing import NAMED, TOTALS
from .reading import Reader
from .turn_forms import PartReader


class HistoryReader(PartReader):
    """Reads the history of one record.

    Args:
        values: reads the values in it.
        epoch: what the clock of this process shows less than UTC, in nanoseconds.
        errors: the record's table of errors.
        limit: how many activations the history keeps.
    """

    def __init__(self, values: Reader, epoch: int, errors: list[ErrorRecord], limit: int | None) -> None:
        super().__init__(values, epoch)
        self.errors = errors
        self.limit = limit

    def read(self, record: dict[str, Any]) -> History:
        """Return the history in the JSON form of a record: an empty one when it has none."""
        if "history" not in record:
            return History(self.limit)
        kinds: dict[str, tuple[type, ...]] = {
            **dict.fromkeys(NAMED, (int,)),
            "data": (dict, list),
            "started": (int,),
            "duration": (int,),
            "waited": (int,),
            "attempt": (int,),
            "emitted": (int,),
        }
        form = self.shapes.take(record, "history", dict)
        columns = self.shapes.table(record, "history", kinds)
        data, started, spent, waited, attempts, emitted = columns[len(NAMED) :]
        names = [self.text(name, "a name") for name in self.shapes.take(form, "names", list)]
        named = [
            list(map(names.__getitem__, self.shapes.places(column, len(names), f"'history': {name!r}")))
            for column, name in zip(columns, NAMED, strict=False)
        ]
        routine_ids, slots, events, statuses = named
        errors: list[ErrorRecord | None] = [None] * len(data)
        for row in self.shapes.take(form, "error", list):
            place, error = self.row(row, 2, "a row of 'error'")
            places = [self.shapes.check(place, "an error's place", int)]
            errors[self.shapes.places(places, len(errors), "'error'")[0]] = self.error_at(error, self.errors)
        epoch = self.epoch
        history = History(self.limit)
        entries = zip(
            routine_ids,
            slots,
            events,
            repeat(None, len(data)),
            [time - epoch for time in started],
            self.not_negative(spent, "duration"),
            self.not_negative(waited, "waited"),
            statuses,
            errors,
            attempts,
            emitted,
            strict=True,
        )
        mappings = self.values.mappings(data, "data in the history")
        history.dropped = self.shapes.least(self.shapes.take(form, "dropped", int), 0, "'dropped'")
        history.counted = self.shapes.take(form, "counted", int)
        self.shapes.places([history.counted], len(data) + 1, "'counted'")
        history.totals = self._all_totals(self.shapes.take(form, "totals", list))
        history.extend(entries, mappings)
        return history

    def _all_totals(self, rows: list[Any]) -> dict[str, Totals]:
        found = {}
        for row in rows:
            name, data = self.row(row, 2, "a row of 'totals'")
            found[self.text(name, "a routine id")] = self._totals(self.shapes.check(data, "totals", dict))
        return found

    def _totals(self, data: dict[str, Any]) -> Totals:
        totals = Totals(**{name: self.shapes.take(data, name, int, where="'totals': ") for name in TOTALS})
        for name, histogram in (("durations", totals.durations), ("waits", totals.waits)):
            both = self.row(self.shapes.take(data, name, list, where="'totals': "), 2, f"{name!r}")
            pair = {"histogram": {"bucket": both[0], "count": both[1]}}
            buckets, counts = self.shapes.table(pair, "histogram", {"bucket": (int,), "count": (int,)})
            histogram.buckets = dict(zip(self.not_negative(buckets, name), counts, strict=True))
            histogram.count = sum(counts)
        return totals
