"""The durable jobs of an engine: how they begin, are found again in the store, and end.

The engine is an owner in the sense of `store.base`: its name tells which process it belongs to, so that another process
on the same machine can see that it is dead. A job that runs here is owned by it; a thread renews its lease for as long
as the engine is open.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from pydantic_core import to_json

from ..core.commits import go_on, unfinished
from ..core.fold import apply
from ..core.job_record import JobRecord
from ..core.points import Answered, Published, Wait
from ..core.scheduling import list_waiting
from ..core.status import JobStatus
from ..errors import (
    ExecutionError,
    PoisonError,
    RecoveryError,
    RoutiluxError,
    StaleWriterError,
    StoreError,
)
from ..graph.compatibility import as_it_was, differences, fingerprint, shape_of
from ..store.base import Claimed, FactStore, Inbox, JobHead
from ..store.documents import read_snapshot, recovered, snapshot_document
from ..store.fact_reading import FactReader
from ..store.journal import Journal, open_journal
from ..store.known_types import KnownTypes
from ..store.reading import Reader
from ..store.record_writing import snapshot as copy_of_record
from ..store.values import Writer
from .crew import Hooks
from .dispatcher import make_loop
from .durable_job import DurableJob
from .durable_turn import DurableTurn
from .foreign_job import ForeignJob
from .holding import refuse_inside, refuse_on_loop
from .invoking import answer_of
from .job import PARENT_CANCELLED, Job
from .processes import is_dead, owner_name
from .timers import Timer
from .write_behind import WriteBehind

__all__ = ["Keeping", "WriteBehind"]

logger = logging.getLogger("routilux")
WAKE_AGAIN = 1_000_000_000  # nanoseconds, after which a job that could not be read when it was due is read again
UNFINISHED = ("pending", "running", "waiting", "paused")
RESUMABLE = (*UNFINISHED, "failed")
FATAL_DEATHS = 3  # after one death fewer a job is run alone


class Loaded(NamedTuple):
    """A job as the store has it. ``shape`` is that of its flow when the last snapshot was made."""

    record: JobRecord
    journal: Journal
    origin: str
    shape: dict[str, Any]


class Sleeper(NamedTuple):
    """A job that waits, of which nothing else is in memory: for what, and the timer that wakes it."""

    flow: Any
    head: JobHead
    waits: tuple[Wait, ...]
    timer: Timer | None


class Keeping:
    """The durable jobs of one engine.

    Args:
        engine: the engine.
        store: where they are kept.
        lease: for how many seconds the engine owns its jobs after it was last heard of.
        patience: for how many seconds a store is asked again when it cannot do what it is asked for.
        detect_poison: whether jobs that take their processes with them are set apart.
    """

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float, *, detect_poison: bool) -> None:
        self.engine = engine
        self.store = store
        self.lease = lease
        self.patience = patience
        self.detect_poison = detect_poison
        self.owner = owner_name()
        self.flows: dict[str, Any] = {}
        self.live: weakref.WeakValueDictionary[str, DurableJob] = weakref.WeakValueDictionary()
        self.held: dict[str, DurableJob] = {}
        self.sleepers: dict[str, Sleeper] = {}
        self.suspects: list[DurableJob] = []
        self._alone: DurableJob | None = None  # the suspect that has run last
        self._waking = threading.Lock()
        self._due: deque[str] = deque()  # jobs that sleep and whose time has come
        self.process = os.getpid()
        self._lock = threading.Lock()
        self._renewing: threading.Thread | None = None

    # --- owning -------------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.engine.clock.time_ns() / 1e9  # type: ignore[no-any-return]

    def claim(self, jobs: list[str]) -> list[Claimed]:
        """Renew the lease, and own those of these jobs that nobody owns who lives."""
        self._renew_from_now_on()
        now = self.now()
        dead = set()
        if jobs:
            wanted = set(jobs)
            owners = {head.owner for head in self.store.heads(statuses=RESUMABLE) if head.job_id in wanted}
            dead = {owner for owner in owners if owner is not None and is_dead(owner)}
        return self.store.claim(self.owner, now + self.lease, now, jobs, sorted(dead))

    def _renew_from_now_on(self) -> None:
        with self._lock:
            if self._renewing is None:
                thread = threading.Thread(target=self._renew, name="routilux-lease", daemon=True)
                self._renewing = thread
                thread.start()

    def _renew(self) -> None:
        while not self.engine.closing.wait(self.lease / 3):
            now = self.now()
            try:
                self.store.claim(self.owner, now + self.lease, now)
            except StoreError:  # commits will tell
                pass

    # --- beginning ----------------------------------------------------------------------------------------------------

    def begin(self, flow: Any, record: JobRecord, owned: bool) -> Job:
        """Keep a new record, which has been started, and return its job; or the job with this id that there is.

        With ``owned`` False the job is left to whoever claims it, and does not run here.

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
        origin = _origin(record)
        try:
            journal.append([self._document(flow, record, origin)], head)
        except StaleWriterError:
            return self._existing(flow, record.job_id, origin, owned)
        if not owned:
            self._offer(record.job_id)
            return self._elsewhere(flow, record)
        job = self.adopt(flow, record, journal, head, origin)
        self.hold(job)
        job.note_began()
        return job

    def _offer(self, job_id: str) -> None:
        """Tell whoever serves of a job that nobody runs; without that, it is found when they look for such jobs."""
        try:
            if isinstance(self.engine.store, Inbox):
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
        return live if live is not None else self._elsewhere(flow, loaded.record)

    def _document(self, flow: Any, record: JobRecord, origin: str) -> bytes:
        values = Writer(f"flow {flow.flow_id!r}: job {record.job_id!r}", flow.known_types, None)
        return snapshot_document(record, values, flow.version, shape_of(flow.plan()), origin)

    def adopt(self, flow: Any, record: JobRecord, journal: Journal, head: JobHead, origin: str) -> DurableJob:
        """Return the job of a record whose journal is open."""

        def snapshot(job: Job) -> bytes:
            with job.lock:
                copied = copy_of_record(job.record)
            return self._document(flow, copied, origin)

        def hooks(used: Hooks) -> Hooks:
            def rested(job: Any) -> None:
                used.on_rest(job)
                self.rested(job)

            return used._replace(turn=DurableTurn, serve=serve, on_rest=rested)

        job: DurableJob = flow._jobs.job_for(
            record,
            self.engine,
            DurableJob,
            hooks,
            journal=journal,
            head=head,
            keeper=self,
            snapshot=snapshot,
            patience=self.patience,
        )
        return job

    def restored(self, flow: Any, record: JobRecord) -> DurableJob:
        """Return the job of a record that was saved to a file; the store has it once something is kept of it."""
        now = self.now()
        head = JobHead(record.job_id, flow.flow_id, str(record.status), now, now, self.owner, 1)
        return self.adopt(flow, record, Journal(self.store, record.job_id, 1), head, "a file")

    def begun(self, job: DurableJob) -> None:
        """Hold a job that was restored, and is about to be in the store."""
        if self._renewing is None:
            self.claim([])
        if not job.record.status.ended:
            self.hold(job)

    def _elsewhere(self, flow: Any, record: JobRecord) -> Job:
        """Return a job that does not run here."""
        unfinished(record)
        job: Job = flow._jobs.job_for(record, self.engine, ForeignJob)
        return job

    def hold(self, job: DurableJob) -> None:
        """Keep a job that runs here."""
        with self._lock:
            self.live[job.record.job_id] = self.held[job.record.job_id] = job

    def rested(self, job: DurableJob) -> None:
        """A job has come to rest: it need not be kept, unless it may go on. The caller holds the job's lock."""
        if not job.record.status.ended and job.halted is None:
            parent = self.live.get(job.record.parent_job_id or "")
            if parent is not None:  # which may have come to rest with it
                self.engine.committers.submit(parent.look_whether_at_rest)
            return
        with self._lock:
            if self.held.get(job.record.job_id) is job:
                del self.held[job.record.job_id]
        if job.record.status.ended and job.record.parent_job_id is not None and job.halted is None:
            self.engine.committers.submit(lambda: self.tell_parent(job))
        if self.suspects:
            self.engine.committers.submit(self.run_suspect)

    # --- sleeping -----------------------------------------------------------------------------------------------------

    def put_to_sleep(self, job: DurableJob) -> None:
        """Let go of a job that waits until what it waits for comes; the store has all of it.

        Whoever has its state, or is inside ``execute``, keeps the object alive, which is woken then. The caller holds
        the job's lock.
        """
        job_id, waits = job.record.job_id, [each.wait for each in job.record.waiting.values() if each.wait is not None]
        with self._lock:
            if self.held.get(job_id) is not job or job in self.suspects:
                return
            del self.held[job_id]
            for each in job.timers.values():
                each.cancel()
            job.timers.clear()
            dues = [wait.due for wait in waits if wait.due is not None]
            timer: Timer | None = None
            if dues:
                timer = self.engine.timers.at(min(dues), partial(self._time_came, job_id))
            self.sleepers[job_id] = Sleeper(job.flow, job.head, tuple(waits), timer)
        job.flow._jobs.forget(job)

    def awake(self, job: DurableJob) -> None:
        """Keep a job that sleeps, because somebody works for it."""
        if job.record.job_id not in self.sleepers:
            return
        job.flow._jobs.count(job)  # which its flow refuses when it was shut down
        with self._lock:
            sleeper = self.sleepers.pop(job.record.job_id, None)
            if sleeper is None:
                return
            if sleeper.timer is not None:
                sleeper.timer.cancel()
            self.held[job.record.job_id] = job
        job.go_on()

    def _time_came(self, job_id: str) -> None:
        """Have a job that sleeps woken soon; those whose time has come are woken in the order in which it has."""
        self._due.append(job_id)
        self.engine.committers.submit(self._wake_next)

    def _wake_next(self) -> None:
        """Wake the job whose time came first; while the store cannot be read, try again."""
        with self._waking:
            job_id = self._due.popleft()
            try:
                self._found(job_id)
            except StoreError:
                if not self.engine.closing.is_set():
                    again = self.engine.clock.monotonic_ns() + WAKE_AGAIN
                    self.engine.timers.at(again, partial(self._time_came, job_id))
            except RoutiluxError as error:
                logger.warning("job %r, whose time has come, cannot go on: %s", job_id, error)

    def find(self, job_id: str) -> DurableJob | None:
        """Return a job that runs here, after waking it when it sleeps; None when it does not run here."""
        with self._waking:
            return self._found(job_id)

    def _found(self, job_id: str) -> DurableJob | None:
        """Do what `find` does. The caller holds ``_waking``."""
        job = self._asleep(job_id)
        if job is None:
            return self.held.get(job_id)
        self.awake(job)
        return job

    def leave(self, flow: Any) -> None:
        """Let go of the jobs of a flow that was shut down, so that they can go on elsewhere."""
        flow_id = flow.flow_id
        closed = ExecutionError(
            f"flow {flow_id!r} was shut down; an engine with the same store can recover the job with a new Flow"
        )
        with self._lock:
            sleepers = [job_id for job_id, sleeper in self.sleepers.items() if sleeper.flow is flow]
            for job_id in sleepers:
                timer = self.sleepers.pop(job_id).timer
                if timer is not None:
                    timer.cancel()
            held = [job for job in self.held.values() if job.flow is flow]
            if self.flows.get(flow_id) is flow:
                del self.flows[flow_id]
        awake = [self.live[job_id] for job_id in sleepers if job_id in self.live]
        for job in [*held, *awake]:
            job.halt(closed)
        self.engine.timers.prune()
        left = [*sleepers, *(job.record.job_id for job in held)]
        if left and not self.engine.closing.is_set():
            try:
                self.store.let_go(self.owner, left)
            except StoreError:  # the lease runs out by itself
                pass

    def here(self, job_id: str) -> DurableJob | None:
        """Return a job that runs here, or rests and is in memory, without waking it; None when there is none."""
        with self._waking:
            job = self.live.get(job_id)
            return job if job is not None and job.halted is None else self._asleep(job_id)

    def _asleep(self, job_id: str) -> DurableJob | None:
        """Return a job that sleeps here. The caller holds ``_waking``."""
        sleeper = self.sleepers.get(job_id)
        job = self.live.get(job_id) if sleeper is not None else None
        if sleeper is not None and job is None:
            loaded = self.load(sleeper.flow, sleeper.head, allow_changes=True)
            unfinished(loaded.record)
            job = self.adopt(sleeper.flow, loaded.record, loaded.journal, sleeper.head, loaded.origin)
            self.live[job_id] = job
        return job

    # --- telling others -----------------------------------------------------------------------------------------------

    def tell_parent(self, job: Job) -> None:
        """Tell the job that waits for this one how it has ended."""
        parent_id, answer = job.record.parent_job_id or "", answer_of(job)
        try:
            parent = self.find(parent_id)
            if parent is not None:
                self.answer(parent, job.record.job_id, answer)
            else:
                self.send([(parent_id, message(do="answer", job=job.record.job_id, answer=answer))])
        except RoutiluxError:  # whoever recovers the parent looks for itself
            pass

    def answer(self, parent: DurableJob, job_id: str, answer: Mapping[str, Any], message: int = 0) -> None:
        """Give a job the answer of one that it waits for."""
        for delivery, activation in list(parent.record.waiting.items()):
            if activation.wait is not None and job_id in activation.wait.jobs:
                parent.answer(Answered(delivery, job_id, answer))
                return

    def begun_to_wait(self, parent: DurableJob, children: tuple[str, ...]) -> None:
        """See to it that a job hears of those that have ended before it began to wait for them."""

        def look() -> None:
            try:
                self.look_after(parent, children)
            except RoutiluxError:  # the parent halts, or whoever recovers it looks for itself
                pass

        self.engine.committers.submit(look)

    def cancel_children(self, job: DurableJob) -> None:
        """Cancel the jobs that a job's handlers have started, as far as they run here."""
        for job_id in [*self.held, *self.sleepers]:
            child = self.find(job_id) if job_id.startswith(f"{job.record.job_id}/") else None
            if child is not None and child.record.parent_job_id == job.record.job_id:
                try:
                    child.cancel_unless_ended(PARENT_CANCELLED)
                except RoutiluxError:  # it has halted
                    pass

    def moves(self, jobs: tuple[str, ...]) -> bool:
        """Whether one of these jobs will go on by itself, or has ended."""
        return any(map(self._moves, jobs))

    def _moves(self, job_id: str) -> bool:
        job, sleeper = self.live.get(job_id), self.sleepers.get(job_id)
        if job is not None:
            return not job.at_rest or job.record.status.ended
        if sleeper is None:  # another process has it
            return True
        return go_on(sleeper.waits, self.moves)

    # --- finding again ------------------------------------------------------------------------------------------------

    def load(self, flow: Any, head: JobHead, *, allow_changes: bool = False) -> Loaded:
        """Return a job as the store has it.

        Raises:
            RecoveryError: when the flow is not what it was; with ``allow_changes``, only for another ``version``.
            LoadError: when the journal is damaged.
            StoreError: when the store cannot be read.
        """
        journal, snapshot, bodies = open_journal(self.store, head.job_id, head.epoch)
        clock = self.engine.clock
        epoch = clock.time_ns() - clock.monotonic_ns()
        name = f"flow {flow.flow_id!r}: job {head.job_id!r}"
        values = Reader(name, flow.known_types, None)
        document = read_snapshot(snapshot, values)
        changes = differences(document["shape"], shape_of(flow.plan()))
        if changes and not allow_changes:
            raise RecoveryError(
                f"{name} was made by a flow that has changed since: {'; '.join(changes)}. Run it with the flow as it "
                f"was, or allow the changes: engine.recover(allow_changes=True)"
            )
        if document["flow_version"] != flow.version and not allow_changes:
            raise RecoveryError(
                f"{name} was made by version {document['flow_version']!r} of the flow, and this is version "
                f"{flow.version!r}; run it with that version, or allow it: engine.recover(allow_changes=True)"
            )
        shape, origin = document["shape"], document["origin"]
        plan = as_it_was(flow.plan(), shape) if changes else flow.plan()
        found = recovered(document, plan, values, document["flow_version"], epoch, flow.history_limit)
        facts = FactReader(plan, found.slots, values, epoch)
        for body in bodies:
            apply(found.record, facts.read(body))
        if changes:  # the record goes on under the flow as it is
            document = read_snapshot(self._document(flow, copy_of_record(found.record), origin), values)
            found = recovered(document, flow.plan(), values, flow.version, epoch, flow.history_limit)
        return Loaded(found.record, journal, origin, shape)

    def taken_up(self, flow: Any, claimed: Claimed, *, allow_changes: bool = False) -> DurableJob:
        """Return a job that was claimed, ready to go on where it was."""
        loaded = self.load(flow, claimed.head, allow_changes=allow_changes)
        record = loaded.record
        unfinished(record)
        list_waiting(record)
        job = self.adopt(flow, record, loaded.journal, claimed.head, loaded.origin)
        if fingerprint(loaded.shape) != fingerprint(shape_of(flow.plan())):
            with job.commits:  # facts name slots as the last snapshot counts them
                job.compact()
        return job

    def recover(self, *, allow_changes: bool = False, jobs: Iterable[str] | None = None) -> list[DurableJob]:
        """Go on with the jobs of registered flows that nobody runs, all or some; see `Engine.recover`."""
        wanted = None if jobs is None else set(jobs)
        found = [
            head
            for head in self.store.heads(statuses=UNFINISHED if wanted is None else RESUMABLE)
            if head.flow_id in self.flows
            and not self.runs_here(head.job_id)
            and (wanted is None or head.job_id in wanted)
        ]
        claimed = self.claim([head.job_id for head in found if head.owner != self.owner])
        # What came to rest here, or could not go on for want of room, is this engine's still.
        claimed += [Claimed(head._replace(deaths=0), 0) for head in found if head.owner == self.owner]
        taken: list[tuple[DurableJob, int]] = []
        try:
            for each in claimed:
                flow = self.flows[each.head.flow_id]
                job = self.taken_up(flow, each, allow_changes=allow_changes)
                taken.append((job, each.head.deaths))
        except RoutiluxError:
            self.store.let_go(self.owner, [each.head.job_id for each in claimed])
            raise
        for job, deaths in taken:
            if job.record.status is JobStatus.FAILED:  # it rests until it is resumed
                self.live[job.record.job_id] = job
                continue
            self.hold(job)
            if deaths >= FATAL_DEATHS and self.detect_poison:
                self.poisoned(job, deaths)
            elif deaths == FATAL_DEATHS - 1 and self.detect_poison:
                self.suspects.append(job)
            else:
                self.go_on(job)
        self.run_suspect()
        return [job for job, _ in taken]

    def taken_over(self, job: Job) -> Job:
        """Return a job that did not run here and is to be resumed: itself if another process has it, else one here."""
        job_id = job.record.job_id
        taken = self.recover(jobs=[job_id])
        return taken[0] if taken else self.find(job_id) or job

    def go_on(self, job: DurableJob) -> None:
        """Let the handlers of a job that was taken up start."""
        job.flow._jobs.count(job)
        for activation in list(job.record.waiting.values()):
            if activation.wait is not None:
                self.look_after(job, activation.wait.jobs)
        job.go_on()

    def look_after(self, parent: DurableJob, children: Iterable[str]) -> None:
        """Tell a job that has begun to wait for others, or was taken up, how those of them that have ended did so."""
        for child in children:
            live = self.live.get(child)
            if live is not None and live.halted is None:
                if live.record.status.ended:
                    self.answer(parent, child, answer_of(live))
                continue
            for head in self.store.heads(job_id=child):
                if JobStatus(head.status).ended:
                    self.answer(parent, child, answer_of(self.foreign(head)))

    def run_suspect(self) -> None:
        """Let a job that may be poison run, if nothing else does."""
        with self._lock:
            busy = any(job.record.status is JobStatus.RUNNING for job in self.held.values() if job not in self.suspects)
            job = self.suspects.pop(0) if self.suspects and not busy else None
            self._alone = job or self._alone
        if job is not None:
            self.go_on(job)

    @property
    def set_apart(self) -> bool:
        """Whether a job runs alone, or is going to, so that no others are to be taken up."""
        alone = self._alone
        runs = alone is not None and alone.record.status is JobStatus.RUNNING and alone.halted is None
        return runs or bool(self.suspects)

    def poisoned(self, job: DurableJob, deaths: int) -> None:
        """Fail a job that took several processes with it."""
        error = PoisonError(
            f"{job.subject}: the last {deaths} processes that ran it died before it got anywhere, the last one while "
            f"it ran nothing else; find out what kills them, then resume the job"
        )
        job.fail_as_poison(error)

    def runs_here(self, job_id: str) -> bool:
        """Whether a job runs, or sleeps, here."""
        return job_id in self.held or job_id in self.sleepers

    # --- looking ------------------------------------------------------------------------------------------------------

    def head_of(self, job_id: str) -> JobHead:
        """Return what the store knows of a job at a glance. Raises ExecutionError when it is not there."""
        for head in self.store.heads(job_id=job_id):
            return head
        raise ExecutionError(f"the store has no job {job_id!r}")

    def get(self, job_id: str) -> Job:
        """Return a job: the one that runs here, or one as the store has it."""
        job = self.here(job_id)
        return job if job is not None else self.foreign(self.head_of(job_id))

    def is_final(self, job_id: str) -> bool:
        """Whether a job has ended and cannot be resumed, or is gone."""
        heads = self.store.heads(job_id=job_id)
        return not heads or heads[0].status in ("completed", "cancelled")

    def seen_here(self, job_id: str) -> Job | None:
        """Return a job that runs here, or what one that sleeps here looks like, without waking it."""
        job, sleeper = self.live.get(job_id), self.sleepers.get(job_id)
        return job if job is not None or sleeper is None else self.foreign(sleeper.head)

    def foreign(self, head: JobHead) -> Job:
        """Return a job as the store has it, which does not run here."""
        flow = self.engine.flow_of(head.flow_id)
        loaded = self.load(flow, head, allow_changes=True)
        return self._elsewhere(flow, loaded.record)

    def refresh(self, job: Job) -> bool:
        """Bring the record of a job that runs elsewhere up to date; return whether it has ended."""
        head = self.head_of(job.record.job_id)
        if not JobStatus(head.status).ended:
            return False
        record = self.load(job.flow, head, allow_changes=True).record
        with job.lock:
            for name in record.__slots__:
                setattr(job.record, name, getattr(record, name))
        return True

    # --- telling ------------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: Any, job_id: str | None) -> int:
        """Give an event to one job, or to all that wait for it; see `Engine.publish`."""
        if job_id is not None:
            job = self.find(job_id)
            here, heads = ([job], []) if job is not None else ([], [self.head_of(job_id)])
        else:
            asleep = [
                self.find(name)
                for name, each in list(self.sleepers.items())
                if any(topic == wait.topic for wait in each.waits)
            ]
            here = [job for job in list(self.held.values()) if job.awaits(topic)]
            here += [job for job in asleep if job is not None and job not in here]
            heads = [head for head in self.store.heads(statuses=UNFINISHED) if not self.runs_here(head.job_id)]
        keep = job_id is not None
        for job in here:
            job.publish(Published(topic, job.encode(payload, f"the event {topic!r}"), keep))
        if heads:
            messages = []
            for head in heads:
                form = self._form(head, payload, topic)
                messages.append((head.job_id, message(do="publish", topic=topic, form=form, keep=keep)))
            self.send(messages)
        return len(here) + len(heads)

    def _form(self, head: JobHead, payload: Any, topic: str) -> Any:
        flow = self.flows.get(head.flow_id)
        where = f"flow {head.flow_id!r}: job {head.job_id!r}"
        known = flow.known_types if flow is not None else lambda: KnownTypes(where)
        return Writer(where, known, None).value(payload, f"the event {topic!r}")

    def tell(self, job_id: str, **what: Any) -> None:
        """Ask something of a job that runs elsewhere."""
        self.send([(job_id, message(**what))])

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        """Send messages to jobs that run elsewhere. Raises StoreError when the store has no inbox."""
        store = self.engine.store
        if not isinstance(store, Inbox):
            raise StoreError(f"{type(store).__name__} has no inbox, through which other processes could be reached")
        store.send(messages)

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
        for job in list(self.held.values()):
            bell = threading.Event()
            job.hold(bell)
            bell.wait(None if end is None else max(end - time.monotonic(), 0.0))
            job.halt(closed)
        self.held.clear()
        for sleeper in list(self.sleepers.values()):
            if sleeper.timer is not None:
                sleeper.timer.cancel()
        self.sleepers.clear()
        self.engine.timers.prune()
        try:
            self.store.let_go(self.owner)
        except StoreError:  # the lease runs out by itself
            pass

    def check_process(self) -> None:
        """Raise ExecutionError in a child process made by fork, which has the engine's memory and not its threads."""
        if os.getpid() != self.process:
            raise ExecutionError(
                "this engine belongs to the process that made it, and this is a child made by fork(): make a new "
                "Engine, with a store opened anew, in the child"
            )


def _origin(record: JobRecord) -> str:
    """Return what tells two jobs apart that began with something else."""
    waiting = next(iter(next(mailbox.queue for mailbox in record.mailboxes if mailbox.queue)))
    began = [waiting.slot.routine_id, waiting.slot.name, waiting.payload, record.shared, record.routine_states]
    form = to_json(
        began, fallback=lambda other: type(other).__qualname__, bytes_mode="base64", inf_nan_mode="constants"
    )
    return sha256(form).hexdigest()


def serve(job: Any) -> None:
    """Have the event loop start the coroutine handlers of a durable job that may start."""
    from .durable_tasks import DurableTaskTurn, start_tasks

    event_loop = job.engine.event_loop(make_loop)
    event_loop.call(start_tasks, job, event_loop, DurableTaskTurn)


def message(**parts: Any) -> bytes:
    """Return the body of a message to a job."""
    return orjson.dumps(parts)
