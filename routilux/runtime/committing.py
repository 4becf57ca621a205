"""From a delivery to the arguments of its handler, and from what the handler did to the record."""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Mapping
from typing import Any

from ..core.copying import copy_payload
from ..core.history import with_data
from ..core.job_record import Activation, Mailbox
from ..core.life import given_up
from ..core.machine import ended, merged, retried
from ..core.plan import SlotPlan
from ..core.policy import ErrorStrategy
from ..core.records import Ended, ErrorRecord, Retried
from ..errors import HandlerTimeoutError, PayloadError
from ..routine.binding import Misfit, shortened
from .audience import FAILED_ATTEMPT
from .describing import describe
from .gathered import check_parts
from .job import Job
from .stepping import Stepping


class Committing(Stepping):
    """What turns on threads and turns on the event loop have in common.

    ``nested`` are the nanoseconds of the turn that were spent on, or waiting for, other handlers; they count neither
    as its duration nor against its time limit. ``nested_since`` is set while that goes on.
    """

    __slots__ = ("depth", "life", "mailbox", "nested", "nested_since")

    def __init__(self, job: Job, mailbox: Mailbox) -> None:
        super().__init__(job)
        self.mailbox = mailbox
        self.depth = 0
        self.life = job.record.life
        self.nested = 0
        self.nested_since: int | None = None

    def following(self, more: bool) -> Activation | None:
        """Return the next activation that this turn takes of its mailbox, if it takes ``more``; else let go of it.

        The caller holds the lock.
        """
        raise NotImplementedError

    def time_is_up(self, slot: SlotPlan) -> HandlerTimeoutError:
        """Return the error of a handler that ran longer than it may."""
        return HandlerTimeoutError(
            f"{self.where(slot)}: the handler ran longer than its timeout of {slot.timeout:g} seconds"
        )

    def pressed(self) -> int:
        """Begin to wait for room in the queue, and return when; the time does not count as the handler's."""
        job, since = self.job, self.job.now()
        with job.lock:
            job.emitting += 1
            self.nested_since = since
            if job.pressed or job.easing:
                job.settle()
        return since

    # --- before the handler -----------------------------------------------------------------------------------------

    def arguments(self, slot: SlotPlan, activation: Activation) -> dict[str, Any]:
        """Return the arguments for the handler: the payload, merged as the slot says, and bound."""
        if slot.gather is not None:
            check_parts(activation.delivery, self.job.plan, self.where(slot))
        elif slot.merges and not activation.merged:
            self._merge(slot, activation)
        payload = copy_payload(activation.payload) if activation.isolate else activation.payload
        try:
            arguments: dict[str, Any] = slot.binding.bind(payload)
        except Misfit as misfit:
            raise PayloadError(f"{self.where(slot)}: {misfit}") from misfit.__cause__
        if slot.binding.context is not None:
            arguments[slot.binding.context] = self.context()
        return arguments

    def _merge(self, slot: SlotPlan, activation: Activation) -> None:
        """Let the slot's own function merge the payload into the buffer; again when another turn was faster."""
        lock, buffers = self.job.lock, self.record.buffers
        isolated = copy_payload if self.job.plan.copy_payloads else dict
        while True:
            with lock:
                old = buffers.get(slot.index)
            new = slot.merge(isolated(old or {}), isolated(activation.payload))
            if not isinstance(new, Mapping) or not all(isinstance(key, str) for key in new):
                raise PayloadError(f"{self.where(slot)}: the merge function must return a dict, not {shortened(new)}")
            new = isolated(new)
            with lock:
                self.check(activation)
                if buffers.get(slot.index) is old:
                    merged(self.record, activation, new)
                    return

    # --- after it ---------------------------------------------------------------------------------------------------

    def commit_changes(self, error: BaseException | None) -> BaseException | None:
        """Commit in-place changes of the state, also those of a handler that raised; return the first error."""
        try:
            self.end_state()
        except Exception as refused:
            return error or refused
        return error

    def note_end(
        self,
        activation: Activation,
        status: str,
        spent: int,
        at: int,
        error: ErrorRecord | None,
        entry: tuple[Any, ...],
        stop: bool = False,
    ) -> None:
        """Have listeners told of an ended activation, soon. The caller holds the lock."""
        fact = Ended(activation.id, status, spent, at, error, stop, self.finish_with)
        self.job.note(fact, activation, with_data(entry, activation.shown))

    def commit_failure(self, activation: Activation, at: int, error: BaseException, more: bool) -> Activation | None:
        """Commit an attempt that raised, as its policy says, and return what `following` does."""
        job, record, slot = self.job, self.record, activation.slot
        spent = at - activation.started - self.nested
        fatal = isinstance(error, (KeyboardInterrupt, SystemExit))
        if fatal:
            job.lock.abandon()
        action = ErrorStrategy.STOP if fatal else slot.policy.decide(error, activation.attempt)
        described = describe(error, slot, activation.attempt) if action is not ErrorStrategy.RETRY else None
        following = None
        with job.lock:
            if fatal:
                job.interrupt, job.interrupt_thread = error, get_ident()
            if record.running.get(activation.id) is not activation:
                following = self.following(more)
            elif action is ErrorStrategy.RETRY and not record.closed:
                delay = slot.policy.delay(activation.attempt, f"{record.job_id}:{activation.id}")
                due = at + int(delay * 1e9)
                job.plan_retry(retried(record, activation, spent, due))
                if job.hears(FAILED_ATTEMPT):
                    job.note(Retried(activation.id, spent, due), activation, error)
                job.settle()
            else:
                stop = action is ErrorStrategy.STOP
                if stop and not record.status.ended:
                    job.failure = error
                status = "skipped" if action is ErrorStrategy.SKIP else "failed"
                entry = ended(record, activation, status, spent, at, described, stop)
                if job.hears(FAILED_ATTEMPT):
                    self.note_end(activation, status, spent, at, described, entry, stop)
                if fatal and not self.depth:  # handlers that ran inside this one's emit have been left, too
                    given_up(record, described or describe(error), at, self.thread)
                following = self.following(more)
        job.tell()
        if fatal and self.depth:
            raise error
        return following
