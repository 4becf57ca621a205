"""The jobs of a flow: how one begins or goes on, and which of them run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ..core.job_record import JobRecord
from ..core.machine import started
from ..core.points import Answered
from ..core.status import JobStatus
from ..errors import ExecutionError, StatusError
from ..store.serializer import Serializer
from .crew import Hooks, callers_variables
from .dispatcher import assist, make_loop, serve, wait
from .holding import refuse_inside
from .invoking import Invocation, answer_of
from .job import Job
from .job_state import JobState
from .new_job import NewJob, Startable, begin_state, first_payload, new_record
from .telling import tell
from .threads import SharedThreads
from .turn import Turn

Listen = Callable[[Job], object]


def _ignore(job: Job) -> None:
    """Listen to nothing."""


class Jobs:
    """The jobs of one flow that run."""

    def __init__(self, flow: Startable) -> None:
        self._flow = flow
        self._jobs: dict[str, Job] = {}
        self._left: weakref.WeakSet[Job] = weakref.WeakSet()  # in memory, at rest with coroutines that wait
        self._lock = threading.Lock()
        self._shut_down = False

    def running(self) -> list[Job]:
        """Return the jobs that run."""
        with self._lock:
            return list(self._jobs.values())

    def left(self) -> list[Job]:
        """Return the jobs in memory that came to rest while coroutines of theirs waited inside their turns."""
        with self._lock:
            return list(self._left)

    def shut_down(self) -> None:
        """Let no more jobs begin."""
        with self._lock:
            self._shut_down = True

    @property
    def are_shut_down(self) -> bool:
        """Whether no more jobs begin, or go on."""
        return self._shut_down

    def begin(self, new: NewJob, job_state: JobState | None, listen: Listen = _ignore) -> Job:
        """Return a new job, with what an ended one hands down; or the paused or waiting one, going on.

        For the rest see `new`.
        """
        if job_state is None:
            return self.new(new, listen=listen)
        job = self.job_of(job_state)
        if job_state.status.ended:
            return self.new(new, job, listen=listen)
        if not isinstance(new.entry_id, str) or new.entry_id not in job.record.plan.nodes:
            self._flow.entry_slot(new.entry_id, None)  # which says what there is
        given = any(each is not None for each in new[1:])
        if job_state.status not in (JobStatus.PAUSED, JobStatus.WAITING) or given:
            what = "arguments for a new job cannot be given with it" if given else "it neither is paused nor waits"
            name = f"flow {self._flow.flow_id!r}: job {job_state.job_id!r}"
            raise StatusError(f"{name} is {job_state.status} and would go on where it is; {what}")
        refuse_inside(job, "execute()")
        if job_state.status is JobStatus.WAITING:
            self.check_open()
            listen(job)
            return job
        return self.take_up(job_state, listen)

    def new(
        self,
        new: NewJob,
        previous: Job | None = None,
        *,
        engine: SharedThreads | None = None,
        parent: Job | None = None,
        owned: bool = True,
        listen: Listen = _ignore,
    ) -> Job:
        """Return a new job that runs, though no thread has been asked to work for it yet.

        Args:
            new: what to begin with.
            previous: hands its shared data and routine states down.
            engine: whose threads, and store, the job uses; the flow's by default.
            parent: the job one of whose handlers starts it.
            owned: whether it runs here; else it is put into the store for others.
            listen: is given the job before anything is told of it; not when the store has a job with its id already.
        """
        flow = self._flow
        engine = flow.engine if engine is None else engine
        where = f"flow {flow.flow_id!r}"
        self.check_open()
        slot_name = flow.entry_slot(new.entry_id, new.slot)
        payload, isolate = first_payload(flow, new, where)
        record = new_record(flow, new, engine, None if parent is None else parent.record.job_id, where)
        if previous is not None:
            previous.hand_down(record)
        begin_state(flow, record, new.initial_state, where)
        entry = record.plan.nodes[new.entry_id].slots[slot_name]
        if engine.keeping is not None:
            started(record, entry, payload, isolate, engine.clock.monotonic_ns())
            kept: Job = engine.keeping.begin(flow, record, entry, payload, owned, listen)
            if owned and kept.record is record and not record.status.ended:
                self.count(kept)
            return kept
        job = self.job_for(record, engine)
        job.parent = parent
        self.count(job)
        listen(job)
        job.start(entry, payload, isolate)
        return job

    def begin_child(self, parent: Job, invocation: Invocation, job_id: str) -> Job:
        """Return the job that a handler of another one has invoked, which runs on worker threads from now on."""
        with self._lock:
            known = self._jobs.get(job_id)
        if known is not None and known.parent is parent:  # the turn that has started it was given up, and runs anew
            return known
        by = parent.record
        entry, params, state = invocation.entry, invocation.params, invocation.initial_state
        new = NewJob(entry, params, None, job_id, by.session_id, by.user_id, state)
        job = self.new(new, engine=parent.engine, parent=parent)
        with job.lock:
            job.call()
        return job

    def job_for(
        self,
        record: JobRecord,
        engine: SharedThreads | None = None,
        make: Callable[..., Job] = Job,
        hooks: Hooks | None = None,
        **more: Any,
    ) -> Job:
        """Return a job around a record, with the options of the flow. It is not counted as running."""
        flow = self._flow
        workers = flow.max_workers if flow.execution_strategy == "concurrent" else 1
        return make(flow, record, engine or flow.engine, workers, flow.max_pending, hooks or HOOKS, **more)

    def take_up(self, job_state: JobState, listen: Listen = _ignore, *, allow_changes: bool = False) -> Job:
        """Go on with a paused job, or a failed one; no thread has been asked to work for it yet.

        ``listen`` is given the job before. With ``allow_changes``, the flow may be another one than it was.
        """
        job = self.job_of(job_state)
        self.check_open()
        if job.elsewhere is not None:
            job = job.engine.keeping.taken_over(job, allow_changes=allow_changes)
        listen(job)
        if job.elsewhere is not None:
            job.resume()
            return job
        new = self.count(job)
        job.variables = callers_variables()
        try:
            job.resume()
        except BaseException:
            if new:
                self.at_rest(job)
            raise
        with job.lock:  # it may have come to rest, and been forgotten, before it was resumed
            if not (job.record.durable if job.record.status is JobStatus.WAITING else job.at_rest):
                self.count(job)
        return job

    def restored(self, document: Any, name: str, serializer: Serializer | None) -> JobState:
        """Return a job that was saved; ``name`` is what the document is called in errors. It does not run."""
        from .job_documents import load_record

        record = load_record(self._flow, document, name, serializer)
        keeping = self._flow.engine.keeping
        if keeping is None or record.status in (JobStatus.COMPLETED, JobStatus.CANCELLED):
            return JobState(self.job_for(record))
        return JobState(keeping.restored(self._flow, record))

    def job_of(self, job_state: object) -> Job:
        """Return the job that a handle stands for. Raises ExecutionError unless it is one of this flow."""
        where = f"flow {self._flow.flow_id!r}"
        if not isinstance(job_state, JobState):
            raise ExecutionError(f"{where}: expected the JobState of a job, not {job_state!r}")
        job = job_state._job
        if job.flow is not self._flow:
            same = job_state.flow_id == self._flow.flow_id
            hint = ", but of another Flow object with its id: load it with this one" if same else ""
            raise ExecutionError(f"{where}: {job_state!r} is not a job of this flow{hint}")
        return job

    def count(self, job: Job) -> bool:
        """Count a job among those that run; return whether it was not."""
        with self._lock:
            known = self._jobs.get(job.record.job_id)
            if known is job:
                return False
            self.check_open()
            if known is not None:
                raise ExecutionError(f"flow {self._flow.flow_id!r}: a job {job.record.job_id!r} is running already")
            self._jobs[job.record.job_id] = job
            return True

    def check_open(self) -> None:
        """Raise ExecutionError when the flow is shut down."""
        if self._shut_down:
            raise ExecutionError(f"flow {self._flow.flow_id!r} was shut down and runs no more jobs; make a new Flow")

    def let_rest(self, job: Job) -> bool:
        """Leave a job in memory that waits, or whose coroutines do, as it is, for good: its flow was shut down.

        Returns False when it has gone on meanwhile.
        """
        with job.lock:
            status = job.record.status
            if status is JobStatus.WAITING or (job.tasks and job.at_rest and not job.record.closed):
                job.cancel_tasks()
                what = f"flow {self._flow.flow_id!r} was shut down while job {job.record.job_id!r} is {status}"
                job.halt_here(ExecutionError(f"{what}; it goes on no more"))
                return True
            return job.at_rest

    def at_rest(self, job: Job) -> None:
        """A job has come to rest, and counts as running no longer unless it waits. The caller holds the job's lock."""
        if job.record.status is not JobStatus.WAITING or job.halted is not None:
            if job.tasks and not (job.record.durable or job.record.closed):
                with self._lock:
                    self._left.add(job)
            self.forget(job)  # first: whoever still finds the job has its end told later
        parent = job.parent
        if parent is not None:  # which waits for its end, or may have come to rest with it
            ended = job.record.status.ended
            job.engine.committers.submit(partial(tell_parent, job, parent) if ended else parent.look_whether_at_rest)

    def forget(self, job: Job) -> None:
        """Count a job no longer among those that run."""
        with self._lock:
            if self._jobs.get(job.record.job_id) is job:
                del self._jobs[job.record.job_id]


def at_rest(job: Job) -> None:
    """Tell the jobs of its flow that a job has come to rest; see `Jobs.at_rest`."""
    job.flow._jobs.at_rest(job)


HOOKS = Hooks(Turn, assist, serve, make_loop, wait, tell, at_rest)


def call_first(job: Job) -> None:
    """Have worker threads come to a job that has just begun; cancel it when there are none."""
    try:
        with job.lock:
            job.call()
    except ExecutionError:
        job.cancel_unless_ended("it could not be started")
        raise


def tell_parent(job: Job, parent: Job) -> None:
    """Tell a job in memory how one that it waits for has ended."""
    job_id, answer = job.record.job_id, answer_of(job)
    with parent.lock:
        for delivery, activation in list(parent.record.waiting.items()):
            if activation.wait is not None and job_id in activation.wait.jobs:
                parent.take_answer(Answered(delivery, job_id, answer))
                break
        else:
            if job_id in parent.expected:
                parent.expected[job_id] = answer
    parent.tell()
