"""A thread beside the workers, for handlers that somebody may stop waiting for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

from .threads import SharedThreads


class Call:
    """One call of a handler by a helper. ``stirred`` is set when ``done`` or the time budget has changed."""

    __slots__ = ("arguments", "done", "error", "handler", "stirred", "variables")

    def __init__(self, handler: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.variables = copy_context()
        self.handler = handler
        self.arguments = arguments
        self.done = False
        self.error: BaseException | None = None
        self.stirred = threading.Event()


class Helper:
    """One thread that calls handlers for one turn. It ends when it is closed, or given up and free again."""

    def __init__(self, engine: SharedThreads) -> None:
        self._engine = engine
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._given_up = False
        self._call: Call | None = None
        self._worker = engine.pool.worker_here()
        self._thread = threading.Thread(target=self._run, name="routilux-helper", daemon=True)
        self._thread.start()
        self.thread: int = self._thread.ident or 0

    def start(self, handler: Callable[..., Any], arguments: dict[str, Any]) -> Call:
        """Call a handler on the helper's thread, with the context variables of this one."""
        self._call = call = Call(handler, arguments)
        self._calls.put(call)
        return call

    def stir(self) -> None:
        """Have whoever waits for the call look at its time budget again."""
        if self._call is not None:
            self._call.stirred.set()

    def close(self) -> None:
        """Let the thread end, and wait until it has; no call is running."""
        self._calls.put(None)
        self._thread.join()

    def give_up(self) -> None:
        """Stop waiting for the call that is running; the thread ends when it returns, and is counted until then."""
        self._given_up = True
        self._engine.count_given_up_helper(1)
        self._calls.put(None)

    def _run(self) -> None:
        self._engine.pool.stand_for(self._worker)
        while True:
            call = self._calls.get()
            if call is None:
                break
            try:
                call.variables.run(call.handler, **call.arguments)
            except BaseException as error:
                call.error = error
            call.done = True
            call.stirred.set()
            del call
        if self._given_up:
            self._engine.count_given_up_helper(-1)
