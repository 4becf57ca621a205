"""L1, L2, L5, E4, S7: pausing, going on, taking up failed jobs of coroutine handlers, and leaving them."""

from __future__ import annotations

import asyncio
import threading

import pytest
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain, forever

from routilux import Engine, Flow, StatusError, open_store

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def context_of(step):
    return step.get_execution_context()


def statuses(state, routine_id):
    return [record.status for record in state.get_execution_history(routine_id)]


@MODES
def test_l2_pause_lets_the_coroutines_that_run_finish_and_starts_no_more(options):
    began, release, ended = Meeting(3), Signal(), []

    async def handler(step, data):
        if data < 3:
            await began.come()
            await release
        ended.append(data)
        step.emit("output", data=data)

    sink = Sink()
    with chain(Source(range(10)), AsyncStep(handler, concurrency=3), sink, engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert began.full.wait()
        flow.pause(state, "for a look")
        assert str(state.status) == "paused"
        release.set()
        assert not state.wait()
        assert (sorted(ended), sink.got, state.pending_count) == ([0, 1, 2], [], 10)
        flow.resume(state)
        assert state.wait()
        assert str(state.status) == "completed"
        assert sorted(sink.got) == sorted(ended) == list(range(10))
        assert at_rest(state)


@MODES
def test_l2_resume_while_coroutines_still_run(options):
    began, release = Meeting(2), Signal()
    handled = []

    async def handler(step, data):
        if data < 2:
            await began.come()
            await release
        handled.append(data)

    with chain(Source(range(20)), AsyncStep(handler, concurrency=2), engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert began.full.wait()
        for _ in range(5):
            flow.pause(state)
            flow.resume(state)
        release.set()
        assert state.wait(LONG)
        assert (str(state.status), sorted(handled)) == ("completed", list(range(20)))
        assert at_rest(state)


@MODES
def test_e4_a_job_that_failed_in_a_coroutine_goes_on_where_it_was(options):
    broken, handled = [True], []

    async def handler(step, data):
        await asyncio.sleep(0)
        if data == 2 and broken:
            raise ValueError("no")
        handled.append(data)

    with chain(Source(range(5)), AsyncStep(handler), engine=Engine(), **options) as flow:
        state = flow.execute("r0")
        assert (str(state.status), handled) == ("failed", [0, 1])
        broken.clear()
        flow.resume(state)
        assert state.wait()
        assert (str(state.status), handled) == ("completed", [0, 1, 2, 3, 4])
        assert at_rest(state)


def test_e4_resume_waits_for_coroutines_that_still_run():
    began, release = Signal(), Signal()

    async def slow(step, data):
        began.set()
        await release

    async def bad(step, data):
        await began
        raise ValueError("no")

    with Flow("two", engine=Engine()) as flow:
        flow.add_routine(Source([1]), "source")
        for name, handler in (("slow", slow), ("bad", bad)):
            flow.add_routine(AsyncStep(handler), name)
            flow.connect("source", "output", name, "input")
        state = flow.start("source")
        while not state.status.ended:
            pass
        with pytest.raises(StatusError, match="still run"):
            flow.resume(state)
        release.set()
        assert state.wait(LONG)
        assert statuses(state, "slow") == ["completed"]


@pytest.mark.parametrize("store", [None, "memory:"], ids=["in memory", "durable"])
def test_l1_e4_a_paused_job_fails_when_an_interrupt_takes_a_coroutine_of_it_which_runs_again(store):
    began, sink = [Signal(), Signal()], Sink()

    async def handler(step):
        first = not began[0].is_set()
        began[not first].set()
        if first:
            await forever()
        step.emit("output", data="went on")

    engine = Engine(store=None if store is None else open_store(store))
    with engine, chain(AsyncStep(handler), sink, engine=engine) as flow:
        state = flow.start("r0")
        assert began[0].wait()
        flow.pause(state)
        state._job.interrupted(KeyboardInterrupt())  # as `execute` does
        assert (str(state.status), state.failure.type) == ("failed", "KeyboardInterrupt")
        assert store is None or [head.status for head in engine.jobs()] == ["failed"]
        flow.resume(state)
        assert state.wait(LONG)
        assert (str(state.status), sink.got) == ("completed", ["went on"])


@pytest.mark.parametrize("store", [None, "memory:"], ids=["in memory", "durable"])
def test_l1_a_paused_job_stays_paused_when_an_interrupt_takes_nothing_from_it(store):
    began, release, sink = Signal(), Signal(), Sink()

    def handler(step):
        began.set()
        release.wait()
        step.emit("output", data="went on")

    engine = Engine(store=None if store is None else open_store(store))
    with engine, chain(Step(handler), sink, engine=engine) as flow:
        state = flow.start("r0")
        assert began.wait()
        flow.pause(state)
        state._job.interrupted(KeyboardInterrupt())
        release.set()
        assert not state.wait(LONG)
        assert (str(state.status), state.pending_count) == ("paused", 1)
        flow.resume(state)
        assert state.wait(LONG)
        assert (str(state.status), sink.got) == ("completed", ["went on"])


@pytest.mark.parametrize("paused", [False, True])
def test_d6_a_coroutine_that_cancels_its_own_wait_goes_on_when_it_has_a_turn(paused):
    seen, given, waits = [], [], Signal()

    async def patient(step, data):
        task = asyncio.current_task()
        if data == 1:
            given.append(task)
            asyncio.get_running_loop().call_soon(waits.set)
            try:
                await context_of(step).step.wait_for_event("w", "never")
            except asyncio.CancelledError:
                seen.append("gave up")
        seen.append(data)
        step.emit("output", data=data)

    flow = chain(Source([1, 2]), AsyncStep(patient), sink := Sink())
    state = flow.start("r0")
    assert waits.wait(LONG)
    while state.status != "waiting":
        threading.Event().wait(0.001)
    if paused:
        flow.pause(state)
    given[0].get_loop().call_soon_threadsafe(given[0].cancel)
    if paused:
        turned = Signal()
        given[0].get_loop().call_soon_threadsafe(lambda: given[0].get_loop().call_soon(turned.set))
        assert turned.wait(LONG)
        assert seen == [2]
        flow.resume(state)
    assert state.wait(timeout=LONG)
    assert (str(state.status), seen, sink.got) == ("completed", [2, "gave up", 1], [2, 1])
    flow.shutdown()


def test_l2_deferred_events_of_coroutines_leave_when_the_job_is_resumed():
    sink = Sink()

    async def handler(step):
        step.emit_deferred_event("output", data="deferred")
        await asyncio.sleep(0)
        step.emit("output", data="at once")

    with chain(AsyncStep(handler), sink, engine=Engine()) as flow:
        state = flow.execute("r0")
        assert (str(state.status), sink.got) == ("paused", ["at once"])
        flow.resume(state)
        assert state.wait()
    assert (str(state.status), sink.got) == ("completed", ["at once", "deferred"])


def test_l5_state_is_carried_into_the_next_job():
    async def handler(step):
        async with context_of(step).store.edit_state() as state:
            state["count"] = state.get("count", 0) + 1

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        state = None
        for _ in range(3):
            state = flow.execute("r0", job_state=state)
        assert state.get_shared_data("count") == 3


# --- S7: the end of the flow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["paused", "failed"])
def test_d6_s7_shutdown_does_not_wait_for_what_a_coroutine_of_a_paused_or_failed_job_waits_for(status):
    left = Signal()

    async def nap(step, data):
        try:
            await context_of(step).step.wait_for("nap", days=1)
        finally:
            left.set()

    def stop(step, data):
        state = context_of(step).job_state
        while not state._record.waiting:
            pass
        if status == "failed":
            raise ValueError("no")
        flow.pause(state)

    flow = Flow("napping", engine=Engine())
    flow.add_routine(Source([1]), "source")
    flow.add_routine(AsyncStep(nap), "napper")
    flow.add_routine(Step(stop), "stopper")
    for target in ("napper", "stopper"):
        flow.connect("source", "output", target, "input")
    state = flow.execute("source")
    assert str(state.status) == status
    closing = threading.Thread(target=flow.shutdown, daemon=True)
    closing.start()
    closing.join(LONG)
    assert not closing.is_alive()
    assert left.wait()
    assert str(state.status) == status


def test_d6_shutdown_waits_for_a_job_in_memory_that_waits_for_a_time():
    sink = Sink()

    async def nap(step):
        await context_of(step).step.wait_for("nap", seconds=0.01)
        step.emit("output", data="rested")

    with chain(AsyncStep(nap), sink, engine=Engine()) as flow:
        state = flow.start("r0")
    assert (str(state.status), sink.got) == ("completed", ["rested"])
