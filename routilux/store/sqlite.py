"""A store in one SQLite file, for any number of threads and processes on one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import TypeVar

from ..errors import DeclarationError, StoreError, known_names
from . import sqlite_work as work
from .base import Claimed, JobHead, Message
from .rules import closed, missing_entries
from .shared_writer import SharedWriter
from .sqlite_errors import explained
from .sqlite_opening import check_version_of_sqlite, connected

T = TypeVar("T")
SYNCHRONOUS = ("FULL", "NORMAL")


class _Forks:
    """How often this process, or one before it, was made by a fork: a look at a number, where a commit counts, is
    cheaper than to ask the system for the process."""

    count = 0

    def happened(self) -> None:
        """Note that this process was made by a fork."""
        self.count += 1


forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forks.happened)


class SQLiteStore:
    """A store of facts and an inbox in one SQLite file. Its methods are those of FactStore and Inbox.

    Any number of threads may use one store, and any number of processes may open the same file, each with a store of
    its own; a store is of no use after ``fork()``. A change that is made while nobody else writes is committed at once,
    in the caller's thread; changes that come at the same time share a transaction. Files named ``<path>-wal`` and
    ``<path>-shm`` belong to the database while it is open.

    Args:
        path: the file; it is made when it is not there, but its folder is not.
        synchronous: ``"FULL"``: what was written survives a power failure; ``"NORMAL"``: it survives the end of the
            process, and a power failure may undo the last changes.
        busy_timeout: seconds to wait for other processes that write to the file.

    Raises:
        DeclarationError: for arguments that cannot work.
        StoreError: when the file cannot be opened, is damaged or no store, or when SQLite is older than 3.35.
    """

    def __init__(self, path: str | os.PathLike[str], synchronous: str = "FULL", busy_timeout: float = 5.0) -> None:
        self._path = _checked(path, synchronous, busy_timeout)
        self._name = f"SQLite store {self._path!r}"
        check_version_of_sqlite(self._name)
        self._process = os.getpid()
        self._forks = forks.count
        self._closed = False
        connection = connected(self._path, self._name, synchronous, busy_timeout, work.SHORTCUTS)
        self._writer = SharedWriter(connection, self._name, work.add_entries)
        self._write_alone = self._writer.write_alone
        self._reading = Lock()
        try:
            self._reader = connected(self._path, self._name, synchronous, busy_timeout)
        except BaseException:
            self._writer.close()
            raise

    def append(
        self, job_id: str, after: int, entries: Sequence[bytes], epoch: int, head: JobHead | None = None
    ) -> None:
        """Append entries to a job's journal; see FactStore."""
        if forks.count != self._forks:
            self._check_process()
        alone = work.alone(job_id, after, entries, epoch, head)
        if alone is not None and self._write_alone("append to job {0!r}", *alone):
            return
        task = partial(work.append, self._name, job_id, after, entries, epoch, head)
        row = alone[1] if alone is not None and head is None else None
        self._writer.write(f"append to job {job_id!r}", task, row)

    def read(self, job_id: str) -> tuple[int, bytes | None, list[bytes]]:
        """Return a job's snapshot with its number, and all entries after; see FactStore."""
        base, snapshot, rows = self._read(f"read job {job_id!r}", partial(work.read, self._name, job_id))
        for expected, (number, body) in enumerate(rows, base + 1):
            if number != expected or type(body) is not bytes:
                raise missing_entries(self._name, job_id, expected)
        if (not base) != (snapshot is None) or not (base or rows):
            raise missing_entries(self._name, job_id, base or 1)
        return base, snapshot, [body for _, body in rows]

    def put_snapshot(self, job_id: str, number: int, snapshot: bytes, epoch: int) -> None:
        """Let a snapshot stand for the entries up to a number; see FactStore."""
        self._check_process()
        task = partial(work.put_snapshot, self._name, job_id, number, snapshot, epoch)
        self._writer.write(f"keep a snapshot of job {job_id!r}", task)

    def heads(
        self, *, job_id: str | None = None, flow_id: str | None = None, statuses: Iterable[str] | None = None
    ) -> list[JobHead]:
        """Return the heads of all jobs that fit; see FactStore."""
        wanted = None if statuses is None else tuple(statuses)
        return self._read("list jobs", partial(work.heads, job_id, flow_id, wanted))

    def claim(
        self, owner: str, until: float, now: float, jobs: Sequence[str] = (), dead: Sequence[str] = ()
    ) -> list[Claimed]:
        """Renew an owner's lease and give it those of these jobs that are free; see FactStore."""
        self._check_process()
        return self._writer.write(f"claim jobs for {owner!r}", partial(work.claim, owner, until, now, jobs, dead))

    def let_go(self, owner: str, jobs: Sequence[str] | None = None) -> None:
        """Have an owner own these jobs, or any, no longer; see FactStore."""
        self._check_process()
        self._writer.write(f"let go of jobs of {owner!r}", partial(work.let_go, owner, jobs))

    def prune(self, statuses: Iterable[str], before: float, keep: int | None = None) -> int:
        """Remove jobs by status, and by age or number; see FactStore."""
        self._check_process()
        return self._writer.write("remove jobs", partial(work.prune, tuple(statuses), before, keep))

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Keep messages for jobs, all or none; see Inbox."""
        self._check_process()
        self._writer.write("send messages", partial(work.send, self._name, messages))

    def receive(self, after: int) -> list[Message]:
        """Return all messages with a number above ``after``; see Inbox."""
        return self._read("receive messages", partial(work.receive, after))

    def discard(self, numbers: Sequence[int]) -> None:
        """Remove messages; see Inbox."""
        self._check_process()
        self._writer.write("discard messages", partial(work.discard, numbers))

    def close(self) -> None:
        """Close the file; see FactStore."""
        self._check_process()
        self._closed = True
        with self._reading:
            self._reader.close()
        self._writer.close()

    def _read(self, doing: str, task: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a task reads, in one transaction: nothing changes under its eyes."""
        self._check_process()
        with self._reading:
            if self._closed:
                raise closed(self._name)
            reader = self._reader
            try:
                reader.execute("BEGIN")
                return task(reader)
            except sqlite3.Error as error:
                raise explained(self._name, doing, error) from error
            finally:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")

    def _check_process(self) -> None:
        if forks.count != self._forks:
            raise StoreError(
                f"{self._name}: process {self._process} has opened it, and this one is a fork of that; "
                "open the store again here, with open_store()"
            )


def _checked(path: str | os.PathLike[str], synchronous: str, busy_timeout: float) -> str:
    """Return the path as text, or raise DeclarationError for arguments that cannot work."""
    text = os.fspath(path)
    if not isinstance(text, str) or not text or text == ":memory:" or "\0" in text:
        raise DeclarationError(f"a SQLite store needs the path of a file, not {path!r}; in memory, use 'memory:'")
    if synchronous not in SYNCHRONOUS:
        raise DeclarationError(
            f"synchronous={synchronous!r} is not possible{known_names(synchronous, SYNCHRONOUS, 'settings')}"
        )
    if isinstance(busy_timeout, bool) or not isinstance(busy_timeout, (int, float)) or not 0 <= busy_timeout < 1e6:
        raise DeclarationError(
            f"busy_timeout={busy_timeout!r} is not possible; give seconds from 0 on, below 1,000,000"
        )
    return text
