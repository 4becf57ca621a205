"""Durable jobs beside one another: threads that commit, listeners, children, closing, a store that comes and goes."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any, ClassVar

import pytest
from crashing import Mortal
from pydantic import BaseModel, field_validator
from test_durable_life import SOON, flow_of

from routilux import ContextError, Engine, ExecutionError, Flow, Routine, StoreError, signals
from routilux.runtime import committers, jobs, sleeping
from routilux.runtime.committers import Committers
from routilux.store.memory import MemoryStore


@pytest.fixture
def engine():
    with Engine(store=MemoryStore(), store_patience=SOON) as engine:
        yield engine


class Away(MemoryStore):
    """A store whose methods of some names raise for as long as it is away."""

    def __init__(self, *names):
        super().__init__()
        self.away = threading.Event()
        self.asked = threading.Event()
        for name in names:
            setattr(self, name, self._guarded(getattr(self, name)))

    def _guarded(self, method):
        def guarded(*arguments, **options):
            if self.away.is_set():
                self.asked.set()
                raise StoreError("the database is locked")
            return method(*arguments, **options)

        return guarded


# --- threads that commit ----------------------------------------------------------------------------------------------


def test_d6_work_is_done_after_a_burst_and_a_quiet_time(monkeypatch):
    monkeypatch.setattr(committers, "PATIENCE", 0.01)
    threads, done = Committers(), threading.Semaphore(0)
    for _ in range(3):
        for _ in range(100):
            threads.submit(done.release)
        for _ in range(100):
            assert done.acquire(timeout=SOON)
        for thread in threading.enumerate():
            if thread.name == "routilux-commits":
                thread.join(SOON)
    assert threads._threads == threads._idle == 0


def test_d6_a_thread_goes_on_after_work_that_raises(monkeypatch):
    raised, done = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda details: raised.append(details.exc_type))
    monkeypatch.setattr(committers, "MOST", 1)
    threads = Committers()
    threads.submit(lambda: 1 // 0)
    threads.submit(done.set)
    assert done.wait(SOON)
    assert raised == [ZeroDivisionError]


# --- listeners --------------------------------------------------------------------------------------------------------


def test_h4_a_listener_may_ask_for_the_job_that_wakes(engine):
    seen = []
    flow = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "gate"))

    def hear(sender, **_):
        seen.append(engine.get("j").job_id)

    with (
        signals.activation_started.connected_to(hear, sender=flow),
        signals.job_resumed.connected_to(hear, sender=flow),
    ):
        state = flow.execute("r0", job_id="j")
        engine.publish("gate", job_id="j")
        assert state.wait(SOON)
    assert (state.status, seen) == ("completed", ["j", "j"])


def test_h4_a_listener_may_steer_the_job_that_it_hears_of(engine):
    flow = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "gate"))
    with signals.job_paused.connected_to(lambda sender, job_state, **_: sender.cancel(job_state), sender=flow):
        state = flow.execute("r0")
        flow.pause(state)
    assert state.status == "cancelled"


# --- children ---------------------------------------------------------------------------------------------------------


def test_j6_a_parent_hears_of_its_child_when_the_store_is_there_again(monkeypatch):
    monkeypatch.setattr(sleeping, "AGAIN", 1_000_000)
    store, go = Away("read", "heads"), threading.Event()
    with Engine(store=store, store_patience=SOON) as engine:
        child = flow_of(engine, lambda ctx, **_: ctx.finish(go.wait(SOON)), flow_id="child")
        parent = flow_of(engine, lambda ctx, **_: ctx.finish(ctx.step.invoke_and_wait("c", child)), flow_id="parent")
        parent.start("r0", job_id="p")
        while not engine.keeping.sleepers or "p" in engine.keeping.live:  # until it has to be read from the store
            threading.Event().wait(0.001)
            gc.collect()
        store.away.set()
        go.set()
        assert store.asked.wait(SOON)
        store.away.clear()
        assert engine.get("p").wait(SOON)
        assert (engine.get("p").status, engine.get("p").result) == ("completed", True)


def test_a_child_is_begun_when_the_store_is_there_again():
    store = Away("append")
    with Engine(store=store, store_patience=SOON) as engine:
        child = flow_of(engine, lambda ctx, **_: ctx.finish(3), flow_id="child")

        def begin(ctx, **_):
            answer = ctx.step.invoke_and_wait("c", child)
            ctx.finish(answer)

        real = engine.keeping.begin

        def begin_while_away(flow, *more):
            if flow is child:
                store.away.set()
                threading.Thread(target=lambda: store.asked.wait(SOON) and store.away.clear()).start()
            return real(flow, *more)

        engine.keeping.begin = begin_while_away
        state = flow_of(engine, begin, flow_id="parent").execute("r0")
        assert (state.status, state.result) == ("completed", 3)


def test_j6_a_child_that_is_not_in_the_store_any_more_fails_the_step(engine):
    child = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "never"), flow_id="child")
    parent = flow_of(engine, lambda ctx, **_: ctx.step.invoke_and_wait("c", child), flow_id="parent")
    state = parent.start("r0", job_id="p")
    while state.status != "waiting":
        threading.Event().wait(0.001)
    with engine.store._lock:
        engine.store._jobs.pop("p/1/c")
    job = engine.keeping.find("p")
    engine.keeping.live.pop("p/1/c", None)
    engine.keeping.look_after(job, ["p/1/c"])
    assert state.wait(SOON)
    assert state.status == "failed"
    assert "not in the store any more" in state.error.message


# --- steps of jobs that end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
def test_l2_a_step_of_a_cancelled_job_is_not_tried_again(durable):
    with Engine(store=MemoryStore() if durable else None) as engine:
        calls, called, left = [], threading.Event(), []

        def fail():
            calls.append(1)
            called.set()
            raise ValueError("no good")

        def handle(ctx, **_):
            try:
                ctx.step.run("s", fail, max_retries=5, base_delay=3600.0, max_delay=3600.0)
            except ContextError as error:
                left.append(str(error))
                raise

        flow = flow_of(engine, handle)
        state = flow.start("r0")
        assert called.wait(SOON)
        while not state._job.sleepers:
            threading.Event().wait(0.001)
        flow.cancel(state)
        assert state.wait(SOON)
        flow.shutdown()
        assert len(calls) == 1
        assert "is not tried again" in left[0]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("how", ["cancelled", "finished"])
def test_l2_a_handler_of_a_job_that_is_over_starts_no_other(durable, how):
    with Engine(store=MemoryStore() if durable else None) as engine:
        over, begun, refused = threading.Event(), [], []

        def handle(ctx, **_):
            ctx.step.invoke("before", child)
            ctx.emit("out")
            ctx.flush()
            assert over.wait(SOON)
            try:
                ctx.step.invoke("after", child)
            except ContextError as error:
                refused.append(str(error))
                raise

        child = flow_of(engine, lambda ctx, **_: begun.append(ctx.job_id), flow_id="child")
        flow = flow_of(
            engine,
            handle,
            lambda ctx, **_: ctx.flow.cancel(ctx.job_state) if how == "cancelled" else ctx.finish(1),
            execution_strategy="concurrent",
            max_workers=2,
        )
        ends = signals.job_cancelled if how == "cancelled" else signals.job_completed
        with ends.connected_to(lambda flow, **_: over.set(), sender=flow):
            state = flow.execute("r0", job_id="j")
        child.shutdown()
        flow.shutdown()
    assert state.status == ("cancelled" if how == "cancelled" else "completed")
    assert refused == [f"flow 'f': job 'j' is {state.status}, and its handlers start no other jobs any more"]
    assert [each for each in begun if each.endswith("after")] == []


@pytest.mark.parametrize("durable", [True, False])
def test_l2_a_job_that_is_cancelled_while_a_handler_starts_another_cancels_that(durable, monkeypatch):
    with Engine(store=MemoryStore() if durable else None) as engine:
        cancelled, looked, release = threading.Event(), threading.Event(), threading.Event()
        begin = jobs.Jobs.begin_child

        def cancel_first(self, parent, invocation, job_id):
            parent.cancel("meanwhile")
            assert not durable or looked.wait(SOON)
            return begin(self, parent, invocation, job_id)

        monkeypatch.setattr(jobs.Jobs, "begin_child", cancel_first)
        if durable:
            cancel_children = engine.keeping.cancel_children
            engine.keeping.cancel_children = lambda job: (cancel_children(job), looked.set())
        child = flow_of(engine, lambda ctx, **_: release.wait(SOON), flow_id="child")
        flow = flow_of(engine, lambda ctx, **_: ctx.step.invoke("c", child))
        with signals.job_cancelled.connected_to(lambda flow, **_: cancelled.set(), sender=child):
            assert flow.execute("r0").status == "cancelled"
            assert cancelled.wait(SOON)
        release.set()
        child.shutdown()
        flow.shutdown()


def test_j4_closing_leaves_a_step_that_pauses_between_two_attempts():
    store, called, calls = MemoryStore(), threading.Event(), []

    def fail():
        calls.append(1)
        called.set()
        raise ValueError("no good")

    engine = Engine(store=Mortal(store))
    flow = flow_of(engine, lambda ctx, **_: ctx.step.run("s", fail, base_delay=3600.0, max_delay=3600.0))
    state = flow.start("r0")
    assert called.wait(SOON)
    while not state._job.sleepers:
        threading.Event().wait(0.001)
    engine.close()
    assert (len(calls), store.heads()[0].status) == (1, "running")


# --- closing, forking, publishing -------------------------------------------------------------------------------------


def test_closing_waits_for_handlers_which_may_begin_other_jobs():
    store, entered, closing = MemoryStore(), threading.Event(), threading.Event()
    engine = Engine(store=Mortal(store))
    child = flow_of(engine, lambda ctx, **_: ctx.finish(1), flow_id="child")

    def handle(ctx, **_):
        entered.set()
        assert closing.wait(SOON)
        ctx.step.invoke("c", child)
        ctx.finish("done")

    flow_of(engine, handle, flow_id="parent").start("r0", job_id="p")
    assert entered.wait(SOON)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while not engine._leaving:
        threading.Event().wait(0.001)
    closing.set()
    closer.join(SOON)
    assert not closer.is_alive()
    parent, child = store.heads()
    assert (parent.status, child.job_id) == ("completed", "p/1/c")
    assert child.status in ("running", "completed")  # whether it came to its handler before the engine was closed


def test_closing_ends_the_wait_for_a_job_that_sleeps(engine):
    state = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "gate")).execute("r0")
    errors, waiting = [], threading.Event()

    def wait():
        try:
            state.wait()
        except ExecutionError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not state._job.watchers:
        waiting.wait(0.001)
    engine.close()
    thread.join(SOON)
    assert not thread.is_alive()
    assert ["the engine was closed" in error for error in errors] == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_made_by_fork_is_refused_whatever_it_does_to_a_job(engine):
    flow = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "gate"))
    state = flow.execute("r0")
    for act in (
        lambda: state.wait(1),
        lambda: flow.cancel(state),
        lambda: flow.pause(state),
        lambda: flow.subscribe(state),
        engine.close,
    ):
        pid = os.fork()
        if not pid:
            try:
                act()
            except ExecutionError as error:
                os._exit(0 if "made by fork()" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_event_for_a_job_that_has_ended_reaches_nobody(engine):
    flow_of(engine, lambda ctx, **_: None).execute("r0", job_id="j")
    assert engine.publish("gate", job_id="j") == 0


# --- the same job again -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"d": 3, "c": 2}], "a": 1}),
        ({"names": {"x", "y", "z"}}, {"names": {"z", "y", "x"}}),
        ({"names": (1, 2)}, {"names": (1, 2)}),
    ],
)
def test_a_job_is_the_same_whatever_the_order_of_keys_and_sets(engine, first, again):
    calls = []
    flow = flow_of(engine, lambda ctx, **payload: calls.append(payload))
    flow.execute("r0", first, job_id="j")
    assert flow.execute("r0", again, job_id="j").status == "completed"
    assert len(calls) == 1


def test_l2_an_input_whose_deadline_has_come_closes_when_the_store_is_there_again(monkeypatch):
    monkeypatch.setattr(sleeping, "AGAIN", 1_000_000)
    store = Away("receive")
    with Engine(store=store) as engine:
        flow, routine = Flow("deadline", engine=engine), Routine()
        routine.define_slot("trigger", handler=lambda: None)
        routine.define_slot("answer", external=True, deadline=0.01)
        flow.add_routine(routine, "desk")
        store.away.set()
        state = flow.execute("desk")
        assert store.asked.wait(SOON)
        assert state.status == "waiting"
        store.away.clear()
        assert state.wait(SOON)
        assert state.status == "completed"


def test_d9_execute_returns_when_the_flow_of_the_job_that_it_waits_for_is_shut_down():
    asleep = threading.Event()
    with Engine(store=MemoryStore()) as engine:
        child = flow_of(engine, lambda ctx, **_: ctx.step.wait_for("z", days=1), flow_id="child")
        parent = flow_of(engine, lambda ctx, **_: ctx.step.invoke_and_wait("c", child), flow_id="parent")
        engine.keeping.put_to_sleep, falls_asleep = (
            lambda job: (falls_asleep(job), asleep.set()),
            engine.keeping.put_to_sleep,
        )
        results = []
        runner = threading.Thread(target=lambda: results.append(parent.execute("r0", job_id="p")))
        runner.start()
        assert asleep.wait(SOON)
        handle = engine.get("p/1/c")  # which keeps it in memory
        child.shutdown()
        runner.join(SOON)
        assert [str(state.status) for state in results] == ["waiting"]
        assert handle.status == "waiting"


def test_h4_a_listener_of_a_job_whose_time_has_come_holds_up_no_other_job():
    entered, go = threading.Event(), threading.Event()

    def slow(flow, job_state, **_):
        if job_state.job_id == "a":
            entered.set()
            assert go.wait(SOON)

    with Engine(store=MemoryStore()) as engine:
        flow = flow_of(engine, lambda ctx, **_: ctx.step.wait_for("z", seconds=0.02))
        with signals.job_resumed.connected_to(slow, sender=flow):
            first = flow.start("r0", job_id="a")
            assert entered.wait(SOON)
            second = flow.start("r0", job_id="b")
            assert second.wait(SOON)
            go.set()
            assert first.wait(SOON)


class Curious(BaseModel):
    """A state that asks for jobs when it is read."""

    x: int = 0
    asks: ClassVar[Any] = None

    @field_validator("x")
    @classmethod
    def look(cls, value):
        if cls.asks is not None:
            cls.asks()
        return value


def test_a_validator_that_asks_for_jobs_while_one_that_sleeps_is_read_is_told_that_it_cannot():
    errors = []
    with Engine(store=MemoryStore()) as engine:
        flow = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("w", "t"), state_schema=Curious)
        flow.execute("r0", job_id="a", initial_state={"x": 1})
        gc.collect()
        assert "a" not in engine.keeping.live

        def ask():
            try:
                engine.get("a")
            except ContextError as error:
                errors.append(str(error))

        Curious.asks = ask
        try:
            assert engine.publish("t", 1, job_id="a") == 1
        finally:
            Curious.asks = None
        assert engine.get("a").wait(SOON)
    assert "a job is being read in this thread" in errors[0]
