"""What a job waits for that has to come from outside, in words."""

from __future__ import annotations

from ..core.commits import last_point
from ..core.points import Wait
from .job import Job


def waits_outside(job: Job) -> list[str]:
    """Return the steps at which a job that has come to rest waits, each with what it waits for."""
    with job.lock:
        found = [
            (last_point(job.record, each).name, each.wait)
            for each in job.record.waiting.values()
            if each.wait is not None
        ]
    return [f"step {name!r}, for {_spelled(job, wait)}" for name, wait in found]


def _spelled(job: Job, wait: Wait) -> str:
    if wait.topic is not None:
        return f"an event {wait.topic!r}"
    if not wait.jobs:
        return "its time to come"
    return " and ".join(_job(job, each) for each in wait.jobs if job.engine.job_here(each) is not None) or "other jobs"


def _job(job: Job, job_id: str) -> str:
    waits = waits_outside(job.engine.job_here(job_id))
    return f"job {job_id!r}" + (f", which waits at {' and at '.join(waits)}" if waits else "")
