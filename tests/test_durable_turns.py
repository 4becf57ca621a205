"""T1-T3, S1-S6, D1-D7 and H1 in jobs with a store, where a turn is a transaction."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from crashing import outcome
from parts import AsyncStep, Signal, Sink, Source, Step, chain, meanwhile
from pydantic import BaseModel, Field, field_serializer, field_validator, model_validator

from routilux import (
    ConflictError,
    Engine,
    ErrorHandler,
    ErrorStrategy,
    Flow,
    SaveError,
    StateError,
    StatusError,
    open_store,
    signals,
)

LONG = 20.0


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


def of(step: Step) -> Any:
    return step.get_execution_context()


def with_strategy(flow: Flow, strategy: str, **options: Any) -> Flow:
    flow.set_error_handler(ErrorHandler(strategy, **options))
    return flow


def one(engine: Engine, handle: Any, strategy: str = "stop", *, sink: Any = None, **options: Any) -> Flow:
    """Return a flow of a routine ``r0``, whose handler is ``handle(ctx, **payload)``, and of a sink behind it."""
    flow = chain(Step(lambda step, **given: handle(of(step), **given)), sink or Sink(), engine=engine, **options)
    return with_strategy(flow, strategy, **({"retry_delay": 0.0} if strategy == "retry" else {}))


# --- T1: seen by itself at once, by others when it commits --------------------------------------------------------


@pytest.mark.parametrize("point", [None, "flush", "step", "edit"])
def test_t1_what_a_turn_does_is_its_own_until_it_commits(point, engine):
    reached, go = Signal(), Signal()

    def handle(ctx, **_):
        state = ctx.job_state
        ctx.store.set("a.b", [1])
        ctx.state["a"]["b"].append(2)
        state.update_shared_data("c", 3)
        state.update_routine_state("r0", {"n": 1})
        state.append_to_shared_log({"what": "x"})
        ctx.emit("output", data=1)
        if point == "flush":
            ctx.flush()
        elif point == "step":
            ctx.step.run("s", lambda: None)
        elif point == "edit":
            with ctx.store.edit_state():
                pass
        assert (ctx.store.get("a.b"), state.get_shared_data("c")) == ([1, 2], 3)
        assert (dict(ctx.state), ctx.store.get_state()) == ({"a": {"b": [1, 2]}, "c": 3},) * 2
        assert state.get_routine_state("r0") == {"n": 1}
        assert [each["what"] for each in state.get_shared_log()] == ["x"]
        reached.set()
        go.wait()

    sink = Sink()
    flow = one(engine, handle, sink=sink, execution_strategy="concurrent", max_workers=2)
    state = flow.start("r0")
    reached.wait()
    shown = {"a": {"b": [1, 2]}, "c": 3} if point else {}
    assert state._record.shared == shown
    assert state.get_routine_state("r0") == ({"n": 1} if point else None)
    assert len(state.get_shared_log()) == (1 if point else 0)
    if not point:
        assert sink.got == []
    go.set()
    assert state.wait(LONG)
    state.raise_for_status()
    assert (sink.got, state.get_shared_data("a"), state.get_shared_data("c")) == ([1], {"b": [1, 2]}, 3)


def test_d7_emissions_leave_by_themselves_at_max_pending(engine):
    at_most, sink = [], Sink()

    def handle(ctx, **_):
        for index in range(100):
            ctx.emit("output", data=index)
            at_most.append(ctx.job_state.pending_count)

    state = one(engine, handle, sink=sink, max_pending=10).execute("r0")
    assert sink.got == list(range(100))
    assert max(at_most) <= 21
    assert state.get_execution_history("r0")[0].emitted == 100


@pytest.mark.parametrize(("strategy", "got"), [("stop", []), ("continue", [1, 2]), ("skip", []), ("retry", [1])])
def test_t3_a_handler_that_raises_commits_its_writes_and_log_and_emits_under_continue(strategy, got, engine):
    tries = []

    def handle(ctx, **_):
        tries.append(1)
        ctx.emit("output", data=1)
        ctx.flush()
        ctx.store.set("n", ctx.store.get("n", 0) + 1)
        ctx.job_state.append_to_shared_log({"n": len(tries)})
        ctx.emit("output", data=2)
        raise ValueError("broken")

    sink = Sink()
    flow = one(engine, handle, strategy, sink=sink)
    if strategy == "retry":
        flow.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0.0))
    state = flow.execute("r0")
    attempts = 2 if strategy == "retry" else 1
    failed = strategy in ("stop", "retry")
    assert state.status == ("failed" if failed else "completed")
    assert (sink.got, state.pending_count) == (got, 1 if strategy == "stop" else 0)
    assert (state.get_shared_data("n"), len(state.get_shared_log())) == (attempts, attempts)
    entry = state.get_execution_history("r0")[-1]
    assert (str(entry.status), entry.attempt) == ("skipped" if strategy == "skip" else "failed", attempts)


def test_t1_skip_records_emissions_at_points_and_releases_them_on_success(engine):
    seen, sink = [], Sink()

    def handle(ctx, fail):
        ctx.emit("output", data=1)
        ctx.flush()
        seen.append(ctx.job_state.pending_count)
        ctx.emit("output", data=2)
        if fail:
            raise ValueError

    flow = one(engine, handle, "skip", sink=sink)
    assert flow.execute("r0", {"fail": True}).status == "completed"
    assert (sink.got, seen) == ([], [1])
    assert flow.execute("r0", {"fail": False}).status == "completed"
    assert (sink.got, seen) == ([1, 2], [1, 1])


# --- a commit that is refused -------------------------------------------------------------------------------------


class Limited(BaseModel):
    low: int = 0
    high: int = 10
    items: list[int] = Field(default_factory=list)

    @field_validator("items")
    @classmethod
    def few(cls, value: list[int]) -> list[int]:
        if len(value) > 3:
            raise ValueError("too many items")
        return value

    @model_validator(mode="after")
    def in_order(self) -> Limited:
        if self.low > self.high:
            raise ValueError("low above high")
        return self


REFUSED = {
    "validator": (lambda ctx: ctx.state.items.extend(range(9)), StateError, "too many"),
    "size": (lambda ctx: ctx.job_state.update_shared_data("text", "x" * 2_000), StateError, "max_state_bytes"),
    "form": (lambda ctx: ctx.job_state.update_shared_data("thing", object()), SaveError, "thing"),
    "routine": (lambda ctx: ctx.job_state.update_routine_state("r0", {"thing": object()}), SaveError, "thing"),
    "payload": (lambda ctx: ctx.emit("output", data=object()), SaveError, "data"),
    "output": (lambda ctx: ctx.flow.routines["r0"].send_output("x", thing=object()), SaveError, "thing"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("strategy", ["stop", "continue"])
def test_t3_a_batch_that_is_refused_is_dropped_whole(what, strategy, engine):
    act, error, text = REFUSED[what]
    sink = Sink()

    def handle(ctx, **_):
        ctx.store.set("low", 1)
        ctx.job_state.append_to_shared_log({"what": "kept"})
        ctx.flush()
        ctx.store.set("low", 2)
        ctx.job_state.append_to_shared_log({"what": "dropped"})
        ctx.emit("output", data=1)
        act(ctx)

    flow = one(engine, handle, strategy, sink=sink, state_schema=Limited, max_state_bytes=1_000)
    state = flow.execute("r0")
    assert state.status == ("failed" if strategy == "stop" else "completed")
    assert (state.error.type, text in state.error.message) == (error.__name__, True)
    assert (state.get_shared_data("low"), state.get_shared_data("items")) == (1, [])
    assert state.get_shared_data("text") is state.get_shared_data("thing") is None
    assert [each["what"] for each in state.get_shared_log()] == ["kept"]
    assert (sink.got, state.outputs, state.get_routine_state("r0")) == ([], [], None)


def test_t3_what_a_handler_catches_of_a_refused_commit_fails_it_all_the_same(engine):
    def handle(ctx, **_):
        ctx.job_state.update_shared_data("thing", object())
        with pytest.raises(SaveError):
            ctx.flush()
        with pytest.raises(SaveError):
            ctx.emit("output", data=1)

    state = one(engine, handle).execute("r0")
    assert (state.status, state.error.type) == ("failed", "SaveError")


# --- conflicts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda ctx: ctx.store.get("a", None),
        lambda ctx: ctx.job_state.get_shared_data("a"),
        lambda ctx: ctx.store.get_state(),
        lambda ctx: ctx.state.get("a"),
        lambda ctx: dict(ctx.state),
        lambda ctx: (ctx.store.get("a", None), ctx.store.get_state(), ctx.store.get("a", None)),
    ],
)
def test_s2_a_key_that_was_read_and_changed_since_is_a_conflict_at_the_commit(read, engine):
    def first(ctx):
        read(ctx)
        yield
        ctx.job_state.update_shared_data("a", "mine")
        ctx.emit("output", data=1)

    state = meanwhile(first, lambda ctx: ctx.store.set("a", "theirs"), engine=engine)
    assert (state.status, state.error.type) == ("failed", "ConflictError")
    assert state.get_shared_data("a") == "theirs"
    with pytest.raises(ConflictError, match="edit_state"):
        state.raise_for_status()


def test_s2_no_update_is_lost_when_a_key_is_read_again_with_the_whole_state(engine):
    def first(ctx):
        seen = ctx.store.get("n", 0)
        yield
        ctx.store.get_state()
        again = ctx.store.get("n", 0)
        ctx.store.set("n", again + 1)
        assert seen == again  # reads are repeatable between two points

    state = meanwhile(first, lambda ctx: ctx.store.set("n", 10), {"n": 0}, engine=engine)
    assert (state.status, state.get_shared_data("n")) in [("failed", 10), ("completed", 11)]
    assert state.error is None or state.error.type == "ConflictError"


def test_s2_no_update_is_lost_when_a_key_is_read_again_after_the_working_copy(engine):
    def first(ctx):
        ctx.store.get("n", 0)
        yield
        assert "n" in ctx.state
        ctx.store.set("n", ctx.store.get("n", 0) + 1)

    state = meanwhile(first, lambda ctx: ctx.store.set("n", 10), {"n": 0}, engine=engine)
    assert (state.status, state.get_shared_data("n")) in [("failed", 10), ("completed", 11)]


def test_s2_reads_are_repeatable_between_points_and_fresh_after_one(engine):
    seen = []

    def first(ctx):
        read = [
            lambda: ctx.store.get("n", 0),
            lambda: ctx.store.get_state()["n"],
            lambda: ctx.job_state.get_shared_data("n"),
        ]
        seen.append([each() for each in read])
        yield
        seen.append([each() for each in reversed(read)])
        ctx.flush()
        seen.append([each() for each in read])

    state = meanwhile(first, lambda ctx: ctx.store.set("n", 1), {"n": 0}, engine=engine)
    state.raise_for_status()
    assert seen == [[0] * 3, [0] * 3, [1] * 3]


def test_s2_routine_states_conflict_as_well(engine):
    def first(ctx):
        ctx.job_state.get_routine_state("r0")
        yield
        ctx.job_state.update_routine_state("r0", {"n": 1})

    state = meanwhile(first, lambda ctx: ctx.job_state.update_routine_state("r0", {"n": 2}), engine=engine)
    assert (state.error.type, state.get_routine_state("r0")) == ("ConflictError", {"n": 2})


def test_s2_different_keys_are_no_conflict(engine):
    def first(ctx):
        ctx.store.get("a", None)
        yield
        ctx.store.set("a", 1)

    state = meanwhile(first, lambda ctx: ctx.store.set("b", 2), engine=engine)
    assert (state.status, state.get_shared_data("a"), state.get_shared_data("b")) == ("completed", 1, 2)


def test_s2_coroutine_handlers_conflict_at_the_commit(engine):
    read, done = Signal(), Signal()

    async def first(step, **_):
        ctx = of(step)
        await ctx.store.get("a", None)
        read.set()
        await done
        await ctx.store.set("a", "mine")

    async def second(step, **_):
        await read
        await of(step).store.set("a", "theirs")
        await of(step).flush()
        done.set()

    flow = Flow("f", engine=engine)
    flow.add_routine(Source([1]), "s")
    for name, handle in (("a", first), ("b", second)):
        flow.add_routine(AsyncStep(handle), name)
        flow.connect("s", "output", name, "input")
    state = flow.execute("s")
    assert (state.error.type, state.get_shared_data("a")) == ("ConflictError", "theirs")


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("way", ["edit", "retry"])
def test_s3_no_update_is_lost_with_eight_workers(kind, way, engine):
    def plain(step, data):
        ctx = of(step)
        if way == "edit":
            with ctx.store.edit_state() as state:
                state["n"] = state.get("n", 0) + 1
                state.setdefault("items", []).append(data)
        else:
            ctx.store.set("n", ctx.store.get("n", 0) + 1)
            ctx.store.set("items", [*ctx.store.get("items", []), data])

    async def coroutine(step, data):
        ctx = of(step)
        if way == "edit":
            async with ctx.store.edit_state() as state:
                state["n"] = state.get("n", 0) + 1
                state.setdefault("items", []).append(data)
        else:
            await ctx.store.set("n", await ctx.store.get("n", 0) + 1)
            await ctx.store.set("items", [*await ctx.store.get("items", []), data])

    step = Step(plain, concurrency=8) if kind == "plain" else AsyncStep(coroutine, concurrency=8)
    flow = chain(Source(range(60)), step, engine=engine, execution_strategy="concurrent", max_workers=8)
    with_strategy(flow, "retry", max_retries=1_000, retry_delay=0.0)
    state = flow.execute("r0")
    state.raise_for_status()
    assert (state.get_shared_data("n"), sorted(state.get_shared_data("items"))) == (60, list(range(60)))


# --- typed state --------------------------------------------------------------------------------------------------


def test_s3_model_validators_see_what_others_have_committed(engine):
    """Each write is valid beside what its handler has read; both together are not."""

    def first(ctx):
        ctx.state.low = 8
        yield

    state = meanwhile(first, lambda ctx: setattr(ctx.state, "high", 5), engine=engine, state_schema=Limited)
    assert (state.status, state.error.type) == ("failed", "StateError")
    assert (state.get_shared_data("low"), state.get_shared_data("high")) == (0, 5)


class Dumped(BaseModel):
    kind: type = int
    words: set[str] = Field(default_factory=set)

    @field_serializer("kind")
    def kind_name(self, value: type) -> str:
        return value.__name__

    @field_validator("kind", mode="before")
    @classmethod
    def kind_of(cls, value: Any) -> Any:
        return {"int": int, "str": str}.get(value, value) if isinstance(value, str) else value


def test_s3_serializers_of_the_schema_are_honoured_at_every_commit():
    class Lasting:
        def __init__(self):
            self.store = open_store("memory:")

        def __getattr__(self, name):
            return getattr(self.store, name)

        def close(self):
            pass

    store = Lasting()

    def handle(ctx, **_):
        ctx.state.kind = str
        ctx.state.words.add("x")
        ctx.flush()
        ctx.state.words.add("y")
        if not ctx.step.wait_for_event("w", "go"):
            raise ValueError

    with Engine(store=store) as engine:
        assert one(engine, handle, state_schema=Dumped).execute("r0", job_id="j").status == "waiting"
    with Engine(store=store) as engine:
        one(engine, handle, state_schema=Dumped)
        (state,) = engine.recover()
        assert (state.get_shared_data("kind"), state.get_shared_data("words")) == (str, {"x", "y"})
        engine.publish("go", True)
        assert state.wait(LONG)
        state.raise_for_status()
        assert (state.get_shared_data("kind"), state.get_shared_data("words")) == (str, {"x", "y"})


class Secretive(BaseModel):
    password: str = Field("", exclude=True)
    count: int = 0


READS = {
    "copy": lambda ctx: ctx.state.password,
    "look": lambda ctx: ctx.store.get("password"),
    "shared": lambda ctx: ctx.job_state.get_shared_data("password"),
    "whole": lambda ctx: ctx.store.get_state().password,
    "whole copy": lambda ctx: ctx.state.model_copy().password,
}


def edited(ctx):
    with ctx.store.edit_state() as state:
        state.count += 1
        return state.password


@pytest.mark.parametrize("read", [*READS.values(), edited], ids=[*READS, "edit"])
def test_s3_what_was_read_of_an_excluded_field_is_kept_nowhere(read, tmp_path):
    seen, path = [], tmp_path / "jobs.db"

    def handle(ctx, **_):
        seen.append((read(ctx), ctx.state.count))
        ctx.step.wait_for_event("w", "go")
        ctx.finish(ctx.state.password)

    with Engine(store=open_store(f"sqlite:///{path}")) as engine:
        flow = one(engine, handle, state_schema=Secretive)
        state = flow.execute("r0", job_id="j", initial_state={"password": "hush-hush", "count": 5})
        assert state.status == "waiting"
        assert "hush-hush" not in str(state.to_dict())
        assert not [each for each in tmp_path.iterdir() if b"hush-hush" in each.read_bytes()]
        engine.publish("go", True, job_id="j")
        assert state.wait(LONG)
        state.raise_for_status()
        assert (state.result, seen) == ("hush-hush", [seen[0]] * 2)
        assert seen[0][0] == "hush-hush"


def test_s3_a_handler_that_runs_again_elsewhere_finds_an_excluded_field_as_it_is_there(tmp_path):
    seen, path = [], tmp_path / "jobs.db"

    def handle(ctx, **_):
        whole = ctx.store.get_state()
        seen.append((ctx.store.get("password"), ctx.state.password, whole.password, whole.count, ctx.state.count))
        ctx.step.wait_for_event("w", "go")

    with Engine(store=open_store(f"sqlite:///{path}")) as engine:
        flow = one(engine, handle, state_schema=Secretive)
        assert flow.execute("r0", job_id="j", initial_state={"password": "x", "count": 5}).status == "waiting"
    with Engine(store=open_store(f"sqlite:///{path}")) as engine:
        one(engine, handle, state_schema=Secretive)
        (state,) = engine.recover()
        engine.publish("go", True)
        assert state.wait(LONG)
        state.raise_for_status()
    assert seen == [("x", "x", "x", 5, 5), ("", "", "", 5, 5)]


# --- the rest of what a handler can do ----------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_b7_merges_happen_once_whatever_is_retried(concurrency, engine):
    tries: Counter[Any] = Counter()
    sums = []

    def add(old, new):
        return {"data": old.get("data", 0) + new["data"]}

    def handle(step, data):
        tries[data] += 1
        if tries[data] == 1:
            raise ValueError
        sums.append(data)

    step = Step(handle, merge_strategy=add, concurrency=concurrency)
    flow = chain(Source([1] * 12), step, engine=engine, execution_strategy="concurrent", max_workers=4)
    with_strategy(flow, "retry", max_retries=1, retry_delay=0.0)
    state = flow.execute("r0")
    state.raise_for_status()
    assert sorted(sums) == list(range(1, 13))


def test_b7_append_keeps_its_buffer_across_retries(engine):
    got, tries = [], Counter()

    def handle(step, data):
        tries[len(data)] += 1
        if tries[len(data)] == 1:
            raise ValueError
        got.append(data)

    flow = chain(Source([1, 2, 3]), Step(handle, merge_strategy="append"), engine=engine)
    with_strategy(flow, "retry", max_retries=1, retry_delay=0.0).execute("r0").raise_for_status()
    assert got == [[1], [1, 2], [1, 2, 3]]


def test_deferred_emissions_leave_when_the_job_is_resumed(engine):
    sink = Sink()

    class Later(Step):
        def process(self, **_: Any) -> None:
            self.emit("output", data="now")
            self.emit_deferred_event("output", data="later")

    flow = chain(Later(lambda *_: None), sink, engine=engine)
    state = flow.execute("r0", job_id="j")
    assert (state.status, sink.got, engine.jobs()[0].status) == ("paused", ["now"], "paused")
    flow.resume(state)
    assert state.wait(LONG)
    assert (state.status, sink.got, engine.jobs()[0].status) == ("completed", ["now", "later"], "completed")


def test_l2_finish_commits_its_own_turn_and_drops_those_that_run(engine):
    inside, over = Signal(), Signal()

    def first(step, **_):
        of(step).store.set("dropped", 1)
        inside.set()
        over.wait()

    def second(step, **_):
        inside.wait()
        of(step).store.set("kept", 1)
        of(step).emit("output", data=1)
        of(step).finish({"n": 1})

    flow = Flow("f", engine=engine, execution_strategy="concurrent", max_workers=2)
    flow.add_routine(Source([1]), "s")
    flow.add_routine(Step(first), "a")
    flow.add_routine(Step(second), "b")
    flow.add_routine(sink := Sink(), "sink")
    for name in "ab":
        flow.connect("s", "output", name, "input")
    flow.connect("b", "output", "sink", "input")
    state = flow.start("s", job_id="j")
    while engine.jobs()[0].status != "completed":
        assert not engine.closing.wait(0.001)
    over.set()
    assert state.wait(LONG)
    assert (state.result, state.get_shared_data("kept"), state.get_shared_data("dropped")) == ({"n": 1}, 1, None)
    assert sink.got == []


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_l2_a_handler_may_pause_or_cancel_its_own_job(verb, engine):
    sink = Sink()

    def handle(ctx, **_):
        ctx.store.set("before", 1)
        ctx.flush()
        ctx.emit("output", data=1)
        getattr(ctx.flow, verb)(ctx.job_state, "enough")
        assert ctx.job_state.status == ("paused" if verb == "pause" else "cancelled")
        assert ctx.cancelled is (verb == "cancel")
        with pytest.raises(StatusError):
            ctx.flow.pause(ctx.job_state)
        ctx.store.set("after", 1)

    flow = one(engine, handle, sink=sink)
    state = flow.execute("r0", job_id="j")
    assert (state.get_shared_data("before"), sink.got) == (1, [])
    assert engine.jobs()[0].status == state.status == ("paused" if verb == "pause" else "cancelled")
    assert state.get_shared_data("after") == (1 if verb == "pause" else None)
    if verb == "pause":
        flow.resume(state)
        assert state.wait(LONG)
        assert sink.got == [1]


def test_l2_resuming_inside_a_handler_of_a_paused_job_goes_on(engine):
    sink = Sink()

    def handle(ctx, **_):
        ctx.flow.pause(ctx.job_state)
        ctx.emit("output", data=1)
        ctx.flow.resume(ctx.job_state)

    state = one(engine, handle, sink=sink).execute("r0")
    assert (state.status, sink.got) == ("completed", [1])


def test_h4_listeners_hear_of_turns_after_the_commit_and_not_when_a_job_is_recovered(tmp_path):
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    heard: list[str] = []

    def handle(ctx, **_):
        ctx.store.set("a", 1)
        ctx.emit("output", data=1)
        ctx.step.wait_for_event("w", "go")

    def listen(_flow, job_state, **more):
        heard.append("routine_id" if "routine_id" in more else str(job_state.status))

    with Engine(store=open_store(url)) as engine:
        one(engine, handle).execute("r0", job_id="j")
    for name in signals.__all__:
        getattr(signals, name).connect(listen)
    try:
        with Engine(store=open_store(url)) as engine:
            one(engine, handle)
            (state,) = engine.recover()
            assert heard == []
            engine.publish("go")
            assert state.wait(LONG)
            assert heard[-1] == "completed"
    finally:
        for name in signals.__all__:
            getattr(signals, name).disconnect(listen)


# --- as in memory -------------------------------------------------------------------------------------------------


def tutorial(**options: Any) -> Flow:
    """A source, a worker that fails now and then, and a sink, with all kinds of state."""
    failed = set()

    def work(step, data):
        ctx = of(step)
        state = ctx.job_state
        state.append_to_shared_log({"item": data})
        count = (state.get_routine_state("r1") or {}).get("count", 0)
        state.update_routine_state("r1", {"count": count + 1})
        if data % 4 == 3 and data not in failed:
            failed.add(data)
            raise ValueError(f"item {data}")
        step.emit("output", data=data * 2)
        step.send_output("done", item=data)

    def collect(step, data):
        with of(step).store.edit_state() as state:
            state["sum"] = state.get("sum", 0) + data
            state.setdefault("items", []).append(data)

    return chain(Source(range(8)), Step(work), Step(collect), **options)


@pytest.mark.parametrize("strategy", [each.value for each in ErrorStrategy])
@pytest.mark.parametrize("workers", [1, 4])
def test_h1_a_program_comes_to_the_same_with_a_store_and_without(strategy, workers, engine):
    found = []
    for each in (engine, Engine()):
        flow = tutorial(
            engine=each, execution_strategy="concurrent" if workers > 1 else "sequential", max_workers=workers
        )
        with_strategy(flow, strategy, **({"retry_delay": 0.0} if strategy == "retry" else {}))
        state = flow.execute("r0")
        if strategy == "stop" and workers > 1:  # what else has run by then is open
            assert state.status == "failed"
            return
        found.append(outcome(state))
        flow.shutdown()
    durable, plain = found
    if strategy == "stop":  # emissions of a source leave at its end
        assert durable["status"] == plain["status"] == "failed"
        assert durable["errors"] == plain["errors"]
        return
    assert durable == plain


def test_d4_the_order_of_the_log_is_that_of_the_tutorial(engine):
    flow = Flow("f", engine=engine)
    flow.add_routine(Source(range(3)), "source")
    for name in ("a", "b"):
        flow.add_routine(
            Step(lambda step, data, name=name: of(step).job_state.append_to_shared_log({"who": name, "n": data})), name
        )
        flow.connect("source", "output", name, "input")
    log = flow.execute("source").get_shared_log()
    assert [(each["who"], each["n"]) for each in log] == [(name, index) for name in "ab" for index in range(3)]
    assert all(list(each)[-1] == "timestamp" for each in log)


def test_d2_d3_deliveries_of_one_mailbox_are_taken_in_turn_and_in_order(engine):
    inside, got = threading.Lock(), []

    def handle(step, data):
        assert inside.acquire(blocking=False)
        got.append(data)
        state = of(step).job_state
        state.update_routine_state("r1", {"n": (state.get_routine_state("r1") or {"n": 0})["n"] + 1})
        inside.release()

    flow = chain(Source(range(300)), Step(handle), engine=engine, execution_strategy="concurrent", max_workers=8)
    state = flow.execute("r0")
    assert (got, state.get_routine_state("r1")) == (list(range(300)), {"n": 300})
