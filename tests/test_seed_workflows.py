"""Programs as people write them: orders, batches, parents and children, carts and chats, and restarts in between."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from routilux import (
    Clock,
    Engine,
    ExecutionError,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    open_store,
    workflow,
)

LONG = 20.0


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


@pytest.fixture
def database(tmp_path):
    """Return a function that opens an engine on the one database of the test, as a new process would, seconds later."""
    opened = []

    def open_engine(*workflows, later=0.0):
        clock = Clock(time_ns=lambda: time.time_ns() + int(later * 1e9))
        engine = Engine(clock, store=open_store(f"sqlite:///{tmp_path}/jobs.db"))
        opened.append(engine)
        engine.register(*workflows)
        return engine

    yield open_engine
    for engine in opened:
        engine.close()


def waiting(state):
    """Return a job once it waits for something."""
    bell = threading.Event()
    while state.status != "waiting":
        bell.wait(0.001)
    return state


# --- greetings and orders --------------------------------------------------------------------------------------------


class Greeting(BaseModel):
    name: str = "World"


class Greeted(BaseModel):
    message: str


@workflow
async def greet(ctx: WorkflowContext, payload: Greeting) -> Greeted:
    text = await ctx.step.run("compose", lambda: f"Good day, {payload.name}!")
    return Greeted(message=text)


def test_a_simple_workflow():
    result = greet.run(Greeting(name="Ada"))
    assert result == Greeted(message="Good day, Ada!")
    assert greet({}).message == "Good day, World!"


class Purchase(BaseModel):
    number: str
    email: str
    goods: list[str]
    amount: float


class Confirmation(BaseModel):
    number: str
    status: str
    code: str


def check(purchase: Purchase) -> bool:
    if purchase.amount <= 0:
        raise ValueError(f"order {purchase.number} costs nothing")
    return True


shelf: list[str] = []


async def reserve(goods: list[str]) -> int:
    shelf.extend(goods)
    return len(goods)


@workflow(id="orders")
async def sell(ctx: WorkflowContext, payload: Purchase) -> Confirmation:
    await ctx.step.run("check", check, payload, max_retries=0)
    await ctx.step.run("reserve", reserve, payload.goods)
    code = await ctx.step.uuid("code")
    await ctx.step.wait_for("settle", seconds=0.002)
    return Confirmation(number=payload.number, status="sold", code=code)


def test_an_order():
    shelf.clear()
    first = sell.run(Purchase(number="1", email="a@b", goods=["pen", "ink"], amount=3))
    second = sell.run({"number": "2", "email": "a@b", "goods": ["nib"], "amount": "4"})
    assert (first.number, first.status, second.number) == ("1", "sold", "2")
    assert first.code != second.code
    assert shelf == ["pen", "ink", "nib"]


def test_an_order_that_is_refused():
    with pytest.raises(StepExecutionError, match=r"'check'.*order 3 costs nothing") as caught:
        sell.run(Purchase(number="3", email="a@b", goods=[], amount=0))
    assert type(caught.value.__cause__) is ValueError


# --- retries and values that stay ------------------------------------------------------------------------------------


def test_a_service_that_answers_at_the_third_attempt(engine):
    calls = []

    def ask(question):
        calls.append(question)
        if len(calls) < 3:
            raise ConnectionError("busy")
        return {"answer": 42}

    @workflow(engine=engine)
    async def consult(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
        return await ctx.step.run("ask", ask, payload["q"], max_retries=5, base_delay=0.001, max_delay=0.002)

    assert consult.run({"q": "why"}) == {"answer": 42}
    assert calls == ["why"] * 3


def test_values_are_the_same_after_a_restart(database):
    seen = []

    @workflow
    def draw(ctx, payload):
        step = ctx.step
        seen.append((step.uuid("id"), step.now("time"), step.random("number")))
        step.wait_for_event("pause", "go")
        return seen[-1]

    engine = database(draw)
    state = waiting(draw.start(job_id="j"))
    engine.close()
    other = database(draw)
    (again,) = other.recover()
    other.publish("go", job_id="j")
    assert again.wait(timeout=LONG)
    again.raise_for_status()
    assert again.result == seen[0] == seen[1]
    assert state.job_id == again.job_id


# --- a batch ---------------------------------------------------------------------------------------------------------


class Batch(BaseModel):
    items: list[str]
    at: str = ""


class BatchResult(BaseModel):
    processed: int
    failed: int


class BatchState(WorkflowState):
    processed: int = 0
    failed: list[str] = Field(default_factory=list)
    started_at: str = ""


def handle(item: str) -> str:
    if item.startswith("bad"):
        raise ValueError(item)
    return item.upper()


@workflow(state_schema=BatchState)
async def work_off(ctx: WorkflowContext[BatchState], payload: Batch) -> BatchResult:
    ctx.state.started_at = payload.at
    for item in payload.items:
        try:
            await ctx.step.run(f"handle {item}", handle, item, base_delay=0)
            ctx.state.processed += 1
        except StepExecutionError:
            ctx.state.failed.append(item)
    await ctx.step.wait_for("breathe", seconds=0)
    return BatchResult(processed=ctx.state.processed, failed=len(ctx.state.failed))


def test_a_batch_with_items_that_fail():
    state = work_off.start(Batch(items=["one", "bad two", "three", "bad four"], at="noon"))
    assert state.wait(timeout=LONG)
    assert state.result == BatchResult(processed=2, failed=2)
    assert state.get_shared_data("failed") == ["bad two", "bad four"]
    assert state.get_shared_data("started_at") == "noon"


# --- parents and children --------------------------------------------------------------------------------------------


class Piece(BaseModel):
    name: str
    weight: float


class Inspection(BaseModel):
    data: dict[str, Any]
    kind: str = "basic"


class Verdict(BaseModel):
    valid: bool
    name: str
    notes: list[str] = Field(default_factory=list)


class Shipment(BaseModel):
    pieces: list[Piece]


class Report(BaseModel):
    total: int
    valid: int
    verdicts: list[Verdict]


@workflow
async def inspect_piece(ctx: WorkflowContext, payload: Inspection) -> Verdict:
    valid = await ctx.step.run("weigh", lambda: payload.data["weight"] > 0)
    return Verdict(valid=valid, name=payload.data["name"], notes=[payload.kind])


@workflow(id="shipments")
async def ship(ctx: WorkflowContext, payload: Shipment) -> Report:
    verdicts = []
    for index, piece in enumerate(payload.pieces):
        verdict = await ctx.step.invoke_and_wait(
            f"inspect_{index}", inspect_piece, Inspection(data=piece.model_dump(), kind="basic")
        )
        verdicts.append(Verdict(**verdict))
    return Report(total=len(verdicts), valid=sum(each.valid for each in verdicts), verdicts=verdicts)


PIECES = [Piece(name="a", weight=1), Piece(name="b", weight=-1), Piece(name="c", weight=2)]


def test_a_parent_and_its_children():
    report = ship.run(Shipment(pieces=PIECES))
    assert (report.total, report.valid) == (3, 2)
    assert report.verdicts[1] == Verdict(valid=False, name="b", notes=["basic"])


@workflow
def ship_at_once(ctx, payload: Shipment) -> list[Verdict]:
    inspections = [Inspection(data=each.model_dump()) for each in payload.pieces]
    return ctx.step.invoke_all_and_wait("inspect", inspect_piece, inspections)


def test_children_side_by_side():
    assert [each.valid for each in ship_at_once.run(Shipment(pieces=PIECES))] == [True, False, True]


class ChildState(WorkflowState):
    parent_id: str = ""
    config: dict[str, str] = Field(default_factory=dict)


class ParentState(WorkflowState):
    begun: int = 0


@workflow(state_schema=ChildState)
async def configured(ctx: WorkflowContext[ChildState], payload: dict[str, Any]) -> dict[str, Any]:
    return {"parent": ctx.state.parent_id, "mode": ctx.state.config["mode"], "own": ctx.parent_job_id, **payload}


@workflow(state_schema=ParentState)
async def configuring(ctx: WorkflowContext[ParentState], payload: dict[str, Any]) -> list[Any]:
    ctx.state.begun += 1
    result = await ctx.step.invoke_and_wait(
        "child",
        configured,
        payload,
        initial_state=ChildState(parent_id=ctx.job_id, config={"mode": "production"}),
    )
    return [ctx.state.begun, result]


def test_a_child_gets_its_state_from_its_parent():
    begun, result = configuring.run({"n": 1}, initial_state=ParentState(begun=10), job_id="top")
    assert begun == 11
    assert result == {"parent": "top", "mode": "production", "own": "top", "n": 1}


def test_a_parent_and_its_child_go_on_after_a_restart(database):
    calls = []

    @workflow
    def child(ctx, payload: Piece) -> Verdict:
        ctx.step.run("once", lambda: calls.append("child"))
        go = ctx.step.wait_for_event("approval", "approve")
        return Verdict(valid=go, name=payload.name)

    @workflow
    async def parent(ctx, payload: Piece) -> Verdict:
        await ctx.step.run("once", lambda: calls.append("parent"))
        return await ctx.step.invoke_and_wait("child", child, payload)

    first = database(parent, child)
    with pytest.raises(ExecutionError, match="waits at step 'approval'"):
        parent.run(PIECES[0], job_id="p")
    first.close()

    second = database(parent, child)
    assert sorted(each.job_id for each in second.recover()) == ["p", "p/1/child"]
    second.publish("approve", True)
    state = second.get("p")
    assert state.wait(timeout=LONG)
    assert state.result == Verdict(valid=True, name="a")
    assert calls == ["parent", "child"]
    second.close()

    third = database(parent, child)
    assert third.recover() == []
    assert third.get("p").result == Verdict(valid=True, name="a")


# --- time and restarts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [90_000.0, 86_399.95], ids=["too late", "in time"])
def test_a_timed_wait_goes_on_after_a_restart(database, later):
    calls = []

    @workflow
    async def remind(ctx, payload: dict[str, Any]) -> str:
        await ctx.step.run("write", lambda: calls.append("written"))
        await ctx.step.wait_for("a day", days=1)
        await ctx.step.run("send", lambda: calls.append("sent"))
        return f"{payload['text']} at {await ctx.step.now('end')}"

    first = database(remind)
    before = waiting(remind.start({"text": "hello"}, job_id="j"))
    first.close()
    assert calls == ["written"]
    second = database(remind, later=later)
    (state,) = second.recover()
    assert state.wait(timeout=LONG)
    assert calls == ["written", "sent"]
    took = datetime.fromisoformat(state.result.removeprefix("hello at ")) - before.created_at
    assert took >= timedelta(days=1)


def test_attempts_are_counted_across_a_restart(database):
    calls, reached, release = [], threading.Event(), threading.Event()

    def work():
        calls.append(1)
        if len(calls) == 3:
            reached.set()
            assert release.wait(LONG)
        raise ValueError("never")

    @workflow
    def stubborn(ctx):
        ctx.step.run("work", work, max_retries=4, base_delay=0)

    first = database(stubborn)
    stubborn.start(job_id="j")
    assert reached.wait(LONG)
    first.close(timeout=0)
    release.set()
    second = database(stubborn)
    (state,) = second.recover()
    assert state.wait(timeout=LONG)
    assert state.status == "failed"
    with pytest.raises(StepExecutionError) as caught:
        state.raise_for_status()
    assert caught.value.attempts == 5
    assert len(calls) == 6  # the third attempt was begun twice, and counted once


# --- state that is kept ----------------------------------------------------------------------------------------------


class CounterState(WorkflowState):
    count: int = 0
    last: str | None = None


@workflow(state_schema=CounterState)
async def count_up(ctx, payload):
    ctx.state.count += payload.get("by", 1)
    ctx.state.last = payload.get("who")
    if payload.get("fail"):
        raise RuntimeError("as asked")
    return {"count": ctx.state.count}


def test_a_counter_is_kept_when_the_workflow_completes_and_when_it_fails(database):
    engine = database(count_up)
    assert count_up.run({"by": 3, "who": "Ann"}, job_id="ok") == {"count": 3}
    with pytest.raises(RuntimeError, match="as asked"):
        count_up.run({"by": 5, "fail": True}, job_id="no", initial_state={"count": 10})
    engine.close()
    again = database(count_up)
    ok, no = again.get("ok"), again.get("no")
    assert (str(ok.status), ok.get_shared_data("count"), ok.get_shared_data("last")) == ("completed", 3, "Ann")
    assert (str(no.status), no.get_shared_data("count"), no.error.message) == ("failed", 15, "as asked")
    with pytest.raises(ExecutionError, match="RuntimeError: as asked"):
        no.raise_for_status()


class CartState(WorkflowState):
    items: list[dict[str, Any]] = []  # noqa: RUF012 - as people write it
    total: float = 0.0
    code: str | None = None


@workflow(state_schema=CartState)
async def cart(ctx, payload):
    if payload["action"] == "add":
        ctx.state.items.append(payload["item"])
        ctx.state.total += payload["item"]["price"]
    await ctx.step.wait_for("think", seconds=0)
    return {"items": ctx.state.items, "total": ctx.state.total}


def test_a_cart_begins_where_another_has_ended():
    pen, ink = {"name": "pen", "price": 2.5}, {"name": "ink", "price": 4.0}
    first = cart.start({"action": "add", "item": pen})
    assert first.wait(timeout=LONG)
    assert first.result == {"items": [pen], "total": 2.5}
    kept = {name: first.get_shared_data(name) for name in CartState.model_fields}
    assert cart.run({"action": "add", "item": ink}, initial_state=kept) == {"items": [pen, ink], "total": 6.5}
    assert cart.run({"action": "show"}) == {"items": [], "total": 0.0}
    following = cart.flow.execute("cart", {"payload": {"action": "add", "item": ink}}, job_state=first)
    assert following.result == {"items": [pen, ink], "total": 6.5}


class Conversation(WorkflowState):
    messages: list[dict[str, str]] = []  # noqa: RUF012 - as people write it
    turns: int = 0


@workflow(state_schema=Conversation)
def chat(ctx: WorkflowContext[Conversation], payload: dict[str, str]) -> list[dict[str, str]]:
    while ctx.state.turns < 3:
        said = ctx.step.wait_for_event(f"turn_{ctx.state.turns}", "said")
        ctx.state.messages.append({"role": "user", "content": said})
        ctx.state.messages.append({"role": "bot", "content": ctx.step.run(f"answer_{ctx.state.turns}", said.upper)})
        ctx.state.turns += 1
    return ctx.state.messages


def test_a_conversation_goes_on_over_restarts(database):
    engine = database(chat)
    state = waiting(chat.start({}, job_id="chat"))
    for word in ("hello", "how are you", "bye"):
        engine.close()
        engine = database(chat)
        engine.recover()
        engine.publish("said", word, job_id="chat")
        state = engine.get("chat")
        if word != "bye":
            while state.get_shared_data("turns") < 3 and not state._job.awaits("said"):
                threading.Event().wait(0.001)
    assert state.wait(timeout=LONG)
    assert [each["content"] for each in state.result] == ["hello", "HELLO", "how are you", "HOW ARE YOU", "bye", "BYE"]
    assert state.get_shared_data("turns") == 3


def test_a_state_that_is_too_large_is_refused_and_what_was_kept_before_stays(database):
    @workflow(state_schema=Conversation)
    def hoard(ctx):
        ctx.state.turns = 1
        ctx.step.run("a", lambda: 1)
        ctx.state.messages.append({"content": "x" * 2**20})

    engine = database(hoard)
    with pytest.raises(ExecutionError, match="max_state_bytes"):
        hoard.run(job_id="j")
    assert engine.get("j").get_shared_data("turns") == 1
    assert engine.get("j").get_shared_data("messages") == []
