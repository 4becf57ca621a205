"""What a job waits for that has to come from outside, in words."""

from __future__ import annotations

from ..core.commits import awaited, last_point
from ..core.points import Wait
from .job import Job


def waits_outside(job: Job) -> list[str]:
    """Return the steps at which a job that has come to rest waits, each with what it still waits for."""
    with job.lock:
        found = [(last_point(job.record, each).name, awaited(job.record, each)) for each in job.record.waiting.values()]
    return [f"step {name!r}, for {_spelled(job, wait)}" for name, wait in found if wait is not None]


def _spelled(job: Job, wait: Wait) -> str:
    if wait.topic is not None:
        return f"an event {wait.topic!r}"
    if not wait.jobs:
        return "its time to come"
    known = [_job_here(job, each) for each in wait.jobs]
    return " and ".join(_job(each) for each in known if each is not None) or "other jobs"


def _job_here(job: Job, job_id: str) -> Job | None:
    """Return a job that a handler of another one has started, if it is known in this process."""
    if job.engine.keeping is not None:
        found: Job | None = job.engine.job_here(job_id)
        return found
    children = (each() for each in job.children)
    return next((each for each in children if each is not None and each.record.job_id == job_id), None)


def _job(job: Job) -> str:
    waits = waits_outside(job)
    return f"job {job.record.job_id!r}" + (f", which waits at {' and at '.join(waits)}" if waits else "")
