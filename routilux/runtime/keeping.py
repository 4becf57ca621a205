"""The durable jobs of an engine: how they begin and end.

What an engine has for its durable jobs is in layers: `owning` them, `loading` them, letting them go while they are
`sleeping`, `corresponding` with them, and `recovering` them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..core.job_record import JobRecord
from ..core.plan import SlotPlan
from ..core.status import JobStatus
from ..errors import ExecutionError, StaleWriterError, StoreError
from ..store.base import Inbox, JobHead, fits
from ..store.journal import Journal
from .durable_job import DurableJob
from .holding import refuse_inside, refuse_on_loop
from .job import Job
from .messages import message
from .origin import origin_of
from .recovering import Recovering
from .write_behind import WriteBehind

__all__ = ["Keeping", "WriteBehind"]

logger = logging.getLogger("routilux")


class Keeping(Recovering):
    """The durable jobs of one engine.

    Args:
        engine: the engine.
        store: where they are kept.
        lease: for how many seconds the engine owns its jobs after it was last heard of.
        patience: for how many seconds a store is asked again when it cannot do what it is asked for.
        detect_poison: whether jobs that take their processes with them are set apart.
    """

    # --- beginning ----------------------------------------------------------------------------------------------------

    def begin(
        self,
        flow: Any,
        record: JobRecord,
        entry: SlotPlan,
        payload: dict[str, Any],
        owned: bool,
        listen: Callable[[DurableJob], object],
    ) -> Job:
        """Keep a new record, which has been started, and return its job; or the job with this id that there is.

        Args:
            flow: the flow.
            record: the record.
            entry: the slot that it begins with.
            payload: that of the first delivery.
            owned: whether it runs here; else it is left to whoever claims it.
            listen: is given a new job before anything is told of it.

        Raises ExecutionError when there is such a job, and it began with something else.
        """
        self.check_process()
        self.engine.register(flow)
        if owned and self._renewing is None:
            self.claim([])
        now = self.now()
        owner = self.owner if owned else None
        head = JobHead(record.job_id, flow.flow_id, str(record.status), now, now, owner, 1 if owned else 0)
        journal = Journal(self.store, record.job_id, head.epoch)
        origin = origin_of(record, entry, payload)
        document = self.document(flow, record, origin)
        with self._beginning(record.job_id):
            try:
                self.patiently(lambda: journal.append([document], head))
            except StaleWriterError:
                pass
            else:
                if not owned:
                    self._offer(record.job_id)
                    return self.elsewhere(flow, record)
                job = self.adopt(flow, record, journal, head, origin)
                self.hold(job)
                listen(job)
                job.note_began()
                return job
        return self._existing(flow, record.job_id, origin, owned)

    def _offer(self, job_id: str) -> None:
        """Tell whoever serves of a job that nobody runs; without that, it is found when they look for such jobs."""
        try:
            if fits(self.engine.store, Inbox):
                self.send([(job_id, message(do="run"))])
        except StoreError as error:
            logger.warning("job %r was submitted, and nobody could be told: %s", job_id, error)

    def _existing(self, flow: Any, job_id: str, origin: str, owned: bool) -> Job:
        where = f"flow {flow.flow_id!r}: job {job_id!r}"
        head = self.head_of(job_id)
        if head.flow_id != flow.flow_id:
            raise ExecutionError(f"{where}: there is a job with this id already, of flow {head.flow_id!r}")
        loaded = self.load(flow, head, allow_changes=True)
        if loaded.origin != origin:
            raise ExecutionError(
                f"{where} was started before, with another payload, entry or initial state; give the new job an id of "
                f"its own, or start it with what it was started with to get its state"
            )
        if owned and not JobStatus(head.status).ended and not self.runs_here(job_id):
            self.recover(jobs=[job_id])  # its process has died, or nobody has taken it yet
        live = self.here(job_id)
        return live if live is not None else self.elsewhere(flow, loaded.record)

    def rested(self, job: DurableJob) -> None:
        """A job has come to rest: it need not be kept, unless it may go on. The caller holds the job's lock."""
        self.give_turn()
        if not job.record.status.ended:
            parent = self.live.get(job.record.parent_job_id or "")
            if parent is not None:  # which may have come to rest with it
                self.engine.committers.submit(parent.look_whether_at_rest)
            if job.halted is None:
                return
        with self._lock:
            if self.held.get(job.record.job_id) is job:
                del self.held[job.record.job_id]
        if job.record.status.ended and job.record.parent_job_id is not None and job.halted is None:
            self.engine.committers.submit(lambda: self.tell_parent(job))

    # --- the end ------------------------------------------------------------------------------------------------------

    def refuse_inside(self, what: str) -> None:
        """Raise ContextError inside a handler or listener of a job that runs here."""
        refuse_on_loop(what)
        for job in list(self.held.values()):
            refuse_inside(job, what)

    def close(self, timeout: float | None) -> None:
        """Let handlers return, start no more, and let go of all jobs."""
        closed = ExecutionError("the engine was closed; an engine with the same store can recover the job")
        end = None if timeout is None else time.monotonic() + timeout
        with self._alone_in_here():  # what was being taken up is held by now, and is let go of with the others
            self._leaving = True
        with self._lock:
            self.suspects.clear()
        while self.held:  # a handler that still runs may begin another job
            for job in list(self.held.values()):
                self.left.add(job.record.job_id)
                bell = threading.Event()
                job.hold(bell)
                if len(job.record.running) <= len(job.sleepers):  # the attempts of their steps are in the store
                    job.halt(closed)
                bell.wait(None if end is None else max(end - time.monotonic(), 0.0))
                job.halt(closed)
                with self._lock:
                    self.held.pop(job.record.job_id, None)
        for sleeper in list(self.sleepers.values()):
            if sleeper.timer is not None:
                sleeper.timer.cancel()
        asleep = [self.live[job_id] for job_id in self.sleepers if job_id in self.live]
        self.left.update(self.sleepers)
        self.sleepers.clear()
        for job in asleep:  # for which somebody may wait
            job.halt(closed)
        self.engine.timers.prune()
        try:
            self.store.let_go(self.owner)
        except StoreError:  # the lease runs out by itself
            pass
