"""E: what happens when handlers raise."""

from __future__ import annotations

import threading

import pytest
from parts import Sink, Source, Step, chain

from routilux import Engine, ErrorHandler, ExecutionError, JobState, open_store

LONG = 20.0
STRATEGIES = ["stop", "continue", "skip", "retry"]
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


class Boom(Exception):
    pass


def boom(step, **_):
    raise Boom("it broke")


def handler(strategy, **options):
    return ErrorHandler(strategy, **{"max_retries": 2, "retry_delay": 0.0, **options})


# --- E1, E2 -------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_e1_every_strategy_covers_the_entry_handler(strategy, options):
    sink = Sink()
    with chain(Step(boom), sink, **options) as flow:
        flow.set_error_handler(handler(strategy))
        state = flow.execute("r0")
    fails = strategy in ("stop", "retry")
    assert state.status == ("failed" if fails else "completed")
    assert [error.type for error in state.errors] == ["Boom"]
    record = state.get_execution_history()[0]
    assert record.status == ("skipped" if strategy == "skip" else "failed")
    assert record.attempt == (3 if strategy == "retry" else 1)


@MODES
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_e1_every_strategy_covers_downstream_handlers(strategy, options):
    sink = Sink()

    def every_third(step, data):
        step.emit("output", data=data)
        if data % 3 == 0:
            raise Boom(str(data))

    with chain(Source(range(9)), Step(every_third), sink, **options) as flow:
        flow.set_error_handler(handler(strategy))
        state = flow.execute("r0")
    history = state.get_execution_history("r1")
    if strategy == "continue":
        assert (state.status, len(history), len(state.errors)) == ("completed", 9, 3)
        assert sink.got == list(range(9))
    elif strategy == "skip":
        assert (state.status, len(history), len(state.errors)) == ("completed", 9, 3)
        assert sink.got == [1, 2, 4, 5, 7, 8]
        assert [record.status for record in history].count("skipped") == 3
    else:
        assert (state.status, len(history), len(state.errors)) == ("failed", 1, 1)
        # A delivery that another worker had begun before the failure is not taken back.
        assert sink.got in ([[], [0]] if strategy == "stop" and options else [[]])


def test_e1_the_routines_handler_goes_before_the_flows_and_the_flows_before_stop():
    flow = chain(Source([1]), Step(boom), Sink())
    assert flow.execute("r0").status == "failed"
    flow.set_error_handler(handler("continue"))
    assert flow.execute("r0").status == "completed"
    flow.routines["r1"].set_error_handler(handler("stop"))
    assert flow.execute("r0").status == "failed"


def test_e2_stop_lets_running_handlers_finish_and_commit_and_starts_nothing():
    running, failed = threading.Event(), threading.Event()

    def failing(step, data):
        assert running.wait(LONG)
        failed.set()
        raise Boom("now")

    def other(step, data):
        running.set()
        assert failed.wait(LONG)
        while step.get_execution_context().job_state.status == "running":
            pass
        step.get_execution_context().job_state.update_shared_data("other", "finished")
        step.emit("output", data=data)

    flow = chain(Source([1]), Step(other), Sink(), execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(failing), "failing")
    flow.connect("r0", "output", "failing", "input")
    with flow:
        state = flow.execute("r0")
    assert state.status == "failed"
    assert state.get_shared_data("other") == "finished"
    assert {record.routine_id: record.status for record in state.get_execution_history()} == {
        "r0": "completed",
        "r1": "completed",
        "failing": "failed",
    }
    assert state.pending_count == 1  # what the other emitted is kept


def test_e2_what_is_queued_is_kept_when_the_job_stops():
    flow = chain(Source(range(5)), Step(boom))
    state = flow.execute("r0")
    assert state.pending_count == 4


def test_e2_retry_runs_again_until_it_succeeds():
    attempts = []

    def flaky(step):
        attempts.append(step.get_execution_context().attempt)
        if len(attempts) < 3:
            raise Boom("again")

    flow = chain(Step(flaky))
    flow.set_error_handler(handler("retry", max_retries=5))
    state = flow.execute("r0")
    assert state.status == "completed"
    assert attempts == [1, 2, 3]
    assert state.errors == []
    assert len(state.get_execution_history()) == 1


def test_e2_only_retryable_exceptions_are_retried():
    calls = []
    flow = chain(Step(lambda step: calls.append(1) or boom(step)))
    flow.set_error_handler(handler("retry", retryable_exceptions=(OSError,)))
    assert flow.execute("r0").status == "failed"
    assert len(calls) == 1


def test_e2_between_attempts_no_other_delivery_of_the_mailbox_starts():
    order = []

    def flaky(step, data):
        attempt = step.get_execution_context().attempt
        order.append((data, attempt))
        if data == 0 and attempt == 1:
            raise Boom("again")

    flow = chain(Source(range(3)), Step(flaky))
    flow.set_error_handler(handler("retry", retry_delay=0.01))
    assert flow.execute("r0").status == "completed"
    assert order == [(0, 1), (0, 2), (1, 1), (2, 1)]


def test_e2_a_retry_holds_no_thread_and_delays_no_other_job():
    """While one job waits for its retry, the only worker runs another job to its end."""
    failed_once, other_done = threading.Event(), threading.Event()

    def flaky(step):
        if step.get_execution_context().attempt == 1:
            failed_once.set()
            raise Boom("again")
        assert other_done.is_set()

    waiting = chain(Step(flaky), max_workers=1)
    waiting.set_error_handler(handler("retry", retry_delay=0.2))
    other = chain(Source(range(200)), Sink(), max_workers=1)
    with waiting, other:
        first = waiting.start("r0")
        assert failed_once.wait(LONG)
        second = other.start("r0")
        assert second.wait(LONG)
        assert not first.status.ended
        other_done.set()
        assert first.wait(LONG)
    assert (first.status, second.status) == ("completed", "completed")


def test_e2_no_wait_after_the_last_attempt():
    flow = chain(Step(boom))
    flow.set_error_handler(handler("retry", max_retries=0, retry_delay=3_600.0, max_delay=3_600.0))
    assert flow.execute("r0", timeout=LONG).error.type == "Boom"


def test_e2_errors_under_continue_are_recorded_and_the_job_completes():
    flow = chain(Source(range(3)), Step(boom))
    flow.routines["r1"].set_as_optional()
    state = flow.execute("r0")
    assert state.status == "completed"
    assert len(state.errors) == 3
    state.raise_for_status()


def test_e2_a_failing_entry_under_retry_exhausts_its_attempts_and_fails_the_job():
    flow = chain(Step(boom))
    flow.routines["r0"].set_as_critical(max_retries=2, retry_delay=0.0)
    state = flow.execute("r0")
    assert (state.status, state.error.attempt) == ("failed", 3)


# --- E3 -----------------------------------------------------------------------------------------------------------


@MODES
def test_e3_execute_returns_the_state_and_the_error_tells_all(options):
    with chain(Source([1]), Step(boom), **options) as flow:
        state = flow.execute("r0")
    error = state.error
    assert (error.type, error.message, error.routine_id, error.slot, error.attempt) == (
        "Boom",
        "it broke",
        "r1",
        "input",
        1,
    )
    assert "def boom" not in error.traceback
    assert "Boom: it broke" in error.traceback
    assert 'raise Boom("it broke")' in error.traceback


def test_e3_error_is_the_first_and_errors_are_all():
    flow = chain(Source("ab"), Step(lambda step, data: boom(step) if data == "b" else int("x")))
    flow.set_error_handler(handler("continue"))
    state = flow.execute("r0")
    assert [error.type for error in state.errors] == ["ValueError", "Boom"]
    assert state.error == state.errors[0]


def test_e3_raise_for_status_raises_the_original_exception():
    original = Boom("the very one")

    def failing(step):
        raise original

    state = chain(Step(failing)).execute("r0")
    with pytest.raises(Boom) as caught:
        state.raise_for_status()
    assert caught.value is original


def test_e3_raise_for_status_raises_what_failed_the_job_not_what_it_survived():
    flow = chain(Source("ab"), Step(lambda step, data: int("x") if data == "a" else step.emit("output")), Step(boom))
    flow.routines["r1"].set_as_optional()
    state = flow.execute("r0")
    assert state.error.type == "ValueError"
    with pytest.raises(Boom):
        state.raise_for_status()


@pytest.mark.parametrize("store", [None, "memory:"])
def test_e3_failure_is_the_error_that_failed_the_job_also_when_it_was_loaded(store):
    """The job survives two errors; the third fails it."""
    mended = threading.Event()

    def broken(step, data):
        if not mended.is_set():
            raise Boom(f"number {data} broke")

    with Engine(store=None if store is None else open_store(store)) as engine:
        flow = chain(Source("ab"), Step(broken), Step(broken), engine=engine)
        flow.connect("r0", "output", "r2", "input")
        flow.routines["r1"].set_as_optional()
        state = flow.execute("r0")
        assert (str(state.error), str(state.failure)) == tuple(f"Boom: number a broke in r{n}.input" for n in (1, 2))
        states = [state, flow.restore(state.to_dict())]
        if store is not None:
            states.append(JobState(engine.keeping.foreign(engine.keeping.head_of(state.job_id))))
        for each in states:
            assert each.failure == state.failure
            assert sum(error is each.failure for error in each.errors) == 1
            lines = each.summary().splitlines()
            assert lines[2] == "failed by: Boom: number a broke in r2.input"
            assert lines[-3:] == ["other errors: 2", *(f"  Boom: number {x} broke in r1.input" for x in "ab")]
        mended.set()
        assert flow.resume(state).wait(LONG)
        assert (state.status, state.failure, len(state.errors)) == ("completed", None, 3)
        assert "errors, which the job survived: 3" in state.summary()
        assert "failed by" not in state.summary()


def test_e3_raise_for_status_of_a_cancelled_job_raises_execution_error_with_the_reason():
    flow = chain(Step(lambda step: flow.cancel(step.get_execution_context().job_state, "enough")))
    state = flow.execute("r0")
    with pytest.raises(ExecutionError, match="was cancelled: enough"):
        state.raise_for_status()


def test_e3_raise_for_status_of_a_completed_job_does_nothing():
    assert chain(Sink()).execute("r0").raise_for_status() is None


@MODES
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_e3_a_request_to_stop_is_recorded_whatever_the_strategy_and_raised_again(kind, strategy, options):
    seen = []

    def stopping(step, **_):
        seen.append(step.get_execution_context().job_state)
        raise kind("stop")

    with chain(Source([1, 2]), Step(stopping), **options) as flow:
        flow.set_error_handler(handler(strategy))
        with pytest.raises(kind):
            flow.execute("r0")
    assert seen[0].status == "failed"
    assert seen[0].error.type == kind.__name__


def test_e3_a_request_to_stop_inside_a_nested_handler_unwinds_the_emitter_too():
    after = []

    def source(step):
        for _ in range(10):
            step.emit("output")
        after.append("went on")

    def stopping(step):
        raise KeyboardInterrupt

    flow = chain(Step(source), Step(stopping), max_pending=1)
    with pytest.raises(KeyboardInterrupt):
        flow.execute("r0")
    assert after == []


def test_e3_an_exception_whose_message_cannot_be_made_is_recorded_all_the_same():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def failing(step):
        raise Mute

    state = chain(Step(failing)).execute("r0")
    assert state.status == "failed"
    assert state.error.type == "Mute"
    assert "RuntimeError" in state.error.message
