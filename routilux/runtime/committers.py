"""Threads that do short pieces of work which may have to wait for a disk."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable

MOST = 16
PATIENCE = 2.0  # seconds after which a thread without work ends


def guarded(work: Callable[[], object]) -> None:
    """Do something on a thread that goes on; what is raised is shown as what ends a thread is."""
    try:
        work()
    except BaseException:
        kind, error, trace = sys.exc_info()
        assert kind is not None
        threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))


class Committers:
    """Up to ``MOST`` threads, made on demand; each ends when there is nothing to do for a while.

    They are no worker threads: handlers may keep all of those busy, and wait for what is done here.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._work: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0  # threads that wait for work, and have not been woken for any
        self._here = threading.local()

    def submit(self, work: Callable[[], object]) -> None:
        """Have something done soon; what it raises is shown as what a thread raises is.

        Raises RuntimeError when there is no thread and the system gives none.
        """
        with self._changed:
            self._work.append(work)
            if self._idle:
                self._idle -= 1
                self._changed.notify()
            elif self._threads < MOST:
                thread = threading.Thread(target=self._run, name="routilux-commits", daemon=True)
                self._threads += 1
                try:
                    thread.start()
                except RuntimeError:
                    self._threads -= 1
                    if not self._threads:
                        self._work.pop()
                        raise

    def is_here(self) -> bool:
        """Whether the calling thread is one of them."""
        return getattr(self._here, "works", False)

    def _run(self) -> None:
        self._here.works = True
        while True:
            work = self._next()
            if work is None:
                return
            guarded(work)
            del work

    def _next(self) -> Callable[[], object] | None:
        """Return the next piece of work, after waiting for it; None when the thread is to end."""
        with self._changed:
            while not self._work:
                self._idle += 1
                woken = self._changed.wait(PATIENCE)
                if not woken and self._idle:
                    self._idle -= 1  # nobody has counted on this thread
                    if not self._work:
                        self._threads -= 1
                        return None
            return self._work.popleft()
