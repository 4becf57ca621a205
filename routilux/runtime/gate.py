"""The lock of a job: one that threads with short critical sections can share without taking turns at every entry.

A plain lock passes to a thread that waits for it while that thread still waits for the interpreter, and everybody
else then waits for both: with two busy threads, each entry costs a switch of threads (a lock convoy; Blasgen et al.,
"The convoy phenomenon", 1979). Here a thread that finds the gate closed sleeps on a bell of its own, and tries again
when it runs. Whoever runs may enter an open gate first.
"""

from __future__ import annotations

import threading
from _thread import get_ident
from collections import deque
from types import TracebackType

INSIDE = "thread"  # the one key of `Gate.inside`


class _Bell:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.wanted = True


class Gate:
    """A lock for short critical sections.

    ``with gate:`` enters and leaves; a thread that is inside already, since a signal handler runs there, stays inside.
    Where every nanosecond counts, this is the same, spelled out, for a thread that is outside, knows its identifier,
    and has `Gate.inside` at hand::

        if inside.setdefault(INSIDE, thread) is not thread:
            gate.enter(thread)
        try:
            ...
        finally:
            inside.clear()
            if gate.waiting:
                gate.ring()

    ``inside`` holds the identifier of the thread that is inside. ``dict.setdefault`` looks and stores in one step that
    no other thread can interrupt, and takes half the time of a lock's ``acquire``. It is known from the first moment
    who is inside, which `abandon` needs.
    """

    __slots__ = ("again", "inside", "waiting")

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.again = 0  # how often whoever is inside has entered once more
        self.waiting: deque[_Bell] = deque()

    def enter(self, thread: int) -> None:
        """Enter, after sleeping until the gate is open."""
        while self.inside.setdefault(INSIDE, thread) != thread:
            bell = _Bell()
            self.waiting.append(bell)
            # The gate may have opened before the bell was there to be rung.
            if self.inside.setdefault(INSIDE, thread) == thread:
                bell.wanted = False
                return
            try:
                bell.lock.acquire()
            except BaseException:
                bell.wanted = False
                self.ring()  # it may have been rung just now: pass that on
                raise

    def ring(self) -> None:
        """Wake one thread that waits. Called by whoever has left."""
        while True:
            try:
                bell = self.waiting.popleft()
            except IndexError:
                return
            if bell.wanted:
                bell.lock.release()
                return

    def abandon(self) -> None:
        """Leave, if this thread is inside because an interrupt came between entering and the ``try`` after it."""
        if self.inside.get(INSIDE) == get_ident():
            self.again = 0
            self.inside.clear()
        self.ring()

    def __enter__(self) -> None:
        thread = get_ident()
        inside = self.inside.setdefault(INSIDE, thread)
        if inside is thread:
            return
        if inside == thread:  # not the object of just now, but that of an entry before
            self.again += 1
        else:
            self.enter(thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.again:
            self.again -= 1
            return
        self.inside.clear()
        if self.waiting:
            self.ring()
