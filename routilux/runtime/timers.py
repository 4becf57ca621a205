"""Calls at a later time, by one thread that exists only while something is due."""

from __future__ import annotations

import heapq
import threading
from _thread import get_ident
from collections.abc import Callable

from .clock import Clock
from .committers import guarded


class Timer:
    """One planned call."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not make the call, and let go of it."""
        self.call = None


class Timers:
    """Planned calls in the order in which they are due. Calls must be short; one that raises stops no other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, Timer]] = []
        self._made = 0
        self._thread: threading.Thread | None = None

    def at(self, due: int, call: Callable[[], None]) -> Timer:
        """Make a call, on another thread, at a time in nanoseconds on the clock. Calls are made in order of these.

        Raises RuntimeError when the system gives no thread for it.
        """
        timer = Timer(call)
        with self._changed:
            self._made += 1
            heapq.heappush(self._heap, (due, self._made, timer))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="routilux-timers", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    timer.cancel()
                    raise
                self._thread = thread
            elif self._heap[0][2] is timer:
                self._changed.notify()
        return timer

    def is_here(self) -> bool:
        """Whether the calling thread is the one that makes the calls."""
        thread = self._thread
        return thread is not None and thread.ident == get_ident()

    def prune(self) -> None:
        """Drop cancelled calls now rather than when they would have been due."""
        with self._changed:
            self._heap = [item for item in self._heap if item[2].call is not None]
            heapq.heapify(self._heap)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while True:
                    if not self._heap:
                        self._thread = None
                        return
                    due, _, timer = self._heap[0]
                    left = due - self._clock.monotonic_ns()
                    if left <= 0 or timer.call is None:
                        heapq.heappop(self._heap)
                        break
                    self._changed.wait(min(left / 1e9, threading.TIMEOUT_MAX))
            call = timer.call
            if call is not None:
                guarded(call)
