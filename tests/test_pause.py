"""L1, L2, L5, E4: pausing, going on, taking up failed jobs, and carrying state into the next job."""

from __future__ import annotations

import threading

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain, threads_besides

from routilux import (
    ContextError,
    Engine,
    ErrorHandler,
    ExecutionError,
    Flow,
    JobState,
    PayloadError,
    Routine,
    StatusError,
    flow as flow_module,
    open_store,
)
from routilux.runtime import dispatcher

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def job_of(step):
    return step.get_execution_context().job_state


def pausing_flow(at, count=10, **options):
    """A source of ``count`` items, and a target that pauses the job while it handles item ``at``."""
    sink = Sink()

    def target(step, data):
        if data == at:
            flow.pause(job_of(step), "for a look")
            statuses.append(str(job_of(step).status))
        sink.got.append(data)

    statuses = []
    flow = chain(Source(range(count)), Step(target), engine=Engine(), **options)
    return flow, sink, statuses


# --- L2 -----------------------------------------------------------------------------------------------------------


@MODES
def test_l2_pause_lets_the_running_handler_finish_and_starts_no_more(options):
    flow, sink, statuses = pausing_flow(3, **options)
    with flow:
        state = flow.execute("r0")
        assert statuses == ["paused"]
        assert state.status == "paused"
        assert sink.got == [0, 1, 2, 3]
        assert state.pending_count == 6
        assert "for a look" in state.summary()
        assert not state.wait(LONG)
        assert not state.wait()


@MODES
def test_l2_resume_goes_on_where_the_job_was(options):
    flow, sink, _ = pausing_flow(3, **options)
    with flow:
        state = flow.execute("r0")
        assert flow.resume(state) == state
        assert state.wait()
    assert state.status == "completed"
    assert sink.got == list(range(10))
    assert len(state.get_execution_history()) == 11
    assert "for a look" not in state.summary()


def test_l2_pause_from_outside_stops_within_one_handlers_time():
    started, release, sink = threading.Event(), threading.Event(), Sink()

    def target(step, data):
        started.set()
        assert release.wait(LONG)
        sink.got.append(data)

    with chain(Source(range(1_000)), Step(target), engine=Engine()) as flow:
        state = flow.start("r0")
        assert started.wait(LONG)
        flow.pause(state)
        assert state.status == "paused"
        release.set()
        assert not state.wait()
        assert sink.got == [0]
        flow.resume(state)
        assert state.wait()
    assert sink.got == list(range(1_000))


@examples(30)
@given(st.sets(st.integers(0, 29), max_size=8), st.sampled_from([1, 3]))
def test_l2_a_job_paused_at_any_moments_ends_like_one_that_never_was(moments, workers):
    def run(moments):
        attempts = {}

        def target(step, data):
            attempts[data] = attempts.get(data, 0) + 1
            job = job_of(step)
            count = (job.get_routine_state("r1") or {}).get("count", 0)
            if data in moments and attempts[data] == 1:
                flow.pause(job)
            if data % 7 == 0 and attempts[data] == 1:
                raise OSError("again")
            job.update_routine_state("r1", {"count": count + 1})
            step.emit("output", data=data)

        sink = Sink(merge_strategy="append")
        options = {"execution_strategy": "concurrent", "max_workers": workers} if workers > 1 else {}
        flow = chain(Source(range(30)), Step(target), sink, engine=Engine(), **options)
        flow.routines["r1"].set_error_handler(ErrorHandler("retry", retry_delay=0.0))
        with flow:
            state = flow.execute("r0")
            while state.status == "paused":
                state = flow.execute("r0", job_state=state)
        history = [(each.routine_id, each.data, each.attempt) for each in state.get_execution_history("r1")]
        return str(state.status), state.get_routine_state("r1"), sink.got[-1], history

    assert run(moments) == run(set())


def test_l2_a_retry_that_falls_due_while_paused_runs_on_resume():
    attempts = []

    def flaky(step):
        attempts.append(step.get_execution_context().attempt)
        if len(attempts) == 1:
            flow.pause(job_of(step))
            raise OSError("again")

    flow = chain(Step(flaky), engine=Engine())
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.001))
    with flow:
        state = flow.execute("r0")
        for thread in threading.enumerate():
            if thread.name == "routilux-timers":
                thread.join(LONG)
        assert (str(state.status), attempts, state.pending_count) == ("paused", [1], 1)
        flow.resume(state)
        assert state.wait()
    assert (str(state.status), attempts) == ("completed", [1, 2])


def test_l2_a_paused_job_can_be_cancelled():
    flow, sink, _ = pausing_flow(0)
    with flow:
        state = flow.execute("r0")
        flow.cancel(state)
        assert (str(state.status), state.pending_count) == ("cancelled", 0)
        assert state.wait()
        with pytest.raises(StatusError):
            flow.resume(state)
    assert sink.got == [0]


def test_l1_a_paused_job_fails_when_a_handler_that_still_ran_does():
    def source(step):
        flow.pause(job_of(step))
        raise ValueError("while paused")

    flow = chain(Step(source))
    assert flow.execute("r0").status == "failed"


def test_l1_a_paused_job_with_nothing_left_completes_on_resume():
    flow = chain(Step(lambda step: flow.pause(job_of(step))), engine=Engine())
    with flow:
        state = flow.execute("r0")
        assert (str(state.status), state.pending_count) == ("paused", 0)
        flow.resume(state)
        assert state.status == "completed"
        assert state.wait()


def test_l1_finish_while_paused_takes_effect_on_resume():
    def source(step):
        step.emit("output")
        flow.pause(job_of(step))
        step.get_execution_context().finish("early")

    sink = Sink()
    flow = chain(Step(source), sink, engine=Engine())
    with flow:
        state = flow.execute("r0")
        assert state.status == "paused"
        flow.resume(state)
        assert (str(state.status), state.result, sink.got) == ("completed", "early", [])


@pytest.mark.parametrize("change", ["pause", "resume"])
def test_l1_other_changes_raise(change):
    flow = chain(Sink())
    state = flow.execute("r0")
    with pytest.raises(StatusError, match="is completed and cannot become"):
        getattr(flow, change)(state)
    with pytest.raises(ExecutionError, match="not a job of this flow"):
        getattr(chain(Sink()), change)(state)


def test_l1_resuming_a_running_job_is_refused_and_does_not_disturb_it():
    seen = []

    def handler(step):
        with pytest.raises(StatusError, match="is running and cannot become running"):
            flow.resume(job_of(step))
        seen.append(flow._jobs.running())

    flow = chain(Step(handler))
    assert flow.execute("r0").status == "completed"
    assert len(seen[0]) == 1


def test_a_paused_job_can_be_written_to_and_holds_no_thread():
    before = threading.enumerate()
    flow, _, _ = pausing_flow(0, execution_strategy="concurrent", max_workers=4)
    with flow:
        state = flow.execute("r0")
        state.update_shared_data("key", 1)
        assert state.get_shared_data("key") == 1
    assert not threads_besides(before)
    assert state.status == "paused"


def test_d6_a_job_that_comes_to_rest_just_when_it_is_resumed_counts_as_running(monkeypatch):
    began, release, working, go = (threading.Event() for _ in range(4))

    def first(step):
        began.set()
        assert release.wait(LONG)
        step.emit("output", data=1)

    def last(step, data):
        working.set()
        assert go.wait(LONG)

    with chain(Step(first), Step(last), engine=Engine()) as flow:
        state = flow.start("r0")
        assert began.wait(LONG)
        flow.pause(state)
        job, resume = state._job, state._job.resume

        def resume_at_rest():
            release.set()
            while flow._jobs.running():
                pass
            resume()

        monkeypatch.setattr(job, "resume", resume_at_rest)
        flow.resume(state)
        assert working.wait(LONG)
        assert flow._jobs.running() == [job]
        go.set()
        assert state.wait(LONG)


# --- deferred events ----------------------------------------------------------------------------------------------


class Defers(Routine):
    def __init__(self, pause=True, strategy=None):
        super().__init__()
        self.pause = pause
        self.define_slot("input", handler=self.process)
        self.define_event("output", ["data"])
        if strategy:
            self.set_error_handler(ErrorHandler(strategy, retry_delay=0.0))

    def process(self, **_):
        ctx = self.get_execution_context()
        items = [1]
        self.emit_deferred_event("output", data=items)
        items.append(2)
        if self.pause:
            ctx.flow.pause(ctx.job_state)
        if ctx.attempt == 1 and self._declaration.error_handler:
            raise OSError("again")
        self.emit("output", data="now")


@pytest.mark.parametrize("pause", [True, False])
def test_l2_deferred_events_leave_on_resume_and_a_job_with_nothing_else_pauses(pause):
    sink = Sink()
    flow = chain(Defers(pause), sink, engine=Engine())
    with flow:
        state = flow.execute("r0")
        assert state.status == "paused"
        assert sink.got == ([] if pause else ["now"])
        flow.resume(state)
        assert state.wait()
    assert sorted(sink.got, key=str) == [[1], "now"]
    assert state.get_execution_history("r0")[0].emitted == 2


def test_t2_deferred_events_of_a_failed_attempt_are_dropped_under_retry():
    sink = Sink()
    flow = chain(Defers(pause=False, strategy="retry"), sink, engine=Engine())
    with flow:
        state = flow.execute("r0")
        flow.resume(state)
        assert state.wait()
    assert sorted(sink.got, key=str) == [[1], "now"]


def test_d1_deferring_an_event_outside_an_execution_or_an_undeclared_one_is_refused():
    with pytest.raises(ContextError, match="emit_deferred_event"):
        Defers().emit_deferred_event("output", data=1)
    flow = chain(Step(lambda step: step.emit_deferred_event("outptu")))
    with pytest.raises(PayloadError, match="did you mean 'output'"):
        flow.execute("r0").raise_for_status()


# --- E4 -----------------------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("strategy", ["stop", "retry"])
def test_e4_a_failed_job_is_resumed_after_the_fault_is_mended(strategy, options):
    broken, sink = [True], Sink()

    def target(step, data):
        if data == 2 and broken:
            raise ValueError("broken")
        step.emit("output", data=data)

    flow = chain(Source(range(5)), Step(target), sink, engine=Engine(), **options)
    flow.set_error_handler(ErrorHandler(strategy, max_retries=1, retry_delay=0.0))
    with flow:
        state = flow.execute("r0")
        assert state.status == "failed"
        assert state.pending_count >= 2
        broken.clear()
        flow.resume(state)
        assert state.wait()
        assert state.status == "completed"
        state.raise_for_status()
    assert sink.got == [0, 1, 2, 3, 4]
    assert [error.type for error in state.errors] == ["ValueError"]
    assert state.finished_at is not None


def test_e4_what_failed_runs_again_with_the_payload_as_it_was_merged():
    broken, got = [True], []

    class Appends(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.handle, merge_strategy="append")

        def handle(self, data):
            got.append(data)
            if len(data) == 2 and broken:
                raise ValueError("broken")

    flow = chain(Source([1, 2, 3]), Appends(), engine=Engine())
    with flow:
        state = flow.execute("r0")
        broken.clear()
        flow.resume(state)
        assert state.wait()
    assert got == [[1], [1, 2], [1, 2], [1, 2, 3]]


def test_e4_a_job_that_ran_out_of_time_runs_its_handler_again_and_the_old_one_stays_refused():
    release, old_ended, sink = threading.Event(), threading.Event(), Sink()

    def target(step, data):
        if not release.is_set():
            release.wait(LONG)
            try:
                step.emit("output", data="from the old life")
            except ContextError:
                old_ended.set()
            return
        step.emit("output", data=data)

    flow = chain(Source([1, 2]), Step(target), sink, engine=Engine())
    with flow:
        state = flow.execute("r0", timeout=0.05)
        assert state.status == "failed"
        release.set()
        flow.resume(state)
        assert state.wait()
        assert old_ended.wait(LONG)
    assert state.status == "completed"
    assert sink.got == [1, 2]


def test_d5_e4_a_thread_whose_handler_was_given_up_takes_no_work_of_the_resumed_job():
    release, working, go = threading.Event(), threading.Event(), threading.Event()
    old, order = [], []

    def entry(step):
        if not old:
            old.append(threading.current_thread())
            assert release.wait(LONG)
        else:
            step.emit("output", data=1)

    def first(step, data):
        order.append("first begins")
        working.set()
        assert go.wait(LONG)
        order.append("first ends")

    flow = chain(Step(entry), Step(first), engine=Engine())
    flow.add_routine(Step(lambda step, data: order.append("second")), "second")
    flow.connect("r0", "output", "second", "input")
    with flow:
        state = flow.execute("r0", timeout=0.05)
        flow.resume(state)
        assert working.wait(LONG)
        release.set()
        old[0].join(LONG)
        assert not old[0].is_alive()
        go.set()
        assert state.wait(LONG)
    assert order == ["first begins", "first ends", "second"]


def test_d5_e4_an_emitter_that_was_given_up_while_it_waited_for_room_takes_no_work_of_the_resumed_job():
    handling, release, threads, refused = threading.Event(), threading.Event(), [], []

    def emitter(step):
        threads.append(threading.current_thread())
        try:
            for item in range(4):
                step.emit("output", data=item)
                assert handling.wait(LONG)
        except ContextError:
            refused.append(item)

    def target(step, data):
        handling.set()
        assert release.wait(LONG)

    options = {"execution_strategy": "concurrent", "max_workers": 2, "max_pending": 1}
    with chain(Step(emitter), Step(target), engine=Engine(), **options) as flow:
        state = flow.start("r0")
        job = state._job
        while not job.pressed:
            pass
        with job.lock:  # so that the emitter finds the job given up and resumed
            job.expire(1.0)
            job.resume()
        threads[0].join(LONG)
        assert (len(threads), refused) == (1, [3])
        release.set()
        assert state.wait()
    assert (state.status, len(threads)) == ("completed", 2)


def test_e4_a_failed_job_is_not_resumed_while_its_handlers_still_run():
    failed, release = threading.Event(), threading.Event()

    def failing(step, data):
        assert running.wait(LONG)
        raise ValueError("now")

    def other(step, data):
        running.set()
        assert release.wait(LONG)

    running = threading.Event()
    flow = chain(Source([1]), Step(failing), engine=Engine(), execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(other), "other")
    flow.connect("r0", "output", "other", "input")
    with flow:
        state = flow.start("r0")
        while state.status != "failed":
            pass
        with pytest.raises(StatusError, match="1 of its handlers still run"):
            flow.resume(state)
        release.set()
        assert state.wait(LONG)
    assert not failed.is_set()


# --- L5 -----------------------------------------------------------------------------------------------------------


def counting():
    def count(step, by=1):
        job = job_of(step)
        job.update_shared_data("total", job.get_shared_data("total", 0) + by)
        job.update_routine_state("r0", {"runs": (job.get_routine_state("r0") or {}).get("runs", 0) + 1})
        job.append_to_shared_log({"by": by})

    return chain(Step(count))


def test_l5_an_ended_job_hands_down_shared_data_and_routine_states_only():
    flow = counting()
    first = flow.execute("r0")
    second = flow.execute("r0", {"by": 5}, job_state=first)
    assert second.job_id != first.job_id
    assert (second.get_shared_data("total"), second.get_routine_state("r0")) == (6, {"runs": 2})
    assert (len(second.get_shared_log()), len(second.get_execution_history())) == (1, 1)
    assert (first.get_shared_data("total"), first.get_routine_state("r0")) == (1, {"runs": 1})


def test_l5_a_failed_or_cancelled_job_counts_as_ended():
    def failing(step):
        job_of(step).update_shared_data("key", [1])
        raise ValueError("no")

    flow = chain(Step(failing))
    first = flow.execute("r0")
    second = flow.execute("r0", job_state=first)
    second.update_shared_data("key", [2])
    assert (first.get_shared_data("key"), second.get_shared_data("key")) == ([1], [2])


def test_l5_a_paused_job_goes_on_and_takes_no_new_arguments():
    flow, sink, _ = pausing_flow(1)
    state = flow.execute("r0")
    for arguments in ({"entry_params": {}}, {"job_id": "x"}, {"slot": "trigger"}, {"user_id": "u"}):
        with pytest.raises(StatusError, match="is paused and would go on where it is; arguments"):
            flow.execute("r0", job_state=state, **arguments)
    again = flow.execute("r0", job_state=state)
    assert again == state
    assert again.status == "completed"
    assert sink.got == list(range(10))


def test_l5_a_running_job_is_refused():
    def handler(step):
        flow.execute("r0", job_state=job_of(step))

    flow = chain(Step(handler))
    with pytest.raises(StatusError, match="is running"):
        flow.execute("r0").raise_for_status()


def test_l5_a_job_of_another_flow_is_refused():
    state = Flow("other")
    state.add_routine(Sink(), "sink")
    with pytest.raises(ExecutionError, match="not a job of this flow"):
        chain(Sink()).execute("r0", job_state=state.execute("sink"))


def test_a_flow_that_is_shut_down_resumes_nothing():
    flow, _, _ = pausing_flow(0)
    state = flow.execute("r0")
    flow.shutdown()
    with pytest.raises(ExecutionError, match="was shut down"):
        flow.resume(state)


@pytest.mark.parametrize("durable", [False, True])
def test_l3_a_job_that_comes_to_rest_between_the_last_look_and_the_end_of_its_time_stays_as_it_is(monkeypatch, durable):
    go, watch = threading.Event(), dispatcher.watch
    with Engine(store=open_store("memory:") if durable else None) as engine:
        flow = chain(Step(lambda step, **_: go.wait(LONG)), engine=engine)

        def last_look(job, timeout):
            assert not watch(job, timeout)
            flow.pause(JobState(job))
            go.set()
            assert watch(job, LONG)
            return False

        monkeypatch.setattr(dispatcher, "watch", last_look)
        state = flow.execute("r0", timeout=0.01)
        assert (str(state.status), state.error) == ("paused", None)


def test_d6_who_waits_for_a_job_is_told_of_a_shutdown_just_before_they_wait_again(monkeypatch):
    goes_on = dispatcher._goes_on
    flow = Flow("f")
    flow.add_routine(Listening(), "r")
    state = flow.execute("r", slot="trigger")
    assert state.status == "waiting"

    def shut_down_first(job, timeout):
        stopper = threading.Thread(target=flow.shutdown)
        stopper.start()
        stopper.join(LONG)
        return goes_on(job, timeout)

    monkeypatch.setattr(dispatcher, "_goes_on", shut_down_first)
    with pytest.raises(ExecutionError, match="was shut down"):
        state.wait(LONG)


class Listening(Routine):
    """Has an input that keeps a job waiting."""

    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=lambda: None)
        self.define_slot("more", handler=lambda **_: self.heard(), external=True)

    def heard(self):
        """More has come."""


def test_l2_shutdown_waits_for_a_job_that_has_gone_on_just_after_it_had_come_to_rest(monkeypatch):
    """What was sent before the shutdown may arrive after that has found the job at rest."""
    entered, go, waited = threading.Event(), threading.Event(), flow_module.wait_for_rest
    flow = Flow("f")
    flow.add_routine(listening := Listening(), "r")
    listening.heard = lambda: (entered.set(), go.wait(LONG))
    state = flow.execute("r", slot="trigger")
    job = state._job
    times = []

    def rest(job, timeout):
        found = waited(job, timeout)
        times.append(1)
        if len(times) == 1:
            slot = flow.plan().nodes["r"].slots["more"]
            job.receive(slot, {}, False)
            assert entered.wait(LONG)
            go.set()
        return found

    monkeypatch.setattr(flow_module, "wait_for_rest", rest)
    flow.shutdown()
    assert len(times) == 2
    assert (job.at_rest, str(state.status)) == (True, "waiting")
    assert job.halted is not None
