"""How threads work for jobs: those that wait for one, and workers that are called."""

from __future__ import annotations

import threading
import time
from _thread import get_ident
from typing import Any

from ..core.job_record import Mailbox
from ..core.status import JobStatus
from ..routine.scope import Scope, current
from .holding import refuse_inside, refuse_on_loop
from .job import Job
from .threads import on_event_loop

STAY_NS = 1_000_000  # nanoseconds that a worker works for one job, at least, while others want it


def serve(job: Job) -> None:
    """Have the event loop start the coroutine handlers of a job that may start."""
    # asyncio is dear to import, and most programs have no coroutines
    from .task_turn import TaskTurn, start_tasks

    event_loop = job.engine.event_loop(make_loop)
    event_loop.call(start_tasks, job, event_loop, TaskTurn)


def make_loop() -> Any:
    """Return a new event loop."""
    from .event_loop import EventLoop

    return EventLoop()


async def rest(job: Job, timeout: float | None) -> None:
    """Do as `run_to_rest` does, for a task on any event loop: nothing of the job runs there.

    When the task is cancelled, so is the job.
    """
    from .event_loop import LoopBell

    bell: LoopBell | None = None
    try:
        bell = LoopBell()
        with job.lock:
            if job.at_rest:
                bell.set()
            else:
                job.watchers.append(bell)
                job.call()
        with job.engine.pool.sleeping():
            rung = await bell.wait(timeout)
        if not rung and timeout is not None:
            with on_event_loop():
                job.expire(timeout)
    except BaseException:
        with on_event_loop():
            job.cancel_unless_ended("the task that awaited it was cancelled")
        raise
    finally:
        with job.lock:
            if bell in job.watchers:
                job.watchers.remove(bell)
    if job.interrupt is not None:
        raise job.interrupt
    await confirmed(job)


async def confirmed(job: Job) -> None:
    """Do as `Job.confirm` does, which may have to wait for a disk, without holding up the event loop."""
    if not job.lags:
        job.check_going()
        return
    from .event_loop import LoopBell

    bell = LoopBell()
    errors: list[BaseException] = []

    def confirm() -> None:
        try:
            job.confirm()
        except BaseException as error:
            errors.append(error)
        bell.set()

    job.engine.committers.submit(confirm)
    await bell.wait()
    if errors:
        raise errors[0]


def run_to_rest(job: Job, timeout: float | None) -> None:
    """Run a job until it has come to rest; when ``timeout`` seconds pass before, fail it and wait no longer.

    Raises what told the process to stop (KeyboardInterrupt, SystemExit), in a handler or in this thread, after
    recording it as the job's failure.
    """
    try:
        if job.elsewhere is not None:
            job.elsewhere(timeout)
        elif timeout is None:
            lend(job)
        elif not watch(job, timeout):
            job.expire(timeout)
    except BaseException as error:
        job.interrupted(error)
        raise
    if job.interrupt is not None:
        raise job.interrupt
    job.confirm()


def wait(job: Job, timeout: float | None) -> bool:
    """Wait until a job has ended, or rests until somebody resumes it; tell whether it has ended.

    Without a timeout, the job is lent this thread. Raises ContextError inside a handler of the job.
    """
    end = None if timeout is None else time.monotonic() + timeout
    left = timeout
    while not wait_for_rest(job, left):
        left = None if end is None else end - time.monotonic()
        if (left is not None and left <= 0) or not _goes_on(job, left):
            return False
    return True


def _goes_on(job: Job, timeout: float | None) -> bool:
    """Return whether a job that has come to rest is worth another wait, after what it waits for outside has come.

    False when ``timeout`` seconds pass before, and for a job that somebody has to resume.
    """
    bell = threading.Event()
    with job.lock:
        if job.record.status is not JobStatus.WAITING or job.elsewhere is not None:
            return job.elsewhere is None and job.record.status is not JobStatus.PAUSED
        if job.halted is not None:  # just now, and nobody would ring
            return True
        job.watchers.append(bell)
    try:
        with job.engine.pool.sleeping():
            return bell.wait(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
    finally:
        with job.lock:
            if bell in job.watchers:
                job.watchers.remove(bell)


def wait_for_rest(job: Job, timeout: float | None) -> bool:
    """Wait until a job has come to rest, lending it this thread unless there is a timeout; tell whether it has ended.

    Raises ContextError inside a handler of the job.
    """
    refuse_inside(job, "wait()")
    refuse_on_loop("wait()")
    if job.elsewhere is not None:
        job.elsewhere(timeout)
    elif timeout is None:
        lend(job)
    else:
        watch(job, timeout)
    job.confirm()
    return job.at_rest and job.record.status.ended


def leave(job: Job) -> None:
    """Wait until a job in a store has come to rest, or waits for whatever it may be."""
    refuse_inside(job, "shutdown()")
    bell = threading.Event()
    with job.lock:
        if not (job.at_rest or job.record.status is JobStatus.WAITING):
            job.leavers.append(bell)
            job.call()
        else:
            bell.set()
    with job.engine.pool.sleeping():
        bell.wait()


def lend(job: Job) -> None:
    """Work for a job on the calling thread until the job has come to rest.

    Handlers see the context variables of whoever started the job, and cannot change those of this thread.
    """
    job.variables.copy().run(_lend, job, current.get())


def _lend(job: Job, outer: Scope | None) -> None:
    current.set(outer)
    thread = get_ident()
    bell: threading.Event | None = None
    try:
        while True:
            with job.lock:
                if job.at_rest:
                    break
                mailbox = job.join(thread)
                if mailbox is None:
                    bell = threading.Event()
                    job.idle.append(bell)
                    if job.record.on_loop:
                        job.call_loop()
            if bell is not None:
                job.tell()
                _sleep(job, bell)
                bell = None
            while mailbox is not None:
                mailbox = _take_turns(job, mailbox)
    except BaseException as error:
        job.lock.abandon()
        if bell is not None:
            _pass_on(job, bell)
        if thread in job.crew:
            job.interrupted(error)
        raise
    if job.interrupt is not None and job.interrupt_thread == thread:
        raise job.interrupt


def _sleep(job: Job, bell: threading.Event) -> None:
    """Sleep until there may be something to do."""
    with job.engine.pool.sleeping():
        bell.wait()
    with job.lock:
        job.roused = False


def _pass_on(job: Job, bell: threading.Event) -> None:
    """Have nobody ring a bell on which no thread sleeps any more, and let another one come if it was rung."""
    with job.lock:
        if bell in job.idle:
            job.idle.remove(bell)
        else:
            job.roused = False
            job.call_or_fail()


def watch(job: Job, timeout: float) -> bool:
    """Wait for a job to come to rest without working for it; return whether it has within ``timeout`` seconds."""
    bell = threading.Event()
    with job.lock:
        if job.at_rest:
            return True
        job.watchers.append(bell)
        job.call()
    with job.engine.pool.sleeping():
        while not bell.wait(min(timeout, threading.TIMEOUT_MAX)) and timeout > threading.TIMEOUT_MAX:
            timeout -= threading.TIMEOUT_MAX
    with job.lock:
        if bell in job.watchers:
            job.watchers.remove(bell)
        return job.at_rest


def assist(job: Job) -> None:
    """Work for a job on a worker thread, until there is nothing to do.

    When other jobs want the thread, it goes to them after a batch of turns, but not before `STAY_NS` have passed: a job
    of a few short turns is done in less time than it takes to come back to it.
    """
    job.variables.copy().run(_assist, job)


def _assist(job: Job) -> None:
    current.set(None)
    until = time.monotonic_ns() + STAY_NS
    with job.lock:
        job.calling = False
        mailbox = job.join(get_ident())
    while mailbox is not None:
        mailbox = _take_turns(job, mailbox)
        if mailbox is not None and job.engine.pool.has_tasks() and time.monotonic_ns() >= until:
            with job.lock:
                if get_ident() in job.crew:  # else what it had to do was given up meanwhile
                    job.record.ready.appendleft(mailbox)
                    job.leave(get_ident())
                job.call()
                if not job.record.open:
                    job.left()
            return


def _take_turns(job: Job, mailbox: Mailbox) -> Mailbox | None:
    """Take a batch of turns; return the mailbox to go on with, None when the thread has left the crew."""
    try:
        job.hooks.turn(job, mailbox).run()
    except BaseException as error:
        # Not a handler's exception, which the turn commits: an interrupt between two handlers, for instance.
        job.interrupted(error)
    with job.lock:
        return job.next_mailbox(get_ident())
