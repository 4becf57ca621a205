"""H4: signals, output handlers and logging tell what happens in jobs."""

from __future__ import annotations

import asyncio
import logging
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from parts import AsyncStep, Sink, Source, Step, chain

from routilux import (
    AsyncContext,
    Clock,
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    ExecutionRecord,
    Flow,
    JobState,
    Output,
    Routine,
    open_store,
    signals,
)
from routilux.core.listening import listening
from routilux.runtime.kinds import FIELDS

LONG = 20


@pytest.fixture
def heard():
    """Everything that any signal says, as (name, flow, fields), in order."""
    told = []
    receivers = {}
    for name in signals.__all__:

        def receiver(flow, name=name, **fields):
            told.append((name, flow, fields))

        receivers[name] = receiver
        getattr(signals, name).connect(receiver, weak=False)
    yield told
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


def names(heard):
    return [name for name, _, _ in heard]


def only(heard, name):
    return [fields for each, _, fields in heard if each == name]


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
def test_h4_a_job_is_told_from_its_start_to_its_end_in_the_order_of_its_commits(heard, strategy):
    flow = chain(Source([1]), Sink(), execution_strategy=strategy, max_workers=1)
    state = flow.execute("r0")
    assert names(heard) == [
        "job_started",
        "activation_started",
        "event_emitted",
        "activation_ended",
        "activation_started",
        "activation_ended",
        "job_completed",
    ]
    assert all(each is flow and fields["job_state"] == state for _, each, fields in heard)
    flow.shutdown()


def test_h4_an_ended_activation_is_told_with_its_execution_record(heard):
    state = chain(Source([1, 2]), Sink()).execute("r0")
    told = [fields["record"] for fields in only(heard, "activation_ended")]
    assert all(isinstance(record, ExecutionRecord) for record in told)
    assert sorted(told, key=lambda record: record.timestamp) == state.get_execution_history()


def test_h4_every_emission_is_told_with_its_data_and_number_of_deliveries(heard):
    flow = chain(Source([{"a": [1]}]), Sink())
    flow.add_routine(Sink(), "other")
    flow.connect("r0", "output", "other", "input")
    flow.execute("r0")
    (told,) = only(heard, "event_emitted")
    assert told["routine_id"] == "r0"
    assert told["event_name"] == "output"
    assert told["data"] == {"data": {"a": [1]}}
    assert (told["deliveries"], told["deferred"]) == (2, False)


def test_h4_data_that_are_told_are_the_listeners(heard):
    sink = Sink()

    def spoil(flow, **fields):
        fields["data"]["data"].append("spoilt")

    with signals.event_emitted.connected_to(spoil):
        chain(Source([[1]]), sink).execute("r0")
    assert sink.got == [[1]]


@pytest.mark.parametrize("strategy", [ErrorStrategy.RETRY, ErrorStrategy.SKIP])
def test_h4_emissions_that_are_held_are_told_when_they_leave(heard, strategy):
    def handler(step):
        step.emit("output", attempt=step.get_execution_context().attempt)
        assert only(heard, "event_emitted") == []
        if strategy is ErrorStrategy.RETRY and step.get_execution_context().attempt == 1:
            raise ValueError("once")

    step = Step(handler)
    step.set_error_handler(ErrorHandler(strategy, retry_delay=0))
    chain(step, Sink()).execute("r0")
    told = only(heard, "event_emitted")
    assert [fields["data"] for fields in told] == [{"attempt": 2 if strategy is ErrorStrategy.RETRY else 1}]


def test_h4_emissions_of_a_failed_attempt_are_never_told(heard):
    def handler(step):
        step.emit("output")
        raise ValueError("always")

    step = Step(handler)
    step.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))
    chain(step, Sink()).execute("r0")
    assert only(heard, "event_emitted") == []


def test_h4_a_retry_is_told_with_its_error_and_its_time(heard):
    def handler(step):
        if step.get_execution_context().attempt < 3:
            raise ValueError("not yet")

    step = Step(handler)
    step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0))
    state = chain(step).execute("r0")
    told = only(heard, "activation_retried")
    assert [(fields["routine_id"], fields["slot"], fields["attempt"]) for fields in told] == [
        ("r0", "input", 1),
        ("r0", "input", 2),
    ]
    assert {str(fields["error"].message) for fields in told} == {"not yet"}
    assert all(fields["due"] >= state.started_at for fields in told)
    assert [fields["attempt"] for fields in only(heard, "activation_started")] == [1, 2, 3]
    assert only(heard, "activation_failed") == []


@pytest.mark.parametrize(
    ("strategy", "last"),
    [
        (ErrorStrategy.STOP, "job_failed"),
        (ErrorStrategy.CONTINUE, "job_completed"),
        (ErrorStrategy.SKIP, "job_completed"),
    ],
)
def test_h4_a_failure_is_told_for_the_activation_and_for_a_job_that_it_fails(heard, strategy, last):
    def handler(step):
        raise ValueError("broken")

    step = Step(handler)
    step.set_error_handler(ErrorHandler(strategy))
    state = chain(step).execute("r0")
    (told,) = only(heard, "activation_failed")
    assert told["error"] == state.error
    assert names(heard)[-1] == last
    if last == "job_failed":
        assert only(heard, last)[0]["error"] == state.error


def test_h4_writes_log_entries_and_outputs_are_told(heard):
    def handler(step):
        ctx = step.get_execution_context()
        ctx.store.set("a.b", 1)
        ctx.job_state.update_routine_state("r0", {"n": 1})
        with ctx.store.edit_state() as edited:
            edited["c"] = [2]
            del edited["a"]
        ctx.state["d"] = []
        ctx.state["d"].append(3)
        ctx.job_state.append_to_shared_log({"note": "hello"})
        step.send_output("report", rows=3)

    state = chain(Step(handler)).execute("r0")
    told = [(each["routine_id"], each["values"], each["removed"]) for each in only(heard, "state_changed")]
    assert told == [
        (None, {"a": {"b": 1}}, ()),
        ("r0", {"n": 1}, ()),
        (None, {"c": [2]}, ("a",)),
        (None, {"d": []}, ()),
        (None, {"d": [3]}, ()),
    ]
    assert [fields["entry"] for fields in only(heard, "log_appended")] == state.get_shared_log()
    assert [fields["output"] for fields in only(heard, "output_sent")] == state.outputs


def test_h4_an_edit_that_is_rolled_back_is_not_told(heard):
    def handler(step):
        with step.get_execution_context().store.edit_state() as edited:
            edited["n"] = 1
            raise KeyError("no")

    assert chain(Step(handler)).execute("r0").error.type == "KeyError"
    assert only(heard, "state_changed") == []


def test_h4_pausing_resuming_and_cancelling_are_told(heard):
    def handler(step, **_):
        step.emit_deferred_event("output")
        ctx = step.get_execution_context()
        ctx.flow.pause(ctx.job_state, "for lunch")

    flow = chain(Step(handler), Sink())
    state = flow.execute("r0")
    assert only(heard, "event_emitted")[0]["deferred"] is True
    flow.resume(state).wait()
    flow.cancel(paused := flow.execute("r0"), "no more")
    assert paused.status == "cancelled"
    jobs = [(name, fields.get("reason") or fields.get("was")) for name, _, fields in heard if name.startswith("job")]
    assert jobs == [
        ("job_started", None),
        ("job_paused", "for lunch"),
        ("job_resumed", "paused"),
        ("job_completed", None),
        ("job_started", None),
        ("job_paused", "for lunch"),
        ("job_cancelled", "no more"),
    ]
    flow.shutdown()


def test_h4_a_status_is_told_as_it_was_though_the_job_has_gone_on(heard):
    def receiver(flow, job_state):
        flow.pause(job_state, "for lunch")
        flow.resume(job_state)

    flow = chain(Sink())
    with signals.job_started.connected_to(receiver, sender=flow):
        flow.execute("r0", {"data": 1})
    assert [fields["reason"] for fields in only(heard, "job_paused")] == ["for lunch"]
    assert names(heard)[:3] == ["job_started", "job_paused", "job_resumed"]
    flow.shutdown()


def test_h4_a_wait_is_told_and_a_handler_that_goes_on_after_it_does_not_begin_again(heard):
    def handler(step):
        ctx = step.get_execution_context()
        ctx.step.wait_for_event("first", "go")
        ctx.step.wait_for("second", seconds=0.001)
        if ctx.store.get("failed", default=None) is None:
            ctx.store.set("failed", 1)
            raise ValueError("once")

    with Engine(store=open_store("memory:")) as engine:
        flow = chain(Step(handler), engine=engine)
        state = flow.execute("r0", job_id="j")
        assert names(heard) == ["job_started", "activation_started", "job_waiting"]
        engine.publish("go", job_id="j")
        assert state.wait(LONG)
        assert names(heard)[3:6] == ["job_resumed", "job_waiting", "job_resumed"]
        assert "activation_started" not in names(heard)[3:]
        assert names(heard)[-1] == "job_failed"
        heard.clear()
        assert flow.resume(state).wait(LONG)
    assert names(heard) == ["job_resumed", "activation_started", "activation_ended", "job_completed"]


@pytest.mark.parametrize("later", ["wait", "retry"])
def test_h4_a_coroutine_that_waits_in_memory_is_told_to_begin_once(heard, later):
    async def handler(step):
        ctx = step.get_execution_context()
        await ctx.step.wait_for("first", seconds=0.001)
        if later == "retry" and ctx.attempt == 1:
            raise ValueError("once")

    step = AsyncStep(handler)
    step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, retry_delay=0))
    with chain(step) as flow:
        flow.execute("r0").raise_for_status()
        assert flow._jobs.running() == []
    expected = [1] if later == "wait" else [1, 2]
    assert [fields["attempt"] for fields in only(heard, "activation_started")] == expected
    assert len(only(heard, "job_waiting")) == len(only(heard, "job_resumed")) == len(expected)


def test_h4_coroutine_handlers_are_told_of_alike(heard):
    class Steps(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.run)
            self.define_event("output")

        async def run(self):
            await asyncio.sleep(0)
            self.emit("output", data=1)

    with Flow("f") as flow:
        flow.add_routine(Steps(), "r0")
        flow.add_routine(Sink(), "r1")
        flow.connect("r0", "output", "r1", "input")
        flow.execute("r0")
        assert sorted(names(heard)) == sorted(
            [
                "job_started",
                *["activation_started", "activation_ended"] * 2,
                "event_emitted",
                "job_completed",
            ]
        )
        assert (names(heard)[0], names(heard)[-1]) == ("job_started", "job_completed")


# --- who is told, and when --------------------------------------------------------------------------------------------


def test_h4_a_receiver_may_listen_to_one_flow():
    told = []

    def receiver(flow, **_):
        told.append(flow)

    one, other = chain(Sink()), chain(Sink())
    with signals.job_completed.connected_to(receiver, sender=one):
        one.execute("r0", {"data": 1})
        other.execute("r0", {"data": 1})
    assert told == [one]


def test_h4_all_is_told_before_execute_returns_also_by_worker_threads():
    told, threads = [], set()
    gate = threading.Barrier(2, timeout=LONG)

    def receiver(flow, record, **_):
        told.append(record)
        threads.add(threading.get_ident())

    flow = Flow("wide", execution_strategy="concurrent", max_workers=4)
    flow.add_routine(Source(range(50)), "source")
    for index in range(2):
        flow.add_routine(Step(lambda step, data: gate.wait()), f"r{index}")
        flow.connect("source", "output", f"r{index}", "input")
    with signals.activation_ended.connected_to(receiver):
        for count in range(1, 6):
            flow.execute("source")
            assert len(told) == count * 101
    flow.shutdown()


def test_h4_a_receiver_holds_no_lock_and_is_no_part_of_the_turn():
    seen = []

    def receiver(flow, job_state, **_):
        other = threading.Thread(target=lambda: seen.append(job_state.get_shared_data("n")))
        other.start()
        other.join(LONG)
        with pytest.raises(ContextError, match="only by its own handlers"):
            job_state.update_shared_data("n", 2)
        with pytest.raises(ContextError, match="inside a listener"):
            job_state.wait()

    def handler(step):
        step.get_execution_context().job_state.update_shared_data("n", 1)
        step.emit("output")

    with signals.event_emitted.connected_to(receiver):
        chain(Step(handler)).execute("r0").raise_for_status()
    assert seen == [1]


def test_h4_a_receiver_may_cancel_the_job_that_it_hears_of():
    def receiver(flow, job_state, **_):
        if job_state.status == "running":
            flow.cancel(job_state, "seen enough")

    with signals.event_emitted.connected_to(receiver):
        state = chain(Source(range(100)), Sink()).execute("r0")
    assert state.status == "cancelled"


def test_h4_a_receiver_may_execute_another_job():
    inner = chain(Sink())
    states = []

    def receiver(flow, **_):
        states.append(inner.execute("r0", {"data": 1}))

    flow = chain(Source([1]), Sink())
    with signals.job_completed.connected_to(receiver, sender=flow):
        flow.execute("r0")
    assert [state.status for state in states] == ["completed"]


def test_h4_a_receiver_that_raises_is_logged_and_harms_nobody(caplog):
    told = []

    def broken(flow, **_):
        raise RuntimeError("broken receiver")

    def receiver(flow, **_):
        told.append(flow)

    with signals.job_completed.connected_to(broken), signals.job_completed.connected_to(receiver):
        state = chain(Sink()).execute("r0", {"data": 1})
    assert state.status == "completed"
    assert len(told) == 1
    (entry,) = [each for each in caplog.records if each.exc_info]
    assert "receiver" in entry.message
    assert str(entry.exc_info[1]) == "broken receiver"


def test_h4_a_slow_receiver_holds_up_those_who_make_more_than_the_backlog():
    waiting = []

    def receiver(flow, job_state, **_):
        waiting.append(len(job_state._job.notices.waiting))

    flow = Flow("wide", execution_strategy="concurrent", max_workers=8)
    flow.add_routine(Source(range(3000)), "source")
    for index in range(4):
        flow.add_routine(Sink(), f"r{index}")
        flow.connect("source", "output", f"r{index}", "input")
    with signals.activation_ended.connected_to(receiver):
        flow.execute("source")
    flow.shutdown()
    assert len(waiting) == 12_001
    assert max(waiting) < 2000


def test_h4_with_nobody_listening_nothing_is_noted(monkeypatch):
    assert not listening.everything
    noted = []
    monkeypatch.setattr("routilux.runtime.job.Job.note", lambda *args: noted.append(args))
    chain(Source([1]), Sink()).execute("r0")
    assert noted == []


def test_h4_a_receiver_that_is_connected_in_the_middle_of_a_turn_hears_the_rest_of_it():
    told = []

    def receiver(flow, data, **_):
        told.append(data["data"])

    def handler(step):
        step.emit("output", data=1)
        signals.event_emitted.connect(receiver)
        step.emit("output", data=2)
        signals.event_emitted.disconnect(receiver)
        step.emit("output", data=3)

    chain(Step(handler)).execute("r0").raise_for_status()
    assert told == [2]


def test_h4_every_signal_is_a_kind_of_thing_that_happens():
    assert sorted(FIELDS) == sorted(signals.__all__)


def test_h4_signals_are_documented():
    for name in signals.__all__:
        assert getattr(signals, name).__doc__


# --- on event loops ---------------------------------------------------------------------------------------------------


class Once(Routine):
    """Emits once, in a coroutine handler."""

    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.process)
        self.define_event("output")

    async def process(self):
        self.emit("output")


def flow_of(routine, **options):
    flow = Flow("f", **options)
    flow.add_routine(routine, "r0")
    return flow


def test_h4_a_receiver_that_hears_of_a_coroutine_handler_holds_up_no_other_flow():
    going_on = threading.Event()

    class Other(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("input", handler=self.process)

        async def process(self):
            await asyncio.sleep(0)
            going_on.set()

    def receiver(flow, **_):
        other.start("r0")
        assert going_on.wait(LONG)

    with flow_of(Once()) as flow, flow_of(Other()) as other, signals.event_emitted.connected_to(receiver, sender=flow):
        assert flow.execute("r0").status == "completed"
        assert going_on.is_set()


def test_h4_a_receiver_that_hears_of_a_coroutine_handler_may_execute_a_flow():
    states = []

    def receiver(flow, **_):
        states.append(inner.execute("r0"))

    with flow_of(Once()) as flow, flow_of(Once()) as inner:
        for name in ("job_started", "event_emitted", "activation_ended", "job_completed"):
            with getattr(signals, name).connected_to(receiver, sender=flow):
                flow.execute("r0")
    assert [state.status for state in states] == ["completed"] * 4


class Naps(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.nap)

    async def nap(self, ctx: AsyncContext):
        await ctx.step.wait_for("nap", hours=1)


class ListensForAnHour(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=lambda: None)
        self.define_slot("late", handler=lambda: None, external=True, deadline=3600.0)


class Sandglass(Clock):
    """A clock on which no time passes, but an hour whenever it is turned: by a signal, when it is a receiver."""

    def __init__(self):
        super().__init__(monotonic_ns=lambda: self.hours * 3600 * 10**9)
        self.hours = 0

    def turn(self, flow, **_):
        self.hours += 1
        flow.engine.timers.prune()  # whose thread looks at the clock then


def retried_once():
    def handle(step, **_):
        if step.get_execution_context().attempt == 1:
            raise ValueError("once")

    step = Step(handle)
    step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, retry_delay=0))
    return step


@pytest.mark.parametrize("store", [None, "memory:"])
@pytest.mark.parametrize(("make", "name"), [(Naps, "job_resumed"), (ListensForAnHour, "input_closed")])
def test_h4_a_receiver_that_hears_that_a_time_has_come_holds_up_no_timer(make, name, store):
    ended, clock = [], Sandglass()

    def receiver(flow, **_):
        ended.append(other.start("r0").wait(LONG))

    with Engine(clock, store=store and open_store(store)) as engine:
        flow, other = flow_of(make(), engine=engine), chain(retried_once(), engine=engine)
        with (
            signals.job_waiting.connected_to(clock.turn, sender=flow),
            getattr(signals, name).connected_to(receiver, sender=flow),
        ):
            state = flow.start("r0", slot="input")
            assert state.wait(LONG)
        assert (state.status, ended) == ("completed", [True])
        for each in (flow, other):
            each.shutdown()


def test_e3_a_receiver_that_tells_the_process_to_stop_when_a_time_has_come_stops_the_job_and_no_timer():
    clock = Sandglass()

    def stop(flow, **_):
        raise SystemExit(3)

    with (
        Engine(clock) as engine,
        flow_of(Naps(), engine=engine) as flow,
        signals.job_waiting.connected_to(clock.turn, sender=flow),
    ):
        with signals.job_resumed.connected_to(stop, sender=flow), pytest.raises(SystemExit):
            flow.execute("r0")
        assert flow.execute("r0", timeout=LONG).status == "completed"


def test_h4_receivers_are_not_called_on_the_loop_of_whoever_awaits_the_job():
    loops = []

    def receiver(flow, **_):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        loops.append(threading.current_thread() is threading.main_thread())

    with flow_of(Once()) as flow, signals.job_started.connected_to(receiver, sender=flow):
        asyncio.run(flow.aexecute("r0"))
    assert loops == [False]


def test_h4_a_coroutine_function_is_no_receiver():
    async def receiver(flow, **_):
        pass

    with pytest.raises(DeclarationError, match="a receiver of signals is a plain function"):
        signals.job_completed.connect(receiver)
    assert not listening.everything


# --- receivers and saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_l4_a_receiver_may_save_a_job_of_which_no_handler_runs(kind, tmp_path):
    def save(flow, job_state, **_):
        job_state.save(tmp_path / "job")

    with flow_of(Once() if kind == "coroutine" else Step(lambda step: None)) as flow:
        with signals.job_completed.connected_to(save, sender=flow):
            flow.execute("r0")
        assert flow.load(tmp_path / "job").status == "completed"


def test_l4_a_receiver_cannot_save_a_job_whose_handler_it_holds_up(tmp_path):
    errors = []

    def save(flow, job_state, **_):
        try:
            job_state.save(tmp_path / "job")
        except ContextError as error:
            errors.append(str(error))

    with flow_of(Step(lambda step: step.emit("output"))) as flow:
        for name in ("activation_started", "event_emitted"):
            with getattr(signals, name).connected_to(save, sender=flow):
                flow.execute("r0").raise_for_status()
    assert len(errors) == 2
    assert all("save() inside a listener of job" in error for error in errors)


def test_h4_an_attempt_is_told_before_its_handler_runs(heard):
    seen = []
    chain(Source([1, 2]), Step(lambda step, data: seen.append(names(heard)[-1]))).execute("r0")
    assert seen == ["activation_started"] * 2


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_e3_a_receiver_that_tells_the_process_to_stop_stops_the_job(kind):
    def stop(flow, **_):
        raise SystemExit(3)

    routine = Once() if kind == "coroutine" else Step(lambda step: step.emit("output"))
    listen = signals.event_emitted.connected_to
    with flow_of(routine) as flow, listen(stop, sender=flow), pytest.raises(SystemExit):
        flow.execute("r0")


# --- activations that were given up -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_h4_activations_that_a_timeout_of_the_job_gives_up_are_told(heard, kind):
    release = threading.Event()

    async def endless(step):
        await asyncio.Event().wait()

    routine = Step(lambda step: release.wait(LONG)) if kind == "plain" else AsyncStep(endless)
    with flow_of(routine) as flow:
        state = flow.execute("r0", timeout=0.05)
        release.set()
    (record,) = state.get_execution_history()
    assert [fields["record"] for fields in only(heard, "activation_ended")] == [record]
    assert [fields["error"].type for fields in only(heard, "activation_failed")] == ["JobTimeoutError"]
    assert names(heard)[-3:] == ["activation_failed", "activation_ended", "job_failed"]


# --- outputs ----------------------------------------------------------------------------------------------------------


class Sender(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.run)

    def run(self):
        for index in range(3):
            self.send_output("progress", done=index)


def sender(handler):
    flow = Flow("sender")
    flow.add_routine(Sender(), "sender")
    flow.add_output_handler(handler)
    return flow


def test_outputs_are_put_into_a_queue_as_they_are_sent():
    outputs = queue.Queue()
    state = sender(outputs).execute("sender")
    assert [outputs.get_nowait() for _ in range(3)] == state.outputs
    assert {output.job_id for output in state.outputs} == {state.job_id}


def test_outputs_are_given_to_a_callback_while_the_handler_runs():
    seen = []

    def callback(output):
        seen.append((output.data["done"], len(state_of(output).outputs)))

    def state_of(output):
        (job,) = flow._jobs.running()
        assert job.record.job_id == output.job_id
        return JobState(job)

    flow = sender(callback)
    flow.execute("sender")
    assert seen == [(0, 1), (1, 2), (2, 3)]


def test_an_output_handler_that_raises_is_logged_and_harms_nobody(caplog):
    def broken(output):
        raise RuntimeError("full")

    flow = sender(broken)
    others = []
    flow.add_output_handler(others.append)
    state = flow.execute("sender")
    assert state.status == "completed"
    assert others == state.outputs
    assert all(isinstance(output, Output) for output in others)
    assert len([entry for entry in caplog.records if "output handler" in entry.message]) == 3


@pytest.mark.parametrize("handler", [None, 5, "queue"])
def test_an_output_handler_is_callable_or_a_queue(handler):
    with pytest.raises(DeclarationError, match=r"flow 'sender': an output handler must be callable, or a queue"):
        sender(handler)


# --- logging ----------------------------------------------------------------------------------------------------------


def entries(caplog):
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "routilux"]


def test_a_jobs_life_is_logged_with_its_ids(caplog):
    caplog.set_level(logging.DEBUG, "routilux")
    chain(Sink()).execute("r0", {"data": 1}, job_id="J")
    assert entries(caplog) == [
        ("DEBUG", "flow 'chain', job 'J' is running"),
        ("DEBUG", "flow 'chain', job 'J' is completed"),
    ]
    assert {(each.flow_id, each.job_id) for each in caplog.records} == {("chain", "J")}


def test_failed_attempts_are_warnings_and_failed_jobs_are_errors(caplog):
    def handler(step):
        raise ValueError("broken")

    step = Step(handler)
    step.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0))
    chain(step).execute("r0", job_id="J")
    assert entries(caplog) == [
        ("WARNING", "flow 'chain', job 'J': r0.input, attempt 1, will be retried: ValueError: broken"),
        ("WARNING", "flow 'chain', job 'J': r0.input, attempt 2, has failed: ValueError: broken"),
        ("ERROR", "flow 'chain', job 'J' is failed: ValueError: broken in r0.input, attempt 2"),
    ]
    first = caplog.records[0]
    assert (first.job_id, first.routine_id, first.slot, first.attempt) == ("J", "r0", "input", 1)


def test_nothing_is_printed_unless_logging_is_set_up_nor_imported_before_it_is_needed():
    program = """
import sys
from routilux import Flow, Routine
class Picky(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.take)
    def take(self, number):
        1 / number
flow = Flow("f")
flow.add_routine(Picky(), "picky")
assert flow.execute("picky", {"number": 1}).status == "completed"
assert "logging" not in sys.modules
import logging
assert flow.execute("picky", {"number": 0}).status == "failed"
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_h4_the_page_about_signals_names_all_of_them():
    page = (Path(__file__).parent.parent / "docs" / "tutorial" / "observing.rst").read_text()
    assert [name for name in signals.__all__ if f"* - ``{name}``" not in page] == []
