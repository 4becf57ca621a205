"""The tape of a job that somebody streams: its last facts, numbered, for any number of readers.

The thread that tells what happened in the job puts it onto the tape, and the tape lets go of what is too old. A reader
is a place on the tape; nothing is kept for it, and it holds up nobody. What it reads becomes a `Fact` when it reads it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

from ..core.records import Retried
from .audience import Notice
from .bells import Bell, ring
from .facts import Lagged
from .kinds import fields_of, kinds_of

SIZE = 10_000  # facts that a tape keeps; more when a reader may be further behind


class Entry(NamedTuple):
    """A fact on a tape. ``fields`` are those of a fact that cannot wait to be told; else they are made of the notice.

    The notice does not name the job: a cycle would leave every job to the garbage collector.
    """

    kind: str
    notice: Notice
    fields: dict[str, Any] | None


class Place:
    """Where a reader is on a tape; changed by the tape only.

    Args:
        cursor: the number of the fact that it reads next.
        buffer: how many facts it may be behind.
    """

    __slots__ = ("buffer", "cursor", "held")

    def __init__(self, cursor: int, buffer: int) -> None:
        self.cursor = cursor
        self.buffer = buffer
        self.held: Entry | None = None


class Tape:
    """The last facts of one job. ``end`` is the number that the next one gets."""

    __slots__ = ("_bells", "_kept", "_lock", "_size", "end")

    def __init__(self) -> None:
        self.end = 0
        self._size = SIZE
        self._kept: deque[Entry] = deque()
        self._bells: list[Bell] = []
        self._lock = threading.Lock()

    def widen(self, size: int) -> None:
        """Have room for at least so many facts."""
        with self._lock:
            self._size = max(self._size, size)

    def append(self, notice: Notice) -> None:
        """Put what a notice tells of onto the tape."""
        _, fact, activation, detail, at = notice
        fields = None
        if isinstance(fact, Retried):  # an exception would keep the frames that it has passed
            fields, detail = fields_of("activation_retried", notice), None
        anonymous = Notice(None, fact, activation, detail, at)
        kept = self._kept
        with self._lock:
            for kind in kinds_of(notice):
                kept.append(Entry(kind, anonymous, fields))
                self.end += 1
            while len(kept) > self._size:
                kept.popleft()
            if self._bells:
                ring(self._bells)

    def take(self, place: Place, bell: Bell | None = None) -> tuple[int, Entry] | Lagged | None:
        """Move a place on by one fact, and return that fact with its number, or how many were missed before it.

        Facts are missed that are not on the tape any more, and those that the reader was too far behind for; one fact
        at least follows before any more are missed. When there is nothing to read yet, None is returned, and the bell
        rings as soon as there may be.
        """
        with self._lock:
            entry, place.held = place.held, None
            if entry is None and place.cursor < self.end:
                start = self.end - len(self._kept)
                least = max(start, self.end - place.buffer, place.cursor)
                entry, missed = self._kept[least - start], least - place.cursor
                if missed:
                    place.cursor, place.held = least, entry
                    return Lagged(missed)
            if entry is not None:
                place.cursor += 1
                return place.cursor - 1, entry
            if bell is not None:
                self._bells.append(bell)
        return None

    def ring(self) -> None:
        """Wake those who wait for more, as there may be no more for a while."""
        with self._lock:
            ring(self._bells)

    def withdraw(self, bell: Bell) -> None:
        """Do not ring a bell any more."""
        with self._lock:
            if bell in self._bells:
                self._bells.remove(bell)
