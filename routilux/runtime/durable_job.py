"""A job with a store: its life, each step of which is in the journal before it is in the record.

Whoever commits holds ``commits``, and then the lock for as long as the record changes.
"""

from __future__ import annotations

import logging
import threading
from _thread import get_ident
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.commits import addressee, is_over, published
from ..core.history import with_data
from ..core.job_record import Activation
from ..core.plan import SlotPlan
from ..core.points import Answered, Committed, Noted, Published
from ..core.records import (
    Cancelled,
    Deferred,
    Emitted,
    Ended,
    ErrorRecord,
    Failed,
    InputClosed,
    Logged,
    Paused,
    Received,
    Resumed,
    Retried,
    Wrote,
)
from ..core.status import JobStatus, check_change
from ..errors import JobTimeoutError, RoutiluxError, StoreError
from .audience import FAILED_ATTEMPT
from .describing import describe
from .journaled_job import JournaledJob
from .tape import Tape

logger = logging.getLogger("routilux")


class DurableJob(JournaledJob):
    """One execution of a flow that survives the process. For the arguments see `JournaledJob`."""

    # --- who hears of it ---------------------------------------------------------------------------------------------

    def committed(self, fact: Committed, activation: Activation, result: Any) -> None:
        """Do what follows from a commit, and have listeners told of it, soon. The caller holds the lock."""
        if fact.kind == "retry":
            self.plan_retry(result)
        elif fact.kind == "wait":
            self.plan_wake(result, self.now())
            if result.wait.jobs:
                self._keeper.begun_to_wait(self, result.wait.jobs)
        elif self.record.on_loop or (self.record.ready and fact.kind != "end"):
            self.call()
        if self.listening.everything or self.flow.output_handlers:
            self._note_batch(fact, activation)
        if fact.kind == "end":
            status, spent, at, error, stop, finish = fact.outcome
            if self.listening.everything or (error is not None and self.hears(FAILED_ATTEMPT)):
                entry = with_data(result, activation.shown)
                self.note(Ended(activation.id, status, spent, at, error, stop, finish), activation, entry)
        elif fact.kind == "retry" and self.hears(FAILED_ATTEMPT):
            self.note(Retried(activation.id, *fact.outcome), activation, self.retry_error)
        if self.record.status is not self._noted_status:  # before anybody finds the job at rest
            self.note_status()

    def _note_batch(self, fact: Committed, activation: Activation) -> None:
        if self.listening.everything:
            for event, data, isolate, later in fact.batch.emissions:
                made = (activation.id, event, data, isolate)
                self.note(Deferred(*made) if later else Emitted(*made, fact.at), activation)
            for write in fact.batch.writes:
                self.note(write, activation)
            for entry in fact.batch.log:
                self.note(entry, activation)
        for output in fact.batch.outputs:
            self.note(output, activation)

    def taped(self, size: int) -> Tape:
        """See `Informed.taped`."""
        self._keeper.check_process()
        tape = super().taped(size)
        self._keeper.taped(self)
        return tape

    def note_began(self) -> None:
        """Have listeners told that the job was started."""
        with self.lock:
            self._noted_status = JobStatus.PENDING
            self.begin()
            self.left()
        self.tell()

    def note_fatal(self, error: BaseException) -> None:
        """Note what tells the process to stop, which this thread raises again when the job is at rest."""
        with self.lock:
            self.interrupt, self.interrupt_thread = error, threading.get_ident()

    def come_to_rest(self) -> None:
        """See `Job.come_to_rest`."""
        super().come_to_rest()
        self._keeper.rested(self)

    # --- what handlers wait for --------------------------------------------------------------------------------------

    def wait(self, timeout: float | None) -> bool:
        """See `Job.wait`."""
        self._keeper.check_process()
        return super().wait(timeout)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Have the job awake, and nobody else commit, while the block runs; listeners are told afterwards."""
        self._keeper.check_process()
        with self.lock:
            self.visitors += 1
        try:
            self._keeper.awake(self)
            with self.commits:
                self._committing = get_ident()
                try:
                    yield
                finally:
                    self._committing = 0
        finally:
            with self.lock:
                self.visitors -= 1
                self.left()
        self.tell()

    def tell(self) -> None:
        """Tell listeners what was noted, unless this thread is about to do so when it has committed."""
        if self._committing != get_ident():
            super().tell()

    def publish(self, topic: str, form: Any, *, keep: bool, message: int = 0) -> None:
        """Give an event to the job; for the arguments see `Published`. Raises StoreError when it cannot be kept."""
        with self.at_hand():
            if message and message <= self.record.inbox:
                return
            with self.lock:
                fact = Published(topic, form, keep, self.now(), message)
                self._addressee = addressee(self.record, fact)
            try:
                self.keep(fact)
                with self.lock:
                    published(self.record, fact)
            finally:
                with self.lock:
                    given, self._addressee = self._addressee, None
                    if given is not None and is_over(self.record, given, self.now()):
                        self.wake(given)

    def wake(self, activation: Activation | None) -> None:
        """See `Timed.wake`. A turn that is being given an event is not woken because its time has come meanwhile."""
        if activation is not self._addressee:
            super().wake(activation)

    def answer(self, fact: Answered) -> None:
        """Tell the job that one of those that it waits for has ended."""
        with self.at_hand():
            activation = self.record.waiting.get(fact.delivery)
            if activation is None:
                return
            self.keep(fact)
            with self.lock:
                self.take_answer(fact)

    def begin_child(self, invocation: Any, job_id: str) -> None:
        """See `Job.begin_child`. When the store is not there for it, the job halts."""
        try:
            super().begin_child(invocation, job_id)
        except StoreError as error:
            self.halt(error)
            raise

    def expect(self, jobs: Sequence[str]) -> None:
        """Expect nothing: the store knows how they end."""

    def noted(self, message: int) -> None:
        """Keep that a message was seen to."""
        with self.commits:
            if message > self.record.inbox:
                self.keep(Noted(message))
                self.record.inbox = message

    # --- what comes from outside -------------------------------------------------------------------------------------

    def receive(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool, message: int = 0) -> None:
        """See `Job.receive`. Raises SaveError for a payload that cannot be kept, StoreError when it is not."""
        with self.at_hand():
            if message and message <= self.record.inbox:
                return
            self.check_receiving(slot, message)
            fact = Received(slot.index, payload, isolate, self.now(), message)
            self.keep(fact)
            with self.lock:
                self.take_in(fact)

    def close_input(self, slot: SlotPlan, message: int = 0) -> None:
        """See `Job.close_input`. Raises StoreError when that cannot be kept."""
        with self.at_hand():
            if slot.index in self.record.inputs:
                fact = InputClosed(slot.index, self.now(), message)
                self.keep(fact)
                with self.lock:
                    self.take_in(fact)

    def close_due(self, slot: SlotPlan) -> None:
        """See `Job.close_due`; a thread of its own waits for the store."""

        def close() -> None:
            try:
                self._keeper.attend(self)  # what was sent in time is not too late
                self.close_input(slot)
            except StoreError:
                if self.halted is None:
                    self._keeper.again(close)
            except RoutiluxError as error:  # the job has halted; whoever goes on with it closes the input
                logger.info("the input '%s.%s' of %s stays open: %s", slot.routine_id, slot.name, self.subject, error)

        self.engine.committers.submit(close)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _time_came(self, activation: Activation) -> None:
        self._keeper.awake(self)
        super()._time_came(activation)

    def pause(self, reason: str) -> None:
        """See `Job.pause`."""
        with self.at_hand():
            check_change(self.subject, self.record.status, JobStatus.PAUSED)
            self.keep(Paused(reason))
            super().pause(reason)

    def resume(self) -> None:
        """See `Job.resume`."""
        with self.at_hand():
            self.check_resumable()
            self.keep(Resumed(self.now()))
            self._keeper.hold(self)  # it was let go of if it had failed
            super().resume()

    def cancel(self, reason: str) -> None:
        """See `Job.cancel`."""
        with self.at_hand():
            check_change(self.subject, self.record.status, JobStatus.CANCELLED)
            self._keep_cancelled(reason)
            super().cancel(reason)

    def cancel_unless_ended(self, reason: str) -> None:
        """See `Job.cancel_unless_ended`."""
        with self.at_hand():
            if not self.record.status.ended:
                self._keep_cancelled(reason)
                super().cancel_unless_ended(reason)

    def _keep_cancelled(self, reason: str) -> None:
        self.keep_begun()
        self.keep(Cancelled(reason, self.now()))

    def keep_begun(self, but: Activation | None = None) -> None:
        """Keep which activations run, before the job forgets those that do not. The caller holds `commits`."""
        for each in list(self.record.running.values()):
            if each is not but:
                fact = Committed(each.id, each.slot.index, each.started, "begin", None, None, at=self.now())
                self.keep(fact, each)

    def cancel_children(self) -> None:
        """Cancel the jobs that this one's handlers have started."""
        self._keeper.cancel_children(self)

    def expire(self, timeout: float) -> None:
        """See `Job.expire`."""
        with self.at_hand():
            if self.at_rest:
                return
            described = describe(JobTimeoutError(f"not ended within {timeout:g} seconds"))
            self._keep_given_up(described, lambda activation: True)
            if not self.record.status.ended:
                self.keep(Failed(described, self.now()))
            super().expire(timeout)

    def interrupted(self, error: BaseException) -> None:
        """See `Job.interrupted`."""
        if error is self.halted:
            with self.lock:
                self.leave(threading.get_ident())
                self.settle()
            return
        with self.at_hand():
            thread, described = threading.get_ident(), describe(error)
            try:
                self._keep_given_up(described, lambda activation: activation.owner in (thread, 0))
                with self.lock:
                    fails = self.fails_without(thread)
                if fails:
                    self.keep(Failed(described, self.now()))
            except StoreError:
                pass
            super().interrupted(error)

    def _keep_given_up(self, error: ErrorRecord, fits: Callable[[Activation], bool]) -> None:
        for each in list(self.record.running.values()):
            if fits(each):
                at = self.now()
                self.keep(
                    Committed(each.id, each.slot.index, each.started, "given up", None, (error, at), at=at),
                    each,
                )

    # --- writes from outside handlers --------------------------------------------------------------------------------

    def fail_as_poison(self, error: BaseException) -> None:
        """Fail the job without running it."""
        with self.commits:
            if self.record.status not in (JobStatus.RUNNING, JobStatus.WAITING):  # it was paused, or ended, meanwhile
                return
            self.keep(Failed(describe(error), self.now()))
            with self.lock:
                self.fail(error)
                self.settle()
        self.tell()

    def write_outside(self, fact: Wrote | Logged) -> None:
        """Keep what is written to the job while it does not run, and put it into the record."""
        with self.commits:
            self.keep(fact)
            super().write_outside(fact)
