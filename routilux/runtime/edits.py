"""Whose turn it is to edit the state of a job."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..core.job_record import Activation, JobRecord
from .bells import Bell
from .gate import Gate
from .pool import WorkerPool


class Edits:
    """One editor at a time. An activation that may not act any more is no editor either.

    All that is here changes under the job's lock; ``waiting`` are the bells of those who wait, in the order in which
    they came. When nobody edits, the first of them is called, and nobody else may edit before it does; if it cannot
    edit after all, the next one is called.
    """

    __slots__ = ("_called", "_editor", "_gate", "_pool", "_record", "waiting")

    def __init__(self, gate: Gate, record: JobRecord, pool: WorkerPool) -> None:
        self._gate = gate
        self._pool = pool
        self._record = record
        self._editor: Activation | None = None
        self._called: Bell | None = None
        self.waiting: deque[Bell] = deque()

    def take(self, activation: Activation, check: Callable[[Activation], None]) -> None:
        """Wait until nobody else edits, and become the editor; ``check`` raises when the activation may not act."""
        bell = threading.Event()
        while not self.try_take(activation, check, bell):
            try:
                with self._pool.sleeping():
                    bell.wait()
            except BaseException:
                self.withdraw(bell)
                raise

    def try_take(self, activation: Activation, check: Callable[[Activation], None], bell: Bell) -> bool:
        """Become the editor if nobody else is, or was called to be, and return whether.

        If not, the bell rings when it is time to try again, with the same bell. Whoever does not must `withdraw` it.
        Raises what ``check`` does when the activation may not act.
        """
        with self._gate:
            try:
                check(activation)
            except BaseException:
                self.withdraw(bell)
                raise
            if self._taken() or self._called not in (None, bell):
                self.waiting.append(bell)
                return False
            self._called = None
            self._editor = activation
            return True

    def withdraw(self, bell: Bell) -> None:
        """Do not wait for a bell any more; if it has rung, the next one's does."""
        with self._gate:
            if bell in self.waiting:
                self.waiting.remove(bell)
            elif self._called is bell:
                self._called = None
                self.ring()

    def give(self, activation: Activation) -> None:
        """Let the next one edit."""
        with self._gate:
            if self._editor is activation:
                self._editor = None
            self.ring()

    def ring(self) -> None:
        """Call the first of those who wait, if nobody edits. The caller holds the lock."""
        if self.waiting and self._called is None and not self._taken():
            self._called = self.waiting.popleft()
            self._called.set()

    def _taken(self) -> bool:
        editor = self._editor
        return editor is not None and self._record.running.get(editor.delivery.id) is editor
