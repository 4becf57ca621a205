"""A store in memory: as lasting as its process, and the shortest account of what every store does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from .base import Claimed, JobHead, Message
from .rules import (
    check_beginning,
    check_head,
    closed,
    deaths_when_claimed,
    no_such_job,
    stale_snapshot,
    stale_writer,
)

NAME = "memory store"


@dataclass(slots=True)
class _Journal:
    """One job. ``base`` is the number up to which the snapshot stands, ``claimed_at`` the last entry when claimed."""

    head: JobHead
    base: int = 0
    snapshot: bytes | None = None
    entries: list[bytes] = field(default_factory=list)
    claimed_at: int = 0

    @property
    def last(self) -> int:
        return self.base + len(self.entries)


class MemoryStore:
    """A store of facts and an inbox that live as long as the object does.

    It takes no arguments. Its methods are those of FactStore and Inbox.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._jobs: dict[str, _Journal] = {}
        self._leases: dict[str, float] = {}
        self._messages: dict[int, Message] = {}
        self._sent = 0
        self._closed = False

    def append(
        self, job_id: str, after: int, entries: Sequence[bytes], epoch: int, head: JobHead | None = None
    ) -> None:
        """Append entries to a job's journal; see FactStore."""
        with self._lock:
            self._check_open()
            added = [*entries]
            if after == 0 and job_id not in self._jobs:
                self._jobs[job_id] = _Journal(check_beginning(NAME, job_id, added, epoch, head), entries=added)
                return
            journal = self._current(job_id, epoch, after)
            if head is not None:
                check_head(NAME, job_id, head)
                old = journal.head
                journal.head = head._replace(owner=old.owner, epoch=old.epoch, deaths=old.deaths)
            journal.entries.extend(added)

    def read(self, job_id: str) -> tuple[int, bytes | None, list[bytes]]:
        """Return a job's snapshot with its number, and all entries after; see FactStore."""
        with self._lock:
            self._check_open()
            if job_id not in self._jobs:
                raise no_such_job(NAME, job_id)
            journal = self._jobs[job_id]
            return journal.base, journal.snapshot, [*journal.entries]

    def put_snapshot(self, job_id: str, number: int, snapshot: bytes, epoch: int) -> None:
        """Let a snapshot stand for the entries up to a number; see FactStore."""
        with self._lock:
            self._check_open()
            journal = self._current(job_id, epoch)
            if not max(journal.base, 1) <= number <= journal.last:
                raise stale_snapshot(NAME, job_id, number, journal.base, journal.last)
            del journal.entries[: number - journal.base]
            journal.base, journal.snapshot = number, snapshot

    def heads(
        self, *, job_id: str | None = None, flow_id: str | None = None, statuses: Iterable[str] | None = None
    ) -> list[JobHead]:
        """Return the heads of all jobs that fit; see FactStore."""
        wanted = None if statuses is None else set(statuses)
        with self._lock:
            self._check_open()
            fitting = [
                journal.head
                for journal in self._jobs.values()
                if (job_id is None or journal.head.job_id == job_id)
                and (flow_id is None or journal.head.flow_id == flow_id)
                and (wanted is None or journal.head.status in wanted)
            ]
        return sorted(fitting, key=lambda head: (head.created, head.job_id))

    def claim(
        self, owner: str, until: float, now: float, jobs: Sequence[str] = (), dead: Sequence[str] = ()
    ) -> list[Claimed]:
        """Renew an owner's lease and give it those of these jobs that are free; see FactStore."""
        with self._lock:
            self._check_open()
            for gone in dead:
                self._leases.pop(gone, None)
            self._leases[owner] = until
            claimed = []
            for job_id in jobs:
                journal = self._jobs.get(job_id)
                if journal is None or journal.head.owner == owner or not self._is_free(journal, now):
                    continue
                deaths = deaths_when_claimed(journal.head, journal.last > journal.claimed_at)
                journal.head = journal.head._replace(owner=owner, epoch=journal.head.epoch + 1, deaths=deaths)
                journal.claimed_at = journal.last
                claimed.append(Claimed(journal.head, journal.last))
            return claimed

    def let_go(self, owner: str, jobs: Sequence[str] | None = None) -> None:
        """Have an owner own these jobs, or any, no longer; see FactStore."""
        with self._lock:
            self._check_open()
            if jobs is None:
                self._leases.pop(owner, None)
            for job_id in self._jobs if jobs is None else jobs:
                journal = self._jobs.get(job_id)
                if journal is not None and journal.head.owner == owner:
                    journal.head = journal.head._replace(owner=None)

    def prune(self, statuses: Iterable[str], before: float, keep: int | None = None) -> int:
        """Remove jobs by status, and by age or number; see FactStore."""
        wanted = set(statuses)
        with self._lock:
            self._check_open()
            heads = [journal.head for journal in self._jobs.values() if journal.head.status in wanted]
            heads.sort(key=lambda head: (-head.updated, head.job_id))
            kept = len(heads) if keep is None else keep
            doomed = {head.job_id for place, head in enumerate(heads) if place >= kept or head.updated < before}
            for job_id in doomed:
                del self._jobs[job_id]
            self._messages = {
                number: message for number, message in self._messages.items() if message.job_id not in doomed
            }
            return len(doomed)

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Keep messages for jobs, all or none; see Inbox."""
        with self._lock:
            self._check_open()
            for job_id, _ in messages:
                if job_id not in self._jobs:
                    raise no_such_job(NAME, job_id)
            for job_id, body in messages:
                self._sent += 1
                self._messages[self._sent] = Message(self._sent, job_id, body)

    def receive(self, after: int) -> list[Message]:
        """Return all messages with a number above ``after``; see Inbox."""
        with self._lock:
            self._check_open()
            return [message for number, message in self._messages.items() if number > after]

    def discard(self, numbers: Sequence[int]) -> None:
        """Remove messages; see Inbox."""
        with self._lock:
            self._check_open()
            for number in numbers:
                self._messages.pop(number, None)

    def close(self) -> None:
        """Forget everything; see FactStore."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
            self._leases.clear()
            self._messages.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise closed(NAME)

    def _current(self, job_id: str, epoch: int, after: int | None = None) -> _Journal:
        """Return a job's journal for a writer that knows its epoch and, unless None, its last entry."""
        journal = self._jobs.get(job_id)
        believed = f"epoch {epoch}" if after is None else f"epoch {epoch} and entry {after}"
        if journal is None:
            raise stale_writer(NAME, job_id, believed, "no such job")
        if journal.head.epoch != epoch or (after is not None and journal.last != after):
            found = f"epoch {journal.head.epoch} of owner {journal.head.owner!r} and entry {journal.last}"
            raise stale_writer(NAME, job_id, believed, found)
        return journal

    def _is_free(self, journal: _Journal, now: float) -> bool:
        owner = journal.head.owner
        return owner is None or owner not in self._leases or self._leases[owner] < now
