"""D: what emitting, delivering and scheduling guarantee."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from parts import Sink, Source, Step, chain, threads_besides

from routilux import ContextError, DeclarationError, Engine, Flow, Routine
from routilux.core.history import History
from routilux.runtime import dispatcher
from routilux.runtime.turn import BATCH, DEEPEST

LONG = 20.0  # seconds; a test that needs them has failed


def both(test):
    """Run a test under both strategies."""
    return pytest.mark.parametrize(
        "options",
        [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
        ids=["sequential", "concurrent"],
    )(test)


# --- D1 -----------------------------------------------------------------------------------------------------------


def test_d1_emit_returns_before_the_targets_handler_runs():
    order = []

    def source(step, **_):
        step.emit("output")
        order.append("source returned from emit")

    flow = chain(Step(source), Step(lambda step, **_: order.append("target")))
    flow.execute("r0")
    assert order == ["source returned from emit", "target"]


def test_d1_one_delivery_per_connection():
    flow = Flow("fan")
    left, right = Sink(), Sink()
    source = flow.add_routine(Source([1, 2]), "source")
    for name, sink in (("left", left), ("right", right)):
        flow.add_routine(sink, name)
        flow.connect(source, "output", name, "input")
    flow.execute(source)
    assert left.got == right.got == [1, 2]


def test_d1_emit_outside_an_execution_is_refused():
    with pytest.raises(ContextError, match=r"Source\.emit\('output'\).*inside a handler"):
        Source().emit("output", data=1)


def test_d1_send_output_outside_an_execution_is_refused():
    with pytest.raises(ContextError, match="send_output"):
        Source().send_output("text", line="x")


def test_d1_emit_from_another_thread_is_refused():
    seen = []

    def handler(step, **_):
        def elsewhere():
            with pytest.raises(ContextError) as caught:
                step.emit("output")
            seen.append(str(caught.value))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert chain(Step(handler)).execute("r0").status == "completed"
    assert "inside a handler" in seen[0]


@pytest.mark.parametrize(
    "operation",
    [
        lambda ctx: ctx.emit("output"),
        lambda ctx: ctx.finish(1),
    ],
    ids=["emit", "finish"],
)
def test_d1_a_context_is_refused_in_another_thread_and_after_the_turn(operation):
    kept = []

    def handler(step, **_):
        ctx = step.get_execution_context()
        kept.append(ctx)

        def elsewhere():
            with pytest.raises(ContextError, match="own thread"):
                operation(ctx)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    state = chain(Step(handler)).execute("r0")
    assert state.status == "completed"
    with pytest.raises(ContextError, match="handler is over"):
        operation(kept[0])
    assert state.get_execution_history()[0].emitted == 0


def test_d1_a_context_of_an_earlier_turn_is_refused_in_the_next_turn_of_the_same_routine():
    kept, errors = [], []

    def handler(step, **_):
        if kept:
            with pytest.raises(ContextError) as caught:
                kept[0].emit("output")
            errors.append(caught.value)
        kept.append(step.get_execution_context())

    chain(Source([1, 2]), Step(handler)).execute("r0")
    assert len(errors) == 1


def test_d1_another_routine_cannot_emit_in_this_ones_handler():
    other = Step(lambda step: None)
    flow = chain(Step(lambda step, **_: other.emit("output")))
    flow.add_routine(other, "other")
    state = flow.execute("r0")
    assert state.error.type == "ContextError"
    assert "belongs to Step" in state.error.message


def test_d1_the_context_is_none_outside_an_execution_and_tells_where_it_is_inside_one():
    seen = {}

    def handler(step, **_):
        ctx = step.get_execution_context()
        seen.update(
            flow=ctx.flow.flow_id,
            job=ctx.job_state.job_id,
            routine=ctx.routine_id,
            slot=ctx.slot_name,
            attempt=ctx.attempt,
            cancelled=ctx.cancelled,
            session=ctx.session_id,
            user=ctx.user_id,
        )

    step = Step(handler)
    assert step.get_execution_context() is None
    state = chain(step).execute("r0", job_id="j", session_id="s", user_id="u")
    assert seen == {
        "flow": "chain",
        "job": "j",
        "routine": "r0",
        "slot": "input",
        "attempt": 1,
        "cancelled": False,
        "session": "s",
        "user": "u",
    }
    assert (state.session_id, state.user_id) == ("s", "u")
    assert step.get_execution_context() is None


def test_d1_a_running_job_is_read_from_any_thread_and_written_by_its_handlers_only():
    inside, go_on = threading.Event(), threading.Event()

    def handler(step, **_):
        step.get_execution_context().job_state.update_shared_data("key", 1)
        inside.set()
        assert go_on.wait(LONG)

    with chain(Step(handler)) as flow:
        state = flow.start("r0")
        assert inside.wait(LONG)
        assert state.get_shared_data("key") == 1
        assert state.status == "running"
        for write in (
            lambda: state.update_shared_data("key", 2),
            lambda: state.update_routine_state("r0", {"key": 2}),
            lambda: state.append_to_shared_log({"key": 2}),
        ):
            with pytest.raises(ContextError, match=r"'chain'.*is running"):
                write()
        go_on.set()
        assert state.wait(LONG)
    state.update_shared_data("key", 3)
    assert state.get_shared_data("key") == 3


# --- D2, D3 -------------------------------------------------------------------------------------------------------


def test_d2_a_routine_handles_one_delivery_at_a_time_in_order_of_arrival():
    busy = threading.Lock()
    sink = Sink()

    def handler(step, data):
        assert busy.acquire(blocking=False)
        sink.got.append(data)
        busy.release()

    items = list(range(2_000))
    flow = chain(Source(items), Step(lambda step, data: handler(step, data)), execution_strategy="concurrent")
    with flow:
        assert flow.execute("r0").status == "completed"
    assert sink.got == items


def test_d2_slots_of_one_routine_share_its_turns():
    busy = threading.Lock()

    class TwoSlots(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("a", handler=self.work)
            self.define_slot("b", handler=self.work)

        def work(self, data):
            assert busy.acquire(blocking=False)
            busy.release()

    flow = Flow("two", execution_strategy="concurrent", max_workers=8)
    source = flow.add_routine(Source(range(500)), "source")
    both_slots = flow.add_routine(TwoSlots(), "both")
    flow.connect(source, "output", both_slots, "a")
    flow.connect(source, "output", both_slots, "b")
    with flow:
        assert flow.execute(source).status == "completed"


def test_d2_different_routines_run_in_parallel():
    meet = threading.Barrier(2)
    flow = Flow("parallel", execution_strategy="concurrent", max_workers=2)
    source = flow.add_routine(Source([1]), "source")
    for name in ("left", "right"):
        flow.add_routine(Step(lambda step, **_: meet.wait(LONG)), name)
        flow.connect(source, "output", name, "input")
    with flow:
        assert flow.execute(source).status == "completed"


def test_d2_concurrency_allows_that_many_at_a_time_and_no_more():
    meet = threading.Barrier(3)
    lock, now, most = threading.Lock(), [0], [0]

    def handler(step, **_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meet.wait(LONG)
        with lock:
            now[0] -= 1

    flow = chain(Source(range(9)), Step(handler, concurrency=3), execution_strategy="concurrent", max_workers=8)
    with flow:
        assert flow.execute("r0").status == "completed"
    assert most[0] == 3


def test_d3_emissions_over_one_connection_arrive_in_the_order_they_were_made():
    sink = Sink()

    def double(step, data):
        step.emit("output", data=data)
        step.emit("output", data=-data)

    flow = chain(Source(range(1, 500)), Step(double), sink, execution_strategy="concurrent", max_workers=4)
    with flow:
        flow.execute("r0")
    assert sink.got == [sign * item for item in range(1, 500) for sign in (1, -1)]


# --- D4 -----------------------------------------------------------------------------------------------------------


def fan(order, items):
    flow = Flow("order")
    source = flow.add_routine(Source(items), "source")
    for name in ("first", "second"):
        flow.add_routine(Step(lambda step, data, name=name: order.append((name, data))), name)
        flow.connect(source, "output", name, "input")
    return flow


def test_d4_with_one_worker_the_first_target_handles_all_before_the_second():
    order = []
    fan(order, "abc").execute("source")
    assert order == [(name, item) for name in ("first", "second") for item in "abc"]


def test_d4_a_mailbox_goes_to_the_back_after_a_batch():
    order = []
    fan(order, range(BATCH + 1)).execute("source")
    names = [name for name, _ in order]
    assert names == ["first"] * BATCH + ["second"] * BATCH + ["first", "second"]


def test_d4_jobs_share_a_worker_fairly():
    """A job with little work ends while one with much work still goes on, though both have one worker."""
    gate, order = threading.Event(), []
    engine = Engine()
    long_flow = chain(
        Source(range(50 * BATCH)), Step(lambda step, data: order.append("long")), engine=engine, max_workers=1
    )
    short_flow = chain(Source(range(3)), Step(lambda step, data: order.append("short")), engine=engine, max_workers=1)
    blocker = chain(Step(lambda step: gate.wait(LONG)), engine=engine, max_workers=1)
    blocker.start("r0")
    jobs = [long_flow.start("r0"), short_flow.start("r0")]
    gate.set()
    assert all(flow.wait_for_completion(LONG) for flow in (blocker, long_flow, short_flow))
    assert all(job.status == "completed" for job in jobs)
    assert order.index("short") < 5 * BATCH
    for flow in (blocker, long_flow, short_flow):
        flow.shutdown()


@pytest.mark.parametrize(("stay", "order"), [(0, "abababab"), (10**15, "aaaabbbb")])
def test_d4_a_worker_goes_on_with_a_job_until_it_has_worked_for_it_for_a_while(monkeypatch, stay, order):
    monkeypatch.setattr(dispatcher, "STAY_NS", stay)
    gate, ran, engine = threading.Event(), [], Engine()

    def step(name):
        return Step(lambda step, **_: (ran.append(name), step.emit("output", data=1)))

    blocker = chain(Step(lambda step: gate.wait(LONG)), engine=engine, max_workers=1)
    flows = [chain(*(step(name) for _ in range(4)), engine=engine, max_workers=1) for name in "ab"]
    blocker.start("r0")
    jobs = [flow.start("r0") for flow in flows]
    gate.set()
    assert all(flow.wait_for_completion(LONG) for flow in (blocker, *flows))
    assert all(job.status == "completed" for job in jobs)
    assert "".join(ran) == order
    for flow in (blocker, *flows):
        flow.shutdown()


# --- D5 -----------------------------------------------------------------------------------------------------------


def test_d5_sequential_runs_in_the_calling_thread_and_makes_no_thread():
    threads, before = set(), threading.enumerate()
    flow = chain(Source([1]), Step(lambda step, **_: threads.add(threading.get_ident())))
    flow.execute("r0")
    assert threads == {threading.get_ident()}
    assert not threads_besides(before)


def test_d5_max_workers_counts_the_lent_thread_and_bounds_the_handlers_at_a_time():
    lock, now, most, threads = threading.Lock(), [0], [0], set()
    meet = threading.Barrier(3)

    def handler(step, **_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            threads.add(threading.get_ident())
        meet.wait(LONG)
        with lock:
            now[0] -= 1

    engine = Engine()
    flow = chain(
        Source(range(60)), Step(handler, concurrency=50), execution_strategy="concurrent", max_workers=3, engine=engine
    )
    with flow:
        flow.execute("r0")
        assert most[0] == 3
        assert threading.get_ident() in threads
        assert len(threads) <= 4  # the lent thread, and a pool of three


def test_d5_the_pool_grows_to_the_largest_asked_for_and_ends_with_its_last_flow():
    engine = Engine()
    release, started = threading.Event(), threading.Semaphore(0)

    def handler(step, **_):
        started.release()
        assert release.wait(LONG)

    def flow_of(workers):
        return chain(Step(handler), engine=engine, max_workers=workers)

    flows = [flow_of(2), flow_of(3)]
    before = threading.enumerate()
    jobs = [flow.start("r0") for flow in flows for _ in range(4)]
    for _ in range(3):
        assert started.acquire(timeout=LONG)
    assert len(threads_besides(before)) == 3
    release.set()
    assert all(job.wait(LONG) for job in jobs)
    flows[1].shutdown()
    flows[0].shutdown()
    assert not threads_besides(before)


def test_d5_nested_jobs_do_not_starve_a_pool_of_one():
    engine = Engine()
    sink = Sink()
    inner = chain(Source([1, 2]), sink, engine=engine, execution_strategy="concurrent", max_workers=1)
    middle = chain(
        Step(lambda step: inner.execute("r0").raise_for_status()),
        engine=engine,
        execution_strategy="concurrent",
        max_workers=1,
    )
    outer = chain(Step(lambda step: middle.start("r0").wait()), engine=engine, max_workers=1)
    state = outer.start("r0")
    assert state.wait(LONG)
    assert state.status == "completed"
    assert sink.got == [1, 2]
    for flow in (inner, middle, outer):
        flow.shutdown()


def test_d5_a_worker_that_waits_with_a_timeout_is_stood_in_for():
    engine = Engine()
    inner = chain(Source([1]), Sink(), engine=engine, max_workers=1)
    outer = chain(
        Step(lambda step: inner.start("r0").wait(LONG) or pytest.fail("starved")), engine=engine, max_workers=1
    )
    state = outer.start("r0")
    assert state.wait(LONG)
    assert state.status == "completed"
    inner.shutdown()
    outer.shutdown()


def test_d5_waiting_for_ones_own_job_is_refused():
    flow = chain(Step(lambda step: step.get_execution_context().job_state.wait()))
    state = flow.execute("r0")
    assert state.error.type == "ContextError"
    assert "wait for itself" in state.error.message


# --- D6, D9 -------------------------------------------------------------------------------------------------------


@both
def test_d6_a_job_completes_when_nothing_is_outstanding(options):
    sink = Sink()
    with chain(Source(range(100)), Step(lambda step, data: step.emit("output", data=data)), sink, **options) as flow:
        state = flow.execute("r0")
    assert state.status == "completed"
    assert state.pending_count == 0
    assert len(sink.got) == 100


@both
def test_d6_a_job_whose_entry_emits_nothing_completes(options):
    with chain(Source([]), Sink(), **options) as flow:
        assert flow.execute("r0").status == "completed"


def test_d9_start_returns_at_once_and_wait_runs_the_job():
    gate = threading.Event()
    with chain(Step(lambda step: gate.wait(LONG))) as flow:
        state = flow.start("r0")
        assert not state.status.ended
        assert not state.wait(0.01)
        assert not flow.wait_for_completion(0.01)
        gate.set()
        assert state.wait()
        assert flow.wait_for_completion()
        assert flow.wait_for_completion(job_state=state)


def test_d6_many_jobs_started_at_once_all_complete():
    flow = chain(Source(range(5)), Sink(), max_workers=4)
    with flow:
        jobs = [flow.start("r0") for _ in range(200)]
        assert flow.wait_for_completion(LONG)
    assert {str(job.status) for job in jobs} == {"completed"}
    assert {len(job.get_execution_history()) for job in jobs} == {6}


# --- D7 -----------------------------------------------------------------------------------------------------------


def test_d7_a_source_that_passes_max_pending_runs_its_targets_meanwhile():
    most = [0]

    def watch(step, data):
        most[0] = max(most[0], step.get_execution_context().job_state.pending_count)

    flow = chain(Source(range(5_000)), Step(watch), max_pending=10)
    state = flow.execute("r0")
    assert state.status == "completed"
    assert most[0] <= 12  # ten queued, the source, and the one that looks


def test_d7_nested_handlers_have_their_own_context():
    seen = []

    def target(step, data):
        ctx = step.get_execution_context()
        seen.append((ctx.routine_id, ctx.slot_name))

    def source(step):
        for item in range(50):
            step.emit("output", data=item)
            assert step.get_execution_context().routine_id == "r0"

    chain(Step(source), Step(target), max_pending=1).execute("r0")
    assert set(seen) == {("r1", "input")}
    assert len(seen) == 50


def test_d7_handlers_nest_at_most_eight_deep():
    depth = threading.local()
    deepest = [0]

    def fan_out(step, level=0):
        depth.now = getattr(depth, "now", 0) + 1
        deepest[0] = max(deepest[0], depth.now)
        if level < 30:
            step.emit("output", level=level + 1)
            step.emit("extra", level=99)
        depth.now -= 1

    flow = Flow("deep", max_pending=1)
    ids = [flow.add_routine(Step(fan_out, events=("output", "extra")), f"r{index}") for index in range(31)]
    for left, right in pairwise(ids):
        flow.connect(left, "output", right, "input")
        flow.connect(left, "extra", right, "input")
    assert flow.execute("r0").status == "completed"
    assert 1 < deepest[0] <= DEEPEST + 1


def test_d7_a_chain_of_3000_routines_does_not_overflow_the_stack():
    flow = chain(*(Step(lambda step, **payload: step.emit("output", **payload)) for _ in range(3_000)), max_pending=1)
    state = flow.execute("r0", {"data": 1})
    assert state.status == "completed"
    assert len(state.get_execution_history()) == 3_000


def test_d7_a_cycle_with_two_workers_and_a_small_bound_ends():
    def relay(step, left=0):
        if left:
            step.emit("output", left=left - 1)
            step.emit("output", left=0)

    flow = Flow("cycle", execution_strategy="concurrent", max_workers=2, max_pending=10)
    a, b = flow.add_routine(Step(relay), "a"), flow.add_routine(Step(relay), "b")
    flow.connect(a, "output", b, "input")
    flow.connect(b, "output", a, "input")
    with flow:
        state = flow.execute("a", {"left": 2_000})
    assert state.status == "completed"
    assert len(state.get_execution_history()) == 4_001


def test_d7_an_emitter_waits_for_another_running_handler_rather_than_pile_up():
    """With two workers the source may not run far ahead of a target that is busy."""
    most, sink_busy = [0], threading.Event()

    def slow(step, data):
        sink_busy.set()
        most[0] = max(most[0], step.get_execution_context().job_state.pending_count)

    flow = chain(Source(range(3_000)), Step(slow), execution_strategy="concurrent", max_workers=2, max_pending=20)
    with flow:
        assert flow.execute("r0").status == "completed"
    assert most[0] <= 24


def test_d7_time_spent_on_others_does_not_count_for_the_emitters_duration():
    def source(step):
        step.emit("output")
        step.emit("output")

    def slow(step):
        release = threading.Event()
        threading.Timer(0.05, release.set).start()
        release.wait(LONG)

    history = chain(Step(source), Step(slow), max_pending=1).execute("r0").get_execution_history()
    durations = {record.routine_id: record.duration for record in history}
    assert durations["r0"] < max(record.duration for record in history if record.routine_id == "r1")


# --- D8 -----------------------------------------------------------------------------------------------------------


class Doors(Routine):
    def __init__(self, *names):
        super().__init__()
        self.entered = []
        for name in names:
            self.define_slot(name, handler=lambda name=name, **_: self.entered.append(name))


@pytest.mark.parametrize(
    ("names", "slot", "entered"),
    [
        (("trigger", "other"), None, "trigger"),
        (("only",), None, "only"),
        (("trigger", "other"), "other", "other"),
    ],
)
def test_d8_the_entry_is_the_named_slot_else_trigger_else_the_only_slot(names, slot, entered):
    doors, flow = Doors(*names), Flow("doors")
    flow.add_routine(doors, "doors")
    flow.execute("doors", slot=slot)
    assert doors.entered == [entered]


@pytest.mark.parametrize(
    ("names", "slot", "message"),
    [
        (("a", "b"), None, r"'doors'.*several slots.*slot='a' or 'b'"),
        ((), None, "no slot to start with"),
        (("trigger",), "triger", r"no slot 'triger'; did you mean 'trigger'\?"),
    ],
)
def test_d8_an_unclear_entry_is_an_error_that_says_what_there_is(names, slot, message):
    flow = Flow("doors")
    flow.add_routine(Doors(*names), "doors")
    with pytest.raises(DeclarationError, match=message):
        flow.execute("doors", slot=slot)


def test_d8_an_unknown_entry_names_the_nearest():
    with pytest.raises(DeclarationError, match=r"no routine 'r00'; did you mean 'r0'\?"):
        chain(Sink()).execute("r00")


# --- D11 ----------------------------------------------------------------------------------------------------------


def test_d11_jobs_of_one_flow_at_the_same_time_are_isolated():
    meet = threading.Barrier(4)

    def count(step, start):
        state = step.get_execution_context().job_state
        state.update_shared_data("value", start)
        meet.wait(LONG)
        for _ in range(100):
            state.update_shared_data("value", state.get_shared_data("value") + 1)

    with chain(Step(count), max_workers=4) as flow:
        jobs = [flow.start("r0", {"start": 1_000 * number}) for number in range(4)]
        assert flow.wait_for_completion(LONG)
    assert [job.get_shared_data("value") for job in jobs] == [100, 1_100, 2_100, 3_100]


def test_d11_one_routine_in_several_flows():
    sink = Sink()
    flows = [chain(Source([number]), sink) for number in range(3)]
    for flow in flows:
        flow.execute("r0")
    assert sink.got == [0, 1, 2]


def test_d11_append_buffers_belong_to_the_job():
    sink = Sink(merge_strategy="append")
    flow = chain(Source([1, 2]), sink)
    flow.execute("r0")
    flow.execute("r0")
    assert sink.got == [[1], [1, 2]] * 2


def test_h2_history_does_not_grow_beyond_what_a_bound_needs():
    history = History(10)
    for number in range(100_000):
        history.extend([("r", "s", "e", None, number, 1, 0, "completed", None, 1, 0)], [{}])
    assert len(history) <= 120
