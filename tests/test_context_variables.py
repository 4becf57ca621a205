"""Context variables of whoever starts a job reach its handlers, on threads and on the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar, copy_context

import pytest
from parts import AsyncStep, Signal, Source, Step, chain

from routilux import Engine, ErrorHandler, Flow

LONG = 20.0
VARIABLE = ContextVar("variable", default="unset")
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


class Reading:
    """Handlers that keep what they see, by routine id, and on which thread."""

    def __init__(self):
        self.seen = {}
        self.threads = {}

    def plain(self, step, data):
        self.seen.setdefault(step.get_execution_context().routine_id, set()).add(VARIABLE.get())
        self.threads.setdefault(step.get_execution_context().routine_id, set()).add(threading.current_thread())

    async def coroutine(self, step, data):
        self.plain(step, data)
        await asyncio.sleep(0)
        self.plain(step, data)


def reading_flow(**options):
    reading = Reading()
    flow = Flow("reading", engine=Engine(), **options)
    flow.add_routine(Source(range(4)), "source")
    for name, routine in (
        ("plain", Step(reading.plain)),
        ("several", Step(reading.plain, concurrency=2)),
        ("timed", Step(reading.plain, timeout=LONG)),
        ("coroutine", AsyncStep(reading.coroutine)),
        ("many coroutines", AsyncStep(reading.coroutine, concurrency=4)),
        ("timed coroutine", AsyncStep(reading.coroutine, timeout=LONG)),
    ):
        flow.add_routine(routine, name)
        flow.connect("source", "output", name, "input")
    return flow, reading


KINDS = ("plain", "several", "timed", "coroutine", "many coroutines", "timed coroutine")


def everywhere(reading, value):
    return reading.seen == {kind: {value} for kind in KINDS}


def within(value, function, *arguments):
    """Call a function with the variable set, here only."""

    def call():
        VARIABLE.set(value)
        return function(*arguments)

    return copy_context().run(call)


@MODES
def test_handlers_of_execute_see_the_callers_variables(options):
    flow, reading = reading_flow(**options)
    with flow:
        within("execute", flow.execute, "source").raise_for_status()
    assert everywhere(reading, "execute")
    assert {thread.name for thread in reading.threads["coroutine"]} == {"routilux-loop"}
    assert {thread.name for thread in reading.threads["timed"]} == {"routilux-helper"}


@MODES
def test_handlers_of_start_see_the_callers_variables_also_when_another_thread_lends_itself(options):
    flow, reading = reading_flow(**options)
    with flow:
        state = within("start", flow.start, "source")
        assert within("waiting", state.wait)
    assert everywhere(reading, "start")


@MODES
def test_handlers_of_execute_with_a_timeout_see_the_callers_variables(options):
    flow, reading = reading_flow(**options)
    with flow:
        within("timeout", lambda: flow.execute("source", timeout=LONG)).raise_for_status()
    assert everywhere(reading, "timeout")


@MODES
def test_handlers_of_aexecute_see_the_variables_of_the_task(options):
    async def main():
        VARIABLE.set("task")
        state = await flow.aexecute("source")
        assert VARIABLE.get() == "task"
        return state

    flow, reading = reading_flow(**options)
    with flow:
        asyncio.run(main()).raise_for_status()
    assert everywhere(reading, "task")
    assert VARIABLE.get() == "unset"


@MODES
def test_handlers_of_a_resumed_job_see_the_variables_of_whoever_resumed_it(options):
    flow, reading = reading_flow(**options)
    with flow:
        state = within("first", flow.start, "source", None)
        assert state.wait()
        reading.seen.clear()

        def pausing(step):
            flow2.pause(step.get_execution_context().job_state)
            step.emit("output", data=1)

        flow2 = Flow("paused", engine=flow.engine, **options)
        flow2.add_routine(Step(pausing), "source")
        flow2.add_routine(Step(reading.plain), "plain")
        flow2.add_routine(AsyncStep(reading.coroutine), "coroutine")
        flow2.connect("source", "output", "plain", "input")
        flow2.connect("source", "output", "coroutine", "input")
        with flow2:
            state = within("executed", flow2.execute, "source")
            assert (str(state.status), reading.seen) == ("paused", {})
            within("resumed", flow2.resume, state)
            assert within("waiting", state.wait)
    assert reading.seen == {"plain": {"resumed"}, "coroutine": {"resumed"}}


@MODES
def test_retries_see_them_too(options):
    seen = []

    def plain(step, data):
        seen.append(VARIABLE.get())
        if step.get_execution_context().attempt < 3:
            raise OSError("again")

    async def coroutine(step, data):
        plain(step, data)

    with Flow("retrying", engine=Engine(), **options) as flow:
        flow.set_error_handler(ErrorHandler("retry", retry_delay=0.001))
        flow.add_routine(Source([1]), "source")
        flow.add_routine(Step(plain), "plain")
        flow.add_routine(AsyncStep(coroutine), "coroutine")
        flow.connect("source", "output", "plain", "input")
        flow.connect("source", "output", "coroutine", "input")
        within("caller", flow.execute, "source").raise_for_status()
    assert seen == ["caller"] * 6


@MODES
def test_what_a_handler_sets_does_not_reach_the_caller_or_other_coroutines(options):
    seen = []

    def plain(step, data):
        VARIABLE.set("plain")
        step.emit("output", data=data)

    async def coroutine(step, data):
        seen.append(VARIABLE.get())
        VARIABLE.set(f"coroutine {data}")
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())

    with chain(Source(range(3)), Step(plain), AsyncStep(coroutine), engine=Engine(), **options) as flow:
        assert within("caller", lambda: (flow.execute("r0"), VARIABLE.get())[1]) == "caller"
        assert VARIABLE.get() == "unset"
        assert within("waiting", lambda: (flow.start("r0").wait(), VARIABLE.get())[1]) == "waiting"
    expected = [value for data in range(3) for value in ("caller", f"coroutine {data}")]
    assert seen == expected + [value.replace("caller", "waiting") for value in expected]


@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_two_jobs_with_different_values_at_once(kind):
    barrier = threading.Barrier(2)
    seen = {}

    def plain(step, data):
        barrier.wait(LONG)
        seen.setdefault(data, []).append(VARIABLE.get())

    async def coroutine(step, data):
        await asyncio.to_thread(barrier.wait, LONG)
        seen.setdefault(data, []).append(VARIABLE.get())

    step = kind(plain if kind is Step else coroutine)
    with chain(step, engine=Engine(), execution_strategy="concurrent", max_workers=4) as flow:
        states = [within(f"value {name}", flow.start, "r0", {"data": name}) for name in "ab"]
        assert all(state.wait(LONG) for state in states)
    assert seen == {"a": ["value a"], "b": ["value b"]}


def test_a_handlers_variables_reach_the_jobs_that_it_starts():
    seen = []

    def inner_step(step):
        seen.append(VARIABLE.get())

    async def inner_coroutine(step):
        seen.append(VARIABLE.get())

    engine = Engine()
    with chain(Step(inner_step), engine=engine) as plains, chain(AsyncStep(inner_coroutine), engine=engine) as others:

        def plain(step):
            VARIABLE.set("from plain")
            plains.execute("r0")
            others.execute("r0")

        async def coroutine(step):
            VARIABLE.set("from coroutine")
            await plains.aexecute("r0")
            await others.aexecute("r0")

        for routine in (Step(plain), AsyncStep(coroutine)):
            with chain(routine, engine=engine) as flow:
                flow.execute("r0").raise_for_status()
    assert seen == ["from plain"] * 2 + ["from coroutine"] * 2


def test_a_given_up_handler_does_not_keep_them_from_the_next():
    release, seen = Signal(), []

    def handler(step, data):
        seen.append(VARIABLE.get())
        if data == 1:
            release.wait()

    with chain(Source([1, 2]), Step(handler, timeout=0.02), engine=Engine()) as flow:
        flow.set_error_handler(ErrorHandler("continue"))
        within("caller", flow.execute, "r0")
        release.set()
    assert seen == ["caller", "caller"]
