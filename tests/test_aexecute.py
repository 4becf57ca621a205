"""D9, L2, L3, L5: awaiting a job from any event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from parts import AsyncStep, Signal, Sink, Source, Step, at_rest, chain, forever, threads_besides

from routilux import DeclarationError, Engine, ExecutionError, StatusError
from routilux.runtime.event_loop import LoopBell

LONG = 20.0
SHORT = 0.02
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def context_of(step):
    return step.get_execution_context()


def job_of(step):
    return step.get_execution_context().job_state


@MODES
def test_d9_aexecute_returns_the_state_of_the_job_that_has_ended(options):
    sink, threads = Sink(), set()

    async def handler(step, data):
        threads.add(threading.current_thread().name)
        await asyncio.sleep(0)
        step.emit("output", data=data)

    async def main():
        return await flow.aexecute("r0", {"items": [1, 2, 3]}, job_id="mine", session_id="s", user_id="u")

    before = threading.enumerate()
    with chain(Source(), AsyncStep(handler), sink, engine=Engine(), **options) as flow:
        state = asyncio.run(main())
    assert (str(state.status), state.job_id, state.session_id, state.user_id) == ("completed", "mine", "s", "u")
    assert (sink.got, threads) == ([1, 2, 3], {"routilux-loop"})
    assert at_rest(state)
    assert not threads_besides(before)


@MODES
@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_d9_the_callers_loop_goes_on_meanwhile_and_runs_no_handler(options, kind):
    release, threads = Signal(), []

    def plain(step):
        threads.append(threading.current_thread())
        assert release.wait()

    async def coroutine(step):
        threads.append(threading.current_thread())
        await release

    async def main():
        job = asyncio.ensure_future(flow.aexecute("r0"))
        while not threads:
            await asyncio.sleep(0)
        assert not job.done()
        release.set()
        return await job

    with chain(kind(plain if kind is Step else coroutine), engine=Engine(), **options) as flow:
        assert str(asyncio.run(main()).status) == "completed"
    assert threads[0] is not threading.current_thread()


@MODES
def test_d9_many_jobs_can_be_awaited_at_once(options):
    async def handler(step, data):
        await asyncio.sleep(0)
        context_of(step).finish(data)

    def plain(step, data):
        context_of(step).finish(data)

    async def main():
        jobs = [flow.aexecute("r0", {"data": number}) for flow in (coroutines, plains) for number in range(50)]
        return [state.result for state in await asyncio.gather(*jobs)]

    engine = Engine()
    with (
        chain(AsyncStep(handler), engine=engine, **options) as coroutines,
        chain(Step(plain), engine=engine, **options) as plains,
    ):
        assert asyncio.run(main()) == [*range(50), *range(50)]


def test_d9_jobs_can_be_awaited_on_several_loops_at_once():
    meeting = threading.Barrier(3)
    results = []

    async def handler(step, data):
        await asyncio.to_thread(meeting.wait, LONG)
        context_of(step).finish(data)

    async def main(number):
        results.append((await flow.aexecute("r0", {"data": number})).result)

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        threads = [threading.Thread(target=asyncio.run, args=(main(number),)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [0, 1, 2]


@MODES
def test_l3_a_timeout_fails_the_job_and_cancels_its_coroutines(options):
    cancelled = Signal()

    async def handler(step):
        try:
            await forever()
        finally:
            cancelled.set()

    async def main():
        state = await flow.aexecute("r0", timeout=SHORT)
        await cancelled
        return state

    with chain(AsyncStep(handler), engine=Engine(), **options) as flow:
        state = asyncio.run(main())
    assert (str(state.status), state.error.type) == ("failed", "JobTimeoutError")


@pytest.mark.parametrize("how", ["wait_for", "cancel"])
@pytest.mark.parametrize("kind", [Step, AsyncStep])
def test_l2_cancelling_the_task_that_awaits_it_cancels_the_job(how, kind):
    began, ended, states = Signal(), Signal(), []

    def plain(step):
        states.append(job_of(step))
        began.set()
        while not context_of(step).cancelled:
            pass
        ended.set()

    async def coroutine(step):
        states.append(job_of(step))
        began.set()
        try:
            await forever()
        finally:
            ended.set()

    async def main():
        task = asyncio.ensure_future(flow.aexecute("r0"))
        await began
        if how == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, SHORT)
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await ended

    with chain(kind(plain if kind is Step else coroutine), engine=Engine()) as flow:
        asyncio.run(main())
        (state,) = states
        assert state.wait(LONG)
        assert str(state.status) == "cancelled"
        assert "the task that awaited it was cancelled" in state.summary()
        assert flow._jobs.running() == []


def test_l3_a_job_that_pauses_just_when_its_time_is_up_stays_paused(monkeypatch):
    began, release = Signal(), Signal()

    def handler(step):
        flow.pause(step.get_execution_context().job_state)
        began.set()
        release.wait()

    async def time_is_up(bell, timeout=None):
        job = flow._jobs.running()[0]
        await began
        release.set()
        while not job.at_rest:
            await asyncio.sleep(0)
        return False

    monkeypatch.setattr(LoopBell, "wait", time_is_up)
    with chain(Step(handler), engine=Engine()) as flow:
        state = asyncio.run(flow.aexecute("r0", timeout=LONG))
        assert (str(state.status), state.errors) == ("paused", [])
        flow.cancel(state)


def test_d9_wrong_arguments_raise_before_anything_starts():
    async def main():
        for error, arguments in (
            (DeclarationError, {"entry_id": "unknown"}),
            (DeclarationError, {"entry_id": "r0", "slot": "unknown"}),
            (DeclarationError, {"entry_id": "r0", "timeout": -1}),
            (ExecutionError, {"entry_id": "r0", "entry_params": [1]}),
            (ExecutionError, {"entry_id": "r0", "job_id": ""}),
            (ExecutionError, {"entry_id": "r0", "job_state": "previous"}),
        ):
            with pytest.raises(error):
                await flow.aexecute(**arguments)
            assert flow._jobs.running() == []

    before = threading.enumerate()
    with chain(AsyncStep(forever), engine=Engine()) as flow:
        asyncio.run(main())
        assert not threads_besides(before)


def test_d9_outside_of_an_event_loop_it_raises_and_leaves_no_job():
    with chain(Sink(), engine=Engine()) as flow:
        waiting = flow.aexecute("r0")
        with pytest.raises(RuntimeError, match="no running event loop"):
            waiting.send(None)
        assert flow._jobs.running() == []


@MODES
def test_l5_a_paused_job_goes_on_and_an_ended_one_hands_its_state_down(options):
    paused = []

    async def handler(step, data):
        job = job_of(step)
        async with context_of(step).store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1
        if data == 1 and not paused:
            paused.append(1)
            flow.pause(job)

    async def main():
        first = await flow.aexecute("r0", {"items": [0, 1, 2, 3]})
        assert (str(first.status), first.get_shared_data("count")) == ("paused", 2)
        with pytest.raises(StatusError):
            await flow.aexecute("r0", {"items": []}, job_state=first)
        assert await flow.aexecute("r0", job_state=first) == first
        assert (str(first.status), first.get_shared_data("count")) == ("completed", 4)
        second = await flow.aexecute("r0", {"items": [5]}, job_state=first)
        assert second != first
        assert (second.get_shared_data("count"), first.get_shared_data("count")) == (5, 4)

    with chain(Source(), AsyncStep(handler), engine=Engine(), **options) as flow:
        asyncio.run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_e3_what_stops_the_process_is_raised_where_the_job_is_awaited(kind):
    caught = []

    async def handler(step, stop):
        if stop:
            raise kind("stop")

    async def main():
        try:
            await flow.aexecute("r0", {"stop": True})
        except kind as error:
            caught.append(str(error))
        assert str((await flow.aexecute("r0", {"stop": False})).status) == "completed"

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        asyncio.run(main())
    assert caught == ["stop"]


def test_d5_a_job_awaited_on_a_loop_of_a_workers_own_finds_a_worker():
    engine, results = Engine(), []
    inner = chain(Sink(), engine=engine, max_workers=1)

    def plain(step):
        results.append(str(asyncio.run(inner.aexecute("r0")).status))

    with inner, chain(Step(plain), engine=engine, max_workers=1) as outer:
        assert outer.start("r0").wait(LONG)
    assert results == ["completed"]


def test_d9_the_event_loop_of_the_engine_can_await_jobs_too():
    async def inner_step(step, data):
        await asyncio.sleep(0)
        if data:
            await flow.aexecute("r0", {"data": data - 1})
        depths.append(data)

    depths = []
    with chain(AsyncStep(inner_step), engine=Engine()) as flow:
        assert str(flow.execute("r0", {"data": 20}).status) == "completed"
    assert depths == list(range(21))
