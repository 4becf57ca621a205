"""Turns of durable jobs on the event loop.

A commit may take as long as the disk does, so it is made on a thread while the handler awaits it; the loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..core.job_record import Activation
from .drafts import EditDraft
from .durable import Durable
from .durable_job import DurableJob
from .event_loop import EventLoop, LoopBell
from .steps import Do, Effect, Halt
from .task_turn import TaskTurn, start_tasks

__all__ = ["DurableTaskTurn", "start_tasks"]


class DurableTaskTurn(Durable, TaskTurn):
    """One attempt of a coroutine handler of a durable job."""

    def __init__(self, job: DurableJob, activation: Activation, event_loop: EventLoop) -> None:
        super().__init__(job, activation, event_loop)
        self.prepare()
        self.begin(activation)

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        """Do something on a thread, and return what comes of it; the loop goes on meanwhile."""
        bell = LoopBell()
        outcome: list[Any] = []

        def do() -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:
                outcome.append((None, error))
            bell.set()

        self.job.engine.committers.submit(do)
        cancelled = False
        while not outcome:
            try:
                await bell.wait()
            except asyncio.CancelledError:
                if self.given_up and self.activation is not None:
                    raise
                cancelled = True  # what is being committed is committed first
        result, error = outcome[0]
        if error is not None:
            raise error
        if cancelled and self.activation is not None:
            raise asyncio.CancelledError  # which whoever cancelled counts on
        return result

    async def make_arguments(self, activation: Activation) -> dict[str, Any]:
        """Return the arguments of the handler."""
        slot = activation.slot
        if self.to_merge(activation):
            await self.in_thread(lambda: self.commit_merge(slot, activation))
        return self.arguments(slot, activation)

    async def end_attempt(self, activation: Activation, error: BaseException | None) -> None:
        """Commit the end of the attempt, or its wait."""
        if self.touched and self.waits_for is None:
            error = self.commit_changes(error)
        at = self.job.now()
        self.activation = None
        over = self.cancelling and error is not None and not isinstance(error, Exception)
        job = self.job
        if over:
            with job.lock:
                over = self.record.running.get(activation.id) is not activation
        again = False
        try:
            if not over:
                again = await self.in_thread(lambda: self.conclude(activation, error, at))
        except Exception as refused:
            if job.halted is None and self.record.running.get(activation.id) is activation:
                raise refused
        with job.lock:
            if again:  # the retry keeps the mailbox
                job.settle()
            else:
                self.following(False)
        job.tell()

    def commit_timeout(self, activation: Activation, error: BaseException) -> None:
        """Commit, on a thread, that the time of the handler was up."""
        job, at = self.job, self.job.now()
        self.waits_for = None

        def commit() -> None:
            again = False
            try:
                again = self.conclude(activation, error, at)
            except Exception as refused:
                if job.halted is None and self.record.running.get(activation.id) is activation:
                    job.interrupted(refused)
            with job.lock:
                if again:  # the retry keeps the mailbox
                    job.settle()
                else:
                    self.following(False)
            job.tell()

        job.engine.committers.submit(commit)

    def overflow(self) -> None:
        """Let the handler go on: it awaits ``ctx.flush()`` now and then."""

    async def flush_async(self) -> None:
        """Commit what the handler has done so far, and wait for room in the queue when it is full."""
        self.check_point("flush()")
        if self.reach("flush", None) is None:
            await self.in_thread(lambda: self.commit("flush"))
        if self.record.queued > self.job.max_pending:
            await self.ease()

    async def begin_edit_async(self, activation: Activation) -> EditDraft:
        """Become the only activation of the job that edits; what was written before is committed first."""
        self.check(activation)
        if self.writes_pending():
            await self.flush_async()
        return await super().begin_edit_async(activation)

    async def end_edit_async(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, with what was done before it; or drop it."""
        try:
            self.close_edit(draft, keep=keep)
            if keep and self.reach("edit", None) is None:
                await self.in_thread(lambda: self.commit("edit"))
        finally:
            self.job.edits.give(draft.activation)

    async def perform(self, effect: Effect) -> Any:
        """Do what an operation of ``ctx.step`` asks for."""
        if isinstance(effect, Do):
            return await self.in_thread(effect.work)
        if isinstance(effect, Halt):
            self.waits_for = (effect.name, effect.wait)
            raise self.suspension()
        return await super().perform(effect)
