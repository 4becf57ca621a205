"""The life of durable jobs: pausing, resuming, failing, replaying, refusing, closing, and a store that is full."""

from __future__ import annotations

import os
import re
import threading
from datetime import datetime, timezone
from functools import partial

import pytest
from crashing import Mortal, World, outcome
from parts import AsyncStep, Step, forever
from pydantic import BaseModel

from routilux import (
    AsyncContext,
    Clock,
    ConflictError,
    Context,
    Engine,
    ErrorHandler,
    ExecutionError,
    Flow,
    LoadError,
    RecoveryError,
    Routine,
    StatusError,
    StepError,
    StoreError,
    open_store,
)
from routilux.runtime import jobs
from routilux.runtime.keeping import Keeping
from routilux.store.memory import MemoryStore

SOON = 20.0  # seconds: for what should have come long before


class Plain(Routine):
    """Slot ``trigger``, handled by ``handle(ctx, **payload)``, and event ``out``."""

    def __init__(self, handle, *, policy=None, **slot_options):
        super().__init__()
        self.handle_with = handle
        self.define_slot("trigger", handler=self.go, **slot_options)
        self.define_event("out")
        if policy is not None:
            self.set_error_handler(policy)

    def go(self, ctx: Context, **payload):
        return self.handle_with(ctx, **payload)


def flow_of(engine, *handlers, flow_id="f", policy=None, **options):
    """Return a flow in which each handler's ``out`` goes to the next one's slot; ids are r0, r1, ..."""
    flow = Flow(flow_id, engine=engine, **options)
    for index, handle in enumerate(handlers):
        flow.add_routine(handle if isinstance(handle, Routine) else Plain(handle, policy=policy), f"r{index}")
        if index:
            flow.connect(f"r{index - 1}", "out", f"r{index}", "trigger")
    return flow


@pytest.fixture
def engine():
    with Engine(store=MemoryStore(), store_patience=0) as engine:
        yield engine


def die(world, engine):
    """Kill a process, as far as its store can tell."""
    engine.store.dead.set()
    world.bury(engine)


class Lives:
    """Processes over one store, one after the other; `next` kills the one before."""

    def __init__(self, build, **options):
        self.world = World(build, **options)
        self.engine = None

    def next(self, **options):
        if self.engine is not None:
            die(self.world, self.engine)
            self.engine.close()
        self.engine = self.world.engine = Engine(store=Mortal(self.world.store), **{**self.world.options, **options})
        return self.engine, self.world.build(self.world, self.engine)


# --- pausing, failing, cancelling ----------------------------------------------------------------------------------


def pausing(world, engine):
    def first(ctx, n):
        ctx.step.run("one", world.call, f"one{n}", None)
        ctx.flow.pause(ctx.job_state, "for now")
        ctx.emit("out", n=n)

    return flow_of(engine, first, lambda ctx, n: ctx.finish(n))


def test_l2_j4_a_paused_job_stays_paused_over_a_crash_and_goes_on_when_resumed():
    lives = Lives(pausing)
    _, flow = lives.next()
    assert flow.execute("r0", {"n": 5}, job_id="j").status == "paused"
    engine, flow = lives.next()
    [state] = engine.recover()
    assert (state.status, state._record.reason) == ("paused", "for now")
    flow.resume(state)
    assert state.wait(SOON)
    assert (state.status, state.result, lives.world.calls) == ("completed", 5, {"one5": 1})


def test_j4_a_recovered_job_is_found_by_its_id_and_can_be_resumed():
    lives = Lives(pausing)
    _, flow = lives.next()
    flow.execute("r0", {"n": 5}, job_id="j")
    engine, flow = lives.next()
    engine.recover()
    state = engine.get("j")
    flow.resume(state)
    assert state.wait(SOON)
    assert state.result == 5


def test_l2_a_cancelled_job_stays_cancelled_over_a_crash():
    lives = Lives(pausing)
    _, flow = lives.next()
    state = flow.execute("r0", {"n": 5}, job_id="j")
    flow.cancel(state, "enough")
    engine, flow = lives.next()
    assert engine.recover() == []
    state = engine.get("j")
    assert (state.status, state._record.reason) == ("cancelled", "enough")
    with pytest.raises(StatusError):
        flow.resume(state)


@pytest.mark.parametrize("how", ["cancel", "finish"])
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
def test_l1_l2_the_store_tells_how_a_job_ended_while_a_handler_of_it_still_ran(kind, how, engine):
    began = threading.Event()

    async def sit(step):
        began.set()
        await forever()

    def raise_late(step):
        began.set()
        while not step.get_execution_context().cancelled:
            pass
        raise ValueError("too late to count")

    def end(ctx, **_):
        assert began.wait(SOON)
        if how == "cancel":
            ctx.flow.cancel(ctx.job_state)
        else:
            ctx.finish("done")

    flow = flow_of(engine, lambda ctx, **_: ctx.emit("out"), end, execution_strategy="concurrent", max_workers=3)
    flow.add_routine(AsyncStep(sit) if kind == "coroutine" else Step(raise_late), "other")
    flow.connect("r0", "out", "other", "input")
    state = flow.execute("r0")
    status = "cancelled" if how == "cancel" else "completed"
    assert (state.status, [head.status for head in engine.jobs()]) == (status, [status])


def failing(world, engine):
    def handle(ctx, n):
        ctx.emit("out", n=-n)
        double = ctx.step.run("double", world.call, "double", 2 * n)
        if not getattr(world, "mended", False):
            raise ValueError("a fault")
        ctx.emit("out", n=double)

    def take(ctx, n):
        state = ctx.job_state.get_routine_state("r1") or {"seen": []}
        ctx.job_state.update_routine_state("r1", {"seen": [*state["seen"], n]})

    return flow_of(engine, handle, take)


@pytest.mark.parametrize("crash", [False, True])
def test_e4_j4_a_failed_job_is_resumed_also_by_another_process_and_repeats_no_step(crash):
    lives = Lives(failing)
    _, flow = lives.next()
    state = flow.execute("r0", {"n": 5}, job_id="j")
    assert (state.status, state.error.message) == ("failed", "a fault")
    if crash:
        engine, flow = lives.next()
        assert engine.recover() == []
        state = engine.get("j")
        assert (state.status, state.error.message) == ("failed", "a fault")
    lives.world.mended = True
    state = flow.resume(state)
    assert state.wait(SOON)
    assert (state.status, lives.world.calls) == ("completed", {"double": 1})
    assert sorted(state.get_routine_state("r1")["seen"]) == [-5, 10]


@pytest.mark.parametrize("left", range(1, 12))
def test_e4_j4_a_crash_while_a_failed_job_goes_on_changes_nothing(left):
    world = World(failing)
    live = partial(_failed_and_resumed, world)
    expected = World(failing)
    undisturbed = expected.process(None, partial(_failed_and_resumed, expected))
    end = world.process(left, live) or world.process(None, live)
    assert (end, world.again) == (undisturbed, [])


def _failed_and_resumed(world, engine, flow):
    engine.recover()
    state = engine.get("j") if engine.jobs() else flow.execute("r0", {"n": 5}, job_id="j")
    state.wait(SOON)
    if state.status == "failed":
        world.mended = True
        state = flow.resume(state)
        state.wait(SOON)
    return outcome(state)


# --- replay ---------------------------------------------------------------------------------------------------------


def test_j3_a_handler_that_comes_to_another_step_when_it_runs_again_fails_the_job(engine):
    runs = []

    def handle(ctx, **_):
        runs.append(1)
        ctx.step.run("first" if len(runs) == 1 else "other", int)
        raise ValueError("once more")

    policy = ErrorHandler("retry", max_retries=5, retry_delay=0.0)
    state = flow_of(engine, handle, policy=policy).execute("r0")
    assert (state.status, state.error.type, len(runs)) == ("failed", "ReplayError", 2)
    assert "the step 'other'" in state.error.message
    assert "the step 'first'" in state.error.message


def test_j3_a_handler_that_ends_before_the_last_point_that_it_had_reached_fails_the_job(engine):
    runs = []

    def handle(ctx, **_):
        runs.append(1)
        if len(runs) == 1:
            ctx.step.run("first", int)
            raise ValueError("once more")

    policy = ErrorHandler("retry", max_retries=5, retry_delay=0.0)
    state = flow_of(engine, handle, policy=policy).execute("r0")
    assert (state.status, state.error.type) == ("failed", "ReplayError")


def test_j3_a_flush_is_compared_too(engine):
    runs = []

    def handle(ctx, **_):
        runs.append(1)
        if len(runs) == 1:
            ctx.flush()
        ctx.step.run("first", int)
        raise ValueError("once more")

    policy = ErrorHandler("retry", max_retries=5, retry_delay=0.0)
    state = flow_of(engine, handle, policy=policy).execute("r0")
    assert (state.error.type, len(runs)) == ("ReplayError", 2)


def test_j3_reads_and_edits_before_a_point_see_what_they_saw_before():
    seen = []

    def build(world, engine):
        def handle(ctx, **_):
            before = ctx.store.get("n")
            with ctx.store.edit_state() as state:
                state["n"] += 1
                inside = state["n"]
            own = ctx.job_state.get_shared_data("n")
            ctx.step.wait_for_event("gate", "gate")
            seen.append((before, inside, own, ctx.store.get("n")))
            ctx.step.wait_for_event("door", "door")
            seen.append((before, inside, own, ctx.store.get("n")))
            ctx.finish(ctx.store.get("n"))

        return flow_of(engine, handle)

    lives = Lives(build)
    engine, flow = lives.next()
    state = flow.execute("r0", job_id="j", initial_state={"n": 1})
    assert state.status == "waiting"
    engine.publish("gate", job_id="j")
    engine, flow = lives.next()
    [state] = engine.recover()
    engine.publish("door", job_id="j")
    assert state.wait(SOON)
    assert (state.result, set(seen)) == (2, {(1, 2, 2, 2)})


# --- steps ----------------------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int
    when: datetime


NOON = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
VALUES = [None, 0, False, "", [], {}, (1, (2, "a")), NOON, Point(x=1, when=NOON), {"at": [NOON, (1,)]}]


def test_j5_outcomes_come_back_as_what_they_were_after_a_retry_and_a_crash():
    got = []

    def build(world, engine):
        def handle(ctx, **_):
            found = [ctx.step.run(str(index), world.call, str(index), each) for index, each in enumerate(VALUES)]
            ctx.step.wait_for_event("gate", "gate")
            got.append(found)
            if ctx.attempt == 1:
                raise ValueError("once more")

        flow = flow_of(engine, handle, policy=ErrorHandler("retry", max_retries=1, retry_delay=0.0))
        flow.register_types(Point)
        return flow

    lives = Lives(build)
    _, flow = lives.next()
    assert flow.execute("r0", job_id="j").status == "waiting"
    engine, flow = lives.next()
    [state] = engine.recover()
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert state.status == "completed"
    assert got == [VALUES, VALUES]
    assert [list(map(type, each)) for each in got] == [list(map(type, VALUES))] * 2
    assert lives.world.calls == dict.fromkeys(map(str, range(len(VALUES))), 1)


def test_j5_a_name_that_was_used_before_is_refused(engine):
    def handle(ctx, **_):
        ctx.step.run("same", int)
        with pytest.raises(StepError, match="used before"):
            ctx.step.uuid("same")

    assert flow_of(engine, handle).execute("r0").status == "completed"


def test_j5_an_outcome_that_cannot_be_stored_fails_without_a_retry_before_the_job_goes_on(engine):
    calls = []

    def handle(ctx, **_):
        ctx.step.run("lock", lambda: calls.append(1) or threading.Lock(), base_delay=0)
        calls.append("went on")

    state = flow_of(engine, handle).execute("r0")
    assert (state.status, state.error.type, calls) == ("failed", "StepExecutionError", [1])


def test_j2_a_step_that_failed_for_good_is_raised_again_on_replay_and_done_anew_by_a_retry(engine):
    calls, caught = [], []

    def handle(ctx, **_):
        try:
            ctx.step.run("first", partial(fail, "first"), max_retries=0)
        except Exception as error:
            caught.append((type(error).__name__, type(error.__cause__).__name__))
        ctx.step.run("second", partial(fail, "second"), max_retries=0)

    def fail(name):
        calls.append(name)
        if name == "first" or calls.count("second") < 3:
            raise OSError(name)

    policy = ErrorHandler("retry", max_retries=5, retry_delay=0.0)
    state = flow_of(engine, handle, policy=policy).execute("r0")
    assert (state.status, calls) == ("completed", ["first", "second", "second", "second"])
    assert [name for name, _ in caught] == ["StepExecutionError"] * 3


# --- state ----------------------------------------------------------------------------------------------------------


def two_at_once(engine, first, second, **options):
    flow = Flow("f", engine=engine, execution_strategy="concurrent", max_workers=3, **options)
    flow.add_routine(Plain(lambda ctx, **_: ctx.emit("out")), "src")
    for name, handle in (("a", first), ("b", second)):
        flow.add_routine(Plain(handle), name)
        flow.connect("src", "out", name, "trigger")
    return flow


def test_s2_a_plain_write_that_would_lose_another_is_refused_at_the_commit(engine):
    read, wrote = threading.Event(), threading.Event()

    def first(ctx, **_):
        n = ctx.job_state.get_shared_data("n")
        read.set()
        assert wrote.wait(SOON)
        ctx.job_state.update_shared_data("n", n + 1)

    def second(ctx, **_):
        assert read.wait(SOON)
        ctx.job_state.update_shared_data("n", 10)
        ctx.flush()
        wrote.set()

    state = two_at_once(engine, first, second).execute("src", initial_state={"n": 1})
    assert (state.status, state.error.type, state.error.routine_id) == ("failed", "ConflictError", "a")
    assert "edit_state()" in state.error.message
    assert state.get_shared_data("n") == 10
    with pytest.raises(ConflictError):
        state.raise_for_status()


def test_s3_two_editors_of_a_durable_job_take_turns(engine):
    both = threading.Barrier(2)

    def edit(ctx, **_):
        both.wait(SOON)
        for _each in range(20):
            with ctx.store.edit_state() as state:
                state["n"] += 1

    state = two_at_once(engine, edit, edit).execute("src", initial_state={"n": 0})
    assert (state.status, state.get_shared_data("n")) == ("completed", 40)


@pytest.mark.parametrize("how", ["write", "edit", "in place"])
def test_s5_a_commit_that_makes_the_state_too_large_fails_its_writer_and_is_dropped(engine, how):
    def handle(ctx, **_):
        ctx.job_state.update_shared_data("kept", 1)
        ctx.flush()
        ctx.emit("out")
        if how == "write":
            ctx.job_state.update_shared_data("big", "x" * 2000)
        elif how == "edit":
            with ctx.store.edit_state() as state:
                state["big"] = "x" * 2000
        else:
            ctx.state["list"].append("x" * 2000)

    reached = []
    flow = flow_of(engine, handle, lambda ctx, **_: reached.append(1), max_state_bytes=1000)
    state = flow.execute("r0", initial_state={"list": []})
    assert (state.status, state.error.type, reached) == ("failed", "StateError", [])
    assert "max_state_bytes" in state.error.message
    assert (state.get_shared_data("kept"), state.get_shared_data("big"), state.get_shared_data("list")) == (1, None, [])


# --- ids ------------------------------------------------------------------------------------------------------------


def test_the_same_job_started_twice_is_the_existing_job(engine):
    runs = []
    flow = flow_of(engine, lambda ctx, **_: runs.append(1))
    first = flow.execute("r0", {"n": 1}, job_id="j")
    second = flow.execute("r0", {"n": 1}, job_id="j")
    assert (first.status, second.status, second.job_id, runs) == ("completed", "completed", "j", [1])
    assert second.get_execution_history() == first.get_execution_history()


def test_the_same_job_started_twice_at_once_runs_once(engine):
    runs, entered, go = [], threading.Event(), threading.Event()

    def handle(ctx, **_):
        runs.append(1)
        entered.set()
        assert go.wait(SOON)
        ctx.finish(7)

    flow = flow_of(engine, handle)
    first = flow.start("r0", job_id="j")
    assert entered.wait(SOON)
    second = flow.start("r0", job_id="j")
    go.set()
    assert first.wait(SOON)
    assert second.wait(SOON)
    assert (first.result, second.result, runs) == (7, 7, [1])


def test_a_job_id_that_is_taken_by_a_job_with_another_payload_is_refused(engine):
    flow = flow_of(engine, lambda ctx, **_: None)
    flow.execute("r0", {"n": 1}, job_id="j")
    for payload, state in (({"n": 2}, None), ({"n": 1}, {"a": 1})):
        with pytest.raises(ExecutionError, match="started before"):
            flow.execute("r0", payload, job_id="j", initial_state=state)
    other = flow_of(engine, lambda ctx, **_: None, flow_id="other")
    with pytest.raises(ExecutionError, match="of flow 'f'"):
        other.execute("r0", {"n": 1}, job_id="j")


def test_an_empty_job_id_is_refused(engine):
    flow = flow_of(engine, lambda ctx, **_: None)
    for verb in (flow.execute, flow.start):
        with pytest.raises(ExecutionError, match="job_id"):
            verb("r0", job_id="")
    with pytest.raises(ExecutionError, match="job_id"):
        engine.submit(flow, job_id="")


# --- the end of flows and engines -----------------------------------------------------------------------------------


def days(world, engine):
    return flow_of(engine, lambda ctx, **_: ctx.step.wait_for("long", days=3))


def test_j6_shutting_a_flow_down_does_not_wait_for_a_job_that_waits_for_days():
    lives = Lives(days)
    engine, flow = lives.next()
    state = flow.start("r0", job_id="j")
    done = threading.Thread(target=flow.shutdown, daemon=True)
    done.start()
    done.join(SOON)
    assert not done.is_alive()
    assert state.status == "waiting"
    assert no_timers(engine)
    engine, _ = lives.next()
    assert [each.status for each in engine.recover()] == ["waiting"]
    engine.close()
    assert no_timers(engine)


def no_timers(engine):
    thread = engine.timers._thread
    if thread is not None:
        thread.join(SOON)
    return engine.timers._thread is None


def test_a_job_counts_no_more_as_running_before_it_is_found_asleep_and_woken(engine, monkeypatch):
    flow, found = flow_of(engine, lambda ctx, **_: ctx.step.wait_for("long", days=3)), []
    forget = flow._jobs.forget

    def forget_and_look(job):
        found.append(job.record.job_id in engine.keeping.sleepers)
        forget(job)

    monkeypatch.setattr(flow._jobs, "forget", forget_and_look)
    state = flow.start("r0")
    while not engine.keeping.sleepers:
        pass
    with state._job.lock:
        assert found == [False]


def test_close_waits_for_handlers_that_run_and_starts_no_more():
    store, entered, go, reached = MemoryStore(), threading.Event(), threading.Event(), []

    def first(ctx, **_):
        entered.set()
        assert go.wait(SOON)
        ctx.emit("out")

    def build(engine):
        return flow_of(engine, first, lambda ctx, **_: reached.append(1))

    engine = Engine(store=Mortal(store))
    state = build(engine).start("r0", job_id="j")
    assert entered.wait(SOON)
    closing = threading.Thread(target=engine.close)
    closing.start()
    go.set()
    closing.join(SOON)
    assert not closing.is_alive()
    assert reached == []
    with pytest.raises(ExecutionError, match="closed"):
        state.wait(SOON)
    with Engine(store=store) as engine:
        flow = build(engine)
        [state] = engine.recover()
        assert state.wait(SOON)
        assert (state.status, reached, len(state.get_execution_history())) == ("completed", [1], 2)
        flow.shutdown()


def test_close_waits_no_longer_than_it_is_told_and_what_comes_later_is_refused():
    store, entered, go, over = MemoryStore(), threading.Event(), threading.Event(), threading.Event()
    refused = []

    def handle(ctx, **_):
        entered.set()
        assert go.wait(SOON)
        try:
            ctx.step.run("late", refused.append, "called")
        except ExecutionError as error:
            refused.append(str(error))
            raise
        finally:
            over.set()

    engine = Engine(store=Mortal(store))
    flow_of(engine, handle).start("r0", job_id="j")
    assert entered.wait(SOON)
    engine.close(timeout=0)
    go.set()
    assert over.wait(SOON)
    assert len(refused) == 1
    assert "closed" in refused[0]
    assert store.heads()[0].owner is None


def test_an_engine_that_was_closed_says_so():
    engine = Engine(store=MemoryStore())
    flow = flow_of(engine, lambda ctx, **_: None)
    state = flow.execute("r0")
    engine.close()
    engine.close()
    for use in (
        lambda: flow.execute("r0"),
        lambda: flow.start("r0"),
        lambda: engine.submit(flow),
        lambda: engine.get("j"),
        engine.jobs,
        engine.recover,
        engine.serve,
        lambda: engine.publish("topic"),
        lambda: engine.register(flow),
        lambda: flow_of(engine, lambda ctx: None, flow_id="new").execute("r0"),
    ):
        with pytest.raises(ExecutionError, match="closed"):
            use()
    assert state.status == "completed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork_the_child_gets_a_clear_error(engine):
    flow = flow_of(engine, lambda ctx, **_: None)
    flow.execute("r0")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = []
        for use in (lambda: flow.execute("r0"), engine.jobs, engine.recover, lambda: engine.submit(flow)):
            try:
                use()
                found.append("nothing")
            except ExecutionError as error:
                found.append("fork" if "fork()" in str(error) else str(error))
            except BaseException as error:
                found.append(repr(error))
        os.write(writing, "|".join(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "|".join(["fork"] * 4)
    os.waitpid(child, 0)


# --- flows that have changed ----------------------------------------------------------------------------------------


def waiting_flow(world, engine, *, more=(), version=None):
    def handle(ctx, **_):
        world.calls["handled"] += 1
        ctx.step.wait_for_event("gate", "gate")
        ctx.emit("out")

    flow = Flow("f", engine=engine, version=version)
    for index, each in enumerate([handle, *[lambda ctx, **_: None] * 2]):
        flow.add_routine(Plain(each), f"r{index}")
    flow.connect("r0", "out", "r1", "trigger")
    for each in more:
        flow.add_routine(Plain(lambda ctx, **_: None), each)
        if each != "aside":
            flow.connect("r0", "out", each, "trigger")
    return flow


def lacking(world, engine):
    return flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("gate", "gate"))


def changed(build, then):
    """Return the next process of a job that waits, with a flow that is made differently."""
    lives = Lives(build)
    _, flow = lives.next()
    assert flow.execute("r0", job_id="j").status == "waiting"
    lives.world.build = then
    engine, _ = lives.next()
    return lives, engine


@pytest.mark.parametrize(("then", "what"), [(lacking, "r1"), (partial(waiting_flow, more=["added"]), "added")])
def test_recovery_with_a_flow_that_has_changed_is_refused_before_anything_is_done(then, what):
    lives, engine = changed(waiting_flow, then)
    before = lives.world.store.read("j")
    with pytest.raises(RecoveryError, match=what):
        engine.recover()
    assert lives.world.store.read("j") == before
    assert lives.world.calls["handled"] == 1
    assert lives.world.store.heads()[0].owner is None
    engine.close()


def test_recovery_with_a_flow_that_has_changed_can_be_allowed():
    lives, engine = changed(waiting_flow, partial(waiting_flow, more=["added"]))
    [state] = engine.recover(allow_changes=True)
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert (state.status, len(state.get_execution_history())) == ("completed", 3)
    engine, _ = lives.next()
    assert engine.get("j").get_execution_history() == state.get_execution_history()
    engine.close()


def test_recovery_with_a_flow_that_has_more_beside_passes():
    lives, engine = changed(waiting_flow, partial(waiting_flow, more=["aside"]))
    [state] = engine.recover()
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert (state.status, len(state.get_execution_history())) == ("completed", 2)
    engine, _ = lives.next()
    assert engine.get("j").status == "completed"
    engine.close()


def test_recovery_with_more_connections_of_an_event_that_was_emitted_can_be_allowed():
    def build(world, engine, targets):
        def start(ctx, **_):
            for n in (1, 2):
                ctx.emit("out", n=n)
            ctx.step.wait_for_event("gate", "gate")
            ctx.emit("out", n=3)

        flow = Flow("f", engine=engine)
        flow.add_routine(Plain(start), "r0")
        for name in ("r1", "r2"):
            flow.add_routine(Plain(lambda ctx, **_: None), name)
        for name in targets:
            flow.connect("r0", "out", name, "trigger")
        return flow

    lives = Lives(partial(build, targets=["r1"]))
    _, flow = lives.next()
    assert flow.execute("r0", job_id="j").status == "waiting"
    lives.world.build = partial(build, targets=["r2", "r1"])
    engine, _ = lives.next()
    with pytest.raises(RecoveryError, match=r"'r0\.out' goes to 'r2\.trigger' and 'r1\.trigger', and went to"):
        engine.recover()
    [state] = engine.recover(allow_changes=True)
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert [len(state.get_execution_history(name)) for name in ("r0", "r1", "r2")] == [1, 3, 1]
    engine.close()


def test_recovery_without_a_routine_that_the_job_has_not_used_can_be_allowed():
    _, engine = changed(partial(waiting_flow, more=["aside"]), waiting_flow)
    with pytest.raises(RecoveryError, match="gone"):
        engine.recover()
    [state] = engine.recover(allow_changes=True)
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert state.status == "completed"
    engine.close()


def going_on(world, engine, *, beside=(), emits=(), events=("to_a", "to_b"), connected=True, **slot_options):
    """A job that emits something before it waits; ``beside``: slots of routine ``t`` that events of it go to."""

    def handle(ctx, **_):
        for event in emits:
            ctx.emit(event)
        ctx.step.wait_for_event("gate", "gate")
        ctx.emit("out")

    flow = Flow("f", engine=engine)
    first = Plain(handle)
    for event in events:
        first.define_event(event)
    flow.add_routine(first, "r0")
    flow.add_routine(Plain(lambda ctx, **_: None), "r1")
    flow.connect("r0", "out", "r1", "trigger")
    if beside:
        flow.add_routine(routine := Routine(), "t")
    for slot in beside:
        routine.define_slot(slot, handler=world.aside, **slot_options)
        if connected:
            flow.connect("r0", f"to_{slot}", "t", slot)
    return flow


def went_on(before, after, aside=lambda **_: None):
    """Return the state of a job that has waited, and gone on under a flow that was made differently."""

    def build(world, engine, **options):
        world.aside = aside
        return going_on(world, engine, **options)

    _, engine = changed(partial(build, **before), partial(build, **after))
    try:
        [state] = engine.recover(allow_changes=True)
        engine.publish("gate", job_id="j")
        assert state.wait(SOON)
        return state
    finally:
        engine.close()


@pytest.mark.parametrize("options", [{}, {"gather": 2}, {"merge_strategy": "append"}, {"concurrency": 2}])
@pytest.mark.parametrize(
    "after",
    [{}, {"beside": ["a"]}, {"events": ()}],
    ids=["without the routine", "without the slot", "without the events"],
)
def test_j4_a_job_goes_on_without_what_was_connected_and_that_it_has_not_used(after, options):
    state = went_on({"beside": ["a", "b"], **options}, {**after, **options})
    assert (state.status, [each.routine_id for each in state.get_execution_history()]) == ("completed", ["r0", "r1"])


def test_j4_a_job_goes_on_without_a_routine_that_has_nothing_left_to_do():
    def aside(ctx: Context, **_):
        ctx.emit("done")

    def build(world, engine, *, used):
        flow = going_on(world, engine, beside=["a"] if used else [], emits=["to_a"])
        flow.add_routine(Plain(lambda ctx, **_: None), "r2")
        if used:
            flow.routines["t"].define_event("done")
            flow.connect("t", "done", "r2", "trigger")
        return flow

    lives = Lives(partial(build, used=True))
    lives.world.aside = aside
    _, flow = lives.next()
    assert flow.execute("r0", job_id="j").status == "waiting"
    lives.world.build = partial(build, used=False)
    engine, _ = lives.next()
    [state] = engine.recover(allow_changes=True)
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert [each.routine_id for each in state.get_execution_history()] == ["r0", "t", "r2", "r1"]
    assert [*state.performance()] == ["r0", "r1", "r2", "t"]
    engine.close()


@pytest.mark.parametrize(
    ("rest", "status", "handled"),
    [("deliver", "completed", ["t"]), ("error", "failed", ["t"]), ("drop", "completed", [])],
)
def test_j4_a_join_that_nothing_leads_to_any_more_ends_as_its_rest_says(rest, status, handled):
    before = {"beside": ["a"], "emits": ["to_a"], "gather": 2, "rest": rest}
    state = went_on(before, {**before, "connected": False})
    assert state.status == status
    assert [each.routine_id for each in state.get_execution_history("t")] == handled
    assert state.pending_count == 0 or status == "failed"
    assert state.failure is None or state.failure.type == "GatherError"


def test_e4_a_job_that_a_mistake_in_the_connections_has_failed_is_resumed_when_that_is_mended():
    def build(world, engine, *, mended):
        def handle(ctx, **_):
            if not mended:
                raise LookupError
            ctx.emit("out")

        flow = Flow("f", engine=engine)
        flow.add_routine(Plain(handle), "r0")
        flow.add_routine(Plain(lambda ctx, **_: None), "r1")
        if mended:
            flow.connect("r0", "out", "r1", "trigger")
        return flow

    lives = Lives(partial(build, mended=False))
    _, flow = lives.next()
    assert flow.execute("r0", job_id="j").status == "failed"
    lives.world.build = partial(build, mended=True)
    engine, flow = lives.next()
    with pytest.raises(RecoveryError, match=r"flow\.resume\(job_state, allow_changes=True\)$"):
        flow.resume(engine.get("j"))
    state = flow.resume(engine.get("j"), allow_changes=True)
    assert state.wait(SOON)
    assert (state.status, len(state.get_execution_history("r1"))) == ("completed", 1)
    engine.close()


def waits(ctx: Context, **_):
    ctx.step.wait_for_event("aside", "aside")


def keeps_a_state(ctx: Context, **_):
    ctx.job_state.update_routine_state("t", {"seen": 1})


@pytest.mark.parametrize(
    ("options", "aside", "lacks"),
    [
        ({}, waits, "slot 't.a'"),
        ({"gather": 2}, None, "slot 't.a'"),
        ({"merge_strategy": "append"}, lambda **_: None, "slot 't.a'"),
        ({}, keeps_a_state, "routine 't'"),
        ({"external": True}, lambda **_: None, "slot 't.a'"),
    ],
    ids=["a turn that waits", "a part of a gather", "what was merged", "a state", "an open input"],
)
def test_j4_a_job_does_not_go_on_without_what_it_uses_and_it_is_told_what_to_do(options, aside, lacks):
    told = f"flow 'f': job 'j': the flow does not have {lacks}, and the job still needs it"
    with pytest.raises(LoadError, match=f"^{re.escape(told)}"):
        went_on({"beside": ["a"], "emits": ["to_a"], **options}, {}, aside)


def test_recovery_of_a_job_of_another_version_is_refused_and_can_be_allowed():
    lives = Lives(partial(waiting_flow, version="1"))
    _, flow = lives.next()
    flow.execute("r0", job_id="j")
    lives.world.build = partial(waiting_flow, version="2")
    engine, _ = lives.next()
    with pytest.raises(RecoveryError, match=r"version '1'.*version '2'"):
        engine.recover()
    [state] = engine.recover(allow_changes=True)
    engine.publish("gate", job_id="j")
    assert state.wait(SOON)
    assert state.status == "completed"
    engine.close()


def test_l2_shutting_down_with_cancel_cancels_jobs_that_wait_too(engine):
    for number in range(50):  # the job may be awake, asleep, or falling asleep
        with flow_of(engine, lambda ctx, **_: ctx.step.wait_for("w", days=1)) as flow:
            state = flow.start("r0", job_id=f"j{number}")
            while state.status != "waiting":
                threading.Event().wait(0.0001)
            flow.shutdown(cancel=True)
        assert state.status == "cancelled"
    assert len(engine.jobs(status="cancelled")) == 50


# --- a store that is full -------------------------------------------------------------------------------------------


class Full(MemoryStore):
    """A store without room while ``full``; it tells how often it was asked then."""

    def __init__(self):
        super().__init__()
        self.full = False
        self.asked = threading.Event()

    def append(self, *arguments):
        if self.full:
            self.asked.set()
            raise StoreError("the disk is full")
        super().append(*arguments)


def counting(store, engine, at):
    def handle(ctx, n, **_):
        ctx.job_state.update_shared_data("n", n)
        if n == at and not store.asked.is_set():
            store.full = True
        if n < 5:
            ctx.emit("out", n=n + 1)

    flow = Flow("f", engine=engine)
    flow.add_routine(Plain(handle), "r0")
    flow.connect("r0", "out", "r0", "trigger")
    return flow


def test_what_a_full_disk_does_not_take_is_an_error_and_nothing_acknowledged_is_lost():
    store = Full()
    engine = Engine(store=store, store_patience=0)
    flow = counting(store, engine, 3)
    with pytest.raises(StoreError, match="full"):
        flow.execute("r0", {"n": 1}, job_id="j")
    with pytest.raises(StoreError, match="full"):
        flow.execute("r0", {"n": 1}, job_id="k")
    assert engine.get("j").get_shared_data("n") == 2
    store.full = False
    assert flow.execute("r0", {"n": 4}, job_id="k").status == "completed"
    [state] = engine.recover()
    assert state.wait(SOON)
    assert (state.job_id, state.status, len(state.get_execution_history())) == ("j", "completed", 5)
    engine.close()


def test_a_commit_waits_for_room_as_long_as_it_is_told_to():
    store = Full()
    with Engine(store=store, store_patience=SOON) as engine:
        state = counting(store, engine, 3).start("r0", {"n": 1}, job_id="j")
        assert store.asked.wait(SOON)
        assert state.get_shared_data("n") == 2
        store.full = False
        assert state.wait(SOON)
        assert (state.status, state.get_shared_data("n"), len(state.get_execution_history())) == ("completed", 5, 5)


def test_a_full_sqlite_file_loses_nothing_and_goes_on_when_there_is_room(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    with Engine(store=store, store_patience=0) as engine:

        def handle(ctx, n, **_):
            ctx.step.run("write", lambda: "x" * 500_000)
            ctx.emit("out", n=n + 1)

        flow = Flow("f", engine=engine)
        flow.add_routine(Plain(handle), "r0")
        flow.add_routine(Plain(lambda ctx, **_: None), "end")
        flow.connect("r0", "out", "end", "trigger")
        flow.execute("r0", {"n": 1}, job_id="first")
        limit_pages(store, 40)
        with pytest.raises(StoreError):
            flow.execute("r0", {"n": 1}, job_id="second")
        assert engine.get("first").status == "completed"
        limit_pages(store, 2**30)
        engine.recover()
        found = engine.jobs()
        if [head.job_id for head in found] == ["first"]:  # not even its beginning had room
            flow.execute("r0", {"n": 1}, job_id="second")
        state = engine.get("second")
        assert state.wait(SOON)
        assert (state.status, len(state.get_execution_history())) == ("completed", 2)


def limit_pages(store, pages):
    """Let the store's file have so many pages at the most."""
    connection = store._writer._connection
    connection.execute(f"PRAGMA max_page_count={pages}")


# --- leases ---------------------------------------------------------------------------------------------------------


def test_j7_a_former_owner_is_refused_when_another_has_taken_over():
    store, entered, go = MemoryStore(), threading.Event(), threading.Event()
    first_time = threading.Event()
    results = []

    def handle(ctx, **_):
        if not first_time.is_set():
            first_time.set()
            entered.set()
            assert go.wait(SOON)
        ctx.step.run("effect", results.append, ctx.job_id)

    late = Clock(time_ns=lambda: 10**18)
    early = Clock(time_ns=lambda: 10**18 - 10**12)
    slow = Engine(store=Mortal(store), clock=early, lease=1.0)
    state = flow_of(slow, handle).start("r0", job_id="j")
    assert entered.wait(SOON)
    quick = Engine(store=Mortal(store), clock=late)
    flow_of(quick, handle)
    [taken] = quick.recover()
    assert taken.wait(SOON)
    assert taken.status == "completed"
    go.set()
    with pytest.raises(StoreError):
        state.wait(SOON)
    assert results == ["j"]
    for engine in (slow, quick):
        engine.close()


# --- children that are quick ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
def test_j6_a_child_that_ends_before_it_is_waited_for_is_heard_of(monkeypatch, durable):
    told = threading.Event()

    def telling(real):
        def tell(*arguments):
            real(*arguments)
            told.set()

        return tell

    monkeypatch.setattr(jobs, "tell_parent", telling(jobs.tell_parent))
    monkeypatch.setattr(Keeping, "tell_parent", telling(Keeping.tell_parent))
    engine = Engine(store=MemoryStore()) if durable else Engine()
    begin = jobs.Jobs.begin_child

    def begin_and_end(self, *arguments):
        made = begin(self, *arguments)
        assert told.wait(SOON)
        return made

    monkeypatch.setattr(jobs.Jobs, "begin_child", begin_and_end)
    child = Flow("child", engine=engine)
    child.add_routine(Plain(lambda ctx, n: ctx.finish(n + 1)), "only")

    class Parent(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.go)

        async def go(self, ctx: AsyncContext):
            ctx.finish(await ctx.step.invoke_and_wait("child", child, {"n": 1}))

    flow = Flow("parent", engine=engine)
    flow.add_routine(Parent(), "only")
    state = flow.start("only")
    assert state.wait(SOON)
    assert (state.status, state.result) == ("completed", 2)
    for each in (flow, child):
        each.shutdown()
    engine.close()


def parent_and_child(world, engine):
    """Return a flow whose jobs wait for a child, and fail meanwhile until ``world.mended``."""
    child = flow_of(engine, lambda ctx, **_: ctx.finish(ctx.step.wait_for_event("gate", "gate")), flow_id="child")

    def fails(ctx, **_):
        if not getattr(world, "mended", False):
            raise ValueError("a fault")

    flow = Flow("f", engine=engine)
    flow.add_routine(Plain(lambda ctx, **_: ctx.emit("out")), "src")
    flow.add_routine(Plain(lambda ctx, **_: ctx.finish(ctx.step.invoke_and_wait("child", child))), "invokes")
    flow.add_routine(Plain(fails), "fails")
    for name in ("invokes", "fails"):
        flow.connect("src", "out", name, "trigger")
    return flow


@pytest.mark.parametrize("crash", [False, True])
def test_e4_j6_a_failed_job_that_is_resumed_has_heard_of_a_child_that_has_ended_since(monkeypatch, crash):
    told = threading.Event()
    tell_parent = Keeping.tell_parent

    def tell(keeping, job):
        if not crash:
            tell_parent(keeping, job)
        told.set()

    monkeypatch.setattr(Keeping, "tell_parent", tell)
    lives = Lives(parent_and_child)
    engine, flow = lives.next()
    state = flow.execute("src", job_id="j")
    assert state.status == "failed"
    [child] = engine.jobs(flow_id="child")
    engine.publish("gate", 5, job_id=child.job_id)
    assert engine.get(child.job_id).wait(SOON)
    assert told.wait(SOON)
    assert lives.world.store.receive(0) == []
    if crash:
        engine, flow = lives.next()
        state = engine.get("j")
    lives.world.mended = True
    state = flow.resume(state)
    assert state.wait(SOON)
    assert (state.status, state.result) == ("completed", 5)
    engine.close()


@pytest.mark.parametrize("pruned", [True, False])
def test_j6_a_child_tells_nobody_whose_parent_has_ended_for_good(engine, monkeypatch, pruned):
    told, again = threading.Event(), []
    tell_parent = Keeping.tell_parent

    def tell(keeping, job):
        tell_parent(keeping, job)
        told.set()

    monkeypatch.setattr(Keeping, "tell_parent", tell)
    monkeypatch.setattr(Keeping, "again", lambda keeping, work: again.append(work))
    child = flow_of(engine, lambda ctx, **_: ctx.step.wait_for_event("gate", "gate"), flow_id="child")
    flow = flow_of(engine, lambda ctx, **_: ctx.finish(ctx.step.invoke("child", child).job_id))
    child_id = flow.execute("r0", job_id="j").result
    if pruned:
        assert engine.prune() == 1
    engine.publish("gate", job_id=child_id)
    assert engine.get(child_id).wait(SOON)
    assert told.wait(SOON)
    assert (again, engine.store.receive(0)) == ([], [])


def test_j7_a_resumed_job_belongs_to_its_engine_again(engine):
    mended = []

    def handle(ctx, **_):
        if not mended:
            raise ValueError("a fault")
        ctx.finish(ctx.step.wait_for_event("gate", "gate"))

    flow = flow_of(engine, handle)
    state = flow.execute("r0", job_id="j")
    mended.append(True)
    state = flow.resume(state)
    engine.publish("gate", 3, job_id="j")
    assert state.wait(SOON)
    assert (state.status, state.result) == ("completed", 3)


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_l2_j4_a_crash_after_a_pause_or_a_cancellation_in_the_middle_of_other_handlers(how):
    def build(world, engine):
        def source(ctx, **_):
            for n in range(3):
                ctx.emit("out", n=n)

        def handle(ctx, n):
            ctx.step.run("step", world.call, f"{ctx.job_id}/{n}", n)
            if n == 1 and ctx.job_id not in world.recorded:
                world.recorded.add(ctx.job_id)
                getattr(ctx.flow, how)(ctx.job_state, "now")
            ctx.job_state.update_shared_data(f"n{n}", n)

        return flow_of(engine, source, handle)

    for left in range(1, 20):
        world = World(build)

        def live(engine, flow):
            engine.recover()
            state = engine.get("j") if engine.jobs() else flow.start("r0", job_id="j")
            state.wait(SOON)
            while state.status == "paused":
                state = flow.resume(state)
                state.wait(SOON)
            return str(state.status), dict(sorted(state._record.shared.items()))

        end = world.process(left, live) or world.process(None, live)
        expected = ("completed", {"n0": 0, "n1": 1, "n2": 2})
        if how == "cancel" and "n2" not in end[1]:
            expected = ("cancelled", {"n0": 0})
        assert end == expected, left
