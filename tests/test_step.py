"""J2-J6: the operations of ``ctx.step``, in plain and in coroutine functions alike."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import pytest
from both import KINDS, as_kind
from parts import Source, Step, chain
from pydantic import BaseModel

from routilux import (
    Context,
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ExecutionError,
    Flow,
    Routine,
    StateError,
    StepError,
    StepExecutionError,
    StepTimeoutError,
    open_store,
    workflow,
)
from routilux.routine.binding import returned_type
from routilux.runtime.clock import Clock
from routilux.runtime.jobs import tell_parent
from routilux.runtime.waits import waits_outside

LONG = 20.0
NOW = {"max_retries": 2, "base_delay": 0}


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


@pytest.fixture(params=KINDS)
def made(request, engine):
    """Return a decorator: ``async def f(ctx, ...)`` as a workflow of either kind."""

    def make(function=None, **options):
        if function is None:
            return lambda each: make(each, **options)
        return workflow(engine=engine, **options)(as_kind(request.param, function))

    make.kind = request.param
    return make


class Color(Enum):
    RED = "r"
    BLUE = "b"


@dataclass
class Place:
    name: str
    at: tuple[int, int] = (0, 0)


class Pair(NamedTuple):
    left: int
    right: str


class Item(BaseModel):
    name: str = "thing"
    price: Decimal = Decimal("1.50")
    color: Color = Color.RED
    parts: list[Item] = []


class Counting:
    """A function that fails so many times first, and counts its calls."""

    def __init__(self, failures=0, result: Any = "done", error: Any = ValueError):
        self.failures, self.result, self.error, self.calls = failures, result, error, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return self.result


# --- run: what can be called -----------------------------------------------------------------------------------------


def add(left, right=10):
    return left + right


async def add_later(left, right=10):
    await asyncio.sleep(0)
    return left + right


class Adder:
    def __init__(self, right):
        self.right = right

    def add(self, left):
        return left + self.right

    async def add_later(self, left):
        return left + self.right

    async def __call__(self, left):
        return left + self.right


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (lambda: 13, (), {}),
        (lambda: add_later(3), (), {}),
        (lambda left, *, right: left + right, (3,), {"right": 10}),
        (add, (3,), {}),
        (add, (), {"left": 6, "right": 7}),
        (add_later, (3,), {}),
        (add_later, (6,), {"right": 7}),
        (functools.partial(add, 3), (), {}),
        (functools.partial(add_later, 3), (), {"right": 10}),
        (functools.partial(functools.partial(add, 6), right=7), (), {}),
        (Adder(10).add, (3,), {}),
        (Adder(10).add_later, (3,), {}),
        (Adder(10), (3,), {}),
        (int, ("13",), {}),
        (sum, ([6, 7],), {}),
    ],
)
def test_a_step_calls_anything_and_awaits_what_can_be_awaited(made, function, args, kwargs):
    runs = []

    @made
    async def program(ctx):
        result = await ctx.step.run("first", function, *args, **kwargs)
        await ctx.step.wait_for("again", seconds=0)
        runs.append(result)
        return result

    assert program.run() == 13
    assert runs == [13]


def test_a_steps_function_is_called_once_though_the_handler_runs_again(made):
    function, runs = Counting(), []

    @made
    async def program(ctx):
        runs.append(await ctx.step.run("only", function))
        await ctx.step.wait_for("first", seconds=0)
        await ctx.step.wait_for("second", seconds=0)
        return runs

    program.run()
    assert function.calls == 1
    assert runs == ["done"] * 3


def test_steps_in_a_loop_have_names_of_their_own(made):
    @made
    async def program(ctx):
        squares = [await ctx.step.run(f"square_{n}", lambda n=n: n * n) for n in range(5)]
        await ctx.step.wait_for("again", seconds=0)
        return squares

    assert program.run() == [0, 1, 4, 9, 16]


def test_arguments_named_like_options_go_to_the_options(made):
    @made
    async def program(ctx):
        return await ctx.step.run("s", lambda **given: given, timeout=5, max_retries=0, other=1)

    assert program.run() == {"other": 1}


@pytest.mark.parametrize("function", [None, 5, "name"])
def test_what_cannot_be_called_is_refused(made, function):
    @made
    async def program(ctx):
        await ctx.step.run("s", function)

    with pytest.raises(StepError, match=r"step 's': a step needs a function to call"):
        program.run()


def test_a_generator_is_no_outcome(made):
    @made
    async def program(ctx):
        await ctx.step.run("s", lambda: (n for n in range(3)))

    with pytest.raises(StepExecutionError, match="cannot be saved"):
        program.run()


# --- run: retries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_failing_function_is_called_again(made, failures):
    function = Counting(failures)

    @made
    async def program(ctx):
        return await ctx.step.run("s", function, base_delay=0)

    assert program.run() == "done"
    assert function.calls == failures + 1


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3), (5, 6)])
def test_when_all_attempts_have_failed_the_step_has(made, retries, attempts):
    function = Counting(99)

    @made
    async def program(ctx):
        await ctx.step.run("pay", function, max_retries=retries, base_delay=0)

    with pytest.raises(StepExecutionError) as caught:
        program.run()
    assert function.calls == attempts
    assert (caught.value.step, caught.value.attempts) == ("pay", attempts)
    assert type(caught.value.__cause__) is ValueError
    assert str(caught.value.__cause__) == f"failure {attempts}"
    assert f"'pay': the step failed after {attempts} attempt" in str(caught.value)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [ValueError, OwnError])
def test_a_failed_step_fails_in_the_same_way_when_the_handler_runs_again(made, error):
    function, seen = Counting(99, error=error), []

    @made
    async def program(ctx):
        try:
            await ctx.step.run("pay", function, **NOW)
        except StepExecutionError as caught:
            seen.append((caught.step, caught.attempts, str(caught), type(caught.__cause__), str(caught.__cause__)))
        await ctx.step.wait_for("a", seconds=0)
        return "survived"

    assert program.run() == "survived"
    assert function.calls == 3
    first, second = seen
    assert first[:3] == second[:3]
    assert "failure 3" in first[4]
    assert "failure 3" in second[4]
    assert first[3] is error
    assert second[3] is (error if error is ValueError else ExecutionError)


def test_only_retryable_exceptions_are_retried(made):
    function = Counting(99, error=KeyError)

    @made
    async def program(ctx):
        await ctx.step.run("s", function, retryable=(ValueError, OSError), base_delay=0)

    with pytest.raises(StepExecutionError) as caught:
        program.run()
    assert function.calls == caught.value.attempts == 1


class Pauses:
    """Notes how long jobs are to pause, and does not let them."""

    def __init__(self, monkeypatch):
        from routilux.runtime import task_calling, task_turn
        from routilux.runtime.job import Job

        self.seconds = []
        monkeypatch.setattr(Job, "sleep", lambda job, seconds: self.seconds.append(seconds))
        sleep = asyncio.sleep

        async def note(seconds):
            self.seconds.append(seconds)
            await sleep(0)

        monkeypatch.setattr(task_turn.asyncio, "sleep", note)
        assert task_calling


@pytest.fixture
def pauses(monkeypatch):
    return Pauses(monkeypatch).seconds


def test_pauses_double_up_to_the_longest_and_there_is_none_after_the_last_attempt(made, pauses):
    @made
    async def program(ctx):
        await ctx.step.run("s", Counting(99), max_retries=5, base_delay=1.5, max_delay=10)

    with pytest.raises(StepExecutionError):
        program.run()
    assert pauses == [1.5, 3, 6, 10, 10]


def test_by_default_there_are_two_retries_after_one_and_two_seconds(made, pauses):
    @made
    async def program(ctx):
        await ctx.step.run("s", Counting(99))

    with pytest.raises(StepExecutionError):
        program.run()
    assert pauses == [1, 2]


def test_jitter_takes_a_share_off_the_pauses_and_is_the_same_for_the_same_step(made, pauses):
    @made
    async def program(ctx):
        await ctx.step.run("s", Counting(99), max_retries=6, base_delay=1, max_delay=1, jitter=0.5)

    for _ in range(2):
        with pytest.raises(StepExecutionError):
            program.run(job_id=f"j{len(pauses)}")
    assert all(0.5 <= each <= 1 for each in pauses)
    assert len(set(pauses[:6])) == 6
    assert pauses[:6] != pauses[6:]


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"base_delay": -1},
        {"max_delay": -1},
        {"timeout": 0},
        {"timeout": -1},
        {"jitter": 2},
        {"retryable": "ValueError"},
        {"retryable": 5},
    ],
)
def test_options_out_of_range_are_refused_before_the_function_is_called(made, options):
    function = Counting()

    @made
    async def program(ctx):
        await ctx.step.run("s", function, **options)

    name = next(iter(options))
    with pytest.raises(DeclarationError, match=f"step .s.: {name}"):
        program.run()
    assert function.calls == 0


def test_a_function_that_takes_too_long_counts_as_failed(made):
    release = threading.Event()

    @made
    async def program(ctx):
        await ctx.step.run("slow", lambda: release.wait(LONG), timeout=0.01, max_retries=1, base_delay=0)

    try:
        with pytest.raises(StepExecutionError) as caught:
            program.run()
    finally:
        release.set()
    assert caught.value.attempts == 2
    assert type(caught.value.__cause__) is StepTimeoutError
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_coroutine_function_that_takes_too_long_is_cancelled(made):
    """Its time begins when it does: also on a busy machine, it is not given up before, and left without a beginning."""
    ended = threading.Event()

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @made
    async def program(ctx):
        await ctx.step.run("slow", slow, timeout=0.01, max_retries=0)

    with pytest.raises(StepExecutionError) as caught:
        program.run()
    assert type(caught.value.__cause__) is StepTimeoutError
    assert ended.wait(LONG)


def test_a_function_in_time_is_not_disturbed_by_its_timeout(made):
    @made
    async def program(ctx):
        return [await ctx.step.run("a", add, 1, timeout=LONG), await ctx.step.run("b", add_later, 2, timeout=LONG)]

    assert program.run() == [11, 12]


def test_a_timeout_error_of_the_function_itself_is_its_own(made):
    @made
    async def program(ctx):
        await ctx.step.run("s", Counting(9, error=TimeoutError), timeout=LONG, max_retries=0)

    with pytest.raises(StepExecutionError) as caught:
        program.run()
    assert type(caught.value.__cause__) is TimeoutError
    assert str(caught.value.__cause__) == "failure 1"


# --- outcomes --------------------------------------------------------------------------------------------------------

VALUES = [
    None,
    False,
    0,
    "",
    [],
    {},
    0.0,
    (),
    (1, ("two", [3])),
    {1: "one", (2, 3): "pair"},
    {"a", "b"},
    b"\x00bytes",
    2**70,
    float("inf"),
    datetime(2026, 1, 2, 3, 4, 5, 678, timezone.utc),
    date(2026, 1, 2),
    timedelta(days=1, microseconds=2),
    Decimal("1.10"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_outcomes_come_back_as_they_were(made, value):
    seen = []

    @made
    async def program(ctx):
        seen.append(await ctx.step.run("s", lambda: value))
        await ctx.step.wait_for("again", seconds=0)
        return seen[-1]

    result = program.run()
    for each in (*seen, result):
        assert each == value
        assert type(each) is type(value)
    assert len(seen) == 2


def new_item() -> Item:
    return Item(name="box", parts=[Item(color=Color.BLUE)])


def new_color() -> Color:
    return Color.BLUE


def new_place() -> list[Place]:
    return [Place("here", (1, 2))]


def new_pair() -> dict[str, Pair]:
    return {"one": Pair(1, "x")}


async def new_item_later() -> Item | None:
    return Item(name="late")


@pytest.mark.parametrize("function", [new_item, new_color, new_place, new_pair, new_item_later])
def test_classes_that_a_steps_function_is_annotated_with_come_back(made, function):
    seen = []

    @made
    async def program(ctx):
        seen.append(await ctx.step.run("s", function))
        await ctx.step.wait_for("again", seconds=0)

    program.run()
    value = asyncio.run(function()) if function is new_item_later else function()
    assert seen == [value, value]
    assert [type(each) for each in seen] == [type(value)] * 2


@pytest.mark.parametrize("wrapped", [functools.partial(new_item), lambda: new_item()])
def test_classes_can_be_registered(made, wrapped):
    @made
    async def program(ctx):
        item = await ctx.step.run("s", wrapped)
        await ctx.step.wait_for("again", seconds=0)
        return item.name

    program.flow.register_types(Item)
    assert program.run() == "box"


class Maker:
    def __call__(self) -> Item:
        return Item()

    def make(self) -> Item:
        return Item()


@pytest.mark.parametrize("function", [functools.partial(new_item), Maker(), Maker().make, Item])
def test_classes_are_found_behind_partials_callables_methods_and_in_classes(made, function):
    @made
    async def program(ctx):
        await ctx.step.run("s", function)
        await ctx.step.wait_for("again", seconds=0)
        return True

    assert program.run()


@pytest.mark.parametrize(
    ("names", "annotation", "found"),
    [
        ({}, "int", int),
        ({"int": str}, "int", str),
        ({"Made": dict}, "Made", dict),
        ({}, "list[int]", list[int]),
        ({}, "None", type(None)),
        ({}, "NotThere", None),
        ({}, "1 / 0", None),
    ],
)
def test_what_a_function_returns_is_told_by_the_names_around_it(names, annotation, found):
    exec("def function(): ...", names)
    function = names["function"]
    function.__annotations__["return"] = annotation
    assert returned_type(function) == found
    function.__wrapped__ = function  # a chain without an end
    assert returned_type(function) is None


def test_a_learned_class_can_be_the_result_too(made):
    @made
    async def program(ctx, payload: Item):
        ctx.job_state.update_shared_data("before", payload)
        place = (await ctx.step.run("s", new_place))[0]
        ctx.job_state.update_shared_data("place", place)
        return place

    assert program.run(Item()) == Place("here", (1, 2))


def test_what_a_step_returned_can_be_changed_without_changing_what_is_recorded(made):
    seen = []

    @made
    async def program(ctx):
        found = await ctx.step.run("s", lambda: {"items": [1]})
        seen.append(copy.deepcopy(found))
        found["items"].append(2)
        await ctx.step.wait_for("first", seconds=0)
        await ctx.step.wait_for("second", seconds=0)

    program.run()
    assert seen == [{"items": [1]}] * 3


class Unknown:
    pass


@pytest.mark.parametrize("outcome", [Unknown(), {"deep": [Unknown()]}, threading.Lock(), lambda: 0])
def test_an_outcome_that_cannot_be_stored_fails_without_another_call(made, outcome):
    function = Counting(result=outcome)

    @made
    async def program(ctx):
        await ctx.step.run("s", function, max_retries=5, base_delay=0)

    with pytest.raises(StepExecutionError, match="the outcome of step 's'") as caught:
        program.run()
    assert function.calls == caught.value.attempts == 1


# --- values ----------------------------------------------------------------------------------------------------------


def test_ids_times_and_random_numbers_are_the_same_when_the_handler_runs_again(made):
    seen = []

    @made
    async def program(ctx):
        step = ctx.step
        seen.append((await step.uuid("id"), await step.now("time"), await step.random("chance")))
        await ctx.step.wait_for("again", seconds=0)
        return seen[-1]

    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    result = program.run()
    assert seen[0] == seen[1] == result
    identity, moment, chance = result
    assert len(identity) == 36
    assert moment.tzinfo is not None
    assert before <= moment <= datetime.now(timezone.utc) + timedelta(seconds=1)
    assert 0 <= chance < 1
    assert program.run() != result


@pytest.mark.parametrize("operation", ["uuid", "now", "random"])
def test_two_values_are_two(made, operation):
    @made
    async def program(ctx):
        make = getattr(ctx.step, operation)
        return [await make("a"), await make("b")]

    first, second = program.run()
    assert first != second or operation == "now"


# --- names -----------------------------------------------------------------------------------------------------------

OPERATIONS = {
    "run": lambda step, name: step.run(name, lambda: 1),
    "uuid": lambda step, name: step.uuid(name),
    "now": lambda step, name: step.now(name),
    "random": lambda step, name: step.random(name),
    "wait_for": lambda step, name: step.wait_for(name, seconds=0),
    "wait_until": lambda step, name: step.wait_until(name, datetime(2020, 1, 1, tzinfo=timezone.utc)),
    "wait_for_event": lambda step, name: step.wait_for_event(name, "topic"),
    "invoke": lambda step, name: step.invoke(name, nothing),
    "invoke_and_wait": lambda step, name: step.invoke_and_wait(name, nothing),
    "invoke_all_and_wait": lambda step, name: step.invoke_all_and_wait(name, nothing, [None]),
}


@workflow
def nothing(ctx):
    return None


@pytest.mark.parametrize("name", ["", None, 5])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_name_is_a_non_empty_string(made, operation, name):
    @made
    async def program(ctx):
        await OPERATIONS[operation](ctx.step, name)

    with pytest.raises(StepError, match=f"{operation}.*a name is a non-empty string"):
        program.run()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_name_is_used_once(made, operation):
    @made
    async def program(ctx):
        await ctx.step.run("taken", lambda: 1)
        await OPERATIONS[operation](ctx.step, "taken")

    with pytest.raises(StepError, match=r"'taken' was used before in this activation"):
        program.run()


def test_a_name_is_used_once_also_on_replay(made):
    @made
    async def program(ctx):
        await ctx.step.run("taken", lambda: 1)
        await ctx.step.wait_for("again", seconds=0)
        try:
            await ctx.step.run("taken", lambda: 2)
        except StepError:
            return "refused"

    assert program.run() == "refused"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_there_are_no_steps_inside_an_edit(engine, operation):
    @workflow(engine=engine)
    def plain(ctx):
        with ctx.store.edit_state():
            OPERATIONS[operation](ctx.step, "inside")

    @workflow(engine=engine)
    async def coroutine(ctx):
        async with ctx.store.edit_state():
            await OPERATIONS[operation](ctx.step, "inside")

    for program in (plain, coroutine):
        with pytest.raises(StateError, match="inside edit_state"):
            program.run()


def test_there_are_no_steps_inside_a_step(engine):
    @workflow(engine=engine)
    def program(ctx):
        ctx.step.run("outer", lambda: ctx.step.run("inner", lambda: 1), max_retries=0)

    with pytest.raises(StepExecutionError) as caught:
        program.run()
    assert isinstance(caught.value.__cause__, (StepError, ContextError))


# --- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_of_a_step_is_the_same_in_each_attempt_and_its_own(made):
    keys = []

    @made
    async def program(ctx):
        def work(fail):
            keys.append(ctx.step.key)
            if fail and len(keys) < 3:
                raise ValueError

        await ctx.step.run("first", work, True, **NOW)
        await ctx.step.run("second", work, False)

    program.run(job_id="j")
    assert len(set(keys[:3])) == 1
    assert keys[3] not in keys[:3]
    assert all(each.startswith("j/") for each in keys)


def test_coroutine_steps_know_their_key(made):
    @made
    async def program(ctx):
        async def work():
            return ctx.step.key

        return await ctx.step.run("s", work)

    assert program.run(job_id="job").startswith("job/")


def test_there_is_no_key_outside_a_step(made):
    @made
    async def program(ctx):
        await ctx.step.run("s", lambda: 1)
        return ctx.step.key

    with pytest.raises(StepError, match="there is none now"):
        program.run()


# --- outside the turn ------------------------------------------------------------------------------------------------


def test_steps_belong_to_the_turn(made):
    kept = []

    @made
    async def program(ctx):
        kept.append((ctx, ctx.step))

    program.run()
    ctx, step = kept[0]
    late = step.run("late", lambda: 1)
    with pytest.raises(ContextError):
        late.send(None)
    with pytest.raises(ContextError):
        ctx.step  # noqa: B018


# --- without a store -------------------------------------------------------------------------------------------------


@pytest.fixture
def in_memory():
    with Engine() as engine:
        yield engine


def flow_of(handler, engine) -> Flow:
    return workflow(engine=engine)(handler).flow


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_store_steps_run_and_retry_all_the_same(in_memory, kind):
    function = Counting(2)

    async def program(ctx):
        first = await ctx.step.run("s", function, base_delay=0)
        return [first, len(await ctx.step.uuid("id")), await ctx.step.random("r") < 1]

    assert workflow(engine=in_memory)(as_kind(kind, program)).run() == ["done", 36, True]
    assert function.calls == 3


def test_e2_l3_a_handler_that_is_given_up_inside_a_step_leaves_those_of_the_next_deliveries_alone():
    """The clock stands still but for the one moment that the first step takes too long."""
    now, release, given_up, keys = [0], threading.Event(), [], []

    def handle(step, data):
        ctx = step.get_execution_context()

        def call():
            if data == 1:
                given_up.append(threading.current_thread())
                now.append(10**9)
                assert release.wait(LONG)
            elif data == 3:
                release.set()
                given_up[0].join(LONG)
                keys.append(ctx.step.key)

        ctx.step.run("call", call)

    with Engine(Clock(monotonic_ns=lambda: now[-1])) as engine:
        flow = chain(Source([1, 2, 3]), Step(handle, timeout=0.05), engine=engine)
        flow.set_error_handler(ErrorHandler("continue"))
        state = flow.execute("r0", job_id="j")
    assert state.status == "completed"
    assert [error.type for error in state.errors] == ["HandlerTimeoutError"]
    assert [key.partition("/")[0] for key in keys] == ["j"]


def test_without_a_store_a_coroutine_just_waits(in_memory):
    runs = []

    @workflow(engine=in_memory)
    async def program(ctx):
        runs.append(1)
        await ctx.step.wait_for("a", seconds=0.002)
        await ctx.step.wait_until("b", datetime.now(timezone.utc) + timedelta(milliseconds=2))
        return "went on"

    assert program.run() == "went on"
    assert runs == [1]


@pytest.mark.parametrize("operation", ["wait_for_event", "invoke_and_wait"])
def test_t2_without_a_store_a_plain_handler_cannot_wait(in_memory, operation):
    @workflow(engine=in_memory)
    def program(ctx):
        OPERATIONS[operation](ctx.step, "w")

    with pytest.raises(StepError, match=r"step 'w': a plain handler can wait only in a job with a store"):
        program.run()


def test_without_a_store_children_run_and_answer(in_memory):
    @workflow(engine=in_memory)
    async def parent(ctx):
        one = await ctx.step.invoke_and_wait("one", child, {"n": 1})
        more = await ctx.step.invoke_all_and_wait("more", child, [{"n": 2}, {"n": 3}])
        return [one.name, *(each.name for each in more)]

    @workflow(engine=in_memory)
    def child(ctx, payload) -> Item:
        return Item(name=f"item {payload['n']}")

    assert parent.run() == ["item 1", "item 2", "item 3"]


def pausing(children):
    @workflow(id="child")
    async def child(ctx):
        children.append(ctx.job_state)
        ctx.flow.pause(ctx.job_state)

    return child


def waiting_for_an_event(children):
    @workflow(id="child")
    async def child(ctx):
        children.append(ctx.job_state)
        await ctx.step.wait_for_event("w", "never")

    return child


def with_an_open_input(children):
    class Desk(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.ask)
            self.define_slot("answer", handler=self.ask, external=True)

        def ask(self, ctx: Context):
            children.append(ctx.job_state)

    flow = Flow("child")
    flow.add_routine(Desk(), "desk")
    return flow


AT_REST = pytest.mark.parametrize("make", [pausing, waiting_for_an_event, with_an_open_input])


def parent_of(child, engine):
    """Return a workflow that returns how its child has ended."""

    @workflow(engine=engine)
    async def parent(ctx):
        try:
            await ctx.step.invoke_and_wait("call", child)
        except StepExecutionError as error:
            return str(error).partition("of flow 'child' ")[2]
        return "completed"

    return parent


@AT_REST
def test_d9_without_a_store_a_parent_rests_when_its_child_does(in_memory, make):
    children = []
    child = make(children)
    state = parent_of(child, in_memory).flow.execute("parent", timeout=LONG)
    assert state.status == "waiting"
    (waits,) = waits_outside(state._job)
    assert waits.startswith(f"step 'call', for job '{state.job_id}/1/call'")
    if make is pausing:
        child._flow.resume(children[0])
    elif make is with_an_open_input:
        child.close_input(children[0], "desk", "answer")
    else:
        child._flow.cancel(children[0], "enough")
    assert state.wait(LONG)
    assert state.result == ("was cancelled: enough" if make is waiting_for_an_event else "completed")


@AT_REST
def test_d9_without_a_store_nobody_waits_for_the_child_of_a_flow_that_was_shut_down(in_memory, make):
    child = make([])
    parent = parent_of(child, in_memory)
    state = parent.flow.execute("parent", timeout=LONG)
    (child if make is with_an_open_input else child._flow).shutdown()
    shutting_down = threading.Thread(target=parent.flow.shutdown, daemon=True)
    shutting_down.start()
    shutting_down.join(LONG)
    assert not shutting_down.is_alive()
    assert state.status == "waiting"


def test_d9_without_a_store_a_parent_rests_when_its_last_child_that_moves_has_ended(in_memory):
    ready, looked, release, rests = (threading.Event() for _ in range(4))

    @workflow
    async def child(ctx, number):
        if number == 1:
            await asyncio.to_thread(release.wait, LONG)
        else:
            await asyncio.to_thread(ready.wait, LONG)
            await ctx.step.wait_for_event("w", "never")

    @workflow(engine=in_memory)
    async def parent(ctx):
        await ctx.step.invoke_all_and_wait("all", child, [1, 2])

    state = parent.start()
    job = state._job
    look = job.look_whether_at_rest
    job.look_whether_at_rest = lambda: (look(), looked.set())
    ready.set()
    assert looked.wait(LONG)
    release.set()  # what it answers wakes nobody
    with job.lock:
        job.watchers.append(rests)
        if job.at_rest:
            rests.set()
    assert rests.wait(LONG)
    assert state.status == "waiting"
    parent.flow.cancel(state)


def test_a_job_in_memory_whose_flow_was_shut_down_does_not_go_on_when_its_child_ends(in_memory):
    children = []
    child = with_an_open_input(children)
    parent = parent_of(child, in_memory)
    state = parent.flow.execute("parent", timeout=LONG)
    parent.flow.shutdown()
    child.close_input(children[0], "desk", "answer")
    assert children[0].wait(LONG)
    tell_parent(children[0]._job, state._job)
    assert state.status == "waiting"
