"""What no other test noticed when the code of a rule was broken on purpose."""

from __future__ import annotations

import contextvars
import threading
from _thread import get_ident
from itertools import pairwise
from types import SimpleNamespace

import pytest
from parts import Sink, Source, Step, chain, in_thread, threads_besides

from routilux import ContextError, Engine, ErrorHandler, Flow, Routine
from routilux.runtime.clock import Clock
from routilux.runtime.gate import INSIDE, Gate, _Bell
from routilux.runtime.pool import WorkerPool
from routilux.runtime.timers import Timers

LONG = 20.0


def job_of(step):
    return step.get_execution_context().job_state


class Several(Routine):
    """A routine of several slots ``handle(name, **payload)``, each with options of its own, and event ``output``."""

    def __init__(self, handle, **slots):
        super().__init__()
        for name, options in slots.items():
            self.define_slot(name, handler=lambda name=name, **payload: handle(name, **payload), **options)
        self.define_event("output")


class Hasty(Timers):
    """Notes the seconds that are to pass before each call, and makes it at once."""

    def __init__(self, clock):
        super().__init__(clock)
        self.planned = []

    def at(self, due, call):
        self.planned.append(due / 1e9)
        return super().at(0, call)


def hasty_engine():
    """Return an engine on whose clock no time passes and whose timers do not wait."""
    engine = Engine(Clock(monotonic_ns=lambda: 0))
    engine.timers = Hasty(engine.clock)
    return engine


# --- D1 -------------------------------------------------------------------------------------------------------------


def test_d1_another_routine_has_no_context_and_no_operations_in_this_ones_handler():
    other, refused = Step(lambda step: None), []

    def handler(step):
        assert other.get_execution_context() is None
        for operation in (lambda: other.send_output("text", line=1), lambda: other.emit_deferred_event("output")):
            with pytest.raises(ContextError, match="belongs to Step"):
                operation()
            refused.append(1)

    flow = chain(Step(handler))
    flow.add_routine(other, "other")
    state = flow.execute("r0")
    state.raise_for_status()
    assert (len(refused), state.outputs) == (2, [])


def test_d1_a_context_of_an_earlier_turn_cannot_finish_the_next_one():
    kept, handled = [], []

    def handler(step, data):
        handled.append(data)
        kept.append(step.get_execution_context())
        if data == 2:
            with pytest.raises(ContextError):
                kept[0].finish("by an old context")

    state = chain(Source([1, 2, 3]), Step(handler)).execute("r0")
    state.raise_for_status()
    assert (handled, state.result) == ([1, 2, 3], None)


def test_d1_a_handler_cannot_write_to_another_running_job():
    release, refused = threading.Event(), []
    busy = chain(Step(lambda step: release.wait(LONG)), engine=Engine())
    other = busy.start("r0")

    def handler(step):
        for operation in (
            lambda: other.update_shared_data("key", 1),
            lambda: other.update_routine_state("r0", {"key": 1}),
            lambda: other.append_to_shared_log({"key": 1}),
        ):
            with pytest.raises(ContextError, match="only by its own handlers"):
                operation()
            refused.append(1)

    with busy:
        state = chain(Step(handler)).execute("r0")
        release.set()
        state.raise_for_status()
    assert len(refused) == 3
    for job in (state, other):
        assert (job.get_shared_data("key"), job.get_routine_state("r0"), job.get_shared_log()) == (None, None, [])


def test_d1_a_thread_that_was_given_the_handlers_context_variables_cannot_write_either():
    kept, refused = [], []

    def handler(step):
        job, context = job_of(step), contextvars.copy_context()
        kept.append(context)

        def elsewhere():
            with pytest.raises(ContextError):
                job.update_shared_data("key", 1)
            with pytest.raises(ContextError):
                step.emit("output")
            refused.append(1)

        in_thread(lambda: context.run(elsewhere))

    state = chain(Step(handler)).execute("r0")
    state.raise_for_status()
    assert (refused, state.get_shared_data("key")) == ([1], None)

    def later():
        with pytest.raises(ContextError):
            kept[0].run(state.update_shared_data, "key", "when the job had ended")
        refused.append(2)

    in_thread(later)
    assert (refused, state.get_shared_data("key")) == ([1, 2], None)


# --- D2, D3, D4 -----------------------------------------------------------------------------------------------------


def test_d2_a_slot_with_concurrency_has_a_mailbox_of_its_own():
    meet, met = threading.Barrier(3), []

    def handle(name):
        meet.wait(LONG)  # two of the one slot, and one of the other
        met.append(name)

    def source(step):
        for event in ("output", "output", "extra"):
            step.emit(event)

    flow = Flow("boxes", execution_strategy="concurrent", max_workers=4)
    flow.add_routine(Step(source, events=("output", "extra")), "source")
    flow.add_routine(Several(handle, one={}, two={"concurrency": 2}), "target")
    flow.connect("source", "output", "target", "two")
    flow.connect("source", "extra", "target", "one")
    with flow:
        flow.execute("source").raise_for_status()
    assert sorted(met) == ["one", "two", "two"]


def test_d2_the_slots_of_a_routine_handle_deliveries_in_the_order_of_their_arrival():
    order = []
    flow = Flow("boxes")
    flow.add_routine(Source([1, 2, 3]), "source")
    flow.add_routine(Several(lambda name, data: order.append((name, data)), first={}, second={}), "target")
    flow.connect("source", "output", "target", "first")
    flow.connect("source", "output", "target", "second")
    flow.execute("source").raise_for_status()
    assert order == [(name, item) for item in (1, 2, 3) for name in ("first", "second")]


def test_d3_deferred_emissions_arrive_in_the_order_they_were_made():
    def source(step):
        for item in range(5):
            step.emit_deferred_event("output", data=item)

    sink = Sink()
    with chain(Step(source), sink, engine=Engine()) as flow:
        state = flow.execute("r0")
        assert state.status == "paused"
        assert flow.resume(state).wait(LONG)
    assert sink.got == [0, 1, 2, 3, 4]


def test_d4_a_batch_is_128_deliveries():
    order = []
    flow = Flow("batch")
    source = flow.add_routine(Source(range(129)), "source")
    for name in ("first", "second"):
        flow.add_routine(Step(lambda step, data, name=name: order.append(name)), name)
        flow.connect(source, "output", name, "input")
    flow.execute("source")
    assert order == ["first"] * 128 + ["second"] * 128 + ["first", "second"]


def test_d4_a_job_whose_worker_turned_to_another_job_keeps_its_order():
    order, engine = [], Engine()
    other = chain(Sink(), engine=engine, max_workers=1)

    def source(step):
        for item in range(129):
            step.emit("output", data=item)
        others.append(other.start("r0"))  # the only worker turns to it after this handler

    others = []
    flow = Flow("order", engine=engine, max_workers=1)
    flow.add_routine(Step(source), "source")
    for name in ("first", "second"):
        flow.add_routine(Step(lambda step, data, name=name: order.append(name)), name)
        flow.connect("source", "output", name, "input")
    with flow, other:
        state = flow.start("source")
        assert state.wait(LONG)
        assert others[0].wait(LONG)
    assert order == ["first"] * 128 + ["second"] * 128 + ["first", "second"]


def test_d4_the_pool_runs_tasks_in_the_order_in_which_they_were_submitted():
    pool, order, last = WorkerPool(), [], threading.Event()
    for number in range(5):
        pool.submit(lambda number=number: (order.append(number), last.set() if len(order) == 5 else None))
    pool.set_limit(1)
    assert last.wait(LONG)
    pool.set_limit(0)
    pool.join()
    assert order == [0, 1, 2, 3, 4]


# --- D5, D6, D7 -----------------------------------------------------------------------------------------------------


def fan_out(*handlers, **options):
    """Return a flow of a source that emits once, and a target for each handler."""
    flow = Flow("fan", **options)
    flow.add_routine(Source([1]), "source")
    for number, handle in enumerate(handlers):
        flow.add_routine(Step(handle), f"target{number}")
        flow.connect("source", "output", f"target{number}", "input")
    return flow


def test_d5_sequential_makes_no_thread_when_several_mailboxes_are_ready():
    before, ran = threading.enumerate(), []
    flow = fan_out(*(lambda step, data: ran.append(data) for _ in range(3)), engine=Engine())
    flow.execute("source").raise_for_status()
    assert ran == [1, 1, 1]
    assert not threads_besides(before)


def test_d5_a_thread_that_waits_does_not_exceed_max_workers():
    """A worker runs the only handler that may run; the waiting thread has to sleep, though another one is ready."""
    started, release, order = threading.Event(), threading.Event(), []

    def first(step, data):
        started.set()
        assert release.wait(LONG)
        order.append("first")

    with fan_out(first, lambda step, data: order.append("second"), engine=Engine()) as flow:
        state = flow.start("source")
        assert started.wait(LONG)
        waiting = threading.Thread(target=state.wait)
        waiting.start()
        while not state._job.idle:
            pass
        release.set()
        waiting.join(LONG)
    assert order == ["first", "second"]


def test_d5_a_thread_inside_wait_lends_itself():
    release, started, threads, engine = threading.Event(), threading.Event(), [], Engine()
    blocker = chain(Step(lambda step: (started.set(), release.wait(LONG))), engine=engine, max_workers=1)
    flow = chain(Step(lambda step: threads.append(threading.get_ident())), engine=engine, max_workers=1)
    with blocker, flow:
        blocker.start("r0")
        assert started.wait(LONG)
        assert flow.start("r0").wait()
        release.set()
    assert threads == [threading.get_ident()]


def test_d5_waiting_for_ones_own_job_from_inside_a_job_that_it_waits_for_is_refused():
    jobs, refused = [], []

    def inner_handler(step):
        with pytest.raises(ContextError, match="wait for itself"):
            jobs[0].wait()
        refused.append(1)

    inner = chain(Step(inner_handler))

    def outer_handler(step):
        jobs.append(job_of(step))
        inner.execute("r0").raise_for_status()

    chain(Step(outer_handler)).execute("r0").raise_for_status()
    assert refused == [1]


def test_d6_a_job_does_not_complete_while_a_retry_waits():
    attempts = []

    def flaky(step, data):
        attempts.append(step.get_execution_context().attempt)
        if len(attempts) == 1:
            raise OSError("again")

    flow = fan_out(flaky, lambda step, data: None)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.02))
    state = flow.execute("source")
    assert (state.status, attempts, state.pending_count) == ("completed", [1, 2], 0)


def test_d7_handlers_nest_eight_deep_where_there_is_reason_to():
    depth, deepest = [0], [0]

    def fan_out(step, level=0):
        depth[0] += 1
        deepest[0] = max(deepest[0], depth[0])
        if level < 30:
            step.emit("output", level=level + 1)
            step.emit("extra", level=99)
        depth[0] -= 1

    flow = Flow("deep", max_pending=1)
    ids = [flow.add_routine(Step(fan_out, events=("output", "extra")), f"r{index}") for index in range(31)]
    for left, right in pairwise(ids):
        flow.connect(left, "output", right, "input")
        flow.connect(left, "extra", right, "input")
    flow.execute("r0").raise_for_status()
    assert deepest[0] == 1 + 8  # the emitter, and eight inside one another


@pytest.mark.parametrize(
    "slots",
    [
        {"timed": {"timeout": LONG}},
        {"timed": {"timeout": LONG}, "plain": {}},
        {"plain": {}, "timed": {"timeout": LONG}},
        {"timed": {"timeout": LONG, "concurrency": 2}},
    ],
    ids=["alone", "first of two", "second of two", "several at a time"],
)
def test_d7_no_timed_handler_starts_while_an_emitter_of_the_same_thread_is_inside_its_emit(slots):
    emitting, handled = [False], []

    def handle(name, data):
        assert name == "plain" or not emitting[0]
        handled.append(data)

    def source(step):
        emitting[0] = True
        for item in range(10):
            step.emit("output", data=item)
        emitting[0] = False

    flow = Flow("timed", max_pending=1)
    flow.add_routine(Step(source), "source")
    flow.add_routine(Several(handle, **slots), "target")
    flow.connect("source", "output", "target", "timed")
    flow.execute("source").raise_for_status()
    assert sorted(handled) == list(range(10))


def test_d7_an_emitter_waits_while_another_handler_runs():
    started, source_done, pending = threading.Event(), threading.Event(), []

    def source(step):
        step.emit("output", data=0)
        assert started.wait(LONG)
        for item in range(20):
            step.emit("output", data=item)
        source_done.set()

    def busy(step, data):
        started.set()
        job = job_of(step)
        while not pending and not job._job.pressed and not source_done.is_set():
            pass
        pending.append(job.pending_count)

    flow = chain(Step(source), Step(busy), execution_strategy="concurrent", max_workers=2, max_pending=3)
    with flow:
        flow.execute("r0").raise_for_status()
    assert pending[0] <= 3 + 3  # what is queued, one more, and the two that run


def test_d7_an_emitter_goes_on_when_there_is_room_again_and_another_handler_still_runs():
    started, went_on, handled = threading.Event(), threading.Event(), []

    def source(step):
        step.emit("output", data=0)
        assert started.wait(LONG)
        for item in range(1, 5):
            step.emit("output", data=item)
        went_on.set()

    def target(step, data):
        job = job_of(step)._job
        started.set()
        if data == 0:
            while not job.pressed:
                pass
        if data == 3:  # nothing but this is left
            assert went_on.wait(LONG)
        handled.append(data)

    flow = chain(Step(source), Step(target), execution_strategy="concurrent", max_workers=2, max_pending=2)
    with flow:
        flow.execute("r0").raise_for_status()
    assert handled == [0, 1, 2, 3, 4]


def test_d7_an_emitter_goes_on_when_the_last_other_handler_has_ended():
    """It fills its own mailbox, so that nobody else can make room."""
    other_runs, emitted = threading.Event(), []

    def to_itself(step, data):
        if data == 1:
            assert other_runs.wait(LONG)
            for _ in range(10):
                step.emit("output", data=0)
                emitted.append(1)

    def other(step, data):
        other_runs.set()
        while not job_of(step)._job.pressed:
            pass

    flow = fan_out(to_itself, other, execution_strategy="concurrent", max_workers=2, max_pending=2)
    flow.connect("target0", "output", "target0", "input")
    with flow:
        flow.execute("source", timeout=LONG).raise_for_status()
    assert len(emitted) == 10


def pressed_source(step, started):
    """Emit until the queue is longer than ``max_pending=2``, while a target has begun to handle the first."""
    step.emit("output", data=0)
    assert started.wait(LONG)
    for item in range(1, 5):
        step.emit("output", data=item)


def until_pressed(step):
    """Wait until an emitter of the job waits for this handler."""
    while not job_of(step)._job.pressed:
        pass


def test_d7_an_emitter_that_waits_runs_a_mailbox_that_gets_ready_meanwhile():
    started, extra_handled = threading.Event(), threading.Event()

    def target(step, data):
        started.set()
        if data == 0:
            until_pressed(step)
            step.emit("output")
            assert extra_handled.wait(LONG)

    flow = chain(
        Step(lambda step: pressed_source(step, started)),
        Step(target),
        Step(lambda step: extra_handled.set()),
        execution_strategy="concurrent",
        max_workers=2,
        max_pending=2,
    )
    with flow:
        flow.execute("r0").raise_for_status()


def test_d7_an_emitter_that_waits_goes_on_when_the_job_has_ended():
    started, source_done = threading.Event(), threading.Event()

    def source(step):
        pressed_source(step, started)
        source_done.set()

    def target(step, data):
        started.set()
        until_pressed(step)
        flow.cancel(job_of(step))
        assert source_done.wait(LONG)

    flow = chain(Step(source), Step(target), execution_strategy="concurrent", max_workers=2, max_pending=2)
    assert flow.execute("r0").status == "cancelled"
    assert source_done.is_set()
    flow.shutdown()


def test_d7_who_only_replaces_the_delivery_it_came_from_does_not_pass_the_bound():
    emitting, got = [False], []

    def relay(step, data):
        emitting[0] = True
        step.emit("output", data=data)
        emitting[0] = False

    def last(step, data):
        assert not emitting[0]
        got.append(data)

    chain(Source(range(50)), Step(relay), Step(last), max_pending=5).execute("r0").raise_for_status()
    assert got == list(range(50))


def test_d7_time_spent_on_others_is_taken_off_once():
    now = [0]

    def middle(step, data):
        for _ in range(3 if data == 1 else 0):
            step.emit("output")
        now[0] += 20_000_000

    def last(step):
        now[0] += 50_000_000

    flow = chain(
        Source([1, 2]), Step(middle), Step(last), max_pending=1, engine=Engine(Clock(monotonic_ns=lambda: now[0]))
    )
    history = flow.execute("r0").get_execution_history("r1")
    assert [record.duration for record in history] == [0.02, 0.02]


# --- D9 -------------------------------------------------------------------------------------------------------------


def test_d9_resume_has_pool_threads_run_the_job_when_nobody_waits_for_it():
    ran = threading.Event()
    flow = chain(Step(lambda step: (step.emit("output"), flow.pause(job_of(step)))), Step(lambda step: ran.set()))
    with flow:
        state = flow.execute("r0")
        assert not ran.is_set()
        flow.resume(state)
        assert ran.wait(LONG)


def test_d9_resume_returns_at_once():
    release = threading.Event()
    flow = chain(
        Step(lambda step: (step.emit("output"), flow.pause(job_of(step)))), Step(lambda step: release.wait(LONG))
    )
    with flow:
        state = flow.resume(flow.execute("r0"))
        assert not state.status.ended
        release.set()
        assert state.wait(LONG)


def test_d9_a_paused_job_has_not_ended_for_those_who_wait():
    flow = chain(Step(lambda step: (step.emit("output"), flow.pause(job_of(step)))), Sink())
    with flow:
        state = flow.execute("r0")
        assert (state.wait(), state.wait(LONG)) == (False, False)
        assert not flow.wait_for_completion(LONG, state)
        assert flow.resume(state).wait(LONG)


# --- D10 ------------------------------------------------------------------------------------------------------------


def test_d10_who_enters_the_gate_without_the_bell_leaves_none_that_is_rung_in_vain():
    """The gate may open between its first look and its second; the bell that it left there must count for nothing."""
    gate, other = Gate(), _Bell()

    class Opening(dict):
        """Somebody is inside at the first look, and nobody at the second."""

        def setdefault(self, key, thread):
            return thread if gate.waiting else -1

    gate.inside = Opening()
    assert gate.enter(get_ident())
    gate.waiting.append(other)
    gate.ring()
    assert other.lock.acquire(blocking=False)


def test_d10_an_interrupt_at_the_gate_passes_a_ring_on(monkeypatch):
    gate, other = Gate(), _Bell()

    class Interrupted:
        def acquire(self):
            if self in seen:  # asleep
                gate.waiting.clear()  # rung just now
                gate.waiting.append(other)
                raise KeyboardInterrupt
            seen.append(self)

    seen = []
    gate.inside[INSIDE] = -1  # another thread
    monkeypatch.setattr("routilux.runtime.gate.threading", SimpleNamespace(Lock=Interrupted))
    with pytest.raises(KeyboardInterrupt):
        gate.enter(get_ident())
    assert other.lock.acquire(blocking=False)


# --- T2, T3 ---------------------------------------------------------------------------------------------------------


def test_t2_what_was_held_leaves_when_its_turn_ends_not_when_the_batch_does():
    arrived, caller = threading.Event(), threading.get_ident()

    def middle(step, data):
        job = job_of(step)._job
        if data == 1:  # until the other thread has found nothing to do
            while job.calling or job.crew_size > 1 or not (job.idle or threading.get_ident() == caller):
                pass
        else:
            assert arrived.wait(LONG)
        step.emit("output", data=data)

    flow = chain(
        Source([1, 2]),
        Step(middle),
        Step(lambda step, data: arrived.set()),
        execution_strategy="concurrent",
        max_workers=2,
    )
    flow.routines["r1"].set_error_handler(ErrorHandler("retry", max_retries=0))
    with flow:
        flow.execute("r0").raise_for_status()


def test_t3_under_stop_only_the_failed_turns_own_deferred_events_are_withdrawn():
    broken, sink = [True], Sink()

    def target(step, data):
        step.emit_deferred_event("output", data=data)
        if data == 2 and broken:
            raise ValueError("broken")

    flow = chain(Source([1, 2]), Step(target), sink, engine=Engine())
    with flow:
        state = flow.execute("r0")
        assert state.status == "failed"
        broken.clear()
        while state.status != "completed":  # the second one is deferred once more
            flow.resume(state).wait(LONG)
    assert sink.got == [1, 2]


# --- B6, B7, B8 -----------------------------------------------------------------------------------------------------


def test_b6_b8_deferred_events_are_renamed_and_isolated_as_others_are():
    item, got = [1], []

    def source(step):
        step.emit_deferred_event("output", data=item)
        item.append("changed by the emitter")

    def receive(name, other):
        got.append((name, list(other)))
        other.append("changed by a receiver")

    flow = Flow("deferred", engine=Engine())
    flow.add_routine(Step(source), "source")
    flow.add_routine(Several(receive, first={}, second={}), "target")
    flow.connect("source", "output", "target", "first", {"data": "other"})
    flow.connect("source", "output", "target", "second", {"data": "other"})
    with flow:
        state = flow.execute("source")
        assert flow.resume(state).wait(LONG)
        state.raise_for_status()
    assert got == [("first", [1]), ("second", [1])]


def test_b8_what_the_entry_handler_does_to_its_payload_shows_neither_in_the_next_attempt_nor_in_the_history():
    seen = []

    def flaky(step, items):
        seen.append(list(items))
        items.append("mine")
        if len(seen) == 1:
            raise OSError("again")

    flow = chain(Step(flaky))
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    (record,) = flow.execute("r0", {"items": [1]}).get_execution_history()
    assert seen == [[1], [1]]
    assert record.data == {"items": [1]}


def merging(merge, handle, items, concurrency=2):
    """Return a flow of a source and a routine ``r1`` that merges what it gets, two at a time by default."""
    flow = Flow("merging", execution_strategy="concurrent", max_workers=3, engine=Engine())
    flow.add_routine(Source(items), "r0")
    target = Routine()
    target.define_slot("input", handler=handle, merge_strategy=merge, concurrency=concurrency)
    flow.add_routine(target, "r1")
    flow.connect("r0", "output", "r1", "input")
    return flow


def test_b7_two_merges_at_the_same_time_lose_nothing():
    meet, got, calls = threading.Barrier(2), [], []

    def add(old, new):
        calls.append(1)
        if len(calls) <= 2:
            meet.wait(LONG)
        return {"total": old.get("total", 0) + new["data"]}

    with merging(add, lambda total: got.append(total), [1, 10]) as flow:
        flow.execute("r0").raise_for_status()
    assert max(got) == 11
    assert len(calls) == 3


def test_b7_what_a_merge_function_did_to_the_buffer_before_it_raised_is_forgotten():
    seen = []

    def flaky(old, new):
        seen.append(list(old.get("data", [])))
        old.setdefault("data", []).append(new["data"])
        if len(seen) == 2:
            raise OSError("again")
        return old

    with merging(flaky, lambda data: None, [1, 2], concurrency=1) as flow:
        flow.routines["r1"].set_error_handler(ErrorHandler("retry", retry_delay=0.0))
        flow.execute("r0").raise_for_status()
    assert seen == [[], [1], [1]]


def test_b7_a_merge_function_may_look_at_the_job():
    """It runs outside the lock, so that other threads go on meanwhile."""
    seen = []

    def add(old, new):
        seen.append(in_thread(lambda: states[0].pending_count))
        return new

    states = []
    with merging(add, lambda data: None, [1]) as flow:
        states.append(flow.start("r0"))
        assert states[0].wait(LONG)
        states[0].raise_for_status()
    assert seen == [1]


def test_b7_l3_a_merge_that_outlived_its_time_is_refused_and_its_handler_not_called():
    release, got, before = threading.Event(), [], threading.enumerate()

    def slow(old, new):
        assert release.wait(LONG)
        return new

    flow = merging(slow, lambda data: got.append(data), [1])
    state = flow.execute("r0", timeout=0.05)
    assert state.status == "failed"
    release.set()
    flow.shutdown()
    for thread in threads_besides(before):
        thread.join(LONG)
    assert got == []
    assert state._job.record.buffers == {}


# --- S2 -------------------------------------------------------------------------------------------------------------


def test_s2_a_conflict_about_any_key_of_an_update_refuses_all_of_it():
    read, changed = threading.Event(), threading.Event()

    def reader(step, data):
        job = job_of(step)
        job.get_routine_state("source")
        read.set()
        assert changed.wait(LONG)
        job.update_routine_state("source", {"mine": 1, "contested": 1, "also mine": 1})

    def changer(step, data):
        assert read.wait(LONG)
        job_of(step).update_routine_state("source", {"contested": 2})
        changed.set()

    with fan_out(reader, changer, execution_strategy="concurrent", max_workers=3) as flow:
        state = flow.execute("source")
    assert state.error.type == "ConflictError"
    assert "'contested'" in state.error.message
    assert state.get_routine_state("source") == {"contested": 2}


# --- S4 -------------------------------------------------------------------------------------------------------------


def test_s4_the_result_is_what_it_was_when_the_job_was_finished():
    result = [1]

    def handler(step):
        step.get_execution_context().finish(result)
        result.append("changed afterwards")

    assert chain(Step(handler)).execute("r0").result == [1]


# --- H1, H3 ---------------------------------------------------------------------------------------------------------


def test_h1_a_deferred_event_is_an_emission_of_its_activation():
    flow = chain(Step(lambda step: step.emit_deferred_event("output", data=1)), Sink(), engine=Engine())
    (record,) = flow.execute("r0").get_execution_history()
    assert (record.event_name, record.data, record.emitted) == ("output", {"data": 1}, 1)


def test_h3_a_skipped_activation_counts_as_an_error():
    flow = chain(Step(lambda step: int("x")))
    flow.set_error_handler(ErrorHandler("skip"))
    state = flow.execute("r0")
    assert state.performance("r0").errors == len(state.errors) == 1


# --- E2, E3 ---------------------------------------------------------------------------------------------------------


def test_e2_the_delays_of_the_policy_are_waited_for():
    engine = hasty_engine()
    flow = chain(Step(lambda step: int("x")), engine=engine)
    flow.set_error_handler(ErrorHandler("retry", max_retries=4, retry_delay=1.5, retry_backoff=2.0, max_delay=10.0))
    with flow:
        assert flow.execute("r0").error.attempt == 5
    assert engine.timers.planned == [1.5, 3.0, 6.0, 10.0]


def test_e2_the_jitter_of_a_retry_is_that_of_its_job_delivery_and_attempt():
    def planned(job_id):
        engine = hasty_engine()

        def once(step, data=None):
            if step.get_execution_context().attempt == 1:
                raise OSError("again")

        flow = chain(Source([1, 2]), Step(once), engine=engine)
        flow.routines["r1"].set_error_handler(ErrorHandler("retry", retry_delay=1.0, jitter=1.0))
        with flow:
            flow.execute("r0", job_id=job_id).raise_for_status()
        return engine.timers.planned

    first = planned("job")
    assert len(first) == len(set(first)) == 2
    assert planned("job") == first
    assert not set(planned("another job")) & set(first)


def test_e3_raise_for_status_raises_the_original_exception_of_a_job_that_failed_while_paused():
    original = ValueError("the very one")

    def handler(step):
        flow.pause(job_of(step))
        raise original

    flow = chain(Step(handler))
    state = flow.execute("r0")
    assert (state.status, state.error.type) == ("failed", "ValueError")
    with pytest.raises(ValueError, match="the very one") as caught:
        state.raise_for_status()
    assert caught.value is original


def two_that_fail(strategy_of_second):
    """Return a flow in which ``target0`` raises KeyError, and ``target1`` ValueError when the job has failed."""
    second_runs, mended = threading.Event(), threading.Event()

    def first(step, data):
        if not mended.is_set():
            assert second_runs.wait(LONG)
            raise KeyError("first")

    def second(step, data):
        second_runs.set()
        while not mended.is_set() and job_of(step).status == "running":
            pass
        if not mended.is_set():
            raise ValueError("second")
        step.emit("output", data="went on")

    flow = fan_out(first, second, execution_strategy="concurrent", max_workers=3, engine=Engine())
    flow.routines["target1"].set_error_handler(ErrorHandler(strategy_of_second, retry_delay=0.0))
    return flow, mended


def test_e3_a_failure_after_the_one_that_failed_the_job_is_recorded_and_replaces_nothing():
    flow, _ = two_that_fail("stop")
    with flow:
        state = flow.execute("source")
    assert state.error.type == "KeyError"
    assert [error.type for error in state.errors] == ["KeyError", "ValueError"]
    with pytest.raises(KeyError):
        state.raise_for_status()


def test_e2_a_retry_that_a_failing_job_owes_is_kept_for_its_resumption():
    flow, mended = two_that_fail("retry")
    sink = Sink()
    flow.add_routine(sink, "sink")
    flow.connect("target1", "output", "sink", "input")
    with flow:
        state = flow.execute("source")
        assert [error.type for error in state.errors] == ["KeyError"]
        mended.set()
        assert flow.resume(state).wait(LONG)
        state.raise_for_status()
    assert sink.got == ["went on"]


def test_e3_a_request_to_stop_in_a_worker_is_raised_in_execute_with_a_timeout_too():
    def stopping(step):
        raise SystemExit("stop")

    with chain(Step(stopping), engine=Engine()) as flow, pytest.raises(SystemExit):
        flow.execute("r0", timeout=LONG)


# --- L2 -------------------------------------------------------------------------------------------------------------


def test_l2_a_finish_of_a_turn_that_raised_does_not_count_for_a_later_one():
    handled = []

    def handler(step, data):
        handled.append(data)
        if data == 1:
            step.get_execution_context().finish("early")
            raise ValueError("after all")

    flow = chain(Source([1, 2, 3]), Step(handler))
    flow.set_error_handler(ErrorHandler("continue"))
    state = flow.execute("r0")
    assert (handled, str(state.status), state.result) == ([1, 2, 3], "completed", None)
    handled.clear()
    flow.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0.0))
    state = flow.execute("r0")
    assert (handled, str(state.status), state.result) == ([1, 1], "failed", None)


@pytest.mark.parametrize("strategy", ["stop", "continue", "skip", "retry"])
def test_l2_an_error_after_the_job_was_cancelled_changes_nothing(strategy):
    def handler(step):
        flow.cancel(job_of(step), "enough")
        raise ValueError("too late")

    engine = Engine()
    flow = chain(Step(handler), engine=engine)
    flow.set_error_handler(ErrorHandler(strategy))
    state = flow.execute("r0")
    assert (state.status, state.errors, state.pending_count) == ("cancelled", [], 0)
    assert [record.status for record in state.get_execution_history()] == ["cancelled"]
    assert engine.timers._heap == []


def test_l2_what_a_cancelled_handler_defers_is_dropped():
    def handler(step):
        flow.cancel(job_of(step))
        step.emit_deferred_event("output", data=1)

    flow = chain(Step(handler), Sink())
    state = flow.execute("r0")
    assert [record.emitted for record in state.get_execution_history()] == [0]
    assert state._job.record.deferred == []


def test_l2_a_handler_that_finishes_a_job_which_has_failed_does_not_complete_it():
    running, failed = threading.Event(), threading.Event()

    def failing(step, data):
        assert running.wait(LONG)
        raise ValueError("now")

    def finishing(step, data):
        running.set()
        while job_of(step).status == "running":
            pass
        step.get_execution_context().finish("late")
        failed.set()

    with fan_out(failing, finishing, execution_strategy="concurrent", max_workers=3) as flow:
        state = flow.execute("source")
    assert failed.is_set()
    assert (state.status, state.result) == ("failed", None)


@pytest.mark.parametrize("queued", [True, False], ids=["queued before", "nothing queued before"])
def test_l2_what_handlers_emit_after_a_paused_job_was_finished_is_dropped(queued):
    finisher_runs, sink = threading.Event(), Sink()

    def finisher(step, data):
        finisher_runs.set()
        while job_of(step).status != "paused":
            pass
        step.get_execution_context().finish("done")

    def other(step, data):
        assert finisher_runs.wait(LONG)
        if queued:
            step.emit("output", data="before")
        flow.pause(job_of(step))
        while not any(record.routine_id == "target0" for record in job_of(step).get_execution_history()):
            pass
        step.emit("output", data="after")

    flow = fan_out(finisher, other, execution_strategy="concurrent", max_workers=2, engine=Engine())
    flow.add_routine(sink, "sink")
    flow.connect("target1", "output", "sink", "input")
    state = flow.execute("source")
    try:
        assert (state.status, state.result) == ("paused", "done")
        flow.resume(state)
        assert state.status == "completed"  # nothing is left
        assert sink.got == []
    finally:
        flow.shutdown(cancel=True)


# --- L3 -------------------------------------------------------------------------------------------------------------


def late_tries(step, ctx):
    """Try all that a handler may do; return for each whether it was refused."""
    tries = []
    for operation in (
        lambda: step.emit("output", data="late"),
        lambda: step.emit_deferred_event("output", data="late"),
        lambda: step.send_output("late"),
        lambda: ctx.finish("late"),
        lambda: ctx.job_state.update_shared_data("late", 1),
        lambda: ctx.job_state.append_to_shared_log({"late": 1}),
    ):
        try:
            operation()
            tries.append("passed")
        except ContextError:
            tries.append("refused")
    return tries


def test_l3_an_attempt_whose_time_was_up_is_refused_while_the_next_one_runs_and_after():
    """The clock stands still but for the one moment that the first attempt takes too long."""
    now, second_runs, tried, tries, sink = [0], threading.Event(), threading.Event(), [], Sink()
    engine = Engine(Clock(monotonic_ns=lambda: now[0]))

    def handler(step):
        ctx = step.get_execution_context()
        if ctx.attempt == 2:
            second_runs.set()
            assert tried.wait(LONG)
            step.emit("output", data="of the second")
            return
        now[0] += 1_000_000_000
        assert second_runs.wait(LONG)
        tries.append(ctx.cancelled)
        tries.extend(late_tries(step, ctx))
        tried.set()

    flow = chain(Step(handler, timeout=0.05), sink, engine=engine)
    flow.routines["r0"].set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    with flow:
        state = flow.execute("r0")
    state.raise_for_status()
    assert tries == [True] + ["refused"] * 6
    assert sink.got == ["of the second"]
    assert (state.status, state.result, state.outputs, state.get_shared_log()) == ("completed", None, [], [])
    assert state.get_shared_data("late") is None


@pytest.mark.parametrize("fails", [True, False], ids=["failure", "success"])
def test_l3_the_late_end_of_a_handler_that_was_given_up_neither_ends_its_successor_nor_acts_for_it(fails):
    release, old, tries, sink = threading.Event(), [], [], Sink()

    def target(step):
        if not old:
            old.append(threading.current_thread())
            ctx = step.get_execution_context()
            assert release.wait(LONG)
            tries.extend((ctx.cancelled, *late_tries(step, ctx)))
            if fails:
                raise ValueError("late")
            return
        release.set()
        old[0].join(LONG)
        step.emit("output", data="of the successor")

    flow = chain(Step(target), sink, engine=Engine())
    with flow:
        state = flow.execute("r0", timeout=0.05)
        assert state.status == "failed"
        assert flow.resume(state).wait(LONG)
    assert tries == [True] + ["refused"] * 6
    assert (state.status, sink.got, state.result) == ("completed", ["of the successor"], None)
    assert (state.outputs, state.get_shared_log(), state.get_shared_data("late")) == ([], [], None)
    assert [error.type for error in state.errors] == ["JobTimeoutError"]


def test_l3_a_plain_handler_after_a_timed_one_of_its_routine_acts_in_its_own_thread():
    def handle(name, data):
        target.send_output(name, data=data)

    target = Several(handle, timed={"timeout": LONG}, plain={})
    flow = Flow("mixed")
    flow.add_routine(Source([1]), "source")
    flow.add_routine(target, "target")
    for slot in ("timed", "plain"):
        flow.connect("source", "output", "target", slot)
    state = flow.execute("source")
    state.raise_for_status()
    assert [output.output_type for output in state.outputs] == ["timed", "plain"]
