"""The lock of a job: one that threads with short critical sections can share without taking turns at every entry.

A plain lock passes to a thread that waits for it while that thread still waits for the interpreter, and everybody
else then waits for both: with two busy threads, each entry costs a switch of threads (a lock convoy; Blasgen et al.,
"The convoy phenomenon", 1979). Here a thread that finds the gate closed sleeps on a bell of its own, and tries again
when it runs. Whoever runs may enter an open gate first.
"""

from __future__ import annotations

import threading
from _thread import get_ident
from types import TracebackType

INSIDE, AGAIN = "thread", "again"  # the keys of `Gate.inside`


class _Bell:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.wanted = True


class Gate:
    """A lock for short critical sections.

    ``with gate:`` enters and leaves. A thread that is inside already, as when a signal handler runs there, enters once
    more, and the gate stays shut when it leaves the inner section. Where every nanosecond counts, this is the same,
    spelled out; ``thread`` must have been asked for in the same call, or the same turn::

        inside, thread = gate.inside, get_ident()
        try:
            entered = inside.setdefault(INSIDE, thread) is thread or gate.enter(thread)
            ...
        finally:
            if INSIDE in inside and inside[INSIDE] is thread:
                inside.clear()
                if gate.waiting:
                    gate.ring()

    ``inside`` has the identifier of the thread that is inside. ``dict.setdefault`` looks and stores in one step
    (https://github.com/python/cpython/issues/57730), and takes half the time of a lock's ``acquire``. So it is known
    from the first moment who is inside, which `abandon` needs, and by which entry: ``get_ident`` makes a new number at
    each call, unless it is below 257, as that of no thread is in practice. An interrupt at any call between ``try`` and
    ``finally`` leaves the gate as it should be.
    """

    __slots__ = ("inside", "waiting")

    def __init__(self) -> None:
        self.inside: dict[str, int] = {}
        self.waiting: list[_Bell] = []  # a few threads; a job is made in less time without a deque

    def enter(self, thread: int) -> bool:
        """Enter, after sleeping until the gate is open; return False when this thread was inside already."""
        while not self._entered(thread):
            if self.inside.get(INSIDE) == thread:
                return False
            bell = _Bell()
            try:
                self.waiting.append(bell)
                # The gate may have opened before the bell was there to be rung.
                if self._entered(thread):
                    bell.wanted = False
                    return True
                bell.lock.acquire()
            except BaseException:
                bell.wanted = False
                self.ring()  # it may have been rung just now: pass that on
                raise
        return True

    def _entered(self, thread: int) -> bool:
        return self.inside.setdefault(INSIDE, thread) is thread

    def ring(self) -> None:
        """Wake one thread that waits. Called by whoever has left."""
        while True:
            try:
                bell = self.waiting.pop(0)
            except IndexError:
                return
            if bell.wanted:
                bell.lock.release()
                return

    def abandon(self) -> None:
        """Leave, if this thread is inside because an interrupt came before it could."""
        if self.inside.get(INSIDE) == get_ident():
            self.inside.clear()
        self.ring()

    def __enter__(self) -> None:
        thread, inside = get_ident(), self.inside
        try:
            if inside.setdefault(INSIDE, thread) is not thread and not self.enter(thread):
                inside[AGAIN] = inside.get(AGAIN, 0) + 1
        except BaseException:
            if INSIDE in inside and inside[INSIDE] is thread:
                inside.clear()
                self.ring()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside = self.inside
        if len(inside) > 1:
            self._leave_once()
            return
        inside.clear()
        if self.waiting:
            self.ring()

    def _leave_once(self) -> None:
        if self.inside[AGAIN] > 1:
            self.inside[AGAIN] -= 1
        else:
            del self.inside[AGAIN]
