"""What a job does so that those who listen hear of it; see `observation` for when they do."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core.history import Entry, with_data
from ..core.job_record import Activation, JobRecord
from ..core.listening import always, listening
from ..core.records import Began, Ended, Fact
from .audience import FAILED_ATTEMPT, LEVELS, Change, Notice, audience
from .crew import Crew, Hooks
from .observation import Notices
from .tape import Tape
from .threads import SharedThreads, here


class Informed(Crew):
    """A job whose listeners are told. For the arguments see `Job`.

    ``listening`` tells whether they are told everything. ``tape`` is there once somebody streams the job.
    """

    def __init__(
        self, flow: Any, record: JobRecord, engine: SharedThreads, max_workers: int, max_pending: int, hooks: Hooks
    ) -> None:
        super().__init__(flow, record, engine, max_workers, max_pending, hooks)
        self.now = engine.clock.monotonic_ns
        self.notices = Notices(hooks.tell)
        self.listening = listening
        self.tape: Tape | None = None
        self.woken: set[int] = set()  # deliveries whose attempts go on after a wait, if listeners have heard of these
        self._noted_status = record.status
        self._worker_tells = False  # a task that tells waits in the pool

    @property
    def at_rest(self) -> bool:
        """Whether no handler runs and none will until somebody changes the job, and everybody has heard so."""
        raise NotImplementedError

    def come_to_rest(self) -> None:
        """See to what is due when the job has come to rest. The caller holds the lock."""
        raise NotImplementedError

    def interrupted(self, error: BaseException) -> None:
        """Fail the job because of something that is not to be kept from stopping this thread."""
        raise NotImplementedError

    def taped(self, size: int) -> Tape:
        """Return the tape of the job, with room for at least so many facts: from now on, unless there was one."""
        with self.lock:
            if self.tape is None:
                self.tape, self.listening = Tape(), always
            self.tape.widen(size)
            return self.tape

    def hears(self, level: int) -> bool:
        """Whether anybody hears of what is logged at a level."""
        return self.listening.everything or audience.logs(level)

    def note(self, fact: Fact, activation: Activation | None = None, detail: Any = None) -> None:
        """Have listeners told of a fact, soon. The caller holds the lock, and tells after leaving it."""
        self.notices.waiting.append(Notice(self, fact, activation, detail, self.now()))

    def note_attempt(self, activation: Activation) -> None:
        """Have listeners told that an attempt has begun, soon, unless it goes on after a wait. The caller holds the
        lock, and tells after leaving it."""
        if activation.id in self.woken:
            self.woken.discard(activation.id)
        else:
            self.note(Began(activation.slot.mailbox, activation.started), activation)

    def note_status(self) -> None:
        """Have listeners told of a new status, soon. The caller holds the lock, and tells after leaving it."""
        record, was = self.record, self._noted_status
        status = record.status
        if status is not was:
            self._noted_status = status
            if self.hears(LEVELS[status]):
                change = Change(was, record.reason, record.failure, record.result)
                self.notices.waiting.append(Notice(self, status, None, change, self.now()))

    def note_given_up(self, activations: list[tuple[Activation, tuple[Any, ...]]]) -> None:
        """Have listeners told of activations that nobody waits for any more, soon. The caller holds the lock."""
        if activations and self.hears(FAILED_ATTEMPT):
            for activation, entry in activations:
                kept = Entry(*with_data(entry, activation.shown))
                fact = Ended(activation.id, kept.status, kept.duration, self.now(), kept.error, True, None)
                self.note(fact, activation, kept)

    def tell(self) -> None:
        """Tell listeners what was noted, if anything was; a worker thread does when others wait for this one.

        Called without the lock.
        """
        if self.notices.waiting and not (self._needed_by_all() and self._tell_on_worker()):
            self.tell_here()

    def _needed_by_all(self) -> bool:
        """Whether this thread must not wait for a listener: it is that of an event loop, of the timers, or commits."""
        return here.on_event_loop or self.engine.timers.is_here() or self.engine.committers.is_here()

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
                    self.come_to_rest()
