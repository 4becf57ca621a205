"""Turns: the activations that one thread runs for one mailbox, one after the other."""

from __future__ import annotations

import threading
from _thread import get_ident
from collections.abc import Mapping
from typing import Any

from ..core.copying import copy_payload
from ..core.job_record import Activation, Mailbox
from ..core.machine import began, ended, given_up, merged, released, retried
from ..core.plan import SlotPlan
from ..core.policy import ErrorStrategy
from ..errors import HandlerTimeoutError, PayloadError
from ..routine.binding import Misfit, shortened
from ..routine.scope import current
from .context import Context
from .helper import Helper
from .job import Job, describe
from .operations import Operations

BATCH = 128  # deliveries of one mailbox before the others get their turn
DEEPEST = 8  # how many handlers a thread may run inside one another's emit


class Turn(Operations):
    """One thread's stay with one mailbox. `run` takes up to ``BATCH`` turns for it."""

    __slots__ = ("depth", "helper", "life", "mailbox", "nested", "nested_since", "outer")

    def __init__(self, job: Job, mailbox: Mailbox, depth: int = 0) -> None:
        super().__init__(job)
        self.mailbox = mailbox
        self.depth = depth
        self.life = job.record.life
        self.outer = current.get()
        self.helper: Helper | None = None
        self.nested = 0
        self.nested_since: int | None = None

    def run(self) -> None:
        """Take turns until the batch is full, the mailbox is empty, or a retry holds it."""
        record, gate, now = self.record, self.job.lock, self.job.now
        left = BATCH
        current.set(self)
        try:
            with gate:
                activation = self._next(True)
            while activation is not None:
                slot = activation.slot
                self.routine = slot.node.routine
                self.held = [] if slot.holds else None
                self.activation = activation
                error: BaseException | None = None
                try:
                    if slot.direct and not activation.isolate:
                        slot.binding.handler(**activation.payload)
                    else:
                        self._handle(slot, activation)
                except BaseException as raised:
                    error = raised
                if self.state_used:
                    error = self._end_state(error)
                at = now()
                self.activation = None
                if error is not None:
                    activation = self._failed(activation, at, error, left > 1)
                    error = None  # it refers to this frame
                else:
                    spent = at - activation.started - self.nested
                    if not gate.try_enter(False):
                        gate.enter()
                    try:
                        if record.running.get(activation.delivery.id) is activation:
                            if self.held:
                                self.release(activation, self.held)
                            ended(record, activation, "completed", spent, at, None, False, self.finish_with)
                        activation = self._next(left > 1)
                    finally:
                        gate.leave()
                        if gate.waiting:
                            gate.ring()
                left -= 1
                if self.reads or self.own or self.nested or self.finish_with or self.state_used:
                    self._forget()
        finally:
            current.set(self.outer)
            if self.helper is not None:
                self.helper.close()

    def _next(self, more: bool) -> Activation | None:
        """Start the next activation of the mailbox, or give up its ticket. The caller holds the lock."""
        job, record = self.job, self.record
        activation = None
        if self.life == record.life:
            activation = began(record, self.mailbox, job.now(), self.thread) if more else None
            if activation is None:
                released(record, self.mailbox)
        if job.pressed or job.edits.waiting or not record.open:
            job.settle()
        return activation

    def _end_state(self, error: BaseException | None) -> BaseException | None:
        """Commit in-place changes of the state, also those of a handler that raised; return the first error."""
        try:
            self.end_state()
        except Exception as refused:
            return error or refused
        return error

    def _forget(self) -> None:
        self.forget_state()
        self.nested = 0
        self.finish_with = None

    def _failed(self, activation: Activation, at: int, error: BaseException, more: bool) -> Activation | None:
        """Commit an attempt that raised, as its policy says; return the next activation of the batch."""
        job, record, slot = self.job, self.record, activation.slot
        spent = at - activation.started - self.nested
        fatal = isinstance(error, (KeyboardInterrupt, SystemExit))
        if fatal:
            job.lock.abandon()
        action = ErrorStrategy.STOP if fatal else slot.policy.decide(error, activation.attempt)
        described = describe(error, slot, activation.attempt) if action is not ErrorStrategy.RETRY else None
        following = None
        with job.lock:
            if fatal:
                job.interrupt, job.interrupt_thread = error, get_ident()
            if record.running.get(activation.delivery.id) is not activation:
                following = self._next(more)
            elif action is ErrorStrategy.RETRY and not record.closed:
                delay = slot.policy.delay(activation.attempt, f"{record.job_id}:{activation.delivery.id}")
                job.plan_retry(retried(record, activation, spent, at + int(delay * 1e9)))
                job.settle()
            else:
                stop = action is ErrorStrategy.STOP
                if stop and not record.status.ended:
                    job.failure = error
                status = "skipped" if action is ErrorStrategy.SKIP else "failed"
                ended(record, activation, status, spent, at, described, stop)
                if fatal and not self.depth:  # handlers that ran inside this one's emit have been left, too
                    given_up(record, described or describe(error), at, self.thread)
                following = self._next(more)
        if fatal and self.depth:
            raise error
        return following

    def _handle(self, slot: SlotPlan, activation: Activation) -> None:
        """Call the handler of a slot that asks for more than the plain payload."""
        if callable(slot.merge) and activation.payload is activation.delivery.payload:
            self._merge(slot, activation)
        payload = copy_payload(activation.payload) if activation.isolate else activation.payload
        try:
            arguments = slot.binding.bind(payload)
        except Misfit as misfit:
            raise PayloadError(f"{self.where(slot)}: {misfit}") from misfit.__cause__
        if slot.binding.context is not None:
            arguments[slot.binding.context] = Context(self, activation)
        if slot.timeout is None:
            slot.binding.handler(**arguments)
        else:
            self._handle_timed(slot, arguments, slot.timeout)

    def _merge(self, slot: SlotPlan, activation: Activation) -> None:
        """Let the slot's own function merge the payload into the buffer; again when another turn was faster."""
        lock, buffers = self.job.lock, self.record.buffers
        isolated = copy_payload if self.job.plan.copy_payloads else dict
        while True:
            with lock:
                old = buffers.get(slot.index)
            new = slot.merge(isolated(old or {}), isolated(activation.payload))
            if not isinstance(new, Mapping) or not all(isinstance(key, str) for key in new):
                raise PayloadError(f"{self.where(slot)}: the merge function must return a dict, not {shortened(new)}")
            new = isolated(new)
            with lock:
                self.check(activation)
                if buffers.get(slot.index) is old:
                    merged(self.record, activation, new)
                    return

    def _handle_timed(self, slot: SlotPlan, arguments: dict[str, Any], timeout: float) -> None:
        """Run a handler on a helper thread, and stop waiting for it when its time is up.

        Time that the helper spends on other handlers, inside an ``emit``, does not count.
        """
        helper = self.helper
        if helper is None:
            helper = self.helper = Helper(self.job.engine)
        activation, now = self.activation, self.job.now
        assert activation is not None
        budget = int(timeout * 1e9)
        begun = now()
        self.thread = helper.thread
        try:
            call = helper.start(self, slot.binding.handler, arguments)
            while not call.done:
                since = self.nested_since
                left = (begun + budget + self.nested - now()) / 1e9
                if since is None and left <= 0:
                    break
                call.stirred.wait(None if since is not None else left)
                call.stirred.clear()
        except BaseException:
            self.helper = None
            helper.give_up()
            raise
        finally:
            self.thread = get_ident()
        if call.done:
            if call.error is not None:
                raise call.error
            return
        self.helper = None
        helper.give_up()
        self.drop_state()
        raise HandlerTimeoutError(f"{self.where(slot)}: the handler ran longer than its timeout of {timeout:g} seconds")

    def relieve(self) -> None:
        """Help to shorten the queue, or wait until others have, before the handler may go on emitting."""
        job, record = self.job, self.record
        since = job.now()
        with job.lock:
            job.emitting += 1
            self.nested_since = since
            if job.pressed:
                job.settle()
        try:
            limit = job.max_pending
            while True:
                bell = None
                with job.lock:
                    if record.queued <= limit or not record.open:
                        return
                    mailbox = job.take_nested() if self.depth < DEEPEST else None
                    if mailbox is None:
                        if len(record.running) <= job.emitting:
                            return
                        bell = threading.Event()
                        job.pressed.append(bell)
                        limit = job.enough_room
                if mailbox is not None:
                    Turn(job, mailbox, self.depth + 1).run()
                elif bell is not None:
                    with job.engine.pool.sleeping():
                        bell.wait()
        finally:
            with job.lock:
                job.emitting -= 1
                self.nested += job.now() - since
                self.nested_since = None
            if self.helper is not None:
                self.helper.stir()
