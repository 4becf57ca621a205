"""How step functions are called by coroutine handlers."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable
from typing import Any

from .calling import too_long
from .steps import Call


async def called_in_task(call: Call) -> Any:
    """Call a step's function, and await what it returns if that can be awaited.

    A plain function runs on a thread, so that it keeps no other handler waiting. Raises what the function raises;
    StepTimeoutError when it takes longer than it may.
    """
    if call.timeout is None:
        return await _outcome(call)
    try:
        return await asyncio.wait_for(_outcome(call), call.timeout)
    except asyncio.TimeoutError as error:
        raise too_long(call.timeout) from error


async def _outcome(call: Call) -> Any:
    if inspect.iscoroutinefunction(call.function):
        return await call.function(*call.args, **call.kwargs)
    outcome = await asyncio.to_thread(call.function, *call.args, **call.kwargs)
    return await outcome if inspect.isawaitable(outcome) else outcome


async def awaited(outcome: Awaitable[Any], timeout: float | None, answer: list[Any], bell: threading.Event) -> None:
    """Await something for a thread that waits for the bell, and put what it gives, or raises, into ``answer``."""
    try:
        answer.append((await asyncio.wait_for(_itself(outcome), timeout), None))
    except asyncio.TimeoutError as error:
        answer.append((None, error if timeout is None else too_long(timeout)))
    except BaseException as error:
        answer.append((None, error))
    finally:
        bell.set()


async def _itself(outcome: Awaitable[Any]) -> Any:
    return await outcome
