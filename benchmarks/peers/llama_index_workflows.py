"""llama-index-workflows: workflows of typed events on one asyncio loop.

It keeps no history and has no durable jobs of its own, so there is no row for these.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from timing import importing, repeated, spread, timed
from workflows import Context, Workflow, step
from workflows.events import Event, StartEvent, StopEvent

# With more events in flight than it has workers, each costs more the more there are, so the source waits for room.
IN_FLIGHT = 16

LOOP = asyncio.new_event_loop()


def run(workflow: Workflow, **given: Any) -> Any:
    """Run a workflow to its end and return its result."""

    async def running() -> Any:
        return await workflow.run(**given)

    return LOOP.run_until_complete(running())


class Item(Event):
    data: int


class Added(Event):
    data: int


def adding_chain(size: int) -> Workflow:
    """Return a workflow of so many steps, each with an event of its own that leads to the next."""
    events = [type(f"Event{place}", (Event,), {"__annotations__": {"data": int}}) for place in range(1, size)]
    takes, gives = [StartEvent, *events], [*events, StopEvent]
    steps = {}
    for place, (taken, given) in enumerate(zip(takes, gives, strict=True)):

        def add(given: type[Event]) -> Callable[..., Any]:
            name = "result" if given is StopEvent else "data"

            async def one(self: Workflow, ev: Any) -> Any:
                return given(**{name: ev.data + 1})

            return one

        handler = add(given)
        handler.__name__ = handler.__qualname__ = f"Chain.step{place}"
        handler.__annotations__ = {"ev": taken, "return": given}
        steps[f"step{place}"] = step(handler)
    return type("Chain", (Workflow,), steps)(timeout=None)


def chain(size: int) -> tuple[float, int]:
    workflow = adding_chain(size)
    return repeated(lambda: run(workflow, data=0))


class Stream(Workflow):
    @step
    async def source(self, ctx: Context, ev: StartEvent) -> Item | None:
        self.left, self.total, self.room = ev.count, 0, asyncio.Semaphore(IN_FLIGHT)
        for number in range(ev.count):
            await self.room.acquire()
            ctx.send_event(Item(data=number))

    @step
    async def transform(self, ev: Item) -> Added:
        return Added(data=ev.data + 1)

    @step
    async def sink(self, ev: Added) -> StopEvent | None:
        self.total += ev.data
        self.left -= 1
        self.room.release()
        return None if self.left else StopEvent(result=self.total)


def stream(size: int, history: str = "full") -> tuple[float, int] | None:
    if history == "bounded":
        return None
    workflow = Stream(timeout=None)
    return repeated(lambda: run(workflow, count=size))


class Again(Event):
    pass


class Rounds(Workflow):
    @step
    async def begin(self, ev: StartEvent | Again) -> list[Item]:
        if isinstance(ev, StartEvent):
            self.width, self.rounds, self.joined = ev.width, ev.rounds, 0
        return [Item(data=0) for _ in range(self.width)]

    @step(num_workers=100)
    async def branch(self, ev: Item) -> Added:
        return Added(data=ev.data + 1)

    @step
    async def join(self, items: list[Added]) -> Again | StopEvent:
        self.joined += sum(each.data for each in items)
        self.rounds -= 1
        return Again() if self.rounds else StopEvent(result=self.joined)


def fan_out(size: int, width: int) -> tuple[float, int]:
    workflow = Rounds(timeout=None)
    return repeated(lambda: run(workflow, rounds=size, width=width))


class Share(Event):
    times: int


class Counter(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> list[Share]:
        return [Share(times=ev.times) for _ in range(ev.workers)]

    @step(num_workers=8)
    async def edit(self, ctx: Context, ev: Share) -> Added:
        for _ in range(ev.times):
            async with ctx.store.edit_state() as state:
                state["count"] = state.get("count", 0) + 1
        return Added(data=ev.times)

    @step
    async def end(self, ctx: Context, items: list[Added]) -> StopEvent:
        return StopEvent(result=await ctx.store.get("count"))


def counter(size: int, workers: int) -> tuple[float, int]:
    workflow = Counter(timeout=None)
    return repeated(lambda: run(workflow, times=size // workers, workers=workers))


class Edit(Workflow):
    """Makes a change to a large state, so many times; returns the seconds that it took, and the value then."""

    @step
    async def edit(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            for key, value in ev.initial_state.items():
                state[key] = value
        started = time.perf_counter()
        for _ in range(ev.edits):
            async with ctx.store.edit_state() as state:
                ev.change(state)
        seconds = time.perf_counter() - started
        return StopEvent(result=(seconds, await ctx.store.get(ev.path)))


def edit(**given: Any) -> tuple[float, int]:
    return run(Edit(timeout=None), **given)


def edit_keys(size: int, edits: int) -> tuple[float, int]:
    def change(state: Any) -> None:
        state["key0"] += 1

    state = {f"key{number}": 0 for number in range(size)}
    return edit(initial_state=state, change=change, edits=edits, path="key0")


def edit_list(size: int, edits: int) -> tuple[float, int]:
    def change(state: Any) -> None:
        state["items"][0]["value"] += 1

    items = [{"name": f"item {number}", "value": 0} for number in range(size)]
    return edit(initial_state={"items": items}, change=change, edits=edits, path="items.0.value")


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    class Waits(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(data=1) for _ in range(size)]

        @step(num_workers=workers)
        def sleep(self, ev: Item) -> Added:  # a plain function runs on a thread of the loop's executor
            time.sleep(seconds)
            return Added(data=ev.data)

        @step
        async def end(self, items: list[Added]) -> StopEvent:
            return StopEvent(result=len(items))

    LOOP.set_default_executor(ThreadPoolExecutor(workers))
    workflow = Waits(timeout=None)
    return repeated(lambda: run(workflow))


class Two(Workflow):
    @step
    async def first(self, ev: StartEvent) -> Item:
        return Item(data=ev.data + 1)

    @step
    async def second(self, ev: Item) -> StopEvent:
        return StopEvent(result=ev.data)


def two_routines(size: int) -> tuple[dict[str, float], int]:
    workflow = Two(timeout=None)
    return spread(lambda: timed(lambda: run(workflow, data=0)), size)


def jobs(size: int) -> tuple[float, int]:
    workflow = Two(timeout=None)

    async def at_once() -> int:
        return sum(await asyncio.gather(*(workflow.run(data=0) for _ in range(size))))

    return repeated(lambda: LOOP.run_until_complete(at_once()))


def imports(size: int) -> tuple[float, int]:
    return importing("from workflows import Context, Workflow, step", size)
