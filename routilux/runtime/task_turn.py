"""Turns on the event loop: each is one attempt of a coroutine handler, in a task of its own.

A thread that lists a mailbox of coroutine handlers asks the loop to `start_tasks`, which takes what may start. A task
holds the ticket of its mailbox until its handler is over, and then lets go of it; so turns and order are the same as
on threads. What a handler does is committed on the loop's thread, under the job's lock, as on any other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..core.job_record import Activation
from ..core.machine import began, ended, released, suspended
from ..core.plan import SlotPlan
from ..core.points import Point, Wait
from ..errors import ContextError
from ..routine.scope import Scope, current
from .committing import Committing
from .context import AsyncContext
from .drafts import EditDraft
from .event_loop import EventLoop, LoopBell
from .job import Job
from .steps import Call, Do, Effect, Sleep
from .task_calling import called_in_task

BATCH = 128  # handlers that are started before the loop looks after others


def start_tasks(job: Job, event_loop: EventLoop, make: type[TaskTurn]) -> None:
    """Start coroutine handlers that may start, in turns of a class. The loop's thread calls it."""
    record = job.record
    turns: list[TaskTurn] = []
    with job.lock:
        job.serving = False
        while len(turns) < BATCH:
            handed_over = bool(job.begun)
            if handed_over:
                activation: Activation | None = job.begun.pop(0)
            elif record.on_loop and record.open:
                mailbox = record.on_loop.popleft()
                activation = began(record, mailbox, job.now())
                if activation is None:
                    released(record, mailbox)
            else:
                break
            if activation is None:
                continue
            asleep = job.asleep.pop(activation.id, None)
            if asleep is not None:
                job.woken.discard(activation.id)
                asleep.set()
            else:
                turn = make(job, activation, event_loop)
                if job.listening.everything and not handed_over:
                    job.note_attempt(activation)
                job.tasks.add(turn)
                turns.append(turn)
        if job.begun or (record.on_loop and record.open):
            job.call_loop()
        if job.pressed or job.easing or record.at_rest:
            job.settle()
    for turn in turns:
        turn.start()
    job.tell()


class TaskTurn(Committing):
    """One attempt of a coroutine handler."""

    __slots__ = (
        "__weakref__",
        "asleep",
        "begun",
        "budget",
        "cancelling",
        "event_loop",
        "given_up",
        "outer",
        "task",
        "timer",
    )

    def __init__(self, job: Job, activation: Activation, event_loop: EventLoop) -> None:
        super().__init__(job, job.record.mailboxes[activation.slot.mailbox])
        self.event_loop = event_loop
        self.thread = event_loop.thread
        self.activation = activation
        self.routine = activation.slot.node.routine
        self.held = [] if activation.slot.holds else None
        self.outer: Scope | None = None
        self.task: asyncio.Task[None] | None = None
        self.begun = 0
        self.budget = 0
        self.timer: asyncio.TimerHandle | None = None
        self.cancelling = False
        self.given_up = False
        self.asleep = False
        if self.record.closed:  # since a thread has begun the activation
            self.cancelling = True

    def start(self) -> None:
        """Run the handler in a new task."""
        self.event_loop.create_task(self._run(), self.job.variables)

    def cancel(self) -> None:
        """Cancel the handler, which nobody waits for any more. The caller holds the lock."""
        activation = self.activation
        if activation is not None and self.record.running.get(activation.id) is not activation:
            self._give_up()
        if not self.cancelling:
            self.cancelling = True
            self.event_loop.call(self._cancel)

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _give_up(self) -> None:
        if not self.given_up:
            self.given_up = True
            self.event_loop.give_up()

    # --- running ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        current.set(self)
        task = self.task = asyncio.current_task()
        self.begun = self.job.now()
        activation, error = self.activation, None
        assert activation is not None
        assert task is not None
        slot = activation.slot
        try:
            if not self.cancelling:
                arguments = await self.make_arguments(activation)
                if slot.timeout is not None:
                    self.budget = int(slot.timeout * 1e9)
                    self.begun = self.job.now()
                    self._watch_time()
                if slot.resources:
                    await self._add_resources(arguments, slot)
                if not self.cancelling:
                    await slot.binding.handler(**arguments)
        except BaseException as raised:
            error = raised
        if self.timer is not None:
            self.timer.cancel()
        try:
            if self.activation is not None:
                await self.end_attempt(activation, error)
        except BaseException as broken:
            self.job.interrupted(broken)
        finally:
            error = None  # it refers to this frame
            with self.job.lock:
                self.job.tasks.discard(self)
                given_up = self.given_up
                if not self.record.open:
                    self.job.left()
            self.task = None  # its variables refer to this turn
            self.event_loop.done(task, given_up)

    async def _add_resources(self, arguments: dict[str, Any], slot: SlotPlan) -> None:
        for parameter, factory in slot.resources:
            arguments[parameter] = await self.job.flow.resources.get_in_task(factory, self.job.engine, LoopBell)

    async def make_arguments(self, activation: Activation) -> dict[str, Any]:
        """Return the arguments of the handler."""
        return self.arguments(activation.slot, activation)

    async def end_attempt(self, activation: Activation, error: BaseException | None) -> None:
        """Commit the end of the attempt."""
        job, record = self.job, self.record
        if self.touched:
            error = self.commit_changes(error)
        at = job.now()
        self.activation = None
        if error is not None and not (self.cancelling and isinstance(error, (asyncio.CancelledError, ContextError))):
            self.commit_failure(activation, at, error, False)
            return
        with job.lock:
            if record.running.get(activation.id) is activation:
                if self.held:
                    self.release(activation, self.held)
                spent = at - activation.started - self.nested
                entry = ended(record, activation, "completed", spent, at, None, False, self.finish_with)
                if job.listening.everything:
                    self.note_end(activation, "completed", spent, at, None, entry)
            self.following(False)
        job.tell()

    def following(self, more: bool) -> None:
        """Let go of the mailbox: the loop, or a thread, takes its next turn. The caller holds the lock."""
        job, record = self.job, self.record
        if self.asleep:  # it has let go of it before it waited
            return
        if self.life == record.life:
            released(record, self.mailbox)
            if record.on_loop or record.ready:
                job.call_or_fail()
        if job.pressed or job.easing or job.editors or not record.open:
            job.settle()

    # --- its time -----------------------------------------------------------------------------------------------------

    def _watch_time(self) -> None:
        """Give the handler up when its time is up, and look again later when it is not, or does not count now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        activation = self.activation
        if activation is None or self.nested_since is not None:
            return
        left = self.begun + self.budget + self.nested - self.job.now()
        if left > 0:
            self.timer = self.event_loop.later(left / 1e9, self._watch_time)
            return
        self.activation = None
        self.drop_state()
        with self.job.lock:
            self._give_up()
        self.commit_timeout(activation, self.time_is_up(activation.slot))
        if self.task is not None:
            self.task.cancel()

    def commit_timeout(self, activation: Activation, error: BaseException) -> None:
        """Commit that the time of the handler was up."""
        self.commit_failure(activation, self.job.now(), error, False)

    # --- what the handler does ----------------------------------------------------------------------------------------

    def here(self) -> bool:
        """Whether this is the task that the handler runs in, and the handler has not been given up."""
        acting = self.activation is not None and not self.given_up
        return acting and super().here() and asyncio.current_task() is self.task

    def not_acting(self, what: str) -> ContextError:
        """Return the error for an operation outside the turn."""
        if self.given_up:
            return ContextError(
                f"flow {self.job.plan.flow_id!r}: {what} of a coroutine handler whose time was up is refused"
            )
        return ContextError(
            f"flow {self.job.plan.flow_id!r}: {what} belongs to a coroutine handler's own task, while that handler "
            f"runs; this is another task or thread, or the handler is over"
        )

    def context(self) -> AsyncContext:
        """Return the context of the handler."""
        return AsyncContext(self, self.acting("get_execution_context()"))

    def emit(self, event_name: str, params: dict[str, object]) -> None:
        """Emit an event of the routine; see `Routine.emit`."""
        self.acting(f"emit({event_name!r})")
        super().emit(event_name, params)

    def relieve(self) -> None:
        """Let the handler go on emitting: on the loop, only ``await ctx.flush()`` waits for room in the queue."""

    async def resource_async(self, name: str) -> Any:
        """Return a resource of the flow, by the name that it was given."""
        return await self.job.flow.resources.get_in_task(self.factory_of(name), self.job.engine, LoopBell)

    async def flush_async(self) -> None:
        """Commit in-place changes of the state, and wait for room in the queue when it is full."""
        if self.flushing():
            await self.ease()

    async def perform(self, effect: Effect) -> Any:
        """Do what an operation of ``ctx.step`` asks for."""
        if isinstance(effect, Do):
            return effect.work()
        if isinstance(effect, Call):
            return await called_in_task(effect)
        if isinstance(effect, Sleep):
            await asyncio.sleep(effect.seconds)
            return None
        await self._wait(effect.name, effect.wait)
        return None

    async def _wait(self, name: str, wait: Wait) -> None:
        """Let go of the mailbox, and go on when what is waited for has come. The time does not count."""
        job, record, activation = self.job, self.record, self.activation
        assert activation is not None
        bell = LoopBell()
        self.point = Point("wait", name, wait=wait)
        since = job.now()
        with job.lock:
            self.check(activation)
            spent = since - activation.started - self.nested
            record.points[activation.id] = [self.point]
            job.asleep[activation.id] = bell
            suspended(record, activation, wait, spent, since)
            job.plan_wake(activation, job.now())
            self.following(False)
            self.asleep = True
            self.nested_since = since
        job.tell()
        cancelled: asyncio.CancelledError | None = None
        try:
            await bell.wait()
        except asyncio.CancelledError as error:
            if self.cancelling:
                raise
            cancelled = error  # by the handler itself, as under asyncio.timeout(): it goes on when it has a turn again
            with job.lock:
                if record.waiting.get(activation.id) is activation:
                    activation.wait = Wait(job.now())
                    job.plan_wake(activation, job.now())
            job.tell()
            await bell.wait()
        self.asleep = False
        self.life = record.life
        self.begun += job.now() - since + self.nested
        self.nested = 0
        self.nested_since = None
        if self.budget:
            self._watch_time()
        if cancelled is not None:
            raise cancelled

    async def end_edit_async(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, or drop it."""
        self.end_edit(draft, keep=keep)

    async def begin_edit_async(self, activation: Activation) -> EditDraft:
        """Do as `begin_edit` does; waiting for another editor keeps no other handler waiting."""
        self.before_edit(activation)
        bell = LoopBell()
        try:
            while not self.job.edits.try_take(activation, self.check, bell):
                await bell.wait()
        except BaseException:
            self.job.edits.withdraw(bell)
            raise
        return self.open_edit(activation)

    async def ease(self) -> None:
        """Wait for room in the queue, which other handlers make."""
        job, record = self.job, self.record
        since = self.pressed()
        limit = job.max_pending
        bell: LoopBell | None = None
        try:
            while True:
                with job.lock:
                    if record.queued <= limit or not record.open or (job.stuck and not record.ready):
                        return
                    bell = LoopBell()
                    job.easing.append(bell)
                    limit = job.enough_room
                await bell.wait()
        finally:
            with job.lock:
                job.emitting -= 1
                if bell is not None and bell in job.easing:
                    job.easing.remove(bell)
                job.ease_next()
            self.nested += job.now() - since
            self.nested_since = None
            if self.budget:
                self._watch_time()
