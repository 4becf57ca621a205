"""L: the life of a job, cancelling, finishing, and running out of time."""

from __future__ import annotations

import threading
import time

import pytest
from parts import Sink, Source, Step, chain, threads_besides

from routilux import (
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ExecutionError,
    HandlerTimeoutError,
    JobTimeoutError,
    StatusError,
)

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def job_of(step):
    return step.get_execution_context().job_state


# --- L1, L2: cancel -----------------------------------------------------------------------------------------------


def test_l1_status_prints_and_compares_as_its_name():
    state = chain(Sink()).execute("r0")
    assert state.status == "completed"
    assert f"{state.status}" == str(state.status) == "completed"
    assert f"{state.status:>12}" == "   completed"
    assert state.status.ended


def test_l1_completed_and_cancelled_are_final():
    flow = chain(Sink())
    state = flow.execute("r0")
    with pytest.raises(StatusError, match="is completed and cannot become cancelled"):
        flow.cancel(state)


def test_l2_cancelling_twice_is_refused():
    flow = chain(Step(lambda step: flow.cancel(job_of(step))))
    state = flow.execute("r0")
    with pytest.raises(StatusError, match="cancelled"):
        flow.cancel(state)


@MODES
def test_l2_cancel_from_inside_a_handler_drops_all_that_is_queued(options):
    sink, seen = Sink(), {}

    def source(step):
        for item in range(100_000):
            step.emit("output", data=item)
        seen["pending"] = job_of(step).pending_count
        flow.cancel(job_of(step), "seen enough")
        seen["status"] = str(job_of(step).status)
        seen["left"] = job_of(step).pending_count
        seen["cancelled"] = step.get_execution_context().cancelled
        step.emit("output", data=-1)
        job_of(step).update_shared_data("late", 1)
        job_of(step).append_to_shared_log({"late": 1})
        step.send_output("late")

    hold = threading.Event()
    first = Step(lambda step, data: (sink.got.append(data), hold.wait(LONG)))
    threads = threading.enumerate()
    flow = chain(Step(source), first, max_pending=1_000_000, engine=Engine(), **options)
    flow_cancel = flow.cancel

    def cancel(*args):
        flow_cancel(*args)
        hold.set()

    flow.cancel = cancel
    with flow:
        state = flow.execute("r0")
        assert state.wait(LONG)
    assert seen["pending"] >= 100_000
    assert seen["status"] == "cancelled"
    assert seen["left"] <= 2  # the handlers that run
    assert seen["cancelled"]
    assert len(sink.got) <= 1
    assert state.status == "cancelled"
    assert "seen enough" in state.summary()
    assert state.get_shared_data("late") is None
    assert state.get_shared_log() == []
    assert state.outputs == []
    assert state.pending_count == 0
    assert not threads_besides(threads)


@MODES
def test_l2_cancel_from_outside_starts_no_further_handler(options):
    started, cancelled = threading.Event(), threading.Event()
    handled = []

    def target(step, data):
        handled.append(data)
        started.set()
        assert cancelled.wait(LONG)

    threads = threading.enumerate()
    with chain(Source(range(100_000)), Step(target), max_pending=1_000_000, engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert started.wait(LONG)
        flow.cancel(state, "from outside")
        cancelled.set()
        assert state.wait(LONG)
        assert state.status == "cancelled"
        assert state.pending_count == 0
        assert handled == [0]
        assert {record.status for record in state.get_execution_history("r1")} == {"cancelled"}
    assert not threads_besides(threads)


def test_l2_cancel_discards_a_retry_that_waits():
    failed = threading.Event()
    engine = Engine()

    def failing(step):
        failed.set()
        raise OSError("later")

    flow = chain(Step(failing), engine=engine)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=3_600.0, max_delay=3_600.0))
    with flow:
        state = flow.start("r0")
        assert failed.wait(LONG)
        while not state._job.timers:  # until the worker has committed the attempt
            pass
        flow.cancel(state)
        assert state.wait(LONG)
    assert state.pending_count == 0
    assert engine.timers._heap == []


def test_l2_cancelling_a_job_of_another_flow_is_refused():
    state = chain(Sink()).execute("r0")
    with pytest.raises(ExecutionError, match="not a job of this flow"):
        chain(Sink()).cancel(state)
    with pytest.raises(ExecutionError, match="expected the JobState"):
        chain(Sink()).cancel("job")


# --- L2: finish ---------------------------------------------------------------------------------------------------


@MODES
def test_l2_finish_ends_the_job_as_completed_with_its_result(options):
    sink = Sink()

    def source(step):
        step.get_execution_context().finish({"answer": [42]})
        job_of(step).update_shared_data("key", "the finisher's own writes count")

    with chain(Step(source), sink, **options) as flow:
        state = flow.execute("r0")
    assert state.status == "completed"
    assert state.result == {"answer": [42]}
    assert state.get_shared_data("key") == "the finisher's own writes count"
    state.result["answer"].append(1)
    assert state.result == {"answer": [42]}


def test_l2_finish_takes_effect_when_its_handler_has_returned_and_drops_what_is_queued():
    sink, during = Sink(), []

    def source(step):
        step.emit("output", data=1)
        step.get_execution_context().finish("early")
        during.append(str(job_of(step).status))

    state = chain(Step(source), sink).execute("r0")
    assert during == ["running"]
    assert sink.got == []
    assert state.pending_count == 0


def test_l2_finish_of_a_handler_that_then_raises_does_nothing():
    def source(step):
        step.get_execution_context().finish("early")
        raise ValueError("after all")

    flow = chain(Step(source))
    assert flow.execute("r0").status == "failed"
    flow.set_error_handler(ErrorHandler("continue"))
    state = flow.execute("r0")
    assert (state.status, state.result) == ("completed", None)


def test_l2_finish_drops_what_other_handlers_do_afterwards_and_waits_for_them():
    running, finished = threading.Event(), threading.Event()
    seen = []

    def other(step, data):
        running.set()
        assert finished.wait(LONG)
        while not step.get_execution_context().cancelled:
            pass
        job_of(step).update_shared_data("late", 1)
        step.emit("output", data=1)
        seen.append("returned")

    def finisher(step, data):
        assert running.wait(LONG)
        step.get_execution_context().finish("done")
        finished.set()

    flow = chain(Source([1]), Step(other), Sink(), execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(finisher), "finisher")
    flow.connect("r0", "output", "finisher", "input")
    with flow:
        state = flow.execute("r0")
    assert (state.status, state.result) == ("completed", "done")
    assert seen == ["returned"]
    assert state.get_shared_data("late") is None
    statuses = {record.routine_id: record.status for record in state.get_execution_history()}
    assert statuses == {"r0": "completed", "finisher": "completed", "r1": "cancelled"}


# --- L3 -----------------------------------------------------------------------------------------------------------


@MODES
def test_l3_execute_with_a_timeout_returns_while_a_handler_still_runs(options):
    release, refused = threading.Event(), []
    engine = Engine()

    def stuck(step, data):
        ctx = step.get_execution_context()
        job = ctx.job_state
        job.update_shared_data("before", 1)
        assert release.wait(LONG)
        for operation in (
            lambda: step.emit("output", data=1),
            lambda: ctx.finish(1),
            lambda: step.send_output("late"),
            lambda: job.update_shared_data("late", 1),
            lambda: job.append_to_shared_log({"late": 1}),
        ):
            with pytest.raises(ContextError, match="time was up"):
                operation()
            refused.append(1)
        assert ctx.cancelled
        done.set()

    done = threading.Event()
    flow = chain(Source([1, 2]), Step(stuck), Sink(), engine=engine, **options)
    state = flow.execute("r0", timeout=0.05)
    assert state.status == "failed"
    assert state.error.type == "JobTimeoutError"
    assert "0.05 seconds; still running: r1.input" in state.error.message
    with pytest.raises(JobTimeoutError):
        state.raise_for_status()
    assert engine.given_up_threads == 1
    release.set()
    assert done.wait(LONG)
    assert len(refused) == 5
    assert (state.get_shared_data("before"), state.get_shared_data("late")) == (1, None)
    record = state.get_execution_history("r1")[0]
    assert (record.status, record.emitted) == ("failed", 0)
    flow.shutdown()


def test_l3_the_thread_of_a_given_up_handler_is_replaced_and_ends_when_it_returns():
    release, engine = threading.Event(), Engine()
    stuck = chain(Step(lambda step: release.wait(LONG)), engine=engine, max_workers=1)
    quick = chain(Sink(), engine=engine, max_workers=1)
    before = threading.enumerate()
    for _ in range(3):
        assert stuck.execute("r0", timeout=0.02).status == "failed"
    assert engine.given_up_threads == 3
    assert quick.start("r0").wait(LONG)
    release.set()
    quick.shutdown()
    stuck.shutdown()
    ended_by(before)
    assert engine.given_up_threads == 0


def ended_by(before):
    """Wait for the threads that are not among those of before: given-up ones end by themselves, nobody joins them."""
    for thread in threads_besides(before):
        thread.join(LONG)
        assert not thread.is_alive()


def test_l3_a_job_that_ends_in_time_is_not_touched_by_its_timeout():
    flow = chain(Source([1]), Sink())
    with flow:
        assert flow.execute("r0", timeout=LONG).status == "completed"


@MODES
def test_l3_a_handler_timeout_is_an_error_of_its_activation(options):
    release, after = threading.Event(), Sink()

    def sometimes_stuck(step, data):
        step.emit("output", data=data)
        if data == 1:
            release.wait(LONG)
            with pytest.raises(ContextError):
                step.emit("output", data="late")

    flow = chain(Source(range(3)), Step(sometimes_stuck, timeout=0.05), after, engine=Engine(), **options)
    flow.set_error_handler(ErrorHandler("continue"))
    before = threading.enumerate()
    with flow:
        state = flow.execute("r0")
        assert state.status == "completed"
        assert after.got == [0, 1, 2]
        assert [error.type for error in state.errors] == ["HandlerTimeoutError"]
        assert "routine 'r1', slot 'input': the handler ran longer than its timeout of 0.05" in state.error.message
        assert [record.status for record in state.get_execution_history("r1")] == ["completed", "failed", "completed"]
        assert flow.engine.given_up_threads == 1
        release.set()
    ended_by(before)
    assert flow.engine.given_up_threads == 0


def test_l3_a_handler_timeout_under_stop_fails_the_job_and_under_retry_runs_again():
    release = threading.Event()

    def stuck_once(step):
        if step.get_execution_context().attempt == 1:
            release.wait(LONG)

    flow = chain(Step(stuck_once, timeout=0.03))
    state = flow.execute("r0")
    assert state.status == "failed"
    with pytest.raises(HandlerTimeoutError):
        state.raise_for_status()
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    state = flow.execute("r0")
    assert (state.status, state.get_execution_history()[0].attempt) == ("completed", 2)
    release.set()


def test_l3_a_handler_with_a_timeout_that_raises_in_time_raises_its_own_error():
    flow = chain(Step(lambda step: int("x"), timeout=LONG))
    assert flow.execute("r0").error.type == "ValueError"


def test_d7_time_spent_on_nested_handlers_does_not_count_against_the_timeout():
    slow = threading.Event()

    def source(step):
        for _ in range(3):
            step.emit("output")

    def target(step):
        slow.wait(0.04)

    flow = chain(Step(source, timeout=0.05), Step(target), max_pending=1)
    state = flow.execute("r0")
    assert state.status == "completed", state.errors


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "1", True])
def test_l3_absurd_timeouts_are_refused_before_anything_runs(bad):
    sink = Sink()
    flow = chain(sink)
    with pytest.raises(DeclarationError, match="timeout must be a number above 0"):
        flow.execute("r0", timeout=bad)
    assert sink.got == []


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), float("inf"), "1", True])
def test_l3_absurd_times_to_wait_are_refused(bad):
    flow = chain(Sink())
    state = flow.execute("r0")
    for wait in (state.wait, flow.wait_for_completion):
        with pytest.raises(DeclarationError, match="timeout must be a number of at least 0"):
            wait(bad)


def test_l3_a_wait_of_no_time_just_looks():
    begun, release = threading.Event(), threading.Event()
    flow = chain(Step(lambda step: (begun.set(), release.wait(LONG))))
    state = flow.start("r0")
    assert begun.wait(LONG)
    assert (state.wait(0), flow.wait_for_completion(0), flow.wait_for_completion(0.0, state)) == (False, False, False)
    release.set()
    assert state.wait(LONG)
    assert (state.wait(timeout=0), flow.wait_for_completion(0), flow.wait_for_completion(0, state)) == (
        True,
        True,
        True,
    )


def test_waiting_for_all_jobs_goes_on_when_one_of_them_has_paused():
    begun, gates = threading.Barrier(3), {"a": threading.Event(), "b": threading.Event()}

    def handler(step, name):
        begun.wait(LONG)
        assert gates[name].wait(LONG)

    with chain(Step(handler), engine=Engine()) as flow:
        first, second = (flow.start("r0", {"name": name}) for name in gates)
        begun.wait(LONG)
        waited = []
        waiting = threading.Thread(target=lambda: waited.append((flow.wait_for_completion(), str(second.status))))
        waiting.start()
        while not first._job.idle:
            pass
        flow.pause(first)
        gates["a"].set()
        while waiting.is_alive() and not second._job.idle:
            pass
        gates["b"].set()
        waiting.join(LONG)
        assert waited == [(False, "completed")]
        flow.cancel(first)


# --- shutdown -----------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_running_jobs_and_starts_no_more():
    sink = Sink()
    flow = chain(Source(range(1_000)), sink)
    state = flow.start("r0")
    flow.shutdown()
    assert state.status == "completed"
    assert len(sink.got) == 1_000
    flow.shutdown()
    with pytest.raises(ExecutionError, match="was shut down"):
        flow.execute("r0")


def test_shutdown_with_cancel_waits_for_running_handlers_only():
    started, release = threading.Event(), threading.Event()
    sink = Sink()

    def first(step, data):
        started.set()
        assert release.wait(LONG)
        sink.got.append(data)

    flow = chain(Source(range(1_000)), Step(first))
    state = flow.start("r0")
    assert started.wait(LONG)
    threading.Timer(0.01, release.set).start()
    flow.shutdown(cancel=True)
    assert state.status == "cancelled"
    assert sink.got == [0]


def test_shutdown_inside_a_handler_of_the_flow_is_refused():
    flow = chain(Step(lambda step: flow.shutdown()))
    assert "shutdown() inside a handler" in flow.execute("r0").error.message


def test_leaving_a_flow_by_an_exception_cancels_its_jobs():
    started, release = threading.Event(), threading.Event()

    def handler(step, data):
        started.set()
        release.wait(LONG)

    flow = chain(Source(range(10)), Step(handler))

    def leave():
        with flow:
            states.append(flow.start("r0"))
            assert started.wait(LONG)
            threading.Timer(0.01, release.set).start()
            raise KeyError("out")

    states = []
    with pytest.raises(KeyError):
        leave()
    assert states[0].status == "cancelled"


def test_a_thousand_flows_started_at_once_leave_no_thread_behind():
    before = threading.enumerate()
    engine = Engine()
    flows = [chain(Source([1, 2]), Sink(), engine=engine) for _ in range(1_000)]
    jobs = [flow.start("r0") for flow in flows]
    assert all(flow.wait_for_completion(LONG) for flow in flows)
    for flow in flows:
        flow.shutdown()
    assert {str(job.status) for job in jobs} == {"completed"}
    assert not threads_besides(before)


def test_flows_that_are_forgotten_let_their_threads_go():
    engine, before = Engine(), threading.enumerate()
    flow = chain(Sink(), engine=engine)
    assert flow.start("r0").wait(LONG)
    workers = list(engine.pool._workers)
    del flow
    import gc

    gc.collect()
    for worker in workers:
        worker.join(LONG)
    assert not threads_besides(before)


# --- ids and options ----------------------------------------------------------------------------------------------


def test_two_running_jobs_cannot_have_one_id_and_a_finished_ones_id_is_free():
    gate = threading.Event()
    with chain(Step(lambda step: gate.wait(LONG))) as flow:
        flow.start("r0", job_id="same")
        with pytest.raises(ExecutionError, match="job 'same' is running already"):
            flow.start("r0", job_id="same")
        gate.set()
        assert flow.wait_for_completion(LONG)
        assert flow.execute("r0", job_id="same").job_id == "same"


def test_ids_made_for_jobs_are_unlike_and_come_after_those_of_milliseconds_before(monkeypatch):
    flow, made = chain(Sink()), []
    for milliseconds in (1, 2, 1_800_000_000_000, 1_800_000_000_001, 2**47):
        monkeypatch.setattr("routilux.runtime.arguments.time.time_ns", lambda now=milliseconds: now * 1_000_000)
        made += sorted(flow.execute("r0").job_id for _ in range(20))
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(job_id) for job_id in made} == {32}


@pytest.mark.parametrize("bad", ["", 3, b"id"])
def test_a_job_id_must_be_a_non_empty_string(bad):
    with pytest.raises(ExecutionError, match="job_id must be a non-empty string"):
        chain(Sink()).execute("r0", job_id=bad)


@pytest.mark.parametrize("bad", [[1], "text", {1: 2}, 5])
def test_entry_params_must_be_a_mapping_of_names(bad):
    with pytest.raises(ExecutionError, match="entry_params must be a mapping with string keys"):
        chain(Sink()).execute("r0", bad)


def test_times_are_aware_and_in_order():
    state = chain(Sink()).execute("r0")
    assert state.created_at <= state.started_at <= state.finished_at
    assert state.created_at.utcoffset().total_seconds() == 0
    assert abs(state.created_at.timestamp() - time.time()) < 60


def test_repr_tells_id_flow_and_status():
    assert repr(chain(Sink()).execute("r0", job_id="j")) == "<JobState 'j' of flow 'chain': completed>"
