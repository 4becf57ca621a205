"""How step functions are called: on the handler's thread or loop, with a time limit or without."""

from __future__ import annotations

import inspect
import threading
from functools import partial
from typing import Any

from .helper import Helper
from .job import Job
from .steps import Call, too_long


def called(job: Job, call: Call) -> Any:
    """Call a step's function from a plain handler, on this thread; with a timeout, on another that may be given up.

    Raises what it raises; StepTimeoutError when it takes longer than it may.
    """
    if call.timeout is None or inspect.iscoroutinefunction(call.function):  # to call that one takes no time
        return _awaited(job, call.function(*call.args, **call.kwargs), call.timeout)
    helper = Helper(job.engine)
    outcome: list[Any] = []
    try:
        running = helper.start(lambda: outcome.append(call.function(*call.args, **call.kwargs)), {})
        running.stirred.wait(call.timeout)
        done = running.done
    except BaseException:
        helper.give_up()
        raise
    if not done:
        helper.give_up()
        raise too_long(call.timeout)
    helper.close()
    if running.error is not None:
        raise running.error
    return _awaited(job, outcome[0], call.timeout)


def _awaited(job: Job, outcome: Any, timeout: float | None) -> Any:
    """Return an outcome; when it is awaitable, what it gives on the engine's event loop."""
    if not inspect.isawaitable(outcome):
        return outcome
    from .task_calling import awaited

    answer: list[Any] = []
    bell = threading.Event()
    job.call_on_loop(partial(awaited, outcome, timeout, answer, bell))
    with job.engine.pool.sleeping():
        bell.wait()
    result, error = answer[0]
    if error is not None:
        raise error
    return result
