"""How step functions are called by coroutine handlers."""

from __future__ import annotations

import asyncio
import inspect
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
        raise too_long(call) from error


async def _outcome(call: Call) -> Any:
    if inspect.iscoroutinefunction(call.function):
        return await call.function(*call.args, **call.kwargs)
    outcome = await asyncio.to_thread(call.function, *call.args, **call.kwargs)
    return await outcome if inspect.isawaitable(outcome) else outcome
