"""S3: one editor at a time, and everybody who waits to edit does."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from parts import Signal, Source

from routilux import AsyncContext, Context, ErrorHandler, Flow, Routine
from routilux.runtime.edits import PASSES, Edits
from routilux.runtime.gate import Gate

A, B, C = (SimpleNamespace(id=name) for name in "ABC")


def editing(pool):
    record = SimpleNamespace(running={each.id: each for each in (A, B, C)})
    return Edits(Gate(), record, pool)


@pytest.fixture
def edits():
    return editing(None)


def may_act(activation):
    pass


def waiting(edits, activation):
    """Have somebody wait to edit, and return the bell."""
    bell = threading.Event()
    assert not edits.try_take(activation, may_act, bell)
    assert not bell.is_set()
    return bell


def test_s3_whoever_is_called_is_passed_so_many_times_and_no_more(edits):
    assert edits.try_take(A, may_act)
    bell = waiting(edits, B)
    for _ in range(PASSES):
        edits.give(A)
        assert bell.is_set()
        assert edits.try_take(A, may_act)
    edits.give(A)
    assert not edits.try_take(A, may_act)
    assert not edits.try_take(C, may_act)
    assert edits.try_take(B, may_act, bell)


def test_s3_passes_count_on_when_the_one_that_was_called_finds_an_editor(edits):
    assert edits.try_take(A, may_act)
    bell = waiting(edits, B)
    for _ in range(PASSES):
        edits.give(A)
        assert edits.try_take(A, may_act)
        assert not edits.try_take(B, may_act, bell)
        assert not bell.is_set()
    edits.give(A)
    assert not edits.try_take(A, may_act)
    assert edits.try_take(B, may_act, bell)


def test_s3_whoever_was_passed_is_still_the_first(edits):
    assert edits.try_take(A, may_act)
    first, second = waiting(edits, B), waiting(edits, C)
    edits.give(A)
    assert edits.try_take(A, may_act)
    assert not edits.try_take(B, may_act, first)
    edits.give(A)
    assert first.is_set()
    assert not second.is_set()
    assert edits.try_take(B, may_act, first)
    edits.give(B)
    assert second.is_set()


def test_s3_when_the_one_that_was_called_withdraws_the_next_one_is_called(edits):
    assert edits.try_take(A, may_act)
    first, second = waiting(edits, B), waiting(edits, C)
    edits.give(A)
    edits.withdraw(first)
    assert second.is_set()
    edits.withdraw(second)
    assert edits.try_take(A, may_act)


class Pool:
    @contextmanager
    def sleeping(self):
        yield


def test_s3_whoever_may_not_act_any_more_leaves_the_edit_to_the_next_one():
    edits = editing(Pool())
    looks = []

    def refused_the_third_time(activation):
        looks.append(activation)
        if len(looks) == 3:
            raise PermissionError
        if len(looks) == 2:  # B is about to wait
            threading.Thread(target=edits.give, args=[A]).start()

    assert edits.try_take(A, may_act)
    with pytest.raises(PermissionError):
        edits.take(B, refused_the_third_time)
    assert edits.try_take(C, may_act)


class Editor(Routine):
    def __init__(self, handler, **options):
        super().__init__()
        self.define_slot("input", handler=handler, **options)


@pytest.mark.parametrize("tasks", [0, 4, 8], ids=["threads", "both", "tasks"])
def test_s3_edits_of_threads_and_tasks_come_to_their_sum(tasks):
    def in_thread(ctx: Context, data):
        for _ in range(3 * PASSES):
            with ctx.store.edit_state() as state:
                state["count"] = state.get("count", 0) + 1

    async def in_task(ctx: AsyncContext, data):
        for _ in range(3 * PASSES):
            async with ctx.store.edit_state() as state:
                count = state.get("count", 0)
                await asyncio.sleep(0)  # so that others come meanwhile
                state["count"] = count + 1

    with Flow(execution_strategy="concurrent", max_workers=8) as flow:
        flow.add_routine(Source([None]), "start")
        for number in range(8):
            flow.add_routine(Editor(in_task if number < tasks else in_thread), f"editor {number}")
            flow.connect("start", "output", f"editor {number}", "input")
        state = flow.execute("start")
    assert state.error is None
    assert state.get_shared_data("count") == 8 * 3 * PASSES


def test_l3_a_task_whose_time_is_up_while_it_waits_to_edit_leaves_the_edit_to_others():
    late, edited = Signal(), []

    async def slow(ctx: AsyncContext, data):
        async with ctx.store.edit_state():
            await late

    async def impatient(ctx: AsyncContext, data):
        try:
            async with ctx.store.edit_state():
                edited.append("impatient")
        finally:
            late.set()

    async def patient(ctx: AsyncContext, data):
        async with ctx.store.edit_state():
            edited.append("patient")

    with Flow() as flow:
        flow.set_error_handler(ErrorHandler("continue"))
        flow.add_routine(Source([None]), "start")
        for name, handler, timeout in (
            ("slow", slow, None),
            ("impatient", impatient, 0.05),
            ("patient", patient, None),
        ):
            flow.add_routine(Editor(handler, timeout=timeout), name)
            flow.connect("start", "output", name, "input")
        state = flow.execute("start")
    assert [error.type for error in state.errors] == ["HandlerTimeoutError"]
    assert edited == ["patient"]
