"""J2-J9, E3-E4, L1-L5 of the engine with a store: begin, submit, serve, publish, find again, resume, close."""

from __future__ import annotations

import gc
import threading
import weakref
from datetime import timedelta
from typing import Any

import pytest
from parts import AsyncStep, Signal, Sink, Source, Step, chain

from routilux import (
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    ExecutionError,
    Flow,
    JobState,
    JobTimeoutError,
    LoadError,
    RecoveryError,
    SaveError,
    StatusError,
    open_store,
)
from routilux.runtime import serving as serving_module
from routilux.runtime.clock import Clock
from routilux.runtime.messages import message
from routilux.store.memory import MemoryStore

LONG = 20.0


class Lasting:
    """A store that outlives the engines that close it."""

    def __init__(self, store: Any = None) -> None:
        self.store = MemoryStore() if store is None else store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def close(self) -> None:
        """Stay."""


@pytest.fixture(params=["memory", "sqlite"])
def opened(request, tmp_path):
    """Return what opens the same store again and again."""
    if request.param == "sqlite":
        return lambda: open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    store = MemoryStore()
    return lambda: Lasting(store)


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


def handled(handle: Any, engine: Engine, flow_id: str = "f", **options: Any) -> Flow:
    """Return a flow of one routine ``r``, whose handler is ``handle(ctx, **payload)``."""
    flow = Flow(flow_id, engine=engine, **options)
    flow.add_routine(Step(lambda step, **given: handle(step.get_execution_context(), **given)), "r")
    return flow


def waiting(engine: Engine, flow_id: str = "f", topic: str = "go", **options: Any) -> Flow:
    """Return a flow of one routine that waits for an event and ends with what it brought."""
    return handled(lambda ctx, **_: ctx.finish(ctx.step.wait_for_event("w", topic)), engine, flow_id, **options)


def pausing(ctx: Any, **_: Any) -> None:
    ctx.flow.pause(ctx.job_state)


def serving(engine: Engine, stop: threading.Event | None = None) -> threading.Thread:
    thread = threading.Thread(target=engine.serve, args=(stop,))
    thread.start()
    return thread


# --- making one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"store": "sqlite:///x.db"}, "store"),
        ({"store": object()}, "store"),
        ({"durability": "eventual"}, "durabilit"),
        ({"max_workers": 0}, "max_workers"),
        ({"max_workers": "many"}, "max_workers"),
        ({"max_lag_records": 0}, "max_lag_records"),
        ({"max_lag_seconds": -1}, "max_lag_seconds"),
        ({"lease": 0}, "lease"),
        ({"lease": float("nan")}, "lease"),
        ({"store_patience": -1}, "store_patience"),
        ({"clock": 3}, "clock"),
    ],
)
def test_an_engine_option_that_is_out_of_range_is_named(options, named):
    with pytest.raises(DeclarationError, match=named):
        Engine(**options)


@pytest.mark.parametrize(
    "use",
    [
        lambda engine, flow: engine.register(flow),
        lambda engine, flow: engine.submit(flow),
        lambda engine, flow: engine.recover(),
        lambda engine, flow: engine.serve(threading.Event()),
        lambda engine, flow: engine.publish("t"),
        lambda engine, flow: engine.get("j"),
        lambda engine, flow: engine.jobs(),
        lambda engine, flow: engine.prune(),
    ],
)
def test_an_engine_without_a_store_says_that_it_needs_one(use):
    engine = Engine()
    flow = chain(Sink(), engine=engine)
    with pytest.raises(ExecutionError, match="needs a store"):
        use(engine, flow)


@pytest.mark.parametrize(
    "use",
    [
        lambda engine, flow: engine.register(flow),
        lambda engine, flow: engine.submit(flow),
        lambda engine, flow: engine.recover(),
        lambda engine, flow: engine.serve(threading.Event()),
        lambda engine, flow: engine.publish("t"),
        lambda engine, flow: engine.get("j"),
        lambda engine, flow: engine.jobs(),
        lambda engine, flow: engine.prune(),
        lambda engine, flow: flow.execute("r0"),
        lambda engine, flow: flow.start("r0"),
        lambda engine, flow: Flow("other", engine=engine),
    ],
)
def test_an_engine_that_is_closed_says_so(use):
    engine = Engine(store=open_store("memory:"))
    flow = chain(Sink(), engine=engine)
    engine.close()
    with pytest.raises(ExecutionError, match="closed"):
        use(engine, flow)


def test_flows_that_are_made_with_an_engine_are_registered(engine):
    flow = chain(Sink(), engine=engine)
    engine.register(flow, flow)
    assert engine.flow_of("chain") is flow
    with pytest.raises(DeclarationError, match="'chain' is registered already"):
        chain(Sink(), engine=engine)
    with pytest.raises(ExecutionError, match=r"no flow 'chian'.*chain"):
        engine.flow_of("chian")


# --- submitting and serving ---------------------------------------------------------------------------------------


def test_j9_a_submitted_job_runs_when_somebody_serves(opened):
    with Engine(store=opened()) as engine:
        flow = handled(lambda ctx, data: ctx.finish(data + 1), engine)
        state = engine.submit(flow, {"data": 1}, job_id="j", session_id="s", user_id="u")
        assert (state.status, state.job_id, state.session_id, state.user_id) == ("running", "j", "s", "u")
        assert [head.owner for head in engine.jobs()] == [None]
        stop = threading.Event()
        thread = serving(engine, stop)
        assert state.wait(LONG)
        assert (state.status, state.result) == ("completed", 2)
        later = engine.submit("f", {"data": 5}, initial_state={"a": 1})
        assert later.wait(LONG)
        assert (later.result, later.get_shared_data("a")) == (6, 1)
        stop.set()
        thread.join(LONG)
        assert not thread.is_alive()


def test_j9_whoever_serves_is_told_of_what_is_submitted(opened, monkeypatch):
    monkeypatch.setattr(serving_module, "ORPHANS_EVERY", 3_600.0)
    with Engine(store=opened()) as engine, Engine(store=opened()) as other:
        handled(lambda ctx, data: ctx.finish(data), engine)
        flow = handled(lambda ctx, data: ctx.finish(data), other)
        first = other.submit(flow, {"data": 0})
        thread = serving(engine)
        assert first.wait(LONG)
        states = [other.submit(flow, {"data": index}) for index in range(3)]
        assert [state.result for state in states if state.wait(LONG)] == [0, 1, 2]
        while engine.store.receive(0):  # what was seen to does not stay
            assert not engine.closing.wait(0.01)
        engine.close()
        thread.join(LONG)


def test_j9_serving_ends_when_the_engine_is_closed():
    engine = Engine(store=open_store("memory:"))
    threads = [serving(engine) for _ in range(2)]
    engine.close()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_what_cannot_be_submitted_is_named(engine):
    flow = Flow("f", engine=engine)
    flow.add_routine(Sink(), "a")
    flow.add_routine(Source(), "b")
    flow.add_routine(Source(), "c")
    with pytest.raises(ExecutionError, match="no flow 'nobody'"):
        engine.submit("nobody")
    with pytest.raises(DeclarationError, match="entry"):
        engine.submit(flow)
    with pytest.raises(DeclarationError, match="nowhere"):
        engine.submit(flow, entry="nowhere")
    with pytest.raises(DeclarationError, match="slot"):
        engine.submit(flow, entry="a", slot="nothing")
    with pytest.raises(ExecutionError, match="entry_params"):
        engine.submit(flow, [1], entry="a")
    with pytest.raises(SaveError, match="data"):
        engine.submit(flow, {"data": object()}, entry="a")
    assert engine.jobs() == []


@pytest.mark.parametrize("begin", ["submit", "start", "execute"])
def test_j9_the_same_job_twice_is_the_existing_one_or_a_conflict(begin, engine):
    ran = []
    flow = handled(lambda ctx, data: (ran.append(data), ctx.finish(data)), engine)
    other = handled(lambda ctx, **_: None, engine, "other")

    def again(to=flow, data=1, **options):
        if begin == "submit":
            return engine.submit(to, {"data": data}, job_id="j", **options)
        return getattr(to, begin)("r", {"data": data}, job_id="j", **options)

    first = flow.execute("r", {"data": 1}, job_id="j")
    assert (again().job_id, again().status, again().result) == ("j", "completed", 1)
    for different in ({"data": 2}, {"initial_state": {"a": 1}}, {"to": other}):
        with pytest.raises(ExecutionError, match="'j'"):
            again(**different)
    for bad in ("", 7):
        with pytest.raises(ExecutionError, match="job_id"):
            flow.execute("r", {"data": 1}, job_id=bad)
    assert ran == [1]
    assert first.status == "completed"


def test_j4_execute_with_the_id_of_a_job_that_nobody_runs_goes_on_with_it(opened):
    ran = []

    def handle(ctx, **_):
        ctx.step.run("a", lambda: ran.append("a"))
        ctx.finish(ctx.step.wait_for_event("w", "go"))

    with Engine(store=opened()) as engine:
        assert handled(handle, engine).execute("r", job_id="j").status == "waiting"
        engine.submit("f", job_id="k")
    with Engine(store=opened()) as engine:
        flow = handled(handle, engine)
        assert flow.execute("r", job_id="j").status == "waiting"
        assert flow.execute("r", job_id="k").status == "waiting"
        assert engine.publish("go", 3) == 2
        states = [flow.execute("r", job_id=name) for name in "jk"]
        assert [state.result for state in states if state.wait(LONG)] == [3, 3]
    assert ran == ["a", "a"]


# --- publishing ---------------------------------------------------------------------------------------------------


def test_j6_an_event_reaches_all_that_wait_for_it_and_is_kept_only_for_a_job_that_it_names(opened):
    with Engine(store=opened()) as engine:
        flow = waiting(engine)
        assert engine.publish("go", 0) == 0
        states = [flow.execute("r", job_id=f"j{index}") for index in range(3)]
        assert [state.status for state in states] == ["waiting"] * 3
        assert engine.publish("else", 0) == 0
        assert engine.publish("go", 1, "j0") == 1
        assert states[0].wait(LONG)
        assert engine.publish("go", 2) == 2
        assert [state.result for state in states if state.wait(LONG)] == [1, 2, 2]


def test_j6_an_event_before_the_wait_is_kept_for_the_job_that_it_names(engine):
    inside, go = Signal(), Signal()

    def handle(ctx, **_):
        inside.set()
        go.wait()
        ctx.finish([ctx.step.wait_for_event(f"w{index}", "t") for index in range(2)])

    flow = handled(handle, engine)
    state = flow.start("r", job_id="j")
    inside.wait()
    assert engine.publish("t", "nobody waits") == 0
    assert engine.publish("t", "first", "j") == 1
    assert engine.publish("t", "second", job_id="j") == 1
    go.set()
    assert state.wait(LONG)
    assert state.result == ["first", "second"]


def test_what_cannot_be_published_is_named(engine):
    flow = waiting(engine)
    state = flow.execute("r", job_id="j")
    with pytest.raises(ExecutionError, match="topic"):
        engine.publish("", 1)
    with pytest.raises(ExecutionError, match="topic"):
        engine.publish(7)  # type: ignore[arg-type]
    with pytest.raises(ExecutionError, match="no job 'k'"):
        engine.publish("go", 1, "k")
    for job_id in (None, "j"):
        with pytest.raises(SaveError, match="'go'"):
            engine.publish("go", object(), job_id)
    assert state.status == "waiting"
    assert engine.publish("go", {"a": 1}) == 1
    assert state.wait(LONG)
    assert state.result == {"a": 1}


# --- looking ------------------------------------------------------------------------------------------------------


def test_get_finds_jobs_that_run_have_ended_or_wait(opened):
    with Engine(store=opened()) as engine:
        inside, go = Signal(), Signal()
        flow = handled(lambda ctx, **_: (inside.set(), go.wait(), ctx.finish(1)), engine)
        state = flow.start("r", job_id="j")
        inside.wait()
        assert engine.get("j") == state
        go.set()
        assert state.wait(LONG)
        del state
        ended = engine.get("j")
        assert (ended.status, ended.result, len(ended.get_execution_history())) == ("completed", 1, 1)
        assert ended.wait(LONG)
        with pytest.raises(ExecutionError, match="no job 'k'"):
            engine.get("k")
    with Engine(store=opened()) as engine:
        told = (
            "^job 'j' cannot be read: no flow 'f' is registered with this engine; make it .*; there are no registered"
        )
        with pytest.raises(ExecutionError, match=told):
            engine.get("j")
        with pytest.raises(ExecutionError, match=r"^no flow 'g' is registered with this engine; make it with this"):
            engine.submit("g")
        assert [head.job_id for head in engine.jobs()] == ["j"]


def test_j6_a_waiting_job_of_which_nothing_is_in_memory_obeys(opened):
    with Engine(store=opened()) as engine:
        flow = waiting(engine)
        for name in "abc":
            flow.execute("r", job_id=name)
        assert not engine.keeping.held
        flow.cancel(engine.get("a"), "enough")
        assert (engine.get("a").status, engine.get("b").status) == ("cancelled", "waiting")
        paused = engine.get("b")
        flow.pause(paused)
        assert engine.publish("go", 1) == 2
        assert (paused.status, engine.get("b").status) == ("paused", "paused")
        flow.resume(paused)
        assert paused.wait(LONG)
        last = engine.get("c")
        assert last.wait(LONG)
        assert (paused.result, last.result) == (1, 1)


def test_jobs_are_found_by_status_and_flow(opened):
    with Engine(store=opened()) as engine:
        good, bad = handled(lambda ctx, **_: None, engine, "good"), handled(_fail, engine, "bad")
        for index in range(2):
            good.execute("r", job_id=f"g{index}")
        bad.execute("r", job_id="b")
        waiting(engine).execute("r", job_id="w")

        def ids(**which):
            return [head.job_id for head in engine.jobs(**which)]

        assert ids() == ["g0", "g1", "b", "w"]
        assert ids(status="failed") == ["b"]
        assert ids(status=["failed", "waiting"]) == ["b", "w"]
        assert ids(flow_id="good") == ["g0", "g1"]
        assert ids(status="completed", flow_id="bad") == ids(status=[]) == []
        with pytest.raises(ExecutionError, match=r"'complete'.*completed"):
            engine.jobs(status="complete")


def _fail(ctx: Any, **_: Any) -> None:
    raise ValueError("broken")


def test_ended_jobs_are_pruned_by_age_and_number(opened):
    with Engine(store=opened()) as engine:
        flow = handled(lambda ctx, **_: None, engine)
        for index in range(5):
            flow.execute("r", job_id=f"j{index}")
        waiting(engine, "w").execute("r", job_id="w")
        assert engine.prune(older_than=timedelta(days=1)) == 0
        assert engine.prune(older_than=3600.0, keep=3) == 2
        assert [head.job_id for head in engine.jobs()] == ["j2", "j3", "j4", "w"]
        assert engine.prune(keep=0) == 3
        assert [head.job_id for head in engine.jobs()] == ["w"]
        for bad in ({"older_than": -1.0}, {"keep": -1}, {"keep": "all"}):
            with pytest.raises(DeclarationError, match="prune"):
                engine.prune(**bad)


# --- going on -----------------------------------------------------------------------------------------------------


def test_j4_recovering_twice_recovers_once_and_leaves_other_flows_alone(opened):
    with Engine(store=opened()) as engine:
        waiting(engine).execute("r", job_id="mine")
        waiting(engine, "g").execute("r", job_id="other")
    with Engine(store=opened()) as engine:
        assert engine.recover() == []
        waiting(engine)
        (state,) = engine.recover()
        assert (state.job_id, engine.recover()) == ("mine", [])
        assert {head.job_id: head.owner is not None for head in engine.jobs()} == {"mine": True, "other": False}
        assert engine.publish("go", 1) == 2
        assert state.wait(LONG)


def test_j4_a_job_whose_flow_has_changed_is_refused_before_anything_happens(opened):
    with Engine(store=opened()) as engine:
        waiting(engine, version="1").execute("r", job_id="j")
    with Engine(store=opened()) as engine:
        flow = waiting(engine, version="2")
        with pytest.raises(RecoveryError, match="version"):
            engine.recover()
        assert [head.owner for head in engine.jobs()] == [None]
        (state,) = engine.recover(allow_changes=True)
        engine.publish("go", 1)
        assert state.wait(LONG)
        assert flow.flow_id == state.flow_id


@pytest.mark.parametrize("second_looks", ["before the first has claimed it", "after that"])
def test_j7_two_that_recover_a_job_at_the_same_time_take_it_up_once(opened, second_looks):
    ran: list[int] = []

    def handle(ctx, **_):
        ran.append(1)
        ctx.finish(ctx.step.wait_for_event("w", "go"))

    with Engine(store=opened()) as first:
        job_id = handled(handle, first).execute("r").job_id
    with Engine(store=opened()) as engine:
        flow = handled(handle, engine)
        keeping = engine.keeping
        claim, take_up, heads = keeping.claim, keeping.taken_up, engine.store.heads
        looked, found = threading.Event(), []
        second = threading.Thread(target=lambda: found.append(flow.start("r", job_id=job_id)))

        def second_comes(real, *given, **options):
            """Have the second one look, if it may, before this goes on."""
            if threading.current_thread() is not second and second.ident is None:
                second.start()
                looked.wait(0.2)
            return real(*given, **options)

        def look(**options):
            listed = heads(**options)
            if threading.current_thread() is second and "statuses" in options:
                looked.set()
            return listed

        engine.store.heads = look
        if second_looks == "after that":
            keeping.taken_up = lambda *given, **options: second_comes(take_up, *given, **options)
        else:
            keeping.claim = lambda *given, **options: second_comes(claim, *given, **options)
        engine.recover()
        second.join(LONG)
        engine.publish("go", 17)
        assert found[0].wait(LONG)
        assert found[0].result == 17
        assert len(ran) == 2, "once to come to the wait, and once to go on from there"


def test_l1_a_paused_job_is_recovered_as_paused(opened):
    ran = []

    def first(step, data):
        ran.append(data)
        if data == 1:
            step.get_execution_context().flow.pause(step.get_execution_context().job_state)

    def built(engine):
        return chain(Source([0, 1, 2]), Step(first), engine=engine)

    with Engine(store=opened()) as engine:
        assert built(engine).execute("r0", job_id="j").status == "paused"
    assert ran == [0, 1]
    with Engine(store=opened()) as engine:
        flow = built(engine)
        (state,) = engine.recover()
        assert (state.status, ran) == ("paused", [0, 1])
        flow.resume(state)
        assert state.wait(LONG)
        assert (state.status, ran) == ("completed", [0, 1, 2])


def test_l2_a_paused_job_can_be_resumed_without_being_recovered(opened):
    with Engine(store=opened()) as engine:
        assert handled(pausing, engine).execute("r", job_id="j").status == "paused"
    with Engine(store=opened()) as engine:
        state = handled(pausing, engine).resume(engine.get("j"))
        assert state.wait(LONG)
        assert state.status == "completed"


@pytest.mark.parametrize("across", [False, True])
def test_e4_a_failed_job_is_resumed_in_any_engine(across, opened):
    broken, ran = [True], []

    def handle(ctx, data):
        ctx.step.run("once", lambda: ran.append(data))
        if broken[0] and data == 2:
            raise ValueError("broken")
        with ctx.store.edit_state() as state:
            state["sum"] = state.get("sum", 0) + data

    def built(engine):
        return chain(
            Source([1, 2, 3]), Step(lambda step, data: handle(step.get_execution_context(), data)), engine=engine
        )

    engine = Engine(store=opened())
    flow = built(engine)
    state = flow.execute("r0", job_id="j")
    assert state.status == "failed"
    broken[0] = False
    if across:
        del state
        engine.close()
        engine = Engine(store=opened())
        flow = built(engine)
        assert engine.recover() == []
        state = engine.get("j")
        assert (state.status, state.error.message) == ("failed", "broken")
    again = flow.resume(state)
    assert again.wait(LONG)
    assert (again.status, again.get_shared_data("sum"), ran) == ("completed", 6, [1, 2, 3])
    assert engine.get("j").status == "completed"
    engine.close()


def test_e4_a_resumed_job_is_published_to_and_closed_as_any_other(engine):
    broken = [True]

    def handle(ctx, **_):
        if broken[0]:
            raise ValueError
        ctx.finish(ctx.step.wait_for_event("w", "go"))

    flow = handled(handle, engine)
    state = flow.execute("r", job_id="j")
    broken[0] = False
    flow.resume(state)
    assert not state.wait(0.001) or state.status == "waiting"
    assert engine.publish("go", 4, "j") == 1
    assert state.wait(LONG)
    assert state.result == 4


@pytest.mark.parametrize("kept", [True, False], ids=["somebody has its state", "nobody has its state"])
def test_e4_what_is_published_to_a_failed_job_is_there_when_it_is_resumed(kept, opened):
    broken = [True]

    def handle(ctx, **_):
        if broken[0]:
            raise ValueError
        ctx.finish(ctx.step.wait_for_event("w", "go"))

    with Engine(store=opened()) as engine:
        flow = handled(handle, engine)
        state = flow.execute("r", job_id="j")
        if not kept:
            del state
            gc.collect()
            assert "j" not in engine.keeping.live
        assert engine.publish("go", 4, "j") == 1
        broken[0] = False
        state = flow.resume(state if kept else engine.get("j"))
        assert state.wait(LONG)
        assert (state.result, engine.store.receive(0)) == (4, [])


def test_e4_a_resume_that_was_asked_for_elsewhere_does_not_refuse_the_one_here(opened):
    broken = [True]

    def handle(ctx, **_):
        if broken[0]:
            raise ValueError

    with Engine(store=opened()) as engine:
        flow = handled(handle, engine)
        flow.execute("r", job_id="j")
        gc.collect()
        with Engine(store=opened()) as other:
            handled(handle, other).resume(other.get("j"))
        broken[0] = False
        state = flow.resume(engine.get("j"))
        assert state.wait(LONG)
        assert (state.status, engine.store.receive(0)) == ("completed", [])


@pytest.mark.parametrize(("how", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_l2_j9_a_state_from_before_a_job_was_taken_steers_it_at_once(how, status, opened):
    with Engine(store=opened()) as engine:
        waiting(engine).execute("r", job_id="j")
    with Engine(store=opened()) as engine:
        flow = waiting(engine)
        before = engine.get("j")
        (state,) = engine.recover()
        getattr(flow, how)(before, "enough")
        assert (state.status, engine.store.receive(0)) == (status, [])


def test_e4_one_that_another_engine_runs_is_asked_to_resume(opened):
    with Engine(store=opened()) as owner:
        mine = handled(pausing, owner).execute("r", job_id="j")
        assert mine.status == "paused"
        thread = serving(owner)
        with Engine(store=opened()) as other:
            flow = handled(pausing, other)
            state = flow.resume(other.get("j"))
            assert state.wait(LONG)
            assert (state.status, mine.status) == ("completed", "completed")
    thread.join(LONG)


# --- the end of an engine -----------------------------------------------------------------------------------------


def test_closing_waits_for_handlers_and_others_go_on_where_it_was(opened):
    inside, go, ran = Signal(), Signal(), []

    def slow(step, data):
        ran.append(data)
        if data == 0:
            inside.set()
            go.wait()

    def built(engine):
        return chain(Source(range(4)), Step(slow), engine=engine)

    engine = Engine(store=opened())
    state = built(engine).start("r0", job_id="j")
    inside.wait()
    thread = threading.Thread(target=engine.close)
    thread.start()
    engine.closing.wait(0.01)
    assert thread.is_alive()
    go.set()
    thread.join(LONG)
    engine.close()
    assert ran == [0]
    with pytest.raises(ExecutionError, match="closed"):
        state.wait(LONG)
    with Engine(store=opened()) as engine:
        built(engine)
        (state,) = engine.recover()
        assert state.wait(LONG)
    assert ran == [0, 1, 2, 3]


def test_what_a_handler_does_after_an_engine_was_closed_is_refused(opened):
    inside, go, refused = Signal(), Signal(), Signal()
    errors = []

    def slow(ctx, **_):
        inside.set()
        go.wait()
        try:
            ctx.step.run("late", lambda: None)
        except ExecutionError as error:
            errors.append(str(error))
        refused.set()

    engine = Engine(store=opened())
    handled(slow, engine).start("r", job_id="j")
    inside.wait()
    engine.close(timeout=0)
    go.set()
    refused.wait()
    assert "closed" in errors[0]
    store = opened()
    (head,) = store.heads()
    assert (head.status, head.owner) == ("running", None)
    store.close()


def test_closing_inside_a_handler_is_refused(engine):
    def handle(ctx, **_):
        with pytest.raises(ContextError, match="close"):
            engine.close()
        ctx.finish("open")

    assert handled(handle, engine).execute("r").result == "open"
    assert engine.jobs()


def test_l2_a_flow_that_was_shut_down_is_not_kept_by_its_engine(opened):
    with Engine(store=opened()) as engine:
        flow = handled(lambda ctx, **_: None, engine)
        flow.execute("r")
        flow.shutdown()
        gone = weakref.ref(flow)
        del flow
        gc.collect()
        assert gone() is None


def test_l2_shutdown_of_a_flow_leaves_waiting_jobs_in_the_store(opened):
    with Engine(store=opened()) as engine:
        flow = waiting(engine)
        flow.execute("r", job_id="j")
        held = flow.execute("r", job_id="k")
        flow.shutdown()
        assert held.status == "waiting"
        with pytest.raises(ExecutionError, match="shut down"):
            flow.start("r")
    with Engine(store=opened()) as engine:
        waiting(engine)
        states = engine.recover()
        assert engine.publish("go", 1) == 2
        assert all(state.wait(LONG) for state in states)


# --- several ------------------------------------------------------------------------------------------------------


def test_l2_cancelling_a_job_cancels_its_children_and_they_inherit_who_it_is_for(opened):
    with Engine(store=opened()) as engine:
        child = waiting(engine, "child")
        seen = []

        def handle(ctx, **_):
            handle = ctx.step.invoke("c", child)
            seen.append(handle.job_id)
            ctx.step.invoke_and_wait("d", child)

        flow = handled(handle, engine, "parent")
        state = flow.start("r", job_id="p", session_id="s", user_id="u")
        while len(engine.jobs(status="waiting")) < 3:
            assert not engine.closing.wait(0.01)
        children = [engine.get(head.job_id) for head in engine.jobs(flow_id="child")]
        assert {(each.session_id, each.user_id, each.parent_job_id) for each in children} == {("s", "u", "p")}
        flow.cancel(state, "enough")
        assert all(each.wait(LONG) for each in children)
        assert {str(each.status) for each in children} == {"cancelled"}
        assert seen[0] in {each.job_id for each in children}


def test_d5_a_handler_may_execute_a_durable_job_of_another_flow(engine):
    inner = handled(lambda ctx, data: ctx.finish(data * 2), engine, "inner")
    outer = chain(
        Source(range(8)),
        Step(lambda step, data: step.emit("output", data=inner.execute("r", {"data": data}).result)),
        sink := Sink(),
        engine=engine,
        execution_strategy="concurrent",
        max_workers=2,
    )
    assert outer.execute("r0").status == "completed"
    assert sink.got == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len(engine.jobs(flow_id="inner")) == 8


def test_d11_jobs_of_several_flows_share_an_engine(opened):
    with Engine(store=opened(), max_workers=4) as engine:
        flows = [chain_of(engine, index, execution_strategy="concurrent", max_workers=1 + index) for index in range(4)]
        states = [flow.start("a", {"items": list(range(20))}) for flow in flows for _ in range(3)]
        assert all(state.wait(LONG) for state in states)
        assert {state.get_shared_data("n") for state in states} == {20}
        assert engine.pool._limit <= 4


def chain_of(engine: Engine, index: int, **options: Any) -> Flow:
    def count(step: Step, **_: Any) -> None:
        with step.get_execution_context().store.edit_state() as state:
            state["n"] = state.get("n", 0) + 1

    flow = Flow(f"f{index}", engine=engine, **options)
    flow.add_routine(Source(), "a")
    flow.add_routine(Step(count), "b")
    flow.connect("a", "output", "b", "input")
    return flow


# --- time limits and interrupts -----------------------------------------------------------------------------------


def test_l3_a_job_whose_time_is_up_fails_and_its_handlers_are_fenced(opened):
    inside, go, over = Signal(), Signal(), Signal()
    errors = []

    def slow(ctx, **_):
        inside.set()
        go.wait()
        for act in (lambda: ctx.flush(), lambda: ctx.step.uuid("u"), lambda: ctx.store.set("a", 1)):
            try:
                act()
            except ContextError as error:
                errors.append(error)
        over.set()

    with Engine(store=opened()) as engine:
        state = handled(slow, engine).execute("r", job_id="j", timeout=0.05)
        assert (state.status, state.error.type) == ("failed", "JobTimeoutError")
        with pytest.raises(JobTimeoutError):
            state.raise_for_status()
        go.set()
        over.wait()
        assert len(errors) == 3
        assert state.get_shared_data("a") is None
    with Engine(store=opened()) as engine:
        handled(slow, engine)
        again = engine.get("j")
        assert (again.status, again.error.type, again.get_shared_data("a")) == ("failed", "JobTimeoutError", None)


def test_l3_a_waiting_job_whose_time_is_up_has_failed_for_good(engine):
    flow = handled(lambda ctx, **_: ctx.step.wait_for("w", hours=1), engine)
    state = flow.execute("r", job_id="j", timeout=0.01)
    assert (state.status, engine.jobs()[0].status) == ("failed", "failed")
    assert not engine.keeping.sleepers
    assert not engine.keeping.held


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_l3_a_handler_whose_time_is_up_is_fenced(kind, opened):
    go, over, errors = Signal(), Signal(), []

    def late(step):
        try:
            step.emit("output", data="late")
        except ContextError as error:
            errors.append(error)
        over.set()

    def plain(step, **_):
        step.emit("output", data="held")
        step.get_execution_context().state["a"] = 1
        go.wait()
        late(step)

    async def coroutine(step, **_):
        step.emit("output", data="held")
        step.get_execution_context().state["a"] = 1
        try:
            await go
        finally:
            late(step)

    step = Step(plain, timeout=0.05) if kind == "plain" else AsyncStep(coroutine, timeout=0.05)
    sink = Sink()
    with Engine(store=opened()) as engine:
        flow = chain(step, sink, engine=engine)
        flow.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))
        state = flow.execute("r0", job_id="j")
        go.set()
        over.wait()
        assert (state.status, state.error.type) == ("completed", "HandlerTimeoutError")
        assert (sink.got, state.get_shared_data("a"), len(errors)) == ([], None, 1)
        assert [head.status for head in engine.jobs()] == ["completed"]
    with Engine(store=opened()) as engine:
        chain(step, sink, engine=engine)
        assert engine.recover() == []
        again = engine.get("j")
        assert (again.status, again.error.type) == ("completed", "HandlerTimeoutError")
        assert [str(each.status) for each in again.get_execution_history()] == ["skipped"]


def test_l3_a_coroutine_whose_time_is_up_is_retried_in_the_store_as_well(engine):
    tries, never = [], Signal()

    async def slow(step, **_):
        tries.append(of_attempt(step))
        of_context(step).emit("output", data=len(tries))
        if len(tries) < 3:
            await never

    flow = chain(AsyncStep(slow, timeout=0.03), sink := Sink(), engine=engine)
    flow.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=0.0))
    state = flow.execute("r0", job_id="j")
    assert (state.status, tries, sink.got) == ("completed", [1, 2, 3], [3])
    assert [head.status for head in engine.jobs()] == ["completed"]


class Late:
    """A job's lock for commits, by which the time of a handler is up in the midst of its first commit.

    That waits until the end of the attempt is about to be committed too, and is the first of both all the same: before
    it has the lock, or ``inside``, when nothing is left but to write.

    Args:
        job: the job, whose lock it becomes.
        give_up: what makes the time be up.
        inside: whether the first commit has the lock by then.
    """

    def __init__(self, job: Any, give_up: Any, *, inside: bool = False) -> None:
        self.lock, self.commits, self.keep = threading.Lock(), 0, job.keep
        self.give_up, self.inside = give_up, inside
        self.ending, self.over = Signal(), Signal()
        job.commits, job.keep = self, self.write

    def __enter__(self) -> None:
        self.commits += 1
        if self.commits > 1:
            self.ending.set()
            self.over.wait()
        elif not self.inside:
            self.wait_for_the_end()
        self.lock.acquire()

    def __exit__(self, *raised: Any) -> None:
        self.lock.release()
        self.over.set()

    def write(self, *fact: Any) -> None:
        if self.inside and not self.over.is_set():
            self.wait_for_the_end()
        self.keep(*fact)

    def wait_for_the_end(self) -> None:
        self.give_up()
        self.ending.wait()


@pytest.mark.parametrize(("inside", "kept"), [(False, (2, [2])), (True, (1, [1]))], ids=["waiting", "writing"])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_l3_t1_an_edit_is_committed_whole_or_not_at_all_when_the_time_is_up(kind, inside, kept, opened):
    """The clock stands still but for that moment."""
    now, refused, over = [0], [], Signal()

    def begin(step):
        ctx = of_context(step)
        step.emit("output", data=ctx.attempt)
        ctx.job_state.append_to_shared_log({"attempt": ctx.attempt})
        return ctx

    def edit(ctx, state):
        state["a"] = ctx.attempt
        if ctx.attempt == 1:
            Late(ctx.job_state._job, lambda: now.append(10**9), inside=inside)

    def end(ctx, error):
        if ctx.attempt == 1:
            refused.append(error)
            over.set()

    def plain(step, **_):
        ctx, error = begin(step), None
        try:
            with ctx.store.edit_state() as state:
                edit(ctx, state)
        except Exception as raised:
            error = raised
        end(ctx, error)

    async def coroutine(step, **_):
        ctx, error = begin(step), None
        try:
            async with ctx.store.edit_state() as state:
                edit(ctx, state)
        except Exception as raised:
            error = raised
        end(ctx, error)

    step = Step(plain, timeout=0.05) if kind == "plain" else AsyncStep(coroutine, timeout=0.05)
    sink = Sink()
    with Engine(Clock(monotonic_ns=lambda: now[-1]), store=opened()) as engine:
        flow = chain(step, sink, engine=engine)
        flow.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, retry_delay=0.0))
        state = flow.execute("r0", job_id="j")
        over.wait()
        assert (state.status, (state.get_shared_data("a"), sink.got)) == ("completed", kept)
        assert [entry["attempt"] for entry in state.get_shared_log()] == [kept[0]]
        assert [type(error) for error in refused] == [type(None) if inside else ContextError]
    with Engine(store=opened()) as engine:
        chain(step, sink, engine=engine)
        assert engine.get("j").get_shared_data("a") == kept[0]


def test_l3_e3_what_a_handler_with_a_timeout_has_not_committed_is_dropped_when_execute_is_interrupted():
    """The clock interrupts the thread that waits for the handler; a signal may come just before that begins to wait."""
    interrupts, caller = [], threading.current_thread()

    def now():
        if interrupts and threading.current_thread() is caller:
            raise interrupts.pop()
        return 0

    def handle(step, **_):
        ctx = of_context(step)
        ctx.job_state.append_to_shared_log({"n": 1})
        Late(ctx.job_state._job, lambda: interrupts.append(KeyboardInterrupt()))
        ctx.flush()

    with Engine(Clock(monotonic_ns=now), store=open_store("memory:")) as engine:
        flow = chain(Step(handle, timeout=0.05), engine=engine)
        with pytest.raises(KeyboardInterrupt):
            flow.execute("r0", job_id="j")
        state = engine.get("j")
        assert (state.status, state.error.type, state.get_shared_log()) == ("failed", "KeyboardInterrupt", [])


def of_context(step: Step) -> Any:
    return step.get_execution_context()


def of_attempt(step: Step) -> int:
    return of_context(step).attempt


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
def test_e3_what_stops_the_process_is_recorded_and_raised_again(fatal, opened):
    broken = [True]

    def handle(ctx, **_):
        ctx.store.set("a", 1)
        if broken[0]:
            raise fatal

    with Engine(store=opened()) as engine, pytest.raises(fatal):
        handled(handle, engine).execute("r", job_id="j")
    broken[0] = False
    with Engine(store=opened()) as engine:
        flow = handled(handle, engine)
        state = engine.get("j")
        assert (state.status, state.error.type, state.get_shared_data("a")) == ("failed", fatal.__name__, 1)
        again = flow.resume(state)
        assert again.wait(LONG)
        assert again.status == "completed"


# --- files --------------------------------------------------------------------------------------------------------


def test_t2_l4_a_suspended_turn_goes_on_in_another_durable_flow_and_in_no_other(tmp_path):
    ran, path = [], tmp_path / "job.json"

    def handle(ctx, **_):
        ctx.step.run("a", lambda: ran.append("a"))
        ctx.store.set("seen", 1)
        ctx.finish(ctx.step.wait_for_event("w", "go"))

    with Engine(store=open_store("memory:")) as engine:
        handled(handle, engine).execute("r", job_id="j").save(path)
    plain = handled(handle, Engine())
    with pytest.raises(LoadError, match="store"):
        plain.load(path)
    with Engine(store=open_store("memory:")) as engine:
        flow = handled(handle, engine)
        state = flow.load(path)
        assert (state.status, state.get_shared_data("seen"), engine.jobs()) == ("paused", 1, [])
        state.update_shared_data("seen", 2)
        flow.resume(state)
        assert [head.job_id for head in engine.jobs()] == ["j"]
        assert engine.publish("go", 9, "j") == 1
        assert state.wait(LONG)
        assert (state.status, state.result, ran, state.get_shared_data("seen")) == ("completed", 9, ["a"], 2)
        assert engine.get("j").result == 9
        again = flow.load(path)
        with pytest.raises(ExecutionError, match="'j'"):
            flow.resume(again)


def test_l4_j9_a_job_from_a_file_is_given_the_first_messages_of_its_new_store(tmp_path):
    path = tmp_path / "job.json"
    with Engine(store=open_store("memory:")) as engine:
        state = waiting(engine).execute("r", job_id="j")
        for number in range(3):
            engine.store.send([("j", message(do="publish", topic="else", form=number, keep=True))])
        engine.keeping.attend(state._job)
        assert state._record.inbox == 3
        state.save(path)
    store = MemoryStore()
    with Engine(store=Lasting(store)) as engine, Engine(store=Lasting(store)) as other:
        flow = waiting(engine)
        state = flow.resume(flow.load(path))
        assert state._record.events == {"else": [0, 1, 2]}
        waiting(other)
        assert other.publish("go", 9, "j") == 1
        assert [each.number for each in store.receive(0)] == [1]
        engine.keeping.attend(engine.get("j")._job)
        assert state.wait(LONG)
        assert (state.result, state._record.inbox) == (9, 1)
    with Engine(store=Lasting(store)) as engine:
        waiting(engine)
        assert engine.get("j")._record.inbox == 1


def test_l4_a_copy_of_a_job_that_the_store_has_takes_nothing_from_it(engine, tmp_path):
    flow = waiting(engine)
    state = flow.execute("r", job_id="j")
    flow.pause(state)
    state.save(tmp_path / "job")
    with pytest.raises(ExecutionError, match="the store has a job with this id"):
        flow.resume(flow.load(tmp_path / "job"))
    assert engine.get("j") == state
    assert engine.publish("go", 9, "j") == 1
    flow.resume(state)
    assert state.wait(LONG)
    assert (state.status, state.result) == ("completed", 9)


def test_l4_e4_a_failed_job_from_a_file_that_was_written_to_is_the_one_that_gets_messages(engine, tmp_path):
    broken = [True]

    def handle(ctx, **_):
        if broken[0]:
            raise ValueError
        ctx.finish([ctx.step.wait_for_event("w", "go"), ctx.job_state.get_shared_data("a")])

    with Engine(store=open_store("memory:")) as before:
        handled(handle, before).execute("r", job_id="j").save(tmp_path / "job")
    flow = handled(handle, engine)
    state = flow.load(tmp_path / "job")
    state.update_shared_data("a", 1)
    assert engine.get("j") == state
    assert engine.publish("go", 9, "j") == 1
    broken[0] = False
    flow.resume(state)
    assert state.wait(LONG)
    assert (state.status, state.result) == ("completed", [9, 1])


def test_l5_a_job_of_the_store_hands_its_state_down(engine):
    flow = handled(lambda ctx, **_: ctx.store.set("n", ctx.store.get("n", 0) + 1), engine)
    first = flow.execute("r", job_id="j")
    second = flow.execute("r", job_state=first)
    third = flow.execute("r", job_state=engine.get(second.job_id))
    assert [each.get_shared_data("n") for each in (first, second, third)] == [1, 2, 3]
    assert len(engine.jobs()) == 3


def test_l4_a_job_that_nobody_runs_is_saved_as_it_is(opened, tmp_path):
    with Engine(store=opened()) as engine:
        handled(lambda ctx, **_: (ctx.flush(), pausing(ctx), ctx.flush()), engine).execute("r", job_id="j")
        engine.submit("f", job_id="k")
    with Engine(store=opened()) as engine:
        flow = handled(lambda ctx, **_: ctx.finish(1), engine)
        for name in "jk":
            engine.get(name).save(tmp_path / name)
            assert flow.load(tmp_path / name).status == "paused"


def test_d1_a_job_of_another_process_is_not_written_to(opened):
    with Engine(store=opened()) as engine:
        waiting(engine).execute("r", job_id="j")
        with Engine(store=opened()) as other:
            waiting(other)
            state = other.get("j")
            for write in (
                lambda: state.update_shared_data("a", 1),
                lambda: state.update_routine_state("r", {"a": 1}),
                lambda: state.append_to_shared_log({"a": 1}),
            ):
                with pytest.raises(ExecutionError, match="'j'"):
                    write()
            assert not state.wait(0.01)


def test_j7_a_job_that_rests_here_is_written_to_in_the_store(opened):
    with Engine(store=opened()) as engine:
        state = waiting(engine).execute("r", job_id="j")
        state.update_shared_data("a", [1])
        state.append_to_shared_log({"what": "x"})
        with pytest.raises(SaveError, match="object"):
            state.update_shared_data("b", object())
        assert state.get_shared_data("b") is None
    with Engine(store=opened()) as engine:
        waiting(engine)
        (again,) = engine.recover()
        assert (again.get_shared_data("a"), again.get_shared_data("b")) == ([1], None)
        assert [entry["what"] for entry in again.get_shared_log()] == ["x"]
        assert isinstance(again, JobState)
        with pytest.raises(StatusError):
            again._job.flow.resume(again)
