"""What jobs log, under the name ``routilux``: changes of status, failed attempts, and listeners that raise.

Every entry has the attributes ``flow_id`` and ``job_id``, and those about an activation ``routine_id``, ``slot`` and
``attempt``. Nothing is printed unless the program sets up logging.
"""

from __future__ import annotations

import logging
from typing import Any

from ..core.records import Ended, Retried
from ..core.status import JobStatus
from .audience import FAILED_ATTEMPT, LEVELS, Change, Notice

logger = logging.getLogger("routilux")
logger.addHandler(logging.NullHandler())


def log(notice: Notice) -> None:
    """Log what is worth it."""
    job, fact, activation = notice.job, notice.fact, notice.activation
    ids = {"flow_id": job.plan.flow_id, "job_id": job.record.job_id}
    if isinstance(fact, JobStatus):
        _log_status(fact, notice.detail, ids)
    elif activation is not None and isinstance(fact, (Ended, Retried)):
        error = notice.detail if isinstance(fact, Retried) else fact.error
        if error is not None:
            slot = activation.slot
            ids = {**ids, "routine_id": slot.routine_id, "slot": slot.name, "attempt": activation.attempt}
            what = "will be retried" if isinstance(fact, Retried) else f"has {fact.status}"
            kind = error.type if isinstance(fact, Ended) else type(error).__name__
            message = error.message if isinstance(fact, Ended) else error
            logger.log(
                FAILED_ATTEMPT,
                "flow %r, job %r: %s.%s, attempt %d, %s: %s: %s",
                job.plan.flow_id,
                job.record.job_id,
                slot.routine_id,
                slot.name,
                activation.attempt,
                what,
                kind,
                message,
                extra=ids,
            )


def _log_status(status: JobStatus, change: Change, ids: dict[str, Any]) -> None:
    reason = f": {change.reason}" if change.reason else ""
    if status is JobStatus.FAILED and change.failure is not None:
        reason = f": {change.failure}"
    logger.log(
        LEVELS[status], "flow %r, job %r is %s%s", ids["flow_id"], ids["job_id"], status.value, reason, extra=ids
    )


def log_failure(what: str) -> None:
    """Log the exception that is being handled, which a listener has raised."""
    logger.exception("%s has raised; the job goes on", what)
