"""How a flow begins jobs whose facts are streamed, and gives further streams of jobs that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.models import BaseModel
from ..core.numbers import whole
from .job import Job
from .job_state import JobState
from .jobs import Jobs, call_first
from .new_job import NewJob
from .streams import BUFFER, Stream
from .threads import on_event_loop


class Streamable:
    """The part of `Flow` that streams jobs."""

    flow_id: str
    _jobs: Jobs

    def stream(
        self,
        entry_id: str,
        entry_params: Mapping[str, Any] | None = None,
        *,
        slot: str | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
        job_state: JobState | None = None,
        buffer: int = BUFFER,
        until_ended: bool = False,
    ) -> Stream:
        """Run a job on worker threads, and return at once the `Stream` of what happens in it: ``for fact in stream``.

        See `execute` for the other arguments and errors. A paused ``job_state`` is streamed from where it goes on, and
        a job that the store has already under this ``job_id``, from the first fact that there is.

        Args:
            entry_id: the routine to start with.
            entry_params: the payload of its first delivery.
            slot: the slot that gets it.
            job_id: an id for the job.
            session_id: handed to the handlers' contexts.
            user_id: handed to the handlers' contexts.
            initial_state: values of the shared data to begin with.
            job_state: an earlier job of this flow.
            buffer: how many facts the stream may be behind, before it misses some, 1000 by default; the job does not
                wait for it.
            until_ended: go on reading when the job is paused, or waits for what has to come from outside.

        Raises:
            ExecutionError: also when the job runs in another process.
        """
        new = NewJob(entry_id, entry_params, slot, job_id, session_id, user_id, initial_state)
        return self._stream(new, job_state, buffer, until_ended)

    def astream(
        self,
        entry_id: str,
        entry_params: Mapping[str, Any] | None = None,
        *,
        slot: str | None = None,
        job_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Mapping[str, Any] | BaseModel | None = None,
        job_state: JobState | None = None,
        buffer: int = BUFFER,
        until_ended: bool = False,
    ) -> Stream:
        """Do as `stream` does, without holding up the event loop: ``async for fact in flow.astream("source")``.

        Not to read on, or to be cancelled while reading, does nothing to the job.
        """
        new = NewJob(entry_id, entry_params, slot, job_id, session_id, user_id, initial_state)
        with on_event_loop():
            return self._stream(new, job_state, buffer, until_ended)

    def subscribe(
        self, job_state: JobState, *, cursor: int | None = None, buffer: int = BUFFER, until_ended: bool = False
    ) -> Stream:
        """Return one more `Stream` of a job that runs in this process, or rests in it; there may be any number.

        A job that was not begun with `stream` has its facts numbered from its first subscription on. It keeps the last
        10,000 of them from then on, or as many as the largest ``buffer``.

        Args:
            job_state: the job.
            cursor: the number of the fact to begin with, such as the ``cursor`` of an earlier stream; by default what
                happens from now on. With 0, from the first fact that there is.
            buffer: how many facts the stream may be behind, before it misses some, 1000 by default; the job does not
                wait for it.
            until_ended: go on reading when the job is paused, or waits for what has to come from outside.

        Raises:
            ExecutionError: when it is no job of this flow, it runs in another process, or the cursor is beyond its
                next fact.
            DeclarationError: when ``buffer`` or ``cursor`` is out of range.
        """
        where = f"flow {self.flow_id!r}"
        whole(buffer, f"{where}: buffer", 1)
        if cursor is not None:
            whole(cursor, f"{where}: cursor", 0)
        job = self._jobs.job_of(job_state)
        if job.elsewhere is not None:
            job = job.engine.keeping.here(job.record.job_id) or job
        return Stream(job, cursor, buffer, until_ended)

    def _stream(self, new: NewJob, job_state: JobState | None, buffer: int, until_ended: bool) -> Stream:
        whole(buffer, f"flow {self.flow_id!r}: buffer", 1)
        begun: list[Stream] = []

        def listen(job: Job) -> None:
            begun.append(Stream(job, None, buffer, until_ended))

        job = self._jobs.begin(new, job_state, listen)
        stream = begun[0] if begun else Stream(job, 0, buffer, until_ended)
        if job_state is not None and job_state.job_id == job.record.job_id:
            with job.lock:
                job.call()
        else:
            call_first(job)
        return stream
