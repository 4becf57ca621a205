"""D7: coroutine handlers and a full queue."""

from __future__ import annotations

import asyncio
import sys

import pytest
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain, forever

from routilux import Engine, ErrorHandler, Flow

MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)
KINDS = pytest.mark.parametrize("target", [Step, AsyncStep], ids=["plain target", "coroutine target"])
MANY = 30_000


def context_of(step):
    return step.get_execution_context()


def job_of(step):
    return step.get_execution_context().job_state


class Gauge:
    """The most deliveries that were pending when it looked."""

    def __init__(self):
        self.most = 0

    def look(self, step):
        self.most = max(self.most, step.get_execution_context().job_state.pending_count)


def target_of(kind, handle, **slot_options):
    async def handle_async(step, **payload):
        handle(step, **payload)

    return kind(handle if kind is Step else handle_async, **slot_options)


def test_d7_emit_on_the_loop_neither_runs_nor_waits():
    ran, emitted = [], []

    async def source(step):
        for item in range(50):
            step.emit("output", data=item)
        emitted.append((job_of(step).pending_count, ran[:]))

    async def target(step, data):
        ran.append(data)

    with chain(AsyncStep(source), AsyncStep(target), engine=Engine(), max_pending=10) as flow:
        assert str(flow.execute("r0").status) == "completed"
    assert emitted == [(51, [])]
    assert ran == list(range(50))


def test_d7_flush_waits_until_the_queue_has_shrunk():
    counts = []

    async def source(step):
        for item in range(50):
            step.emit("output", data=item)
        counts.append(step._job.pending_count)
        await context_of(step).flush()
        counts.append(step._job.pending_count)

    async def target(step, data):
        await asyncio.sleep(0)

    class Knowing(AsyncStep):
        async def process(self, **payload):
            self._job = job_of(self)
            await super().process(**payload)

    with chain(Knowing(source), AsyncStep(target), engine=Engine(), max_pending=10) as flow:
        flow.execute("r0").raise_for_status()
    assert counts[0] == 51
    assert counts[1] <= 5 + 2


def test_d7_flush_returns_at_once_while_there_is_room():
    passed = []

    async def source(step):
        for item in range(10):
            step.emit("output", data=item)
        await context_of(step).flush()
        passed.append(len(arrived))

    async def target(step, data):
        arrived.append(data)

    arrived = []
    with chain(AsyncStep(source), AsyncStep(target), engine=Engine(), max_pending=10) as flow:
        flow.execute("r0").raise_for_status()
    assert passed == [0]


@MODES
@KINDS
def test_d7_a_coroutine_source_that_flushes_keeps_the_queue_short(options, target):
    gauge, handled = Gauge(), []
    number = MANY if target is Step else MANY // 5

    async def source(step):
        for item in range(number):
            step.emit("output", data=item)
            await context_of(step).flush()

    def handle(step, data):
        handled.append(data)
        if data % 16 == 0:
            gauge.look(step)

    flow = chain(
        AsyncStep(source), target_of(target, handle), engine=Engine(), max_pending=100, history_limit=0, **options
    )
    with flow:
        state = flow.execute("r0")
    assert (str(state.status), handled) == ("completed", list(range(number)))
    assert gauge.most <= 100 + 3
    assert at_rest(state)


@MODES
@pytest.mark.parametrize("concurrency", [1, 50])
def test_d7_a_plain_source_of_coroutine_targets_keeps_the_queue_short(options, concurrency):
    gauge = Gauge()

    async def handle(step, data):
        gauge.look(step)
        await asyncio.sleep(0)

    target = AsyncStep(handle, concurrency=concurrency)
    with chain(Source(range(5_000)), target, engine=Engine(), max_pending=100, **options) as flow:
        state = flow.execute("r0")
    assert str(state.status) == "completed"
    assert gauge.most <= 100 + concurrency + 3


@MODES
@pytest.mark.parametrize("kinds", [(AsyncStep, AsyncStep), (AsyncStep, Step), (Step, AsyncStep)])
def test_d7_emitters_in_a_cycle_do_not_wait_for_each_other_for_ever(options, kinds):
    count = [0]

    def body(step, data):
        count[0] += 1
        if data < 7:
            for _ in range(2):
                step.emit("output", data=data + 1)

    async def body_async(step, data):
        count[0] += 1
        if data < 7:
            for _ in range(2):
                step.emit("output", data=data + 1)
                await context_of(step).flush()

    with Flow("cycle", engine=Engine(), max_pending=2, **options) as flow:
        for name, kind in zip("ab", kinds, strict=True):
            flow.add_routine(kind(body if kind is Step else body_async), name)
        flow.connect("a", "output", "b", "input")
        flow.connect("b", "output", "a", "input")
        state = flow.execute("a", {"data": 0})
    assert (str(state.status), count) == ("completed", [255])
    assert at_rest(state)


@MODES
def test_d7_a_coroutine_that_emits_to_itself_is_not_held_up(options):
    handled = []

    async def handle(step, data):
        handled.append(data)
        if data == 0:
            for item in range(1, 50):
                step.emit("output", data=item)
                await context_of(step).flush()

    with Flow("itself", engine=Engine(), max_pending=5, **options) as flow:
        flow.add_routine(AsyncStep(handle), "a")
        flow.connect("a", "output", "a", "input")
        state = flow.execute("a", {"data": 0})
    assert (str(state.status), handled) == ("completed", list(range(50)))


@MODES
@KINDS
def test_d7_plain_and_coroutine_emitters_under_pressure_end(options, target):
    handled = []

    async def emitting(step, data):
        for item in range(20):
            step.emit("output", data=item)
            await context_of(step).flush()

    def emitting_plain(step, data):
        for item in range(20):
            step.emit("output", data=item)

    with Flow("pressure", engine=Engine(), max_pending=5, **options) as flow:
        flow.add_routine(Source(range(20)), "source")
        flow.add_routine(target_of(target, lambda step, data: handled.append(data)), "target")
        for name, routine in (
            ("coroutines", AsyncStep(emitting, concurrency=10)),
            ("ordered", AsyncStep(emitting)),
            ("plain", Step(emitting_plain, concurrency=3)),
        ):
            flow.add_routine(routine, name)
            flow.connect("source", "output", name, "input")
            flow.connect(name, "output", "target", "input")
        state = flow.execute("source")
    assert (str(state.status), len(handled)) == ("completed", 3 * 20 * 20)
    assert at_rest(state)


@KINDS
def test_d7_many_coroutines_that_flush_get_their_turn_one_after_the_other(target):
    handled = []

    async def emitting(step, data):
        for item in range(5):
            step.emit("output", data=item)
            await context_of(step).flush()

    source, emitters = Source(range(1_000)), AsyncStep(emitting, concurrency=1_000)
    sink = target_of(target, lambda step, data: handled.append(data))
    with chain(source, emitters, sink, engine=Engine(), max_pending=20) as flow:
        state = flow.execute("r0")
    assert (str(state.status), len(handled)) == ("completed", 5_000)
    assert at_rest(state)


def test_d7_a_coroutine_that_is_cancelled_in_its_flush_passes_its_turn_on():
    first, release = Meeting(2), Signal()

    async def emitting(step, data):
        for item in range(30):
            step.emit("output", data=item)
        if data == 0:
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
        await first.come()
        await context_of(step).flush()

    async def target(step, data):
        await release

    async def releasing(step, data):
        await first.full
        for _ in range(5):
            await asyncio.sleep(0)
        release.set()

    with Flow("passing", engine=Engine(), max_pending=5) as flow:
        flow.set_error_handler(ErrorHandler("continue"))
        flow.add_routine(Source(range(2)), "source")
        flow.add_routine(AsyncStep(emitting, concurrency=2), "emitting")
        flow.add_routine(AsyncStep(target), "target")
        flow.add_routine(AsyncStep(releasing), "releasing")
        flow.connect("source", "output", "emitting", "input")
        flow.connect("source", "output", "releasing", "input")
        flow.connect("emitting", "output", "target", "input")
        state = flow.execute("source", timeout=20.0)
    assert str(state.status) == "completed"
    assert sorted(record.status for record in state.get_execution_history("emitting")) in (
        ["completed", "completed"],
        ["completed", "failed"],
    )


@pytest.mark.parametrize("strategy", ["retry", "skip"])
def test_d7_flush_does_nothing_where_emissions_are_held(strategy):
    sink, seen = Sink(), []

    async def source(step):
        for item in range(50):
            step.emit("output", data=item)
            await context_of(step).flush()
        seen.append(job_of(step).pending_count)

    step = AsyncStep(source)
    step.set_error_handler(ErrorHandler(strategy))
    with chain(step, sink, engine=Engine(), max_pending=5) as flow:
        flow.execute("r0").raise_for_status()
    assert (seen, sink.got) == ([1], list(range(50)))


def test_d7_flush_inside_an_edit_is_refused():
    async def coroutine(step):
        async with context_of(step).store.edit_state():
            await context_of(step).flush()

    def plain(step):
        with context_of(step).store.edit_state():
            context_of(step).flush()

    for routine in (AsyncStep(coroutine), Step(plain)):
        with chain(routine, engine=Engine()) as flow:
            assert flow.execute("r0").error.type == "StateError"


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_d7_flush_writes_what_was_changed_in_place(kind):
    seen = []

    def plain(step):
        context_of(step).state["items"].append(1)
        context_of(step).flush()
        seen.append(job_of(step)._record.shared["items"])

    async def coroutine(step):
        context_of(step).state["items"].append(1)
        await context_of(step).flush()
        seen.append(job_of(step)._record.shared["items"])

    with chain(Step(plain) if kind == "plain" else AsyncStep(coroutine), engine=Engine()) as flow:
        flow.execute("r0", initial_state={"items": []}).raise_for_status()
    assert seen == [[1]]


@MODES
def test_d7_a_plain_flush_lets_the_queue_shrink(options):
    seen, sink = [], Sink()

    def source(step):
        job = job_of(step)
        for item in range(11):
            step.emit("output", data=item)
        context_of(step).flush()
        seen.append(job.pending_count)

    with chain(Step(source), sink, engine=Engine(), max_pending=10, **options) as flow:
        flow.execute("r0").raise_for_status()
    assert seen[0] <= 11
    assert sink.got == list(range(11))


def test_d7_a_flush_ends_when_the_job_does():
    flushing, ended = Signal(), []

    async def source(step):
        for item in range(50):
            step.emit("output", data=item)
        flushing.set()
        try:
            await context_of(step).flush()
        finally:
            ended.append(sys.exc_info()[0])

    async def target(step, data):
        await forever()

    with chain(AsyncStep(source), AsyncStep(target), engine=Engine(), max_pending=10) as flow:
        state = flow.start("r0")
        assert flushing.wait()
        flow.cancel(state)
        assert state.wait(20.0)
    assert len(ended) == 1
    assert at_rest(state)
