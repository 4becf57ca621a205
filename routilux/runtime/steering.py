"""What a flow does with jobs that there are: it waits for them, gives them things, and changes their course."""

from __future__ import annotations

from typing import Any

from ..core.numbers import seconds
from .dispatcher import wait
from .job_state import JobState
from .jobs import Jobs
from .sending import input_of, send, slot_of
from .threads import SharedThreads


class Steerable:
    """The part of `Flow` that steers jobs."""

    flow_id: str
    engine: SharedThreads
    _jobs: Jobs

    def wait_for_completion(self, timeout: float | None = None, job_state: JobState | None = None) -> bool:
        """Wait for a job, or for all running jobs of this flow; return whether all of them have ended.

        Args:
            timeout: seconds to wait at the most; 0 just looks; None waits for as long as it takes, and
                runs handlers meanwhile.
            job_state: the job; all jobs of the flow when there is none.

        Raises:
            ContextError: inside a handler of one of the jobs.
        """
        limit = seconds(timeout, f"flow {self.flow_id!r}: timeout", above=False)
        jobs = self._jobs.running() if job_state is None else [self._jobs.job_of(job_state)]
        now = self.engine.clock.monotonic_ns
        end = None if limit is None else now() + int(limit * 1e9)
        ended = [wait(job, None if end is None else max(end - now(), 1) / 1e9) for job in jobs]
        return all(ended)

    def cancel(self, job_state: JobState, reason: str = "") -> None:
        """Cancel a job: nothing more of it starts, what is queued is dropped.

        The status changes at once. Handlers that run go on until they return, but what they still do is dropped;
        ``ctx.cancelled`` tells them.

        Raises:
            StatusError: when the job has ended.
            ExecutionError: when it is no job of this flow.
        """
        self._jobs.job_of(job_state).cancel(str(reason))

    def pause(self, job_state: JobState, reason: str = "") -> None:
        """Pause a job: handlers that run go on to their end, and no more start until `resume`.

        The status changes at once, also from inside a handler. Retries that fall due meanwhile run when it is resumed.

        Raises:
            StatusError: when the job does not run.
            ExecutionError: when it is no job of this flow.
        """
        self._jobs.job_of(job_state).pause(str(reason))

    def resume(self, job_state: JobState, *, allow_changes: bool = False) -> JobState:
        """Go on with a paused job, or take up a failed one, on worker threads; return its state at once.

        What failed a job runs again, as a first attempt, and then all that was queued.

        Args:
            job_state: the job.
            allow_changes: take a durable job from the store also if the flow has changed since, as
                `Engine.recover` does.

        Raises:
            StatusError: for any other job, and for a failed one of which handlers still run.
            ExecutionError: when it is no job of this flow, or the flow is shut down.
            RecoveryError: when a durable job was made by a flow that has changed.
            LoadError: when the flow lacks what a durable job needs, or its journal is damaged.
        """
        job = self._jobs.take_up(job_state, allow_changes=allow_changes)
        with job.lock:
            job.call()
        return JobState(job)

    def send(self, job_state: JobState, routine_id: str, slot: str, /, **payload: Any) -> None:
        """Deliver something to a slot of a job from outside; return at once. Worker threads handle it.

        A job that is paused handles it when it is resumed. A job that runs in another process gets it as a message,
        which that process sees to if it serves. Inside a handler, this is no part of its turn: what is sent is
        delivered at once, whatever becomes of the handler, and once more when it is tried again. Emit what belongs to
        the turn.

        Args:
            job_state: a job that has not ended.
            routine_id: the routine.
            slot: the slot; if it is external, it must not have been closed.
            payload: the parameters.

        Raises:
            DeclarationError: when there is no such routine or slot.
            PayloadError: when the parameters do not fit the handler. The job knows nothing of it.
            StatusError: when the job has ended or failed, or the input was closed.
            ExecutionError: when it is no job of this flow, or the flow is shut down.
            SaveError: when the job is durable, and the parameters cannot be kept.
            StoreError: when they are not.
        """
        job = self._jobs.job_of(job_state)
        self._jobs.check_open()
        send(job, slot_of(job, routine_id, slot), payload)

    def close_input(self, job_state: JobState, routine_id: str, slot: str) -> None:
        """Let a job wait no longer for what comes to an external slot: when nothing else is left to do, it completes.

        Nothing happens when the input was closed before, or the job has ended.

        Raises:
            DeclarationError: when there is no such routine or slot.
            ExecutionError: when the slot is not external, it is no job of this flow, or the flow is shut down.
            StoreError: when the job is durable, and this cannot be kept.
        """
        job = self._jobs.job_of(job_state)
        found = input_of(job, routine_id, slot)
        if not job.record.status.ended:
            self._jobs.check_open()
            job.close_input(found)
