"""Which durable jobs are in memory, and how those that wait are let go of until they are woken."""

from __future__ import annotations

import logging
import threading
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from ..core.commits import awaited, go_on, unfinished
from ..core.points import Wait
from ..core.status import JobStatus
from ..errors import ContextError, ExecutionError, RoutiluxError, StoreError
from ..store.base import FactStore, JobHead
from .durable_job import DurableJob
from .job import Job
from .loading import Loading
from .timers import Timer

logger = logging.getLogger("routilux")
AGAIN = 1_000_000_000  # nanoseconds, after which what the store was not there for is done again


class Sleeper(NamedTuple):
    """A job that waits, of which nothing else is in memory: for what, and the timer that wakes it.

    ``taped`` is the job itself, if it has a tape, which the store does not have.
    """

    flow: Any
    head: JobHead
    waits: tuple[Wait, ...]
    timer: Timer | None
    taped: DurableJob | None


class Sleeping(Loading):
    """The jobs of one engine that run, rest or sleep. For the arguments see `Keeping`.

    ``live`` are those that somebody has in memory, ``held`` those that run, or will without anybody's doing.
    """

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float) -> None:
        super().__init__(engine, store, lease, patience)
        self.live: weakref.WeakValueDictionary[str, DurableJob] = weakref.WeakValueDictionary()
        self.held: dict[str, DurableJob] = {}
        self.sleepers: dict[str, Sleeper] = {}
        self.beginning: set[str] = set()  # jobs that are being put into the store to run here
        self.left: set[str] = set()  # jobs that were let go of because the engine is being closed
        self._waking = threading.Lock()
        self._waker = 0  # the thread that reads a job that sleeps
        self._in_order = threading.Lock()
        self._due: deque[str] = deque()  # jobs that sleep and whose time has come

    @contextmanager
    def storing(self, job: DurableJob) -> Iterator[None]:
        """Keep a job that was restored as one that runs, or rests, here once the block has put it into the store."""
        if self._renewing is None:
            self.claim([])
        with self._beginning(job.record.job_id):
            yield
            with self._lock:
                self.live[job.record.job_id] = job
                if not job.record.status.ended:
                    self.held[job.record.job_id] = job

    @contextmanager
    def _beginning(self, job_id: str) -> Iterator[None]:
        """Have a job that is being put into the store taken for one that runs here."""
        with self._lock:
            self.beginning.add(job_id)
        try:
            yield
        finally:
            with self._lock:
                self.beginning.discard(job_id)

    def hold(self, job: DurableJob) -> None:
        """Keep a job that runs here."""
        with self._lock:
            self.live[job.record.job_id] = self.held[job.record.job_id] = job

    def put_to_sleep(self, job: DurableJob) -> None:
        """Let go of a job that waits until what it waits for comes; the store has all of it.

        Whoever has its state, or is inside ``execute``, keeps the object alive, which is woken then. The caller holds
        the job's lock.
        """
        job_id, waiting = job.record.job_id, job.record.waiting.values()
        waits = [wait for each in waiting if (wait := awaited(job.record, each)) is not None]
        with self._lock:
            if self.held.get(job_id) is not job:
                return
            del self.held[job_id]
            job.flow._jobs.forget(job)  # before anybody finds that it sleeps, and counts it when it is woken
            for each in job.timers.values():
                each.cancel()
            job.timers.clear()
            dues = [due for due in (*(wait.due for wait in waits), *job.record.inputs.values()) if due is not None]
            timer: Timer | None = None
            if dues:
                timer = self.engine.timers.at(min(dues), partial(self._time_came, job_id))
            taped = None if job.tape is None else job
            self.sleepers[job_id] = Sleeper(job.flow, job.head, tuple(waits), timer, taped)

    def taped(self, job: DurableJob) -> None:
        """Keep a job that has got a tape, if it sleeps."""
        with self._lock:
            sleeper = self.sleepers.get(job.record.job_id)
            if sleeper is not None:
                self.sleepers[job.record.job_id] = sleeper._replace(taped=job)

    def awake(self, job: DurableJob) -> None:
        """Keep a job that sleeps, because somebody works for it."""
        if job.record.job_id not in self.sleepers:
            return
        job.flow._jobs.count(job)  # which its flow refuses when it was shut down
        with self._lock:
            sleeper = self.sleepers.pop(job.record.job_id, None)
            if sleeper is None:
                return
            if sleeper.timer is not None:
                sleeper.timer.cancel()
            self.held[job.record.job_id] = job
        job.go_on()

    def _time_came(self, job_id: str) -> None:
        """Have a job that sleeps woken soon; those whose time has come are woken in the order in which it has."""
        self._due.append(job_id)
        self.engine.committers.submit(self._wake_next)

    def _wake_next(self) -> None:
        """Wake the job whose time came first; while the store cannot be read, try again."""
        with self._in_order:
            job_id = self._due.popleft()
            try:
                self.find(job_id)
            except StoreError:
                self.again(partial(self._time_came, job_id))
            except RoutiluxError as error:
                logger.warning("job %r, whose time has come, cannot go on: %s", job_id, error)

    def again(self, work: Callable[[], object]) -> None:
        """Do something again in a while that the store was not there for; not when the engine is being closed."""
        if not self.engine.closing.is_set():
            due = self.engine.clock.monotonic_ns() + AGAIN
            self.engine.timers.at(due, partial(self.engine.committers.submit, work))

    def find(self, job_id: str) -> DurableJob | None:
        """Return a job that runs here, after waking it when it sleeps; None when it does not run here."""
        while True:
            with self._lock:
                held, asleep = self.held.get(job_id), job_id in self.sleepers
            if not asleep:
                return held
            with self._reading():
                job = self._asleep(job_id)
            if job is not None:  # else it woke meanwhile
                self.awake(job)  # which tells listeners, and they may ask for jobs
                return job

    def failed_here(self, head: JobHead) -> DurableJob | None:
        """Return a job that has failed here and can be resumed here, if it is in memory.

        It is the only one that may append to the job's journal here; not after the job has changed hands, which the
        head tells.
        """
        job = self.live.get(head.job_id)
        if job is None or job.halted is not None or job.record.status is not JobStatus.FAILED:
            return None
        return job if job.head.epoch == head.epoch and job.flow is self.flows.get(head.flow_id) else None

    def here(self, job_id: str) -> DurableJob | None:
        """Return a job that runs here, or rests and is in memory, without waking it; None when there is none."""
        with self._reading():
            job = self.live.get(job_id)
            return job if job is not None and job.halted is None else self._asleep(job_id)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let no other thread read a job that sleeps while the block runs."""
        if self._waker == get_ident():
            raise ContextError(
                "a job is being read in this thread; what is called meanwhile, such as a validator, cannot ask for jobs"
            )
        with self._waking:
            self._waker = get_ident()
            try:
                yield
            finally:
                self._waker = 0

    def _asleep(self, job_id: str) -> DurableJob | None:
        """Return a job that sleeps here. The caller is `_reading`."""
        sleeper = self.sleepers.get(job_id)
        job = self.live.get(job_id) if sleeper is not None else None
        if sleeper is not None and job is None:
            loaded = self.load(sleeper.flow, sleeper.head, allow_changes=True)
            unfinished(loaded.record)
            job = self.adopt(sleeper.flow, loaded.record, loaded.journal, sleeper.head, loaded.origin)
            self.live[job_id] = job
        return job

    def wake_all(self, flow: Any) -> list[DurableJob]:
        """Wake the jobs of a flow that sleep, and return them; they may soon sleep again."""
        with self._lock:
            asleep = [job_id for job_id, sleeper in self.sleepers.items() if sleeper.flow is flow]
        return [job for job_id in asleep if (job := self.find(job_id)) is not None]

    def leave(self, flow: Any) -> None:
        """Let go of the jobs of a flow that was shut down, so that they can go on elsewhere."""
        flow_id = flow.flow_id
        closed = ExecutionError(
            f"flow {flow_id!r} was shut down; an engine with the same store can recover the job with a new Flow"
        )
        with self._lock:
            sleepers = [job_id for job_id, sleeper in self.sleepers.items() if sleeper.flow is flow]
            for job_id in sleepers:
                timer = self.sleepers.pop(job_id).timer
                if timer is not None:
                    timer.cancel()
            held = [job for job in self.held.values() if job.flow is flow]
            if self.flows.get(flow_id) is flow:
                del self.flows[flow_id]
        awake = [self.live[job_id] for job_id in sleepers if job_id in self.live]
        for job in [*held, *awake]:
            job.halt(closed)
        self.engine.timers.prune()
        left = [*sleepers, *(job.record.job_id for job in held)]
        if left and not self.engine.closing.is_set():
            try:
                self.store.let_go(self.owner, left)
            except StoreError:  # the lease runs out by itself
                pass

    def moves(self, jobs: tuple[str, ...]) -> bool:
        """Whether one of these jobs will go on by itself, or has ended."""
        return any(map(self._moves, jobs))

    def _moves(self, job_id: str) -> bool:
        job, sleeper = self.live.get(job_id), self.sleepers.get(job_id)
        if job is not None:
            return job.goes_on
        if sleeper is None:  # another process has it
            return True
        return go_on(sleeper.waits, self.moves)

    def runs_here(self, job_id: str) -> bool:
        """Whether a job runs, or sleeps, here, or is about to."""
        with self._lock:
            return job_id in self.held or job_id in self.sleepers or job_id in self.beginning

    def get(self, job_id: str) -> Job:
        """Return a job: the one that runs here, or one as the store has it."""
        job = self.here(job_id)
        return job if job is not None else self.foreign(self.head_of(job_id))

    def seen_here(self, job_id: str) -> Job | None:
        """Return a job that runs here, or what one that sleeps here looks like, without waking it."""
        job, sleeper = self.live.get(job_id), self.sleepers.get(job_id)
        return job if job is not None or sleeper is None else self.foreign(sleeper.head)
