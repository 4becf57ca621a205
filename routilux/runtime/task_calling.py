"""How step functions are called by coroutine handlers."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from typing import Any

from .steps import Call, too_long


async def called_in_task(call: Call) -> Any:
    """Call a step's function, and await what it returns if that can be awaited.

    A plain function runs on a thread, so that it keeps no other handler waiting. Raises what the function raises;
    StepTimeoutError when it takes longer than it may.
    """
    if call.timeout is None:
        return await _outcome(call)
    return await _within(_outcome(call), call.timeout)


async def _within(outcome: Awaitable[Any], timeout: float) -> Any:
    """Await something for so long at the most; raise StepTimeoutError after that."""
    outcomes: list[tuple[Any, Exception | None]] = []

    async def end() -> None:
        try:
            outcomes.append((await outcome, None))
        except Exception as error:  # kept apart from that of the time limit, which may be of the same class
            outcomes.append((None, error))

    try:
        await asyncio.wait_for(end(), timeout)
    except asyncio.TimeoutError as error:
        raise too_long(timeout) from error
    result, raised = outcomes[0]
    if raised is not None:
        raise raised
    return result


async def _outcome(call: Call) -> Any:
    if inspect.iscoroutinefunction(call.function):
        return await call.function(*call.args, **call.kwargs)
    outcome = await asyncio.to_thread(call.function, *call.args, **call.kwargs)
    return await outcome if inspect.isawaitable(outcome) else outcome


async def awaited(outcome: Awaitable[Any], timeout: float | None, answer: list[Any], bell: threading.Event) -> None:
    """Await something for a thread that waits for the bell, and put what it gives, or raises, into ``answer``."""
    try:
        answer.append((await (outcome if timeout is None else _within(outcome, timeout)), None))
    except BaseException as error:
        answer.append((None, error))
    finally:
        bell.set()
