"""The activations that ended, and exact counts over all of them.

Entries are plain tuples of the fields of `Entry`, with None for their data, each followed by these. What has nothing
but strings and numbers in it is no business of the garbage collector, which would look through objects, or tuples with
a dict in each, again and again. Timings are added up when somebody asks, or when entries are dropped, so that a job
which nobody measures pays nothing for being measurable.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
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
    """Ended activations in the order in which they ended; with a limit, the latest of them."""

    __slots__ = ("counted", "dropped", "items", "limit", "room", "totals")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.items: list[Any] = []  # an entry, its data, the next entry, ...
        self.totals: dict[str, Totals] = {}
        self.counted = 0  # how many of the entries the totals include already
        self.dropped = 0  # how many entries there were before those that are kept
        # Entries are dropped many at a time, so that dropping one costs a constant.
        self.room = None if limit is None else 2 * (limit + max(limit, 100))  # items

    def append(self, entry: tuple[Any, ...]) -> None:
        """Add one ended activation: a plain tuple of the fields of `Entry`."""
        self.items.extend((with_data(entry, None), entry[3]))
        if self.room is not None and len(self.items) >= self.room:
            self.drop()

    def drop(self) -> None:
        """Forget entries beyond the limit, after counting them."""
        self.count()
        surplus = len(self) - (self.limit or 0)
        del self.items[: 2 * surplus]
        self.counted -= surplus
        self.dropped += surplus

    def count(self) -> dict[str, Totals]:
        """Return the exact totals per routine id, up to now."""
        add_up(self.totals, self.items[2 * self.counted :: 2])
        self.counted = len(self)
        return self.totals

    def uncounted(self) -> tuple[dict[str, Totals], list[tuple[Any, ...]], int]:
        """Return a copy of the totals so far, the entries that they lack, and how many entries there ever were.

        With these, somebody may `add_up` without keeping the history from growing, and give the result to `adopt`.
        """
        return deepcopy(self.totals), self.items[2 * self.counted :: 2], self.dropped + len(self)

    def adopt(self, totals: dict[str, Totals], ever: int) -> None:
        """Take over totals over the first ``ever`` entries, unless those here include as many by now."""
        if ever > self.dropped + self.counted:
            self.totals, self.counted = totals, ever - self.dropped

    def latest(self) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
        """Return the entries within the limit, in the order in which they ended, and their data."""
        start = 0 if self.limit is None else 2 * max(len(self) - self.limit, 0)
        return self.items[start::2], self.items[start + 1 :: 2]

    def kept(self) -> list[tuple[Any, ...]]:
        """Return the entries within the limit, with their data."""
        return list(map(with_data, *self.latest()))

    def __len__(self) -> int:
        return len(self.items) // 2

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self.kept() == other.kept() and self.count() == other.count()

    __hash__ = None  # type: ignore[assignment]
