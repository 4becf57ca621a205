"""A job in this process: its record, the lock around it, and its life.

All that is here changes under ``lock``. One who only watches for the end is in ``watchers``, one who leaves as soon as
the job waits in ``leavers``. For the others see `crew` and `timed`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..core.copying import copy_payload, copy_value
from ..core.job_record import JobRecord
from ..core.life import cancelled, failed, given_up, recalled, resumed
from ..core.machine import inherited, logged, paused, started, wrote
from ..core.plan import Plan, SlotPlan
from ..core.records import Logged, Wrote
from ..core.status import JobStatus, check_change
from ..errors import ContextError, JobTimeoutError, StatusError
from ..routine.binding import returned_type
from .bells import Bell, ring
from .crew import Hooks
from .describing import describe
from .edits import Edits
from .receiving import Receiving
from .threads import SharedThreads

PARENT_CANCELLED = "the job that had started it was cancelled"


class Job(Receiving):
    """One execution of a flow.

    Args:
        flow: the flow, for the handlers' contexts.
        record: the record of the job, pending.
        engine: whose threads, timers and clock it uses.
        max_workers: how many threads may run its handlers at the same time.
        max_pending: how many deliveries may be queued before those who emit more have to help or wait.
        hooks: what it has done by others.
    """

    def __init__(
        self, flow: Any, record: JobRecord, engine: SharedThreads, max_workers: int, max_pending: int, hooks: Hooks
    ) -> None:
        super().__init__(flow, record, engine, max_workers, max_pending, hooks)
        self.plan: Plan = record.plan
        self.watchers: list[Bell] = []
        self.leavers: list[Bell] = []
        self.tasks_told = False  # that the job is closed
        self.edits = Edits(self.lock, record, engine.pool)
        self.editors = self.edits.waiting  # at hand, because every activation looks whether there are any
        self.failure: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.interrupt_thread = 0
        self.elsewhere: Callable[[float | None], None] | None = None  # waits for it, if another process runs it
        self.lags = False  # whether what it has committed is kept later
        self.parent: Job | None = None
        self.children: list[weakref.ref[Job]] = []

    def start(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool) -> None:
        """Put the first delivery into its mailbox. No thread is asked to work yet: see `call`."""
        with self.lock:
            started(self.record, slot, payload, isolate, self.now())
            self.begin()
        self.tell()

    def begin(self) -> None:
        """See to what follows from the beginning. The caller holds the lock."""
        self.note_status()
        self.plan_inputs()
        if not self.record.queued:  # the entry slot gathers, and no handler runs yet
            self.settle()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the job has ended, for ``timeout`` seconds at the most; return whether it has."""
        return self.hooks.wait(self, timeout)

    def settle(self) -> None:
        """Wake those who wait for what may just have happened. Called after every activation."""
        record = self.record
        if self.editors:
            self.edits.ring()
        if not record.open:
            ring(self.pressed)
            ring(self.easing)
            ring(self.sleepers)
            if record.closed and not self.tasks_told:
                self.tasks_told = True
                self.cancel_tasks()
            self.note_status()
            if self.stands_still:
                for saver in self.savers:
                    saver.set()
                if self.at_rest:
                    self.come_to_rest()
                elif record.status is JobStatus.WAITING:
                    ring(self.leavers)
        elif self.pressed or self.easing:
            enough, stuck = record.queued <= self.enough_room, self.stuck
            if enough or stuck or record.ready:
                ring(self.pressed)
            if enough:
                self.ease_next()
            elif stuck and not record.ready:
                ring(self.easing)

    # --- who hears of it ----------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether no handler runs and none will until somebody changes the job, and everybody has heard so."""
        if self.halted is not None:
            return not self.crew and not self.tasks
        record = self.record
        if not record.at_rest or self.notices.pending:
            return False
        return record.status is not JobStatus.WAITING or not self.moves

    @property
    def goes_on(self) -> bool:
        """Whether the job has ended, or will go on by itself."""
        return not self.at_rest or self.record.status.ended

    def jobs_move(self, jobs: tuple[str, ...]) -> bool:
        """See `Timed.jobs_move`. Those that are in nobody's hands any more were paused, or left by their flow."""
        wanted, children = set(jobs), [each() for each in self.children]
        return any(each.goes_on for each in children if each is not None and each.record.job_id in wanted)

    def look_whether_at_rest(self) -> None:
        """See to what is due when the job has come to rest, though nothing of its own has happened."""
        with self.lock:
            if self.at_rest:
                self.come_to_rest()

    def come_to_rest(self) -> None:
        """Wake those who wait for that. The caller holds the lock."""
        if self.timers and (self.record.status is not JobStatus.WAITING or self.halted is not None):
            for timer in self.timers.values():
                timer.cancel()
            self.timers.clear()
            self.engine.timers.prune()
        ring(self.idle)
        ring(self.watchers)
        ring(self.leavers)
        if self.tape is not None:
            self.tape.ring()
        self.hooks.on_rest(self)

    # --- pausing and going on -----------------------------------------------------------------------------------

    def pause(self, reason: str) -> None:
        """Let running handlers finish and start no more. Raises StatusError when the job does not run."""
        with self.lock:
            paused(self.record, reason)
            self.settle()
        self.tell()

    def resume(self) -> None:
        """Go on with a paused or failed job. No thread is asked to work yet: see `call`.

        Raises StatusError for any other job, and for a failed one of which handlers still run.
        """
        with self.lock:
            record = self.record
            self.check_resumable()
            if record.status is JobStatus.FAILED:
                self.begun.clear()  # they have been given up, and are among what runs again
            resumed(record, self.now())
            if record.open:
                self.note_status()
            self.failure = self.interrupt = None
            self.plan_all()
            if not record.open:
                self.settle()
        self.tell()

    def check_resumable(self) -> None:
        """Raise StatusError unless the job may be resumed."""
        record = self.record
        if record.status is JobStatus.FAILED and record.running:
            raise StatusError(
                f"flow {self.plan.flow_id!r}: job {record.job_id!r} has failed, and {len(record.running)} of its "
                f"handlers still run; wait for them before it is resumed"
            )
        if record.status is JobStatus.WAITING:
            raise StatusError(f"flow {self.plan.flow_id!r}: job {record.job_id!r} waits and cannot be resumed")
        check_change(f"flow {self.plan.flow_id!r}: job {record.job_id!r}", record.status, JobStatus.RUNNING)

    def hand_down(self, record: JobRecord) -> None:
        """Give a new job's record a copy of this one's shared data and routine states."""
        with self.lock:
            inherited(record, copy_payload(self.record.shared), copy_payload(self.record.routine_states))

    # --- ending from outside ----------------------------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Cancel the job. Raises StatusError when it has ended."""
        with self.lock:
            self._cancel(reason)
        self.tell()

    def _cancel(self, reason: str) -> None:
        points = (point for each in self.record.points.values() for point in each)
        parent = bool(self.children) or any(point.kind == "invoke" for point in points)
        cancelled(self.record, reason, self.now())
        self.settle()
        if parent:
            self.engine.committers.submit(self.cancel_children)

    def cancel_children(self) -> None:
        """Cancel the jobs that this one's handlers have started."""
        for each in self.children:
            child = each()
            if child is not None:
                child.cancel_unless_ended(PARENT_CANCELLED)

    def halt(self, error: BaseException) -> None:
        """Stop running the job in this process; its record stays as it is."""
        with self.lock:
            self.halt_here(error)

    def halt_here(self, error: BaseException) -> None:
        """Do the same for a caller that holds the lock."""
        if self.halted is None:
            self.halted = error
            self.record.open = False
            self.settle()

    def left(self) -> None:
        """See to it that a thread or a task has left a job. The caller holds the lock."""
        if self.halted is not None:
            self.settle()

    def check_going(self) -> None:
        """Raise what made the job halt in this process, if something has."""
        if self.halted is not None and (self.record.durable or not self.record.status.ended):
            raise self.halted

    def confirm(self) -> None:
        """Wait until what was committed is kept; raise what made the job halt in this process, if something has."""
        self.check_going()

    # --- for steps ------------------------------------------------------------------------------------------------

    def write_outside(self, fact: Wrote | Logged) -> None:
        """Put what is written to the job while it does not run into the record."""
        with self.lock:
            if isinstance(fact, Wrote):
                wrote(self.record, *fact)
            else:
                logged(self.record, *fact)

    def learn(self, function: Any) -> None:
        """Let what a step's function returns, according to its annotation, be saved."""
        hint = returned_type(function)
        if hint is not None:
            self.flow.learn_types([hint])

    def begin_child(self, invocation: Any, job_id: str) -> None:
        """Start a job that one of this job's handlers has invoked, unless it was started before.

        Raises ContextError when this job is over.
        """
        record = self.record
        if record.closed:
            raise ContextError(
                f"flow {self.plan.flow_id!r}: job {record.job_id!r} is {record.status}, and its handlers start no "
                f"other jobs any more"
            )
        child = invocation.flow._jobs.begin_child(self, invocation, job_id)
        with self.lock:
            self.children = [*(each for each in self.children if each() is not None), weakref.ref(child)]
            cancelled_meanwhile = record.status is JobStatus.CANCELLED
        if cancelled_meanwhile:  # perhaps before there was this child to be found
            self.engine.committers.submit(self.cancel_children)

    def call_on_loop(self, make: Callable[[], Any]) -> None:
        """Run a coroutine, which does not raise, on the engine's event loop."""
        self.engine.attach(self.flow, self.flow.max_workers)
        self.engine.event_loop(self.hooks.make_loop).keep(make(), self.variables.copy())

    def encode(self, value: Any, what: str) -> Any:
        """Return the form in which a value is kept: a copy, in a job without a store."""
        return copy_value(value)

    def cancel_unless_ended(self, reason: str) -> None:
        """Cancel the job, if it has not ended."""
        with self.lock:
            if not self.record.status.ended:
                self._cancel(reason)
        self.tell()

    def expire(self, timeout: float) -> None:
        """Fail the job because its time is up, and stop waiting for the handlers that still run.

        A job that failed, or was ended, before its handlers have returned keeps its status. One that has come to rest
        just now stays as it is.
        """
        message = f"flow {self.plan.flow_id!r}, job {self.record.job_id!r}: not ended within {timeout:g} seconds"
        with self.lock:
            if self.at_rest:
                return
            self.recall_tasks()
            running = [activation.slot for activation in self.record.running.values()]
            if running:
                names = ", ".join(sorted({f"{slot.routine_id}.{slot.name}" for slot in running}))
                message = f"{message}; still running: {names}"
            error = JobTimeoutError(message)
            described = describe(error)
            if self.record.status.ended:
                self.note_given_up(given_up(self.record, described, self.now()))
            else:
                self.failure = error
                self.note_given_up(failed(self.record, described, self.now()))
            self.cancel_tasks()
            for thread in self.crew:
                self.engine.pool.give_up(thread)
            self.crew.clear()
            self.crew_size = 0
            self.settle()
        self.tell()

    def interrupted(self, error: BaseException) -> None:
        """Fail the job because of something that is not to be kept from stopping this thread.

        Whatever this thread was doing for the job, it does no longer; coroutines are cancelled.
        """
        thread = threading.get_ident()
        self.lock.abandon()
        with self.lock:
            self.interrupt, self.interrupt_thread = error, thread
            self.recall_tasks()
            described = describe(error)
            if self.fails_without(thread):
                self.failure = error
                self.note_given_up(failed(self.record, described, self.now()))
            for owner in (thread, 0):
                self.note_given_up(given_up(self.record, described, self.now(), owner))
            self.cancel_tasks()
            self.leave(thread)
            self.settle()
        self.tell()

    def fails_without(self, thread: int) -> bool:
        """Whether an interrupt of a thread fails the job: if it runs, or is paused and loses a handler by it.

        The caller holds the lock.
        """
        record = self.record
        if record.status is JobStatus.PAUSED and not record.closed:
            return any(activation.owner in (thread, 0) for activation in record.running.values())
        return record.status in (JobStatus.RUNNING, JobStatus.WAITING)

    def recall_tasks(self) -> None:
        """Count coroutines that wait inside their turns among the handlers that run: they are about to be cancelled.

        The caller holds the lock.
        """
        if self.asleep:
            recalled(self.record, self.asleep, self.now())
            self.woken.difference_update(self.asleep)
            self.asleep.clear()

    def fail(self, error: BaseException) -> None:
        """Fail the job as a whole, if it runs. The caller holds the lock."""
        if self.record.status in (JobStatus.RUNNING, JobStatus.WAITING):
            self.failure = error
            self.note_given_up(failed(self.record, describe(error), self.now()))
