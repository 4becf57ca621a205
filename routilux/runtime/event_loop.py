"""The event loop of an engine: one thread on which all coroutine handlers run."""

from __future__ import annotations

import asyncio
import threading
from _thread import get_ident
from collections.abc import Callable, Coroutine
from contextvars import Context as Variables
from typing import Any

from .threads import here


class LoopBell:
    """A bell for a task: setting it, from any thread, ends the wait."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        """Wake the task that waits."""
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # the loop was closed, so nobody waits
            pass

    def clear(self) -> None:
        """Have the task wait for the next time that it is set."""
        self._future = self._loop.create_future()

    def _ring(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the bell rings, for ``timeout`` seconds at the most; return whether it has rung."""
        await asyncio.wait({self._future}, timeout=timeout)
        return self._future.done()


class EventLoop:
    """A thread with an event loop. It ends when it is closed and none of its handlers runs any more.

    All but the constructor, ``call``, ``keep``, ``give_up``, ``close`` and ``join`` belongs to the loop's own thread.
    """

    def __init__(self) -> None:
        # The loop keeps the variables that it was made with, and they would keep the job that it was made for.
        self._loop = Variables().run(asyncio.new_event_loop)
        self._thread = threading.Thread(target=self._run, name="routilux-loop", daemon=True)
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()  # a loop by itself does not keep its tasks alive
        self._lock = threading.Lock()
        self._given_up = 0
        self._kept: set[asyncio.Task[None]] = set()
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no thread
            self._loop.close()
            raise

    @property
    def thread(self) -> int:
        """The identifier of its thread."""
        return self._thread.ident or 0

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function soon, on the loop's thread. Any thread may ask for it."""
        if get_ident() == self.thread:
            self._loop.call_soon(function, *arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    def later(self, seconds: float, function: Callable[[], object]) -> asyncio.TimerHandle:
        """Call a function when so many seconds have passed."""
        # A timer keeps its variables until it is due, even when it was cancelled.
        return self._loop.call_later(seconds, function, context=Variables())

    def create_task(self, coroutine: Coroutine[Any, Any, None], variables: Variables) -> asyncio.Task[None]:
        """Run a coroutine in a copy of the context variables, and keep it until it calls `done`."""
        task: asyncio.Task[None] = variables.copy().run(self._loop.create_task, coroutine)
        self._tasks.add(task)
        return task

    def keep(self, coroutine: Coroutine[Any, Any, None], variables: Variables) -> None:
        """Run a coroutine in these context variables, without counting it: at the end it is cancelled.

        Any thread may call it.
        """
        self.call(self._keep, coroutine, variables)

    def _keep(self, coroutine: Coroutine[Any, Any, None], variables: Variables) -> None:
        task: asyncio.Task[None] = variables.run(self._loop.create_task, coroutine)
        self._kept.add(task)
        # Not in the context variables of here, which would be kept as long, and the turn in them.
        task.add_done_callback(self._kept.discard, context=Variables())

    def make_bell(self) -> LoopBell:
        """Return a bell for a task that runs."""
        return LoopBell()

    def give_up(self) -> None:
        """Do not wait, at the end, for one of the coroutines. Any thread may call it."""
        with self._lock:
            self._given_up += 1

    def done(self, task: asyncio.Task[None], given_up: bool) -> None:
        """Note that a coroutine has ended."""
        self._tasks.discard(task)
        if given_up:
            with self._lock:
                self._given_up -= 1
        self._stop_if_over()

    def close(self) -> None:
        """Let the thread end when no handler runs on it. Any thread may call it."""
        self._closing = True
        try:
            self.call(self._stop_if_over)
        except RuntimeError:  # the thread has seen it, and is over
            pass

    def join(self) -> None:
        """Wait for the thread to end, unless a handler that was given up keeps it. Any thread may call it."""
        with self._lock:
            given_up = self._given_up
        if not given_up and threading.current_thread() is not self._thread:
            self._thread.join()

    def _stop_if_over(self) -> None:
        if self._closing and not self._tasks:
            self._loop.stop()

    def _run(self) -> None:
        here.on_event_loop = True
        asyncio.set_event_loop(self._loop)
        while not (self._closing and not self._tasks):
            try:
                self._loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # Raised by a task that a handler has made, and by awaiting it in the handler, which is what counts.
                continue
        try:
            self._cancel_what_handlers_left()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _cancel_what_handlers_left(self) -> None:
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left))
