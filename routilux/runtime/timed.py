"""What a job does at a certain time, or when something that its handlers wait for has come: retries and waits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..core.commits import answered, awaited, go_on, is_over
from ..core.job_record import Activation, JobRecord
from ..core.machine import due, woken
from ..core.points import Answered
from ..core.scheduling import hold
from ..core.status import JobStatus
from ..errors import ContextError, ExecutionError
from .bells import Bell, ring
from .crew import Hooks
from .informed import Informed
from .threads import SharedThreads
from .timers import Timer


class Timed(Informed):
    """A job whose handlers are retried, wait, and can be held back. For the arguments see `Job`.

    Who holds the job still, and waits for its handlers first, is in ``savers``. ``halted`` tells why the job does not
    go on in this process, if it does not.
    """

    def __init__(
        self, flow: Any, record: JobRecord, engine: SharedThreads, max_workers: int, max_pending: int, hooks: Hooks
    ) -> None:
        super().__init__(flow, record, engine, max_workers, max_pending, hooks)
        self.savers: list[Bell] = []
        self.timers: dict[int, Timer] = {}
        self.expected: dict[str, Any] = {}  # jobs that one of its handlers is about to wait for, with answers
        self.halted: BaseException | None = None

    def settle(self) -> None:
        """Wake those who wait for what may just have happened. Called after every activation."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Fail the job as a whole, if it runs. The caller holds the lock."""
        raise NotImplementedError

    @property
    def moves(self) -> bool:
        """Whether a waiting job will go on without anybody outside doing something, at some time."""
        waits = [awaited(self.record, activation) for activation in list(self.record.waiting.values())]
        return go_on(waits, self.jobs_move)

    def jobs_move(self, jobs: tuple[str, ...]) -> bool:
        """Whether one of these jobs, which its handlers have started, has ended or will go on by itself."""
        raise NotImplementedError

    def plan_retry(self, activation: Activation) -> None:
        """Have an activation run again when it is due. The caller holds the lock."""
        key = activation.id
        try:
            self.timers[key] = self.engine.timers.at(activation.due, partial(self._retry, activation))
        except RuntimeError as error:
            self.fail(error)

    def plan_all(self) -> None:
        """Plan what became due, or came, while no handler could start. The caller holds the lock."""
        for activation in self.record.retrying.values():
            if activation.id not in self.timers:
                self.plan_retry(activation)
        now = self.now()  # once, so that they wake in order
        for activation in list(self.record.waiting.values()):
            if activation.id not in self.timers:
                self.plan_wake(activation, now)

    def plan_wake(self, activation: Activation, now: int) -> None:
        """Have an activation that waits go on when it may, now or later. The caller holds the lock."""
        wait = activation.wait
        for child in wait.jobs if wait is not None else ():
            answer = self.expected.pop(child, None)
            if answer is not None:
                answered(self.record, Answered(activation.id, child, answer))
        if is_over(self.record, activation, now):
            self.wake(activation)
        elif wait is not None and wait.due is not None:
            key = activation.id
            try:
                self.timers[key] = self.engine.timers.at(wait.due, partial(self._time_came, activation))
            except RuntimeError as error:
                self.fail(error)

    def _time_came(self, activation: Activation) -> None:
        with self.lock:
            self.timers.pop(activation.id, None)
            self.wake(activation)
        self.tell()

    def take_answer(self, fact: Answered) -> None:
        """Note how a job that one of its handlers waits for has ended. The caller holds the lock."""
        activation = answered(self.record, fact)
        if activation is None:  # others that it waits for may be at rest
            self.settle()
        else:
            self.wake(activation)

    def wake(self, activation: Activation | None) -> None:
        """Let an activation go on, if it waits and handlers may start; else it does when they may again.

        The caller holds the lock.
        """
        record = self.record
        runs = record.status in (JobStatus.RUNNING, JobStatus.WAITING) and self.halted is None
        may_go_on = runs and not record.holds
        if activation is not None and may_go_on and record.waiting.get(activation.id) is activation:
            timer = self.timers.pop(activation.id, None)
            if timer is not None:
                timer.cancel()
            woken(record, activation)
            if self.listening.everything:
                self.woken.add(activation.id)
            self.note_status()
            self._go_on()

    def _retry(self, activation: Activation) -> None:
        with self.lock:
            self.timers.pop(activation.id, None)
            # While the job is paused or held, the attempt keeps waiting; going on plans it anew.
            if self.record.open and self.record.retrying.get(activation.id) is activation:
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
                    self.plan_all()
                    self._go_on()
        self.tell()

    def call_or_fail(self) -> None:
        """Do as `call` does; where nobody could be told of an error, it fails the job."""
        try:
            self.call()
        except ExecutionError as error:
            self.fail(error)

    def go_on(self) -> None:
        """Let the handlers of a job that was taken up start, and what waits go on when it may."""
        with self.lock:
            self.plan_all()
            self._go_on()
        self.tell()

    def _go_on(self) -> None:
        self.call_or_fail()
        self.settle()

    def sleep(self, seconds: float) -> None:
        """Pause a handler for so many seconds. Raises ContextError when the job ends before, or halts."""
        end = self.now() + int(seconds * 1e9)
        while not self.record.closed and self.halted is None:
            left = (end - self.now()) / 1e9
            if left <= 0:
                return
            bell = threading.Event()
            with self.lock:
                if self.record.closed or self.halted is not None:  # just now: nobody would ring
                    break
                self.sleepers.append(bell)
            with self.engine.pool.sleeping():
                bell.wait(min(left, threading.TIMEOUT_MAX))
            with self.lock:
                if bell in self.sleepers:
                    self.sleepers.remove(bell)
        raise self.halted or ContextError(
            f"flow {self.record.plan.flow_id!r}: job {self.record.job_id!r} is {self.record.status}; a step of it that "
            f"has failed is not tried again"
        )

    def awaits(self, topic: str) -> bool:
        """Whether one of its handlers waits for an event."""
        with self.lock:
            waits = [activation.wait for activation in self.record.waiting.values()]
        return any(wait is not None and wait.topic == topic for wait in waits)

    def expect(self, jobs: Sequence[str]) -> None:
        """Keep the answers of jobs that are about to begin until a handler waits for them."""
        with self.lock:
            self.expected.update(dict.fromkeys(jobs))
