"""How durable jobs come out of the store, and into it as snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ..core.commits import unfinished
from ..core.deliveries import regather
from ..core.fold import apply
from ..core.job_record import JobRecord
from ..core.scheduling import list_waiting
from ..core.status import JobStatus
from ..errors import RecoveryError
from ..graph.compatibility import as_it_was, differences, fingerprint, shape_of
from ..store.base import FactStore, JobHead
from ..store.documents import read_snapshot, recovered, snapshot_document
from ..store.fact_reading import FactReader
from ..store.journal import Journal, open_journal
from ..store.reading import Reader
from ..store.record_copying import snapshot as copy_of_record
from ..store.values import Writer
from .clock import reading_of
from .dispatcher import make_loop
from .durable_job import DurableJob
from .durable_turn import DurableTurn
from .foreign_job import ForeignJob
from .job import Job
from .jobs import HOOKS
from .owning import Owning
from .patience import patiently

T = TypeVar("T")


class Loaded(NamedTuple):
    """A job as the store has it. ``changed``: its flow has another shape than when the last snapshot was made."""

    record: JobRecord
    journal: Journal
    origin: str
    changed: bool


class Loading(Owning):
    """Jobs between the store and the memory. For the arguments see `Keeping`."""

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float) -> None:
        super().__init__(engine, store, lease)
        self.patience = patience

    def patiently(self, act: Callable[[], T]) -> T:
        """Do something with the store, again for a while when it cannot do that; raise what it raises at last."""
        return patiently(act, self.patience, self.engine.closing.wait)

    def document(self, flow: Any, record: JobRecord, origin: str) -> bytes:
        """Return a record as a snapshot."""
        values = Writer(f"flow {flow.flow_id!r}: job {record.job_id!r}", flow.known_types, None)
        return snapshot_document(record, values, flow.version, shape_of(flow.plan()), origin)

    def adopt(self, flow: Any, record: JobRecord, journal: Journal, head: JobHead, origin: str) -> DurableJob:
        """Return the job of a record whose journal is open."""

        def snapshot(job: Job) -> bytes:
            with job.lock:
                copied = copy_of_record(job.record)
            return self.document(flow, copied, origin)

        job: DurableJob = flow._jobs.job_for(
            record,
            self.engine,
            DurableJob,
            DURABLE_HOOKS,
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

    def elsewhere(self, flow: Any, record: JobRecord) -> Job:
        """Return a job that does not run here."""
        unfinished(record)
        job: Job = flow._jobs.job_for(record, self.engine, ForeignJob)
        return job

    def load(self, flow: Any, head: JobHead, *, allow_changes: bool = False) -> Loaded:
        """Return a job as the store has it.

        Raises:
            RecoveryError: when the flow is not what it was; with ``allow_changes``, only for another ``version``.
            LoadError: when the flow lacks what the job still needs, or the journal is damaged.
            StoreError: when the store cannot be read.
        """
        journal, snapshot, bodies = open_journal(self.store, head.job_id, head.epoch)
        clock = self.engine.clock
        epoch = reading_of(clock)[1]
        name = f"flow {flow.flow_id!r}: job {head.job_id!r}"
        values = Reader(name, flow.known_types, None)
        document = read_snapshot(snapshot, values)
        changes = differences(document["shape"], shape_of(flow.plan()))
        failed = head.status == JobStatus.FAILED
        allowing = ("flow.resume(job_state, " if failed else "engine.recover(") + "allow_changes=True)"
        if changes and not allow_changes:
            raise RecoveryError(
                f"{name} was made by a flow that has changed since: {'; '.join(changes)}. Run it with the flow as it "
                f"was, or allow the changes: {allowing}"
            )
        if document["flow_version"] != flow.version and not allow_changes:
            raise RecoveryError(
                f"{name} was made by version {document['flow_version']!r} of the flow, and this is version "
                f"{flow.version!r}; run it with that version, or allow it: {allowing}"
            )
        shape, origin = document["shape"], document["origin"]
        changed = fingerprint(shape) != fingerprint(shape_of(flow.plan()))  # it may have more than it had, too
        plan = as_it_was(flow.plan(), shape) if changed else flow.plan()
        found = recovered(document, plan, values, document["flow_version"], epoch, flow.history_limit)
        facts = FactReader(plan, found.slots, values, epoch)
        for body in bodies:
            apply(found.record, facts.read(body))
        if changed:  # the record goes on under the flow as it is
            document = read_snapshot(self.document(flow, copy_of_record(found.record), origin), values)
            found = recovered(document, flow.plan(), values, flow.version, epoch, flow.history_limit)
        return Loaded(found.record, journal, origin, changed)

    def taken_up(self, flow: Any, head: JobHead, *, allow_changes: bool = False) -> DurableJob:
        """Return a job that was claimed, ready to go on where it was."""
        loaded = self.load(flow, head, allow_changes=allow_changes)
        record = loaded.record
        if loaded.changed:
            regather(record, self.engine.clock.monotonic_ns())
        unfinished(record)
        list_waiting(record)
        job = self.adopt(flow, record, loaded.journal, head, loaded.origin)
        if loaded.changed:
            with job.commits:  # facts name slots as the last snapshot counts them
                job.compact()
        return job

    def foreign(self, head: JobHead) -> Job:
        """Return a job as the store has it, which does not run here."""
        flow = self.engine.flow_of(head.flow_id, f"job {head.job_id!r} cannot be read: ")
        loaded = self.load(flow, head, allow_changes=True)
        return self.elsewhere(flow, loaded.record)

    def refresh(self, job: Job) -> bool:
        """Bring the record of a job that runs elsewhere up to date; return whether it has ended."""
        head = self.patiently(lambda: self.head_of(job.record.job_id))
        if not JobStatus(head.status).ended:
            return False
        record = self.load(job.flow, head, allow_changes=True).record
        with job.lock:
            for name in record.__slots__:
                setattr(job.record, name, getattr(record, name))
        return True


def serve(job: Any) -> None:
    """Have the event loop start the coroutine handlers of a durable job that may start."""
    from .durable_tasks import DurableTaskTurn, start_tasks

    event_loop = job.engine.event_loop(make_loop)
    event_loop.call(start_tasks, job, event_loop, DurableTaskTurn)


DURABLE_HOOKS = HOOKS._replace(turn=DurableTurn, serve=serve)
