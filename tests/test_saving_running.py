"""L4: saving jobs that run, from other threads and at any moment, and going on elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, chain

from routilux import ContextError, Engine, ErrorHandler, Flow, JobState
from routilux.runtime.job import Job

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def ctx_of(step):
    return step.get_execution_context()


class Saver:
    """Saves a job on a thread of its own; `begin` returns when the job is held."""

    def __init__(self, act=JobState.to_dict):
        self.act = act
        self.held = threading.Event()
        self.saved = self.error = None
        self.thread = None

    def begin(self, state):
        def run():
            try:
                self.saved = self.act(state)
            except BaseException as error:
                self.error = error

        def hold(job, saver):
            original(job, saver)
            self.held.set()

        original = Job.hold
        self.thread = threading.Thread(target=run)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Job, "hold", hold)
            self.thread.start()
            assert self.held.wait(LONG)
        return self

    def result(self):
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.saved


# --- holding still ----------------------------------------------------------------------------------------------


@MODES
def test_l4_save_waits_for_running_handlers_holds_back_new_ones_and_lets_go(options):
    savers, seen = [Saver(), Saver()], []

    def target(step, data):
        if data == 3:
            for saver in savers:
                saver.begin(ctx_of(step).job_state)
            seen.append(str(ctx_of(step).job_state.status))
            ctx_of(step).job_state.update_shared_data("last", data)
        sink.got.append(data)

    sink = Sink()
    flow = chain(Source(range(10)), Step(target), engine=Engine(), **options)
    with flow:
        state = flow.execute("r0")
        assert str(state.status) == "completed"
        assert (seen, sink.got) == (["running"], list(range(10)))
        one, other = (flow.restore(saver.result()) for saver in savers)
        for loaded in (one, other):
            assert (str(loaded.status), loaded.pending_count, loaded.get_shared_data("last")) == ("paused", 6, 3)
            assert "it was saved while it ran" in loaded.summary()
        sink.got.clear()
        assert flow.execute("r0", job_state=one) == one
        assert sink.got == [4, 5, 6, 7, 8, 9]


@MODES
def test_l4_a_job_on_pool_threads_goes_on_after_a_save(options):
    saver = Saver()

    def target(step, data):
        if data == 3:
            saver.begin(ctx_of(step).job_state)
        sink.got.append(data)

    sink = Sink()
    with chain(Source(range(10)), Step(target), engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert state.wait(LONG)
        assert len(saver.result()["record"]["queue"]["id"]) == 6
    assert sink.got == list(range(10))


@MODES
def test_l4_saves_at_any_time_harm_nothing(options):
    saved, done = [], threading.Event()

    def save_on(state):
        while not done.is_set():
            saved.append(state.to_dict())

    def target(step, data):
        job = ctx_of(step).job_state
        job.update_routine_state("r1", {"count": (job.get_routine_state("r1") or {}).get("count", 0) + 1})
        step.emit("output", data=data)

    sink = Sink()
    with chain(Source(range(800)), Step(target), sink, engine=Engine(), **options) as flow:
        state = flow.start("r0")
        threads = [threading.Thread(target=save_on, args=(state,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert state.wait()
        done.set()
        for thread in threads:
            thread.join(LONG)
        assert (str(state.status), sink.got) == ("completed", list(range(800)))
        assert state.get_routine_state("r1") == {"count": 800}
        loaded = flow.restore(saved[len(saved) // 2])
        if loaded.status == "paused":
            flow.execute("r0", job_state=loaded)
        assert loaded.get_routine_state("r1") == {"count": 800}


def test_l4_save_inside_a_handler_of_the_job_is_refused(tmp_path):
    errors = []

    def handler(step):
        state = ctx_of(step).job_state
        inner = chain(Step(lambda _: errors.append(attempt(lambda: state.save(tmp_path / "job")))))
        errors.append(attempt(state.to_dict))
        inner.execute("r0")

    def attempt(act):
        with pytest.raises(ContextError) as info:
            act()
        return str(info.value)

    chain(Step(handler)).execute("r0", job_id="job").raise_for_status()
    assert errors == [
        f"flow 'chain': {what} inside a handler of job 'job' would wait for itself" for what in ("to_dict()", "save()")
    ]


def test_l4_a_job_of_another_flow_is_saved_inside_a_handler():
    other = chain(Sink()).execute("r0")
    saved = []
    chain(Step(lambda _: saved.append(other.to_dict()))).execute("r0").raise_for_status()
    assert saved[0]["record"]["status"] == "completed"


@pytest.mark.parametrize("change", ["pause", "cancel", "fail", "finish", "resume", "expire"])
@MODES
def test_l4_what_happens_to_a_held_job_happens(change, options):
    """The saver's serializer runs while the job is held, and the job goes through the change meanwhile."""

    class Changes:
        def serialize(self, value):
            job = state_of[0]
            if change in ("pause", "resume"):
                flow.pause(job)
            if change == "resume":
                flow.resume(job)
            if change == "cancel":
                flow.cancel(job)
            if change == "expire":
                job._job.expire(1.0)
            return 1

        def deserialize(self, data):
            return data

    def target(step, data):
        if data == 3 and not state_of:
            state_of.append(ctx_of(step).job_state)
            ctx_of(step).job_state.update_shared_data("object", object())
            saver.begin(state_of[0])
            if change == "fail":
                raise ValueError("while held")
            if change == "finish":
                ctx_of(step).finish("early")
        sink.got.append(data)

    sink, state_of = Sink(), []
    saver = Saver(lambda state: state.to_dict(Changes()))
    with chain(Source(range(6)), Step(target), engine=Engine(), **options) as flow:
        state = flow.execute("r0")
        state.wait()
        loaded = flow.restore(saver.result(), Changes())
        status, saved_as, got = {
            "pause": ("paused", "paused", [0, 1, 2, 3]),
            "resume": ("completed", "paused", [0, 1, 2, 3, 4, 5]),
            "cancel": ("cancelled", "paused", [0, 1, 2, 3]),
            "expire": ("failed", "paused", [0, 1, 2, 3]),
            "fail": ("failed", "failed", [0, 1, 2]),
            "finish": ("completed", "completed", [0, 1, 2, 3]),
        }[change]
        assert (str(state.status), str(loaded.status), sink.got) == (status, saved_as, got)
        if status in ("paused", "failed"):
            flow.resume(state)
            assert state.wait()
            assert sink.got[-3:] == [3, 4, 5]


def test_l4_a_retry_that_falls_due_while_the_job_is_held_runs_afterwards():
    attempts, saver, released = [], None, threading.Event()

    class Slow:
        def serialize(self, value):
            for thread in threading.enumerate():
                if thread.name == "routilux-timers":
                    thread.join(LONG)  # it ends when the retry has fallen due
            released.set()
            return 1

        def deserialize(self, data):
            return data

    def flaky(step):
        attempts.append(ctx_of(step).attempt)
        if len(attempts) == 1:
            ctx_of(step).job_state.update_shared_data("object", object())
            saver.begin(ctx_of(step).job_state)
            raise OSError("again")

    saver = Saver(lambda state: state.to_dict(Slow()))
    with chain(Step(flaky), engine=Engine()) as flow:
        flow.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
        state = flow.execute("r0")
        assert (str(state.status), attempts, released.is_set()) == ("completed", [1, 2], True)
        loaded = flow.restore(saver.result(), Slow())
        assert len(loaded._record.retrying) == 1
        flow.resume(loaded)
        assert loaded.wait()
    assert attempts == [1, 2, 2]


def test_l4_a_handler_that_waits_inside_emit_does_not_block_a_save():
    waiting, go, saver = threading.Event(), threading.Event(), Saver()

    def slow(step, data):
        if data == 0:
            waiting.set()
            assert go.wait(LONG)

    class Watched(Source):
        def generate(self, items=None):
            for item in range(50):
                if item == 1:
                    assert waiting.wait(LONG)
                self.emit("output", data=item)

    options = {"execution_strategy": "concurrent", "max_workers": 2, "max_pending": 4}
    with chain(Watched(), Step(slow), engine=Engine(), **options) as flow:
        state = flow.start("r0")
        assert waiting.wait(LONG)
        job = state._job
        while not job.pressed:  # until the source waits for its queue to get shorter
            pass
        saver.begin(state)
        go.set()
        loaded = flow.restore(saver.result())
        assert state.wait(LONG)
        assert (len(state.get_execution_history()), loaded.pending_count) == (51, 49)


def test_l4_a_saver_that_is_interrupted_lets_go():
    class Interrupts:
        def serialize(self, value):
            raise KeyboardInterrupt

        def deserialize(self, data):
            return data

    def target(step, data):
        if data == 3:
            ctx_of(step).job_state.update_shared_data("object", object())
            saver.begin(ctx_of(step).job_state)

    saver = Saver(lambda state: state.to_dict(Interrupts()))
    with chain(Source(range(6)), Step(target), engine=Engine()) as flow:
        state = flow.execute("r0")
        assert (str(state.status), len(state.get_execution_history())) == ("completed", 7)
        with pytest.raises(KeyboardInterrupt):
            saver.result()
        assert not state._job.savers
        assert state._record.holds == 0


# --- any moment -------------------------------------------------------------------------------------------------


def outcome(state):
    """Return what a job amounts to, clock and order between routines aside."""
    names = state._record.plan.nodes
    history = state.get_execution_history()
    key = lambda each: (each.routine_id, each.slot, each.event_name, str(each.data), each.status, each.attempt)  # noqa: E731
    return (
        (str(state.status), state.pending_count, state.result, sorted(map(str, state.errors))),
        {name: state.get_routine_state(name) for name in names},
        state._record.shared,
        sorted(str(sorted(each.items())[:1]) for each in state.get_shared_log()),
        {name: [(*key(each), each.emitted) for each in history if each.routine_id == name] for name in names},
        {name: (each.count, each.errors, each.emitted) for name, each in state.performance().items()},
        sorted((each.routine_id, str(each.data)) for each in state.outputs),
    )


def busy_flow(moment, saver, delay):
    """Retries, and both kinds of merging; at the given handler call, a saver comes."""
    calls = []

    def note(step):
        calls.append(step)
        if len(calls) == moment:
            saver.begin(ctx_of(step).job_state)

    def flaky(step, data):
        note(step)
        ctx, last = ctx_of(step), data[-1]
        if last % 3 == 1 and ctx.attempt == 1:
            raise OSError("again")
        job = ctx.job_state
        job.update_routine_state("r1", {"sum": (job.get_routine_state("r1") or {}).get("sum", 0) + last})
        job.append_to_shared_log({"data": last, "timestamp": "-"})
        step.send_output("note", seen=len(data))
        step.emit("output", data=last)

    def total(old, new):
        return {"data": old.get("data", 0) + new["data"]}

    def summed(step, data):
        note(step)
        if data % 5 == 0 and ctx_of(step).attempt < 3:
            raise OSError("again")
        ctx_of(step).job_state.update_shared_data("total", data)

    flow = chain(
        Source(range(12)),
        Step(flaky, merge_strategy="append"),
        Step(summed, merge_strategy=total),
        engine=Engine(),
    )
    flow.set_error_handler(ErrorHandler("retry", retry_delay=delay))
    return flow


def run(flow, state=None):
    while state is None or state.status == "paused":
        state = flow.execute("r0", job_state=state, **({} if state else {"job_id": "job"}))
    return state


@examples(50)
@given(st.integers(1, 30), st.sampled_from([0.0, 1e-4]))
def test_l4_a_job_saved_at_any_moment_and_continued_ends_like_one_that_never_was(moment, delay):
    saver = Saver()
    with busy_flow(moment, saver, delay) as flow, busy_flow(0, None, delay) as fresh:
        original = run(flow)
        continued = run(fresh, fresh.restore(json.loads(json.dumps(saver.result()))))
        assert outcome(original) == outcome(continued) == UNDISTURBED


with busy_flow(0, None, 0.0) as _flow:
    UNDISTURBED = outcome(run(_flow))


STRATEGIES = ["stop", "continue", "skip", "retry"]


@st.composite
def graphs(draw):
    """Return edges of a small graph without cycles, and a strategy for each of its routines."""
    count = draw(st.integers(2, 6))
    parents = [draw(st.sets(st.integers(0, node - 1), min_size=1, max_size=2)) for node in range(1, count)]
    strategies = [draw(st.sampled_from(STRATEGIES[1:])) for _ in range(count)]
    return parents, strategies


def graph_flow(parents, strategies, moment, saver, **options):
    calls = []

    def handle(step, data):
        calls.append(step)
        if len(calls) == moment:
            saver.begin(ctx_of(step).job_state)
        ctx = ctx_of(step)
        name, job = ctx.routine_id, ctx.job_state
        if data % 5 == 3 and ctx.attempt == 1:
            raise OSError(f"{data}")
        job.update_routine_state(name, {"sum": (job.get_routine_state(name) or {}).get("sum", 0) + data})
        step.emit("output", data=data + int(name[1:]))

    flow = Flow("graph", engine=Engine(), **options)
    flow.add_routine(Source(range(8)), "source")
    for index, strategy in enumerate(strategies):
        step = Step(handle)
        step.set_error_handler(ErrorHandler(strategy, retry_delay=0.0))
        flow.add_routine(step, f"n{index}")
    flow.connect("source", "output", "n0", "input")
    for index, each in enumerate(parents, 1):
        for parent in each:
            flow.connect(f"n{parent}", "output", f"n{index}", "input")
    return flow


def graph_outcome(state):
    found = list(outcome(state))
    found[4] = {name: sorted(rows) for name, rows in found[4].items()}  # where paths join, their order is open
    return found


@examples(40)
@given(graphs(), st.integers(1, 8), st.booleans())
def test_l4_generated_graphs_saved_at_any_moment_end_like_undisturbed_ones(graph, moment, concurrent):
    options = {"execution_strategy": "concurrent", "max_workers": 3} if concurrent else {}
    saver = Saver()
    flows = [graph_flow(*graph, when, saver, **options) for when in (moment, 0, 0)]
    original = flows[0].execute("source", job_id="job")
    continued = flows[1].execute("source", job_state=flows[1].restore(saver.result()))
    undisturbed = flows[2].execute("source", job_id="job")
    assert graph_outcome(original) == graph_outcome(continued) == graph_outcome(undisturbed)
    for flow in flows:
        flow.shutdown()


# --- another process ----------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from dataclasses import dataclass
from routilux import Context, Flow, JobState, Routine


@dataclass
class Seen:
    numbers: set


class Numbers(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.send)
        self.define_event("number", ["value"])

    def send(self):
        for value in range(1000):
            self.emit("number", value=value)


class Keeper(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.keep)

    def keep(self, value: int, ctx: Context, seen: Seen | None = None):
        if value == pause_at:
            ctx.flow.pause(ctx.job_state)
        with open(log, "a") as file:
            print(value, file=file)
        total = (ctx.job_state.get_routine_state("keeper") or {}).get("total", 0)
        ctx.job_state.update_routine_state("keeper", {"total": total + value})
        if value % 100 == 0:
            old = ctx.job_state.get_shared_data("seen") or Seen(set())
            ctx.job_state.update_shared_data("seen", Seen(old.numbers | {value}))


what, log, path = sys.argv[1:]
pause_at = 300 if what == "pause" else None
flow = Flow("numbers", version="1")
flow.add_routine(Numbers(), "numbers")
flow.add_routine(Keeper(), "keeper")
flow.connect("numbers", "number", "keeper", "input")
if what == "load":
    state = flow.load(path)
    flow.resume(state)
    state.wait()
else:
    state = flow.execute("numbers", job_id="job")
if what == "pause":
    state.save(path)
history = [(each.routine_id, each.event_name, each.data, each.status) for each in state.get_execution_history()]
shared = sorted(state.get_shared_data("seen").numbers)
print(json.dumps([str(state.status), state.get_routine_state("keeper"), shared, history]))
flow.shutdown()
"""


def test_l4_a_job_goes_on_in_another_process_as_if_nothing_had_been(tmp_path):
    def program(what, log):
        file = tmp_path / "program.py"
        file.write_text(PROGRAM)
        command = [sys.executable, str(file), what, str(tmp_path / log), str(tmp_path / "job")]
        where = str(Path(__file__).parent.parent)
        return json.loads(
            subprocess.run(command, check=True, capture_output=True, timeout=60, env={"PYTHONPATH": where}).stdout
        )

    undisturbed = program("whole", "whole.log")
    assert program("pause", "log")[0] == "paused"
    assert program("load", "log") == undisturbed
    for log in ("log", "whole.log"):
        assert (tmp_path / log).read_text().split() == [str(number) for number in range(1000)]
