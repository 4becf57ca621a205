"""How an engine goes on with jobs that nobody runs: it takes them up, holds them, and sets them going.

Only one thread at a time takes jobs up, since two that look at the same time would find the same ones. A job with which
two processes have died is a suspect: it is let go of at once, so that it does not count what others do to this process,
and taken up again when nothing else runs here. One that has done it again is failed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
    """A job that was taken up. ``bell`` is what holds it still until it is failed, if it is poison."""

    job: DurableJob
    deaths: int
    bell: threading.Event | None


class _Found(NamedTuple):
    """What was found: jobs that were taken up, suspects that were not, and for which of them there are messages."""

    taken: list[_Taken]
    suspects: list[Job]
    asked: Collection[str]


def _works(job: DurableJob) -> bool:
    """Whether a job keeps suspects from running: one of its handlers runs, or will without anybody's doing."""
    return not job.stands_still or (job.record.status is JobStatus.RUNNING and job.halted is None)


class Recovering(Corresponding):
    """The recovery of one engine's jobs. For the arguments see `Keeping`.

    ``suspects`` are the jobs that are to run here when nothing else does, each with whether its flow may have changed.
    Nobody owns them meanwhile, and another engine may take them before.
    """

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float, *, detect_poison: bool) -> None:
        super().__init__(engine, store, lease, patience)
        self.detect_poison = detect_poison
        self.suspects: dict[str, bool] = {}
        self._taking_up = threading.Lock()
        self._taker = 0  # the thread that does
        self._leaving = False  # whether the engine is being closed, and takes nothing up any more
        self._setting_out = False  # whether a suspect is being taken up to run
        self._alone: DurableJob | None = None  # the suspect that has run last

    def recover(self, *, allow_changes: bool = False, jobs: Iterable[str] | None = None) -> list[Job]:
        """Go on with the jobs of registered flows that nobody runs, all or some; see `Engine.recover`."""
        with self._alone_in_here():
            found = self._take_up(None if jobs is None else set(jobs), allow_changes=allow_changes)
        errors = []
        for each in found.taken:
            try:
                self._set_going(each, found.asked)
            except BaseException as error:  # which keeps no other from going on
                self._let_go_of(each.job, error)
                errors.append(error)
        started = self.run_suspects()
        if errors:
            raise errors[0]
        return [
            *(each.job for each in found.taken),
            *(started.get(job.record.job_id, job) for job in found.suspects),
        ]

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

    def _take_up(self, wanted: set[str] | None, *, allow_changes: bool, turn: bool = False) -> _Found:
        """Claim, read and hold the jobs that nobody runs; let go of suspects again, unless it is their ``turn``."""
        if self._leaving:
            return _Found([], [], ())
        statuses = UNFINISHED if wanted is None or turn else RESUMABLE
        found = [
            head
            for head in self.store.heads(statuses=statuses)
            if head.flow_id in self.flows
            and not self.runs_here(head.job_id)
            and (head.job_id not in self.suspects if wanted is None else head.job_id in wanted)
        ]
        asked = self.messages_to({head.job_id for head in found})
        # What came to rest here, or could not go on for want of room, is this engine's still.
        mine = [head._replace(deaths=0) for head in found if head.owner == self.owner]
        claimed = self.claim([head.job_id for head in found if head.owner != self.owner])
        heads = [*(each.head for each in claimed), *mine]
        later = [head for head in heads if not turn and self._deaths(head) == FATAL_DEATHS - 1]
        self._give_back(later)
        aside = dict.fromkeys([head.job_id for head in later], allow_changes)
        try:
            taken = [self._read(head, allow_changes) for head in heads if head.job_id not in aside]
            suspects = [self._as_it_is(head, allow_changes) for head in later]
        except BaseException:
            self._give_back([head for head in heads if self.failed_here(head) is None])
            raise
        with self._lock:
            for head in heads:
                self.suspects.pop(head.job_id, None)
            self.suspects.update(aside)
        for job, _, _ in taken:
            if job.record.status is JobStatus.FAILED:  # it rests until it is resumed
                self.live[job.record.job_id] = job
            else:
                self.hold(job)
        return _Found(taken, suspects, asked)

    def _deaths(self, head: JobHead) -> int:
        """Return how many deaths speak against a job that was claimed: none as long as it is not going to run."""
        runs = head.status not in (JobStatus.PAUSED, JobStatus.FAILED)
        return head.deaths if runs and self.detect_poison else 0

    def _read(self, head: JobHead, allow_changes: bool) -> _Taken:
        """Return a job that was claimed, or is this engine's still; held still if it is poison."""
        job = self.failed_here(head) or self.taken_up(self.flows[head.flow_id], head, allow_changes=allow_changes)
        deaths = self._deaths(head)
        bell = None
        if deaths >= FATAL_DEATHS:
            bell = threading.Event()
            job.hold(bell)
        return _Taken(job, deaths, bell)

    def _as_it_is(self, head: JobHead, allow_changes: bool) -> Job:
        """Return a suspect as it is before its turn, which does not run here."""
        flow = self.flows[head.flow_id]
        return self.elsewhere(flow, self.load(flow, head, allow_changes=allow_changes).record)

    def _give_back(self, heads: list[JobHead]) -> None:
        """Have nobody own these jobs."""
        if heads:
            try:
                self.store.let_go(self.owner, [head.job_id for head in heads])
            except StoreError:  # they are this engine's still, until the lease runs out
                pass

    def _set_going(self, taken: _Taken, asked: Collection[str]) -> None:
        job, deaths, bell = taken
        if job.record.status is JobStatus.FAILED:
            self._attend_if_asked(job, asked)
            return
        if bell is None:
            self.go_on(job, asked)
        else:
            self._fail_as_poison(job, deaths)
            job.let_go(bell)

    def _let_go_of(self, job: DurableJob, error: BaseException) -> None:
        """Leave a job that cannot go on now to whoever recovers it next."""
        with self._lock:
            if self.held.get(job.record.job_id) is job:
                del self.held[job.record.job_id]
        job.halt(error)
        self._give_back([job.head])

    def taken_over(self, job: Job, *, allow_changes: bool = False) -> Job:
        """Return a job that did not run here and is to be resumed: itself if another process has it, else one here."""
        job_id = job.record.job_id
        self.resuming.add(job_id)
        try:
            taken = self.recover(jobs=[job_id], allow_changes=allow_changes)
        finally:
            self.resuming.discard(job_id)
        for each in taken:
            if isinstance(each, DurableJob) and each.record.status is JobStatus.FAILED:
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
        if self.detect_poison:
            job.keep_status()
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

    def run_suspects(self) -> dict[str, DurableJob]:
        """Let the next job that may be poison run, if nothing else does; return those that were taken up, by id.

        What comes to rest at once, or runs elsewhere by now, leaves the turn to the one after it.
        """
        started: dict[str, DurableJob] = {}
        while (suspect := self._next_suspect()) is not None:
            job_id, allow_changes = suspect
            try:
                job = self._run_alone(job_id, allow_changes)
            except StoreError:
                self.again(partial(self._suspect_again, job_id, allow_changes))
            except RoutiluxError as error:
                logger.warning("job %r, which is to run alone, cannot go on: %s", job_id, error)
            except BaseException:
                self.give_turn()  # to the others
                raise
            else:
                if job is not None:
                    started[job_id] = job
        return started

    def _next_suspect(self) -> tuple[str, bool] | None:
        """Return the suspect whose turn it is, which is none from now on; None while something runs here."""
        with self._lock:
            if self._setting_out or not self.suspects or any(map(_works, self.held.values())):
                return None
            self._setting_out = True
            job_id = next(iter(self.suspects))
            return job_id, self.suspects.pop(job_id)

    def _run_alone(self, job_id: str, allow_changes: bool) -> DurableJob | None:
        """Take up a suspect and let it run; return None when it has ended, or another engine has it."""
        try:
            with self._alone_in_here():
                taken, _, asked = self._take_up({job_id}, allow_changes=allow_changes, turn=True)
            if not taken:
                return None
            job = self._alone = taken[0].job
            try:
                self._set_going(taken[0], asked)
            except BaseException as error:
                self._let_go_of(job, error)
                raise
            return job
        finally:
            self._setting_out = False

    def _suspect_again(self, job_id: str, allow_changes: bool) -> None:
        """Let a suspect run after all that the store was not there for."""
        with self._lock:
            self.suspects.setdefault(job_id, allow_changes)
        self.run_suspects()

    def put_to_sleep(self, job: DurableJob) -> None:
        """See `Sleeping.put_to_sleep`."""
        super().put_to_sleep(job)
        self.give_turn()

    def give_turn(self) -> None:
        """Have the next suspect run soon, if there is one and nothing else runs."""
        if self.suspects:
            self.engine.committers.submit(self.run_suspects)

    def forget_suspects(self, heads: Iterable[JobHead]) -> None:
        """Forget suspects that have ended, or are another engine's by now; ``heads`` are those of all other jobs."""
        here = {head.job_id for head in heads if head.owner in (None, self.owner)}
        with self._lock:
            for job_id in [each for each in self.suspects if each not in here]:
                del self.suspects[job_id]

    @property
    def set_apart(self) -> bool:
        """Whether a job runs alone, or is going to, so that no others are to be taken up."""
        works = self._alone is not None and _works(self._alone)
        return works or self._setting_out or bool(self.suspects)

    def _fail_as_poison(self, job: DurableJob, deaths: int) -> None:
        """Fail a job that took several processes with it."""
        error = PoisonError(
            f"{job.subject}: the last {deaths} processes that ran it died before it got anywhere, the last one while "
            f"it ran nothing else; find out what kills them, then resume the job"
        )
        job.fail_as_poison(error)
