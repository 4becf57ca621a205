"""Where the facts of durable jobs are kept: what a store promises, in bytes.

A store keeps, for each job, a journal: numbered entries from 1 without gaps, each an opaque piece of bytes. A snapshot
stands for all entries up to its number, which are forgotten then. Every job has a head, a few words that the store can
search, and at most one owner: the process that may append. Each time a job changes hands, its epoch grows by one, and
whoever still writes with an older epoch is refused. Owners hold a lease, which they renew; an owner whose lease ran out
loses its jobs to whoever claims them. Beside the journals is an inbox: messages for a job from whoever does not own it.

All methods may be called by any thread, also at the same time. When one returns, what it wrote is as durable as the
store is; when it raises, nothing of it was written. Times are seconds since 1970, and come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class JobHead(NamedTuple):
    """What a store knows of a job without understanding its entries.

    Attributes:
        job_id: the job.
        flow_id: its flow.
        status: where it was in its life after its last entry: ``"running"``, ``"completed"`` and so on.
        created: when it was made.
        updated: when its head was last written.
        owner: who may append to it; None when nobody does.
        epoch: how often it has changed hands.
        deaths: how many of its last owners in a row have lost it without having appended anything.
    """

    job_id: str
    flow_id: str
    status: str
    created: float
    updated: float
    owner: str | None = None
    epoch: int = 0
    deaths: int = 0


class Claimed(NamedTuple):
    """A job that was claimed.

    Attributes:
        head: its head as it is now.
        last: the number of its last entry.
    """

    head: JobHead
    last: int


class Message(NamedTuple):
    """What somebody has sent to a job.

    Attributes:
        number: grows from message to message, over all jobs.
        job_id: the job.
        body: what was sent.
    """

    number: int
    job_id: str
    body: bytes


class FactStore(Protocol):
    """A store of journals. Its methods are called by any thread, also at the same time.

    When one returns, what it wrote is as durable as the store is; when it raises, nothing of it was written. Times are
    seconds since 1970, and come from the caller. Every method raises StoreError when the store is closed or cannot do
    what it is asked for at the moment (the disk is full, the database is locked or damaged): the same call may succeed
    later.
    """

    def append(
        self, job_id: str, after: int, entries: Sequence[bytes], epoch: int, head: JobHead | None = None
    ) -> None:
        """Append entries to a job's journal as numbers ``after + 1`` and on, all or none.

        Args:
            job_id: the job.
            after: the number of its last entry; 0 begins a job, with the head that must be given then.
            entries: what to append; without any, only the head changes, and no job begins.
            epoch: the job's epoch, as the caller knows it; that of the head, for a new job.
            head: the job's head from now on, when it has changed; its owner, epoch and deaths count only for a new job.

        Raises:
            StaleWriterError: unless the job has this epoch and this last entry; with ``after`` 0, when there is such a
                job already.
        """

    def read(self, job_id: str) -> tuple[int, bytes | None, list[bytes]]:
        """Return a job's snapshot with the number that it stands for (0 and None without one), and all entries after.

        Raises StoreError when there is no such job, or entries are missing.
        """

    def put_snapshot(self, job_id: str, number: int, snapshot: bytes, epoch: int) -> None:
        """Let a snapshot stand for the entries up to ``number``, and forget them and the snapshot before.

        Raises StaleWriterError unless the job has this epoch; StoreError when the job has no such entry, or a later
        snapshot.
        """

    def heads(
        self, *, job_id: str | None = None, flow_id: str | None = None, statuses: Iterable[str] | None = None
    ) -> list[JobHead]:
        """Return the heads of all jobs that fit, by the time at which they were made, then by id."""

    def claim(
        self, owner: str, until: float, now: float, jobs: Sequence[str] = (), dead: Sequence[str] = ()
    ) -> list[Claimed]:
        """Renew the lease of an owner, and make it the owner of those of these jobs that are free.

        A job is free when nobody owns it, or its owner's lease ended before ``now`` (or never began), or the owner is
        among the ``dead``, whose leases end with this call. Each job that is claimed gets the next epoch. It counts no
        deaths when there were entries since it was last claimed (or made). Without any, it counts one death more when
        it was lost (not let go), with a status other than ``"waiting"`` or ``"paused"``, and keeps its count when it
        was let go, waited or was paused. Jobs that are not free, or not there, are left out; so are jobs that the owner
        has already, whose epoch stays.

        Returns what was claimed, in the order in which it was asked for.
        """

    def let_go(self, owner: str, jobs: Sequence[str] | None = None) -> None:
        """Have an owner own these jobs no longer; with None, none at all, and end its lease."""

    def prune(self, statuses: Iterable[str], before: float, keep: int | None = None) -> int:
        """Remove the jobs with one of these statuses whose heads were written before a time; return how many.

        With ``keep``, those jobs with one of these statuses are removed, too, that are not among the ``keep`` of them
        whose heads were written last. Their journals and messages go with them.
        """

    def close(self) -> None:
        """Let go of files and connections. A second call does nothing."""


class Inbox(Protocol):
    """Messages to jobs from those who do not own them; a store that has these methods, too, connects processes."""

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Keep messages, each with the id of the job that it is for, all or none. Raises StoreError for no such job."""

    def receive(self, after: int) -> list[Message]:
        """Return all messages with a number above ``after``, in the order of their numbers."""

    def discard(self, numbers: Sequence[int]) -> None:
        """Remove messages."""


def fits(store: object, protocol: type) -> bool:
    """Whether a store has all methods of a protocol, be it by handing them on to another one."""
    return all(callable(getattr(store, name, None)) for name in vars(protocol) if not name.startswith("_"))
