"""Workflows: functions as flows of one routine."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from typing import Any

import pytest
from both import KINDS, as_kind
from pydantic import BaseModel, Field

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
    JobState,
    JobTimeoutError,
    PayloadError,
    SaveError,
    StateError,
    Workflow,
    WorkflowContext,
    WorkflowState,
    open_store,
    workflow,
)

LONG = 20.0


class Order(BaseModel):
    order_id: str
    amounts: list[float] = []


class Receipt(BaseModel):
    order_id: str
    total: float = Field(ge=0)


class Tally(WorkflowState):
    count: int = 0
    names: list[str] = Field(default_factory=list)


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


@pytest.fixture(params=KINDS)
def made(request, engine):
    def make(function=None, **options):
        if function is None:
            return lambda each: make(each, **options)
        return workflow(engine=engine, **options)(as_kind(request.param, function))

    return make


# --- what it is made from --------------------------------------------------------------------------------------------


def test_a_workflow_looks_like_its_function():
    @workflow
    def process(ctx: WorkflowContext, payload: Order) -> Receipt:
        """Process an order."""
        return Receipt(order_id=payload.order_id, total=0)

    assert isinstance(process, Workflow)
    assert process.__name__ == "process"
    assert process.__qualname__.endswith("<locals>.process")
    assert process.__doc__ == "Process an order."
    assert process.__module__ == __name__
    assert inspect.unwrap(process) is process.__wrapped__
    assert list(inspect.signature(process).parameters) == ["ctx", "payload"]
    assert repr(process) == "<Workflow 'process'>"


def test_a_workflow_is_a_flow_of_one_routine(engine):
    @workflow(id="order_processor", version="3", state_schema=Tally, engine=engine, max_state_bytes=5000)
    def process(ctx):
        return ctx.flow is process.flow

    assert process.id == "order_processor"
    flow = process.flow
    assert isinstance(flow, Flow)
    assert (flow.flow_id, flow.version, flow.max_state_bytes, flow.engine) == ("order_processor", "3", 5000, engine)
    assert list(flow.routines) == ["process"]
    assert process.run() is True
    assert flow.execute("process").result is True


@pytest.mark.parametrize(
    "annotation", [WorkflowContext, WorkflowContext[Tally], Context, AsyncContext, Context[Tally], Any, "anything"]
)
def test_the_first_parameter_is_the_context(annotation):
    def process(ctx):
        return ctx.flow_id

    process.__annotations__ = {"ctx": annotation} if annotation != "anything" else {}
    assert workflow(process)() == "process"


def test_the_context_may_have_another_name_when_it_is_annotated():
    @workflow
    def process(context: WorkflowContext, order: Order) -> str:
        return f"{context.flow_id} {order.order_id}"

    assert process(Order(order_id="7")) == "process 7"


@pytest.mark.parametrize("name", ["payload", "input", "order", "data", "self"])
def test_the_payload_may_have_any_name(name):
    function = eval(f"lambda ctx, {name}: {name}")
    assert workflow(id="f")(function).run({"a": 1}) == {"a": 1}


def none(): ...
def no_context(payload): ...
def payload_first(payload, ctx): ...
def three(ctx, payload, more): ...
def rest(ctx, **payload): ...
def key_words(*, ctx): ...
def all_of_them(*ctx): ...
def generator(ctx):
    yield 1


async def async_generator(ctx):
    yield 1


@pytest.mark.parametrize(
    "function", [none, no_context, payload_first, three, rest, key_words, all_of_them, generator, async_generator]
)
def test_another_signature_is_one_clear_error_when_it_is_declared(function):
    with pytest.raises(DeclarationError, match=f"'{function.__name__}'"):
        workflow(function)


@pytest.mark.parametrize("function", [none, no_context, payload_first, three, rest, key_words])
def test_the_error_says_how_it_should_be(function):
    with pytest.raises(DeclarationError, match=r"def f\(ctx, payload\)"):
        workflow(function)


@pytest.mark.parametrize("thing", [5, "f", Order, Tally(), object()])
def test_only_functions_become_workflows(thing):
    with pytest.raises(DeclarationError, match="made from a function"):
        workflow(thing)


def test_a_workflow_does_not_become_one_again():
    @workflow
    def process(ctx): ...

    with pytest.raises(DeclarationError, match="a workflow already"):
        workflow(process)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"id": ""}, "flow_id"),
        ({"id": 5}, "flow_id"),
        ({"version": ""}, "version"),
        ({"state_schema": dict}, "state_schema"),
        ({"engine": "sqlite"}, "engine"),
        ({"max_state_bytes": 0}, "max_state_bytes"),
        ({"error_handler": "stop"}, "ErrorHandler"),
    ],
)
def test_options_are_checked_when_it_is_declared(options, word):
    with pytest.raises(DeclarationError, match=word):
        workflow(**options)(lambda ctx: None)


def test_annotations_may_be_text_and_name_local_classes():
    class Local(BaseModel):
        n: int

    @workflow
    def process(ctx: WorkflowContext, payload: list[Local]) -> dict[str, Local]:
        return {"sum": Local(n=sum(each.n for each in payload))}

    @workflow(id="other")
    async def other(ctx: WorkflowContext, payload: Local) -> Local | None:
        return payload

    assert process.run([{"n": 1}, Local(n=2)]) == {"sum": Local(n=3)}
    assert other.run({"n": 1}) == Local(n=1)


def test_an_annotation_that_cannot_be_resolved_is_a_clear_error():
    def process(ctx, payload: Nowhere):  # noqa: F821
        ...

    with pytest.raises(DeclarationError, match=r"process cannot be resolved: name 'Nowhere' is not defined"):
        workflow(process)


# --- payloads and results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [Order(order_id="a", amounts=[1, 2]), {"order_id": "a", "amounts": ["1", 2]}])
def test_a_payload_is_validated_and_a_result_typed(made, payload):
    @made
    async def process(ctx, payload: Order) -> Receipt:
        assert type(payload) is Order
        return Receipt(order_id=payload.order_id, total=sum(payload.amounts))

    for result in (process.run(payload), process(payload), asyncio.run(process.arun(payload))):
        assert result == Receipt(order_id="a", total=3.0)
        assert type(result) is Receipt


def test_a_result_given_as_a_dict_is_coerced(made):
    @made
    async def process(ctx) -> list[Receipt]:
        return [{"order_id": "a", "total": "1.5"}]

    assert process.run() == [Receipt(order_id="a", total=1.5)]


@pytest.mark.parametrize(
    "payload", [None, False, 0, "", [], {}, (1, 2), {"a": [1]}, {"payload": 3}, Order(order_id="x")]
)
def test_a_payload_without_annotation_is_passed_as_it_is(made, payload):
    @made
    async def process(ctx, payload):
        return [payload]

    process.flow.register_types(Order)
    (result,) = process.run(payload)
    assert result == payload
    assert type(result) is type(payload)


def test_a_payload_may_have_a_default(made):
    @made
    async def process(ctx, payload: Order | None = None):
        return payload

    assert process.run() is None
    assert process.run({"order_id": "1"}) == Order(order_id="1")


def test_a_function_without_payload_takes_none(made):
    @made
    async def process(ctx):
        return "done"

    assert process.run() == "done"
    for call in (process.run, process.start, process.invocation):
        with pytest.raises(ExecutionError, match="takes no payload"):
            call({"a": 1})


@pytest.mark.parametrize("payload", [None, {}, {"order_id": 5}, "text", Receipt(order_id="a", total=1)])
def test_a_payload_that_does_not_fit_fails_the_job(made, payload):
    @made
    async def process(ctx, order: Order):
        raise AssertionError("it must not run")

    process.flow.register_types(Receipt)
    with pytest.raises(PayloadError, match="'order'"):
        process.run(payload)


@pytest.mark.parametrize("result", [None, "text", {"order_id": "a", "total": -1}, Order(order_id="a")])
def test_a_result_that_does_not_fit_fails_the_job(made, result):
    @made
    async def process(ctx) -> Receipt:
        return result

    state = process.start()
    state.wait()
    assert state.status == "failed"
    with pytest.raises(PayloadError, match=r"workflow 'process': the result = .* is not valid"):
        process.run()


class Unknown:
    pass


def test_a_result_that_cannot_be_saved_fails_the_job(made):
    @made
    async def process(ctx):
        return Unknown()

    with pytest.raises(SaveError, match=r"the result is .*Unknown.*cannot be saved"):
        process.run()


@pytest.mark.parametrize("result", [None, False, 0, "", [], {}, ()])
def test_falsy_results(made, result):
    @made
    async def process(ctx):
        return result

    found = process.run()
    assert found == result
    assert type(found) is type(result)


def test_a_workflow_that_changes_its_payload_changes_nobody_elses(made):
    order = Order(order_id="a", amounts=[1])

    @made
    async def process(ctx, payload: Order):
        payload.amounts.append(2)
        await ctx.step.wait_for("again", seconds=0)
        return payload.amounts

    assert process.run(order) == [1, 2]
    assert order.amounts == [1]


# --- running ---------------------------------------------------------------------------------------------------------


class OwnError(Exception):
    pass


def test_run_raises_the_error_of_the_function_itself(made):
    error = OwnError("mine")

    @made
    async def process(ctx):
        raise error

    for call in (process.run, process, lambda: asyncio.run(process.arun())):
        with pytest.raises(OwnError) as caught:
            call()
        assert caught.value is error


def test_an_error_handler_retries_the_function(made):
    tries = []

    @made(error_handler=ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=0))
    async def process(ctx):
        tries.append(ctx.attempt)
        await ctx.step.run("once", lambda: tries.append("step"))
        if len(tries) < 4:
            raise OwnError
        return "at last"

    assert process.run() == "at last"
    assert tries == [1, "step", 2, 3]


def test_start_returns_the_state_at_once(made):
    release = threading.Event()

    @made
    async def process(ctx, payload):
        await ctx.step.run("hold", release.wait, LONG)
        return payload

    state = process.start(5, job_id="j", session_id="s", user_id="u")
    assert isinstance(state, JobState)
    assert not state.status.ended
    assert (state.job_id, state.session_id, state.user_id, state.flow_id) == ("j", "s", "u", "process")
    release.set()
    assert state.wait(timeout=LONG)
    assert state.result == 5


def test_the_context_knows_where_it_is(made):
    @made(id="there")
    async def process(ctx):
        return [ctx.flow_id, ctx.job_id, ctx.session_id, ctx.user_id, ctx.parent_job_id, ctx.attempt, ctx.routine_id]

    assert process.run(job_id="j", session_id="s", user_id="u") == ["there", "j", "s", "u", None, 1, "process"]
    assert process.run()[2:5] == [None, None, None]


def test_a_job_is_found_by_its_id(made, engine):
    runs = []

    @made
    async def process(ctx, payload):
        runs.append(payload)
        return payload * 2

    assert process.run(4, job_id="j") == 8
    assert process.run(4, job_id="j") == 8
    assert runs == [4]
    assert engine.get("j").result == 8
    with pytest.raises(ExecutionError, match="was started before, with another payload"):
        process.run(5, job_id="j")
    with pytest.raises(ExecutionError, match="job_id must be a non-empty string"):
        process.run(5, job_id="")


def test_a_timeout_fails_the_job(made):
    release = threading.Event()

    @made
    async def process(ctx):
        await ctx.step.run("hold", release.wait, LONG)

    try:
        with pytest.raises(JobTimeoutError):
            process.run(timeout=0.02)
    finally:
        release.set()


def test_a_cancelled_job_has_no_result(made):
    @made
    async def process(ctx):
        process.flow.cancel(ctx.job_state, "changed my mind")

    with pytest.raises(ExecutionError, match="was cancelled: changed my mind"):
        process.run()


def test_a_paused_job_has_no_result_yet(made):
    paused = []

    @made
    async def process(ctx):
        if not paused:
            paused.append(True)
            process.flow.pause(ctx.job_state, "wait a moment")
        await ctx.step.wait_for("again", seconds=0)
        return "went on"

    with pytest.raises(ExecutionError, match=r"job 'j' is paused"):
        process.run(job_id="j")
    state = process.flow.resume(process.engine.get("j"))
    assert state.wait(timeout=LONG)
    assert state.result == "went on"


def test_run_does_not_wait_for_what_comes_from_outside(made, engine):
    @made
    async def process(ctx):
        return await ctx.step.wait_for_event("approval", "approved")

    message = r"job 'j' waits at step 'approval', for an event 'approved'.*engine.publish.*start\(\)"
    with pytest.raises(ExecutionError, match=message):
        process.run(job_id="j")
    with pytest.raises(ExecutionError, match="waits at step 'approval'"):
        asyncio.run(process.arun())
    state = engine.get("j")
    assert state.status == "waiting"
    engine.publish("approved", "by Ann", job_id="j")
    assert state.wait(timeout=LONG)
    assert state.result == "by Ann"


def test_run_says_which_child_waits_for_what(made):
    @workflow
    def child(ctx):
        return ctx.step.wait_for_event("w", "go")

    @made
    async def process(ctx):
        await ctx.step.invoke_and_wait("call", child)

    with pytest.raises(
        ExecutionError, match=r"at step 'call', for job 'j/1/call', which waits at step 'w', for an event"
    ):
        process.run(job_id="j")


def test_run_names_only_the_children_that_still_wait(made):
    @workflow
    def child(ctx, number):
        return number if number == 1 else ctx.step.wait_for_event("w", "go")

    @made
    async def process(ctx):
        await ctx.step.invoke_all_and_wait("all", child, [1, 2])

    message = r"at step 'all', for job 'j/1/all.1', which waits at step 'w', for an event 'go', and run\(\)"
    with pytest.raises(ExecutionError, match=message):
        process.run(job_id="j", timeout=LONG)


def test_arun_leaves_the_event_loop_free_and_run_does_not(made):
    came = asyncio.Event()
    release = threading.Event()

    @made
    async def process(ctx):
        await ctx.step.run("hold", release.wait, LONG)
        return "done"

    async def main():
        task = asyncio.create_task(process.arun())
        await asyncio.sleep(0)
        came.set()
        release.set()
        return await task, process.run()

    assert asyncio.run(main()) == ("done", "done")
    assert came.is_set()


def test_arun_that_is_cancelled_cancels_the_job(made):
    reached = threading.Event()
    release = threading.Event()

    @made
    async def process(ctx):
        await ctx.step.run("hold", lambda: [reached.set(), release.wait(LONG)])

    async def main():
        task = asyncio.create_task(process.arun(job_id="j"))
        await asyncio.to_thread(reached.wait, LONG)
        state = process.engine.get("j")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return state

    state = asyncio.run(main())
    release.set()
    assert state.status == "cancelled"


def test_a_workflow_may_run_another_as_a_job_of_its_own():
    @workflow
    def inner(ctx, payload):
        ctx.step.wait_for("nap", seconds=0.001)
        return payload + 1

    @workflow
    def outer(ctx):
        return [inner(1), inner.run(2), ctx.step.run("as a step", inner, 3)]

    assert outer() == [2, 3, 4]


def test_inside_a_coroutine_run_is_refused_and_arun_is_not():
    @workflow
    async def inner(ctx):
        return "inner"

    @workflow
    async def outer(ctx):
        with pytest.raises(ContextError, match="inside a coroutine handler"):
            inner.run()
        return await inner.arun()

    assert outer() == "inner"


# --- state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "initial", [{"count": 5, "names": ["x"]}, Tally(count=5, names=["x"]), {"count": "5", "names": ["x"]}]
)
def test_a_state_begins_with_what_is_given(made, initial):
    @made(state_schema=Tally)
    async def process(ctx):
        ctx.state.count += 1
        ctx.state.names.append("y")
        return [ctx.state.count, list(ctx.state.names)]

    assert process.run(initial_state=initial) == [6, ["x", "y"]]
    assert process.run() == [1, ["y"]]


@pytest.mark.parametrize("initial", [{"unknown": 1}, {"count": "many"}, 5, Order(order_id="a")])
def test_an_initial_state_that_does_not_fit_begins_no_job(made, engine, initial):
    @made(state_schema=Tally)
    async def process(ctx): ...

    for call in (process.run, process.start):
        with pytest.raises(StateError):
            call(initial_state=initial)
    assert engine.jobs() == []


def test_a_state_without_schema_is_a_mapping(made):
    @made
    async def process(ctx):
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        await ctx.step.wait_for("again", seconds=0)
        return ctx.state["n"]

    assert process.run(initial_state={"n": 4}) == 5


def test_a_state_that_grows_too_large_fails_the_job(made):
    @made(state_schema=Tally, max_state_bytes=1000)
    async def process(ctx):
        ctx.state.names.append("x" * 1000)

    with pytest.raises(StateError, match="max_state_bytes=1,000"):
        process.run()


def test_a_state_is_committed_when_the_function_fails(made):
    @made(state_schema=Tally)
    async def process(ctx):
        ctx.state.count = 3
        raise OwnError

    state = process.start()
    assert state.wait(timeout=LONG)
    assert state.status == "failed"
    assert state.get_shared_data("count") == 3


# --- engines ---------------------------------------------------------------------------------------------------------


def test_importing_makes_no_engine_and_neither_does_declaring():
    code = (
        "import routilux.workflow, threading\n"
        "import sys; module = sys.modules['routilux.workflow']\n"
        "@routilux.workflow\n"
        "def f(ctx): return ctx.step.uuid('a')\n"
        "print(module._memory_engine, threading.active_count())\n"
        "f()\n"
        "print(module._memory_engine is f.engine)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "None 1\nTrue\n"


def test_workflows_without_an_engine_share_one_and_may_be_declared_again():
    def declare(answer):
        @workflow
        def process(ctx):
            ctx.step.wait_for("again", seconds=0)
            return answer

        return process

    first, second = declare(1), declare(2)
    assert [first(), second(), first()] == [1, 2, 1]
    assert first.engine is second.engine


def test_the_shared_engine_keeps_only_the_last_jobs_that_ended(monkeypatch):
    module = sys.modules["routilux.workflow"]
    monkeypatch.setattr(module, "ENDED_JOBS_KEPT", 10)
    monkeypatch.setattr(module, "PRUNED_EVERY", 20)

    @workflow
    def process(ctx): ...

    for _ in range(60):
        process()
    assert len(process.engine.jobs()) <= 31


def test_a_workflow_uses_the_engine_that_it_is_registered_with(engine):
    @workflow
    def process(ctx, payload):
        return payload

    engine.register(process)
    assert process.engine is engine
    assert process.run(3, job_id="j") == 3
    assert [head.job_id for head in engine.jobs()] == ["j"]
    with pytest.raises(DeclarationError, match="another flow 'process'"):
        engine.register(Flow("process"))


def test_a_workflow_keeps_the_engine_that_it_was_given(engine):
    with Engine(store=open_store("memory:")) as own:

        @workflow(engine=own)
        def process(ctx): ...

        engine.register(process)
        assert process.engine is own


def test_a_submitted_workflow_is_run_by_whoever_serves(engine):
    @workflow
    async def process(ctx, payload: Order) -> Receipt:
        return Receipt(order_id=payload.order_id, total=1)

    engine.register(process)
    by_object = engine.submit(process, Order(order_id="a"))
    by_name = engine.submit("process", {"order_id": "b"}, session_id="s")
    with pytest.raises(DeclarationError, match="no routine 'nowhere'"):
        engine.submit(process, {"order_id": "b"}, entry="nowhere")
    stop = threading.Event()
    server = threading.Thread(target=engine.serve, args=(stop,))
    server.start()
    try:
        for state, order_id in ((by_object, "a"), (by_name, "b")):
            assert state.wait(timeout=LONG)
            assert state.result == Receipt(order_id=order_id, total=1)
        assert by_name.session_id == "s"
    finally:
        stop.set()
        server.join(LONG)


def test_type_checkers_know_what_it_takes_and_returns(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(
        """
from pydantic import BaseModel
from routilux import Context, WorkflowContext, workflow

class A(BaseModel): ...
class B(BaseModel): ...

@workflow
async def later(ctx: WorkflowContext, payload: A) -> B:
    await ctx.step.run("a", print)
    return B()

@workflow(id="now")
def now(ctx: WorkflowContext[A], payload: A) -> B:
    ctx.step.run("a", print)
    reveal_type(ctx.state)
    return B()

@workflow
def bare(ctx: Context) -> int:
    return 1

reveal_type(later.run(A()))
reveal_type(now(A()))
reveal_type(bare.run())
async def main() -> None:
    reveal_type(await later.arun({"a": 1}))
"""
    )
    out, _, _ = mypy.run(["--strict", str(program)])
    kinds = [line.split('"')[1].removeprefix("program.") for line in out.splitlines() if "Revealed" in line]
    assert kinds == ["A", "B", "B", "int", "B"], out
    assert "error" not in out, out
