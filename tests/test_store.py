"""S2-S5: typed state, the store and its dotted paths, atomic edits, working copies."""

from __future__ import annotations

import threading
import time
from datetime import datetime

import pytest
from generated import examples
from hypothesis import given, strategies as st
from parts import Sink, Source, Step, attempt, chain, run
from pydantic import BaseModel, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import to_json

from routilux import (
    ConflictError,
    ContextError,
    DeclarationError,
    ErrorHandler,
    Flow,
    PathError,
    StateError,
)
from routilux.graph.sizes import size_of
from routilux.store.plain import size_of_few

LONG = 20.0


class Cart(BaseModel):
    items: list[dict] = []
    total: float = 0.0
    code: str | None = None


class Counter(BaseModel):
    count: int = Field(default=0, ge=0)
    names: list[str] = []


class Span(BaseModel):
    low: int = 0
    high: int = 10

    @model_validator(mode="after")
    def in_order(self):
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


# --- S2: one thing seen three ways --------------------------------------------------------------------------------


def test_s2_shared_data_store_and_state_are_one_thing():
    def handler(ctx):
        ctx.store.set("a", 1)
        assert (ctx.state["a"], ctx.job_state.get_shared_data("a")) == (1, 1)
        ctx.state["a"] = 2
        assert (ctx.store.get("a"), ctx.job_state.get_shared_data("a")) == (2, 2)
        ctx.job_state.update_shared_data("a", 3)
        assert (ctx.store.get("a"), ctx.state["a"]) == (3, 3)
        assert ctx.store.get_state() == dict(ctx.state) == {"a": 3}

    run(handler)


def test_s2_under_a_schema_too():
    def handler(ctx):
        ctx.store.set("count", 1)
        assert (ctx.state.count, ctx.job_state.get_shared_data("count")) == (1, 1)
        ctx.state.count += 1
        assert (ctx.store.get("count"), ctx.job_state.get_shared_data("count")) == (2, 2)
        ctx.job_state.update_shared_data("count", 3)
        ctx.job_state.update_shared_data("beside", "allowed here")
        assert (ctx.store.get("count"), ctx.state.count) == (3, 3)
        assert ctx.store.get_state() == Counter(count=3)
        assert isinstance(ctx.state, Counter)
        assert ctx.state == Counter(count=3)
        assert ctx.state.model_dump() == {"count": 3, "names": []}

    state = run(handler, state_schema=Counter)
    assert (state.get_shared_data("count"), state.get_shared_data("beside")) == (3, "allowed here")


def test_s2_a_dotted_path_leads_through_mappings_lists_and_models():
    def handler(ctx):
        ctx.store.set("cart", {"items": [{"price": 1}, {"price": 2}]})
        assert ctx.store.get("cart.items.1.price") == 2
        ctx.store.set("cart.items.-1.price", 5)
        ctx.store.set("cart.customer.name", "Ada")
        assert ctx.store.get("cart") == {"items": [{"price": 1}, {"price": 5}], "customer": {"name": "Ada"}}
        ctx.store.set("model", Counter(names=["a"]))
        ctx.store.set("model.names.0", "b")
        assert ctx.store.get("model.names") == ["b"]

    run(handler)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "there is no 'missing' among the keys 'cart'"),
        ("cart.missing", "there is no 'missing' among the keys 'items'"),
        ("cart.items.2", "'2' is no index of a list of 1"),
        ("cart.items.x", "'x' is no index of a list of 1"),
        ("cart.items.0.deep", "there is no 'deep' in int 1"),
    ],
)
def test_s2_a_path_that_leads_nowhere_says_where_it_ends_unless_there_is_a_default(path, message):
    def handler(ctx):
        ctx.store.set("cart", {"items": [1]})
        assert ctx.store.get(path, default="default") == "default"
        assert ctx.store.get(path, None) is None
        with pytest.raises(PathError, match=f"path '{path}': {message}"):
            ctx.store.get(path)

    run(handler)


@pytest.mark.parametrize("path", ["", ".", "a..b", "a.", 3, None, ["a"]])
def test_s2_a_path_must_be_names_joined_by_dots(path):
    def handler(ctx):
        for operation in (lambda: ctx.store.get(path, 1), lambda: ctx.store.set(path, 1)):
            with pytest.raises(PathError, match="a path must be names and indices joined by dots"):
                operation()

    run(handler)


def test_s2_a_path_cannot_be_set_beyond_a_list_or_inside_a_plain_value():
    def handler(ctx):
        ctx.store.set("cart", {"items": [1]})
        for path in ("cart.items.1", "cart.items.0.deep"):
            with pytest.raises(PathError, match=f"path '{path}'"):
                ctx.store.set(path, 1)
        assert ctx.store.get("cart") == {"items": [1]}

    run(handler)


def test_s2_set_state_replaces_and_clear_empties():
    def handler(ctx):
        ctx.store.set("a", 1)
        ctx.store.set_state({"b": 2})
        assert ctx.store.get_state() == {"b": 2}
        ctx.store.clear()
        assert ctx.store.get_state() == {}
        assert len(ctx.state) == 0
        with pytest.raises(StateError, match="a model or a mapping"):
            ctx.store.set_state([1])

    run(handler)


def test_s2_set_state_and_clear_under_a_schema():
    def handler(ctx):
        ctx.store.set_state(Counter(count=5, names=["a"]))
        ctx.store.set_state({"count": 6})
        assert ctx.store.get_state() == Counter(count=6)
        ctx.store.clear()
        assert ctx.store.get_state() == Counter()

    run(handler, state_schema=Counter)


def test_s2_under_a_schema_unknown_fields_are_refused_with_the_nearest():
    def handler(ctx):
        for operation in (
            lambda: ctx.store.get("cuont", 1),
            lambda: ctx.store.set("cuont", 1),
            lambda: setattr(ctx.state, "cuont", 1),
            lambda: ctx.store.set_state({"cuont": 1}),
        ):
            with pytest.raises(StateError, match=r"Counter has no field 'cuont'; did you mean 'count'\?"):
                operation()

    run(handler, state_schema=Counter)


def test_s2_under_a_schema_every_write_is_validated_and_coerced():
    def handler(ctx):
        for operation in (
            lambda: ctx.store.set("count", -1),
            lambda: setattr(ctx.state, "count", "x"),
            lambda: ctx.job_state.update_shared_data("count", -1),
            lambda: ctx.store.set("names.0", 5) if ctx.store.get("names") else ctx.store.set("names", [5]),
            lambda: ctx.store.set_state({"count": -1}),
        ):
            with pytest.raises(StateError, match=r"'chain', routine 'r0', slot 'input': .*(count|names)"):
                operation()
        ctx.store.set("count", "7")
        assert ctx.store.get("count") == 7

    assert run(handler, state_schema=Counter).get_shared_data("count") == 7


def test_s2_validators_of_fields_and_of_the_model_are_honoured():
    class Trimmed(BaseModel):
        name: str = ""

        @field_validator("name")
        @classmethod
        def trimmed(cls, value):
            return value.strip()

    def trims(ctx):
        ctx.state.name = "  Ada "
        assert ctx.state.name == "Ada"

    assert run(trims, state_schema=Trimmed).get_shared_data("name") == "Ada"

    def spans(ctx):
        with pytest.raises(StateError, match="low must not be above high"):
            ctx.state.low = 11
        with ctx.store.edit_state() as state:
            state.low, state.high = 20, 30
        with pytest.raises(StateError, match="low must not be above high"):  # noqa: SIM117
            with ctx.store.edit_state() as state:
                state.high = 5

    state = run(spans, state_schema=Span)
    assert (state.get_shared_data("low"), state.get_shared_data("high")) == (20, 30)


# --- initial state and what a job begins with ---------------------------------------------------------------------


@pytest.mark.parametrize("given", [{"count": 10, "names": ["preset"]}, Counter(count=10, names=["preset"])])
def test_s2_a_job_begins_with_the_initial_state(given):
    def handler(ctx):
        assert (ctx.state.count, ctx.state.names) == (10, ["preset"])
        ctx.state.names.append("more")

    state = run(handler, state_schema=Counter, initial_state=given)
    assert state.get_shared_data("names") == ["preset", "more"]
    assert dict(given)["names"] == ["preset"]


def test_s2_an_initial_state_without_a_schema_is_the_shared_data():
    state = run(lambda ctx: ctx.store.set("n", ctx.store.get("n") + 1), initial_state={"n": 1})
    assert state.get_shared_data("n") == 2


def test_s2_a_schema_without_defaults_is_one_clear_error():
    class Strict(BaseModel):
        must: int

    with pytest.raises(StateError, match=r"'chain'.*Strict: must: Field required; give every field a default"):
        attempt(lambda ctx: None, state_schema=Strict)
    assert attempt(lambda ctx: None, state_schema=Strict, initial_state={"must": 1}).status == "completed"


@pytest.mark.parametrize("given", [{"count": -1}, {"other": 1}, [1], {1: 2}])
def test_s2_a_bad_initial_state_is_refused_before_anything_runs(given):
    ran = []
    with pytest.raises(StateError):
        attempt(lambda ctx: ran.append(1), state_schema=Counter, initial_state=given)
    assert ran == []


@pytest.mark.parametrize("schema", [dict, Counter(), "Counter", 5])
def test_s2_a_schema_must_be_a_model_class(schema):
    with pytest.raises(DeclarationError, match="state_schema must be a pydantic model class"):
        Flow("f", state_schema=schema)


def test_s5_a_state_above_the_limit_is_refused_at_the_start():
    with pytest.raises(StateError, match=r"bytes as JSON, more than max_state_bytes=1,048,576"):
        attempt(lambda ctx: None, initial_state={"text": "x" * 2**20})
    with pytest.raises(StateError, match="max_state_bytes=10"):
        attempt(lambda ctx: None, initial_state={"text": "x" * 20}, max_state_bytes=10)
    assert attempt(lambda ctx: None, initial_state={"handle": object()}).status == "completed"


NUMBERS = st.integers() | st.integers(-(2**70), 2**70) | st.floats()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.binary() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
)


@given(JSON_VALUES)
@examples(200)
def test_s5_the_size_of_few_plain_values_is_that_of_the_json_which_pydantic_makes_of_them(value):
    form = to_json(value, fallback=lambda unknown: None, bytes_mode="base64")
    assert size_of_few(value) in (None, len(form))
    assert size_of("key", value) == len(form) + len('"key":,')


def test_s5_what_is_not_plain_or_not_few_is_left_to_pydantic():
    assert size_of_few({"a": [1, 2.5, None, True, "\u00e4\n"]}) == len('{"a":[1,2.5,null,true,"ae\\n"]}')
    for value in ([1] * 5000, {"~": 1}, {1: 2}, 2**70, float("inf"), (1,), datetime(2026, 1, 1), Counter()):
        assert size_of_few(value) is None


def test_s5_a_value_without_json_has_no_size():
    loop = []
    loop.append(loop)
    assert size_of("key", loop) == size_of("key", "\ud800") == len('"key":,')


def test_l5_typed_state_is_carried_into_the_next_job():
    def count(ctx):
        ctx.state.count += 1

    flow = chain(Step(lambda step: count(step.get_execution_context())), state_schema=Counter)
    first = flow.execute("r0")
    second = flow.execute("r0", job_state=first)
    third = flow.execute("r0", job_state=second, initial_state={"names": ["x"]})
    assert [each.get_shared_data("count") for each in (first, second, third)] == [1, 2, 3]
    assert third.get_shared_data("names") == ["x"]


# --- S4: the working copy -----------------------------------------------------------------------------------------


def test_s4_in_place_changes_are_committed_and_seen_by_their_own_turn_at_once():
    seen = []

    def handler(ctx, price):
        ctx.state.items.append({"price": price})
        ctx.state.total += price
        seen.append(len(ctx.job_state.get_shared_data("items")))

    flow = chain(
        Source([1, 2, 3]),
        Step(lambda step, data: handler(step.get_execution_context(), data)),
        state_schema=Cart,
    )
    state = flow.execute("r0")
    assert seen == [1, 2, 3]  # a turn sees its own changes at once
    assert state.get_shared_data("items") == [{"price": 1}, {"price": 2}, {"price": 3}]
    assert state.get_shared_data("total") == 6.0


def test_s4_in_place_changes_without_a_schema():
    def handler(ctx):
        ctx.state["messages"] = []
        ctx.state["messages"].append({"role": "user"})
        ctx.state.setdefault("tags", []).append("x")
        del ctx.state["gone"]

    state = run(handler, initial_state={"gone": 1})
    assert state.get_shared_data("messages") == [{"role": "user"}]
    assert state.get_shared_data("tags") == ["x"]
    assert state.get_shared_data("gone", "missing") == "missing"


def test_s4_a_bad_in_place_change_fails_the_activation_and_leaves_the_last_good_state():
    def handler(ctx):
        ctx.state.names.append("good")
        ctx.state.names = [*ctx.state.names]
        ctx.state.names.append(5)

    state = attempt(handler, state_schema=Counter)
    assert state.status == "failed"
    assert state.error.type == "StateError"
    assert "names" in state.error.message
    assert state.get_shared_data("names") == ["good"]


def test_t3_a_handler_that_raises_commits_its_in_place_changes():
    def handler(ctx):
        ctx.state.names.append("kept")
        raise ValueError("boom")

    state = attempt(handler, state_schema=Counter)
    assert state.error.type == "ValueError"
    assert state.get_shared_data("names") == ["kept"]


def test_t3_what_the_handler_raised_is_the_error_also_when_its_changes_are_refused():
    def handler(ctx):
        ctx.state.names.append(5)
        raise ValueError("boom")

    state = attempt(handler, state_schema=Counter)
    assert [error.type for error in state.errors] == ["ValueError"]
    assert state.get_shared_data("names") == []


def test_s4_reading_the_state_changes_nothing():
    def handler(ctx):
        assert ctx.state.names == []
        assert ctx.state.count == 0

    state = run(handler, state_schema=Counter)
    assert state._record.revision == 1  # the initial state


def test_s4_a_retry_begins_with_the_state_as_it_is():
    def handler(ctx):
        ctx.state.names.append(str(ctx.attempt))
        if ctx.attempt == 1:
            raise OSError("again")

    flow = chain(Step(lambda step: handler(step.get_execution_context())), state_schema=Counter)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    assert flow.execute("r0").get_shared_data("names") == ["1", "2"]


def test_s2_an_in_place_change_of_what_another_has_changed_since_is_a_conflict():
    read, changed = threading.Event(), threading.Event()

    def first(step, data):
        names = step.get_execution_context().state.names
        read.set()
        assert changed.wait(LONG)
        names.append("first")

    def second(step, data):
        assert read.wait(LONG)
        step.get_execution_context().store.set("names", ["second"])
        changed.set()

    flow = chain(Source([1]), Step(first), state_schema=Counter, execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(second), "second")
    flow.connect("r0", "output", "second", "input")
    with flow:
        state = flow.execute("r0")
    assert state.error.type == "ConflictError"
    assert "edit_state()" in state.error.message
    assert state.get_shared_data("names") == ["second"]


# --- S3: edits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, Counter])
def test_s3_edits_by_eight_routines_at_once_count_exactly(schema):
    def edit(step, data):
        with step.get_execution_context().store.edit_state() as state:
            if schema is None:
                number = state.get("count", 0)
                time.sleep(0)
                state["count"] = number + 1
            else:
                number = state.count
                time.sleep(0)
                state.count = number + 1

    flow = Flow("edits", execution_strategy="concurrent", max_workers=8, state_schema=schema)
    flow.add_routine(Source(range(25)), "source")
    for number in range(8):
        flow.add_routine(Step(edit), f"editor{number}")
        flow.connect("source", "output", f"editor{number}", "input")
    with flow:
        state = flow.execute("source")
    state.raise_for_status()
    assert state.get_shared_data("count") == 200


def test_s3_an_edit_that_raises_leaves_the_state_and_the_queue_as_they_were():
    sink = Sink()

    def handler(step, **_):
        ctx = step.get_execution_context()

        def edit():
            with ctx.store.edit_state() as state:
                state.count = 5
                state.names.append("x")
                step.emit("output", data="inside")
                raise KeyError("out")

        with pytest.raises(KeyError):
            edit()
        assert ctx.store.get_state() == Counter()
        with ctx.store.edit_state() as state:
            state.count += 1

    flow = chain(Step(handler), sink, state_schema=Counter)
    state = flow.execute("r0")
    state.raise_for_status()
    assert state.get_shared_data("count") == 1
    assert sink.got == []


def test_s3_an_edit_that_does_not_fit_the_schema_is_refused_whole():
    def handler(ctx):
        def edit():
            with ctx.store.edit_state() as state:
                state.names.append("x")
                state.count = -1

        with pytest.raises(StateError, match="count"):
            edit()
        assert ctx.store.get_state() == Counter()

    run(handler, state_schema=Counter)


def test_s3_emissions_made_inside_leave_at_its_end():
    pending = []

    def handler(step, **_):
        ctx = step.get_execution_context()
        with ctx.store.edit_state() as state:
            step.emit("output", data=1)
            state["n"] = 1
            pending.append(ctx.job_state.pending_count)
        pending.append(ctx.job_state.pending_count)

    sink = Sink()
    chain(Step(handler), sink).execute("r0").raise_for_status()
    assert pending == [1, 2]
    assert sink.got == [1]


def test_s3_under_retry_emissions_of_an_edit_are_held_as_the_others_are():
    def handler(step, **_):
        ctx = step.get_execution_context()
        with ctx.store.edit_state() as state:
            step.emit("output", data=ctx.attempt)
            state["n"] = 1
        if ctx.attempt == 1:
            raise OSError("again")

    sink = Sink()
    flow = chain(Step(handler), sink)
    flow.set_error_handler(ErrorHandler("retry", retry_delay=0.0))
    flow.execute("r0").raise_for_status()
    assert sink.got == [2]


def test_s3_readers_never_see_half_an_edit():
    half, looked = threading.Event(), threading.Event()

    def editor(step):
        with step.get_execution_context().store.edit_state() as state:
            state["a"] = 1
            half.set()
            assert looked.wait(LONG)
            state["b"] = 1

    with chain(Step(editor)) as flow:
        job = flow.start("r0", initial_state={"a": 0, "b": 0})
        assert half.wait(LONG)
        assert (job.get_shared_data("a"), job.get_shared_data("b")) == (0, 0)
        looked.set()
        assert job.wait(LONG)
    assert (job.get_shared_data("a"), job.get_shared_data("b")) == (1, 1)


def test_s3_the_edited_state_is_an_isolated_copy():
    def handler(ctx):
        kept = []
        with ctx.store.edit_state() as state:
            kept.append(state["deep"])
            state["deep"][0].append(1)
        kept[0][0].append("after the edit")

    assert run(handler, initial_state={"deep": [[]]}).get_shared_data("deep") == [[1]]


def test_s3_nested_edits_and_the_wrong_kind_of_with_are_refused():
    def handler(ctx):
        with ctx.store.edit_state(), pytest.raises(StateError, match="edits cannot be nested"):  # noqa: SIM117
            with ctx.store.edit_state():
                pass

        async def wrong():
            async with ctx.store.edit_state():
                pass

        with pytest.raises(StateError, match="plain handler: use 'with"):
            wrong().send(None)

    run(handler)


def test_s3_a_plain_write_of_an_edited_key_meanwhile_is_a_conflict():
    inside, wrote = threading.Event(), threading.Event()

    def editor(step, data):
        with step.get_execution_context().store.edit_state() as state:
            number = state["n"]
            inside.set()
            assert wrote.wait(LONG)
            state["n"] = number + 1

    def writer(step, data):
        assert inside.wait(LONG)
        step.get_execution_context().store.set("n", 10)
        wrote.set()

    flow = chain(Source([1]), Step(editor), execution_strategy="concurrent", max_workers=3)
    flow.add_routine(Step(writer), "writer")
    flow.connect("r0", "output", "writer", "input")
    with flow:
        state = flow.execute("r0", initial_state={"n": 0})
    with pytest.raises(ConflictError):
        state.raise_for_status()
    assert state.get_shared_data("n") == 10


def test_s3_an_editor_whose_time_is_up_does_not_keep_the_others_out():
    release = threading.Event()

    def editor(step, data):
        with step.get_execution_context().store.edit_state() as state:
            if data == 0:
                release.wait(LONG)
            state["n"] = data

    flow = chain(Source(range(3)), Step(editor, timeout=0.05))
    flow.set_error_handler(ErrorHandler("continue"))
    state = flow.execute("r0")
    release.set()
    assert state.status == "completed"
    assert [error.type for error in state.errors] == ["HandlerTimeoutError"]
    assert state.get_shared_data("n") == 2


def test_s3_an_edit_copies_the_keys_it_touches_and_no_others():
    class Noted(BaseModel):
        copies: int = 0

        def __copy__(self):
            copied.append(1)
            return super().__copy__()

    copied = []

    def handler(ctx):
        copied.clear()
        with ctx.store.edit_state() as state:
            state["key5"].copies += 1

    state = run(handler, initial_state={f"key{number}": Noted() for number in range(100)})
    assert len(copied) == 2  # once to work on, once to keep
    assert state.get_shared_data("key5").copies == 1


@examples(60)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(), max_size=3)), st.data())
def test_s3_edits_do_what_the_same_operations_do_to_a_dict(initial, data):
    operations = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["set", "append", "pop", "get", "clear"]), st.sampled_from("abc")), max_size=8
        )
    )

    def play(target):
        for name, key in operations:
            if name == "set":
                target[key] = [len(target)]
            elif name == "append":
                target.setdefault(key, []).append(9)
            elif name == "pop":
                target.pop(key, None)
            elif name == "get":
                target.get(key)
            else:
                target.clear()

    def edits(ctx):
        with ctx.store.edit_state() as state:
            play(state)
        seen.append(ctx.store.get_state())

    def works(ctx):
        play(ctx.state)

    seen = []
    expected = {key: list(value) for key, value in initial.items()}
    play(expected)
    run(edits, initial_state=initial)
    state = run(works, initial_state=initial)
    assert seen == [expected]
    assert {key: state.get_shared_data(key) for key in "abc" if state.get_shared_data(key) is not None} == expected


# --- D1 -----------------------------------------------------------------------------------------------------------


def test_d1_store_and_state_belong_to_the_handlers_thread_and_turn():
    kept = []

    def handler(ctx):
        kept.append((ctx, ctx.store))

        def elsewhere():
            for operation in (lambda: ctx.store.get("a", 1), lambda: ctx.state, lambda: kept[0][1].set("a", 1)):
                with pytest.raises(ContextError):
                    operation()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    run(handler)
    ctx, store = kept[0]
    for operation in (lambda: ctx.store, lambda: ctx.state, lambda: store.get("a"), lambda: store.set("a", 1)):
        with pytest.raises(ContextError):
            operation()


# --- what people write --------------------------------------------------------------------------------------------


def test_a_batch_that_counts_what_it_processed_and_keeps_what_failed():
    class Processing(BaseModel):
        processed: int = 0
        failed: list[str] = []
        started_at: str = ""

    def process(ctx, items, timestamp):
        ctx.state.started_at = timestamp
        for item in items:
            try:
                if "bad" in item:
                    raise ValueError(item)
                ctx.state.processed += 1
            except ValueError:
                ctx.state.failed.append(item)

    state = run(process, {"items": ["a", "bad1", "b", "bad2"], "timestamp": "now"}, state_schema=Processing)
    assert state.get_shared_data("processed") == 2
    assert state.get_shared_data("failed") == ["bad1", "bad2"]


def test_a_conversation_that_goes_on_over_several_jobs():
    class Conversation(BaseModel):
        messages: list[dict] = []
        turns: int = 0

    def chat(step, message):
        ctx = step.get_execution_context()
        ctx.state.messages.append({"role": "user", "content": message})
        ctx.state.turns += 1

    flow = chain(Step(chat), state_schema=Conversation)
    state = None
    for message in ("hello", "again", "bye"):
        state = flow.execute("r0", {"message": message}, job_state=state)
    assert state.get_shared_data("turns") == 3
    assert [each["content"] for each in state.get_shared_data("messages")] == ["hello", "again", "bye"]


# --- one thing, also in the middle of a turn ----------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, Counter])
def test_s2_changes_in_place_are_seen_and_kept_by_all_other_operations_of_the_turn(schema):
    def handler(ctx):
        names = ctx.state.names if schema else ctx.state.setdefault("names", [])
        names.append("a")
        assert ctx.store.get("names") == ["a"]
        names.append("b")
        assert ctx.job_state.get_shared_data("names") == ["a", "b"]
        names.append("c")
        with ctx.store.edit_state() as state:
            (state.names if schema else state["names"]).append("d")
        names = ctx.state.names if schema else ctx.state["names"]
        names.append("e")
        ctx.store.set("names.0", "A")
        (ctx.state.names if schema else ctx.state["names"]).append("f")

    state = run(handler, state_schema=schema)
    assert state.get_shared_data("names") == ["A", "b", "c", "d", "e", "f"]


def test_s2_fields_with_an_alias_go_by_their_names():
    class Aliased(BaseModel):
        count: int = Field(default=0, alias="Count")

    def handler(ctx):
        ctx.state.count += 1
        ctx.store.set_state({"count": ctx.state.count + 1})

    assert run(handler, state_schema=Aliased, initial_state={"count": 5}).get_shared_data("count") == 7


def test_s2_models_keep_their_methods_properties_and_private_attributes():
    class Rich(BaseModel):
        count: int = 0
        _step: int = PrivateAttr(default=3)

        @property
        def doubled(self):
            return self.count * 2

        def bump(self):
            self.count += self._step

    def handler(ctx):
        ctx.state.bump()
        assert ctx.state.doubled == 6
        with ctx.store.edit_state() as state:
            state.bump()
        assert ctx.store.get_state().doubled == 12

    assert run(handler, state_schema=Rich).get_shared_data("count") == 6
