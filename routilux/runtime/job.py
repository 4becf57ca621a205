"""A job in this process: its record, the lock around it, and the threads that work on it.

All that is here changes under ``lock``. A thread that works for the job is in ``crew``; a thread inside ``execute`` or
``wait`` that finds nothing to do is in ``idle``; one that waits inside an ``emit`` for others to shorten the queue is
in ``pressed``, a task that waits for the same in ``easing``; one that only watches for the end is in ``watchers``; one
that holds the job still, and waits for its handlers first, is in ``savers``. Each of these sleeps on a bell of its own,
and whoever changes what it waits for rings it. Coroutine handlers are in ``tasks`` while they run on the event loop,
and their activations in ``begun`` before, if a thread of the crew has begun them.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import Context as Variables
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from ..core.copying import copy_payload
from ..core.job_record import Activation, JobRecord, Mailbox
from ..core.machine import cancelled, due, failed, given_up, inherited, paused, resumed, started
from ..core.plan import Plan, SlotPlan
from ..core.records import ErrorRecord, Fact
from ..core.scheduling import hold
from ..core.status import JobStatus
from ..errors import ExecutionError, JobTimeoutError, StatusError
from ..routine.scope import current
from .audience import LEVELS, Notice, audience
from .bells import Bell
from .edits import Edits
from .engine import Engine
from .gate import Gate
from .observation import Notices
from .timers import Timer


class Task(Protocol):
    """A coroutine handler that runs on the event loop."""

    def cancel(self) -> None:
        """Cancel the coroutine. The caller, on any thread, holds the lock."""


class Job:
    """One execution of a flow.

    Args:
        flow: the flow, for the handlers' contexts.
        record: the record of the job, pending.
        engine: whose threads, timers and clock it uses.
        max_workers: how many threads may run its handlers at the same time.
        max_pending: how many deliveries may be queued before those who emit more have to help or wait.
        assist: what a worker thread does when the job asks for one.
        serve: has the event loop start the coroutine handlers that may start.
        wait: how a thread waits for the job to end, with a time limit in seconds or None; tells whether it has.
        tell: tells those who listen what happens.
        on_rest: called, under the lock, when the job has come to rest.
    """

    def __init__(
        self,
        flow: Any,
        record: JobRecord,
        engine: Engine,
        max_workers: int,
        max_pending: int,
        assist: Callable[[Job], None],
        serve: Callable[[Job], None],
        wait: Callable[[Job, float | None], bool],
        tell: Callable[[Notice], None],
        on_rest: Callable[[Job], None],
    ) -> None:
        self.flow = flow
        self.record = record
        self.plan: Plan = record.plan
        self.engine = engine
        self.now = engine.clock.monotonic_ns
        self.lock = Gate()
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.enough_room = max_pending // 2
        self.crew: set[int] = set()
        self.crew_size = 0
        self.calling = False  # a task of this job waits in the pool
        self.roused = False  # a thread in `idle` was woken and is on its way
        self.idle: list[Bell] = []
        self.watchers: list[Bell] = []
        self.pressed: list[Bell] = []
        self.savers: list[Bell] = []
        self.easing: deque[Bell] = deque()
        self.emitting = 0  # how many handlers are inside an emit, or a flush, for as long as the queue is full
        self.tasks: set[Task] = set()
        self.tasks_told = False  # that the job is closed
        self.begun: deque[Activation] = deque()
        self.serving = False  # the event loop was asked to start what may start, and has not yet
        self.variables = callers_variables()
        self.notices = Notices(tell)
        self._noted_status = record.status
        self.edits = Edits(self.lock, record, engine.pool)
        self.editors = self.edits.waiting  # at hand, because every activation looks whether there are any
        self.failure: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.interrupt_thread = 0
        self.timers: dict[int, Timer] = {}
        self._assist = assist
        self._serve = serve
        self._wait = wait
        self._on_rest = on_rest

    def start(self, slot: SlotPlan, payload: dict[str, Any], isolate: bool) -> None:
        """Put the first delivery into its mailbox. No thread is asked to work yet: see `call`."""
        with self.lock:
            started(self.record, slot, payload, isolate, self.now())
            self.note_status()
        if self.notices.waiting:
            self.tell()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the job has ended, for ``timeout`` seconds at the most; return whether it has."""
        return self._wait(self, timeout)

    # --- the crew; the caller holds the lock ------------------------------------------------------------------

    def join(self, thread: int) -> Mailbox | None:
        """Let a thread work for the job, and return its first mailbox; None when there is nothing for it to do."""
        if self.crew_size >= self.max_workers or not self.record.ready or not self.record.open:
            return None
        self.crew.add(thread)
        self.crew_size += 1
        return self.next_mailbox(thread)

    def next_mailbox(self, thread: int) -> Mailbox | None:
        """Return the mailbox that a thread of the crew takes next; None when it has left the crew."""
        record = self.record
        if record.on_loop:
            self.call()
        if not record.ready or not record.open:
            self.leave(thread)
            return None
        mailbox = record.ready.popleft()
        if record.ready:
            self.call()
        return mailbox

    def leave(self, thread: int) -> None:
        """Take a thread out of the crew."""
        if thread in self.crew:
            self.crew.remove(thread)
            self.crew_size -= 1

    def call(self) -> None:
        """Have one more thread come to work, if one may and none is on its way already.

        Whoever comes calls the next one when there is work left, so that a burst of work wakes as many threads as
        it can use, and a chain of single deliveries wakes none for nothing.
        """
        record = self.record
        if record.on_loop and record.open:
            self.call_loop()
        if self.roused or self.crew_size >= self.max_workers or not record.ready or not record.open:
            return
        if self.idle:  # also when a task waits in the pool, whose threads may all be asleep in nested jobs
            self.roused = True
            self.idle.pop().set()
        elif not self.calling:
            self.engine.attach(self.flow, self.flow.max_workers)
            try:
                self.engine.pool.submit(self.assist)
            except RuntimeError as error:
                if not self.crew:
                    raise self._no_thread() from error
            else:
                self.calling = True

    def call_loop(self) -> None:
        """Have the event loop start the coroutine handlers that may start, if it is not on its way already."""
        if not self.serving:
            self.engine.attach(self.flow, self.flow.max_workers)
            try:
                self._serve(self)
            except RuntimeError as error:
                raise self._no_thread() from error
            self.serving = True

    def call_or_fail(self) -> None:
        """Do as `call` does; where nobody could be told of an error, it fails the job."""
        try:
            self.call()
        except ExecutionError as error:
            self._fail(error)

    def hand_over(self, activation: Activation) -> None:
        """Let the event loop run an activation that a thread has begun."""
        with self.lock:
            activation.owner = 0
            self.begun.append(activation)
            self.call_loop()

    def _no_thread(self) -> ExecutionError:
        return ExecutionError(
            f"flow {self.plan.flow_id!r}: job {self.record.job_id!r} cannot run: the system gives no thread"
        )

    def assist(self) -> None:
        """Work for the job on the calling worker thread."""
        self._assist(self)

    def take_nested(self) -> Mailbox | None:
        """Return a ready mailbox for a thread that is inside an ``emit``; never one with a timeout."""
        ready = self.record.ready
        for index, mailbox in enumerate(ready):
            if not mailbox.timed:
                del ready[index]
                return mailbox
        return None

    def settle(self) -> None:
        """Wake those who wait for what may just have happened. Called after every activation."""
        record = self.record
        if self.editors:
            self.edits.ring()
        if not record.open:
            ring(self.pressed)
            ring(self.easing)
            if record.closed and not self.tasks_told:
                self.tasks_told = True
                self.cancel_tasks()
            self.note_status()
            if not record.running:
                for saver in self.savers:
                    saver.set()
                if self.at_rest:
                    self._rest()
        elif self.pressed or self.easing:
            enough, stuck = record.queued <= self.enough_room, self.stuck
            if enough or stuck or record.ready:
                ring(self.pressed)
            if enough:
                self.ease_next()
            elif stuck and not record.ready:
                ring(self.easing)

    def ease_next(self) -> None:
        """Wake the first task in `easing` if there is room in the queue; it wakes the next one if there still is."""
        if self.easing and self.record.queued <= self.enough_room:
            self.easing.popleft().set()

    @property
    def stuck(self) -> bool:
        """Whether nobody makes room in the queue: all handlers that run are emitting, and no coroutine may start."""
        return len(self.record.running) <= self.emitting and not self.record.on_loop

    # --- who hears of it ----------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> bool:
        """Whether no handler runs and none will until somebody changes the job, and everybody has heard so."""
        return self.record.at_rest and not self.notices.pending

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

    def tell(self) -> None:
        """Tell listeners what was noted. Called without the lock."""
        if self.notices.tell():
            with self.lock:
                if self.at_rest:
                    self._rest()

    def cancel_tasks(self) -> None:
        """Cancel the coroutines that run."""
        for task in self.tasks:
            task.cancel()

    def _rest(self) -> None:
        if self.timers:
            for timer in self.timers.values():
                timer.cancel()
            self.timers.clear()
            self.engine.timers.prune()
        ring(self.idle)
        ring(self.watchers)
        self._on_rest(self)

    # --- retries, pausing and going on --------------------------------------------------------------------------

    def plan_retry(self, activation: Activation) -> None:
        """Have an activation run again when it is due. The caller holds the lock."""
        left = max(activation.due - self.now(), 0) / 1e9
        key = activation.delivery.id
        try:
            self.timers[key] = self.engine.timers.after(left, partial(self._retry, activation))
        except RuntimeError as error:
            self._fail(error)

    def _plan_retries(self) -> None:
        """Plan the retries whose time has come while no handler could start."""
        for activation in self.record.retrying.values():
            if activation.delivery.id not in self.timers:
                self.plan_retry(activation)

    def _retry(self, activation: Activation) -> None:
        with self.lock:
            self.timers.pop(activation.delivery.id, None)
            # While the job is paused or held, the attempt keeps waiting; going on plans it anew.
            if self.record.open and self.record.retrying.get(activation.delivery.id) is activation:
                due(self.record, activation)
                self._go_on()
        if self.notices.waiting:
            self.tell()

    def hold(self, saver: Bell) -> None:
        """Let no handler start; the saver's bell rings when none runs."""
        with self.lock:
            self.savers.append(saver)
            hold(self.record, len(self.savers))
            ring(self.pressed)
            ring(self.easing)
            if not self.record.running:
                saver.set()

    def let_go(self, saver: Bell) -> None:
        """Let handlers start again, if the job runs and nobody else holds it."""
        with self.lock:
            if saver in self.savers:
                self.savers.remove(saver)
                hold(self.record, len(self.savers))
                if self.record.open:
                    self._plan_retries()
                    self._go_on()
        if self.notices.waiting:
            self.tell()

    def _go_on(self) -> None:
        self.call_or_fail()
        self.settle()

    def pause(self, reason: str) -> None:
        """Let running handlers finish and start no more. Raises StatusError when the job does not run."""
        with self.lock:
            paused(self.record, reason)
            self.settle()
        if self.notices.waiting:
            self.tell()

    def resume(self) -> None:
        """Go on with a paused or failed job. No thread is asked to work yet: see `call`.

        Raises StatusError for any other job, and for a failed one of which handlers still run.
        """
        with self.lock:
            record = self.record
            if record.status is JobStatus.FAILED and record.running:
                raise StatusError(
                    f"flow {self.plan.flow_id!r}: job {record.job_id!r} has failed, and {len(record.running)} of its "
                    f"handlers still run; wait for them before it is resumed"
                )
            if record.status is JobStatus.FAILED:
                self.begun.clear()  # they have been given up, and are among what runs again
            resumed(record, self.now())
            if record.open:
                self.note_status()
            self.failure = self.interrupt = None
            self._plan_retries()
            if not record.open:
                self.settle()
        if self.notices.waiting:
            self.tell()

    def hand_down(self, record: JobRecord) -> None:
        """Give a new job's record a copy of this one's shared data and routine states."""
        with self.lock:
            inherited(record, copy_payload(self.record.shared), copy_payload(self.record.routine_states))

    # --- ending from outside ----------------------------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Cancel the job. Raises StatusError when it has ended."""
        with self.lock:
            cancelled(self.record, reason, self.now())
            self.settle()
        if self.notices.waiting:
            self.tell()

    def cancel_unless_ended(self, reason: str) -> None:
        """Cancel the job, if it has not ended."""
        with self.lock:
            if not self.record.status.ended:
                cancelled(self.record, reason, self.now())
                self.settle()
        if self.notices.waiting:
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
            if not self.record.status.ended:
                self.failure = error
                failed(self.record, describe(error), self.now())
            given_up(self.record, describe(error), self.now())
            self.cancel_tasks()
            for thread in self.crew:
                self.engine.pool.give_up(thread)
            self.crew.clear()
            self.crew_size = 0
            self.settle()
        if self.notices.waiting:
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
            given_up(self.record, describe(error), self.now(), thread)
            given_up(self.record, describe(error), self.now(), 0)
            self.cancel_tasks()
            self.leave(thread)
            self.settle()
        if self.notices.waiting:
            self.tell()

    def _fail(self, error: BaseException) -> None:
        """Fail the job as a whole, if it runs. The caller holds the lock."""
        if self.record.status is JobStatus.RUNNING:
            self.failure = error
            failed(self.record, describe(error), self.now())


def callers_variables() -> Variables:
    """Return the context variables of the caller, but not which turn it takes, which would keep that turn's job."""
    variables = copy_context()
    variables.run(current.set, None)
    return variables


def ring(bells: list[Bell] | deque[Bell]) -> None:
    """Wake all who sleep on these bells."""
    for bell in bells:
        bell.set()
    bells.clear()


def describe(error: BaseException, slot: SlotPlan | None = None, attempt: int | None = None) -> ErrorRecord:
    """Return what a job keeps of an exception."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    try:
        message = str(error)
    except Exception as unprintable:
        message = f"<its message cannot be made: {type(unprintable).__name__}>"
    kind, trace = type(error).__name__, "".join(lines)
    if slot is None:
        return ErrorRecord(kind, message, trace)
    return ErrorRecord(kind, message, trace, slot.routine_id, slot.name, attempt)
