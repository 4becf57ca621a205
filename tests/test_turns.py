"""T: a turn is a transaction (without a store: T2 and T3)."""

from __future__ import annotations

import threading

import pytest
from parts import Sink, Step, chain

from routilux import ErrorHandler, ErrorStrategy, JobState

LONG = 20.0
QUICK = {"retry_delay": 0.0}


def state_of(step) -> JobState:
    return step.get_execution_context().job_state


@pytest.mark.parametrize("strategy", ["stop", "continue"])
def test_t2_emissions_leave_at_once_under_stop_and_continue(strategy):
    """A slow source feeds its pipeline while it runs."""
    arrived = threading.Event()

    def source(step):
        step.emit("output")
        assert arrived.wait(LONG)

    flow = chain(Step(source), Step(lambda step: arrived.set()), execution_strategy="concurrent", max_workers=2)
    flow.set_error_handler(ErrorHandler(strategy))
    with flow:
        assert flow.execute("r0").status == "completed"


@pytest.mark.parametrize("strategy", ["retry", "skip"])
def test_t2_emissions_are_held_until_the_attempt_succeeds_under_retry_and_skip(strategy):
    pending = []

    def source(step):
        step.emit("output", data=1)
        pending.append(state_of(step).pending_count)
        step.emit("output", data=2)

    sink = Sink()
    flow = chain(Step(source), sink)
    flow.routines["r0"].set_error_handler(ErrorHandler(strategy))
    flow.execute("r0")
    assert pending == [1]  # the source itself
    assert sink.got == [1, 2]


def test_t2_a_handler_that_emits_and_then_fails_under_retry_has_emitted_once_in_the_end():
    def flaky(step, data):
        step.emit("output", data=data)
        if step.get_execution_context().attempt < 3:
            raise OSError("not yet")

    sink = Sink()
    flow = chain(Step(flaky), sink)
    flow.routines["r0"].set_error_handler(ErrorHandler("retry", **QUICK))
    state = flow.execute("r0", {"data": 7})
    assert state.status == "completed"
    assert sink.got == [7]
    record = state.get_execution_history("r0")[0]
    assert (record.attempt, record.emitted, record.status) == (3, 1, "completed")


def test_t2_writes_and_log_entries_are_seen_by_others_at_once():
    wrote, looked = threading.Event(), threading.Event()

    def writer(step):
        state_of(step).update_shared_data("key", "value")
        state_of(step).update_routine_state("r0", {"n": 1})
        state_of(step).append_to_shared_log({"note": "here"})
        wrote.set()
        assert looked.wait(LONG)

    with chain(Step(writer)) as flow:
        state = flow.start("r0")
        assert wrote.wait(LONG)
        assert state.get_shared_data("key") == "value"
        assert state.get_routine_state("r0") == {"n": 1}
        assert state.get_shared_log()[0]["note"] == "here"
        looked.set()


@pytest.mark.parametrize("strategy", list(ErrorStrategy))
def test_t3_a_handler_that_raises_still_commits_its_writes_and_log_entries(strategy):
    def failing(step):
        state_of(step).update_routine_state("r0", {"seen": True})
        state_of(step).update_shared_data("key", 1)
        state_of(step).append_to_shared_log({"note": "before"})
        raise ValueError("boom")

    flow = chain(Step(failing))
    flow.set_error_handler(ErrorHandler(strategy, max_retries=0))
    state = flow.execute("r0")
    assert state.get_routine_state("r0") == {"seen": True}
    assert state.get_shared_data("key") == 1
    assert [entry["note"] for entry in state.get_shared_log()] == ["before"]


@pytest.mark.parametrize(
    ("strategy", "arrives"),
    [("stop", []), ("continue", [1]), ("skip", []), ("retry", [])],
)
def test_t3_emissions_of_a_failed_turn_go_out_under_continue_only(strategy, arrives):
    def failing(step):
        step.emit("output", data=1)
        raise ValueError("boom")

    sink = Sink()
    flow = chain(Step(failing), sink)
    flow.set_error_handler(ErrorHandler(strategy, max_retries=1, **QUICK))
    flow.execute("r0")
    assert sink.got == arrives


def test_t3_under_stop_only_the_failed_turns_own_deliveries_are_withdrawn():
    def source(step):
        step.emit("output", data=1)
        step.emit("output", data=2)

    def failing(step, data):
        step.emit("output", data=data)
        step.emit("output", data=data)
        raise ValueError("boom")

    flow = chain(Step(source), Step(failing), Sink())
    state = flow.execute("r0")
    assert state.status == "failed"
    assert state.pending_count == 1  # the second emission of the source; both of the failed turn are gone


def test_t3_deliveries_of_a_failed_turn_that_have_begun_are_not_taken_back():
    begun, failed = threading.Event(), threading.Event()
    sink = Sink()

    def source(step):
        step.emit("output", data=1)
        assert begun.wait(LONG)
        step.emit("output", data=2)
        failed.set()
        raise ValueError("boom")

    def target(step, data):
        begun.set()
        assert failed.wait(LONG)
        while state_of(step).status == "running":
            pass
        sink.got.append(data)

    flow = chain(Step(source), Step(target), execution_strategy="concurrent", max_workers=2)
    with flow:
        state = flow.execute("r0")
    assert state.status == "failed"
    assert sink.got == [1]
    assert state.pending_count == 0
