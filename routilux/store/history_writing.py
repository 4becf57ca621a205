"""The history in a job's record as JSON, by columns; `history_reading` knows the way back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import itemgetter
from typing import Any

from ..core.history import Entry, History, Totals
from ..core.records import ErrorRecord
from .values import Writer

NAMED = ("routine", "slot", "event", "status")
TOTALS = ("count", "errors", "emitted", "total", "least", "most")


def history_form(
    history: History, values: Writer, place_of: Callable[[ErrorRecord], int], epoch: int
) -> dict[str, Any]:
    """Return the JSON form of a history; an empty one when nothing has ended.

    Args:
        history: the history, of which nobody else knows; entries beyond its limit are dropped.
        values: writes the values in it.
        place_of: returns the place of an error in the record's table of errors.
        epoch: what is added to times.

    Raises SaveError when something in it has none.
    """
    if not len(history) and not history.totals and not history.dropped:
        return {}
    history.drop()
    entries, data = history.latest()
    # Tuples and iterators, one per entry, would set off the garbage collector.
    fields = enumerate(Entry._fields)
    columns = [list(map(itemgetter(place), entries)) for place, name in fields if name != "data"]
    routine_ids, slots, events, started, spent, waited, statuses, errors, attempts, emitted = columns
    named = (routine_ids, slots, events, statuses)
    table = {name: place for place, name in enumerate(dict.fromkeys(chain.from_iterable(map(set, named))))}
    return {
        "names": [values.text(name) for name in table],
        **{key: list(map(table.__getitem__, column)) for key, column in zip(NAMED, named, strict=True)},
        "data": values.mappings(data, lambda index: f"history of {entries[index][0]!r}: "),
        "started": [time + epoch for time in started],
        "duration": spent,
        "waited": waited,
        "error": [[at, place_of(error)] for at, error in enumerate(errors) if error is not None],
        "attempt": attempts,
        "emitted": emitted,
        "dropped": history.dropped,
        "counted": history.counted,
        "totals": [[values.text(name), _totals(each)] for name, each in history.totals.items()],
    }


def _totals(totals: Totals) -> dict[str, Any]:
    form: dict[str, Any] = {name: getattr(totals, name) for name in TOTALS}
    for name, histogram in (("durations", totals.durations), ("waits", totals.waits)):
        form[name] = [list(histogram.buckets), list(histogram.buckets.values())]
    return form
