"""Routines and flows that many tests need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

from routilux import Flow, Routine

LONG = 20.0  # seconds; a test that needs them has failed


class Step(Routine):
    """A routine of one handler ``handle(step, **payload)`` in slot ``input``, with event ``output``."""

    def __init__(self, handle: Callable[..., Any], *, events: Iterable[str] = ("output",), **slot_options: Any) -> None:
        super().__init__()
        self.handle_with = handle
        self.define_slot("input", handler=self.process, **slot_options)
        for name in events:
            self.define_event(name)

    def process(self, **payload: Any) -> None:
        self.handle_with(self, **payload)


class AsyncStep(Step):
    """A `Step` whose handler is a coroutine function, and awaits ``handle(step, **payload)``."""

    async def process(self, **payload: Any) -> None:
        await self.handle_with(self, **payload)


class Signal:
    """Something that happens once, in any thread or task: threads ``wait()`` for it, tasks await it."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            if not self._future.done():
                self._future.set_result(None)

    def is_set(self) -> bool:
        return self._future.done()

    def wait(self, seconds: float = 20.0) -> bool:
        self._future.result(seconds)
        return True

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()


class Meeting:
    """A place on one event loop that tasks go on from once ``count`` of them have come."""

    def __init__(self, count: int) -> None:
        self.missing = count
        self.full = Signal()

    async def come(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.full.set()
        await self.full


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


class Source(Routine):
    """Emits ``output(data=item)`` for each item when triggered; the items are the entry's, else those given here."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self.items = items
        self.define_slot("trigger", handler=self.generate)
        self.define_event("output", ["data"])

    def generate(self, items: Any = None) -> None:
        for item in self.items if items is None else items:
            self.emit("output", data=item)


class Sink(Routine):
    """Keeps what arrives, in order."""

    def __init__(self, **slot_options: Any) -> None:
        super().__init__()
        self.got: list[Any] = []
        self.define_slot("input", handler=self.collect, **slot_options)

    def collect(self, **payload: Any) -> None:
        self.got.append(payload.get("data", payload))


def chain(*routines: Routine, **options: Any) -> Flow:
    """Return a flow in which each routine's ``output`` goes to the next one's ``input``; ids are r0, r1, ..."""
    flow = Flow("chain", **options)
    ids = [flow.add_routine(routine, f"r{index}") for index, routine in enumerate(routines)]
    for left, right in pairwise(ids):
        flow.connect(left, "output", right, "input")
    return flow


def at_rest(state: Any) -> bool:
    """Whether a job has come to rest and no turn of it is left: a ticket that remains is listed, or was dropped."""
    record = state._record
    held = [each.tickets - sum(listed is each for listed in each.listing) for each in record.mailboxes]
    idle = record.at_rest and not state._job.begun
    return idle and (not any(held) or (record.closed and min(held) >= 0 and str(state.status) == "cancelled"))


def resting(state: Any) -> Any:
    """Wait until a job waits for something from outside, and return its state."""
    bell = threading.Event()
    with state._job.lock:
        if not state._job.at_rest:
            state._job.watchers.append(bell)
        else:
            bell.set()
    assert bell.wait(LONG)
    assert state.status == "waiting"
    return state


def in_thread(call: Callable[[], Any]) -> Any:
    """Run a call in another thread and return what it returned; an exception fails the test there and here."""
    got = []
    thread = threading.Thread(target=lambda: got.append(call()), daemon=True)
    thread.start()
    thread.join(LONG)
    return got[0]


def threads_besides(before: Collection[threading.Thread]) -> list[threading.Thread]:
    """Return the living threads that are not among those of before; other tests' may end at any time."""
    return [thread for thread in threading.enumerate() if thread not in before]


def run(handler: Callable[..., Any], payload: Any = None, **options: Any) -> Any:
    """Run ``handler(ctx, **payload)`` as a job of its own, and return the state of the job; errors are raised."""
    state = attempt(handler, payload, **options)
    state.raise_for_status()
    return state


def attempt(
    handler: Callable[..., Any], payload: Any = None, initial_state: Any = None, job_state: Any = None, **options: Any
) -> Any:
    """Run ``handler(ctx, **payload)`` as a job of its own, and return the state of the job."""
    flow = chain(Step(lambda step, **given: handler(step.get_execution_context(), **given)), **options)
    return flow.execute("r0", payload, initial_state=initial_state, job_state=job_state)


def meanwhile(handler: Callable[..., Any], other: Callable[..., Any], initial_state: Any = None, **options: Any) -> Any:
    """Run the generator ``handler(ctx)`` up to its ``yield``, then ``other(ctx)`` in another routine, then the rest."""
    go, done = threading.Event(), threading.Event()

    def first(step: Any, **_: Any) -> None:
        rest = handler(step.get_execution_context())
        next(rest)
        go.set()
        assert done.wait(20)
        for _ in rest:
            pass

    def second(step: Any, **_: Any) -> None:
        assert go.wait(20)
        try:
            other(step.get_execution_context())
        finally:
            done.set()

    flow = Flow("chain", execution_strategy="concurrent", max_workers=3, **options)
    flow.add_routine(Source([1]), "source")
    flow.add_routine(Step(first), "r0")
    flow.add_routine(Step(second), "other")
    for target in ("r0", "other"):
        flow.connect("source", "output", target, "input")
    with flow:
        return flow.execute("source", initial_state=initial_state)
