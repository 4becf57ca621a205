"""Engines that serve: what they take, in which order, and the messages that reach the jobs."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

from crashing import Mortal
from test_durable_life import SOON, flow_of

from routilux import Engine
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
