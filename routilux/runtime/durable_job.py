"""A job with a store: every fact is in its journal before it is in its record.

Whoever commits holds ``commits``, so that facts lie in the journal in the order in which they are folded, and then the
lock for as long as the record changes. While a fact is on its way to the store the job's handlers go on; nobody sees
what it tells before it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..core.commits import answered, published, status_after
from ..core.copying import copy_value
from ..core.job_record import Activation, JobRecord
from ..core.listening import listening
from ..core.points import Answered, Committed, DurableFact, Noted, Published
from ..core.records import (
    Cancelled,
    Deferred,
    Emitted,
    Ended,
    ErrorRecord,
    Fact,
    Failed,
    Logged,
    Paused,
    Resumed,
    Retried,
    Wrote,
)
from ..core.status import JobStatus, check_change
from ..errors import ExecutionError, JobTimeoutError, StaleWriterError, StateError, StoreError
from ..graph.schema import size_of
from ..store.base import JobHead
from ..store.fact_writing import FactWriter
from ..store.journal import Journal
from ..store.plain import is_plain
from ..store.reading import Reader
from ..store.values import Writer
from .audience import FAILED_ATTEMPT, audience
from .crew import Hooks
from .describing import describe
from .job import Job
from .threads import SharedThreads
from .write_behind import WriteBehind

LEAST_BEFORE_SNAPSHOT = 256 * 1024  # bytes of journal; and never less than the last snapshot had
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0  # seconds between attempts to reach a store


class Keeper(Protocol):
    """What an engine has for its durable jobs, as far as these know it."""

    def put_to_sleep(self, job: Any) -> None:
        """A job waits, and nobody works for it."""

    def hold(self, job: Any) -> None:
        """A job runs here, perhaps again."""

    def awake(self, job: Any) -> None:
        """Somebody works for a job, or will."""

    def begun(self, job: Any) -> None:
        """A job that was restored is about to be in the store."""

    def begun_to_wait(self, parent: Any, children: tuple[str, ...]) -> None:
        """A job has begun to wait for others."""

    def cancel_children(self, job: Any) -> None:
        """Cancel the jobs that a job's handlers have started."""


class DurableJob(Job):
    """One execution of a flow that survives the process.

    Args:
        journal: where its facts are kept.
        keeper: what the engine has for its durable jobs.
        snapshot: returns the record as a document; called with the lock held by nobody and ``commits`` held.
        patience: for how many seconds the store is asked again when it cannot do what it is asked for.

    For the others see `Job`.
    """

    def __init__(
        self,
        flow: Any,
        record: JobRecord,
        engine: SharedThreads,
        max_workers: int,
        max_pending: int,
        hooks: Hooks,
        *,
        journal: Journal,
        head: JobHead,
        keeper: Keeper,
        snapshot: Callable[[Job], bytes],
        patience: float,
    ) -> None:
        super().__init__(flow, record, engine, max_workers, max_pending, hooks)
        self.commits = threading.Lock()
        self.journal = journal
        self.head = head
        self.lags = isinstance(journal.store, WriteBehind)
        self.patience = patience
        self.halted: BaseException | None = None
        self.retry_error: BaseException | None = None
        self.subject = f"flow {record.plan.flow_id!r}: job {record.job_id!r}"
        self._keeper = keeper
        self._snapshot = snapshot
        self.most_before_snapshot = LEAST_BEFORE_SNAPSHOT
        self._facts = FactWriter(record.plan, self.writer(), record.epoch)
        self._sizes = {key: size_of(key, value) for key, value in record.shared.items()}

    # --- values ------------------------------------------------------------------------------------------------------

    def writer(self) -> Writer:
        """Return what turns values into JSON."""
        return Writer(self.subject, self.flow.known_types, None)

    def reader(self) -> Reader:
        """Return what makes values of JSON."""
        return Reader(self.subject, self.flow.known_types, None)

    def encode(self, value: Any, what: str) -> Any:
        """Return the JSON form of a value, which shares nothing with it. Raises SaveError when it has none."""
        return copy_value(value) if is_plain([value]) else self.writer().value(value, what)

    def decode(self, form: Any, what: str) -> Any:
        """Return a new value with this JSON form."""
        return self.reader().value(form, what)

    # --- keeping facts; the caller holds `commits` -------------------------------------------------------------------

    def check_going(self) -> None:
        """Raise what made the job halt in this process, if something has."""
        if self.halted is not None:
            raise self.halted

    def confirm(self) -> None:
        """See `Job.confirm`."""
        self.check_going()
        if self.lags:
            try:
                self.journal.store.flush(self.record.job_id)  # type: ignore[attr-defined]
            except StoreError as error:
                self.halt(error)
                raise

    def keep(self, fact: Fact | DurableFact, activation: Activation | None = None) -> None:
        """Append a fact to the journal, before it is put into the record.

        Raises StateError when the shared data would outgrow the flow's ``max_state_bytes``, SaveError for a value that
        has no form, StoreError when the store cannot take it: the job halts in this process then.
        """
        if self.halted is not None:
            raise self.halted
        if not self.journal.last:
            self._begin()
        turn = fact.__class__ is Committed
        sizes = self._grown(fact) if not turn or fact.batch.writes else None  # type: ignore[union-attr]
        body = self._facts.write(fact, self._shared)
        status = status_after(self.record, activation, fact)
        head = None
        if status is not None and status != self.head.status:
            head = self.head._replace(status=str(status), updated=self.engine.clock.time_ns() / 1e9)
        try:
            self.journal.append((body,), head)
        except StoreError as error:
            self._patiently(lambda: self.journal.append((body,), head), error)
        if head is not None:
            self.head = head
        if sizes is not None:
            self._sizes = sizes

    def _begin(self) -> None:
        """Put a job that was restored from a file into the store."""
        self._keeper.begun(self)
        try:
            self.journal.append((self._snapshot(self),), self.head)
        except StaleWriterError as error:
            raise ExecutionError(
                f"{self.subject} was loaded from a file, and the store has a job with this id already; go on with that "
                f"one: engine.get({self.record.job_id!r})"
            ) from error

    def _shared(self) -> dict[str, Any]:
        return self.record.shared

    def _grown(self, fact: Fact | DurableFact) -> dict[str, int] | None:
        """Return the sizes of shared data after a fact, if it changes them."""
        wrotes = [fact] if isinstance(fact, Wrote) else fact.batch.writes if isinstance(fact, Committed) else ()
        for each in wrotes:
            if each.area is None:
                changed = {key: size_of(key, value) for key, value in each.values.items()}
                sizes = {**self._sizes, **changed, **dict.fromkeys(each.removed, 0)}
                size = sum(sizes.values())
                most = self.flow.max_state_bytes
                if size > most:
                    raise StateError(
                        f"{self.subject}: the state would take {size:,} bytes as JSON, more than "
                        f"max_state_bytes={most:,}; keep large things elsewhere and a reference to them in the state"
                    )
                return sizes
        return None

    def _patiently(self, act: Callable[[], None], error: StoreError) -> None:
        """Do something with the store again that could not be done, for a while; then the job halts."""
        pause, began = FIRST_PAUSE, time.monotonic()
        while True:
            too_late = isinstance(error, StaleWriterError) or time.monotonic() - began + pause > self.patience
            if too_late or self.engine.closing.wait(pause):
                self.halt(error)
                raise error
            try:
                act()
                return
            except StoreError as again:
                error = again
            pause = min(pause * 2, LONGEST_PAUSE)

    def halt(self, error: BaseException) -> None:
        """Stop running the job in this process; the journal tells whoever goes on with it where it was."""
        with self.lock:
            if self.halted is None:
                self.halted = error
                self.record.open = False
                self.settle()

    def compact(self) -> None:
        """Let a snapshot take the place of the journal's entries."""
        document = self._snapshot(self)
        self.most_before_snapshot = max(LEAST_BEFORE_SNAPSHOT, len(document))
        try:
            self.journal.put_snapshot(document)
        except StoreError as error:
            self._patiently(lambda: self.journal.put_snapshot(document), error)

    def left(self) -> None:
        """See to it that nobody works for the job any more. The caller holds the lock."""
        super().left()
        if self.record.status is JobStatus.WAITING and not self.crew and not self.tasks and self.halted is None:
            self._keeper.put_to_sleep(self)

    @property
    def at_rest(self) -> bool:
        """Whether no handler runs and none will until somebody changes the job, and everybody has heard so."""
        if self.halted is not None:
            return not self.crew and not self.tasks
        return super().at_rest

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
        if listening.everything or self.flow.output_handlers:
            self._note_batch(fact, activation)
        if fact.kind == "end":
            status, spent, at, error, stop, finish = fact.outcome
            if listening.everything or (error is not None and audience.hears(FAILED_ATTEMPT)):
                self.note(Ended(activation.delivery.id, status, spent, at, error, stop, finish), activation, result)
        elif fact.kind == "retry" and audience.hears(FAILED_ATTEMPT):
            self.note(Retried(activation.delivery.id, *fact.outcome), activation, self.retry_error)
        if self.record.status is not self._noted_status:  # before anybody finds the job at rest
            self.note_status()

    def _note_batch(self, fact: Committed, activation: Activation) -> None:
        if listening.everything:
            for event, data, isolate, later in fact.batch.emissions:
                made = (activation.delivery.id, event, data, isolate)
                self.note(Deferred(*made) if later else Emitted(*made, fact.at), activation)
            for write in fact.batch.writes:
                self.note(write, activation)
            for entry in fact.batch.log:
                self.note(entry, activation)
        for output in fact.batch.outputs:
            self.note(output, activation)

    def note_began(self) -> None:
        """Have listeners told that the job was started."""
        with self.lock:
            self._noted_status = JobStatus.PENDING
            self.note_status()
        self.tell()

    def note_fatal(self, error: BaseException) -> None:
        """Note what tells the process to stop, which this thread raises again when the job is at rest."""
        with self.lock:
            self.interrupt, self.interrupt_thread = error, threading.get_ident()

    # --- what handlers wait for --------------------------------------------------------------------------------------

    def publish(self, fact: Published) -> None:
        """Give an event to the job. Raises StoreError when it cannot be kept."""
        self._keeper.awake(self)
        with self.commits:
            if fact.message and fact.message <= self.record.inbox:
                return
            self.keep(fact)
            with self.lock:
                self.wake(published(self.record, fact))
        self.tell()

    def answer(self, fact: Answered) -> None:
        """Tell the job that one of those that it waits for has ended."""
        self._keeper.awake(self)
        with self.commits:
            activation = self.record.waiting.get(fact.delivery)
            if activation is None:
                return
            self.keep(fact)
            with self.lock:
                self.wake(answered(self.record, fact))
        self.tell()

    def expect(self, jobs: Sequence[str]) -> None:
        """Expect nothing: the store knows how they end."""

    def noted(self, message: int) -> None:
        """Keep that a message was seen to."""
        with self.commits:
            if message > self.record.inbox:
                self.keep(Noted(message))
                self.record.inbox = message

    # --- its life ----------------------------------------------------------------------------------------------------

    def _time_came(self, activation: Activation) -> None:
        self._keeper.awake(self)
        super()._time_came(activation)

    def _where(self) -> str:
        return f"flow {self.plan.flow_id!r}: job {self.record.job_id!r}"

    def pause(self, reason: str) -> None:
        """See `Job.pause`."""
        self._keeper.awake(self)
        with self.commits:
            check_change(self._where(), self.record.status, JobStatus.PAUSED)
            self.keep(Paused(reason))
            super().pause(reason)

    def resume(self) -> None:
        """See `Job.resume`."""
        self._keeper.awake(self)
        with self.commits:
            self.check_resumable()
            self.keep(Resumed(self.now()))
            self._keeper.hold(self)  # it was let go of if it had failed
            super().resume()

    def cancel(self, reason: str) -> None:
        """See `Job.cancel`."""
        self._keeper.awake(self)
        with self.commits:
            check_change(self._where(), self.record.status, JobStatus.CANCELLED)
            self._keep_cancelled(reason)
            super().cancel(reason)

    def cancel_unless_ended(self, reason: str) -> None:
        """See `Job.cancel_unless_ended`."""
        self._keeper.awake(self)
        with self.commits:
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
                fact = Committed(each.delivery.id, each.slot.index, each.started, "begin", None, None, at=self.now())
                self.keep(fact, each)

    def cancel_children(self) -> None:
        """Cancel the jobs that this one's handlers have started."""
        self._keeper.cancel_children(self)

    def expire(self, timeout: float) -> None:
        """See `Job.expire`."""
        self._keeper.awake(self)
        with self.commits:
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
        with self.commits:
            thread, described = threading.get_ident(), describe(error)
            try:
                self._keep_given_up(described, lambda activation: activation.owner in (thread, 0))
                if self.record.status in (JobStatus.RUNNING, JobStatus.WAITING):
                    self.keep(Failed(described, self.now()))
            except StoreError:
                pass
            super().interrupted(error)

    def _keep_given_up(self, error: ErrorRecord, fits: Callable[[Activation], bool]) -> None:
        for each in list(self.record.running.values()):
            if fits(each):
                at = self.now()
                self.keep(
                    Committed(each.delivery.id, each.slot.index, each.started, "given up", None, (error, at), at=at),
                    each,
                )

    # --- writes from outside handlers --------------------------------------------------------------------------------

    def fail_as_poison(self, error: BaseException) -> None:
        """Fail the job without running it."""
        with self.commits:
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
