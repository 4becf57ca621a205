"""Durable jobs whose process dies after any fact: the next process brings them to the same end.

The store lives on and the process does not (see `crashing`): from some fact on, nothing that it does is kept.
"""

from __future__ import annotations

import pytest
from crashing import World, life_of, outcome
from generated import each_or_every
from pydantic import BaseModel

from routilux import AsyncContext, Context, ErrorHandler, Flow, Routine
from routilux.runtime.durable_job import DurableJob


class Totals(BaseModel):
    total: int = 0
    seen: list[int] = []
    steady: bool = True


class Source(Routine):
    """Takes values that chance decides, and emits what the others work on; one event leaves when all else is done."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("trigger", handler=self.go)
        for name in ("item", "loud", "ask"):
            self.define_event(name, ["n"])
        self.define_event("late", ["same"])

    def go(self, ctx: Context, count: int = 3):
        made = [ctx.step.uuid("id"), ctx.step.random("chance"), ctx.step.now("now").isoformat()]
        ctx.job_state.update_shared_data("made", made)
        ctx.step.run("begin", self.world.call, ctx_key(ctx, "begin"), None)
        for n in range(count):
            self.emit("item", n=n)
            if n == 0:
                ctx.flush()
        self.emit("loud", n=count - 1)
        self.emit("ask", n=count)
        ctx.step.wait_for("nap", seconds=0.002)
        self.emit_deferred_event("late", same=ctx.job_state.get_shared_data("made") == made)


def ctx_key(ctx, name):
    """Return the key that a step has, as far as it is known outside: the job, the delivery and the name."""
    return f"{ctx.job_id}/{ctx._turn.activation.id}/{name}"


class Worker(Routine):
    """Works on several items at a time; some fail first."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("input", handler=self.work, concurrency=3)
        self.define_event("done", ["n"])
        self.set_error_handler(ErrorHandler("retry", max_retries=2, retry_delay=0.001))

    def work(self, ctx: Context, n: int):
        self.emit("done", n=-n)  # dropped with the attempt, or with what comes before the step
        double = ctx.step.run("double", self.world.call, ctx_key(ctx, "double"), 2 * n)
        if n == 1 and ctx.attempt == 1:
            raise ValueError("not at the first attempt")
        with ctx.store.edit_state() as state:
            state.total += double
            state.seen = [*state.seen, n]
        ctx.job_state.append_to_shared_log({"worked": n})
        self.send_output("worked", n=n, double=double)
        self.emit("done", n=double)


class Napper(Routine):
    """A coroutine handler with steps, a wait and an edit."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("input", handler=self.work)
        self.define_event("done", ["n"])

    async def work(self, ctx: AsyncContext, n: int):
        async def cube():
            return self.world.call(key, n**3)

        key = ctx_key(ctx, "cube")
        cubed = await ctx.step.run("cube", cube)
        await ctx.step.wait_for("nap", seconds=0.001)
        async with ctx.store.edit_state() as state:
            state.total += cubed
        await ctx.flush()
        ctx.emit("done", n=cubed)


class Joint(Routine):
    """Emits one event when as many have arrived as it waits for."""

    def __init__(self, count, merge):
        super().__init__()
        self.count = count
        self.define_slot("input", handler=self.take, merge_strategy=merge)
        self.define_event("all", ["numbers"])

    def take(self, ctx: Context, n: list):
        ctx.job_state.update_routine_state(ctx.routine_id, {"numbers": sorted(n), "count": len(n)})
        if len(n) == self.count:
            self.emit("all", numbers=sorted(n))


def gathered(old, new):
    return {"n": sorted([*old.get("n", []), new["n"]])}


class Failing(Routine):
    """Fails under its strategy, after it has written and emitted."""

    def __init__(self, strategy):
        super().__init__()
        self.define_slot("input", handler=self.fail)
        self.define_event("done", ["n"])
        self.set_error_handler(ErrorHandler(strategy))

    def fail(self, ctx: Context, n: int):
        ctx.job_state.update_routine_state(ctx.routine_id, {"failed": n})
        self.emit("done", n=100 + n)
        ctx.flush()
        raise RuntimeError(f"as it must {n}")


class Asker(Routine):
    """Waits for an event, which it has published before, and for a job of its own."""

    def __init__(self, world, child):
        super().__init__()
        self.world, self.child = world, child
        self.define_slot("input", handler=self.ask)

    def ask(self, ctx: Context, n: int):
        job_id, key = ctx.job_id, ctx_key(ctx, "publish")

        def publish():
            self.world.engine.publish("answer", {"n": 7}, job_id)
            return self.world.call(key, None)

        ctx.step.run("publish", publish, max_retries=0)
        answer = ctx.step.wait_for_event("answer", "answer")
        result = ctx.step.invoke_and_wait("child", self.child, {"n": answer["n"]}, entry="only")
        ctx.job_state.update_routine_state("asker", {"result": result, "answer": answer})


class Child(Routine):
    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("trigger", handler=self.go)

    def go(self, ctx: Context, n: int):
        value = ctx.step.run("square", self.world.call, ctx_key(ctx, "square"), n * n)
        ctx.job_state.update_shared_data("square", value)
        ctx.finish(value)


class Last(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.end)

    def end(self, ctx: Context, same: bool):
        state = ctx.state
        state.steady = same
        ctx.finish({"total": state.total, "asked": ctx.job_state.get_routine_state("asker")["result"]})


def rich(**options):
    """Return what makes the flow with everything in it."""

    def build(world, engine):
        child = Flow("child", engine=engine)
        child.add_routine(Child(world), "only")
        flow = Flow("rich", engine=engine, state_schema=Totals, **options)
        routines = {
            "src": Source(world),
            "worker": Worker(world),
            "napper": Napper(world),
            "appended": Joint(3, "append"),
            "merged": Joint(3, gathered),
            "loud": Failing("continue"),
            "silent": Failing("skip"),
            "sink": Joint(99, "append"),
            "asker": Asker(world, child),
            "last": Last(),
        }
        for name, routine in routines.items():
            flow.add_routine(routine, name)
        for source, event, target in (
            ("src", "item", "worker"),
            ("src", "item", "napper"),
            ("src", "loud", "loud"),
            ("src", "loud", "silent"),
            ("src", "ask", "asker"),
            ("src", "late", "last"),
            ("worker", "done", "appended"),
            ("napper", "done", "merged"),
            ("loud", "done", "sink"),
            ("silent", "done", "sink"),
        ):
            flow.connect(source, event, target, "input")
        return flow

    return build


def steadied(end):
    """Return an outcome without the values that chance decides."""
    return {**end, "shared": {**end["shared"], "made": len(end["shared"]["made"])}}


def sees_it_through(world, crashes, live, *, heard=True):
    """Let processes die after these numbers of facts, and one more live on; return what it comes to."""
    for left in crashes:
        end = world.process(left, live, heard=heard)
        if end is not None:
            return end
    return world.process(None, live)


def check_every_crash(build, *, heard=True, every=1, **options):
    """Let a process die after each fact in turn, or after some; return after how many the job was through."""
    live = life_of({"count": 3})
    world = World(build, **options)
    undisturbed = steadied(world.process(None, live))
    assert undisturbed["status"] == "completed"
    assert undisturbed["shared"]["steady"] is True
    assert undisturbed["result"] == {"total": 15, "asked": 49}
    for left in range(1, 1000, every * each_or_every(3)):
        world = World(build, **options)
        end = steadied(sees_it_through(world, [left], live, heard=heard))
        assert end == undisturbed, f"after a crash behind fact {left}"
        assert world.again == [], f"after a crash behind fact {left}"
        if world.processes == 1:
            return left - 1
    raise AssertionError("the job does not end")


@pytest.mark.parametrize(("strategy", "heard"), [("sequential", True), ("concurrent", False)])
def test_j2_j4_a_crash_after_any_fact_of_a_rich_job_changes_nothing(strategy, heard):
    assert check_every_crash(rich(execution_strategy=strategy, max_workers=3), heard=heard) > 70


@pytest.mark.parametrize(("strategy", "heard"), [("sequential", False), ("concurrent", True)])
def test_j4_a_crash_after_some_facts_or_snapshots_changes_nothing(monkeypatch, strategy, heard):
    snapshots_always(monkeypatch)
    build = rich(execution_strategy=strategy, max_workers=3)
    assert check_every_crash(build, heard=heard, every=9) > 130


@pytest.mark.parametrize("heard", [True, False])
def test_j4_what_was_not_yet_written_is_done_again(heard):
    build = rich(execution_strategy="concurrent", max_workers=3)
    assert check_every_crash(build, heard=heard, durability="async", max_lag_seconds=0.0) > 0


def snapshots_always(monkeypatch):
    """Let a snapshot follow every fact."""
    monkeypatch.setattr(DurableJob, "most_before_snapshot", property(lambda job: -1, lambda job, size: None), False)


# --- two crashes --------------------------------------------------------------------------------------------------


class Small(Routine):
    """A step, a retry, a wait, an edit and an emission to itself."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("trigger", handler=self.go)
        self.define_slot("input", handler=self.take, merge_strategy=gathered)
        self.define_event("out", ["n"])
        self.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0.0))

    def go(self, ctx: Context, n: int):
        chosen = ctx.step.random("chance")
        double = ctx.step.run("double", self.world.call, ctx_key(ctx, "double"), 2 * n)
        self.emit("out", n=double)
        if ctx.attempt == 1:
            raise ValueError("not at the first attempt")
        ctx.step.wait_for("nap", seconds=0)
        with ctx.store.edit_state() as state:
            state["count"] = state.get("count", 0) + double
        ctx.job_state.append_to_shared_log({"same": ctx.step.random("other") != chosen})

    def take(self, ctx: Context, n: list):
        ctx.job_state.update_routine_state("src", {"taken": n})


def small(world, engine):
    flow = Flow("small", engine=engine)
    flow.add_routine(Small(world), "src")
    flow.connect("src", "out", "src", "input")
    return flow


@pytest.mark.parametrize("snapshots", [False, True])
def test_j2_j4_every_pair_of_crashes_of_a_small_job_changes_nothing(monkeypatch, snapshots):
    if snapshots:
        snapshots_always(monkeypatch)
    live = life_of({"n": 3})
    world = World(small)
    undisturbed = world.process(None, live)
    assert undisturbed["status"] == "completed"
    facts = world.writes[0]
    assert facts > (19 if snapshots else 10)
    for first in range(1, facts, each_or_every(3)):
        for second in range(0, facts - first + 1, 3 if snapshots else 1):
            world = World(small)
            end = sees_it_through(world, [first, second], live)
            assert (end, world.again) == (undisturbed, []), f"after crashes behind {first} and {second} facts"


# --- joins, and what comes from outside ----------------------------------------------------------------------------


class Spreader(Routine):
    """Emits items, in two pieces."""

    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.go)
        self.define_event("item", ["n", "odd"])

    def go(self, ctx: Context, count: int):
        for n in range(count):
            self.emit("item", n=n, odd=n % 2)
            if n == 2:
                ctx.flush()


class Doubler(Routine):
    """Doubles one item at a time, in a step; one of them not at the first attempt."""

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.define_slot("input", handler=self.double)
        self.define_event("done", ["n", "odd"])
        self.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0.0))

    def double(self, ctx: Context, n: int, odd: int):
        double = ctx.step.run("double", self.world.call, ctx_key(ctx, "double"), 2 * n)
        if n == 1 and ctx.attempt == 1:
            raise ValueError("not at the first attempt")
        self.emit("done", n=double, odd=odd)


class Adder(Routine):
    """Adds up what its slot gathers, and notes every group."""

    def __init__(self, **options):
        super().__init__()
        self.define_slot("input", handler=self.add, **options)
        self.define_event("sum", ["n"])

    def add(self, ctx: Context, n: list, **rest):
        ctx.job_state.append_to_shared_log({"by": ctx.routine_id, "n": n, **rest})
        self.emit("sum", n=sum(n))


class Approver(Routine):
    """Joins one sum with what somebody outside says to it."""

    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.approve, gather="sources", external=True)

    def approve(self, ctx: Context, n: int, word: str):
        ctx.job_state.update_routine_state(ctx.routine_id, {"said": [n, word]})


def joining(world, engine):
    flow = Flow("joining", engine=engine)
    routines = {
        "src": Spreader(),
        "double": Doubler(world),
        "pairs": Adder(gather=2, key="odd"),
        "threes": Adder(gather=3, rest="drop"),
        "all": Adder(gather="all"),
        "approver": Approver(),
    }
    for name, routine in routines.items():
        flow.add_routine(routine, name)
    for source, event, target in (
        ("src", "item", "double"),
        ("double", "done", "pairs"),
        ("double", "done", "threes"),
        ("pairs", "sum", "all"),
        ("threes", "sum", "all"),
        ("all", "sum", "approver"),
    ):
        flow.connect(source, event, target, "input")
    return flow


def answered(engine, flow):
    """Start the job, or go on with it; give it what it waits for, and see it to its end."""
    if not engine.jobs():
        flow.start("src", {"count": 5}, job_id="j")
    engine.recover()
    state = engine.get("j")
    while not state.wait(0.01):
        if state.status == "waiting":
            if state.pending_count == 1:  # the sum waits for the word
                flow.send(state, "approver", "input", word="fine")
            flow.close_input(state, "approver", "input")
    return outcome(state)


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("heard", [True, False])
def test_j1_j4_a_crash_after_any_fact_of_a_job_with_joins_changes_nothing(monkeypatch, snapshots, heard):
    if snapshots:
        snapshots_always(monkeypatch)
    world = World(joining)
    undisturbed = world.process(None, answered)
    assert undisturbed["status"] == "completed"
    assert undisturbed["routines"]["approver"] == {"said": ["fine", 26]}, "all was added up (and lists are sorted)"
    assert len(undisturbed["log"]) == 5
    facts = world.writes[0]
    assert facts > 20
    for left in range(1, facts, 3 if snapshots else each_or_every(3)):
        world = World(joining)
        end = sees_it_through(world, [left], answered, heard=heard)
        assert (end, world.again) == (undisturbed, []), f"after a crash behind fact {left}"
