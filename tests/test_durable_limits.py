"""S5, J1, J6: what many commits take on disk, and many waiting jobs in memory."""

from __future__ import annotations

import gc
import time
import tracemalloc
from typing import Any

from parts import Source, Step, chain
from test_durable_engine import Lasting, handled

from routilux import Clock, Engine, open_store
from routilux.store.memory import MemoryStore

LONG = 20.0
WAITING, MEASURED = 2_000, 250
MOST_PER_JOB = 6_000  # bytes


def test_s5_a_state_of_50_kb_changed_4000_times_stays_small_and_is_read_at_once(tmp_path):
    path = tmp_path / "jobs.db"
    changes, largest = 4_000, [0]

    def change(step: Step, data: int) -> None:
        ctx = step.get_execution_context()
        if data == 0:
            ctx.store.set("big", "x" * 50_000)
        with ctx.store.edit_state() as state:
            state["n"] = state.get("n", 0) + 1
            if data % 100 == 0:
                state["big"] = f"{data:06}" + state["big"][6:]
        if data % 200 == 0:
            largest[0] = max(largest[0], size())
        if data == changes - 1:
            ctx.step.wait_for_event("w", "go")

    def size() -> int:
        return sum(each.stat().st_size for each in tmp_path.iterdir())

    def built(engine: Engine) -> Any:
        return chain(Source(range(changes)), Step(change), engine=engine, history_limit=100)

    def opened() -> Any:
        return open_store(f"sqlite:///{path}?synchronous=NORMAL")

    with Engine(store=opened()) as engine:
        state = built(engine).execute("r0", job_id="j")
        assert (state.status, state.get_shared_data("n")) == ("waiting", changes)
        largest[0] = max(largest[0], size())
    assert largest[0] < 10_000_000
    store = opened()
    number, snapshot, entries = store.read("j")
    assert number > changes
    assert len(entries) < changes // 2
    assert len(snapshot) + sum(map(len, entries)) < 1_000_000
    store.close()
    with Engine(store=opened()) as engine:
        built(engine)
        (state,) = engine.recover()
        engine.publish("go")
        assert state.wait(LONG)
        assert (state.get_shared_data("n"), state.get_shared_data("big")[:6]) == (changes, "003900")


def test_s5_a_large_value_that_is_written_whole_every_time_stays_small_on_disk(tmp_path):
    def change(step: Step, data: int) -> None:
        step.get_execution_context().store.set("big", f"{data:06}" + "x" * 50_000)

    with Engine(store=open_store(f"sqlite:///{tmp_path / 'jobs.db'}?synchronous=NORMAL")) as engine:
        state = chain(Source(range(400)), Step(change), engine=engine).execute("r0")
        assert state.get_shared_data("big")[:6] == "000399"
        assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 10_000_000


def waited(engine: Engine, woken: list[int]) -> Any:
    def handle(ctx: Any, data: int) -> None:
        ctx.step.wait_for("w", seconds=3_600 + data)
        woken.append(data)

    return handled(handle, engine)


def asleep(engine: Engine, count: int) -> None:
    while len(engine.keeping.sleepers) < count:
        assert not engine.closing.wait(0.01)


def test_j6_waiting_jobs_take_little_memory(tmp_path):
    url = f"sqlite:///{tmp_path / 'jobs.db'}?synchronous=NORMAL"
    with Engine(store=open_store(url), durability="async") as engine:
        flow = waited(engine, [])
        for index in range(WAITING):
            if index == WAITING - MEASURED:  # tracing is slow
                asleep(engine, index)
                gc.collect()
                tracemalloc.start()
            flow.start("r", {"data": index}, job_id=f"j{index}")
        try:
            asleep(engine, WAITING)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] / MEASURED < MOST_PER_JOB
        finally:
            tracemalloc.stop()
        assert not engine.keeping.held


def test_j6_waiting_jobs_wake_in_the_order_in_which_they_are_due():
    """Their time comes for all of them at once, which is when what wakes them is asked in order."""
    woken: list[int] = []
    ahead = [0]
    clock = Clock(monotonic_ns=lambda: time.perf_counter_ns() + ahead[0], time_ns=lambda: time.time_ns() + ahead[0])
    with Engine(clock, store=Lasting(MemoryStore()), max_workers=1) as engine:
        flow = waited(engine, woken)
        for index in reversed(range(60)):
            flow.start("r", {"data": index}, job_id=f"j{index}")
        asleep(engine, 60)
        ahead[0] = 2 * 3_600 * 10**9
        engine.timers.at(0, lambda: None)  # its thread looks at the clock
        assert all(engine.get(f"j{index}").wait(LONG) for index in range(60))
    assert woken == list(range(60))
