"""How those who listen are told what happens in a job.

What happens is noted under the job's lock, in the order in which it was committed, and told afterwards without the
lock, by one thread at a time, which is never one that runs an event loop, or the timers. A job counts as at rest only
when all of it has been told, so that whoever waits for a job finds that its listeners have heard everything. When
nobody listens, nothing is noted.
"""

from __future__ import annotations

import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable

from ..routine.scope import current
from .audience import Notice

BACKLOG = 1000  # notices that may wait before those who make more wait until they are told


class Notices:
    """The notices of one job that have not been told yet.

    Args:
        tell: called with each notice, without the lock.
    """

    __slots__ = ("_tell", "_teller", "_telling", "waiting")

    def __init__(self, tell: Callable[[Notice], None]) -> None:
        self.waiting: deque[Notice] = deque()
        self._tell = tell
        self._telling = threading.Lock()
        self._teller = 0

    @property
    def pending(self) -> bool:
        """Whether something has not been told, or is being told."""
        return bool(self.waiting) or self._teller != 0

    def told_here(self) -> bool:
        """Whether the calling thread is the one that tells, and so is inside a listener."""
        return self._teller == get_ident()

    def tell(self) -> bool:
        """Tell what waits, unless another thread does, for which this one waits when much has piled up.

        Returns whether everything has been told.
        """
        if self.told_here():
            return False
        while self.waiting:
            if not self._telling.acquire(blocking=len(self.waiting) > BACKLOG):
                return False
            self._teller = get_ident()
            scope = current.get()
            current.set(None)  # a listener is no part of the turn that it hears of
            try:
                while self.waiting:
                    self._tell(self.waiting.popleft())
            finally:
                current.set(scope)
                self._teller = 0
                self._telling.release()
        return True
