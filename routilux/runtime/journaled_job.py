"""A job whose facts are kept: every one is in its journal before it is in its record.

Whoever commits holds ``commits``, so that facts lie in the journal in the order in which they are folded. While a fact
is on its way to the store the job's handlers go on; nobody sees what it tells before it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ..core.commits import is_over
from ..core.copying import copy_value
from ..core.foresight import status_after
from ..core.job_record import Activation, JobRecord
from ..core.points import Committed, DurableFact
from ..core.records import Fact, Wrote
from ..core.status import JobStatus
from ..errors import ExecutionError, StaleWriterError, StateError, StoreError
from ..graph.sizes import size_of
from ..store.base import JobHead
from ..store.fact_writing import FactWriter
from ..store.journal import Journal
from ..store.plain import is_plain
from ..store.reading import Reader
from ..store.values import Writer
from .crew import Hooks
from .job import Job
from .patience import patiently
from .threads import SharedThreads
from .write_behind import WriteBehind

LEAST_BEFORE_SNAPSHOT = 256 * 1024  # bytes of journal; and never less than the last snapshot had


class Keeper(Protocol):
    """What an engine has for its durable jobs, as far as these know it."""

    def put_to_sleep(self, job: Any) -> None:
        """A job waits, and nobody works for it."""

    def hold(self, job: Any) -> None:
        """A job runs here, perhaps again."""

    def rested(self, job: Any) -> None:
        """A job has come to rest. The caller holds the job's lock."""

    def awake(self, job: Any) -> None:
        """Somebody works for a job, or will."""

    def attend(self, job: Any) -> None:
        """See to the messages that lie in the inbox for a job."""

    def again(self, work: Callable[[], object]) -> None:
        """Do something again in a while that the store was not there for."""

    def taped(self, job: Any) -> None:
        """A job has a tape."""

    def storing(self, job: Any) -> AbstractContextManager[None]:
        """A job that was restored is put into the store while the block runs."""

    def begun_to_wait(self, parent: Any, children: tuple[str, ...]) -> None:
        """A job has begun to wait for others."""

    def moves(self, jobs: tuple[str, ...]) -> bool:
        """Whether one of these jobs has ended, or will go on by itself."""

    def check_process(self) -> None:
        """Raise ExecutionError in a process made by fork."""

    def cancel_children(self, job: Any) -> None:
        """Cancel the jobs that a job's handlers have started."""


class JournaledJob(Job):
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
        self.retry_error: BaseException | None = None
        self.visitors = 0  # those who keep the job from being put to sleep
        self._committing = 0  # the thread that is inside `DurableJob.at_hand`
        self._addressee: Activation | None = None  # the turn that is being given an event
        self.subject = f"flow {record.plan.flow_id!r}: job {record.job_id!r}"
        self._keeper = keeper
        self._snapshot = snapshot
        self.most_before_snapshot = LEAST_BEFORE_SNAPSHOT
        self._facts = FactWriter(record.plan, self.writer(), record.epoch)
        self._sizes = {key: size_of(key, value) for key, value in record.shared.items()}

    def jobs_move(self, jobs: tuple[str, ...]) -> bool:
        """See `Timed.jobs_move`."""
        return self._keeper.moves(jobs)

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
        self._append((body,), None if status is None or status == self.head.status else status)
        if sizes is not None:
            self._sizes = sizes

    def keep_status(self) -> None:
        """Keep in the head whether a job that was taken up runs or waits from now on.

        That a wait is over is no fact, and the store counts the deaths only of jobs that run. Raises StoreError when it
        cannot be kept: the job halts in this process then.
        """
        with self.commits:
            self.check_going()
            with self.lock:
                status, now = self.record.status, self.now()
                waiting = self.record.waiting.values()
                if status is JobStatus.WAITING and any(is_over(self.record, each, now) for each in waiting):
                    status = JobStatus.RUNNING
            if status not in (JobStatus.RUNNING, JobStatus.WAITING) or status == self.head.status:
                return
            self._append((), status)
        self.confirm()

    def _append(self, entries: tuple[bytes, ...], status: JobStatus | None) -> None:
        """Append entries to the journal, with the job's status from now on if that changes."""
        head = None
        if status is not None:
            head = self.head._replace(status=str(status), updated=self.engine.clock.time_ns() / 1e9)
        try:
            self.journal.append(entries, head)
        except StoreError as error:
            self._ask_again(lambda: self.journal.append(entries, head), error)
        if head is not None:
            self.head = head

    def _begin(self) -> None:
        """Put a job that was restored from a file into the store."""
        try:
            with self._keeper.storing(self):
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

    def _ask_again(self, act: Callable[[], None], error: StoreError) -> None:
        """Do something with the store again that could not be done, for a while; then the job halts."""
        try:
            patiently(act, self.patience, self.engine.closing.wait, error)
        except StoreError as last:
            self.halt(last)
            raise

    def compact(self) -> None:
        """Let a snapshot take the place of the journal's entries."""
        document = self._snapshot(self)
        self.most_before_snapshot = max(LEAST_BEFORE_SNAPSHOT, len(document))
        try:
            self.journal.put_snapshot(document)
        except StoreError as error:
            self._ask_again(lambda: self.journal.put_snapshot(document), error)

    def left(self) -> None:
        """See to it that nobody works for the job any more. The caller holds the lock."""
        super().left()
        busy = self.crew or self.tasks or self.visitors
        if self.record.status is JobStatus.WAITING and not busy and self.halted is None:
            self._keeper.put_to_sleep(self)
