"""pydantic-graph: graphs of async steps on one asyncio loop.

The state of a run is a plain object that all steps change in place; nothing isolates a change, or takes it back when a
step fails. So it has no atomic edits to compare. It keeps no history and has no durable jobs.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydantic_graph import Graph, GraphBuilder, StepContext, reduce_sum
from timing import importing, repeated, spread, timed

LOOP = asyncio.new_event_loop()


def run(graph: Graph, inputs: int, state: Any = None) -> int:
    return LOOP.run_until_complete(graph.run(inputs=inputs, state=state))


async def add(ctx: StepContext[Any, None, int]) -> int:
    return ctx.inputs + 1


def adding_chain(size: int) -> Graph:
    builder = GraphBuilder(input_type=int, output_type=int)
    places = [builder.start_node, *(builder.step(add, node_id=f"step{place}") for place in range(size))]
    for before, after in zip(places, [*places[1:], builder.end_node], strict=True):
        builder.add(builder.edge_from(before).to(after))
    return builder.build()


def chain(size: int) -> tuple[float, int]:
    graph = adding_chain(size)
    return repeated(lambda: run(graph, 0))


def stream(size: int, history: str = "full") -> tuple[float, int] | None:
    if history == "bounded":
        return None
    builder = GraphBuilder(input_type=int, output_type=int)

    @builder.step
    async def source(ctx: StepContext[None, None, int]) -> range:
        return range(ctx.inputs)

    @builder.step
    async def sink(ctx: StepContext[None, None, int]) -> int:
        return ctx.inputs

    transform = builder.step(add, node_id="transform")
    total = builder.join(reduce_sum, initial=0)
    builder.add(
        builder.edge_from(builder.start_node).to(source),
        builder.edge_from(source).map().to(transform),
        builder.edge_from(transform).to(sink),
        builder.edge_from(sink).to(total),
        builder.edge_from(total).to(builder.end_node),
    )
    graph = builder.build()
    return repeated(lambda: run(graph, size))


@dataclass
class Rounds:
    left: int
    joined: int = 0


def fan_out(size: int, width: int) -> tuple[float, int]:
    builder = GraphBuilder(state_type=Rounds, input_type=int, output_type=int)

    @builder.step
    async def begin(ctx: StepContext[Rounds, None, int]) -> int:
        return 0

    @builder.step
    async def end(ctx: StepContext[Rounds, None, int]) -> int:
        ctx.state.joined += ctx.inputs
        ctx.state.left -= 1
        return ctx.state.left

    branches = [builder.step(add, node_id=f"branch{number}") for number in range(width)]
    join = builder.join(reduce_sum, initial=0)
    builder.add(
        builder.edge_from(builder.start_node).to(begin),
        builder.edge_from(begin).to(*branches),
        builder.edge_from(*branches).to(join),
        builder.edge_from(join).to(end),
        builder.edge_from(end).to(
            builder.decision()
            .branch(builder.match(int, matches=bool).to(begin))
            .branch(builder.match(int).to(builder.end_node))
        ),
    )
    graph = builder.build()

    def rounds() -> int:
        state = Rounds(size)
        run(graph, 0, state)
        return state.joined

    return repeated(rounds)


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    builder = GraphBuilder(input_type=int, output_type=int)

    @builder.step
    async def source(ctx: StepContext[None, None, int]) -> range:
        return range(ctx.inputs)

    @builder.step
    async def sleep(ctx: StepContext[None, None, int]) -> int:
        await asyncio.to_thread(time.sleep, seconds)
        return 1

    total = builder.join(reduce_sum, initial=0)
    builder.add(
        builder.edge_from(builder.start_node).to(source),
        builder.edge_from(source).map().to(sleep),
        builder.edge_from(sleep).to(total),
        builder.edge_from(total).to(builder.end_node),
    )
    graph = builder.build()
    LOOP.set_default_executor(ThreadPoolExecutor(workers))
    return repeated(lambda: run(graph, size))


def two_routines(size: int) -> tuple[dict[str, float], int]:
    graph = adding_chain(2)
    return spread(lambda: timed(lambda: run(graph, -1)), size)


def jobs(size: int) -> tuple[float, int]:
    graph = adding_chain(2)

    async def at_once() -> int:
        return sum(await asyncio.gather(*(graph.run(inputs=-1) for _ in range(size))))

    return repeated(lambda: LOOP.run_until_complete(at_once()))


def imports(size: int) -> tuple[float, int]:
    return importing("from pydantic_graph import GraphBuilder", size)
