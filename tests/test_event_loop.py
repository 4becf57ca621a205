"""D5, D6, D9, D10, T, E: the event loop and its thread, nested jobs, commits and errors of coroutine handlers."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain, forever, threads_besides

from routilux import ContextError, Engine, ErrorHandler, Flow

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def context_of(step):
    return step.get_execution_context()


def job_of(step):
    return step.get_execution_context().job_state


def settle(engine):
    """Let the event loop end what it does now: the last step of a task, after its job has come to rest."""
    settled = Signal()
    engine._event_loop.call(settled.set)
    assert settled.wait()


def loop_threads(before):
    return [thread for thread in threads_besides(before) if thread.name == "routilux-loop"]


# --- D5: threads ----------------------------------------------------------------------------------------------------


def test_d5_all_coroutine_handlers_run_on_one_thread_of_their_own():
    threads = set()

    async def handler(step, data):
        threads.add(threading.current_thread())
        await asyncio.sleep(0)
        threads.add(threading.current_thread())

    engine = Engine()
    with chain(Source(range(20)), AsyncStep(handler), AsyncStep(handler), engine=engine) as flow:
        flow.execute("r0")
        flow.start("r0").wait(LONG)
        with chain(Source(range(20)), AsyncStep(handler, concurrency=5), engine=engine) as other:
            other.execute("r0")
    assert [thread.name for thread in threads] == ["routilux-loop"]
    assert threads.isdisjoint({threading.main_thread()})


def test_d5_the_thread_ends_with_the_last_flow_and_a_later_flow_gets_a_new_one():
    before, engine = threading.enumerate(), Engine()

    async def handler(step):
        await asyncio.sleep(0)

    first, second = chain(AsyncStep(handler), engine=engine), chain(AsyncStep(handler), engine=engine)
    first.execute("r0")
    second.execute("r0")
    (thread,) = loop_threads(before)
    first.shutdown()
    assert loop_threads(before) == [thread]
    second.shutdown()
    assert not thread.is_alive()
    assert not threads_besides(before)
    with chain(AsyncStep(handler), engine=engine) as third:
        assert str(third.execute("r0").status) == "completed"
        assert loop_threads(before) != [thread]
    assert not threads_besides(before)


def test_d5_the_thread_ends_when_the_flow_is_only_garbage_collected():
    before, engine = threading.enumerate(), Engine()

    async def handler(step, data):
        await asyncio.sleep(0)

    flow = chain(Source([1]), AsyncStep(handler), engine=engine)
    flow.execute("r0")
    (thread,) = loop_threads(before)
    settle(engine)
    del flow
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


def test_d5_a_coroutine_that_waits_is_not_garbage_though_nobody_else_knows_what_it_waits_for():
    began, done, events = Signal(), Signal(), []

    async def handler(step):
        event = asyncio.Event()
        events.append((asyncio.get_running_loop(), weakref.ref(event)))
        began.set()
        await event.wait()
        done.set()

    flow = chain(AsyncStep(handler), engine=Engine())
    flow.start("r0")
    assert began.wait()
    del flow
    gc.collect()
    loop, event = events[0]
    loop.call_soon_threadsafe(lambda: event().set())
    assert done.wait()


def test_d5_flows_without_coroutines_have_no_event_loop():
    before = threading.enumerate()
    with chain(Source([1]), Sink(), engine=Engine(), execution_strategy="concurrent") as flow:
        flow.execute("r0")
        assert loop_threads(before) == []


@MODES
def test_d5_a_plain_handler_that_waits_for_a_coroutine_does_not_hold_it_up(options):
    signal = Signal()

    async def coroutine(step, data):
        await asyncio.sleep(0)
        signal.set()

    with Flow("across", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1]), "source")
        flow.add_routine(Step(lambda step, data: signal.wait()), "plain")
        flow.add_routine(AsyncStep(coroutine), "coroutine")
        flow.connect("source", "output", "plain", "input")
        flow.connect("source", "output", "coroutine", "input")
        assert str(flow.execute("source", timeout=LONG).status) == "completed"


@MODES
def test_d5_a_coroutine_that_waits_for_a_plain_handler_does_not_hold_it_up(options):
    signal = Signal()

    async def coroutine(step, data):
        await signal

    with Flow("across", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1]), "source")
        flow.add_routine(AsyncStep(coroutine), "coroutine")
        flow.add_routine(Step(lambda step, data: signal.set()), "plain")
        flow.connect("source", "output", "coroutine", "input")
        flow.connect("source", "output", "plain", "input")
        assert str(flow.execute("source").status) == "completed"


def test_d5_coroutines_do_not_count_as_workers():
    meeting = Meeting(20)

    async def handler(step, data):
        await meeting.come()

    options = {"execution_strategy": "concurrent", "max_workers": 1, "engine": Engine()}
    with chain(Source(range(20)), AsyncStep(handler, concurrency=20), **options) as flow:
        assert str(flow.execute("r0").status) == "completed"


# --- D6, D9: execute, start, wait, nested jobs ----------------------------------------------------------------------


@MODES
def test_d9_execute_returns_when_all_coroutines_have_ended(options):
    ended = []

    async def handler(step, data):
        for _ in range(3):
            await asyncio.sleep(0)
        ended.append(data)

    with chain(Source(range(10)), AsyncStep(handler, concurrency=10), engine=Engine(), **options) as flow:
        state = flow.execute("r0")
        assert sorted(ended) == list(range(10))
        assert str(state.status) == "completed"
        assert len(state.get_execution_history("r1")) == 10


def test_d9_an_entry_that_is_a_coroutine_needs_no_worker():
    before = threading.enumerate()
    release = Signal()

    async def handler(step):
        await release

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        state = flow.start("r0")
        assert not state.wait(0.001)
        assert [thread.name for thread in threads_besides(before)] == ["routilux-loop"]
        release.set()
        assert state.wait(LONG)
        assert flow.wait_for_completion()
    assert not threads_besides(before)


@MODES
def test_d9_a_coroutine_can_await_jobs_of_other_flows(options):
    results = []

    async def inner_step(step, data):
        await asyncio.sleep(0)
        context_of(step).finish(data * 2)

    engine = Engine()
    with chain(AsyncStep(inner_step), engine=engine, **options) as inner:

        async def outer_step(step, data):
            results.append((await inner.aexecute("r0", {"data": data})).result)
            step.emit("output", data=data)

        with chain(Source(range(5)), AsyncStep(outer_step, concurrency=5), Sink(), engine=engine, **options) as outer:
            state = outer.execute("r0")
    state.raise_for_status()
    assert sorted(results) == [0, 2, 4, 6, 8]


@MODES
def test_d9_a_plain_handler_can_execute_a_flow_of_coroutines_while_coroutines_run(options):
    inside, over = Signal(), Signal()

    async def inner_step(step):
        await asyncio.sleep(0)
        context_of(step).finish("inner")

    async def beside(step, data):
        inside.set()
        await over

    engine, results = Engine(), []
    inner = chain(AsyncStep(inner_step), engine=engine, **options)

    def plain(step, data):
        assert inside.wait()
        results.append(inner.execute("r0").result)
        over.set()

    with inner, Flow("outer", engine=engine, **options) as outer:
        outer.add_routine(Source([1]), "source")
        outer.add_routine(AsyncStep(beside), "beside")
        outer.add_routine(Step(plain), "plain")
        outer.connect("source", "output", "beside", "input")
        outer.connect("source", "output", "plain", "input")
        outer.execute("source").raise_for_status()
    assert results == ["inner"]


@pytest.mark.parametrize("same_engine", [True, False], ids=["same engine", "another engine"])
def test_d9_what_blocks_is_refused_on_the_event_loop_and_leaves_nothing_behind(same_engine):
    engine = Engine()
    inner = chain(Sink(), engine=engine if same_engine else Engine())
    errors = []

    async def handler(step):
        state = inner.start("r0")
        while not state.status.ended:
            await asyncio.sleep(0)
        for blocking in (
            lambda: inner.execute("r0", job_id="one"),
            lambda: state.wait(),
            lambda: state.wait(1.0),
            lambda: inner.wait_for_completion(1.0, state),
            lambda: inner.shutdown(),
            lambda: step.get_execution_context().job_state.wait(),
        ):
            with pytest.raises(ContextError) as caught:
                blocking()
            errors.append(str(caught.value))
        assert inner._jobs.running() == []

    with inner, chain(AsyncStep(handler), engine=engine) as flow:
        flow.execute("r0").raise_for_status()
        assert str(inner.execute("r0", job_id="one").status) == "completed"
    assert len(errors) == 6
    assert "aexecute" in errors[0]


@MODES
def test_d9_going_on_with_its_own_job_and_waiting_for_it_is_refused_in_a_handler(options):
    def plain(step):
        flow.pause(job_of(step))
        with pytest.raises(ContextError, match="wait for itself"):
            flow.execute("r0", job_state=job_of(step))

    async def coroutine(step):
        flow.pause(job_of(step))
        with pytest.raises(ContextError, match="wait for itself"):
            await flow.aexecute("r0", job_state=job_of(step))

    for routine in (Step(plain), AsyncStep(coroutine)):
        with chain(routine, engine=Engine(), **options) as flow:
            state = flow.execute("r0")
            assert (str(state.status), state.errors) == ("paused", [])
            flow.cancel(state)


# --- D10: what is kept ----------------------------------------------------------------------------------------------


def test_d10_an_activation_that_is_over_is_freed_without_the_garbage_collector():
    class Payload:
        pass

    payloads = []

    async def handler(step, data):
        payloads.append(weakref.ref(data))
        await asyncio.sleep(0)

    with chain(Source(), AsyncStep(handler, timeout=LONG), engine=Engine()) as flow:
        gc.collect()
        gc.disable()
        try:
            items = [Payload() for _ in range(5)]
            state = flow.execute("r0", {"items": items})
            job = weakref.ref(state._job)
            del items, state
            flow.execute("r0", {"items": []})
            settle(flow.engine)
            assert [payload() for payload in payloads] == [None] * 5
            assert job() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_d10_a_job_that_a_handler_starts_does_not_keep_the_handlers_job(kind):
    jobs, done = [], Signal()

    def again(step, data):
        jobs.append(weakref.ref(job_of(step)._job))
        if data:
            flow.start("r0", {"data": data - 1})
        else:
            gc.collect()
            alive.extend(job() is not None for job in jobs)
            done.set()

    async def again_async(step, data):
        again(step, data)

    alive = []
    with chain(kind(again if kind is Step else again_async), engine=Engine()) as flow:
        flow.start("r0", {"data": 30})
        assert done.wait()
    assert sum(alive) < 5


# --- T --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["stop", "continue"])
def test_t2_emissions_leave_at_once(strategy):
    arrived = Signal()

    async def handler(step):
        step.emit("output", data=1)
        await arrived

    step = AsyncStep(handler)
    step.set_error_handler(ErrorHandler(strategy))
    with chain(step, Step(lambda step, data: arrived.set()), engine=Engine()) as flow:
        assert str(flow.execute("r0").status) == "completed"


@pytest.mark.parametrize("strategy", ["retry", "skip"])
def test_t2_emissions_are_held_until_the_attempt_has_succeeded(strategy):
    sink, during = Sink(), []

    async def handler(step):
        step.emit("output", data=context_of(step).attempt)
        for _ in range(10):
            await asyncio.sleep(0)
        await context_of(step).flush()
        during.append((len(sink.got), job_of(step).pending_count))
        if context_of(step).attempt == 1 and strategy == "retry":
            raise OSError("again")

    step = AsyncStep(handler)
    step.set_error_handler(ErrorHandler(strategy, retry_delay=0.0))
    with chain(step, sink, engine=Engine()) as flow:
        flow.execute("r0").raise_for_status()
    assert sink.got == ([2] if strategy == "retry" else [1])
    assert set(during) == {(0, 1)}


def test_t2_in_place_changes_of_the_state_are_committed_at_the_end():
    seen = []

    async def handler(step):
        context_of(step).state["items"].append(1)
        seen.append(await asyncio.to_thread(job_of(step).get_shared_data, "items"))
        await asyncio.sleep(0)
        context_of(step).state["items"].append(2)

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        state = flow.execute("r0", initial_state={"items": []})
    assert seen == [[]]
    assert state.get_shared_data("items") == [1, 2]


def test_t3_a_coroutine_that_raises_keeps_its_writes_and_under_stop_not_its_emissions():
    arrived = []

    async def handler(step):
        job_of(step).update_routine_state("r0", {"count": 1})
        job_of(step).append_to_shared_log({"entry": 1})
        context_of(step).state["items"].append(1)
        step.emit("output", data=1)
        raise ValueError("no")

    async def target(step, data):
        arrived.append(data)

    with chain(AsyncStep(handler), AsyncStep(target), engine=Engine()) as flow:
        state = flow.execute("r0", initial_state={"items": []})
    assert (str(state.status), arrived, state.pending_count) == ("failed", [], 0)
    assert state.get_routine_state("r0") == {"count": 1}
    assert len(state.get_shared_log()) == 1
    assert state.get_shared_data("items") == [1]


# --- E --------------------------------------------------------------------------------------------------------------


async def failing(step, data):
    await asyncio.sleep(0)
    step.emit("output", data=data)
    if data == 2:
        raise ValueError("two")


@MODES
@pytest.mark.parametrize(
    ("handler", "status", "statuses", "arrived"),
    [
        (ErrorHandler("stop"), "failed", ["completed", "failed"], None),
        (ErrorHandler("continue"), "completed", ["completed", "failed", "completed"], [1, 2, 3]),
        (ErrorHandler("skip"), "completed", ["completed", "skipped", "completed"], [1, 3]),
        (ErrorHandler("retry", max_retries=2, retry_delay=0.0), "failed", ["completed", "failed"], None),
    ],
    ids=["stop", "continue", "skip", "retry"],
)
@pytest.mark.parametrize("level", ["routine", "flow"])
def test_e1_e2_every_strategy_covers_coroutine_handlers(options, handler, status, statuses, arrived, level):
    sink, step = Sink(), AsyncStep(failing)
    with chain(Source([1, 2, 3]), step, sink, engine=Engine(), **options) as flow:
        (step if level == "routine" else flow).set_error_handler(handler)
        state = flow.execute("r0")
        assert str(state.status) == status
        assert [each.status for each in state.get_execution_history("r1")] == statuses
        assert (state.error.type, state.error.message) == ("ValueError", "two")
        assert (state.error.routine_id, state.error.slot) == ("r1", "input")
        assert "in failing" in state.error.traceback
        if arrived is not None:
            assert sink.got == arrived
            assert at_rest(state)
        else:
            with pytest.raises(ValueError, match="two"):
                state.raise_for_status()


@MODES
def test_e2_under_stop_running_coroutines_finish_and_commit_and_nothing_starts(options):
    sink, both = Sink(), Meeting(2)

    async def bad(step, data):
        await both.come()
        raise ValueError("no")

    async def good(step, data):
        if data == 2:
            sink.got.append("started")
            return
        await both.come()
        while str(job_of(step).status) == "running":
            await asyncio.sleep(0)
        job_of(step).update_shared_data("kept", 1)

    with Flow("stopping", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1, 2]), "source")
        for name, handler in (("bad", bad), ("good", good)):
            flow.add_routine(AsyncStep(handler), name)
            flow.connect("source", "output", name, "input")
        state = flow.execute("source")
        assert (str(state.status), state.get_shared_data("kept"), sink.got) == ("failed", 1, [])
        assert [each.status for each in state.get_execution_history("good")] == ["completed"]


@MODES
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_e3_what_stops_the_process_is_recorded_and_raised_again_and_other_jobs_go_on(options, kind):
    began, release = Signal(), Signal()

    async def handler(step, stop):
        if stop:
            raise kind("stop")
        began.set()
        await release

    with chain(AsyncStep(handler), engine=Engine(), **options) as flow:
        other = flow.start("r0", {"stop": False})
        assert began.wait()
        with pytest.raises(kind, match="stop"):
            flow.execute("r0", {"stop": True}, job_id="stopped")
        release.set()
        assert other.wait(LONG)
        assert str(other.status) == "completed"
        assert flow._jobs.running() == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_e3_in_a_task_that_a_handler_awaits_too(kind):
    async def child():
        raise kind("stop")

    async def handler(step, stop):
        if stop:
            await asyncio.create_task(child())

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        with pytest.raises(kind, match="stop"):
            flow.execute("r0", {"stop": True})
        assert str(flow.execute("r0", {"stop": False}).status) == "completed"


def test_e2_a_cancelled_error_of_the_handlers_own_is_an_error_of_its_activation():
    async def handler(step, how):
        if how == "raise":
            raise asyncio.CancelledError("mine")
        if how == "cancel":
            asyncio.current_task().cancel()
            await asyncio.sleep(0)
        if how == "task":
            task = asyncio.create_task(forever())
            task.cancel()
            await task

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        for how in ("raise", "cancel", "task"):
            state = flow.execute("r0", {"how": how})
            assert (str(state.status), state.error.type) == ("failed", "CancelledError")
            assert state.get_execution_history()[0].status == "failed"
        assert str(flow.execute("r0", {"how": ""}).status) == "completed"
