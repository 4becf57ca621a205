"""B, D1-D3: coroutine handlers are bound, and take turns, as plain ones are and do."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import AsyncStep, Meeting, Signal, Sink, Source, Step, at_rest, chain

from routilux import (
    AsyncContext,
    Context,
    ContextError,
    DeclarationError,
    Engine,
    ErrorHandler,
    ExecutionContext,
    Flow,
    PayloadError,
    Routine,
)

LONG = 20.0
MODES = pytest.mark.parametrize(
    "options",
    [{}, {"execution_strategy": "concurrent", "max_workers": 4}],
    ids=["sequential", "concurrent"],
)


def context_of(step):
    return step.get_execution_context()


def job_of(step):
    return step.get_execution_context().job_state


class Handled(Routine):
    """A routine whose slot ``input`` has any handler."""

    def __init__(self, handler, **slot_options):
        super().__init__()
        self.define_slot("input", handler=handler, **slot_options)
        self.define_event("output")


# --- B: binding -----------------------------------------------------------------------------------------------------

GOT = []


async def function(data: int):
    await asyncio.sleep(0)
    GOT.append(data)


async def two(first, data: int):
    await asyncio.sleep(0)
    GOT.append(data)


class Callable:
    async def __call__(self, data: int):
        await asyncio.sleep(0)
        GOT.append(data)

    async def method(self, data: int):
        await asyncio.sleep(0)
        GOT.append(data)


KINDS = {
    "function": function,
    "partial": partial(two, 1),
    "partial of a partial": partial(partial(two), 1),
    "bound method": Callable().method,
    "callable object": Callable(),
    "partial of a method": partial(Callable().method),
}


@pytest.mark.parametrize("handler", KINDS.values(), ids=KINDS)
def test_b3_every_kind_of_coroutine_function_is_awaited_with_what_is_bound_to_it(handler):
    GOT.clear()
    with chain(Handled(handler), engine=Engine()) as flow:
        state = flow.execute("r0", {"data": "7"})
    assert (str(state.status), GOT) == ("completed", [7])


@pytest.mark.parametrize("handler", KINDS.values(), ids=KINDS)
def test_b4_a_misfit_is_an_error_of_the_activation(handler):
    with chain(Handled(handler), engine=Engine()) as flow:
        state = flow.execute("r0", {"data": "seven"})
    assert (str(state.status), state.error.type, state.error.slot) == ("failed", "PayloadError", "input")
    with pytest.raises(PayloadError, match="'seven'"):
        state.raise_for_status()
    assert at_rest(state)


def test_b2_a_sole_parameter_gets_the_whole_payload():
    got = []

    async def handler(payload):
        got.append(payload)

    with chain(Handled(handler), engine=Engine()) as flow:
        flow.execute("r0", {"a": 1, "b": 2})
    assert got == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_b7_append_gives_the_lists_so_far(concurrency):
    got = []

    async def handler(step, data):
        got.append(data)
        await asyncio.sleep(0)

    with chain(Source([1, 2, 3]), AsyncStep(handler, merge_strategy="append", concurrency=concurrency)) as flow:
        flow.execute("r0")
    assert got == [[1], [1, 2], [1, 2, 3]]


def test_b7_a_merge_function_is_called_once_per_delivery_and_retries_see_the_same():
    got, merges = [], []

    def merge(old, new):
        merges.append(new["data"])
        return {"data": old.get("data", 0) + new["data"]}

    async def handler(step, data):
        await asyncio.sleep(0)
        got.append(data)
        if got.count(data) == 1:
            raise OSError("again")

    step = AsyncStep(handler, merge_strategy=merge)
    step.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    with chain(Source([1, 2, 3]), step, engine=Engine()) as flow:
        state = flow.execute("r0")
    assert (str(state.status), got, merges) == ("completed", [1, 1, 3, 3, 6, 6], [1, 2, 3])


async def stream(data):
    yield data


class Streams:
    async def __call__(self, data):
        yield data


@pytest.mark.parametrize("handler", [stream, Streams(), partial(stream)], ids=["function", "callable", "partial"])
def test_async_generators_are_refused_at_the_declaration(handler):
    with pytest.raises(DeclarationError, match="generator function"):
        Handled(handler)


SEEN = []


async def by_async_context(data, context: AsyncContext):
    SEEN.append((data, context))


async def by_context(data, context: Context):
    SEEN.append((data, context))


async def by_union(data, context: AsyncContext | None = None):
    SEEN.append((data, context))


async def by_name(ctx, data):
    SEEN.append((data, ctx))


async def by_protocol(ctx: ExecutionContext, data):
    SEEN.append((data, ctx))


@pytest.mark.parametrize("handler", [by_async_context, by_context, by_union, by_name, by_protocol])
def test_b0_a_coroutine_handler_gets_an_async_context(handler):
    SEEN.clear()
    with chain(Handled(handler), engine=Engine()) as flow:
        state = flow.execute("r0", {"data": 1, "context": "theirs", "ctx": "theirs"})
    ((data, context),) = SEEN
    assert data == 1
    assert type(context) is AsyncContext
    assert (context.routine_id, context.slot_name, context.attempt, context.flow) == ("r0", "input", 1, flow)
    assert (context.job_id, context.job_state) == (state.job_id, state)


def test_b0_get_execution_context_gives_an_async_context_before_and_after_an_await():
    got = []

    async def handler(step):
        got.append(context_of(step))
        await asyncio.sleep(0)
        got.append(context_of(step))

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        flow.execute("r0")
        assert flow.routines["r0"].get_execution_context() is None
    assert [type(each) for each in got] == [AsyncContext, AsyncContext]


# --- D1 -------------------------------------------------------------------------------------------------------------


def operations(step, context):
    """Everything that a handler can do, as functions of no arguments; the awaited ones raise when they are awaited."""
    job = context.job_state

    async def edit():
        async with context.store.edit_state() as state:
            state["late"] = 1

    return {
        "emit": lambda: step.emit("output", data=1),
        "context emit": lambda: context.emit("output", data=1),
        "defer": lambda: step.emit_deferred_event("output", data=1),
        "send": lambda: step.send_output("late"),
        "finish": lambda: context.finish(1),
        "state": lambda: context.state,
        "store": lambda: context.store.get("late"),
        "flush": lambda: context.flush(),
        "edit": edit,
        "shared": lambda: job.update_shared_data("late", 1),
        "routine state": lambda: job.update_routine_state("r0", {"late": 1}),
        "log": lambda: job.append_to_shared_log({"late": 1}),
        "context": lambda: step.get_execution_context(),
    }


async def refused(step, context):
    """Return the names of the operations that raise ContextError here."""
    names = []
    for name, operation in operations(step, context).items():
        try:
            result = operation()
            if asyncio.iscoroutine(result):
                await result
        except ContextError:
            names.append(name)
    return names


ALL = ["emit", "context emit", "defer", "send", "finish", "state", "store", "flush", "edit", "shared"]
ALL += ["routine state", "log", "context"]


async def in_a_gathered_task(step, context):
    return (await asyncio.gather(refused(step, context)))[0]


async def in_a_created_task(step, context):
    return await asyncio.create_task(refused(step, context))


async def in_a_thread(step, context):
    return await asyncio.to_thread(asyncio.run, refused(step, context))


@pytest.mark.parametrize("elsewhere", [in_a_gathered_task, in_a_created_task, in_a_thread])
def test_d1_operations_belong_to_the_handlers_own_task(elsewhere):
    names, sink = [], Sink()

    async def handler(step):
        context = context_of(step)
        names.extend(await elsewhere(step, context))
        step.emit("output", data="own")

    with chain(AsyncStep(handler), sink, engine=Engine()) as flow:
        state = flow.execute("r0")
    state.raise_for_status()
    assert names == ALL
    assert sink.got == ["own"]
    assert (state.get_shared_data("late"), state.get_routine_state("r0"), state.outputs) == (None, None, [])


def test_d1_operations_after_the_turn_are_refused():
    names, over, done = [], Signal(), Signal()

    async def late(step, context):
        await over
        names.extend(await refused(step, context))
        done.set()

    tasks = []

    async def handler(step):
        tasks.append(asyncio.create_task(late(step, context_of(step))))

    with chain(AsyncStep(handler), Sink(), engine=Engine()) as flow:
        state = flow.execute("r0")
        over.set()
        assert done.wait()
    assert names == ALL
    assert len(state.get_execution_history()) == 1


def test_d1_the_error_says_whose_task_it_belongs_to():
    async def handler(step):
        async def child():
            step.emit("output", data=1)

        await asyncio.create_task(child())

    with chain(AsyncStep(handler), Sink(), engine=Engine()) as flow:
        state = flow.execute("r0")
    assert state.error.type == "ContextError"
    assert "task" in state.error.message


def test_d1_reads_of_the_job_state_work_from_other_tasks_and_threads():
    got = []

    def read(job):
        return job.get_shared_data("key"), job.get_routine_state("r0"), len(job.get_shared_log()), str(job.status)

    async def reading(job):
        return read(job)

    async def handler(step):
        job = job_of(step)
        job.update_shared_data("key", 1)
        job.update_routine_state("r0", {"own": 2})
        job.append_to_shared_log({"entry": 3})
        got.extend(await asyncio.gather(reading(job), reading(job)))
        got.append(await asyncio.to_thread(read, job))
        got.append(read(job))

    with chain(AsyncStep(handler), engine=Engine()) as flow:
        state = flow.execute("r0")
    state.raise_for_status()
    assert got == [(1, {"own": 2}, 1, "running")] * 4


# --- D2, D3: turns and order ----------------------------------------------------------------------------------------


@MODES
def test_d2_a_routine_takes_one_coroutine_at_a_time_in_the_order_of_arrival(options):
    log = []

    async def handler(step, data):
        log.append(("in", data))
        for _ in range(data % 3):
            await asyncio.sleep(0)
        log.append(("out", data))

    with chain(Source(range(300)), AsyncStep(handler), engine=Engine(), **options) as flow:
        state = flow.execute("r0")
    assert log == [(what, data) for data in range(300) for what in ("in", "out")]
    assert at_rest(state)


@MODES
def test_d2_read_modify_write_of_routine_state_over_an_await_loses_nothing(options):
    async def handler(step, data):
        job = job_of(step)
        count = (job.get_routine_state("r1") or {}).get("count", 0)
        await asyncio.sleep(0)
        job.update_routine_state("r1", {"count": count + 1})

    with chain(Source(range(200)), AsyncStep(handler), engine=Engine(), **options) as flow:
        assert flow.execute("r0").get_routine_state("r1") == {"count": 200}


class Mixed(Routine):
    """A plain and a coroutine slot, which share a mailbox unless one has a ``concurrency``."""

    def __init__(self, **options):
        super().__init__()
        self.log, self.inside, self.most = [], 0, 0
        self.define_slot("plain", handler=self.plain, **options.get("plain", {}))
        self.define_slot("coroutine", handler=self.coroutine, **options.get("coroutine", {}))

    def enter(self, data):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.log.append(data)

    def plain(self, data):
        self.enter(data)
        self.inside -= 1

    async def coroutine(self, data):
        self.enter(data)
        await asyncio.sleep(0)
        self.inside -= 1


class Two(Routine):
    def __init__(self, kinds):
        super().__init__()
        self.kinds = kinds
        self.define_slot("trigger", handler=self.send)
        self.define_event("plain", ["data"])
        self.define_event("coroutine", ["data"])

    def send(self):
        for number, kind in enumerate(self.kinds):
            self.emit(kind, data=number)


def mixed_flow(kinds, mixed, **options):
    flow = Flow("mixed", engine=Engine(), **options)
    flow.add_routine(Two(kinds), "source")
    flow.add_routine(mixed, "mixed")
    flow.connect("source", "plain", "mixed", "plain")
    flow.connect("source", "coroutine", "mixed", "coroutine")
    return flow


@MODES
@pytest.mark.parametrize("kinds", [["plain", "coroutine"] * 100, ["coroutine", "plain"] * 100, ["coroutine"] * 50])
def test_d2_plain_and_coroutine_slots_of_a_routine_share_its_turns(options, kinds):
    mixed = Mixed()
    with mixed_flow(kinds, mixed, **options) as flow:
        state = flow.execute("source")
    state.raise_for_status()
    assert mixed.log == list(range(len(kinds)))
    assert mixed.most == 1
    assert at_rest(state)


@MODES
@pytest.mark.parametrize("which", ["plain", "coroutine"])
def test_d2_a_slot_with_a_concurrency_of_its_own_leaves_the_other_in_order(options, which):
    mixed = Mixed(**{which: {"concurrency": 3}})
    kinds = ["plain", "coroutine"] * 100
    with mixed_flow(kinds, mixed, **options) as flow:
        state = flow.execute("source")
    state.raise_for_status()
    other = [number for number in mixed.log if kinds[number] != which]
    assert other == sorted(other)
    assert sorted(mixed.log) == list(range(200))
    assert at_rest(state)


@MODES
@pytest.mark.parametrize("concurrency", [2, 7, 200])
def test_d2_concurrency_is_reached_and_never_exceeded(options, concurrency):
    inside, most, meeting = 0, 0, Meeting(concurrency)

    async def handler(step, data):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await meeting.come()
        await asyncio.sleep(0)
        inside -= 1

    routines = Source(range(concurrency * 3)), AsyncStep(handler, concurrency=concurrency)
    with chain(*routines, engine=Engine(), **options) as flow:
        state = flow.execute("r0")
    assert (str(state.status), most) == ("completed", concurrency)
    assert at_rest(state)


@MODES
def test_d2_coroutines_of_different_routines_overlap(options):
    meeting = Meeting(3)

    async def handler(step, data):
        await meeting.come()

    with Flow("overlap", engine=Engine(), **options) as flow:
        flow.add_routine(Source([1]), "source")
        for name in "abc":
            flow.add_routine(AsyncStep(handler), name)
            flow.connect("source", "output", name, "input")
        state = flow.execute("source", timeout=LONG)
    assert str(state.status) == "completed"


@MODES
def test_d2_no_other_delivery_starts_between_the_attempts_of_a_retry(options):
    log = []

    async def handler(step, data):
        log.append((data, context_of(step).attempt))
        await asyncio.sleep(0)
        if context_of(step).attempt < 3:
            raise OSError("again")

    step = AsyncStep(handler)
    step.set_error_handler(ErrorHandler("retry", retry_delay=0.001, retry_backoff=1.0))
    with chain(Source([1, 2]), step, engine=Engine(), **options) as flow:
        state = flow.execute("r0")
    assert log == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert [each.attempt for each in state.get_execution_history("r1")] == [3, 3]
    assert at_rest(state)


@MODES
def test_d3_what_coroutines_emit_arrives_in_order(options):
    sink = Sink()

    async def handler(step, data):
        for part in range(3):
            step.emit("output", data=(data, part))
            await asyncio.sleep(0)

    with chain(Source(range(50)), AsyncStep(handler), sink, engine=Engine(), **options) as flow:
        flow.execute("r0")
    assert sink.got == [(data, part) for data in range(50) for part in range(3)]


# --- all together ---------------------------------------------------------------------------------------------------

NODES = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        st.lists(st.tuples(st.booleans(), st.sampled_from([1, 1, 3])), min_size=count, max_size=count),
        st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda edge: edge[0] < edge[1])),
    )
)


@examples(40)
@given(NODES, st.integers(1, 12), st.sampled_from([1, 4]), st.sampled_from([1, 5, 10_000]))
def test_d1_d3_any_graph_handles_each_emission_once_and_in_order(graph, items, workers, most):
    nodes, edges = graph
    got = {}

    def taking(name):
        def take(step, sender, data):
            got.setdefault((sender, name), []).append(data)
            sent = counts[name] = counts.get(name, 0) + 1
            step.emit("output", sender=name, data=sent)

        async def take_async(step, sender, data):
            await asyncio.sleep(0)
            take(step, sender, data)

        return take, take_async

    counts = {}
    options = {"execution_strategy": "concurrent", "max_workers": workers} if workers > 1 else {}
    with Flow("any", engine=Engine(), max_pending=most, **options) as flow:

        def source(step):
            for item in range(items):
                step.emit("output", sender=-1, data=item)

        flow.add_routine(Step(source), "source")
        for name, (is_coroutine, concurrency) in enumerate(nodes):
            take, take_async = taking(name)
            routine = AsyncStep(take_async, concurrency=concurrency) if is_coroutine else Step(take)
            flow.add_routine(routine, str(name))
        flow.connect("source", "output", "0", "input")
        for left, right in edges:
            flow.connect(str(left), "output", str(right), "input")
        state = flow.execute("source")
    state.raise_for_status()
    assert at_rest(state)
    assert len(got[-1, 0]) == items
    expected = {0: items}
    for right in range(1, len(nodes)):
        expected[right] = sum(expected[left] for left in range(right) if (left, right) in edges)
    for name, number in expected.items():
        assert len(state.get_execution_history(str(name))) == number
    for (sender, name), order in got.items():
        if not (nodes[name][0] and nodes[name][1] > 1):
            assert order == sorted(order), (sender, name)
            assert len(set(order)) == len(order)
