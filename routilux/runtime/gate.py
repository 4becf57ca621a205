"""The lock of a job: one that threads with short critical sections can share without taking turns at every entry.

A plain lock passes to a thread that waits for it while that thread still waits for the interpreter, and everybody
else then waits for both: with two busy threads, each entry costs a switch of threads (a lock convoy; Blasgen et al.,
"The convoy phenomenon", 1979). Here a thread that finds the gate closed sleeps on a bell of its own, and tries again
when it runs. Whoever runs may enter an open gate first.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class _Bell:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.wanted = True


class Gate:
    """A lock for short critical sections.

    ``with gate:`` enters and leaves. Where every nanosecond counts, this is the same, spelled out::

        if not gate.try_enter(False):
            gate.enter()
        try:
            ...
        finally:
            gate.leave()
            if gate.waiting:
                gate.ring()
    """

    __slots__ = ("leave", "try_enter", "waiting")

    def __init__(self) -> None:
        # Reentrant, because only such a lock knows its owner, which `abandon` needs.
        lock = threading.RLock()
        self.try_enter = lock.acquire
        self.leave = lock.release
        self.waiting: deque[_Bell] = deque()

    def enter(self) -> None:
        """Enter, after sleeping until the gate is open."""
        while not self.try_enter(False):
            bell = _Bell()
            self.waiting.append(bell)
            # The gate may have opened before the bell was there to be rung.
            if self.try_enter(False):
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
        try:
            while True:
                self.leave()
        except RuntimeError:  # not inside (any more)
            pass
        self.ring()

    def __enter__(self) -> None:
        if not self.try_enter(False):
            self.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        if self.waiting:
            self.ring()
