"""What people do with the state of a flow, in plain handlers and in coroutine handlers.

The programs have the content of the pages that users of other workflow libraries know: a counter behind a store, a
locked edit, typed state, one field at a time, the same state across runs, a cart, a conversation, a batch.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import BaseModel, Field

from routilux import AsyncContext, Context, Flow, JobState, Routine, SaveError


def flow_of(handler, **options):
    """Return a flow of one routine ``"step"`` whose slot ``"trigger"`` has this handler."""
    routine = Routine()
    routine.define_slot("trigger", handler=handler)
    routine.define_event("done")
    flow = Flow("program", **options)
    flow.add_routine(routine, "step")
    return flow


def run(flow, payload=None, **options):
    state = flow.execute("step", payload, **options)
    state.raise_for_status()
    return state


def both(*handlers):
    return pytest.mark.parametrize("handler", handlers, ids=["plain", "coroutine"])


# --- the store without a schema ---------------------------------------------------------------------------------------


def count_by_get_and_set(ctx: Context):
    current = ctx.store.get("count", default=0)
    current += 1
    ctx.store.set("count", current)
    ctx.finish(current)


async def acount_by_get_and_set(ctx: AsyncContext):
    current = await ctx.store.get("count", default=0)
    current += 1
    await ctx.store.set("count", current)
    ctx.finish(current)


@both(count_by_get_and_set, acount_by_get_and_set)
def test_a_counter_by_get_and_set(handler):
    with flow_of(handler) as flow:
        assert run(flow).result == 1
        assert run(flow, initial_state={"count": 41}).result == 42


def count_in_an_edit(ctx: Context):
    with ctx.store.edit_state() as state:
        current = state.get("count", 0)
        state["count"] = current + 1
        result = state["count"]
    ctx.finish(result)


async def acount_in_an_edit(ctx: AsyncContext):
    async with ctx.store.edit_state() as state:
        current = state.get("count", 0)
        state["count"] = current + 1
        result = state["count"]
    ctx.finish(result)


@both(count_in_an_edit, acount_in_an_edit)
def test_a_counter_in_a_locked_edit(handler):
    with flow_of(handler) as flow:
        state = run(flow)
        assert (state.result, state.get_shared_data("count")) == (1, 1)


# --- typed state ------------------------------------------------------------------------------------------------------


class CounterState(BaseModel):
    count: int = Field(default=0)


def count_typed(ctx: Context):
    with ctx.store.edit_state() as state:
        state.count += 1
    ctx.finish("Done!")


async def acount_typed(ctx: AsyncContext):
    async with ctx.store.edit_state() as state:
        state.count += 1
    ctx.finish("Done!")


@both(count_typed, acount_typed)
def test_a_typed_counter(handler):
    with flow_of(handler, state_schema=CounterState) as flow:
        state = run(flow)
        assert (state.result, state.get_shared_data("count")) == ("Done!", 1)


def count_one_field(ctx: Context):
    current = ctx.store.get("count")
    ctx.store.set("count", current + 1)
    state = ctx.store.get_state()
    ctx.finish(state.count)


async def acount_one_field(ctx: AsyncContext):
    current = await ctx.store.get("count")
    await ctx.store.set("count", current + 1)
    state = await ctx.store.get_state()
    ctx.finish(state.count)


@both(count_one_field, acount_one_field)
def test_a_typed_counter_one_field_at_a_time(handler):
    with flow_of(handler, state_schema=CounterState) as flow:
        assert run(flow).result == 1


@both(count_one_field, acount_one_field)
def test_the_state_goes_on_in_the_next_run_that_is_given_the_last(handler):
    with flow_of(handler, state_schema=CounterState) as flow:
        state = run(flow)
        for expected in (2, 3):
            state = run(flow, job_state=state)
            assert state.result == expected
        assert run(flow).result == 1


# --- counters, carts, conversations, batches --------------------------------------------------------------------------


class Counter(BaseModel):
    count: int = 0
    last_updated: str | None = None


def increment(ctx: Context, payload):
    ctx.state.count += payload.get("increment", 1)
    ctx.state.last_updated = "now"
    ctx.finish({"count": ctx.state.count})


async def aincrement(ctx: AsyncContext, payload):
    await asyncio.sleep(0)
    ctx.state.count += payload.get("increment", 1)
    ctx.state.last_updated = "now"
    ctx.finish({"count": ctx.state.count})


@both(increment, aincrement)
def test_a_counter_by_ctx_state(handler):
    with flow_of(handler, state_schema=Counter) as flow:
        assert run(flow, {"increment": 5}).result == {"count": 5}
        state = run(flow, {"other": 1}, initial_state=Counter(count=10))
        assert state.result == {"count": 11}
        assert state.get_shared_data("last_updated") == "now"


class Cart(BaseModel):
    items: list[dict] = []
    total: float = 0.0
    discount_code: str | None = None


def add_to_cart(ctx: Context, payload):
    if payload["action"] == "add":
        ctx.state.items.append(payload["item"])
        ctx.state.total += payload["item"]["price"]
    ctx.finish({"items": ctx.state.items, "total": ctx.state.total})


async def aadd_to_cart(ctx: AsyncContext, payload):
    if payload["action"] == "add":
        ctx.state.items.append(payload["item"])
        await asyncio.sleep(0)
        ctx.state.total += payload["item"]["price"]
    ctx.finish({"items": ctx.state.items, "total": ctx.state.total})


@both(add_to_cart, aadd_to_cart)
def test_a_cart_with_nested_lists(handler):
    pen = {"name": "pen", "price": 1.5, "tags": ["blue", ["ink"]]}
    book = {"name": "book", "price": 12.0, "tags": []}
    with flow_of(handler, state_schema=Cart) as flow:
        state = run(flow, {"action": "add", "item": pen})
        state = run(flow, {"action": "add", "item": book}, job_state=state)
        state = run(flow, {"action": "look"}, job_state=state)
        assert state.result == {"items": [pen, book], "total": 13.5}
        assert Cart().items == []


class Conversation(BaseModel):
    messages: list[dict] = []
    turn_count: int = 0


def chat(ctx: Context, payload):
    ctx.state.messages.append({"role": "user", "content": payload["message"]})
    ctx.state.turn_count += 1
    ctx.state.messages.append({"role": "assistant", "content": payload["message"].upper()})
    ctx.finish({"history": ctx.state.messages})


async def achat(ctx: AsyncContext, payload):
    ctx.state.messages.append({"role": "user", "content": payload["message"]})
    ctx.state.turn_count += 1
    await asyncio.sleep(0)
    ctx.state.messages.append({"role": "assistant", "content": payload["message"].upper()})
    ctx.finish({"history": ctx.state.messages})


@both(chat, achat)
def test_a_conversation(handler):
    with flow_of(handler, state_schema=Conversation) as flow:
        state = run(flow, {"message": "hello"})
        state = run(flow, {"message": "bye"}, job_state=state)
        contents = [message["content"] for message in state.result["history"]]
        assert contents == ["hello", "HELLO", "bye", "BYE"]
        assert state.get_shared_data("turn_count") == 2


class Processing(BaseModel):
    processed_count: int = 0
    failed_items: list[str] = []
    started_at: str = ""


def process_item(item):
    if item.startswith("bad"):
        raise ValueError(item)


def process_batch(ctx: Context, items: list[str], timestamp: str):
    ctx.state.started_at = timestamp
    for item in items:
        try:
            process_item(item)
            ctx.state.processed_count += 1
        except ValueError:
            ctx.state.failed_items.append(item)
    ctx.finish({"processed": ctx.state.processed_count, "failed": len(ctx.state.failed_items)})


async def aprocess_batch(ctx: AsyncContext, items: list[str], timestamp: str):
    ctx.state.started_at = timestamp
    for item in items:
        try:
            await asyncio.to_thread(process_item, item)
            ctx.state.processed_count += 1
        except ValueError:
            ctx.state.failed_items.append(item)
    ctx.finish({"processed": ctx.state.processed_count, "failed": len(ctx.state.failed_items)})


@both(process_batch, aprocess_batch)
def test_a_batch_with_failed_items(handler):
    payload = {"items": ["a", "bad b", "c", "bad d"], "timestamp": "noon"}
    with flow_of(handler, state_schema=Processing) as flow:
        state = run(flow, payload)
        assert state.result == {"processed": 2, "failed": 2}
        assert state.get_shared_data("failed_items") == ["bad b", "bad d"]
        assert state.get_shared_data("started_at") == "noon"
        assert Processing().failed_items == []


def fail_half_way(ctx: Context):
    ctx.state.processed_count = 1
    ctx.state.failed_items.append("a")
    raise RuntimeError("half way")


async def afail_half_way(ctx: AsyncContext):
    ctx.state.processed_count = 1
    ctx.state.failed_items.append("a")
    raise RuntimeError("half way")


@both(fail_half_way, afail_half_way)
def test_the_state_is_kept_when_the_job_fails(handler):
    with flow_of(handler, state_schema=Processing) as flow:
        state = flow.execute("step")
        assert state.status == "failed"
        assert state.get_shared_data("processed_count") == 1
        assert state.get_shared_data("failed_items") == ["a"]


class Retries(BaseModel):
    retry_limit: int = 3
    timeout_seconds: int = 30
    debug_mode: bool = False


def read_config(ctx: Context):
    ctx.finish((ctx.state.retry_limit, ctx.state.timeout_seconds, ctx.state.debug_mode))


async def aread_config(ctx: AsyncContext):
    ctx.finish((ctx.state.retry_limit, ctx.state.timeout_seconds, ctx.state.debug_mode))


@both(read_config, aread_config)
@pytest.mark.parametrize("initial", [{"debug_mode": True}, Retries(debug_mode=True)], ids=["dict", "model"])
def test_the_initial_state_is_put_over_the_defaults(handler, initial):
    with flow_of(handler, state_schema=Retries) as flow:
        assert run(flow, initial_state=initial).result == (3, 30, True)
        assert run(flow).result == (3, 30, False)


# --- snapshot and restore ---------------------------------------------------------------------------------------------


@both(count_one_field, acount_one_field)
def test_a_snapshot_is_restored_in_another_flow_and_goes_on(handler):
    with flow_of(handler, state_schema=CounterState) as flow:
        snapshot = json.loads(json.dumps(run(flow).to_dict()))
    with flow_of(handler, state_schema=CounterState) as flow:
        restored = JobState.from_dict(snapshot, flow)
        assert restored.get_shared_data("count") == 1
        assert run(flow, job_state=restored).result == 2


@both(count_one_field, acount_one_field)
def test_a_snapshot_in_a_file(handler, tmp_path):
    with flow_of(handler, state_schema=CounterState) as flow:
        run(flow).save(tmp_path / "counter.json")
    with flow_of(handler, state_schema=CounterState) as flow:
        assert run(flow, job_state=flow.load(tmp_path / "counter.json")).result == 2


class Money:
    """A value that no JSON serializer knows."""

    def __init__(self, cents):
        self.cents = cents


class MoneySerializer:
    def serialize(self, value):
        if not isinstance(value, Money):
            raise TypeError(f"no money: {value!r}")
        return {"cents": value.cents}

    def deserialize(self, data):
        return Money(data["cents"])


def earn(ctx: Context):
    purse = ctx.store.get("purse", default=Money(0))
    ctx.store.set("purse", Money(purse.cents + 5))


async def aearn(ctx: AsyncContext):
    purse = await ctx.store.get("purse", default=Money(0))
    await ctx.store.set("purse", Money(purse.cents + 5))


@both(earn, aearn)
def test_a_custom_serializer_writes_and_reads_what_the_library_cannot(handler):
    with flow_of(handler) as flow:
        state = run(flow)
        with pytest.raises(SaveError, match=r"shared data 'purse'.*Money"):
            state.to_dict()
        snapshot = state.to_dict(serializer=MoneySerializer())
        restored = JobState.from_dict(snapshot, flow, serializer=MoneySerializer())
        assert run(flow, job_state=restored).get_shared_data("purse").cents == 10
