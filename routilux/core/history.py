"""The activations that ended, and exact counts over all of them.

Entries are plain tuples of the fields of `Entry`, with None for their data, each followed by these. The garbage
collector lets go of tuples that have nothing but strings and numbers in them, and then of tuples of such tuples; it
would look through objects, or tuples with a dict in each, again and again. So the entries of a long history are made
into large tuples. Their data are in a list, which it does look through, as data may be anything. Timings are added up
when somebody asks, or when entries are dropped, so that a job which nobody measures pays nothing for being measurable.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import chain
from struct import pack, unpack
from typing import Any, NamedTuple

from .records import ErrorRecord


class Entry(NamedTuple):
    """One ended activation. Times are nanoseconds: ``started`` on the job's clock, the others durations."""

    routine_id: str
    slot: str
    event: str
    data: dict[str, Any]
    started: int
    duration: int
    waited: int
    status: str
    error: ErrorRecord | None
    attempt: int
    emitted: int


def with_data(entry: tuple[Any, ...], data: dict[str, Any] | None) -> tuple[Any, ...]:
    """Return an entry with these data."""
    return (*entry[:3], data, *entry[4:])


# Per power of two: a bucket is at most 1/16 wide, so its middle is within 3.2 % of any value in it. Saved jobs name
# buckets by their numbers, and the top 16 bits of a float tell these: they are its sign, 11 bits for its power of two,
# and 4 for its place there. So 16 it has to be.
SUB_BUCKETS = 16
TOP = 3 if sys.byteorder == "little" else 0  # where, of the four 16-bit parts of a float, the topmost lies
TOP_OF_BUCKET_0 = int.from_bytes(pack(">d", 16.0)[:2], "big") - SUB_BUCKETS  # if all were as from 16 on
MANY = 16  # entries: from here on it is faster to count them all at once
PORTION = 16_384  # entries that are counted while no other thread may run
PART = 1024  # entries in a large tuple


def bucket_of(value: int) -> int:
    """Return the number of the bucket of a duration, which is itself below 32."""
    shift = max(value.bit_length() - 5, 0)
    return shift * SUB_BUCKETS + (value >> shift)


class Histogram:
    """Counts of durations in fixed logarithmic buckets, for quantiles within 5 %.

    The buckets are those of HdrHistogram (http://hdrhistogram.org): linear within each power of two.
    """

    __slots__ = ("buckets", "count")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0

    def add(self, value: int) -> None:
        """Count one duration, in nanoseconds, which is not negative."""
        index = bucket_of(value)
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.count += 1

    def add_all(self, values: Sequence[int]) -> None:
        """Count durations, without a step of Python for each."""
        tops = array("H", array("d", values).tobytes())[TOP::4]
        for top, times in Counter(tops).items():
            index = top - TOP_OF_BUCKET_0
            if index < SUB_BUCKETS:
                index = int(unpack(">d", top.to_bytes(2, "big") + bytes(6))[0])
            self.buckets[index] = self.buckets.get(index, 0) + times
        self.count += len(values)

    def quantile(self, share: float) -> int:
        """Return the duration, in nanoseconds, that ``share`` (0 to 1) of all counted do not exceed; 0 when empty."""
        wanted, reached = share * self.count, 0
        for index in sorted(self.buckets):
            reached += self.buckets[index]
            if reached >= wanted:
                shift = max(index // SUB_BUCKETS - 1, 0)
                low = (index - shift * SUB_BUCKETS) << shift
                return low + (1 << shift >> 1)
        return 0


@dataclass(slots=True)
class Totals:
    """What all activations of one routine add up to, dropped ones included. Durations in nanoseconds."""

    count: int = 0
    errors: int = 0
    emitted: int = 0
    total: int = 0
    least: int = 0
    most: int = 0
    durations: Histogram = field(default_factory=Histogram, compare=False)
    waits: Histogram = field(default_factory=Histogram, compare=False)

    def add(self, entry: tuple[Any, ...]) -> None:
        """Count one entry."""
        _, _, _, _, _, duration, waited, _, error, _, emitted = entry
        self.least = min(self.least, duration) if self.count else duration
        self.most = max(self.most, duration)
        self.count += 1
        self.errors += error is not None
        self.emitted += emitted
        self.total += duration
        self.durations.add(duration)
        self.waits.add(waited)

    def add_all(self, entries: list[tuple[Any, ...]]) -> None:
        """Count entries, one at least."""
        durations = [entry[5] for entry in entries]
        least = min(durations)
        self.least = min(self.least, least) if self.count else least
        self.most = max(self.most, max(durations))
        self.count += len(entries)
        self.errors += len(entries) - [entry[8] for entry in entries].count(None)
        self.emitted += sum([entry[10] for entry in entries])
        self.total += sum(durations)
        self.durations.add_all(durations)
        self.waits.add_all([entry[6] for entry in entries])


def add_up(totals: dict[str, Totals], entries: list[tuple[Any, ...]]) -> None:
    """Count entries into the totals per routine id."""
    for start in range(0, len(entries), PORTION):
        by_routine: dict[str, list[tuple[Any, ...]]] = {}
        for entry in entries[start : start + PORTION]:
            by_routine.setdefault(entry[0], []).append(entry)
        for routine_id, mine in by_routine.items():
            total = totals.get(routine_id)
            if total is None:
                total = totals[routine_id] = Totals()
            if len(mine) >= MANY:
                total.add_all(mine)
            else:
                for entry in mine:
                    total.add(entry)


class History:
    """Ended activations in the order in which they ended; with a limit, the latest of them.

    Args:
        limit: how many are kept; None keeps all.
    """

    __slots__ = ("counted", "data", "dropped", "items", "limit", "parts", "room", "totals")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.parts: list[tuple[tuple[Any, ...], ...]] = []  # entries, PART in each; none when there is a limit
        self.data: list[dict[str, Any]] = []  # of the entries in parts
        self.items: list[Any] = []  # what came after the parts: an entry, its data, the next entry, ...
        self.totals: dict[str, Totals] = {}
        self.counted = 0  # how many of the entries the totals include already
        self.dropped = 0  # how many entries there were before those that are kept
        # How many items there are at most. Entries are dropped many at a time, so that dropping one costs a constant.
        self.room = 2 * (PART if limit is None else limit + max(limit, 100))

    def extend(self, entries: Iterable[tuple[Any, ...]], data: Iterable[dict[str, Any]]) -> None:
        """Add ended activations, as plain tuples of the fields of `Entry` with None for their data, and their data."""
        self.items.extend(chain.from_iterable(zip(entries, data, strict=True)))
        if len(self.items) >= self.room:
            self.tidy()

    def tidy(self) -> None:
        """Make room for items: with a limit, drop what is beyond it, else make parts."""
        if self.limit is not None:
            self.drop()
            return
        whole = len(self.items) // self.room * self.room
        entries, data = self.items[:whole:2], self.items[1:whole:2]
        self.parts.extend(tuple(entries[start : start + PART]) for start in range(0, len(entries), PART))
        self.data.extend(data)
        del self.items[:whole]

    def drop(self) -> None:
        """Forget entries beyond the limit, after counting them."""
        surplus = self.surplus
        if self.counted < surplus:
            add_up(self.totals, self.entries(self.counted)[: surplus - self.counted])
            self.counted = surplus
        del self.items[: 2 * surplus]
        self.counted -= surplus
        self.dropped += surplus

    @property
    def surplus(self) -> int:
        """How many entries are beyond the limit."""
        return 0 if self.limit is None else max(len(self) - self.limit, 0)

    def entries(self, start: int) -> list[tuple[Any, ...]]:
        """Return the entries without their data, in the order in which they ended, but for the first ``start``."""
        parts = start // PART if self.parts else 0
        found = [*chain.from_iterable(self.parts[parts:]), *self.items[::2]]
        del found[: start - parts * PART]
        return found

    def count(self) -> dict[str, Totals]:
        """Return the exact totals per routine id, up to now."""
        add_up(self.totals, self.entries(self.counted))
        self.counted = len(self)
        return self.totals

    def uncounted(self) -> tuple[dict[str, Totals], list[tuple[Any, ...]], int]:
        """Return a copy of the totals so far, the entries that they lack, and how many entries there ever were.

        With these, somebody may `add_up` without keeping the history from growing, and give the result to `adopt`.
        """
        return deepcopy(self.totals), self.entries(self.counted), self.dropped + len(self)

    def adopt(self, totals: dict[str, Totals], ever: int) -> None:
        """Take over totals over the first ``ever`` entries, unless those here include as many by now."""
        if ever > self.dropped + self.counted:
            self.totals, self.counted = totals, ever - self.dropped

    def copy(self) -> History:
        """Return a copy that does not change with this one; what is in it is shared."""
        taken = History(self.limit)
        taken.parts, taken.data, taken.items = self.parts[:], self.data[:], self.items[:]
        taken.totals = deepcopy(self.totals)
        taken.counted, taken.dropped = self.counted, self.dropped
        return taken

    def latest(self) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
        """Return the entries within the limit, in the order in which they ended, and their data."""
        start = self.surplus
        return self.entries(start), [*self.data, *self.items[2 * start + 1 :: 2]]

    def kept(self) -> list[tuple[Any, ...]]:
        """Return the entries within the limit, with their data."""
        return list(map(with_data, *self.latest()))

    def __len__(self) -> int:
        return len(self.data) + len(self.items) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.kept() == other.kept() and self.count() == other.count()

    __hash__ = None  # type: ignore[assignment]
