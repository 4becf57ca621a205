"""Holding a job still for a moment, so that what is seen of it lies between two turns.

Who holds a job keeps new handlers from starting, and waits for those that run. Everything else goes on meanwhile: the
job can be paused, cancelled or resumed, and it may even end. When the last one lets go, it goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ContextError
from ..routine.scope import Scope, current
from .job import Job
from .threads import here


def refuse_inside(job: Job, what: str) -> None:
    """Raise ContextError when this thread runs a handler or a listener of the job, which would wait for itself."""
    refuse_listener(job, what)
    refuse_handler(job, what)


def refuse_listener(job: Job, what: str) -> None:
    """Raise ContextError when this thread runs a listener of the job."""
    if job.notices.told_here():
        raise ContextError(
            f"flow {job.plan.flow_id!r}: {what} inside a listener of job {job.record.job_id!r} would wait for itself"
        )


def refuse_handler(job: Job, what: str) -> None:
    """Raise ContextError when this thread runs a handler of the job."""
    scope: Scope | None = current.get()
    while scope is not None:
        if scope.job is job:
            raise ContextError(
                f"flow {job.plan.flow_id!r}: {what} inside a handler of job {job.record.job_id!r} would wait for itself"
            )
        scope = scope.outer


def refuse_on_loop(
    what: str, instead: str = "use 'await flow.aexecute(...)', or start() the job and do not wait for it"
) -> None:
    """Raise ContextError on the thread of an event loop, where waiting would keep all coroutine handlers waiting."""
    if here.on_event_loop:
        raise ContextError(f"{what} inside a coroutine handler would stop all others; {instead}")


@contextmanager
def still(job: Job) -> Iterator[None]:
    """Hold a job: inside, none of its handlers runs. Refuse those who are in one of them first."""
    bell = threading.Event()
    try:
        job.hold(bell)
        with job.engine.pool.sleeping():
            bell.wait()
        yield
    except BaseException:
        job.lock.abandon()
        raise
    finally:
        job.let_go(bell)
