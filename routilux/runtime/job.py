"""A job in this process: its record, the lock around it, and its life.

All that is here changes under ``lock``. One who only watches for the end is in ``watchers``, one who leaves as soon as
the job waits in ``leavers``; one who holds the job still, and waits for its handlers first, is in ``savers``. For the
others see `crew`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..core.commits import answered, go_on, is_over
from ..core.copying import copy_payload, copy_value
from ..core.history import Entry
from ..core.job_record import Activation, JobRecord
from ..core.machine import cancelled, due, failed, given_up, inherited, logged, paused, resumed, started, woken, wrote
from ..core.plan import Plan, SlotPlan
from ..core.points import Answered
from ..core.records import Ended, Fact, Logged, Wrote
from ..core.scheduling import hold
from ..core.status import JobStatus, check_change
from ..errors import ExecutionError, JobTimeoutError, StatusError
from ..routine.binding import returned_type
from .audience import FAILED_ATTEMPT, LEVELS, Notice, audience
from .bells import Bell, ring
from .crew import Crew, Hooks
from .describing import describe
from .edits import Edits
from .observation import Notices
from .threads import SharedThreads, here
from .timers import Timer

PARENT_CANCELLED = "the job that had started it was cancelled"


class Job(Crew):
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
        self.now = engine.clock.monotonic_ns
        self.watchers: list[Bell] = []
        self.savers: list[Bell] = []
        self.leavers: list[Bell] = []
        self.tasks_told = False  # that the job is closed
        self.notices = Notices(hooks.tell)
        self._noted_status = record.status
        self._worker_tells = False  # a task that tells waits in the pool
        self.edits = Edits(self.lock, record, engine.pool)
        self.editors = self.edits.waiting  # at hand, because every activation looks whether there are any
        self.failure: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.interrupt_thread = 0
        self.timers: dict[int, Timer] = {}
        self.halted: BaseException | None = None  # why it does not go on in this process, if it does not
        self.elsewhere: Callable[[float | None], None] | None = None  # waits for it, if another process runs it
        self.parent: Job | None = None
        self.expected: dict[str, Any] = {}  # jobs that one of its handlers is about to wait for, with answers
        self.children: list[weakref.ref[Job]] = []

    def start(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool) -> None:
        """Put the first delivery into its mailbox. No thread is asked to work yet: see `call`."""
        with self.lock:
            started(self.record, slot, payload, isolate, self.now())
            self.note_status()
        self.tell()

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
                    self._rest()
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
        record = self.record
        if not record.at_rest or self.notices.pending:
            return False
        return record.status is not JobStatus.WAITING or not self.moves

    @property
    def moves(self) -> bool:
        """Whether a waiting job will go on without anybody outside doing something, at some time."""
        return go_on([activation.wait for activation in self.record.waiting.values()], self.engine.moves)

    def note(self, fact: Fact, activation: Activation | None = None, detail: Any = None) -> None:
        """Have listeners told of a fact, soon. The caller holds the lock, and tells after leaving it."""
        self.notices.waiting.append(Notice(self, fact, activation, detail))

    def note_status(self) -> None:
        """Have listeners told of a new status, soon. The caller holds the lock, and tells after leaving it."""
        status, was = self.record.status, self._noted_status
        if status is not was:
            self._noted_status = status
            if audience.hears(LEVELS[status]):
                self.notices.waiting.append(Notice(self, status, None, was))

    def _note_given_up(self, activations: list[tuple[Activation, tuple[Any, ...]]]) -> None:
        if activations and audience.hears(FAILED_ATTEMPT):
            for activation, entry in activations:
                kept = Entry(*entry)
                fact = Ended(activation.delivery.id, kept.status, kept.duration, self.now(), kept.error, True, None)
                self.note(fact, activation, entry)

    def tell(self) -> None:
        """Tell listeners what was noted, if anything was: on an event loop, on a worker thread.

        Called without the lock.
        """
        if self.notices.waiting and not (here.on_event_loop and self._tell_on_worker()):
            self.tell_here()

    def _tell_on_worker(self) -> bool:
        """Have a worker thread tell, as listeners may take their time; return False when there is none."""
        if not self._worker_tells:
            self.engine.attach(self.flow, self.flow.max_workers)
            self._worker_tells = True
            try:
                self.engine.pool.submit(partial(self.variables.copy().run, self._tell_as_worker))
            except RuntimeError:
                self._worker_tells = False
        return self._worker_tells

    def _tell_as_worker(self) -> None:
        self._worker_tells = False
        try:
            self.tell_here()
        except BaseException as error:  # a listener has told the process to stop
            self.interrupted(error)

    def tell_here(self) -> None:
        """Tell listeners what was noted, on this thread."""
        if self.notices.tell():
            with self.lock:
                if self.at_rest:
                    self._rest()

    def look_whether_at_rest(self) -> None:
        """See to what is due when the job has come to rest, though nothing of its own has happened."""
        with self.lock:
            if self.at_rest:
                self._rest()

    def _rest(self) -> None:
        if self.timers and self.record.status is not JobStatus.WAITING:
            for timer in self.timers.values():
                timer.cancel()
            self.timers.clear()
            self.engine.timers.prune()
        ring(self.idle)
        ring(self.watchers)
        ring(self.leavers)
        self.hooks.on_rest(self)

    # --- retries, pausing and going on --------------------------------------------------------------------------

    def plan_retry(self, activation: Activation) -> None:
        """Have an activation run again when it is due. The caller holds the lock."""
        key = activation.delivery.id
        try:
            self.timers[key] = self.engine.timers.at(activation.due, partial(self._retry, activation))
        except RuntimeError as error:
            self._fail(error)

    def _plan_all(self) -> None:
        """Plan what became due, or came, while no handler could start. The caller holds the lock."""
        for activation in self.record.retrying.values():
            if activation.delivery.id not in self.timers:
                self.plan_retry(activation)
        now = self.now()  # once, so that they wake in order
        for activation in list(self.record.waiting.values()):
            if activation.delivery.id not in self.timers:
                self.plan_wake(activation, now)

    def plan_wake(self, activation: Activation, now: int) -> None:
        """Have an activation that waits go on when it may, now or later. The caller holds the lock."""
        wait = activation.wait
        for child in wait.jobs if wait is not None else ():
            answer = self.expected.pop(child, None)
            if answer is not None:
                answered(self.record, Answered(activation.delivery.id, child, answer))
        if is_over(self.record, activation, now):
            self.wake(activation)
        elif wait is not None and wait.due is not None:
            key = activation.delivery.id
            try:
                self.timers[key] = self.engine.timers.at(wait.due, partial(self._time_came, activation))
            except RuntimeError as error:
                self._fail(error)

    def _time_came(self, activation: Activation) -> None:
        with self.lock:
            self.timers.pop(activation.delivery.id, None)
            self.wake(activation)
        self.tell()

    def wake(self, activation: Activation | None) -> None:
        """Let an activation go on, if it waits and handlers may start; else it does when they may again.

        The caller holds the lock.
        """
        record = self.record
        may_go_on = record.status in (JobStatus.RUNNING, JobStatus.WAITING) and not record.holds
        if activation is not None and may_go_on and record.waiting.get(activation.delivery.id) is activation:
            timer = self.timers.pop(activation.delivery.id, None)
            if timer is not None:
                timer.cancel()
            woken(record, activation)
            self.note_status()
            self._go_on()

    def _retry(self, activation: Activation) -> None:
        with self.lock:
            self.timers.pop(activation.delivery.id, None)
            # While the job is paused or held, the attempt keeps waiting; going on plans it anew.
            if self.record.open and self.record.retrying.get(activation.delivery.id) is activation:
                due(self.record, activation)
                self._go_on()
        self.tell()

    def hold(self, saver: Bell) -> None:
        """Let no handler start; the saver's bell rings when none runs."""
        with self.lock:
            self.savers.append(saver)
            hold(self.record, len(self.savers))
            ring(self.pressed)
            ring(self.easing)
            if self.stands_still:
                saver.set()

    @property
    def stands_still(self) -> bool:
        """Whether no handler runs. One that was left when the job halted stays among those that run, in the record."""
        return not self.record.running or (self.halted is not None and not self.crew and not self.tasks)

    def let_go(self, saver: Bell) -> None:
        """Let handlers start again, if the job runs and nobody else holds it."""
        with self.lock:
            if saver in self.savers:
                self.savers.remove(saver)
                hold(self.record, len(self.savers))
                if self.record.open or self.record.status is JobStatus.WAITING:
                    self._plan_all()
                    self._go_on()
        self.tell()

    def call_or_fail(self) -> None:
        """Do as `call` does; where nobody could be told of an error, it fails the job."""
        try:
            self.call()
        except ExecutionError as error:
            self._fail(error)

    def go_on(self) -> None:
        """Let the handlers of a job that was taken up start, and what waits go on when it may."""
        with self.lock:
            self._plan_all()
            self._go_on()
        self.tell()

    def _go_on(self) -> None:
        self.call_or_fail()
        self.settle()

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
            self._plan_all()
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
        cancelled(self.record, reason, self.now())
        self.settle()
        if self.children or self.record.durable:
            self.engine.committers.submit(self.cancel_children)

    def cancel_children(self) -> None:
        """Cancel the jobs that this one's handlers have started."""
        for each in self.children:
            child = each()
            if child is not None:
                child.cancel_unless_ended(PARENT_CANCELLED)

    def sleep(self, seconds: float) -> None:
        """Pause a handler for so many seconds, or until the job has ended."""
        end = self.now() + int(seconds * 1e9)
        while not self.record.closed and self.halted is None:
            left = (end - self.now()) / 1e9
            if left <= 0:
                return
            bell = threading.Event()
            with self.lock:
                self.sleepers.append(bell)
            with self.engine.pool.sleeping():
                bell.wait(min(left, threading.TIMEOUT_MAX))
            with self.lock:
                if bell in self.sleepers:
                    self.sleepers.remove(bell)

    def left(self) -> None:
        """See to it that a thread or a task has left a job. The caller holds the lock."""
        if self.halted is not None:
            self.settle()

    def check_going(self) -> None:
        """Raise what made the job halt in this process, if something has."""
        if self.halted is not None:
            raise self.halted

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

    def expect(self, jobs: Sequence[str]) -> None:
        """Keep the answers of jobs that are about to begin until a handler waits for them."""
        with self.lock:
            self.expected.update(dict.fromkeys(jobs))

    def begin_child(self, invocation: Any, job_id: str) -> None:
        """Start a job that one of this job's handlers has invoked, unless it was started before."""
        child = invocation.flow.begin_child(self, invocation, job_id)
        with self.lock:
            self.children = [*(each for each in self.children if each() is not None), weakref.ref(child)]

    def call_on_loop(self, make: Callable[[], Any]) -> None:
        """Run a coroutine, which does not raise, on the engine's event loop."""
        self.engine.attach(self.flow, self.flow.max_workers)
        self.engine.event_loop(self.hooks.make_loop).keep(make(), self.variables.copy())

    def encode(self, value: Any, what: str) -> Any:
        """Return the form in which a value is kept: a copy, in a job without a store."""
        return copy_value(value)

    def awaits(self, topic: str) -> bool:
        """Whether one of its handlers waits for an event."""
        with self.lock:
            waits = [activation.wait for activation in self.record.waiting.values()]
        return any(wait is not None and wait.topic == topic for wait in waits)

    def cancel_unless_ended(self, reason: str) -> None:
        """Cancel the job, if it has not ended."""
        with self.lock:
            if not self.record.status.ended:
                self._cancel(reason)
        self.tell()

    def expire(self, timeout: float) -> None:
        """Fail the job because its time is up, and stop waiting for the handlers that still run.

        A job that failed, or was ended, before its handlers have returned keeps its status.
        """
        message = f"flow {self.plan.flow_id!r}, job {self.record.job_id!r}: not ended within {timeout:g} seconds"
        with self.lock:
            running = [activation.slot for activation in self.record.running.values()]
            if running:
                names = ", ".join(sorted({f"{slot.routine_id}.{slot.name}" for slot in running}))
                message = f"{message}; still running: {names}"
            error = JobTimeoutError(message)
            described = describe(error)
            if self.record.status.ended:
                self._note_given_up(given_up(self.record, described, self.now()))
            else:
                self.failure = error
                self._note_given_up(failed(self.record, described, self.now()))
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
            self._fail(error)
            described = describe(error)
            for owner in (thread, 0):
                self._note_given_up(given_up(self.record, described, self.now(), owner))
            self.cancel_tasks()
            self.leave(thread)
            self.settle()
        self.tell()

    def _fail(self, error: BaseException) -> None:
        """Fail the job as a whole, if it runs. The caller holds the lock."""
        if self.record.status in (JobStatus.RUNNING, JobStatus.WAITING):
            self.failure = error
            self._note_given_up(failed(self.record, describe(error), self.now()))
