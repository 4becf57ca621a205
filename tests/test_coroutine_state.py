"""S3: the store in coroutine handlers, awaited, and atomic edits beside those of plain ones."""

from __future__ import annotations

import asyncio

import pytest
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain, forever
from pydantic import BaseModel

from routilux import Engine, ErrorHandler, Flow
from routilux.runtime.edits import Edits

SHORT = 0.02
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


class Cart(BaseModel):
    items: list[str] = []
    total: float = 0.0


def store_of(step):
    return step.get_execution_context().store


def run(handle, **options):
    """Run one coroutine handler; return the state of its job."""
    schema = options.pop("state_schema", None)
    with chain(AsyncStep(handle), Sink(), engine=Engine(), state_schema=schema) as flow:
        return flow.execute("r0", **options)


# --- the store ------------------------------------------------------------------------------------------------------


def test_s3_the_store_is_awaited():
    got = []

    async def handle(step):
        store = store_of(step)
        got.append(await store.get("user.name"))
        got.append(await store.get("user.age", default=None))
        await store.set("user.tags.0", "new")
        got.append(await store.get_state())
        await store.set_state({"only": 1})
        got.append(await store.get_state())
        await store.clear()
        got.append(await store.get_state())

    state = run(handle, initial_state={"user": {"name": "Ada", "tags": ["old"]}})
    state.raise_for_status()
    assert got == ["Ada", None, {"user": {"name": "Ada", "tags": ["new"]}}, {"only": 1}, {}]
    assert state.get_shared_data("only") is None


def test_s3_the_store_is_validated_by_the_schema():
    got = []

    async def handle(step):
        store = store_of(step)
        await store.set("total", "3.5")
        got.append(await store.get_state())
        async with store.edit_state() as cart:
            cart.items.append("apples")
            cart.total += 1
        got.append(await store.get("items.0"))
        await store.set("total", "much")

    state = run(handle, state_schema=Cart)
    assert state.error.type == "StateError"
    assert got == [Cart(total=3.5), "apples"]
    assert (state.get_shared_data("total"), state.get_shared_data("items")) == (4.5, ["apples"])


def test_s3_each_kind_of_handler_has_its_own_with():
    async def coroutine(step):
        with store_of(step).edit_state() as state:
            state["wrong"] = 1

    state = run(coroutine)
    assert state.error.type == "StateError"
    assert "this is a coroutine handler: use 'async with ctx.store.edit_state() as state:'" in state.error.message
    assert state.get_shared_data("wrong") is None


def test_s3_a_read_is_a_copy():
    async def handle(step):
        (await store_of(step).get("items")).append(1)
        (await store_of(step).get_state())["items"].append(2)

    assert run(handle, initial_state={"items": []}).get_shared_data("items") == []


# --- edits ----------------------------------------------------------------------------------------------------------


@MODES
def test_s3_coroutine_and_plain_routines_that_edit_at_once_count_exactly(options):
    async def edit(step, data):
        async with store_of(step).edit_state() as state:
            count = state["count"]
            await asyncio.sleep(0)
            state["count"] = count + 1

    def edit_plain(step, data):
        with store_of(step).edit_state() as state:
            state["count"] += 1

    with Flow("editing", engine=Engine(), **options) as flow:
        flow.add_routine(Source(range(50)), "source")
        for number in range(8):
            routine = AsyncStep(edit, concurrency=1 + 4 * (number == 0)) if number % 2 == 0 else Step(edit_plain)
            flow.add_routine(routine, f"r{number}")
            flow.connect("source", "output", f"r{number}", "input")
        state = flow.execute("source", initial_state={"count": 0})
    state.raise_for_status()
    assert state.get_shared_data("count") == 400
    assert at_rest(state)


def test_s3_an_edit_that_raises_is_rolled_back_with_its_emissions():
    got = []

    async def handle(step):
        try:
            async with store_of(step).edit_state() as state:
                state["items"].append(1)
                step.emit("output", data=1)
                await asyncio.sleep(0)
                raise ValueError("no")
        except ValueError:
            pass
        async with store_of(step).edit_state() as state:
            got.append(list(state["items"]))

    state = run(handle, initial_state={"items": []})
    state.raise_for_status()
    assert (got, state.get_shared_data("items")) == ([[]], [])
    assert [record.routine_id for record in state.get_execution_history()] == ["r0"]


def test_s3_emissions_inside_an_edit_leave_at_its_end():
    arrived, during = Signal(), []

    async def handle(step):
        async with store_of(step).edit_state() as state:
            state["key"] = 1
            step.emit("output", data=1)
            for _ in range(5):
                await asyncio.sleep(0)
            during.append(arrived.is_set())
        await arrived

    async def target(step, data):
        arrived.set()

    with chain(AsyncStep(handle), AsyncStep(target), engine=Engine()) as flow:
        flow.execute("r0").raise_for_status()
    assert during == [False]


def test_s3_edits_cannot_be_nested():
    async def handle(step):
        async with store_of(step).edit_state(), store_of(step).edit_state():
            pass

    assert run(handle).error.type == "StateError"


@MODES
def test_s3_a_coroutine_that_waits_for_another_editor_keeps_nobody_else_waiting(options):
    editing, elsewhere, log = Signal(), Signal(), []

    async def first(step, data):
        async with store_of(step).edit_state() as state:
            editing.set()
            await elsewhere
            state["log"] = ["first"]

    async def second(step, data):
        await editing
        log.append("waits")
        async with store_of(step).edit_state() as state:
            state["log"].append("second")

    async def third(step, data):
        await editing
        while not log:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        elsewhere.set()

    with Flow("waiting", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1]), "source")
        for name, handle in (("first", first), ("second", second), ("third", third)):
            flow.add_routine(AsyncStep(handle), name)
            flow.connect("source", "output", name, "input")
        state = flow.execute("source")
    state.raise_for_status()
    assert state.get_shared_data("log") == ["first", "second"]


@pytest.mark.parametrize("how", ["cancelled itself", "out of time"])
@pytest.mark.parametrize("next_one", ["coroutine", "plain"])
def test_s3_when_an_editor_is_stopped_the_next_one_edits(how, next_one):
    editing = Signal()

    async def first(step, data):
        async with store_of(step).edit_state() as state:
            state["key"] = "lost"
            editing.set()
            if how == "cancelled itself":
                asyncio.current_task().cancel()
            await forever()

    async def second(step, data):
        await editing
        async with store_of(step).edit_state() as state:
            state["other"] = state.get("key", "kept")

    def second_plain(step, data):
        assert editing.wait()
        with store_of(step).edit_state() as state:
            state["other"] = state.get("key", "kept")

    with Flow("stopped", engine=Engine()) as flow:
        flow.set_error_handler(ErrorHandler("continue"))
        flow.add_routine(Source([1]), "source")
        flow.add_routine(AsyncStep(first, timeout=SHORT if how == "out of time" else None), "first")
        flow.add_routine(AsyncStep(second) if next_one == "coroutine" else Step(second_plain), "second")
        flow.connect("source", "output", "first", "input")
        flow.connect("source", "output", "second", "input")
        state = flow.execute("source")
    assert str(state.status) == "completed"
    assert (state.get_shared_data("key"), state.get_shared_data("other")) == (None, "kept")
    assert [error.routine_id for error in state.errors] == ["first"]


def test_s3_one_that_waits_for_its_edit_can_be_cancelled_and_the_next_gets_its_turn():
    editing, waiting, over = Signal(), Meeting(1), Signal()

    async def first(step, data):
        async with store_of(step).edit_state() as state:
            editing.set()
            await over
            state["log"] = ["first"]

    async def second(step, data):
        await editing
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
        await waiting.come()
        async with store_of(step).edit_state() as state:
            state["log"].append("never")

    async def third(step, data):
        await editing
        await waiting.full
        asyncio.get_running_loop().call_soon(over.set)
        async with store_of(step).edit_state() as state:
            state["log"].append("third")

    with Flow("cancelled", engine=Engine()) as flow:
        flow.set_error_handler(ErrorHandler("continue"))
        flow.add_routine(Source([1]), "source")
        for name, handle in (("first", first), ("second", second), ("third", third)):
            flow.add_routine(AsyncStep(handle), name)
            flow.connect("source", "output", name, "input")
        state = flow.execute("source")
    assert state.get_shared_data("log") == ["first", "third"]
    assert [(error.routine_id, error.type) for error in state.errors] == [("second", "CancelledError")]


def test_s3_a_cancelled_job_rolls_its_edits_back():
    editing = Signal()

    async def handle(step):
        async with store_of(step).edit_state() as state:
            state["key"] = 1
            editing.set()
            await forever()

    with chain(AsyncStep(handle), engine=Engine()) as flow:
        state = flow.start("r0")
        assert editing.wait()
        flow.cancel(state)
        assert state.wait(20.0)
    assert (state.get_shared_data("key"), state.errors) == (None, [])


def test_s3_each_of_many_who_wait_to_edit_is_woken_once():
    order, woken = [], []

    async def handle(step, data):
        async with store_of(step).edit_state() as state:
            order.append(data)
            state["n"] = state.get("n", 0) + 1
            await asyncio.sleep(0)

    original = Edits.try_take

    def counted(self, *args):
        woken.append(1)
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Edits, "try_take", counted)
        with chain(Source(range(200)), AsyncStep(handle, concurrency=200)) as flow:
            state = flow.execute("r0")
            state.raise_for_status()
    assert state.get_shared_data("n") == 200
    assert sorted(order) == list(range(200))
    assert len(woken) <= 2 * 200
