"""The life of a job as a table: which status may follow which."""

from __future__ import annotations

from enum import Enum

from ..errors import StatusError


class JobStatus(str, Enum):
    """Where a job is in its life. Compares with, and prints as, its plain name: ``"completed"``."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    __str__ = str.__str__

    def __format__(self, spec: str) -> str:
        return str.__format__(self, spec)

    @property
    def ended(self) -> bool:
        """Whether the job is over (completed, failed or cancelled)."""
        return self in ENDED


ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

# Completed and cancelled are final. A failed job can be taken up again; a paused one fails when a handler
# that was still running does.
MAY_FOLLOW: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: ENDED | {JobStatus.WAITING, JobStatus.PAUSED},
    JobStatus.WAITING: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED}),
    JobStatus.PAUSED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.FAILED: frozenset({JobStatus.RUNNING}),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def check_change(job: str, old: JobStatus, new: JobStatus) -> None:
    """Raise StatusError when a job, as it stands in messages, may not go from ``old`` to ``new``."""
    if new not in MAY_FOLLOW[old]:
        allowed = ", ".join(sorted(MAY_FOLLOW[old]))
        hint = f"; it can become: {allowed}" if allowed else f": a {old} job stays as it is"
        raise StatusError(f"{job} is {old} and cannot become {new}{hint}")
