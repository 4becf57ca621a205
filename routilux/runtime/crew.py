"""Who works for a job, and how they are called.

All that is here changes under the job's lock. A thread that works for the job is in ``crew``; a thread inside
``execute`` or ``wait`` that finds nothing to do is in ``idle``. One that waits inside an ``emit`` for others to shorten
the queue is in ``pressed``, a task that waits for the same in ``easing``. Handlers that pause between two attempts of
a step are in ``sleepers``, coroutines that wait inside their turns in ``asleep``. Each of these sleeps on a bell of its
own, and whoever changes what it waits for rings it. Coroutine handlers are in ``tasks`` while they run on the event
loop, and their activations in ``begun`` before, if a thread of the crew has begun them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context as Variables, copy_context
from typing import Any, NamedTuple, Protocol

from ..core.job_record import Activation, JobRecord, Mailbox
from ..errors import ExecutionError
from ..routine.scope import current
from .audience import Notice
from .bells import Bell
from .gate import Gate
from .threads import SharedThreads


class Hooks(NamedTuple):
    """What a job has done by modules that know jobs.

    ``turn``: makes the turns that threads take. ``assist``: what a worker thread does when the job asks for one.
    ``serve``: has the event loop start the coroutine handlers that may start. ``make_loop``: makes an event loop.
    ``wait``: how a thread waits for the job to end, with a time limit in seconds or None, and tells whether it has.
    ``tell``: tells those who listen what happens. ``on_rest``: called, under the lock, when the job has come to rest.
    """

    turn: Callable[[Any, Mailbox], Any]
    assist: Callable[[Any], None]
    serve: Callable[[Any], None]
    make_loop: Callable[[], Any]
    wait: Callable[[Any, float | None], bool]
    tell: Callable[[Notice], None]
    on_rest: Callable[[Any], None]


class Task(Protocol):
    """A coroutine handler that runs on the event loop."""

    def cancel(self) -> None:
        """Cancel the coroutine. The caller, on any thread, holds the lock."""


class Crew:
    """The threads and tasks of one job.

    Args:
        flow: the flow, which has threads made for it.
        record: the record of the job.
        engine: whose threads it uses.
        max_workers: how many threads may run its handlers at the same time.
        max_pending: how many deliveries may be queued before those who emit more have to help or wait.
        hooks: what its threads do.
    """

    def __init__(
        self, flow: Any, record: JobRecord, engine: SharedThreads, max_workers: int, max_pending: int, hooks: Hooks
    ) -> None:
        self.flow = flow
        self.record = record
        self.engine = engine
        self.lock = Gate()
        self.max_workers = max_workers
        self.max_pending = max_pending
        self.enough_room = max_pending // 2
        self.crew: set[int] = set()
        self.crew_size = 0
        self.calling = False  # a task of this job waits in the pool
        self.roused = False  # a thread in `idle` was woken and is on its way
        self.idle: list[Bell] = []
        self.pressed: list[Bell] = []
        self.easing: list[Bell] = []
        self.sleepers: list[Bell] = []
        self.asleep: dict[int, Bell] = {}
        self.emitting = 0  # how many handlers are inside an emit, or a flush, for as long as the queue is full
        self.tasks: set[Task] = set()
        self.begun: list[Activation] = []
        self.serving = False  # the event loop was asked to start what may start, and has not yet
        self.variables = callers_variables()
        self.hooks = hooks

    # --- those who work; the caller holds the lock ------------------------------------------------------------------

    def join(self, thread: int) -> Mailbox | None:
        """Let a thread work for the job, and return its first mailbox; None when there is nothing for it to do."""
        if self.crew_size >= self.max_workers or not self.record.ready or not self.record.open:
            return None
        self.crew.add(thread)
        self.crew_size += 1
        return self.next_mailbox(thread)

    def next_mailbox(self, thread: int) -> Mailbox | None:
        """Return the mailbox that a thread of the crew takes next; None when it has left the crew, or was given up."""
        record = self.record
        if record.on_loop:
            self.call()
        if not record.ready or not record.open or thread not in self.crew:
            self.leave(thread)
            if not record.open:
                self.left()
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

    def left(self) -> None:
        """See to it that a thread has left the crew of a job in which no handler may start."""

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
                self.hooks.serve(self)
            except RuntimeError as error:
                raise self._no_thread() from error
            self.serving = True

    def hand_over(self, activation: Activation) -> None:
        """Let the event loop run an activation that a thread has begun."""
        with self.lock:
            activation.owner = 0
            self.begun.append(activation)
            self.call_loop()

    def _no_thread(self) -> ExecutionError:
        return ExecutionError(
            f"flow {self.record.plan.flow_id!r}: job {self.record.job_id!r} cannot run: the system gives no thread"
        )

    def assist(self) -> None:
        """Work for the job on the calling worker thread."""
        self.hooks.assist(self)

    def take_nested(self) -> Mailbox | None:
        """Return a ready mailbox for a thread that is inside an ``emit``; never one with a timeout."""
        ready = self.record.ready
        for index, mailbox in enumerate(ready):
            if not mailbox.timed:
                del ready[index]
                return mailbox
        return None

    # --- those who wait for room in the queue ------------------------------------------------------------------------

    def ease_next(self) -> None:
        """Wake the first task in `easing` if there is room in the queue; it wakes the next one if there still is."""
        if self.easing and self.record.queued <= self.enough_room:
            self.easing.pop(0).set()

    @property
    def stuck(self) -> bool:
        """Whether nobody makes room in the queue: all handlers that run are emitting, and no coroutine may start."""
        return len(self.record.running) <= self.emitting and not self.record.on_loop

    def cancel_tasks(self) -> None:
        """Cancel the coroutines that run."""
        for task in self.tasks:
            task.cancel()


def callers_variables() -> Variables:
    """Return the context variables of the caller, but not which turn it takes, which would keep that turn's job."""
    variables = copy_context()
    variables.run(current.set, None)
    return variables
