"""Routines made of functions: `@routine`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any, NoReturn, TypedDict

import pytest
from parts import AsyncStep, Signal, Sink, Source, Step, chain, forever
from pydantic import BaseModel, Field

from routilux import (
    AsyncContext,
    Context,
    DeclarationError,
    Engine,
    ErrorHandler,
    Event,
    Flow,
    PayloadError,
    Resource,
    Routine,
    Slot,
    open_store,
    routine,
)
from routilux.routine.declaration import declaration_of
from routilux.routine.function import FunctionRoutine

LONG = 20.0


class Order(BaseModel):
    number: str


class Scored(TypedDict):
    name: str
    score: float


class Client:
    pass


@pytest.fixture(params=["memory", "durable"])
def new_engine(request):
    """Return what makes an engine, whose jobs are durable or not."""
    with ExitStack() as engines:
        yield lambda: engines.enter_context(Engine(store=open_store("memory:") if request.param == "durable" else None))


def before(made, *, engine=None, **options):
    """Return a flow of a routine ``f`` and a sink behind it."""
    flow = Flow("f", engine=engine, **options)
    flow.add_routine(made, "f")
    sink = Sink()
    flow.add_routine(sink, "sink")
    flow.connect("f", "output", "sink", "input")
    return flow, sink


def arrived(made, payload=None, **options):
    """Return what arrives behind a routine that gets a payload."""
    flow, sink = before(made, **options)
    flow.execute("f", payload).raise_for_status()
    return sink.got


def history(state):
    found = []
    for each in state.get_execution_history():
        error = each.error and (each.error.type, each.error.message)
        found.append((each.routine_id, each.slot, each.event_name, each.data, each.status, each.emitted, error))
    return found


def double(value: int) -> int:
    """Return twice the value."""
    return 2 * value


async def double_later(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def count(value: int) -> Iterator[int]:
    yield from range(value)


async def count_later(value: int) -> AsyncIterator[int]:
    for number in range(value):
        await asyncio.sleep(0)
        yield number


# --- what it makes ------------------------------------------------------------------------------------------------


def test_it_makes_a_routine_that_is_still_the_function():
    made = routine(double)
    assert isinstance(made, Routine)
    assert isinstance(made, FunctionRoutine)
    assert made(3) == made(value=3) == 6
    assert (made.__name__, made.__doc__, made.__wrapped__) == ("double", "Return twice the value.", double)
    assert inspect.signature(made) == inspect.signature(double)
    assert repr(made) == "<routine 'double'>"
    assert list(routine(count)(3)) == [0, 1, 2]
    assert asyncio.run(routine(double_later)(3)) == 6


def test_it_has_a_slot_input_and_an_event_output():
    made = routine(double)
    declared = declaration_of(made)
    assert (declared.slots, declared.events) == ({"input": made.input}, {"output": made.output})
    assert isinstance(made.input, Slot)
    assert isinstance(made.output, Event)
    assert (made.output.output_params, dict(made.output.types)) == (("value",), {"value": int})
    assert (made.input.binding.names, made.input.binding.hints) == (("value",), (int,))


def test_its_class_has_the_name_of_the_function():
    made = routine(double)
    kind = type(made)
    assert (kind.__name__, kind.__module__, kind.__doc__) == ("double", __name__, double.__doc__)
    flow = Flow("f")
    assert flow.add_routine(made) == "double"
    again = Flow.from_dict(flow.to_dict(), registry=[kind])
    assert type(again.routines["double"]) is kind
    assert again.execute("double", {"value": 3}).get_execution_history()[0].data == {"value": 6}


def test_another_routine_of_the_same_function():
    made = routine(emits="number", concurrency=2)(double)
    made.set_config(key=1)
    other = made.new()
    assert type(other) is type(made)
    assert other(3) == 6
    assert (other.input.concurrency, other.output.output_params) == (2, ("number",))
    assert other.get_config("key") is None
    flow = Flow("f")
    assert [flow.add_routine(each) for each in (made, other)] == ["double", "double_2"]
    flow.connect(made.output, other.input, {"number": "value"})
    state = flow.execute("double", {"value": 1})
    assert [each.data for each in state.get_execution_history()] == [{"number": 2}, {"number": 4}]


def test_the_options_are_those_of_a_slot():
    made = routine(merge_strategy="append", concurrency=2, timeout=1.5)(double)
    assert (made.input.merge_strategy, made.input.concurrency, made.input.timeout) == ("append", 2, 1.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: routine(5), r"^a routine is made of a function \(def or async def\), not of 5$"),
        (lambda: routine(Client), r"^a routine is made of a function"),
        (lambda: routine(routine(double)), r"^a routine is made of a function .* not of <routine 'double'>"),
        (lambda: routine(functools.partial(double, 1)), r"^a routine is made of a function"),
        (
            lambda: routine(Step.process),
            r"^routine 'process': Step\.process is a method; make it a slot of its class wi",
        ),
        (lambda: routine(timeout=0)(double), r"^routine 'double': timeout must be a number above 0"),
        (lambda: routine(merge_strategy="x")(double), r"^routine 'double': unknown merge_strategy 'x'"),
        (lambda: routine(emits=5)(double), r"^routine 'double': emits must be a name, several names, or None, not 5$"),
        (lambda: routine(emits="")(double), r"^routine 'double': emits: output_params must be distinct names"),
        (lambda: routine(emits=["a", "a"])(double), r"^routine 'double': emits: output_params must be distinct names"),
        (
            lambda: routine(positional),
            r"^positional, slot 'input': parameter 'value' of the handler is positional-only",
        ),
        (
            lambda: routine(unresolved),
            r"^routine 'unresolved': an annotation of unresolved cannot be resolved: name 'No",
        ),
        (
            lambda: routine(no_type),
            r"^routine 'no_type': emits: the annotation 5 of parameter 'value' cannot be checked",
        ),
    ],
)
def test_what_cannot_be_made_a_routine_is_refused(make, message):
    with pytest.raises(DeclarationError, match=message):
        make()


def positional(value, /): ...


def unresolved(value: NoSuchClass): ...  # noqa: F821


def no_type(): ...


no_type.__annotations__["return"] = 5


# --- what is emitted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [double, double_later])
def test_what_is_returned_is_emitted(function, new_engine):
    assert arrived(routine(function), {"value": "3"}, engine=new_engine()) == [{"value": 6}]


@pytest.mark.parametrize("function", [count, count_later])
def test_each_thing_that_is_yielded_is_emitted(function, new_engine):
    assert arrived(routine(function), {"value": 3}, engine=new_engine()) == [{"value": number} for number in range(3)]
    assert arrived(routine(function), {"value": 0}, engine=new_engine()) == []


def test_none_is_emitted_when_it_is_yielded_and_not_when_it_is_returned():
    def nothing(value):
        pass

    async def nothing_later(value):
        pass

    def some(value):
        yield None
        yield value
        return 5

    assert arrived(routine(nothing), {"value": 1}) == []
    assert arrived(routine(nothing_later), {"value": 1}) == []
    assert arrived(routine(some), {"value": 1}) == [{"value": None}, {"value": 1}]


@pytest.mark.parametrize("falsy", [0, "", [], False])
def test_what_is_false_is_emitted(falsy):
    assert arrived(routine(lambda value: value), {"value": falsy}) == [{"value": falsy}]


def test_emits_names_the_parameter():
    assert arrived(routine(emits="text")(double), {"value": 3}) == [{"text": 6}]


def test_several_names_are_the_keys_of_a_mapping():
    def score(name):
        return {"name": name, "score": len(name)}

    def scores(name):
        yield {"name": name, "score": 1}
        yield {"name": name}

    made = routine(emits=("name", "score"))(score)
    assert made.output.output_params == ("name", "score")
    assert arrived(made, {"name": "abc"}) == [{"name": "abc", "score": 3}]
    made = routine(emits=iter(["name", "score"]))(scores)
    assert arrived(made, {"name": "abc"}) == [{"name": "abc", "score": 1}, {"name": "abc"}]


def test_without_a_name_any_mapping_is_emitted():
    made = routine(emits=None)(lambda **payload: {**payload, "more": 1})
    assert made.output.output_params is None
    assert arrived(made, {"a": 2}) == [{"a": 2, "more": 1}]


@pytest.mark.parametrize(
    ("emits", "value", "message"),
    [
        (
            ("a", "b"),
            5,
            r"function .*lambda.* must give a mapping of names to values with the keys 'a', 'b', because of ",
        ),
        (None, [1], r"must give a mapping of names to values, because of emits=None, and not \[1\]$"),
        (None, {1: 2}, r"must give a mapping of names to values, .* and not \{1: 2\}$"),
        (("a", "b"), {"c": 1}, r"event 'output' has no parameter 'c'"),
    ],
)
def test_what_is_no_mapping_is_one_error(emits, value, message):
    flow, sink = before(routine(emits=emits)(lambda: value))
    state = flow.execute("f")
    assert (state.status, sink.got) == ("failed", [])
    with pytest.raises(PayloadError, match=r"^flow 'f': routine 'f'.*" + message):
        state.raise_for_status()


def passing_on(function):
    """Decorate a function in a way that hides of which kind it is."""

    @functools.wraps(function)
    def outer(*args, **kwargs):
        return function(*args, **kwargs)

    return outer


@pytest.mark.parametrize(
    ("function", "kind"), [(count, "generator"), (count_later, "async_generator"), (double_later, "coroutine")]
)
def test_a_function_that_hides_its_kind_is_one_error(function, kind):
    flow, sink = before(routine(passing_on(function)))
    state = flow.execute("f", {"value": 1})
    assert (state.status, sink.got) == ("failed", [])
    with pytest.raises(
        PayloadError, match=rf"^flow 'f': routine 'f': function \w+ has returned a {kind}, whose body has"
    ):
        state.raise_for_status()


def test_b3_the_event_is_typed_by_what_the_function_is_annotated_to_return():
    def kind(annotation, body=double, emits="value"):
        def function(value: int): ...

        def items(value: int):
            yield

        async def later(value: int):
            yield

        made = {double: function, count: items, count_later: later}[body]
        made.__annotations__["return"] = annotation
        return dict(routine(emits=emits)(made).output.types)

    positive = Annotated[int, Field(gt=0)]
    assert kind(float) == {"value": float}
    assert kind("Order") == {"value": Order}
    assert kind(positive) == {"value": positive}
    assert kind(list[int]) == {"value": list[int]}
    assert kind(int | None) == {"value": int}
    assert kind(int | str | None) == {"value": int | str}
    assert kind(Iterator[int]) == {"value": Iterator[int]}
    assert kind("NoSuchClass") == kind(Any) == kind(object) == {}
    for annotation in (Iterator[int], Iterable[int], Generator[int, None, str]):
        assert kind(annotation, count) == {"value": int}
    assert kind(Iterator[int | None], count) == {"value": int | None}
    assert kind(Iterator[None], count) == {"value": None}
    assert kind(AsyncIterator[Order], count_later) == {"value": Order}
    assert kind(Iterator, count) == kind(Any, count) == kind(list[int], count) == {}
    assert kind(Scored, emits=("name", "score", "more")) == {"name": str, "score": float}
    assert kind(dict[str, int], emits=("a", "b")) == {"a": int, "b": int}
    assert kind(Iterator[dict[str, int]], count, emits=["a"]) == {"a": int}
    assert kind(Scored, emits=None) == kind(dict, emits=["a", "b"]) == {}


def test_b3_what_does_not_fit_the_annotation_is_an_error():
    def wrong(value) -> int:
        return value

    flow, sink = before(routine(wrong))
    state = flow.execute("f", {"value": "high"})
    with pytest.raises(
        PayloadError, match=r"^flow 'f': routine 'f': event 'output': parameter 'value' = 'high' is not"
    ):
        state.raise_for_status()
    assert arrived(routine(wrong), {"value": "3"}) == [{"value": 3}]
    assert sink.got == []


@pytest.mark.parametrize("annotation", [None, "None", NoReturn, "NoReturn"])
def test_a_function_that_is_annotated_to_return_nothing_has_no_event(annotation):
    def save(value): ...

    save.__annotations__["return"] = annotation
    made = routine(save)
    assert declaration_of(made).events == {}
    flow = chain(Source(), Sink())
    flow.add_routine(made)
    flow.connect("r0", "output", "save", "input")
    assert flow.validate() == []


def test_annotations_may_name_classes_of_the_function_around():
    class Local(BaseModel):
        n: int

    @routine
    def one(value: Local) -> Local:
        return value

    @routine(emits="item")
    def two(value: Local) -> Iterator[Local]:
        yield value

    assert arrived(one, {"value": {"n": 1}}) == [{"value": Local(n=1)}]
    assert arrived(two, {"value": {"n": 1}}) == [{"item": Local(n=1)}]


# --- B0-B4: what the function gets --------------------------------------------------------------------------------


def test_b0_the_function_gets_a_context_and_resources():
    got = []

    @routine
    def named(ctx, value):
        got.append((type(ctx), ctx.routine_id, value))

    @routine
    def annotated(value: int, client: Annotated[Client, Resource(Client)], where: Context):
        got.append((type(client), where.routine_id, value))
        yield value

    @routine
    async def later(where: AsyncContext, value: int):
        got.append((type(where), where.routine_id, value))

    for made in (named, annotated, later):
        arrived(made, {"value": 1})
    assert got == [(Context, "f", 1), (Client, "f", 1), (AsyncContext, "f", 1)]


def test_b1_b2_b4_a_payload_is_bound_as_to_any_handler():
    got = []

    @routine
    def reads(value: int, more: str = "x", **rest):
        got.append((value, more, rest))

    @routine
    def whole(payload):
        got.append(payload)

    flow, _ = before(reads)
    flow.execute("f", {"value": "1", "other": 2}).raise_for_status()
    before(whole)[0].execute("f", {"value": 1}).raise_for_status()
    assert got == [(1, "x", {"other": 2}), {"value": 1}]
    with pytest.raises(PayloadError, match=r"routine 'f', slot 'input'.*parameter 'value' is missing"):
        flow.execute("f", {}).raise_for_status()


def test_a_bound_method_may_be_a_routine():
    class Adds:
        def __init__(self, number):
            self.number = number

        def add(self, value: int) -> int:
            return value + self.number

    made = routine(Adds(3).add)
    assert made(1) == 4
    assert arrived(made, {"value": 1}) == [{"value": 4}]


# --- the same as any handler --------------------------------------------------------------------------------------


class Failing(Exception):
    pass


def failing(value):
    yield value
    yield value + 1
    raise Failing("half way")


async def failing_later(value):
    yield value
    yield value + 1
    raise Failing("half way")


class Fails(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.process)
        self.define_event("output", ["value"])

    def process(self, value):
        self.emit("output", value=value)
        self.emit("output", value=value + 1)
        raise Failing("half way")


class FailsLater(Fails):
    async def process(self, value):
        super().process(value)


@pytest.mark.parametrize("strategy", ["stop", "continue", "skip", "retry"])
@pytest.mark.parametrize(("function", "imperative"), [(failing, Fails), (failing_later, FailsLater)])
def test_t3_a_generator_that_raises_half_way_is_one_error_of_its_activation(function, imperative, strategy, new_engine):
    found = []
    for made in (routine(function), imperative()):
        flow, sink = before(made, engine=new_engine())
        delay = {"max_retries": 1, "retry_delay": 0.0} if strategy == "retry" else {}
        flow.set_error_handler(ErrorHandler(strategy, **delay))
        state = flow.execute("f", {"value": 1})
        # In memory, the sink may or may not have begun before the coroutine next door fails.
        races = strategy == "stop" and function is failing_later
        found.append((history(state)[: 1 if races else None], str(state.status), None if races else sink.got))
        errors = {(each.type, each.message, each.routine_id, each.slot) for each in state.errors}
        assert errors == {("Failing", "half way", "f", "input")}
        if strategy == "stop":
            with pytest.raises(Failing, match=r"^half way$"):
                state.raise_for_status()
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_generator_is_closed_when_its_emission_is_refused(kind):
    closed = []

    def wrong(value) -> Iterator[int]:
        try:
            yield value
        finally:
            closed.append(threading.get_ident())

    async def wrong_later(value) -> AsyncIterator[int]:
        try:
            yield value
        finally:
            await asyncio.sleep(0)
            closed.append(threading.get_ident())

    flow, _ = before(routine(wrong if kind == "plain" else wrong_later))
    state = flow.execute("f", {"value": "high"})
    assert state.error.type == "PayloadError"
    assert len(closed) == 1


def test_l2_an_asynchronous_generator_is_closed_when_it_is_cancelled():
    began, closed = Signal(), Signal()

    @routine
    async def forever_and_ever(value: int) -> AsyncIterator[int]:
        try:
            yield value
            began.set()
            await forever()
        finally:
            await asyncio.sleep(0)
            closed.set()

    flow, _ = before(forever_and_ever)
    with flow:
        state = flow.start("f", {"value": 1})
        assert began.wait()
        flow.cancel(state)
        assert closed.wait()
        assert state.wait(LONG)
    assert state.status == "cancelled"


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_h1_a_function_gives_the_same_history_as_a_class(kind, new_engine):
    def scale(step, value=None, **_):
        for number in range(value):
            step.emit("output", value=number)

    async def scale_later(step, value=None, **_):
        scale(step, value)

    made = [routine(count), Step(scale)] if kind == "plain" else [routine(count_later), AsyncStep(scale_later)]
    found = []
    for each in made:
        flow = Flow("f", engine=new_engine())
        flow.add_routine(Source([2, 0, 3]), "source")
        flow.add_routine(each, "f")
        flow.add_routine(Sink(), "sink")
        flow.connect("source", "output", "f", "input", {"data": "value"})
        flow.connect("f", "output", "sink", "input")
        # Coroutines and plain handlers run side by side: only what one routine does has an order.
        found.append(sorted(history(flow.execute("source")), key=lambda each: each[0]))
    assert found[0] == found[1]
    assert [each[5] for each in found[0] if each[0] == "f"] == [2, 0, 3]


# --- durable jobs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_j3_a_generator_that_waits_goes_on_where_it_was(kind):
    runs, calls = [], []

    @routine
    def plain(ctx: Context, value: int) -> Iterator[str]:
        runs.append(value)
        yield f"first {value}"
        yield ctx.step.run("call", lambda: calls.append(value) or "called")
        answer = ctx.step.wait_for_event("answer", "answered")
        yield ctx.step.run("again", lambda: calls.append(answer) or answer)

    @routine
    async def later(ctx: AsyncContext, value: int) -> AsyncIterator[str]:
        runs.append(value)
        yield f"first {value}"
        yield await ctx.step.run("call", lambda: calls.append(value) or "called")
        answer = await ctx.step.wait_for_event("answer", "answered")
        yield await ctx.step.run("again", lambda: calls.append(answer) or answer)

    with Engine(store=open_store("memory:")) as engine:
        flow, sink = before(plain if kind == "plain" else later, engine=engine)
        state = flow.execute("f", {"value": 1})
        assert state.status == "waiting"
        assert [each["value"] for each in sink.got] == ["first 1", "called"]
        engine.publish("answered", "yes", state.job_id)
        assert state.wait(timeout=LONG)
        state.raise_for_status()
    assert [each["value"] for each in sink.got] == ["first 1", "called", "yes"]
    assert calls == [1, "yes"]
    assert runs == [1, 1]


def test_j2_a_step_of_a_function_counts_once_however_often_it_runs():
    calls = []

    @routine
    def fetch(ctx, value: int) -> int:
        found = ctx.step.run("call", lambda: calls.append(value) or 10 * value)
        if ctx.attempt == 1:
            raise Failing("once")
        return found

    with Engine(store=open_store("memory:")) as engine:
        flow, sink = before(fetch, engine=engine)
        flow.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0.0))
        flow.execute("f", {"value": 1}).raise_for_status()
    assert (calls, sink.got) == ([1], [{"value": 10}])
