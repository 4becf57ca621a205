"""From what a factory returns to the resource, and to how that is closed.

Whatever a factory is, to call it is all it takes: a generator function or a coroutine function has not begun to run
then, and what it returns tells the rest. An object with ``close`` or ``aclose`` is the resource as it is, even when it
is a context manager too: entering a connection often begins a transaction, and leaving it often closes nothing. Nor is
a lock entered, which is to be entered by those who share it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from ..errors import ExecutionError

Close = Callable[[], Any]


def belongs_on_loop(made: Any) -> bool:
    """Whether what a factory has returned has to be awaited, entered or closed on an event loop."""
    if inspect.isawaitable(made) or inspect.isasyncgen(made):
        return True
    close, awaited = _close_of(made)
    if close is not None:
        return awaited
    return _is_manager(made, "__aenter__", "__aexit__") and not _is_manager(made, "__enter__", "__exit__")


def opened(made: Any, stack: ExitStack | AsyncExitStack) -> Any:
    """Return the resource behind what a factory has returned; leaving the stack closes it."""
    if inspect.isgenerator(made):
        return stack.enter_context(contextmanager(lambda: made)())
    close, _ = _close_of(made)
    if close is not None:
        stack.callback(_call, close)
    elif _is_manager(made, "__enter__", "__exit__"):
        return stack.enter_context(made)
    return made


async def opened_on_loop(made: Any, stack: AsyncExitStack) -> Any:
    """Do as `opened` does, in a task on an event loop; what has to be awaited is."""
    if inspect.isasyncgen(made):
        return await stack.enter_async_context(asynccontextmanager(lambda: made)())
    if inspect.isawaitable(made):
        made = await made
    close, _ = _close_of(made)
    if close is not None:
        stack.push_async_callback(_await, close)
        return made
    if _is_manager(made, "__aenter__", "__aexit__"):
        return await stack.enter_async_context(made)
    return opened(made, stack)


def _close_of(made: Any) -> tuple[Close | None, bool]:
    """Return the method that closes an object, and whether it is known to need awaiting."""
    if isinstance(made, type) or inspect.isgenerator(made):
        return None, False
    close, aclose = getattr(made, "close", None), getattr(made, "aclose", None)
    if callable(aclose) and (inspect.iscoroutinefunction(aclose) or not callable(close)):
        return aclose, True
    return (close, inspect.iscoroutinefunction(close)) if callable(close) else (None, False)


def _is_manager(made: Any, enter: str, leave: str) -> bool:
    kind = type(made)
    return hasattr(kind, enter) and hasattr(kind, leave) and not hasattr(kind, "acquire")


def _call(close: Close) -> None:
    outcome = close()
    if inspect.isawaitable(outcome):
        if inspect.iscoroutine(outcome):
            outcome.close()
        raise ExecutionError(f"{close!r} has to be awaited: let an 'async def' factory return the object")


async def _await(close: Close) -> None:
    outcome = close()
    if inspect.isawaitable(outcome):
        await outcome
