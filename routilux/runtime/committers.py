"""Threads that do short pieces of work which may have to wait for a disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

MOST = 16
PATIENCE = 2.0  # seconds after which a thread without work ends


class Committers:
    """Up to ``MOST`` threads, made on demand; each ends when there is nothing to do for a while.

    They are no worker threads: handlers may keep all of those busy, and wait for what is done here.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._idle = 0

    def submit(self, work: Callable[[], object]) -> None:
        """Have something done soon, which does not raise. Raises RuntimeError when the system gives no thread."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < MOST:
                thread = threading.Thread(target=self._run, name="routilux-commits", daemon=True)
                self._threads.add(thread)
                try:
                    thread.start()
                except RuntimeError:
                    self._threads.remove(thread)
                    if not self._threads:
                        raise
            self._work.put(work)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:
            with self._lock:
                self._idle -= 1
                self._threads.discard(threading.current_thread())
            raise

    def _serve(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=PATIENCE)
            except queue.Empty:
                with self._lock:
                    if self._work.empty():
                        self._idle = max(self._idle - 1, 0)
                        self._threads.discard(threading.current_thread())
                        return
                continue
            try:
                work()
            finally:
                with self._lock:
                    self._idle += 1
