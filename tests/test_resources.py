"""S7: resources, which handlers share: how they are declared, and that each is built once, when it is needed."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, ClassVar

import pytest
from parts import Sink, Source, Step, chain

from routilux import (
    AsyncContext,
    Context,
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    ExecutionError,
    Flow,
    HandlerTimeoutError,
    Resource,
    Routine,
)
from routilux.runtime.resources import Build

LONG = 20.0


class Client:
    """Something that is made once."""

    made: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        Client.made.append(self)


@pytest.fixture(autouse=True)
def made():
    Client.made = []
    return Client.made


class Uses(Routine):
    """Hands what its handler is given to ``got``."""

    def __init__(self, handler: Callable[..., Any], **slot_options: Any) -> None:
        super().__init__()
        self.define_slot("input", handler=handler, **slot_options)
        self.define_event("output")


def flow_of(*handlers, slot_options=None, **options):
    """Return a flow of a source r0, whose items go to a routine for each handler: r1, r2, ..."""
    flow = Flow("f", engine=Engine(), **options)
    flow.add_routine(Source([1]), "r0")
    for number, handler in enumerate(handlers, 1):
        flow.add_routine(Uses(handler, **(slot_options or {})), f"r{number}")
        flow.connect("r0", "output", f"r{number}", "input")
    return flow


def run(*handlers, **options):
    with flow_of(*handlers, **options) as flow:
        state = flow.execute("r0")
    state.raise_for_status()
    return state


@pytest.fixture
def waiting(monkeypatch):
    """A semaphore that is released for each one that begins to wait for somebody else's building."""
    released = threading.Semaphore(0)
    rings = Build.rings

    def noted(self, bell):
        waits = rings(self, bell)
        if waits:
            released.release()
        return waits

    monkeypatch.setattr(Build, "rings", noted)
    return released


# --- what a handler gets ------------------------------------------------------------------------------------------


def test_s7_one_factory_makes_one_object_for_all_handlers_and_jobs_of_a_flow(made):
    got = []

    def plain(data, client: Annotated[Client, Resource(Client)]):
        got.append(client)

    async def coroutine(data, other: Annotated[Client, Resource(Client)]):
        got.append(other)

    with flow_of(plain, coroutine) as flow:
        assert made == []
        for _ in range(2):
            flow.execute("r0").raise_for_status()
    assert len(got) == 4
    assert set(got) == {made[0]}
    assert len(made) == 1


def test_s7_each_flow_has_its_own(made):
    def handler(data, client: Annotated[Client, Resource(Client)]):
        pass

    routine = Uses(handler)
    for name in ("one", "two"):
        with Flow(name) as flow:
            flow.add_routine(routine, "uses")
            flow.execute("uses", {"data": 1}).raise_for_status()
    assert len(made) == 2


def test_s7_what_no_handler_needs_is_never_built(made):
    with flow_of(lambda data: None) as flow:
        flow.add_resource("client", Client)
        flow.execute("r0").raise_for_status()
    assert made == []


def test_s7_a_name_stands_for_the_factory_added_under_it(made):
    got = []

    def by_name(data, client: Annotated[Client, Resource("client")], ctx: Context):
        got.extend([client, ctx.resource("client"), ctx.resource("alias")])

    async def in_coroutine(data, ctx: AsyncContext, client: Annotated[Client, Resource("alias")]):
        got.extend([client, await ctx.resource("client")])

    def by_factory(data, client: Annotated[Client, Resource(Client)]):
        got.append(client)

    with flow_of(by_name, in_coroutine, by_factory) as flow:
        flow.add_resource("client", Client)
        flow.add_resource("alias", Client)
        flow.execute("r0").raise_for_status()
    assert got == [made[0]] * 6


def test_s7_the_context_of_a_routine_has_resources_too(made):
    class Asks(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.ask)

        def ask(self):
            assert self.get_execution_context().resource("client") is made[0]

    with Flow("f") as flow:
        flow.add_routine(Asks(), "asks")
        flow.add_resource("client", Client)
        flow.execute("asks").raise_for_status()


def test_s7_the_same_method_of_an_object_is_one_factory_and_of_another_object_another():
    class Maker:
        def make(self):
            return object()

    one, two = Maker(), Maker()
    got = []

    def handler(
        data,
        a: Annotated[object, Resource(one.make)],
        b: Annotated[object, Resource(one.make)],
        c: Annotated[object, Resource(two.make)],
    ):
        got.extend([a, b, c])

    run(handler)
    assert got[0] is got[1]
    assert got[0] is not got[2]


def test_s7_equal_factories_that_are_not_the_same_make_different_objects():
    class Equal:
        def __eq__(self, other):
            return True

        __hash__ = None

        def __call__(self):
            return object()

    got = []

    def handler(data, a: Annotated[object, Resource(Equal())], b: Annotated[object, Resource(Equal())]):
        got.extend([a, b])

    run(handler)
    assert got[0] is not got[1]


# --- a resource takes no part in binding ------------------------------------------------------------------------------


def with_client(data: int, client: Annotated[Client, Resource(Client)]):
    assert data == 5
    assert client in Client.made


def with_the_rest(client: Annotated[Client, Resource(Client)], **rest: int):
    assert rest == {"data": 5}
    assert client in Client.made


def with_the_whole_payload(payload, client: Annotated[Client, Resource(Client)]):
    assert payload == {"data": "5", "client": "not this"}
    assert client in Client.made


async def in_coroutine(client: Annotated[Client, Resource(Client)], data: int = 0):
    assert data == 5
    assert client in Client.made


@pytest.mark.parametrize("handler", [with_client, with_the_rest, with_the_whole_payload, in_coroutine])
def test_s7_a_payload_key_of_the_same_name_does_not_reach_a_resource(handler):
    with Flow("f") as flow:
        flow.add_routine(Uses(handler), "uses")
        flow.execute("uses", {"data": "5", "client": "not this"}).raise_for_status()


def test_b0_a_payload_key_named_as_the_context_is_not_checked_as_one_of_the_rest():
    def handler(ctx: Context, **rest: int):
        assert rest == {"data": 5}
        assert ctx.attempt == 1

    with Flow("f") as flow:
        flow.add_routine(Uses(handler), "uses")
        flow.execute("uses", {"data": "5", "ctx": "not this"}).raise_for_status()


def test_s7_no_connection_delivers_to_a_resource():
    flow = flow_of()
    flow.add_routine(Uses(with_the_rest), "uses")
    with pytest.raises(DeclarationError, match="has no parameter 'client'"):
        flow.connect("r0", "output", "uses", "input", {"data": "client"})


def test_s7_a_flow_whose_handlers_need_resources_has_no_findings():
    assert {finding.kind for finding in flow_of(with_client).validate()} == {"unconnected-event"}


def test_s7_resources_are_in_no_payload_state_or_history():
    def handler(data, client: Annotated[Client, Resource(Client)]):
        pass

    state = run(handler)
    assert [record.data for record in state.get_execution_history()] == [{"data": 1}, {"data": 1}]


def test_s7_a_handler_without_resources_is_called_as_before():
    flow = flow_of(lambda **payload: None)
    assert flow.plan().nodes["r1"].slots["input"].direct
    assert not flow.plan().nodes["r1"].slots["input"].resources
    assert not flow_of(with_the_rest).plan().nodes["r1"].slots["input"].direct


# --- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("", "must be a non-empty string, not ''"),
        (None, "expected a function without arguments that makes it, not None"),
        (Client.__init__, r"would be called without arguments: missing a required argument: 'self'; wrap it"),
    ],
)
def test_s7_a_resource_is_a_name_or_a_function_without_arguments(argument, message):
    with pytest.raises(DeclarationError, match=message):
        Resource(argument)


def test_s7_a_resource_shows_what_it_is_made_with():
    assert repr(Resource("client")) == "Resource('client')"
    assert repr(Resource(Client)) == f"Resource({Client!r})"


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Annotated[Client, Resource(Client), Resource("b")], r"'it' is two resources at once: .*Resource\('b'\)"),
        (Annotated[Context, Resource(Client)], "'it' cannot be both the context and a resource"),
        (Annotated[Client, Resource], r"'it' has the class Resource itself; write Annotated\["),
        (Annotated[Client, Resource(Client)] | None, r"'it' has Resource\(...\) somewhere inside; write Annotated\["),
        (list[Annotated[Client, Resource(Client)]], "outside of any union"),
        (Resource(Client), r"write Annotated\[its type, Resource\(factory\)\]"),
    ],
)
def test_s7_an_annotation_that_cannot_work_is_refused(hint, message):
    def handler(it):
        pass

    handler.__annotations__ = {"it": hint}
    with pytest.raises(DeclarationError, match=f"Uses, slot 'input': .*{message}"):
        Uses(handler)


@pytest.mark.parametrize(("stars", "handler"), [(r"\*it", lambda *it: None), (r"\*\*it", lambda **it: None)])
def test_s7_a_starred_parameter_is_no_resource(stars, handler):
    handler.__annotations__ = {"it": Annotated[Client, Resource(Client)]}
    with pytest.raises(
        DeclarationError, match=f"Uses, slot 'input': a resource is one parameter; {stars} cannot be one"
    ):
        Uses(handler)


def test_s7_adding_a_resource_checks_its_name_and_factory():
    flow = Flow("f")
    flow.add_resource("client", Client)
    with pytest.raises(DeclarationError, match="flow 'f': resource 'client' is there already"):
        flow.add_resource("client", object)
    for name in ("", None, 5):
        with pytest.raises(DeclarationError, match="the name of a resource must be a non-empty string"):
            flow.add_resource(name, Client)
    with pytest.raises(DeclarationError, match="flow 'f': resource 'b': expected a function without arguments"):
        flow.add_resource("b", Client())
    with pytest.raises(DeclarationError, match=r"flow 'f': resource 'b': .* would be called without arguments"):
        flow.add_resource("b", lambda url: None)


def test_s7_no_resource_is_added_while_a_job_runs():
    seen = []

    def handler(data):
        with pytest.raises(DeclarationError, match="cannot add resource 'client' while job") as caught:
            flow.add_resource("client", Client)
        seen.append(caught)

    with flow_of(handler) as flow:
        flow.execute("r0").raise_for_status()
    assert seen


def test_s7_an_unknown_name_is_an_error_of_the_first_execution(made):
    def handler(data, db: Annotated[Client, Resource("clinet")]):
        pass

    with flow_of(handler) as flow:
        with pytest.raises(DeclarationError, match=r"resource 'clinet', .* has not added; there are no resources"):
            flow.execute("r0")
        flow.add_resource("client", Client)
        flow.add_resource("other", Client)
        with pytest.raises(DeclarationError) as caught:
            flow.execute("r0")
        assert str(caught.value) == (
            "flow 'f', routine 'r1', slot 'input': parameter 'db' of the handler is resource 'clinet', which "
            "add_resource() has not added; did you mean 'client'? resources: client, other"
        )
        flow.add_resource("clinet", Client)
        flow.execute("r0").raise_for_status()


@pytest.mark.parametrize("name", ["clinet", "", None])
def test_s7_a_handler_that_asks_for_an_unknown_name_is_told_the_nearest(name):
    def plain(data, ctx: Context):
        ctx.resource(name)

    async def coroutine(data, ctx: AsyncContext):
        await ctx.resource(name)

    for handler in (plain, coroutine):
        with flow_of(handler) as flow:
            flow.add_resource("client", Client)
            state = flow.execute("r0")
        assert state.error.type == "DeclarationError"
        assert "flow 'f', routine 'r1', slot 'input' has no resource" in state.error.message
        assert "resources: client" in state.error.message


def test_s7_a_context_gives_resources_only_to_its_handler():
    kept = []

    def plain(data, ctx: Context):
        kept.append(ctx)
        failed = []

        def elsewhere():
            with pytest.raises(ContextError) as caught:
                ctx.resource("client")
            failed.append(caught)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(LONG)
        assert failed

    with flow_of(plain) as flow:
        flow.add_resource("client", Client)
        flow.execute("r0").raise_for_status()
        with pytest.raises(ContextError):
            kept[0].resource("client")


# --- built once ----------------------------------------------------------------------------------------------------


def test_s7_threads_and_tasks_that_ask_at_once_get_one_object():
    built, got = [], []
    barrier, plain_ones_ask = threading.Barrier(8), threading.Event()

    def factory():
        assert plain_ones_ask.wait(LONG)
        built.append(object())
        return built[-1]

    def plain(data, ctx: Context):
        if barrier.wait(LONG) == 0:
            plain_ones_ask.set()
        got.append(ctx.resource("thing"))

    async def coroutine(data, ctx: AsyncContext, thing: Annotated[object, Resource(factory)]):
        got.extend([thing, await ctx.resource("thing")])

    handlers = [plain] * 8 + [coroutine] * 8
    with flow_of(*handlers, execution_strategy="concurrent", max_workers=8) as flow:
        flow.add_resource("thing", factory)
        flow.execute("r0").raise_for_status()
    assert len(built) == 1
    assert got == built * 24


def test_s7_those_who_need_it_meanwhile_wait(waiting):
    got = []

    def factory():
        for _ in range(3):
            assert waiting.acquire(timeout=LONG)
        return "built"

    def plain(data, thing: Annotated[str, Resource(factory)]):
        got.append(thing)

    async def coroutine(data, thing: Annotated[str, Resource(factory)]):
        got.append(thing)

    run(plain, plain, coroutine, coroutine, execution_strategy="concurrent", max_workers=2)
    assert got == ["built"] * 4


def test_s7_a_thread_that_waits_for_the_event_loop_lets_another_one_work():
    got, engine = [], Engine()
    other = chain(Sink(), execution_strategy="concurrent", max_workers=1, engine=engine)

    async def factory():
        return await other.aexecute("r0", {"data": "built"})

    def handler(data, thing: Annotated[Any, Resource(factory)]):
        got.append(thing.status)

    with other, Flow("f", execution_strategy="concurrent", max_workers=1, engine=engine) as flow:
        flow.add_routine(Uses(handler), "r0")
        state = flow.start("r0", {"data": 1})  # the only worker runs the handler
        assert flow.wait_for_completion(LONG, state)
    assert got == ["completed"]


def test_s7_a_plain_factory_that_a_coroutine_needs_does_not_hold_up_the_event_loop():
    on_loop, threads = threading.Event(), []

    def factory():
        threads.append(threading.current_thread())
        assert on_loop.wait(LONG)
        return "built"

    async def first(data, thing: Annotated[str, Resource(factory)]):
        threads.append(threading.current_thread())

    async def second(data):
        on_loop.set()

    run(first, second)
    assert threads[0] is not threads[1]


def test_s7_a_plain_handler_builds_on_its_own_thread_and_makes_no_other():
    threads = []

    def factory():
        threads.append(threading.current_thread())

    def handler(data, thing: Annotated[None, Resource(factory)]):
        threads.append(threading.current_thread())

    with flow_of(handler) as flow:
        before = threading.enumerate()
        flow.execute("r0").raise_for_status()
        assert set(threading.enumerate()) <= set(before)
    assert threads == [threading.current_thread()] * 2


@pytest.mark.parametrize("coroutine", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_s7_a_factory_runs_in_the_context_variables_of_whoever_executes(coroutine, asynchronous):
    variable = ContextVar("variable", default="unset")
    seen = []

    def generator():
        token = variable.set("inside")
        yield
        seen.append(variable.get())
        variable.reset(token)
        seen.append(variable.get())

    async def async_generator():
        token = variable.set("inside")
        yield
        seen.append(variable.get())
        variable.reset(token)
        seen.append(variable.get())

    def plain(data, thing: Annotated[None, Resource("thing")]):
        seen.append(variable.get())

    async def on_loop(data, thing: Annotated[None, Resource("thing")]):
        seen.append(variable.get())

    with flow_of(on_loop if coroutine else plain) as flow:
        flow.add_resource("thing", async_generator if asynchronous else generator)
        token = variable.set("caller")
        flow.execute("r0").raise_for_status()
        variable.reset(token)
    assert seen == ["caller", "inside", "caller"]


# --- a factory that raises --------------------------------------------------------------------------------------------


def failing(times, error):
    """Return a factory that raises ``times`` times, and how often it was called."""
    calls = []

    def factory():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "built"

    return factory, calls


def plain_user(got):
    def handler(data, thing: Annotated[str, Resource("thing")]):
        got.append(thing)

    return handler


def coroutine_user(got):
    async def handler(data, thing: Annotated[str, Resource("thing")]):
        got.append(thing)

    return handler


USERS = pytest.mark.parametrize("user", [plain_user, coroutine_user])


@USERS
def test_s7_a_factory_that_raises_fails_the_activation_and_the_next_use_tries_again(user):
    error, got = ValueError("no server"), []
    factory, calls = failing(1, error)
    with flow_of(user(got)) as flow:
        flow.add_resource("thing", factory)
        state = flow.execute("r0")
        assert (state.error.type, state.error.message) == ("ValueError", "no server")
        assert (state.error.routine_id, state.error.slot, state.error.attempt) == ("r1", "input", 1)
        assert "in factory" in state.error.traceback
        with pytest.raises(ValueError, match="no server") as caught:
            state.raise_for_status()
        assert caught.value is error
        assert got == []
        flow.execute("r0").raise_for_status()
    assert got == ["built"]
    assert len(calls) == 2


@USERS
def test_s7_a_factory_that_raises_is_retried_as_the_handler_is(user):
    got = []
    factory, calls = failing(2, OSError())
    with flow_of(user(got)) as flow:
        flow.add_resource("thing", factory)
        flow.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0.001))
        flow.execute("r0").raise_for_status()
    assert got == ["built"]
    assert len(calls) == 3


def test_s7_all_who_have_waited_get_the_error(waiting):
    calls = []

    def factory():
        calls.append(1)
        for _ in range(3):  # two threads and two tasks, of which one has begun the building; only a task waits for it
            assert waiting.acquire(timeout=LONG)
        raise ValueError("no server")

    handlers = [plain_user([]), plain_user([]), coroutine_user([]), coroutine_user([])]
    with flow_of(*handlers, execution_strategy="concurrent", max_workers=4) as flow:
        flow.add_resource("thing", factory)
        flow.set_error_handler(ErrorHandler(ErrorStrategy.CONTINUE))
        state = flow.execute("r0")
    assert [each.message for each in state.errors] == ["no server"] * 4
    assert len(calls) == 1


def test_s7_what_stops_the_thread_that_builds_stops_no_other(waiting):
    calls, got = [], []

    def factory():
        calls.append(1)
        if len(calls) == 1:
            assert waiting.acquire(timeout=LONG)
            raise SystemExit(3)
        return "built"

    with flow_of(plain_user(got)) as flow:
        flow.add_resource("thing", factory)
        begun = threading.Event()

        def first_then_second():
            assert begun.wait(LONG)
            flow.execute("r0").raise_for_status()

        def noting():
            begun.set()
            return factory()

        flow._factories["thing"] = noting
        second = threading.Thread(target=first_then_second)
        second.start()
        with pytest.raises(SystemExit):
            flow.execute("r0")
        second.join(LONG)
    assert got == ["built"]
    assert len(calls) == 2


# --- a factory that executes a job ------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [plain_user, coroutine_user])
def test_s7_a_factory_may_execute_a_job_that_needs_another_resource(user):
    order, got = [], []

    def inner():
        yield "inner"
        order.append("inner closed")

    def outer():
        flow.execute("r2", {"data": 1}).raise_for_status()
        yield "outer"
        order.append("outer closed")

    def needs_inner(data, thing: Annotated[str, Resource(inner)]):
        order.append(thing)

    with Flow("f") as flow:
        flow.add_routine(Uses(user(got)), "r1")
        flow.add_routine(Uses(needs_inner), "r2")
        flow.add_resource("thing", outer)
        flow.execute("r1", {"data": 1}).raise_for_status()
    assert got == ["outer"]
    assert order == ["inner", "outer closed", "inner closed"]


@USERS
@pytest.mark.parametrize("options", [{}, {"execution_strategy": "concurrent", "max_workers": 2}])
def test_s7_a_factory_that_needs_its_own_resource_is_told_so(user, options):
    inside = []

    def factory():
        inside.append(flow.execute("r0"))
        return "built"

    with flow_of(user([]), **options) as flow:
        flow.add_resource("thing", factory)
        flow.execute("r0").raise_for_status()
    assert inside[0].error.type == "ExecutionError"
    assert inside[0].error.message == (
        "flow 'f': resource 'thing' is needed to build itself: its factory executes a job, of which a handler needs it"
    )


def test_s7_two_factories_that_need_each_other_are_told_so_wherever_they_run():
    both, states = threading.Barrier(2), {}

    def one():
        both.wait(LONG)
        states["one"] = flow.execute("needs_two", {"data": 1})

    def two():
        both.wait(LONG)
        states["two"] = flow.execute("needs_one", {"data": 1})

    def needs_one(data, thing: Annotated[None, Resource(one)]):
        pass

    async def needs_two(data, thing: Annotated[None, Resource(two)]):
        pass

    with Flow("f") as flow:
        flow.add_routine(Uses(needs_one), "needs_one")
        flow.add_routine(Uses(needs_two), "needs_two")
        outer = flow.start("needs_one", {"data": 1})
        flow.execute("needs_two", {"data": 1}).raise_for_status()
        assert outer.wait(LONG)
    errors = [state.error for state in states.values() if state.error is not None]
    assert len(errors) == 1
    assert "is needed to build itself" in errors[0].message


def test_s7_a_factory_is_no_part_of_the_handler_that_needs_it():
    errors = []

    def factory():
        for attempt in (lambda: step.emit("output"), lambda: handed["job_state"].wait(), flow.shutdown):
            with pytest.raises(ContextError) as caught:
                attempt()
            errors.append(str(caught.value))

    handed = {}

    def handle(step, data):
        context = step.get_execution_context()
        handed["job_state"] = context.job_state
        context.resource("thing")

    step = Step(handle)
    flow = chain(Source([1]), step, Sink())
    flow.add_resource("thing", factory)
    state = flow.execute("r0")
    state.raise_for_status()
    flow.shutdown()
    assert "only possible inside a handler" in errors[0]
    assert "would wait for itself" in errors[1]
    assert [record.routine_id for record in state.get_execution_history()] == ["r0", "r1"]


# --- time, and jobs that end meanwhile -----------------------------------------------------------------------------


@USERS
def test_s7_building_counts_as_time_of_the_handler_and_goes_on_without_it(user):
    go_on, built, got = threading.Event(), threading.Event(), []

    def factory():
        assert go_on.wait(LONG)
        return "built"

    with flow_of(user(got), slot_options={"timeout": 0.05}) as flow:
        flow.add_resource("thing", factory)
        state = flow.execute("r0")
        with pytest.raises(HandlerTimeoutError, match=r"longer than its timeout of 0\.05 seconds"):
            state.raise_for_status()
        go_on.set()
        while not built.is_set():  # each attempt waits for the first building, or finds it done
            state = flow.execute("r0")
            if state.error is None:
                built.set()
    assert set(got) == {"built"}


@USERS
def test_s7_a_handler_of_a_cancelled_job_does_not_begin_when_its_resource_is_there(user):
    building, cancelled, got = threading.Event(), threading.Event(), []

    def factory():
        building.set()
        assert cancelled.wait(LONG)
        return "built"

    with flow_of(user(got)) as flow:
        flow.add_resource("thing", factory)
        state = flow.start("r0")
        assert building.wait(LONG)
        flow.cancel(state)
        cancelled.set()
        assert state.wait(LONG)
    assert state.status == "cancelled"
    assert got == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_s7_what_is_built_after_the_flow_was_shut_down_is_closed_at_once(asynchronous):
    building, shut_down, over = threading.Event(), threading.Event(), threading.Event()
    closed, errors = [], []

    class Thing:
        def close(self):
            closed.append(self)

    def factory():
        building.set()
        assert shut_down.wait(LONG)
        return Thing()

    async def async_factory():
        building.set()
        await asyncio.to_thread(shut_down.wait, LONG)
        return Thing()

    def handler(data, ctx: Context):
        try:
            ctx.resource("thing")
        except ExecutionError as error:
            errors.append(str(error))
        over.set()

    engine = Engine()
    with chain(Step(lambda step: None), engine=engine) as other:  # keeps the event loop, which the flow gives up
        other.engine.attach(other, 1)
        flow = Flow("f", engine=engine)
        flow.add_routine(Uses(handler, timeout=0.25), "uses")
        flow.add_resource("thing", async_factory if asynchronous else factory)
        state = flow.execute("uses", {"data": 1})
        assert state.error.type == "HandlerTimeoutError"
        assert building.wait(LONG)
        flow.shutdown()
        assert closed == []
        shut_down.set()
        assert over.wait(LONG)
    assert len(closed) == 1
    assert errors == ["flow 'f' was shut down, and its resources with it; make a new Flow"]


def test_s7_a_job_is_saved_without_resources_and_goes_on_with_those_of_its_new_flow(tmp_path):
    got = []

    def handler(data, thing: Annotated[object, Resource(object)], ctx: Context):
        got.append(thing)
        if len(got) == 1:
            ctx.flow.pause(ctx.job_state)

    def make():
        flow = Flow("f")
        flow.add_routine(Source([1, 2]), "source")
        flow.add_routine(Uses(handler), "uses")
        flow.connect("source", "output", "uses", "input")
        return flow

    with make() as flow:
        flow.execute("source").save(tmp_path / "job")
    with make() as flow:
        state = flow.load(tmp_path / "job")
        flow.execute("source", job_state=state).raise_for_status()
        assert state.status == "completed"
    assert len(got) == len(set(got)) == 2
