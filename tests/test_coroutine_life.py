"""L2, L3, E3: cancelling, running out of time, and interrupts, while coroutine handlers run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain, forever, threads_besides

from routilux import ContextError, Engine, ErrorHandler, Flow, JobTimeoutError, Routine, StepTimeoutError

LONG = 20.0
SHORT = 0.02
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def context_of(step):
    return step.get_execution_context()


def job_of(step):
    return step.get_execution_context().job_state


def statuses(state, routine_id):
    return [record.status for record in state.get_execution_history(routine_id)]


def join_loops(before):
    """Wait for the event loops made since to end: a shutdown does not wait for handlers that were given up."""
    for thread in threads_besides(before):
        thread.join(LONG)
    assert not threads_besides(before)


# --- L2: cancel -----------------------------------------------------------------------------------------------------


@MODES
def test_l2_cancel_cancels_the_coroutine_at_its_await(options):
    began, seen = Signal(), []

    async def handler(step, data):
        began.set()
        try:
            await forever()
        except asyncio.CancelledError:
            seen.append((str(job_of(step).status), context_of(step).cancelled))
            step.emit("output", data=1)
            job_of(step).update_shared_data("late", 1)
            raise

    before = threading.enumerate()
    with chain(Source([1, 2]), AsyncStep(handler), Sink(), engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert began.wait()
        flow.cancel(state, "enough")
        assert str(state.status) == "cancelled"
        assert state.wait(LONG)
        assert statuses(state, "r1") == ["cancelled"]
        assert at_rest(state)
    assert seen == [("cancelled", True)]
    assert (state.get_shared_data("late"), state.errors, state.pending_count) == (None, [], 0)
    assert not threads_besides(before)


async def suppressing(step, began, over):
    began.set()
    try:
        await forever()
    except asyncio.CancelledError:
        await over


async def raising(step, began, over):
    began.set()
    try:
        await forever()
    finally:
        raise ValueError("while it was cancelled")


async def raising_after_more(step, began, over):
    began.set()
    try:
        await forever()
    finally:
        await over
        step.emit("undeclared", data=1)


@pytest.mark.parametrize("strategy", ["stop", "continue", "retry", "skip"])
@pytest.mark.parametrize("handler", [suppressing, raising, raising_after_more])
def test_l2_whatever_a_cancelled_coroutine_does_the_job_is_cancelled_when_it_has_ended(handler, strategy):
    began, over = Signal(), Signal()
    with chain(AsyncStep(lambda step: handler(step, began, over)), engine=Engine()) as flow:
        flow.set_error_handler(ErrorHandler(strategy))
        state = flow.start("r0")
        assert began.wait()
        flow.cancel(state)
        over.set()
        assert state.wait(LONG)
        assert (str(state.status), statuses(state, "r0"), state.errors) == ("cancelled", ["cancelled"], [])
        assert at_rest(state)


def test_l2_execute_returns_when_the_cancelled_coroutine_has_ended():
    began, cancelled, ended = Signal(), Signal(), []

    async def handler(step):
        began.set()
        try:
            await forever()
        finally:
            cancelled.set()
            for _ in range(10):
                await asyncio.sleep(0)
            ended.append(1)

    with chain(AsyncStep(handler), engine=Engine()) as flow:

        def cancelling():
            assert began.wait()
            flow.cancel(state)

        state = flow.start("r0")
        threading.Thread(target=cancelling).start()
        assert state.wait()
        assert cancelled.is_set()
        assert ended == [1]


@MODES
def test_l2_cancel_from_inside_a_coroutine_takes_effect_at_its_next_await(options):
    seen = []

    async def handler(step):
        flow.cancel(job_of(step), "from inside")
        seen.append(str(job_of(step).status))
        await asyncio.sleep(0)
        seen.append("not reached")

    with chain(AsyncStep(handler), engine=Engine(), **options) as flow:
        state = flow.execute("r0")
        assert (str(state.status), seen, statuses(state, "r0")) == ("cancelled", ["cancelled"], ["cancelled"])
        assert at_rest(state)


class Blocked:
    """An event loop that a handler of another job keeps, until it is released."""

    def __init__(self, engine):
        inside, self.release = Signal(), Signal()

        async def handler(step):
            inside.set()
            self.release.wait()

        self.flow = chain(AsyncStep(handler), engine=engine)
        self.flow.start("r0")
        inside.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release.set()
        self.flow.shutdown()


class Mixed(Routine):
    """A coroutine slot ``trigger`` that shares its mailbox with a plain one."""

    def __init__(self, handle):
        super().__init__()
        self.handle = handle
        self.define_slot("trigger", handler=self.coroutine)
        self.define_slot("plain", handler=self.plain)

    def plain(self):
        pass

    async def coroutine(self):
        await self.handle()


@pytest.mark.parametrize("kind", ["on the loop", "handed over by a thread"])
def test_l2_a_coroutine_cancelled_before_its_first_step_never_runs(kind):
    engine, ran = Engine(), []

    async def handle(step=None):
        ran.append(1)

    routine = Mixed(handle) if kind == "handed over by a thread" else AsyncStep(handle)
    with Flow("late", engine=engine) as flow:
        flow.add_routine(routine, "r0")
        with Blocked(engine):
            state = flow.start("r0")
            while kind == "handed over by a thread" and not state._job.begun:
                pass
            flow.cancel(state)
        assert state.wait(LONG)
    assert ran == []
    assert at_rest(state)


def test_l2_ten_thousand_coroutines_are_cancelled_at_once():
    number = 10_000
    everybody = Meeting(number)

    async def handler(step, data):
        await everybody.come()
        await forever()

    before = threading.enumerate()
    with chain(Source(range(number)), AsyncStep(handler, concurrency=number), engine=Engine()) as flow:
        state = flow.start("r0")
        assert everybody.full.wait()
        assert state.pending_count == number
        flow.cancel(state)
        assert state.wait(LONG)
        assert statuses(state, "r1") == ["cancelled"] * number
        assert at_rest(state)
    assert not threads_besides(before)


@MODES
@pytest.mark.parametrize("finisher", ["coroutine", "plain"])
def test_l2_finish_cancels_the_coroutines_of_others(options, finisher):
    began, seen = Signal(), []

    async def waiting(step, data):
        began.set()
        try:
            await forever()
        finally:
            seen.append(context_of(step).cancelled)
            job_of(step).update_shared_data("late", 1)

    async def finish(step, data):
        await began
        context_of(step).finish("done")

    def finish_plain(step, data):
        assert began.wait()
        context_of(step).finish("done")

    with Flow("finishing", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1, 2]), "source")
        flow.add_routine(AsyncStep(waiting), "waiting")
        flow.add_routine(AsyncStep(finish) if finisher == "coroutine" else Step(finish_plain), "finisher")
        flow.connect("source", "output", "waiting", "input")
        flow.connect("source", "output", "finisher", "input")
        state = flow.execute("source")
        assert (str(state.status), state.result, seen) == ("completed", "done", [True])
        assert statuses(state, "waiting") == ["cancelled"]
        assert statuses(state, "finisher") == ["completed"]
        assert state.get_shared_data("late") is None
        assert at_rest(state)


# --- L3: the time limit of a handler --------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize(
    ("strategy", "status", "recorded"),
    [
        ("stop", "failed", ["failed"]),
        ("continue", "completed", ["failed", "completed"]),
        ("skip", "completed", ["skipped", "completed"]),
    ],
)
def test_l3_a_coroutine_whose_time_is_up_is_cancelled_and_its_strategy_applies(options, strategy, status, recorded):
    seen, cancelled = [], Signal()

    async def handler(step, data):
        context = context_of(step)
        if data == 1:
            try:
                await forever()
            finally:
                seen.append(context.cancelled)
                cancelled.set()

    with chain(Source([1, 2]), AsyncStep(handler, timeout=SHORT), engine=Engine(), **options) as flow:
        flow.set_error_handler(ErrorHandler(strategy))
        state = flow.execute("r0")
        assert (str(state.status), statuses(state, "r1")) == (status, recorded)
        assert state.error.type == "HandlerTimeoutError"
        assert "0.02 seconds" in state.error.message
        assert cancelled.wait()
    assert seen == [True]


@MODES
def test_l3_an_attempt_that_ran_out_of_time_is_retried(options):
    attempts = []

    async def handler(step, data):
        attempts.append((data, context_of(step).attempt))
        if data == 1 and context_of(step).attempt < 3:
            await forever()

    step = AsyncStep(handler, timeout=SHORT)
    step.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    with chain(Source([1, 2]), step, engine=Engine(), **options) as flow:
        state = flow.execute("r0")
    assert attempts == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert (str(state.status), state.errors) == ("completed", [])
    assert at_rest(state)


@pytest.mark.parametrize("whose", ["handler", "job"])
def test_l3_what_a_coroutine_does_after_its_time_is_refused(whose):
    refused, reads = [], []
    done = Signal()

    async def handler(step):
        context, job = context_of(step), job_of(step)
        job.update_shared_data("before", 1)
        context.state["items"].append(1)
        try:
            await forever()
        except asyncio.CancelledError:
            pass

        async def edit():
            async with context.store.edit_state() as state:
                state["late"] = 1

        for operation in (
            lambda: step.emit("output", data=1),
            lambda: context.emit("output", data=1),
            lambda: context.finish(1),
            lambda: step.send_output("late"),
            lambda: job.update_shared_data("late", 1),
            lambda: job.append_to_shared_log({"late": 1}),
            lambda: context.store.get("before"),
            lambda: context.flush(),
            edit,
        ):
            with pytest.raises(ContextError):
                await operation()
            refused.append(1)
        reads.extend([context.cancelled, str(job.status), job.get_shared_data("before"), job.get_shared_data("items")])
        done.set()

    with chain(AsyncStep(handler, timeout=SHORT if whose == "handler" else None), Sink(), engine=Engine()) as flow:
        timeout = SHORT if whose == "job" else None
        state = flow.execute("r0", initial_state={"items": []}, timeout=timeout)
        assert str(state.status) == "failed"
        assert done.wait()
        history = state.get_execution_history()
        assert [(record.status, record.emitted) for record in history] == [("failed", 0)]
    assert len(refused) == 9
    assert reads == [True, "failed", 1, []]
    assert (state.get_shared_data("before"), state.get_shared_data("late")) == (1, None)
    assert state.get_shared_log() == []


def test_l3_time_in_flush_does_not_count():
    async def source(step):
        for item in range(20):
            step.emit("output", data=item)
        await context_of(step).flush()

    async def target(step, data):
        await asyncio.sleep(SHORT)

    with chain(AsyncStep(source, timeout=SHORT * 2), AsyncStep(target), engine=Engine(), max_pending=10) as flow:
        state = flow.execute("r0")
    assert (str(state.status), state.errors) == ("completed", [])


def test_l3_the_time_limit_goes_on_after_a_flush():
    async def source(step):
        for item in range(20):
            step.emit("output", data=item)
        await context_of(step).flush()
        await forever()

    step = AsyncStep(source, timeout=SHORT)
    with chain(step, Sink(), engine=Engine(), max_pending=10) as flow:
        state = flow.execute("r0")
        assert (str(state.status), state.error.type) == ("failed", "HandlerTimeoutError")


def test_l3_flushing_often_leaves_no_timers_behind():
    scheduled = []

    async def source(step):
        for item in range(300):
            step.emit("output", data=item)
            await context_of(step).flush()
        scheduled.append(len(asyncio.get_running_loop()._scheduled))

    async def target(step, data):
        pass

    with chain(AsyncStep(source, timeout=LONG), AsyncStep(target), engine=Engine(), max_pending=2) as flow:
        assert str(flow.execute("r0").status) == "completed"
    assert scheduled[0] < 150


# --- L3: the time limit of a job ------------------------------------------------------------------------------------


@MODES
def test_l3_execute_with_a_timeout_cancels_the_coroutines(options):
    cancelled = Meeting(20)

    async def handler(step, data):
        try:
            await forever()
        finally:
            await cancelled.come()

    before = threading.enumerate()
    with chain(Source(range(30)), AsyncStep(handler, concurrency=20), engine=Engine(), **options) as flow:
        state = flow.execute("r0", timeout=SHORT * 5)
        assert (str(state.status), state.error.type) == ("failed", "JobTimeoutError")
        assert "r1.input" in state.error.message
        with pytest.raises(JobTimeoutError):
            state.raise_for_status()
        assert cancelled.full.wait()
    join_loops(before)


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("ignores its cancellation", "job"), ("ignores its cancellation", "handler"), ("blocks the loop", "job")],
)
def test_l3_a_coroutine_that_does_not_stop_holds_up_neither_execute_nor_shutdown(kind, limit):
    release = Signal()

    async def ignoring(step):
        while not release.is_set():
            try:
                await release
            except asyncio.CancelledError:
                continue

    async def blocking(step):
        release.wait()

    before = threading.enumerate()
    handler = ignoring if kind == "ignores its cancellation" else blocking
    flow = chain(AsyncStep(handler, timeout=SHORT if limit == "handler" else None), engine=Engine())
    state = flow.execute("r0", timeout=SHORT if limit == "job" else None)
    assert str(state.status) == "failed"
    flow.shutdown()
    assert [thread.name for thread in threads_besides(before)] == ["routilux-loop"]
    release.set()
    join_loops(before)


@pytest.mark.parametrize("kind", ["on the loop", "handed over by a thread"])
def test_l3_a_coroutine_whose_job_ran_out_of_time_before_its_first_step_runs_only_when_it_is_resumed(kind):
    engine, ran = Engine(), []

    async def handle(step=None):
        ran.append(1)

    routine = Mixed(handle) if kind == "handed over by a thread" else AsyncStep(handle)
    with Flow("late", engine=engine) as flow:
        flow.add_routine(routine, "r0")
        with Blocked(engine):
            state = flow.execute("r0", timeout=SHORT)
            assert (str(state.status), state.pending_count) == ("failed", kind == "on the loop")
            flow.resume(state)
        assert state.wait(LONG)
        assert (str(state.status), ran) == ("completed", [1])
        assert at_rest(state)


def give_up(state, how):
    """Do to a job what `execute` does when its time is up, or its thread is interrupted."""
    if how == "its time is up":
        state._job.expire(1.0)
    else:
        state._job.interrupted(KeyboardInterrupt())


GIVING_UP = pytest.mark.parametrize("how", ["its time is up", "an interrupt"])


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("a time", "its time is up"),
        ("a time", "an interrupt"),
        ("an event", "an interrupt"),  # a job that waits for nothing else is at rest, and has all the time
        ("a job", "its time is up"),
        ("a job", "an interrupt"),
    ],
)
def test_e4_l3_a_coroutine_that_waited_when_its_job_was_given_up_runs_anew_when_it_is_resumed(what, how):
    engine, sink, begun, release = Engine(), Sink(), [], Signal()

    async def last(step):
        await release

    async def wait(step):
        begun.append(context_of(step).attempt)
        steps, again = context_of(step).step, len(begun) > 1
        if what == "a time":
            await steps.wait_for("w", hours=0 if again else 1)
        elif what == "an event":
            with pytest.raises(StepTimeoutError):
                await steps.wait_for_event("w", "never", timeout=0 if again else None)
        else:
            await steps.invoke_and_wait("w", other)
        step.emit("output", data="went on")

    with chain(AsyncStep(last), engine=engine) as other, chain(AsyncStep(wait), sink, engine=engine) as flow:
        state = flow.start("r0")
        while not state._record.waiting:
            pass
        give_up(state, how)
        assert (str(state.status), state.pending_count, statuses(state, "r0")) == ("failed", 0, ["failed"])
        flow.resume(state)
        release.set()
        assert state.wait(LONG)
        assert (str(state.status), begun, sink.got) == ("completed", [1, 1], ["went on"])
        assert statuses(state, "r0") == ["failed", "completed"]
        assert at_rest(state)


@GIVING_UP
def test_e4_l3_a_coroutine_whose_wait_was_just_over_when_its_job_was_given_up_runs_anew(how):
    engine, begun = Engine(), []

    async def wait(step):
        begun.append(1)
        await context_of(step).step.wait_for("w", hours=2 - len(begun))

    with chain(AsyncStep(wait), engine=engine) as flow:
        state = flow.start("r0")
        while not state._record.waiting:
            pass
        with Blocked(engine):
            with state._job.lock:
                state._job.wake(state._record.waiting[1])
            assert (str(state.status), state._record.queued) == ("running", 1)
            give_up(state, how)
            flow.resume(state)
        assert state.wait(LONG)
        assert (str(state.status), len(begun)) == ("completed", 2)
        assert at_rest(state)


# --- interrupts -----------------------------------------------------------------------------------------------------

INTERRUPTED = """
import asyncio, os, threading
from routilux import Flow, Routine

def say(text):
    os.write(1, f"{{text}}\\n".encode())

class Waiting(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.wait)

    async def wait(self):
        say("waiting")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("cancelled")
            raise

flow = Flow()
flow.add_routine(Waiting(), "waiting")
try:
    {execute}
except KeyboardInterrupt:
    say("interrupted")
for thread in threading.enumerate():
    if thread.name == "routilux-loop":
        flow.shutdown()
        thread.join(20)
say([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "execute",
    ["flow.execute('waiting')", "asyncio.run(flow.aexecute('waiting'))", "flow.execute('waiting', timeout=60.0)"],
)
def test_e3_an_interrupt_of_the_thread_inside_execute_cancels_the_coroutines(execute):
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED.format(execute=execute)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        # A signal that comes when the main thread is about to block in the system is only noticed with the next one.
        again = threading.Timer(5, process.send_signal, [signal.SIGINT])
        again.start()
        first = process.stdout.readline()
        again.cancel()
        lines = [first.strip(), *process.stdout.read().splitlines()]
        assert process.wait(LONG) == 0, lines
    assert sorted(lines[:-1]) == ["cancelled", "interrupted"]
    assert lines[-1] == "['MainThread']"
