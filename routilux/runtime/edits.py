"""Whose turn it is to edit the state of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core.job_record import Activation, JobRecord
from .bells import Bell
from .gate import Gate
from .pool import WorkerPool

PASSES = 100  # edits of others that somebody who was called waits for at the most


class Edits:
    """One editor at a time. An activation that may not act any more is no editor either.

    All that is here changes under the job's lock; ``waiting`` are the bells of those who wait, in the order in which
    they came. When nobody edits, the first of them is called; if it cannot edit after all, the next one is. Until it
    runs, others may edit before it, because a switch of threads takes as long as many edits: `PASSES` times at the
    most, and then the next edit is kept for it.
    """

    __slots__ = ("_called", "_editor", "_gate", "_passed", "_pool", "_record", "waiting")

    def __init__(self, gate: Gate, record: JobRecord, pool: WorkerPool) -> None:
        self._gate = gate
        self._pool = pool
        self._record = record
        self._editor: Activation | None = None
        self._called: Bell | None = None
        self._passed = 0  # edits by others since somebody was called, or called again
        self.waiting: list[Bell] = []

    def take(self, activation: Activation, check: Callable[[Activation], None]) -> None:
        """Wait until nobody else edits, and become the editor; ``check`` raises when the activation may not act."""
        if self.try_take(activation, check):
            return
        bell = threading.Event()
        try:
            while not self.try_take(activation, check, bell):
                with self._pool.sleeping():
                    bell.wait()
        except BaseException:
            self.withdraw(bell)
            raise

    def try_take(self, activation: Activation, check: Callable[[Activation], None], bell: Bell | None = None) -> bool:
        """Become the editor if nobody else is, and no edit is kept for somebody else, and return whether.

        If not, a bell rings when it is time to try again, with the same bell; whoever does not must `withdraw` it.
        Raises what ``check`` does when the activation may not act.
        """
        with self._gate:
            check(activation)
            called = bell is not None and self._called is bell
            kept = not called and self._called is not None
            if self._taken() or (kept and self._passed >= PASSES):
                if bell is not None:
                    self._queue(bell, called)
                return False
            if called:
                self._called = None
            self._passed = self._passed + 1 if kept else 0
            self._editor = activation
            return True

    def _queue(self, bell: Bell, called: bool) -> None:
        if called:  # it was passed, and is still the first
            self._called = None
            bell.clear()
            self.waiting.insert(0, bell)
        else:
            self.waiting.append(bell)

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
            self._called = self.waiting.pop(0)
            self._called.set()

    def _taken(self) -> bool:
        editor = self._editor
        return editor is not None and self._record.running.get(editor.id) is editor
