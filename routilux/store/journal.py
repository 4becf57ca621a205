"""The journal of one job: the entries that a store keeps, sealed.

The seal of an entry is a checksum over its body that begins with the checksum of the entry before: an entry that was
changed, left out, or put elsewhere does not fit. What is lost at the end cannot be told from what was never written;
the rest is a consistent job. A snapshot names the entry that it stands for, and that one's checksum. The first entry of
a journal is the first snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from ..errors import LoadError
from .base import FactStore, JobHead

SEAL = Struct(">I")
PLACE = Struct(">QI")  # what a snapshot stands for: the number of an entry, and its checksum


class Mark(NamedTuple):
    """A place in a journal: behind an entry. ``written`` are the bytes appended up to there."""

    number: int
    chain: int
    written: int


class Journal:
    """The end of a job's journal, to which its owner appends. One thread at a time.

    Args:
        store: where it is kept.
        job_id: the job.
        epoch: the job's epoch.
        last: the number of the last entry; 0 for a new job.
        chain: the checksum of that entry; for a new job, that of `beginning`.

    Attributes:
        bytes_since_snapshot: how many bytes the entries after the last snapshot take.
    """

    def __init__(self, store: FactStore, job_id: str, epoch: int, last: int = 0, chain: int | None = None) -> None:
        self.store = store
        self.job_id = job_id
        self.epoch = epoch
        self.last = last
        self.chain = beginning(job_id) if chain is None else chain
        self.written = 0  # bytes, since this object was made, and of the entries that were read before that
        self._written_at_snapshot = 0
        self.bytes_since_snapshot = 0

    def append(self, bodies: Sequence[bytes], head: JobHead | None = None) -> None:
        """Append entries, all or none; the first of a new job must be a snapshot, and come with a head.

        Raises:
            StoreError: when the store does not take them, as `FactStore.append` says; the journal is where it was.
            ValueError: for an empty body.
        """
        chain, size = self.chain, 0
        entries = []
        for body in bodies:
            if not body:
                raise ValueError("the body of an entry must not be empty")
            chain = crc32(body, chain)
            entry = SEAL.pack(chain) + body
            entries.append(entry)
            size += len(entry)
        self.store.append(self.job_id, self.last, entries, self.epoch, head)
        if not self.last and entries:  # a snapshot
            self._written_at_snapshot = len(entries[0])
        self.last += len(entries)
        self.chain = chain
        self.written += size
        self.bytes_since_snapshot = self.written - self._written_at_snapshot

    def mark(self) -> Mark:
        """Return where the journal ends now: what a copy of the record that is made now will stand for."""
        return Mark(self.last, self.chain, self.written)

    def put_snapshot(self, body: bytes, mark: Mark | None = None) -> None:
        """Let a snapshot stand for the entries up to a mark, all by default, and forget them.

        Raises StoreError when the store does not take it; the journal is as it was then.
        """
        number, chain, written = self.mark() if mark is None else mark
        sealed = PLACE.pack(number, chain) + body
        seal = SEAL.pack(crc32(sealed, beginning(self.job_id)))
        self.store.put_snapshot(self.job_id, number, seal + sealed, self.epoch)
        self._written_at_snapshot = written
        self.bytes_since_snapshot = self.written - written


def beginning(job_id: str) -> int:
    """Return what the checksum of a job's first entry begins with."""
    return crc32(job_id.encode("utf-8", "surrogatepass"))


def open_journal(store: FactStore, job_id: str, epoch: int) -> tuple[Journal, bytes, list[bytes]]:
    """Return a job's journal, to be appended to in this epoch, its last snapshot, and the entries after that.

    Raises:
        StoreError: when the store has no such job, or cannot read it.
        LoadError: when an entry or the snapshot is damaged, or missing; it says which.
    """
    number, snapshot, entries = store.read(job_id)
    if snapshot is None:
        if number:
            raise LoadError(f"job {job_id!r}: the snapshot of the entries up to {number} is missing")
        chain, body = beginning(job_id), b""
    else:
        chain, body = _opened(job_id, number, snapshot)
    bodies = []
    for place, entry in enumerate(entries, number + 1):
        content = entry[SEAL.size :]
        found = crc32(content, chain)
        if not content or entry[: SEAL.size] != SEAL.pack(found):
            raise LoadError(
                f"job {job_id!r}: entry {place} of the journal is damaged, or is not the one that was written after "
                f"entry {place - 1}: its checksum does not fit"
            )
        bodies.append(content)
        chain = found
    if snapshot is None:
        if not bodies:
            raise LoadError(f"job {job_id!r}: entry 1 of the journal, with which the job began, is missing")
        body = bodies.pop(0)
    journal = Journal(store, job_id, epoch, number + len(entries), chain)
    journal.written = sum(map(len, entries))
    if snapshot is None:
        journal._written_at_snapshot = len(entries[0])
    journal.bytes_since_snapshot = journal.written - journal._written_at_snapshot
    return journal, body, bodies


def _opened(job_id: str, number: int, snapshot: bytes) -> tuple[int, bytes]:
    """Return the checksum of the entry that a snapshot stands for, and the snapshot."""
    what = f"job {job_id!r}: the snapshot of the entries up to {number}"
    sealed = snapshot[SEAL.size :]
    if len(sealed) <= PLACE.size or snapshot[: SEAL.size] != SEAL.pack(crc32(sealed, beginning(job_id))):
        raise LoadError(f"{what} is damaged: its checksum does not fit")
    found, chain = PLACE.unpack_from(sealed)
    if found != number:
        raise LoadError(f"{what} is another one: it stands for the entries up to {found}")
    return chain, sealed[PLACE.size :]
