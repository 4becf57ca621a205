"""J4, J7, J10: what one job cannot do keeps no other from going on, and jobs that may be poison wait for their turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from crashing import Mortal
from pydantic import BaseModel, field_validator
from test_durable_life import SOON, flow_of
from test_serving import lost, until

from routilux import Clock, Context, ContextError, Engine, Flow, LoadError, PoisonError, Routine, StoreError
from routilux.runtime import processes, sleeping
from routilux.store import memory
from routilux.store.memory import MemoryStore


@pytest.fixture
def store():
    return MemoryStore()


def submitted(store, jobs, build):
    """Have a store hold jobs that nobody has begun."""
    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        for job_id in jobs:
            engine.submit(flow, job_id=job_id)


def once(real, error):
    """Return a function that raises an error the first time, and then does what it should."""
    errors = [error]

    def act(*given, **options):
        if errors:
            raise errors.pop()
        return real(*given, **options)

    return act


@pytest.mark.parametrize("error", [StoreError("busy"), RuntimeError("unforeseen")])
@pytest.mark.parametrize("step", ["_orphaned", "taken_up", "claim"])
def test_j4_one_job_that_cannot_go_on_is_taken_up_later_and_keeps_no_other_from_it(store, step, error):
    ran = []

    def build(engine):
        return flow_of(engine, lambda ctx, **_: ran.append(ctx.job_id))

    submitted(store, ["a", "b", "c"], build)
    with Engine(store=Mortal(store)) as engine:
        build(engine)
        setattr(engine.keeping, step, once(getattr(engine.keeping, step), error))
        with pytest.raises(type(error)):
            engine.recover()
        engine.recover()
        for job_id in ("a", "b", "c"):
            assert engine.get(job_id).wait(SOON)
    assert sorted(ran) == ["a", "b", "c"]


def test_j7_what_could_not_be_read_here_is_free_for_others(store):
    ran = []

    def build(engine):
        return flow_of(engine, lambda ctx, **_: ran.append(ctx.job_id))

    submitted(store, ["a"], build)
    with Engine(store=Mortal(store)) as first, Engine(store=Mortal(store)) as second:
        build(first)
        build(second)
        first.keeping.load = once(first.keeping.load, RecursionError())
        with pytest.raises(RecursionError):
            first.recover()
        [state] = second.recover()
        assert state.wait(SOON)
    assert ran == ["a"]


def test_j4_what_is_called_while_a_job_is_read_cannot_recover_others(store):
    inside = []

    class State(BaseModel):
        x: int = 0

        @field_validator("x")
        @classmethod
        def looked_at(cls, x):
            if inside:
                with pytest.raises(ContextError, match="jobs are being recovered in this thread"):
                    inside.pop().recover()
            return x

    def build(engine):
        return flow_of(engine, lambda ctx, **_: None, state_schema=State)

    with Engine(store=Mortal(store)) as engine:
        engine.submit(build(engine), job_id="a", initial_state={"x": 1})
    with Engine(store=Mortal(store)) as engine:
        build(engine)
        inside.append(engine)
        [state] = engine.recover()
        assert state.wait(SOON)
    assert not inside


def test_j10_a_suspect_runs_for_nobody_before_its_turn(store):
    entered, go, ran = threading.Event(), threading.Event(), []

    def handle(ctx, **_):
        ran.append(ctx.job_id)
        if ctx.job_id == "other":
            entered.set()
            assert go.wait(SOON)

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as engine:
        lost(store, engine, build(engine), "suspect", 1)
    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        other = flow.start("r0", job_id="other")
        assert entered.wait(SOON)
        engine.recover()
        assert not flow.start("r0", job_id="suspect").wait(0.05)
        assert ran == ["other"]
        go.set()
        assert other.wait(SOON)
        assert engine.get("suspect").wait(SOON)
        assert ran == ["other", "suspect"]
        assert not engine.keeping.suspects


def killed(store, engine):
    """Have a process die, as far as the store can tell."""
    engine.store.dead.set()
    store.claim("the undertaker", 0.0, 0.0, (), [engine.keeping.owner])


def head_in(store, job_id):
    [head] = store.heads(job_id=job_id)
    return head


class Gated:
    """Handlers that enter a job, tell so, and stay until they are told to go."""

    def __init__(self, *jobs):
        self.entered = {job_id: threading.Event() for job_id in jobs}
        self.gates = {job_id: threading.Event() for job_id in jobs}
        self.ran = []

    def flow(self, engine):
        return flow_of(engine, self._handle)

    def _handle(self, ctx, **_):
        self.ran.append(ctx.job_id)
        if ctx.job_id in self.gates:
            self.entered[ctx.job_id].set()
            assert self.gates[ctx.job_id].wait(SOON)


def test_j10_a_suspect_is_nobodys_before_its_turn_and_what_others_do_meanwhile_does_not_count(store):
    gated = Gated("other")
    with Engine(store=Mortal(store)) as engine:
        lost(store, engine, gated.flow(engine), "suspect", 1)
    with Engine(store=Mortal(store), store_patience=0) as engine:
        gated.flow(engine).start("r0", job_id="other")
        assert gated.entered["other"].wait(SOON)
        [state] = engine.recover()
        assert engine.recover() == []
        assert (state.job_id, head_in(store, "suspect").owner) == ("suspect", None)
        killed(store, engine)
        gated.gates["other"].set()
    with Engine(store=Mortal(store)) as engine:
        gated.flow(engine)
        states = {state.job_id: state for state in engine.recover()}
        assert all(state.wait(SOON) for state in states.values())
        assert {job_id: str(state.status) for job_id, state in states.items()} == {
            "other": "completed",
            "suspect": "completed",
        }


def test_j10_of_several_suspects_only_the_one_that_runs_counts_a_death(store):
    gated = Gated("first")
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        for job_id in ("first", "second", "third"):
            lost(store, engine, flow, job_id, 1)
    with Engine(store=Mortal(store), store_patience=0) as engine:
        gated.flow(engine)
        engine.recover()
        assert gated.entered["first"].wait(SOON)
        assert [head_in(store, job_id).owner for job_id in ("second", "third")] == [None, None]
        killed(store, engine)
        gated.gates["first"].set()
    assert gated.ran == ["first"]
    with Engine(store=Mortal(store)) as engine:
        gated.flow(engine)
        states = {state.job_id: state for state in engine.recover()}
        assert all(state.wait(SOON) for state in states.values())
        assert states["first"].failure.type == PoisonError.__name__
        assert [states[job_id].status for job_id in ("second", "third")] == ["completed", "completed"]
    assert gated.ran == ["first", "second", "third"]


def test_j10_what_recover_returns_for_a_suspect_sees_it_through_its_turn_and_steers_it(store):
    gated = Gated("first", "second")
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        for job_id in ("first", "second", "third"):
            lost(store, engine, flow, job_id, 1)
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        states = {state.job_id: state for state in engine.recover()}
        assert gated.entered["first"].wait(SOON)
        assert not states["second"].wait(0)
        gated.gates["first"].set()
        assert gated.entered["second"].wait(SOON)
        flow.cancel(states["second"], "enough")
        assert engine.get("second").status == "cancelled"
        gated.gates["second"].set()
        assert all(state.wait(SOON) for state in states.values())
        assert [str(states[job_id].status) for job_id in ("first", "second", "third")] == [
            "completed",
            "cancelled",
            "completed",
        ]


@pytest.mark.parametrize("error", [StoreError("busy"), LoadError("damaged")])
def test_j10_a_suspect_that_cannot_be_taken_up_in_its_turn_keeps_no_other_from_its_own(store, monkeypatch, error):
    monkeypatch.setattr(sleeping, "AGAIN", 1_000_000)
    gated = Gated("other")
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        for job_id in ("first", "second"):
            lost(store, engine, flow, job_id, 1)
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        flow.start("r0", job_id="other")
        assert gated.entered["other"].wait(SOON)
        engine.recover()
        engine.keeping.taken_up = once(engine.keeping.taken_up, error)
        gated.gates["other"].set()
        assert engine.get("second").wait(SOON)
        if isinstance(error, LoadError):  # which is for somebody to mend
            until(lambda: not engine.keeping.set_apart)
            assert head_in(store, "first").owner is None
            engine.recover()
        assert engine.get("first").wait(SOON)
    assert gated.ran == ["other", "second", "first"]


@pytest.mark.parametrize("before", ["other", "suspect"])
@pytest.mark.parametrize("how", ["waits", "sleeps", "is paused"])
def test_j10_a_suspect_has_its_turn_when_the_job_before_it_rests(store, how, before):
    entered, go, ran = threading.Event(), threading.Event(), []

    def handle(ctx, **_):
        ran.append(ctx.job_id)
        if ctx.job_id == "first":
            entered.set()
            assert go.wait(SOON)
            if how == "waits":
                ctx.step.wait_for_event("gate", "gate")
            elif how == "sleeps":
                ctx.step.wait_for("a day", seconds=86400)
            else:
                ctx.flow.pause(ctx.job_state)

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        for job_id in ("first", "second") if before == "suspect" else ("second",):
            lost(store, engine, flow, job_id, 1)
    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        if before == "other":
            flow.start("r0", job_id="first")
        engine.recover()
        assert entered.wait(SOON)
        assert not engine.get("second").wait(0.05)
        go.set()
        assert engine.get("second").wait(SOON)
        assert ran == ["first", "second"]
        assert engine.get("first").status == ("paused" if how == "is paused" else "waiting")
        until(lambda: not engine.keeping.set_apart)


def test_j10_a_suspect_does_not_run_beside_a_handler_of_a_paused_job(store):
    gated = Gated("other")
    with Engine(store=Mortal(store)) as engine:
        lost(store, engine, gated.flow(engine), "suspect", 1)
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        other = flow.start("r0", job_id="other")
        assert gated.entered["other"].wait(SOON)
        flow.pause(other)
        [state] = engine.recover()
        assert not state.wait(0.05)
        assert gated.ran == ["other"]
        gated.gates["other"].set()
        assert state.wait(SOON)
        assert (state.status, other.status) == ("completed", "paused")


@contextmanager
def recovered_beside_poison(store, meanwhile):
    """Recover a job, "a", and poison; ``meanwhile(flow)`` is called after both were taken up and before "a" goes on.

    Gives the engine, the flow, and a list of the jobs whose handler has run.
    """
    ran = []

    def build(engine):
        return flow_of(engine, lambda ctx, **_: ran.append(ctx.job_id))

    submitted(store, ["a"], build)
    with Engine(store=Mortal(store)) as engine:
        lost(store, engine, build(engine), "poison", 2)
    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        go_on = engine.keeping.go_on

        def first(job, asked):
            meanwhile(flow)
            go_on(job, asked)

        engine.keeping.go_on = first
        engine.recover()
        yield engine, flow, ran


def test_j10_poison_runs_for_nobody_before_it_is_failed(store):
    started = []

    def start(flow):
        started.append(flow.start("r0", job_id="poison"))
        started[0].wait(0.05)

    with recovered_beside_poison(store, start) as (engine, _, ran):
        assert started[0].wait(SOON)
        assert started[0].failure.type == PoisonError.__name__
        assert engine.get("a").wait(SOON)
        assert ran == ["a"]
    with Engine(store=Mortal(store)) as engine:
        flow_of(engine, lambda ctx, **_: None)
        assert engine.get("poison").status == "failed"


def test_j10_poison_that_is_paused_before_it_is_failed_stays_paused(store):
    def pause_it(flow):
        flow.pause(flow.engine.get("poison"))

    with recovered_beside_poison(store, pause_it) as (engine, flow, ran):
        assert engine.get("a").wait(SOON)
        state = engine.get("poison")
        assert (state.status, head_in(store, "poison").status) == ("paused", "paused")
        flow.resume(state)
        assert state.wait(SOON)
        assert (state.status, ran) == ("completed", ["a", "poison"])


def pause(store, gated):
    """Have a store hold a job that was paused by a process which has died since."""
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        state = flow.start("r0", job_id="paused")
        assert gated.entered["paused"].wait(SOON)
        flow.pause(state)
        gated.gates["paused"].set()
        assert not state.wait(SOON)
        killed(store, engine)


@pytest.mark.parametrize("counts", ["as stores do", "as stores did"])
def test_j10_a_paused_job_is_not_failed_for_what_dies_while_it_is_paused(store, monkeypatch, counts):
    if counts == "as stores did":
        monkeypatch.setattr(memory, "deaths_when_claimed", lambda head, has_entries: head.deaths + 1)
    gated = Gated("paused")
    pause(store, gated)
    for _ in range(4):
        with Engine(store=Mortal(store)) as engine:
            gated.flow(engine)
            [state] = engine.recover()
            assert (state.status, head_in(store, "paused").status) == ("paused", "paused")
            killed(store, engine)
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        [state] = engine.recover()
        flow.resume(state)
        assert state.wait(SOON)
        assert state.status == "completed"


def test_j10_a_paused_job_need_not_wait_until_nothing_else_runs(store, monkeypatch):
    gated = Gated("paused", "other")
    pause(store, gated)
    monkeypatch.setattr(memory, "deaths_when_claimed", lambda head, has_entries: 2)
    with Engine(store=Mortal(store)) as engine:
        flow = gated.flow(engine)
        flow.start("r0", job_id="other")
        assert gated.entered["other"].wait(SOON)
        [state] = engine.recover()
        assert head_in(store, "paused").owner == engine.keeping.owner
        flow.resume(state)
        assert state.wait(SOON)
        assert (state.status, gated.ran) == ("completed", ["paused", "other"])
        gated.gates["other"].set()


@pytest.mark.parametrize("how", [{}, {"durability": "async", "max_lag_seconds": 1.0}])
def test_j10_a_recovered_job_is_known_to_run_before_it_is_woken_and_to_wait_when_it_is_not(store, how):
    seen, woken = [], threading.Semaphore(0)

    def handle(ctx, **_):
        ctx.step.wait_for("a day", seconds=86400)
        seen.append(head_in(store, "j").status)
        if len(seen) == 1:
            killed(store, later)
        woken.release()

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as engine:
        assert not build(engine).start("r0", job_id="j").wait(0)
        until(lambda: head_in(store, "j").status == "waiting")
        killed(store, engine)
    clock = Clock(time_ns=lambda: time.time_ns() + 2 * 86400 * 10**9)
    for _ in range(2):  # the clock is set back in between
        with Engine(store=Mortal(store), **how) as engine:
            build(engine)
            engine.recover()
            assert head_in(store, "j").status == "waiting"
            killed(store, engine)
        with Engine(clock, store=Mortal(store), store_patience=0, **how) as later:
            build(later)
            later.recover()
            assert woken.acquire(timeout=SOON)
    assert seen == ["running", "running"]
    assert head_in(store, "j").status == "completed"


@pytest.mark.parametrize("rest", ["drop", "error", "deliver"])
def test_j4_a_join_that_is_complete_under_the_changed_flow_is_handled(store, rest):
    joined = []

    def build(engine, sources):
        def emit(name):
            def handle(ctx: Context, **_):
                if name == "c":
                    ctx.step.wait_for_event("gate", "gate")
                ctx.emit("out", **{name: 1})

            return handle

        flow = Flow("f", engine=engine)
        join = Routine()
        join.define_slot("input", handler=lambda **got: joined.append(got), gather="sources", rest=rest)
        start = Routine()
        start.define_slot("trigger", handler=lambda ctx, **_: ctx.emit("out"))
        start.define_event("out")
        flow.add_routine(start, "start")
        flow.add_routine(join, "join")
        for name in "abc":
            source = Routine()
            source.define_slot("trigger", handler=emit(name))
            source.define_event("out", [name])
            flow.add_routine(source, name)
            flow.connect("start", "out", name, "trigger")
            if name in sources:
                flow.connect(name, "out", "join", "input")
        return flow

    with Engine(store=Mortal(store)) as engine:
        assert build(engine, "abc").execute("start", job_id="j").status == "waiting"
    assert joined == []
    with Engine(store=Mortal(store)) as engine:
        build(engine, "ab")
        [state] = engine.recover(allow_changes=True)
        engine.publish("gate")
        assert state.wait(SOON)
        assert state.status == "completed"
    assert joined == [{"a": 1, "b": 1}]


# --- owners whose processes live, or do not -------------------------------------------------------------------------

tells = pytest.mark.skipif(not processes._namespace(), reason="the system does not tell which processes live")


def named_by_another(more=""):
    """Return a process that has named itself, and lives until its input is closed, and its name."""
    code = f"from routilux.runtime import processes\n{more}\nprint(processes.owner_name(), flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


@tells
def test_j7_a_process_on_this_machine_is_dead_when_it_has_ended_and_not_before():
    process, name = named_by_another()
    with process:
        assert not processes.is_dead(name)
        process.communicate("\n")
    assert processes.is_dead(name)
    assert not processes.is_dead(processes.owner_name())


@tells
@pytest.mark.parametrize("namespace", ["pid:[1]", ""])
def test_j7_a_process_that_cannot_be_seen_from_here_is_not_known_to_be_dead(namespace):
    process, name = named_by_another(f"processes._namespace = lambda: {namespace!r}")
    with process:
        process.communicate("\n")
    assert not processes.is_dead(name)


@tells
def test_j7_processes_that_are_seen_in_another_namespace_than_their_own_are_not_looked_for(monkeypatch):
    readlink = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "1" if path == "/proc/self" else readlink(path))
    assert processes.owner_name().split("|")[2] == ""
    monkeypatch.undo()
    assert processes.owner_name().split("|")[2] == os.readlink("/proc/self/ns/pid")


@tells
def test_j7_an_owner_named_without_a_namespace_is_dead_only_when_the_machine_was_started_again():
    process, name = named_by_another()
    with process:
        process.communicate("\n")
    host, boot, _, *rest = name.split("|")
    assert not processes.is_dead("|".join([host, boot, *rest]))
    assert processes.is_dead("|".join([host, "another", *rest]))
    assert not processes.is_dead("|".join([host, "", *rest]))
    assert not processes.is_dead("|".join(["another", "another", *rest]))


@tells
def test_j7_where_the_machine_does_not_tell_when_it_was_started_nothing_is_known(monkeypatch):
    name = processes.owner_name()
    monkeypatch.setattr(processes, "_boot", lambda: "")
    assert not processes.is_dead(name)


@tells
def test_j7_a_job_of_a_process_in_another_namespace_is_its_own_until_the_lease_runs_out(store):
    ran = []

    def build(engine):
        return flow_of(engine, lambda ctx, **_: ran.append(ctx.job_id))

    submitted(store, ["a"], build)
    process, name = named_by_another("processes._namespace = lambda: 'pid:[1]'")
    with process:
        process.communicate("\n")  # what can be seen from here is that there is no such process
    with Engine(store=Mortal(store)) as engine:
        build(engine)
        store.claim(name, engine.keeping.now() + 1000, engine.keeping.now(), ["a"])
        assert engine.recover() == []
    assert ran == []


@pytest.mark.parametrize("name", ["", "me", "a|b|c|d|e|f", "a|b|c|d|e|f|g"])
def test_j7_an_owner_with_any_other_name_is_not_known_to_be_dead(name):
    assert not processes.is_dead(name)


def test_j7_j10_an_engine_that_is_closed_while_a_suspect_is_taken_up_owns_it_as_long_as_it_runs(store):
    """Closing waits for what is being taken up, and lets go of that, too."""
    gated = Gated("other")
    with Engine(store=Mortal(store)) as engine:
        lost(store, engine, gated.flow(engine), "suspect", 1)
    inside, release, owners = threading.Event(), threading.Event(), []
    engine = Engine(store=Mortal(store))

    def handle(ctx, **given):
        if ctx.job_id == "suspect":
            owners.append(head_in(store, "suspect").owner)
        gated._handle(ctx, **given)

    flow = flow_of(engine, handle)
    flow.start("r0", job_id="other")
    assert gated.entered["other"].wait(SOON)
    engine.recover()
    take_up = engine.keeping.taken_up

    def slowly(*given, **options):
        inside.set()
        assert release.wait(SOON)
        return take_up(*given, **options)

    engine.keeping.taken_up = slowly
    gated.gates["other"].set()
    assert inside.wait(SOON)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    release.set()
    closer.join(SOON)
    assert not closer.is_alive()
    assert None not in owners
    assert head_in(store, "suspect").owner is None
    assert engine.keeping.held == {}
