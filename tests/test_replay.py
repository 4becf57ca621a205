"""J3, T1, T3: what a handler that runs again sees and does, in plain and in coroutine functions alike."""

from __future__ import annotations

import pytest
from both import KINDS, as_kind
from parts import Sink, resting
from pydantic import BaseModel

from routilux import (
    ConflictError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    Flow,
    ReplayError,
    Routine,
    StateError,
    StepExecutionError,
    open_store,
    workflow,
)
from routilux.core.machine import wrote

LONG = 20.0
STRATEGIES = ["stop", "continue", "skip", "retry"]


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def made(kind, engine):
    def make(function=None, **options):
        if function is None:
            return lambda each: make(each, **options)
        return workflow(engine=engine, **options)(as_kind(kind, function))

    return make


class Worker(Routine):
    def __init__(self, handler):
        super().__init__()
        self.define_slot("trigger", handler=handler)
        self.define_event("output", ["data"])


@pytest.fixture
def pipe(kind, engine):
    """Return a function that runs ``async def handler(ctx)`` in front of a sink: the job's state and what arrived."""

    def run(handler, strategy="stop", retries=1, **options):
        flow = Flow("pipe", engine=engine, **options)
        flow.add_routine(Worker(as_kind(kind, handler)), "worker")
        sink = Sink()
        flow.add_routine(sink, "sink")
        flow.connect("worker", "output", "sink", "input")
        flow.set_error_handler(ErrorHandler(ErrorStrategy(strategy), max_retries=retries, retry_delay=0))
        return flow.execute("worker"), sink.got

    return run


class Counter(BaseModel):
    n: int = 0
    items: list[str] = []


class Failure(Exception):
    pass


def other(job_state, n):
    """Write as another activation would."""
    with job_state._job.lock:
        wrote(job_state._record, None, {"n": n})


# --- state -----------------------------------------------------------------------------------------------------------


def test_what_is_done_before_a_point_is_done_once(made):
    runs = []

    @made(state_schema=Counter)
    async def program(ctx):
        runs.append(ctx.state.n)
        ctx.state.n += 1
        ctx.state.items.append("a")
        ctx.job_state.append_to_shared_log({"entry": "before"})
        ctx.job_state.update_routine_state(
            "program", {"seen": (ctx.job_state.get_routine_state("program") or {}).get("seen", 0) + 1}
        )
        await ctx.step.wait_for("one", seconds=0)
        ctx.state.n += 1
        ctx.state.items.append("b")
        await ctx.step.wait_for("two", seconds=0)
        ctx.state.n += 1
        return [ctx.state.n, list(ctx.state.items)]

    state = program.start()
    assert state.wait(timeout=LONG)
    state.raise_for_status()
    assert state.result == [3, ["a", "b"]]
    assert runs == [0, 0, 0]
    assert state.get_routine_state("program") == {"seen": 1}
    assert len(state.get_shared_log()) == 1
    assert state.get_shared_data("n") == 3


@pytest.mark.parametrize("point", ["step", "wait", "uuid", "flush"])
def test_reads_before_a_point_are_what_they_were(made, point):
    seen = []

    @made
    async def program(ctx):
        ctx.state.setdefault("n", 0)
        seen.append((ctx.state["n"], ctx.job_state.get_shared_data("n"), "later" in ctx.state))
        ctx.state["n"] += 1
        if point == "step":
            await ctx.step.run("a", lambda: 1)
        elif point == "wait":
            await ctx.step.wait_for("a", seconds=0)
        elif point == "uuid":
            await ctx.step.uuid("a")
        else:
            await ctx.flush()
        seen.append((ctx.state["n"], ctx.job_state.get_shared_data("n"), "later" in ctx.state))
        ctx.state["n"] += 1
        ctx.state["later"] = True
        await ctx.step.wait_for("b", seconds=0)
        seen.append((ctx.state["n"], ctx.job_state.get_shared_data("n"), "later" in ctx.state))

    program.run()
    first, middle, last = (0, 0, False), (1, 1, False), (2, 2, True)
    assert seen[-3:] == [first, middle, last]
    assert set(seen) == {first, middle, last}


def test_edits_are_points_with_the_values_that_they_had(engine):
    seen = []

    @workflow(engine=engine)
    def plain(ctx):
        with ctx.store.edit_state() as state:
            state["n"] = state.get("n", 0) + 1
            seen.append(state["n"])
        ctx.step.wait_for("a", seconds=0)
        return ctx.store.get("n")

    @workflow(engine=engine)
    async def coroutine(ctx):
        async with ctx.store.edit_state() as state:
            state["n"] = state.get("n", 0) + 1
            seen.append(state["n"])
        await ctx.step.wait_for("a", seconds=0)
        return await ctx.store.get("n")

    assert plain.run() == coroutine.run() == 1
    assert seen == [1, 1, 1, 1]


def test_a_state_that_is_refused_at_a_point_fails_the_handler(made):
    @made(max_state_bytes=1000)
    async def program(ctx):
        ctx.job_state.update_shared_data("big", "x" * 2000)
        await ctx.step.wait_for("a", seconds=0)

    with pytest.raises(StateError, match="max_state_bytes"):
        program.run()


@pytest.mark.parametrize("point", ["wait", "step"])
def test_a_conflict_at_a_point_fails_the_handler(kind, engine, point):
    async def first(ctx):
        seen = ctx.job_state.get_shared_data("n", 0)
        ctx.emit("output", data=1)
        other(ctx.job_state, 5)
        ctx.job_state.update_shared_data("n", seen + 1)
        if point == "wait":
            await ctx.step.wait_for("a", seconds=0)
        else:
            await ctx.step.run("a", lambda: 1)

    flow = Flow("f", engine=engine)
    flow.add_routine(Worker(as_kind(kind, first)), "worker")
    state = flow.execute("worker")
    with pytest.raises(ConflictError):
        state.raise_for_status()


# --- another handler than before -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (("run", "a"), ("run", "b"), "came to the step 'b' where it had come to the step 'a'"),
        (("run", "a"), ("wait", "a"), "came to the wait 'a' where it had come to the step 'a'"),
        (("wait", "a"), ("run", "a"), "came to the step 'a' where it had come to the wait 'a'"),
        (("run", "a"), ("flush", None), r"came to ctx.flush\(\) where it had come to the step 'a'"),
        (("flush", None), ("run", "a"), r"came to the step 'a' where it had come to ctx.flush\(\)"),
    ],
)
@pytest.mark.parametrize("strategy", ["stop", "retry", "continue"])
def test_a_handler_that_does_something_else_fails_the_job(made, before, after, told, strategy):
    runs = []

    async def do(ctx, what, name):
        if what == "run":
            await ctx.step.run(name, lambda: 1)
        elif what == "wait":
            await ctx.step.wait_for(name, seconds=0)
        else:
            await ctx.flush()

    @made(error_handler=ErrorHandler(ErrorStrategy(strategy), max_retries=3, retry_delay=0))
    async def program(ctx):
        runs.append(1)
        await do(ctx, *(before if len(runs) == 1 else after))
        await ctx.step.wait_for("end", seconds=0)

    with pytest.raises(ReplayError, match=told):
        program.run()
    assert len(runs) == 2


def test_a_handler_that_swallows_the_difference_fails_all_the_same(made):
    runs = []

    @made
    async def program(ctx):
        runs.append(1)
        try:
            await ctx.step.run(f"name {len(runs)}", lambda: 1)
        except ReplayError:
            pass
        await ctx.step.wait_for("end", seconds=0)

    with pytest.raises(ReplayError):
        program.run()


# --- failing after points --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_t3_what_left_at_a_point_stays_under_all_but_skip(pipe, strategy):
    async def handler(ctx):
        ctx.emit("output", data="before")
        ctx.job_state.update_shared_data("before", 1)
        await ctx.step.run("a", lambda: 1)
        ctx.emit("output", data="after")
        ctx.job_state.update_shared_data("after", 1)
        ctx.job_state.append_to_shared_log({"entry": 1})
        raise Failure

    state, got = pipe(handler, strategy)
    assert state.get_shared_data("before") == 1
    assert state.get_shared_data("after") == 1
    if strategy == "continue":
        assert (str(state.status), got) == ("completed", ["before", "after"])
    elif strategy == "skip":
        assert (str(state.status), got) == ("completed", [])
    else:
        assert str(state.status) == "failed"
        assert got in ([], ["before"])
    assert len(state.get_shared_log()) == (2 if strategy == "retry" else 1)


def test_t1_under_skip_emissions_leave_when_the_attempt_has_succeeded(pipe):
    seen = []

    async def handler(ctx):
        ctx.emit("output", data=1)
        await ctx.step.wait_for("a", seconds=0)
        ctx.emit("output", data=2)
        await ctx.step.run("b", lambda: seen.append(ctx.job_state.pending_count))
        ctx.emit("output", data=3)

    state, got = pipe(handler, "skip")
    assert got == [1, 2, 3]
    assert seen == [1]
    assert state.status == "completed"


@pytest.mark.parametrize("strategy", ["stop", "continue", "retry"])
def test_t1_a_point_lets_emissions_go(pipe, strategy):
    seen = []

    async def handler(ctx):
        ctx.emit("output", data=1)
        await ctx.step.run("b", lambda: seen.append(ctx.job_state.pending_count))
        ctx.emit("output", data=2)

    state, got = pipe(handler, strategy)
    assert sorted(got) == [1, 2]
    assert state.status == "completed"


def test_under_retry_steps_and_emissions_are_not_repeated(pipe):
    calls, attempts = [], []

    async def handler(ctx):
        attempts.append(ctx.attempt)
        ctx.emit("output", data="first")
        await ctx.step.run("a", lambda: calls.append("a"))
        ctx.emit("output", data="second")
        await ctx.step.run("b", lambda: calls.append("b"))
        if ctx.attempt < 3:
            raise Failure
        ctx.emit("output", data="third")

    state, got = pipe(handler, "retry", retries=5)
    assert state.status == "completed"
    assert got == ["first", "second", "third"]
    assert calls == ["a", "b"]
    assert attempts == [1, 2, 3]


def test_j4_a_retry_does_a_failed_step_that_was_the_last_point_anew(pipe):
    calls = []

    def work():
        calls.append(1)
        if len(calls) < 4:
            raise Failure
        return "at last"

    async def handler(ctx):
        ctx.emit("output", data=await ctx.step.run("a", work, max_retries=0))

    state, got = pipe(handler, "retry", retries=5)
    assert (len(calls), got) == (4, ["at last"])
    assert state.status == "completed"


def test_a_failed_step_that_was_survived_stays_failed(pipe):
    calls = []

    def work():
        calls.append(1)
        raise Failure

    async def handler(ctx):
        try:
            await ctx.step.run("a", work, max_retries=0)
        except StepExecutionError:
            pass
        await ctx.step.run("b", lambda: 1)
        if ctx.attempt < 3:
            raise Failure

    state, _ = pipe(handler, "retry", retries=5)
    assert state.status == "completed"
    assert len(calls) == 1


def test_e4_a_failed_job_that_is_resumed_goes_on_after_its_last_step(made):
    broken, calls = [True], []

    @made
    async def program(ctx):
        number = await ctx.step.run("a", lambda: calls.append("a") or len(calls))
        if broken:
            raise Failure
        return number

    state = program.start()
    assert state.wait(timeout=LONG)
    assert state.status == "failed"
    broken.clear()
    program.flow.resume(state)
    assert state.wait(timeout=LONG)
    assert (str(state.status), state.result, calls) == ("completed", 1, ["a"])


def test_e4_a_failed_step_is_done_anew_when_the_job_is_resumed(made):
    broken, calls = [True], []

    def work():
        calls.append(1)
        if broken:
            raise Failure
        return "mended"

    @made
    async def program(ctx):
        return await ctx.step.run("a", work, max_retries=1, base_delay=0)

    state = program.start()
    assert state.wait(timeout=LONG)
    assert (str(state.status), len(calls)) == ("failed", 2)
    broken.clear()
    program.flow.resume(state)
    assert state.wait(timeout=LONG)
    assert (str(state.status), state.result, len(calls)) == ("completed", "mended", 3)


# --- flush -----------------------------------------------------------------------------------------------------------


def test_a_flush_is_a_point(pipe):
    runs = []

    async def handler(ctx):
        runs.append(1)
        ctx.emit("output", data=1)
        await ctx.flush()
        ctx.emit("output", data=2)
        await ctx.flush()
        if len(runs) == 1:
            raise Failure
        ctx.emit("output", data=3)

    state, got = pipe(handler, "retry")
    assert (got, len(runs)) == ([1, 2, 3], 2)
    assert state.status == "completed"


def test_a_source_that_emits_a_great_deal_flushes_by_itself(engine):
    class Source(Routine):
        def __init__(self):
            super().__init__()
            self.define_slot("trigger", handler=self.go)
            self.define_event("output", ["data"])

        def go(self):
            for number in range(500):
                self.emit("output", data=number)

    flow, sink = Flow("many", engine=engine, max_pending=20), Sink()
    flow.add_routine(Source(), "source")
    flow.add_routine(sink, "sink")
    flow.connect("source", "output", "sink", "input")
    assert flow.execute("source").status == "completed"
    assert sink.got == list(range(500))


# --- being left ------------------------------------------------------------------------------------------------------


def test_after_suspend_every_operation_is_refused_and_finally_cannot_act(engine):
    from routilux import Suspend

    seen, runs = [], []

    @workflow(engine=engine)
    def program(ctx):
        runs.append(1)
        try:
            ctx.step.wait_for("a", seconds=0)
        except Suspend as suspend:
            seen.append(str(suspend))
            raise
        finally:
            if len(runs) == 1:
                for act in (
                    lambda: ctx.job_state.update_shared_data("n", 1),
                    lambda: ctx.step.run("b", lambda: 1),
                    lambda: ctx.job_state.append_to_shared_log({"a": 1}),
                    lambda: ctx.flush(),
                ):
                    with pytest.raises(Suspend):
                        act()
        return ctx.job_state.get_shared_data("n")

    assert program.run() is None
    assert len(runs) == 2
    assert "let it pass" in seen[0]


def test_a_handler_that_swallows_suspend_waits_all_the_same(made):
    runs = []

    @made
    async def program(ctx):
        runs.append(1)
        try:
            await ctx.step.wait_for("a", seconds=0)
        except BaseException:
            return "swallowed"
        return "waited"

    assert program.run() == "waited"
    assert len(runs) == 2


# --- what others write while a handler waits -------------------------------------------------------------------------


@pytest.fixture(params=["wait", "step", "flush"])
def point(request):
    """Return ``async def point(ctx, name)``, which lets the handler run again, or its replay go on to what follows."""

    async def reach(ctx, name="here"):
        if request.param == "wait":
            await ctx.step.wait_for(name, seconds=0)
        elif request.param == "step":
            await ctx.step.run(name, lambda: None)
        else:
            await ctx.flush()

    return reach


def test_s2_what_a_turn_wrote_before_a_point_is_its_own_when_it_runs_again(made, point):
    @made
    async def program(ctx):
        job = ctx.job_state
        job.get_routine_state("program")
        job.update_routine_state("program", {"phase": "first"})
        job.update_shared_data("n", job.get_shared_data("n", 0) + 1)
        ctx.state["m"] = ctx.state.get("m", 0) + 1
        await point(ctx)
        await ctx.step.wait_for("again", seconds=0)
        job.update_routine_state("program", {"phase": "second"})
        job.update_shared_data("n", 2)
        ctx.state["m"] += 1
        return [job.get_routine_state("program"), ctx.state["n"], ctx.state["m"]]

    assert program.run() == [{"phase": "second"}, 2, 2]


def test_s2_j4_what_a_failed_attempt_wrote_after_a_point_is_the_next_ones_own(pipe, point):
    async def handler(ctx):
        n = ctx.job_state.get_shared_data("n", 0)
        await point(ctx)
        ctx.job_state.update_shared_data("n", n + 1)
        if ctx.attempt == 1:
            raise Failure

    state, _ = pipe(handler, "retry")
    state.raise_for_status()
    assert state.get_shared_data("n") == 1


def test_j4_an_attempt_whose_only_point_is_a_failed_step_may_have_written_besides(pipe):
    async def handler(ctx):
        ctx.job_state.update_shared_data("before", ctx.attempt)
        try:
            await ctx.step.run("fails at first", fail_at_first, ctx.attempt, max_retries=0)
        finally:
            ctx.job_state.update_shared_data("after", ctx.attempt)

    state, _ = pipe(handler, "retry")
    state.raise_for_status()
    assert (state.get_shared_data("before"), state.get_shared_data("after")) == (2, 2)


def fail_at_first(attempt):
    if attempt == 1:
        raise Failure


def test_s2_j4_what_was_written_before_a_failed_step_that_is_done_anew_is_its_own(pipe, point):
    async def handler(ctx):
        n = ctx.job_state.get_shared_data("n", 0)
        await point(ctx)
        ctx.job_state.update_shared_data("n", n + 1)
        await ctx.step.run("fails at first", fail_at_first, ctx.attempt, max_retries=0)
        ctx.job_state.update_shared_data("n", n + 2)

    state, _ = pipe(handler, "retry")
    state.raise_for_status()
    assert state.get_shared_data("n") == 2


READS = {
    "state": lambda ctx: ctx.state.get("n", 0),
    "shared data": lambda ctx: ctx.job_state.get_shared_data("n", 0),
    "routine state": lambda ctx: (ctx.job_state.get_routine_state("program") or {}).get("n", 0),
}
WRITES = {
    "state": lambda ctx, n: ctx.state.update(n=n),
    "shared data": lambda ctx, n: ctx.job_state.update_shared_data("n", n),
    "routine state": lambda ctx, n: ctx.job_state.update_routine_state("program", {"n": n}),
}


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("look", [True, False])
def test_s2_what_somebody_else_wrote_during_a_wait_is_not_lost(made, way, look):
    @made
    async def program(ctx):
        n = READS[way](ctx)
        WRITES[way](ctx, n + 1)
        if look:  # its own write is no look at what others write later
            READS[way](ctx)
        await ctx.step.wait_for_event("go", "go")
        WRITES[way](ctx, n + 2)

    state = resting(program.start())
    if way == "routine state":
        state.update_routine_state("program", {"n": 100})
    else:
        state.update_shared_data("n", 100)
    program.engine.publish("go", None, state.job_id)
    assert state.wait(timeout=LONG)
    assert (str(state.status), state.error and state.error.type) == ("failed", "ConflictError")
    kept = state.get_routine_state("program")["n"] if way == "routine state" else state.get_shared_data("n")
    assert kept == 100


def test_s2_a_default_is_no_look_at_other_keys(engine):
    @workflow(engine=engine)
    def program(ctx):
        assert ctx.store.get("absent", None) is None
        other(ctx.job_state, 10)
        ctx.store.set("n", ctx.store.get("n") + 1)
        return ctx.store.get("n")

    assert program.run(initial_state={"n": 0}) == 11


# --- edits that were dropped, keys that were counted -----------------------------------------------------------------


class OutOfStock(Exception):
    pass


def test_j3_a_dropped_edit_has_the_values_that_it_had(engine):
    @workflow(engine=engine)
    def sell(ctx):
        tries = []
        for _ in range(2):
            try:
                with ctx.store.edit_state() as state:
                    tries.append(state["stock"])
                    state["stock"] -= 1
                    if state["stock"] < 0:
                        raise OutOfStock
            except OutOfStock:
                if len(tries) == 2:
                    ctx.step.wait_for_event("refill", "refilled")
        return tries

    state = resting(sell.start(initial_state={"stock": 0}))
    state.update_shared_data("stock", 5)
    engine.publish("refilled", None, state.job_id)
    assert state.wait(timeout=LONG)
    state.raise_for_status()
    assert state.result == [0, 0]
    assert state.get_shared_data("stock") == 5


def test_j3_dropped_edits_and_a_kept_one_before_the_same_point_have_each_its_own_values(engine):
    seen = []

    @workflow(engine=engine)
    def program(ctx):
        for drop in (True, True, False):
            if 0 < len(seen) < 3:
                other(ctx.job_state, len(seen))
            try:
                with ctx.store.edit_state() as state:
                    seen.append(state["n"])
                    state["n"] += 10
                    if drop:
                        raise Failure
            except Failure:
                pass
        ctx.step.wait_for("a", seconds=0)
        return ctx.store.get("n")

    assert program.run(initial_state={"n": 0}) == 12
    assert seen == [0, 1, 2, 0, 1, 2]


def test_j4_an_edit_that_failed_the_attempt_sees_the_state_anew_in_the_next(engine):
    attempts = []

    @workflow(engine=engine, error_handler=ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0))
    def program(ctx):
        ctx.step.run("first", lambda: None)
        with ctx.store.edit_state() as state:
            attempts.append(state["n"])
            if state["n"] == 0:
                other(ctx.job_state, 5)
                raise Failure
            state["n"] += 1

    state = program.start(initial_state={"n": 0})
    assert state.wait(timeout=LONG)
    state.raise_for_status()
    assert attempts == [0, 5]
    assert state.get_shared_data("n") == 6


def test_j3_a_refused_edit_and_the_next_one_have_each_its_own_values(engine):
    seen = []

    @workflow(engine=engine, state_schema=Counter)
    def program(ctx):
        for new in ("no number", 7):
            try:
                with ctx.store.edit_state() as state:
                    seen.append(state.n)
                    state.items.append("x")
                    state.n = new
            except StateError:
                pass
        ctx.step.wait_for("a", seconds=0)
        return ctx.store.get("n")

    assert program.run() == 7
    assert seen == [0, 0, 0, 0]


@pytest.mark.parametrize("way", ["edit", "copy"])
def test_j3_keys_that_came_later_are_not_there_when_a_handler_runs_again(engine, way):
    @workflow(engine=engine)
    def order(ctx):
        if way == "edit":
            with ctx.store.edit_state() as state:
                names = sorted(state)
                state[f"order {len(state) + 1}"] = "new"
        else:
            names = sorted(ctx.state)
            ctx.state[f"order {len(ctx.state) + 1}"] = "new"
        ctx.step.wait_for_event("go", "go")
        return names

    state = resting(order.start(initial_state={"order 1": "old"}))
    state.update_shared_data("theirs", 1)
    engine.publish("go", None, state.job_id)
    assert state.wait(timeout=LONG)
    state.raise_for_status()
    assert state.result == ["order 1"]
    assert [state.get_shared_data(key) for key in ("order 1", "order 2", "theirs")] == ["old", "new", 1]


@pytest.mark.parametrize("look", [len, list, dict], ids=["len", "list", "dict"])
def test_s2_a_key_that_came_while_a_handler_waited_is_not_overwritten(made, look):
    @made
    async def order(ctx):
        number = len(ctx.state) if look is len else len(look(ctx.state))
        await ctx.step.wait_for_event("go", "go")
        ctx.state[f"order {number + 1}"] = "mine"

    state = resting(order.start(initial_state={"order 1": "old"}))
    state.update_shared_data("order 2", "theirs")
    order.engine.publish("go", None, state.job_id)
    assert state.wait(timeout=LONG)
    assert (state.error and state.error.type, state.get_shared_data("order 2")) == ("ConflictError", "theirs")


@pytest.mark.parametrize("way", ["copy", "edit"])
def test_j3_keys_that_have_gone_are_at_their_places_when_a_handler_runs_again(engine, way):
    done = []

    @workflow(engine=engine)
    def program(ctx):
        for number in range(3):
            if way == "copy":
                name = next(iter(ctx.state))
                del ctx.state[name]
            else:
                with ctx.store.edit_state() as state:
                    name = next(iter(state))
                    del state[name]
            ctx.step.run(f"do {name}", done.append, name)
            ctx.step.wait_for(f"{number}", seconds=0)
        return list(ctx.state)

    assert program.run(initial_state={"c": 1, "a": 2, "b": 3}) == []
    assert done == ["c", "a", "b"]


def test_s2_what_a_turn_reads_of_its_own_write_counts_as_a_look(made):
    @made
    async def program(ctx):
        ctx.job_state.update_shared_data("n", 1)
        n = ctx.job_state.get_shared_data("n")
        await ctx.step.wait_for_event("go", "go")
        ctx.job_state.update_shared_data("n", n + 1)

    state = resting(program.start())
    state.update_shared_data("n", 100)
    program.engine.publish("go", None, state.job_id)
    assert state.wait(timeout=LONG)
    assert (state.error and state.error.type, state.get_shared_data("n")) == ("ConflictError", 100)


def test_j3_a_key_that_an_edit_removed_is_there_when_it_runs_again(engine):
    found = []

    @workflow(engine=engine)
    def program(ctx):
        with ctx.store.edit_state() as state:
            del state["draft"]
            try:
                del state["absent"]
            except KeyError:
                found.append("nothing")
        ctx.job_state.update_shared_data("absent", 1)
        ctx.step.wait_for("a", seconds=0)
        return sorted(ctx.state)

    assert program.run(initial_state={"draft": 1}) == ["absent"]
    assert found == ["nothing", "nothing"]
