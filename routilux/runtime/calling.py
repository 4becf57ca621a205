"""How step functions are called: on the handler's thread or loop, with a time limit or without."""

from __future__ import annotations

import inspect
import threading
from functools import partial
from typing import Any

from ..errors import StepTimeoutError
from .helper import Helper
from .job import Job
from .steps import Call


def called(job: Job, call: Call) -> Any:
    """Call a step's function from a plain handler, on this thread; with a timeout, on another that may be given up.

    Raises what it raises; StepTimeoutError when it takes longer than it may.
    """
    if call.timeout is None:
        return _awaited(job, call.function(*call.args, **call.kwargs), None)
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
        raise too_long(call)
    helper.close()
    if running.error is not None:
        raise running.error
    return _awaited(job, outcome[0], call.timeout)


def too_long(call: Call) -> StepTimeoutError:
    """Return the error of a function that took longer than it may."""
    return StepTimeoutError(f"the step's function ran longer than its timeout of {call.timeout:g} seconds")


def _awaited(job: Job, outcome: Any, timeout: float | None) -> Any:
    """Return an outcome; when it is awaitable, what it gives on the engine's event loop."""
    if not inspect.isawaitable(outcome):
        return outcome
    import asyncio

    async def give() -> Any:
        return await outcome

    answer: list[Any] = []
    bell = threading.Event()

    async def run() -> None:
        try:
            answer.append((await asyncio.wait_for(give(), timeout), None))
        except BaseException as error:
            answer.append((None, error))
        finally:
            bell.set()

    job.call_on_loop(partial(run))
    with job.engine.pool.sleeping():
        bell.wait()
    result, error = answer[0]
    if isinstance(error, (asyncio.TimeoutError, asyncio.CancelledError)) and timeout is not None:
        raise StepTimeoutError(f"the step's function ran longer than its timeout of {timeout:g} seconds") from error
    if error is not None:
        raise error
    return result
