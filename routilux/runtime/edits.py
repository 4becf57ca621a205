"""Whose turn it is to edit the state of a job."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core.job_record import Activation, JobRecord
from .bells import Bell
from .gate import Gate
from .pool import WorkerPool


class Edits:
    """One editor at a time. An activation that may not act any more is no editor either.

    All that is here changes under the job's lock; ``waiting`` are the bells of those who wait.
    """

    __slots__ = ("_editor", "_gate", "_pool", "_record", "waiting")

    def __init__(self, gate: Gate, record: JobRecord, pool: WorkerPool) -> None:
        self._gate = gate
        self._pool = pool
        self._record = record
        self._editor: Activation | None = None
        self.waiting: list[Bell] = []

    def take(self, activation: Activation, check: Callable[[Activation], None]) -> None:
        """Wait until nobody else edits, and become the editor; ``check`` raises when the activation may not act."""
        while not self.try_take(activation, check, bell := threading.Event()):
            with self._pool.sleeping():
                bell.wait()

    def try_take(self, activation: Activation, check: Callable[[Activation], None], bell: Bell) -> bool:
        """Become the editor if nobody else edits, and return whether; if not, the bell rings when it is time to retry.

        Raises what ``check`` does when the activation may not act.
        """
        with self._gate:
            check(activation)
            editor = self._editor
            if editor is None or self._record.running.get(editor.delivery.id) is not editor:
                self._editor = activation
                return True
            self.waiting.append(bell)
            return False

    def give(self, activation: Activation) -> None:
        """Let the next one edit."""
        with self._gate:
            if self._editor is activation:
                self._editor = None
            self.ring()

    def ring(self) -> None:
        """Have those who wait look again. The caller holds the lock."""
        for bell in self.waiting:
            bell.set()
        self.waiting.clear()
