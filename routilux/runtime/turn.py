"""Turns: the activations that one thread runs for one mailbox, one after the other."""

from __future__ import annotations

import threading
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any

from ..core.job_record import Activation, Mailbox
from ..core.machine import began, ended, released
from ..core.plan import SlotPlan
from ..routine.scope import current
from .calling import called
from .committing import Committing
from .gate import INSIDE
from .helper import Helper
from .job import Job
from .steps import Call, Do, Effect, Sleep

BATCH = 128  # deliveries of one mailbox before the others get their turn
DEEPEST = 8  # how many handlers a thread may run inside one another's emit


class Turn(Committing):
    """One thread's stay with one mailbox. `run` takes up to ``BATCH`` turns for it."""

    __slots__ = ("helper", "outer")

    def __init__(self, job: Job, mailbox: Mailbox, depth: int = 0) -> None:
        super().__init__(job, mailbox)
        self.depth = depth
        self.outer = current.get()
        self.helper: Helper | None = None

    def run(self) -> None:
        """Take turns until the batch is full, the mailbox is empty, or a retry holds it."""
        job, record, gate, now = self.job, self.record, self.job.lock, self.now
        notices = job.notices.waiting
        left, thread, inside = BATCH, self.thread, gate.inside
        current.set(self)
        try:
            with gate:
                activation = self.following(True)
            if notices:
                job.tell()
            while activation is not None:
                slot = activation.slot
                if slot.on_loop:
                    job.hand_over(activation)
                    break
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
                if self.touched:
                    error = self.commit_changes(error)
                at = now()
                self.activation = None
                if error is not None:
                    activation = self.commit_failure(activation, at, error, left > 1)
                    error = None  # it refers to this frame
                else:
                    spent = at - activation.started - self.nested
                    try:
                        if inside.setdefault(INSIDE, thread) is not thread:
                            gate.enter(thread)
                        if record.running.get(activation.id) is activation:
                            if self.held:
                                self.release(activation, self.held)
                            entry = ended(record, activation, "completed", spent, at, None, False, self.finish_with)
                            if job.listening.everything:
                                self.note_end(activation, "completed", spent, at, None, entry)
                        activation = self.following(left > 1)
                    finally:
                        if INSIDE in inside and inside[INSIDE] is thread:
                            inside.clear()
                            if gate.waiting:
                                gate.ring()
                if notices:
                    job.tell()
                    if activation is not None:
                        activation.started = now()  # its time begins after the listeners'
                left -= 1
                if self.touched:
                    self._forget()
        finally:
            current.set(self.outer)
            if self.helper is not None:
                self.helper.close()

    def following(self, more: bool) -> Activation | None:
        """Start the next activation of the mailbox, or give up its ticket. The caller holds the lock."""
        job, record, now = self.job, self.record, self.now
        activation = None
        if self.life == record.life:
            activation = began(record, self.mailbox, now(), self.thread) if more else None
            if activation is None:
                released(record, self.mailbox)
            elif job.listening.everything:
                job.note_attempt(activation)
        if record.gathers is not None and (record.on_loop or record.ready):  # the end of one may complete a join
            job.call()
        if job.pressed or job.easing or job.editors or not record.open:
            job.settle()
        return activation

    def _forget(self) -> None:
        self.forget_state()
        self.nested = 0
        self.finish_with = None

    def _handle(self, slot: SlotPlan, activation: Activation) -> None:
        """Call the handler of a slot that asks for more than the plain payload."""
        arguments = self.arguments(slot, activation)
        handler = slot.binding.handler if not slot.resources else partial(self._handle_with_resources, slot)
        if slot.timeout is None:
            handler(**arguments)
        else:
            self._handle_timed(slot, handler, arguments, slot.timeout)

    def _handle_with_resources(self, slot: SlotPlan, /, **arguments: Any) -> None:
        """Call a handler that is given resources, unless nobody waits for it any more when they are there."""
        activation, record = self.acting("a handler with resources"), self.record
        for parameter, factory in slot.resources:
            arguments[parameter] = self.job.flow.resources.get(factory, self.job.engine)
        if not record.closed and record.running.get(activation.id) is activation:
            slot.binding.handler(**arguments)

    def _handle_timed(
        self, slot: SlotPlan, handler: Callable[..., Any], arguments: dict[str, Any], timeout: float
    ) -> None:
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
            call = helper.start(handler, arguments)
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
            self.thread = get_ident()
            self.drop_state()  # the handler goes on, and may be about to commit it
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
        raise self.time_is_up(slot)

    def effects(self) -> Callable[[Effect], Any]:
        """Return what does, on this thread, what an operation of ``ctx.step`` asks for."""
        return self._perform

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Do):
            return effect.work()
        if isinstance(effect, Call):
            return called(self.job, effect)
        if isinstance(effect, Sleep):
            return self.job.sleep(effect.seconds)
        return self.no_wait(effect.name)

    def relieve(self) -> None:
        """Help to shorten the queue, or wait until others have, before the handler may go on emitting."""
        job, record, activation = self.job, self.record, self.activation
        since = self.pressed()
        try:
            limit = job.max_pending
            while True:
                bell = None
                with job.lock:
                    if record.queued <= limit or not record.open:
                        return
                    if activation is None or record.running.get(activation.id) is not activation:
                        return  # it was given up, and the job may have been resumed since
                    mailbox = job.take_nested() if self.depth < DEEPEST else None
                    if mailbox is None:
                        if job.stuck:
                            return
                        bell = threading.Event()
                        job.pressed.append(bell)
                        limit = job.enough_room
                if mailbox is not None:
                    type(self)(job, mailbox, self.depth + 1).run()
                elif bell is not None:
                    with job.engine.pool.sleeping():
                        bell.wait()
        finally:
            with job.lock:
                job.emitting -= 1
                self.nested += job.now() - since
                self.touched = True
                self.nested_since = None
            if self.helper is not None:
                self.helper.stir()
