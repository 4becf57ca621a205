"""Streams: what happens in a job, read while it happens.

A job that is streamed has a `tape`. What happened in it is put there by the thread that tells its listeners, before
these hear of it. A `Stream` is one reader: a place on the tape, and the object that people iterate over, in a thread or
in a task. When it has read all there is, it sleeps on a bell until there is more, or the job has come to rest and
everything of it was told.
"""

from __future__ import annotations

import threading
from types import TracebackType

from ..core.copying import copy_payload
from ..errors import ExecutionError
from .bells import Bell
from .clock import utc
from .dispatcher import confirmed
from .facts import Fact, Lagged
from .holding import refuse_inside, refuse_on_loop
from .job import Job
from .job_state import JobState
from .kinds import fields_of
from .tape import Entry, Place

BUFFER = 1000
READING = "reading its stream"


class _OverError(Exception):
    """There is no more to read for now."""


class Stream:
    """What happens in one job, live: ``for fact in stream``, or ``async for fact in stream``.

    It gives a `Fact` for everything that happens, in the order of the commits, and waits for the next one. When it was
    more than its ``buffer`` behind, it gives a `Lagged` once in place of those that it has missed, and goes on with the
    oldest that it may still have. The job does not wait for it.

    The iteration ends when the job has come to rest and everything of it was read: it has ended, is paused, or waits
    for what has to come from outside. It can be iterated over again when the job goes on. With ``until_ended`` it ends
    only when the job has ended. To leave the loop before that does nothing to the job.

    One thread or task reads a stream at a time; any may close it. A stream keeps its job in memory.

    Raises:
        ContextError: inside a handler or listener of the job; and by ``for``, not by ``async for``, inside any
            coroutine handler.
        ExecutionError, StoreError: when the job cannot go on in this process, because its flow was shut down, its
            engine was closed, or its store failed.
    """

    def __init__(self, job: Job, cursor: int | None, buffer: int, until_ended: bool) -> None:
        where = f"flow {job.plan.flow_id!r}: job {job.record.job_id!r}"
        if job.elsewhere is not None and not job.record.status.ended:
            raise ExecutionError(
                f"{where} does not run in this process, and is streamed only in the one that runs it; here it can be "
                f"waited for with job_state.wait()"
            )
        told = 0 if job.tape is None else job.tape.end
        if cursor is not None and cursor > told:
            raise ExecutionError(f"{where} has told {told:,} facts; a stream of it cannot begin with cursor={cursor}")
        self._job = job
        self._tape = job.taped(buffer)
        self._place = Place(self._tape.end if cursor is None else cursor, buffer)
        self._until_ended = until_ended
        self._closed = False

    @property
    def job_state(self) -> JobState:
        """The `JobState` of the job."""
        return JobState(self._job)

    @property
    def cursor(self) -> int:
        """The number of the next fact, with which ``flow.subscribe(job_state, cursor=...)`` goes on where this is."""
        return self._place.cursor

    def close(self) -> None:
        """End the iteration, also in a thread or task that waits for the next fact. The job goes on."""
        self._closed = True
        self._tape.ring()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Fact | Lagged:
        refuse_inside(self._job, READING)
        refuse_on_loop(f"flow {self._job.plan.flow_id!r}: {READING}", "use 'async for'")
        try:
            found = self._read(None)
            while found is None:
                bell = threading.Event()
                try:
                    found = self._read(bell)
                    if found is None:
                        with self._job.engine.pool.sleeping():
                            bell.wait()
                finally:
                    self._tape.withdraw(bell)
            return found
        except _OverError:
            pass
        if not self._closed:
            self._job.confirm()
        raise StopIteration

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Fact | Lagged:
        from .event_loop import LoopBell

        refuse_inside(self._job, READING)
        try:
            found = self._read(None)
            while found is None:
                bell = LoopBell()
                try:
                    found = self._read(bell)
                    if found is None:
                        with self._job.engine.pool.sleeping():
                            await bell.wait()
                finally:
                    self._tape.withdraw(bell)
            return found
        except _OverError:
            pass
        if not self._closed:
            await confirmed(self._job)
        raise StopAsyncIteration

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream of job {self._job.record.job_id!r} at cursor {self.cursor}>"

    def _read(self, bell: Bell | None) -> Fact | Lagged | None:
        """Return what comes next; None when nothing has come yet, and the bell, if there is one, is going to ring.

        Raises _OverError when nothing will come for now, which is looked at only when there is a bell.
        """
        if self._closed:
            raise _OverError
        found = self._tape.take(self._place, bell)
        if found is None and bell is not None and (self._closed or self._rests()):
            found = self._tape.take(self._place)  # what was told meanwhile
            if found is None:
                raise _OverError
        return self._fact(*found) if isinstance(found, tuple) else found

    def _rests(self) -> bool:
        job = self._job
        with job.lock:
            return job.at_rest and (not self._until_ended or job.record.status.ended or job.halted is not None)

    def _fact(self, cursor: int, entry: Entry) -> Fact:
        job, (kind, notice, fields) = self._job, entry
        told = fields_of(kind, notice._replace(job=job)) if fields is None else copy_payload(fields)
        return Fact(cursor, kind, job.record.job_id, utc(notice.at + job.record.epoch), told)
