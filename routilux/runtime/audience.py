"""What happens in jobs, as those who listen are told it."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from ..core.job_record import Activation
from ..core.records import ErrorRecord, Fact
from ..core.status import JobStatus


class Notice(NamedTuple):
    """One thing that happened in a job: a fact, or the new status of the job.

    ``activation`` is the one that the fact is about. ``detail`` is the history entry of an ended activation, the
    exception of a failed attempt that is retried, and a `Change` of status. ``at`` is when it was noted, which is when
    it was committed, on the job's clock.
    """

    job: Any
    fact: Fact | JobStatus
    activation: Activation | None
    detail: Any
    at: int


class Change(NamedTuple):
    """What a job was before it got a status, and what its record told of that status then."""

    was: JobStatus
    reason: str
    failure: ErrorRecord | None
    result: Any


class Audience:
    """Who reads the log of the process."""

    def __init__(self) -> None:
        self._logger: Any = None

    def logs(self, level: int) -> bool:
        """Whether the logger of this library is enabled for a level."""
        if self._logger is None:
            # Logging is dear to import, and whoever has not imported it has given no logger a handler.
            logging = sys.modules.get("logging")
            if logging is None:
                return False
            self._logger = logging.getLogger("routilux")
        return bool(self._logger.isEnabledFor(level))


audience = Audience()

# At which level of `logging` a job's new status is logged.
LEVELS = {
    JobStatus.PENDING: 10,
    JobStatus.RUNNING: 10,
    JobStatus.WAITING: 10,
    JobStatus.COMPLETED: 10,
    JobStatus.PAUSED: 20,
    JobStatus.CANCELLED: 20,
    JobStatus.FAILED: 40,
}
FAILED_ATTEMPT = 30
