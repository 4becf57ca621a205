"""Where time comes from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Clock:
    """A source of time; all times of a job come from one.

    ``monotonic_ns`` never goes back and measures durations, ``time_ns`` is nanoseconds since 1970 in UTC.
    """

    monotonic_ns: Callable[[], int] = time.perf_counter_ns
    time_ns: Callable[[], int] = time.time_ns


def reading_of(clock: Clock) -> tuple[int, int]:
    """Return a clock's monotonic time, and what is to be added to such a time to get nanoseconds since 1970.

    The thread may lose the processor between two readings, so that the closest of some pairs counts.
    """
    closest, reading = -1, (0, 0)
    for _ in range(5):
        before = clock.monotonic_ns()
        wall = clock.time_ns()
        apart = clock.monotonic_ns() - before
        if closest < 0 or apart < closest:
            closest, reading = apart, (before, wall - before)
        if closest < 5_000:
            break
    return reading


def utc(nanoseconds: int) -> datetime:
    """Return the aware datetime, to the microsecond, for nanoseconds since 1970."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def nanoseconds(when: datetime) -> int:
    """Return nanoseconds since 1970 for an aware datetime."""
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000
