"""langgraph: graphs of nodes that run in supersteps and update the channels of a state.

Its durable jobs are those of ``langgraph-checkpoint-sqlite``, with a checkpoint that is written before the next
superstep starts.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send
from timing import importing, repeated, spread, timed

AT_ONCE = 500  # items of a stream; with more in one superstep, each costs more


class Number(TypedDict):
    data: int


def add(state: dict[str, Any]) -> dict[str, Any]:
    return {"data": state["data"] + 1}


def adding_chain(size: int) -> Any:
    builder = StateGraph(Number)
    names = [f"node{place}" for place in range(size)]
    for name in names:
        builder.add_node(name, add)
    for before, after in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(before, after)
    return builder.compile()


def chain(size: int) -> tuple[float, int]:
    graph = adding_chain(size)
    seconds, state = repeated(lambda: graph.invoke({"data": 0}, {"recursion_limit": size + 1}))
    return seconds, state["data"]


class Stream(TypedDict):
    count: int
    sent: int
    total: Annotated[int, operator.add]


def stream(size: int, history: str = "full") -> tuple[float, int] | None:
    if history == "bounded":
        return None

    def items(state: Stream) -> list[Send] | str:
        return [Send("transform", number) for number in range(state["sent"] - AT_ONCE, state["sent"])]

    def left(state: Stream) -> str:
        return "source" if state["sent"] < state["count"] else END

    builder = StateGraph(Stream)
    builder.add_node("source", lambda state: {"sent": state["sent"] + AT_ONCE})
    builder.add_node("transform", lambda number: Command(goto=Send("sink", number + 1)))
    builder.add_node("sink", lambda number: {"total": number})
    builder.add_edge(START, "source")
    builder.add_conditional_edges("source", items, ["transform"])
    builder.add_conditional_edges("sink", left, ["source", END])
    graph = builder.compile()
    config = {"recursion_limit": 4 * size}
    seconds, state = repeated(lambda: graph.invoke({"count": size, "sent": 0, "total": 0}, config))
    return seconds, state["total"]


class Rounds(TypedDict):
    left: int
    joined: Annotated[int, operator.add]


def fan_out(size: int, width: int) -> tuple[float, int]:
    builder = StateGraph(Rounds)
    branches = [f"branch{number}" for number in range(width)]
    builder.add_node("begin", lambda state: {"left": state["left"] - 1})
    builder.add_edge(START, "begin")
    for branch in branches:
        builder.add_node(branch, lambda state: {"joined": 1})
        builder.add_edge("begin", branch)
    builder.add_node("join", lambda state: {})
    builder.add_edge(branches, "join")
    builder.add_conditional_edges("join", lambda state: "begin" if state["left"] else END, ["begin", END])
    graph = builder.compile()
    seconds, state = repeated(
        lambda: graph.invoke({"left": size, "joined": 0}, {"recursion_limit": 4 * size + 4}),
    )
    return seconds, state["joined"]


class Counter(TypedDict):
    left: int
    count: Annotated[int, operator.add]


def counter(size: int, workers: int) -> tuple[float, int]:
    """An atomic edit is the update of a node to a channel with a reducer; so many nodes at a time make one each."""
    builder = StateGraph(Counter)
    editors = [f"editor{number}" for number in range(workers)]
    builder.add_node("share", lambda state: {"left": state["left"] - 1})
    builder.add_edge(START, "share")
    for editor in editors:
        builder.add_node(editor, lambda state: {"count": 1})
        builder.add_edge("share", editor)
    builder.add_conditional_edges(editors[0], lambda state: "share" if state["left"] else END, ["share", END])
    graph = builder.compile()
    rounds = size // workers
    config = {"recursion_limit": 2 * rounds + 2}
    seconds, state = repeated(lambda: graph.invoke({"left": rounds, "count": 0}, config))
    return seconds, state["count"]


class Slept(TypedDict):
    slept: Annotated[int, operator.add]


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    def sleep(_: Any) -> dict[str, int]:
        time.sleep(seconds)
        return {"slept": 1}

    builder = StateGraph(Slept)
    builder.add_node("sleep", sleep)
    builder.add_conditional_edges(START, lambda state: [Send("sleep", number) for number in range(size)], ["sleep"])
    graph = builder.compile()
    took, state = repeated(lambda: graph.invoke({"slept": 0}, {"max_concurrency": workers}))
    return took, state["slept"]


def two_routines(size: int) -> tuple[dict[str, float], int]:
    graph = adding_chain(2)

    def measure() -> tuple[float, int]:
        seconds, state = timed(lambda: graph.invoke({"data": -1}))
        return seconds, state["data"]

    return spread(measure, size)


def jobs(size: int) -> tuple[float, int]:
    graph = adding_chain(2)

    async def at_once() -> int:
        states = await asyncio.gather(*(graph.ainvoke({"data": -1}) for _ in range(size)))
        return sum(state["data"] for state in states)

    return repeated(lambda: asyncio.run(at_once()))


def imports(size: int) -> tuple[float, int]:
    return importing("from langgraph.graph import StateGraph", size)


def durable(size: int, synchronous: str) -> tuple[float, int]:
    builder = StateGraph(Number)
    builder.add_node("add", add)
    builder.add_edge(START, "add")
    builder.add_conditional_edges("add", lambda state: "add" if state["data"] < size else END, ["add", END])
    names = map("job {}".format, itertools.count())
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder, "jobs.db"), check_same_thread=False)) as connection,
    ):
        saver = SqliteSaver(connection)
        saver.setup()  # in WAL mode
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        graph = builder.compile(checkpointer=saver)

        def run() -> dict[str, int]:
            config = {"recursion_limit": size + 1, "configurable": {"thread_id": next(names)}}
            return graph.invoke({"data": 0}, config, durability="sync")

        seconds, state = repeated(run)
    return seconds, state["data"]
