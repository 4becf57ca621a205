"""burr: state machines of actions on an immutable state, one action at a time.

The graph is built once, and an application of it for each job, as its documentation does. A fan-out and waits in
parallel are made of applications in an executor's threads (``MapStates``). Its durable jobs are those of its own
`SQLitePersister`, which saves the state after each action.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from burr.core import ApplicationBuilder, ApplicationContext, Graph, GraphBuilder, State, action, default, when
from burr.core.action import create_action
from burr.core.parallelism import MapStates
from burr.core.persistence import SQLitePersister
from timing import importing, repeated, spread, timed


@action(reads=["data"], writes=["data"])
def add(state: State) -> State:
    return state.update(data=state["data"] + 1)


def run(graph: Graph, entry: str, end: str, **state: Any) -> State:
    """Run a job, and return its last state."""
    application = ApplicationBuilder().with_graph(graph).with_entrypoint(entry).with_state(**state).build()
    return application.run(halt_after=[end])[2]


def adding_chain(size: int) -> Graph:
    names = [f"action{place}" for place in range(size)]
    builder = GraphBuilder().with_actions(**dict.fromkeys(names, add))
    return builder.with_transitions(*itertools.pairwise(names)).build()


def chain(size: int) -> tuple[float, int]:
    graph = adding_chain(size)
    seconds, state = repeated(lambda: run(graph, "action0", f"action{size - 1}", data=0))
    return seconds, state["data"]


@action(reads=["left"], writes=["left", "data"])
def source(state: State) -> State:
    return state.update(left=state["left"] - 1, data=state["left"] - 1)


@action(reads=["total", "data", "left"], writes=["total", "more"])
def sink(state: State) -> State:
    return state.update(total=state["total"] + state["data"], more=state["left"] > 0)


@action(reads=[], writes=[])
def end(state: State) -> State:
    return state


def stream(size: int, history: str = "full") -> tuple[float, int] | None:
    if history == "bounded":
        return None
    builder = GraphBuilder().with_actions(source=source, transform=add, sink=sink, end=end)
    graph = builder.with_transitions(
        ("source", "transform"), ("transform", "sink"), ("sink", "source", when(more=True)), ("sink", "end", default)
    ).build()
    seconds, state = repeated(lambda: run(graph, "source", "end", left=size, total=0))
    return seconds, state["total"]


class Branches(MapStates):
    """Runs `add` on so many states in threads, and joins them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def action(self, state: State, inputs: dict[str, Any]) -> Any:
        return create_action(add, "add")

    def states(self, state: State, context: ApplicationContext, inputs: dict[str, Any]) -> Iterator[State]:
        for _ in range(self.width):
            yield state.update(data=0)

    def reduce(self, state: State, states: Iterator[State]) -> State:
        joined = state["joined"] + sum(each["data"] for each in states)
        return state.update(joined=joined, left=state["left"] - 1, more=state["left"] > 1)

    @property
    def reads(self) -> list[str]:
        return ["joined", "left"]

    @property
    def writes(self) -> list[str]:
        return ["joined", "left", "more"]


def fan_out(size: int, width: int) -> tuple[float, int]:
    builder = GraphBuilder().with_actions(branches=Branches(width), end=end)
    graph = builder.with_transitions(("branches", "branches", when(more=True)), ("branches", "end", default)).build()
    seconds, state = repeated(lambda: run(graph, "branches", "end", left=size, joined=0))
    return seconds, state["joined"]


@action(reads=["count", "size"], writes=["count", "more"])
def edit(state: State) -> State:
    return state.update(count=state["count"] + 1, more=state["count"] + 1 < state["size"])


def counter(size: int, workers: int) -> tuple[float, int] | None:
    if workers > 1:
        return None  # what runs in parallel has states of its own
    builder = GraphBuilder().with_actions(edit=edit, end=end)
    graph = builder.with_transitions(("edit", "edit", when(more=True)), ("edit", "end", default)).build()
    seconds, state = repeated(lambda: run(graph, "edit", "end", count=0, size=size))
    return seconds, state["count"]


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    @action(reads=[], writes=["data"])
    def sleep(state: State) -> State:
        time.sleep(seconds)
        return state.update(data=1)

    class Waits(Branches):
        def action(self, state: State, inputs: dict[str, Any]) -> Any:
            return create_action(sleep, "sleep")

    graph = GraphBuilder().with_actions(waits=Waits(size)).build()

    def once() -> int:
        builder = ApplicationBuilder().with_graph(graph).with_entrypoint("waits").with_state(left=1, joined=0)
        application = builder.with_parallel_executor(lambda: ThreadPoolExecutor(workers)).build()
        return application.run(halt_after=["waits"])[2]["joined"]

    return repeated(once)


def two_routines(size: int) -> tuple[dict[str, float], int]:
    graph = adding_chain(2)

    def measure() -> tuple[float, int]:
        seconds, state = timed(lambda: run(graph, "action0", "action1", data=-1))
        return seconds, state["data"]

    return spread(measure, size)


def jobs(size: int) -> tuple[float, int]:
    graph = adding_chain(2)

    async def job() -> int:
        application = ApplicationBuilder().with_graph(graph).with_entrypoint("action0").with_state(data=-1).build()
        return (await application.arun(halt_after=["action1"]))[2]["data"]

    async def at_once() -> int:
        return sum(await asyncio.gather(*(job() for _ in range(size))))

    return repeated(lambda: asyncio.run(at_once()))


def imports(size: int) -> tuple[float, int]:
    return importing("from burr.core import ApplicationBuilder", size)


def durable(size: int, synchronous: str) -> tuple[float, int]:
    builder = GraphBuilder().with_actions(edit=edit, end=end)
    graph = builder.with_transitions(("edit", "edit", when(more=True)), ("edit", "end", default)).build()
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder, "jobs.db"))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        persister = SQLitePersister(db_path="", connection=connection)
        persister.initialize()

        def run() -> State:
            builder = ApplicationBuilder().with_graph(graph).with_entrypoint("edit").with_state(count=0, size=size)
            return builder.with_state_persister(persister).build().run(halt_before=["end"])[2]

        seconds, state = repeated(run)
        persister.cleanup()
    return seconds, state["count"]
