"""J6: waits for time, events and other jobs, in plain and in coroutine functions alike."""

from __future__ import annotations

import gc
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from both import KINDS, as_kind
from crashing import Mortal
from parts import LONG, resting
from pydantic import BaseModel, ConfigDict, RootModel

from routilux import (
    ChildHandle,
    DeclarationError,
    Engine,
    ExecutionError,
    StepError,
    StepExecutionError,
    StepTimeoutError,
    open_store,
    workflow,
)
from routilux.core.points import Published

UTC = timezone.utc


@pytest.fixture
def engine():
    with Engine(store=open_store("memory:")) as made:
        yield made


@pytest.fixture(params=KINDS)
def made(request, engine):
    def make(function=None, **options):
        if function is None:
            return lambda each: make(each, **options)
        return workflow(engine=engine, **options)(as_kind(request.param, function))

    return make


def ended(state):
    assert state.wait(timeout=LONG), state
    state.raise_for_status()
    return state.result


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [{"seconds": 0.003}, {"minutes": 0.0001}, {"hours": 1e-6}, {"days": 4e-8}, {}])
def test_a_wait_takes_as_long_as_it_says(made, parts):
    runs = []

    @made
    async def program(ctx):
        runs.append(await ctx.step.now(f"before_{0}"))
        await ctx.step.wait_for("nap", **parts)
        return (await ctx.step.now("after")) - runs[0]

    assert program.run() >= timedelta(**parts)
    assert len(runs) == 2


@pytest.mark.parametrize(
    "when", [datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)]
)
def test_a_time_that_is_past_is_no_wait(made, when):
    @made
    async def program(ctx):
        await ctx.step.wait_until("then", when)
        return "passed"

    assert program.run() == "passed"


def test_a_wait_until_a_time_in_another_time_zone(made):
    zone = timezone(timedelta(hours=5, minutes=30))

    @made
    async def program(ctx):
        start = await ctx.step.now("start")
        await ctx.step.wait_until("then", (start + timedelta(milliseconds=3)).astimezone(zone))
        return (await ctx.step.now("end")) - start

    assert program.run() >= timedelta(milliseconds=3)


@pytest.mark.parametrize("when", [datetime(2020, 1, 1), "2020-01-01", 0, None])
def test_only_an_aware_datetime_is_a_time(made, when):
    @made
    async def program(ctx):
        await ctx.step.wait_until("then", when)

    with pytest.raises(StepError, match="step 'then': wait_until takes a datetime with a time zone"):
        program.run()


@pytest.mark.parametrize("parts", [{"seconds": -1}, {"minutes": "1"}, {"hours": float("nan")}, {"days": float("inf")}])
def test_a_span_of_time_is_a_number_from_zero(made, parts):
    @made
    async def program(ctx):
        await ctx.step.wait_for("nap", **parts)

    with pytest.raises(DeclarationError, match=f"step 'nap': {next(iter(parts))}"):
        program.run()


LONGER = [
    ("wait_for", {"days": 40_000}),
    ("wait_for", {"days": 3e9}),
    ("wait_until", {"when": datetime(9999, 1, 1, tzinfo=UTC)}),
]


@pytest.mark.parametrize(("operation", "given"), LONGER)
def test_a_wait_lasts_a_century_at_the_most(made, operation, given):
    @made
    async def program(ctx):
        await getattr(ctx.step, operation)("nap", **given)

    state = program.start()
    while state.status != "waiting":
        threading.Event().wait(0.001)
    (activation,) = state._record.waiting.values()
    assert activation.wait.due <= state._job.now() + 100 * 366 * 86_400 * 10**9
    program.flow.cancel(state)


# --- events ----------------------------------------------------------------------------------------------------------


def test_an_event_lets_the_job_go_on(made, engine):
    @made
    async def program(ctx):
        return await ctx.step.wait_for_event("approval", "approve")

    state = resting(program.start())
    assert engine.publish("approve", {"by": "Ann"}, state.job_id) == 1
    assert ended(state) == {"by": "Ann"}


@pytest.mark.parametrize("named", [True, False])
def test_j9_an_event_reaches_a_job_that_is_just_falling_asleep(engine, named):
    @workflow(engine=engine)
    def program(ctx):
        return ctx.step.wait_for_event("approval", "approve")

    state = resting(program.start())
    job, keeping = state._job, engine.keeping
    with job.lock:
        job.visitors += 1
    keeping.awake(job)

    class Sleepers(dict):
        def fall_asleep(self):
            if job.visitors:
                with job.lock:
                    job.visitors -= 1
                    job.left()

        def get(self, key, default=None):
            found = super().get(key, default)
            self.fall_asleep()
            return found

        def items(self):
            found = list(super().items())
            if not keeping._lock.locked():
                self.fall_asleep()
            return found

    keeping.sleepers = Sleepers()
    assert engine.publish("approve", "yes", state.job_id if named else None) == 1
    assert engine.store.receive(0) == []
    assert ended(state) == "yes"


def test_an_event_before_the_wait_is_kept_for_the_job_that_it_names(made, engine):
    reached, go = threading.Event(), threading.Event()

    @made
    async def program(ctx):
        await ctx.step.run("hold", lambda: [reached.set(), go.wait(LONG)])
        first = await ctx.step.wait_for_event("one", "topic")
        second = await ctx.step.wait_for_event("two", "topic")
        return [first, second]

    state = program.start()
    assert reached.wait(LONG)
    engine.publish("topic", 1, state.job_id)
    engine.publish("topic", 2, state.job_id)
    go.set()
    assert ended(state) == [1, 2]


def test_an_event_for_nobody_in_particular_is_for_those_that_wait(made, engine):
    @made
    async def program(ctx):
        return await ctx.step.wait_for_event("wait", "news")

    assert engine.publish("news", "too early") == 0
    states = [resting(program.start()) for _ in range(3)]
    assert engine.publish("other", "no") == 0
    assert engine.publish("news", "yes") == 3
    assert [ended(state) for state in states] == ["yes"] * 3


def test_an_event_without_payload_counts(made, engine):
    @made
    async def program(ctx):
        return await ctx.step.wait_for_event("wait", "go")

    state = resting(program.start())
    engine.publish("go", job_id=state.job_id)
    assert ended(state) is None


def test_a_wait_of_no_time_takes_an_event_that_has_come_and_waits_for_no_other(made, engine):
    @made
    async def program(ctx):
        await ctx.step.wait_for_event("first", "begin")
        taken = await ctx.step.wait_for_event("second", "approve", timeout=0)
        try:
            await ctx.step.wait_for_event("third", "approve", timeout=0)
        except StepTimeoutError:
            with pytest.raises(DeclarationError, match="timeout must be a number of at least 0"):
                await ctx.step.wait_for_event("fourth", "approve", timeout=-1)
            return taken

    state = program.start()
    resting(state)
    engine.publish("approve", "yes", job_id=state.job_id)
    engine.publish("begin", job_id=state.job_id)
    assert ended(state) == "yes"


def test_an_event_that_does_not_come_in_time(made):
    seen = []

    @made
    async def program(ctx):
        try:
            await ctx.step.wait_for_event("approval", "approve", timeout=0.003)
        except StepTimeoutError as error:
            seen.append(str(error))
        await ctx.step.wait_for("again", seconds=0)
        return "gave up"

    assert ended(program.start()) == "gave up"
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert "step 'approval': no event 'approve' came in time" in seen[0]


def test_d9_execute_does_not_wait_for_the_deadline_of_an_event(made):
    @made
    async def program(ctx):
        await ctx.step.wait_for_event("approval", "approve", timeout=3600)

    with pytest.raises(ExecutionError, match="waits at step 'approval', for an event 'approve'"):
        program.run()


def test_j1_an_event_that_came_after_the_deadline_is_folded_as_one():
    late, published = threading.Event(), threading.Event()
    store = open_store("memory:")

    def ask(ctx):
        try:
            answer = ctx.step.wait_for_event("answer", "boss", timeout=0.003)
        except StepTimeoutError:
            late.set()
            assert published.wait(LONG)
            answer = "escalated"
        ctx.step.run(answer, lambda: None)
        ctx.step.wait_for_event("a day", "tomorrow")
        return [answer, ctx.step.wait_for_event("kept", "boss")]

    with Engine(store=Mortal(store)) as engine:
        state = workflow(engine=engine)(ask).start(job_id="ada")
        assert late.wait(LONG)
        engine.publish("boss", "yes", "ada")
        published.set()
        resting(state)
    with Engine(store=Mortal(store)) as another:
        another.register(workflow(engine=another)(ask).flow)
        (recovered,) = another.recover()
        another.publish("tomorrow", None, "ada")
        assert ended(recovered) == ["escalated", "yes"]


def test_j1_a_turn_that_is_being_given_an_event_is_not_woken_because_its_time_has_come(engine):
    @workflow(engine=engine)
    def program(ctx):
        return ctx.step.wait_for_event("answer", "boss", timeout=3600)

    state = resting(program.start())
    job = state._job
    (activation,) = job.record.waiting.values()
    keep, keeping, go = job.keep, threading.Event(), threading.Event()

    def slowly(fact, activation=None):
        if type(fact) is Published:
            keeping.set()
            assert go.wait(LONG)
        keep(fact, activation)

    job.keep = slowly
    publisher = threading.Thread(target=engine.publish, args=("boss", "yes", state.job_id))
    publisher.start()
    assert keeping.wait(LONG)
    job._time_came(activation)
    assert list(job.record.waiting.values()) == [activation]
    go.set()
    publisher.join(LONG)
    assert ended(state) == "yes"


@pytest.mark.parametrize("topic", ["", None, 5])
def test_a_topic_is_a_non_empty_string(made, engine, topic):
    @made
    async def program(ctx):
        await ctx.step.wait_for_event("w", topic)

    with pytest.raises(StepError, match="a topic is a non-empty string"):
        program.run()
    with pytest.raises(ExecutionError, match="a topic is a non-empty string"):
        engine.publish(topic)


def test_an_event_for_a_job_that_is_not_there(engine):
    with pytest.raises(ExecutionError, match="no job 'nobody'"):
        engine.publish("topic", 1, "nobody")


# --- other jobs ------------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    n: int
    more: list[int] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    n: int


@workflow
def double(ctx, payload: dict[str, int]) -> Answer:
    return Answer(n=payload["n"] * 2)


@workflow
async def double_later(ctx, payload: dict[str, int]) -> Answer:
    return Answer(n=await ctx.step.run("double", lambda: payload["n"] * 2))


@workflow
def failing(ctx, payload: dict[str, int] | None = None):
    raise ValueError("no good")


@pytest.mark.parametrize("child", [double, double_later])
def test_a_child_answers_with_a_result_that_unpacks(made, child):
    seen = []

    @made
    async def program(ctx) -> list[Answer]:
        result = await ctx.step.invoke_and_wait("call", child, {"n": 4})
        seen.append(result)
        await ctx.step.wait_for("again", seconds=0)
        return [result, Answer(**result)]

    assert program.run() == [Answer(n=8)] * 2
    for result in seen:
        assert isinstance(result, Answer)
        assert result == Answer(n=8)
        assert Answer(n=8) == result
        assert result != Answer(n=9)
        assert {**result} == {"n": 8, "more": []}
        assert result.model_dump() == {"n": 8, "more": []}


def test_results_with_extra_fields_unpack_too_and_stay_hashable(made):
    @workflow
    def child(ctx) -> Open:
        return Open(n=1, other=2)

    @made
    async def program(ctx) -> dict[str, Any]:
        result = await ctx.step.invoke_and_wait("call", child)
        assert result == Open(n=1, other=2)
        assert hash(result) == hash(Open(n=1, other=2))
        return {**result}

    assert program.run() == {"n": 1, "other": 2}


class Pets(RootModel[list[str]]):
    def __iter__(self):
        return iter(self.root)

    def __getitem__(self, item):
        return self.root[item]


class Keyed(BaseModel):
    n: int = 1

    def keys(self):
        return ["own"]


class Ring(BaseModel):
    keys: list[str] = []


@pytest.mark.parametrize(
    ("result", "look"),
    [
        (Pets(["cat", "dog"]), lambda pets: [pets[0], *pets]),
        (Keyed(), lambda keyed: keyed.keys()),
        (Ring(keys=["front", "back"]), lambda ring: ring.keys),
        (Open(n=1, keys=["front"]), lambda opened: opened.keys),
    ],
    ids=["items", "keys", "field", "extra"],
)
def test_a_result_with_items_or_keys_of_its_own_keeps_them(made, result, look):
    @workflow
    def child(ctx) -> type(result):
        return result

    @made
    async def program(ctx):
        answer = await ctx.step.invoke_and_wait("call", child)
        assert (type(answer), answer) == (type(result), result)
        return look(answer)

    assert program.run() == look(result)


def test_a_result_is_no_new_class_to_those_that_count_their_subclasses(made):
    known = []

    class Counted(BaseModel):
        def __init_subclass__(cls, *, tag, **options):
            super().__init_subclass__(**options)
            known.append((cls.__name__, tag))

        @classmethod
        def __pydantic_init_subclass__(cls, **options):
            known.append(cls.__name__)

    class Tagged(Counted, tag="t"):
        n: int = 1

    before = [*known]

    @workflow
    def child(ctx) -> Tagged:
        return Tagged(n=2)

    @made
    async def program(ctx):
        return {**await ctx.step.invoke_and_wait("call", child)}

    assert program.run() == {"n": 2}
    assert known == before


def test_a_childs_result_can_be_kept_in_the_state_emitted_and_returned_by_a_step(made):
    @made
    async def program(ctx) -> Answer:
        result = await ctx.step.invoke_and_wait("call", double, {"n": 4})
        ctx.job_state.update_shared_data("kept", result)
        ctx.job_state.update_shared_data("deep", [{"in": result}])
        same = await ctx.step.run("same", lambda: result)
        again = await ctx.step.invoke_and_wait("next", double, {**same, "n": result.n, "more": 0})
        return again

    state = program.start()
    assert ended(state) == Answer(n=16)
    assert isinstance(state.result, Answer)
    assert state.get_shared_data("kept") == Answer(n=8)


def test_many_children_answer_in_their_order(made):
    @made
    async def program(ctx):
        payloads = [{"n": n} for n in range(20)]
        results = await ctx.step.invoke_all_and_wait("all", double, payloads)
        return [each.n for each in results]

    assert program.run() == [2 * n for n in range(20)]


def test_no_children_are_no_wait(made):
    @made
    async def program(ctx):
        return await ctx.step.invoke_all_and_wait("all", double, [])

    assert program.run() == []


def test_a_child_that_fails_fails_the_step_which_can_be_caught(made):
    seen = []

    @made
    async def program(ctx):
        try:
            await ctx.step.invoke_and_wait("call", failing)
        except StepExecutionError as error:
            seen.append((error.step, error.attempts, str(error), repr(error.__cause__)))
        await ctx.step.wait_for("again", seconds=0)
        return "survived"

    assert program.run(job_id="parent") == "survived"
    assert len(seen) == 2
    assert seen[0] == seen[1]
    step, _, message, cause = seen[0]
    assert step == "call"
    assert "step 'call': job 'parent/1/call' of flow 'failing' failed: ValueError: no good" in message
    assert cause == "ValueError('no good')"


def test_one_failure_among_many(made):
    @workflow
    def child(ctx, n):
        if n == 2:
            raise KeyError(n)
        return n

    @made
    async def program(ctx):
        await ctx.step.invoke_all_and_wait("all", child, [1, 2, 3])

    with pytest.raises(StepExecutionError, match=r"failed: KeyError: 2") as caught:
        program.run()
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_child_that_is_cancelled_fails_the_step(made, engine):
    @workflow(engine=engine)
    def child(ctx):
        ctx.step.wait_for_event("w", "never")

    @made
    async def program(ctx):
        await ctx.step.invoke_and_wait("call", child)

    state = resting(program.start(job_id="parent"))
    child.flow.cancel(engine.get("parent/1/call"), "not wanted")
    assert state.wait(timeout=LONG)
    with pytest.raises(StepExecutionError, match="was cancelled: not wanted"):
        state.raise_for_status()


def test_a_handle_is_returned_at_once_and_leads_to_the_job(made, engine):
    release = threading.Event()

    @workflow
    def child(ctx, payload):
        assert release.wait(LONG)
        return payload

    @made
    async def program(ctx):
        handle = await ctx.step.invoke("start", child, {"n": 1})
        assert isinstance(handle, ChildHandle)
        await ctx.step.wait_for("again", seconds=0)
        return [handle.job_id, handle.flow_id, handle.job_state().job_id]

    state = program.start()
    job_id, flow_id, found = ended(state)
    assert (job_id, flow_id) == (found, "child")
    release.set()
    assert ended(engine.get(job_id)) == {"n": 1}
    assert engine.get(job_id).parent_job_id == state.job_id


def test_a_child_is_started_once(made):
    runs = []

    @workflow
    def child(ctx):
        runs.append(ctx.job_id)

    @made
    async def program(ctx):
        await ctx.step.invoke("a", child)
        await ctx.step.wait_for("one", seconds=0)
        await ctx.step.invoke_and_wait("b", child)
        await ctx.step.wait_for("two", seconds=0)

    state = program.start(job_id="p")
    ended(state)
    assert sorted(runs) in (["p/1/a", "p/1/b"], ["p/1/b"])
    for head in program.engine.jobs(flow_id="child"):
        ended(program.engine.get(head.job_id))
    assert sorted(runs) == ["p/1/a", "p/1/b"]


@pytest.mark.parametrize("target", [None, 5, "flow", workflow])
def test_only_flows_and_workflows_can_be_invoked(made, target):
    @made
    async def program(ctx):
        await ctx.step.invoke_and_wait("call", target)

    with pytest.raises(StepError, match="only a Flow or a workflow can be invoked"):
        program.run()


def test_session_and_user_are_handed_on_and_the_parent_is_known(made):
    @workflow
    def grandchild(ctx):
        return [ctx.flow_id, ctx.job_id, ctx.session_id, ctx.user_id, ctx.parent_job_id]

    @workflow
    async def child(ctx):
        inner = await ctx.step.invoke_and_wait("inner", grandchild)
        return [inner, [ctx.flow_id, ctx.job_id, ctx.session_id, ctx.user_id, ctx.parent_job_id]]

    @made(id="top")
    async def program(ctx):
        inner = await ctx.step.invoke_and_wait("outer", child)
        return [*inner, [ctx.flow_id, ctx.job_id, ctx.session_id, ctx.user_id, ctx.parent_job_id]]

    low, middle, top = program.run(job_id="j", session_id="s", user_id="u")
    assert top == ["top", "j", "s", "u", None]
    assert middle == ["child", "j/1/outer", "s", "u", "j"]
    assert low == ["grandchild", "j/1/outer/1/inner", "s", "u", "j/1/outer"]


class ChildState(BaseModel):
    parent: str = ""
    config: dict[str, str] = {}


@pytest.mark.parametrize("as_model", [True, False])
def test_a_child_begins_with_an_initial_state(made, as_model):
    @workflow(state_schema=ChildState)
    def child(ctx):
        return [ctx.state.parent, ctx.state.config]

    @made
    async def program(ctx):
        given = {"parent": ctx.job_id, "config": {"mode": "production"}}
        one = await ctx.step.invoke_and_wait("a", child, initial_state=ChildState(**given) if as_model else given)
        more = await ctx.step.invoke_all_and_wait("b", child, [None, None], initial_state={"parent": "x"})
        return [one, *more]

    assert program.run(job_id="p") == [["p", {"mode": "production"}], ["x", {}], ["x", {}]]


def test_an_initial_state_that_does_not_fit_is_the_handlers_error(made):
    @workflow(state_schema=ChildState)
    def child(ctx):
        return None

    @made
    async def program(ctx):
        await ctx.step.invoke_and_wait("a", child, initial_state={"unknown": 1})

    with pytest.raises(ExecutionError, match="no field 'unknown'"):
        program.run()


def test_a_parent_whose_child_waits_for_an_event_rests_and_goes_on_with_it(made, engine):
    @workflow
    def child(ctx):
        return ctx.step.wait_for_event("w", "go")

    @made
    async def program(ctx):
        return await ctx.step.invoke_and_wait("call", child)

    state = resting(program.start(job_id="p"))
    engine.publish("go", 7)
    assert ended(state) == 7


def begun(engine, job_id):
    """Wait until there is a job with this id, and return its state."""
    while job_id not in engine.keeping.live:
        threading.Event().wait(0.001)
    return engine.get(job_id)


def test_d9_a_parent_rests_when_the_last_of_its_children_waits_for_the_outside(made, engine):
    release = threading.Event()

    @workflow
    def child(ctx, number):
        if number == 2:
            return ctx.step.wait_for_event("w", "go")
        assert release.wait(LONG)
        return number

    @made
    async def program(ctx):
        return await ctx.step.invoke_all_and_wait("all", child, [1, 2, 3])

    state = program.start(job_id="p")
    resting(begun(engine, "p/1/all.1"))
    release.set()  # what the others answer wakes nobody
    resting(state)
    engine.publish("go", 7)
    assert ended(state) == [1, 7, 3]


def test_d9_a_parent_rests_when_a_child_that_sleeps_waits_only_for_one_that_rests(made, engine):
    @workflow
    def grandchild(ctx, number):
        return ctx.step.wait_for_event("w", "go") if number == 2 else number

    @workflow
    def child(ctx):
        return ctx.step.invoke_all_and_wait("all", grandchild, [1, 2])

    @made
    async def program(ctx):
        return await ctx.step.invoke_and_wait("call", child)

    state = resting(program.start(job_id="p"))
    while "p/1/call" in engine.keeping.live:  # until only what it waits for is known of it
        threading.Event().wait(0.001)
        gc.collect()
    with state._job.lock:
        assert state._job.at_rest
    engine.publish("go", 7)
    assert ended(state) == [1, 7]


def test_cancelling_a_parent_cancels_its_children(made, engine):
    @workflow
    def child(ctx):
        ctx.step.wait_for_event("w", "go")

    @made
    async def program(ctx):
        await ctx.step.invoke_and_wait("call", child)

    state = resting(program.start(job_id="p"))
    program.flow.cancel(state, "enough")
    child_state = engine.get("p/1/call")
    assert child_state.wait(timeout=LONG)
    assert child_state.status == "cancelled"
