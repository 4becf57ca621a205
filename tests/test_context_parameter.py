"""B0: a parameter annotated `Context` gets the context."""

from __future__ import annotations

import functools

import pytest
from parts import Source, chain
from pydantic import BaseModel

from routilux import AsyncContext, Context, ExecutionContext, Flow, Routine


class Asks(Routine):
    def __init__(self, handler):
        super().__init__()
        self.define_slot("input", handler=handler)
        self.define_event("output")


def run(handler, payload):
    flow = Flow("asks")
    flow.add_routine(Asks(handler), "asks")
    state = flow.execute("asks", payload)
    state.raise_for_status()
    return state


def test_b0_a_context_parameter_takes_no_part_in_binding():
    seen = []

    def handler(ctx: Context, data: int):
        seen.append((ctx.routine_id, ctx.attempt, data))

    run(handler, {"data": "5", "ctx": "not this"})
    assert seen == [("asks", 1, 5)]


def test_b0_a_sole_other_parameter_still_receives_the_whole_payload():
    seen = []

    def handler(payload, context: ExecutionContext):
        seen.append((payload, context.slot_name))

    run(handler, {"a": 1})
    assert seen == [({"a": 1}, "input")]


def test_b0_with_kwargs_the_rest_does_not_include_the_context():
    seen = []

    def handler(ctx: Context, **rest):
        seen.append(rest)
        ctx.emit("output", **rest)

    state = run(handler, {"a": 1})
    assert seen == [{"a": 1}]
    assert state.get_execution_history()[0].event_name == "output"


def decorated(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


def test_b0_a_decorated_function_of_ctx_gets_the_context():
    seen = []

    @decorated
    @decorated
    def handler(ctx, n):
        seen.append((ctx.routine_id, n))

    run(handler, {"n": 5, "ctx": "not this"})
    assert seen == [("asks", 5)]


def test_b0_in_a_decorated_method_ctx_is_a_parameter_like_others():
    seen = []

    class Takes(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.handle)

        @decorated
        def handle(self, ctx, n):
            seen.append((ctx, n))

    chain(Takes()).execute("r0", {"n": 5, "ctx": "this"}).raise_for_status()
    assert seen == [("this", 5)]


def test_b0_each_turn_gets_its_own_context():
    kept = []

    class Target(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.handle)

        def handle(self, data, ctx: Context):
            kept.append(ctx)
            ctx.job_state.update_shared_data(f"key{data}", data)

    state = chain(Source([1, 2]), Target()).execute("r0")
    assert len({id(ctx) for ctx in kept}) == 2
    assert (state.get_shared_data("key1"), state.get_shared_data("key2")) == (1, 2)


class Count(BaseModel):
    count: int = 0


def counts(ctx: Context[Count]):
    ctx.state.count += 1


async def acounts(ctx: AsyncContext[Count]):
    ctx.state.count += 1


async def acounts_as_plain(ctx: Context[Count]):
    ctx.state.count += 1


@pytest.mark.parametrize("handler", [counts, acounts, acounts_as_plain])
def test_b0_a_context_may_name_the_model_of_its_state(handler):
    with Flow("counts", state_schema=Count) as flow:
        flow.add_routine(Asks(handler), "asks")
        assert flow.execute("asks", {"other": 1}).get_shared_data("count") == 1
