"""D5, D6, D10, E3, L3: nothing hangs, and nobody is left behind, when things go wrong at a bad moment."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from parts import Sink, Source, Step, chain, threads_besides

from routilux import (
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ExecutionError,
    Flow,
    Routine,
)
from routilux.core.deliveries import emitted
from routilux.runtime import dispatcher

LONG = 20.0


def job_of(step):
    return step.get_execution_context().job_state


def flaky_flow(engine, failures=2, **options):
    """A job of one handler that fails so many times under RETRY."""

    def flaky(step):
        if step.get_execution_context().attempt <= failures:
            raise OSError("again")

    flow = chain(Step(flaky), engine=engine, **options)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.001))
    return flow


# --- D5: nested jobs and the pool ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["execute", "wait", "execute with a timeout", "wait with a timeout"])
@pytest.mark.parametrize("timeout", [None, LONG], ids=["worker", "helper"])
def test_d5_nested_jobs_that_retry_do_not_starve_a_pool_of_one(how, timeout):
    engine = Engine()
    inner = flaky_flow(engine, max_workers=1)

    def run_inner(step):
        if how == "execute":
            inner.execute("r0").raise_for_status()
        elif how == "wait":
            assert inner.start("r0").wait()
        elif how == "execute with a timeout":
            inner.execute("r0", timeout=LONG).raise_for_status()
        else:
            assert inner.start("r0").wait(LONG)

    outer = chain(Step(run_inner, timeout=timeout), engine=engine, max_workers=1)
    jobs = [outer.start("r0") for _ in range(3)]
    assert all(job.wait(LONG) for job in jobs)
    assert {str(job.status) for job in jobs} == {"completed"}
    outer.shutdown()
    inner.shutdown()


def test_d5_a_sequential_execute_with_retries_uses_the_calling_thread_only():
    threads = []

    def flaky(step):
        threads.append(threading.get_ident())
        if step.get_execution_context().attempt < 4:
            raise OSError("again")

    engine = Engine()
    flow = chain(Step(flaky), engine=engine)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.001))
    assert flow.execute("r0").status == "completed"
    assert set(threads) == {threading.get_ident()}
    assert not engine.pool._workers


def test_d5_a_worker_that_is_asleep_and_given_up_counts_once():
    engine, before = Engine(), threading.enumerate()
    release = threading.Event()
    inner = chain(Step(lambda step: release.wait(LONG)), engine=engine, max_workers=1)
    outer = chain(Step(lambda step: inner.execute("r0", timeout=LONG)), engine=engine, max_workers=1)
    assert outer.execute("r0", timeout=0.05).status == "failed"
    release.set()
    outer.shutdown()
    inner.shutdown()
    for thread in threads_besides(before):
        thread.join(LONG)
    assert not threads_besides(before)


def test_d5_helpers_end_with_the_turn_that_needed_them():
    before = threading.enumerate()
    with chain(Source(range(3)), Step(lambda step, data: None, timeout=LONG), engine=Engine()) as flow:
        flow.execute("r0")
    assert not threads_besides(before)


def test_d6_after_a_failure_nobody_is_called_for_what_stays_queued():
    failing, release = threading.Event(), threading.Event()
    calls = []

    def target(step, data):
        if data == 0:
            failing.set()
            raise ValueError("now")
        assert release.wait(LONG)

    engine = Engine()
    flow = chain(
        Source(range(20)),
        Step(target, concurrency=2),
        engine=engine,
        execution_strategy="concurrent",
        max_workers=4,
    )
    with flow:
        state = flow.start("r0")
        while state.status != "failed":
            pass
        job = state._job
        with job.lock:
            calling, roused = job.calling, job.roused
            job.calling = job.roused = False
            job.call()
            calls.append((job.calling, job.roused))
            job.calling, job.roused = calling, roused
        release.set()
        assert state.wait(LONG)
    assert calls == [(False, False)]
    assert state.pending_count > 0


def test_d6_a_worker_that_turns_to_other_work_has_left_a_job_that_was_halted_meanwhile(monkeypatch):
    go, rested, engine = threading.Event(), threading.Event(), Engine()

    def source(step):
        assert go.wait(LONG)
        step.emit("output", data=1)

    monkeypatch.setattr(dispatcher, "STAY_NS", 0)

    def has_tasks():
        job.halt(ExecutionError("it does not go on here"))
        return True

    with chain(Step(source), Sink(), engine=engine) as flow:
        job = flow.start("r0")._job
        monkeypatch.setattr(engine.pool, "has_tasks", has_tasks)
        job.watchers.append(rested)
        go.set()
        assert rested.wait(LONG)
        assert job.at_rest


def test_d6_l2_a_step_that_is_about_to_pause_before_its_next_attempt_does_not_when_the_job_is_cancelled():
    failing, held = threading.Event(), threading.Event()

    def fail():
        failing.set()
        assert held.wait(LONG)
        raise OSError("again")

    def handler(step):
        step.get_execution_context().step.run("s", fail, base_delay=2 * LONG, max_delay=2 * LONG)

    with chain(Step(handler), engine=Engine()) as flow:
        state = flow.start("r0")
        assert failing.wait(LONG)
        lock = state._job.lock
        with lock:
            held.set()
            while not lock.waiting:
                pass
            flow.cancel(state)
        assert state.wait(LONG)
    assert state.status == "cancelled"


# --- E3: interrupts at any moment ---------------------------------------------------------------------------------

INTERRUPTED = """
import faulthandler, signal, sys
from routilux import Flow, Routine

faulthandler.dump_traceback_later(20, exit=True)
delay, how = float(sys.argv[1]), sys.argv[2]

class Source(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.generate)
        self.define_event("output")
    def generate(self):
        while True:
            self.emit("output", data=1)

class Sink(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.collect)
    def collect(self, **kwargs):
        pass

def interrupt(*_):
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise KeyboardInterrupt

flow = Flow(max_pending=1_000_000_000 if how == "flat" else 100, history_limit=100)
flow.add_routine(Source(), "source")
flow.add_routine(Sink(), "sink")
flow.connect("source", "output", "sink", "input")
signal.signal(signal.SIGALRM, interrupt)
try:
    signal.setitimer(signal.ITIMER_REAL, delay, 1.0)  # again, as CPython 3.11 may not call a handler at once, or at all
    if how == "wait":
        flow.start("source").wait()
    else:
        flow.execute("source")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("how", ["flat", "nested"])
@pytest.mark.parametrize("delay", [0.011, 0.0123, 0.0141, 0.0167])
def test_e3_an_interrupt_at_any_moment_comes_out_of_execute(how, delay):
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(delay), how], capture_output=True, text=True, timeout=60
    )
    assert (run.stdout, run.returncode) == ("interrupted\n", 0), run.stderr


def test_e3_a_thread_that_is_interrupted_before_it_sleeps_is_called_no_more(monkeypatch):
    began, release, attempts = threading.Event(), threading.Event(), []

    def flaky(step):
        attempts.append(1)
        if len(attempts) == 1:
            began.set()
            assert release.wait(LONG)
            raise OSError("again")

    flow = chain(Step(flaky), engine=Engine())
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.001))
    with flow:
        state = flow.start("r0")
        assert began.wait(LONG)
        tell = state._job.tell

        def interrupted():
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            tell()

        monkeypatch.setattr(state._job, "tell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            state.wait()
        monkeypatch.undo()
        release.set()
        assert state.wait(LONG)
    assert len(attempts) == 2


def test_d10_a_gate_left_shut_by_an_interrupt_is_opened_by_its_owner():
    state = chain(Sink()).execute("r0")
    gate = state._job.lock
    gate.__enter__()
    gate.abandon()
    entered = []
    thread = threading.Thread(target=lambda: gate.__enter__() or entered.append(True))
    thread.start()
    thread.join(LONG)
    assert entered == [True]
    gate.abandon()
    assert gate.inside, "another thread is inside"


def test_d10_a_signal_handler_that_emits_inside_an_emit_waits_for_no_room_in_the_queue(monkeypatch):
    """It would wait inside the gate, where nobody else gets in to make room."""
    made, begun, done = [], threading.Event(), []

    def emitted_and_interrupted(record, activation, *rest):
        emitted(record, activation, *rest)
        if threading.current_thread() is threading.main_thread():
            made.append(None)
            if len(made) == 6:
                signal.raise_signal(signal.SIGUSR1)

    def emitting(step, data):
        signal.signal(signal.SIGUSR1, lambda *_: step.emit("output", data="from the signal"))
        for number in range(8):
            step.emit("output", data=number)
            if number == 0:
                begun.wait(LONG)

    def receiving(step, data):
        begun.set()
        done.append(data)

    before = signal.getsignal(signal.SIGUSR1)
    try:
        options = {"max_pending": 2, "execution_strategy": "concurrent", "max_workers": 2}
        flow = chain(Step(emitting), Step(receiving), **options)
        monkeypatch.setattr("routilux.runtime.operations.emitted", emitted_and_interrupted)
        assert flow.execute("r0", {"data": 1}).status == "completed"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(done, key=str) == [*range(8), "from the signal"]


def test_d10_a_signal_handler_that_emits_inside_an_emit_leaves_the_job_locked(monkeypatch):
    shut, received = [], []

    def emitted_and_interrupted(record, activation, *rest):
        emitted(record, activation, *rest)
        if not shut:
            shut.append(None)
            signal.raise_signal(signal.SIGUSR1)
            shut.append(bool(record_lock[0].inside))

    def emitting(step, data):
        record_lock.append(job_lock(step))
        signal.signal(signal.SIGUSR1, lambda *_: step.emit("output", data="from the signal"))
        step.emit("output", data="from the handler")

    def job_lock(step):
        return step.get_execution_context().job_state._job.lock

    record_lock = []
    before = signal.getsignal(signal.SIGUSR1)
    try:
        flow = chain(Step(emitting), Step(lambda step, data: received.append(data)))
        monkeypatch.setattr("routilux.runtime.operations.emitted", emitted_and_interrupted)
        assert flow.execute("r0", {"data": 1}).status == "completed"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert shut == [None, True]
    assert received == ["from the handler", "from the signal"]


@pytest.mark.parametrize("strategy", ["continue", "skip"])
@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError])
def test_e1_strategies_cover_all_but_requests_to_stop(kind, strategy):
    def failing(step):
        raise kind("boom")

    flow = chain(Step(failing))
    flow.set_error_handler(ErrorHandler(strategy))
    assert flow.execute("r0").status == "completed"


# --- L3: deadlines and handlers that were given up ----------------------------------------------------------------


def test_l3_the_deadline_gives_up_handlers_of_a_job_that_has_failed_already():
    release, done = threading.Event(), threading.Event()
    engine = Engine()

    def stuck(step, data):
        release.wait(LONG)
        with pytest.raises(ContextError):
            step.emit("output")
        done.set()

    def failing(step, data):
        raise ValueError("at once")

    flow = chain(Source([1]), Step(stuck), engine=engine, execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(failing), "failing")
    flow.connect("r0", "output", "failing", "input")
    state = flow.execute("r0", timeout=1.0)
    assert state.error.type == "ValueError"
    assert state.pending_count == 0
    assert engine.given_up_threads == 1
    assert len(state.get_execution_history()) == 3
    release.set()
    assert done.wait(LONG)
    assert len(state.get_execution_history()) == 3
    flow.shutdown()


def test_l3_a_handler_whose_time_was_up_cannot_write_once_the_job_has_ended():
    ended, done = threading.Event(), threading.Event()
    refused = []

    def stuck(step):
        job = job_of(step)
        ended.wait(LONG)
        for write in (
            lambda: job.update_shared_data("late", 1),
            lambda: job.update_routine_state("r0", {"late": 1}),
            lambda: job.append_to_shared_log({"late": 1}),
        ):
            with pytest.raises(ContextError):
                write()
            refused.append(1)
        done.set()

    state = chain(Step(stuck, timeout=0.05)).execute("r0")
    ended.set()
    assert done.wait(LONG)
    assert len(refused) == 3
    assert (state.get_shared_data("late"), state.get_routine_state("r0"), state.get_shared_log()) == (None, None, [])


# --- starts that fail ---------------------------------------------------------------------------------------------


def test_a_start_that_fails_leaves_nothing_behind():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    flow = chain(Sink())
    with pytest.raises(ExecutionError, match="nested too deeply"):
        flow.execute("r0", {"data": deep})
    flow.add_routine(Sink(), "another")
    assert flow.wait_for_completion(1.0)
    flow.shutdown()


def test_d5_a_system_without_threads_is_an_error_and_not_a_hang(monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    flow = flaky_flow(Engine(), failures=1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    state = flow.execute("r0")
    assert (str(state.status), state.error.type) == ("failed", "RuntimeError")
    with pytest.raises(ExecutionError, match="the system gives no thread"):
        flow.start("r0", job_id="j")
    monkeypatch.setattr(threading.Thread, "start", start)
    assert flow.execute("r0").status == "completed"
    assert flow.start("r0").wait(LONG)
    flow.shutdown()


# --- S4: reading does not stand in the way ------------------------------------------------------------------------


def test_s4_a_value_whose_copy_reads_the_job_is_no_deadlock():
    class Curious(dict):
        def __copy__(self):
            read.append(state.get_shared_data("other"))
            return dict(self)

    read = []
    state = chain(Sink()).execute("r0")
    state.update_shared_data("other", 5)
    state.update_shared_data("curious", Curious(a=1))
    assert state.get_shared_data("curious") == {"a": 1}
    assert read[-1] == 5


# --- a process that is at its end ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there, no such limit can be set")
@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
def test_e2_a_handler_that_runs_out_of_files_fails_its_job(strategy):
    code = f"""
import resource
from routilux import Flow, Routine, slot
class Greedy(Routine):
    opened = []
    @slot
    def trigger(self):
        while True:
            self.opened.append(open("/dev/null"))
flow = Flow("f", execution_strategy={strategy!r})
flow.add_routine(Greedy(), "greedy")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
job_state = flow.start("greedy")
ended = job_state.wait(20)
for each in Greedy.opened:
    each.close()
print(ended, job_state.status, job_state.failure.type)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "True failed OSError\n", ran.stderr


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda state: state.get_shared_data([]),
        lambda state: state.update_shared_data([], 1),
        lambda state: state.get_routine_state([]),
        lambda state: state.update_routine_state([], {}),
        lambda state: state.get_execution_history([]),
        lambda state: state.performance([]),
        lambda state: state.get_shared_log(5),
    ],
)
def test_what_is_no_name_is_one_error_of_the_projects_own(call):
    with pytest.raises(ExecutionError):
        call(chain(Sink()).execute("r0"))


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Flow(engine=5),
        lambda: Engine(5),
        lambda: Flow(copy_payloads="no"),
        lambda: Routine().get_config([]),
        lambda: Routine().define_slot("a", merge_strategy=lambda old: old),
    ],
)
def test_an_option_of_the_wrong_kind_is_one_declaration_error(declare):
    with pytest.raises(DeclarationError):
        declare()


@pytest.mark.parametrize("name", ["session_id", "user_id"])
def test_a_session_and_a_user_are_named_by_strings(name):
    with pytest.raises(ExecutionError, match=f"{name} must be a string or None"):
        chain(Sink()).execute("r0", **{name: 5})
