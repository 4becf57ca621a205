"""J4 with ``durability="async"``: what is committed is written soon, in order, and before ``execute`` returns."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from parts import Sink, Source, Step, chain
from test_durable_engine import Lasting, handled

from routilux import Engine, StaleWriterError, StoreError, open_store
from routilux.runtime.write_behind import WriteBehind
from routilux.store.base import JobHead

LONG = 20.0


class Gated(Lasting):
    """A store whose appends wait for ``open``, after the first one of a job, and raise what is in ``errors``."""

    def __init__(self, store: Any = None) -> None:
        super().__init__(store)
        self.open = threading.Event()
        self.reached = threading.Event()
        self.errors: list[StoreError] = []
        self.sizes: list[int] = []

    def append(self, job_id: str, after: int, entries: Any, epoch: int, head: Any = None) -> None:
        if after:
            self.reached.set()
            assert self.open.wait(LONG)
            if self.errors:
                raise self.errors.pop(0)
            self.sizes.append(len(entries))
        self.store.append(job_id, after, entries, epoch, head)


@pytest.fixture
def store():
    return Gated()


def test_j4_execute_and_wait_return_when_all_is_in_the_store(store):
    with Engine(store=store, durability="async", max_lag_seconds=LONG) as engine:
        flow = handled(lambda ctx, **_: ctx.finish(1), engine)
        ways = [
            lambda: flow.execute("r", job_id="a"),
            lambda: flow.start("r", job_id="b").wait(),
            lambda: flow.execute("r", job_id="c", timeout=LONG),
            lambda: flow.start("r", job_id="d").wait(LONG),
            lambda: asyncio.run(flow.aexecute("r", job_id="e")),
        ]
        for index, way in enumerate(ways):
            store.open.clear()
            store.reached.clear()
            thread = threading.Thread(target=way)
            thread.start()
            assert store.reached.wait(LONG)
            assert thread.is_alive()
            store.open.set()
            thread.join(LONG)
            assert not thread.is_alive()
            assert store.heads(job_id="abcde"[index])[0].status == "completed"


def test_j4_handlers_go_on_before_what_they_did_is_written(store):
    with Engine(store=store, durability="async") as engine:
        flow = chain(Source(range(10)), sink := Sink(), engine=engine)
        state = flow.start("r0", job_id="j")
        while len(sink.got) < 10:  # nothing but the beginning has been written
            assert not engine.closing.wait(0.001)
        assert not store.sizes
        store.open.set()
        assert state.wait(LONG)
        assert store.heads()[0].status == "completed"


def test_j4_what_waits_is_bounded_and_written_in_order():
    store = Gated()
    behind = WriteBehind(store, 4, 60.0)
    head = JobHead("j", "f", "running", 0.0, 0.0, "me", 1)
    behind.append("j", 0, [b"1"], 1, head)
    for index in range(1, 5):
        behind.append("j", index, [b"%d" % (index + 1)], 1)
    pressed = threading.Thread(target=behind.append, args=("j", 5, [b"6"], 1))
    pressed.start()
    assert store.reached.wait(LONG)  # it is full before the time is up
    assert len(behind._waiting) + behind._writing == 4
    assert pressed.is_alive()
    store.open.set()
    pressed.join(LONG)
    behind.flush()
    assert store.read("j")[2] == [b"1", b"2", b"3", b"4", b"5", b"6"]
    behind.append("j", 6, [b"7"], 1)
    behind.close()
    assert store.read("j")[2][-1] == b"7"
    with pytest.raises(StoreError, match="closed"):
        behind.append("j", 7, [b"8"], 1)


def test_a_store_that_is_full_for_a_while_is_asked_again(store):
    store.errors = [StoreError("disk full"), StoreError("disk full")]
    store.open.set()
    with Engine(store=store, durability="async", store_patience=LONG) as engine:
        state = chain(Source(range(3)), sink := Sink(), engine=engine).execute("r0", job_id="j")
        assert (state.status, sink.got, store.errors) == ("completed", [0, 1, 2], [])
        assert store.heads()[0].status == "completed"


@pytest.mark.parametrize("error", [StoreError("disk full"), StaleWriterError("not yours")])
def test_what_cannot_be_written_is_raised_by_execute(error, store):
    store.errors = [error] * 10
    store.open.set()
    with Engine(store=store, durability="async", store_patience=0.0) as engine:
        flow = chain(Source(range(3)), Sink(), engine=engine)
        with pytest.raises(type(error), match=str(error)):
            flow.execute("r0", job_id="j")
        store.errors = []
        assert flow.execute("r0", job_id="k").status == "completed"
        assert {head.job_id: head.status for head in store.heads()} == {"j": "running", "k": "completed"}


def test_closing_writes_everything():
    store = Lasting(open_store("memory:"))
    engine = Engine(store=store, durability="async", max_lag_seconds=LONG)
    go = threading.Event()

    def slow(step: Step, data: int) -> None:
        step.get_execution_context().store.set(f"k{data}", data)
        if data == 2:
            go.set()

    flow = chain(Source(range(3)), Step(slow), engine=engine)
    flow.start("r0", job_id="j")
    assert go.wait(LONG)
    engine.close()
    with Engine(store=store) as engine:
        flow = chain(Source(range(3)), Step(slow), engine=engine)
        state = engine.get("j")
        assert [state.get_shared_data(f"k{index}") for index in range(3)] == [0, 1, 2]
