"""Turns of durable jobs on threads."""

from __future__ import annotations

from typing import Any

from ..core.job_record import Activation, Mailbox
from ..core.plan import SlotPlan
from ..routine.scope import current
from .drafts import EditDraft
from .durable import Durable
from .durable_job import DurableJob
from .steps import Effect, Halt
from .turn import BATCH, Turn


class DurableTurn(Durable, Turn):
    """One thread's stay with one mailbox of a durable job. `run` takes up to ``BATCH`` turns for it."""

    def __init__(self, job: DurableJob, mailbox: Mailbox, depth: int = 0) -> None:
        super().__init__(job, mailbox, depth)
        self.prepare()

    def run(self) -> None:
        """Take turns until the batch is full, the mailbox is empty, or a retry holds it."""
        job, record, gate, now, notices = self.job, self.record, self.job.lock, self.job.now, self.job.notices.waiting
        left = BATCH
        current.set(self)
        try:
            with job.lock:
                activation = self.following(True)
            job.tell()
            while activation is not None:
                slot = activation.slot
                if slot.on_loop:
                    job.hand_over(activation)
                    break
                self.take(activation, slot)
                at = now()
                error, self.activation = self.error, None
                self.error = None
                again = False
                try:
                    again = self.conclude(activation, error, at)
                except Exception as refused:
                    if job.halted is None and record.running.get(activation.id) is activation:
                        raise refused
                left -= 1
                with gate:
                    if again:  # the retry keeps the mailbox
                        activation = None
                        job.settle()
                    else:
                        # When the queue is full, the thread goes to those who can shorten it.
                        more = left > 0 and not self.spoiled and record.queued <= job.max_pending
                        activation = self.following(more)
                if notices:
                    job.tell()
                if self.depth and isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise error
                error = None
                if self.touched:
                    self._forget()
        finally:
            current.set(self.outer)
            if self.helper is not None:
                self.helper.close()

    def take(self, activation: Activation, slot: SlotPlan) -> None:
        """Run the handler; ``error`` is what it raised."""
        self.routine = slot.node.routine
        self.activation = activation
        self.begin(activation)
        self.error = None
        try:
            if slot.direct and not activation.isolate and slot.merge == "override":
                slot.binding.handler(**activation.payload)
            else:
                self._handle(slot, activation)
        except BaseException as raised:
            self.error = raised
        if self.touched and self.waits_for is None:
            self.error = self.commit_changes(self.error)

    def overflow(self) -> None:
        """Commit, because many emissions wait for it, and let the queue get shorter."""
        self.flush()

    def flush(self) -> None:
        """Commit what the handler has done so far, and wait for room in the queue when it is full."""
        activation = self.check_point("flush()")
        if self.reach("flush", None) is None:
            self.commit("flush")
        if self.record.queued > self.job.max_pending and self.record.running.get(activation.id) is activation:
            self.relieve()

    def begin_edit(self, activation: Activation) -> EditDraft:
        """Become the only activation of the job that edits; what was written before is committed first."""
        self.check(activation)
        if self.writes_pending():
            self.flush()
        return super().begin_edit(activation)

    def close_edit(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, with what was done before it; or drop it."""
        super().close_edit(draft, keep=keep)
        if keep and self.reach("edit", None) is None:
            self.commit("edit")

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Halt):
            self.waits_for = (effect.name, effect.wait)
            raise self.suspension()
        return super()._perform(effect)
