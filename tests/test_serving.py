"""Engines that serve: what they take, in which order, and the messages that reach the jobs."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from crashing import Mortal
from test_durable_life import SOON, flow_of

from routilux import Engine, StoreError
from routilux.runtime import serving as serving_module
from routilux.runtime.durable_job import DurableJob
from routilux.runtime.keeping import Keeping
from routilux.runtime.owning import UNFINISHED
from routilux.store.memory import MemoryStore


@contextmanager
def serving(store, build, **options):
    """Let an engine serve on a thread; yield it, and the flow."""
    engine = Engine(store=Mortal(store), **options)
    flow = build(engine)
    thread = threading.Thread(target=engine.serve)
    thread.start()
    try:
        yield engine, flow
    finally:
        engine.close()
        thread.join(SOON)
        assert not thread.is_alive()


def until(what):
    end = time.monotonic() + SOON
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def lost(store, engine, flow, job_id, deaths):
    """Submit a job that so many owners have lost without having got anywhere."""
    engine.submit(flow, job_id=job_id)
    for number in range(deaths + 1):
        dead = [f"owner{number - 1}"] if number else []
        store.claim(f"owner{number}", 0.0, 0.0, [job_id], dead)


def test_j10_nothing_else_is_taken_while_a_suspect_runs():
    store, entered, go, order = MemoryStore(), threading.Event(), threading.Event(), []

    def handle(ctx, **_):
        order.append(ctx.job_id)
        if ctx.job_id == "suspect":
            entered.set()
            assert go.wait(SOON)

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as submitter:
        flow = build(submitter)
        lost(store, submitter, flow, "suspect", 1)
        with serving(store, build):
            assert entered.wait(SOON)
            states = [submitter.submit(flow, job_id=f"other{number}") for number in range(3)]
            submitter.publish("topic", job_id="other0")
            looks = Mortal.heads
            seen = threading.Semaphore(0)

            def heads(self, **which):
                seen.release()
                return looks(self, **which)

            Mortal.heads = heads
            try:
                for _ in range(3):
                    assert seen.acquire(timeout=SOON)
            finally:
                Mortal.heads = looks
            assert order == ["suspect"]
            go.set()
            assert all(state.wait(SOON) for state in states)
    assert order[0] == "suspect"
    assert sorted(order[1:]) == ["other0", "other1", "other2"]


class Busy:
    """Engines each of which runs a job of its own until it is told to go, when they begin to serve."""

    def __init__(self, store):
        self.store = store
        self.go = threading.Event()
        self.order = []
        self.looks = threading.Semaphore(0)
        self.claims = 0
        self._engines = 0
        self._heads, self._claim = store.heads, store.claim
        store.heads, store.claim = self._look, self._count

    def build(self, engine):
        self._engines += 1
        entered = threading.Event()

        def handle(ctx, **_):
            self.order.append(ctx.job_id)
            if ctx.job_id.startswith("busy"):
                entered.set()
                assert self.go.wait(SOON)

        flow = flow_of(engine, handle)
        flow.start("r0", job_id=f"busy{self._engines}")
        assert entered.wait(SOON)
        return flow

    def _look(self, **which):
        if which.get("statuses") == UNFINISHED:
            self.looks.release()
        return self._heads(**which)

    def _count(self, owner, until, now, jobs=(), dead=()):
        self.claims += "suspect" in jobs
        return self._claim(owner, until, now, jobs, dead)

    def see_looks(self, count):
        for _ in range(count):
            assert self.looks.acquire(timeout=SOON)


@pytest.fixture
def busy_beside_a_suspect(monkeypatch):
    """Return a store with a suspect, the engine that has submitted it, its flow, and what keeps other engines busy."""
    monkeypatch.setattr(serving_module, "ORPHANS_EVERY", 0.0)
    store = MemoryStore()
    with Engine(store=Mortal(store)) as submitter:
        flow = flow_of(submitter, lambda ctx, **_: None)
        lost(store, submitter, flow, "suspect", 1)
        yield store, submitter, flow, Busy(store)


def test_j7_j10_engines_that_are_busy_leave_a_suspect_alone_until_one_of_them_is_not(busy_beside_a_suspect):
    store, submitter, flow, busy = busy_beside_a_suspect
    with serving(store, busy.build), serving(store, busy.build):
        try:
            until(lambda: busy.claims >= 2)
            busy.see_looks(20)
            [head] = store.heads(job_id="suspect")
            assert (head.owner, head.deaths) == (None, 2)
            assert busy.claims < 6  # more than two only if one has looked while the other one let go
            busy.go.set()
            assert submitter.get("suspect").wait(SOON)
            assert submitter.submit(flow, job_id="more").wait(SOON)
        finally:
            busy.go.set()
    assert busy.order.count("suspect") == 1
    assert submitter.get("suspect").status == "completed"


def test_j10_an_engine_forgets_a_suspect_that_another_one_has_taken(busy_beside_a_suspect):
    store, submitter, flow, busy = busy_beside_a_suspect
    with serving(store, busy.build) as (engine, _):
        try:
            until(lambda: "suspect" in engine.keeping.suspects)
            state = submitter.submit(flow, job_id="more")
            assert not state.wait(0.1)
            assert store.claim("another", time.time() + 1000, time.time(), ["suspect"])
            assert state.wait(SOON)
        finally:
            busy.go.set()
    assert busy.order == ["busy1", "more"]


def test_j10_an_engine_goes_on_taking_jobs_while_those_that_it_ran_alone_wait():
    store, order = MemoryStore(), []

    def handle(ctx, **_):
        order.append(ctx.job_id)
        if ctx.job_id.startswith("suspect"):
            ctx.step.wait_for_event("gate", "gate")

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as submitter:
        flow = build(submitter)
        for number in range(2):
            lost(store, submitter, flow, f"suspect{number}", 1)
        with serving(store, build):
            until(lambda: len(submitter.jobs(status="waiting")) == 2)
            assert submitter.submit(flow, job_id="other").wait(SOON)
            assert order == ["suspect0", "suspect1", "other"]
            submitter.publish("gate")
            assert all(submitter.get(f"suspect{number}").wait(SOON) for number in range(2))


def test_j9_messages_to_jobs_that_have_ended_are_dropped():
    store = MemoryStore()

    def build(engine):
        return flow_of(engine, lambda ctx, **_: None)

    with Engine(store=Mortal(store)) as submitter:
        flow = build(submitter)
        state = submitter.submit(flow, job_id="j")
        with serving(store, build):
            assert state.wait(SOON)
            submitter.publish("topic", job_id="j")
            until(lambda: not store.receive(0))


def test_e4_j9_a_failed_job_of_an_engine_that_serves_is_resumed_from_another():
    store, mended, calls = MemoryStore(), threading.Event(), []

    def handle(ctx, **_):
        ctx.step.run("once", calls.append, 1)
        if not mended.is_set():
            raise ValueError("a fault")
        ctx.finish(ctx.step.wait_for_event("gate", "gate"))

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as submitter:
        flow = build(submitter)
        state = submitter.submit(flow, job_id="j")
        with serving(store, build):
            assert state.wait(SOON)
            assert state.status == "failed"
            mended.set()
            state = flow.resume(submitter.get("j"))
            until(lambda: submitter.jobs(status="waiting"))
            submitter.publish("gate", 7, job_id="j")
            until(lambda: submitter.jobs(status="completed"))
            assert submitter.get("j").result == 7
            until(lambda: not store.receive(0))
    assert calls == [1]


def mendable(mended):
    """Return what makes flows of one handler that fails until a fault is mended, and then waits for an event."""

    def handle(ctx, **_):
        if not mended.is_set():
            raise ValueError("a fault")
        ctx.finish(ctx.step.wait_for_event("gate", "gate"))

    return lambda engine: flow_of(engine, handle)


@pytest.mark.parametrize("resumed", ["here", "elsewhere"])
def test_e4_j9_a_failed_job_that_gets_messages_is_the_one_that_its_program_has(resumed):
    store, mended = MemoryStore(), threading.Event()
    build = mendable(mended)
    with serving(store, build) as (engine, flow), Engine(store=Mortal(store)) as other:
        state = flow.execute("r0", job_id="j")
        assert state.status == "failed"
        others = build(other)
        other.publish("gate", 7, job_id="j")
        until(lambda: not store.receive(0))
        mended.set()
        if resumed == "here":
            flow.resume(state)
        else:
            others.resume(other.get("j"))
        until(lambda: state.status == "completed")
        assert state.result == 7
        assert engine.get("j") == state


def test_e4_a_failed_job_stays_the_one_that_its_program_has_when_another_cannot_be_read():
    store, mended = MemoryStore(), threading.Event()
    build = mendable(mended)
    with Engine(store=Mortal(store)) as engine:
        flow = build(engine)
        state = flow.execute("r0", job_id="j")
        engine.submit(flow, job_id="other")
        engine.keeping.taken_up = lambda *given, **options: unreadable()
        with pytest.raises(StoreError, match="damaged"):
            engine.keeping.recover(jobs=["j", "other"])
        del engine.keeping.taken_up
        engine.keeping.recover(jobs=["j"])
        mended.set()
        engine.publish("gate", 7, job_id="j")
        flow.resume(state)
        assert state.wait(SOON)
        assert state.result == 7


def unreadable():
    raise StoreError("damaged")


def test_a_job_that_cannot_go_on_is_refused_once_and_keeps_no_other_from_it(caplog):
    store = MemoryStore()

    def waits(ctx, **_):
        ctx.step.wait_for_event("gate", "gate")

    with Engine(store=Mortal(store)) as submitter:
        old = flow_of(submitter, waits, waits)
        submitter.submit(old, entry="r0", job_id="old")
        store.send([("old", b'{"do":"run"}')])
    with serving(store, lambda engine: flow_of(engine, waits)) as (engine, flow):
        state = engine.submit(flow, job_id="new")
        until(lambda: engine.jobs(status="waiting"))
        engine.publish("gate", job_id="new")
        assert state.wait(SOON)
    assert sum("has changed since" in record.message for record in caplog.records) == 1


# --- messages that cannot be seen to --------------------------------------------------------------------------------


def waits(ctx, **_):
    ctx.finish(ctx.step.wait_for_event("gate", "gate"))


def recovered(store, build, job_id):
    """Return the result of a job with which another engine goes on."""
    with Engine(store=Mortal(store)) as engine:
        build(engine)
        engine.recover()
        state = engine.get(job_id)
        assert state.wait(SOON)
        return state.result


def test_j9_a_message_to_a_job_that_is_let_go_of_just_then_is_seen_to_by_whoever_goes_on_with_it(monkeypatch):
    store, halted, caught = MemoryStore(), threading.Event(), threading.Event()

    def build(engine):
        return flow_of(engine, waits)

    halt = DurableJob.halt

    def noted(job, error):
        halt(job, error)
        halted.set()

    monkeypatch.setattr(DurableJob, "halt", noted)
    with Engine(store=Mortal(store)) as other:
        build(other)
        with serving(store, build) as (engine, flow):
            assert flow.execute("r0", job_id="j").status == "waiting"
            find = engine.keeping.find

            def found(job_id):
                job = find(job_id)
                if job is not None and not halted.is_set():
                    caught.set()
                    assert halted.wait(SOON)
                return job

            engine.keeping.find = found
            other.publish("gate", 7, job_id="j")
            assert caught.wait(SOON)
        assert len(store.receive(0)) == 1
    assert recovered(store, build, "j") == 7


def test_j9_an_engine_that_is_being_closed_takes_no_job_again_that_it_has_let_go_of(monkeypatch):
    store, entered, go, let_go, ran = MemoryStore(), threading.Event(), threading.Event(), threading.Event(), []

    def handle(ctx, **_):
        if ctx.job_id == "slow":
            entered.set()
            assert go.wait(SOON)
        else:
            ran.append(ctx.job_id)
            ctx.flow.pause(ctx.job_state)

    def build(engine):
        return flow_of(engine, handle, lambda ctx, **_: ran.append("later"))

    rested = Keeping.rested

    def noted(keeping, job):
        rested(keeping, job)
        if job.record.job_id == "j" and job.halted is not None:
            let_go.set()

    monkeypatch.setattr(Keeping, "rested", noted)
    with Engine(store=Mortal(store)) as other:
        flow = build(other)
        with serving(store, build) as (engine, mine):
            mine.execute("r0", job_id="j")
            mine.start("r0", job_id="slow")
            assert entered.wait(SOON)
            closing = threading.Thread(target=engine.close)
            closing.start()
            assert let_go.wait(SOON)
            looks = threading.Semaphore(0)
            receive = engine.store.receive
            engine.store.receive = lambda after: (looks.release(), receive(after))[1]
            flow.resume(other.get("j"))
            for _ in range(3):
                assert looks.acquire(timeout=SOON)
            assert "j" not in engine.keeping.held
            assert len(store.receive(0)) == 1
            go.set()
            closing.join(SOON)
        assert other.get("j").status == "paused"
    assert ran == ["j"]


def test_l2_j9_a_flow_that_is_being_shut_down_keeps_no_other_from_its_messages(caplog):
    store, entered, go = MemoryStore(), threading.Event(), threading.Event()

    def handle(ctx, **_):
        if ctx.job_id != "slow":
            return waits(ctx)
        entered.set()
        return ctx.finish(go.wait(SOON))

    def build(engine):
        return flow_of(engine, handle), flow_of(engine, waits, flow_id="other")

    with Engine(store=Mortal(store)) as sender:
        build(sender)
        with serving(store, build) as (_, (flow, other)):
            slow, asleep = flow.start("r0", job_id="slow"), flow.execute("r0", job_id="asleep")
            awaiting = other.execute("r0", job_id="awaiting")
            assert entered.wait(SOON)
            leaving = threading.Thread(target=flow.shutdown)
            leaving.start()
            until(lambda: flow._jobs.are_shut_down)
            sender.publish("gate", 1, job_id="asleep")
            sender.publish("gate", 2, job_id="awaiting")
            assert awaiting.wait(SOON)
            assert (awaiting.result, asleep.status) == (2, "waiting")
            until(lambda: [each.job_id for each in store.receive(0)] == ["asleep"])
            go.set()
            leaving.join(SOON)
            assert not leaving.is_alive()
            assert slow.status == "completed"
    told = [each.message for each in caplog.records if "'asleep' stay in the inbox" in each.message]
    assert len(told) == 1
    assert "was shut down" in told[0]
    assert recovered(store, build, "asleep") == 1


class Picky(MemoryStore):
    """A store that has no room for one job while ``full``."""

    full = True

    def append(self, job_id, *given):
        if self.full and job_id == "slow":
            raise StoreError("no room")
        super().append(job_id, *given)


def test_j9_messages_to_a_job_that_has_halted_wait_in_their_order_and_keep_no_others_from_being_seen_to():
    store, entered, go = Picky(), threading.Event(), threading.Event()
    store.full = False

    def handle(ctx, **_):
        entered.set()
        if ctx.job_id == "slow":
            assert go.wait(SOON)
        ctx.finish([ctx.step.wait_for_event(f"gate{index}", "gate") for index in range(2)])

    def build(engine):
        return flow_of(engine, handle)

    with Engine(store=Mortal(store)) as sender:
        build(sender)
        with serving(store, build, store_patience=0) as (engine, flow):
            other = flow.execute("r0", job_id="other")
            entered.clear()
            slow = flow.start("r0", job_id="slow")
            assert entered.wait(SOON)
            store.full = True
            for number, job_id in enumerate(["slow", "other", "slow", "other"]):
                sender.publish("gate", number, job_id=job_id)
            assert other.wait(SOON)
            assert other.result == [1, 3]
            assert "slow" in engine.keeping.held
            until(lambda: [each.job_id for each in store.receive(0)] == ["slow", "slow"])
            store.full = False
            go.set()
            with pytest.raises(StoreError, match="no room"):
                slow.wait(SOON)
            until(lambda: engine.jobs(status="completed", flow_id="f")[-1:] and engine.get("slow").status.ended)
            assert engine.get("slow").result == [0, 2]
            until(lambda: not store.receive(0))


class Damaged(MemoryStore):
    """A store that cannot read one job."""

    def read(self, job_id):
        if job_id == "damaged":
            raise StoreError("its entries are missing")
        return super().read(job_id)


def test_j9_a_job_that_cannot_be_read_keeps_no_others_from_their_messages():
    store = Damaged()

    def build(engine):
        return flow_of(engine, waits)

    with Engine(store=Mortal(store)) as sender:
        flow = build(sender)
        sender.submit(flow, job_id="damaged")
        with serving(store, build) as (_, flow):
            state = flow.execute("r0", job_id="j")
            sender.publish("gate", 7, job_id="j")
            assert state.wait(SOON)
    assert state.result == 7


def test_j9_a_message_that_is_none_keeps_no_others_from_being_seen_to():
    store = MemoryStore()
    with Engine(store=Mortal(store)) as engine:
        flow = flow_of(engine, lambda ctx, **_: ctx.finish(ctx.step.wait_for_event("e", "topic")))
        state = flow.start("r0", job_id="j")
        for body in (b"junk", b"[]", b"{}", b'{"do": 1}'):
            store.send([("j", body)])
        with Engine(store=Mortal(store)) as other:
            flow_of(other, None)
            other.publish("topic", 7, "j")
        server = threading.Thread(target=engine.serve)
        server.start()
        assert state.wait(SOON)
        assert state.result == 7
        until(lambda: not store.receive(0))
    server.join(SOON)
