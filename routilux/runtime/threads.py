"""What the flows of an engine share: worker threads, timers and a clock."""

from __future__ import annotations

import threading
import weakref
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import DeclarationError
from .clock import Clock
from .committers import Committers
from .pool import WorkerPool
from .timers import Timers


class Loop(Protocol):
    """The event loop, as far as an engine knows it. The module that has it imports asyncio, which is dear."""

    def close(self) -> None:
        """Let its thread end."""

    def join(self) -> None:
        """Wait for its thread to end."""


class Here(threading.local):
    """What is known of the calling thread. ``on_event_loop``: it is the thread of an event loop of some engine."""

    on_event_loop = False


here = Here()


@contextmanager
def on_event_loop() -> Iterator[None]:
    """Have this thread known as one that runs an event loop, while the block runs."""
    before, here.on_event_loop = here.on_event_loop, True
    try:
        yield
    finally:
        here.on_event_loop = before


class SharedThreads:
    """Threads and time for any number of flows.

    Args:
        clock: where time comes from; the computer's clock by default.

    Attributes:
        closing: set when those who wait for something outside are to stop waiting.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        if clock is not None and not isinstance(clock, Clock):
            raise DeclarationError(f"Engine: clock must be a Clock, not {clock!r}")
        self.clock = clock if clock is not None else Clock()
        self.pool = WorkerPool()
        self.timers = Timers(self.clock)
        self.closing = threading.Event()
        self.keeping: Any = None  # the durable jobs, if there is a store
        self.most_workers: int | None = None
        self.committers = Committers()
        self._lock = threading.Lock()
        self._users: dict[weakref.ref[Any], int] = {}
        self._given_up_helpers = 0
        self._event_loop: Any = None

    def job_here(self, job_id: str) -> Any:
        """Return a job that runs in this process, if it is known."""
        return None

    @property
    def given_up_threads(self) -> int:
        """How many threads still run a handler whose time was up and that nobody waits for any more."""
        with self._lock:
            helpers = self._given_up_helpers
        return helpers + self.pool.given_up

    def attach(self, user: Any, max_workers: int) -> None:
        """Let ``user`` (a flow) have jobs run on up to ``max_workers`` worker threads."""
        if self._users.get(weakref.ref(user)) == max_workers:
            return
        key = weakref.ref(user, self._forget_later)
        with self._lock:
            self._users[key] = max_workers
            self.pool.set_limit(self._limit())

    def _limit(self) -> int:
        limit = max(self._users.values(), default=0)
        return limit if self.most_workers is None else min(limit, self.most_workers)

    def release(self, user: Any) -> None:
        """Let go of the threads for ``user``, and wait for them to end when it was the last user."""
        event_loop: Loop | None = self._event_loop
        self._forget(weakref.ref(user))
        self.pool.join()
        if event_loop is not None and self._event_loop is not event_loop:
            event_loop.join()

    def event_loop(self, make: Callable[[], Any]) -> Any:
        """Return the event loop, made by ``make`` when there is none. Raises RuntimeError when that fails."""
        with self._lock:
            if self._event_loop is None:
                self._event_loop = make()
            return self._event_loop

    def _forget(self, key: weakref.ref[Any]) -> None:
        with self._lock:
            if self._users.pop(key, None) is None:
                return
            event_loop: Loop | None = None
            if not self._users:
                event_loop, self._event_loop = self._event_loop, None
            self.pool.set_limit(self._limit())
        if event_loop is not None:
            event_loop.close()

    def _forget_later(self, key: weakref.ref[Any]) -> None:
        # The garbage collector calls this in any thread at any point, also in one that holds a lock of ours.
        try:
            start_new_thread(self._forget, (key,))
        except RuntimeError:  # the interpreter is shutting down, and takes the threads with it
            pass

    def count_given_up_helper(self, change: int) -> None:
        """Note that a helper thread was given up (1), or has ended after all (-1)."""
        with self._lock:
            self._given_up_helpers += change
