"""How an engine goes on with jobs that nobody runs: it takes them up, holds them, and sets them going.

Only one thread at a time takes jobs up, since two that look at the same time would find the same ones. A job with which
two processes have died is a suspect: it is held still until nothing else runs. One that has done it again is failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

from ..core.status import JobStatus
from ..errors import ContextError, PoisonError, RoutiluxError, StoreError
from ..store.base import FactStore, JobHead
from .corresponding import Corresponding
from .durable_job import DurableJob
from .job import PARENT_CANCELLED, Job
from .owning import RESUMABLE, UNFINISHED

logger = logging.getLogger("routilux")
FATAL_DEATHS = 3  # after one death fewer a job is run alone


class _Taken(NamedTuple):
    """A job that was taken up. ``bell`` is what holds it still, if something has to."""

    job: DurableJob
    deaths: int
    bell: threading.Event | None


class Recovering(Corresponding):
    """The recovery of one engine's jobs. For the arguments see `Keeping`."""

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float, *, detect_poison: bool) -> None:
        super().__init__(engine, store, lease, patience)
        self.detect_poison = detect_poison
        self._taking_up = threading.Lock()
        self._taker = 0  # the thread that does
        self._alone: DurableJob | None = None  # the suspect that has run last

    def recover(self, *, allow_changes: bool = False, jobs: Iterable[str] | None = None) -> list[DurableJob]:
        """Go on with the jobs of registered flows that nobody runs, all or some; see `Engine.recover`."""
        with self._alone_in_here():
            taken, asked = self._take_up(None if jobs is None else set(jobs), allow_changes=allow_changes)
        errors = []
        for each in taken:
            try:
                self._set_going(each, asked)
            except BaseException as error:  # which keeps no other from going on
                self._let_go_of(each.job, error)
                errors.append(error)
        self.run_suspect()
        if errors:
            raise errors[0]
        return [each.job for each in taken]

    @contextmanager
    def _alone_in_here(self) -> Iterator[None]:
        if self._taker == get_ident():
            raise ContextError(
                "jobs are being recovered in this thread; what is called while a job is read, such as a validator, "
                "cannot recover, start or resume others"
            )
        with self._taking_up:
            self._taker = get_ident()
            try:
                yield
            finally:
                self._taker = 0

    def _take_up(self, wanted: set[str] | None, *, allow_changes: bool) -> tuple[list[_Taken], Collection[str]]:
        """Claim, read and hold the jobs that nobody runs; return them, and which of them there are messages for."""
        statuses = UNFINISHED if wanted is None else RESUMABLE
        found = [
            head
            for head in self.store.heads(statuses=statuses)
            if head.flow_id in self.flows
            and not self.runs_here(head.job_id)
            and (wanted is None or head.job_id in wanted)
        ]
        asked = self.messages_to({head.job_id for head in found})
        # What came to rest here, or could not go on for want of room, is this engine's still.
        mine = [head._replace(deaths=0) for head in found if head.owner == self.owner]
        claimed = self.claim([head.job_id for head in found if head.owner != self.owner])
        heads = [*(each.head for each in claimed), *mine]
        try:
            taken = [self._read(head, allow_changes) for head in heads]
        except BaseException:
            try:
                self.store.let_go(self.owner, [head.job_id for head in heads if self.failed_here(head) is None])
            except StoreError:  # the lease runs out by itself
                pass
            raise
        for job, deaths, bell in sorted(taken, key=lambda each: each.deaths):  # suspects are among the last
            if job.record.status is JobStatus.FAILED:  # it rests until it is resumed
                self.live[job.record.job_id] = job
                continue
            if bell is not None and deaths < FATAL_DEATHS:
                self.suspects[job] = bell
            self.hold(job)
        return taken, asked

    def _read(self, head: JobHead, allow_changes: bool) -> _Taken:
        """Return a job that was claimed, or is this engine's still; held still if it may be poison."""
        job = self.failed_here(head) or self.taken_up(self.flows[head.flow_id], head, allow_changes=allow_changes)
        deaths = head.deaths if self.detect_poison else 0
        bell = None
        if deaths >= FATAL_DEATHS - 1 and job.record.status is not JobStatus.FAILED:
            bell = threading.Event()
            job.hold(bell)
        return _Taken(job, deaths, bell)

    def _set_going(self, taken: _Taken, asked: Collection[str]) -> None:
        job, deaths, bell = taken
        if job.record.status is JobStatus.FAILED:
            self._attend_if_asked(job, asked)
            return
        if bell is None:
            self.go_on(job, asked)
        elif deaths >= FATAL_DEATHS:
            self._fail_as_poison(job, deaths)
            job.let_go(bell)

    def _let_go_of(self, job: DurableJob, error: BaseException) -> None:
        """Leave a job that cannot go on now to whoever recovers it next."""
        job_id = job.record.job_id
        with self._lock:
            self.suspects.pop(job, None)
            if self.held.get(job_id) is job:
                del self.held[job_id]
        job.halt(error)
        try:
            self.store.let_go(self.owner, [job_id])
        except StoreError:  # the lease runs out by itself
            pass

    def taken_over(self, job: Job, *, allow_changes: bool = False) -> Job:
        """Return a job that did not run here and is to be resumed: itself if another process has it, else one here."""
        job_id = job.record.job_id
        self.resuming.add(job_id)
        try:
            taken = self.recover(jobs=[job_id], allow_changes=allow_changes)
        finally:
            self.resuming.discard(job_id)
        for each in taken:
            if each.record.status is JobStatus.FAILED:
                self._hear_of_others(each)
        return taken[0] if taken else self.find(job_id) or job

    def _orphaned(self, job: DurableJob) -> bool:
        """Whether the job that had started this one was cancelled."""
        parent = job.record.parent_job_id
        return parent is not None and any(head.status == "cancelled" for head in self.store.heads(job_id=parent))

    def go_on(self, job: DurableJob, asked: Collection[str]) -> None:
        """Let the handlers of a job that was taken up start; ``asked`` are the jobs that there are messages for."""
        job.flow._jobs.count(job)
        if self._orphaned(job):
            job.cancel_unless_ended(PARENT_CANCELLED)
            return
        self._hear_of_others(job)
        self._attend_if_asked(job, asked)
        job.go_on()

    def _hear_of_others(self, job: DurableJob) -> None:
        """Tell a job that was taken up how those that it waits for have ended."""
        for activation in list(job.record.waiting.values()):
            if activation.wait is not None:
                self.look_after(job, activation.wait.jobs)

    def _attend_if_asked(self, job: DurableJob, asked: Collection[str]) -> None:
        """See to the messages to a job that was taken up, if there are any."""
        if job.record.job_id in asked:
            try:
                self.attend(job)
            except RoutiluxError as error:  # they stay in the inbox
                logger.warning("messages to job %r cannot be seen to now: %s", job.record.job_id, error)

    # --- jobs that may be poison --------------------------------------------------------------------------------------

    def run_suspect(self) -> None:
        """Let a job that may be poison run, if nothing else does."""
        with self._lock:
            for ended in [job for job in self.suspects if job.record.status.ended]:
                del self.suspects[ended]
            busy = any(job.record.status is JobStatus.RUNNING for job in self.held.values() if job not in self.suspects)
            job = next(iter(self.suspects), None) if not busy else None
            if job is None:
                return
            bell = self.suspects.pop(job)
            self._alone = job
        try:
            self.go_on(job, {job.record.job_id})
        except BaseException as error:
            self._let_go_of(job, error)
            raise
        job.let_go(bell)

    @property
    def set_apart(self) -> bool:
        """Whether a job runs alone, or is going to, so that no others are to be taken up."""
        alone = self._alone
        runs = alone is not None and alone.record.status is JobStatus.RUNNING and alone.halted is None
        return runs or bool(self.suspects)

    def _fail_as_poison(self, job: DurableJob, deaths: int) -> None:
        """Fail a job that took several processes with it."""
        error = PoisonError(
            f"{job.subject}: the last {deaths} processes that ran it died before it got anywhere, the last one while "
            f"it ran nothing else; find out what kills them, then resume the job"
        )
        job.fail_as_poison(error)
