"""S7: what a factory may be, and how resources are closed."""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import tempfile
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import AsyncMock, Mock

import pytest
from parts import Source, threads_besides

from routilux import (
    AsyncContext,
    Context,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    ExecutionError,
    Flow,
    Resource,
    Routine,
    open_store,
    workflow,
)
from routilux.runtime.engine import default_engine

LONG = 20.0


class Asks(Routine):
    """Takes the resource ``thing`` in a plain or a coroutine handler."""

    def __init__(self, coroutine: bool = False) -> None:
        super().__init__()
        self.got: list[Any] = []
        self.define_slot("input", handler=self.on_loop if coroutine else self.take)

    def take(self, data: Any, thing: Annotated[Any, Resource("thing")]) -> None:
        self.got.append(thing)

    async def on_loop(self, data: Any, thing: Annotated[Any, Resource("thing")]) -> None:
        self.got.append(thing)


def flow_with(factory, *askers):
    flow = Flow("f", engine=Engine())
    flow.add_resource("thing", factory)
    flow.add_routine(Source([1]), "source")
    for number, asker in enumerate(askers):
        flow.add_routine(asker, f"asker{number}")
        flow.connect("source", "output", f"asker{number}", "input")
    return flow


def resource_of(factory, coroutine=False):
    """Return what a handler gets, after the flow was shut down."""
    asker = Asks(coroutine)
    with flow_with(factory, asker) as flow:
        flow.execute("source").raise_for_status()
    return asker.got[0]


COROUTINE = pytest.mark.parametrize("coroutine", [False, True], ids=["plain", "coroutine"])


# --- kinds ------------------------------------------------------------------------------------------------------------

events: list[str] = []


@pytest.fixture(autouse=True)
def no_events():
    events.clear()


class Closes:
    """Used as it is, although it is a context manager as well."""

    def close(self):
        events.append("closed")

    def __enter__(self):
        raise AssertionError

    def __exit__(self, *error):
        raise AssertionError


class ClosesLater:
    async def close(self):
        await asyncio.sleep(0)
        events.append("closed")


class ClosesOnLoop:
    async def aclose(self):
        await asyncio.sleep(0)
        events.append("closed")

    def close(self):
        raise AssertionError

    async def __aenter__(self):
        raise AssertionError

    async def __aexit__(self, *error):
        raise AssertionError


class Connects:
    """To be awaited, as what some drivers of databases return is, and the same object then."""

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        events.append("opened")
        return self

    async def close(self):
        events.append("closed")


class Manager:
    def __enter__(self):
        events.append("opened")
        return "the thing"

    def __exit__(self, *error):
        assert error == (None, None, None)
        events.append("closed")


class AsyncManager:
    async def __aenter__(self):
        await asyncio.sleep(0)
        events.append("opened")
        return "the thing"

    async def __aexit__(self, *error):
        assert error == (None, None, None)
        await asyncio.sleep(0)
        events.append("closed")


class BothManagers(Manager, AsyncManager):
    pass


def generator():
    events.append("opened")
    yield "the thing"
    events.append("closed")


async def async_generator():
    await asyncio.sleep(0)
    task = asyncio.current_task()
    events.append("opened")
    yield "the thing"
    assert asyncio.current_task() is task
    events.append("closed")


async def coroutine_function(made):
    await asyncio.sleep(0)
    return made()


class CallableCoroutine:
    async def __call__(self):
        return "the thing"


class CallableGenerator:
    def __call__(self):
        return generator()


OPENED_AND_CLOSED = {
    "generator function": generator,
    "what returns a generator": lambda: generator(),
    "callable object": CallableGenerator(),
    "async generator function": async_generator,
    "what returns an async generator": lambda: async_generator(),
    "context manager function": contextmanager(generator),
    "async context manager function": asynccontextmanager(async_generator),
    "context manager": Manager,
    "async context manager": AsyncManager,
    "both": BothManagers,
    "coroutine function of a context manager": partial(coroutine_function, Manager),
    "coroutine function of an async context manager": partial(coroutine_function, AsyncManager),
    "coroutine function of both": partial(coroutine_function, BothManagers),
    "coroutine function of a generator": partial(coroutine_function, generator),
}


@COROUTINE
@pytest.mark.parametrize("kind", OPENED_AND_CLOSED)
def test_s7_what_is_entered_is_left_at_shutdown(kind, coroutine):
    assert resource_of(OPENED_AND_CLOSED[kind], coroutine) == "the thing"
    assert events == ["opened", "closed"]


@COROUTINE
@pytest.mark.parametrize("kind", [Closes, ClosesLater, ClosesOnLoop])
@pytest.mark.parametrize("in_coroutine_function", [False, True])
def test_s7_what_can_be_closed_is_used_as_it_is_and_closed(kind, in_coroutine_function, coroutine):
    factory = partial(coroutine_function, kind) if in_coroutine_function else kind
    assert type(resource_of(factory, coroutine)) is kind
    assert events == ["closed"]


@COROUTINE
def test_s7_what_can_be_awaited_is(coroutine):
    assert type(resource_of(Connects, coroutine)) is Connects
    assert events == ["opened", "closed"]


@COROUTINE
@pytest.mark.parametrize(
    "factory",
    [
        lambda: "the thing",
        partial(coroutine_function, lambda: "the thing"),
        CallableCoroutine(),
        lambda: coroutine_function(lambda: "the thing"),
    ],
)
def test_s7_other_objects_are_handed_over_and_need_no_closing(factory, coroutine):
    assert resource_of(factory, coroutine) == "the thing"


def test_s7_a_class_is_handed_over_and_not_closed_as_its_instances_are():
    assert resource_of(lambda: Closes) is Closes
    assert events == []


@COROUTINE
def test_s7_locks_are_not_entered(coroutine):
    lock = resource_of(threading.Lock, coroutine)
    assert lock.acquire(blocking=False)
    assert type(resource_of(partial(coroutine_function, asyncio.Lock), coroutine)) is asyncio.Lock


def test_s7_none_is_an_object_like_any_other():
    calls = []
    asker = Asks()
    with flow_with(lambda: calls.append(1), asker, Asks()) as flow:
        flow.execute("source").raise_for_status()
        flow.execute("source").raise_for_status()
    assert asker.got == [None, None]
    assert calls == [1]


def test_s7_mocks_are_closed_as_what_they_stand_for():
    mock = Mock()
    assert resource_of(lambda: mock) is mock
    mock.close.assert_called_once_with()
    mock = AsyncMock()
    assert resource_of(lambda: mock) is mock
    mock.aclose.assert_awaited_once_with()


def test_s7_a_generator_that_yields_twice_or_never_is_an_error():
    def twice():
        yield 1
        yield 2

    def never():
        return
        yield

    asker = Asks()
    flow = flow_with(never, asker)
    assert flow.execute("source").error.message == "generator didn't yield"
    flow.shutdown()
    with pytest.raises(ExecutionError, match=r"closed: 'thing': RuntimeError: generator didn't stop"):
        resource_of(twice)


# --- real ones ----------------------------------------------------------------------------------------------------


@contextmanager
def database():
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.execute("create table numbers (number)")
    yield connection
    events.append(json.dumps(connection.execute("select sum(number) from numbers").fetchone()))
    connection.close()


Database = Annotated[sqlite3.Connection, Resource(database)]
Lock = Annotated[Any, Resource(threading.Lock)]


class Adds(Routine):
    def __init__(self, handler):
        super().__init__()
        self.define_slot("input", handler=getattr(self, handler))

    def add(self, data: int, db: Database, lock: Lock) -> None:
        with lock:
            db.execute("insert into numbers values (?)", [data])

    async def add_later(self, data: int, db: Database, lock: Lock) -> None:
        await asyncio.sleep(0)
        self.add(data, db, lock)


def test_s7_handlers_of_both_kinds_share_a_database():
    with Flow("f", engine=Engine()) as flow:
        flow.add_routine(Source(range(10)), "source")
        for handler in ("add", "add_later"):
            flow.add_routine(Adds(handler), handler)
            flow.connect("source", "output", handler, "input")
        flow.execute("source").raise_for_status()
    assert events == ["[90]"]


def test_s7_a_connection_is_closed_not_left_as_a_context_manager():
    connection = resource_of(partial(sqlite3.connect, ":memory:"))
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("select 1")


@COROUTINE
def test_s7_an_executor_is_shut_down(coroutine):
    before = threading.enumerate()

    class Works(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.later if coroutine else self.work)

        def work(self, data: int, ctx: Context) -> None:
            assert ctx.resource("thing").submit(pow, data, 2).result(LONG) == 1

        async def later(self, data: int, ctx: AsyncContext) -> None:
            executor = await ctx.resource("thing")
            assert await asyncio.get_running_loop().run_in_executor(executor, pow, data, 2) == 1

    with flow_with(partial(ThreadPoolExecutor, 2), Works()) as flow:
        flow.execute("source").raise_for_status()
    assert not threads_besides(before)


@COROUTINE
def test_s7_files_and_folders_are_closed_and_removed(coroutine, tmp_path):
    (tmp_path / "file").touch()
    file = resource_of((tmp_path / "file").open, coroutine)
    assert file.closed
    folder = resource_of(partial(tempfile.TemporaryDirectory, dir=tmp_path), coroutine)
    assert isinstance(folder, str)
    assert not Path(folder).exists()


def test_s7_a_task_group_may_live_as_long_as_the_flow():
    """It has to be left by the task that has entered it."""
    if not hasattr(asyncio, "TaskGroup"):
        pytest.skip("asyncio.TaskGroup is new in Python 3.11")
    done = threading.Event()

    async def finish():
        await asyncio.sleep(0)
        done.set()

    class Spawns(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.spawn)

        async def spawn(self, data: int, group: Annotated[Any, Resource("thing")]) -> None:
            group.create_task(finish())

    with flow_with(asyncio.TaskGroup, Spawns()) as flow:
        flow.execute("source").raise_for_status()
    assert done.is_set()


@COROUTINE
def test_s7_what_is_asynchronous_runs_where_coroutine_handlers_do(coroutine):
    loops = []

    async def factory():
        loops.append(asyncio.get_running_loop())
        yield
        loops.append(asyncio.get_running_loop())

    class Looks(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.look)

        async def look(self, data: int) -> None:
            loops.append(asyncio.get_running_loop())

    with flow_with(factory, Asks(coroutine), Looks()) as flow:
        flow.execute("source").raise_for_status()
    assert len(loops) == 3
    assert len(set(loops)) == 1


@pytest.mark.parametrize("how", ["run", "registered", "invoked"])
def test_s7_what_a_workflow_made_without_an_engine_shares_runs_where_its_handlers_do(how):
    loops = []

    async def factory():
        loops.append(asyncio.get_running_loop())
        yield "thing"
        loops.append(asyncio.get_running_loop())

    @workflow
    async def child(ctx, number, thing: Annotated[str, Resource(factory)]):
        loops.append(asyncio.get_running_loop())
        return [number, thing]

    with Engine(store=open_store("memory:")) as engine:

        @workflow(engine=engine)
        async def parent(ctx):
            return await ctx.step.invoke_and_wait("call", child, 1)

        if how == "registered":
            engine.register(child)
        result = parent.run() if how == "invoked" else child.run(1)
        flow = child.flow_in(engine) if how == "invoked" else child.flow
        flow.shutdown()
    assert result == [1, "thing"]
    assert len(loops) == 3
    assert len(set(loops)) == 1
    assert weakref.ref(flow) not in default_engine()._users


async def cancelled_factory():
    raise asyncio.CancelledError


async def failing_factory():
    raise OSError("no server")


async def failing_generator():
    raise OSError("no server")
    yield


@COROUTINE
@pytest.mark.parametrize(
    ("factory", "kind"),
    [(cancelled_factory, "CancelledError"), (failing_factory, "OSError"), (failing_generator, "OSError")],
)
def test_s7_what_an_asynchronous_factory_raises_fails_the_activation(factory, kind, coroutine):
    with flow_with(factory, Asks(coroutine)) as flow:
        for _ in range(2):
            assert flow.execute("source").error.type == kind


# --- closing ------------------------------------------------------------------------------------------------------


def noted(name, error=None):
    def factory():
        yield name
        events.append(name)
        if error is not None:
            raise error

    return factory


def noted_on_loop(name, error=None):
    async def factory():
        yield name
        events.append(name)
        if error is not None:
            raise error

    return factory


def flow_of_three(*factories):
    """Return a flow of which a handler uses the resources a, b and c, in this order."""

    class Uses(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.use)

        def use(self, ctx: Context, a: Annotated[str, Resource("a")], b: Annotated[str, Resource("b")]) -> None:
            assert (a, b, ctx.resource("c")) == ("a", "b", "c")

    flow = Flow("f", engine=Engine())
    for name, factory in zip("cba", reversed(factories), strict=True):
        flow.add_resource(name, factory)
    flow.add_routine(Uses(), "uses")
    flow.execute("uses").raise_for_status()
    return flow


@pytest.mark.parametrize("asynchronous", ["", "a", "b", "ac", "abc"])
def test_s7_resources_are_closed_in_the_reverse_order_of_building(asynchronous):
    before = threading.enumerate()
    flow = flow_of_three(*(noted_on_loop(name) if name in asynchronous else noted(name) for name in "abc"))
    assert events == []
    flow.shutdown()
    assert events == ["c", "b", "a"]
    flow.shutdown()
    assert events == ["c", "b", "a"]
    assert not threads_besides(before)


@pytest.mark.parametrize("kind", [noted, noted_on_loop])
def test_s7_all_are_closed_when_one_raises_and_then_the_first_error_is_told(kind):
    before = threading.enumerate()
    first = OSError("gone")
    flow = flow_of_three(kind("a", ValueError("bad")), kind("b"), kind("c", first))
    with pytest.raises(ExecutionError) as caught:
        flow.shutdown()
    assert str(caught.value) == ("flow 'f': a resource could not be closed: 'c': OSError: gone; 'a': ValueError: bad")
    assert caught.value.__cause__ is first
    assert events == ["c", "b", "a"]
    flow.shutdown()
    assert not threads_besides(before)


def test_s7_an_interrupt_while_closing_is_raised_when_all_are_closed():
    flow = flow_of_three(noted("a"), noted("b", KeyboardInterrupt()), noted("c", OSError()))
    with pytest.raises(KeyboardInterrupt):
        flow.shutdown()
    assert events == ["c", "b", "a"]


def test_s7_an_unnamed_resource_is_called_by_its_factory_in_errors():
    class Uses(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.use)

        def use(self, broken: Annotated[str, Resource(broken_at_the_end)]) -> None:
            pass

    flow = Flow("f")
    flow.add_routine(Uses(), "uses")
    flow.execute("uses").raise_for_status()
    with pytest.raises(ExecutionError, match="could not be closed: broken_at_the_end: OSError: gone"):
        flow.shutdown()


def broken_at_the_end():
    yield
    raise OSError("gone")


def test_s7_a_close_that_has_to_be_awaited_after_all_says_what_to_do():
    class Surprising:
        def close(self):
            return coroutine_function(list)

    with pytest.raises(ExecutionError, match="has to be awaited: let an 'async def' factory return the object"):
        resource_of(Surprising)
    resource_of(partial(coroutine_function, Surprising))


def test_s7_resources_are_closed_after_the_jobs_have_ended():
    begun, closing = threading.Event(), threading.Event()

    class Slow(Asks):
        def take(self, data: Any, thing: Annotated[Any, Resource("thing")]) -> None:
            begun.set()
            assert closing.wait(LONG)
            events.append("handled")

    slow = Slow()
    flow = flow_with(generator, slow)
    state = flow.start("source")
    assert begun.wait(LONG)
    shut_down = flow._jobs.shut_down

    def shutting_down():
        shut_down()
        closing.set()

    flow._jobs.shut_down = shutting_down
    flow.shutdown()
    assert state.status == "completed"
    assert events == ["opened", "handled", "closed"]


def test_s7_closing_may_shut_the_flow_down():
    def factory():
        yield "the thing"
        flow.shutdown()
        events.append("closed")

    flow = flow_with(factory, Asks())
    flow.execute("source").raise_for_status()
    flow.shutdown()
    assert events == ["closed"]


def until_the_tasks_are_over(flow):
    """Wait until the event loop is done with the tasks of jobs that have ended."""
    event_loop = flow.engine._event_loop
    if event_loop is not None:
        over = threading.Event()
        event_loop.call(over.set)
        assert over.wait(LONG)


def test_s7_a_flow_with_an_asynchronous_resource_that_is_never_shut_down_is_collected_with_its_threads():
    before = threading.enumerate()
    flow = flow_with(async_generator, Asks(), Asks(coroutine=True))
    flow.execute("source").raise_for_status()
    until_the_tasks_are_over(flow)
    left = threads_besides(before)
    assert left
    gone = weakref.ref(flow)
    del flow
    gc.collect()
    assert gone() is None
    for thread in left:
        thread.join(LONG)
    assert not threads_besides(before)


@COROUTINE
@pytest.mark.parametrize("factory", [generator, async_generator])
def test_s7_a_resource_keeps_no_job_alive(factory, coroutine):
    flow = flow_with(factory, Asks(coroutine))
    job = weakref.ref(flow.execute("source")._job)
    until_the_tasks_are_over(flow)
    gc.collect()
    assert job() is None
    flow.shutdown()


@pytest.mark.parametrize("asynchronous", [False, True])
@COROUTINE
def test_s7_the_error_of_a_factory_is_gone_without_the_garbage_collector(asynchronous, coroutine):
    class Mark(Exception):
        pass

    errors = []

    def factory():
        error = Mark()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def async_factory():
        factory()

    flow = flow_with(async_factory if asynchronous else factory, Asks(coroutine))
    flow.set_error_handler(ErrorHandler(ErrorStrategy.CONTINUE))  # under STOP, the job has it
    gc.collect()
    gc.disable()
    try:
        state = flow.execute("source")
        assert state.errors[0].type == "Mark"
        flow.shutdown()
        assert errors[0]() is None
    finally:
        gc.enable()
